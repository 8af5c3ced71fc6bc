"""Jobs over a made-up engine: they take as long as they take, and none is left running."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops import engine
from ops.base import console
from ops.base.errors import MIGRATION, OpsError
from ops.engine import Completed, Container
from ops.rollout import jobs


class Engine:
    """One job in a list. looks: how often it is seen at work before it ends with `code`; deaf: it does not stop."""

    def __init__(self, job: Container) -> None:
        self.job, self.looks, self.code, self.deaf = job, 2, 0, False
        self.lines: list[tuple[str, ...]] = []

    def compose(self, _env: object, *args: str, **options: object) -> Completed:
        assert options["timeout"]
        self.lines.append(args)
        self.job = replace(self.job, state="running")
        return Completed((), 0, "", "")

    def containers(self, _env: object) -> list[Container]:
        return [replace(self.job, id="other", service="other", state="running"), self.job]

    def look(self, ids: list[str]) -> list[Container]:
        assert ids == [self.job.id]
        self.looks -= 1
        if self.looks < 0:
            self.job = replace(self.job, state="exited", exit_code=self.code)
        return [self.job]

    def docker(self, verb: str, *args: str, **options: object) -> Completed:
        assert options == {"timeout": None}
        self.lines.append((verb, *args))
        if not self.deaf:
            self.job = replace(self.job, state="exited", exit_code=143)
        return Completed((), 0, "", "")


@pytest.fixture
def docker(make_container, monkeypatch) -> Engine:
    made = Engine(make_container("migrate", state="created", health="", started=0.0))
    for name in ("compose", "containers", "look", "docker"):
        monkeypatch.setattr(engine, name, getattr(made, name))
    said = "x" * 3000
    monkeypatch.setattr(engine, "logs", lambda _id, lines: [f"{each}: {said} the cause" for each in range(lines)])
    monkeypatch.setattr(jobs, "_LOOK_SECONDS", 0.001)
    return made


UP = ("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", "migrate")
STOP = ("stop", "acme-dev-migrate-1")


def test_a_job_runs_to_its_end(env, docker, capsys) -> None:
    jobs.run(env, "migrate")
    assert docker.lines == [UP]
    assert docker.looks == -1
    assert capsys.readouterr().out == "running migrate\n"


def test_it_takes_as_long_as_it_takes_and_tells_how_far_it_is(env, docker, capsys, monkeypatch) -> None:
    """By default: with DEPLOY_TIMEOUT at its 180 s, one that began an hour ago goes on."""
    monkeypatch.setattr(jobs.time, "time", lambda: 7200.0)
    monkeypatch.setattr(console, "_SIGN_OF_LIFE_SECONDS", 0)
    docker.job = replace(docker.job, started=3600.0, state="running")
    jobs.finish(env, docker.job)
    assert "1 h 0 min: 0: xxx" in capsys.readouterr().out
    assert docker.lines == []


def test_a_limit_stops_it_cleanly(env, docker, monkeypatch) -> None:
    env.values["MIGRATION_TIMEOUT"] = "60"
    monkeypatch.setattr(jobs.time, "time", lambda: 61.1)
    docker.job = replace(docker.job, started=1.0, state="running")
    with pytest.raises(OpsError, match=r"migrate did not end within 60 s and was stopped\.$") as caught:
        jobs.finish(env, docker.job)
    assert "MIGRATION_TIMEOUT" in caught.value.remedy
    assert caught.value.code == MIGRATION
    assert docker.lines == [STOP]


def test_up_to_its_limit_it_goes_on(env, docker, monkeypatch) -> None:
    env.values["MIGRATION_TIMEOUT"] = "60"
    monkeypatch.setattr(jobs.time, "time", lambda: 61.0)
    jobs.finish(env, replace(docker.job, started=1.0))
    assert docker.lines == []


def test_a_failure_shows_the_cause_and_no_pages(env, docker) -> None:
    docker.code = 3
    with pytest.raises(jobs.Failed) as caught:
        jobs.run(env, "migrate", "The services were not touched.")
    first, *lines = caught.value.message.splitlines()
    assert first == "migrate failed with exit code 3. Its last lines:"
    assert len(lines) == 15
    assert all(line.endswith(" the cause") and len(line) < 410 for line in lines)
    assert (caught.value.remedy, caught.value.code) == ("The services were not touched.", MIGRATION)


@pytest.mark.parametrize("during", ["look", "compose"])
def test_an_interruption_stops_it_before_anything_else(env, docker, monkeypatch, during: str) -> None:
    real = getattr(docker, during)

    def interrupted(*args: object, **options: object) -> None:
        real(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(engine, during, interrupted)
    with pytest.raises(KeyboardInterrupt):
        jobs.run(env, "migrate")
    assert docker.lines == [UP, STOP]
    assert docker.job.state == "exited"


def test_one_that_has_ended_needs_no_stop(env, docker, monkeypatch) -> None:
    def failing(*_args: object, **_options: object) -> None:
        raise OpsError("No such image.")

    monkeypatch.setattr(engine, "compose", failing)
    with pytest.raises(OpsError, match=r"^No such image\.$"):
        jobs.run(env, "migrate")
    assert docker.lines == []


def test_one_that_does_not_stop_is_told_beside_the_cause(env, docker, monkeypatch) -> None:
    def hung(_ids: list[str]) -> None:
        raise engine.TimedOut("The engine gave no answer.")

    docker.deaf = True
    monkeypatch.setattr(engine, "look", hung)
    with pytest.raises(OpsError) as caught:
        jobs.run(env, "migrate")
    assert caught.value.message == ("The engine gave no answer.\nThis failed, too: stopping migrate (it still runs).")


def test_one_that_was_removed_meanwhile(env, docker, monkeypatch) -> None:
    monkeypatch.setattr(engine, "look", lambda _ids: [])
    with pytest.raises(OpsError, match="acme-dev-migrate-1 was removed while it ran") as caught:
        jobs.run(env, "migrate")
    assert caught.value.code == MIGRATION


# ── scheduled jobs ────────────────────────────────────────────────────────────────────────────────────────────────────


class Scheduling:
    """An engine with a container of a scheduled job that runs for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.lines: list[tuple[str, ...]] = []

    def docker(self, *args: str, check: bool) -> Completed:
        assert args == ("rm", "old") and not check
        self.looks -= 1
        return Completed((), 0 if self.looks < 0 else 1, "", "")

    def compose(self, _env: object, *args: str, timeout: float, document: object) -> Completed:
        assert timeout and document is None
        self.lines.append(args)
        return Completed((), 0, "", "")


MADE = [("up", "--no-start", "--no-deps", "--no-build", "--pull", "never", "report")]


def scheduling(monkeypatch, looks: int) -> Scheduling:
    made = Scheduling(looks)
    monkeypatch.setattr(engine, "docker", made.docker)
    monkeypatch.setattr(engine, "compose", made.compose)
    monkeypatch.setattr(engine, "inspect", lambda ids: [{}])
    monkeypatch.setattr(jobs, "_LOOK_SECONDS", 0.001)
    return made


def test_a_scheduled_job_is_made_and_not_started(env, monkeypatch) -> None:
    made = scheduling(monkeypatch, 0)
    assert jobs.schedule(env, "report", [], 5)
    assert made.lines == MADE


def test_one_that_runs_is_replaced_when_it_has_ended(env, monkeypatch) -> None:
    made = scheduling(monkeypatch, 3)
    assert jobs.schedule(env, "report", ["old"], 5)
    assert (made.lines, made.looks) == (MADE, -1)


def test_one_that_does_not_end_is_left_to_the_next_deploy(env, monkeypatch, capsys) -> None:
    made = scheduling(monkeypatch, 10_000)
    assert not jobs.schedule(env, "report", ["old"], 0.05)
    assert made.lines == []
    assert "report still runs. The next deploy replaces it." in capsys.readouterr().err


def test_one_that_is_gone_needs_no_removal(env, monkeypatch) -> None:
    made = scheduling(monkeypatch, 10_000)
    monkeypatch.setattr(engine, "inspect", lambda ids: [])
    assert jobs.schedule(env, "report", ["old"], 5)
    assert made.lines == MADE
