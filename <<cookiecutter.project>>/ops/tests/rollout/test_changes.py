"""What differs, over made-up declarations and containers."""

from __future__ import annotations

import pytest

from ops.rollout import changes
from ops.rollout.changes import CREATE, RECREATE, REFRESH, RELOAD, RUN, RUNNING, SCALE, START, UNCHANGED
from ops.stack.model import Service
from ops.state.drift import Declared, drift

WEB = Service("web", "acme/web:current", replicas=2, built=True)
NGINX = Service("nginx", "nginx:1", labels={"ops.part": "edge"})
MIGRATE = Service("migrate", "acme/migrate:current", built=True, one_shot=True, labels={"ops.job": "migration"})
IMAGES = {"acme/web:current": "sha256:1", "nginx:1": "sha256:1", "acme/migrate:current": "sha256:1"}
HASHES = {"web": "hash", "nginx": "hash", "migrate": "hash"}


@pytest.fixture
def compare(make_stack):
    def run(service, *containers, hashes=HASHES, images=IMAGES, files=None, noted=None):
        declared = Declared(hashes[service.name], images.get(service.image, ""), (files or {}).get(service.name, {}))
        drifts = {each.id: drift(each, declared, (noted or {}).get(each.id, {})) for each in containers}
        return changes.compare(make_stack(service), containers, drifts)

    return run


@pytest.fixture
def two(make_container):
    """Both containers of web, as declared."""
    return [make_container("web", 1), make_container("web", 2)]


def test_nothing_to_do(compare, two) -> None:
    found = compare(WEB, *two)
    assert found.services["web"].kind == UNCHANGED


def test_never_deployed(compare) -> None:
    assert compare(WEB).services["web"].kind == CREATE


def test_new_configuration(compare, two) -> None:
    assert compare(WEB, *two, hashes={"web": "other"}).services["web"] == ("web", RECREATE, "new configuration")


def test_new_image(compare, two) -> None:
    assert compare(WEB, *two, images={"acme/web:current": "sha256:2"}).services["web"] == ("web", RECREATE, "new image")


def test_one_replica_of_two_is_outdated(compare, make_container) -> None:
    containers = [make_container("web", 1), make_container("web", 2, image_id="sha256:0")]
    found = compare(WEB, *containers)
    assert found.services["web"].kind == RECREATE
    assert found.outdated == {"acme-dev-web-2"}


@pytest.mark.parametrize(("count", "reason"), [(1, "1 -> 2"), (3, "3 -> 2")])
def test_another_number_of_replicas(compare, make_container, count: int, reason: str) -> None:
    containers = [make_container("web", number) for number in range(1, count + 1)]
    assert compare(WEB, *containers).services["web"] == ("web", SCALE, reason)


@pytest.mark.parametrize("state", ["exited", "created", "dead"])
def test_a_stopped_container_is_started(compare, make_container, state: str) -> None:
    containers = [make_container("web", 1), make_container("web", 2, state=state, health="")]
    assert compare(WEB, *containers).services["web"] == ("web", START, f"was {state}")


def test_a_service_without_replicas_stays_away(compare) -> None:
    assert compare(Service("web", "x", replicas=0), hashes={"web": ""}).services["web"].kind == UNCHANGED


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"state": "exited", "exit_code": 0}, UNCHANGED),
        ({"state": "exited", "exit_code": 1}, RUN),
        ({"state": "running"}, RUNNING),
        ({"state": "running", "config_hash": "old"}, RUNNING),
        ({"state": "exited", "exit_code": 143}, RUN),
        ({"state": "exited", "exit_code": 0, "image_id": "sha256:0"}, RUN),
        ({"state": "exited", "exit_code": 0, "config_hash": "old"}, RUN),
    ],
)
def test_a_job_runs_until_it_ended_well_in_its_present_form(compare, make_container, changes, kind) -> None:
    assert compare(MIGRATE, make_container("migrate", health="", **changes)).services["migrate"].kind == kind


def test_a_job_that_never_ran(compare) -> None:
    assert compare(MIGRATE).services["migrate"] == ("migrate", RUN, "never ran")


def test_what_nothing_declares_is_an_orphan(compare, two, make_container) -> None:
    old = make_container("prometheus")
    found = compare(WEB, *two, old)
    assert found.orphans == (old,)


# ── left behind by an interruption ────────────────────────────────────────────────────────────────────────────────────


def test_a_replacement_that_was_never_started_is_discarded(compare, two, make_container) -> None:
    leftover = make_container("web", 1, id="new", name="0123456789ab_acme-dev-web-1", state="created")
    found = compare(WEB, *two, leftover)
    assert found.discard == (leftover,)
    assert found.services["web"].kind == UNCHANGED


def test_a_replacement_that_runs_takes_its_name(compare, make_container) -> None:
    leftover = make_container("web", 1, id="new", name="0123456789ab_acme-dev-web-1")
    found = compare(WEB, leftover, make_container("web", 2))
    assert found.rename == ((leftover, "acme-dev-web-1"),)
    assert found.services["web"].kind == UNCHANGED


def test_what_a_killed_rollout_left_on_probation_goes(compare, make_container) -> None:
    containers = [make_container("web", 1), make_container("web", 2, restart_policy="no")]
    found = compare(WEB, *containers)
    assert found.services["web"] == ("web", RECREATE, "left behind by a rollout that was killed")
    assert found.outdated == {"acme-dev-web-2"}


# ── content of mounted files ──────────────────────────────────────────────────────────────────────────────────────────


def files(service: str, **digests: str) -> dict[str, dict[str, str]]:
    return {service: digests}


def noted(service: str, numbers: tuple[int, ...] = (1, 2), **digests: str) -> dict[str, dict[str, str]]:
    return {f"acme-dev-{service}-{number}": digests for number in numbers}


def test_the_same_content(compare, two) -> None:
    assert (
        compare(WEB, *two, files=files("web", SECRET="a"), noted=noted("web", SECRET="a")).services["web"].kind
        == UNCHANGED
    )


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        ({"SECRET": "b"}, "SECRET changed"),
        ({}, "SECRET changed"),
        ({"SECRET": "b", "OTHER": "c"}, "OTHER and 1 more changed"),
    ],
)
def test_changed_content_means_a_new_container(compare, two, now, reason) -> None:
    found = compare(WEB, *two, files=files("web", **now), noted=noted("web", SECRET="a"))
    assert found.services["web"] == ("web", REFRESH, reason)


def test_compose_does_the_work_when_it_sees_a_difference_too(compare, two) -> None:
    found = compare(WEB, *two, hashes={"web": "new"}, files=files("web", SECRET="b"), noted=noted("web", SECRET="a"))
    assert found.services["web"].kind == RECREATE


def test_nginx_reloads(compare, make_container) -> None:
    now, before = files("nginx", **{"nginx.conf": "b"}), noted("nginx", **{"nginx.conf": "a"})
    assert compare(NGINX, make_container("nginx"), files=now, noted=before).services["nginx"].kind == RELOAD


def test_nginx_needs_a_new_container_for_its_start_script(compare, make_container) -> None:
    now, before = files("nginx", **{"start.sh": "b"}), noted("nginx", **{"start.sh": "a"})
    assert compare(NGINX, make_container("nginx"), files=now, noted=before).services["nginx"].kind == REFRESH


@pytest.mark.parametrize("state", ["restarting", "running"])
def test_an_nginx_that_keeps_restarting_cannot_reload(compare, make_container, state: str) -> None:
    now, before = files("nginx", **{"nginx.conf": "b"}), noted("nginx", **{"nginx.conf": "a"})
    looping = make_container("nginx", state=state, health="starting", restarts=4)
    assert compare(NGINX, looping, files=now, noted=before).services["nginx"].kind == REFRESH


def test_a_stopped_nginx_cannot_reload(compare, make_container) -> None:
    now, before = files("nginx", **{"nginx.conf": "b"}), noted("nginx", **{"nginx.conf": "a"})
    stopped = make_container("nginx", state="exited")
    assert compare(NGINX, stopped, files=now, noted=before).services["nginx"].kind == REFRESH


def test_each_container_is_judged_by_what_it_has_seen(compare, two) -> None:
    seen = noted("web", (1,), SECRET="a") | noted("web", (2,), SECRET="b")
    found = compare(WEB, *two, files=files("web", SECRET="b"), noted=seen)
    assert found.services["web"].kind == REFRESH
    assert found.outdated == {"acme-dev-web-1"}
