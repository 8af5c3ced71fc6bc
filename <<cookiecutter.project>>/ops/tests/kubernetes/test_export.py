"""What an environment becomes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.kubernetes import availability, export, folder, secrets, without
from ops.kubernetes.values import Manifest, pod_template
from ops.stack import contract, model

# Renders the project, with settings of services that are otherwise.
Changed = Callable[..., export.Export]


def find(made: export.Export, kind: str, name: str) -> Manifest:
    """The object of a kind whose name is, or begins with, that one."""
    found = [each for each in made.objects if each["kind"] == kind and each["metadata"]["name"] == name]
    found = found or [
        each for each in made.objects if each["kind"] == kind and each["metadata"]["name"].startswith(name)
    ]
    assert len(found) == 1, (kind, name, [(each["kind"], each["metadata"]["name"]) for each in made.objects])
    return found[0]


def container(manifest: Manifest) -> Manifest:
    found: Manifest = pod_template(manifest)["spec"]["containers"][0]
    return found


def test_every_service_has_a_file_and_every_object_its_place(exported: Changed) -> None:
    made = exported()
    assert set(made.files) == {
        *("namespace", "configuration", "networks", "clusters"),
        *("nginx", "shop", "db-a", "db-b", "migrate"),
    }
    for each in made.objects:
        assert each["metadata"]["labels"]["app.kubernetes.io/part-of"] == "acme-prod"
        assert each["metadata"].get("namespace", "acme-prod") == "acme-prod"
    assert [each["kind"] for each in made.objects][0] == "Namespace"
    identities = [(each["kind"], each["metadata"]["name"]) for each in made.objects]
    assert len(identities) == len(set(identities))


def test_no_list_of_names(exported: Changed) -> None:
    """Whatever is renamed in the Compose files has another name in the cluster, and is otherwise the same."""
    made = exported(nginx={}, door={"labels": {"ops.part": "x"}, "image": "x:1", "healthcheck": {"test": ["CMD", "x"]}})
    assert find(made, "Deployment", "door")


def test_a_service_that_takes_requests(exported: Changed) -> None:
    made = exported()
    shop = find(made, "Deployment", "shop")
    assert shop["spec"]["replicas"] == 3
    assert shop["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert find(made, "Service", "shop")["spec"]["ports"] == [
        {"name": "requests", "port": 8000, "targetPort": 8000, "protocol": "TCP"}
    ]
    assert find(made, "PodDisruptionBudget", "shop")["spec"]["maxUnavailable"] == 1
    runs = container(shop)
    assert runs["resources"] == {
        "requests": {"cpu": "20m", "memory": "96Mi"},
        "limits": {"cpu": "500m", "memory": "384Mi"},
    }
    assert runs["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": 8000}
    assert runs["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": 8000}
    assert runs["startupProbe"]["httpGet"] == {"path": "/health/live", "port": 8000}
    assert runs["lifecycle"] == {"preStop": {"sleep": {"seconds": 5}}}
    assert pod_template(shop)["spec"]["terminationGracePeriodSeconds"] == 50
    assert runs["env"] == [{"name": "SIGN", "value": "$$(NAME) $$$"}]


def test_a_service_with_long_requests_has_the_time_for_them(exported: Changed) -> None:
    said = {"ops.port": "8000", "ops.ready": "tcp", "ops.drain": "600"}
    shop = find(exported(shop={"labels": said}), "Deployment", "shop")
    assert container(shop)["lifecycle"] == {"preStop": {"sleep": {"seconds": 600}}}
    assert pod_template(shop)["spec"]["terminationGracePeriodSeconds"] == 645


def test_a_readiness_command_never_kills(exported: Changed) -> None:
    runs = container(find(exported(), "StatefulSet", "db-a"))
    assert runs["readinessProbe"]["exec"] == {"command": ["check"]}
    assert not runs.keys() & {"livenessProbe", "startupProbe"}


def test_members_of_a_cluster_are_on_different_nodes_and_go_one_at_a_time(exported: Changed) -> None:
    made = exported()
    for name in ("db-a", "db-b"):
        pod = pod_template(find(made, "StatefulSet", name))
        assert pod["metadata"]["labels"]["cluster.stack/member-of"] == "db-a"
        (rule,) = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert rule["labelSelector"] == {"matchLabels": {"cluster.stack/member-of": "db-a"}}
        assert find(made, "Service", name)["spec"] == {
            "selector": {"app.kubernetes.io/name": name},
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
        }
    budget = find(made, "PodDisruptionBudget", "cluster-db-a")["spec"]
    assert budget["selector"] == {"matchLabels": {"cluster.stack/member-of": "db-a"}}
    assert budget["maxUnavailable"] == 1


def test_one_server_alone_is_no_cluster(exported: Changed) -> None:
    made = exported(db_b={"image": "other:1"})
    assert "clusters" not in made.files
    assert "affinity" not in pod_template(find(made, "StatefulSet", "db-a"))["spec"]


def test_every_pod_meets_the_restricted_standard(exported: Changed) -> None:
    made = exported(report={"image": "x:1", "restart": "no", "labels": {"ops.schedule": "0 3 * * *"}, "cap_drop": []})
    pods = [pod_template(each)["spec"] for each in made.objects if pod_template(each)]
    assert len(pods) == 6
    for pod in pods:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        (runs,) = pod["containers"]
        assert runs["securityContext"]["allowPrivilegeEscalation"] is False
        assert runs["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        kinds = {key for volume in pod.get("volumes", []) for key in volume} - {"name"}
        assert kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"user": "0:0"}, "runs as root"),
        ({"cap_add": ["SYS_ADMIN"]}, "adds the capabilities SYS_ADMIN"),
        ({"privileged": True}, "has privileged"),
        ({"network_mode": "host"}, "has network_mode"),
    ],
)
def test_what_no_cluster_would_run_is_refused(exported: Changed, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(OpsError, match=f"shop {words}, which the restricted") as raised:
        exported(shop=settings)
    assert raised.value.code == USAGE
    assert "ops.kubernetes.omit" in raised.value.remedy


@pytest.mark.parametrize("name", ["my_shop", "1shop", "s" * 53])
def test_a_name_that_no_service_can_have_is_refused(document: dict[str, Any], prod: Environment, name: str) -> None:
    document["services"][name] = document["services"].pop("shop")
    document["services"][name]["networks"]["serving"] = {"aliases": [f"{name}.serving"]}
    with pytest.raises(OpsError, match=f'cannot be called "{name}" in a cluster') as raised:
        export.render(prod, model.parse(document))
    assert raised.value.code == USAGE


def test_a_namespace_that_cannot_be_is_refused(document: dict[str, Any], prod: Environment) -> None:
    prod.values["COMPOSE_PROJECT_NAME"] = "acme_prod"
    with pytest.raises(OpsError, match='"acme_prod" cannot be the name of a namespace'):
        export.render(prod, model.parse(document))


def test_a_name_with_a_dot_leads_to_the_pod_itself(exported: Changed) -> None:
    networks = {"database": {"aliases": ["db-b.database", "db_b", "second"]}}
    made = exported(db_b={"networks": networks})
    pod = pod_template(find(made, "StatefulSet", "db-b"))["spec"]
    assert pod["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["db-b.database"]}]
    assert find(made, "Service", "second")["spec"]["selector"] == {"app.kubernetes.io/name": "db-b"}
    lines = without.lines(made.notes)
    assert "the name db-b.database (db-b): no Service can be called that: it leads to the pod itself" in lines
    assert "the name db_b (db-b): no Service can be called that" in lines
    assert not any("shop.serving" in line for line in lines)


def test_the_edge_is_on_every_node(exported: Changed) -> None:
    made = exported()
    nginx = find(made, "DaemonSet", "nginx")
    assert "tolerations" not in pod_template(nginx)["spec"]
    public = find(made, "Service", "nginx-public")["spec"]
    assert (public["type"], public["externalTrafficPolicy"]) == ("NodePort", "Local")
    assert public["ports"] == [{"name": "port-443", "port": 443, "targetPort": 8443, "protocol": "TCP"}]
    internal = find(made, "Service", "internal")["spec"]
    assert internal["selector"] == {"app.kubernetes.io/name": "nginx"}
    assert {each["port"] for each in internal["ports"]} == {8081, 8443}


def test_a_gateway_passes_connections_on_to_the_edge(document: dict[str, Any], prod: Environment) -> None:
    document["services"]["nginx"]["ports"].append({"target": 8080, "published": "80", "protocol": "tcp"})
    settings = {"KUBERNETES_EDGE": "gateway", "SSL_PORT": "443", "DOMAIN": "acme.example"}
    with pytest.raises(OpsError, match="KUBERNETES_EDGE is gateway, and KUBERNETES_GATEWAY_CLASS names no class"):
        export.render(replace(prod, values={**prod.values, **settings}), model.parse(document))
    settings["KUBERNETES_GATEWAY_CLASS"] = "example"
    made = export.render(replace(prod, values={**prod.values, **settings}), model.parse(document))
    public = find(made, "Service", "nginx-public")["spec"]
    assert public["type"] == "ClusterIP" and "externalTrafficPolicy" not in public
    listeners = {each["port"]: each for each in find(made, "Gateway", "nginx")["spec"]["listeners"]}
    assert listeners[443]["tls"] == {"mode": "Passthrough"} and listeners[443]["protocol"] == "TLS"
    assert listeners[80]["protocol"] == "HTTP" and "tls" not in listeners[80]
    for kind, port in (("TLSRoute", 443), ("HTTPRoute", 80)):
        route = find(made, kind, f"nginx-{port}")["spec"]
        assert route["hostnames"] == ["acme.example"]
        assert route["parentRefs"] == [{"name": "nginx", "sectionName": f"port-{port}"}]
        assert route["rules"] == [{"backendRefs": [{"name": "nginx-public", "port": port}]}]


def test_nginx_goes_to_the_services_by_full_names(exported: Changed) -> None:
    config = find(exported(), "ConfigMap", "edge-nginx")
    assert "server shop.acme-prod.svc.cluster.local:8000 resolve max_fails=0;" in config["data"]["http.conf"]
    assert "haproxy" not in config["data"]["http.conf"]
    assert "set $pool shop;" in config["data"]["site.conf"]


def test_configuration_is_named_by_its_content(exported: Changed, project: Path) -> None:
    before = find(exported(), "ConfigMap", "infrastructure-db")
    assert before["immutable"] is True
    assert before["data"] == {"start.sh": "echo $HOME\n"}
    mounted = {each["name"]: each for each in pod_template(find(exported(), "StatefulSet", "db-a"))["spec"]["volumes"]}
    assert mounted["infrastructure-db"]["configMap"]["name"] == before["metadata"]["name"]
    (project / "infrastructure" / "db" / "start.sh").write_text("echo other\n")
    assert find(exported(), "ConfigMap", "infrastructure-db")["metadata"]["name"] != before["metadata"]["name"]


def test_a_file_for_clusters_takes_the_place_of_the_one_for_a_host(exported: Changed, project: Path) -> None:
    other = project / "infrastructure" / "kubernetes" / "db" / "start.sh"
    other.parent.mkdir(parents=True)
    other.write_text("echo cluster\n")
    assert find(exported(), "ConfigMap", "infrastructure-db")["data"] == {"start.sh": "echo cluster\n"}


def test_what_git_ignores_is_no_configuration(exported: Changed, project: Path) -> None:
    """What commands write, and keys: in another checkout there is none of it."""
    before = find(exported(), "ConfigMap", "infrastructure-db")
    (project / ".gitignore").write_text("*.pem\ninfrastructure/*/maintenance.on\nlogs/\n!kept.pem\n")
    folder = project / "infrastructure" / "db"
    (folder / "logs").mkdir()
    for name in ("key.pem", "maintenance.on", "logs/today", ".hidden"):
        (folder / name).write_text("written\n")
    made = exported()
    assert find(made, "ConfigMap", "infrastructure-db") == before
    lines = without.lines(made.notes)
    for name in ("key.pem", "maintenance.on", "logs/today"):
        assert f"the file infrastructure/db/{name} (db-a, db-b): git ignores it (.gitignore)" in lines
    (folder / "kept.pem").write_text("kept\n")
    assert find(exported(), "ConfigMap", "infrastructure-db")["data"].keys() == {"start.sh", "kept.pem"}


def test_a_part_with_one_member_is_named(document: dict[str, Any], prod: Environment) -> None:
    """With what its loss costs; a pair is none."""
    entry = {key: document["services"]["db-a"][key] for key in ("image", "labels", "restart", "user", "healthcheck")}
    document["services"]["etcd"] = {**entry, "image": "etcd:1", "command": ["etcd"]}
    document["services"]["store"] = {**entry, "image": "store:1"}
    stack = model.parse(document)
    etcd, store = availability.alone(prod, stack, list(stack.services))
    assert etcd.detail.startswith("prod has one etcd: when its node dies, PostgreSQL's standby does not take over")
    assert "etcd-cluster.yml to COMPOSE_FILE in config/prod/.env" in etcd.remedy
    assert store.detail.startswith("prod has one store: when its node dies, nothing takes its place")
    document["services"]["etcd-2"] = document["services"]["etcd-3"] = document["services"]["etcd"]
    stack = model.parse(document)
    assert availability.alone(prod, stack, list(stack.services)) == [store]


def test_a_schedule_needs_no_scheduler_in_a_cluster(document: dict[str, Any]) -> None:
    entry = {"image": "x:1", "restart": "no", "labels": {"ops.schedule": "0 3 * * *"}}
    stack = model.parse({**document, "services": {**document["services"], "report": entry}})
    assert [each.message for each in contract.problems(stack)] == [
        "report would never run: there is no scheduler.",
    ]
    assert list(contract.problems(stack, cluster=True)) == []


def test_a_migration_is_named_by_its_template(exported: Changed) -> None:
    first, same = find(exported(), "Job", "migrate-"), find(exported(), "Job", "migrate-")
    other = find(exported(migrate={"image": "acme/migrate:4"}), "Job", "migrate-")
    assert first["metadata"]["name"] == same["metadata"]["name"] != other["metadata"]["name"]
    assert first["spec"]["backoffLimit"] == 0
    assert pod_template(first)["spec"]["restartPolicy"] == "Never"


def test_jobs(exported: Changed) -> None:
    made = exported(
        report={
            "image": "x:1",
            "restart": "no",
            "labels": {
                "ops.schedule": "0 3 * * 1-5",
                "ops.schedule.timezone": "Europe/Berlin",
                "ops.schedule.limit": "600",
                "ops.schedule.missed": "run",
            },
        },
        clean={"image": "x:1", "restart": "no", "labels": {"ops.job": "manual"}},
    )
    report = find(made, "CronJob", "report")["spec"]
    assert (report["schedule"], report["timeZone"]) == ("0 3 * * 1-5", "Europe/Berlin")
    assert report["concurrencyPolicy"] == "Forbid"
    assert report["startingDeadlineSeconds"] == 86400
    assert report["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 600
    # The overlay labels jobs as well, so a deploy must: the two would undo each other's.
    labels = {"app.kubernetes.io/managed-by": "invoke", "app.kubernetes.io/part-of": "acme-prod"}
    assert report["jobTemplate"]["metadata"] == {"labels": labels}
    assert "suspend" not in report
    assert find(made, "CronJob", "clean")["spec"]["suspend"] is True


def test_volumes(exported: Changed, project: Path) -> None:
    made = exported(
        shop={
            "labels": {"ops.port": "8000", "ops.ready": "tcp", "ops.rollout": "rolling"},
            "volumes": [{"type": "volume", "source": "a_files", "target": "/files"}],
        },
        one={
            "image": "x:1",
            "labels": {"ops.rollout": "restart"},
            "healthcheck": {"test": ["CMD", "x"]},
            "volumes": [{"type": "volume", "source": "b_files", "target": "/files"}],
        },
    )
    assert find(made, "PersistentVolumeClaim", "a-files")["spec"]["accessModes"] == ["ReadWriteMany"]
    assert find(made, "PersistentVolumeClaim", "b-files")["spec"]["accessModes"] == ["ReadWriteOnce"]
    assert find(made, "Deployment", "one")["spec"]["strategy"] == {"type": "Recreate"}
    (own,) = find(made, "StatefulSet", "db-a")["spec"]["volumeClaimTemplates"]
    assert own["metadata"]["name"] == "a-data"
    assert own["spec"]["resources"] == {"requests": {"storage": "10Gi"}}


def test_secrets_are_mounted_by_name_and_nothing_of_them_is_in_the_manifests(
    exported: Changed, project: Path, prod: Environment
) -> None:
    folder_of_secrets = project / "config" / "prod" / "secrets"
    (folder_of_secrets / "DB_PASSWORD").write_text("s3cret")
    (folder_of_secrets / "tls").mkdir()
    for name in ("fullchain.pem", "privkey.pem"):
        (folder_of_secrets / "tls" / name).write_text("s3cret")
    made = exported()
    assert "s3cret" not in folder.text(made.objects)
    volume = next(
        each for each in pod_template(find(made, "Deployment", "shop"))["spec"]["volumes"] if each["name"] == "secrets"
    )
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "db-password", "items": [{"key": "DB_PASSWORD", "path": "DB_PASSWORD"}]}}
    ]


def test_secrets(document: dict[str, Any], prod: Environment) -> None:
    place = prod.secrets_dir
    declared = model.parse(document)
    with pytest.raises(OpsError, match="DB_PASSWORD.*privkey.pem: not there") as raised:
        secrets.manifests(export.project(prod), declared, export.exported(declared), "acme-prod")
    assert raised.value.code == USAGE
    (place / "tls").mkdir()
    for name in ("DB_PASSWORD", "tls/fullchain.pem", "tls/privkey.pem"):
        (place / name).write_text("abc")
    found = secrets.manifests(export.project(prod), declared, export.exported(declared), "acme-prod")
    assert [(each["metadata"]["name"], each["type"], each["data"]) for each in found] == [
        ("db-password", "Opaque", {"DB_PASSWORD": "YWJj"}),
        ("tls", "kubernetes.io/tls", {"tls.crt": "YWJj", "tls.key": "YWJj"}),
    ]


def test_what_is_left_out_is_said_with_its_reason(exported: Changed) -> None:
    made = exported(
        shop={"labels": {"ops.port": "8000", "ops.ready": "tcp", "ops.affinity": "cookie"}, "ulimits": {"nofile": 5}},
        balancer={
            "image": "x:1",
            "user": "0:0",
            "labels": {"ops.part": "edge", "ops.kubernetes.omit": "Services do it"},
        },
        watcher={"image": "x:1", "labels": {"ops.tier": "monitoring"}},
        strange={"image": "x:1", "healthcheck": {"test": ["CMD", "x"]}, "blkio_config": {"weight": 1}},
    )
    assert not {"balancer", "watcher"} & set(made.files)
    lines = without.lines(made.notes)
    assert "service (balancer): Services do it" in lines
    assert "service (watcher): a cluster has monitoring of its own, which sees every pod" in lines
    assert "ops.affinity (shop): a Service chooses any pod" in lines
    assert "limits.pids (shop): the kubelet sets it (podPidsLimit)" in lines
    assert "ulimits (shop): the container runtime of the node sets them" in lines
    assert "blkio_config (strange): the export does not know it" in lines


def test_sizes_of_volumes(document: dict[str, Any], prod: Environment) -> None:
    prod.values.update(
        {
            "KUBERNETES_VOLUME_SIZE": "5Gi",
            "KUBERNETES_VOLUME_SIZE_A_DATA": "50Gi",
            "KUBERNETES_STORAGE_CLASS": "fast",
            "KUBERNETES_EDGE": "loadbalancer",
        }
    )
    made = export.render(prod, model.parse(document))
    (a,) = find(made, "StatefulSet", "db-a")["spec"]["volumeClaimTemplates"]
    (b,) = find(made, "StatefulSet", "db-b")["spec"]["volumeClaimTemplates"]
    assert [each["spec"]["resources"]["requests"]["storage"] for each in (a, b)] == ["50Gi", "5Gi"]
    assert a["spec"]["storageClassName"] == "fast"
    assert find(made, "Service", "nginx-public")["spec"]["type"] == "LoadBalancer"


@pytest.mark.parametrize(
    ("key", "value"),
    [("KUBERNETES_VOLUME_SIZE", "10"), ("KUBERNETES_VOLUME_SIZE_A_DATA", "x"), ("KUBERNETES_EDGE", "y")],
)
def test_settings_that_cannot_be_meant(document: dict[str, Any], prod: Environment, key: str, value: str) -> None:
    prod.values[key] = value
    with pytest.raises(OpsError, match=rf'prod/.env: {key} is "{value}"') as raised:
        export.render(prod, model.parse(document))
    assert raised.value.code == USAGE


# ---- what backups need


def test_pods_that_share_a_volume_of_one_node_are_on_that_node(exported: Changed) -> None:
    def keeping(volume: str) -> list[dict[str, Any]]:
        return [{"type": "volume", "source": volume, "target": f"/{volume}"}]

    receiver = {"image": "x:1", "labels": {"ops.part": "backup", "ops.rollout": "restart"}, "volumes": keeping("wal")}
    said = {"ops.part": "backup", "ops.schedule": "0 2 * * *", "ops.kubernetes.beside": "receiver"}
    taker = {"image": "x:1", "restart": "no", "labels": said, "volumes": [*keeping("wal"), *keeping("files")]}
    shop = {"labels": {"ops.port": "8000", "ops.rollout": "rolling"}, "volumes": keeping("files")}
    made = exported(receiver=receiver, taker=taker, shop=shop)
    modes = {
        each["metadata"]["name"]: each["spec"]["accessModes"]
        for each in made.objects
        if each["kind"] == "PersistentVolumeClaim"
    }
    assert modes == {"wal": ["ReadWriteOnce"], "files": ["ReadWriteMany"]}
    affinity = pod_template(find(made, "CronJob", "taker"))["spec"]["affinity"]["podAffinity"]
    (rule,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["labelSelector"] == {"matchLabels": {"app.kubernetes.io/name": "receiver"}}
    assert find(made, "Deployment", "receiver")["spec"]["strategy"] == {"type": "Recreate"}


def test_a_hidden_file_that_is_mounted_by_itself_is_configuration(exported: Changed, project: Path) -> None:
    place = project / "config" / "prod"
    mounts = [
        {"type": "bind", "source": str(source), "target": f"/project/{source.name}", "read_only": True}
        for source in (place / ".env", place / "extra")
    ]
    (place / "extra").mkdir()
    (place / "extra" / ".hidden").write_text("x")
    made = exported(shop={"labels": {"ops.port": "8000"}, "volumes": mounts})
    assert find(made, "ConfigMap", "config-env")["data"][".env"] == (place / ".env").read_text()
    assert "data" not in find(made, "ConfigMap", "config-extra")
    (mount, _) = [
        each for each in container(find(made, "Deployment", "shop"))["volumeMounts"] if "config" in each["name"]
    ]
    assert (mount["mountPath"], mount["subPath"]) == ("/project/.env", ".env")


def test_all_secrets_are_mounted_as_they_lie_in_their_folder(
    exported: Changed, document: dict[str, Any], prod: Environment
) -> None:
    (prod.secrets_dir / "tls").mkdir()
    for name in ("DB_PASSWORD", "tls/fullchain.pem", "tls/privkey.pem", ".gitignore"):
        (prod.secrets_dir / name).write_text("abc")
    mount = {"type": "bind", "source": str(prod.secrets_dir), "target": "/project/secrets", "read_only": True}
    entry = {"labels": {"ops.port": "8000"}, "volumes": [mount]}
    (volume,) = [
        each
        for each in pod_template(find(exported(shop=entry), "Deployment", "shop"))["spec"]["volumes"]
        if each["name"] == "secrets-files"
    ]
    document["services"]["shop"].update(entry)
    declared = model.parse(document)
    found = secrets.manifests(export.project(prod), declared, ["shop"], "acme-prod")
    (everything,) = [each for each in found if each["metadata"]["name"] == volume["secret"]["secretName"]]
    assert everything["data"].keys() == {"DB_PASSWORD", "tls__fullchain.pem", "tls__privkey.pem"}
    shown = {each["key"]: each["path"] for each in volume["secret"]["items"]}
    assert shown == {
        "DB_PASSWORD": "DB_PASSWORD",
        "tls__fullchain.pem": "tls/fullchain.pem",
        "tls__privkey.pem": "tls/privkey.pem",
    }


def test_what_was_deployed_is_seen_where_the_commands_keep_it(exported: Changed) -> None:
    mount = {"type": "volume", "source": "release_state", "target": "/project/state", "read_only": True}
    made = exported(shop={"labels": {"ops.port": "8000", "ops.rollout": "rolling"}, "volumes": [mount]})
    (volume,) = [
        each
        for each in pod_template(find(made, "Deployment", "shop"))["spec"]["volumes"]
        if each["name"] == "release-state"
    ]
    assert volume["secret"] == {"secretName": "deployed", "optional": True}
    assert not [each for each in made.objects if each["kind"] == "PersistentVolumeClaim"]


# ---- the folder


def test_the_folder_is_written_anew_and_reads_the_same_each_time(exported: Changed, tmp_path: Path) -> None:
    place = tmp_path / "kubernetes" / "prod"
    made = exported()
    folder.write(place, made.namespace, made.files)
    first = {path.name: path.read_text() for path in place.rglob("*.yaml")}
    (place / "base" / "gone.yaml").write_text("")
    folder.write(place, made.namespace, exported().files)
    assert {path.name: path.read_text() for path in place.rglob("*.yaml")} == first
    overlay = yaml.safe_load((place / "kustomization.yaml").read_text())
    assert overlay["namespace"] == "acme-prod"
    assert {"name": "acme/shop", "newTag": "3"} in overlay["images"]
    assert {"name": "shop", "count": 3} in overlay["replicas"]
    base = yaml.safe_load((place / "base" / "kustomization.yaml").read_text())
    assert {*base["resources"], "kustomization.yaml"} == {path.name for path in (place / "base").iterdir()}


def test_what_the_overlay_sets_is_not_in_the_base(exported: Changed) -> None:
    written = folder.render("acme-prod", exported().files)
    shop = written["base/shop.yaml"]
    assert "replicas:" not in shop
    assert "image: acme/shop\n" in shop
    assert "acme-prod" not in shop


def test_two_tags_of_one_image_stay_where_they_are(exported: Changed) -> None:
    written = folder.render("acme-prod", exported(db_b={"image": "db:2"}).files)
    assert "image: db:1\n" in written["base/db-a.yaml"]
    assert "image: db:2\n" in written["base/db-b.yaml"]
    named = [each["name"] for each in yaml.safe_load(written["kustomization.yaml"])["images"]]
    assert named == ["acme/migrate", "acme/shop", "nginx"]


def test_changes_of_the_owner_stay(exported: Changed, tmp_path: Path) -> None:
    place = tmp_path / "prod"
    made = exported()
    folder.write(place, made.namespace, made.files)
    (place / "own").mkdir()
    (place / "own" / "kustomization.yaml").write_text("kind: Component\n")
    folder.write(place, made.namespace, made.files)
    assert (place / "own" / "kustomization.yaml").read_text() == "kind: Component\n"
    assert yaml.safe_load((place / "kustomization.yaml").read_text())["components"] == ["own"]


@pytest.mark.parametrize("name", ["notes.txt", "kustomization.yaml"])
def test_a_folder_of_somebody_else_is_not_touched(exported: Changed, tmp_path: Path, name: str) -> None:
    place = tmp_path / "prod"
    place.mkdir()
    (place / name).write_text("mine")
    made = exported()
    with pytest.raises(OpsError, match="was not written by an export") as raised:
        folder.write(place, made.namespace, made.files)
    assert raised.value.code == USAGE
    assert [path.name for path in place.iterdir()] == [name]


def test_a_digest_is_kept() -> None:
    objects = {"x": [{"kind": "Pod", "metadata": {"name": "x", "namespace": "n", "labels": {}}}]}
    assert folder.render("n", objects)["base/x.yaml"]
    assert folder._image("registry:5000/a/b:1@sha256:0f") == {"name": "registry:5000/a/b", "digest": "sha256:0f"}
    assert folder._image("registry:5000/a/b") == {"name": "registry:5000/a/b", "newTag": "latest"}


def test_only_kubernetes(prod: Environment) -> None:
    with pytest.raises(OpsError, match='no export to "swarm"') as raised:
        export.export(prod, "swarm")
    assert raised.value.code == USAGE
