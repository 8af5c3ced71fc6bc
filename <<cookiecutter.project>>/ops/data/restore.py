"""Restore: put the content of an archive in the place of what is there.

Everything is prepared beside what runs while that goes on serving: a second database, a second set of Redis files, a
second folder of uploads, each compared with the manifest. Only then the services stop, names are swapped, and the
services start again. The old data is kept until they are healthy; whatever fails before puts it back.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console, signals, undo
from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, INTERRUPTED, USAGE, OpsError
from ops.data import archive
from ops.data.archive import Manifest
from ops.data.backup import (
    POSTGRES,
    RABBITMQ,
    REDIS,
    UPLOADS,
    UPLOADS_ASIDE,
    UPLOADS_FOLDER,
    Tick,
    available,
    complaint,
    count_rows,
    describe,
    in_uploads,
    one_off_argv,
    project_name,
    run_in,
    send,
    sql,
)
from ops.engine import Container
from ops.parts import postgres, provision, rabbitmq, redis, services
from ops.parts.postgres import ownership
from ops.stack import model
from ops.stack.model import Stack
from ops.state import lock

# How many backups a message names.
_SHOWN = 5
# A restored database is larger than the dump and about as large as the one it was taken from; WAL comes on top.
_SPACE_FACTOR = 2


@dataclass(frozen=True)
class Result:
    """A finished restore, times in seconds; during `interruption` the services were away.

    `kept`: the databases that this restore or an earlier one put aside and that are still there. `roles`: roles that
    it created, without a password.
    """

    path: Path
    seconds: float
    interruption: float
    counts: Mapping[str, Mapping[str, Any]]
    kept: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()


def restore(
    env: Environment,
    path: Path,
    assume_yes: bool = False,
    *,
    other_environment: bool = False,
    keep_old: bool = False,
    tick: Tick = lambda _words: None,
) -> Result:
    """Replace the data of `env` by the content of the archive at `path`.

    `other_environment` allows an archive of another environment of this project; `keep_old` keeps the old database
    beside the new one. Raises OpsError, whose message says which state holds, when the archive is damaged or does not
    fit, when nobody agrees, or when a step fails.
    """
    path = locate(env, path)
    tick("reading the archive")
    manifest = archive.verify(path)
    check_fits(env, path, manifest, other_environment)
    # Before anything is looked at: while a person thinks about the question, no deploy may replace what was seen.
    with lock.hold(env, f"restore --env {env.name}") as held:
        work = _Restore(env, path, manifest, model.load(env), engine.containers(env), keep_old, tick)
        work.check()
        if not _agreed(env, path, manifest, work, assume_yes):
            raise OpsError("Nothing was changed.", code=FAILED)
        held.check()
        return work.run()


def locate(env: Environment, path: Path) -> Path:
    """The archive that was named: a path, or a name of a file in backups/<env>/. Raises OpsError (usage)."""
    folder = env.project_dir / "backups" / env.name
    if not path.exists() and path.name == str(path) and (folder / path).exists():
        path = folder / path
    if path.is_file():
        return path
    if path.exists():
        raise OpsError(f"{relative(path)} is not a file. A restore reads its archive more than once.", code=USAGE)
    newest = [relative(each) for each in list(available(env))[:_SHOWN]]
    known = f"The newest backups of {env.name}: {', '.join(newest)}." if newest else f"{env.name} has no backup yet."
    raise OpsError(f"{path} does not exist.", known, USAGE)


def as_json(result: Result) -> dict[str, Any]:
    """The result for programs."""
    return {
        "path": str(result.path),
        "seconds": round(result.seconds, 3),
        "interruption_seconds": round(result.interruption, 3),
        "counts": result.counts,
        "kept_databases": list(result.kept),
        "created_roles": list(result.roles),
    }


def show(result: Result) -> None:
    """The result for people."""
    total, interruption = console.duration(result.seconds), console.duration(result.interruption)
    console.say(f"restored {relative(result.path)} in {total}; the services were away for {interruption}", "green")
    for line in describe(result.counts):
        console.say(f"  {line}")
    if result.roles:
        console.say(
            f"  created the roles {', '.join(result.roles)}, without a password: set one with \\password in psql"
        )
    for name in result.kept:
        console.say(f"  {name} was kept. To remove it, on the primary: dropdb {name}")


def check_fits(env: Environment, path: Path, manifest: Manifest, other_environment: bool) -> None:
    """Raises OpsError when an archive is of another project, or of another environment and that is not allowed."""
    facts = manifest.facts
    if facts.project != project_name(env):
        raise OpsError(
            f"{relative(path)} is a backup of the project {facts.project}, not of {project_name(env)}.", code=USAGE
        )
    if facts.environment != env.name and not other_environment:
        raise OpsError(
            f"{relative(path)} is a backup of {facts.environment}, not of {env.name}.",
            f"If you want the data of {facts.environment} in {env.name}, add --other-environment.",
            USAGE,
        )


def check_version(what: str, written: str, here: str, parts: int) -> None:
    """Raises OpsError when an archive was written by a later version than runs here; `parts` of the number count."""
    if _numbers(written)[:parts] > _numbers(here)[:parts]:
        raise OpsError(
            f"The backup was made by {what} {written}; {here} runs here and cannot read it.",
            f"Run {what} {'.'.join(written.split('.')[:parts])} or newer.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _agreed(env: Environment, path: Path, manifest: Manifest, work: _Restore, assume_yes: bool) -> bool:
    facts = manifest.facts
    if not assume_yes:
        age = console.duration((datetime.now(UTC) - facts.created_at).total_seconds())
        console.say(f"{relative(path)}: {facts.environment}, {facts.created_at:%Y-%m-%d %H:%M:%S} UTC, {age} old")
        for line in describe({name: member.counts for name, member in manifest.members.items()}):
            console.say(f"  {line}")
        console.say(f"It replaces what {env.name} holds now, which is lost unless you have a backup of it:", "yellow")
        for line in work.present():
            console.say(f"  {line}")
        console.say(f"{services.names(work.services)} will be stopped for a moment.")
    expect = env.name if env.name == "prod" else ""
    return console.confirm(f"Replace the data of {env.name}?", assume_yes, expect=expect)


# What _LIST_ROLES of backup.py writes, and nothing else: it becomes part of a statement.
_ROLE_OPTIONS = re.compile(
    r"(?:(?:SUPERUSER|LOGIN|NOINHERIT|CREATEDB|CREATEROLE|REPLICATION|BYPASSRLS|CONNECTION LIMIT \d+)(?: |$))*"
)

# A dump is loaded with an empty search path, and a CHECK whose function names a table without its schema would fail. So
# that one line is replaced, in the preamble; the rest passes as it is. `read` takes no byte more than it needs.
_LOAD = r"""
set -euo pipefail
pg_restore --file=- | {
    while IFS= read -r line; do
        if [ "$line" = "SELECT pg_catalog.set_config('search_path', '', false);" ]; then
            printf 'SET search_path = %s;\n' "$3"
            break
        fi
        printf '%s\n' "$line"
    done
    cat
} | psql --no-psqlrc --quiet --no-password --single-transaction --set=ON_ERROR_STOP=1 --output=/dev/null \
    --username="$1" --dbname="$2"
"""

_RENAME = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN (:'a', :'c') \\g /dev/null
BEGIN;
ALTER DATABASE :"a" RENAME TO :"b";
ALTER DATABASE :"c" RENAME TO :"d";
COMMIT;
"""


class _Restore:
    """One restore: what it needs to know, what it is doing, and what must be undone should that fail."""

    def __init__(
        self,
        env: Environment,
        path: Path,
        manifest: Manifest,
        declared: Stack,
        containers: Sequence[Container],
        keep_old: bool,
        tick: Tick,
    ) -> None:
        self.env, self.path, self.manifest, self.keep_old, self._tick = env, path, manifest, keep_old, tick
        self.declared, self.containers = declared, containers
        self.broker = rabbitmq.node(env, containers)
        self.primary = postgres.primary(env, containers)
        self.cache = redis.primary(env, containers)
        self.cache_replicas = [each for each in redis.nodes(containers) if each.id != self.cache.id]
        self.services = [each for each in services.of(declared, containers) if each.running]
        self.database = env.values["POSTGRES_DB"]
        self.owned = provision.declared(env, declared)
        # A name has 63 characters at most, and the longest ending here has 30.
        stamp, stem = f"{datetime.now(UTC):%Y%m%d%H%M%S}", self.database[:33]
        self.beside, self.aside = f"{stem}_restoring_", f"{stem}_before_restore_"
        self.new, self.old = self.beside + stamp, self.aside + stamp
        self.roles: list[str] = []
        self.doing = "looking around"
        self.undo: list[tuple[str, Callable[[], object]]] = []
        self.touched = False

    def at(self, doing: str) -> None:
        """Begin a step; the words are for progress and for the message should it fail."""
        self.doing = doing
        self.tell(doing)

    def tell(self, words: str) -> None:
        """Progress. That nobody can read it any more is no reason to stop."""
        with contextlib.suppress(OSError):
            self._tick(words)

    # ── before anything is touched ────────────────────────────────────────────────────────────────────────────────────

    def check(self) -> None:
        """Raises OpsError when this archive cannot be restored here."""
        ran = {each.service for each in self.containers}
        if missing := [name for name in self.declared.migrations if name not in ran]:
            raise OpsError(
                f"{self.env.name} was not deployed completely: {', '.join(missing)} never ran.",
                f"invoke deploy --env {self.env.name}",
            )
        versions = self.manifest.facts.versions
        check_version("PostgreSQL", versions["postgres"], self._sql("SHOW server_version").split()[0], 1)
        check_version("Redis", versions["redis"], redis.info(self.cache, "server")["redis_version"], 2)
        needed = self.manifest.counts(POSTGRES)["database_bytes"] * _SPACE_FACTOR
        listed = run_in(self.primary, ["df", "-Pk", "/var/lib/postgresql"], "PostgreSQL").splitlines()[-1].split()
        free = int(listed[3]) * 1024
        if free < needed:
            raise OpsError(
                f"PostgreSQL's disk has {console.size(free)} free; the restore may need {console.size(needed)}.",
                "Free some space on the disk of the volumes: for a while the old and the new data are both on it.",
            )

    def present(self) -> list[str]:
        """What is there now, a line for each part."""
        rows = count_rows(self.env, self.primary)
        return [
            f"PostgreSQL  {console.amount(sum(rows.values()), 'row')} in {console.amount(len(rows), 'table')}",
            f"Redis       {console.amount(self._keys(), 'key')}",
            f"Uploads     {console.amount(self._count_uploads('.'), 'file')}",
        ]

    # ── the whole of it ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Result:
        """Prepare, switch, clean up; or undo."""
        began = time.monotonic()
        # A terminal that is closed, or a connection that is lost, must not stop it halfway.
        with signals.ignored(signal.SIGHUP):
            try:
                self._prepare_postgres()
                self._prepare_redis()
                self._prepare_uploads()
                stopped = time.monotonic()
                self._stop_services()
                self._switch_postgres()
                self._switch_redis()
                self._switch_uploads()
                self._import_rabbitmq()
                self._start_services()
            except BaseException as error:
                raise self._failed(error) from error
            interruption = time.monotonic() - stopped
            kept = self._clean_up()
        counts = {name: member.counts for name, member in self.manifest.members.items()}
        return Result(self.path, time.monotonic() - began, interruption, counts, kept, tuple(self.roles))

    def _failed(self, error: BaseException) -> OpsError:
        """Put back what was there; the error that says what happened and which state holds."""
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted." if interrupted else str(error) or type(error).__name__
        message = f"The restore failed while {self.doing}: {reason}"
        with signals.undisturbed():
            if interrupted:
                engine.end_all()
            not_undone = undo.every((words, self._told(words, step)) for words, step in reversed(self.undo))
        code = INTERRUPTED if interrupted else FAILED
        if not_undone:
            return OpsError(
                f"{message} What was there could NOT be put back completely. Failed: {'; '.join(not_undone)}.",
                f"The old data still exists, the database as {self.database} or {self.old}; see docs/recovery.md.",
                code,
            )
        if self.touched:
            return OpsError(f"{message} The old data is back in place, and the services run on it.", code=code)
        return OpsError(f"{message} Nothing was changed, and the services ran all the time.", code=code)

    def _told(self, words: str, step: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            self.tell(words)
            step()

        return act

    # ── beside what runs ──────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_postgres(self) -> None:
        self.at("restoring PostgreSQL into a new database")
        # Of a restore that was killed.
        for name in self._databases(self.beside):
            self._drop(name)
        self._create_roles()
        self.undo.append(("removing the new database", lambda: self._drop(self.new)))
        self._sql('CREATE DATABASE :"name" TEMPLATE template0', name=self.new)
        user, path = self.env.values["POSTGRES_USER"], self.manifest.counts(POSTGRES).get("search_path", "public")
        argv = engine.exec_argv(self.primary.id, "bash", "-c", _LOAD, "bash", user, self.new, path, stdin=True)
        with archive.member(self.path, POSTGRES) as dump:
            send(argv, dump, "PostgreSQL", self.tell)
        self.at("comparing the rows with the manifest")
        wanted, found = self.manifest.counts(POSTGRES)["rows"], count_rows(self.env, self.primary, self.new)
        if wanted != found:
            tables = [name for name in {*wanted, *found} if wanted.get(name) != found.get(name)]
            raise OpsError(f"{', '.join(sorted(tables))}: the number of rows is not that of the manifest.")
        self.at("setting privileges and bringing the schema up to date")
        # Privileges of a database are not part of its dump.
        roles = ["bash", "/etc/postgresql/roles.sh"]
        run_in(self.primary, roles, "roles.sh", variables={"POSTGRES_DB": self.new})
        ownership.provide(self.env, self.owned, self.primary, self.new)
        # An older backup has an older schema than the services that will use it.
        for job in self.declared.migrations:
            arguments = ("run", "--rm", "--no-deps", "--no-TTY", "--env", f"DATABASE_NAME={self.new}", job)
            done = engine.compose(self.env, *arguments, check=False, timeout=None)
            if not done.ok:
                raise engine.explain(done.stderr) or OpsError(
                    f"The migrations of {job} refused it; is the backup newer than the project?"
                    f" {complaint(done.stderr + done.stdout)}"
                )
        self._sql("ANALYZE", database=self.new)

    def _create_roles(self) -> None:
        """Create the roles that the dump names and this server lacks, as they were but without a password."""
        present = set(self._sql("SELECT rolname FROM pg_roles").splitlines())
        missing = [role for role in self.manifest.counts(POSTGRES).get("roles", ()) if role["name"] not in present]
        self.undo.append(("removing the new roles", self._drop_roles))
        for role in missing:
            if not _ROLE_OPTIONS.fullmatch(role["options"]):
                raise OpsError(f"The manifest has impossible options for the role {role['name']}: {role['options']}")
            self._sql(f'CREATE ROLE :"name" {role["options"]}', name=role["name"])
            self.roles.append(role["name"])
        for role in missing:
            for group in role["member_of"]:
                self._sql('GRANT :"group" TO :"name"', group=group, name=role["name"])

    def _drop_roles(self) -> None:
        while self.roles:
            self._sql('DROP ROLE IF EXISTS :"name"', name=self.roles.pop())

    def _prepare_redis(self) -> None:
        self.at("putting the Redis snapshot beside the present one")
        folder = "/data/.restore"
        self.undo.append(("removing the Redis snapshot", lambda: self._in_cache(f"rm -rf {folder}")))
        # The shape of an append-only file with several parts: the base alone, to which the server adds.
        script = (
            f"set -eu; rm -rf {folder}; mkdir {folder}; cd {folder}; cat > appendonly.aof.1.base.rdb;"
            " redis-check-rdb appendonly.aof.1.base.rdb >&2;"
            " printf 'file appendonly.aof.1.base.rdb seq 1 type b\\n' > appendonly.aof.manifest"
        )
        with archive.member(self.path, REDIS) as snapshot:
            send(engine.exec_argv(self.cache.id, "sh", "-c", script, stdin=True), snapshot, "Redis", self.tell)

    def _prepare_uploads(self) -> None:
        self.at("unpacking the uploads beside the present ones")
        self.undo.append(("removing the unpacked uploads", lambda: self._uploads(f"rm -rf {_NEW} {_OLD} {_MOVED}")))
        script = f"set -eu; cd {UPLOADS_FOLDER}; rm -rf {_NEW}; mkdir {_NEW}; tar -C {_NEW} --no-same-owner -xzf -"
        argv, options = in_uploads(self.env, self.containers, script)
        with archive.member(self.path, UPLOADS) as packed:
            send(argv, packed, "uploads", self.tell, **options)
        wanted, found = self.manifest.counts(UPLOADS)["files"], self._count_uploads(_NEW)
        if wanted != found:
            raise OpsError(f"Unpacked files: {found}; the manifest says {wanted}.")

    # ── the switch ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _stop_services(self) -> None:
        self.at(f"stopping {services.names(self.services)}")
        self.touched = True
        self.undo.append(("starting the services again", self._restart_services))
        services.stop(self.services)

    def _restart_services(self) -> None:
        services.start(self.services)
        # One that was in trouble before is not what a restore is to blame or to be held up for.
        services.wait_healthy([each for each in self.services if each.ready])

    def _switch_postgres(self) -> None:
        self.at("swapping the databases")
        # Whether it took place is found by the name, should it be interrupted.
        self.undo.append(("swapping the databases back", self._switch_postgres_back))
        self._rename((self.database, self.old), (self.new, self.database))

    def _switch_postgres_back(self) -> None:
        if self._sql("SELECT count(*) FROM pg_database WHERE datname = :'name'", name=self.old) == "1":
            self._rename((self.database, self.new), (self.old, self.database))

    def _rename(self, *pairs: tuple[str, str]) -> None:
        """Rename databases, all or none. Sessions are ended first; whoever comes back in between makes it try again."""
        for attempt in range(5, 0, -1):
            try:
                self._sql(_RENAME, **dict(zip("abcd", (name for pair in pairs for name in pair), strict=True)))
                return
            except OpsError:
                if attempt == 1:
                    raise

    def _switch_redis(self) -> None:
        self.at("giving Redis its snapshot")
        # Both nodes are about to be silent, and neither must be promoted for it.
        self.undo.append(("letting the sentinels act again", lambda: redis.resume_failover(self.containers)))
        redis.suspend_failover(self.containers)
        self.undo.append(("giving Redis its old data back", self._switch_redis_back))
        services.stop([*self.cache_replicas, self.cache])
        put_aside = "rm -rf .before; [ ! -e appendonlydir ] || mv appendonlydir .before"
        self._one_off(self.cache.service, f"set -eu; cd /data; {put_aside}; mv .restore appendonlydir")
        self._start_redis()
        keys, found = self.manifest.counts(REDIS), self._keys()
        # What expires may have done so since.
        if not keys["keys"] - keys["expiring"] <= found <= keys["keys"]:
            raise OpsError(f"Keys in Redis: {found}; the manifest says {keys['keys']}.")

    def _switch_redis_back(self) -> None:
        services.stop([*self.cache_replicas, self.cache])
        script = "cd /data && { [ ! -e .before ] || { rm -rf appendonlydir && mv .before appendonlydir; }; }"
        self._one_off(self.cache.service, script)
        self._start_redis()

    def _start_redis(self) -> None:
        # What the replica has is of another history: it copies the primary anew.
        for each in self.cache_replicas:
            self._one_off(each.service, "rm -rf /data/appendonlydir")
        services.start([self.cache])
        services.wait_healthy([self.cache])
        services.start(self.cache_replicas)

    def _switch_uploads(self) -> None:
        self.at("swapping the uploads")
        self.undo.append(("swapping the uploads back", self._switch_uploads_back))
        self._uploads(f"rm -rf {_OLD} {_MOVED}; mkdir {_OLD}; {_move('.', _OLD)}; : > {_MOVED}; {_move(_NEW, '.')}")

    def _switch_uploads_back(self) -> None:
        # Only once all the old ones had moved are those that stand there new.
        put_aside = f"if [ -e {_MOVED} ]; then {_move('.', _NEW)}; rm {_MOVED}; fi"
        self._uploads(f"if [ -d {_OLD} ]; then {put_aside}; {_move(_OLD, '.')}; fi")

    def _import_rabbitmq(self) -> None:
        self.at("importing RabbitMQ's definitions")
        with archive.member(self.path, RABBITMQ) as definitions:
            # Adds and changes, never removes: there is nothing to undo.
            rabbitmq.api(self.broker, "POST", "/api/definitions", definitions.read().decode())

    def _start_services(self) -> None:
        self.at("starting the services and waiting until they are healthy")
        self._restart_services()
        services.wait_healthy(self.cache_replicas)

    # ── afterwards ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _clean_up(self) -> tuple[str, ...]:
        """Remove the old data, or what may be removed of it; a failure here is only untidy."""
        self.tell("removing the old data")
        steps: list[Callable[[], Any]] = [
            lambda: redis.resume_failover(self.containers),
            lambda: self._in_cache("rm -rf /data/.before"),
            lambda: self._uploads(f"rm -rf {_NEW} {_OLD} {_MOVED}"),
        ]
        if not self.keep_old:
            steps.append(lambda: self._drop(self.old))
        for step in steps:
            try:
                step()
            except OpsError as error:
                console.warn(f"the restore is complete, but not all of the old data could be removed: {error.message}")
        with contextlib.suppress(OpsError):
            return tuple(self._databases(self.aside))
        return ()

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _sql(self, text: str, *, database: str = "postgres", **variables: str) -> str:
        return sql(self.env, self.primary, text, database=database, **variables)

    def _databases(self, start: str) -> list[str]:
        """Names of the databases that begin so, oldest first."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, :'start') ORDER BY datname"
        return self._sql(query, start=start).split()

    def _drop(self, database: str) -> None:
        self._sql('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=database)

    def _keys(self) -> int:
        return int(run_in(self.cache, redis.argv("DBSIZE"), "Redis"))

    def _in_cache(self, script: str) -> None:
        run_in(self.cache, ["sh", "-c", script], "Redis")

    def _one_off(self, service: str, script: str) -> None:
        _checked(one_off_argv(self.env, service, script), service, **engine.surroundings(self.env))

    def _uploads(self, script: str) -> str:
        # Which web containers run changes in the course of a restore.
        script = f"set -eu; cd {UPLOADS_FOLDER}; {script}"
        argv, options = in_uploads(self.env, engine.containers(self.env), script)
        return _checked(argv, "uploads", **options)

    def _count_uploads(self, folder: str) -> int:
        return int(self._uploads(f"find {folder} -path './{UPLOADS_ASIDE}*' -prune -o -type f -printf . | wc -c"))


_NEW, _OLD, _MOVED = f"{UPLOADS_ASIDE}new", f"{UPLOADS_ASIDE}old", f"{UPLOADS_ASIDE}moved"


def _move(source: str, target: str) -> str:
    """Shell command that moves everything but our own folders from one folder to another, hidden files too."""
    return f"find {source} -mindepth 1 -maxdepth 1 ! -name '{UPLOADS_ASIDE}*' -exec mv -t {target} -- {{}} +"


def _checked(argv: Sequence[str], what: str, **options: Any) -> str:
    done = engine.run(argv, check=False, timeout=None, **options)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{what}: {complaint(done.stderr or done.stdout)}")
    return done.stdout
