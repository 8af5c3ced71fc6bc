"""A baked project whose prod runs on a cluster: applied as its owner does it, and met as its users meet it."""

from __future__ import annotations

import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster import nodes
from tests.cluster.cluster import SMALL, SMALL_GIB, Cluster
from tests.cluster.lab import run
from tests.stack.project import Project

Object = dict[str, Any]


@dataclass
class Site:
    """A project on a cluster. Nothing in it is named by the harness: names come from what was exported."""

    project: Project
    cluster: Cluster
    environment: str = "prod"

    # ---- the owner

    @classmethod
    def at(cls, project: Project, cluster: Cluster) -> Site:
        """A project whose commands reach the cluster."""
        project.environ = {
            "KUBECONFIG": str(cluster.lab.kubeconfig),
            "PATH": f"{cluster.programs.bin}:{os.environ['PATH']}",
        }
        return cls(project, cluster)

    @classmethod
    def prepare(cls, parent: Path, cluster: Cluster) -> Site:
        """Bake a project, make its secrets and a certificate, and build its images.

        Without monitoring, with a job that is scheduled, and as docs/kubernetes.md wants it on three machines: three
        etcd and three RabbitMQ nodes.
        """
        site = cls.at(Project.bake(parent), cluster)
        site.project.set(
            site.environment,
            **{"MONITORING_ENABLED": "false", "ENGINE": "kubernetes", "KUBE_CONTEXT": "test"},
            BIND_ADDRESS="0.0.0.0",  # what is bound to this machine is public nowhere
            COMPOSE_FILE=with_clusters(site.project.settings(site.environment)["COMPOSE_FILE"]),
            RABBITMQ_HOSTS="rabbitmq,rabbitmq-2,rabbitmq-3",
        )
        with site.project.env_file(site.environment).open("a", encoding="utf-8") as settings:
            # the volume that can be full: see Cluster.volumes
            settings.write(f"KUBERNETES_VOLUME_SIZE_POSTGRES_PRIMARY_DATA={SMALL_GIB}Gi\n")
        # CronJobs take the place of the scheduler, so prod does without; dev runs on one host.
        dev = site.project.settings("dev")["COMPOSE_FILE"]
        site.project.set("dev", COMPOSE_FILE=f"{dev}:docker-compose.scheduler.yml")
        site.project.invoke("service-add", "report", "--from", "python", "--schedule", "0 3 * * *")
        # The limits protect people from each other; here they would only measure themselves.
        path = site.project.folder / "config" / site.environment / "nginx" / "nginx.conf"
        path.write_text(re.sub(r"rate=\d+r/s", "rate=10000r/s", path.read_text()))
        site.project.invoke("secret-init", "--env", site.environment)
        make = (
            "from ops.base import environments; from ops.secrets import certificates;"
            f"certificates.self_sign(environments.load('{site.environment}'))"
        )
        subprocess.run([sys.executable, "-c", make], cwd=site.project.folder, check=True)
        env_file = site.project.env_file(site.environment)
        run("docker", "compose", "--env-file", env_file, "build", folder=site.project.folder)
        return site

    @property
    def folder(self) -> Path:
        """Where the manifests are."""
        return self.project.folder / "kubernetes" / self.environment

    @cached_property
    def namespace(self) -> str:
        """Where it runs."""
        return self.project.name(self.environment)

    @property
    def domain(self) -> str:
        """What its users call it."""
        return self.project.settings(self.environment)["DOMAIN"]

    def export(self) -> str:
        """Write the manifests, and return what the command said."""
        done = self.project.invoke("export", "kubernetes", "--env", self.environment)
        return done.stdout + done.stderr

    def manifests(self) -> list[Object]:
        """What is written, as kustomize puts it together."""
        text = self.cluster.kubectl("kustomize", str(self.folder))
        return [each for each in yaml.safe_load_all(text) if each]

    def push(self) -> None:
        """Push every image that the manifests name."""
        text = self.cluster.kubectl("kustomize", str(self.folder))
        images = sorted(set(re.findall(r"^ *(?:- )?image: (\S+)$", text, re.MULTILINE)))
        for image in images:
            if not run("docker", "image", "inspect", "--format", "{{.Id}}", image, check=False).strip():
                # named by its content there, and by the environment where Compose alone has built it
                run("docker", "tag", f"{image.rpartition(':')[0]}:{self.environment}", image)
        self.cluster.push(images)

    def secrets(self) -> str:
        """The manifests of the secrets, which are on no disk."""
        # Not by Project.invoke, which shows what a command said.
        command = [sys.executable, "-m", "invoke", "export", "kubernetes", "--env", self.environment, "--secrets"]
        return run(*command, folder=self.project.folder)

    def deploy(self, code: int = 0) -> str:
        """Deploy, and return what that said. code: the exit code that it must have."""
        done = self.project.invoke("deploy", "--env", self.environment, "--yes", code=code)
        return done.stdout + done.stderr

    def remove(self) -> None:
        """Remove it from the cluster with its data."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--timeout=120s")
        self.cluster.recycle_volumes()

    # ---- what is there

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:
        """kubectl in its namespace."""
        return self.cluster.kubectl("-n", self.namespace, *arguments, input=input, check=check)

    def objects(self, kind: str, *selector: str) -> list[Object]:
        """Objects of a kind in its namespace."""
        found = json.loads(self.kubectl("get", kind, *selector, "-o", "json"))["items"]
        assert isinstance(found, list)
        return found

    def pods(self, service: str = "") -> list[Object]:
        """Pods that are to serve: not those of jobs, and none that ended."""
        selector = ["-l", f"app.kubernetes.io/name={service}"] if service else []
        return [
            pod
            for pod in self.objects("pods", *selector)
            if not any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
            and pod["status"].get("phase") not in ("Succeeded", "Failed")
        ]

    def not_ready(self) -> list[str]:
        """Pods that do not serve, workloads without all their pods, and jobs of migrations that did not end well."""
        wrong = [f"{pod['metadata']['name']}: {pod['status'].get('phase')}" for pod in self.pods() if not ready(pod)]
        for kind in ("deployments", "statefulsets"):
            for each in self.objects(kind):
                wanted, have = each["spec"].get("replicas", 1), each["status"].get("readyReplicas", 0)
                if wanted != have:
                    wrong.append(f"{each['metadata']['name']}: {have} of {wanted}")
        for each in self.objects("daemonsets"):
            wanted, have = each["status"].get("desiredNumberScheduled", 0), each["status"].get("numberReady", 0)
            if wanted != have or not wanted:
                wrong.append(f"{each['metadata']['name']}: {have} of {wanted}")
        for job in self.objects("jobs", "-l", "app.kubernetes.io/component=migration"):
            if not job["status"].get("succeeded"):
                wrong.append(f"{job['metadata']['name']}: not completed")
        return wrong

    def wait_ready(self, seconds: float = 420) -> float:
        """Wait until everything is, and return how many seconds it took."""
        began = time.monotonic()
        while wrong := self.not_ready():
            if time.monotonic() - began > seconds:
                raise AssertionError(f"not ready after {seconds:.0f} s: {', '.join(wrong)}\n{self.describe()}")
            time.sleep(1)
        return time.monotonic() - began

    def describe(self) -> str:
        """Pods and the last events, for a failure."""
        pods = self.kubectl("get", "pods", "-o", "wide", check=False)
        events = self.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False).splitlines()[-25:]
        return "\n".join([pods, *events])

    @contextmanager
    def full_volume(self) -> Iterator[None]:
        """The volume of the pod postgres-primary-0 is full; it has room again afterwards."""
        # By this machine: it is in memory, and what a container writes there counts against its limit.
        filler = self.cluster.volume(SMALL) / "filler"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(filler.parent).free)
        try:
            yield
        finally:
            filler.unlink()

    # ---- its users

    def edges(self) -> list[str]:
        """Where the nodes that are on take TLS, as HOST:PORT."""
        lab = self.cluster.lab
        port = self.node_port(int(self.project.settings(self.environment)["SSL_PORT"]))
        return [f"{lab.address(node)}:{port}" for node in self.cluster.nodes() if nodes.is_on(lab, node)]

    def node_port(self, public: int) -> int:
        """The port that nodes take a public port of the edge on."""
        for service in self.objects("services"):
            for port in service["spec"].get("ports", []):
                if port.get("nodePort") and port["port"] == public:
                    return int(port["nodePort"])
        raise AssertionError(f"no service with a node port for {public}: {self.kubectl('get', 'services')}")

    def client(self, edge: str) -> httpx.Client:
        """An HTTPS client that trusts this project's own authority, and asks one node for the site by its name."""
        trust = ssl.create_default_context(cafile=str(self.project.certificate_authority(self.environment)))

        def by_name(request: httpx.Request) -> None:
            request.extensions["sni_hostname"] = self.domain

        headers, hooks = {"Host": self.domain}, {"request": [by_name]}
        return httpx.Client(
            base_url=f"https://{edge}", verify=trust, headers=headers, event_hooks=hooks, timeout=15, trust_env=False
        )

    def sql(self, query: str) -> list[str]:
        """Rows of a query on PostgreSQL's primary, as the superuser; columns are separated by |."""
        return self._psql(self.primary()["metadata"]["name"], query).splitlines()

    def primary(self) -> Object:
        """The pod of PostgreSQL that takes writes."""
        for pod in self.pods():
            name = pod["metadata"]["name"]
            if name.startswith("postgres-") and self._psql(name, "select pg_is_in_recovery()").strip() == "f":
                return pod
        raise AssertionError(f"no PostgreSQL node is the primary:\n{self.describe()}")

    def _psql(self, pod: str, query: str) -> str:
        settings = self.project.settings(self.environment)
        login = (f"--username={settings['POSTGRES_USER']}", f"--dbname={settings['POSTGRES_DB']}")
        return self.kubectl("exec", pod, "--", "psql", "-XAqt", *login, f"--command={query}", check=False)


def with_clusters(files: str) -> str:
    """COMPOSE_FILE with three etcd and three RabbitMQ nodes, and without the scheduler."""
    files = files.replace(":docker-compose.scheduler.yml", "")
    before = ":docker-compose.services.yml"
    assert files.count(before) == 1
    return files.replace(
        before, f":infrastructure/kubernetes/etcd-cluster.yml:docker-compose.rabbitmq-cluster.yml{before}"
    )


def ready(pod: Object) -> bool:
    """Whether a pod says so, and is not on its way out."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]
