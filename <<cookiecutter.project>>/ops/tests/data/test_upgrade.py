"""The change of PostgreSQL's major: where a killed one leads, what is refused, what is asked."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import FAILED, INTERRUPTED, REFUSED, USAGE, OpsError
from ops.data import backup, upgrade
from ops.data.upgrade import steps
from ops.data.upgrade.steps import Changeover
from ops.parts import postgres, services
from ops.parts.nginx import maintenance
from ops.parts.postgres import majors
from ops.parts.postgres.majors import Image, Server
from ops.parts.postgres.volume import Change, Holding
from ops.stack.model import Service, Stack
from ops.state import releases

OLD, NEW = "postgres:17.6", "postgres:18.6"
UP = Change("up", 18, OLD, NEW)
DOWN = Change("down", 17, NEW, OLD)
SERVERS = [
    Server("postgres-primary", "acme_one", "999:999", "primary"),
    Server("postgres-replica", "acme_two", "999:999", "replica"),
]
SERVICES = [Service(each.service, OLD, labels={"ops.tier": "data"}) for each in SERVERS]
STANDBY_17, STANDBY_BOTH = Holding((17,), frozenset({17})), Holding((17, 18), frozenset({17, 18}), {18: OLD})


class Held:
    """A lock that is held until it is said to be lost."""

    lost = False

    def check(self) -> None:
        if self.lost:
            raise OpsError("The lock is gone.")


@pytest.fixture
def env(env):
    """An environment that declares the new image, and whose site can be closed."""
    (env.env_file.parent / "nginx").mkdir()
    env.values.update(POSTGRES_IMAGE=NEW, POSTGRES_USER="admin", POSTGRES_DB="appdb")
    env.env_file.write_text(env.env_file.read_text() + f"POSTGRES_IMAGE={NEW}\n")
    return env


@pytest.fixture
def make(env, monkeypatch, make_container, make_stack):
    """A changeover with volumes that hold what is said, which notes what it does to them and whom it starts."""

    def make(primary: Holding, replica: Holding = STANDBY_17, image: str = OLD) -> Changeover:
        work = Changeover(env, Held(), SERVERS)
        work.done = []
        work._holdings = {"postgres-primary": primary, "postgres-replica": replica}

        def in_volume(server, script, *arguments):
            if "upgraded-from;" not in script:
                work.done.append((server.service.removeprefix("postgres-"), script.split()[0], *arguments[:1]))
            return ""

        def bring_up(using, major):
            work.done.append(("start", major, using.values["POSTGRES_IMAGE"]))

        monkeypatch.setattr(steps.model, "load", lambda _env: make_stack(*SERVICES))
        monkeypatch.setattr(work, "look", lambda: None)
        monkeypatch.setattr(work, "in_volume", in_volume)
        monkeypatch.setattr(work, "_bring_up", bring_up)
        monkeypatch.setattr(work, "_remove_beside", lambda: None)
        monkeypatch.setattr(work, "_migrate", lambda: work.done.append(("migrate",)))
        monkeypatch.setattr(work, "_runs", lambda: False)
        monkeypatch.setattr(work, "_stop_servers", lambda: work.done.append(("stop",)))
        container = make_container("postgres-primary", image=image)
        monkeypatch.setattr(engine, "containers", lambda _env: [container])
        monkeypatch.setattr(majors, "image", lambda name: Image(name, majors.tagged_major(name), "", True))
        return work

    return make


# ── where it leads ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_killed_before_the_switch_it_leads_back_and_leaves_the_declaration(env, make) -> None:
    work = make(Holding((17,), begun=UP))
    maintenance.close(env, "upgrade-database")
    work.settle()
    assert ("start", 17, OLD) in work.done
    assert work.env.values["POSTGRES_IMAGE"] == NEW
    assert maintenance.since(env) is None


def test_killed_after_the_switch_it_leads_on_and_declares(env, make) -> None:
    env.env_file.write_text(env.env_file.read_text().replace(NEW, OLD))
    env.values["POSTGRES_IMAGE"] = OLD
    work = make(Holding((17, 18), origins={18: OLD}, begun=UP))
    work.settle()
    assert ("start", 18, NEW) in work.done
    assert f"POSTGRES_IMAGE={NEW}" in env.env_file.read_text()


def test_an_upgrade_after_an_upgrade_is_not_taken_for_finished(make) -> None:
    work = make(Holding((17, 18), origins={18: OLD}, begun=Change("up", 19, NEW, "postgres:19.1")))
    work.settle()
    assert ("start", 18, NEW) in work.done


def test_a_standby_that_went_ahead_is_taken_back(make) -> None:
    work = make(Holding((17,), begun=UP), STANDBY_BOTH)
    work.settle()
    assert [each for each in work.done if each[0] in {"stop", "replica"}] == [("stop",), ("replica", "rm", "18")]


def test_a_promoted_standby_is_put_aside_rather_than_removed(make) -> None:
    work = make(Holding((17,), begun=UP), Holding((17, 18), frozenset({17})))
    work.settle()
    assert ("replica", "mkdir", "18") in work.done


def test_a_site_that_a_person_has_closed_stays_closed(env, make, monkeypatch) -> None:
    monkeypatch.setattr(engine, "containers", lambda _env: [])
    maintenance.switch(env, "on")
    make(Holding((17,), begun=UP)).settle()
    assert maintenance.since(env) is not None


def test_the_way_back_puts_the_primary_aside_and_removes_the_standbys_copy(env, make) -> None:
    work = make(Holding((17, 18), origins={18: OLD}), STANDBY_BOTH, image=NEW)
    work.go_back(OLD)
    begin, stop, replica, primary, *_ = work.done
    assert begin == ("primary", "rm", str(DOWN))
    assert (stop, replica, primary) == (("stop",), ("replica", "rm", "18"), ("primary", "mkdir", "18"))


def test_a_database_gone_back_to_gets_the_schema_of_what_was_released_since(make) -> None:
    work = make(Holding((17,), begun=DOWN))
    work.settle()
    assert work.done.index(("start", 17, OLD)) < work.done.index(("migrate",))
    work = make(Holding((17,), begun=UP))
    work.settle()
    assert ("migrate",) not in work.done


def test_services_that_a_killed_command_told_to_stop_are_not_trusted(make, make_container, monkeypatch) -> None:
    work = make(Holding((17,), begun=UP))
    web = make_container("web")
    containers = [web]
    monkeypatch.setattr(work, "_services", lambda: list(containers))
    monkeypatch.setattr(services, "stop", lambda _them: containers.__setitem__(0, replace(web, state="exited")))
    monkeypatch.setattr(services, "start", lambda them: work.done.append(("started", *(each.service for each in them))))
    monkeypatch.setattr(services, "wait_healthy", lambda _them: None)
    work.settle()
    assert work.done[-1] == ("started", "web")


# ── failing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def failing(make, monkeypatch):
    """An upgrade that fails at the step that is named."""

    def run(step: str, error: BaseException, lock_lost: bool = False) -> tuple[Changeover, OpsError]:
        work = make(Holding((17,)))
        monkeypatch.setattr(backup, "create", lambda *_args: None)
        monkeypatch.setattr(work, "container", lambda: None)
        monkeypatch.setattr(work, "size", lambda: 0)
        for name in ("_version", "_dump", "_start_beside", "_load", "_compare", "_switch"):
            monkeypatch.setattr(work, name, lambda *_args: None)

        errors = [error]

        def fail(*_args):
            monkeypatch.setattr(Held, "lost", lock_lost)
            if errors:
                raise errors.pop()

        monkeypatch.setattr(*((backup, "create") if step == "backup" else (work, step)), fail)
        with pytest.raises(OpsError) as caught:
            work.upgrade(Image(NEW, 18, "", True))
        return work, caught.value

    return run


def test_a_backup_that_fails_leaves_everything_alone(failing) -> None:
    work, error = failing("backup", OpsError("no room"))
    assert "Nothing was changed" in error.message and "no room" in error.message
    assert (work.done, error.code) == ([], FAILED)


@pytest.mark.parametrize("step", ["_dump", "_start_beside", "_load", "_compare", "_switch", "_start_services"])
def test_whatever_fails_leads_back(failing, step, env) -> None:
    work, error = failing(step, OpsError("it broke"))
    assert ("start", 17, OLD) in work.done
    assert "it broke" in error.message and "The old database is in its place" in error.message
    assert maintenance.since(env) is None


def test_ctrl_c_leads_back_too(failing) -> None:
    work, error = failing("_load", KeyboardInterrupt())
    assert error.code == INTERRUPTED and ("start", 17, OLD) in work.done


def test_a_lost_lock_does_not_keep_it_from_leading_back(failing) -> None:
    work, error = failing("_load", OpsError("The lock is gone."), lock_lost=True)
    assert "The old database is in its place" in error.message and ("start", 17, OLD) in work.done


def test_a_way_back_that_fails_says_where_the_data_is(failing, monkeypatch) -> None:
    def fail(_work):
        raise OpsError("the engine is away")

    monkeypatch.setattr(Changeover, "settle", fail)
    _, error = failing("_load", OpsError("it broke"))
    assert "it broke" in error.message and "the engine is away" in error.message
    assert "--back --env dev" in error.remedy


# ── refusing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def commands(env, make, monkeypatch):
    """The commands, with a changeover of ours."""

    def prepare(*args, **options) -> Changeover:
        work = make(*args, **options)

        class Work:
            def __enter__(self):
                return work

            def __exit__(self, *_):
                return False

        monkeypatch.setattr(upgrade, "_work", lambda *_args: Work())
        monkeypatch.setattr(upgrade, "_fetch", lambda *_args: None)
        monkeypatch.setattr(majors, "refuse_unusable", lambda _image: None)
        return work

    return prepare


def test_one_thing_at_a_time(env) -> None:
    with pytest.raises(OpsError, match="exclude each other") as caught:
        upgrade.command(env, NEW, back=True, tidy=False, assume_yes=True)
    assert caught.value.code == USAGE


def test_nothing_to_upgrade(env, commands, capsys) -> None:
    work = commands(Holding((17, 18), origins={18: OLD}))
    upgrade.upgrade(env)
    said = capsys.readouterr().out
    assert "nothing to upgrade" in said and "17/docker" in said
    assert work.done == []


def test_no_upgrade_to_an_older_one(env, commands) -> None:
    commands(Holding((18,)))
    with pytest.raises(OpsError, match="is older and cannot read it") as caught:
        upgrade.upgrade(env, OLD)
    assert caught.value.code == REFUSED


@pytest.mark.parametrize("holding", [Holding((18,)), Holding((18,), origins={18: OLD}), Holding((17, 18))])
def test_no_way_back_without_an_older_database_and_its_image(env, commands, holding) -> None:
    work = commands(holding)
    with pytest.raises(OpsError, match="cannot go back") as caught:
        upgrade.go_back(env, assume_yes=True)
    assert (caught.value.code, work.done) == (REFUSED, [])


def test_the_way_out_of_a_killed_upgrade_declares_the_old_image_again(env, commands) -> None:
    work = commands(Holding((17,), begun=UP))
    upgrade.go_back(env)
    assert ("start", 17, OLD) in work.done
    assert f"POSTGRES_IMAGE={OLD}" in env.env_file.read_text()


def test_nothing_is_removed_while_a_change_is_under_way(env, commands) -> None:
    work = commands(Holding((17, 18), begun=UP))
    with pytest.raises(OpsError, match="did not come to its end"):
        upgrade.remove_kept(env, assume_yes=True)
    assert work.done == []


def test_prod_wants_its_name_typed(env, commands, monkeypatch) -> None:
    asked = []
    work = commands(Holding((17, 18), origins={18: OLD}))
    monkeypatch.setattr(console, "confirm", lambda *args, **options: asked.append(options["expect"]))
    for name in ("dev", "prod"):
        with pytest.raises(OpsError, match="Nothing was changed"):
            upgrade._agree_to_go_back(replace(env, name=name), work, False)
    assert asked == ["", "prod"]


def check(work, env, monkeypatch, make_container, free=10**9, leader="postgres-primary", **changes) -> None:
    primary = make_container("postgres-primary", image=OLD, **changes)
    monkeypatch.setattr(work, "container", lambda: primary)
    monkeypatch.setattr(work, "size", lambda: 10**8)
    monkeypatch.setattr(postgres, "primary", lambda *_args: make_container(leader))
    monkeypatch.setattr(backup, "run_in", lambda *_args: f"head\n/dev/x 1 1 {free // 1024} 1% /\n")
    work.check()


def test_what_is_checked_beforehand(env, make, monkeypatch, make_container) -> None:
    work = make(Holding((17,)))
    check(work, env, monkeypatch, make_container)
    with pytest.raises(OpsError, match="is unhealthy"):
        check(work, env, monkeypatch, make_container, health="unhealthy")
    with pytest.raises(OpsError, match="postgres-replica is the primary of dev"):
        check(work, env, monkeypatch, make_container, leader="postgres-replica")
    with pytest.raises(OpsError, match=r"has 190\.7 MiB free; the upgrade may need 286\.1 MiB"):
        check(work, env, monkeypatch, make_container, free=2 * 10**8)
    with pytest.raises(OpsError, match="postgres-replica of dev is no standby"):
        check(make(Holding((17,)), Holding((17,))), env, monkeypatch, make_container)


# ── the image that serves what is there ───────────────────────────────────────────────────────────────────────────────


def test_the_image_of_the_database_in_use(env, make, monkeypatch) -> None:
    assert make(Holding((17,))).image() == OLD
    deployed = releases.Release(3, 1.0, "ann@laptop", "", "deploy", result=releases.DEPLOYED)
    document = {"services": {"postgres-primary": {"image": OLD}}}
    monkeypatch.setattr(releases, "history", lambda _env: [deployed])
    monkeypatch.setattr(releases, "document", lambda *_args: document)
    # The new image was started by hand: what was deployed before it is remembered.
    assert make(Holding((17,)), image=NEW).image() == OLD
    document["services"] = {}
    with pytest.raises(OpsError, match="does not run PostgreSQL 17, of which its database is") as caught:
        make(Holding((17,)), image=NEW).image()
    assert caught.value.code == REFUSED and "--image IMAGE" in caught.value.remedy


def test_rows_must_be_the_same(make, monkeypatch, make_container) -> None:
    counts = {("old", "appdb"): {"api.items": 3}, ("new", "appdb"): {"api.items": 3}}
    monkeypatch.setattr(backup, "count_rows", lambda _env, server, name: counts[server, name])
    work = make(Holding((17,)))
    assert work._compare("old", "new", ["appdb"]) == {"appdb.api.items": 3}
    counts["new", "appdb"] = {"api.items": 2, "api.more": 0}
    with pytest.raises(OpsError, match=r"api\.items, api\.more of appdb: the number of rows"):
        work._compare("old", "new", ["appdb"])


# ── what is asked and said ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "called"),
    [
        ({"back": True, "tidy": False}, "go_back"),
        ({"back": False, "tidy": True}, "remove_kept"),
        ({"back": False, "tidy": False}, "upgrade"),
    ],
)
def test_one_thing_is_done(env, monkeypatch, options, called) -> None:
    done = []
    for name in ("go_back", "remove_kept", "upgrade"):
        monkeypatch.setattr(upgrade, name, lambda *_args, name=name: done.append(name))
    upgrade.command(env, "", **options, assume_yes=True)
    assert done == [called]


def test_removing_is_asked_for_and_says_how_much(env, commands, monkeypatch, capsys) -> None:
    work = commands(Holding((17, 18), origins={18: OLD}), Holding((18,)))
    sizes = iter(["512000"])
    removing = work.in_volume

    def in_volume(server, script, *rest):
        return next(sizes) if "du -sk" in script else removing(server, script, *rest)

    monkeypatch.setattr(work, "in_volume", in_volume)
    asked = []
    monkeypatch.setattr(console, "confirm", lambda _question, yes, **_: asked.append(yes))
    with pytest.raises(OpsError, match="Nothing was removed"):
        upgrade.remove_kept(env)
    assert asked == [False] and work.done == []
    assert "17/docker  500.0 MiB" in capsys.readouterr().out


def test_an_upgrade_is_asked_for(env, commands, monkeypatch) -> None:
    work = commands(Holding((17,)))
    asked = []
    monkeypatch.setattr(work, "check", lambda: None)
    monkeypatch.setattr(majors, "running", lambda _all: {"postgres-primary": 17})
    monkeypatch.setattr(upgrade, "_agreed", lambda _env, _work, _wanted, yes: asked.append(yes))
    with pytest.raises(OpsError, match="Nothing was changed"):
        upgrade.upgrade(env)
    assert asked == [False]


def test_a_killed_upgrade_is_recovered_before_another_begins(env, commands, monkeypatch) -> None:
    work = commands(Holding((17,), begun=UP))
    monkeypatch.setattr(upgrade, "_recover", lambda _work: work.done.append("recovered") or True)
    upgrade.upgrade(env)
    assert work.done == ["recovered"]


# ── servers and services ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def running(make, make_container, monkeypatch):
    """A changeover of a pair that runs; notes what is stopped, started and run."""
    work = make(Holding((17,)))
    pair = [make_container(each.service, image=OLD) for each in SERVERS]
    monkeypatch.setattr(engine, "containers", lambda _env: pair)
    monkeypatch.setattr(services, "stop", lambda them: work.done.append(("stop", *(each.service for each in them))))
    monkeypatch.setattr(services, "start", lambda them: work.done.append(("start", *(each.service for each in them))))
    monkeypatch.setattr(services, "wait_healthy", lambda them: work.done.append(("wait",)))
    work.pair = pair
    return work


def test_standbys_stop_before_the_primary(running, make_container) -> None:
    Changeover._stop_servers(running)
    assert running.done == [("stop", "postgres-replica"), ("stop", "postgres-primary")]
    del running.done[:]
    running.pair[1] = replace(running.pair[1], state="exited")
    Changeover._stop_servers(running)
    assert running.done == [("stop",), ("stop", "postgres-primary")]


def test_only_servers_of_another_major_are_started_and_a_standby_may_copy(running, env, monkeypatch) -> None:
    env.values["DEPLOY_TIMEOUT"] = "100"
    monkeypatch.setattr(running, "size", lambda: 50 * steps.RATE)
    started = []
    monkeypatch.setattr(steps, "bring_up", lambda _env, argv, _judge, seconds: started.append((argv[-1], seconds)))
    monkeypatch.setattr(majors, "running", lambda _all: {"postgres-primary": 18, "postgres-replica": 17})
    Changeover._bring_up(running, env, 18)
    assert started == [("postgres-replica", 150)]
    monkeypatch.setattr(majors, "running", lambda _all: {"postgres-primary": 17, "postgres-replica": 17})
    Changeover._bring_up(running, env, 18)
    assert started[1:] == [("postgres-primary", 100), ("postgres-replica", 150)]


def test_migrations_of_an_older_database(running, monkeypatch) -> None:
    lines, done = [], engine.Completed((), 0, "", "")
    monkeypatch.setattr(engine, "compose", lambda _env, *line, **_: lines.append(line) or done)
    jobs = [Service(name, "", one_shot=True, labels={"ops.job": "migration"}) for name in ("migrate", "shop-migrate")]
    stack = Stack("acme-dev", {each.name: each for each in jobs}, {})
    monkeypatch.setattr(steps.model, "load", lambda _env: stack)
    Changeover._migrate(running)
    assert lines == [("run", "--rm", "--no-deps", "--no-TTY", name) for name in ("migrate", "shop-migrate")]
    done = engine.Completed((), 1, "", "column exists")
    with pytest.raises(OpsError, match="migrate: .*column exists"):
        Changeover._migrate(running)


def test_services_that_are_well_are_left_alone(running, make_container, monkeypatch) -> None:
    web = make_container("web")
    monkeypatch.setattr(running, "_services", lambda: [web])
    Changeover._start_services(running)
    assert running.done == []


def test_a_loaded_database_gets_its_privileges_and_statistics(running, make_container, monkeypatch) -> None:
    lines = []
    monkeypatch.setattr(backup, "run_in", lambda _new, argv, _what, **_: lines.append(argv[0]))
    monkeypatch.setattr(running, "_logged", lambda _new, *argv: lines.append(" ".join(argv[:3])))
    monkeypatch.setattr(running, "_jobs", lambda: ("--jobs=2",))
    running._load(make_container("new"), ["appdb", "archive"])
    load = "pg_restore --create --exit-on-error"
    last = ["bash", "vacuumdb --all --analyze-only"]
    assert lines == ["psql", "dropdb", load, "dropdb", load, *last]


@pytest.mark.parametrize(("assume_yes", "told"), [(False, True), (True, False)])
def test_whoever_is_asked_to_go_back_is_told_what_is_lost(env, commands, monkeypatch, capsys, assume_yes, told) -> None:
    work = commands(Holding((17, 18), origins={18: OLD}))
    monkeypatch.setattr(work, "in_volume", lambda *_args: "2026-11-26 10:00 UTC\n")
    monkeypatch.setattr(console, "confirm", lambda *_args, **_options: True)
    upgrade._agree_to_go_back(env, work, assume_yes)
    assert ("its database as it was at 2026-11-26 10:00 UTC" in capsys.readouterr().out) is told


@pytest.mark.parametrize("servers", [SERVERS[1:], []])
def test_without_a_primary_there_is_nothing_to_upgrade(env, make_stack, monkeypatch, servers) -> None:
    monkeypatch.setattr(upgrade.lock, "hold", lambda *_args: contextlib.nullcontext(Held()))
    monkeypatch.setattr(upgrade.model, "load", lambda _env: make_stack())
    monkeypatch.setattr(majors, "servers", lambda _stack: servers)
    monkeypatch.setattr(Changeover, "look", lambda _self: None)
    with pytest.raises(OpsError, match="dev declares no postgres-primary"), upgrade._work(env, "upgrade"):
        pytest.fail("there is no database")
