"""The decisions of scripts/bootstrap.py: which machine gets what, and what a user is told."""

from __future__ import annotations

import ast
import contextlib
import functools
import http.server
import importlib.util
import io
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/bootstrap.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load()
Action = bootstrap.Action

BOOKWORM = bootstrap.Machine(
    system="Linux",
    architecture="x86_64",
    distribution="debian",
    like="",
    codename="bookworm",
    release=12,
    root=True,
    apt=True,
    repository=False,
    unpacked=False,
    installed=None,
    packages=(),
    docker_host="",
)
NOBLE = {"distribution": "ubuntu", "like": "debian", "codename": "noble", "release": 24}
NOTHING = bootstrap.Tools(None, None, None, "Cannot connect to the Docker daemon")
GOOD = bootstrap.Tools((28, 5, 2), (2, 40, 3), (0, 29, 1))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("28.5.2+dfsg4", (28, 5, 2)),
        ("v2.40.3-3\n", (2, 40, 3)),
        ("github.com/docker/buildx 0.29.1+ds1 0.29.1+ds1-4", (0, 29, 1)),
        ("Docker version 20.10.24+dfsg1, build 297e128", (20, 10, 24)),
        ("2.32", (2, 32)),
        ("dev", None),
        ("", None),
    ],
)
def test_versions_are_read_from_what_programs_print(text, version):
    assert bootstrap.parse_version(text) == version


def test_a_version_without_patch_number_satisfies_the_minimum():
    assert bootstrap.missing_tools(bootstrap.Tools((25, 0), (2, 32), (0, 1))) == []


def test_os_release_is_read_with_and_without_quotes():
    text = 'ID=debian\n# comment\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
    settings = bootstrap.parse_os_release(text)
    assert settings == {"ID": "debian", "VERSION_ID": "12", "VERSION_CODENAME": "bookworm"}
    assert bootstrap.release_number(settings) == 12


@pytest.mark.parametrize(("number", "release"), [("13.1", 13), ("", None), ("rolling", None)])
def test_a_distribution_without_a_number_has_no_release(number, release):
    assert bootstrap.release_number({"VERSION_ID": number}) == release


@pytest.mark.parametrize(
    ("changes", "tools", "action"),
    [
        ({}, GOOD, Action.USE),
        ({"system": "Darwin", "distribution": "", "root": False}, GOOD, Action.USE),
        ({"unpacked": True, "docker_host": "tcp://engine:2375"}, GOOD, Action.USE),
        ({}, GOOD._replace(server=(20, 10, 24)), Action.REFUSE),
        ({}, GOOD._replace(compose=None), Action.REFUSE),
        ({}, GOOD._replace(compose=(2, 26, 1)), Action.REFUSE),
        ({}, GOOD._replace(buildx=None), Action.REFUSE),
        ({"repository": True}, NOTHING, Action.ADD_REPOSITORY),
        ({"repository": True, "release": 13}, NOTHING, Action.ADD_REPOSITORY),
        ({**NOBLE, "repository": True}, NOTHING, Action.ADD_REPOSITORY),
        ({**NOBLE, "release": 22, "repository": True}, NOTHING, Action.ADD_REPOSITORY),
        ({**NOBLE, "repository": True, "root": False}, NOTHING, Action.REFUSE),
        ({**NOBLE, "release": 20, "repository": True}, NOTHING, Action.REFUSE),
        (NOBLE, NOTHING, Action.INSTALL),
        (NOBLE, GOOD, Action.USE),
        ({**NOBLE, "installed": (28, 2, 2)}, NOTHING, Action.START_INSTALLED),
        ({"repository": True, "unpacked": True}, NOTHING, Action.START_UNPACKED),
        ({"repository": True}, NOTHING._replace(problem=bootstrap.SILENT), Action.REFUSE),
        ({}, NOTHING, Action.UNPACK),
        ({}, NOTHING._replace(compose=(2, 40, 3)), Action.UNPACK),
        ({"release": 13}, NOTHING, Action.UNPACK),
        ({"release": 14}, NOTHING, Action.INSTALL),
        ({"release": None}, NOTHING, Action.INSTALL),
        ({"architecture": "aarch64"}, NOTHING, Action.UNPACK),
        ({"unpacked": True}, NOTHING, Action.START_UNPACKED),
        ({"unpacked": True, "apt": False}, NOTHING, Action.START_UNPACKED),
        ({"unpacked": True, "root": False}, NOTHING, Action.REFUSE),
        ({"installed": (28, 0, 1)}, NOTHING, Action.START_INSTALLED),
        ({"installed": (28, 0, 1), "unpacked": True}, NOTHING, Action.START_INSTALLED),
        ({"installed": (28, 0, 1), "root": False}, NOTHING, Action.REFUSE),
        ({"installed": (20, 10, 24)}, NOTHING, Action.REFUSE),
        ({"root": False}, NOTHING, Action.REFUSE),
        ({"release": 11}, NOTHING, Action.REFUSE),
        ({"distribution": "linuxmint", "like": "ubuntu debian", "release": 22}, NOTHING, Action.REFUSE),
        ({"system": "Darwin", "distribution": ""}, NOTHING, Action.REFUSE),
        ({"architecture": "riscv64"}, NOTHING, Action.REFUSE),
        ({"apt": False}, NOTHING, Action.REFUSE),
        ({"docker_host": "tcp://engine:2375"}, NOTHING, Action.REFUSE),
        ({}, NOTHING._replace(problem="permission denied while trying to connect"), Action.REFUSE),
    ],
)
def test_what_to_do_on_which_machine(changes, tools, action):
    assert bootstrap.decide(BOOKWORM._replace(**changes), tools).action is action


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        (GOOD._replace(server=(20, 10, 24)), ["Docker Engine >= 25.0 (20.10.24 is there)", "left as it is"]),
        (GOOD._replace(compose=None, buildx=None), ["Docker Compose >= 2.32 (missing)", "Docker buildx (missing)"]),
    ],
)
def test_a_running_engine_that_does_not_suffice_is_told_exactly(tools, words):
    message = bootstrap.decide(BOOKWORM, tools).message
    assert all(word in message for word in words)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"system": "Darwin", "distribution": ""},
            ["this is macOS", "docs.docker.com/desktop/setup/install/mac-install"],
        ),
        ({"system": "Windows", "distribution": ""}, ["this is Windows", "WSL 2"]),
        (
            {"distribution": "fedora"},
            ["dnf config-manager addrepo", "linux/fedora/docker-ce.repo", "enable --now docker"],
        ),
        ({"distribution": "rhel", "like": "fedora"}, ["dnf config-manager --add-repo", "linux/rhel/docker-ce.repo"]),
        ({"distribution": "rocky", "like": "rhel centos fedora"}, ["linux/centos/docker-ce.repo"]),
        ({"distribution": "arch"}, ["pacman -S docker docker-compose docker-buildx"]),
        ({"distribution": "nixos"}, ["this is nixos", "https://docs.docker.com/engine/install/"]),
        ({"release": 11}, ["this is Debian 11, older than 12"]),
        ({**NOBLE, "release": 20}, ["this is Ubuntu 20, older than 22"]),
        ({"architecture": "riscv64"}, ["riscv64"]),
        ({"apt": False}, ["apt-get"]),
    ],
)
def test_a_machine_where_nothing_can_be_installed_is_told_what_to_run(changes, words):
    message = bootstrap.decide(BOOKWORM._replace(**changes), NOTHING).message
    assert [word for word in words if word not in message] == []
    assert "Docker Engine >= 25, Compose >= 2.32 and buildx" in message


@pytest.mark.parametrize("changes", [{}, NOBLE])
def test_without_root_the_command_is_named_that_needs_it(changes):
    message = bootstrap.decide(BOOKWORM._replace(root=False, **changes), NOTHING).message
    assert "sudo python3 scripts/bootstrap.py --engine" in message


def test_the_plan_says_what_is_installed_and_where():
    message = bootstrap.decide(BOOKWORM, NOTHING).message
    assert all(word in message for word in ("runc", "iptables", "/opt/docker-engine", "start"))


def test_without_a_terminal_consent_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(bootstrap.BootstrapError, match="--yes"):
        bootstrap.ask(yes=False)("install things")
    assert "install things" in capsys.readouterr().out


def test_yes_answers_for_the_user(monkeypatch, capsys):
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked"))
    bootstrap.ask(yes=True)("install things")
    assert "install things" in capsys.readouterr().out


@pytest.mark.parametrize(("answer", "agreed"), [("y", True), ("Yes", True), ("", False), ("n", False)])
def test_only_yes_is_consent(monkeypatch, answer, agreed):
    monkeypatch.setattr(bootstrap.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: answer)
    consent = bootstrap.ask(yes=False)
    if agreed:
        consent("install things")
    else:
        with pytest.raises(bootstrap.BootstrapError, match="Nothing was changed"):
            consent("install things")


def test_a_missing_program_counts_as_failed():
    assert bootstrap.run(["/nonexistent/program"]).returncode == 127


def test_a_failed_program_is_told_with_its_last_lines():
    with pytest.raises(bootstrap.BootstrapError, match=r"Cannot greet: .*\n(.*\n)*bad luck"):
        bootstrap.must([sys.executable, "-c", "import sys; sys.exit('bad luck')"], "greet")


@pytest.mark.parametrize("content", [None, "", "nonsense", "999999999", pytest.param(str(os.getpid()), id="this one")])
def test_only_a_dockerd_is_taken_for_the_engine(tmp_path, content):
    pid_file = tmp_path / "pid"
    if content is not None:
        pid_file.write_text(content)
    assert bootstrap.running_pid(pid_file) is None


def test_a_running_program_is_found_by_its_pid_file(tmp_path):
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    name = Path("/proc/self/comm").read_text().strip()
    assert bootstrap.running_pid(tmp_path / "pid", name) == os.getpid()


def test_links_keep_what_is_there_and_replace_what_dangles(tmp_path):
    target, other = tmp_path / "target", tmp_path / "other"
    target.touch()
    other.touch()
    bootstrap.link(tmp_path / "bin/new", target)
    (tmp_path / "bin/taken").symlink_to(other)
    bootstrap.link(tmp_path / "bin/taken", target)
    (tmp_path / "bin/dangling").symlink_to(tmp_path / "gone")
    bootstrap.link(tmp_path / "bin/dangling", target)
    assert (tmp_path / "bin/new").readlink() == target
    assert (tmp_path / "bin/taken").readlink() == other
    assert (tmp_path / "bin/dangling").readlink() == target


def test_a_changed_requirement_makes_the_environment_stale(tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("invoke==2.2.0\n")
    before = bootstrap.venv_stamp(tmp_path, requirements)
    requirements.write_text("invoke==2.2.1\n")
    assert bootstrap.venv_stamp(tmp_path, requirements) != before


def test_missing_requirements_are_named(tmp_path):
    with pytest.raises(bootstrap.BootstrapError, match="requirements.txt is missing"):
        bootstrap.ensure_venv(tmp_path / ".venv", tmp_path / "requirements.txt", bootstrap.ask(yes=True))


@pytest.mark.parametrize(("fine", "code"), [(True, 0), (False, 1)])
def test_check_exits_1_when_something_is_missing(capsys, fine, code):
    assert bootstrap.report([bootstrap.Finding("Compose", fine, "2.40.3")]) == code
    assert "Compose: 2.40.3" in capsys.readouterr().out


# --- old Pythons ---


def test_python_3_6_can_read_the_program():
    """An old Python says in a sentence that it is too old; syntax that it does not know would be a traceback."""
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 6))
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


@pytest.mark.parametrize("found", [True, False])
def test_an_old_python_is_told_with_the_command_to_run(tmp_path, found):
    if found:
        (tmp_path / "python3.12").write_text("#!/bin/sh\n")
        (tmp_path / "python3.12").chmod(0o755)
    pretend = (
        "import runpy, sys; sys.version_info = (3, 8, 18, 'final', 0); "
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", pretend]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.startswith("bootstrap: Python 3.8 is too old, this project needs 3.11 or newer: ")
    assert done.stderr.count("\n") == 1
    assert ("install python3.11" in done.stderr) is not found
    assert done.stderr.endswith(f"run python3.{12 if found else 11} {SCRIPT}\n")


# --- Docker's repository ---

KEY = b"""-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawf6FhYJKwYBBAHaRw8BAQdA6zNlAMsGbWaYgEF3U7Npc8/STLbq80hnsdMN
Md35pKi0F1Rlc3QgPHRlc3RAZXhhbXBsZS5jb20+iJAEExYIADgWIQQ1sA+WS032
QjTqjzYa79oMRRy+CwUCawf6FgIbAwULCQgHAgYVCgkICwIEFgIDAQIeAQIXgAAK
CRAa79oMRRy+CyfNAQCf5iJeyswVFjVbZXWvhKuLkYoyM2mdENWY/jrWINOM9AEA
+POKev1QZxqMb1MaJnnskHNhUKaDdubCJQ9zzDGy1QI=
=wfvf
-----END PGP PUBLIC KEY BLOCK-----
"""
FINGERPRINT = "35B00F964B4DF64234EA8F361AEFDA0C451CBE0B"  # as gpg --show-keys prints it


def test_a_key_has_the_fingerprint_that_gpg_prints():
    assert bootstrap.fingerprints(KEY) == [FINGERPRINT]
    assert bootstrap.fingerprints(KEY.replace(b"\n", b"\r\n")) == [FINGERPRINT]


@pytest.mark.parametrize("length", [b"\x05", b"\xff\0\0\0\x05"], ids=["short", "long"])
def test_packets_of_the_new_format_are_read(length):
    assert list(bootstrap.openpgp_packets(b"\xc6" + length + b"12345\xb4\x01u")) == [(6, b"12345"), (13, b"u")]


def test_a_packet_of_two_length_octets_is_read():
    assert list(bootstrap.openpgp_packets(b"\xc6\xc0\x01" + b"x" * 193)) == [(6, b"x" * 193)]
    assert list(bootstrap.openpgp_packets(b"\x99\x01\x00" + b"x" * 256)) == [(6, b"x" * 256)]


@pytest.mark.parametrize(
    "text",
    [b"<html>Sign in to the hotel's network</html>", b"", KEY[:200], KEY.replace(b"mDME", b"AAAA")],
    ids=["page", "nothing", "cut", "no packet"],
)
def test_what_is_no_key_is_not_trusted(site, text):
    (site.folder / "gpg").write_bytes(text)
    with pytest.raises(bootstrap.BootstrapError, match="/gpg"):
        bootstrap.download_docker_key(f"{site.url}/gpg")


class Site:
    """A web server on loopback that stands for Docker's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        handler = functools.partial(QuietHandler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        """Say nothing."""


@pytest.fixture
def site(tmp_path, monkeypatch):
    folder = tmp_path / "site"
    (folder / "debian/dists/bookworm").mkdir(parents=True)
    (folder / "debian/dists/bookworm/InRelease").write_text("Suite: bookworm\n")
    (folder / "debian/gpg").write_bytes(KEY)
    site = Site(folder)
    monkeypatch.setattr(bootstrap, "DOCKER_SITE", site.url)
    monkeypatch.setattr(bootstrap, "DOCKER_FINGERPRINT", FINGERPRINT)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield site
    site.server.shutdown()
    site.server.server_close()


def test_the_repository_is_asked_for_this_release(site):
    assert bootstrap.repository_answers("debian", "bookworm")
    assert not bootstrap.repository_answers("debian", "duke")
    site.server.server_close()
    site.server.shutdown()
    assert not bootstrap.repository_answers("debian", "bookworm")


def test_another_key_is_refused_with_both_fingerprints(site, monkeypatch):
    monkeypatch.setattr(bootstrap, "DOCKER_FINGERPRINT", "A" * 40)
    with pytest.raises(bootstrap.BootstrapError, match=f"{FINGERPRINT}, expected {'A' * 40}: not trusted"):
        bootstrap.download_docker_key(f"{site.url}/debian/gpg")


def test_a_second_key_in_the_file_is_refused(site, monkeypatch):
    monkeypatch.setattr(bootstrap, "fingerprints", lambda text: [FINGERPRINT, "B" * 40])
    with pytest.raises(bootstrap.BootstrapError, match="not trusted"):
        bootstrap.download_docker_key(f"{site.url}/debian/gpg")


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts stand-ins for programs on PATH; each call is a line of the returned file `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    calls.touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def stand_in(name, script):
        path = folder / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\n{script}\n')
        path.chmod(0o755)
        return calls

    return stand_in


@pytest.fixture
def apt_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "DOCKER_KEY", tmp_path / "etc/keyrings/docker.asc")
    monkeypatch.setattr(bootstrap, "DOCKER_SOURCE", tmp_path / "etc/sources.list.d/docker.sources")
    monkeypatch.setattr(bootstrap, "SYSTEM_CERTIFICATES", tmp_path)
    os_release = {"ID": "debian", "VERSION_CODENAME": "bookworm"}
    monkeypatch.setattr(bootstrap, "read_os_release", lambda: os_release)


def test_the_repository_is_added_with_its_key(site, program, apt_files):
    program("apt-get", "exit 0")
    before = os.umask(0o077)
    try:
        bootstrap.add_docker_repository()
        bootstrap.add_docker_repository()
    finally:
        os.umask(before)
    assert bootstrap.DOCKER_KEY.read_bytes() == KEY
    assert bootstrap.DOCKER_SOURCE.read_text() == (
        f"Types: deb\nURIs: {site.url}/debian\nSuites: bookworm\nComponents: stable\n"
        f"Signed-By: {bootstrap.DOCKER_KEY}\n"
    )
    # apt reads both as its own user
    assert {stat.S_IMODE(path.stat().st_mode) for path in (bootstrap.DOCKER_KEY, bootstrap.DOCKER_SOURCE)} == {0o644}


def test_a_repository_that_is_there_is_not_added_twice(site, program, apt_files):
    program("apt-get", f"echo {site.url}/debian/")
    bootstrap.add_docker_repository()
    assert not bootstrap.DOCKER_SOURCE.exists()


def test_apt_neither_asks_nor_removes(program, monkeypatch):
    calls = program("apt-get", 'test "$DEBIAN_FRONTEND" = noninteractive || exit 1')
    program("dpkg-query", "exit 1")
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0)
    bootstrap.ensure_system_packages(["git"], bootstrap.ask(yes=True))
    install = calls.read_text().splitlines()[-1]
    assert install == "apt-get install --yes --no-remove --no-install-recommends git"


# --- updates ---


@pytest.mark.parametrize(
    ("changes", "action"),
    [
        ({"installed": (28, 0, 1), "packages": ("docker-ce",)}, Action.UPGRADE),
        ({**NOBLE, "installed": (28, 0, 1), "packages": ("docker.io",)}, Action.UPGRADE),
        ({"unpacked": True}, Action.UNPACK),
        ({"unpacked": True, "installed": (28, 0, 1), "packages": ("docker-ce",)}, Action.UPGRADE),
        ({"unpacked": True, "root": False}, Action.REFUSE),
        ({"installed": (28, 0, 1)}, Action.REFUSE),
        ({"system": "Darwin", "distribution": ""}, Action.REFUSE),
        ({"unpacked": True, "docker_host": "ssh://server"}, Action.REFUSE),
    ],
)
def test_an_engine_is_updated_the_way_it_was_installed(changes, action):
    plan = bootstrap.decide_update(BOOKWORM._replace(**changes), GOOD)
    assert plan.action is action
    assert action is Action.REFUSE or "every container on this machine stops" in plan.message


@pytest.mark.parametrize("newer", [True, False])
def test_packages_are_upgraded_only_when_there_are_newer_ones(program, monkeypatch, capsys, newer):
    calls = program(
        "apt-get", f"""case " $* " in *" --simulate "*) {"echo 'Inst docker-ce [28] (29)'" if newer else ":"};; esac"""
    )
    monkeypatch.setattr(bootstrap, "start_engine", lambda: None)
    monkeypatch.setattr(bootstrap, "has_systemd", lambda: True)
    machine = BOOKWORM._replace(installed=(28,), packages=("docker-ce", "docker-ce-cli"))
    plan = bootstrap.decide_update(machine, GOOD)
    assert bootstrap.upgrade_packages(plan, bootstrap.ask(yes=True)) is newer
    upgrade = "apt-get install --yes --no-remove --only-upgrade docker-ce docker-ce-cli\n"
    assert (upgrade in calls.read_text()) is newer
    assert ("To do: upgrade docker-ce" in capsys.readouterr().out) is newer


def test_nothing_to_update_is_said():
    plan = bootstrap.decide_update(BOOKWORM, NOTHING)
    assert plan.action is Action.REFUSE and "run this without --update" in plan.message


def test_a_client_that_is_not_there_is_not_an_engine_that_may_not_be_used(tmp_path, monkeypatch):
    """A folder on PATH that this user may not search makes "permission denied" of a program that does not exist."""

    def refuse(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "docker")

    monkeypatch.setattr(bootstrap.subprocess, "run", refuse)
    assert bootstrap.look_at_tools() == bootstrap.Tools(None, None, None, "")


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """An unpacked engine of version 1, and a donor that has version 2."""
    monkeypatch.setattr(bootstrap, "ENGINE_FOLDER", tmp_path)
    monkeypatch.setattr(bootstrap, "UNPACKED", tmp_path / "root")
    (tmp_path / "root").mkdir()
    (tmp_path / "root/version").write_text("1")
    (tmp_path / "root/.packages").write_text("docker.io_1_amd64.deb")

    def download(apt):
        (tmp_path / "unpacking/root").mkdir(parents=True)
        (tmp_path / "unpacking/root/version").write_text("2")
        (tmp_path / "unpacking/root/.packages").write_text("docker.io_2_amd64.deb")
        return tmp_path / "unpacking/root"

    monkeypatch.setattr(bootstrap, "donor_apt", lambda: contextlib.nullcontext([]))
    monkeypatch.setattr(bootstrap, "newest_packages", lambda apt: ["docker.io_2_amd64.deb"])
    monkeypatch.setattr(bootstrap, "download_engine", download)
    monkeypatch.setattr(bootstrap, "stop_engine", lambda: True)
    return tmp_path


PLAN = bootstrap.Plan(Action.UNPACK, "replace the engine")


def test_the_unpacked_engine_is_replaced_once(unpacked, monkeypatch):
    monkeypatch.setattr(bootstrap, "start_engine", lambda: None)
    assert bootstrap.replace_unpacked_engine(PLAN, bootstrap.ask(yes=True))
    assert (unpacked / "root/version").read_text() == "2"
    assert not (unpacked / "previous").exists()
    assert not bootstrap.replace_unpacked_engine(PLAN, lambda what: pytest.fail("asked"))


def test_an_engine_that_does_not_start_is_taken_back(unpacked, monkeypatch):
    started = []

    def start():
        started.append((unpacked / "root/version").read_text())
        if started[-1] == "2":
            raise bootstrap.BootstrapError("The Docker engine ended at once")

    monkeypatch.setattr(bootstrap, "start_engine", start)
    with pytest.raises(bootstrap.BootstrapError, match="the old one runs again.*ended at once"):
        bootstrap.replace_unpacked_engine(PLAN, bootstrap.ask(yes=True))
    assert started == ["2", "1"]
    assert bootstrap.recorded_packages() == ["docker.io_1_amd64.deb"]


def test_package_names_are_read_without_a_download(program):
    program("apt-get", "echo \"'http://deb/x.deb' docker.io_28%2bdfsg_amd64.deb 100 SHA256:1\"; echo Reading")
    assert bootstrap.newest_packages(["apt-get"]) == ["docker.io_28%2bdfsg_amd64.deb"]


# --- an engine that hangs ---


def test_an_engine_that_does_not_answer_is_not_waited_for_for_ever(program, monkeypatch):
    program("docker", "exec sleep 60")
    monkeypatch.setattr(bootstrap, "ANSWER_SECONDS", 0.2)
    tools = bootstrap.look_at_tools()
    assert tools.problem == bootstrap.SILENT
    plan = bootstrap.decide(BOOKWORM._replace(repository=True), tools)
    assert plan.action is Action.REFUSE and "restart it" in plan.message


def test_the_wait_for_a_hanging_engine_ends(program, monkeypatch):
    program("docker", "exec sleep 60")
    monkeypatch.setattr(bootstrap, "START_SECONDS", 0.2)
    with pytest.raises(bootstrap.BootstrapError, match="did not answer within 0.2 s.*\n.*last words"):
        bootstrap.wait_for_engine(lambda: True, lambda: "last words")


# --- the environment and the project's files ---


def test_an_environment_that_was_moved_is_made_again(tmp_path, monkeypatch):
    """Its programs begin with the path of its Python."""
    old, new = tmp_path / "old/.venv", tmp_path / "new/.venv"
    requirements = tmp_path / "requirements.txt"
    requirements.touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", old], check=True)
    bootstrap.stamp_file(old).write_text("\n".join(bootstrap.venv_stamp(old, requirements)))
    assert bootstrap.venv_is_current(old, requirements)
    old.parent.rename(new.parent)
    commands = []
    monkeypatch.setattr(bootstrap, "must", lambda command, purpose: commands.append(command[1:4]))
    bootstrap.ensure_venv(new, requirements, bootstrap.ask(yes=True))
    assert commands == [["-m", "venv", "--clear"], ["-m", "pip", "install"]]
    assert bootstrap.venv_is_current(new, requirements)
    bootstrap.ensure_venv(new, requirements, bootstrap.ask(yes=True))
    assert len(commands) == 2


def test_other_requirements_are_installed_into_the_environment_that_is_there(tmp_path, monkeypatch):
    folder, requirements = tmp_path / ".venv", tmp_path / "requirements.txt"
    requirements.touch()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", folder], check=True)
    bootstrap.stamp_file(folder).write_text("\n".join(bootstrap.venv_stamp(folder, requirements)))
    requirements.write_text("invoke\n")
    commands = []
    monkeypatch.setattr(bootstrap, "must", lambda command, purpose: commands.append(command[1:4]))
    bootstrap.ensure_venv(folder, requirements, bootstrap.ask(yes=True))
    assert commands == [["-m", "pip", "install"]]


def test_the_package_with_venv_is_that_of_this_python(tmp_path, monkeypatch):
    """Ubuntu 22.04 has 3.11 beside its own 3.10, and python3-venv is for that one."""
    (tmp_path / "requirements.txt").touch()
    monkeypatch.setattr(bootstrap.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bootstrap, "is_installed", lambda name: False)
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 1000)
    package = f"python3.{sys.version_info.minor}-venv"
    with pytest.raises(bootstrap.BootstrapError, match=f"^{package} missing: install it"):
        bootstrap.ensure_venv(tmp_path / ".venv", tmp_path / "requirements.txt", bootstrap.ask(yes=True))


def test_a_checkout_under_umask_077_is_opened_for_containers(tmp_path, capsys):
    folder = tmp_path / "infrastructure/redis"
    folder.mkdir(parents=True)
    (folder / "guard.sh").touch()
    (folder / "guard.sh").chmod(0o700)
    (folder / "redis.conf").touch()
    (folder / "redis.conf").chmod(0o600)
    (folder / "gone").symlink_to("nowhere")
    secret = tmp_path / "config/dev/secrets/JWT_SECRET"
    secret.parent.mkdir(parents=True)
    secret.touch()
    secret.chmod(0o400)
    folder.chmod(0o700)
    bootstrap.open_files(tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.glob("*.*"), secret)}
    assert modes == {"redis": 0o755, "guard.sh": 0o755, "redis.conf": 0o644, "JWT_SECRET": 0o400}
    assert "made 3 files readable" in capsys.readouterr().out
    bootstrap.open_files(tmp_path)
    assert capsys.readouterr().out == ""


def test_files_of_somebody_else_are_named_with_the_command(tmp_path, monkeypatch):
    (tmp_path / "services").mkdir(mode=0o700)

    def refuse(path, mode):
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(bootstrap.BootstrapError, match=r"services.* sudo chmod -R go\+rX infrastructure monitoring"):
        bootstrap.open_files(tmp_path)


def test_sudo_prepares_the_engine_and_leaves_the_rest_to_the_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "ada")
    monkeypatch.setattr(bootstrap.os, "geteuid", lambda: 0)
    monkeypatch.setattr(bootstrap, "ensure_engine", lambda consent: bootstrap.Engine((28,), (2, 40), (0, 29), True))
    monkeypatch.setattr(bootstrap, "ensure_venv", lambda *arguments: pytest.fail("made an environment of root"))
    monkeypatch.setattr(Path, "stat", lambda path: os.stat_result((0o40755, 0, 0, 0, 1000, 1000, 0, 0, 0, 0)))
    with pytest.raises(bootstrap.BootstrapError, match="Run this again as ada, without sudo.*usermod -aG docker ada"):
        bootstrap.prepare(tmp_path, bootstrap.ask(yes=True))


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("bash", ["source .venv/bin/activate ", "source <(invoke --print-completion-script bash) "]),
        ("zsh", ["source .venv/bin/activate ", "source <(invoke --print-completion-script zsh) "]),
        ("fish", ["source .venv/bin/activate.fish ", "invoke --print-completion-script fish | source "]),
        ("", ["source .venv/bin/activate ", "print-completion-script bash"]),
    ],
)
def test_what_to_type_next_is_said_for_the_shell_in_use(tmp_path, shell, expected):
    text = bootstrap.next_steps(tmp_path, tmp_path, shell)
    assert all(line in text for line in [*expected, "invoke deploy "])
    assert "cd " not in text


def test_from_elsewhere_the_first_step_leads_into_the_project(tmp_path):
    project = tmp_path / "my stack"
    assert f"  cd '{project}'\n" in bootstrap.next_steps(project, tmp_path, "bash")


def test_an_error_of_the_system_is_a_sentence(monkeypatch, capsys):
    def fail(project, consent):
        raise OSError(28, "No space left on device", "/opt")

    monkeypatch.setattr(bootstrap, "prepare", fail)
    assert bootstrap.main([]) == 1
    assert capsys.readouterr().err == "bootstrap: [Errno 28] No space left on device: '/opt'\n"


def test_the_end_of_the_input_is_no(monkeypatch):
    monkeypatch.setattr(bootstrap.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: (_ for _ in ()).throw(EOFError))
    with pytest.raises(bootstrap.BootstrapError, match="Nothing was changed"):
        bootstrap.ask(yes=False)("install things")
