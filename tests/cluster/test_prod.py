"""Prod of the default answers without its monitoring, on a real Kubernetes of three nodes: a story, told in order."""

from __future__ import annotations

import copy
import json

import httpx
import pytest

from tests import connections, policies
from tests.cluster import enforcement
from tests.cluster.cluster import Cluster
from tests.cluster.conftest import eventually
from tests.cluster.load import ClusterLoad
from tests.cluster.releases import BAD, declared
from tests.cluster.site import Object, Site, ready

pytestmark = [pytest.mark.story, pytest.mark.alone]

# Of the services that take requests, and of the load that they are replaced under.
ROLLED = ("api", "web", "auth-service")


def test_everything_becomes_ready_on_an_empty_cluster(site: Site) -> None:
    site.deploy()
    site.wait_ready(30)
    nodes = {pod["spec"]["nodeName"] for pod in site.pods()}
    assert nodes == set(site.cluster.nodes())


def test_every_node_serves_the_site(site: Site) -> None:
    assert len(site.edges()) == 3
    for number, edge in enumerate(site.edges()):
        with site.client(edge) as client:
            site.project.sign_in(client, f"person{number}@example.com")
            made = client.post("/api/v1/items", json={"title": f"made at {edge}"})
            assert made.status_code == 201, made.text
            for other in site.edges():
                with site.client(other) as elsewhere:
                    elsewhere.headers["Authorization"] = client.headers["Authorization"]
                    read = elsewhere.get(f"/api/v1/items/{made.json()['id']}")
                    assert read.json()["title"] == f"made at {edge}", f"at {other}: {read.text}"
            assert client.get("/login").status_code == 200


def test_there_is_no_difference_between_manifests_and_cluster(site: Site) -> None:
    """And an export changes no file, whose order would make a diff that nobody can read."""
    before = {path: path.read_bytes() for path in site.folder.rglob("*.yaml")}
    site.export()
    assert before == {path: path.read_bytes() for path in site.folder.rglob("*.yaml")}
    assert " updated " not in site.deploy()
    difference = site.cluster.tried("diff", "-k", str(site.folder))
    assert difference.returncode == 0 and not difference.stdout, difference.stdout + difference.stderr


def rolled(site: Site, *services: str) -> None:
    """Replace the pods of services, and wait."""
    for service in services:
        site.kubectl("rollout", "restart", f"deployment/{service}")
    for service in services:
        site.kubectl("rollout", "status", f"deployment/{service}", "--timeout=300s")


def test_a_rolling_update_loses_no_request(site: Site) -> None:
    with ClusterLoad(site) as load:
        load.enter("during")
        for service in ROLLED:
            rolled(site, service)
    assert load.report.phase("during").sent > 200
    assert not load.report.all.lost and load.ledger.exact


def test_the_load_notices_an_update_that_is_none(site: Site) -> None:
    """The control: all pods at once, killed at once. A load that loses nothing here would prove nothing above."""
    (deployment,) = (each for each in site.objects("deployments") if each["metadata"]["name"] == "api")
    changed = copy.deepcopy(deployment)
    changed["spec"]["strategy"] = {"type": "Recreate"}
    with ClusterLoad(site) as load:
        load.enter("during")
        site.cluster.apply(json.dumps(_applicable(changed)))
        for pod in site.pods("api"):
            site.kubectl("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
        site.wait_ready()
    site.deploy()
    site.wait_ready()
    assert load.report.phase("during").lost
    assert load.ledger.exact


def _applicable(found: Object) -> Object:
    """An object without what the cluster keeps in it."""
    metadata = {key: found["metadata"][key] for key in ("name", "namespace", "labels")}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": metadata, "spec": found["spec"]}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_release_keeps_the_old_pods(site: Site, how: str) -> None:
    """They serve all the while, the exit code says what was wrong, and nothing is left of it."""
    before = {pod["metadata"]["name"] for pod in site.pods()}
    with ClusterLoad(site, rate=4) as load, declared(site, BAD[how]):
        load.enter("during")
        said = site.deploy(BAD[how].code)
        assert {pod["metadata"]["name"] for pod in site.pods() if ready(pod)} == before
    assert BAD[how].service in said
    eventually(lambda: {pod["metadata"]["name"] for pod in site.pods()} == before, 60, "only the old pods are there")
    assert "nothing to change" in site.deploy()
    assert not load.report.all.lost and load.ledger.exact


def test_scaling_to_ten_and_back_loses_no_request(site: Site) -> None:
    with ClusterLoad(site) as load:
        load.enter("during")
        for count in (10, 2):
            site.kubectl("scale", "deployment/api", f"--replicas={count}")
            site.kubectl("rollout", "status", "deployment/api", "--timeout=300s")
            eventually(lambda count=count: len(site.pods("api")) == count, 120, f"{count} pods of api")
    assert not load.report.all.lost and load.ledger.exact


def test_a_scheduled_job_runs(site: Site) -> None:
    (cronjob,) = site.objects("cronjobs")
    site.kubectl("create", "job", "by-hand", f"--from=cronjob/{cronjob['metadata']['name']}")
    site.kubectl("wait", "--for=condition=complete", "job/by-hand", "--timeout=180s")
    site.kubectl("delete", "job", "by-hand")


def test_rabbitmqctl_finds_its_node(site: Site) -> None:
    """By the name that start.sh gives it, which is not the pod's."""
    for pod in ("rabbitmq-0", "rabbitmq-2-0", "rabbitmq-3-0"):
        said = site.kubectl("exec", pod, "--", "rabbitmqctl", "--quiet", "--formatter=json", "cluster_status")
        assert len(json.loads(said)["running_nodes"]) == 3


# ---- who reaches whom


def test_pods_reach_what_the_policies_let_through_and_nothing_else(site: Site) -> None:
    """From inside the pods, to every port that somebody listens on; and the site works as well as without policies."""
    listens = connections.load().listens
    before = enforcement.reachable(site, listens)
    with enforcement.enforced(site.cluster):
        found = enforcement.reachable(site, listens)
        with site.client(site.edges()[0]) as client:
            site.project.sign_in(client, "policed@example.com")
            assert client.post("/api/v1/items", json={"title": "policed"}).status_code == 201
    allowed = policies.reachable(site.manifests())
    there = {each for each in allowed if each in before}
    assert found == there
    # The control: without the engine everything that listens is reached.
    assert len(before) > len(found)


# ---- nodes


def leaders_node(site: Site) -> str:
    """The node that carries PostgreSQL's primary."""
    return str(site.primary()["spec"]["nodeName"])


def test_a_drained_node_loses_no_request(site: Site) -> None:
    node = next(each for each in site.cluster.nodes() if each != leaders_node(site))
    with ClusterLoad(site) as load:
        load.enter("during")
        drain = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s")
        site.cluster.kubectl("drain", node, *drain)
        load.enter("after")
        site.cluster.kubectl("uncordon", node)
        site.wait_ready()
    assert load.ledger.exact
    assert not load.report.all.lost


@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_a_lost_node_costs_no_acknowledged_write(site: Site, cluster: Cluster, how: str) -> None:
    """The node with PostgreSQL's primary: the dearest one. It comes back, and everything is whole without a hand."""
    node = leaders_node(site)
    with ClusterLoad(site) as load:
        load.enter("during")
        (cluster.power_off if how == "killed" else cluster.cut)(node)
        eventually(lambda: _writes(site), 150, "a write is acknowledged again")
        load.enter("after")
        (cluster.power_on if how == "killed" else cluster.plug)(node)
        cluster.wait_ready()
        site.wait_ready()
    assert load.ledger.exact
    assert load.report.phase("during").sent


def _writes(site: Site) -> bool:
    """Whether a write through an edge that is on is acknowledged."""
    try:
        with site.client(site.edges()[-1]) as client:
            site.project.sign_in(client, "again@example.com")
            return client.post("/api/v1/items", json={"title": "again"}).status_code == 201
    except (AssertionError, httpx.HTTPError):
        return False
