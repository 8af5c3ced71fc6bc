"""Each tool judges its own configuration, in the image that will run it. Needs an engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import compose, container, template
from tests.container import docker

Judge = Callable[..., str]

each_environment = pytest.mark.parametrize("environment", template.ENVIRONMENTS)

# What a service's start script does before it becomes the server: it writes the parts that depend on the environment.
PRELUDE = "sed '/^exec /,$d' {script} > /tmp/prelude.sh && . /tmp/prelude.sh && {verdict}"


@pytest.fixture
def judge(engine: None, project: Path, certificate: Path, tmp_path: Path) -> Judge:
    """Run a program in a service's image, with that service's user, mounts and settings, and without a network."""

    def judge(environment: str, name: str, *argv: str, entrypoint: str | None = None) -> str:
        service = compose.resolve(project, environment)["services"][name]
        if docker("image", "inspect", service["image"]).returncode != 0:
            pytest.skip(f"{service['image']} is not on this engine")
        secrets = tmp_path / "secrets"
        secrets.mkdir()
        for secret in service.get("secrets", []):
            (secrets / secret["source"]).write_text("x" * 43, encoding="utf-8")
        secrets.chmod(0o755)
        rendered = tmp_path / "rendered"
        rendered.mkdir()
        rendered.chmod(0o755)
        for file, text in compose.rendered(project, environment).items():
            (rendered / file).write_text(text, encoding="utf-8")
        replaced = {"/etc/nginx/tls": certificate, "/etc/nginx/routes": rendered, "/etc/prometheus-services": rendered}
        options = container.options(service, project, secrets, replaced)
        options += [f"--entrypoint={entrypoint}"] if entrypoint else []
        done = docker("run", "--rm", *options, service["image"], *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return judge


@each_environment
def test_nginx(judge: Judge, environment: str) -> None:
    script = PRELUDE.format(script="/etc/nginx/stack/start.sh", verdict="nginx -t -c /etc/nginx/env/nginx.conf")
    said = judge(environment, "nginx", "-c", script, entrypoint="/bin/sh")
    assert "[warn]" not in said


@each_environment
def test_prometheus(judge: Judge, environment: str) -> None:
    verdict = (
        "promtool check config /etc/prometheus/prometheus.yml"
        " && promtool check rules --lint=all /run/prometheus/*.yml /etc/prometheus-services/expected.yml"
    )
    script = PRELUDE.format(script="/etc/prometheus/start.sh", verdict=verdict)
    judge(environment, "prometheus", "-c", script, entrypoint="/bin/sh")


def test_alerts_fire_when_they_should(judge: Judge, project: Path) -> None:
    names = sorted(path.name for path in (project / "monitoring/prometheus/tests").glob("*.yml"))
    assert names
    judge(
        "prod",
        "prometheus",
        "test",
        "rules",
        *(f"/etc/prometheus/tests/{name}" for name in names),
        entrypoint="promtool",
    )


@each_environment
def test_alertmanager(judge: Judge, environment: str) -> None:
    judge(environment, "alertmanager", "/etc/alertmanager/start.sh", "check", entrypoint="/bin/sh")


def test_blackbox_exporter(judge: Judge) -> None:
    judge("prod", "blackbox-exporter", "--config.file=/etc/blackbox-exporter/blackbox.yml", "--config.check")


@each_environment
def test_collector(judge: Judge, environment: str) -> None:
    judge(environment, "otel-collector", "validate", "--config=/etc/otel-collector/config.yml")


def test_monitoring_proxy(judge: Judge) -> None:
    said = judge("prod", "monitoring-proxy", "-t", "-c", "/etc/nginx/stack/nginx.conf", entrypoint="nginx")
    assert "[warn]" not in said
