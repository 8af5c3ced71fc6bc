"""nginx at the edge: peers, workers, smoke requests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.engine import Completed
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Smoke, Worker

TOP = """\
PID                 COMMAND
100                 nginx: master process nginx -c /etc/nginx/env/nginx.conf -g daemon off;
{workers}"""
WORKING, LEAVING = "nginx: worker process", "nginx: worker process is shutting down"


class Nginx:
    """A container of nginx that answers like one. reloads: whether a reload has an effect."""

    def __init__(self, peers: str, reloads: bool = True, complaint: str = "") -> None:
        self.peers, self.reloads, self.complaint = peers, reloads, complaint
        self.workers = [(101, WORKING)]
        self.lines: list[list[str]] = []

    def exec_(self, _container: str, argv: list[str], **_options: object) -> Completed:
        self.lines.append(argv)
        if argv[:2] == ["sh", "-c"]:
            return Completed((), 0, self.peers, "")
        if self.complaint:
            return Completed((), 1, "", self.complaint)
        if self.reloads:
            self.workers = [*((pid, LEAVING) for pid, _ in self.workers), (200, WORKING)]
        return Completed((), 0, "", "")

    def docker(self, *_args: str, **_options: object) -> Completed:
        rows = "\n".join(f"{pid} {title}" for pid, title in self.workers)
        # The worker that leaves is gone at the next look but one.
        if len(self.workers) > 1:
            self.workers = self.workers if self.workers[0][0] < 0 else [(-1, LEAVING), self.workers[-1]]
        return Completed((), 0, TOP.format(workers=rows), "")


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch):
    """Puts a made-up nginx in the place of the engine."""

    def put(nginx: Nginx) -> Nginx:
        monkeypatch.setattr(engine, "exec_", nginx.exec_)
        monkeypatch.setattr(engine, "docker", nginx.docker)
        monkeypatch.setattr(edge, "RELOAD_SECONDS", 0.5)
        monkeypatch.setattr(edge, "renew", lambda _nginx: None)
        return nginx

    return put


NAMES = "= web\nserver web:8000 resolve max_fails=3 fail_timeout=2s;\n"
PINNED = "= web\nserver 10.0.0.2:8000 max_fails=3 fail_timeout=2s;\n"
WROTE = "sh /etc/nginx/stack/peers.sh web"
RELOAD = "if nginx -t -q -c /etc/nginx/env/nginx.conf; then kill -HUP 1; else"


def test_peers_by_name_and_by_address() -> None:
    text = f"= api\nserver api:8000 resolve max_fails=3;\n{PINNED}server 10.0.0.3:8000 max_fails=3;\n"
    assert edge.parse_peers(text) == {"api": [], "web": ["10.0.0.2", "10.0.0.3"]}


def test_workers() -> None:
    text = TOP.format(workers=f"101 {LEAVING}\n102 {WORKING}\n")
    assert edge.parse_workers(text) == [Worker(101, leaving=True), Worker(102, leaving=False)]


def test_pointing_writes_and_reloads_or_undoes_in_one_script(use, make_container) -> None:
    nginx = use(Nginx(NAMES))
    edge.point(make_container("nginx"), {"web": ["10.0.0.2"], "notification-service": ["10.0.0.9"]})
    assert nginx.lines[1:] == [["sh", "-ec", f"{WROTE} 10.0.0.2\n{RELOAD}\n{WROTE}\nexit 1; fi"]]


def test_pointing_reloads_although_a_killed_rollout_has_written_it_already(use, make_container) -> None:
    nginx = use(Nginx(PINNED))
    edge.point(make_container("nginx"), {"web": ["10.0.0.2"]})
    assert RELOAD in nginx.lines[-1][-1]


def test_pointing_services_that_nginx_does_not_route_does_nothing(use, make_container) -> None:
    nginx = use(Nginx(NAMES))
    edge.point(make_container("nginx"), {"notification-service": ["10.0.0.9"]})
    assert len(nginx.lines) == 1


def test_releasing_sends_pinned_services_back_to_their_names(use, make_container) -> None:
    nginx = use(Nginx(f"{PINNED}= api\nserver api:8000 resolve max_fails=3;\n"))
    edge.release(make_container("nginx"))
    assert nginx.lines[-1] == ["sh", "-ec", f"{WROTE}\n{RELOAD}\n{WROTE} 10.0.0.2\nexit 1; fi"]


def test_releasing_where_nothing_is_pinned_does_nothing(use, make_container) -> None:
    nginx = use(Nginx(NAMES))
    edge.release(make_container("nginx"))
    assert len(nginx.lines) == 1


def test_a_refused_configuration_is_told(use, make_container) -> None:
    use(Nginx(NAMES, complaint="nginx: [emerg] host not found\n"))
    with pytest.raises(OpsError, match="keeps the old one:\n.*host not found"):
        edge.point(make_container("nginx"), {"web": ["10.0.0.2"]})


def test_a_reload_without_effect_is_an_error(use, make_container) -> None:
    use(Nginx(NAMES, reloads=False))
    with pytest.raises(OpsError, match="did not take its new configuration"):
        edge.reload(make_container("nginx"))


def test_draining_waits_for_the_last_old_worker(use, make_container) -> None:
    nginx = use(Nginx(NAMES))
    nginx.workers = [(101, LEAVING), (200, WORKING)]
    looks = []
    assert not edge.drain(make_container("nginx"), 0.3, lambda: looks.append(1))
    assert looks
    nginx.workers = [(200, WORKING)]
    assert edge.drain(make_container("nginx"), 0.3)


@pytest.mark.parametrize(
    ("label", "smoke"),
    [("", None), ("/login", Smoke("/login")), ("/v1/auth/me 401", Smoke("/v1/auth/me", 401))],
)
def test_smoke_labels(label: str, smoke: Smoke | None) -> None:
    assert Smoke.parse(label) == smoke


@pytest.mark.parametrize(
    ("stdout", "code", "smoke", "complaint"),
    [
        ("<html>\n200", 0, Smoke("/login"), ""),
        ("\n303", 0, Smoke("/login"), ""),
        ('{"detail": "no"}\n401', 0, Smoke("/me", 401), ""),
        ("oh no\n500", 0, Smoke("/login"), "answered its smoke request /login with 500 instead of 2xx or 3xx: oh no"),
        ("ok\n200", 0, Smoke("/me", 401), "answered its smoke request /me with 200 instead of 401: ok"),
        ("\n000", 7, Smoke("/login"), "gave no answer to its smoke request /login: refused"),
    ],
)
def test_smoke_answers(make_container, monkeypatch, stdout: str, code: int, smoke: Smoke, complaint: str) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), code, stdout, "refused\n"))
    assert edge.ask(make_container("nginx"), "10.0.0.2", smoke) == complaint


def test_settling_waits_until_no_old_worker_takes_a_request(make_container, monkeypatch) -> None:
    left = [f"101 {LEAVING}\n200 {WORKING}"] * 2 + [f"200 {WORKING}"]
    monkeypatch.setattr(edge, "_DRAIN_PAUSE", 0.01)

    def docker(*_args: str, **_options: object) -> Completed:
        return Completed((), 0, TOP.format(workers=left.pop(0)), "")

    monkeypatch.setattr(engine, "docker", docker)
    monkeypatch.setattr(edge, "last_request_seconds", lambda _nginx: 10.0)
    edge.settle(make_container("nginx"))
    assert left == []


def test_settling_lasts_as_long_as_nginx_is_told_to_answer(make_container, monkeypatch) -> None:
    """One source: who raises the number for a load balancer raises it for rollouts."""
    http = (Path(__file__).resolve().parents[3] / "infrastructure/nginx/http.conf").read_text()
    waited = []
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 0, http, ""))
    monkeypatch.setattr(edge, "drain", lambda _nginx, seconds: waited.append(seconds))
    edge.settle(make_container("nginx"))
    http = http.replace("keepalive_min_timeout 10s", "keepalive_min_timeout 70s")
    edge.settle(make_container("nginx"))
    assert waited == [10.0, 70.0]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("keepalive_timeout 60s;", None),
        ("# keepalive_min_timeout 9s;", None),
        ("keepalive_min_timeout 1500ms;", 1.5),
        ("  keepalive_min_timeout 5;\n\tkeepalive_min_timeout 2m;", 120.0),
    ],
)
def test_how_long_old_workers_answer(text: str, seconds: float | None) -> None:
    assert edge.parse_last_request(text) == seconds


def test_a_time_that_is_nowhere_is_an_error(make_container, monkeypatch) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 1, "", "[emerg] unknown directive\n"))
    with pytest.raises(OpsError, match="unknown directive"):
        edge.settle(make_container("nginx"))


# ── a folder that was replaced ────────────────────────────────────────────────────────────────────────────────────────


class Mounted(Nginx):
    """One that sees a folder: `seen` is what it says of it; restarts are noted. returns: whether it comes back."""

    def __init__(self, seen: str, returns: bool = True) -> None:
        super().__init__(NAMES)
        self.seen, self.returns, self.restarts = seen, returns, 0

    def exec_(self, _container: str, argv: list[str], **_options: object) -> Completed:
        assert argv[-1] == "/etc/nginx/tls"
        return Completed((), 0, self.seen, "")

    def docker(self, *args: str, **options: object) -> Completed:
        if args[0] == "restart":
            self.restarts += 1
            self.workers = self.workers if self.returns else []
        return super().docker(*args, **options)


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_container):
    """Renews a container that says such things of a folder with one file, "new"; returns how often it was restarted."""
    (tmp_path / "key").write_text("new")

    def renewed(seen: str, returns: bool = True) -> int:
        nginx = Mounted(seen, returns)
        bind = {"Type": "bind", "Source": str(tmp_path), "Destination": "/etc/nginx/tls"}
        volume = {"Type": "volume", "Source": "/elsewhere", "Destination": "/data"}
        monkeypatch.setattr(engine, "inspect", lambda _ids: [{"Mounts": [volume, bind]}])
        monkeypatch.setattr(engine, "exec_", nginx.exec_)
        monkeypatch.setattr(engine, "docker", nginx.docker)
        monkeypatch.setattr(edge, "RELOAD_SECONDS", 0.3)
        edge.renew(make_container("nginx"))
        return nginx.restarts

    return renewed


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("seen", "restarts"),
    [
        (f"2\n{digest('new')}  ./key\n", 0),
        ("2\n", 0),  # nothing that it can read
        ("0\n", 1),  # deleted
        (f"2\n{digest('old')}  ./key\n", 1),
        (f"2\n{digest('new')}  ./key\n{digest('old')}  ./gone\n", 1),
    ],
)
def test_it_is_restarted_only_when_it_sees_another_folder(mounted, seen: str, restarts: int) -> None:
    assert mounted(seen) == restarts


def test_a_file_that_is_not_ours_to_read_says_nothing(mounted, monkeypatch) -> None:
    def refuse(_path: Path) -> bytes:
        raise PermissionError

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert mounted(f"2\n{digest('old')}  ./key\n") == 0


def test_another_users_folder_that_is_closed_to_us_says_nothing(mounted, monkeypatch) -> None:
    def refuse(_path: Path) -> bool:
        raise PermissionError

    monkeypatch.setattr(Path, "is_dir", refuse)
    assert mounted("0\n") == 0


def test_without_the_folder_it_is_left_running(mounted, tmp_path: Path) -> None:
    """A container of a checkout that is gone keeps serving, and would not start again."""
    (tmp_path / "key").unlink()
    tmp_path.rmdir()
    assert mounted("0\n") == mounted(f"2\n{digest('old')}  ./key\n") == 0


def test_one_that_does_not_come_back_is_an_error(mounted) -> None:
    with pytest.raises(OpsError, match="nginx does not start again"):
        mounted("0\n", returns=False)


def test_a_container_that_is_gone_is_not_restarted(monkeypatch, make_container) -> None:
    monkeypatch.setattr(engine, "inspect", lambda _ids: [])
    edge.renew(make_container("nginx"))
