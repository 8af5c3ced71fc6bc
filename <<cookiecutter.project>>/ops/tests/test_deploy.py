"""Deploy: command lines, what it prints, the lock, and how it ends when it is refused, fails or is interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops import deploy, engine, gate, images, preflight
from ops.engine import Completed
from ops.errors import INTERRUPTED, REFUSED, OpsError
from ops.stack import Port, Service


def test_up_command_line(env) -> None:
    assert deploy.up_argv(env, ["api", "web"], "--force-recreate") == engine.compose_argv(
        env,
        *("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull"),
        *("--force-recreate", "api", "web"),
    )


def test_one_change_at_a_time(env) -> None:
    holder = rf"^dev is being changed by invoke deploy --env dev, process {os.getpid()}"
    with (
        deploy.lock(env, "deploy --env dev"),
        pytest.raises(OpsError, match=holder) as caught,
        deploy.lock(env, "scale"),
    ):
        pass
    assert caught.value.code == REFUSED
    with deploy.lock(env, "scale"):
        pass


def test_the_lock_goes_when_its_holder_fails(env) -> None:
    with pytest.raises(KeyError), deploy.lock(env, "deploy"):
        raise KeyError
    with deploy.lock(env, "deploy"):
        pass


def survey(declared, *containers) -> deploy.Survey:
    hashes = {name: "hash" for name in declared.services}
    present = {each.image: "sha256:1" for each in declared.services.values()}
    return deploy.Survey(declared, hashes, list(containers), [], present, {})


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch):
    """No engine: every call that would reach it fails the test."""

    def unexpected(*args: object, **_options: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(engine, "run", unexpected)
    monkeypatch.setattr(engine, "warn_overridden", lambda env: None)
    return monkeypatch


def test_nothing_to_change(env, make_stack, make_container, quiet, capsys) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    quiet.setattr(deploy, "survey", lambda env: survey(declared, make_container("web")))
    deploy.deploy(env)
    assert capsys.readouterr().out.startswith("nothing to change: 1 services healthy in dev (")


def test_nothing_to_change_but_unwell(env, make_stack, make_container, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    sick = make_container("web", state="restarting", health="", restarts=9)
    quiet.setattr(deploy, "survey", lambda env: survey(declared, sick))
    quiet.setattr(engine, "containers", lambda env: [sick])
    quiet.setattr(engine, "logs", lambda *_args: ["boom"])
    quiet.setattr(gate, "LOOK_SECONDS", 0.01)
    env.values["DEPLOY_TIMEOUT"] = "0"
    with pytest.raises(OpsError, match=r"web was not healthy within 0 s \(it is restarting\)"):
        deploy.deploy(env)


def test_refusal_touches_nothing(env, make_stack, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1"))
    quiet.setattr(deploy, "survey", lambda env: survey(declared))
    quiet.setattr(deploy.Deployment, "_prepare", lambda self: None)
    quiet.setattr(preflight, "run", lambda *_args: [preflight.Check("disk", preflight.FAILED, "full", "Make room.")])
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
    quiet.setattr(deploy.signal, "signal", lambda *_args: None)
    quiet.setattr(deploy.stack, "load", lambda env: make_stack(Service("migrate", "x", one_shot=True)))
    quiet.setattr(engine, "containers", lambda env: containers)
    with pytest.raises(OpsError) as caught:
        deploy.deploy(env)
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == (
        f"Interrupted while building images: {state}. `invoke deploy --env dev` goes on from here."
    )


def test_a_compose_that_gives_up(env, tmp_path: Path) -> None:
    log = tmp_path / "up.log"
    log.write_text(" Container x  Creating\nError response from daemon: driver failed: port is already allocated\n")
    error = deploy.compose_failed(env, log)
    assert error.message == (
        "Compose could not start everything:\n  Error response from daemon: driver failed: port is already allocated"
    )
    assert error.remedy == "All of its output: up.log"


def test_nginx_keeps_its_configuration_when_the_new_one_is_wrong(make_container, monkeypatch) -> None:
    lines: list[list[str]] = []

    def fake(container: str, argv: list[str], **_options: object) -> Completed:
        lines.append(argv)
        return Completed((), 1, "", 'nginx: [emerg] unknown directive "sever"\n')

    monkeypatch.setattr(engine, "exec_", fake)
    with pytest.raises(OpsError, match="keeps the old one:\n.*unknown directive"):
        deploy.reload_nginx([make_container("nginx")])
    assert lines == [["nginx", "-t", "-q", "-c", "/etc/nginx/env/nginx.conf"]]


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
        quiet.setattr(deploy, "deploy", lambda env: done.append("deploy"))
        deploy.update(env)
        return done

    run.done = done
    return run


OLD = {"redis:8": "sha256:old", "nginx:1": "sha256:new"}


def test_update_shows_old_and_new(updating, capsys) -> None:
    assert updating({}, OLD) == ["pull ['redis:8', 'nginx:1']", "deploy"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["redis:8", "old", "new"] in rows
    assert not any(row[:1] == ["nginx:1"] for row in rows)


def test_update_goes_on_with_what_is_there_and_says_so_at_the_end(updating) -> None:
    with pytest.raises(OpsError, match="could not be pulled; what is deployed uses the ones on this machine") as caught:
        updating({"redis:8": "no such host"}, OLD)
    assert caught.value.code == 1
    assert updating.done[-1] == "deploy"


def test_update_stops_when_an_image_is_nowhere(updating) -> None:
    with pytest.raises(OpsError, match="not on this machine and could not be pulled"):
        updating({"redis:8": "no such host"}, {"nginx:1": "sha256:new"})
    assert "deploy" not in updating.done
