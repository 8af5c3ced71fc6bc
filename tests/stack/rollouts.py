"""A staging stack made ready for load: production's images without its watchers, and what only a test needs besides.

Everything is added to the baked copy; the template knows nothing of it.
"""

from __future__ import annotations

import itertools
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .project import Project, docker

ENVIRONMENT = "staging"
ROLLING = ("web", "api", "auth-service", "notification-service")

# Requests that take as long as they are told to, and writes that tell nobody: an item of the real kind brings an event,
# a mail and seven transactions with it, and the machine that also sends the load has two cores. A row is inserted under
# an id made here, so whatever happens twice is there twice.
_API = """

@routes.post("/api/v1/quiet", status_code=201)
async def create_quietly(new: NewItem, person: Person, store: StoreOf, seconds: float = 0) -> dict[str, Any]:
    \"""Wait, then keep a new item without an event.\"""
    await asyncio.sleep(seconds)
    moment = now()
    item = Item(uuid7(), person.id, person.email, new.title, "quiet", moment, moment)

    async def work(connection: Any) -> None:
        await connection.execute(insert(items).values(asdict(item)).on_conflict_do_nothing())

    await store._primary.run(work)
    return item.as_json()


@routes.get("/api/v1/slow")
async def answer_slowly(person: Person, seconds: float) -> dict[str, float]:
    \"""Wait, then answer.\"""
    await asyncio.sleep(seconds)
    return {"waited": seconds}
"""
_API_IMPORTS = """\
import asyncio
import uuid
from dataclasses import asdict, replace

from sqlalchemy.dialects.postgresql import insert
from api.tables import items
"""
_WEB = """

@routes.post("/quiet")
async def create_quietly(form: Form, session: SessionOf, api: ApiOf) -> Response:
    \"""Keep a new item without an event.\"""
    await api.call_as(session, "POST", "/api/v1/quiet", json={"title": form["title"]})
    return _go("/?done=created", session)


@routes.get("/slow")
async def slow(session: SessionOf, api: ApiOf, seconds: float) -> Response:
    \"""A page that waits for the api.\"""
    await api.call_as(session, "GET", f"/api/v1/slow?seconds={seconds}")
    return Response("slow")
"""
# Somewhere for the mails to go.
_COMPOSE = """\
services:
  mail:
    image: ${MAIL_IMAGE}
    restart: unless-stopped
    networks: [backend]
    labels: {ops.part: mail}
    environment: {MP_MAX_MESSAGES: "500"}
    stop_grace_period: 1s
"""


def prepare(project: Project, replicas: int = 2) -> None:
    """Make staging deployable on this machine and fit for load. Each service runs `replicas` times."""
    project.set(
        ENVIRONMENT,
        MONITORING_ENABLED="false",
        LOGGING_ENABLED="false",
        DASHBOARDS_ENABLED="false",
        SMTP_HOST="mail",
        SMTP_PORT="1025",
        SMTP_TLS="none",
        COMPOSE_FILE="docker-compose.yml:docker-compose.postgres.yml:docker-compose.redis.yml:docker-compose.rabbitmq.yml:docker-compose.services.yml:docker-compose.load.yml",
        REDIS_SENTINELS="",
        **{f"{name}_REPLICAS": str(replicas) for name in ("WEB", "API", "AUTH", "NOTIFICATION")},
    )
    (project.folder / "docker-compose.load.yml").write_text(_COMPOSE)
    append(project, "services/api/api/routes.py", _API)
    edit(project, "services/api/api/routes.py", "import uuid\nfrom dataclasses import replace\n", _API_IMPORTS)
    append(project, "services/web/web/routes.py", _WEB)
    # A load may last longer than access tokens do, and it does not renew them.
    edit(project, "services/common/stack/tokens.py", "LIFETIME_SECONDS = 15 * 60", "LIFETIME_SECONDS = 120 * 60")
    # The limit protects people from each other; here it would only measure itself.
    path = project.folder / "config" / ENVIRONMENT / "nginx" / "nginx.conf"
    path.write_text(re.sub(r"rate=\d+r/s", "rate=100000r/s", path.read_text()))
    project.invoke("secret-init", "--env", ENVIRONMENT)
    make = (
        "from ops.base import environments; from ops.secrets import certificates;"
        f"certificates.self_sign(environments.load({ENVIRONMENT!r}))"
    )
    subprocess.run([sys.executable, "-c", make], cwd=project.folder, check=True)


def append(project: Project, path: str, text: str) -> None:
    """Add to the end of a file."""
    with (project.folder / path).open("a", encoding="utf-8") as file:
        file.write(text)


def edit(project: Project, path: str, old: str, new: str) -> None:
    """Replace the first occurrence of `old` in a file; it must be there."""
    file = project.folder / path
    text = file.read_text(encoding="utf-8")
    assert old in text, f"{old!r} is not in {path}"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def deploy(project: Project, code: int = 0) -> str:
    """What a deploy says; it must end with this exit code."""
    process = project.start("deploy", "--env", ENVIRONMENT)
    said, _ = process.communicate(timeout=900)
    report = f"$ invoke deploy  -> {process.returncode}\n{said}"
    print(report)
    assert process.returncode == code, report
    # A traceback may be in the last lines of a service; one of the command itself would start its line.
    assert not re.search(r"^Traceback", said, re.MULTILINE), report
    return said


# ── versions ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def version(project: Project, name: str, package: str = "common/stack") -> None:
    """Make the next deploy bring something new: a constant in one service's package, or in the one that all share."""
    (project.folder / "services" / package / "version.py").write_text(f'"""Made by a test."""\n\nVERSION = "{name}"\n')


# ── what is there ─────────────────────────────────────────────────────────────────────────────────────────────────────


def containers(project: Project) -> dict[str, str]:
    """Container id by name of everything that lasts. Jobs come and go."""
    return {name: number for name, number in project.containers(ENVIRONMENT).items() if "-migrate-" not in name}


def serving(project: Project) -> dict[str, set[str]]:
    """Ids of the running containers of each rolling service."""
    found = {}
    for service in ROLLING:
        labels = (f"com.docker.compose.project={project.name(ENVIRONMENT)}", f"com.docker.compose.service={service}")
        found[service] = set(docker("ps", "-q", "--no-trunc", *(f"--filter=label={label}" for label in labels)).split())
    return found


# Column of `show servers state`, and what each must be for a container that gets requests: ready, and nothing told.
_STATE = {"operational": (5, "2"), "told": (6, "0")}
_ASK = 'exec 3<>/dev/tcp/127.0.0.1/9999; echo "show servers state" >&3; cat <&3'


def unchosen(project: Project, replicas: int = 2) -> list[str]:
    """What HAProxy sees of each pool when it is not `replicas` containers that all get requests."""
    (haproxy,) = (name for name in project.containers(ENVIRONMENT) if "-haproxy-" in name)
    said = docker("exec", haproxy, "bash", "-c", _ASK)
    # The first line is the number of the format.
    rows = [row for line in said.splitlines() if len(row := line.split()) > 6 and row[0].isdigit()]
    # A row names its pool in the second column, and a slot that no container has is without an address in the fifth.
    found: dict[str, list[list[str]]] = {row[1]: [] for row in rows if not row[1].endswith(":any")}
    assert len(found) >= 3, rows
    for row in rows:
        if row[1] in found and "." in row[4]:
            found[row[1]].append(row)
    wrong = [f"{pool}: {len(servers)} in HAProxy" for pool, servers in found.items() if len(servers) != replicas]
    for row in itertools.chain(*found.values()):
        wrong += [f"{row[1]} {row[4]}: {what} {row[at]}" for what, (at, good) in _STATE.items() if row[at] != good]
    return wrong


def tidy(project: Project, replicas: int = 2) -> list[str]:
    """What is not as it should be between two deploys; nothing, when all is well."""
    wrong = [f"{service}: {len(ids)} serve" for service, ids in serving(project).items() if len(ids) != replicas]
    everything = containers(project)
    states = docker(
        "inspect", "--format", "{{.Name}} {{.State.Status}} {{.HostConfig.RestartPolicy.Name}}", *everything
    )
    wrong += [line for line in states.splitlines() if not line.endswith(" running unless-stopped")]
    wrong += [name for name in everything if "_" in name]  # Compose's temporary names
    # One that was not ready for a moment is chosen again after ten good seconds.
    ends = time.monotonic() + 15
    while (out := unchosen(project, replicas)) and time.monotonic() < ends:
        time.sleep(0.2)
    return wrong + out


# ── releases that are no good ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Edit:
    """A change of one file: `old` becomes `new`; without `old`, `new` is added, and the file made if need be."""

    path: str
    new: str
    old: str = ""


@dataclass(frozen=True)
class Bad:
    """A release that must not get through. code: exit code of its deploy; shown: what must be in its output."""

    name: str
    code: int
    shown: str
    edits: tuple[Edit, ...]

    def __str__(self) -> str:
        return self.name


_APP, _ROUTES = "services/web/web/app.py", "services/web/web/routes.py"
_MIGRATIONS = "services/api/api/migrations"
_CREATION = "    health = Health(settings.service_name, Lifecycle())\n"
_STARTED = '        cleaning = background.start("cleaning", lambda: _clean_regularly(uploads))\n'
_RAISE = '    raise RuntimeError("lost the keys")\n'
_MOON = """
        async def moon() -> None:
            raise ConnectionError("the moon does not answer")

        health.add("moon", moon)
"""
# Four seconds after it started: past its readiness, and within the time in which it has to stay well.
_CRASH = """
        import os

        def crash() -> None:
            print("ran out of road", flush=True)
            os._exit(3)

        asyncio.get_running_loop().call_later(4, crash)
"""
_HOARD = """
        def hoard() -> None:
            print("one more gigabyte", flush=True)
            app.state.hoard = b"x" * 2**30

        asyncio.get_running_loop().call_later(2, hoard)
"""
_DEAF = """
    import stack.serve

    stack.serve.Server._stop = lambda self, name: print("did not hear that", flush=True)
"""
_MIGRATION = '''"""Cannot be done."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("select 1 / 0")
'''
# The services' own dead line: a test need not wait for three minutes.
_IMPATIENT = Edit(f"config/{ENVIRONMENT}/.env", "\nDEPLOY_TIMEOUT=15\n")
_COMPOSE_FILE = "docker-compose.services.yml"
# A role that may connect, but has another password.
_MINE, _WRONG = "      DATABASE_USER: auth\n", "      DATABASE_USER: api\n"


def _while_starting(text: str) -> Edit:
    """More to do when web's application starts."""
    return Edit(_APP, text + _STARTED, _STARTED)


BAD_RELEASES = (
    Bad(
        "crash on start", 6, "no engine", (Edit(_APP, f'{_CREATION}    raise RuntimeError("no engine")\n', _CREATION),)
    ),
    Bad("never ready", 7, "moon", (_while_starting(_MOON), _IMPATIENT)),
    Bad("ready, then crash", 6, "ran out of road", (_while_starting(_CRASH),)),
    Bad("smoke request 500", 8, "lost the keys", (Edit(_ROUTES, f"{_RAISE}    target, said =", "    target, said ="),)),
    Bad(
        "wrong password",
        7,
        "password authentication failed",
        (Edit(_COMPOSE_FILE, _WRONG, _MINE), _IMPATIENT),
    ),
    Bad("failing migration", 5, "division by zero", (Edit(f"{_MIGRATIONS}/0002_impossible.py", _MIGRATION),)),
    Bad("out of memory", 9, "out of memory", (_while_starting(_HOARD),)),
    Bad("does not build", 4, "SyntaxError", (Edit(_APP, "\ndef (:\n"),)),
)
# This one gets through, and is no good to the release after it: it has to be killed after its grace period.
DEAF = Bad(
    "hang on SIGTERM",
    0,
    "",
    (Edit(_APP, _CREATION + _DEAF, _CREATION), Edit("docker-compose.load.yml", "  web: {stop_grace_period: 5s}\n")),
)


@contextmanager
def edited(project: Project, edits: Sequence[Edit]) -> Iterator[None]:
    """The project with these edits; afterwards it is as it was."""
    files = {project.folder / each.path for each in edits}
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    try:
        for each in edits:
            if each.old:
                edit(project, each.path, each.old, each.new)
            else:
                append(project, each.path, each.new)
        yield
    finally:
        for file, content in before.items():
            if content is None:
                file.unlink(missing_ok=True)
            else:
                file.write_bytes(content)


# ── deployers that are killed ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Kill:
    """When a deployer is killed: some seconds after a line of its output that contains `at`.

    alone: only the deployer, so that what it has started goes on behind the back of the next one; else all of them.
    """

    at: str
    after: float = 0
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.at}{f' + {self.after:g} s' if self.after else ''}{', alone' if self.alone else ''}"


KILLS = (
    Kill("building"),
    Kill("running migrate", 0.5),
    Kill("running migrate", 0.5, alone=True),
    Kill("starting beside"),
    Kill("starting beside", 0.3, alone=True),
    Kill("starting beside", 3),
    Kill("sending each new one"),
    Kill("sending requests to"),
    Kill("sending requests to", 0.3, alone=True),
    Kill("draining"),
    Kill("draining", 3),
    Kill("stopping"),
    Kill("stopping", 0.5, alone=True),
    Kill("stopping", 1.5),
)


def killed(project: Project, kill: Kill) -> str:
    """Start a deploy and kill it; the output up to then."""
    moment = {"at": kill.at, "after": kill.after, "alone": kill.alone}
    return project.interrupted("deploy", "--env", ENVIRONMENT, how=signal.SIGKILL, **moment)[1]
