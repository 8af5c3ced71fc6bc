"""Differences between two declarations of a service, in words."""

from __future__ import annotations

import pytest

from ops.stack import differences

OLD = {
    "image": "acme/web:prod",
    "environment": {"LOG_LEVEL": "info", "GONE": "1"},
    "labels": {"ops.smoke": "/login"},
    "networks": {"backend": None},
    "command": None,
    "stop_grace_period": "45s",
    "volumes": [{"type": "volume", "source": "web_uploads", "target": "/app/uploads"}],
    "deploy": {"replicas": 2, "resources": {"limits": {"memory": "268435456", "cpus": 1, "pids": 128}}},
    "healthcheck": {"interval": "15s"},
    "build": {"args": {"SERVICE": "web"}},
}


def test_no_difference() -> None:
    assert differences.explain(OLD, dict(OLD)) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "acme/web:2"}, ["image acme/web:prod → acme/web:2"]),
        (
            {"environment": {"LOG_LEVEL": "debug", "NEW": "x"}},
            ["GONE removed", "LOG_LEVEL: info → debug", "NEW added: x"],
        ),
        ({"environment": {"LOG_LEVEL": "info", "GONE": "1", "LONG": "x" * 80}}, [f"LONG added: {'x' * 59}…"]),
        ({"labels": {"ops.smoke": "/"}}, ["label ops.smoke: /login → /"]),
        ({"networks": {"backend": None, "frontend": None}}, ["network frontend added"]),
        ({"command": ["serve"]}, ['command: serve added']),
        ({"stop_grace_period": "10s"}, ["stop grace period 45s → 10s"]),
        ({"volumes": []}, ["volumes: web_uploads at /app/uploads removed"]),
        ({"healthcheck": {"interval": "5s"}}, ["health check interval: 15s → 5s"]),
        ({"read_only": True}, ["read_only none → true"]),
        ({"build": {"args": {"SERVICE": "other"}}}, []),
    ],
)  # fmt: skip
def test_what_differs(change: dict, words: list[str]) -> None:
    assert differences.explain(OLD, {**OLD, **change}) == words


def test_limits() -> None:
    new = {"replicas": 5, "resources": {"limits": {"memory": "536870912", "cpus": 0.5}}}
    assert differences.explain(OLD, {**OLD, "deploy": new}) == [
        "cpus limit 1 → 0.5",
        "memory limit 256.0 MiB → 512.0 MiB",
        "pids limit 128 → none",
    ]


def test_another_order() -> None:
    assert differences.explain({"command": ["a", "b"]}, {"command": ["b", "a"]}) == ["command: another order"]


def test_long_values_are_told_from_where_they_differ() -> None:
    old, new = {"environment": {"HOSTS": f"{'x' * 70}old"}}, {"environment": {"HOSTS": f"{'x' * 70}new"}}
    assert differences.explain(old, new) == [f"HOSTS: …{'x' * 15}old → …{'x' * 15}new"]


def test_a_build() -> None:
    old = {"context": "/p/services", "target": "dev", "args": {"SERVICE": "web", "PYTHON_IMAGE": "python:3.13"}}
    new = {"context": "/p/services", "target": "production", "args": {"SERVICE": "web", "PYTHON_IMAGE": "python:3.14"}}
    assert differences.explain_build(old, dict(old)) == []
    assert differences.explain_build(old, new) == [
        "build argument PYTHON_IMAGE: python:3.13 → python:3.14",
        "build target dev → production",
    ]
