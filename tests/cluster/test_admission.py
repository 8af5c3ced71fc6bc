"""What the API server says to the manifests of prod, without a node: every field is known, every pod is admitted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests import template
from tests.cluster import programs
from tests.cluster.cluster import MANIFESTS, Cluster
from tests.cluster.lab import Lab, run
from tests.cluster.programs import Unavailable
from tests.cluster.site import Object, Site
from tests.stack.project import Project

# Beside others that run.
NUMBER = 76
DRY_RUN = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")

Export = Callable[[Path], Site]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane and no nodes, or the reason why there is none."""
    if programs.missing() is None and not programs.built():
        pytest.skip("Kubernetes is not built, which takes a quarter of an hour: python -m tests.cluster build")
    try:
        cluster = Cluster(Lab(NUMBER))
        cluster.start(0)
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module", params=["example", "hello", "own services"])
def site(request: pytest.FixtureRequest, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Prod as it was baked, and with services of one's own in three languages. Its namespace is there."""
    services = "example" if request.param == "example" else "hello"
    folder = template.bake(tmp_path_factory.mktemp("bake"), services=services)
    project = Project(folder)
    project.set("prod", COMPOSE_PROJECT_NAME=f"admitted-{request.param.replace(' ', '-')}")
    if request.param == "own services":
        for name, language in (("shop", "node"), ("prices", "go"), ("pages", "python")):
            project.invoke("service-add", name, "--from", language, "--route", f"/{name}")
        after = "docker-compose.backup.yml"
        files = project.settings("prod")["COMPOSE_FILE"]
        project.set("prod", COMPOSE_FILE=files.replace(after, f"{after}:infrastructure/kubernetes/backup.yml"))
        files = project.settings("dev")["COMPOSE_FILE"]
        project.set("dev", COMPOSE_FILE=f"{files}:docker-compose.scheduler.yml")
        project.invoke("service-add", "report", "--from", "python", "--schedule", "0 3 * * *")
    project.invoke("secret-init", "--env", "prod")
    make = (
        "from ops.base import environments; from ops.secrets import certificates;"
        "certificates.self_sign(environments.load('prod'))"
    )
    subprocess.run([sys.executable, "-c", make], cwd=folder, check=True)
    site = Site(project, cluster)
    site.export()
    cluster.apply(yaml.safe_dump(only(site, "Namespace")[0]))
    return site


@pytest.fixture(scope="module")
def behind_a_gateway(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Prod of the empty stack, where the cluster has the Gateway API."""
    gateway_api = (MANIFESTS / "gateway-api.yaml").read_text(encoding="utf-8")
    cluster.kubectl("apply", "--server-side", "-f", "-", input=gateway_api)
    for name in ("gateways", "httproutes", "tlsroutes"):
        what = f"crd/{name}.gateway.networking.k8s.io"
        cluster.kubectl("wait", "--for=condition=Established", what, "--timeout=30s")
    project = Project(template.bake(tmp_path_factory.mktemp("bake"), services="hello"))
    project.set("prod", COMPOSE_PROJECT_NAME="behind-a-gateway")
    with project.env_file("prod").open("a", encoding="utf-8") as settings:
        settings.write("KUBERNETES_EDGE=gateway\nKUBERNETES_GATEWAY_CLASS=example\n")
    site = Site(project, cluster)
    site.export()
    cluster.apply(yaml.safe_dump(only(site, "Namespace")[0]))
    return site


def only(site: Site, kind: str) -> list[Object]:
    """The manifests of a kind."""
    return [each for each in site.manifests() if each["kind"] == kind]


def test_everything_is_accepted_in_a_namespace_that_restricts_pods(site: Site) -> None:
    (namespace,) = only(site, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump_all(site.manifests()))
    # A warning is about pods that the namespace would not admit.
    assert checked.returncode == 0 and not checked.stderr, checked.stderr


def test_secrets_are_accepted(site: Site) -> None:
    checked = site.cluster.tried(*DRY_RUN, input=site.secrets())
    assert checked.returncode == 0 and not checked.stderr, checked.stderr


def test_nothing_secret_is_in_the_manifests(site: Site) -> None:
    text = "\n".join(path.read_text() for path in site.folder.rglob("*.yaml"))
    secrets = site.project.folder / "config" / "prod" / "secrets"
    values = {path.name: path.read_text().strip() for path in secrets.iterdir() if path.is_file()}
    values |= {path.name: path.read_text() for path in (secrets / "tls").glob("*.pem")}
    assert [name for name, value in values.items() if len(value) > 8], "nothing to look for"
    assert not [name for name, value in values.items() if len(value) > 8 and value in text]
    assert not only(site, "Secret")


def test_the_same_configuration_gives_the_same_files(site: Site) -> None:
    before = {path: path.read_bytes() for path in site.folder.rglob("*.yaml")}
    site.export()
    assert before == {path: path.read_bytes() for path in site.folder.rglob("*.yaml")}


def test_a_gateway_and_its_routes_are_accepted(behind_a_gateway: Site) -> None:
    """By the schemas and rules that the project Gateway API publishes. No implementation of it runs here."""
    site = behind_a_gateway
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump_all(site.manifests()))
    assert checked.returncode == 0 and not checked.stderr, checked.stderr
    (gateway,) = only(site, "Gateway")
    ports = {each["port"]: each["protocol"] for each in gateway["spec"]["listeners"]}
    assert ports == {80: "HTTP", 443: "TLS"}
    assert len(only(site, "HTTPRoute")) == len(only(site, "TLSRoute")) == 1


def test_a_route_that_cannot_be_meant_is_noticed(behind_a_gateway: Site) -> None:
    """The control: a misspelt field, and a listener that breaks a rule."""
    site = behind_a_gateway
    (route,), (gateway,) = only(site, "TLSRoute"), only(site, "Gateway")
    route["spec"]["hostname"] = "example.com"
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump(route))
    assert checked.returncode != 0 and 'unknown field "spec.hostname"' in checked.stderr
    gateway["spec"]["listeners"][0]["tls"] = {"mode": "Passthrough"}
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump(gateway))
    assert checked.returncode != 0 and "tls must not be specified for protocols" in checked.stderr


def test_a_field_that_does_not_exist_is_noticed(site: Site) -> None:
    """The control of the first test."""
    deployment = only(site, "Deployment")[0]
    deployment["spec"]["replica"] = 2
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump(deployment))
    assert checked.returncode != 0 and 'unknown field "spec.replica"' in checked.stderr


def test_a_pod_that_may_become_root_is_noticed(site: Site) -> None:
    deployment = only(site, "Deployment")[0]
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        container["securityContext"]["allowPrivilegeEscalation"] = True
    checked = site.cluster.tried(*DRY_RUN, input=yaml.safe_dump(deployment))
    assert "Warning: would violate PodSecurity" in checked.stderr


def test_the_files_say_what_a_deploy_applies(site: Site) -> None:
    """To the last label: what one has made the other can adopt, also where Kubernetes takes no change."""
    program = (
        "import json; from ops.base import environments; from ops.kubernetes import export;"
        "print(json.dumps(export.render(environments.load('prod')).objects))"
    )
    said = run(sys.executable, "-c", program, folder=site.project.folder)

    def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
        return {(each["kind"], each["metadata"]["name"]): each for each in objects}

    assert by_name(json.loads(said)) == by_name(site.manifests())
