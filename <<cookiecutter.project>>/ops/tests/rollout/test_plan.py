"""Plan decisions over made-up declarations and containers."""

from __future__ import annotations

import pytest

from ops.rollout import plan
from ops.rollout.plan import CREATE, RECREATE, REFRESH, RELOAD, RUN, SCALE, START, UNCHANGED
from ops.stack.model import Service
from ops.state.drift import Declared, drift

WEB = Service("web", "acme/web:current", replicas=2, built=True)
NGINX = Service("nginx", "nginx:1")
MIGRATE = Service("migrate", "acme/migrate:current", built=True, one_shot=True)
IMAGES = {"acme/web:current": "sha256:1", "nginx:1": "sha256:1", "acme/migrate:current": "sha256:1"}
HASHES = {"web": "hash", "nginx": "hash", "migrate": "hash"}


@pytest.fixture
def decide(make_stack):
    def run(service, *containers, hashes=HASHES, images=IMAGES, files=None, noted=None, pinned=()):
        declared = Declared(hashes[service.name], images.get(service.image, ""), (files or {}).get(service.name, {}))
        drifts = {each.id: drift(each, declared, (noted or {}).get(each.id, {})) for each in containers}
        return plan.decide(make_stack(service), containers, drifts, pinned)

    return run


@pytest.fixture
def two(make_container):
    """Both containers of web, as declared."""
    return [make_container("web", 1), make_container("web", 2)]


def test_nothing_to_do(decide, two) -> None:
    decided = decide(WEB, *two)
    assert decided.idle
    assert decided.changes["web"].kind == UNCHANGED


def test_never_deployed(decide) -> None:
    assert decide(WEB).changes["web"].kind == CREATE


def test_new_configuration(decide, two) -> None:
    assert decide(WEB, *two, hashes={"web": "other"}).changes["web"] == ("web", RECREATE, "new configuration")


def test_new_image(decide, two) -> None:
    assert decide(WEB, *two, images={"acme/web:current": "sha256:2"}).changes["web"] == ("web", RECREATE, "new image")


def test_one_replica_of_two_is_outdated(decide, make_container) -> None:
    containers = [make_container("web", 1), make_container("web", 2, image_id="sha256:0")]
    decided = decide(WEB, *containers)
    assert decided.changes["web"].kind == RECREATE
    assert decided.outdated == {"acme-dev-web-2"}


@pytest.mark.parametrize(("count", "reason"), [(1, "1 -> 2"), (3, "3 -> 2")])
def test_another_number_of_replicas(decide, make_container, count: int, reason: str) -> None:
    containers = [make_container("web", number) for number in range(1, count + 1)]
    assert decide(WEB, *containers).changes["web"] == ("web", SCALE, reason)


@pytest.mark.parametrize("state", ["exited", "created", "dead"])
def test_a_stopped_container_is_started(decide, make_container, state: str) -> None:
    containers = [make_container("web", 1), make_container("web", 2, state=state, health="")]
    assert decide(WEB, *containers).changes["web"] == ("web", START, f"was {state}")


def test_a_service_without_replicas_stays_away(decide) -> None:
    assert decide(Service("web", "x", replicas=0)).idle


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"state": "exited", "exit_code": 0}, UNCHANGED),
        ({"state": "exited", "exit_code": 1}, RUN),
        ({"state": "running"}, RUN),
        ({"state": "exited", "exit_code": 0, "image_id": "sha256:0"}, RUN),
        ({"state": "exited", "exit_code": 0, "config_hash": "old"}, RUN),
    ],
)
def test_a_job_runs_until_it_ended_well_in_its_present_form(decide, make_container, changes, kind) -> None:
    assert decide(MIGRATE, make_container("migrate", health="", **changes)).changes["migrate"].kind == kind


def test_a_job_that_never_ran(decide) -> None:
    assert decide(MIGRATE).changes["migrate"] == ("migrate", RUN, "never ran")


def test_what_nothing_declares_is_an_orphan(decide, two, make_container) -> None:
    old = make_container("prometheus")
    decided = decide(WEB, *two, old)
    assert decided.orphans == (old,)
    assert not decided.idle


# ── left behind by an interruption ────────────────────────────────────────────────────────────────────────────────────


def test_a_replacement_that_was_never_started_is_discarded(decide, two, make_container) -> None:
    leftover = make_container("web", 1, id="new", name="0123456789ab_acme-dev-web-1", state="created")
    decided = decide(WEB, *two, leftover)
    assert decided.discard == (leftover,)
    assert decided.changes["web"].kind == UNCHANGED
    assert not decided.idle


def test_a_replacement_that_runs_takes_its_name(decide, make_container) -> None:
    leftover = make_container("web", 1, id="new", name="0123456789ab_acme-dev-web-1")
    decided = decide(WEB, leftover, make_container("web", 2))
    assert decided.rename == ((leftover, "acme-dev-web-1"),)
    assert decided.changes["web"].kind == UNCHANGED


def test_what_a_killed_rollout_left_on_probation_goes(decide, make_container) -> None:
    containers = [make_container("web", 1), make_container("web", 2, restart_policy="no")]
    decided = decide(WEB, *containers)
    assert decided.changes["web"] == ("web", RECREATE, "left behind by a rollout that was killed")
    assert decided.outdated == {"acme-dev-web-2"}


def test_requests_that_a_killed_rollout_left_pinned(decide, two) -> None:
    decided = decide(WEB, *two, pinned=("web",))
    assert decided.changes["web"].kind == UNCHANGED
    assert not decided.idle


# ── content of mounted files ──────────────────────────────────────────────────────────────────────────────────────────


def files(service: str, **digests: str) -> dict[str, dict[str, str]]:
    return {service: digests}


def noted(service: str, numbers: tuple[int, ...] = (1, 2), **digests: str) -> dict[str, dict[str, str]]:
    return {f"acme-dev-{service}-{number}": digests for number in numbers}


def test_the_same_content(decide, two) -> None:
    assert decide(WEB, *two, files=files("web", SECRET="a"), noted=noted("web", SECRET="a")).idle


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"SECRET": "b"}, "SECRET changed"),
        ({}, "SECRET changed"),
        ({"SECRET": "b", "OTHER": "c"}, "OTHER and 1 more changed"),
    ],
)
def test_changed_content_means_a_new_container(decide, two, now, reason) -> None:
    decided = decide(WEB, *two, files=files("web", **now), noted=noted("web", SECRET="a"))
    assert decided.changes["web"] == ("web", REFRESH, reason)


def test_compose_does_the_work_when_it_sees_a_difference_too(decide, two) -> None:
    decided = decide(WEB, *two, hashes={"web": "new"}, files=files("web", SECRET="b"), noted=noted("web", SECRET="a"))
    assert decided.changes["web"].kind == RECREATE


def test_nginx_reloads(decide, make_container) -> None:
    now, before = files("nginx", **{"nginx.conf": "b"}), noted("nginx", **{"nginx.conf": "a"})
    assert decide(NGINX, make_container("nginx"), files=now, noted=before).changes["nginx"].kind == RELOAD


def test_nginx_needs_a_new_container_for_its_start_script(decide, make_container) -> None:
    now, before = files("nginx", **{"start.sh": "b"}), noted("nginx", **{"start.sh": "a"})
    assert decide(NGINX, make_container("nginx"), files=now, noted=before).changes["nginx"].kind == REFRESH


def test_a_stopped_nginx_cannot_reload(decide, make_container) -> None:
    now, before = files("nginx", **{"nginx.conf": "b"}), noted("nginx", **{"nginx.conf": "a"})
    stopped = make_container("nginx", state="exited")
    assert decide(NGINX, stopped, files=now, noted=before).changes["nginx"].kind == REFRESH


def test_each_container_is_judged_by_what_it_has_seen(decide, two) -> None:
    seen = noted("web", (1,), SECRET="a") | noted("web", (2,), SECRET="b")
    decided = decide(WEB, *two, files=files("web", SECRET="b"), noted=seen)
    assert decided.changes["web"].kind == REFRESH
    assert decided.outdated == {"acme-dev-web-1"}
