"""The harness itself, without a cluster: what it builds from, and what its small parts answer."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cluster import nxdomain, programs, registry
from tests.cluster.__main__ import main
from tests.cluster.lab import Lab, started


def test_a_module_of_ours_pins_the_staging_modules_of_kubernetes_at_its_release() -> None:
    theirs = "go 1.26.0\n\nreplace (\n\tk8s.io/api => ./staging/src/k8s.io/api\n\tother => ./elsewhere\n)\n"
    assert programs.staging(theirs, "v1.37.2") == {"k8s.io/api": "v0.37.2"}
    text = programs.go_mod("1.26.0", "v1.37.2", {"k8s.io/api": "v0.37.2"})
    assert "require k8s.io/kubernetes v1.37.2\n" in text and "\tk8s.io/api => k8s.io/api v0.37.2\n" in text


def test_a_program_is_built_again_when_its_source_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pause.c").write_text("int main(void) {}\n")
    monkeypatch.setattr(programs, "SOURCES", tmp_path)
    programs.stamp(tmp_path, "pause.c").write_text(programs.source("pause.c"))
    assert programs.is_built(tmp_path, "pause.c")
    (tmp_path / "pause.c").write_text("int main(void) { return 0; }\n")
    assert not programs.is_built(tmp_path, "pause.c")


def test_without_root_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["up"]) == 1
    assert "takes root" in capsys.readouterr().err


def test_a_name_that_does_not_exist_is_answered_with_the_id_and_the_question_of_the_query() -> None:
    question = b"\x03abc\x00\x00\x01\x00\x01"
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + question
    answer = nxdomain.refusal(query + b"additional")
    assert answer is not None and answer[:2] == b"\x12\x34" and answer[3] & 0x0F == 3 and answer.endswith(question)
    assert nxdomain.refusal(b"short") is None


def test_a_process_is_only_ended_while_it_is_the_one_that_was_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(programs.FOLDER, str(tmp_path))
    lab = Lab(99)
    lab.begin("mine", ["sleep", "60"])
    with subprocess.Popen(["sleep", "60"]) as other:
        (lab.folder / "pids" / "other").write_text(f"{other.pid} 1")  # its number, but another start
        lab.end("other")
        assert other.poll() is None
        other.send_signal(signal.SIGKILL)
    pid = lab.pid("mine")
    assert pid and lab.noted() == ["mine"]
    lab.end("mine")
    assert lab.pid("mine") is None and started(pid) == "" and lab.noted() == []


def test_an_image_is_pushed_where_a_mirror_is_asked_for_it() -> None:
    names = ["redis:8", "acme/web:3f2a", "docker.io/library/redis:8", "quay.io/coreos/etcd:v3", "localhost:5000/a/b:1"]
    assert [registry.place(name) for name in names] == [
        *("library/redis:8", "acme/web:3f2a", "library/redis:8", "coreos/etcd:v3", "a/b:1")
    ]
