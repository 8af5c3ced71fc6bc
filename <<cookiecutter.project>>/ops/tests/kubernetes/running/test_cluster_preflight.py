"""What a deploy to a cluster checks before it touches anything."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.base.findings import FAILED, OK, WARNING, Check
from ops.engine.kubectl import Place
from ops.kubernetes import availability, preflight
from ops.kubernetes.plan import Plan, Seen
from ops.stack.images import OwnImage
from ops.stack.model import Stack

AT = Place("test", "acme-dev")


@pytest.mark.parametrize(
    ("client", "server", "status"), [("37", "37", OK), ("36", "37+", OK), ("38", "37", OK), ("35", "37", WARNING)]
)
def test_kubectl_is_next_to_the_cluster(client: str, server: str, status: str) -> None:
    said = {
        "clientVersion": {"minor": client, "gitVersion": f"v1.{client}.0"},
        "serverVersion": {"minor": server, "gitVersion": f"v1.{server}.0"},
    }
    found = preflight.check_versions(said)
    assert found.status == status and f"kubectl v1.{client}.0" in found.detail


def review(verb: str, resource: str, allowed: bool, subresource: str = "") -> dict[str, Any]:
    attributes = {"verb": verb, "resource": resource, "subresource": subresource}
    return {"spec": {"resourceAttributes": attributes}, "status": {"allowed": allowed}}


@pytest.mark.parametrize("as_list", [True, False])
def test_what_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch, as_list: bool) -> None:
    """kubectl prints what it creates as a list, or one after the other."""
    found = [review("list", "pods", True), review("create", "pods", False, "exec"), review("get", "secrets", False)]
    text = json.dumps({"items": found}) if as_list else "\n".join(json.dumps(each, indent=1) for each in found)
    sent: list[Any] = []

    def run(_at: Place, *words: str, namespaced: bool, input: str) -> Any:
        assert words == ("create", "--output=json", "--filename=-") and not namespaced
        sent.extend(each["spec"]["resourceAttributes"] for each in json.loads(input)["items"])
        return SimpleNamespace(stdout=text)

    monkeypatch.setattr(preflight.kubectl, "run", run)
    missing = preflight.forbidden(AT)
    asked = [(each["verb"], each["group"], each["resource"], each.get("subresource", "")) for each in sent]
    assert {each["namespace"] for each in sent} == {"acme-dev"}
    assert {("delete", "", "pods", ""), ("create", "", "pods", "exec"), ("delete", "batch", "jobs", "")} <= {*asked}
    assert missing == ["create pods/exec", "get secrets"]
    check = preflight.check_rights(AT, missing)
    assert check.status == FAILED and check.detail == "the user of test may not create pods/exec, get secrets"
    assert preflight.check_rights(AT, []).status == OK


def storage_class(name: str, default: bool = False) -> dict[str, Any]:
    annotation = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
    return {"kind": "StorageClass", "metadata": {"name": name, "annotations": annotation}}


def volume(of: str) -> dict[str, Any]:
    return {"kind": "PersistentVolume", "metadata": {"name": "v"}, "spec": {"storageClassName": of}}


@pytest.mark.parametrize(
    ("wanted", "objects", "status"),
    [
        ("fast", [storage_class("fast")], OK),
        ("fast", [storage_class("slow", default=True)], FAILED),
        ("fast", [volume("fast")], OK),
        ("", [storage_class("slow", default=True)], OK),
        ("", [storage_class("slow")], FAILED),
        ("", [volume("")], OK),
        ("", [], FAILED),
    ],
)
def test_something_must_provide_volumes(wanted: str, objects: list[dict[str, Any]], status: str) -> None:
    (found,) = preflight.check_storage({"postgres": wanted}, objects)
    assert (found.name, found.status) == ("storage", status) and "postgres" in found.detail


def test_who_may_not_look_at_the_cluster_hears_nothing_of_it() -> None:
    assert list(preflight.check_storage({"postgres": ""}, None)) == []
    assert list(preflight.check_nodes({"etcd": ["etcd", "etcd-2"]}, None)) == []


def node(name: str, ready: bool = True, **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready)}
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    "third",
    [
        node("c", ready=False),
        node("c", unschedulable=True),
        node("c", taints=[{"key": "control-plane", "effect": "NoSchedule"}]),
    ],
)
def test_every_member_of_a_cluster_needs_a_node(third: dict[str, Any]) -> None:
    members = {"postgres": ["postgres-primary", "postgres-replica"], "etcd": ["etcd", "etcd-2", "etcd-3"]}
    (found,) = preflight.check_nodes(members, [node("a"), node("b"), third])
    assert found.status == FAILED
    assert found.detail == "2 take pods, and etcd, etcd-2, etcd-3 must be on 3 different ones"
    (found,) = preflight.check_nodes(members, [node("a"), node("b"), third], there=["etcd", "etcd-2", "etcd-3"])
    assert found.status == WARNING
    (found,) = preflight.check_nodes(members, [node("a"), node("b"), node("c")])
    assert found.status == OK


def test_a_registry_is_asked_only_when_there_is_something_to_push(env) -> None:
    def decided(*contents: str) -> Any:
        return SimpleNamespace(seen=SimpleNamespace(unpushed=[SimpleNamespace(content=each) for each in contents]))

    asked = ("registry.example.com/acme/web:1", "registry.example.com/acme/api:1", "localhost:5000/acme/api:1")
    found = list(preflight.check_registries(env, decided(*asked), lambda place: place.startswith("localhost")))
    assert [(each.status, each.detail.partition(" ")[0]) for each in found] == [
        (OK, "localhost:5000"),
        (WARNING, "registry.example.com"),
    ]
    assert list(preflight.check_registries(env, decided())) == []


@pytest.mark.parametrize("nodes", ["may be seen", "may not be seen"])
def test_everything_is_checked_before_a_deploy(env, stack: Stack, monkeypatch: pytest.MonkeyPatch, nodes: str) -> None:
    """On one host and in a cluster alike, and what only a cluster has."""
    versions = {each: {"minor": "37", "gitVersion": "v1.37.0"} for each in ("clientVersion", "serverVersion")}

    def run(_at: Place, *words: str, namespaced: bool, input: str = "") -> Any:
        assert not namespaced
        if words[0] == "version":
            found: Any = versions
        elif words[0] == "create":
            found = {"items": [review("get", "secrets", True)]}
        elif words[1] == "nodes":
            if nodes == "may not be seen":
                raise OpsError("ann may not list nodes.", code=REFUSED)
            found = {"items": [node("a"), node("b")]}
        else:
            found = {"items": [storage_class("fast", default=True)]}
        return SimpleNamespace(stdout=json.dumps(found), json=lambda: found)

    def settled(name: str) -> Any:
        return lambda *_args: Check(name, OK, "")

    monkeypatch.setattr(preflight.kubectl, "run", run)
    monkeypatch.setattr("ops.secrets.check.check", lambda _env: ["what it found"])
    monkeypatch.setattr(preflight.usual, "check_settings", lambda _env: [Check("settings", OK, "")])
    monkeypatch.setattr(preflight.hooks, "check", lambda _env: [Check("hooks", OK, "")])
    monkeypatch.setattr(preflight.connections, "check", settled("connections"))
    monkeypatch.setattr(preflight.availability, "alone", lambda *_args: [])
    monkeypatch.setattr(preflight.usual, "check_secrets", lambda _env, found: [Check("secrets", OK, found[0])])
    monkeypatch.setattr(preflight.usual, "check_certificate", settled("certificate"))
    claim = {"kind": "StatefulSet", "metadata": {"name": "postgres-primary", "labels": {}}}
    template = {"metadata": {"labels": {availability.MEMBER: "postgres"}}, "spec": {"containers": []}}
    claim["metadata"]["labels"] = {"app.kubernetes.io/name": "postgres-primary"}
    claim["spec"] = {"template": template, "volumeClaimTemplates": [{"spec": {"storageClassName": "fast"}}]}
    image = OwnImage("web", "localhost:1/web:1", "localhost:1/web:0f")
    seen = Seen(AT, stack, (claim,), (), {}, {}, unpushed=(image,))
    found = preflight.run(env, Plan(seen, ()))
    last = ["nodes"] if nodes == "may be seen" else []
    assert [each.name for each in found] == [
        *("kubectl", "rights", "settings", "hooks", "connections", "registry", "storage"),
        *(*last, "secrets", "certificate"),
    ]
    # Nothing listens at port 1, and a deploy may find it otherwise.
    assert {each.name for each in found if each.status != OK} == {"registry"}
    assert next(each for each in found if each.name == "secrets").detail == "what it found"


def test_a_cluster_that_does_not_answer_is_no_missing_right(env, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise OpsError("not JSON", code=1)

    monkeypatch.setattr(preflight.kubectl, "run", away)
    with pytest.raises(OpsError, match="not JSON"):
        preflight._cluster_wide(AT, "nodes")
