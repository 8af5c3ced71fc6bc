"""Policy: what every service of every environment must hold to, asserted on the configuration that Compose resolves."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tests import compose, connections, template
from tests.conftest import Bake

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

SERVICES = template.services()
OURS = {"web", "api", "auth-service", "notification-service", "migrate"}
# Built here too, on what others make, and holding data.
STATEFUL = {"postgres-primary": "postgres", "postgres-replica": "postgres", "etcd": "etcd"}
FAILOVER = ["docker-compose.postgres-failover.yml", "docker-compose.redis-failover.yml"]
# The only one that holds the engine's socket.
PROXY = "engine-proxy"
ONE_SHOT = {"migrate", "elasticsearch-setup", "backup", "backup-verify"}
BACKUP = {"wal-receiver", "backup", "backup-verify"}
SWITCHES = ("MONITORING_ENABLED", "LOGGING_ENABLED", "DASHBOARDS_ENABLED")

# Exceptions to the policy. Each needs its reason here, and a comment beside the service.
NO_HEALTH_CHECK = {
    "migrate": "ends after its work: the exit code is its health",
    "elasticsearch-setup": "ends after its work: the exit code is its health",
    "backup": "ends after its work: the exit code is its health",
    "backup-verify": "ends after its work: the exit code is its health",
    "postgres-client": "it serves nothing; `invoke health` asks the server outside through it",
    "nginx-exporter": "the image holds one program and nothing to probe it with; Prometheus' `up` is its health",
    "otel-collector": "the image holds one program and nothing to probe it with; Prometheus' `up` is its health",
}
ROOT = {
    "otel-collector": "the engine keeps log files readable for root alone; it has no capability at all",
    PROXY: "the engine's socket is its owner's; it has no capability at all",
    "backup": "it becomes 999 at once, with the right to read every file that it is shown",
}
# Who may be merely started when a service of ours starts: it reconnects, and is not ready meanwhile.
MAY_COME_LATER = {"redis-primary", "rabbitmq"}
# Who waits by itself for the other, so that the order does not matter.
WAITS_BY_ITSELF = {("postgres-replica", "postgres-primary")}
CAPABILITIES = {"backup": {"SETUID", "SETGID", "DAC_READ_SEARCH"}}
WRITABLE: dict[str, str] = {}
# Who writes to a folder of the host, and to which.
HOST_FOLDERS = dict.fromkeys(BACKUP, "/backups")

# User ids that services with different secrets share, because the images or existing volumes ask for them. Harmless
# while each sees its own processes and files only, which is why nobody who mounts the host may be among them.
SHARED_USERS = {
    "999": "the server's user in the images of PostgreSQL, Redis and RabbitMQ, which owns their volumes and restores",
    "1000": "the user in the images of Elasticsearch and Kibana, which owns the volume",
    "10001": "made by services/Dockerfile for all of our own services",
    "65534": "the user in the images of Prometheus and Alertmanager, which owns their volumes",
    "101": "the user in the image of nginx",
    "0": "those of ROOT: one sees log files of the engine, one its socket, one turns into 999; none a process",
}

each_switch = pytest.mark.parametrize("switches", list(itertools.product(("true", "false"), repeat=3)), ids="-".join)
each_environment = pytest.mark.parametrize("environment", template.ENVIRONMENTS)
each_service = pytest.mark.parametrize(
    ("environment", "name"),
    [
        (environment, name)
        for environment in template.ENVIRONMENTS
        for name, file in sorted(SERVICES.items())
        if environment == "dev" or file != "docker-compose.dev.yml"
    ],
)


@pytest.fixture
def model(project: Path, environment: str) -> compose.Model:
    return compose.resolve(project, environment)


@pytest.fixture
def service(model: compose.Model, name: str) -> dict[str, Any]:
    return model["services"][name]


@pytest.fixture(scope="session")
def catalogue(project: Path) -> ModuleType:
    """The generated project's own list of secrets and of their readers."""
    sys.path.insert(0, str(project))
    try:
        return importlib.import_module("ops.secrets.catalogue")
    finally:
        sys.path.remove(str(project))


# -- the configuration as a whole -------------------------------------------------------------------------------------


@each_switch
@each_environment
@pytest.mark.parametrize("ci", template.CHOICES["ci"])
def test_every_combination_resolves(bake: Bake, ci: str, environment: str, switches: tuple[str, ...]) -> None:
    done = compose.config(bake(ci=ci), environment, "config", "--quiet", **dict(zip(SWITCHES, switches, strict=True)))
    assert (done.returncode, done.stderr) == (0, "")


@each_switch
def test_switches_choose_the_tiers(project: Path, switches: tuple[str, ...]) -> None:
    settings = dict(zip(SWITCHES, switches, strict=True))
    running = set(compose.config(project, "prod", "config", "--services", **settings).stdout.split())
    monitoring, logging, dashboards = (switch == "true" for switch in switches)
    assert ("prometheus" in running) == monitoring
    assert ("elasticsearch" in running) == (monitoring and logging)
    assert ("grafana" in running) == (monitoring and dashboards)
    assert ("kibana" in running) == (monitoring and logging and dashboards)
    assert {"nginx", "web", "api", "auth-service", "notification-service", "postgres-primary", "rabbitmq"} <= running


@pytest.mark.parametrize("left_out", compose.OPTIONAL_FILES)
@each_environment
def test_it_resolves_without_what_is_optional(project: Path, environment: str, left_out: str) -> None:
    gone = {left_out, compose.ADDITIONS.get(left_out)}
    files = [name for name in compose.all_files(project, environment) if name not in gone]
    done = compose.config(
        project, environment, "config", "--quiet", **compose.OPTIONAL_SETTINGS, COMPOSE_FILE=":".join(files)
    )
    assert (done.returncode, done.stderr) == (0, "")


@each_environment
def test_plain_compose_and_the_commands_mean_the_same(project: Path, environment: str) -> None:
    """Invoke is not a cage: `docker compose --env-file …` deploys the very configuration that `invoke deploy` does."""
    program = (
        "import json, sys; from pathlib import Path; from ops.base import environments; from ops.stack import model;"
        "print(json.dumps(model.load(environments.load(sys.argv[1], Path.cwd())).document))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, environment], cwd=project, capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == compose.resolve(project, environment, everything=False)


@each_environment
def test_settings_are_read_alike_by_all(project: Path, environment: str) -> None:
    """Compose and python-dotenv have rules of their own for quotes, `$` and `#`: no setting may depend on them."""
    file = project / "config" / environment / ".env"
    compose_view = dict(
        line.split("=", 1)
        for line in compose.config(project, environment, "config", "--environment").stdout.splitlines()
        if "=" in line
    )
    ours = dotenv_values(file)
    assert {name: compose_view.get(name) for name in ours} == ours


@each_environment
def test_environments_have_the_same_settings(project: Path, environment: str) -> None:
    """What one of them lacks would be found out on the day of the first release; only dev has services more."""
    settings = {env: dotenv_values(project / "config" / env / ".env").keys() for env in template.ENVIRONMENTS}
    of_dev = re.findall(r"\$\{(\w+)", (project / "docker-compose.dev.yml").read_text(encoding="utf-8"))
    assert settings[environment] ^ settings["prod"] <= set(of_dev)


def test_only_one_file_names_the_services_of_the_owner() -> None:
    """A template update must not meet them, and who renames or removes one edits that file alone."""
    files = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in template.FOLDER.glob("*.yml")}
    own = files.pop("docker-compose.services.yml")["services"].keys()
    # It is the owner's as well, like the one that names their volumes.
    assert files.pop("docker-compose.postgres-clients.yml")["services"].keys() < own
    assert own == OURS
    others = {
        name: [*(content.get("services") or {}), *itertools.chain(*map(depends_on, content["services"].values()))]
        for name, content in files.items()
        if content.get("services")
    }
    assert {name: own & set(named) for name, named in others.items() if own & set(named)} == {}


def depends_on(service: dict[str, Any]) -> list[str]:
    return [*(service.get("depends_on") or ())]


@pytest.mark.parametrize("setting", ["POSTGRES_IMAGE", "IMAGE_PREFIX", "WEB_MEMORY", "ENVIRONMENT"])
def test_a_missing_setting_stops_at_once(project: Path, tmp_path: Path, setting: str) -> None:
    """At `config`, with the setting's name: not with an empty string at three in the morning."""
    copy = tmp_path / "env"
    lines = (project / "config/prod/.env").read_text(encoding="utf-8").splitlines(keepends=True)
    copy.write_text("".join(line for line in lines if not line.startswith(f"{setting}=")), encoding="utf-8")
    done = subprocess.run(
        ["docker", "compose", "--env-file", str(copy), "config", "--quiet"], cwd=project, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert setting in done.stderr


@each_environment
def test_only_networks_that_need_one_have_a_way_out(model: compose.Model) -> None:
    """frontend: nginx is published. backend: mail. access: alert mails, and pages that are published on loopback.
    offsite: the targets of backups. managed: a PostgreSQL outside of the stack."""
    open_ones = {name for name, network in model["networks"].items() if not (network or {}).get("internal")}
    assert open_ones == {"frontend", "backend", "access", "offsite", "managed"}


# -- who reaches whom: tests/connections.yml --------------------------------------------------------------------------


def variants(project: Path, environment: str) -> list[compose.Model]:
    """What an environment deploys as it is, and with every profile and optional file."""
    return [compose.resolve(project, environment, everything) for everything in (False, True)]


@each_environment
def test_networks_allow_what_the_matrix_allows_and_nothing_else(project: Path, environment: str) -> None:
    matrix = connections.load()
    for model in variants(project, environment):
        services = model["services"]
        possible = connections.possible(services, matrix)
        allowed = connections.between(services, matrix.allowed)
        needed = connections.between(services, frozenset().union(*(rule.connections for rule in matrix.needed)))
        assert sorted(map(str, possible - allowed)) == [], "possible, but not in tests/connections.yml"
        assert sorted(map(str, needed - possible)) == [], "needed, but no network makes it possible"


def test_the_matrix_is_no_wider_than_the_networks(project: Path) -> None:
    """Every connection that it allows exists in some environment: it cannot allow what a later change would open."""
    matrix = connections.load()
    models = [model for environment in template.ENVIRONMENTS for model in variants(project, environment)]
    anywhere = frozenset().union(*(connections.possible(model["services"], matrix) for model in models))
    assert sorted(map(str, matrix.allowed - anywhere)) == []


@each_environment
def test_the_matrix_knows_every_service_with_a_port(model: compose.Model) -> None:
    assert model["services"].keys() - connections.load().listens.keys() == {*ONE_SHOT, "postgres-client"}


@each_environment
def test_a_service_bound_to_one_network_has_its_name_there(model: compose.Model) -> None:
    """It listens on NAME.NETWORK, which only an alias on that network may resolve to."""
    for name, network in connections.load().bound.items():
        joined = model["services"][name]["networks"]
        aliases = {key: set((entry or {}).get("aliases") or ()) for key, entry in joined.items()}
        assert [key for key, names in aliases.items() if f"{name}.{network}" in names] == [network], name


@each_environment
def test_services_reach_nothing_that_watches_them(model: compose.Model) -> None:
    """Exporters connect where a request says, and Alertmanager can be silenced: not by what visitors talk to."""
    matrix = connections.load()
    possible = connections.possible(model["services"], matrix)
    faces_visitors = matrix.groups["services"] | {"nginx"}
    assert [
        str(each) for each in possible if each.source in faces_visitors and each.target in matrix.groups["monitoring"]
    ] == []
    networks = {name: set(service.get("networks", ())) for name, service in model["services"].items()}
    assert networks["alertmanager"].isdisjoint(networks["web"])


def test_the_comparison_notices_a_wrong_network() -> None:
    """A control: one service on one network too many must show."""
    matrix = connections.load()
    services = {"web": {"networks": {"backend": None}}, "redis-exporter": {"networks": {"monitoring": None}}}
    assert connections.possible(services, matrix) == frozenset()
    services["web"]["networks"]["monitoring"] = None
    opened = connections.possible(services, matrix) - matrix.allowed
    assert {str(each) for each in opened} == {"web -> redis-exporter:9121", "redis-exporter -> web:8000"}


@each_environment
def test_failover_is_a_matter_of_settings(project: Path, environment: str) -> None:
    """In or out of COMPOSE_FILE: staging and prod have it, dev does not, and each resolves the other way round too.

    Without the sentinels' names it does not: a service would take the first primary for the only one.
    """
    files = dotenv_values(project / "config" / environment / ".env")["COMPOSE_FILE"].split(":")
    assert [file for file in files if file in FAILOVER] == ([] if environment == "dev" else FAILOVER)
    other = [file for file in files if file not in FAILOVER]
    if environment == "dev":
        other += FAILOVER
    file = ("--file=" + each for each in other)
    options = (*file, "config", "--format", "json")
    sentinels = compose.OPTIONAL_SETTINGS["REDIS_SENTINELS"]
    if environment == "dev":
        assert "set REDIS_SENTINELS in the .env file" in compose.config(project, environment, *options).stderr
    done = compose.config(project, environment, *options, REDIS_SENTINELS=sentinels if environment == "dev" else "")
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    assert ("etcd" in services) == (environment == "dev")
    assert ("build" in services["postgres-primary"]) == (environment == "dev")


@pytest.mark.parametrize(
    "parts", [*itertools.product((False, True), repeat=4)], ids=lambda parts: "".join(map(str, map(int, parts)))
)
def test_every_part_may_be_left_out(project: Path, parts: tuple[bool, ...], tmp_path: Path) -> None:
    """A part is there when COMPOSE_FILE names its file: beside one small service, each combination resolves."""
    own = tmp_path / "docker-compose.services.yml"
    own.write_text("services: {hello: {image: hello}}\n", encoding="utf-8")
    names = ("postgres", "redis", "rabbitmq", "monitoring")
    files = [f"docker-compose.{name}.yml" for name, there in zip(names, parts, strict=True) if there]
    switches = dict.fromkeys(SWITCHES, str(parts[-1]).lower())
    settings = {"COMPOSE_FILE": ":".join(["docker-compose.yml", *files, str(own)]), **switches}
    # What is switched off must resolve too: secrets are looked for in all of it.
    assert compose.config(project, "prod", "--profile", "*", "config", "--quiet", **settings).stderr == ""
    done = compose.config(project, "prod", "config", "--format", "json", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    services = json.loads(done.stdout)["services"]
    there = {name for name in names[:3] if any(service.split("-")[0] == name for service in services)}
    assert there == {name for name, wanted in zip(names[:3], parts, strict=False) if wanted}
    assert any("exporter" in service for service in services) == parts[-1]


def test_a_mirror_has_every_image_under_the_name_that_docker_hub_gives_it(project: Path) -> None:
    """Official ones as `library/NAME`: Docker Hub knows them without as well, a pull-through cache does not."""
    settings = compose.OPTIONAL_SETTINGS | {
        "REGISTRY_MIRROR": "mirror.example/hub/",
        "COMPOSE_FILE": ":".join(compose.all_files(project, "prod")),
    }
    done = compose.config(project, "prod", "--profile", "*", "config", "--format", "json", **settings)
    services = json.loads(done.stdout)["services"].values()
    images = {service["image"] for service in services if "build" not in service}
    bases = {
        value for each in services for key, value in each.get("build", {}).get("args", {}).items() if "IMAGE" in key
    }
    elsewhere = {image for image in images | bases if image.startswith("quay.io/")}
    assert len(images | bases) > len(elsewhere) > 0
    assert not [name for name in images | bases - elsewhere if not re.match(r"mirror\.example/hub/[^/]+/[^/]+:", name)]


# -- each service -----------------------------------------------------------------------------------------------------


@each_service
def test_health_check(service: dict[str, Any], name: str) -> None:
    check = service.get("healthcheck", {"disable": True})
    if name in NO_HEALTH_CHECK:
        assert check.get("disable") is True
        return
    assert check.get("disable") is not True and check["test"] != ["NONE"]
    assert compose.seconds(check["interval"]) <= 30
    assert compose.seconds(check["timeout"]) <= 10
    # Polled often while it starts, so that nothing waits for a whole interval.
    assert compose.seconds(check["start_interval"]) <= 2
    assert compose.seconds(check["start_period"]) > 0


@each_service
def test_limits(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert int(limits["memory"]) >= 16 * 2**20
    assert 0 < float(limits["cpus"]) <= 16
    assert 0 < int(limits.get("pids") or service["pids_limit"]) <= 4096


@each_service
def test_restart_policy(service: dict[str, Any], name: str) -> None:
    assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped")


@each_service
def test_logs_are_rotated_and_labelled(service: dict[str, Any]) -> None:
    logging = service["logging"]
    assert logging["driver"] == "json-file"
    assert logging["options"]["max-size"] and int(logging["options"]["max-file"]) >= 2
    assert "com.docker.compose.service" in logging["options"]["labels"]


@each_service
def test_least_privilege(service: dict[str, Any], name: str) -> None:
    assert not service.get("privileged")
    assert service["cap_drop"] == ["ALL"]
    assert set(service.get("cap_add", [])) == CAPABILITIES.get(name, set())
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("read_only") is True or name in WRITABLE
    assert not {"pid", "ipc", "network_mode", "userns_mode", "devices"} & service.keys()
    user = str(service["user"]).split(":")[0]
    assert user.isdigit(), "a number: a name means what the image says it means"
    assert (user == "0") == (name in ROOT)


@each_service
def test_nobody_holds_the_engine(service: dict[str, Any], name: str) -> None:
    """But the one that lets nothing pass but four requests about jobs, and that only the scheduler reaches."""
    sockets = [volume["source"] for volume in service.get("volumes", []) if "docker.sock" in volume.get("source", "")]
    assert bool(sockets) == (name == PROXY)
    assert ("jobs" in service["networks"]) == (name in {PROXY, "scheduler"})
    if name == PROXY:
        assert [*service["networks"]] == ["jobs"]


@each_service
def test_files_of_the_host_are_read_only(service: dict[str, Any], name: str) -> None:
    assert [
        volume["target"]
        for volume in service.get("volumes", [])
        if volume["type"] == "bind" and not volume.get("read_only")
    ] == ([HOST_FOLDERS[name]] if name in HOST_FOLDERS else [])


@each_service
def test_image_is_pinned(service: dict[str, Any], name: str) -> None:
    image = service["image"]
    tag = image.rpartition("/")[2].partition(":")[2]
    assert tag not in {"", "latest", "stable", "edge", "main", "master"}
    if name in OURS:
        assert service["build"]["target"] in {"dev", "production"}
    elif "build" in service:
        assert service["labels"].get("ops.stateful") == STATEFUL.get(name)
        assert name in {*STATEFUL, *BACKUP, "scheduler"}
        bases = [value for key, value in service["build"]["args"].items() if key.endswith("_IMAGE")]
        assert len(bases) == (2 if name in BACKUP else 1)
        assert all(re.search(r":v?\d+\.\d+", base) for base in bases)
    else:
        assert "build" not in service
        assert re.search(r"\d+\.\d+", tag), f"{image}: a tag that moves with a major release is not pinned"


@each_environment
def test_environments_but_dev_run_what_is_built_for_production(model: compose.Model, environment: str) -> None:
    targets = {service["build"]["target"] for name, service in model["services"].items() if name in OURS}
    assert targets <= ({"dev", "production"} if environment == "dev" else {"production"})


@each_environment
def test_who_sees_the_host_shares_its_user_with_nobody(model: compose.Model, project: Path) -> None:
    """Through /proc of the host a process reads memory, environment and secrets of every other one of the same user."""
    users: dict[str, set[str]] = {}
    for name, service in model["services"].items():
        # The proxy is root as well, and sees of the host its socket: no processes, and nobody's files. A backup begins
        # as root, and has become another user before it reads a secret.
        if name not in {PROXY, "backup"}:
            users.setdefault(str(service["user"]).split(":")[0], set()).add(name)
    for name, service in model["services"].items():
        binds = [volume["source"] for volume in service.get("volumes", []) if volume["type"] == "bind"]
        if name != PROXY and any(not Path(source).is_relative_to(project) for source in binds):
            assert users[str(service["user"]).split(":")[0]] == {name}


@each_environment
def test_users_with_different_secrets_are_different(model: compose.Model) -> None:
    """Where an image allows it; the exceptions are named in SHARED_USERS."""
    users: dict[str, set[frozenset[str]]] = {}
    for service in model["services"].values():
        secrets = frozenset(secret["source"] for secret in service.get("secrets", []))
        users.setdefault(str(service["user"]).split(":")[0], set()).add(secrets)
    assert {user for user, secrets in users.items() if len(secrets) > 1} <= SHARED_USERS.keys()


@each_service
def test_only_nginx_faces_the_world(service: dict[str, Any], name: str, environment: str) -> None:
    for port in service.get("ports", []):
        loopback = port.get("host_ip") in {"127.0.0.1", "::1"}
        assert loopback or (name == "nginx" and environment != "dev"), port


def test_production_is_reachable(project: Path) -> None:
    ports = compose.resolve(project, "prod")["services"]["nginx"]["ports"]
    assert {(port.get("host_ip", "0.0.0.0"), port["published"]) for port in ports} == {
        ("0.0.0.0", "80"),
        ("0.0.0.0", "443"),
    }


@each_service
def test_it_may_finish_before_it_is_killed(service: dict[str, Any], name: str, project: Path, environment: str) -> None:
    grace = compose.seconds(service["stop_grace_period"])
    drain = float(dotenv_values(project / "config" / environment / ".env")["DRAIN_SECONDS"] or 0)
    assert grace > (drain if name in OURS - ONE_SHOT | {"nginx"} else 0)


@each_service
def test_dependencies_are_waited_for(service: dict[str, Any], name: str) -> None:
    """Healthy, not merely started; and one that can end is waited for until it has."""
    for other, dependency in service.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
        if (name in OURS and other in MAY_COME_LATER) or (name, other) in WAITS_BY_ITSELF:
            wanted = "service_started"
        assert dependency["condition"] == wanted, other


@each_service
def test_profile_is_that_of_its_tier(service: dict[str, Any], name: str) -> None:
    tiers = {
        "kibana": "kibana-true-true-true",
        "grafana": "dashboards-true-true",
        "elasticsearch": "logging-true-true",
        "elasticsearch-setup": "logging-true-true",
        "otel-collector": "logging-true-true",
    }
    # What reads the metrics of a part is in the part's own file, and leaves with it.
    watches = SERVICES[name] == "docker-compose.monitoring.yml" or "-exporter" in name
    expected = tiers.get(name, "monitoring-true") if watches else None
    assert service.get("profiles", []) == ([expected] if expected else [])
    # the deploy of the site does not fail with what only watches it, and knows it by this label
    assert ((service.get("labels") or {}).get("ops.tier") == "monitoring") == bool(expected)


@each_service
def test_every_part_of_the_stack_says_that_it_is_one(service: dict[str, Any], name: str) -> None:
    """Whatever does not is taken for the owner's, and rolled out."""
    said = service.get("labels") or {}
    assert (said.keys() & {"ops.stateful", "ops.tier", "ops.part"} == set()) == (name in OURS)
    data = "ops.stateful" in said or said.get("ops.tier") == "data"
    near = {"database", "consensus", "managed"} & service["networks"].keys()
    assert (said.get("ops.part") == "backup") == (name in BACKUP)
    assert data == bool(near and name not in OURS | BACKUP and said.get("ops.tier") != "monitoring")
    assert ("ops.job" in said) == (name in OURS & ONE_SHOT)


@each_service
def test_mounted_scripts_need_no_execute_bit(service: dict[str, Any]) -> None:
    """Their interpreter is named: the mode of a file in somebody's checkout must not decide whether it starts."""
    mounted = tuple(volume["target"] for volume in service.get("volumes", []) if volume["type"] == "bind")
    programs = [service.get("entrypoint"), service.get("healthcheck", {}).get("test", [])[1:]]
    assert not [argv for argv in programs if argv and argv[0].startswith(tuple(f"{folder}/" for folder in mounted))]


@each_service
def test_health_checks_ask_past_a_proxy(service: dict[str, Any]) -> None:
    """Docker's client puts the proxy of its settings into every container; one for the way out knows no 127.0.0.1."""
    test = service.get("healthcheck", {}).get("test") or []
    flags = {"curl": ["--noproxy", "*"], "wget": ["-Y", "off"]}
    for program, (flag, value) in flags.items():
        if program in test:
            assert test[test.index(flag) + 1] == value


@pytest.mark.parametrize("name", ["grafana", "otel-collector"])
@each_environment
def test_what_heeds_a_proxy_and_asks_this_stack_alone_is_kept_from_it(model: compose.Model, name: str) -> None:
    assert model["services"][name]["environment"]["NO_PROXY"] == "*"


# -- variants of the edge: files that an environment may name --------------------------------------------------------


def variant(project: Path, environment: str, name: str) -> compose.Model:
    """The resolved configuration with one more Compose file at the end."""
    files = [*compose.all_files(project, environment), name]
    settings = compose.OPTIONAL_SETTINGS | {"COMPOSE_FILE": ":".join(files)}
    done = compose.config(project, environment, "--profile", "*", "config", "--format", "json", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def published(model: compose.Model) -> set[tuple[str | None, str, int]]:
    return {(port.get("host_ip"), port["published"], port["target"]) for port in model["services"]["nginx"]["ports"]}


def test_the_proxy_protocol_is_one_setting(project: Path) -> None:
    """It replaces the ports: with both, whoever leaves the protocol out would be let in."""
    done = compose.config(project, "prod", "config", "--format", "json", PROXY_PROTOCOL="on")
    assert published(json.loads(done.stdout)) == {("0.0.0.0", "80", 18080), ("0.0.0.0", "443", 18443)}


def test_ipv6_is_one_setting(project: Path) -> None:
    model = variant(project, "prod", "docker-compose.ipv6.yml")
    assert published(model) == {
        *(("0.0.0.0", "80", 8080), ("0.0.0.0", "443", 8443)),
        *(("::", "80", 8080), ("::", "443", 8443)),
    }
    assert model["networks"]["frontend"]["enable_ipv6"] is True


def test_http_3_is_one_setting(project: Path) -> None:
    """A port of its own kind beside the others, and nothing else."""
    added = [
        (port["host_ip"], port["published"], port["target"])
        for port in variant(project, "prod", "docker-compose.http3.yml")["services"]["nginx"]["ports"]
        if port["protocol"] == "udp"
    ]
    assert added == [("0.0.0.0", "443", 8443)]


@each_environment
def test_every_network_can_have_a_subnet_of_choice(project: Path, environment: str) -> None:
    """One that was forgotten would still take an address range of the engine's."""
    networks = variant(project, environment, "docker-compose.subnets.yml")["networks"].values()
    subnets = [network.get("ipam", {}).get("config", [{}])[0].get("subnet", "") for network in networks]
    prefix = dotenv_values(project / "config" / environment / ".env")["SUBNET_PREFIX"]
    assert all(subnet.startswith(f"{prefix}.") for subnet in subnets), subnets
    assert len(set(subnets)) == len(subnets)


def test_environments_have_subnets_of_their_own(project: Path) -> None:
    prefixes = {dotenv_values(project / "config" / env / ".env")["SUBNET_PREFIX"] for env in template.ENVIRONMENTS}
    assert len(prefixes) == len(template.ENVIRONMENTS)


# -- secrets ----------------------------------------------------------------------------------------------------------


@each_environment
def test_secrets_are_files_of_this_environment(model: compose.Model, project: Path, environment: str) -> None:
    folder = project / "config" / environment / "secrets"
    mounted = {secret["source"] for service in model["services"].values() for secret in service.get("secrets", [])}
    for name in mounted:
        assert model["secrets"][name]["file"] == str(folder / name)
    # The one that is not mounted is for builds: certificate authorities, which are no secret.
    assert model["secrets"].keys() - mounted <= {"ca_bundle"}


@each_environment
def test_every_secret_has_the_readers_that_the_catalogue_names(
    model: compose.Model, catalogue: ModuleType, environment: str
) -> None:
    """Both ways: nobody reads a secret that is not meant for it, and nobody goes without one."""
    declared = {(reader, secret.name) for secret in catalogue.CATALOGUE for reader in secret.readers}
    names = {secret.name for secret in catalogue.CATALOGUE}
    mounted = {
        (name, secret["source"])
        for name, service in model["services"].items()
        for secret in service.get("secrets", [])
        if secret["source"] in names
    }
    shared = {secret.name for secret in catalogue.CATALOGUE if secret.shared}
    assert {each for each in mounted if each[1] not in shared} == {each for each in declared if each[1] not in shared}
    assert declared <= mounted, "those of the stack need theirs; a service of the team may read what is shared"


@each_service
def test_no_secret_in_the_environment(service: dict[str, Any]) -> None:
    """`docker inspect` and crash reports show the environment: it may name a file, never hold a value."""
    for key, value in (service.get("environment") or {}).items():
        text = str(value or "")
        assert not re.search(r"://[^/\s]*:[^/\s]*@", text), f"{key} holds a password in a URL"
        if re.search(r"PASSWORD|PASSWD|SECRET|TOKEN|PRIVATE|CREDENTIAL|_KEY$", key):
            # A switch about secrets is none.
            assert text in {"", "true", "false"} or text.startswith("/run/secrets"), f"{key} holds a value"


@each_service
def test_no_secret_on_the_command_line(service: dict[str, Any]) -> None:
    line = json.dumps([service.get("command"), service.get("entrypoint"), service.get("healthcheck", {}).get("test")])
    assert not re.search(r"(password|secret|token)=[^\"\s/$]", line, re.IGNORECASE)


@each_service
def test_secrets_folder_is_not_mounted(service: dict[str, Any], name: str) -> None:
    """Only nginx and backup see a part of it: the folder of the certificate. BACKUP_SECRETS is empty here."""
    mounts = [volume["source"] for volume in service.get("volumes", []) if "/secrets" in volume.get("source", "")]
    assert [Path(mount).name for mount in mounts] == (["tls"] if name in {"nginx", "backup"} else [])
