"""Another environment: what differs in it, and what it must not share."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.adopt import environment
from ops.base import environments
from ops.base.errors import USAGE, OpsError
from ops.stack import model
from ops.stack.model import Port, Service, Stack


@pytest.fixture(autouse=True)
def _ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_is_free", lambda port: port != 8081)
    monkeypatch.setattr(model, "load", lambda env, **_options: Stack(env.project, {}, {"services": {}}))


def test_it_has_a_name_ports_and_a_host_of_its_own(project: Path) -> None:
    file = project / "config/staging/.env"
    text = file.read_text().replace("DOMAIN=localhost", "DOMAIN=staging.example.com")
    file.write_text(f"# Settings of staging.\n{text}SUBNET_PREFIX=10.80\nSMTP_PORT=25\n")
    (project / "config/staging/secrets/KEY").write_text("secret")
    environment.add(environments.load("staging", project), "qa")
    made = environments.load("qa", project)
    assert made.values["COMPOSE_PROJECT_NAME"] == "acme-qa"
    assert made.values["DOMAIN"] == "qa.example.com"
    # 8080 and 8443 are those of the others, and 8081 is taken on this machine.
    assert (made.values["WEB_PORT"], made.values["SSL_PORT"]) == ("8082", "8444")
    assert (made.values["SUBNET_PREFIX"], made.values["SMTP_PORT"]) == ("10.81", "25")
    assert (project / "config/qa/.env").read_text().startswith("# Settings of qa.\n")
    assert [path.name for path in (project / "config/qa/secrets").iterdir()] == [".gitkeep"]


@pytest.mark.parametrize("name", ["QA", "q a", "../x", "production", "", "a" * 21])
def test_names_that_cannot_be_meant(env, name: str) -> None:
    with pytest.raises(OpsError, match="cannot be the name of an environment") as raised:
        environment.add(env, name)
    assert raised.value.code == USAGE


def test_one_that_is_there_stays(env) -> None:
    with pytest.raises(OpsError, match="config/prod exists already"):
        environment.add(env, "prod")


def test_what_would_be_shared_is_refused_and_nothing_is_left(env, monkeypatch: pytest.MonkeyPatch) -> None:
    document = {"services": {}, "volumes": {"data": {"name": "everybodys"}}}
    monkeypatch.setattr(model, "load", lambda env, **_options: Stack(env.project, {}, document))
    with pytest.raises(OpsError, match="qa and dev would share the volume everybodys"):
        environment.add(env, "qa")
    assert not (env.project_dir / "config/qa").exists()


def test_what_two_environments_share() -> None:
    one = Stack(
        "a",
        {"web": Service("web", "x", ports=(Port("", 80), Port("", 443, "udp")))},
        {"services": {"web": {"container_name": "web"}}, "networks": {"n": {"name": "shared"}}},
    )
    other = Stack("b", {"web": Service("web", "x", ports=(Port("127.0.0.1", 80), Port("", 443)))}, one.document)
    assert environment.shared(one, other) == ["the network shared", "the container web", "the port 80"]


@pytest.mark.parametrize(
    ("domain", "name"),
    [("staging.example.com", "qa.example.com"), ("example.com", "qa.example.com"), ("localhost", "localhost")],
)
def test_host_names(domain: str, name: str) -> None:
    assert environment.domain_of(domain, "staging", "qa") == name
