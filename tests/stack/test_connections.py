"""Who reaches whom, tried on running containers: from inside each one's network to every port of every other one.

What tests/connections.yml allows in prod connects and all else is refused. Attacks that worked on a flat network fail.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from .project import Project, docker
from .survey import PROBE, Container, Survey, expected, inside, python_image, running, survey, unknown_ports

pytestmark = [pytest.mark.story, pytest.mark.fault]

ENVIRONMENT = "prod"


@contextmanager
def joined(container: str, network: str) -> Iterator[None]:
    """A container on a network that is not its own."""
    docker("network", "connect", network, container)
    try:
        yield
    finally:
        docker("network", "disconnect", network, container)


def container_of(project: Project, service: str) -> Container:
    return next(each for each in running(project, ENVIRONMENT) if each.service == service)


@pytest.fixture(scope="module")
def surveyed(project: Project) -> Survey:
    """One survey for the tests that look at it."""
    return survey(project, ENVIRONMENT)


def test_prod_with_everything_that_this_machine_has(project: Project) -> None:
    """One replica of each service: more would only be the same again."""
    project.set(ENVIRONMENT, DASHBOARDS_ENABLED="false")
    replicas = [key for key in project.settings(ENVIRONMENT) if key.endswith("_REPLICAS")]
    project.set(ENVIRONMENT, **dict.fromkeys(replicas, "1"))
    project.invoke("secret-init", "--env", ENVIRONMENT)
    project.invoke("certificate", "--env", ENVIRONMENT, "--self-signed")
    project.invoke("deploy", "--env", ENVIRONMENT)


def test_every_open_port_is_in_the_matrix(surveyed: Survey) -> None:
    assert unknown_ports(surveyed) == {}


def test_what_is_allowed_connects_and_nothing_else(project: Project, surveyed: Survey) -> None:
    wanted = expected(project, ENVIRONMENT, surveyed)
    assert len(wanted) > 200
    assert sorted(map(str, surveyed.made - wanted)) == [], "connected, but not allowed by tests/connections.yml"
    assert sorted(map(str, wanted - surveyed.made)) == [], "allowed by tests/connections.yml, but refused"


def test_a_container_on_a_wrong_network_shows(project: Project, surveyed: Survey) -> None:
    """The control: the same survey sees what one network too many opens."""
    web = container_of(project, "web")
    with joined(web.id, f"{project.name(ENVIRONMENT)}_monitoring"):
        opened = {str(each) for each in survey(project, ENVIRONMENT).made - surveyed.made}
    assert {"web -> alertmanager:9093", "web -> redis-exporter:9121"} <= opened
    assert all("web" in each for each in opened), opened


# -- attacks ----------------------------------------------------------------------------------------------------------


def secret(project: Project, name: str) -> str:
    return (project.folder / "config" / ENVIRONMENT / "secrets" / name).read_text().strip()


def attack(project: Project, *urls: str) -> tuple[list[str], str]:
    """What exporters answer, and what they send to a server of the attacker, who sits where most of monitoring sits."""
    place = container_of(project, "monitoring-proxy")
    done = json.loads(
        inside(python_image(project, ENVIRONMENT), place.id, *urls, program=PROBE.with_name("attack_exporters.py"))
    )
    return done["answers"], done["received"]


@contextmanager
def careless_exporter(project: Project, service: str, *options: str, entrypoint: str) -> Iterator[str]:
    """The image of an exporter as an attacker would like it: with a password that it sends to any address."""
    image = json.loads(docker("inspect", container_of(project, service).id))[0]["Config"]["Image"]
    name = f"{project.name(ENVIRONMENT)}-careless-{service}"
    network = f"{project.name(ENVIRONMENT)}_monitoring"
    docker("run", "--detach", "--name", name, "--network", network, "--entrypoint", entrypoint, image, *options)
    try:
        yield name
    finally:
        docker("rm", "--force", name)


def test_redis_exporter_sends_its_password_to_known_addresses_only(project: Project) -> None:
    exporter = "http://redis-exporter.monitoring:9121/scrape?target="
    (known, strange, _), received = attack(
        project,
        f"{exporter}redis://redis-primary:6379",
        f"{exporter}redis://{{redis}}",
        f"{exporter}redis://x@{{redis}}",
    )
    assert "redis_up 1" in known
    assert "INFO" in received, f"it did not even connect: {strange}"
    assert secret(project, "REDIS_PASSWORD") not in received
    # The control: with one password for everybody the attack works.
    options = ("-c", "REDIS_PASSWORD=canary exec /redis_exporter --redis.addr=")
    with careless_exporter(project, "redis-exporter", *options, entrypoint="/bin/sh") as name:
        _, received = attack(project, f"http://{name}:9121/scrape?target=redis://{{redis}}")
    assert "canary" in received


def test_redis_exporter_shows_no_value_of_a_key(project: Project) -> None:
    cli = ("exec", container_of(project, "redis-primary").id, "sh", "/etc/redis/cli.sh")
    docker(*cli, "SET", "attack:private", "31415926535")
    asked = "http://redis-exporter.monitoring:9121/scrape?target=redis://redis-primary:6379&check-{}=attack:*"
    answers, _ = attack(project, asked.format("keys"), asked.format("single-keys").replace("*", "private"))
    docker(*cli, "DEL", "attack:private")
    assert "attack:private" in answers[0], "the exporter did not look at the key at all"
    assert not [answer for answer in answers if "31415926535" in answer or "3.1415926535e+10" in answer]


def test_postgres_exporter_has_no_password_for_an_address_of_a_request(project: Project) -> None:
    exporter = "http://postgres-exporter-primary.monitoring:9187"
    plain = "/postgres%3Fsslmode=disable"
    probes = [
        f"{exporter}/probe?target={{postgres}}{plain}",
        f"{exporter}/probe?target={{postgres}}{plain}&auth_module=metrics",
        f"{exporter}/probe?target={{postgres}}{plain}&auth_module=default",
        f"{exporter}/probe?target=metrics@{{postgres}}{plain}",
    ]
    answers, received = attack(project, f"{exporter}/metrics", *probes)
    assert "pg_up 1" in answers[0]
    assert "user" in received, f"it did not even try to log in: {answers[1:]}"
    assert secret(project, "METRICS_DB_PASSWORD") not in received
    # The control: with an auth module the attack works.
    options = "{type: userpass, userpass: {username: metrics, password: canary}, options: {sslmode: disable}}"
    module = f"echo 'auth_modules: {{metrics: {options}}}' > /tmp/c.yml"
    run = ("-c", f"{module}; exec /bin/postgres_exporter --config.file=/tmp/c.yml")
    with careless_exporter(project, "postgres-exporter-primary", *run, entrypoint="/bin/sh") as name:
        _, received = attack(project, f"http://{name}:9187/probe?auth_module=metrics&target={{postgres}}/postgres")
    assert "canary" in received


# What a process may read of all others by way of the host's /proc; its own kind is left out.
READ_OTHERS = """
for process in /host/proc/[0-9]*; do
    [ "$(stat -c %u "$process")" != "$(id -u)" ] || continue
    for file in "$process"/environ "$process"/root/run/secrets/*; do
        if cat "$file" >/dev/null 2>&1; then echo "$file"; fi
    done
done
"""


def test_node_exporter_reads_nothing_of_other_containers(project: Project) -> None:
    exporter = container_of(project, "node-exporter").id
    assert docker("exec", exporter, "sh", "-c", READ_OTHERS) == ""
    # The control: as the user of another container it would.
    other = container_of(project, "alertmanager").id
    user = docker("inspect", "--format", "{{.Config.User}}", other)
    pid = docker("inspect", "--format", "{{.State.Pid}}", other)
    read = ("cat", f"/host/proc/{pid}/root/run/secrets/SMTP_PASSWORD")
    assert docker("exec", "--user", user, exporter, *read, check=False) == secret(project, "SMTP_PASSWORD")
    assert docker("exec", exporter, *read, check=False) == ""


def test_no_process_of_monitoring_has_a_secret_in_its_environment(project: Project) -> None:
    values = {
        path.name: path.read_text().strip()
        for path in (project.folder / "config/prod/secrets").iterdir()
        if path.is_file()
    }
    tier = docker("ps", "-q", "--filter", "label=ops.tier=monitoring", "--filter", project._label(ENVIRONMENT)).split()
    assert len(tier) > 8
    for container in tier:
        user = docker("inspect", "--format", "{{.Config.User}}", container)
        show = ("--pid", f"container:{container}", "--cap-drop", "ALL", "--user", user, "--network", "none")
        environ = docker(
            "run", "--rm", *show, "--entrypoint", "cat", python_image(project, ENVIRONMENT), "/proc/1/environ"
        )
        assert environ
        assert [name for name, value in values.items() if len(value) > 8 and value in environ] == [], container


@pytest.mark.parametrize("page", ["PROMETHEUS_PORT", "ALERTMANAGER_PORT"])
def test_a_web_page_of_another_site_reaches_nothing(project: Project, page: str) -> None:
    """A browser has other sites open, which call 127.0.0.1 as it is or by a name of theirs (DNS rebinding)."""
    port = project.settings(ENVIRONMENT)[page]
    url = f"http://127.0.0.1:{port}/{'api/v1/query?query=up' if page == 'PROMETHEUS_PORT' else 'api/v2/silences'}"
    assert httpx.get(url).status_code == 200
    assert (
        httpx.get(url, headers={"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}).status_code == 200
    )
    assert httpx.get(url, headers={"Host": f"evil.example:{port}"}).status_code == 421
    foreign = httpx.get(url, headers={"Origin": "https://evil.example"})
    assert (foreign.status_code, foreign.headers.get("Access-Control-Allow-Origin")) == (403, None)
    assert httpx.post(url, headers={"Origin": "null"}, json={}).status_code == 403
    own = httpx.get(url, headers={"Origin": f"http://127.0.0.1:{port}"})
    assert (own.status_code, own.headers.get("Access-Control-Allow-Origin")) == (200, None)
