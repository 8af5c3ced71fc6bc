"""The lock of an environment in a cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.base.waiting import until
from ops.engine import kubectl
from ops.engine.results import Completed
from ops.state import lease, lock


class Server:
    """The API server, as far as a Lease needs it: it takes a new one only when there is none, and a change only of the
    version that is there."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.version = 0

    def run(self, _at: kubectl.Place, verb: str, *words: str, **options: Any) -> Completed:
        if verb == "delete":
            self.lease = None
            return self._done("")
        if verb == "get":
            return self._done(json.dumps(self.lease) if self.lease else "")
        if verb == "create":
            if self.lease:
                return self._refused("AlreadyExists")
            return self._kept(json.loads(options["input"]))
        wanted = json.loads(options.get("input") or next(each for each in words if "--patch=" in each)[8:])
        if not self.lease:
            return self._refused("NotFound")
        if wanted["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            return self._refused("Conflict")
        if verb == "patch":
            wanted = {**self.lease, "spec": {**self.lease["spec"], **wanted["spec"]}}
        return self._kept(wanted)

    def _kept(self, wanted: dict[str, Any]) -> Completed:
        self.version += 1
        self.lease = {**wanted, "metadata": {**wanted["metadata"], "resourceVersion": str(self.version)}}
        return self._done(json.dumps(self.lease))

    @staticmethod
    def _done(text: str) -> Completed:
        return Completed(("kubectl",), 0, text, "")

    @staticmethod
    def _refused(reason: str) -> Completed:
        return Completed(("kubectl",), 1, "", f"Error from server ({reason}): leases")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(kubectl, "run", made.run)
    monkeypatch.setattr(lease, "_RENEW_SECONDS", 0.02)
    monkeypatch.setattr(lease, "_RETRY_SECONDS", 0.01)
    return made


@pytest.fixture
def env(env: Environment) -> Environment:
    return replace(env, values={**env.values, "ENGINE": "kubernetes", "KUBE_CONTEXT": "test"})


def expired(server: Server, env: Environment) -> None:
    """Let somebody have it who renewed it long ago, by our clock."""
    held = lease.document(env, "deploy")
    held["spec"]["renewTime"] = "2020-01-01T00:00:00.000000Z"
    server.run(kubectl.place(env), "create", input=json.dumps(held))


def test_one_at_a_time_and_it_is_told_who_is_at_work(server: Server, env: Environment) -> None:
    with lock.hold(env, "deploy --env dev") as held:
        held.check()
        busy = pytest.raises(lock.Busy, match="dev is being changed: invoke deploy --env dev by ")
        with busy as caught, lock.hold(env, "scale web 3"):
            pass
        assert caught.value.code == REFUSED
        holder = lock.holder(env)
        assert holder and holder.purpose == "deploy --env dev"
    assert server.lease is None and lock.holder(env) is None


def test_it_is_renewed_while_it_is_held(server: Server, env: Environment) -> None:
    with lock.hold(env, "deploy"):
        before = server.version
        assert until(lambda: server.version > before, 10, 0.01)


def test_who_waits_gets_it(server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    server.run(kubectl.place(env), "create", input=json.dumps(lease.document(env, "deploy")))
    sleeps = []

    def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        server.lease = None

    monkeypatch.setattr(lease.time, "sleep", sleep)
    with lock.hold(env, "deploy", wait=60):
        assert sleeps


def test_that_of_a_killed_command_is_taken_over_when_nobody_renews_it(
    server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    expired(server, env)
    monkeypatch.setattr(lease, "SECONDS", 0.1)
    with lock.hold(env, "rollback"):
        assert lock.holder(env).purpose == "rollback"


def test_one_that_is_renewed_by_a_slow_clock_is_left_alone(
    server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By our clock it has expired long ago, and yet somebody renews it."""
    expired(server, env)
    monkeypatch.setattr(lease, "SECONDS", 0.1)

    def renewed(_seconds: float) -> None:
        server._kept(server.lease)

    monkeypatch.setattr(lease.time, "sleep", renewed)
    with pytest.raises(lock.Busy), lock.hold(env, "rollback"):
        pass


def test_that_of_a_killed_command_may_be_given_back_meanwhile(
    server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody runs `invoke unlock` while we wait whether it goes on."""
    expired(server, env)
    verbs: list[str] = []
    run = server.run

    def noted(at: kubectl.Place, verb: str, *words: str, **options: Any) -> Completed:
        verbs.append(verb)
        return run(at, verb, *words, **options)

    def removed(_seconds: float) -> None:
        server.lease = None

    monkeypatch.setattr(kubectl, "run", noted)
    monkeypatch.setattr(lease.time, "sleep", removed)
    with lock.hold(env, "rollback"):
        assert lock.holder(env).purpose == "rollback"
    assert verbs[:4] == ["create", "get", "get", "create"]


def test_one_that_is_given_back_between_two_looks_is_tried_again(
    server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, answers = server.run, [server._refused("AlreadyExists")]

    def late(at: kubectl.Place, verb: str, *words: str, **options: Any) -> Completed:
        return answers.pop() if verb == "create" and answers else run(at, verb, *words, **options)

    monkeypatch.setattr(kubectl, "run", late)
    with lock.hold(env, "deploy"):
        assert not answers and server.lease


def test_whoever_may_not_write_it_is_told(server: Server, env: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = replace(
        server._refused("Forbidden"), stderr='Error from server (Forbidden): leases is forbidden: User "ann"'
    )
    monkeypatch.setattr(kubectl, "run", lambda *_words, **_options: refused)
    with pytest.raises(OpsError, match='leases is forbidden: User "ann"'), lock.hold(env, "deploy"):
        pass


def test_what_it_says_of_its_holder(env: Environment) -> None:
    made = lease.document(env, "deploy --env dev")
    made["spec"].update(holderIdentity="ann@laptop", acquireTime="2026-11-27T04:00:00.000000Z")
    assert lease.holder_of(made) == lock.Holder("ann@laptop", "deploy --env dev", 1795752000.0, lease.NAME)
    assert lease.holder_of({"metadata": {}}) == lock.Holder("somebody", "something", 0.0, lease.NAME)


@pytest.mark.parametrize(("renewed", "over"), [("04:00:00", True), ("04:00:01", False)])
def test_it_is_over_after_its_time(env: Environment, renewed: str, over: bool) -> None:
    made = lease.document(env, "deploy")
    made["spec"]["renewTime"] = f"2026-11-27T{renewed}.000000Z"
    assert lease.expired(made, 1795752001.0 + lease.SECONDS) is over


def test_one_that_was_taken_away_is_noticed_and_not_given_back(server: Server, env: Environment) -> None:
    with lock.hold(env, "deploy") as held:
        lease.remove(env)
        server._kept(lease.document(env, "somebody else's"))
        assert until(lambda: held.lost, 10, 0.01)
        with pytest.raises(OpsError, match="is gone"):
            held.check()
    assert server.lease
