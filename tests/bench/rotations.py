"""Secrets rotated under load: what is lost, how long it takes, and whether the old value is refused.

    python -m tests.bench.rotations [--only plain failover logging] [--rate 25]

The load is the one of tests/load: open loop, no retries, half of the requests write. Whether a value is accepted is
asked from outside (tests/stack/rotations.py). The controls are part of the run: a claim that nothing was lost counts
only beside a way that does lose some. Needs an engine, and some 25 minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.rollouts import noted, table
from tests.load.run import Load
from tests.stack.failover import SENTINELS
from tests.stack.project import Project, docker
from tests.stack.rollouts import ENVIRONMENT, deploy, prepare
from tests.stack.rotations import ROLES, Stack

IDLE_SECONDS = 10

SERVICES = (
    *("POSTGRES_PASSWORD", "REPLICATION_PASSWORD", "AUTH_DB_PASSWORD", "API_DB_PASSWORD", "NOTIFICATION_DB_PASSWORD"),
    *("METRICS_DB_PASSWORD", "REDIS_PASSWORD", "RABBITMQ_PASSWORD", "API_RABBITMQ_PASSWORD"),
    *("NOTIFICATION_RABBITMQ_PASSWORD", "RABBITMQ_COOKIE", "JWT_SECRET"),
)
FAILOVER = ("REDIS_SENTINEL_PASSWORD", "PATRONI_PASSWORD", *SERVICES)
LOGGING = ("METRICS_DB_PASSWORD", "ELASTIC_PASSWORD", "KIBANA_PASSWORD", "LOG_SHIPPER_PASSWORD")
HEAD = ("secret", "s", "requests", "lost", "new value accepted", "old value refused")


class Bench:
    """One stack that everything is measured on."""

    def __init__(self, project: Project, options: argparse.Namespace) -> None:
        self.project, self.rate, self.stack = project, options.rate, Stack(project, ENVIRONMENT)
        self.names, self.ends = options.names, time.monotonic() + options.seconds

    def rotated(self, load: Load, name: str) -> tuple[float, list[str]]:
        """Rotate in a phase of its own; seconds, and whether the new and the old value are accepted."""
        old = self.stack.secret(name)
        load.enter(name)
        start = time.monotonic()
        done = self.project.invoke("secret-rotate", name, "--env", ENVIRONMENT, "--yes", code=None)
        seconds = time.monotonic() - start
        time.sleep(2)
        load.enter("between")
        if done.returncode:
            return seconds, [f"**exit code {done.returncode}**", "–"]
        new = self.stack.secret(name)
        assert new != old
        return seconds, [_word(self.stack.accepts(name, new)), _word(_not(self.stack.accepts(name, old)))]

    def entries(self, names: Sequence[str]) -> list[list[str]]:
        """Each secret after the other, under one load."""
        found = {}
        with Load(self.project, ENVIRONMENT, rate=self.rate) as load:
            time.sleep(IDLE_SECONDS)
            for name in self.names or names:
                if time.monotonic() > self.ends:
                    print(f"no time for {name}", flush=True)
                    continue
                found[name] = self.rotated(load, name)
                print(name, *found[name], flush=True)
        print(load.report, flush=True)
        rows = []
        for name, (seconds, answers) in found.items():
            during = load.report.phase(name)
            if name == "JWT_SECRET":
                answers[1] = "by JWT_SECRET_PREVIOUS"
            rows.append(noted([name, f"{seconds:.0f}", f"{during.sent:,}", f"{len(during.lost)}", *answers]))
        exact = load.ledger.acknowledged - len(load.ledger.missing) - len(load.ledger.doubled)
        print(f"acknowledged POSTs found once: {exact:,} of {load.ledger.acknowledged:,}", flush=True)
        return rows

    def previous_key(self) -> list[str]:
        """JWT_SECRET_PREVIOUS is emptied, under a load whose tokens are all of the new key."""
        old = self.stack.secret("JWT_SECRET_PREVIOUS")
        before = _word(self.stack.accepts("JWT_SECRET_PREVIOUS", old))
        assert before == "yes", "the old key is not accepted before"
        with Load(self.project, ENVIRONMENT, rate=self.rate) as load:
            time.sleep(2)
            load.enter("during")
            start = time.monotonic()
            self.project.invoke("secret-rotate", "JWT_SECRET_PREVIOUS", "--env", ENVIRONMENT, "--yes")
            seconds = time.monotonic() - start
            time.sleep(2)
        accepted = [_word(self.stack.accepts("JWT_SECRET", self.stack.secret("JWT_SECRET")))]
        accepted.append(_word(_not(self.stack.accepts("JWT_SECRET", old))))
        during = load.report.phase("during")
        row = ["JWT_SECRET_PREVIOUS", f"{seconds:.0f}", f"{during.sent:,}", f"{len(during.lost)}", *accepted]
        return noted(row)

    def control(self) -> list[str]:
        """By hand: change the password in the database, replace the file, and let Compose make the readers anew."""
        name, (role, _) = "API_DB_PASSWORD", ROLES["API_DB_PASSWORD"]
        old, new = self.stack.secret(name), "Zk7vQ2mXp9RwT4bN6yHs8LdJc3FgUe5A"
        path = self.project.folder / "config" / ENVIRONMENT / "secrets" / name
        primary = next(each for each in self.stack.containers("postgres-primary", "postgres-replica") if _leads(each))
        with Load(self.project, ENVIRONMENT, rate=self.rate) as load:
            time.sleep(IDLE_SECONDS)
            load.enter("during")
            start = time.monotonic()
            path.unlink()
            path.write_text(new)
            path.chmod(0o444)
            docker("exec", primary, "psql", "-U", "admin", "appdb", "-c", f"ALTER ROLE {role} PASSWORD '{new}'")
            compose = ["docker", "compose", "--env-file", f"config/{ENVIRONMENT}/.env"]
            line = [*compose, "up", "-d", "--no-deps", "--force-recreate", "api"]
            subprocess.run(line, cwd=self.project.folder, check=True, capture_output=True)
            seconds = time.monotonic() - start
            time.sleep(10)
        during = load.report.phase("during")
        answers = [_word(self.stack.accepts(name, new)), _word(_not(self.stack.accepts(name, old)))]
        label = f"control, {name}: `ALTER ROLE`, new file, `docker compose up --force-recreate` of the reader"
        return noted([label, f"{seconds:.0f}", f"{during.sent:,}", f"{len(during.lost)}", *answers])


def _leads(container: str) -> bool:
    return docker("exec", container, "psql", "-U", "admin", "appdb", "-Atc", "select pg_is_in_recovery()") == "f"


def _not(answer: bool | None) -> bool | None:
    return None if answer is None else not answer


def _word(answer: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "–"}[answer]


def plain(project: Project, options: argparse.Namespace) -> list[list[str]]:
    """The plain pairs."""
    deploy(project)
    return Bench(project, options).entries(SERVICES)


PARTS_OF_DATA = ("postgres", "redis", "rabbitmq")


def _files(*names: str) -> str:
    """COMPOSE_FILE of a stack under load with these files."""
    files = (f"docker-compose.{name}.yml" for name in ("services", *names, "load"))
    return ":".join(("docker-compose.yml", *files))


def failover(project: Project, options: argparse.Namespace) -> list[list[str]]:
    """Patroni and Sentinel, and the control."""
    project.set(
        ENVIRONMENT,
        COMPOSE_FILE=_files(*PARTS_OF_DATA, "postgres-failover", "redis-failover"),
        REDIS_SENTINELS=SENTINELS,
    )
    deploy(project)
    bench = Bench(project, options)
    rows = [*bench.entries(FAILOVER), bench.control()]
    if bench.stack.secret("JWT_SECRET_PREVIOUS"):
        rows.insert(-1, bench.previous_key())
    return rows


def logging(project: Project, options: argparse.Namespace) -> list[list[str]]:
    """What watches the stack. Grafana and Kibana are not to be had here."""
    files = _files(*PARTS_OF_DATA, "monitoring")
    project.set(ENVIRONMENT, COMPOSE_FILE=files, MONITORING_ENABLED="true", LOGGING_ENABLED="true")
    deploy(project)
    return Bench(project, options).entries(LOGGING)


PARTS = {"plain": plain, "failover": failover, "logging": logging}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=25, help="requests a second")
    parser.add_argument("--names", nargs="+", default=[], help="rotate these secrets only")
    parser.add_argument("--seconds", type=float, default=3600, help="begin no further rotation after that")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure these parts only")
    options = parser.parse_args()
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            project = Project.bake(Path(folder), project_name="Bench Stack", organisation=f"Bench {name}")
            try:
                prepare(project)
                project.set(ENVIRONMENT, ROLLOUT_STEADY_SECONDS="1")
                rows = PARTS[name](project, options)
            except subprocess.SubprocessError as error:
                print(error, file=sys.stderr)
                return 1
            finally:
                project.remove()
        print(
            f"\n{name}: `python -m tests.bench.rotations {' '.join(sys.argv[1:])}`\n\n{table(HEAD, rows)}\n", flush=True
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
