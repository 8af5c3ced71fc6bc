"""Scale: arguments, what is kept in the .env file, and what is rolled out."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import INTERRUPTED, REFUSED, USAGE, OpsError
from ops.parts import prometheus
from ops.parts.postgres.connections import LABEL
from ops.rollout import deploy, preflight, scale
from ops.rollout.roll import Move
from ops.stack import model
from ops.stack.model import Port, Service, Stack
from ops.state import lock, releases

WEB = Service("web", "acme/web:1", built=True, memory_limit=1024**3)
API = Service("api", "acme/api:1", built=True)
POSTGRES = Service("postgres-primary", "postgres:18", built=True, labels={"ops.stateful": "postgres"})
PROMETHEUS = Service("prometheus", "prom:3", labels={"ops.tier": "monitoring"}, profiles=("monitoring",))
WEB_ENTRY = {"build": {}, "labels": {LABEL: 10, "ops.metrics": "8000/metrics"}, "networks": {"scrape": None}}
STACK = Stack(
    "acme-dev",
    {each.name: each for each in (WEB, API, POSTGRES, PROMETHEUS)},
    {
        "name": "acme-dev",
        "services": {"web": WEB_ENTRY, "api": {}, "postgres-primary": {}, "prometheus": {}},
    },
)


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5", "", "²", "51"])
def test_what_is_no_number_of_containers(count: str) -> None:
    with pytest.raises(OpsError) as caught:
        scale.number(count)
    assert caught.value.message == f'"{count}" is not a number of containers: give a whole number from 1 to 50.'
    assert caught.value.code == USAGE


def test_numbers_of_containers() -> None:
    assert (scale.number("1"), scale.number("50")) == (1, 50)


def test_what_can_be_scaled_follows_from_the_declaration() -> None:
    settings = {"web": "WEB_REPLICAS", "api": "HOW_MANY", "postgres-primary": "NO"}
    assert scale.setting(STACK, settings, "api") == "HOW_MANY"
    for service in ("postgres-primary", "prometheus", "wbe"):
        with pytest.raises(OpsError) as caught:
            scale.setting(STACK, settings, service)
        assert caught.value.message == f'"{service}" cannot be scaled.'
        assert (caught.value.remedy, caught.value.code) == ("Can be scaled: web, api.", USAGE)


def test_a_service_whose_number_is_no_setting_says_how_it_becomes_one() -> None:
    api = replace(API, name="my-api")
    with pytest.raises(
        OpsError, match='"my-api" cannot be scaled: its number of containers is not a setting'
    ) as caught:
        scale.setting(replace(STACK, services={"my-api": api}), {}, "my-api")
    assert "deploy: {replicas: ${MY_API_REPLICAS}}" in caught.value.remedy


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (replace(API, labels={"ops.rollout": "restart"}), "ops.rollout: restart"),
        (replace(API, ports=(Port("", 80),)), "it publishes a port of the host"),
    ],
)
def test_a_service_that_is_replaced_by_a_restart_says_why_it_cannot_be_scaled(service: Service, why: str) -> None:
    with pytest.raises(OpsError) as caught:
        scale.setting(replace(STACK, services={"api": service}), {"api": "API_REPLICAS"}, "api")
    assert caught.value.message == f'"api" cannot be scaled: two of its containers must not run at once ({why}).'
    assert "ops.rollout: rolling" in caught.value.remedy


class Scaling:
    """Scales web, of which some containers run; keeps what was done."""

    def __init__(self, env, make_container, monkeypatch) -> None:
        self.env, self.make, self.patch = env, make_container, monkeypatch
        self.done: list[str] = []
        self.told: dict[str, str] = {}
        self.moves: list[Move] = []
        self.present = {"acme/web:1": "sha256:1"}
        self.failure: BaseException | None = None
        self.watched = False
        self.refused = False

    def run(self, count: str, running: int, available: int = 8 * 1024**3, **changes: object) -> list[Move]:
        patch = self.patch.setattr
        containers = [self.make("web", number, image="acme/web:1", **changes) for number in range(1, running + 1)]
        containers += [self.make("prometheus")] if self.watched else []
        patch(engine, "containers", lambda env: containers)
        patch(engine, "image_ids", lambda names: {name: self.present[name] for name in names if name in self.present})
        patch(scale.images, "tag", lambda pairs: self.done.extend(f"tag {old} {new}" for old, new in pairs))
        found = scale.Declaration(WEB, STACK)
        patch(scale, "declared_as", lambda *_args: nullcontext(found))
        patch(scale, "note", lambda _env, declared, before: self.done.append(f"note all but {len(before)}"))
        patch(scale.networks, "refuse", lambda *_args: None)
        patch(model, "load", lambda env: STACK)
        patch(model, "replica_settings", lambda env: {"web": "WEB_REPLICAS"})
        patch(preflight, "available_memory", lambda total=0: available)
        patch(deploy.Deployment, "roll_out", self._roll_out)
        patch(scale.routes, "read", lambda _containers: prometheus.render(STACK))
        patch(scale.routes, "write", lambda _env, _stack, files: self.told.update(files))
        patch(scale.prometheus, "reload", self._reload)
        patch(lock, "hold", lambda _env, purpose, _wait: nullcontext(self.done.append(f"lock {purpose}")))
        patch(releases, "revision", lambda _folder: "")
        scale.scale(self.env, "web", count)
        return self.moves

    def _roll_out(self, moves, declared) -> None:
        assert declared == STACK
        self.done.append("roll out")
        if self.failure:
            raise self.failure
        self.moves.extend(moves)

    def _reload(self, container) -> None:
        self.done.append(f"reload {container.service}")
        if self.refused:
            raise OpsError("Prometheus refuses its new configuration.")


@pytest.fixture
def scaling(env, make_container, monkeypatch, remembered) -> Scaling:
    return Scaling(env, make_container, monkeypatch)


def test_scaling_up_adds(env, scaling, capsys) -> None:
    (step,) = scaling.run("5", running=2)
    assert (len(step.stay), step.fresh, step.leave) == (2, 3, ())
    assert "WEB_REPLICAS=5\n" in env.env_file.read_text()
    out = capsys.readouterr().out
    assert "config/dev/.env: WEB_REPLICAS=5 (was 2); commit it" in out
    assert "web: 2 -> 5, all healthy" in out
    assert scaling.done == ["lock scale web 5 --env dev", "roll out", "note all but 2"]


def test_prometheus_is_told_the_new_number_by_a_reload(scaling) -> None:
    scaling.watched = True
    scaling.run("5", running=2)
    assert scaling.done[1:3] == ["roll out", "reload prometheus"]
    assert '"expr": "vector(5)"' in scaling.told["expected.yml"]


def test_scaling_is_part_of_the_history_and_nothing_to_go_back_to(env, scaling) -> None:
    scaling.run("5", running=2)
    (release,) = releases.history(env)
    assert (release.command, release.result, release.changes) == ("scale web 5", "scaled", {"web": "2 -> 5"})
    assert releases.kept(env) == []


@pytest.mark.parametrize("failure", [OpsError("web stopped."), OSError(28, "full")])
def test_a_number_that_could_not_be_had_is_not_declared(env, scaling, failure: BaseException) -> None:
    before = env.env_file.read_text()
    scaling.failure = failure
    with pytest.raises(type(failure)):
        scaling.run("5", running=2)
    assert env.env_file.read_text() == before
    assert [each.result for each in releases.history(env)] == ["failed"]


def test_an_interruption_says_how_to_go_on(env, scaling) -> None:
    scaling.failure = KeyboardInterrupt()
    with pytest.raises(OpsError) as caught:
        scaling.run("5", running=2)
    assert caught.value.remedy == "`invoke scale web 5 --env dev` continues from here."
    assert caught.value.code == INTERRUPTED


@pytest.mark.parametrize("present", [{}, {"acme/web:1": "sha256:9"}])
def test_more_of_the_same_although_the_image_has_lost_its_name(scaling, present: dict[str, str]) -> None:
    scaling.present = present
    scaling.run("5", running=2)
    assert scaling.done[1:3] == ["tag sha256:1 acme/web:1", "roll out"]


def test_a_prometheus_that_refuses_is_a_warning(env, scaling, capsys) -> None:
    scaling.watched = scaling.refused = True
    scaling.run("5", running=2)
    assert "warning: Prometheus could not be told the new number: Prometheus refuses" in capsys.readouterr().err
    assert "WEB_REPLICAS=5\n" in env.env_file.read_text()


@pytest.mark.parametrize(("count", "refused"), [("9", False), ("10", True)])
def test_postgres_must_allow_as_many_connections(env, scaling, count: str, refused: bool, capsys) -> None:
    env.values["POSTGRES_MAX_CONNECTIONS"] = "100"
    with pytest.raises(OpsError) if refused else nullcontext() as caught:
        scaling.run(count, running=2)
    if refused:
        assert "There is no room for 8 more web: services may hold 100 connections" in caught.value.message
        assert caught.value.code == REFUSED
    else:
        assert "services may hold 90 connections, 180 during a rollout" in capsys.readouterr().err


def test_scaling_down_takes_the_newest_away(scaling) -> None:
    (step,) = scaling.run("1", running=3)
    assert [each.number for each in step.stay] == [1]
    assert (step.fresh, [each.number for each in step.leave]) == (0, [2, 3])


def test_scaling_to_what_is_there_changes_nothing(env, scaling, capsys) -> None:
    before = env.env_file.read_text()
    assert scaling.run("2", running=2) == []
    assert env.env_file.read_text() == before
    assert capsys.readouterr().out == "nothing to change: 2 web healthy\n"


def test_a_number_that_runs_already_is_declared(env, scaling) -> None:
    assert scaling.run("3", running=3) == []
    assert "WEB_REPLICAS=3\n" in env.env_file.read_text()


def test_no_room_is_needed_to_replace_sick_ones(scaling) -> None:
    """It is the rollout of as many as there are, and takes its turn with them."""
    scaling.run("2", running=2, available=1, health="unhealthy")
    assert "roll out" in scaling.done


@pytest.mark.parametrize("changes", [{"health": "unhealthy"}, {"restart_policy": "no"}])
def test_the_right_number_of_sick_ones_is_rolled_out(scaling, changes: dict) -> None:
    (step,) = scaling.run("2", running=2, **changes)
    assert (len(step.stay), step.fresh) == (0, 2)


def test_scaling_what_does_not_run_is_for_the_next_deploy(env, scaling, capsys) -> None:
    assert scaling.run("4", running=0) == []
    assert "WEB_REPLICAS=4\n" in env.env_file.read_text()
    assert "`invoke deploy --env dev` starts 4" in capsys.readouterr().out


def test_no_room_to_scale(env, scaling) -> None:
    before = env.env_file.read_text()
    with pytest.raises(OpsError, match="There is no room for 8 more web") as caught:
        scaling.run("10", running=2, available=1024**3)
    assert caught.value.code == REFUSED
    assert env.env_file.read_text() == before


# ── what more of the same is ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def released(env, make_container, monkeypatch, tmp_path):
    """The declaration of a container of this hash, with a release whose own is "then"."""
    then = {"name": "acme-dev", "services": {"web": {"image": "acme/web:then"}}}

    def run(config_hash: str, documented: bool = True, current: object = "release") -> scale.Declaration:
        monkeypatch.setattr(releases, "current", lambda _env: current)
        monkeypatch.setattr(releases, "is_documented", lambda *_args: documented)
        monkeypatch.setattr(releases, "hashes", lambda *_args: {"web": "then"})
        monkeypatch.setattr(releases, "document", lambda *_args: then)
        monkeypatch.setattr(releases, "as_file", lambda document: nullcontext(tmp_path / "compose.json"))
        monkeypatch.setattr(model, "load", lambda _env: STACK)
        with scale.declared_as(env, "web", [make_container("web", config_hash=config_hash)]) as found:
            return found

    run.file = tmp_path / "compose.json"
    return run


def test_more_of_what_the_current_release_made(released) -> None:
    found = released("then")
    assert (found.service.image, found.document) == ("acme/web:then", released.file)


@pytest.mark.parametrize("told", [{"documented": False}, {"current": None}, {"config_hash": "by hand"}])
def test_more_of_what_the_files_declare(released, told: dict) -> None:
    found = released(**{"config_hash": "then", **told})
    assert (found.service, found.document) == (WEB, None)
