"""Preflight checks, with fakes where they would ask the machine."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest

from ops.base import environments, findings
from ops.base.errors import REFUSED, OpsError
from ops.base.findings import FAILED, OK, WARNING, Check
from ops.rollout import preflight
from ops.stack.model import Mount, Port, Service

GIB = 1024**3


@pytest.mark.parametrize(
    ("found", "status"),
    [("25.0.0", OK), ("28.5.2+dfsg4", OK), ("v26", OK), ("24.0.9", FAILED), ("", FAILED), ("dev", FAILED)],
)
def test_versions(found: str, status: str) -> None:
    assert preflight.check_version("engine", found, (25, 0)).status == status


def test_compose_versions() -> None:
    assert preflight.check_version("compose", "2.31.9", preflight.COMPOSE_MINIMUM).remedy == "Install 2.32 or newer."
    assert preflight.check_version("compose", "5.5.0", preflight.COMPOSE_MINIMUM).status == OK


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("WEB_REPLICAS", "0", 'WEB_REPLICAS must be a whole number from 1, not "0"'),
        ("WEB_REPLICAS", "two", "must be a whole number"),
        ("WEB_PORT", "70000", 'must be a port from 1 to 65535, not "70000"'),
        ("WEB_PORT", "http", "must be a port"),
        ("IMAGE_SOURCE", "bulid", 'must be build or pull, not "bulid"'),
        ("BUILD_TARGET", "prod", "must be dev or production"),
        ("DOMAIN", "", "DOMAIN is not set"),
        ("IMAGE_PREFIX", "", "IMAGE_PREFIX is not set"),
        ("DOMAIN", "shop.example.com; return 200", "DOMAIN must be a host name"),
        ("UPLOAD_MAX_MB", "20M", 'must be a whole number of megabytes, not "20M"'),
        ("NGINX_CPUS", "two", 'must be a number of processors, not "two"'),
        (
            "TRUSTED_PROXIES",
            "10.0.0.0/8;",
            'must be addresses or networks (203.0.113.7 10.0.0.0/8), not "10.0.0.0/8;"',
        ),
        ("TRUSTED_PROXIES", "10.0.0.0/33", 'not "10.0.0.0/33"'),
        ("PROXY_PROTOCOL", "on", "TRUSTED_PROXIES is empty; with PROXY_PROTOCOL it must name the load balancers"),
    ],
)
def test_settings(env: environments.Environment, key: str, value: str, problem: str) -> None:
    env.values[key] = value
    checks = list(preflight.check_settings(env))
    assert [each.status for each in checks] == [FAILED]
    assert problem in checks[0].detail
    assert checks[0].remedy == "Change it in config/dev/.env."


def test_good_settings(env: environments.Environment) -> None:
    assert [each.status for each in preflight.check_settings(env)] == [OK]


def test_good_settings_of_a_site_behind_balancers(env: environments.Environment) -> None:
    env.values.update(TRUSTED_PROXIES="203.0.113.7, 10.1.2.3/8 2001:db8::/32", PROXY_PROTOCOL="on", NGINX_CPUS="1.5")
    assert [each.status for each in preflight.check_settings(env)] == [OK]


@pytest.fixture
def mounting(make_stack, env):
    """A stack whose nginx mounts a folder of the project and a secret; returns it with the script in the folder."""
    folder, secret = env.project_dir / "infrastructure/nginx", env.secrets_dir / "S"
    (folder / "deep").mkdir(parents=True)
    script = folder / "deep/start.sh"
    script.write_text("exit")
    env.secrets_dir.mkdir(parents=True, exist_ok=True)
    secret.write_text("s")
    secret.chmod(0o400)
    for path, mode in ((folder, 0o755), (folder / "deep", 0o755), (script, 0o644)):
        path.chmod(mode)
    # What containers write there is nobody else's to read.
    repository = env.project_dir / "backups/dev/repository"
    repository.mkdir(mode=0o700, parents=True)
    mounts = (
        *(Mount(folder, "/etc/nginx/stack"), Mount(secret, "/run/secrets/S"), Mount(Path("/proc"), "/host")),
        Mount(repository, "/backups"),
    )
    return make_stack(Service("nginx", "nginx:1", labels={"ops.part": "edge"}, mounts=mounts)), script


def test_mounted_files_that_everybody_can_read(env, mounting) -> None:
    assert preflight.check_readable(mounting[0], env).status == OK


@pytest.mark.parametrize(("path", "mode"), [(".", 0o600), ("..", 0o700), ("../..", 0o750), (".", 0o640)])
def test_a_checkout_made_with_a_private_umask(env, mounting, path: str, mode: int) -> None:
    stack, script = mounting
    closed = Path(os.path.normpath(script / path))
    closed.chmod(mode)
    found = preflight.check_readable(stack, env)
    assert found.status == FAILED
    assert f"{environments.relative(closed)} has mode {mode:04o}" in found.detail
    assert found.remedy.endswith(f"chmod -R go=rX {environments.relative(env.project_dir / 'infrastructure/nginx')}")


@pytest.fixture
def edge(make_stack):
    """A stack that publishes two ports."""
    return make_stack(
        Service(
            "nginx", "nginx:1", labels={"ops.part": "edge"}, ports=(Port("127.0.0.1", 8080), Port("127.0.0.1", 8443))
        )
    )


def test_free_ports(edge) -> None:
    assert [each.status for each in preflight.check_ports(edge, [], is_free=lambda port: True)] == [OK]


def test_a_taken_port_names_its_holder(edge) -> None:
    checks = list(
        preflight.check_ports(edge, [], lambda port: port.number != 8443, lambda port: "container other-nginx-1")
    )
    assert [each.detail for each in checks] == ["8443 for nginx is taken by container other-nginx-1"]
    assert "sport = :8443" in checks[0].remedy


def test_ports_of_our_own_are_no_obstacle(edge, make_container) -> None:
    own = make_container("nginx", ports=("127.0.0.1:8080->8080", "127.0.0.1:8443->8443"))
    assert [each.status for each in preflight.check_ports(edge, [own], lambda port: False)] == [OK]
    stopped = make_container("nginx", ports=own.ports, state="exited")
    assert {each.status for each in preflight.check_ports(edge, [stopped], lambda port: False)} == {FAILED}


def test_a_port_of_ours_is_no_reason_to_overlook_the_other_kind(make_stack, make_container) -> None:
    """HTTP/3 is the same number by UDP, added to an nginx that runs already."""
    both = make_stack(
        Service("nginx", "nginx", labels={"ops.part": "edge"}, ports=(Port("", 443), Port("", 443, "udp")))
    )
    own = make_container("nginx", ports=("0.0.0.0:443->8443",))
    [check] = preflight.check_ports(both, [own], lambda port: False)
    assert check.detail == "443/udp for nginx is taken"
    assert "ss -lunp" in check.remedy
    after = make_container("nginx", ports=("0.0.0.0:443->8443", "0.0.0.0:443->8443/udp"))
    assert [each.status for each in preflight.check_ports(both, [after], lambda port: False)] == [OK]


def test_a_real_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
        assert not preflight.port_is_free(Port("127.0.0.1", number))
    assert preflight.port_is_free(Port("127.0.0.1", number))


@pytest.mark.parametrize(("free", "status"), [(1, FAILED), (3, WARNING), (50, OK)])
def test_disk(free: int, status: str) -> None:
    assert preflight.check_disk(free * GIB, "/var/lib/docker").status == status


@pytest.mark.parametrize(("available", "status"), [(1, FAILED), (3, WARNING), (8, OK)])
def test_memory(available: int, status: str) -> None:
    assert preflight.check_memory(2 * GIB, 4 * GIB, available * GIB).status == status


def test_memory_is_needed_for_what_does_not_run_yet(make_stack, make_container) -> None:
    declared = make_stack(
        Service("web", "web", replicas=3, memory_limit=100),
        Service("db", "db", memory_limit=1000, memory_reserved=800),
        Service("migrate", "migrate", memory_limit=500, one_shot=True, labels={"ops.job": "migration"}),
    )
    assert preflight.memory_needed(declared, []) == (150 + 800, 300 + 1000)
    running = [make_container("web"), make_container("db")]
    assert preflight.memory_needed(declared, running) == (100, 200)
    assert preflight.memory_needed(declared, running, {"web": 3}) == (150, 300)


@dataclass(frozen=True)
class Finding:
    severity: str
    secret: str
    what: str
    where: str = "config/x/secrets"
    remedy: str = "invoke secret-init"
    stops: bool = False


@pytest.mark.parametrize(
    ("name", "finding", "status"),
    [
        ("staging", Finding("error", "*", "there are no secrets yet"), FAILED),
        ("staging", Finding("error", "A", "missing"), FAILED),
        ("staging", Finding("error", "A", "too short"), WARNING),
        ("staging", Finding("warning", "A", "stray"), WARNING),
        ("dev", Finding("error", "A", "missing"), WARNING),
        ("dev", Finding("error", "A", "missing", stops=True), FAILED),
        ("staging", Finding("error", "A", "its rotation was interrupted", stops=True), FAILED),
        ("prod", Finding("error", "A", "too short"), FAILED),
        ("prod", Finding("warning", "A", "stray"), FAILED),
        ("prod", Finding("skipped", "*", "no git"), OK),
    ],
)
def test_secrets(project, name: str, finding: Finding, status: str) -> None:
    checks = list(preflight.check_secrets(environments.load(name, project), [finding]))
    assert [each.status for each in checks] == [status]


def test_the_same_finding_about_many_secrets_is_one_line(project) -> None:
    staging = environments.load("staging", project)
    checks = list(preflight.check_secrets(staging, [Finding("error", name, "missing") for name in "ABC"]))
    assert [each.detail for each in checks] == ["A, B, C: missing"]
    assert checks[0].remedy == "invoke secret-init"


@dataclass(frozen=True)
class Certificate:
    days_left: int
    names: tuple[str, ...] = ("example.com",)
    warning: str = ""


def test_certificate(project) -> None:
    prod, dev = environments.load("prod", project), environments.load("dev", project)

    def missing(_env: object) -> Certificate:
        raise OpsError("fullchain.pem is missing.", "Put it there.")

    def ours(env: object) -> bool:
        return env is dev

    refused = preflight.check_certificate(prod, missing, ours)
    assert (refused.status, refused.detail, refused.remedy) == (FAILED, "fullchain.pem is missing.", "Put it there.")
    assert preflight.check_certificate(dev, missing, ours).status == OK
    assert preflight.check_certificate(prod, lambda _env: Certificate(60), ours).status == OK
    assert preflight.check_certificate(prod, lambda _env: Certificate(3), ours).status == WARNING
    partial = Certificate(60, warning="its issuer is missing")
    assert preflight.check_certificate(prod, lambda _env: partial, ours).status == WARNING


def test_refusal_says_everything_at_once() -> None:
    findings.refuse([Check("a", OK, ""), Check("b", WARNING, "")])
    with pytest.raises(OpsError) as caught:
        findings.refuse([Check("disk", FAILED, "full", "Make room."), Check("ports", FAILED, "8080 taken")])
    assert caught.value.code == REFUSED
    assert caught.value.message == (
        "Nothing was started, because:\n  disk: full\n    -> Make room.\n  ports: 8080 taken"
    )
