"""Backup: what the stack knows, in one archive (see archive.py), taken while it serves.

In it: the common PostgreSQL database and every database that a service has for itself, with the roles that they need,
the Redis keys, RabbitMQ's queues, exchanges, bindings and policies, and the volumes that have the label `ops.backup`.
Not in it, and named: other databases of the same server, other volumes of the services, and parts that the stack does
not have. Not in it either: secrets (password hashes included), messages that wait in a queue, metrics and logs.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from ops import engine
from ops.base import console
from ops.base.console import amount
from ops.base.environments import Environment, relative
from ops.base.errors import OpsError
from ops.base.files import replace_file
from ops.data.site import Host, Site, complaint
from ops.engine import Container
from ops.parts import postgres, provision, rabbitmq, redis
from ops.recovery import archive, contents
from ops.stack import model
from ops.stack.model import Stack
from ops.stack.owned import Owned, Volume
from ops.state import swap

POSTGRES, REDIS, RABBITMQ = archive.POSTGRES, archive.REDIS, archive.RABBITMQ

# Users and permissions are made from secrets and the committed definitions; runtime parameters (shovels, federation)
# carry passwords in their addresses.
_DEFINITIONS = ("vhosts", "exchanges", "queues", "bindings", "policies")

# What a restore keeps there while it is at work.
ASIDE = ".restore-"

_CHUNK = 1 << 20
# Beyond what is estimated, so that the disk is not full to the last byte afterwards.
_SPARE_BYTES = 64 << 20

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Result:
    """A finished backup: bytes, seconds, what is in it by member, and what is not, in words."""

    path: Path
    size: int
    seconds: float
    counts: Mapping[str, Mapping[str, Any]]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parts:
    """The servers to ask, each None where the stack does not have the part, and what the services own."""

    declared: Stack
    owned: Owned
    primary: Container | None
    cache: Container | None
    broker: Container | None

    @property
    def left_out(self) -> list[str]:
        """Parts that the stack does not have, with the reason."""
        named = (("PostgreSQL", self.primary), ("Redis", self.cache), ("RabbitMQ", self.broker))
        missing = [name for name, container in named if container is None]
        outside = "it is outside of the stack; backups of docker-compose.backup.yml hold its databases"
        return [
            f"{name}: {outside if name == 'PostgreSQL' and self.owned.managed else 'the stack has none'}"
            for name in missing
        ]


def find(
    env: Environment,
    containers: Sequence[Container],
    cache: Callable[[Environment, Sequence[Container]], Container] = redis.primary,
) -> Parts:
    """The parts of the stack that hold data. cache: which node of Redis. Raises OpsError when one of them does not run,
    or what the labels say cannot be meant."""
    declared = model.load(env)
    owned = provision.declared(env, declared)

    def there(nodes: Sequence[str]) -> bool:
        return any(node in declared.services for node in nodes)

    return Parts(
        declared,
        owned,
        postgres.primary(env, containers) if there(postgres.NODES) else None,
        cache(env, containers) if there(redis.NODES) else None,
        rabbitmq.node(env, containers) if there(rabbitmq.NODES) else None,
    )


def _silent(_words: str) -> None:
    pass


def create(env: Environment, tick: Tick = _silent, site: Site | None = None) -> Result:
    """Back up `env` into `backups/<env>/`, under its lock. `tick` hears what is being done.

    Raises OpsError and leaves no file behind when something is down, the disk is short, or what was written cannot be
    read back.
    """
    began = time.monotonic()
    swap.refuse(env)
    site = site or Host(env)
    containers = site.containers()
    parts = find(env, containers, _redis_source)
    primary, cache, broker = parts.primary, parts.cache, parts.broker
    tick("looking at what there is")
    definitions = _definitions(broker) if broker else {}
    versions = {}
    if primary:
        versions["postgres"] = sql(env, primary, "SHOW server_version").split()[0]
    if cache:
        versions["redis"] = redis.info(cache, "server")["redis_version"]
    if broker:
        versions["rabbitmq"] = str(definitions["rabbitmq_version"])
    facts = archive.Facts(project_name(env), env.name, datetime.now(UTC).replace(microsecond=0), versions)
    volumes = site.existing(parts.owned.volumes)
    on_server = json.loads(sql(env, primary, _DATABASES)) if primary else []
    databases = [name for name in parts.owned.databases if name in on_server]
    if not (versions or volumes) and parts.owned.managed:
        raise OpsError(
            f"PostgreSQL of {env.name} is outside of the stack, and there is nothing else to put into an archive.",
            "Backups of its databases come with docker-compose.backup.yml: docs/recovery.md.",
        )
    if not (versions or volumes):
        raise OpsError(f"There is nothing to back up in {env.name}: it has no database, cache, broker or volume.")
    folder = env.project_dir / "backups" / env.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_space(env, site, folder, parts, [env.values.get("POSTGRES_DB", ""), *databases], volumes)
    try:
        with archive.create(folder, facts) as writer:
            if primary:
                for name in ("", *databases):
                    _write_postgres(env, primary, writer, tick, name)
            if cache:
                _write_redis(cache, writer, tick)
            if broker:
                _write_rabbitmq(definitions, writer)
            for volume in volumes:
                _write_volume(site, parts.declared, volume, writer, tick)
            tick("reading it back")
    except OSError as error:
        raise OpsError(
            f"{relative(folder)}: {error.strerror or error}.",
            "No backup was kept. Free some space and run the command again.",
        ) from error
    path = folder / archive.file_name(facts)
    _note_success(env, facts.created_at)
    others = [name for name in on_server if name not in {*databases, env.values.get("POSTGRES_DB", ""), "postgres"}]
    lacking = [name for name in parts.owned.databases if name not in databases] if primary else []
    left_out = (
        *parts.left_out,
        *(f"database {name}: no label ops.database declares it" for name in others),
        *(f"database {name}: it does not exist yet" for name in lacking),
        *(f"volume {name}: no label ops.backup names it" for name in parts.owned.not_backed_up),
        *(f"volume {each.name}: it does not exist yet" for each in parts.owned.volumes if each not in volumes),
    )
    return Result(path, path.stat().st_size, time.monotonic() - began, writer.counts, left_out)


def as_json(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {**asdict(result), "path": str(result.path), "seconds": round(result.seconds, 3)}


def describe(counts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a backup holds, a line for each member."""
    return [f"{_title(name):<{_WIDTH}}  {_amounts(name, found)}" for name, found in counts.items()]


_WIDTH = 20


def _title(member: str) -> str:
    if member in (titles := {POSTGRES: "PostgreSQL", REDIS: "Redis", RABBITMQ: "RabbitMQ"}):
        return titles[member]
    for kind, names in (("database", archive.databases([member])), ("volume", archive.volumes([member]))):
        if names:
            return f"{kind} {next(iter(names))}"
    return member


def _amounts(member: str, found: Mapping[str, Any]) -> str:
    if "rows" in found:
        return f"{amount(sum(found['rows'].values()), 'row')} in {amount(len(found['rows']), 'table')}"
    if member == REDIS:
        return amount(found["keys"], "key")
    if member == RABBITMQ:
        return f"{amount(found['queues'], 'queue')}, {amount(found['exchanges'], 'exchange')} (no messages)"
    return f"{amount(found['files'], 'file')}, {console.size(found['bytes'])}"


def show(result: Result) -> None:
    """The result for people."""
    size, seconds = console.size(result.size), console.duration(result.seconds)
    console.say(f"{relative(result.path)}: {size}, verified, in {seconds}", "green")
    for line in describe(result.counts):
        console.say(f"  {line}")
    for line in result.left_out:
        console.warn(f"Not in it: {line}.")
    console.say("  Not in it: config/*/secrets. Keep a copy of those where you keep passwords.", "dim")


# ── shared with restore ───────────────────────────────────────────────────────────────────────────────────────────────


def project_name(env: Environment) -> str:
    """The project without its environment."""
    return env.project.removesuffix(f"-{env.name}")


def running(env: Environment, containers: Sequence[Container], *services: str) -> list[Container]:
    """The running container of each service. Raises OpsError naming those that do not run."""
    found = {each.service: each for each in reversed(containers) if each.running}
    if missing := [service for service in services if service not in found]:
        verb = "is" if len(missing) == 1 else "are"
        raise OpsError(f"{', '.join(missing)} {verb} not running in {env.name}.", f"invoke deploy --env {env.name}")
    return [found[service] for service in services]


def sql(env: Environment, container: Container, text: str, *, database: str = "", **variables: str) -> str:
    """What psql prints for a script. `variables` are quoted with :'name' or :"name" in it. No time limit."""
    options = [f"--set={name}={value}" for name, value in variables.items()]
    line = postgres.psql(env, *options, "--file=-", database=database)
    return run_in(container, line, "PostgreSQL", input=text).strip()


def run_in(container: Container, argv: Sequence[str], what: str, **options: Any) -> str:
    """Run a command in a container without a time limit; its own complaint becomes the OpsError."""
    done = engine.exec_(container.id, argv, check=False, timeout=None, **options)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{what}: {complaint(done.stderr or done.stdout)}")
    return done.stdout


def count_rows(env: Environment, container: Container, database: str = "") -> dict[str, int]:
    """Rows of every table: {"schema.table": count}."""
    lines = sql(env, container, contents.COUNT_ROWS, database=database)
    return contents.rows(lines)


def receive(
    argv: Sequence[str], target: BinaryIO | io.RawIOBase, what: str, tick: Tick = _silent, **options: Any
) -> str:
    """Write what a command prints to `target`; returns its stderr. Raises OpsError when it fails."""
    with tempfile.TemporaryFile() as errors:
        with engine.popen(argv, stdout=subprocess.PIPE, stderr=errors, **options) as child:
            copied = 0
            while data := engine.pipe(child.stdout).read(_CHUNK):
                target.write(data)
                copied += len(data)
                tick(f"{what}: {console.size(copied)}")
            code = child.wait()
        return _ended(code, errors, what)


def send(argv: Sequence[str], source: IO[bytes], what: str, tick: Tick = _silent, **options: Any) -> str:
    """Give `source` to a command as its standard input; returns its stderr. Raises OpsError when it fails."""
    with tempfile.TemporaryFile() as errors:
        popen_options = {"stdin": subprocess.PIPE, "stdout": errors, "stderr": errors, **options}
        with engine.popen(argv, **popen_options) as child:
            stdin = engine.pipe(child.stdin)
            copied = 0
            try:
                while data := source.read(_CHUNK):
                    stdin.write(data)
                    copied += len(data)
                    tick(f"{what}: {console.size(copied)}")
                stdin.close()
            except BrokenPipeError:
                # It ended early; why is in its exit code and what it wrote.
                pass
            code = child.wait()
        return _ended(code, errors, what)


def _ended(code: int, errors: IO[bytes], what: str) -> str:
    errors.seek(0)
    text = errors.read().decode(errors="replace")
    if code:
        raise engine.explain(text) or OpsError(f"{what}: {complaint(text)}")
    return text


# ── before ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _redis_source(env: Environment, containers: Sequence[Container]) -> Container:
    """A replica when one follows: a snapshot forks the server, and the copied memory should not be the primary's."""
    for each in redis.nodes(containers):
        # One that is only starting does not follow anybody yet.
        with suppress(OpsError):
            if each.running and redis.follows(redis.info(each, "replication")):
                return each
    return redis.primary(env, containers)


def _check_space(
    env: Environment, site: Site, folder: Path, parts: Parts, databases: Sequence[str], volumes: Sequence[Volume]
) -> None:
    before = sorted(folder.glob(f"{project_name(env)}-{env.name}-*.tar"))
    if before:
        # Compressed as the next one will be; it may have grown.
        needed = before[-1].stat().st_size * 3 // 2
    else:
        needed = 0
        for volume in volumes:
            listed = engine.run(site.in_volume(parts.declared, volume, "du -sk ."), timeout=None).stdout.split()
            needed += int(listed[0]) * 1024
        for name in databases if parts.primary else ():
            assert parts.primary
            needed += int(sql(env, parts.primary, "SELECT pg_database_size(current_database())", database=name))
        if parts.cache:
            needed += int(redis.info(parts.cache, "memory")["used_memory"])
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise OpsError(
            f"{relative(folder)} has {console.size(free)} free; the backup may need {console.size(needed)}.",
            "Free some space, or make that folder a link to a larger disk.",
        )


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_postgres(env: Environment, primary: Container, writer: archive.Writer, tick: Tick, own: str) -> None:
    """Dump a database. own: of a service; "": the common one."""
    user, database = env.values["POSTGRES_USER"], own or env.values["POSTGRES_DB"]
    name = archive.database(own) if own else POSTGRES
    with _snapshot(env, primary, database) as (snapshot, rows), writer.member(name) as sink:
        dump = ("pg_dump", "--format=custom", "--compress=zstd", "--no-password", f"--snapshot={snapshot}")
        argv = engine.exec_argv(primary.id, *dump, f"--username={user}", database)
        receive(argv, sink, f"PostgreSQL, {database}", tick)
    # Reads and decompresses every row: an archive that pg_restore cannot read is none.
    with writer.readable(name) as dumped:
        argv = engine.exec_argv(primary.id, "pg_restore", "--file=/dev/null", stdin=True)
        send(argv, dumped, f"reading the dump of {database}", tick)

    def asked(text: str) -> str:
        return sql(env, primary, text, database=database)

    writer.describe(name, contents.of_database(database, rows, asked))


_DATABASES = """
SELECT coalesce(json_agg(datname ORDER BY datname), '[]') FROM pg_database WHERE NOT datistemplate
"""


@contextmanager
def _snapshot(env: Environment, primary: Container, database: str) -> Iterator[tuple[str, dict[str, int]]]:
    """A snapshot of the database to dump from, and the rows every table has in it."""
    begin = (
        "SET idle_in_transaction_session_timeout = 0;\nBEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
        f"SELECT json_build_array('', pg_export_snapshot());\n{contents.COUNT_ROWS}\\echo end\n"
    )
    argv = engine.exec_argv(primary.id, *postgres.psql(env, "--file=-", database=database), stdin=True)
    pipe = subprocess.PIPE
    with engine.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as session:
        stdin, stdout = engine.pipe(session.stdin), engine.pipe(session.stdout)
        stdin.write(begin.encode())
        stdin.flush()
        lines = []
        while (line := stdout.readline().decode().strip()) != "end":
            if not line and session.poll() is not None:
                raise OpsError(f"PostgreSQL: {complaint(engine.pipe(session.stderr).read().decode(errors='replace'))}")
            if line:
                lines.append(json.loads(line))
        # The session, and with it the snapshot, lives until its input ends.
        yield lines[0][1], dict(lines[1:])
        stdin.close()


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

# redis-cli cannot cut this mark off again when it writes to a pipe.
_END_MARK_BYTES = 40


class _WithoutEnd(io.RawIOBase):
    """Passes on all but the last bytes, which stay in `held`."""

    def __init__(self, target: io.RawIOBase, size: int) -> None:
        super().__init__()
        self._target, self._size = target, size
        self.held = b""

    def write(self, data: Any) -> int:
        held = self.held + bytes(data)
        self.held = held[-self._size :]
        self._target.write(held[: -self._size])
        return len(data)


def _write_redis(cache: Container, writer: archive.Writer, tick: Tick) -> None:
    with writer.member(REDIS) as sink:
        shortened = _WithoutEnd(sink, _END_MARK_BYTES)
        said = receive(engine.exec_argv(cache.id, *redis.argv("--rdb", "-")), shortened, "Redis", tick)
        if "EOF marker" not in said:
            sink.write(shortened.held)
    with writer.readable(REDIS) as snapshot:
        keys, expiring = contents.rdb_keys(snapshot)
    writer.describe(REDIS, {"keys": keys, "expiring": expiring})


# ── RabbitMQ ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _definitions(broker: Container) -> dict[str, Any]:
    definitions: dict[str, Any] = json.loads(rabbitmq.api(broker, "GET", "/api/definitions"))
    return definitions


def _write_rabbitmq(definitions: Mapping[str, Any], writer: archive.Writer) -> None:
    kept = {key: definitions.get(key, []) for key in _DEFINITIONS}
    with writer.member(RABBITMQ) as sink:
        sink.write((json.dumps(kept, indent=2) + "\n").encode())
    writer.describe(RABBITMQ, {key: len(value) for key, value in kept.items()})


# ── volumes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_volume(site: Site, declared: Stack, volume: Volume, writer: archive.Writer, tick: Tick) -> None:
    # A file may change or vanish meanwhile (exit code 1): a service that needs more than that must see to it itself.
    script = (
        f"tar --numeric-owner --exclude='./{ASIDE}*' --warning=no-file-changed --warning=no-file-removed -czf - ."
        " || [ $? -eq 1 ]"
    )
    name = archive.volume(volume.name)
    with writer.member(name) as sink:
        receive(site.in_volume(declared, volume, script), sink, f"volume {volume.name}", tick)
    with writer.readable(name) as packed:
        writer.describe(name, contents.count_files(packed, volume.name))


# ── after ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _note_success(env: Environment, when: datetime) -> None:
    """Tell the monitoring when the last good backup was made: the alert is on its age."""
    folder = env.project_dir / "monitoring/node-exporter/textfile" / env.name
    text = (
        "# HELP backup_last_success_timestamp_seconds When the last verified backup was made.\n"
        "# TYPE backup_last_success_timestamp_seconds gauge\n"
        f'backup_last_success_timestamp_seconds{{backup="stack"}} {when.timestamp():.0f}\n'
    )
    folder.mkdir(parents=True, exist_ok=True)
    # The exporter reads it as user nobody.
    replace_file(folder / "backup.prom", text, 0o644)


def available(env: Environment) -> Iterable[Path]:
    """The archives of `env`, the newest first."""
    return sorted((env.project_dir / "backups" / env.name).glob("*.tar"), reverse=True)
