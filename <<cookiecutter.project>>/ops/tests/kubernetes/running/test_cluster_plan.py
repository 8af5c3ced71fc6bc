"""What a deploy to a cluster would do, from what is declared and what is there."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from ops.engine.kubectl import Place
from ops.kubernetes import plan, running
from ops.kubernetes.plan import Seen, key
from ops.parts.provision import Need
from ops.rollout.plan import Phase
from ops.stack.model import Stack
from ops.state.drift import NEW_IMAGE

AT = Place("test", "acme-dev")
Make = Callable[..., dict[str, Any]]


@pytest.fixture
def see(stack: Stack) -> Callable[..., Seen]:
    """What was seen: pairs of what is there (None: nothing) and what a dry run makes of it (None: not declared)."""

    def make(*pairs: tuple[dict[str, Any] | None, dict[str, Any] | None], **more: Any) -> Seen:
        live = {key(there): there for there, _ in pairs if there}
        would = {key(new): new for _, new in pairs if new}
        wanted = tuple(new for _, new in pairs if new)
        return Seen(AT, stack, wanted, more.pop("secrets", ()), live, would, **more)

    return make


def changed(object: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """What a dry run makes of an object that is declared otherwise."""
    found = copy.deepcopy(object)
    found["metadata"] |= {"resourceVersion": "999", "generation": 2}
    change(found)
    return found


def rows(seen: Seen) -> list[tuple[str, str, str]]:
    return [(each.word, each.subject, each.cause) for each in plan.decide(seen).operations]


def other_image(object: dict[str, Any]) -> None:
    object["spec"]["template"]["spec"]["containers"][0]["image"] = "acme/web:2"


def test_nothing_to_do_although_the_server_counts_and_notes(see, deployment: Make) -> None:
    there = deployment()
    assert plan.decide(see((there, changed(there, lambda _: None)))).idle


def test_what_is_not_there_is_created(see, deployment: Make) -> None:
    assert rows(see((None, deployment()))) == [("create", "web", "not in the cluster yet")]


def test_another_template_is_rolled_out(see, deployment: Make) -> None:
    there = deployment()
    assert rows(see((there, changed(there, other_image)))) == [("roll out", "web", NEW_IMAGE)]


def test_the_compose_files_say_why(see, deployment: Make, stack: Stack) -> None:
    there = deployment()
    before = {**stack.document["services"]["web"], "environment": {"LOG_LEVEL": "info"}}
    seen = see((there, changed(there, other_image)), deployed={"web": before})
    assert plan.decide(seen).operations[0].causes == ("LOG_LEVEL removed", NEW_IMAGE)


def test_another_number_is_no_rollout(see, deployment: Make) -> None:
    there = deployment()
    assert rows(see((there, changed(there, lambda new: new["spec"].update(replicas=5))))) == [
        ("scale", "web", "2 -> 5")
    ]


def test_what_somebody_changed_by_hand_is_told_by_its_place(see, deployment: Make) -> None:
    there = deployment()
    would = changed(there, lambda new: new["metadata"]["labels"].update(team="shop"))
    assert rows(see((there, would))) == [("update", "web", "Deployment web: metadata.labels.team: none → shop")]


def test_a_database_in_use_restarts_and_asks_first(see, deployment: Make, pod: Make, stack: Stack) -> None:
    there = deployment("postgres-primary", 1, "postgres:18")
    there["kind"] = "StatefulSet"
    pair = (there, changed(there, other_image))
    serving = running.read(AT, stack, [pod("postgres-primary")])
    (operation,) = plan.decide(see(pair, containers=tuple(serving))).operations
    assert (operation.word, operation.asks, operation.phase) == ("restart", True, Phase.DATA_TIER)
    # One that does not run is missed by nobody.
    waiting = running.read(AT, stack, [pod("postgres-primary", state={"waiting": {"reason": "ContainerCreating"}})])
    (operation,) = plan.decide(see(pair, containers=tuple(waiting))).operations
    assert (operation.word, operation.asks) == ("replace", False)


def job(*conditions: str, name: str = "migrate-1") -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "migrate"}},
        "spec": {"template": {"spec": {"containers": [{"name": "migrate", "image": "acme/migrate:1"}]}}},
        "status": {"conditions": [{"type": each, "status": "True"} for each in conditions]},
    }


def test_a_migration_runs_once(see) -> None:
    assert rows(see((None, job()))) == [("run", "migrate", "it has not run yet")]
    assert rows(see((job("Complete"), job()))) == []
    assert rows(see((job("Failed"), job()))) == [("run", "migrate", "it failed before")]
    assert rows(see((job(), job()))) == [("wait for", "migrate", "it runs already")]


def test_a_migration_that_has_run_is_not_removed_by_the_clock() -> None:
    made = {**job(), "spec": {"ttlSecondsAfterFinished": 60, "template": {}}}
    assert plan.lasting(made)["spec"] == {"template": {}}


def test_what_nothing_declares_any_more_is_removed_but_for_data(see, deployment: Make) -> None:
    gone, claim = deployment("old"), {"kind": "PersistentVolumeClaim", "metadata": {"name": "files"}}
    config = {"kind": "ConfigMap", "metadata": {"name": "config-1f2e"}}
    seen = see((gone, None), (claim, None), (config, None))
    assert rows(seen) == [("remove", "old", "not declared any more")]
    # Named by its content: it goes when everything that used it is replaced, and is nothing to tell.
    assert [each["metadata"]["name"] for each in plan.leftovers(seen)] == ["old", "config-1f2e"]


def secret(name: str, value: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": {"A": value}}


def test_secrets_are_told_by_name_and_never_by_content(see) -> None:
    new = (secret("redis-password", "bmV3"), secret("jwt-secret", "a2VlcA=="))
    seen = see((secret("redis-password", "b2xk"), None), (secret("jwt-secret", "a2VlcA=="), None), secrets=new)
    assert rows(seen) == [("update", "secrets", "redis-password changed")]


def mounting(object: dict[str, Any], name: str) -> dict[str, Any]:
    object["spec"]["template"]["spec"]["volumes"] = [
        {"name": "secrets", "projected": {"sources": [{"secret": {"name": name}}]}}
    ]
    return object


def stamp(object: Any) -> str:
    return object["spec"]["template"]["metadata"]["annotations"][plan.STAMP]


def test_pods_change_with_the_secrets_that_they_mount(deployment: Make) -> None:
    mounts = mounting(deployment(), "redis-password")
    before, other = (
        plan.stamped([mounts], [secret("redis-password", value), secret("jwt-secret", value)], "ab")[0]
        for value in ("b2xk", "bmV3")
    )
    assert stamp(before) != stamp(other)
    # Who may read pods must not be able to try passwords against what is written on them.
    assert stamp(plan.stamped([mounts], [secret("redis-password", "b2xk")], "cd")[0]) != stamp(before)
    (unmounted,) = plan.stamped([deployment("api")], [secret("redis-password", "b2xk")], "ab")
    assert plan.STAMP not in str(unmounted)


def test_data_then_migration_then_services(see, deployment: Make) -> None:
    data = deployment("postgres-primary", 1)
    data["kind"] = "StatefulSet"
    needed = (Need("PostgreSQL", "web", ("PostgreSQL does not answer yet",), later=True),)
    seen = see((None, deployment()), (None, job()), (None, data), needed=needed)
    assert [word for word, *_ in rows(seen)] == ["create", "provision", "run", "create"]
    assert [each.subject for each in plan.decide(seen).operations] == ["postgres-primary", "web", "migrate", "web"]


def test_differences_are_told_by_their_place() -> None:
    old = {"a": 1, "list": [{"name": "x", "v": 1}], "gone": {"b": 1}, "empty": {}}
    new = {"a": 2, "list": [{"name": "x", "v": 2}], "new": [1]}
    assert list(plan.differing(old, new)) == ["a: 1 → 2", "gone removed", "list[x].v: 1 → 2", "new added"]


def test_a_schedule_is_told_as_one(see) -> None:
    def scheduled(when: str) -> dict[str, Any]:
        inside = {"spec": {"template": {"spec": {"containers": [{"name": "report", "image": "acme/report:1"}]}}}}
        return {**job(name="report"), "kind": "CronJob", "spec": {"schedule": when, "jobTemplate": inside}}

    (made,) = plan.decide(see((None, scheduled("0 3 * * *")))).operations
    assert (made.word, made.causes, made.phase) == ("schedule", ("not in the cluster yet",), Phase.SCHEDULED_JOBS)
    (moved,) = plan.decide(see((scheduled("0 3 * * *"), scheduled("0 4 * * *")))).operations
    assert (moved.word, moved.causes) == (made.word, ("CronJob report: spec.schedule: 0 3 * * * → 0 4 * * *",))


@pytest.mark.parametrize("projected", [False, True])
def test_files_that_changed_are_told_by_what_they_belong_to(see, deployment: Make, projected: bool) -> None:
    def reading(name: str) -> Callable[[dict[str, Any]], None]:
        source = {"configMap": {"name": name}}
        volume = {
            "name": "files",
            **({"projected": {"sources": [source, {"secret": {"name": "a"}}]}} if projected else source),
        }

        def change(object: dict[str, Any]) -> None:
            object["spec"]["template"]["spec"]["volumes"] = [volume, {"name": "tmp", "emptyDir": {}}]

        return change

    there = deployment()
    reading("web-files-1f2e")(there)
    assert rows(see((there, changed(there, reading("web-files-9a8b"))))) == [
        ("roll out", "web", "the files in web-files changed")
    ]


def test_pods_whose_secrets_changed_say_so(see, deployment: Make) -> None:
    there = deployment()
    there["spec"]["template"].setdefault("metadata", {})["annotations"] = {plan.STAMP: "before"}

    def restamp(object: dict[str, Any]) -> None:
        object["spec"]["template"]["metadata"]["annotations"] = {plan.STAMP: "after"}

    assert rows(see((there, changed(there, restamp)))) == [("roll out", "web", "its secrets changed")]


def test_a_daemon_set_is_a_workload_and_is_removed_by_the_name_of_its_service(see, deployment: Make) -> None:
    edge = {**deployment("nginx"), "kind": "DaemonSet"}
    assert plan.Seen.workloads(see((None, edge), (None, job()))) == {"nginx": edge}
    assert rows(see((edge, None))) == [("remove", "nginx", "not declared any more")]


@pytest.mark.parametrize(("length", "shown"), [(60, "x" * 60), (61, "x" * 59 + "…")])
def test_a_long_value_is_cut(length: int, shown: str) -> None:
    assert list(plan.differing({"a": None}, {"a": "x" * length})) == [f"a: none → {shown}"]
