"""How build.py decides which image is built from which folder, and what a failed pull or build means."""

from __future__ import annotations

import shutil

import pytest

from tests.images import build


@pytest.mark.parametrize(
    ("image", "folder"),
    [
        ("postgres:18.6", "postgres"),
        ("axllent/mailpit:v1.27.0", "mailpit"),
        ("mirror.example:5000/library/redis:8.2.9", "redis"),
        ("nginx", "nginx"),
        ("nginx@sha256:0123", "nginx"),
        ("grafana/grafana:13.0.0", None),
        ("base:forky", None),
    ],
)
def test_the_last_part_of_the_repository_names_the_folder(image, folder):
    found = build.build_folder(image)
    assert (found.name if found else None) == folder


@pytest.mark.parametrize(
    ("error", "unreachable"),
    [
        ('Get "https://registry.example/v2/": dial tcp: lookup registry.example: no such host', True),
        ("the registry did not answer within 20 s", True),
        ("manifest for postgres:99 not found: manifest unknown", False),
        ("pull access denied for acme/api, repository does not exist", False),
    ],
)
def test_a_missing_image_is_not_taken_for_a_missing_registry(error, unreachable):
    assert build.says_no_registry(error) is unreachable


def test_the_failed_step_is_cut_out_of_the_output():
    output = "#5 ok\n\n------\n > [2/3] RUN false:\n1.0 E: no package\n------\nDockerfile:2\nERROR: failed"
    assert build.failed_step(output) == "2/3] RUN false:\n1.0 E: no package"
    assert build.failed_step("no such step") == "no such step"


def test_a_changed_source_changes_the_hash(tmp_path, monkeypatch):
    for name in ("base", "redis"):
        shutil.copytree(build.HERE / name, tmp_path / name)
    monkeypatch.setattr(build, "HERE", tmp_path)
    before = build.source_hash(tmp_path / "redis")
    assert build.source_hash(tmp_path / "redis") == before
    (tmp_path / "base/make.sh").write_text("#!/bin/sh\n")
    assert build.source_hash(tmp_path / "redis") != before


@pytest.fixture
def engine(monkeypatch):
    """An engine without images, on a machine where no registry answers; returns what was asked of it."""
    asked: dict[str, list[str]] = {"pull": [], "build": []}
    monkeypatch.setattr(build, "image_label", lambda image, label: None)
    monkeypatch.setattr(build, "ensure_base", lambda say, prepare: None)
    monkeypatch.setattr(build, "build_image", lambda image, say: asked["build"].append(image))
    monkeypatch.setattr(build, "pull_image", lambda image: asked["pull"].append(image) or "no such host")
    return asked


def test_after_the_first_failed_pull_no_other_is_tried(engine):
    result = build.provide(["redis:8", "nginx:1", "grafana/grafana:13"], say=lambda _: None)
    assert engine["pull"] == ["redis:8"]
    assert result.built == ["redis:8", "nginx:1"]
    assert list(result.unavailable) == ["grafana/grafana:13"]


def test_an_official_image_on_disk_is_kept(engine, monkeypatch):
    monkeypatch.setattr(build, "image_label", lambda image, label: "")
    assert build.provide(["redis:8"], say=lambda _: None).present == ["redis:8"]
    assert engine == {"pull": [], "build": []}


def test_a_drop_in_from_an_older_source_is_built_again(engine, monkeypatch):
    monkeypatch.setattr(build, "image_label", lambda image, label: "old")
    assert build.provide(["redis:8"], pull=False, say=lambda _: None).built == ["redis:8"]


def test_a_failed_build_is_reported_by_name(engine, monkeypatch):
    def fail(image, say):
        raise build.BuildError("no package")

    monkeypatch.setattr(build, "build_image", fail)
    assert build.provide(["redis:8"], say=lambda _: None).unavailable == {"redis:8": "no package"}


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("oliver006/redis_exporter:v1.90.0-alpine", "1.90.0"),
        ("mirror.example:5000/library/postgres:18.6", "18.6"),
        ("redis:latest", ""),
        ("redis@sha256:0123", ""),
    ],
)
def test_the_tag_says_the_version(image, version):
    assert build.pinned(image) == version


@pytest.mark.parametrize(
    ("wanted", "inside", "same"),
    [
        ("3.14.7", "3.14.8", True),
        ("18.6", "18.7", True),
        ("4.3.6", "4.3.6-1", True),
        ("8", "8.0.6", True),
        ("", "8.0.6", True),
        ("8.2.9", "8.0.6", False),
        ("18.6", "17.6", False),
        ("0.20.1", "0.19.1", False),
        ("1.27.0", "aiosmtpd 1.4.6", False),
    ],
)
def test_another_minor_is_another_release(wanted, inside, same):
    assert build.same_release(wanted, inside) is same


@pytest.mark.parametrize(
    ("image", "inside", "fails"),
    [
        ("redis:8.2.9", "8.0.6", False),  # has its entry
        ("redis:8.2.9", "8.1.0", True),
        ("prom/prometheus:v3.13.2", "3.5.3", True),
        ("python:3.14.7-slim", "3.14.8", False),
    ],
)
def test_another_release_needs_its_reason(engine, monkeypatch, capsys, image, inside, fails):
    monkeypatch.setattr(build, "image_label", lambda image, label: "" if label == build.SOURCE_LABEL else inside)
    assert build.main([image, "--no-pull"]) == (1 if fails else 0)
    assert f"≠ inside {inside}" in capsys.readouterr().out


def test_every_accepted_release_belongs_to_a_drop_in():
    assert all((build.HERE / name / "Dockerfile").is_file() for name, _ in build.ACCEPTED)
