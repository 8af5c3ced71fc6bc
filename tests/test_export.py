"""`invoke export kubernetes` on baked projects: Kubernetes accepts what it writes, which is as tight as on one host."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import kubernetes_validate
import pytest
import yaml

from tests import compose, connections
from tests.conftest import Bake
from tests.connections import Connection
from tests.policies import LABEL, Manifest, reachable, template_of
from tests.test_adopting import run

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

# The version whose schemas the manifests are held to.
VERSION = "1.37"
DOCKERFILE = """\
FROM scratch
COPY serve /serve
USER 10001:10001
CMD ["/serve"]
"""


class Exported(NamedTuple):
    """An environment of a project, and what was written for it. said: what was printed on standard error."""

    project: Path
    environment: str
    said: str

    @property
    def folder(self) -> Path:
        return self.project / "kubernetes" / self.environment

    @property
    def manifests(self) -> list[Manifest]:
        files = sorted(path for path in (self.folder / "base").glob("*.yaml") if path.name != "kustomization.yaml")
        return [each for path in files for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def export(project: Path, environment: str) -> Exported:
    return Exported(project, environment, run(project, f"invoke export kubernetes --env {environment}").stderr)


def add_files(project: Path, environment: str, *files: str) -> None:
    """Let an environment have more Compose files."""
    settings = project / "config" / environment / ".env"
    text = settings.read_text(encoding="utf-8")
    before = "docker-compose.services.yml"
    assert text.count(f":{before}") == 1
    settings.write_text(text.replace(f":{before}", f":{':'.join([*files, before])}"), encoding="utf-8")


@pytest.fixture(scope="module")
def own(bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples, clusters of three, services in other languages, a scheduled and a manual job."""
    project = Path(shutil.copytree(bake(), tmp_path_factory.mktemp("own") / "acme-stack", symlinks=True))
    add_files(project, "dev", "docker-compose.scheduler.yml")
    in_cluster = ("etcd-cluster.yml", "backup.yml")
    files = (f"infrastructure/kubernetes/{name}" for name in in_cluster)
    add_files(project, "prod", "docker-compose.rabbitmq-cluster.yml", *files)
    run(project, "invoke service-add shop --from node --route /shop --database --queue --volume /data")
    run(project, "invoke service-add price --from go --internal --cache")
    (project / "services" / "legacy").mkdir()
    (project / "services" / "legacy" / "Dockerfile").write_text(DOCKERFILE, encoding="utf-8")
    run(
        project,
        "invoke service-add legacy --from dockerfile --route /legacy --port 9000 --ready tcp --volume /var/legacy",
    )
    run(project, 'invoke service-add report --from python --schema --schedule "0 3 * * *"')
    run(project, "invoke service-add tidy --from go --job")
    return project


@pytest.fixture(scope="module", params=["example staging", "hello prod", "own prod"])
def made(request: pytest.FixtureRequest, bake: Bake, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    services, environment = request.param.split()
    source = request.getfixturevalue("own") if services == "own" else bake(services=services)
    copy = Path(shutil.copytree(source, tmp_path_factory.mktemp("made") / source.name, symlinks=True))
    return export(copy, environment)


def test_every_manifest_is_one_that_kubernetes_knows(made: Exported) -> None:
    manifests = made.manifests
    assert len(manifests) > 40
    for manifest in manifests:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_a_misspelt_field_would_be_noticed(made: Exported) -> None:
    """A control of the test above."""
    (shown, *_) = (each for each in made.manifests if each["kind"] == "Deployment")
    shown["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(shown, VERSION, strict=True)


def test_every_setting_is_mapped_or_named_with_a_reason(made: Exported) -> None:
    lines = [line for line in made.said.splitlines() if not line.startswith("warning: ")]
    assert all(line.startswith("not in Kubernetes: ") for line in lines), lines
    assert [line for line in lines if "the export does not know it" in line] == []
    assert any("service (haproxy): " in line for line in lines)


def test_a_part_with_one_member_is_warned_of(made: Exported) -> None:
    """etcd and RabbitMQ in the default; nothing with the files for three of each."""
    stateful = {each["metadata"]["name"] for each in made.manifests if each["kind"] == "StatefulSet"}
    alone = {name for name in ("etcd", "rabbitmq") if name in stateful and f"{name}-2" not in stateful}
    lines = [line for line in made.said.splitlines() if line.startswith("warning: ")]
    assert {line.partition(" has one ")[2].partition(":")[0] for line in lines} == alone


def test_programs_in_a_pod_find_rabbitmq_by_its_name(made: Exported) -> None:
    """rabbitmqctl would take the name of the pod, which is not the node's."""
    for node in (each for each in made.manifests if each["metadata"]["name"].startswith("rabbitmq")):
        if node["kind"] != "StatefulSet":
            continue
        (container,) = template_of(node)["spec"]["containers"]
        environment = {each["name"]: each["value"] for each in container["env"]}
        assert environment["RABBITMQ_NODENAME"] == f"rabbit@{node['metadata']['name']}"


def test_every_service_is_there_or_named(made: Exported) -> None:
    declared = compose.resolve(made.project, made.environment, everything=False)["services"]
    there = {each["metadata"]["labels"][LABEL] for each in made.manifests if template_of(each)}
    left_out = {
        name
        for line in made.said.splitlines()
        if line.startswith("not in Kubernetes: service (")
        for name in line.partition("(")[2].partition(")")[0].split(", ")
    }
    assert there | left_out == declared.keys()
    assert not there & left_out


def test_the_same_again_is_the_same(made: Exported) -> None:
    before = {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()}
    assert export(made.project, made.environment).said == made.said
    assert {path: path.read_bytes() for path in made.folder.rglob("*") if path.is_file()} == before


def test_nothing_secret_is_written(own: Path, tmp_path: Path) -> None:
    """The manifests are the same without secrets, and what is printed is all that they mount."""
    project = Path(shutil.copytree(own, tmp_path / "project", symlinks=True))
    before = export(project, "prod").manifests
    run(project, "invoke secret-init --env prod")
    run(project, "invoke certificate --env prod --self-signed")
    assert export(project, "prod").manifests == before
    done = run(project, "invoke export kubernetes --env prod --secrets")
    secrets = {each["metadata"]["name"]: each for each in yaml.safe_load_all(done.stdout)}
    for secret in secrets.values():
        kubernetes_validate.validate(secret, VERSION, strict=True)
    # The record of what was deployed is there from the first deploy on.
    assert {name for each in before for name in secrets_of(each)} == {*secrets, "deployed"}


def secrets_of(manifest: Manifest) -> Iterator[str]:
    for volume in (template_of(manifest).get("spec") or {}).get("volumes") or ():
        if "secret" in volume:
            yield volume["secret"]["secretName"]
        for source in (volume.get("projected") or {}).get("sources") or ():
            yield source["secret"]["name"]


def test_kustomize_builds_it(made: Exported) -> None:
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("there is no kubectl")
    built = subprocess.run([kubectl, "kustomize", str(made.folder)], capture_output=True, text=True, check=True)
    found = list(yaml.safe_load_all(built.stdout))
    assert len(found) == len(made.manifests)
    for manifest in found:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


# ---- who reaches whom


def test_policies_allow_what_the_networks_of_one_host_allow(made: Exported) -> None:
    """The same matrix, tests/connections.yml, with what is not in a cluster left out."""
    manifests = made.manifests
    there = {each["metadata"]["labels"][LABEL] for each in manifests if template_of(each)}
    model = compose.resolve(made.project, made.environment, everything=False)
    services = {name: entry for name, entry in model["services"].items() if name in there}
    matrix = connections.load()
    found = reachable(manifests)
    public = {each for each in found if each.target == "nginx" and each.port in {8080, 8443}}
    allowed = connections.between(services, matrix.allowed)
    examples = matrix.listens.keys() | {"migrate"}
    known = {each for each in found if each.source in examples}
    assert sorted(map(str, known - allowed - public)) == [], "possible, but not in tests/connections.yml"
    needed = connections.between(services, frozenset().union(*(rule.connections for rule in matrix.needed)))
    # Other members of a cluster reach it on one host, and backups do; in a pod it listens on the loopback address.
    alone = {(target, port) for target, ports in matrix.bound_ports.items() for port in ports}
    missing = [each for each in needed - found if (each.target, each.port) not in alone]
    assert sorted(map(str, missing)) == [], "needed, but no policy allows it"
    on_one_host = {each for each in connections.possible(services, matrix) if (each.target, each.port) not in alone}
    assert found - public == on_one_host - public


def test_a_policy_too_many_would_be_noticed(made: Exported) -> None:
    """A control of the test above: a pod on one network too many."""
    manifests = made.manifests
    edge = next(template_of(each) for each in manifests if each["kind"] == "DaemonSet")
    before = reachable(manifests)
    edge["metadata"]["labels"]["network.stack/database"] = "true"
    assert Connection("nginx", "redis-primary", 6379) in reachable(manifests) - before


def test_the_rules_of_postgresql_differ_in_nothing_but_the_address(project: Path) -> None:
    def rules(path: str) -> list[list[str]]:
        lines = (project / path).read_text(encoding="utf-8").splitlines()
        return [line.split() for line in lines if line and not line.startswith("#")]

    host, cluster = (
        rules("infrastructure/postgres/pg_hba.conf"),
        rules("infrastructure/kubernetes/postgres/pg_hba.conf"),
    )
    assert [["all" if word == "samenet" else word for word in rule] for rule in host] == cluster
    assert host != cluster
