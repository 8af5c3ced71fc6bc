"""Who becomes the primary: in which order, and when not."""

import signal

import pytest

from ops import engine
from ops.base import signals
from ops.base.errors import REFUSED, OpsError
from ops.parts import postgres
from ops.parts.postgres import PRIMARY, STANDBY, Node, View, failover
from ops.stack.model import Service

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
    declared = {name: Service(name, "", stateful=stateful) for name in names}
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
            return f"Database cluster state:  {self.state}\nLatest checkpoint location: 0/5000028\n"

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
