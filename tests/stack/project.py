"""A baked project on a real engine, driven the way its owner drives it: through `invoke`."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests import template
from tests.ports import free_port

_number = itertools.count(1)

# Waits that only matter while somebody sends requests. A test that looks at something else does not sit through them.
_QUICK_SETTINGS = {"DRAIN_SECONDS": "0", "ROLLOUT_STEADY_SECONDS": "0"}
# Of a worker that nginx replaces; kept-alive connections last as long as ever otherwise.
_LAST_REQUEST = re.compile(r"^keepalive_min_timeout \d+s;", re.MULTILINE)


# The run of pytest that a project belongs to, in the environment of all its processes; it is part of every name.
RUN = "TEST_RUN"


def _run() -> str:
    return os.environ.get(RUN) or str(os.getpid())


def docker(*arguments: str, check: bool = True) -> str:
    """Output of a docker command: for looking at what `invoke` left behind, never for driving the stack."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 or not check, f"docker {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout.strip()


@dataclass
class Project:
    """One baked project and the environment its commands run in."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @classmethod
    def bake(cls, parent: Path, *, quick: bool = False, source: Path | None = None, **answers: str) -> Project:
        """Bake into `parent`, on ports and under names that nothing else uses: several may run beside each other.

        quick: without the waits that protect requests during a rollout. Not for a test that sends requests meanwhile.
        source: another state of the template, as it would be cloned.
        """
        # Two stacks of one organisation and environment would move each other's tags; and a stack that somebody runs
        # from the same answers is never touched.
        own = "-".join(filter(None, (_run(), os.environ.get("PYTEST_XDIST_WORKER"), str(next(_number)))))
        answers = {"project_name": "Acme Stack", "organisation": f"Acme {own}", **answers}
        folder = template.bake(parent, source or template.export(parent / "template"), **answers)
        project = cls(folder)
        for environment in ("dev", "staging", "prod"):
            name = f"{folder.name}-{environment}-{own}"
            project.set(environment, COMPOSE_PROJECT_NAME=name, BIND_ADDRESS="127.0.0.1")
            ports = [key for key in project.settings(environment) if key.endswith("_PORT") and key != "SMTP_PORT"]
            project.set(environment, **{key: str(free_port()) for key in ports})
            if quick:
                project.set(environment, **_QUICK_SETTINGS)
        if quick:
            http = folder / "infrastructure/nginx/http.conf"
            text, count = _LAST_REQUEST.subn("keepalive_min_timeout 1s;", http.read_text())
            assert count == 1, f"keepalive_min_timeout is not where it was in {http}"
            http.write_text(text)
        return project

    @classmethod
    @contextmanager
    def temporary(cls, parent: Path, *, quick: bool = True, **answers: str) -> Iterator[Project]:
        """A project as `bake` makes it; nothing of it stays on the engine afterwards."""
        project = cls.bake(parent, quick=quick, **answers)
        try:
            yield project
        finally:
            project.remove()

    # -- settings ------------------------------------------------------------------------------------------------

    def env_file(self, environment: str = "dev") -> Path:
        return self.folder / "config" / environment / ".env"

    def settings(self, environment: str = "dev") -> dict[str, str]:
        """The plain KEY=value lines of an environment's file, in the order of the file."""
        text = self.env_file(environment).read_text()
        return dict(re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", text, flags=re.MULTILINE))

    def set(self, environment: str = "dev", **values: str) -> None:
        """Edit settings in place, as an owner does with an editor. An unknown key is an error of the test."""
        text = self.env_file(environment).read_text()
        for key, value in values.items():
            text, count = re.subn(rf"^{key}=.*$", f"{key}={value}", text, flags=re.MULTILINE)
            assert count == 1, f"{key} stands {count} times in {self.env_file(environment)}"
        self.env_file(environment).write_text(text)

    def name(self, environment: str = "dev") -> str:
        return self.settings(environment)["COMPOSE_PROJECT_NAME"]

    # -- commands ------------------------------------------------------------------------------------------------

    def _argv(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "invoke", *arguments]

    def invoke(
        self, *arguments: str, code: int | None = 0, timeout: float = 600, stdin: str = "", **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `invoke ARGUMENTS`; `code` is the exit status asked for, None accepts any."""
        done = subprocess.run(
            self._argv(arguments),
            cwd=self.folder,
            env={**os.environ, **self.environ, **environ},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        report = f"$ invoke {' '.join(arguments)}  -> {done.returncode}\n{done.stdout}\n{done.stderr}"
        print(report)
        # Of ours: what a service logs is shown too, and indented.
        assert not re.search(r"^Traceback \(most recent call last\)", done.stderr, re.MULTILINE), report
        if code is not None:
            assert done.returncode == code, report
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `invoke ARGUMENTS` in a foreground group of its own, and do not wait."""
        return subprocess.Popen(
            self._argv(arguments),
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def reach(self, at: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        """Start `invoke ARGUMENTS` and wait for a line of its output that contains `at`; its output up to there."""
        process = self.start(*arguments)
        assert process.stdout
        said = ""
        while line := process.stdout.readline():
            said += line
            if at in line:
                return process, said
        raise AssertionError(f"invoke {' '.join(arguments)} ended without saying {at!r}:\n{said}")

    def interrupted(
        self,
        *arguments: str,
        at: str,
        after: float = 0,
        how: signal.Signals = signal.SIGINT,
        alone: bool = False,
    ) -> tuple[int, str]:
        """Run `invoke ARGUMENTS` and signal its foreground group, as Ctrl-C does, some seconds after a line with `at`.

        By what it says and not by the clock: the same moment on every machine. alone: the signal is for the command
        only, so that what it has started goes on. Returns the exit code and the output.
        """
        process, said = self.reach(at, *arguments)
        time.sleep(after)
        assert process.poll() is None, f"ended before it could be interrupted:\n{said}{process.communicate()[0]}"
        if alone:
            process.send_signal(how)
            process.wait(timeout=120)
            # What goes on may hold the pipe open.
            process.stdout.close()  # type: ignore[union-attr]
        else:
            os.killpg(process.pid, how)
            said += process.communicate(timeout=120)[0]
        print(f"$ invoke {' '.join(arguments)}  ({how.name} at {at!r} + {after} s) -> {process.returncode}\n{said}")
        return process.returncode, said

    def health(self, environment: str = "dev", code: int | None = 0) -> dict[str, Any]:
        return json.loads(self.invoke("health", "--env", environment, "--json", code=code).stdout)

    # -- the stack as its users meet it ----------------------------------------------------------------------------

    def url(self, environment: str = "dev") -> str:
        return f"https://localhost:{self.settings(environment)['SSL_PORT']}"

    def certificate_authority(self, environment: str = "dev") -> Path:
        return self.folder / "config" / environment / "secrets" / "ca.pem"

    def client(self, environment: str = "dev") -> httpx.Client:
        """An HTTPS client that trusts this project's own authority and no other."""
        trust = ssl.create_default_context(cafile=str(self.certificate_authority(environment)))
        return httpx.Client(base_url=self.url(environment), verify=trust, timeout=15)

    def sign_in(self, client: httpx.Client, email: str, password: str = "correct horse battery staple") -> None:
        """Register (once) and log in over the API; the token stays on the client."""
        registered = client.post("/api/v1/auth/register", json={"email": email, "password": password})
        assert registered.status_code in (201, 409), registered.text
        answer = client.post("/api/v1/auth/login", json={"email": email, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def mails(self, environment: str = "dev") -> list[dict[str, Any]]:
        """What the SMTP sink of the dev environment has received (it keeps 500)."""
        port = self.settings(environment)["MAIL_PORT"]
        return httpx.get(f"http://127.0.0.1:{port}/api/v1/messages?limit=500", timeout=10).json()["messages"]

    # -- what is on the engine ---------------------------------------------------------------------------------------

    def _label(self, environment: str) -> str:
        return f"label=com.docker.compose.project={self.name(environment)}"

    def containers(self, environment: str = "dev") -> dict[str, str]:
        """Container id by name, stopped ones included."""
        listing = docker("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}", "-f", self._label(environment))
        return dict(line.split() for line in listing.splitlines())

    def networks(self, environment: str = "dev") -> set[str]:
        return set(docker("network", "ls", "-q", "-f", self._label(environment)).split())

    def volumes(self, environment: str = "dev") -> set[str]:
        return set(docker("volume", "ls", "-q", "-f", self._label(environment)).split())

    def remove(self) -> None:
        """Whatever happened: nothing of this project stays on the engine."""
        for environment in ("dev", "staging", "prod"):
            remove_stack(self.name(environment))


_KINDS = (
    ("container", ["ps", "-a"], ["rm", "-fv"]),
    ("network", ["network", "ls"], ["network", "rm"]),
    ("volume", ["volume", "ls"], ["volume", "rm", "-f"]),
)
_PROJECT = "com.docker.compose.project"


def remove_stack(name: str) -> None:
    """Remove everything of a Compose project from the engine."""
    # What is remembered of an environment is in a volume of the project, but its container is none.
    docker("rm", "-f", f"{name}-state", check=False)
    docker("rmi", "-f", f"{name}-state", check=False)
    for kind, listing, removal in _KINDS:
        found = docker(*listing, "-q", "-f", f"label={_PROJECT}={name}").split()
        if found:
            print(f"removing {len(found)} {kind}(s) of {name}")
            docker(*removal, *found, check=False)
    built = docker("images", "--quiet", "--filter", f"label=ops.project={name}").split()
    if built:
        docker("rmi", "--force", *dict.fromkeys(built), check=False)


def remove_stacks_of(run: str) -> None:
    """Remove what the projects of a run of pytest have left on the engine."""
    lists = [docker(*listing, "--format", f'{{{{.Label "{_PROJECT}"}}}}', check=False) for _, listing, _ in _KINDS]
    for name in {name for names in lists for name in names.split()}:
        if re.fullmatch(rf".+-(dev|staging|prod)-{run}(-gw\d+)?-\d+", name):
            remove_stack(name)


def eventually(condition: Any, seconds: float = 20, what: str = "condition") -> Any:
    """The first true value of `condition()`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)


@contextmanager
def listening_on(port: int) -> Iterator[None]:
    """Somebody else holds this port of 127.0.0.1."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """It failed, said these words, and said them without a traceback."""
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode != 0
    for word in words:
        assert word in said, said
