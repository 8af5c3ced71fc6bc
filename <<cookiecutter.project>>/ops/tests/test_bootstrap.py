"""The decisions of scripts/bootstrap.py: which machine gets what, and what a user is told."""

from __future__ import annotations

import importlib.util
import io
import os
import sys
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
    release=12,
    root=True,
    apt=True,
    unpacked=False,
    installed=None,
    docker_host="",
)
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
        ({"distribution": "ubuntu", "release": 24}, NOTHING, Action.REFUSE),
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
    ("changes", "reason"),
    [
        ({"system": "Darwin"}, "this is macOS"),
        ({"distribution": "ubuntu"}, "this is ubuntu"),
        ({"release": 11}, "Debian 11"),
        ({"architecture": "riscv64"}, "riscv64"),
        ({"apt": False}, "apt-get"),
        ({"root": False}, "root"),
    ],
)
def test_a_machine_where_nothing_can_be_installed_is_told_what_to_install(changes, reason):
    message = bootstrap.decide(BOOKWORM._replace(**changes), NOTHING).message
    assert reason in message
    assert "Docker Engine >= 25, Compose >= 2.32, buildx, and Python >= 3.11 with venv" in message


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


@pytest.mark.parametrize("content", [None, "", "nonsense", "999999999", str(os.getpid())])
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
    before = bootstrap.venv_stamp(requirements)
    requirements.write_text("invoke==2.2.1\n")
    assert bootstrap.venv_stamp(requirements) != before


def test_missing_requirements_are_named(tmp_path):
    with pytest.raises(bootstrap.BootstrapError, match="requirements.txt is missing"):
        bootstrap.ensure_venv(tmp_path / ".venv", tmp_path / "requirements.txt", bootstrap.ask(yes=True))


@pytest.mark.parametrize(("fine", "code"), [(True, 0), (False, 1)])
def test_check_exits_1_when_something_is_missing(capsys, fine, code):
    assert bootstrap.report([bootstrap.Finding("Compose", fine, "2.40.3")]) == code
    assert "Compose: 2.40.3" in capsys.readouterr().out
