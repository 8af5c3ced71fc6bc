"""Rolling back: what has to move."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.base.errors import USAGE, OpsError
from ops.rollout import rollback
from ops.stack.model import Service
from ops.state.releases import Release

WEB = Service("web", "acme/web:1", replicas=2, built=True)
API = Service("api", "acme/api:1", built=True)


def test_what_differs_moves_and_keeps_its_number(make_stack, make_container) -> None:
    then = make_stack(WEB, API, Service("redis", "redis:8", labels={"ops.tier": "data"}))
    now = make_stack(Service("web", "acme/web:1", replicas=1, built=True), API)
    containers = [make_container("web", image_id="sha256:new"), make_container("api"), make_container("redis")]
    target = Release(3, 0, "", "", "deploy", images={"web": "sha256:old", "api": "sha256:1"})
    (step,) = rollback.backwards(then, now, containers, {each.id: "hash" for each in containers}, target)
    assert (step.service.name, step.fresh, step.leave) == ("web", 1, (containers[0],))


def test_settings_alone_are_enough(make_stack, make_container) -> None:
    target = Release(3, 0, "", "", "deploy", images={"api": "sha256:1"})
    stack = make_stack(API)
    api = make_container("api")
    assert rollback.backwards(stack, stack, [api], {api.id: "hash"}, target) == []
    assert rollback.backwards(stack, stack, [api], {api.id: "then"}, target)


def test_what_is_gone_or_does_not_run_is_left_alone(make_stack, make_container) -> None:
    target = Release(3, 0, "", "", "deploy", images={"api": "sha256:0", "web": "sha256:0"})
    stopped = make_container("api", state="exited")
    assert rollback.backwards(make_stack(WEB, API), make_stack(API), [stopped], {}, target) == []


def test_an_image_from_elsewhere_goes_back_like_one_of_our_own(make_stack, make_container) -> None:
    then, now = make_stack(Service("blog", "ghost:5")), make_stack(Service("blog", "ghost:6"))
    target = Release(3, 0, "", "", "deploy", images={"blog": "sha256:5"})
    blog = make_container("blog", image_id="sha256:6", image="ghost:6")
    (step,) = rollback.backwards(then, now, [blog], {blog.id: "then"}, target)
    assert (step.service.image, step.fresh, step.leave) == ("ghost:5", 1, (blog,))


def test_what_must_not_run_beside_its_successor_is_restarted_as_it_was(make_stack, make_container) -> None:
    single = Service("single", "acme/single:1", labels={"ops.rollout": "restart"})
    declared = make_stack(single)
    target = Release(3, 0, "", "", "deploy", images={"single": "sha256:old"})
    mine = make_container("single", image_id="sha256:new")
    asked = (declared, declared, [mine], {mine.id: "hash"}, target)
    assert rollback.backwards(*asked) == []
    assert rollback.restarted(*asked) == {"single": single}
    same = replace(target, images={"single": "sha256:new"})
    assert rollback.restarted(*asked[:4], same) == {}
    # it is rolled out now, or does not run
    assert rollback.restarted(declared, make_stack(Service("single", "x")), *asked[2:]) == {}
    assert rollback.restarted(declared, declared, [], {}, target) == {}


def test_a_part_of_the_stack_is_never_rolled_back(make_stack, make_container) -> None:
    """A release of before its label: rolled back, a second database would run on the same volume."""
    then = make_stack(Service("postgres-primary", "postgres:18"))
    now = make_stack(Service("postgres-primary", "postgres:18", labels={"ops.tier": "data"}))
    target = Release(3, 0, "", "", "deploy", images={"postgres-primary": "sha256:0"})
    assert rollback.backwards(then, now, [make_container("postgres-primary")], {}, target) == []


def test_scheduled_jobs_come_back_too(make_stack, make_container) -> None:
    """Those that were scheduled then and are now, and differ."""
    times = {"ops.schedule": "0 3 * * *"}
    report, tidy = (Service(name, f"acme/{name}:1", one_shot=True, labels=times) for name in ("report", "tidy"))
    new = Service("new", "acme/new:1", one_shot=True, labels=times)
    containers = [make_container(name, state="exited") for name in ("report", "tidy", "new")]
    target = Release(3, 0, "", "", "deploy", images={"report": "sha256:old", "tidy": "sha256:1"})
    found = rollback.rescheduled(
        make_stack(report, tidy),
        make_stack(report, tidy, new),
        containers,
        {each.id: "hash" for each in containers},
        target,
    )
    assert found == {"report": [containers[0].id]}


def test_a_scheduled_job_that_is_a_part_of_the_stack_stays(make_stack, make_container) -> None:
    backup = Service(
        "backup", "acme/backup:1", one_shot=True, labels={"ops.part": "backup", "ops.schedule": "30 2 * * *"}
    )
    container = make_container("backup", state="exited")
    target = Release(3, 0, "", "", "deploy", images={"backup": "sha256:old"})
    stack = make_stack(backup)
    assert rollback.rescheduled(stack, stack, [container], {container.id: "hash"}, target) == {}


@pytest.mark.parametrize(("text", "number"), [("", None), ("12", 12)])
def test_numbers(text: str, number: int | None) -> None:
    assert rollback.number(text) == number


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "²"])
def test_not_a_number(text: str) -> None:
    with pytest.raises(OpsError) as caught:
        rollback.number(text)
    assert caught.value.code == USAGE
