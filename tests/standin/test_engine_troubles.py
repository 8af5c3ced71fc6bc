"""What the commands say and do when docker fails, hangs, is cut off, or is another version."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tests.standin.conftest import Standin

FAILED, REFUSED, INTERRUPTED = 1, 3, 130
READS = ("status", "health", "doctor", "deploy", "logs", "stop")
# Instead of a minute.
SOON = {"ENGINE_ANSWER_SECONDS": "2"}


def container(name: str, state: str = "running") -> dict[str, object]:
    """A container of dev as `docker inspect` shows it."""
    labels = {
        "com.docker.compose.project": "acme-stack-dev",
        "com.docker.compose.service": name,
        "com.docker.compose.container-number": "1",
        "com.docker.compose.oneoff": "False",
    }
    return {
        "Id": f"id-of-{name}",
        "Name": f"/acme-stack-dev-{name}-1",
        "Image": "sha256:1",
        "Created": "2026-11-23T13:48:59Z",
        "Config": {"Image": name, "Labels": labels},
        "State": {"Status": state, "StartedAt": "2026-11-23T13:49:00Z"},
    }


def runs(standin: Standin, *names: str) -> None:
    """Let containers of these services run."""
    found = [container(name) for name in names]
    standin.rule(r"^ps --all --quiet", stdout="\n".join(str(each["Id"]) for each in found))
    standin.rule(rf"^inspect --type container {found[0]['Id']}", stdout=json.dumps(found))


def locks(standin: Standin) -> None:
    """Let the lock be taken."""
    standin.rule(r"^inspect --type image", stdout=json.dumps([{"Id": "sha256:n", "RepoTags": ["nginx:1.30.6"]}]))
    standin.rule(r"^run --interactive", stdout="\n", holds=True)


@pytest.mark.parametrize("command", READS)
def test_an_engine_that_is_down(standin: Standin, command: str) -> None:
    standin.rule(".", stderr="Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n", code=1)
    code, _, errors = standin.invoke(command)
    assert code == REFUSED
    assert "The Docker engine does not answer." in errors and "systemctl start docker" in errors


@pytest.mark.parametrize("command", READS)
def test_an_engine_that_hangs(standin: Standin, command: str) -> None:
    """`kill -STOP` of the daemon, or a disk that does not answer: an end in time, and a sentence."""
    standin.rule(r"^compose version", stdout="2.40.3\n")
    standin.rule(r"^compose .*config", real=True)
    standin.rule(".", hangs=True)
    began = time.monotonic()
    code, _, errors = standin.invoke(command, **SOON)
    assert code == FAILED
    assert "gave no answer within 2 s" in errors
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("command", READS)
def test_no_right_to_use_the_engine(standin: Standin, command: str) -> None:
    standin.rule(".", stderr="permission denied while trying to connect to the Docker daemon socket\n", code=1)
    code, _, errors = standin.invoke(command)
    assert code == REFUSED and "usermod -aG docker" in errors


@pytest.mark.parametrize("command", ["status", "doctor", "deploy", "config"])
def test_compose_is_not_installed(standin: Standin, command: str) -> None:
    """Without the plugin docker takes the options for its own."""
    locks(standin)
    standin.rule(r"^compose version", stderr="docker: 'compose' is not a docker command.\n", code=1)
    standin.rule(
        r"^compose", stderr="unknown flag: --project-directory\n\nUsage:  docker [OPTIONS] COMMAND\n", code=125
    )
    code, _, errors = standin.invoke(command)
    assert code == REFUSED
    assert "Docker Compose is not installed." in errors and "https://docs.docker.com/compose/install/" in errors


@pytest.mark.parametrize(
    ("version", "fits"),
    [("2.20.2", False), ("2.31.0", False), ("2.32.0", True), ("v2.40.3-desktop.1", True), ("5.0.1", True)],
)
def test_versions_of_compose(standin: Standin, version: str, fits: bool) -> None:
    standin.rule(r"^compose version", stdout=f"{version}\n")
    _, output, _ = standin.invoke("doctor")
    line = next(line for line in output.splitlines() if line.startswith("compose"))
    assert ("ok" in line.split()) is fits
    assert fits or "2.32 or newer" in line


def test_a_compose_that_is_too_old_to_read_the_files(standin: Standin) -> None:
    """Its version is told before its complaint about what it cannot read."""
    standin.rule(r"^compose version", stdout="2.5.0\n")
    standin.rule(r"^compose .*config", stderr="services.web Additional property gw_priority is not allowed\n", code=15)
    code, output, errors = standin.invoke("doctor")
    assert code == FAILED
    assert "2.5.0 is too old" in output
    assert "Additional property" not in errors


def test_an_engine_that_fails_is_not_taken_for_an_empty_one(standin: Standin) -> None:
    standin.rule(r"^ps --all --quiet", stdout="id-of-web\n")
    standin.rule(r"^inspect --type container", stdout="[]\n", stderr="Error: context deadline exceeded\n", code=1)
    for command in ("stop", "status", "health"):
        code, output, errors = standin.invoke(command)
        assert code == FAILED, command
        assert "context deadline exceeded" in errors, command
        assert "nothing to stop" not in output


def test_an_answer_that_is_cut_off(standin: Standin) -> None:
    standin.rule(r"^ps --all --quiet", stdout="id-of-web\n")
    standin.rule(r"^inspect --type container", stdout='[{"Id": "id-of-w')
    code, _, errors = standin.invoke("status")
    assert code == FAILED
    assert "not what was expected" in errors


def test_an_engine_on_another_machine(standin: Standin) -> None:
    code, _, errors = standin.invoke("status", DOCKER_HOST="ssh://ann@server")
    assert code == REFUSED
    assert "on another machine (ssh://ann@server)" in errors
    assert standin.calls() == []


def test_a_lock_that_never_answers(standin: Standin) -> None:
    """The client runs, its container never echoes: an end in time, and no waiting for its last words."""
    runs(standin, "web")
    standin.rule(r"^inspect --type image", stdout=json.dumps([{"Id": "sha256:n", "RepoTags": ["nginx:1.30.6"]}]))
    standin.rule(r"^run --interactive", hangs=True)
    began = time.monotonic()
    code, _, errors = standin.invoke("stop", **SOON)
    assert code == REFUSED and "could not be taken" in errors
    assert time.monotonic() - began < 60


def test_ctrl_c_ends_a_pull_at_once(standin: Standin) -> None:
    standin.rule(r"^pull", hangs=True)
    with standin.start("update") as process:
        standin.wait_for_call("pull --quiet")
        began = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert time.monotonic() - began < 20
    assert "Interrupted" in errors and "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_waits_ends_at_once(standin: Standin, number: signal.Signals) -> None:
    """The survey, health and the nodes of PostgreSQL are asked by threads: none of them holds the command up."""
    runs(standin, "web", "postgres-primary")
    standin.rule(r"^exec", hangs=True)
    with standin.start("health") as process:
        standin.wait_for_call("exec")
        began = time.monotonic()
        os.kill(process.pid, number)
        process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("command", [("stop",), ("down",)], ids=lambda command: command[0])
def test_stopping_needs_no_compose_files(standin: Standin, command: tuple[str, ...]) -> None:
    """A broken Compose file must not close the site and then stop nothing."""
    runs(standin, "web", "postgres-primary")
    locks(standin)
    standin.rule(r"^ps --all --filter", stdout="acme-stack-dev-web-1\nacme-stack-dev-postgres-primary-1\n")
    standin.rule(r"^(stop|rm|kill)")
    (standin.project / "docker-compose.yml").write_text("services:\n  web: [\n", encoding="utf-8")
    code, _, errors = standin.invoke(*command)
    ended = [call for call in standin.calls() if call.startswith(("stop ", "rm "))]
    assert any("id-of-web" in call and "id-of-postgres-primary" in call for call in ended), standin.calls()
    assert "The Compose files do not resolve" in errors
    # `down` looks again, and this engine still shows everything.
    assert code == (0 if command == ("stop",) else FAILED)


def test_stopping_resolves_the_configuration_once(standin: Standin) -> None:
    runs(standin, *(f"web{number}" for number in range(25)))
    locks(standin)
    standin.rule(r"^(stop|kill)")
    standin.rule(r"^compose .*\bstop\b")
    standin.invoke("stop")
    assert sum(" config " in call for call in standin.calls()) <= 1


@pytest.mark.parametrize("command", [("status",), ("health",), ("releases",), ("config",), ("backup",)])
def test_json_is_json_also_when_the_engine_is_down(standin: Standin, command: tuple[str, ...]) -> None:
    standin.rule(".", stderr="Cannot connect to the Docker daemon at unix:///var/run/docker.sock.\n", code=1)
    code, output, errors = standin.invoke(*command, "--json")
    assert code == REFUSED
    assert json.loads(output)["error"]["message"] == "The Docker engine does not answer."
    assert "The Docker engine does not answer." in errors
