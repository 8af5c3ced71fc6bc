"""What a restore refuses, and in which order it undoes; the rest is driven against a real engine."""

import contextlib
import re
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import FAILED, INTERRUPTED, REFUSED, USAGE, OpsError
from ops.data import backup, restore, site
from ops.parts import postgres, redis, services
from ops.recovery import archive
from ops.recovery.archive import Facts, Manifest, Member
from ops.rollout import deploy
from ops.stack.model import Service
from ops.stack.owned import Owned, Role, Volume
from ops.state import swap
from ops.state.swap import Swap

WHEN = datetime(2026, 11, 23, 14, 0, tzinfo=UTC)
COUNTS = {
    "postgres.dump": {"database": "appdb", "database_bytes": 1000, "rows": {"api.items": 3}},
    "redis.rdb": {"keys": 2, "expiring": 1},
    "rabbitmq.json": {"queues": 5, "exchanges": 2},
    "uploads.tar.gz": {"files": 1, "bytes": 10},
}


def manifest(project="acme", environment="dev"):
    facts = Facts(project, environment, WHEN, {"postgres": "18.6", "redis": "8.2.9", "rabbitmq": "4.3.6"})
    return Manifest(facts, {name: Member(1, "", counts) for name, counts in COUNTS.items()})


@pytest.fixture
def env(env):
    env.values.update(POSTGRES_DB="appdb", POSTGRES_USER="admin")
    return env


@pytest.fixture(autouse=True)
def _roles(monkeypatch):
    """Who is the primary of Redis, without asking."""
    monkeypatch.setattr(
        redis, "primary", lambda _env, found: next(each for each in found if each.service == "redis-primary")
    )


def test_an_archive_of_this_environment_fits(env, tmp_path):
    restore.check_fits(env, "a.tar", manifest(), other_environment=False)


def test_another_environment_only_on_request(env, tmp_path):
    with pytest.raises(OpsError, match="backup of prod, not of dev") as caught:
        restore.check_fits(env, "a.tar", manifest(environment="prod"), other_environment=False)
    assert "--other-environment" in caught.value.remedy
    assert caught.value.code == USAGE
    restore.check_fits(env, "a.tar", manifest(environment="prod"), other_environment=True)


def test_another_project_never(env, tmp_path):
    with pytest.raises(OpsError, match="the project shop, not of acme"):
        restore.check_fits(env, "a.tar", manifest(project="shop"), other_environment=True)


@pytest.mark.parametrize(
    ("written", "here", "parts", "fits"),
    [
        ("18.6", "18.6", 1, True),
        ("18.9", "18.6", 1, True),
        ("17.2", "18.6", 1, True),
        ("19.0", "18.6", 1, False),
        ("8.2.9", "8.2.1", 2, True),
        ("8.4.0", "8.2.9", 2, False),
        ("8.10.0", "8.9.0", 2, False),
    ],
)
def test_versions(written, here, parts, fits):
    if fits:
        restore.check_version("it", written, here, parts)
    else:
        with pytest.raises(OpsError, match=f"made by it {written}; {here} runs here"):
            restore.check_version("it", written, here, parts)


def test_a_damaged_archive_is_refused_before_anything_else(env, tmp_path, monkeypatch):
    def touched(*_args, **_options):
        raise AssertionError("docker was asked")

    monkeypatch.setattr(engine, "run", touched)
    path = tmp_path / "damaged.tar"
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(archive.Damaged):
        restore.restore(env, path, assume_yes=True)


def test_prod_wants_its_name_typed(env, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(console, "confirm", lambda *args, **options: asked.append((args, options)))
    work = SimpleNamespace(present=lambda: ["present"], services=[], left_out=["volume files: not declared"])
    restore.agreed(env, "a.tar", manifest(), work, False)
    prod = type(env)("prod", env.project_dir, env.env_file, env.secrets_dir, env.values)
    restore.agreed(prod, "a.tar", manifest(), work, False)
    assert [options["expect"] for _, options in asked] == ["", "prod"]


# ── what is found, and when ──────────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_looked_at_before_the_lock_is_held(env, tmp_path, monkeypatch):
    """While a person thinks about the question, no deploy may replace what was seen."""
    order = []

    @contextlib.contextmanager
    def hold(_env, _purpose):
        order.append("lock")
        yield SimpleNamespace(check=lambda: order.append("check"))
        order.append("unlock")

    def look(*_args, **_options):
        order.append("look")
        return SimpleNamespace(
            check=lambda: None,
            present=lambda: [],
            services=[],
            left_out=(),
            run=lambda: order.append("run") or "result",
        )

    path = tmp_path / "a.tar"
    path.touch()
    monkeypatch.setattr(restore.lock, "hold", hold)
    monkeypatch.setattr(restore.archive, "verify", lambda _path: manifest())
    monkeypatch.setattr(restore, "find", lambda _env, _all: order.append("parts"))
    monkeypatch.setattr(restore, "undo_killed", lambda _env, _tick, _site: order.append("undo"))
    monkeypatch.setattr(engine, "containers", lambda _env: order.append("containers"))
    monkeypatch.setattr(restore, "Restore", look)
    monkeypatch.setattr(console, "confirm", lambda *_args, **_options: order.append("ask") or True)
    assert restore.restore(env, path) == "result"
    assert order == ["lock", "undo", "containers", "parts", "look", "ask", "check", "run", "unlock"]


def test_an_archive_is_found_by_its_bare_name(env):
    folder = env.project_dir / "backups" / "dev"
    folder.mkdir(parents=True)
    (folder / "acme-dev-1.tar").touch()
    assert restore.locate(env, Path("acme-dev-1.tar")) == folder / "acme-dev-1.tar"
    assert restore.locate(env, folder / "acme-dev-1.tar") == folder / "acme-dev-1.tar"


def test_an_archive_that_is_not_there_names_those_that_are(env):
    with pytest.raises(OpsError, match="x.tar does not exist") as caught:
        restore.locate(env, Path("x.tar"))
    assert (caught.value.remedy, caught.value.code) == ("dev has no backup yet.", USAGE)
    folder = env.project_dir / "backups" / "dev"
    folder.mkdir(parents=True)
    for number in range(7):
        (folder / f"acme-dev-{number}.tar").touch()
    with pytest.raises(OpsError) as caught:
        restore.locate(env, Path("x.tar"))
    assert caught.value.remedy.count("acme-dev-") == restore._SHOWN
    assert "acme-dev-6.tar" in caught.value.remedy and "acme-dev-1.tar" not in caught.value.remedy


def test_what_cannot_be_read_twice_is_refused(env, tmp_path):
    """A FIFO, as `<(…)` gives, would hang; a folder has no content."""
    with pytest.raises(OpsError, match="is not a file") as caught:
        restore.locate(env, tmp_path)
    assert caught.value.code == USAGE


def roles_of(work, monkeypatch, **options):
    """What a restore sends to a server that has the role postgres, for a manifest with these roles besides."""
    sent = []

    def sql(text, **variables):
        sent.append((" ".join(text.split()), variables))
        return "postgres"

    counts = {**COUNTS["postgres.dump"], "roles": [{"name": "postgres", "options": "SUPERUSER", "member_of": []}]}
    counts["roles"] += [{"name": name, **facts} for name, facts in options.items()]
    members = {**work.manifest.members, "postgres.dump": Member(1, "", counts)}
    work.manifest = Manifest(work.manifest.facts, members)
    monkeypatch.setattr(work, "_sql", sql)
    return sent


def test_roles_that_the_dump_names_are_created_and_undone(work, monkeypatch):
    sent = roles_of(
        work,
        monkeypatch,
        reader={"options": "LOGIN CONNECTION LIMIT 5", "member_of": ["staff"]},
        staff={"options": "NOINHERIT", "member_of": []},
    )
    work._create_roles()
    assert sent[1:] == [
        ('CREATE ROLE :"name" LOGIN CONNECTION LIMIT 5', {"name": "reader"}),
        ('CREATE ROLE :"name" NOINHERIT', {"name": "staff"}),
        ('GRANT :"group" TO :"name"', {"group": "staff", "name": "reader"}),
    ]
    assert work.roles == ["reader", "staff"]
    del sent[:]
    work.undo[-1][1]()
    assert sent == [('DROP ROLE IF EXISTS :"name"', {"name": name}) for name in ("staff", "reader")]


def test_options_of_a_role_are_not_taken_on_trust(work, monkeypatch):
    roles_of(work, monkeypatch, evil={"options": "LOGIN; DROP DATABASE appdb", "member_of": []})
    with pytest.raises(OpsError, match="impossible options for the role evil"):
        work._create_roles()
    assert work.roles == []


def test_the_first_empty_search_path_of_a_dump_is_replaced_and_nothing_else(tmp_path):
    line = "SELECT pg_catalog.set_config('search_path', '', false);"
    dump = f"SET x = 1;\n\n{line}\nCOPY t FROM stdin;\n{line}\n  a\\tb  \n\\.\n"
    (tmp_path / "pg_restore").write_text("#!/bin/sh\ncat\n")
    (tmp_path / "psql").write_text('#!/bin/sh\ncat > "$OUT"; echo "$@" > "$OUT.arguments"\n')
    for program in ("pg_restore", "psql"):
        (tmp_path / program).chmod(0o755)
    out = tmp_path / "out"
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin", "OUT": str(out)}
    argv = ["bash", "-c", restore._LOAD, "bash", "admin", "new", '"$user", public']
    subprocess.run(argv, input=dump, text=True, env=variables, check=True)
    assert out.read_text() == dump.replace(line, 'SET search_path = "$user", public;', 1)
    assert "--set=ON_ERROR_STOP=1" in (tmp_path / "out.arguments").read_text()


@pytest.mark.parametrize("failing", ["pg_restore", "psql"])
def test_a_load_that_fails_on_either_side_fails(tmp_path, failing):
    for program in ("pg_restore", "psql"):
        (tmp_path / program).write_text(f"#!/bin/sh\ncat > /dev/null; exit {int(program == failing)}\n")
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        ["bash", "-c", restore._LOAD, "bash", "a", "b", "c"], input="", text=True, env={"PATH": f"{tmp_path}:/bin"}
    )
    assert done.returncode == 1


# ── undoing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = {
    "_prepare_postgres": "removing the new database",
    "_prepare_redis": "removing the Redis snapshot",
    "_prepare_volumes": "removing the unpacked files",
    "_stop_services": "starting the services again",
    "_switch_postgres": "swapping the databases back",
    "_switch_redis": "giving Redis its old data back",
    "_switch_volumes": "swapping back the files",
    "_import_rabbitmq": "",
    "_migrate_in_place": "",
    "_start_services": "",
}


@pytest.fixture(autouse=True)
def first_node_is_primary(monkeypatch):
    monkeypatch.setattr(postgres, "primary", lambda _env, containers: containers[0])


@pytest.fixture
def declared(make_stack):
    """The stack of the archive."""
    return make_stack(
        Service("postgres-primary", "postgres:18", labels={"ops.tier": "data"}, networks=("database",)),
        Service("redis-primary", "redis:8", labels={"ops.tier": "data"}, networks=("database",)),
        Service("redis-replica", "redis:8", labels={"ops.tier": "data"}, networks=("database",)),
        Service("rabbitmq", "rabbitmq:4", labels={"ops.tier": "data"}, networks=("database",)),
        Service("web", "web", built=True, networks=("backend",)),
        Service(
            "migrate", "migrate", built=True, one_shot=True, labels={"ops.job": "migration"}, networks=("database",)
        ),
        document={"services": {"migrate": {"environment": {"DATABASE_NAME": "appdb"}}}},
    )


def restoring(env, declared, containers, members=None, owned=None):
    """A restore of an archive with these members into this stack."""

    def node(service):
        return next((each for each in containers if each.service == service), None)

    parts = backup.Parts(
        declared,
        owned or Owned(volumes=(Volume("web_uploads", "acme-dev_web_uploads", "web"),)),
        node("postgres-primary"),
        node("redis-primary"),
        node("rabbitmq"),
    )
    found = manifest() if members is None else Manifest(manifest().facts, members)
    path = env.project_dir / "a.tar"
    return restore.Restore(env, path, found, parts, containers, False, lambda _words: None)


@pytest.fixture
def work(env, tmp_path, make_container, declared, monkeypatch):
    """A restore whose steps only note that they were made and undone."""
    services = ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq", "web", "migrate")
    found = [make_container(name) for name in services]
    one = restoring(env, declared, found)
    one.done, one.fails = [], {}

    def step(name, undone):
        def make():
            one.at(name)
            one.touched |= name == "_stop_services"
            if undone:
                one.undo.append((undone, lambda: one.done.append(undone)))
            one.done.append(name)
            if name in one.fails:
                raise one.fails[name]

        return make

    for name, undone in STEPS.items():
        monkeypatch.setattr(one, name, step(name, undone))
    monkeypatch.setattr(one, "_clean_up", lambda: one.done.append("_clean_up") or ())
    return one


def test_everything_in_its_order(work):
    result = work.run()
    assert work.done == [*STEPS, "_clean_up"]
    assert result.counts == COUNTS


@pytest.mark.parametrize("failing", STEPS)
def test_whatever_fails_everything_before_is_undone_backwards(work, failing):
    work.fails[failing] = OpsError("the disk is full.")
    with pytest.raises(OpsError) as caught:
        work.run()
    made = list(STEPS)[: list(STEPS).index(failing) + 1]
    undone = [STEPS[name] for name in reversed(made) if STEPS[name]]
    assert work.done == [*made, *undone]
    assert caught.value.code == FAILED
    assert f"while {failing}: the disk is full." in caught.value.message
    if made[-1].startswith("_prepare"):
        assert "Nothing was changed" in caught.value.message
    else:
        assert "The old data is back in place" in caught.value.message


def test_an_interruption_is_undone_too(work):
    work.fails["_switch_redis"] = KeyboardInterrupt()
    with pytest.raises(OpsError, match="The old data is back in place") as caught:
        work.run()
    assert caught.value.code == INTERRUPTED
    assert work.done[-1] == "removing the new database"


def test_what_cannot_be_undone_is_said_and_the_rest_still_is(work):
    def stuck():
        raise OpsError("no answer.")

    work.fails["_switch_volumes"] = OpsError("the disk is full.")
    work.undo.append(("swapping something back", stuck))
    with pytest.raises(OpsError, match="could NOT be put back completely") as caught:
        work.run()
    assert "swapping something back (no answer.)" in caught.value.message
    assert "invoke restore --undo --env dev" in caught.value.remedy
    assert swap.begun(work.env).swapping, "so that it can be tried again"
    assert "starting the services again" in work.done


# ── a restore that was killed ────────────────────────────────────────────────────────────────────────────────────────


def noted_before(work, step):
    """What is noted on the engine when a step begins."""
    seen = []
    before = getattr(work, step)
    setattr(work, step, lambda: (seen.append(swap.begun(work.env)), before()))
    work.run()
    return seen[0]


def test_what_is_swapped_is_noted_before_and_forgotten_after(work):
    noted = noted_before(work, "_stop_services")
    assert noted.swapping and noted.databases == (("appdb", "postgres.dump"),)
    assert (noted.volumes, noted.cache, noted.services) == (("web_uploads",), "redis-primary", ("acme-dev-web-1",))
    assert swap.begun(work.env) is None


def test_what_is_only_prepared_is_noted_as_that(work):
    noted = noted_before(work, "_prepare_postgres")
    assert not noted.swapping and noted.stamp == work.stamp


def test_what_was_undone_is_not_undone_again(work):
    work.fails["_switch_volumes"] = OpsError("the disk is full.")
    with pytest.raises(OpsError):
        work.run()
    assert swap.begun(work.env) is None


@pytest.mark.parametrize("command", ["deploy", "backup"])
def test_no_command_builds_on_a_mix_of_old_and_new_data(env, command, monkeypatch):
    monkeypatch.setattr(deploy.lock, "hold", lambda *_: contextlib.nullcontext())
    swap.begin(env, Swap(True, "1", holder="by ann"))
    with (
        pytest.raises(OpsError, match="by ann.*was killed while it swapped") as caught,
        deploy.deployment(env, "deploy") if command == "deploy" else contextlib.nullcontext(),
    ):
        backup.create(env)
    assert caught.value.code == REFUSED and "invoke restore --undo --env dev" in caught.value.remedy
    swap.begin(env, Swap(False, "1"))
    swap.refuse(env)


def killed(env, declared, containers, monkeypatch, swapping):
    """The note of a restore that was killed, for a command that comes next."""
    monkeypatch.setattr(restore.model, "load", lambda _env: declared)
    monkeypatch.setattr(restore, "project_name", lambda _env: "acme")
    monkeypatch.setattr(engine, "containers", lambda _env: containers)
    owned = Owned(volumes=(Volume("web_uploads", "acme-dev_web_uploads", ("web",)),))
    monkeypatch.setattr(
        restore, "find", lambda env, all, cache: backup.Parts(declared, owned, containers[0], cache(env, all), None)
    )
    pairs = (("appdb", "postgres.dump"),)
    swap.begin(
        env, Swap(swapping, "20261122", pairs, ("web_uploads",), "redis-primary", ("reader",), ("acme-dev-web-1",))
    )


def test_the_next_command_puts_the_old_data_back(env, make_container, declared, steps, monkeypatch):
    nodes = [make_container(name) for name in ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq")]
    killed(env, declared, [*nodes, make_container("web", state="exited")], monkeypatch, swapping=True)
    assert restore.undo_killed(env) is True
    told = [" ".join(map(str, line)) for line in steps]
    order = [
        next(place for place, line in enumerate(told) if words in line)
        for words in (
            "one-off web_uploads if [ -d .restore-old ]",
            "mv .before appendonlydir",
            "resume",
            "ALTER DATABASE",
            "start web",
            "rm -rf /data/.restore",
            "rm -rf .restore-new",
            "DROP DATABASE",
            "DROP ROLE",
        )
    ]
    assert order == sorted(order)
    assert renames(steps) == [[("appdb", "appdb_restoring_20261122"), ("appdb_before_restore_20261122", "appdb")]]
    assert swap.begun(env) is None and restore.undo_killed(env) is False


def test_what_was_only_prepared_goes_while_the_services_run(env, make_container, declared, steps, monkeypatch):
    names = ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq", "web")
    killed(env, declared, [make_container(name) for name in names], monkeypatch, swapping=False)
    assert restore.undo_killed(env) is True
    told = " ".join(" ".join(map(str, line)) for line in steps)
    assert "rm -rf .restore-new" in told and "rm -rf /data/.restore" in told and "appdb_restoring_20261122" in told
    assert not {"stop", "start"} & {line[0] for line in steps if len(line) > 1} and "RENAME" not in told


def test_servers_that_are_gone_are_made_again_first(env, make_container, declared, steps, monkeypatch):
    """After `invoke down`, say: a deploy is refused until the old data is back."""
    killed(env, declared, [make_container("postgres-primary", state="exited")], monkeypatch, swapping=True)
    lines = []
    monkeypatch.setattr(engine, "compose", lambda _env, *line, **_: lines.append(line))
    with pytest.raises(StopIteration):
        restore.undo_killed(env)
    assert lines == [("up", "--no-start", "--no-recreate", "--no-build", "redis-primary", "redis-replica", "rabbitmq")]
    assert steps[0] == ("start", "postgres-primary"), "and Redis rests until it has its files back"


def test_what_cannot_be_put_back_can_be_tried_again(env, make_container, declared, steps, monkeypatch):
    nodes = [make_container(name) for name in ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq", "web")]
    killed(env, declared, nodes, monkeypatch, swapping=True)
    steps.fails["mv .before"] = [OpsError("no answer")]
    with pytest.raises(OpsError, match="giving Redis its old data back .no answer.") as caught:
        restore.undo_killed(env)
    assert "restore --undo" in caught.value.remedy
    assert restore.undo_killed(env) is True


def test_names_of_databases_are_short_enough(env, make_container, declared):
    env.values["POSTGRES_DB"] = "a" * 63
    (database,) = restoring(env, declared, [make_container("postgres-primary")]).databases
    assert len(database.old) <= 63 and len(database.new) <= 63
    assert database.old != database.new


def test_it_needs_a_deployed_environment(env, make_container, declared):
    with pytest.raises(OpsError, match="was not deployed completely: migrate never ran") as caught:
        restoring(env, declared, [make_container("postgres-primary")]).check()
    assert caught.value.remedy == "invoke deploy --env dev"


def test_progress_that_nobody_reads_does_not_stop_it(work, monkeypatch):
    def closed(_words):
        raise BrokenPipeError

    work._tick = closed
    work.run()
    assert work.done == [*STEPS, "_clean_up"]


def test_a_lost_terminal_does_not_stop_it(work):
    signals = []
    work.fails["_switch_redis"] = OpsError("no.")
    work.undo.append(("", lambda: signals.append([signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)])))
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(OpsError):
        work.run()
    assert signals == [[signal.SIG_IGN, signal.SIG_IGN]]
    assert signal.getsignal(signal.SIGHUP) is before


# ── each step by itself ───────────────────────────────────────────────────────────────────────────────────────────────


class Steps(list):
    """What a restore does, in its order; answered as it is told (`answers` by a word of the question)."""

    def __init__(self):
        self.answers = {
            "server_version": "18.6 (Debian)",
            "df": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda1 90 80 10 89% /var/lib\n",
            "DBSIZE": "2\n",
            "datname": "1",
        }
        self.fails = {}

    def note(self, *words):
        self.append(words)
        said = " ".join(map(str, words))
        for word, errors in self.fails.items():
            if word in said and errors:
                raise errors.pop(0)
        return next((answer for word, answer in self.answers.items() if word in said), "")


@pytest.fixture
def steps(monkeypatch):
    found = Steps()
    monkeypatch.setattr(
        restore, "sql", lambda _env, node, text, database, **names: found.note("sql", text, *names.items())
    )
    monkeypatch.setattr(restore, "run_in", lambda node, argv, what, **_: found.note(node.service, *argv))
    monkeypatch.setattr(site, "one_off_argv", lambda _env, service, script: [service, script])
    for module in (site, restore):
        monkeypatch.setattr(module, "checked", lambda argv, what, **_: found.note("one-off", *argv))
    monkeypatch.setattr(site, "in_volume", lambda _stack, volume, script: [volume.name, script])
    monkeypatch.setattr(engine, "containers", lambda _env: [])
    monkeypatch.setattr(redis, "info", lambda *_: {"redis_version": "8.2.9"})
    monkeypatch.setattr(redis, "argv", lambda *words: ["redis-cli", *words])
    monkeypatch.setattr(redis, "suspend_failover", lambda _all: found.note("suspend"))
    monkeypatch.setattr(redis, "resume_failover", lambda _all: found.note("resume"))
    for name in ("stop", "start", "wait_healthy"):
        monkeypatch.setattr(
            restore.services, name, lambda each, name=name: found.note(name, *(one.service for one in each))
        )
    return found


@pytest.fixture
def real(env, tmp_path, make_container, declared, steps):
    """A restore whose steps do what they do."""
    names = ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq", "web", "migrate")
    found = [make_container(name) for name in names]
    return restoring(env, declared, found)


def needing(work, kibibytes):
    """The restore of a database that needs so much room, in KiB."""
    counts = {**COUNTS["postgres.dump"], "database_bytes": kibibytes * 1024 / restore._SPACE_FACTOR}
    work.manifest.members["postgres.dump"] = Member(1, "", counts)


def test_a_disk_with_just_enough_room_will_do(real, steps):
    needing(real, 10)
    real.check()
    assert steps[-1] == ("postgres-primary", "df", "-Pk", "/var/lib/postgresql")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_touched(real):
    needing(real, 10.5)
    with pytest.raises(OpsError, match="PostgreSQL's disk has 10.0 KiB free; the restore may need 10.5 KiB"):
        real.check()


@pytest.mark.parametrize(("part", "version"), [("postgres", "19.0"), ("redis", "8.4.0")])
def test_an_archive_of_a_newer_server_is_refused(real, part, version):
    real.manifest.facts.versions[part] = version
    with pytest.raises(OpsError, match=version):
        real.check()


def renames(steps):
    """Pairs of names, in each script that renames databases."""
    texts = [line[1] for line in steps if line[0] == "sql" and "RENAME" in line[1]]
    return [re.findall(r'ALTER DATABASE "(\w+)" RENAME TO "(\w+)"', text) for text in texts]


def test_databases_are_renamed_all_or_none(real, steps):
    (database,) = real.databases
    real._switch_postgres()
    assert renames(steps) == [[("appdb", database.old), (database.new, "appdb")]]
    (text,) = (line[1] for line in steps)
    assert text.index("pg_terminate_backend") < text.index("BEGIN;") < text.index("ALTER") < text.index("COMMIT;")
    assert f"IN ('appdb', '{database.new}')" in text
    del steps[:]
    real.undo[-1][1]()
    assert renames(steps) == [[("appdb", database.new), (database.old, "appdb")]]


def test_a_swap_that_did_not_take_place_is_not_undone(real, steps):
    steps.answers["datname"] = "0"
    real._switch_postgres_back()
    assert renames(steps) == []


@pytest.mark.parametrize(("failures", "fails"), [(4, False), (5, True)])
def test_whoever_connects_in_between_makes_it_try_again_five_times(real, steps, failures, fails):
    steps.fails["RENAME"] = [OpsError("is being accessed by other users") for _ in range(failures)]
    with pytest.raises(OpsError, match="accessed") if fails else contextlib.nullcontext():
        real._switch_postgres()
    assert len(steps) == 5


def test_redis_gets_its_snapshot_while_nobody_may_be_promoted(real, steps):
    real._switch_redis()
    (aside,) = [line[2] for line in steps if line[0] == "one-off" and "mv .restore" in line[2]]
    assert "mv appendonlydir .before" in aside and aside.endswith("mv .restore appendonlydir")
    assert list(steps) == [
        ("suspend",),
        ("stop", "redis-replica", "redis-primary"),
        ("one-off", "redis-primary", aside),
        ("one-off", "redis-replica", "rm -rf /data/appendonlydir"),
        ("start", "redis-primary"),
        ("wait_healthy", "redis-primary"),
        ("start", "redis-replica"),
        ("redis-primary", "redis-cli", "DBSIZE"),
    ]
    del steps[:]
    for _, undo in reversed(real.undo):
        undo()
    back = steps[1][2]
    assert "mv .before appendonlydir" in back
    assert [line[0] for line in steps] == ["stop", "one-off", "one-off", "start", "wait_healthy", "start", "resume"]


@pytest.mark.parametrize(("keys", "fits"), [(0, False), (1, True), (2, True), (3, False)])
def test_redis_must_hold_the_keys_of_the_manifest_but_for_what_expired(real, steps, keys, fits):
    steps.answers["DBSIZE"] = str(keys)
    with contextlib.nullcontext() if fits else pytest.raises(OpsError, match=f"Keys in Redis: {keys};"):
        real._switch_redis()


def test_migrations_bring_an_older_schema_up_to_date(real, steps, monkeypatch):
    lines, done = [], SimpleNamespace(ok=True, stdout="", stderr="column exists")
    monkeypatch.setattr(restore.archive, "member", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(restore, "send", lambda *_, **__: None)
    monkeypatch.setattr(restore, "count_rows", lambda *_: {"api.items": 3})
    monkeypatch.setattr(engine, "compose", lambda _env, *line, **_: lines.append(line) or done)
    real._prepare_postgres()
    new = f"DATABASE_NAME={real.databases[0].new}"
    assert lines == [("run", "--rm", "--no-deps", "--no-TTY", "--env", new, "migrate")]
    assert steps[-1] == ("sql", "ANALYZE")
    roles = ("env", f"POSTGRES_DB={real.databases[0].new}", "bash", "/etc/postgresql/roles.sh")
    assert ("postgres-primary", *roles) in steps
    done.ok = False
    with pytest.raises(OpsError, match="The migrations of migrate refused it.*column exists"):
        real._prepare_postgres()


def test_a_migration_that_knows_its_database_by_name_runs_when_it_has_that(real, steps, monkeypatch):
    """A foreign one would otherwise migrate the database that is in use."""
    lines, done = [], SimpleNamespace(ok=True, stdout="", stderr="")
    monkeypatch.setattr(engine, "compose", lambda _env, *line, **_: lines.append(line) or done)
    real.declared.document["services"]["migrate"] = {"environment": {"DATABASE_URL": "postgres://shop@db/appdb"}}
    assert real._migrations_beside() == {}
    real._migrate_in_place()
    assert lines == [("run", "--rm", "--no-deps", "--no-TTY", "migrate")]
    real.declared.document["services"]["migrate"] = {"environment": {"DATABASE_NAME": "appdb"}}
    real._migrate_in_place()
    assert len(lines) == 1


def test_a_database_of_a_service_is_restored_with_its_owner(env, make_container, declared, steps, monkeypatch):
    members = {
        "postgres.dump": Member(1, "", COUNTS["postgres.dump"]),
        "databases/shop.dump": Member(1, "", {"database": "shop", "database_bytes": 5, "rows": {"public.orders": 1}}),
        "databases/gone.dump": Member(1, "", {"database": "gone", "database_bytes": 5, "rows": {}}),
    }
    owned = Owned(roles=(Role("shop", "SHOP_DB_PASSWORD", "shop", ("shop",)), Role("new", "X", "new", ("new",))))
    found = [make_container(name) for name in ("postgres-primary", "redis-primary", "migrate")]
    rows = {"shop": {"public.orders": 1}}
    monkeypatch.setattr(restore.archive, "member", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(restore, "send", lambda *_, **__: None)
    monkeypatch.setattr(
        restore, "count_rows", lambda _env, _node, name: rows.get(name.partition("_")[0], {"api.items": 3})
    )
    provided = []
    monkeypatch.setattr(restore.ownership, "provide", lambda _env, _owned, _node, name="": provided.append(name))
    monkeypatch.setattr(engine, "compose", lambda *_, **__: SimpleNamespace(ok=True))
    one = restoring(env, declared, found, members, owned)
    one._prepare_postgres()
    common, shop = one.databases
    assert provided == ["", common.new], "the roles that the dumps name, then what the new database lacks"
    assert ("sql", 'ALTER DATABASE :"name" OWNER TO :"owner"', ("name", shop.new), ("owner", "shop")) in steps
    del steps[:]
    one._switch_postgres()
    assert renames(steps) == [[("appdb", common.old), (common.new, "appdb"), ("shop", shop.old), (shop.new, "shop")]], (
        "together, or a service would see one of today and one of then"
    )
    assert set(one.left_out) == {
        "Redis: the backup does not hold it, and it stays as it is",
        "database gone: no label ops.database declares it",
        "database new: the backup does not hold it, and it stays as it is",
    }


def test_parts_that_the_stack_does_not_have_are_left_out_and_named(env, make_container, declared, steps):
    one = restoring(env, declared, [make_container("web"), make_container("migrate")], owned=Owned())
    assert one.left_out == (
        "PostgreSQL: the stack has none",
        "Redis: the stack has none",
        "RabbitMQ: the stack has none",
        "volume web_uploads: no label ops.backup declares it",
    )
    one.check()
    assert one.present() == []
    one.run()
    assert [line[0] for line in steps] == ["stop", "start", "wait_healthy", "wait_healthy"]


def test_rows_that_are_missing_are_named(real, steps, monkeypatch):
    monkeypatch.setattr(restore.archive, "member", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(restore, "send", lambda *_, **__: None)
    monkeypatch.setattr(restore, "count_rows", lambda *_: {"api.items": 2, "api.other": 1})
    with pytest.raises(OpsError, match="api.items, api.other: the number of rows"):
        real._prepare_postgres()


def test_files_are_swapped_and_swapped_back(real, steps):
    real._switch_volumes()
    real.undo[-1][1]()
    forth, back = (line[2] for line in steps)
    assert forth.startswith(f"rm -rf {restore._OLD}") and restore._MOVED in forth
    assert f"[ -e {restore._MOVED} ]" in back and f"[ -d {restore._OLD} ]" in back
    assert f"chown --reference={restore._NEW} ." in forth and f"chown --reference={restore._OLD} ." in back


def test_what_is_left_of_the_old_data_goes_or_is_a_warning(real, steps, capsys):
    steps.fails["rm -rf /data/.before"] = [OpsError("no answer")]
    real._clean_up()
    assert steps[0] == ("resume",)
    assert steps[1] == ("redis-primary", "sh", "-c", "rm -rf /data/.before")
    assert steps[2][:2] == ("one-off", "web_uploads") and f"rm -rf {restore._NEW}" in steps[2][2]
    assert steps[3][:2] == ("sql", 'DROP DATABASE IF EXISTS :"name" WITH (FORCE)')
    assert "the restore is complete, but not all of the old data could be removed: no answer" in capsys.readouterr().err


def test_the_old_database_is_kept_on_request(real, steps):
    real.keep_old = True
    real._clean_up()
    assert not any("DROP" in str(line) for line in steps)


def test_services_that_ran_come_back_and_those_that_were_well_are_waited_for(real, steps, monkeypatch):
    monkeypatch.setattr(services, "stop_jobs", lambda *_: steps.append(("stop jobs",)))
    real._stop_services()
    assert real.touched and list(steps) == [("stop", "web"), ("stop jobs",)]
    real.undo[-1][1]()
    assert list(steps)[2:] == [("start", "web"), ("wait_healthy", "web")]
