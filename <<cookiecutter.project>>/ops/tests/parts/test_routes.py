"""What nginx and HAProxy are told about the services, and how it comes to them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ops import engine
from ops.base import tar
from ops.engine import Completed
from ops.parts import routes
from ops.parts.haproxy import configuration
from ops.parts.nginx import routes as nginx
from ops.stack.model import Service, Stack
from ops.stack.pools import Pool

WEB = Pool("web", 8000, "/health/ready", route="/", logins="^/(login|register)$", uploads="/uploads")
AUTH = Pool("auth", 9000, "/up", internal=True)


def test_nginx_knows_haproxy_and_the_name_of_each_service() -> None:
    http = nginx.render({"web": WEB, "auth": AUTH})["http.conf"]
    assert http.count("server haproxy:8100 resolve max_fails=1 fail_timeout=1s;") == 2
    assert "server web.serving:8000 resolve backup;" in http
    assert "server auth.serving:9000 resolve backup;" in http
    assert http.index("upstream auth {") < http.index("upstream web {")
    assert "server_name" not in http


def test_services_call_each_other_by_a_path() -> None:
    internal = nginx.render({"web": WEB, "auth": AUTH})["internal.conf"]
    assert internal.count("location") == 1
    assert "location ^~ /auth/ {\n    proxy_pass http://auth$internal_rest;" in internal


def test_a_host_name_has_a_server_with_its_own_routes_and_no_others() -> None:
    shop = Pool("shop", 3000, route="/", host="shop.example.com")
    admin = Pool("admin", 3000, route="/admin/", logins="^/admin/login$", host="shop.example.com")
    files = nginx.render({"web": WEB, "shop": shop, "admin": admin})
    assert files["hosts.conf"].count("server_name shop.example.com;") == 2  # HTTP and HTTPS
    assert [line for line in files["hosts.conf"].splitlines() if line.startswith("location")] == [
        "location /admin/ {",
        "location ~ ^/admin/login$ {",
        "location / {",
    ]
    assert "shop" not in files["site.conf"] and "admin" not in files["site.conf"]
    assert "web" not in files["hosts.conf"]


def test_public_routes() -> None:
    site = nginx.render({"web": WEB, "auth": AUTH})["site.conf"]
    assert [line for line in site.splitlines() if line.startswith("location")] == [
        "location / {",
        "location ~ ^/(login|register)$ {",
        "location /uploads {",
    ]
    for kind in ("route", "logins", "uploads"):
        assert site.count(f"include /etc/nginx/stack/{kind}.conf;") == 1
    assert "auth" not in site


def test_haproxy_has_two_pools_for_each_service() -> None:
    text = configuration.render({"web": WEB, "auth": AUTH})
    for line in (
        "backend auth from pool",
        "    http-check send meth GET uri /up ver HTTP/1.1 hdr Host haproxy",
        "    server-template s 1-100 auth.serving:9000",
        "backend auth:any from any",
        "backend web from pool",
    ):
        assert line in text.splitlines()
    assert "cookie" not in text


@pytest.mark.parametrize("ready", ["tcp", "healthcheck"])
def test_a_pool_without_a_path_is_asked_for_a_connection_only(ready: str) -> None:
    text = configuration.render({"web": replace(WEB, ready=ready)})
    assert "httpchk" not in text and "http-check" not in text
    assert "    server-template s 1-100 web.serving:8000" in text.splitlines()


def test_affinity_is_a_cookie_that_nobody_has_to_remember() -> None:
    text = configuration.render({"web": replace(WEB, affinity=True)})
    assert text.count("cookie web-container insert indirect nocache httponly secure dynamic") == 2


def test_the_same_services_give_the_same_files_in_any_order() -> None:
    one, two = {"web": WEB, "auth": AUTH}, {"auth": AUTH, "web": WEB}
    assert nginx.render(one) == nginx.render(two)
    assert configuration.render(one) == configuration.render(two)


EDGE = {"http.conf", "site.conf", "internal.conf", "hosts.conf", "pools.cfg"}
DECLARED = Stack(
    "acme-dev",
    {"nginx": Service("nginx", "nginx:1", labels={"ops.part": "edge"})},
    {"services": {}, "volumes": {"edge": {"name": "acme-dev_edge"}}},
)


def test_all_files_are_rendered() -> None:
    assert {*routes.render(DECLARED)} == {*EDGE, "services.yml", "expected.yml"}


def test_a_service_may_be_called_as_a_limit_of_nginx() -> None:
    """Zones of shared memory share their names: a service `pages` stopped every reload."""
    folder = Path(__file__).resolve().parents[3] / "config"
    limits = {
        name for file in folder.glob("*/nginx/nginx.conf") for name in re.findall(r"zone=(\w+):", file.read_text())
    }
    assert {"pages", "logins"} <= limits
    http = nginx.render({name: Pool(name, 8000) for name in limits})["http.conf"]
    zones = re.findall(r"^    zone (\S+) ", http, re.MULTILINE)
    assert len(zones) == len(limits) and not limits & {*zones}


def test_every_file_has_one_reader() -> None:
    read = [name for reader in routes.READERS.values() for name in reader.files]
    assert sorted(read) == sorted(routes.render(DECLARED))
    assert {*routes.of_edge(routes.render(DECLARED))} == EDGE


@pytest.mark.parametrize(
    ("states", "folder"),
    [
        ({"haproxy": "running", "nginx": "running"}, "/etc/haproxy/routes"),
        ({"haproxy": "exited", "nginx": "running"}, "/etc/nginx/routes"),
        ({"haproxy": "restarting", "nginx": "exited"}, None),
        ({}, None),
    ],
)
def test_they_are_read_through_one_that_runs(make_container, monkeypatch, states: dict, folder: str | None) -> None:
    packed, asked = tar.packed({"./http.conf": "a", "./pools.cfg": "b"}), []

    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        asked.append(argv)
        return Completed((), 0, packed.decode(), "")

    monkeypatch.setattr(engine, "exec_", exec_)
    containers = [make_container(name, state=state) for name, state in states.items()]
    assert routes.read([make_container("web"), *containers]) == ({"http.conf": "a", "pools.cfg": "b"} if folder else {})
    assert asked == ([["tar", "-C", folder, "-cf", "-", "."]] if folder else [])


def test_one_without_the_volume_has_none(make_container, monkeypatch) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 2, "", "tar: Cannot open"))
    assert routes.read([make_container("nginx")]) == {}


@pytest.mark.parametrize("fails", [False, True])
def test_writing_leaves_no_container_behind(env, monkeypatch, fails: bool) -> None:
    lines: list[str] = []

    def docker(*args: str, **options: object) -> Completed:
        lines.append(" ".join(args))
        if args[0] == "cp":
            assert tar.unpacked(options["input"]) == {"http.conf": "text"}
            if fails:
                raise KeyboardInterrupt
        return Completed((), 0, "", "")

    monkeypatch.setattr(engine, "docker", docker)
    try:
        routes.write(env, DECLARED, {"http.conf": "text"})
    except KeyboardInterrupt:
        assert fails
    assert lines == [
        "volume create --label com.docker.compose.project=acme-dev --label com.docker.compose.volume=edge"
        " acme-dev_edge",
        "rm --force acme-dev-routes",
        "create --name acme-dev-routes --network none --volume acme-dev_edge:/etc/nginx/routes nginx:1",
        "cp - acme-dev-routes:/etc/nginx/routes",
        "rm --force acme-dev-routes",
    ]
