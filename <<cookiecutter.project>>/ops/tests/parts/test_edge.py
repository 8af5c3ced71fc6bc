"""nginx at the edge: reloads, workers, smoke requests."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.engine import Completed
from ops.parts import reloads
from ops.parts.nginx import edge
from ops.parts.nginx.edge import Reply, Smoke, Worker
from ops.stack.pools import Pool

TOP = """\
PID                 COMMAND
100                 nginx: master process nginx -c /etc/nginx/env/nginx.conf -g daemon off;
{workers}"""
WORKING, LEAVING = "nginx: worker process", "nginx: worker process is shutting down"


class Nginx:
    """A container of nginx that answers like one. reloads: whether a reload has an effect."""

    def __init__(self, reloads: bool = True, complaint: str = "") -> None:
        self.reloads, self.complaint = reloads, complaint
        self.workers = [(101, WORKING)]
        self.lines: list[list[str]] = []

    def exec_(self, _container: str, argv: list[str], **_options: object) -> Completed:
        self.lines.append(argv)
        if self.complaint:
            return Completed((), 1, "", self.complaint)
        if self.reloads and argv[0] == "sh":
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
        monkeypatch.setattr(reloads, "SECONDS", 0.5)
        monkeypatch.setattr(edge, "renew", lambda _nginx: None)
        return nginx

    return put


RELOAD = ["sh", "-ec", "nginx -t -q -c /etc/nginx/env/nginx.conf && kill -HUP 1"]


def test_workers() -> None:
    text = TOP.format(workers=f"101 {LEAVING}\n102 {WORKING}\n")
    assert edge.parse_workers(text) == [Worker(101, leaving=True), Worker(102, leaving=False)]


def test_a_reload_checks_first_and_waits_for_new_workers(use, make_container) -> None:
    nginx = use(Nginx())
    edge.reload(make_container("nginx"))
    assert nginx.lines == [RELOAD]
    assert nginx.workers[-1] == (200, WORKING)


def test_a_refused_configuration_is_told(use, make_container) -> None:
    use(Nginx(complaint="nginx: [emerg] host not found\n"))
    with pytest.raises(OpsError, match="keeps the old one:\n.*host not found"):
        edge.reload(make_container("nginx"))


def test_a_reload_without_effect_is_an_error(use, make_container) -> None:
    use(Nginx(reloads=False))
    with pytest.raises(OpsError, match="did not take its new configuration"):
        edge.reload(make_container("nginx"))


def test_closing_refuses_what_is_new_and_waits_for_what_is_open(use, make_container, monkeypatch) -> None:
    monkeypatch.setattr(edge, "_DRAIN_PAUSE", 0.01)
    nginx = use(Nginx())
    left: list[int] = []
    monkeypatch.setattr(edge, "leaving", lambda _nginx: left.append(1) or len(left) < 3)
    edge.close(make_container("nginx"))
    assert nginx.lines == [["touch", "/run/nginx/stopping"], RELOAD]
    assert len(left) == 3


def test_what_containers_answer(make_container, monkeypatch) -> None:
    asked: list[list[str]] = []

    def exec_(_container: str, argv: list[str], **_options: object) -> Completed:
        asked.append(argv)
        return Completed((), 7, "200 1\n000 1\n000 0\n", "")

    monkeypatch.setattr(engine, "exec_", exec_)
    urls = [f"http://{name}/ready" for name in "abcd"]
    found = edge.replies(make_container("nginx"), urls)
    assert found == dict(zip(urls, (Reply(200, True), Reply(0, True), Reply(0, False)), strict=False))
    assert asked[0][-4:] == urls


@pytest.mark.parametrize(
    ("ready", "reply", "wanting"),
    [
        ("/up", Reply(200, True), ""),
        ("/up", Reply(204, True), "answers /up with 204 instead of 200 (its label ops.ready)"),
        ("/up", Reply(0, True), "answers /up with nothing instead of 200 (its label ops.ready)"),
        ("tcp", Reply(0, True), ""),
        ("healthcheck", Reply(404, True), ""),
        ("healthcheck", Reply(), "does not answer on port 3000; its label ops.port must be"),
    ],
)
def test_what_a_container_lacks_to_be_ready(ready: str, reply: Reply, wanting: str) -> None:
    assert reply.wanting(Pool("shop", 3000, ready)).startswith(wanting)
    assert bool(reply.wanting(Pool("shop", 3000, ready))) == bool(wanting)


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
    assert edge.ask(make_container("nginx"), "http://10.0.0.2:8000", smoke) == complaint


# ── a folder that was replaced ────────────────────────────────────────────────────────────────────────────────────────


class Mounted(Nginx):
    """One that sees a folder: `seen` is what it says of it; restarts are noted. returns: whether it comes back."""

    def __init__(self, seen: str, returns: bool = True) -> None:
        super().__init__()
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
        monkeypatch.setattr(engine, "exec_", nginx.exec_)
        monkeypatch.setattr(engine, "docker", nginx.docker)
        monkeypatch.setattr(reloads, "SECONDS", 0.3)
        edge.renew(make_container("nginx", mounts={"/etc/nginx/tls": str(tmp_path)}))
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
