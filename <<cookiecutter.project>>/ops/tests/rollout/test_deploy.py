"""Deploy: what it decides and asks, what it prints, and how it ends when it is refused, fails or is interrupted."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base import findings
from ops.base.errors import INTERRUPTED, REFUSED, OpsError
from ops.rollout import deploy, gate, preflight
from ops.stack import images
from ops.stack.model import Port, Service
from ops.state import lock, releases


def surveyed(declared, *containers) -> deploy.Survey:
    hashes = {each.id: "hash" for each in containers}
    present = {each.image: "sha256:1" for each in declared.services.values()}
    return deploy.Survey(declared, hashes, list(containers), [], present, {})


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch):
    """No engine: every call that would reach it fails the test."""

    def unexpected(*args: object, **_options: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(engine, "run", unexpected)
    monkeypatch.setattr(engine, "warn_overridden", lambda env: None)
    monkeypatch.setattr(lock, "hold", lambda *_args: nullcontext(SimpleNamespace(check=lambda: None)))
    return monkeypatch


def test_nothing_to_change(env, make_stack, make_container, quiet, capsys) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared, make_container("web")))
    deploy.deploy(env)
    assert capsys.readouterr().out.startswith("nothing to change: 1 services healthy in dev (")


def test_nothing_to_change_but_unwell(env, make_stack, make_container, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    sick = make_container("web", state="restarting", health="", restarts=9)
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared, sick))
    quiet.setattr(engine, "containers", lambda env: [sick])
    quiet.setattr(engine, "logs", lambda *_args: ["boom"])
    quiet.setattr(gate, "LOOK_SECONDS", 0.01)
    env.values["DEPLOY_TIMEOUT"] = "0"
    with pytest.raises(OpsError, match=r"web was not healthy within 0 s \(it is restarting\)"):
        deploy.deploy(env)


def test_refusal_touches_nothing(env, make_stack, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1"))
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared))
    quiet.setattr(deploy.Deployment, "_prepare", lambda self: None)
    quiet.setattr(preflight, "run", lambda *_args: [findings.Check("disk", findings.FAILED, "full", "Make room.")])
    with pytest.raises(OpsError, match="Nothing was started") as caught:
        deploy.deploy(env)
    assert caught.value.code == REFUSED


@pytest.mark.parametrize(
    ("touched", "state"), [(False, "nothing was changed"), (True, "1 containers are healthy, 1 are not")]
)
def test_interruption_is_one_sentence(env, make_stack, make_container, quiet, touched: bool, state: str) -> None:
    def interrupted(self: deploy.Deployment) -> None:
        self.doing, self.touched = "building images", touched
        raise KeyboardInterrupt

    containers = [make_container("web"), make_container("api", state="created"), make_container("migrate")]
    quiet.setattr(deploy.Deployment, "run", interrupted)
    quiet.setattr(deploy.model, "load", lambda env: make_stack(Service("migrate", "x", one_shot=True)))
    quiet.setattr(engine, "containers", lambda env: containers)
    with pytest.raises(OpsError) as caught:
        deploy.deploy(env)
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == f"Interrupted while building images: {state}."
    assert caught.value.remedy == "`invoke deploy --env dev` continues from here."


def test_a_failure_gives_tags_back_and_is_noted_although_that_fails(env, make_stack, make_container, quiet) -> None:
    web, noted = make_container("web", image_id="sha256:old"), []
    own = [images.OwnImage("web", "acme/web:1", "acme/web:0123456789ab")]
    quiet.setattr(engine, "containers", lambda env: [web])
    quiet.setattr(images, "tag", lambda pairs: noted.append(list(pairs)))
    quiet.setattr(releases, "revision", lambda _folder: "")
    work = deploy.Deployment(env, SimpleNamespace(check=None))
    document = {"name": "acme-dev", "services": {}}
    with pytest.raises(OpsError, match=r"^The new one crashed\.$"), work.released(document, own, {}, "deploy"):
        raise OpsError("The new one crashed.")
    assert noted == [[("sha256:old", "acme/web:1")]]
    (release,) = releases.history(env)
    assert (release.result, release.reason) == (releases.BROKEN, "The new one crashed.")

    def away(env: object) -> None:
        raise OSError("the engine is away")

    quiet.setattr(engine, "containers", away)
    with pytest.raises(OpsError) as caught, work.released(document, own, {}, "deploy"):
        raise OpsError("The new one crashed.")
    assert caught.value.message == (
        "The new one crashed.\nTidying up failed too: giving images their tags back (the engine is away)."
    )
    assert releases.history(env)[-1].result == releases.BROKEN


def test_an_interruption_tells_what_was_not_undone(env, quiet) -> None:
    def interrupted(self: deploy.Deployment) -> None:
        self.doing, self.touched = "draining the old ones", True
        self.not_undone.append("removing the new containers (busy)")
        raise KeyboardInterrupt

    def broken(env: object) -> None:
        raise OpsError("The engine does not answer.")

    quiet.setattr(deploy.Deployment, "run", interrupted)
    quiet.setattr(deploy.model, "load", broken)
    with pytest.raises(OpsError) as caught:
        deploy.deploy(env)
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == (
        "Interrupted while draining the old ones: what runs now is not known (The engine does not answer.)."
        " The way back failed: removing the new containers (busy)."
    )


def test_addresses_to_open(env, make_stack) -> None:
    declared = make_stack(
        Service("nginx", "nginx:1", ports=(Port("127.0.0.1", 8080), Port("127.0.0.1", 8443))),
        Service("mail", "mail:1", ports=(Port("127.0.0.1", 8025),)),
    )
    assert deploy.urls(env, declared) == [("site", "https://localhost:8443"), ("mail", "http://localhost:8025")]
    env.values.update(SSL_PORT="443", DOMAIN="example.com")
    assert deploy.urls(env, make_stack()) == [("site", "https://example.com")]


# ── update ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def updating(env, make_stack, quiet):
    """An update whose pulls fail as told; notes what it did."""
    declared = make_stack(Service("redis", "redis:8"), Service("nginx", "nginx:1"))
    done: list[str] = []

    def run(failing: dict[str, str], present: dict[str, str]) -> list[str]:
        before = deploy.Survey(declared, {}, [], [], present, {})
        quiet.setattr(deploy, "survey", lambda env: before)
        quiet.setattr(images, "pull", lambda references, tick: done.append(f"pull {references}") or failing)
        quiet.setattr(engine, "image_ids", lambda references: {each: "sha256:new" for each in references})
        quiet.setattr(deploy.Deployment, "run", lambda self: done.append(self.command))
        deploy.update(env)
        return done

    run.done = done
    return run


OLD = {"redis:8": "sha256:old", "nginx:1": "sha256:new"}


def test_update_shows_old_and_new(updating, capsys) -> None:
    assert updating({}, OLD) == ["pull ['redis:8', 'nginx:1']", "update"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["redis:8", "old", "new"] in rows
    assert not any(row[:1] == ["nginx:1"] for row in rows)


def test_update_goes_on_with_what_is_there_and_says_so_at_the_end(updating) -> None:
    with pytest.raises(OpsError, match="could not be pulled; what is deployed uses the ones on this machine") as caught:
        updating({"redis:8": "no such host"}, OLD)
    assert caught.value.code == 1
    assert updating.done[-1] == "update"


def test_update_stops_when_an_image_is_nowhere(updating) -> None:
    with pytest.raises(OpsError, match="not on this machine and could not be pulled"):
        updating({"redis:8": "no such host"}, {"nginx:1": "sha256:new"})
    assert "update" not in updating.done
