"""Connections that outlive a request, through a rollout: open ones are waited for, and then told to connect again."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .project import Project, eventually

pytestmark = [pytest.mark.story, pytest.mark.fault]

# A service that was not made for this stack: another program, in an image of others.
ECHO = """
  echo:
    extends: {file: infrastructure/service.yml, service: hardened}
    image: ${PYTHON_IMAGE}
    command: [python, /srv/echo.py]
    init: true
    user: "10001:10001"
    labels:
      ops.port: 8000
      ops.route: /echo/
      ops.ready: /ready
    environment:
      HOST: 0.0.0.0
      VERSION: ${ECHO_VERSION:-1}
    volumes: ["./services/echo:/srv:ro"]
    networks:
      serving: {aliases: [echo.serving]}
      backend:
    healthcheck:
      test: [CMD, python, -c, "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/')"]
      start_period: 20s
      start_interval: 1s
    deploy:
      resources: {limits: {cpus: "0.5", memory: 64m, pids: 64}}
"""


@pytest.fixture(scope="module")
def project(dev_stack: Project) -> Project:
    """The shared stack with one more service, which holds connections open."""
    (dev_stack.folder / "services/echo").mkdir()
    shutil.copy(Path(__file__).parents[1] / "echo.py", dev_stack.folder / "services/echo")
    services = dev_stack.folder / "docker-compose.services.yml"
    services.write_text(services.read_text().replace("\nservices:\n", f"\nservices:{ECHO}", 1))
    dev_stack.invoke("deploy")
    return dev_stack


@contextmanager
def asked(project: Project, path: str, **headers: str) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection by TLS with the first bytes of its answer."""
    url = urlsplit(project.url())
    trust = ssl.create_default_context(cafile=str(project.certificate_authority()))
    with closing(
        trust.wrap_socket(socket.create_connection((url.hostname, url.port), 10), server_hostname=url.hostname)
    ) as stream:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        stream.sendall(f"GET {path} HTTP/1.1\r\nHost: {url.netloc}\r\n{lines}\r\n".encode())
        yield stream, stream.recv(4096)


@contextmanager
def websocket(project: Project) -> Iterator[socket.socket]:
    """An open WebSocket, whose bytes come back."""
    key = base64.b64encode(os.urandom(16)).decode()
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13", "Sec_WebSocket_Key": key}
    with asked(project, "/echo/ws", **upgrade) as (stream, answer):
        assert answer.startswith(b"HTTP/1.1 101"), answer
        yield stream


def echoes(stream: socket.socket, word: bytes) -> bool:
    """Whether bytes come back."""
    stream.sendall(word)
    return stream.recv(1024) == word


def begun(project: Project, version: str, drain: str) -> tuple[subprocess.Popen[str], str]:
    """A deploy of another version that is draining the old containers."""
    project.set(ROLLOUT_DRAIN_SECONDS=drain)
    env = project.env_file()
    text = re.sub(r"\nECHO_VERSION=.*", "", env.read_text().rstrip())
    env.write_text(f"{text}\nECHO_VERSION={version}\n")
    return project.reach("draining", "deploy")


def test_what_is_still_open_at_the_limit_is_told_to_connect_again(project: Project) -> None:
    with websocket(project) as talk, asked(project, "/echo/events", Accept="text/event-stream") as (events, first):
        while b"data: 1" not in first:
            first += events.recv(4096)
        deploy, _ = begun(project, "2", drain="4")
        assert echoes(talk, b"in the middle of a rollout")
        said, _ = deploy.communicate(timeout=120)
        assert deploy.returncode == 0, said
        assert "echo: 2 requests are still open in the old containers after 4 s" in said
        # An end, so that a client knows.
        assert talk.recv(1024) == b""
        assert events.recv(4096) in {b"", b"0\r\n\r\n"}
    with websocket(project) as again:
        assert echoes(again, b"back")


def test_a_connection_that_ends_within_the_limit_ends_by_itself(project: Project) -> None:
    with websocket(project) as talk:
        deploy, _ = begun(project, "3", drain="90")
        with pytest.raises(subprocess.TimeoutExpired):
            deploy.wait(5)
        assert echoes(talk, b"still here")
    said, _ = deploy.communicate(timeout=60)
    assert deploy.returncode == 0, said
    assert "still open" not in said
    eventually(lambda: project.health()["healthy"], 30, "all is well again")
