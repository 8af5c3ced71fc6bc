"""Who becomes the primary: in which order, and when not."""

import contextlib
import dataclasses
import json
import signal

import pytest

from ops import engine
from ops.base import signals
from ops.base.errors import REFUSED, OpsError
from ops.engine import Completed
from ops.parts import postgres
from ops.parts.postgres import PRIMARY, STANDBY, Node, View, failover
from ops.stack.model import Service

# `pair` puts another in its place.
switch_over = failover.switch_over
SYNCHRONOUS = {"state": "streaming", "sync": "sync", "lag": 0}


@pytest.fixture
def pair(make_container, monkeypatch, env):
    """Two nodes under Patroni, of which `pair.primary` is the primary; `pair.done` notes what is ordered."""

    class Pair:
        primary, automatic, follower, silent = "postgres-primary", True, SYNCHRONOUS, ()
        done: list[str] = []

        def view(self, *_arguments):
            labels = {"ops.stateful": "postgres"} if self.automatic else {}
            nodes, members = [], []
            for name in postgres.NODES:
                role = PRIMARY if name == self.primary else STANDBY
                (other,) = set(postgres.NODES) - {name}
                members.append({"name": name, "role": "leader" if role == PRIMARY else "sync_standby"})
                followers = {other: self.follower} if role == PRIMARY else {}
                if name not in self.silent:
                    container = make_container(name, labels=labels)
                    nodes.append(Node(container, role, timeline=1, followers=followers))
            return View(tuple(nodes), {"scope": "stack", "members": members})

        def switch_over(self, _env, view):
            assert not view.hazard()
            self.done.append(f"{view.primary.name} steps down")
            self.primary = view.standby.name
            return 1.5

    found = Pair()
    found.done = []
    env.values.update(POSTGRES_USER="admin", POSTGRES_DB="appdb")
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container(name) for name in postgres.NODES])
    monkeypatch.setattr(postgres, "look", found.view)
    monkeypatch.setattr(failover, "switch_over", found.switch_over)
    monkeypatch.setattr(failover, "SECONDS", 0)
    return found


def order(env, pair, names, stateful=True):
    declared = {name: Service(name, "", labels={"ops.stateful": "postgres"} if stateful else {}) for name in names}
    for name in failover.one_after_the_other(env, names, declared):
        pair.done.append(name)
    return pair.done


def test_the_standby_is_replaced_first_and_the_primary_steps_down_before_its_turn(env, pair):
    assert order(env, pair, postgres.NODES) == ["postgres-replica", "postgres-primary steps down", "postgres-primary"]


def test_what_is_the_standby_decides_its_role_and_no_name(env, pair):
    pair.primary = "postgres-replica"
    assert order(env, pair, postgres.NODES) == ["postgres-primary", "postgres-replica steps down", "postgres-replica"]


def test_a_plain_pair_restarts_its_primary_last(env, pair):
    pair.automatic = False
    assert order(env, pair, postgres.NODES, stateful=False) == ["postgres-replica", "postgres-primary"]


def test_a_pair_that_goes_over_to_patroni_begins_with_the_primary(env, pair):
    pair.automatic = False
    assert order(env, pair, postgres.NODES) == ["postgres-primary", "postgres-replica"]


def test_a_primary_whose_standby_is_not_ready_is_restarted_and_said_so(env, pair, capsys):
    pair.follower = {**SYNCHRONOUS, "sync": "async"}
    assert order(env, pair, postgres.NODES) == ["postgres-replica", "postgres-primary"]
    assert "is restarted without failover: postgres-replica is not synchronous" in capsys.readouterr().err


def test_others_are_not_its_business(env, pair):
    assert order(env, pair, ["cache", "web"]) == []


@pytest.fixture
def held(monkeypatch):
    """The lock is free."""
    from contextlib import nullcontext

    monkeypatch.setattr(failover.lock, "hold", lambda *_arguments: nullcontext())


def test_a_planned_failover_says_how_long_nobody_could_write(env, pair, held, capsys):
    failover.failover(env)
    assert pair.done == ["postgres-primary steps down"]
    assert "postgres-replica is the primary now; no write for 1.5 s" in capsys.readouterr().out


def test_a_failover_that_is_not_safe_is_refused_with_the_reason(env, pair, held):
    pair.silent = ("postgres-replica",)
    with pytest.raises(OpsError, match="not safe to fail over in dev: no standby answers") as caught:
        failover.failover(env)
    assert caught.value.code == REFUSED and pair.done == []


def test_nothing_is_forced_while_the_primary_is_well(env, pair, held):
    with pytest.raises(OpsError, match="postgres-primary is the primary and answers") as caught:
        failover.promote(env, assume_yes=True)
    assert caught.value.code == REFUSED and "invoke failover" in caught.value.remedy


def test_without_a_standby_nobody_is_promoted(env, pair, held):
    pair.primary, pair.silent = "", postgres.NODES[:1]
    pair.view = lambda *_: View((Node(engine.containers(env)[0], reason="starting up"),))
    failover.postgres.look = pair.view
    with pytest.raises(OpsError, match=r"No standby answers that could be promoted \(postgres-primary: starting up\)"):
        failover.promote(env, assume_yes=True)


@pytest.fixture
def lost(pair, held, monkeypatch):
    """The primary does not answer; notes what is done about it. lost.answer: of whoever is asked."""
    pair.primary, pair.silent, pair.answer = "", postgres.NODES[:1], True
    monkeypatch.setattr(failover, "_sql", lambda *_: "")
    monkeypatch.setattr(failover.console, "confirm", lambda *_, **__: pair.answer)
    monkeypatch.setattr(engine, "docker", lambda verb, container, **_: pair.done.append(f"{verb} {container}"))
    monkeypatch.setattr(failover, "_take_lease", lambda _env, _all, new, _scope: pair.done.append(f"lease {new.name}"))
    monkeypatch.setattr(failover, "_await_standby", lambda _env, name: pair.done.append(f"await {name}"))
    return pair


def test_a_promotion_puts_the_lost_primary_out_of_action_first(env, lost):
    failover.promote(env)
    assert lost.done == [
        "kill acme-dev-postgres-primary-1",
        "lease postgres-replica",
        "start acme-dev-postgres-primary-1",
        "await postgres-primary",
    ]


def test_nobody_is_promoted_after_a_no(env, lost):
    lost.answer = False
    with pytest.raises(OpsError, match="Nothing was changed"):
        failover.promote(env)
    assert lost.done == []


def test_what_a_promotion_may_lose(env, pair, monkeypatch):
    view = pair.view()
    assert "no acknowledged write is lost" in failover._at_stake(env, view, view.standby)
    monkeypatch.setattr(failover, "_sql", lambda *_: "2026-11-25 18:00:00+00")
    plain = View(view.nodes)
    assert "written after 2026-11-25 18:00:00+00 is lost" in failover._at_stake(env, plain, plain.standby)


def outage(env, make_container, monkeypatch, written: str, taken: str) -> float:
    """What is measured when the old primary prints `written`, and the new one `taken`."""
    said = {"postgres-primary": written, "postgres-replica": taken}
    monkeypatch.setattr(failover, "_shell", lambda each, *_script: ["printf", said[each.service]])
    env.values.update(POSTGRES_USER="admin")
    with failover._outage(env, make_container("postgres-primary"), make_container("postgres-replica")) as measured:
        return measured()


@pytest.mark.parametrize(
    "written", ["99.0\n100.5\n", "98.0\n99.0\n99.5\n100.5\n", "100.5\n"], ids=["one write", "several", "none at all"]
)
def test_the_outage_begins_with_the_last_write_of_the_old_primary(env, make_container, monkeypatch, written):
    assert outage(env, make_container, monkeypatch, written, "102.0\n") == 1.5


def test_a_new_primary_that_takes_no_write_is_told(env, make_container, monkeypatch):
    with pytest.raises(OpsError, match="postgres-replica has not taken a write"):
        outage(env, make_container, monkeypatch, "99.0\n100.5\n", "")


# ── a plain pair hands over ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def plain(env, make_container, monkeypatch):
    """A plain pair on a made-up engine: `plain.done` notes what is done, `plain.fails` says at what it fails."""

    class Plain:
        def __init__(self):
            self.done, self.fails, self.state, self.received, self.fenced = [], {}, "shut down", "t", False
            self.old, self.new = (Node(make_container(name)) for name in postgres.NODES)
            self.ignored = []

        def note(self, *words):
            self.done.append(words)
            if words[0] in self.fails:
                raise self.fails[words[0]]

        def docker(self, verb, name, **_options):
            self.note(verb, name)

        def one_off(self, _env, _node, script):
            if script == failover._FENCE:
                self.note("fence")
                self.fenced = True
            if script == failover._FENCED:
                return "fenced\n" if self.fenced else ""
            lines = ("Latest checkpoint location: 0/5000028", "Time of latest checkpoint: Thu 26 Nov 10:11:12 2026")
            return "\n".join((f"Database cluster state:  {self.state}", *lines))

        def sql(self, _env, _container, text):
            if "pg_promote" in text:
                self.ignored = [signal.getsignal(each) for each in signals.ENDING]
                self.note("promote")
            return self.received

    made = Plain()
    monkeypatch.setattr(engine, "docker", made.docker)
    monkeypatch.setattr(engine, "containers", lambda _env: [made.old.container, made.new.container])
    monkeypatch.setattr(failover, "_one_off", made.one_off)
    monkeypatch.setattr(failover, "_sql", made.sql)
    monkeypatch.setattr(failover, "SECONDS", 0)
    monkeypatch.setattr(postgres, "ask", lambda _env, each: Node(each, PRIMARY))
    return made


STOP, START = ("stop", "acme-dev-postgres-primary-1"), ("start", "acme-dev-postgres-primary-1")


def test_a_primary_is_stopped_fenced_and_started_as_the_standby(env, plain):
    failover._hand_over(env, plain.old, plain.new)
    assert plain.done == [STOP, ("fence",), ("promote",), START]


def test_nothing_interrupts_between_the_fence_and_the_promotion(env, plain):
    """A fenced node never becomes the primary again by itself: there would be none."""
    failover._hand_over(env, plain.old, plain.new)
    assert plain.ignored == [signal.SIG_IGN] * len(signals.ENDING)
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"received": "f"}, "did not get everything"), ({"state": "in production"}, "did not end cleanly")],
)
def test_a_standby_that_lacks_something_is_not_promoted(env, plain, changes, words):
    vars(plain).update(changes)
    with pytest.raises(OpsError, match=words):
        failover._hand_over(env, plain.old, plain.new)
    assert plain.done == [STOP, START]


def test_ctrl_c_before_the_fence_starts_the_primary_again(env, plain, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(failover, "_has", interrupted)
    with pytest.raises(KeyboardInterrupt):
        failover._hand_over(env, plain.old, plain.new)
    assert plain.done == [STOP, START]


def test_a_promotion_that_fails_says_what_to_do(env, plain):
    plain.fails["promote"] = OpsError("no answer")
    with pytest.raises(OpsError, match="no answer") as caught:
        failover._hand_over(env, plain.old, plain.new)
    assert plain.done == [STOP, ("fence",), ("promote",), START]
    assert "invoke promote --env dev" in caught.value.remedy


@pytest.fixture
def halfway(plain, monkeypatch):
    """What is found after a planned failover was killed between the fence and the promotion."""
    plain.fenced = True
    plain.view = View((Node(plain.old.container, "", "no answer"), Node(plain.new.container, STANDBY)))
    monkeypatch.setattr(failover, "look", lambda _env: plain.view)
    monkeypatch.setattr(failover, "_await_standby", lambda *_: plain.done.append(("await",)))
    return plain


def test_a_failover_that_was_killed_halfway_is_finished_by_the_next_one(env, halfway, held, capsys):
    failover.failover(env)
    assert halfway.done == [("promote",), START, ("await",)]
    assert "An earlier failover was interrupted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes", [{"fenced": False}, {"received": "f"}, {"state": "in production"}], ids=lambda each: next(iter(each))
)
def test_a_lost_primary_is_not_taken_for_one_that_handed_over(env, halfway, held, changes):
    vars(halfway).update(changes)
    with pytest.raises(OpsError, match="no node is the primary") as caught:
        failover.failover(env)
    assert (caught.value.code, halfway.done) == (REFUSED, [])


# ── what is asked of Patroni, of PostgreSQL and of people ─────────────────────────────────────────────────────────────


@pytest.fixture
def asked(monkeypatch, make_container):
    """Notes what Patroni and etcd are asked for; `asked.refuses` makes Patroni refuse, `asked.role` is what follows."""

    class Asked(list):
        refuses, role, etcd = False, PRIMARY, True

        def patroni(self, container, *order, timeout):
            self.append((container.service, *order))
            if self.refuses:
                raise OpsError("refused")

        def forget(self, _containers, scope, key):
            self.append(("etcd", scope, key))
            return self.etcd

    found = Asked()
    monkeypatch.setattr(postgres, "patroni", found.patroni)
    monkeypatch.setattr(postgres, "forget", found.forget)
    monkeypatch.setattr(postgres, "ask", lambda _env, each: Node(each, found.role))
    monkeypatch.setattr(failover, "SECONDS", 0)
    return found


@contextlib.contextmanager
def measuring(*_arguments):
    yield lambda: 1.5


def test_patroni_is_told_who_leads_and_who_takes_over(env, pair, asked, monkeypatch):
    monkeypatch.setattr(failover, "_outage", measuring)
    assert switch_over(env, pair.view()) == 1.5
    ((*said, order),) = asked
    assert said == ["postgres-primary", "POST", "/switchover"]
    assert json.loads(order) == {"leader": "postgres-primary", "candidate": "postgres-replica"}


def test_a_forced_promotion_takes_the_lease_and_names_the_candidate(env, asked, make_container):
    failover._take_lease(env, [], Node(make_container("postgres-replica")), "stack")
    assert asked == [
        ("etcd", "stack", "leader"),
        ("postgres-replica", "POST", "/failover", '{"candidate": "postgres-replica"}'),
    ]


def test_a_standby_that_was_quicker_than_the_order_is_as_good(env, asked, make_container):
    asked.refuses = True
    failover._take_lease(env, [], Node(make_container("postgres-replica")), "stack")
    asked.role = STANDBY
    with pytest.raises(OpsError, match="postgres-replica did not become the primary"):
        failover._take_lease(env, [], Node(make_container("postgres-replica")), "stack")


@pytest.mark.parametrize(("scope", "etcd"), [("", True), ("stack", False)])
def test_without_etcd_nobody_is_promoted(env, asked, make_container, scope, etcd):
    asked.etcd = etcd
    with pytest.raises(OpsError, match="etcd does not run"):
        failover._take_lease(env, [], Node(make_container("postgres-replica")), scope)
    assert not any(line[0] == "postgres-replica" for line in asked)


@pytest.mark.parametrize(("name", "typed"), [("prod", "prod"), ("staging", "")])
def test_in_prod_its_name_must_be_typed(env, lost, monkeypatch, name, typed):
    env = dataclasses.replace(env, name=name)
    expected = []
    monkeypatch.setattr(failover.console, "confirm", lambda *_, expect: expected.append(expect))
    with pytest.raises(OpsError, match="Nothing was changed"):
        failover.promote(env)
    assert expected == [typed] and lost.done == []


@pytest.mark.parametrize(
    ("hazards", "said"),
    [
        (["no standby answers", ""], "follows as its standby"),
        (["no standby answers"], "does not follow yet: no standby"),
    ],
)
def test_the_standby_is_waited_for_and_missed_with_a_warning(env, monkeypatch, capsys, hazards, said):
    class Looked:
        def hazard(self):
            return hazards.pop(0) if len(hazards) > 1 else hazards[0]

    monkeypatch.setattr(failover, "look", lambda _env: Looked())
    monkeypatch.setattr(failover, "REJOIN_SECONDS", 0.6)
    failover._await_standby(env, "postgres-primary")
    assert said in "".join(capsys.readouterr())


def test_lines_that_are_run(env, make_container, monkeypatch):
    """In a node that serves, and in the volume of one that does not."""
    node, lines = make_container("postgres-primary", id="abc"), []
    assert failover._shell(node, "{write} until {limit}", "write") == [
        *("docker", "exec", "abc", "bash", "-c", f"write until {failover.SECONDS}")
    ]
    done = Completed((), 0, " t \n", "")
    monkeypatch.setattr(engine, "compose", lambda _env, *line: lines.append(line) or done)
    monkeypatch.setattr(engine, "exec_", lambda name, line, timeout: lines.append((name, *line)) or done)
    env.values.update(POSTGRES_USER="admin")
    assert failover._one_off(env, Node(node), "ls") == " t \n"
    assert failover._sql(env, node, "SELECT 1") == "t"
    assert lines[0] == ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", "postgres-primary", "-c", "ls")
    assert lines[1][0] == "abc" and lines[1][-2:] == ("--command", "SELECT 1")
