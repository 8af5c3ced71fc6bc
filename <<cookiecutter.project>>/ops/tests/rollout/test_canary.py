"""A canary: what it may be, what its containers weigh, who does worse, and how it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.parts import routes
from ops.parts.haproxy import configuration, pool
from ops.parts.haproxy.pool import Server
from ops.rollout import canary, plan
from ops.rollout.observe import Survey
from ops.rollout.plan import Phase, Plan, RollOut, Run
from ops.rollout.roll import Move
from ops.stack.model import Service, Stack
from ops.stack.pools import Pool

NET = "acme_serving"
WEB = Service("web", "acme/web:1", replicas=4, built=True)
ENTRY = {"labels": {"ops.port": "8000"}, "networks": {"serving": {"aliases": ["web.serving"]}}}
STACK = Stack("acme-dev", {"web": WEB}, {"services": {"web": ENTRY, "job": {}}, "networks": {"serving": {"name": NET}}})


@pytest.fixture
def old(make_container):
    return tuple(make_container("web", n, aliases={NET: ("web.serving", "web")}) for n in range(1, 5))


@pytest.fixture
def trial(make_container):
    return make_container("web", 5, id="trial", aliases={NET: ("web.canary",)}, addresses={NET: "10.9.0.5"})


def decided(*operations: plan.Operation) -> Plan:
    return Plan(Survey(STACK, {}, [], [], {}, {}), operations)


@pytest.mark.parametrize("text", ["0", "51", "-1", "10%", "x", "²"])
def test_what_is_no_share(text: str) -> None:
    with pytest.raises(OpsError, match="give a percentage from 1 to 50") as caught:
        canary.share(text)
    assert caught.value.code == USAGE


def test_options_that_do_not_go_together() -> None:
    assert (canary.share("10"), canary.minutes("5", "10"), canary.minutes("", "")) == (10, 5.0, 0)
    assert (canary.share("1"), canary.share("50")) == (1, 50)
    canary.one_of(canary="10", promote=False, abort=False)
    with pytest.raises(OpsError, match="--canary and --abort cannot be used together"):
        canary.one_of(canary="10", promote=False, abort=True)
    with pytest.raises(OpsError, match="give --canary too"):
        canary.minutes("5", "")
    with pytest.raises(OpsError, match="from 1 to 1440"):
        canary.minutes("1441", "10")


@pytest.mark.parametrize(("share", "fresh"), [(10, 1), (25, 1), (26, 2), (50, 2)])
def test_as_many_new_ones_as_the_share_needs_and_no_end_for_the_old(old, share: int, fresh: int) -> None:
    whole = decided(Run(Phase.JOBS, "migrate"), RollOut(Phase.ROLLOUT, "web", move=Move(WEB, old[:1], 3, old[1:])))
    limited = canary.limited(whole, share)
    assert limited.moves == [Move(WEB, old, fresh)]
    assert [each.word for each in limited.operations] == ["run", "try out"]


@pytest.mark.parametrize(
    "other",
    [
        plan.Restart(Phase.DATA_TIER, "redis-primary", running=True),
        plan.Reload(Phase.EDGE, "nginx"),
        RollOut(Phase.ROLLOUT, "job", move=Move(WEB, (), 1)),
    ],
)
def test_a_canary_is_for_services_that_take_requests(old, other: plan.Operation) -> None:
    roll = RollOut(Phase.ROLLOUT, "web", move=Move(WEB, old, 1))
    with pytest.raises(OpsError, match=f"{other.word} {other.subject}$") as caught:
        canary.limited(decided(other, roll), 10)
    assert caught.value.code == REFUSED


def test_a_canary_of_nothing() -> None:
    assert canary.limited(decided(), 10).idle
    with pytest.raises(OpsError, match="There is nothing to try"):
        canary.limited(decided(Run(Phase.JOBS, "migrate")), 10)


@pytest.mark.parametrize(("old_ones", "new", "share"), [(2, 1, 10), (4, 1, 25), (4, 2, 50), (10, 1, 5), (1, 1, 50)])
def test_weights_give_the_share(make_container, old_ones: int, new: int, share: int) -> None:
    stay = tuple(make_container("web", n) for n in range(old_ones))
    weight = canary.weights([Move(WEB, stay, new)], share)["web"]
    got = 100 * weight * new / (weight * new + configuration.USUAL_WEIGHT * old_ones)
    assert got == pytest.approx(share, abs=0.5)


def test_nobody_has_a_share_where_only_one_side_is(old) -> None:
    assert canary.weights([Move(WEB, old), Move(WEB, (), 2)], 10) == {}


def test_a_weight_that_haproxy_does_not_know_is_never_written(make_container) -> None:
    many = tuple(make_container("web", n) for n in range(50))
    assert canary.weights([Move(WEB, many, 1)], 50) == {"web": 256}


def test_its_servers_take_turns_with_the_others() -> None:
    text = configuration.render({"web": Pool("web", 8000), "api": Pool("api", 8000)}, {"web": 11})
    web = text[text.index("backend web from pool") : text.index("backend web:any")]
    assert "    server-template c 1-100 web.canary:8000 weight 11\n" in web
    assert web.index("weight 11") < web.index("default-server weight 100") < web.index("server-template s 1-100")
    assert text.count("balance roundrobin") == text.count("canary") == 1


def test_who_is_a_canary(old, trial) -> None:
    assert canary.of(STACK, [*old, trial]) == {"web": [trial]}
    assert canary.of(STACK, old) == {}


def test_nothing_else_may_change_meanwhile(env, old, trial) -> None:
    canary.refuse(env, STACK, old)
    with pytest.raises(OpsError, match="A canary of web is under way in dev") as caught:
        canary.refuse(env, STACK, [*old, trial])
    assert caught.value.code == REFUSED
    assert "--promote --env dev, or invoke deploy --abort --env dev" in caught.value.remedy
    with pytest.raises(OpsError, match="No canary is under way in dev"):
        canary.demand(env, STACK, old)


def test_promoting_makes_new_ones_and_ends_the_trial(old, trial) -> None:
    """The plan of a deploy, while the trial runs: its containers leave with the old ones."""
    containers = [*old, trial]
    hashes = {each.id: "new" for each in old} | {trial.id: "hash"}
    seen = Survey(STACK, hashes, containers, [], {"acme/web:1": "sha256:1"}, {})
    (step,) = plan.decide(seen).moves
    assert (step.stay, step.fresh, step.leave) == ((), 4, tuple(containers))


SIDES = [
    Server("web", "s1", "10.9.0.1", "UP", errors=1, requests=600, took_ms=10),
    Server("web", "s2", "10.9.0.2", "UP", errors=1, requests=300, took_ms=40),
    Server("web", "c1", "10.9.0.5", "UP", errors=4, requests=100, took_ms=30),
    Server("web:any", "s1", "10.9.0.1", "no", errors=50, requests=50),
]


def test_old_and_new_side_by_side() -> None:
    assert canary.rows(SIDES, ["web"]) == [
        ("web", "old", "900", "2 (0.2%)", "20 ms"),
        ("web", "new", "100", "4 (4.0%)", "30 ms"),
    ]


@pytest.mark.parametrize(("errors", "worse"), [(4, ""), (5, "web")])
def test_a_few_errors_end_nothing(errors: int, worse: str) -> None:
    found = [replace(each, errors=errors) if each.name == "c1" else each for each in SIDES]
    assert canary.worse(found, ["web"]) == worse


def test_what_fails_everywhere_is_not_the_canarys_fault() -> None:
    found = [replace(each, errors=each.requests // 10) for each in SIDES]
    assert canary.worse(found, ["web"]) == ""


def test_watching_ends_when_it_does_worse(env, monkeypatch, make_container, trial) -> None:
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("haproxy"), trial])
    looks = [SIDES, [replace(each, errors=90) if each.name == "c1" else each for each in SIDES]]
    monkeypatch.setattr(pool, "servers", lambda _haproxy: looks.pop(0))
    assert canary.watch(env, STACK, 60, lambda: None, sleep=lambda _seconds: None) == "web"
    assert not looks
    assert canary.watch(env, STACK, 0, lambda: None) == ""


def test_aborting_drains_removes_and_takes_the_share_back(env, monkeypatch, make_container, trial) -> None:
    done: list[str] = []
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("haproxy"), trial])
    monkeypatch.setattr(pool, "drain", lambda _haproxy, limits: done.append(f"drain {limits}"))
    monkeypatch.setattr(canary, "stop", lambda found: done.append(f"stop {found[0].id}") or [])
    monkeypatch.setattr(pool, "reload", lambda _haproxy: done.append("reload"))
    monkeypatch.setattr(
        routes, "write", lambda _env, _stack, files: done.append(f"canary in routes: {'canary' in files['pools.cfg']}")
    )
    web = replace(WEB, labels={"ops.drain": "600"})
    canary.abort(env, replace(STACK, services={"web": web}), {"web": [trial]})
    assert done == ["drain {'10.9.0.5': 600.0}", "stop trial", "canary in routes: False", "reload"]
