"""What a command starts in a cluster and waits for."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ops.base.errors import OpsError
from ops.engine import kubectl
from ops.engine.kubectl import Place, Pod
from ops.kubernetes import byhand

TAKEN = {"id": "20261127T020000Z", "parts": {}}


def log(event: str) -> str:
    return json.dumps({"timestamp": "2026-11-27T02:00:00Z", "level": "info", "event": event})


def test_the_answer_of_a_job_is_told_from_its_log() -> None:
    """Both are one stream in a pod's log."""
    lines = [log("entry taken"), json.dumps(TAKEN), "pg_basebackup: a warning", "", log("entries removed")]
    head, said = byhand.parted(lines)
    assert json.loads(head) == TAKEN
    assert said == ["entry taken", "pg_basebackup: a warning", "entries removed"]
    assert byhand.parted([log("verified"), "[]"])[0] == b"[]"
    assert byhand.parted([log("begun"), "Killed"]) == (b"", ["begun", "Killed"])


def test_the_error_of_a_job_is_its_answer() -> None:
    error = {"error": {"message": "The key is wrong.", "remedy": "", "code": 3}}
    assert json.loads(byhand.parted([log("begun"), json.dumps(error)])[0]) == error


AT = Place("test", "acme-dev")
CRONJOB: dict[str, Any] = {
    "metadata": {"name": "backup", "namespace": "acme-dev", "uid": "1", "labels": {}},
    "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"name": "backup"}]}}}}},
}


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Jobs that were removed."""
    found: list[str] = []
    monkeypatch.setattr(kubectl, "run", lambda *_, **__: SimpleNamespace(stdout=json.dumps(TAKEN)))
    monkeypatch.setattr(kubectl, "delete", lambda _at, kind, name, **_: found.append(f"{kind} {name[:7]}"))
    monkeypatch.setattr(byhand, "_started", lambda *_: Pod(AT, "backup-1", "backup"))
    return found


def test_a_job_that_has_ended_stays_as_the_record_of_its_run(env, deleted: list[str], monkeypatch) -> None:
    monkeypatch.setattr(byhand, "_watch", lambda *_: 0)
    head, _, code = byhand.job(env, AT, CRONJOB, ["take"], print)
    assert json.loads(head) == TAKEN and code == 0 and deleted == []


@pytest.mark.parametrize(
    ("step", "error", "ended"),
    [
        ("_started", OpsError("its image cannot be pulled"), True),
        ("_watch", KeyboardInterrupt(), True),
        ("_watch", OpsError("the cluster does not answer"), False),
    ],
)
def test_a_job_ends_with_the_person_and_not_with_the_connection(
    env, deleted: list[str], monkeypatch, step: str, error: BaseException, ended: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(byhand, step, fail)
    with pytest.raises(type(error)):
        byhand.job(env, AT, CRONJOB, ["take"], print)
    assert deleted == (["job backup-"] if ended else [])


def test_a_job_by_hand_is_in_the_history_of_its_cronjob() -> None:
    container = {"name": "backup", "image": "acme/backup:1", "command": ["python3"], "args": ["take"]}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container], "restartPolicy": "Never"}}
    cronjob = {
        "metadata": {"name": "backup", "namespace": "acme-dev", "uid": "1", "labels": {"part": "acme-dev"}},
        "spec": {"jobTemplate": {"spec": {"backoffLimit": 0, "template": template}}},
    }
    made = byhand.of_cronjob(cronjob, ["take", "--full", "--json"])
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("CronJob", "backup", "1", True)
    assert made["metadata"]["name"].startswith("backup-") and made["metadata"]["labels"] == {"part": "acme-dev"}
    assert made["spec"]["backoffLimit"] == 0
    (runs,) = made["spec"]["template"]["spec"]["containers"]
    assert runs == {**container, "args": ["take", "--full", "--json"]}
    assert template["spec"]["containers"][0]["args"] == ["take"], "what is scheduled stays as it is"
