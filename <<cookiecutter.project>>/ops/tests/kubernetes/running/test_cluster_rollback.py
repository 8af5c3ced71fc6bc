"""A rollback in a cluster: to which release, what of it comes back, and what is rolled out for that."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from ops.base.environments import Environment
from ops.base.errors import FAILED, USAGE, OpsError
from ops.engine.kubectl import Place
from ops.kubernetes import plan, rollback
from ops.kubernetes.plan import Seen
from ops.rollout import announce, hooks
from ops.stack import model
from ops.stack.model import Stack
from ops.state import releases
from ops.state.releases import Release

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def release(env: Environment, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Release]:
    """Deploys a release whose services differ from what is declared as told, with an image of each."""
    monkeypatch.setattr(releases, "revision", lambda _folder: "")

    def deploy(images: dict[str, str] | None = None, **changes: dict[str, Any]) -> Release:
        document = copy.deepcopy(dict(stack.document))
        for name, settings in changes.items():
            document["services"][name.replace("_", "-")] |= settings
        begun = releases.begin(env, document, "deploy", {})
        releases.finish(env, begun, releases.DEPLOYED, images=images or {"web": "acme/web:1"})
        return releases.history(env, busy=False)[-1]

    return deploy


# ── to which ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_way_back_is_the_newest_release_that_differs(env: Environment, release: Callable[..., Release]) -> None:
    release(web={"environment": {"A": "old"}})
    wanted = release(web={"environment": {"A": "other"}})
    release()
    release()
    assert rollback.target(env).number == wanted.number == 2


def test_another_image_is_a_difference(env: Environment, release: Callable[..., Release]) -> None:
    wanted = release({"web": "acme/web:0"})
    release({"web": "acme/web:1"})
    assert rollback.target(env).number == wanted.number


def test_a_scheduled_job_is_a_difference_and_a_database_is_none(
    env: Environment, release: Callable[..., Release]
) -> None:
    wanted = release(report={"labels": {"ops.schedule": "0 5 * * *"}})
    release(postgres_primary={"image": "postgres:17"})
    release()
    assert rollback.target(env).number == wanted.number


def test_without_a_difference_there_is_no_way_back(env: Environment, release: Callable[..., Release]) -> None:
    with pytest.raises(OpsError, match="Cannot roll back dev: no earlier release differs") as caught:
        rollback.target(env)
    assert caught.value.code == FAILED and caught.value.remedy == "Available releases: none yet."
    release()
    release()
    with pytest.raises(OpsError, match="no earlier release differs") as caught:
        rollback.target(env)
    assert caught.value.remedy == "Available releases: 1."


def test_a_release_that_is_named_is_taken_also_the_current_one(
    env: Environment, release: Callable[..., Release]
) -> None:
    for name in ("a", "b", "c"):
        release(web={"environment": {"A": name}})
    assert [rollback.target(env, number).number for number in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(OpsError, match="Cannot roll back dev to release 7") as caught:
        rollback.target(env, 7)
    assert caught.value.code == USAGE and caught.value.remedy == "Available releases: 2, 1."


# ── what comes back ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_scheduled_jobs_of_the_owner_come_back_too(stack: Stack) -> None:
    """As on one host."""
    services = stack.document["services"]
    then = {
        "name": "acme-dev",
        "services": {
            **services,
            "report": {**services["report"], "labels": {"ops.schedule": "0 5 * * *"}},
            "migrate": {**services["migrate"], "environment": {"A": "old"}},
        },
    }
    release = Release(3, 0, "ann", "", "deploy", images={"report": "acme/report:0f", "migrate": "acme/migrate:0f"})
    found = rollback.as_then(stack, then, release)
    report = found.document["services"]["report"]
    assert (report["image"], report["labels"]) == ("acme/report:0f", {"ops.schedule": "0 5 * * *"})
    assert found.document["services"]["migrate"] == services["migrate"], "what has run has run"


@pytest.fixture
def seen(stack: Stack, deployment: Make) -> Seen:
    """A cluster in which everything is otherwise than it was then."""
    objects = [deployment(), deployment("postgres-primary", 1)]
    objects[1]["kind"] = "StatefulSet"
    cronjob = deployment("report")
    objects.append({**cronjob, "kind": "CronJob", "spec": {"jobTemplate": {"spec": cronjob["spec"]}}})
    would = copy.deepcopy(objects)
    for each in would:
        template = plan.template_of(each)
        assert template
        template["spec"]["containers"][0]["image"] = "acme/other:0"
    live = {plan.key(each): each for each in objects}
    return Seen(Place("test", "acme-dev"), stack, tuple(would), (), live, {plan.key(each): each for each in would})


def test_only_what_is_the_owners_is_rolled_out(seen: Seen, stack: Stack) -> None:
    found = rollback.backwards(seen, stack)
    assert [(each.word, each.subject) for each in found] == [("roll out", "web"), ("schedule", "report")]


class Work:
    """A deployment that notes what it does."""

    def __init__(self, env: Environment) -> None:
        self.env, self.command, self.touched = env, "rollback", False
        self.done: list[Any] = []

    def prepare(self, _seen: Seen, services: list[str]) -> None:
        self.done.append(("prepare", services))

    def roll_out(self, doing: str, operations: list[Any], _seen: Seen) -> None:
        self.done.append((doing, [each.subject for each in operations]))

    @contextmanager
    def released(self, _then: Stack, changes: dict[str, str]) -> Iterator[None]:
        self.done.append(changes)
        yield


@pytest.fixture
def work(env: Environment, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Work:
    found = Work(env)
    monkeypatch.setattr(rollback, "deployment", lambda _env, command: nullcontext(found))
    monkeypatch.setattr(announce, "announced", lambda *_args, **_options: nullcontext())
    monkeypatch.setattr(hooks, "check", lambda _env: [])
    monkeypatch.setattr(model, "load", lambda _env: stack)
    return found


def test_a_rollback_rolls_out_what_differs(
    work: Work,
    seen: Seen,
    release: Callable[..., Release],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    release({"web": "acme/web:0"}, web={"environment": {"A": "old"}})
    release()
    asked: list[Stack] = []
    monkeypatch.setattr(plan, "survey", lambda _env, then: asked.append(then) or seen)
    rollback.rollback(work.env)
    web = asked[0].document["services"]["web"]
    assert (web["image"], web["environment"]) == ("acme/web:0", {"A": "old"})
    assert work.done == [
        {"web": "back to release 1", "report": "back to release 1"},
        ("prepare", ["web", "report"]),
        ("rolling back to release 1", ["web", "report"]),
    ]
    assert work.touched and work.command == "rollback 1"
    said = capsys.readouterr().out
    assert "dev is back on release 1: web, report\n" in said and "revert them before the next deploy" in said


def test_a_rollback_to_what_runs_changes_nothing(
    work: Work, release: Callable[..., Release], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    release(web={"environment": {"A": "old"}})
    release()
    monkeypatch.setattr(plan, "survey", lambda _env, then: Seen(Place("", ""), then, (), (), {}, {}))
    rollback.rollback(work.env, 2)
    assert capsys.readouterr().out == "nothing to change: dev runs release 2\n"
    assert work.done == [] and not work.touched
