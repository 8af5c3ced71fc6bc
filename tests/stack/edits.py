"""Edits a person makes between two deploys, and whether `invoke deploy --plan` told what they would change."""

from __future__ import annotations

import json
import random
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from .project import Project, docker

EXTRA = "docker-compose.extra.yml"
_SERVICE = """\
services:
  {name}:
    image: ${{REDIS_IMAGE}}
    restart: unless-stopped
    command: [redis-server, --save, ""]
    healthcheck: {{test: [CMD, redis-cli, ping], start_period: 30s, start_interval: 1s}}
    labels: {{edit: "{label}"}}
"""
# Mounted files that can take a comment: nginx takes some by a reload, one needs a restart, a database always does.
_MOUNTED = (
    "infrastructure/nginx/edge.conf",
    "config/dev/nginx/nginx.conf",
    "infrastructure/nginx/start.sh",
    "infrastructure/redis/common.conf",
    "infrastructure/postgres/common.conf",
    "monitoring/prometheus/prometheus.yml",
)
_SOURCES = ("web/web/pages.py", "api/api/routes.py", "auth/auth/service.py", "notification/notification/handler.py")
_COMMON = "common/stack/problems.py"
# Files that look as if they mattered: they go into no image, or are read only when a volume is empty.
_HARMLESS = (
    "services/web/pyproject.toml",
    "services/common/tests/test_tokens.py",
    "services/README.md",
    "infrastructure/postgres/initdb/10-roles.sh",
    "docker-compose.yml",
    "docker-compose.services.yml",
    "config/dev/.env",
)
_LIMITS = {
    **dict.fromkeys(
        ("WEB_MEMORY", "API_MEMORY", "AUTH_MEMORY", "NOTIFICATION_MEMORY", "REDIS_MEMORY", "NGINX_MEMORY"),
        ("384m", "400m", "416m"),
    ),
    **dict.fromkeys(("WEB_CPUS", "API_CPUS", "NGINX_CPUS", "RABBITMQ_CPUS"), ("0.75", "0.8", "0.85")),
}
# Services that nginx sends requests to, and those that are rolled out.
_ROUTED = ("web", "api", "auth-service")
_ROLLING = (*_ROUTED, "notification-service")
_REPLICAS = ("WEB_REPLICAS", "API_REPLICAS", "AUTH_REPLICAS", "NOTIFICATION_REPLICAS")
# Stands for "the workers of nginx were renewed" among names of services whose containers changed.
RELOAD = "nginx's workers"


@dataclass
class Editor:
    """Edits a project at random, in a way that can be repeated: the same seed makes the same edits."""

    project: Project
    random: random.Random
    count: int = 0

    def __post_init__(self) -> None:
        self._redis = self.project.settings()["REDIS_IMAGE"]

    def some(self) -> str:
        """One edit, or two or three at once; what was done, in words."""
        chosen = self.random.sample(self.kinds(), self.random.choice((1, 1, 1, 2, 3)))
        return " + ".join(kind() for kind in chosen)

    def kinds(self) -> list[Callable[[], str]]:
        """Every kind of edit."""
        return [
            self.nothing,
            self.harmless,
            self.setting,
            self.limit,
            self.replicas,
            self.mounted,
            self.secret,
            self.source,
            self.common_source,
            self.image,
            self.label,
            self.service,
            self.tier,
            self.mishap,
        ]

    def nothing(self) -> str:
        return "nothing"

    def harmless(self) -> str:
        return self.comment(self.random.choice(_HARMLESS))

    def setting(self) -> str:
        key, values = self.random.choice(
            (
                ("LOG_LEVEL", ("debug", "info", "warning")),
                ("UPLOAD_MAX_MB", ("20", "21", "22")),
                ("MAIL_FROM", ("a@example.com", "b@example.com")),
                ("POSTGRES_WORK_MEM", ("4MB", "5MB")),
            )
        )
        return self._set(key, *values)

    def limit(self) -> str:
        key = self.random.choice(list(_LIMITS))
        return self._set(key, *_LIMITS[key])

    def replicas(self) -> str:
        return self._set(self.random.choice(_REPLICAS), "1", "2")

    def mounted(self) -> str:
        return self.comment(self.random.choice(_MOUNTED))

    def secret(self) -> str:
        path = self.project.folder / "config/dev/secrets/SMTP_PASSWORD"
        path.chmod(0o644)
        path.write_text(f"{self.random.getrandbits(128):032x}")
        path.chmod(0o444)
        return "content of SMTP_PASSWORD"

    def source(self) -> str:
        return self.comment(f"services/{self.random.choice(_SOURCES)}")

    def common_source(self) -> str:
        return self.comment(f"services/{_COMMON}")

    def image(self) -> str:
        """The same image by another name: to Compose, and so to us, that is a change."""
        edited = f"{self.project.name()}/redis:edited"
        docker("tag", self._redis.replace("${REGISTRY_MIRROR}", ""), edited)
        return self._set("REDIS_IMAGE", self._redis, edited)

    def label(self) -> str:
        path = self.project.folder / "docker-compose.services.yml"
        self.count += 1
        text, found = re.subn(
            r"ops\.smoke: /login\n(      edit: .*\n)?",
            f"ops.smoke: /login\n      edit: '{self.count}'\n",
            path.read_text(),
        )
        assert found == 1
        path.write_text(text)
        return "a label of web"

    def service(self) -> str:
        """A service of the owner's own comes, changes, or goes."""
        path, files = self.project.folder / EXTRA, self.project.settings()["COMPOSE_FILE"]
        plain = files.removesuffix(f":{EXTRA}")
        if path.exists() and self.random.random() < 0.5:
            path.unlink()
            self.project.set(COMPOSE_FILE=plain)
            return "a service goes"
        self.count += 1
        path.write_text(_SERVICE.format(name="extra", label=self.count))
        self.project.set(COMPOSE_FILE=f"{plain}:{EXTRA}")
        return "a service comes or changes"

    def tier(self) -> str:
        """The watching tier comes or goes."""
        return self._set("MONITORING_ENABLED", "true", "false")

    def mishap(self) -> str:
        """Somebody kills or removes a container by hand."""
        service = self.random.choice((*_ROLLING, "mail"))
        (victim, *_) = sorted(containers(self.project)[service])
        action = self.random.choice(("kill", "rm"))
        docker(*(("kill",) if action == "kill" else ("rm", "--force")), victim)
        return f"docker {action} of a {service}"

    def _set(self, key: str, *values: str) -> str:
        value = self.random.choice([each for each in values if each != self.project.settings()[key]])
        self.project.set(**{key: value})
        return f"{key}={value}"

    def comment(self, path: str) -> str:
        """A comment at the end of a file."""
        self.count += 1
        with (self.project.folder / path).open("a") as file:
            file.write(f"# edit {self.count}\n")
        return path


@dataclass(frozen=True)
class Outcome:
    """What was announced against what happened: services whose containers changed, and RELOAD. control: what `docker
    compose up --dry-run` announced for the same edit. planning, deploying: seconds."""

    edit: str
    announced: frozenset[str]
    happened: frozenset[str]
    control: frozenset[str]
    planning: float
    deploying: float

    @property
    def exact(self) -> bool:
        return self.announced == self.happened

    def __str__(self) -> str:
        missed, needless = sorted(self.happened - self.announced), sorted(self.announced - self.happened)
        verdict = "exact" if self.exact else f"WRONG: not announced {missed}, did not happen {needless}"
        return f"{self.edit}: {', '.join(sorted(self.happened)) or 'nothing'}: {verdict}"


def announced(project: Project) -> frozenset[str]:
    """Services whose containers would change, and RELOAD, as `invoke deploy --plan` says."""
    plan = json.loads(project.invoke("deploy", "--plan", "--json").stdout)
    operations = plan["operations"]
    changed = {each["subject"] for each in operations if each["replaces"]}
    # Only a changed configuration is: a rollout reloads nothing.
    reload = any(each["operation"] == "reload" and each["subject"] == "nginx" for each in operations)
    return frozenset(changed | ({RELOAD} if reload and "nginx" not in changed else set()))


def dry_run(project: Project) -> frozenset[str]:
    """The same as plain Compose says. Its jobs start again at each `up`: that is no other container."""
    name = project.name()
    line = ["docker", "compose", "--env-file", "config/dev/.env", "up", "--detach", "--dry-run", "--no-build"]
    options = ["--pull", "never", "--remove-orphans"]
    done = subprocess.run([*line, *options], cwd=project.folder, capture_output=True, text=True)
    assert "DRY-RUN MODE" in done.stderr, done.stderr
    return frozenset(
        re.findall(rf"Container {name}-([a-z-]+)-\d+ +(?:Recreate|Creating|Removing)\s*$", done.stderr, re.M)
    )


def containers(project: Project) -> dict[str, frozenset[str]]:
    """Container ids by service."""
    label = "com.docker.compose"
    rows = docker(
        *("ps", "--all", "--no-trunc", "--filter", f"label={label}.project={project.name()}"),
        *("--format", f'{{{{.Label "{label}.service"}}}} {{{{.ID}}}}'),
    )
    found: dict[str, set[str]] = {}
    for service, identity in (row.split() for row in rows.splitlines()):
        found.setdefault(service, set()).add(identity)
    return {service: frozenset(ids) for service, ids in found.items()}


def workers(project: Project) -> frozenset[str]:
    """Process ids of nginx's workers."""
    rows = docker("top", f"{project.name()}-nginx-1", "-eo", "pid,args").splitlines()
    return frozenset(row.split()[0] for row in rows if "worker process" in row)


def try_out(project: Project, edit: str) -> Outcome:
    """Deploy an edit that was made, and compare."""
    began = time.monotonic()
    expected = announced(project)
    planning = time.monotonic() - began
    control, before, before_workers = dry_run(project), containers(project), workers(project)
    began = time.monotonic()
    project.invoke("deploy", "--yes")
    deploying = time.monotonic() - began
    after = containers(project)
    happened = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    if "nginx" not in happened and not workers(project) & before_workers:
        happened.add(RELOAD)
    return Outcome(edit, expected, frozenset(happened), control, planning, deploying)


def forget(project: Project) -> None:
    """Remove what edits left on the engine besides the project itself: the other name of an image."""
    edited = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"{project.name()}/*").split()
    if edited:
        docker("rmi", "--force", *edited, check=False)
