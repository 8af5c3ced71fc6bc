"""The seam to kubectl: command lines, and what its complaints mean."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import FAILED, REFUSED, OpsError
from ops.engine import kubectl
from ops.engine.kubectl import Place, Pod
from ops.engine.results import Completed

AT = Place("arn:aws:eks:eu-central-1:1:cluster/acme", "acme-prod")


def test_context_and_namespace_stand_on_every_command_line() -> None:
    assert AT.argv("get", "pods") == [
        *("kubectl", "--context", AT.context, "--namespace", "acme-prod", "--request-timeout=30s", "get", "pods")
    ]
    assert "--namespace" not in AT.argv("get", "nodes", namespaced=False)
    assert not any(each.startswith("--request") for each in AT.argv("logs", "x", limited=False))


def test_a_pod_is_found_again_by_its_id_also_where_the_context_has_slashes() -> None:
    pod = Pod(AT, "web-6d4-x2", "web")
    assert kubectl.pod(pod.id) == pod
    assert kubectl.pod("4f66ad9a0b1e") is None


def test_a_command_in_a_pod_is_one_of_kubectl() -> None:
    line = engine.exec_argv(Pod(AT, "web-0", "web").id, "sh", "-c", "true", stdin=True)
    assert line[-7:] == ["web-0", "--container", "web", "--", "sh", "-c", "true"]
    assert line[0] == "kubectl" and "--stdin" in line and "--tty" not in line
    with pytest.raises(ValueError, match="environment of its container"):
        engine.exec_argv(Pod(AT, "web-0", "web").id, "true", variables=["PASSWORD"])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ('error: context "prod" does not exist', 'Your kubeconfig has no context "arn:'),
        (
            'Error from server (NotFound): error when creating "STDIN": namespaces "acme-prod" not found',
            "There is no namespace acme-prod in the cluster of",
        ),
        (
            'Error from server (Forbidden): deployments.apps is forbidden: User "ann" cannot list resource'
            ' "deployments" in API group "apps" in the namespace "acme-prod"',
            "ann may not list deployments.apps in the namespace acme-prod of",
        ),
        (
            'Error from server (Forbidden): secrets "web" is forbidden: User "ann" cannot patch resource "secrets"'
            ' in API group "" in the namespace "acme-prod"',
            "ann may not patch secrets in the namespace",
        ),
        ("error: You must be logged in to the server (Unauthorized)", "does not accept your credentials"),
        (
            "The connection to the server 10.0.0.1:6443 was refused - did you specify the right host or port?",
            "does not answer: The connection to the server 10.0.0.1:6443 was refused",
        ),
        (
            "Unable to connect to the server: dial tcp: lookup k8s.example.com on 10.0.0.2:53: no such host",
            "does not answer",
        ),
        (
            "Unable to connect to the server: tls: failed to verify certificate: x509: certificate signed by unknown"
            " authority",
            "is not trusted",
        ),
        (
            "Unable to connect to the server: getting credentials: exec: executable aws not found",
            "gets the credentials for",
        ),
        (
            'error: resource mapping not found for name: "web" namespace: "" from "STDIN": no matches for kind'
            ' "HTTPRoute" in version "gateway.networking.k8s.io/v1"',
            "does not know the kind HTTPRoute",
        ),
    ],
)
def test_known_complaints_become_sentences_with_a_remedy(said: str, words: str) -> None:
    found = kubectl.explain(AT, said)
    assert found and words in found.message and found.remedy
    assert found.code == REFUSED


def test_an_unknown_complaint_is_passed_on_with_the_command() -> None:
    done = Completed(tuple(AT.argv("get", "pods", "--output=json")), 1, "", "Error from server: it is Monday\n")
    error = kubectl.failure(done)
    assert error.message == "`kubectl get pods --output=json` failed (exit code 1): it is Monday"
    assert error.code == FAILED


def test_what_the_server_does_not_accept_is_told_for_each_object() -> None:
    said = (
        "Warning: would violate PodSecurity\n"
        'The Deployment "web" is invalid: spec.replicas: Invalid value: -1\n'
        'Error from server (Invalid): Service "api" is invalid: spec.ports: Required value\n'
    )
    error = kubectl.refused(Completed((), 1, "", said))
    assert error.message.splitlines()[1:] == [
        '  The Deployment "web" is invalid: spec.replicas: Invalid value: -1',
        '  Service "api" is invalid: spec.ports: Required value',
    ]


def test_without_kubectl_it_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OpsError, match="kubectl is not installed") as caught:
        kubectl.run(AT, "get", "pods")
    assert caught.value.code == REFUSED


def test_objects_reach_the_server_by_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is secret in them is on no command line and in no file."""
    fake = tmp_path / "kubectl"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/argv\nexec /bin/cat\n')
    fake.chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"A": "c2VjcmV0"}}
    assert kubectl.apply(AT, [secret], dry_run=True) == [secret]
    said = (tmp_path / "argv").read_text()
    assert "--server-side" in said and "--dry-run=server" in said and "c2VjcmV0" not in said
