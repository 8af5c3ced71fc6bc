"""Restore: put the content of an archive in the place of what is there.

Everything is prepared beside what runs while that goes on serving: a second one of each database, a second set of Redis
files, a second folder in each volume, each compared with the manifest. Only then the services stop, names are swapped,
and the services start again. The old data is kept until they are healthy; whatever fails before puts it back.

What is begun is noted on the engine before it is (ops/state/swap.py). A restore that is killed while it swaps leaves a
mix of old and new data; the next one, or `restore --undo`, puts the old data back.

What the archive holds and nothing declares any more is left out and named, and so is what is declared and not in it.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console, signals
from ops.base import undo as undoing
from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, INTERRUPTED, REFUSED, USAGE, OpsError
from ops.data import choice
from ops.data.backup import (
    ASIDE,
    POSTGRES,
    RABBITMQ,
    REDIS,
    Parts,
    Tick,
    available,
    count_rows,
    describe,
    find,
    project_name,
    run_in,
    send,
    sql,
)
from ops.data.site import Host, Site, checked, complaint
from ops.engine import Container
from ops.parts import rabbitmq, redis, services
from ops.parts.postgres import ownership
from ops.recovery import archive
from ops.recovery.archive import Facts, Manifest, Member
from ops.stack import model
from ops.stack.owned import Volume
from ops.state import lock, swap
from ops.state.lock import Lock
from ops.state.releases import author
from ops.state.swap import Swap

# What to do about a PostgreSQL outside of the stack.
_FROM_SCRATCH = "Serve what it held beside the stack, and copy from there: invoke restore latest --into scratch"
# In names of databases: beside the one in use, and put aside. At most 30 characters with the time.
_BESIDE, _ASIDE = "_restoring_", "_before_restore_"
# How many backups a message names.
_SHOWN = 5
# A restored database is larger than the dump and about as large as the one it was taken from; WAL comes on top.
_SPACE_FACTOR = 2


@dataclass(frozen=True)
class Result:
    """A finished restore, times in seconds; during `interruption` the services were away.

    `kept`: the databases that this restore or an earlier one put aside and that are still there. `roles`: roles that
    it created, without a password. `left_out`: what was not restored, in words. `source`: what it came from, when that
    is no archive that is still there; `notes`: what else is to be known of it.
    """

    path: Path
    seconds: float
    interruption: float
    counts: Mapping[str, Mapping[str, Any]]
    kept: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    source: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Database:
    """A database that is restored: its name, the member that holds it, and the names that it has on the way."""

    name: str
    member: str
    new: str
    old: str


def restore(
    env: Environment,
    path: Path,
    assume_yes: bool = False,
    *,
    only: Sequence[choice.Part] = (),
    other_environment: bool = False,
    keep_old: bool = False,
    tick: Tick = lambda _words: None,
    site: Site | None = None,
) -> Result:
    """Replace the data of `env` by the content of the archive at `path`.

    `only`: these parts of it; `other_environment` allows an archive of another environment of this project; `keep_old`
    keeps the old database beside the new one. Raises OpsError, whose message says which state holds, when the archive
    is damaged or does not fit, when nobody agrees, or when a step fails.
    """
    path = locate(env, path)
    tick("reading the archive")
    manifest = chosen(env, archive.verify(path), only)
    check_fits(env, relative(path), manifest, other_environment)
    # Before anything is looked at: while a person thinks about the question, no deploy may replace what was seen.
    with lock.hold(env, f"restore --env {env.name}") as held:
        undo_killed(env, tick, site)
        return replace_data(
            env, path, manifest, held, assume_yes, partly=bool(only), keep_old=keep_old, tick=tick, site=site
        )


def replace_data(
    env: Environment,
    path: Path,
    manifest: Manifest,
    held: Lock,
    assume_yes: bool = False,
    *,
    partly: bool = False,
    keep_old: bool = False,
    tick: Tick = lambda _words: None,
    site: Site | None = None,
) -> Result:
    """What `restore` does once the lock is held, with an archive that was verified. partly: the manifest names only
    what is wanted of it, and what it does not name is not missed."""
    site = site or Host(env)
    containers = site.containers()
    work = Restore(env, path, manifest, find(env, containers), containers, keep_old, tick, partly=partly, site=site)
    work.check()
    if not agreed(env, relative(path), manifest, work, assume_yes):
        raise OpsError("Nothing was changed.", code=FAILED)
    held.check()
    return work.run()


def chosen(env: Environment, manifest: Manifest, only: Sequence[choice.Part]) -> Manifest:
    """A manifest with the members that are wanted. Raises OpsError (USAGE) for what is not in it."""
    names = choice.members(only, manifest.members, env.values.get("POSTGRES_DB", ""))
    return replace(manifest, members={name: manifest.members[name] for name in names})


def undo(env: Environment, tick: Tick = lambda _words: None, site: Site | None = None) -> bool:
    """Undo what a restore that was killed had begun. False when there is nothing to undo.

    Raises OpsError when somebody else is changing the environment, or a step fails; it can be called again then.
    """
    with lock.hold(env, f"restore --undo --env {env.name}"):
        return undo_killed(env, tick, site)


def undo_killed(env: Environment, tick: Tick = lambda _words: None, site: Site | None = None) -> bool:
    """What `undo` does, for whoever holds the lock."""
    begun = swap.begun(env)
    if not begun:
        return False
    what = "swapped the data: the old data is put back" if begun.swapping else "prepared the data: that is removed"
    console.warn(f"A restore ({begun.holder}) was killed while it {what} first.")
    site = site or Host(env)
    containers = _with_servers(env, site, redis.NODES if begun.swapping and begun.cache else ())
    cache = next((each for each in containers if each.service == begun.cache), None)
    parts = find(env, containers, lambda _env, _all: cache or redis.primary(env, containers))
    Restore.again(env, parts, containers, begun, tick, site).put_back(begun.swapping)
    if begun.swapping:
        console.say("the old data is back in place", "green")
    return True


def _with_servers(env: Environment, site: Site, resting: Sequence[str]) -> list[Container]:
    """The containers of the stack, with its servers running, whatever became of them; those of `resting` may rest."""
    foundation = model.load(env).foundation
    containers = site.containers()
    if missing := [name for name in foundation if not any(each.service == name for each in containers)]:
        site.make(missing)
        containers = site.containers()
    idle = [
        each for each in containers if each.service in foundation and each.service not in resting and not each.running
    ]
    site.start(idle)
    site.wait_healthy(idle)
    return site.containers() if idle else containers


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
        "path": "" if result.source else str(result.path),
        "source": result.source,
        "notes": list(result.notes),
        "seconds": round(result.seconds, 3),
        "interruption_seconds": round(result.interruption, 3),
        "counts": result.counts,
        "kept_databases": list(result.kept),
        "created_roles": list(result.roles),
        "left_out": list(result.left_out),
    }


def show(result: Result) -> None:
    """The result for people."""
    total, interruption = console.duration(result.seconds), console.duration(result.interruption)
    what = result.source or relative(result.path)
    console.say(f"restored {what} in {total}; the services were away for {interruption}", "green")
    for line in result.notes:
        console.say(f"  {line}")
    for line in describe(result.counts):
        console.say(f"  {line}")
    if result.roles:
        console.say(
            f"  created the roles {', '.join(result.roles)}, without a password: set one with \\password in psql"
        )
    for line in result.left_out:
        console.warn(f"Not restored: {line}.")
    for name in result.kept:
        console.say(f"  {name} was kept. To remove it, on the primary: dropdb {name}")


def check_fits(env: Environment, what: str, manifest: Manifest, other_environment: bool) -> None:
    """Raises OpsError when an archive is of another project, or of another environment and that is not allowed."""
    facts = manifest.facts
    if facts.project != project_name(env):
        raise OpsError(f"{what} is a backup of the project {facts.project}, not of {project_name(env)}.", code=USAGE)
    if facts.environment != env.name and not other_environment:
        raise OpsError(
            f"{what} is a backup of {facts.environment}, not of {env.name}.",
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


def agreed(
    env: Environment, what: str, manifest: Manifest, work: Restore, assume_yes: bool, notes: Sequence[str] = ()
) -> bool:
    """Show what is replaced, and by what, and ask. notes: what else is to be known of it."""
    facts = manifest.facts
    if not assume_yes:
        age = console.duration((datetime.now(UTC) - facts.created_at).total_seconds())
        console.say(f"{what}: {facts.environment}, {facts.created_at:%Y-%m-%d %H:%M:%S} UTC, {age} old")
        for line in notes:
            console.say(f"  {line}")
        for line in describe({name: member.counts for name, member in manifest.members.items()}):
            console.say(f"  {line}")
        console.say(f"It replaces what {env.name} holds now, which is lost unless you have a backup of it:", "yellow")
        for line in work.present():
            console.say(f"  {line}")
        for line in work.left_out:
            console.say(f"Not restored: {line}.", "yellow")
        console.say(f"{services.names(work.services)} will be stopped for a moment.")
    expect = env.name if env.name == "prod" else ""
    return console.confirm(f"Replace the data of {env.name}?", assume_yes, expect=expect)


# What LIST_ROLES of ops/recovery/contents.py writes, and nothing else: it becomes part of a statement.
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

_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({names}) \\g /dev/null"


def renaming(pairs: Sequence[tuple[str, str]]) -> str:
    """A script that renames databases in this order, all or none, after it has ended their sessions."""
    names = ", ".join(ownership.literal(name) for name, _ in pairs)
    quoted = [(ownership.identifier(before), ownership.identifier(after)) for before, after in pairs]
    lines = [f"ALTER DATABASE {before} RENAME TO {after};" for before, after in quoted]
    return "\n".join([_END_SESSIONS.format(names=names), "BEGIN;", *lines, "COMMIT;"])


class Restore:
    """One restore, of an archive that was verified: what it needs to know, what it is doing, and what must be undone
    should that fail."""

    def __init__(
        self,
        env: Environment,
        path: Path,
        manifest: Manifest,
        parts: Parts,
        containers: Sequence[Container],
        keep_old: bool,
        tick: Tick,
        *,
        partly: bool = False,
        stamp: str = "",
        site: Site | None = None,
    ) -> None:
        self.env, self.path, self.manifest, self.keep_old, self._tick = env, path, manifest, keep_old, tick
        self.partly, self.site = partly, site or Host(env)
        self.parts, self.containers = parts, containers
        self.declared, self.owned = parts.declared, parts.owned
        members = manifest.members
        self.broker = parts.broker if RABBITMQ in members else None
        self.cache = parts.cache if REDIS in members else None
        nodes = redis.nodes(containers) if self.cache else []
        self.cache_replicas = [each for each in nodes if self.cache and each.id != self.cache.id]
        self.services = [each for each in self.site.clients(self.declared, containers) if each.running]
        # A name has 63 characters at most, and the longest ending here has 30.
        self.stamp = stamp or f"{datetime.now(UTC):%Y%m%d%H%M%S}"
        self.databases = [*self._wanted_databases()] if parts.primary else []
        packed = archive.volumes(members)
        self.volumes = {each: packed[each.name] for each in self.owned.volumes if each.name in packed}
        self.left_out = tuple(self._left_out())
        self.roles: list[str] = []
        self.doing = "looking around"
        self.undo: list[tuple[str, Callable[[], object]]] = []
        self.touched = False

    @classmethod
    def again(
        cls, env: Environment, parts: Parts, containers: Sequence[Container], begun: Swap, tick: Tick, site: Site
    ) -> Restore:
        """The restore that was killed, as far as undoing it needs it."""
        names = [member for _, member in begun.databases] + [archive.volume(each) for each in begun.volumes]
        manifest = Manifest(
            Facts(project_name(env), env.name, datetime.now(UTC), {}),
            {name: Member(0, "") for name in [*names, *([REDIS] if begun.cache else [])]},
        )
        work = cls(env, Path(), manifest, parts, containers, False, tick, partly=True, stamp=begun.stamp, site=site)
        work.roles = [*begun.roles]
        clients = site.clients(parts.declared, containers)
        work.services = [each for each in clients if each.id in begun.services]
        return work

    def _wanted_databases(self) -> Iterator[Database]:
        found = archive.databases(self.manifest.members)
        mine = {name: member for name, member in found.items() if name in self.owned.databases}
        if POSTGRES in self.manifest.members:
            mine = {self.env.values["POSTGRES_DB"]: POSTGRES, **mine}
        for name, member in mine.items():
            yield Database(name, member, f"{name[:33]}{_BESIDE}{self.stamp}", f"{name[:33]}{_ASIDE}{self.stamp}")

    def _left_out(self) -> Iterator[str]:
        """What is in the archive and not restored, and what is declared and not in the archive."""
        members, parts = self.manifest.members, self.parts
        for title, member, there in (
            ("PostgreSQL", POSTGRES, parts.primary),
            ("Redis", REDIS, parts.cache),
            ("RabbitMQ", RABBITMQ, parts.broker),
        ):
            if member == POSTGRES and parts.owned.managed:
                if member in members or archive.databases(members):
                    yield f"PostgreSQL: it is outside of the stack. {_FROM_SCRATCH}"
            elif member in members and there is None:
                yield f"{title}: the stack has none"
            elif there and member not in members and not self.partly:
                yield f"{title}: the backup does not hold it, and it stays as it is"
        for kind, label, held, declared in (
            ("database", "ops.database", archive.databases(members), self.owned.databases),
            ("volume", "ops.backup", archive.volumes(members), [each.name for each in self.owned.volumes]),
        ):
            yield from (f"{kind} {name}: no label {label} declares it" for name in held if name not in declared)
            yield from (
                f"{kind} {name}: the backup does not hold it, and it stays as it is"
                for name in declared
                if name not in held and not self.partly
            )

    @property
    def primary(self) -> Container:
        """The primary; only asked for where there is something to restore into it."""
        assert self.parts.primary
        return self.parts.primary

    @property
    def members(self) -> list[str]:
        """The members of the archive that are restored here."""
        found = [each.member for each in self.databases]
        return [*found, *self.volumes.values(), *([REDIS] if self.cache else []), *([RABBITMQ] if self.broker else [])]

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
        ran = self.site.ran(self.containers)
        if missing := [name for name in self.declared.migrations if name not in ran]:
            raise OpsError(
                f"{self.env.name} was not deployed completely: {', '.join(missing)} never ran.",
                f"invoke deploy --env {self.env.name}",
            )
        if self.owned.managed and not (self.volumes or self.cache or self.broker):
            raise OpsError("PostgreSQL is outside of the stack: nothing there is replaced.", _FROM_SCRATCH, REFUSED)
        versions = self.manifest.facts.versions
        if self.cache:
            check_version("Redis", versions["redis"], redis.info(self.cache, "server")["redis_version"], 2)
        if not self.databases:
            return
        check_version("PostgreSQL", versions["postgres"], self._sql("SHOW server_version").split()[0], 1)
        needed = sum(self.manifest.counts(each.member)["database_bytes"] for each in self.databases) * _SPACE_FACTOR
        listed = run_in(self.primary, ["df", "-Pk", "/var/lib/postgresql"], "PostgreSQL").splitlines()[-1].split()
        free = int(listed[3]) * 1024
        if free < needed:
            raise OpsError(
                f"PostgreSQL's disk has {console.size(free)} free; the restore may need {console.size(needed)}.",
                "Free some space on the disk of the volumes: for a while the old and the new data are both on it.",
            )

    def present(self) -> list[str]:
        """What is there now, a line for each part."""
        there = set(self._sql("SELECT datname FROM pg_database").splitlines()) if self.databases else set()
        counts: dict[str, Mapping[str, Any]] = {
            each.member: {"rows": count_rows(self.env, self.primary, each.name)}
            for each in self.databases
            if each.name in there
        }
        lines = describe(counts)
        if self.cache:
            lines += describe({REDIS: {"keys": self._keys(self.cache)}})
        for volume, member in self.volumes.items():
            files, used = self._volume(volume, f"{_COUNT_FILES}; du -sk . | cut -f1").split()
            lines += describe({member: {"files": int(files), "bytes": int(used) * 1024}})
        return lines

    # ── the whole of it ───────────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> Result:
        """Prepare, switch, clean up; or undo."""
        began = time.monotonic()
        # A terminal that is closed, or a connection that is lost, must not stop it halfway.
        with signals.ignored(signal.SIGHUP):
            try:
                self._note(swapping=False)
                self._prepare_postgres()
                self._prepare_redis()
                self._prepare_volumes()
                stopped = time.monotonic()
                self._note(swapping=True)
                self._stop_services()
                self._switch_postgres()
                self._switch_redis()
                self._switch_volumes()
                self._import_rabbitmq()
                self._migrate_in_place()
                self._start_services()
            except BaseException as error:
                raise self._failed(error) from error
            interruption = time.monotonic() - stopped
            # From here on the new data is the data: what is left of the old one only takes up room.
            swap.end(self.env)
            kept = self._clean_up()
        counts = {name: member.counts for name, member in self.manifest.members.items()}
        took = time.monotonic() - began
        return Result(self.path, took, interruption, counts, kept, tuple(self.roles), self.left_out)

    def _failed(self, error: BaseException) -> OpsError:
        """Put back what was there; the error that says what happened and which state holds."""
        interrupted = isinstance(error, KeyboardInterrupt)
        reason = "interrupted." if interrupted else str(error) or type(error).__name__
        message = f"The restore failed while {self.doing}: {reason}"
        with signals.undisturbed():
            if interrupted:
                engine.end_all()
            not_undone = self._undo()
        code = INTERRUPTED if interrupted else FAILED
        if not_undone:
            return OpsError(
                f"{message} What was there could NOT be put back completely. Failed: {'; '.join(not_undone)}.",
                f"The old data still exists. Try again: invoke restore --undo --env {self.env.name}",
                code,
            )
        if self.touched:
            return OpsError(f"{message} The old data is back in place, and the services run on it.", code=code)
        return OpsError(f"{message} Nothing was changed, and the services ran all the time.", code=code)

    def _undo(self) -> list[str]:
        """Take every step of the way back; what did not work, in words."""
        not_undone = undoing.every((words, self._told(words, step)) for words, step in reversed(self.undo))
        if not not_undone:
            with contextlib.suppress(OpsError):
                swap.end(self.env)
        return not_undone

    def put_back(self, swapping: bool) -> None:
        """Undo a restore that was killed, whatever it had come to. swapping: whether the data in use may have been
        touched. Raises OpsError when a step fails."""
        self.undo.append(("removing the new roles", self._drop_roles))
        for each in self.databases:
            self.undo.append((f"removing the new {each.name}", partial(self._drop, each.new)))
        for volume in self.volumes:
            self._undo_in(volume, "removing the unpacked files", f"rm -rf {_NEW} {_OLD} {_MOVED}")
        if cache := self.cache:
            self.undo.append(("removing the Redis snapshot", lambda: _in_cache(cache, "rm -rf /data/.restore")))
        if swapping:
            self.undo.append(("starting the services again", self._restart_services))
            if self.databases:
                self.undo.append(("swapping the databases back", self._switch_postgres_back))
            if cache:
                self._undo_redis(cache)
            for volume in self.volumes:
                self._undo_in(volume, "swapping back the files", self._back())
        with signals.ignored(signal.SIGHUP):
            if swapping:
                self.site.stop([each for each in self.services if each.running])
            if not_undone := self._undo():
                raise OpsError(
                    f"The old data could not be put back completely. Failed: {'; '.join(not_undone)}.",
                    f"It still exists. Try again: invoke restore --undo --env {self.env.name}",
                )

    def _note(self, swapping: bool) -> None:
        swap.begin(
            self.env,
            Swap(
                swapping,
                self.stamp,
                databases=tuple((each.name, each.member) for each in self.databases),
                volumes=tuple(each.name for each in self.volumes),
                cache=self.cache.service if self.cache else "",
                roles=tuple(self.roles),
                services=tuple(each.id for each in self.services),
                holder=f"by {author()}, begun at {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC",
            ),
        )

    def _told(self, words: str, step: Callable[[], object]) -> Callable[[], None]:
        def act() -> None:
            self.tell(words)
            step()

        return act

    # ── beside what runs ──────────────────────────────────────────────────────────────────────────────────────────────

    def _prepare_postgres(self) -> None:
        if not self.databases:
            return
        self.at("setting privileges")
        # As a deploy would, and to stay: a dump names the roles of the services.
        ownership.provide(self.env, self.owned, self.primary)
        self._create_roles()
        for each in self.databases:
            self._prepare_database(each)
        self.at("setting privileges and bringing the schema up to date")
        common = next((each.new for each in self.databases if each.member == POSTGRES), "")
        # Privileges of a database are not part of its dump.
        setting = ["env", f"POSTGRES_DB={common}"] if common else []
        run_in(self.primary, [*setting, "bash", "/etc/postgresql/roles.sh"], "roles.sh")
        ownership.provide(self.env, self.owned, self.primary, common)
        owners = {each.database: each.name for each in self.owned.roles if each.database}
        for each in self.databases:
            if each.name in owners:
                self._sql('ALTER DATABASE :"name" OWNER TO :"owner"', name=each.new, owner=owners[each.name])
        # An older backup has an older schema than the services that will use it.
        for job, variables in self._migrations_beside().items():
            self._migrate(job, variables)
        for each in self.databases:
            self._sql("ANALYZE", database=each.new)

    def _prepare_database(self, database: Database) -> None:
        self.at(f"restoring {database.name} into a new database")
        # Of a restore that was killed.
        for name in self._named(f"{database.name[:33]}{_BESIDE}"):
            self._drop(name)
        self.undo.append(("removing the new database", lambda: self._drop(database.new)))
        self._sql('CREATE DATABASE :"name" TEMPLATE template0', name=database.new)
        counts = self.manifest.counts(database.member)
        user, path = self.env.values["POSTGRES_USER"], counts.get("search_path", "public")
        argv = engine.exec_argv(self.primary.id, "bash", "-c", _LOAD, "bash", user, database.new, path, stdin=True)
        with archive.member(self.path, database.member) as dump:
            send(argv, dump, f"PostgreSQL, {database.name}", self.tell)
        self.at(f"comparing the rows of {database.name} with the manifest")
        wanted, found = counts["rows"], count_rows(self.env, self.primary, database.new)
        if wanted != found:
            tables = [name for name in {*wanted, *found} if wanted.get(name) != found.get(name)]
            raise OpsError(f"{', '.join(sorted(tables))}: the number of rows is not that of the manifest.")

    def _migrations_beside(self) -> dict[str, dict[str, str]]:
        """Migrations that can be pointed at a database by DATABASE_NAME, and what to set for each; they run before the
        services stop. The others know the database by its name only, and run when it has that."""
        new = {each.name: each.new for each in self.databases}
        entries: Mapping[str, Any] = self.declared.document.get("services") or {}
        names = {
            job: (entries.get(job, {}).get("environment") or {}).get("DATABASE_NAME", "")
            for job in self.declared.migrations
        }
        return {job: {"DATABASE_NAME": new[name]} for job, name in names.items() if name in new}

    def _migrate(self, job: str, variables: Mapping[str, str]) -> None:
        done = self.site.migrate(job, variables)
        if not done.ok:
            raise engine.explain(done.stderr) or OpsError(
                f"The migrations of {job} refused it; is the backup newer than the project?"
                f" {complaint(done.stderr + done.stdout)}"
            )

    def _migrate_in_place(self) -> None:
        beside = self._migrations_beside()
        for job in self.declared.migrations if self.databases else ():
            if job not in beside:
                self.at(f"running {job}")
                self._migrate(job, {})

    def _create_roles(self) -> None:
        """Create the roles that the dump names and this server lacks, as they were but without a password."""
        present = set(self._sql("SELECT rolname FROM pg_roles").splitlines())
        # The same in each: roles are the server's.
        listed = self.manifest.counts(self.databases[0].member).get("roles", ())
        missing = [role for role in listed if role["name"] not in present]
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
        if not (cache := self.cache):
            return
        self.at("putting the Redis snapshot beside the present one")
        folder = "/data/.restore"
        self.undo.append(("removing the Redis snapshot", lambda: _in_cache(cache, f"rm -rf {folder}")))
        # The shape of an append-only file with several parts: the base alone, to which the server adds.
        script = (
            f"set -eu; rm -rf {folder}; mkdir {folder}; cd {folder}; cat > appendonly.aof.1.base.rdb;"
            " redis-check-rdb appendonly.aof.1.base.rdb >&2;"
            " printf 'file appendonly.aof.1.base.rdb seq 1 type b\\n' > appendonly.aof.manifest"
        )
        with archive.member(self.path, REDIS) as snapshot:
            send(engine.exec_argv(cache.id, "sh", "-c", script, stdin=True), snapshot, "Redis", self.tell)

    def _prepare_volumes(self) -> None:
        for volume, member in self.volumes.items():
            self.at(f"unpacking the volume {volume.name} beside what it holds")
            self._undo_in(volume, "removing the unpacked files", f"rm -rf {_NEW} {_OLD} {_MOVED}")
            # An archive that does not say whose the volume itself is leaves that as it is.
            script = f"rm -rf {_NEW}; mkdir {_NEW}; {self.site.alike('.', _NEW)}; tar -C {_NEW} --numeric-owner -xzf -"
            with archive.member(self.path, member) as packed:
                send(self.site.in_volume(self.declared, volume, script), packed, f"volume {volume.name}", self.tell)
            wanted = self.manifest.counts(member)["files"]
            found = int(self._volume(volume, f"find {_NEW} -type f -printf . | wc -c"))
            if wanted != found:
                raise OpsError(f"Unpacked files of {volume.name}: {found}; the manifest says {wanted}.")

    def _undo_in(self, volume: Volume, words: str, script: str) -> None:
        self.undo.append((f"{words} of {volume.name}", lambda: self._volume(volume, script)))

    # ── the switch ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _stop_services(self) -> None:
        self.at(f"stopping {services.names(self.services)}")
        self.touched = True
        self.undo.append(("starting the services again", self._restart_services))
        self.site.stop(self.services)
        self.site.stop_jobs(self.declared)

    def _restart_services(self) -> None:
        self.site.start(self.services)
        # One that was in trouble before is not what a restore is to blame or to be held up for.
        self.site.wait_healthy([each for each in self.services if each.ready])

    def _switch_postgres(self) -> None:
        if not self.databases:
            return
        self.at("swapping the databases")
        # Whether it took place is found by the name, should it be interrupted.
        self.undo.append(("swapping the databases back", self._switch_postgres_back))
        self._rename([pair for each in self.databases for pair in ((each.name, each.old), (each.new, each.name))])

    def _switch_postgres_back(self) -> None:
        # All or none were renamed.
        if self._sql("SELECT count(*) FROM pg_database WHERE datname = :'name'", name=self.databases[0].old) == "1":
            self._rename([pair for each in self.databases for pair in ((each.name, each.new), (each.old, each.name))])

    def _rename(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Rename databases, all or none. Sessions are ended first; whoever comes back in between makes it try again."""
        for attempt in range(5, 0, -1):
            try:
                self._sql(renaming(pairs))
                return
            except OpsError:
                if attempt == 1:
                    raise

    def _switch_redis(self) -> None:
        if not (cache := self.cache):
            return
        self.at("giving Redis its snapshot")
        # Both nodes are about to be silent, and neither must be promoted for it.
        self._undo_redis(cache)
        redis.suspend_failover(self.containers)
        self.site.stop([*self.cache_replicas, cache])
        put_aside = "rm -rf .before; [ ! -e appendonlydir ] || mv appendonlydir .before"
        self._one_off(cache.service, f"set -eu; cd /data; {put_aside}; mv .restore appendonlydir")
        self._start_redis(cache)
        keys, found = self.manifest.counts(REDIS), self._keys(cache)
        # What expires may have done so since.
        if not keys["keys"] - keys["expiring"] <= found <= keys["keys"]:
            raise OpsError(f"Keys in Redis: {found}; the manifest says {keys['keys']}.")

    def _undo_redis(self, cache: Container) -> None:
        self.undo.append(("letting the sentinels act again", lambda: redis.resume_failover(self.containers)))
        self.undo.append(("giving Redis its old data back", lambda: self._switch_redis_back(cache)))

    def _switch_redis_back(self, cache: Container) -> None:
        self.site.stop([*self.cache_replicas, cache])
        script = "cd /data && { [ ! -e .before ] || { rm -rf appendonlydir && mv .before appendonlydir; }; }"
        self._one_off(cache.service, script)
        self._start_redis(cache)

    def _start_redis(self, cache: Container) -> None:
        # What the replica has is of another history: it copies the primary anew.
        for each in self.cache_replicas:
            self._one_off(each.service, "rm -rf /data/appendonlydir")
        self.site.start([cache])
        self.site.wait_healthy([cache])
        self.site.start(self.cache_replicas)

    def _switch_volumes(self) -> None:
        for volume in self.volumes:
            self.at(f"swapping the files of {volume.name}")
            self._undo_in(volume, "swapping back the files", self._back())
            forth = f"mkdir {_OLD}; {self.site.alike('.', _OLD)}; {_move('.', _OLD)}; : > {_MOVED}; {_move(_NEW, '.')}"
            self._volume(volume, f"rm -rf {_OLD} {_MOVED}; {forth}; {self.site.alike(_NEW, '.')}")

    def _import_rabbitmq(self) -> None:
        if not self.broker:
            return
        self.at("importing RabbitMQ's definitions")
        with archive.member(self.path, RABBITMQ) as definitions:
            # Adds and changes, never removes: there is nothing to undo.
            rabbitmq.api(self.broker, "POST", "/api/definitions", definitions.read().decode())

    def _start_services(self) -> None:
        self.at("starting the services and waiting until they are healthy")
        self._restart_services()
        self.site.wait_healthy(self.cache_replicas)

    # ── afterwards ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _clean_up(self) -> tuple[str, ...]:
        """Remove the old data, or what may be removed of it; a failure here is only untidy."""
        self.tell("removing the old data")
        steps: list[Callable[[], Any]] = []
        if cache := self.cache:
            steps += [lambda: redis.resume_failover(self.containers), lambda: _in_cache(cache, "rm -rf /data/.before")]
        for volume in self.volumes:
            steps.append(partial(self._volume, volume, f"rm -rf {_NEW} {_OLD} {_MOVED}"))
        for each in self.databases if not self.keep_old else ():
            steps.append(partial(self._drop, each.old))
        for step in steps:
            try:
                step()
            except OpsError as error:
                console.warn(f"the restore is complete, but not all of the old data could be removed: {error.message}")
        with contextlib.suppress(OpsError):
            return tuple(name for each in self.databases for name in self._named(f"{each.name[:33]}{_ASIDE}"))
        return ()

    # ── small things ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _sql(self, text: str, *, database: str = "postgres", **variables: str) -> str:
        return sql(self.env, self.primary, text, database=database, **variables)

    def _named(self, start: str) -> list[str]:
        """Names of the databases that begin so, oldest first."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, :'start') ORDER BY datname"
        return self._sql(query, start=start).split()

    def _drop(self, database: str) -> None:
        self._sql('DROP DATABASE IF EXISTS :"name" WITH (FORCE)', name=database)

    def _keys(self, cache: Container) -> int:
        return int(run_in(cache, redis.argv("DBSIZE"), "Redis"))

    def _one_off(self, service: str, script: str) -> None:
        self.site.beside(service, script)

    def _volume(self, volume: Volume, script: str) -> str:
        return checked(self.site.in_volume(self.declared, volume, script), f"volume {volume.name}")

    def _back(self) -> str:
        """Shell script that puts the old files of a volume back."""
        return f"if [ -d {_OLD} ]; then {_PUT_ASIDE}; {_move(_OLD, '.')}; {self.site.alike(_OLD, '.')}; fi"


_NEW, _OLD, _MOVED = f"{ASIDE}new", f"{ASIDE}old", f"{ASIDE}moved"
_COUNT_FILES = f"find . -path './{ASIDE}*' -prune -o -type f -printf . | wc -c"


def _in_cache(cache: Container, script: str) -> None:
    run_in(cache, ["sh", "-c", script], "Redis")


def _move(source: str, target: str) -> str:
    """Shell command that moves everything but our own folders from one folder to another, hidden files too."""
    return f"find {source} -mindepth 1 -maxdepth 1 ! -name '{ASIDE}*' -exec mv -t {target} -- {{}} +"


# Only once all the old ones had moved are those that stand there new.
_PUT_ASIDE = f"if [ -e {_MOVED} ]; then {_move('.', _NEW)}; rm {_MOVED}; fi"
