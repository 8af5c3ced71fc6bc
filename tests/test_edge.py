"""nginx with the stack's configuration in front of a service that says what reached it. Needs an engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import compose, container, http3, template
from tests.conftest import self_signed
from tests.container import docker

DOMAIN = {"dev": "localhost", "staging": "staging.acme-stack.example.com", "prod": "acme-stack.example.com"}
STRANGER = "203.0.113.9"
PORTS = (8080, 8443, 18080, 18443)
# A service on a host name of its own, that others call as well.
SHOP_HOST = "shop.acme-shop.example"
SHOP = {
    "image": "acme/shop:1",
    "labels": {"ops.port": "3000", "ops.ready": "tcp", "ops.host": SHOP_HOST, "ops.internal": "true"},
    "networks": {"serving": {"aliases": ["shop.serving"]}},
}
INTERNALS = ("X-Served-By", "X-Database", "X-Cache")


@dataclass(frozen=True)
class Answer:
    """What came back; `said` is what the service got, when it answered."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass(frozen=True)
class Edge:
    """A running nginx, and the ports of this machine that lead to its own. quic: the one for HTTP/3."""

    name: str
    domain: str
    ports: dict[int, int]
    quic: int = 0

    @contextlib.contextmanager
    def connect(self, port: int, sni: str | None = None, first: bytes = b"") -> Iterator[socket.socket]:
        """A connection, by TLS where the port has it. first: bytes before everything else."""
        with socket.create_connection(("127.0.0.1", self.ports[port]), 20) as plain:
            plain.sendall(first)
            if port in (8080, 18080):
                yield plain
                return
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain, server_hostname=sni or None) as secured:
                yield secured

    def ask(
        self,
        target: str,
        *,
        method: str = "GET",
        port: int = 8443,
        sni: str | None = None,
        first: bytes = b"",
        **headers: str,
    ) -> Answer:
        """One request. sni: the name in the TLS handshake, the domain when left out, none when empty."""
        lines = {"Host": self.domain, "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        with self.connect(port, self.domain if sni is None else sni, first) as connection:
            head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
            connection.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
            response = http.client.HTTPResponse(connection, method=method)
            response.begin()
            return Answer(response.status, response.headers, response.read())

    def refuses(self, request: str, count: int, **headers: str) -> bool:
        """Whether the same request, sent so many times at once, is answered with 429 in the end."""
        lines = {"Host": self.domain} | {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with self.connect(8443, self.domain) as connection:
            connection.sendall(f"{request} HTTP/1.1\r\n{head}\r\n".encode() * count)
            received = b""
            while b" 429 " not in received and (data := connection.recv(65536)):
                received += data
        return b" 429 " in received

    def log(self) -> list[str]:
        done = docker("logs", self.name)
        return (done.stdout + done.stderr).splitlines()


Start = Callable[..., Edge]


@pytest.fixture(scope="module")
def start(engine: None, project: Path, certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start nginx of an environment with some settings changed; the same ones give the same nginx."""
    started: dict[tuple[object, ...], Edge] = {}
    containers: list[str] = []

    def run(*options: str) -> str:
        done = docker("run", "--detach", *options)
        assert done.returncode == 0, done.stderr
        containers.append(done.stdout.strip())
        return containers[-1]

    def start(environment: str = "prod", **settings: str) -> Edge:
        key = (environment, *sorted(settings.items()))
        if key not in started:
            model = compose.resolve(project, environment)["services"]
            for image in (model["nginx"]["image"], python := python_image(project)):
                if docker("image", "inspect", image).returncode != 0:
                    pytest.skip(f"{image} is not on this engine")
            folder = tmp_path_factory.mktemp("secrets")
            options = container.options(model["nginx"], project, folder, {"/etc/nginx/tls": certificate}, "bridge")
            options += [f"--volume={routes(project, environment, tmp_path_factory)}:/etc/nginx/routes:ro"]
            options += [f"--env={name}={value}" for name, value in settings.items()]
            options += [f"--publish=127.0.0.1::{port}" for port in (*PORTS, "8443/udp")]
            entrypoint, *rest = model["nginx"]["entrypoint"]
            nginx = run(*options, f"--entrypoint={entrypoint}", model["nginx"]["image"], *rest)
            echo = f"--volume={Path(__file__).with_name('echo.py')}:/echo.py:ro"
            run(f"--network=container:{nginx}", "--user=65534", echo, python, "python", "/echo.py")
            eventually(lambda: docker("exec", nginx, "test", "-e", "/run/nginx/nginx.pid").returncode == 0, nginx)
            shown = (docker("port", nginx, str(port)).stdout.rpartition(":")[2] for port in PORTS)
            quic = docker("port", nginx, "8443/udp").stdout.rpartition(":")[2]
            ports = {port: int(number) for port, number in zip(PORTS, shown, strict=True)}
            edge = Edge(nginx, DOMAIN[environment], ports, int(quic))
            eventually(lambda: edge.ask("/").status == 200, nginx)
            started[key] = edge
        return started[key]

    yield start
    docker("rm", "--force", "--volumes", *reversed(containers))


def routes(project: Path, environment: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the routes that a deploy would write, all of them to the service beside nginx."""
    folder = tmp_path_factory.mktemp("routes")
    folder.chmod(0o755)
    for name, text in compose.rendered(project, environment, {"shop": SHOP}).items():
        text = re.sub(r"server haproxy:8100 resolve [^;]*;", "server 127.0.0.1:8000;", text)
        (folder / name).write_text(re.sub(r"server \S+ resolve backup;", "", text))
    return folder


def python_image(project: Path) -> str:
    return compose.resolve(project, "prod")["services"]["web"]["build"]["args"]["PYTHON_IMAGE"]


def eventually(holds: Callable[[], bool], name: str) -> None:
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if holds():
                return
        logs = docker("logs", "--tail=20", name)
        assert time.monotonic() < end, logs.stdout + logs.stderr
        time.sleep(0.1)


def proxy(address: str) -> bytes:
    """The line of the PROXY protocol by which a balancer names the client."""
    return f"PROXY TCP4 {address} 192.0.2.1 50000 443\r\n".encode()


# -- host names of services, and calls between them -------------------------------------------------------------------


def test_a_service_has_a_host_name_of_its_own(start: Start) -> None:
    edge = start()
    answer = edge.ask("/metrics-of-sales?x=1", sni=SHOP_HOST, Host=SHOP_HOST)
    assert answer.said["request"] == "GET /metrics-of-sales?x=1 HTTP/1.1"
    assert (answer.said["headers"]["x-pool"], answer.said["headers"]["host"]) == ("shop", SHOP_HOST)
    assert answer.headers["Strict-Transport-Security"]
    # the routes of the domain are not there, nor is what only Prometheus may see
    assert edge.ask("/api/v1/items", sni=SHOP_HOST, Host=SHOP_HOST).said["headers"]["x-pool"] == "shop"
    assert edge.ask("/metrics", sni=SHOP_HOST, Host=SHOP_HOST).status == 404
    assert edge.ask("/").said["headers"]["x-pool"] == "web"
    redirect = edge.ask("/a?b", port=8080, Host=SHOP_HOST)
    assert (redirect.status, redirect.headers["Location"]) == (308, f"https://{SHOP_HOST}/a?b")


def test_other_names_are_still_refused(start: Start) -> None:
    edge = start(TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16")
    for name in (f"x.{SHOP_HOST}", "acme-shop.example"):
        assert edge.ask("/", sni="", Host=name).status == 421
        assert edge.ask("/", port=8080, Host=name).status == 421


@pytest.mark.parametrize(
    ("path", "reached"),
    [
        ("/shop/", "/"),
        ("/shop/v1/items?a=1&b=%20", "/v1/items?a=1&b=%20"),
        ("/shop/a%2Fb//c", "/a%2Fb//c"),
        ("/shop/shop/x", "/shop/x"),
    ],
)
def test_services_call_each_other_by_a_path_that_is_taken_off(start: Start, path: str, reached: str) -> None:
    done = docker("exec", start().name, "curl", "-sS", "-H", "Host: internal:8081", f"http://127.0.0.1:8081{path}")
    said = json.loads(done.stdout)
    assert said["request"] == f"GET {reached} HTTP/1.1"
    assert said["headers"]["x-pool"] == "shop"


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [("internal:8081", "/web/", 404), ("internal", "/", 404), ("api.internal", "/shop/", 421)],
)
def test_what_is_no_call_to_a_service_is_refused(start: Start, host: str, path: str, status: int) -> None:
    """web has no label ops.internal, so no service reaches it here."""
    options = ("-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Host: {host}")
    assert docker("exec", start().name, "curl", *options, f"http://127.0.0.1:8081{path}").stdout == str(status)


# -- whose address counts ---------------------------------------------------------------------------------------------


def test_a_client_cannot_choose_its_address(start: Start) -> None:
    headers = (
        start().ask("/", X_Forwarded_For=STRANGER, X_Real_IP=STRANGER, Forwarded=f"for={STRANGER}").said["headers"]
    )
    assert STRANGER not in json.dumps(headers)
    assert "forwarded" not in headers


@pytest.mark.parametrize(
    ("header", "address"), [(STRANGER, STRANGER), (f"198.51.100.66, {STRANGER}", STRANGER), ("nonsense", None)]
)
def test_a_trusted_proxy_names_the_client(start: Start, header: str, address: str | None) -> None:
    """Of a list the last one counts that no proxy of ours has written: what comes before, the client made up."""
    said = start(TRUSTED_PROXIES="172.16.0.0/12, 192.168.0.0/16").ask("/", X_Forwarded_For=header).said["headers"]
    own = start().ask("/").said["headers"]["x-real-ip"]
    assert said["x-real-ip"] == said["x-forwarded-for"] == (address or own)


def test_behind_a_proxy_each_client_has_its_own_rate_limit(start: Start) -> None:
    edge = start(TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16")

    assert edge.refuses("POST /login", 30, X_Forwarded_For="198.51.100.1", Content_Length="0")
    assert edge.ask("/login", method="POST", X_Forwarded_For="198.51.100.2", Content_Length="0").status == 200


def test_the_proxy_protocol_names_the_client(start: Start) -> None:
    edge = start(TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16", PROXY_PROTOCOL="on")
    headers = edge.ask("/", port=18443, first=proxy(STRANGER), X_Forwarded_For="198.51.100.66").said["headers"]
    assert headers["x-real-ip"] == headers["x-forwarded-for"] == STRANGER
    assert edge.ask("/", port=18080, first=proxy(STRANGER)).status == 308
    # what `invoke health` says: nobody's connection but its own
    assert edge.ask("/health", port=18443, first=b"PROXY UNKNOWN\r\n").status == 200
    # without the protocol nobody is let in there
    with pytest.raises((OSError, http.client.HTTPException)):
        edge.ask("/", port=18443)


def test_without_it_nothing_takes_the_proxy_protocol(start: Start) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        start().ask("/", port=18443, first=proxy(STRANGER))


def test_the_proxy_protocol_is_believed_from_trusted_proxies_only(start: Start) -> None:
    edge = start(TRUSTED_PROXIES="192.0.2.0/24", PROXY_PROTOCOL="on")
    assert edge.ask("/", port=18443, first=proxy(STRANGER)).said["headers"]["x-real-ip"] != STRANGER


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"PROXY_PROTOCOL": "on"}, "TRUSTED_PROXIES is empty"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8; deny all"}, "TRUSTED_PROXIES has '10.0.0.0/8;'"),
        ({"TRUSTED_PROXIES": "10.0.0.1", "PROXY_PROTOCOL": "off"}, "PROXY_PROTOCOL is 'off'"),
        ({"NGINX_CPUS": "two"}, "NGINX_CPUS is 'two'"),
        ({"TRUSTED_PROXIES": "10.0.0.1", "PROXY_PROTOCOL": "on", "HTTP3": "on"}, "take docker-compose.http3.yml out"),
    ],
)
def test_settings_that_cannot_be_meant_stop_it(
    engine: None, project: Path, tmp_path: Path, certificate: Path, settings: dict[str, str], words: str
) -> None:
    service = compose.resolve(project, "prod")["services"]["nginx"]
    options = container.options(service, project, tmp_path, {"/etc/nginx/tls": certificate})
    options += [f"--env={name}={value}" for name, value in settings.items()]
    entrypoint, *rest = service["entrypoint"]
    done = docker("run", "--rm", *options, f"--entrypoint={entrypoint}", service["image"], *rest)
    assert done.returncode == 1
    assert words in done.stderr


# -- which names are served -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sni", ["", "evil.example.com"])
def test_a_stranger_learns_no_certificate(start: Start, sni: str) -> None:
    with pytest.raises(ssl.SSLError, match="(?i)unrecognized.name"):
        start().ask("/", sni=sni)


def test_a_balancer_may_connect_without_a_name(start: Start) -> None:
    edge = start(TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16")
    assert edge.ask("/", sni="").status == 200
    assert edge.ask("/", sni="", Host="10.0.0.1").status == 421


@pytest.mark.parametrize("host", ["evil.example.com", "203.0.113.5", "[2001:db8::1]"])
def test_another_host_name_is_refused(start: Start, host: str) -> None:
    answer = start().ask("/", Host=host)
    assert answer.status == 421
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert start().ask("/", port=8080, Host=host).status == 421
    # a balancer asks by address
    assert start().ask("/health", port=8080, Host=host).status == 200


def test_the_name_in_the_request_line_is_the_one_that_counts(start: Start) -> None:
    edge = start()
    said = edge.ask(f"https://{edge.domain}/login", Host="evil.example.com").said["headers"]
    assert said["host"] == said["x-forwarded-host"] == edge.domain


def test_the_service_hears_the_published_port(start: Start) -> None:
    edge = start("dev")
    assert edge.ask("/", Host="localhost:8443").said["headers"]["host"] == "localhost:8443"


@pytest.mark.parametrize("host", ["192.0.2.7:8443", "127.0.0.1:8443", "[::1]:8443"])
def test_dev_answers_at_any_address(start: Start, host: str) -> None:
    assert start("dev").ask("/", sni="", Host=host).status == 200


# -- HTTP/3 -----------------------------------------------------------------------------------------------------------


def test_a_page_and_a_form_by_http_3(start: Start) -> None:
    edge = start(HTTP3="on", SSL_PORT="9443")
    answer = http3.ask(edge.quic, edge.domain, "/login?next=%2F", method="POST", body=b"name=ada")
    assert answer.status == 200
    said = json.loads(answer.body)
    assert said["request"].startswith("POST /login?next=%2F ")
    assert said["headers"]["content-length"] == "8"
    assert said["headers"]["host"] == said["headers"]["x-forwarded-host"] == f"{edge.domain}:9443"
    assert said["headers"]["x-forwarded-proto"] == "https"
    assert answer.headers["x-frame-options"] == "DENY"
    eventually(lambda: any('"protocol":"HTTP/3.0"' in line for line in edge.log()), edge.name)


def test_with_several_workers_each_gets_the_packets_of_its_connections(start: Start) -> None:
    edge = start(HTTP3="on", NGINX_CPUS="4")
    with ThreadPoolExecutor(max_workers=20) as clients:
        answers = list(clients.map(lambda _: http3.ask(edge.quic, edge.domain, "/"), range(60)))
    assert [answer.status for answer in answers] == [200] * 60


@pytest.mark.parametrize("path", ["/", "/errors/page.html", "/metrics"])
def test_who_came_by_https_is_told_of_http_3(start: Start, path: str) -> None:
    edge = start(HTTP3="on", SSL_PORT="9443")
    assert edge.ask(path).headers["Alt-Svc"] == 'h3=":9443"; ma=86400'
    assert edge.ask("/", port=8080).headers["Alt-Svc"] is None


def test_without_it_nobody_is_told_and_nobody_answers(start: Start) -> None:
    edge = start()
    assert edge.ask("/").headers["Alt-Svc"] is None
    with pytest.raises((ConnectionError, TimeoutError)):
        http3.ask(edge.quic, edge.domain, "/")


def test_the_rules_of_the_edge_hold_by_http_3(start: Start) -> None:
    edge = start(HTTP3="on", SSL_PORT="9443")
    assert http3.ask(edge.quic, edge.domain, "/metrics").status == 404
    with pytest.raises(ConnectionError):
        http3.ask(edge.quic, edge.domain, "/", sni="evil.example.com")
    balanced = start(HTTP3="on", TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16")
    assert http3.ask(balanced.quic, "evil.example.com", "/").status == 421


# -- what stays open --------------------------------------------------------------------------------------------------


def test_a_websocket_passes(start: Start) -> None:
    edge = start()
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    head = f"GET /ws HTTP/1.1\r\nHost: {edge.domain}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    with edge.connect(8443, edge.domain) as connection:
        connection.sendall(f"{head}Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(1024)
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer
        for word in (b"there", b"and back"):
            connection.sendall(word)
            assert connection.recv(1024) == word


def test_nothing_else_may_upgrade(start: Start) -> None:
    """`Upgrade: h2c` would carry requests past every rule of the edge."""
    said = start().ask("/", Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABkAAQAAP__").said
    assert "upgrade" not in said["headers"]


@pytest.mark.parametrize("path", ["/events", "/api/v1/events"])
def test_events_arrive_when_they_are_sent(start: Start, path: str) -> None:
    edge = start()
    with edge.connect(8443, edge.domain) as connection:
        connection.settimeout(5)
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {edge.domain}\r\nAccept: text/event-stream\r\n\r\n".encode())
        received = b""
        while b"data: 1" not in received:
            received += connection.recv(4096)


@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/api/metrics"])
def test_asking_for_a_stream_opens_nothing(start: Start, path: str) -> None:
    assert start().ask(path, Accept="text/event-stream").status == 404
    assert start().ask(path, Upgrade="websocket", Connection="Upgrade").status == 404


def test_streams_are_counted_like_pages(start: Start) -> None:
    edge = start("staging", TRUSTED_PROXIES="172.16.0.0/12 192.168.0.0/16")
    assert edge.refuses("GET /echo", 900, X_Forwarded_For="198.51.100.7", Accept="text/event-stream")


# -- what visitors are told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", template.ENVIRONMENTS)
def test_only_dev_shows_the_inside(start: Start, environment: str) -> None:
    answer = start(environment).ask("/api/v1/items")
    assert [answer.headers[name] is not None for name in INTERNALS] == [environment == "dev"] * 3


def test_the_api_is_not_cached_unless_it_says_so(start: Start) -> None:
    assert start().ask("/api/v1/items").headers.get_all("Cache-Control") == ["no-store"]
    assert start().ask("/download").headers.get_all("Cache-Control") == ["private"]
    assert start().ask("/").headers.get_all("Cache-Control") is None
    assert start().ask("/metrics").headers.get_all("Cache-Control") == ["no-store"]  # an error page


def test_a_policy_of_the_service_counts(start: Start) -> None:
    assert start().ask("/download").headers.get_all("Content-Security-Policy") == ["sandbox"]
    assert "default-src 'self'" in start().ask("/").headers["Content-Security-Policy"]


def test_the_error_log_is_json_without_queries(start: Start) -> None:
    edge = start()
    assert edge.ask("/close?token=s3cret", Referer=f"https://{edge.domain}/?token=s3cret").status == 502
    eventually(lambda: any("prematurely closed" in line for line in edge.log()), edge.name)
    log = edge.log()
    assert not [line for line in log if "s3cret" in line]
    (entry,) = (json.loads(line) for line in log if "prematurely closed" in line and "/close" in line)
    assert (entry["level"], entry["service"]) == ("error", "nginx")
    assert 'request: "GET /close HTTP/1.1"' in entry["event"]


def test_it_listens_on_ipv6_where_that_is_on(start: Start) -> None:
    edge = start(IPV6="on")
    asked = docker("exec", edge.name, "curl", "-fsS", "http://[::1]:8080/health")
    assert asked.stdout == "ok\n", asked.stderr
    assert edge.ask("/").status == 200


# -- what is mounted --------------------------------------------------------------------------------------------------

RELOAD = (
    "import sys; from ops import engine; from ops.parts.nginx import edge; edge.reload(engine.look([sys.argv[1]])[0])"
)


@pytest.mark.parametrize("way", ["deleted", "moved", "changed", "with a file of its owner"])
def test_a_certificate_folder_that_was_replaced_is_taken(
    engine: None, project: Path, certificate: Path, tmp_path: Path, way: str
) -> None:
    """A mount stays with the folder that was there, so a reload alone would find the old one, or nothing."""
    service = compose.resolve(project, "prod")["services"]["nginx"]
    folder = shutil.copytree(certificate, tmp_path / "tls")
    (tmp_path / "secrets").mkdir(mode=0o755)
    options = container.options(service, project, tmp_path / "secrets", {"/etc/nginx/tls": folder}, "bridge")
    entrypoint, *rest = service["entrypoint"]
    publish = "--publish=127.0.0.1::8443"
    name = docker("run", "--detach", *options, publish, f"--entrypoint={entrypoint}", service["image"], *rest)
    nginx = name.stdout.strip()
    try:
        eventually(lambda: docker("exec", nginx, "test", "-e", "/run/nginx/nginx.pid").returncode == 0, nginx)
        started = docker("inspect", "--format", "{{.State.StartedAt}}", nginx).stdout
        if way == "deleted":
            shutil.rmtree(folder)
        elif way == "moved":
            folder.rename(tmp_path / "old")
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)
        self_signed(folder, DOMAIN["prod"])
        if way == "with a file of its owner":
            (folder / "notes").write_text("x")
            (folder / "notes").chmod(0o600)
        done = subprocess.run([sys.executable, "-c", RELOAD, nginx], cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        restarted = docker("inspect", "--format", "{{.State.StartedAt}}", nginx).stdout != started
        assert restarted == (way in {"deleted", "moved"})
        port = int(docker("port", nginx, "8443").stdout.rpartition(":")[2])
        edge = Edge(nginx, DOMAIN["prod"], {8443: port})
        with edge.connect(8443, edge.domain) as secured:
            served = secured.getpeercert(binary_form=True)
        assert ssl.DER_cert_to_PEM_cert(served) == (folder / "fullchain.pem").read_text()
    finally:
        docker("rm", "--force", nginx)


# -- the machine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("processors", "workers"), [("2", 2), ("0.5", 1), ("1.5", 2)])
def test_workers_follow_the_processors(start: Start, processors: str, workers: int) -> None:
    edge = start(NGINX_CPUS=processors)
    eventually(lambda: docker("top", edge.name).stdout.count("nginx: worker process\n") == workers, edge.name)


def test_the_probe_from_inside_gets_through(start: Start, project: Path) -> None:
    """It asks by a name inside the stack, and must say the site's in the handshake and in the request."""
    edge = start()
    image = compose.resolve(project, "prod")["services"]["blackbox-exporter"]["image"]
    if docker("image", "inspect", image).returncode != 0:
        pytest.skip(f"{image} is not on this engine")
    rules = f"--volume={project}/monitoring/blackbox-exporter:/etc/blackbox-exporter:ro"
    config = "--config.file=/etc/blackbox-exporter/blackbox.yml"
    done = docker("run", "--detach", f"--network=container:{edge.name}", rules, image, config)
    try:
        target = f"module=health&target=https://127.0.0.1:8443/health&hostname={edge.domain}"
        asking = ["exec", edge.name, "curl", "-s", f"http://127.0.0.1:9115/probe?{target}"]
        eventually(lambda: "\nprobe_success 1\n" in docker(*asking).stdout, done.stdout.strip())
    finally:
        docker("rm", "--force", done.stdout.strip())


def test_a_proxy_for_the_way_out_does_not_matter_to_its_health(start: Start, project: Path) -> None:
    """Docker's client puts the proxy of its settings into every container."""
    edge = start(http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1")
    check = compose.resolve(project, "prod")["services"]["nginx"]["healthcheck"]["test"]
    done = subprocess.run(["docker", "exec", edge.name, *check[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
