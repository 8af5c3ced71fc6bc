"""The lock: its command line, what it says, when it is stale. That it holds is shown on a real engine."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest

from ops import engine
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.stack import images
from ops.state import lock
from ops.state.lock import Holder


def test_command_line() -> None:
    line = lock.run_argv("acme-dev-change-lock", "nginx:1", {"ops.holder": "ann@laptop"})
    assert line[:5] == ["docker", "run", "--interactive", "--rm", "--name"]
    assert line[-3:] == ["--label", "ops.holder=ann@laptop", "nginx:1"]
    assert {"--network", "--read-only", "--cap-drop", "--pull"} <= set(line)


def test_who_holds_it(make_container) -> None:
    labels = {"ops.holder": "ann@laptop", "ops.purpose": "deploy --env prod", "ops.since": "1000"}
    held = lock.holder_of(make_container("", labels=labels))
    assert held.describe(1125).startswith("invoke deploy --env prod by ann@laptop since ")
    assert held.describe(1125).endswith("(2 min 5 s)")
    assert lock.holder_of(make_container("", created=7.0)).since == 7.0


@pytest.mark.parametrize(
    ("state", "created", "stale"),
    [
        ("running", 0, False),
        ("created", 990, False),
        ("created", 989, True),
        ("exited", 999, True),
        ("dead", 999, True),
    ],
)
def test_when_nobody_holds_it_any_more(make_container, state: str, created: float, stale: bool) -> None:
    assert lock.stale(make_container("", state=state, created=created), 1000) is stale


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """A lock that somebody holds; gives the docker lines that were run."""
    lines: list[tuple[str, ...]] = []
    found = Holder("ann@laptop", "deploy --env dev", 0, "abc")
    monkeypatch.setattr(lock, "holder", lambda _env: found)
    monkeypatch.setattr(engine, "docker", lambda *args: lines.append(args))
    return lines


@pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "²"])
def test_how_long_to_wait(text: str) -> None:
    assert lock.seconds("600") == 600
    with pytest.raises(OpsError, match="--lock-wait must be a whole number of seconds") as caught:
        lock.seconds(text)
    assert caught.value.code == USAGE


class Taken:
    """A lock that is busy for some attempts."""

    def __init__(self, times: int) -> None:
        self.times = times

    @contextlib.contextmanager
    def __call__(self, _env: object, _purpose: str):
        self.times -= 1
        if self.times >= 0:
            raise lock.Busy("dev is being changed.", code=REFUSED)
        yield "the lock"


def test_waiting_for_it(env, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lock, "_take", Taken(2))
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.01)
    with lock.hold(env, "deploy", wait=30) as held:
        assert held == "the lock"
    assert capsys.readouterr().out == "dev is being changed. Waiting for up to 30 s.\n"


def test_not_waiting_for_ever(env, monkeypatch) -> None:
    monkeypatch.setattr(lock, "_RETRY_SECONDS", 0.01)
    for wait in (0, 0.05):
        monkeypatch.setattr(lock, "_take", Taken(1000))
        with pytest.raises(lock.Busy) as caught, lock.hold(env, "deploy", wait=wait):
            pass
        assert caught.value.code == REFUSED


def test_what_fails_while_it_is_held_is_not_tried_again(env, monkeypatch) -> None:
    taken = Taken(0)
    monkeypatch.setattr(lock, "_take", taken)
    with pytest.raises(lock.Busy), lock.hold(env, "deploy", wait=30):
        raise lock.Busy("another lock")
    assert taken.times == -1


def test_breaking_it(env, held, capsys) -> None:
    lock.unlock(env, assume_yes=True)
    assert held == [("rm", "--force", "abc")]
    assert "dev is locked: invoke deploy --env dev by ann@laptop" in capsys.readouterr().out


def test_breaking_it_asks_first(env, held, monkeypatch) -> None:
    monkeypatch.setattr(lock.console, "confirm", lambda *_args: False)
    with pytest.raises(OpsError, match="Nothing was changed"):
        lock.unlock(env)
    assert held == []


def test_nothing_to_break(env, monkeypatch, capsys) -> None:
    monkeypatch.setattr(lock, "holder", lambda *_args: None)
    lock.unlock(env)
    assert capsys.readouterr().out == "dev is not locked\n"


# ── taking it, on an engine of which only the container is made up: a real child in its place ─────────────────────────


def inspected(status: str, created: str = "", **labels: str) -> dict:
    """A container as docker describes it."""
    named = {f"ops.{key}": value for key, value in labels.items()}
    return {
        "Id": "abc",
        "Name": "/acme-dev-change-lock",
        "Image": "sha256:1",
        "Created": created,
        "State": {"Status": status},
        "Config": {"Labels": named},
    }


class Docker:
    """What becomes of `docker run` (a shell script), and what `docker inspect` finds, look by look; the last stays."""

    def __init__(self) -> None:
        self.script, self.looks, self.asked = "cat", [[]], 0
        self.line: list[str] = []
        self.removed: list[tuple[str, ...]] = []

    @contextlib.contextmanager
    def popen(self, line, **pipes):
        self.line = line
        with subprocess.Popen(["sh", "-c", self.script], **pipes) as child:
            self.child = child
            yield child

    def inspect(self, names):
        assert names == ["acme-dev-change-lock"]
        self.asked += 1
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]


@pytest.fixture
def docker(env, monkeypatch: pytest.MonkeyPatch) -> Docker:
    found = Docker()
    env.values["NGINX_IMAGE"] = "nginx:1"
    monkeypatch.setattr(engine, "popen", found.popen)
    monkeypatch.setattr(engine, "inspect", found.inspect)
    monkeypatch.setattr(engine, "docker", lambda *args, **_: found.removed.append(args))
    monkeypatch.setattr(engine, "image_ids", lambda references: dict.fromkeys(references, "sha256:1"))
    monkeypatch.setattr(lock, "_START_SECONDS", 20)
    monkeypatch.setattr(lock, "_GONE_SECONDS", 2)
    monkeypatch.setattr(lock, "_PAUSE", 0.001)
    return found


def test_held_for_as_long_as_the_block_and_labelled_with_who_and_what(env, docker, monkeypatch) -> None:
    monkeypatch.setattr(lock, "author", lambda: "ann@laptop")
    began = int(time.time())
    with lock.hold(env, "deploy --env dev") as held:
        held.check()
        assert docker.child.poll() is None
    assert docker.child.returncode == 0
    labels = dict(part.split("=", 1) for part in docker.line if part.startswith("ops."))
    assert began <= int(labels.pop("ops.since")) <= time.time() + 1
    assert labels == {
        "ops.lock": "change",
        "ops.project": "acme-dev",
        "ops.holder": "ann@laptop",
        "ops.purpose": "deploy --env dev",
    }
    assert docker.line[docker.line.index("--name") + 1] == "acme-dev-change-lock" == held.name
    assert docker.line[-1] == "nginx:1"


def test_a_lock_that_is_gone_is_noticed_at_the_next_look(env, docker) -> None:
    with lock.hold(env, "deploy") as held:
        docker.child.kill()
        docker.child.wait()
        with pytest.raises(OpsError, match="The lock acme-dev-change-lock is gone"):
            held.check()


IN_USE = 'echo "docker: Error response from daemon: Conflict. The container name is already in use" >&2; exit 125'


@pytest.mark.parametrize(
    ("found", "who"),
    [
        ([inspected("running", holder="bob@ci", purpose="backup")], "dev is being changed: invoke backup by bob@ci"),
        ([], "dev is being changed: somebody who is just done."),
    ],
)
def test_whoever_comes_second_is_told_who_has_it(env, docker, found, who) -> None:
    docker.script, docker.looks = IN_USE, [[], found, []]
    with pytest.raises(OpsError) as refused, lock.hold(env, "deploy"):
        pytest.fail("it is held by somebody else")
    assert refused.value.message.startswith(who) and "invoke unlock --env dev" in refused.value.remedy
    assert refused.value.code == REFUSED


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo cannot fork >&2; exit 1", "The lock acme-dev-change-lock could not be taken: cannot fork"),
        ("exec sleep 60", "The lock acme-dev-change-lock could not be taken: no answer"),
        ("echo Cannot connect to the Docker daemon at unix:///x. Is it running >&2; exit 1", "engine"),
    ],
)
def test_an_engine_that_fails_or_hangs_is_an_answer_and_no_lock(env, docker, monkeypatch, script, message) -> None:
    monkeypatch.setattr(lock, "_START_SECONDS", 0.5)
    docker.script = script
    with pytest.raises(OpsError, match=message) as failed, lock.hold(env, "deploy"):
        pytest.fail("nobody has it")
    assert failed.value.code == REFUSED


def test_its_end_is_waited_for_so_that_the_next_command_finds_it_free(env, docker) -> None:
    docker.looks = [[], [inspected("removing")], [inspected("exited")], []]
    with lock.hold(env, "deploy"):
        pass
    assert docker.asked == 4


def test_a_lock_that_somebody_else_has_by_then_is_not_waited_for(env, docker) -> None:
    docker.looks = [[], [inspected("running")]]
    with lock.hold(env, "deploy"):
        pass
    assert docker.asked == 2


@pytest.mark.parametrize(
    ("found", "removed"),
    [
        ([], []),
        ([inspected("running")], []),
        ([inspected("exited")], [("rm", "--force", "abc")]),
        ([inspected("created", "2026-01-01T00:00:00Z")], [("rm", "--force", "abc")]),
    ],
)
def test_what_a_crash_left_is_removed_first(env, docker, found, removed) -> None:
    docker.looks = [found, []]
    with lock.hold(env, "deploy"):
        assert docker.removed == removed


@pytest.mark.parametrize(("status", "held"), [("running", True), ("created", True), ("exited", False), ("dead", False)])
def test_whether_somebody_holds_it(env, docker, status: str, held: bool) -> None:
    docker.looks = [[inspected(status, holder="bob@ci")]]
    assert (lock.holder(env) is not None) is held


def test_nobody_holds_a_lock_that_is_not_there(env, docker) -> None:
    assert lock.holder(env) is None


# ── which image it is made from ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def pulled(env, docker, monkeypatch) -> list[str]:
    """No image of nginx is there; what is pulled."""
    lines: list[str] = []
    monkeypatch.setattr(engine, "image_ids", lambda references: {})
    monkeypatch.setattr(engine, "containers", lambda env: [])
    monkeypatch.setattr(images, "pull", lambda references, _tick: lines.extend(references))
    return lines


def test_an_image_that_is_not_there_is_pulled(env, docker, pulled) -> None:
    with lock.hold(env, "deploy"):
        assert (pulled, docker.line[-1]) == (["nginx:1"], "nginx:1")


def test_the_image_of_the_running_nginx_will_do(env, docker, pulled, make_container, monkeypatch) -> None:
    running = [make_container("web"), make_container("nginx", image_id="sha256:9")]
    monkeypatch.setattr(engine, "containers", lambda env: running)
    with lock.hold(env, "deploy"):
        assert (pulled, docker.line[-1]) == ([], "sha256:9")


def test_without_an_image_there_is_no_lock(env, docker, pulled, monkeypatch) -> None:
    monkeypatch.setattr(images, "pull", lambda references, _tick: {"nginx:1": "no such host"})
    with pytest.raises(OpsError, match="nginx:1"), lock.hold(env, "deploy"):
        pytest.fail("it has no image")
    assert docker.line == []
