"""What a restore refuses, and in which order it undoes; the rest is driven against a real engine."""

import signal
from datetime import UTC, datetime

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import FAILED, INTERRUPTED, USAGE, OpsError
from ops.data import archive, restore
from ops.data.archive import Facts, Manifest, Member
from ops.parts import postgres, redis

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
    restore.check_fits(env, tmp_path, manifest(), other_environment=False)


def test_another_environment_only_on_request(env, tmp_path):
    with pytest.raises(OpsError, match="backup of prod, not of dev") as caught:
        restore.check_fits(env, tmp_path, manifest(environment="prod"), other_environment=False)
    assert "--other-environment" in caught.value.remedy
    assert caught.value.code == USAGE
    restore.check_fits(env, tmp_path, manifest(environment="prod"), other_environment=True)


def test_another_project_never(env, tmp_path):
    with pytest.raises(OpsError, match="the project shop, not of acme"):
        restore.check_fits(env, tmp_path, manifest(project="shop"), other_environment=True)


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
    restore._agreed(env, tmp_path, manifest(), ["present"], False)
    prod = type(env)("prod", env.project_dir, env.env_file, env.secrets_dir, env.values)
    restore._agreed(prod, tmp_path, manifest(), ["present"], False)
    assert [options["expect"] for _, options in asked] == ["", "prod"]


# ── undoing ───────────────────────────────────────────────────────────────────────────────────────────────────────────

STEPS = {
    "_prepare_postgres": "removing the new database",
    "_prepare_redis": "removing the Redis snapshot",
    "_prepare_uploads": "removing the unpacked uploads",
    "_stop_services": "starting the services again",
    "_switch_postgres": "swapping the databases back",
    "_switch_redis": "giving Redis its old data back",
    "_switch_uploads": "swapping the uploads back",
    "_import_rabbitmq": "",
    "_start_services": "",
}


@pytest.fixture(autouse=True)
def first_node_is_primary(monkeypatch):
    monkeypatch.setattr(postgres, "primary", lambda _env, containers: containers[0])


@pytest.fixture
def work(env, tmp_path, make_container, monkeypatch):
    """A restore whose steps only note that they were made and undone."""
    services = ("postgres-primary", "redis-primary", "redis-replica", "rabbitmq", "web", "migrate")
    found = [make_container(name) for name in services]
    one = restore._Restore(env, tmp_path / "a.tar", manifest(), found, False, lambda _words: None)
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

    work.fails["_switch_uploads"] = OpsError("the disk is full.")
    work.undo.append(("swapping something back", stuck))
    with pytest.raises(OpsError, match="could NOT be put back completely") as caught:
        work.run()
    assert "swapping something back (no answer.)" in caught.value.message
    assert work.old in caught.value.remedy
    assert "starting the services again" in work.done


def test_names_of_databases_are_short_enough(env, tmp_path, make_container):
    env.values["POSTGRES_DB"] = "a" * 63
    found = [make_container(name) for name in ("postgres-primary", "redis-primary", "rabbitmq")]
    work = restore._Restore(env, tmp_path, manifest(), found, False, lambda _words: None)
    assert len(work.old) <= 63 and len(work.new) <= 63
    assert work.old != work.new


def test_it_needs_a_deployed_environment(env, tmp_path, make_container):
    with pytest.raises(OpsError, match="rabbitmq is not running"):
        restore._Restore(env, tmp_path, manifest(), [], False, lambda _words: None)
    found = [make_container(name) for name in ("postgres-primary", "redis-primary", "rabbitmq")]
    with pytest.raises(OpsError, match="was not deployed completely") as caught:
        restore._Restore(env, tmp_path, manifest(), found, False, lambda _words: None).check()
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
