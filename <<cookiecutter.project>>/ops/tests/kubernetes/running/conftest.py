"""A small project in a cluster, and objects as the API server shows them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ops.base.environments import Environment
from ops.stack import model
from ops.stack.model import Stack

DOCUMENT: dict[str, Any] = {
    "name": "acme-dev",
    "services": {
        "web": {
            "image": "acme/web:dev",
            "labels": {"ops.port": "8000"},
            "deploy": {"replicas": 2},
            "networks": {"a": None},
        },
        "postgres-primary": {"image": "postgres:18", "labels": {"ops.stateful": "postgres"}},
        "migrate": {"image": "acme/migrate:dev", "restart": "no", "labels": {"ops.job": "migration"}},
        "report": {"image": "acme/report:dev", "restart": "no", "labels": {"ops.schedule": "0 3 * * *"}},
    },
    "networks": {"a": {"name": "acme-dev_a"}},
}
_counter = itertools.count(1)


@pytest.fixture
def env(env: Environment) -> Environment:
    """The environment, in a cluster."""
    return replace(env, values={**env.values, "ENGINE": "kubernetes", "KUBE_CONTEXT": "test"})


@pytest.fixture
def stack() -> Stack:
    return model.parse(DOCUMENT)


def metadata(name: str, service: str = "", **more: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/part-of": "acme-dev", **({"app.kubernetes.io/name": service} if service else {})}
    found = {
        "name": name,
        "namespace": "acme-dev",
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": str(next(_counter)),
        "creationTimestamp": "2026-11-27T00:00:00Z",
        **more,
    }
    return {**found, "labels": {**labels, **more.get("labels", {})}}


@pytest.fixture
def deployment() -> Callable[..., dict[str, Any]]:
    """A Deployment that is rolled out; its status may be said otherwise."""

    def make(service: str = "web", wanted: int = 2, image: str = "acme/web:1", **status: Any) -> dict[str, Any]:
        ready = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), wanted)
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata(service, service, annotations={"deployment.kubernetes.io/revision": "3"}),
            "spec": {
                "replicas": wanted,
                "template": {
                    "metadata": {"labels": {"app.kubernetes.io/name": service}},
                    "spec": {"containers": [{"name": service, "image": image, "env": [{"name": "A", "value": "1"}]}]},
                },
            },
            "status": {"observedGeneration": 1, **ready, **status},
        }

    return make


@pytest.fixture
def replicaset() -> Callable[..., dict[str, Any]]:
    def make(hash_: str = "new", revision: str = "3", service: str = "web") -> dict[str, Any]:
        return {
            "kind": "ReplicaSet",
            "metadata": metadata(
                f"{service}-{hash_}",
                service,
                labels={"pod-template-hash": hash_},
                annotations={"deployment.kubernetes.io/revision": revision},
                ownerReferences=[{"uid": f"uid-{service}"}],
            ),
        }

    return make


@pytest.fixture
def pod() -> Callable[..., dict[str, Any]]:
    """A pod that is ready; state: of its container, as Kubernetes writes it."""

    def make(
        service: str = "web",
        name: str = "",
        hash_: str = "new",
        ready: bool = True,
        state: dict[str, Any] | None = None,
        last: dict[str, Any] | None = None,
        restarts: int = 0,
        labels: dict[str, str] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        said = {
            "name": service,
            "ready": ready,
            "started": ready,
            "restartCount": restarts,
            "state": state or {"running": {"startedAt": "2026-11-27T00:00:05Z"}},
            "lastState": last or {},
            "imageID": "sha256:1",
        }
        all_labels = {"pod-template-hash": hash_, **(labels or {})}
        return {
            "kind": "Pod",
            "metadata": metadata(name or f"{service}-{hash_}-{next(_counter)}", service, labels=all_labels, **more),
            "spec": {"containers": [{"name": service, "image": f"acme/{service}:1", "readinessProbe": {}}]},
            "status": {
                "phase": "Running",
                "podIP": "10.244.1.7",
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [said],
            },
        }

    return make
