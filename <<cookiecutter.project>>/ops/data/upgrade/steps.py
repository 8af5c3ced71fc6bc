"""The change of a database from one major version of PostgreSQL to another, step by step, and the way back.

pg_upgrade needs the programs of both majors in one image, which the official images do not have. So the data moves
logically: the new major runs beside the old one, in a folder of its own in the same volume, and loads what the old one
dumps, in parallel on both sides. The old server runs on all the while; only the services that write are away. When
every table has as many rows here as there, one rename makes the new folder the database.

What is in the volumes says how far a change has come (see volume.py): whoever finds one that was killed leads to
the database that is in use then, and opens the site.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ops import engine
from ops.base import console, signals
from ops.base.environments import Environment, override, raw_value, relative, set_value
from ops.base.errors import FAILED, INTERRUPTED, REFUSED, OpsError
from ops.base.waiting import until
from ops.data import backup, site
from ops.engine import Container
from ops.parts import postgres, provision, services
from ops.parts.nginx import maintenance
from ops.parts.postgres import majors, ownership, volume
from ops.parts.postgres.majors import ROOT, SETTING, Server
from ops.parts.postgres.volume import STAGING, TARGET, Change, Holding
from ops.rollout import gate
from ops.rollout.compose_up import bring_up, up_argv
from ops.rollout.deploy import TIMEOUT
from ops.stack import images, model
from ops.state import lock, releases

COMMAND = "upgrade-database"
PRIMARY = "postgres-primary"
_FAILOVER = "docker-compose.postgres-failover.yml"
# The label that says what an image of ours with PostgreSQL was built on.
_BASE = "ops.base"
_DUMP, _ROLES = f"{STAGING}/dump", f"{STAGING}/roles.sql"

# On the volumes' disk, in sizes of the database: the dump, the new database, and the standby's copy of it.
_SPACE_FACTOR = 3
# Dump, load, count and copy, in bytes a second: a cautious guess, for what is said beforehand and for limits.
RATE = 10 << 20
# More processes than this gain little on one disk.
_MOST_JOBS = 8


@dataclass(frozen=True)
class Result:
    """A finished upgrade: versions, rows of all tables, bytes; seconds in all, and while the site was closed."""

    archive: Path
    before: str
    after: str
    rows: int
    tables: int
    size: int
    seconds: float
    interruption: float
    kept: str


@dataclass
class Changeover:
    """One change of major: what it found, what it is doing, what it has touched."""

    env: Environment
    held: lock.Lock
    servers: list[Server]
    doing: str = "looking around"
    _touched: bool = False
    _leading_back: bool = False
    _ready_before: frozenset[str] | None = None  # ids of the services' containers; None: it was another command
    _setting: str | None = None  # as it stood in the file before it was changed
    _runner: str = ""
    _holdings: dict[str, Holding] = field(default_factory=dict)
    _tick: Callable[[str], None] = field(default_factory=console.ticker)

    def at(self, doing: str) -> None:
        """Begin a step; the words are for progress and for the message should it fail."""
        if not self._leading_back:
            self.held.check()
        self.doing = doing
        self._tick = console.ticker()
        self.say(doing)

    def say(self, words: str) -> None:
        """A line. That nobody can read it any more is no reason to stop."""
        with contextlib.suppress(OSError):
            console.say(words)

    def tell(self, words: str) -> None:
        """The latest words of a step that takes long."""
        with contextlib.suppress(OSError):
            self._tick(words)

    # ── what there is ─────────────────────────────────────────────────────────────────────────────────────────────────

    def look(self) -> None:
        """Read what the volumes hold. Raises OpsError without an image to look with."""
        mine = [each.image_id for each in engine.containers(self.env) if each.service == PRIMARY]
        found = engine.inspect([*mine, self.env.values.get(SETTING, "")], "image")
        if not found:
            raise OpsError(
                f"No image of PostgreSQL is on this machine to look into the volumes of {self.env.name} with.",
                f"docker pull {self.env.values.get(SETTING, '')}",
                REFUSED,
            )
        self._runner = found[0]["Id"]
        self._holdings = {each.service: volume.look(each, self._runner) for each in self.servers}

    def of(self, server: Server) -> Holding:
        """What the volume of a server holds."""
        return self._holdings[server.service]

    @property
    def primary(self) -> Server:
        """The server whose data counts."""
        return next(each for each in self.servers if each.service == PRIMARY)

    @property
    def standbys(self) -> list[Server]:
        """The servers that copy it."""
        return [each for each in self.servers if each.service != PRIMARY]

    @property
    def holding(self) -> Holding:
        """What the primary's volume holds: the database that counts."""
        return self.of(self.primary)

    def in_volume(self, server: Server, script: str, *arguments: str) -> str:
        """What a shell script prints that starts in the volume of a server; the server need not run."""
        return volume.run_in_volume(server, self._runner, script, *arguments)

    def image(self) -> str:
        """The image that the database in use was last served by. Raises OpsError (REFUSED) when nobody knows."""
        mine = [each.labels.get(_BASE, each.image) for each in engine.containers(self.env) if each.service == PRIMARY]
        deployed = [
            entry.get("labels", {}).get(_BASE, entry.get("image", ""))
            for each in reversed(releases.history(self.env))
            if each.result == releases.DEPLOYED and (entry := _entry(self.env, each))
        ]
        references: dict[str, None] = dict.fromkeys([*mine, *deployed])
        for reference in references:
            found = majors.image(reference)
            if found.present and found.major == self.holding.current:
                return reference
        raise OpsError(
            f"{PRIMARY} of {self.env.name} does not run PostgreSQL {self.holding.current}, of which its database is.",
            f"Set {SETTING} in {relative(self.env.env_file)} to an image of it, invoke deploy --env {self.env.name},"
            f" then invoke {COMMAND} --image IMAGE --env {self.env.name}",
            REFUSED,
        )

    def container(self) -> Container:
        """The running container of the primary."""
        return backup.running(self.env, engine.containers(self.env), PRIMARY)[0]

    def size(self) -> int:
        """Bytes of all databases."""
        return int(backup.sql(self.env, self.container(), "SELECT sum(pg_database_size(oid)) FROM pg_database"))

    def check(self) -> None:
        """Raise OpsError (REFUSED) when no upgrade can be begun."""
        env, primary = self.env, self.container()
        if not primary.ready:
            raise OpsError(f"{PRIMARY} of {env.name} is {primary.health}.", f"invoke health --env {env.name}", REFUSED)
        if (now := postgres.primary(env, engine.containers(env)).service) != PRIMARY:
            raise OpsError(
                f"{now} is the primary of {env.name}; an upgrade begins where {PRIMARY} is.",
                f"Make it the primary again first: invoke failover --env {env.name}",
                REFUSED,
            )
        promoted = [
            each.service
            for each in self.standbys
            if self.of(each).current and self.of(each).current not in self.of(each).standbys
        ]
        if promoted:
            raise OpsError(
                f"{', '.join(promoted)} of {env.name} is no standby: its data may be newer than that of {PRIMARY}.",
                "Decide which of them counts and rebuild the other first: docs/runbook.md.",
                REFUSED,
            )
        needed = self.size() * _SPACE_FACTOR
        listed = backup.run_in(primary, ["df", "-Pk", ROOT], "PostgreSQL").splitlines()[-1].split()
        free = int(listed[3]) * 1024
        if free < needed:
            raise OpsError(
                f"PostgreSQL's disk has {console.size(free)} free; the upgrade may need {console.size(needed)}.",
                "Make room on the disk of the volumes: dump, old and new data exist side by side.",
                REFUSED,
            )

    # ── forth ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def upgrade(self, wanted: majors.Image) -> Result:
        """Back up, close, copy, compare, switch, open; or lead back and raise OpsError."""
        began = time.monotonic()
        change = Change("up", wanted.major, self.image(), wanted.reference)
        kept = majors.folder_of(self.holding.current)
        # A terminal that is closed, or a connection that is lost, must not stop it halfway.
        with signals.ignored(signal.SIGHUP):
            try:
                self._provide(override(self.env, SETTING, change.after))
                # Until the switch, the name of the image is that of the old one.
                self._provide(override(self.env, SETTING, change.before))
                self.at("making a backup while the site serves")
                archive = backup.create(self.env, self.tell)
                old, size = self.container(), self.size()
                version = self._version(old)
                closed = time.monotonic()
                self._close(change)
                names = self._dump(old)
                new = self._start_beside(change)
                self._load(new, names)
                rows = self._compare(old, new, names)
                self._switch(new, change)
                self._bring_up(self.env, wanted.major)
                self._start_services()
            except BaseException as error:
                raise self._failed(error) from error
            # From here on people write to the new database: there is no way back without a loss any more.
            self._open()
            interruption = time.monotonic() - closed
            self._clean_up()
        return Result(
            archive.path,
            version,
            self._version(self.container()),
            sum(rows.values()),
            len(rows),
            size,
            time.monotonic() - began,
            interruption,
            kept,
        )

    def _version(self, server: Container) -> str:
        return backup.sql(self.env, server, "SHOW server_version").split()[0]

    def _close(self, change: Change) -> None:
        self.at("closing the site and draining the services")
        self._touched = True
        self.in_volume(self.primary, f'rm -rf {STAGING}; mkdir -m 0700 {STAGING}; echo "$1" > {TARGET}', str(change))
        mine = self._services()
        self._ready_before = frozenset(each.id for each in mine if each.ready)
        maintenance.close(self.env, COMMAND)
        services.stop([each for each in mine if each.running])
        services.stop_jobs(self.env, model.load(self.env))

    def _dump(self, old: Container) -> list[str]:
        """Dump every database of the old server, and its roles; the names of the databases."""
        self.at("dumping the old database")
        listing = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
        names = backup.sql(self.env, old, listing).splitlines()
        user = self.env.values["POSTGRES_USER"]
        roles = f'umask 077; mkdir {_DUMP}; pg_dumpall --roles-only --no-password --username="$1" > {_ROLES}'
        backup.run_in(old, ["bash", "-euc", roles, "bash", user], "pg_dumpall")
        for number, name in enumerate(names):
            options = ("--format=directory", "--compress=lz4", "--create", "--no-password", "--verbose", *self._jobs())
            target = ("--file", f"{_DUMP}/{number}", f"--username={user}", "--dbname", name)
            self._logged(old, "pg_dump", *options, *target)
        return names

    def _start_beside(self, change: Change) -> Container:
        """Start the new major in a folder of its own beside the old one."""
        self.at(f"starting PostgreSQL {change.major} beside the old one")
        self._remove_beside()
        variable = f"PGDATA={STAGING}/{change.major}/docker"
        argv = ("run", "--detach", "--no-deps", "--name", self._beside, "--env", variable, PRIMARY)
        # On its own, also where nodes agree on a primary: it is none of them yet.
        files = _without_failover(self.env.values["COMPOSE_FILE"])
        alone = override(override(self.env, SETTING, change.after), "COMPOSE_FILE", files)
        engine.compose(alone, *argv, timeout=services.HEALTHY_SECONDS)
        new = until(
            lambda: engine.container(engine.inspect([self._beside])[0]),
            services.HEALTHY_SECONDS,
            accept=lambda new: new.ready or not new.running,
        )
        if not new.ready:
            lines = "\n".join(f"  {line}" for line in engine.logs(new.id, 15))
            state = f"is {new.health}" if new.running else f"ended with exit code {new.exit_code}"
            raise OpsError(f"PostgreSQL {change.major} {state}. Its last lines:\n{lines}")
        return new

    def _load(self, new: Container, names: Sequence[str]) -> None:
        """Load roles and databases. Raises OpsError when a statement of a dump fails."""
        self.at("loading the new database")
        login = ("--no-password", f"--username={self.env.values['POSTGRES_USER']}")
        # That a role is there already, from first boot, is no error; that one is missing, the load of a database finds.
        quietly = {"PGOPTIONS": "-c log_min_error_statement=panic -c log_min_duration_statement=-1"}
        roles = ["psql", "--no-psqlrc", "--quiet", *login, "--dbname=template1", f"--file={_ROLES}"]
        backup.run_in(new, roles, "roles", variables=quietly)
        for number, name in enumerate(names):
            drop = ["dropdb", "--if-exists", "--force", *login, "--maintenance-db=template1", name]
            backup.run_in(new, drop, "dropdb")
            options = ("--create", "--exit-on-error", "--verbose", *login, *self._jobs(), "--dbname=template1")
            self._logged(new, "pg_restore", *options, f"{_DUMP}/{number}")
        self.at("setting privileges and gathering statistics")
        # As on first boot and in a deploy: passwords of all roles, and who may connect to what.
        backup.run_in(new, ["bash", "/etc/postgresql/roles.sh"], "roles.sh")
        ownership.provide(self.env, provision.declared(self.env, model.load(self.env)), new)
        self._logged(new, "vacuumdb", "--all", "--analyze-only", *login, *self._jobs())

    def _compare(self, old: Container, new: Container, names: Sequence[str]) -> dict[str, int]:
        """Rows by table, the same in both. Raises OpsError where they are not."""
        self.at("comparing the rows of every table")
        counted: dict[str, int] = {}
        for name in names:
            # The old one is counted now, not when it was dumped: whoever wrote to it meanwhile would be found.
            wanted, found = (backup.count_rows(self.env, each, name) for each in (old, new))
            if wanted != found:
                tables = sorted(table for table in {*wanted, *found} if wanted.get(table) != found.get(table))
                raise OpsError(f"{', '.join(tables)} of {name}: the number of rows is not that of the old database.")
            counted.update({f"{name}.{table}": rows for table, rows in wanted.items()})
        return counted

    def _switch(self, new: Container, change: Change) -> None:
        self.at("stopping the servers")
        engine.docker("stop", new.id, timeout=None)
        self._remove_beside()
        self._stop_servers()
        self.at("giving the new database its place")
        for each in self.servers:
            self.in_volume(each, 'mkdir -p "$1"; echo "$2" > "$1/upgraded-from"', str(change.major), change.before)
        # Let the nodes of that major agree anew on who is the primary: etcd may know a cluster that was put aside.
        postgres.forget(engine.containers(self.env), f"postgres-{change.major}")
        self.in_volume(self.primary, f'mv "{STAGING}/$1/docker" "$1/docker"; sync', str(change.major))
        self._declare(change.after)

    # ── back ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _failed(self, error: BaseException) -> OpsError:
        """Lead back to the old database; the error that says what happened and which state holds."""
        interrupted = isinstance(error, KeyboardInterrupt)
        code = INTERRUPTED if interrupted else FAILED
        reason = "interrupted." if interrupted else str(error) or type(error).__name__
        message = f"The upgrade failed while {self.doing}: {reason}"
        # An impatient second Ctrl-C must not stop what puts everything back.
        with signals.undisturbed():
            if interrupted:
                engine.end_all()
            if not self._touched:
                return OpsError(f"{message} Nothing was changed, and the site served all the time.", code=code)
            self._leading_back = True
            try:
                self.say("leading back to the old database")
                self._undo_switch()
                self.settle()
            # Also what nobody has thought of, such as a full disk: the first error must not be hidden by it.
            except Exception as second:
                return OpsError(
                    f"{message} The way back failed too: {second}",
                    "No data is lost: the old database is where it was. When the cause is mended:"
                    f" invoke {COMMAND} --back --env {self.env.name}",
                    code,
                )
        return OpsError(f"{message} The old database is in its place, and {self.env.name} runs on it.", code=code)

    def _undo_switch(self) -> None:
        """Nobody has written to the new database yet."""
        self.look()
        if self.holding.reached:
            self._stop_servers()
            self.in_volume(self.primary, f'mv "$1/docker" "{STAGING}/$1"', str(self.holding.current))
            self.look()
        if self._setting is not None:
            self.env = set_value(self.env, SETTING, self._setting)

    def go_back(self, before: str) -> None:
        """Put the newest database aside, so that the one before it is in use again, served by the image `before`."""
        present = self.holding.current
        change = Change("down", self.holding.databases[-2], self.image(), before)
        self._close(change)
        self._stop_servers()
        self.at(f"putting PostgreSQL {present} aside")
        for each in (*self.standbys, self.primary):
            self._put_away(each, present)
        self.settle()

    def settle(self) -> None:
        """Let the database in use be served, by the image that belongs to it, and open the site.

        A change that has reached its end is declared in the .env file; one that has not, was none.
        """
        self.look()
        self._touched = True
        self._remove_beside()
        begun, current = self.holding.begun, self.holding.current
        if begun is None:
            env = override(self.env, SETTING, self.image())
        elif self.holding.reached:
            self._declare(begun.after)
            env = self.env
        else:
            env = override(self.env, SETTING, begun.before)
            self._end_dumps()
        for each in self.standbys:
            if self.of(each).current > current:
                # It goes on with the database that it kept, or copies the primary.
                self._stop_servers()
                self._put_away(each, self.of(each).current)
        self._bring_up(env, current)
        if begun and begun.direction == "down":
            self._migrate()
        self._start_services()
        self._open()
        self._clean_up()
        self.look()

    def declare_before(self) -> None:
        """Write the image of the database in use into the .env file, for an upgrade that is given up."""
        if begun := self.holding.begun:
            self._declare(begun.before)

    def _put_away(self, server: Server, major: int) -> None:
        """Take a database out of use: a standby's is a copy and is removed, any other is put aside."""
        if major in self.of(server).standbys:
            self.in_volume(server, 'rm -rf "$1"', str(major))
        elif major in self.of(server).databases:
            script = 'mkdir -p -m 0700 .aside; mv "$1/docker" ".aside/$1-$2"'
            self.in_volume(server, script, str(major), f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")

    def _end_dumps(self) -> None:
        """End the dumps of a killed command: they would go on by themselves."""
        if self._runs():
            text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = :'name'"
            backup.sql(self.env, self.container(), text, name=COMMAND)

    def _clean_up(self) -> None:
        """Remove the dump, and notes of what did not come about. From here on no change is under way any more."""
        notes = 'for note in */upgraded-from; do [ -e "${note%/*}/docker" ] || rm -rf "${note%/*}"; done'
        for each in self.servers:
            self.in_volume(each, f"{notes}; rm -rf {STAGING}")

    # ── servers and services ──────────────────────────────────────────────────────────────────────────────────────────

    def _declare(self, reference: str) -> None:
        """Write an image into the .env file, unless it says so in its own words."""
        if self.env.values.get(SETTING) != reference:
            self._setting = raw_value(self.env, SETTING)
            self.env = set_value(self.env, SETTING, reference)
            self.say(f"{relative(self.env.env_file)}: {SETTING}={reference}; commit it")

    @property
    def _beside(self) -> str:
        return f"{self.env.project}-{COMMAND}"

    def _remove_beside(self) -> None:
        engine.docker("rm", "--force", "--volumes", self._beside, check=False)

    def _runs(self) -> bool:
        return majors.running(engine.containers(self.env)).get(PRIMARY) == self.holding.current

    def _stop_servers(self) -> None:
        """Stop the standbys, then the primary: nobody writes, and nobody is to be promoted."""
        containers = engine.containers(self.env)
        for server in (*self.standbys, self.primary):
            services.stop([each for each in containers if each.service == server.service and each.running])

    def _bring_up(self, env: Environment, major: int) -> None:
        """Let Compose start the servers of a major, the primary first; what runs well on it is not touched."""
        self._provide(env)
        declared = model.load(env).services
        for server in (self.primary, *self.standbys):
            containers = engine.containers(env)
            if majors.running(containers).get(server.service) == major:
                continue
            self.at(f"starting {server.service} on PostgreSQL {major}")
            # A standby may have to copy the primary, which runs by now.
            timeout = env.number(*TIMEOUT) + (0 if server == self.primary else self.size() / RATE)
            judge = gate.Gate({server.service: declared[server.service]}, before=containers)
            bring_up(env, up_argv(env, [server.service]), judge, timeout)

    def _provide(self, env: Environment) -> None:
        """Build the image of the servers, where it is ours, unless it is there, and let its name mean it."""
        servers = {each.service for each in self.servers if each.built}
        if not servers:
            return
        declared = model.load(env)
        own = [each for each in images.own_images(env, declared) if each.service in servers]
        needs = images.needs(declared, own, engine.image_ids(images.references(declared, own)))
        if needs.build:
            self.at(f"building the servers' image on {env.values[SETTING]}")
            images.build(env, needs.build, self.tell)
        images.tag((each.content, each.reference) for each in own)

    def _migrate(self) -> None:
        """Bring the schema of an older database up to the services that will use it."""
        self.at("bringing the schema up to date")
        for job in model.load(self.env).migrations:
            done = engine.compose(self.env, "run", "--rm", "--no-deps", "--no-TTY", job, check=False, timeout=None)
            if not done.ok:
                raise engine.explain(done.stderr) or OpsError(f"{job}: {site.complaint(done.stderr + done.stdout)}")

    def _services(self) -> list[Container]:
        return services.of(model.load(self.env), engine.containers(self.env))

    def _start_services(self) -> None:
        """Start the services; those that were well before must be so again."""
        mine = self._services()
        if self.holding.begun and self._ready_before is None:
            # Told to stop by a command that was killed, one may look well and be on its way down.
            services.stop([each for each in mine if each.running])
            mine = self._services()
        if all(each.ready for each in mine):
            return
        self.at("starting the services and waiting until they are healthy")
        services.start([each for each in mine if not each.running])
        before = self._ready_before
        services.wait_healthy([each for each in mine if before is None or each.id in before])

    def _open(self) -> None:
        # Also when the lock was lost meanwhile: everything behind it is well.
        self.say("opening the site")
        maintenance.reopen(self.env, COMMAND)

    def _jobs(self) -> tuple[str, ...]:
        return ("--jobs", str(min(_MOST_JOBS, engine.processors())))

    def _logged(self, container: Container, *argv: str) -> None:
        """Run something long in a container, with its last line as progress."""
        log = self.env.log_file("upgrade.log")
        line = engine.exec_argv(container.id, *argv, variables=["PGAPPNAME"])
        if engine.logged(line, log, self.tell, environment={**os.environ, "PGAPPNAME": COMMAND}):
            text = "\n".join(engine.tail(log, 15))
            raise engine.explain(text) or OpsError(f"{argv[0]}: {site.complaint(text)} (its log: {relative(log)})")


def _entry(env: Environment, release: releases.Release) -> dict[str, Any]:
    """The primary as it was declared in a release; nothing when that is not known any more."""
    try:
        entry: dict[str, Any] = releases.document(env, release)["services"][PRIMARY]
        return entry
    except (OpsError, KeyError):
        return {}


def _without_failover(files: str) -> str:
    """COMPOSE_FILE of the plain pair."""
    return ":".join(each for each in files.split(":") if each != _FAILOVER)
