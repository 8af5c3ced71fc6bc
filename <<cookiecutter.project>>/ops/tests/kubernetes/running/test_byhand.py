"""What a command starts in a cluster and waits for."""

from __future__ import annotations

import json

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
