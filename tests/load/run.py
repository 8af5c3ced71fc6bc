"""A load on a project, from a test: starts the relay and the generator, and brings back the report.

with Load(project, "staging") as load:
    load.enter("deploy")
    project.invoke("deploy", "--env", "staging")
assert not load.report.all.lost and load.ledger.exact
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import httpx

from tests import template
from tests.load import ledger
from tests.load.generator import TIMEOUT, Job
from tests.load.mix import MIXTURES, PROBES, User
from tests.load.report import Report
from tests.stack.project import Project, docker

# More than one, so that neither a row's lock nor one person's place in the log is what all requests wait for.
USERS = 8
# Of the generator and the relay.
NICE = -15
PASSWORD = "correct horse battery staple"


class Load:
    """A load as a context: it begins with the first phase `idle`, and ends with the block.

    rate: requests a second. A load lasts no longer than the access tokens it begins with. published: by the port that
    nginx publishes, which stays when the container gets another address. target: HOST:PORT of something else that
    takes the requests, with the same certificate. mixture: what is asked (mix.MIXTURES); all but "probes" have writes
    to look up and need users.
    """

    report: Report
    ledger: ledger.Ledger

    def __init__(
        self,
        project: Project,
        environment: str = "staging",
        *,
        rate: float = 100,
        transports: Sequence[str] = ("kept", "fresh"),
        published: bool = False,
        target: str = "",
        mixture: str = "stack",
    ) -> None:
        self._project, self._environment, self._rate, self._transports = project, environment, rate, transports
        self._published, self._target, self._mixture = published, target, mixture
        self.run = uuid.uuid4().hex[:8]

    def __enter__(self) -> Load:
        self._relay = self._start("tests.load.relay", *(f"--target={target}" for target in self._targets()))
        assert self._relay.stdout
        job = Job(
            host="127.0.0.1",
            port=int(self._relay.stdout.readline()),
            authority=self._authority(),
            trust=str(self._project.certificate_authority(self._environment)),
            rate=self._rate,
            run=self.run,
            transports=list(self._transports),
            users=self._users() if MIXTURES[self._mixture] is not PROBES else [User("", "", "", "")],
            mixture=self._mixture,
        )
        self._generator = self._start("tests.load.generator")
        assert self._generator.stdout
        self._tell(job.encode())
        assert self._generator.stdout.readline().strip() == "started"
        self.enter("idle")
        return self

    def _targets(self) -> list[str]:
        """What takes the requests, as HOST:PORT: one of these."""
        # As if it came from another machine: the kernel sends that straight to the container, while what this machine
        # asks of itself would pass a process of the engine's, which has other things to do during a rollout.
        port = self._project.settings(self._environment)["SSL_PORT"]
        return [self._target or (f"127.0.0.1:{port}" if self._published else f"{self._nginx()}:8443")]

    def _authority(self) -> str:
        """What requests call the site."""
        return f"localhost:{self._project.settings(self._environment)['SSL_PORT']}"

    def _client(self) -> httpx.Client:
        """What makes the accounts."""
        return self._project.client(self._environment)

    def _count(self, query: str) -> list[str]:
        """Rows of a query on the database, columns separated by |."""
        return ledger.sql(self._project, self._environment, query)

    @staticmethod
    def _start(module: str, *arguments: str) -> subprocess.Popen[str]:
        # First in line for the processor, where that is allowed: users have machines of their own. Where sessions
        # share it evenly (autogroup), a nice value counts only within one; so each has its own, which is as nice.
        argv = ["nice", "-n", str(NICE), sys.executable, "-m", module, *arguments]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        process = subprocess.Popen(argv, cwd=template.ROOT, text=True, start_new_session=True, **pipes)
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/autogroup").write_text(str(NICE))
        return process

    def _nginx(self) -> str:
        """An address of nginx's container."""
        (name,) = (each for each in self._project.containers(self._environment) if each.endswith("-nginx-1"))
        addresses = docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", name)
        return addresses.split()[0]

    def _users(self) -> list[User]:
        """Accounts of this run's own, each with an item to read."""
        users = []
        for number in range(USERS):
            email = f"user{number}.{self.run}@example.com"
            with self._client() as client:
                self._project.sign_in(client, email, PASSWORD)
                tokens = client.post("/api/v1/auth/login", json={"email": email, "password": PASSWORD}).json()
                made = client.post("/api/v1/items", json={"title": "to be read"})
                assert made.status_code == 201, made.text
            users.append(User(email, tokens["access_token"], tokens["refresh_token"], made.json()["id"]))
        return users

    def _tell(self, line: str) -> None:
        assert self._generator.stdin
        self._generator.stdin.write(f"{line}\n")
        self._generator.stdin.flush()

    def enter(self, phase: str) -> None:
        """Requests belong to this phase from now on."""
        self._tell(phase)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            said, _ = self._generator.communicate(timeout=2 * TIMEOUT)
            self.report = Report.parse(json.loads(said))
            print(self.report)
        finally:
            for process in (self._generator, self._relay):
                if process.poll() is None:
                    process.terminate()
                process.communicate()
        if error is None and MIXTURES[self._mixture] is not PROBES:
            self.ledger = ledger.check(self._count, self.run, self.report.samples)
            print(self.ledger)
