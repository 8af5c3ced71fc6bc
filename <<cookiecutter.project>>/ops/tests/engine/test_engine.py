"""Command lines are exact, children do not outlive us, and docker's complaints become sentences."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import FAILED, INTERRUPTED, REFUSED, OpsError
from ops.engine import cli, local, process

PROJECT = Path(__file__).resolve().parents[3]


def test_compose_command_line(env: Environment) -> None:
    assert engine.compose_argv(env, "up", "--detach", "web") == [
        *("docker", "compose", "--project-directory", str(env.project_dir)),
        *("--env-file", str(env.project_dir / "config/dev/.env"), "up", "--detach", "web"),
    ]
    assert engine.compose_argv(env, "stop", all_profiles=True)[-3:] == ["--profile", "*", "stop"]


def test_the_command_a_person_types(env: Environment) -> None:
    assert engine.plain_command(env, "ps", "a b") == "docker compose --env-file config/dev/.env ps 'a b'"


def test_exec_command_line_names_variables_but_never_their_values() -> None:
    line = engine.exec_argv("abc", "psql", "-c", "select 1", user="postgres", variables=["PGPASSWORD"], stdin=True)
    assert line == [
        *("docker", "exec", "--user", "postgres", "--interactive", "--env", "PGPASSWORD"),
        *("abc", "psql", "-c", "select 1"),
    ]
    assert engine.exec_argv("abc", "true") == ["docker", "exec", "abc", "true"]


def test_the_settings_file_wins_over_the_shell(env: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    shell = {"PATH": "/bin", "DOCKER_HOST": "tcp://x", "COMPOSE_PROFILES": "*", "WEB_PORT": "1", "SSL_PORT": "8443"}
    assert engine.child_environment(env, shell) == {"PATH": "/bin", "DOCKER_HOST": "tcp://x"}
    # COMPOSE_PROFILES is a setting of the file too; SSL_PORT says the same in both places.
    assert engine.overridden(env, shell) == ["COMPOSE_PROFILES", "WEB_PORT"]


def test_ignored_shell_variables_are_named_once(
    env: Environment, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WEB_PORT", "9999")
    cli._warn_once.cache_clear()
    engine.warn_overridden(env)
    engine.warn_overridden(env)
    assert capsys.readouterr().err == "warning: WEB_PORT from your shell is ignored: config/dev/.env decides.\n"


def test_running_a_command() -> None:
    done = engine.run(["sh", "-c", "cat; echo; exit 3"], input="in", check=False)
    assert (done.code, done.stdout, done.ok) == (3, "in\n", False)
    with pytest.raises(OpsError, match=r"failed \(exit code 1\): the reason$"):
        engine.run(["sh", "-c", "echo first >&2; echo the reason >&2; exit 1"])


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(OpsError, match="no-such-program is not installed") as caught:
        engine.run(["no-such-program"])
    assert caught.value.code == REFUSED


def test_no_answer_in_time_ends_the_command() -> None:
    began = time.monotonic()
    with pytest.raises(engine.TimedOut, match="gave no answer within 0 s"):
        engine.run(["sleep", "60"], timeout=0.1)
    assert time.monotonic() - began < 5


def test_an_image_pinned_by_tag_and_digest_is_present(monkeypatch: pytest.MonkeyPatch) -> None:
    document = [{"Id": "sha256:1", "RepoTags": ["postgres:18.6"], "RepoDigests": ["postgres@sha256:00"]}]
    monkeypatch.setattr(cli, "docker", lambda *args, **_: engine.Completed(args, 0, json.dumps(document), ""))
    assert engine.image_ids(["postgres:18.6@sha256:00"]) == {"postgres:18.6@sha256:00": "sha256:1"}
    assert engine.image_ids(["postgres:18.6@sha256:11"]) == {}


@pytest.mark.parametrize(
    "complaint",
    [
        "Error response from daemon: No such container: a\nError response from daemon: No such container: b",
        "Error response from daemon: No such image: a:latest",
        "Error response from daemon: get a: no such volume",
        "Error response from daemon: network a not found",
        "Error: No such object: a",
    ],
)
def test_what_does_not_exist_is_left_out(monkeypatch: pytest.MonkeyPatch, complaint: str) -> None:
    monkeypatch.setattr(cli, "docker", lambda *args, **_: engine.Completed(args, 1, "[]\n", complaint))
    assert engine.inspect(["a"]) == []


@pytest.mark.parametrize(
    "complaint",
    [
        "",
        "Error response from daemon: context deadline exceeded",
        "Error response from daemon: No such container: b\npanic: oops",
    ],
)
def test_an_engine_that_fails_is_not_an_empty_engine(monkeypatch: pytest.MonkeyPatch, complaint: str) -> None:
    monkeypatch.setattr(cli, "docker", lambda *args, **_: engine.Completed(args, 1, "[]\n", complaint))
    with pytest.raises(OpsError, match="failed"):
        engine.inspect(["a", "b"])


# ── a shell script in the place of docker ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Puts a script on PATH that is called instead of docker."""

    def put(script: str) -> None:
        program = tmp_path / "bin" / "docker"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return put


def test_the_output_of_a_container_is_in_the_order_it_was_written(docker) -> None:
    docker("echo out; echo err >&2; echo last")
    assert engine.logs("abc") == ["out", "err", "last"]


def test_the_last_lines_of_a_container_although_it_is_going(docker) -> None:
    docker('echo "$@"; seq 100; exit 1')
    assert engine.logs("abc") == [str(number) for number in range(81, 101)]
    docker('echo "$@"')
    assert engine.logs("abc", 3) == ["logs --tail 3 abc"]


def test_compose_is_called_in_the_folder_of_the_project_and_of_the_profiles_that_are_on(docker, env) -> None:
    docker('pwd; echo "$@"')
    folder, line = engine.compose(env, "ps").stdout.splitlines()
    assert Path(folder) == env.project_dir
    assert "--profile" not in line and line.endswith(" ps")
    assert "--profile" in engine.compose(env, "ps", all_profiles=True).stdout


@pytest.mark.parametrize(("given", "said"), [("text", "exec --interactive abc cat\ntext"), (None, "exec abc cat\n")])
def test_a_command_in_a_container_listens_only_when_it_is_told_something(docker, given: str | None, said: str) -> None:
    docker('echo "$@"; cat')
    assert engine.exec_("abc", ["cat"], input=given).stdout == said


@pytest.mark.parametrize(("answer", "count"), [("3", 3), ("", 1), ("0", 1)])
def test_an_engine_has_a_processor_at_least(docker, answer: str, count: int) -> None:
    docker(f"echo {answer}")
    assert engine.processors() == count


def test_a_pool_that_is_interrupted_ends_its_commands_and_starts_no_more() -> None:
    """Ctrl-C during a pull of several images must not wait for the pulls."""
    began = time.monotonic()
    started = threading.Event()
    late: list[BaseException] = []

    def work() -> None:
        with contextlib.suppress(OpsError):
            started.set()
            engine.run(["sleep", "60"], check=False, timeout=None)
        try:
            engine.run(["sleep", "60"], timeout=None)
        except OpsError as error:
            late.append(error)

    with pytest.raises(KeyboardInterrupt), engine.pool(1) as pool:
        pool.submit(work)
        queued = pool.submit(work)
        started.wait()
        time.sleep(0.2)
        raise KeyboardInterrupt
    assert time.monotonic() - began < 10
    assert queued.cancelled()
    assert [error.code for error in late if isinstance(error, OpsError)] == [INTERRUPTED]
    assert engine.run(["true"]).ok


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"from ops import engine; engine.run(['sh', '-c', 'echo $$ > {note}; exec sleep 60'], timeout=None)"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT)
    while not note.exists() or not note.read_text().strip():
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    await_end(int(note.read_text()))


def test_several_children_share_one_farewell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FAREWELL_SECONDS", 1)
    deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]
    children = [subprocess.Popen(deaf, start_new_session=True) for _ in range(4)]
    time.sleep(0.3)
    began = time.monotonic()
    engine.end(children)
    assert [child.wait(5) for child in children] == [-signal.SIGKILL] * 4
    assert time.monotonic() - began < 3


def context(folder: Path, host: str, name: str = "far") -> None:
    """A Docker context as the CLI stores it."""
    place = folder / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    place.mkdir(parents=True)
    (place / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))


def test_where_the_engine_is(tmp_path: Path) -> None:
    context(tmp_path, "ssh://ann@server")
    shell = {"HOME": "/nowhere", "DOCKER_CONFIG": str(tmp_path)}
    assert local.endpoint(shell) == ""
    assert local.endpoint({**shell, "DOCKER_CONTEXT": "far"}) == "ssh://ann@server"
    assert local.endpoint({**shell, "DOCKER_CONTEXT": "far", "DOCKER_HOST": "unix:///x"}) == "unix:///x"
    (tmp_path / "config.json").write_text('{"currentContext": "far"}')
    assert local.endpoint(shell) == "ssh://ann@server"
    # Docker's own name for "none", whatever lies in the folder of contexts.
    default = tmp_path / "contexts" / "meta" / hashlib.sha256(b"default").hexdigest() / "meta.json"
    default.parent.mkdir(parents=True)
    default.write_text('{"Endpoints": {"docker": {"Host": "ssh://elsewhere"}}}')
    assert local.endpoint({**shell, "DOCKER_CONTEXT": "default"}) == ""
    (tmp_path / "config.json").write_text("not JSON")
    assert local.endpoint(shell) == ""


@pytest.mark.parametrize(
    ("address", "remote"),
    [
        ("", False),
        ("unix:///run/user/1000/docker.sock", False),
        ("tcp://127.0.0.1:2375", False),
        ("tcp://[::1]:2375", False),
        ("ssh://server", True),
        ("tcp://10.0.0.5:2376", True),
        ("http://10.0.0.5:2375", True),
        ("https://10.0.0.5:2376", True),
    ],
)
def test_an_engine_on_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, remote: bool) -> None:
    assert local.is_remote(address) is remote
    if remote:
        monkeypatch.setenv("DOCKER_HOST", address)
        with pytest.raises(OpsError, match="another machine") as caught:
            engine.docker("ps")
        assert caught.value.code == REFUSED


def test_children_of_a_child_end_with_it(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = f"sleep 60 & echo $! > {note}; wait"
    with pytest.raises(KeyboardInterrupt), engine.popen(["sh", "-c", script]):
        while not note.exists() or not note.read_text().strip():
            time.sleep(0.01)
        raise KeyboardInterrupt
    await_end(int(note.read_text()))


def await_end(pid: int) -> None:
    """Wait until a process has ended; fail when it does not."""
    for _ in range(500):
        try:
            # Orphans are reaped by init, which may be slow or, in a bare container, absent: a zombie has ended too.
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return
        except (FileNotFoundError, ProcessLookupError):
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail(f"process {pid} was still running")


def test_output_goes_to_a_log_and_its_last_line_to_the_screen(tmp_path: Path) -> None:
    seen: list[str] = []
    log, shown = tmp_path / "state" / "x.log", tmp_path / "shown"

    def show(line: str) -> None:
        seen.append(line)
        shown.touch()

    # It ends after a line was shown, however slow the machine is.
    script = f"printf 'one\\ntwo\\n'; until [ -e {shown} ]; do sleep 0.05; done; echo three; exit 4"
    assert engine.logged(["sh", "-c", script], log, show) == 4
    assert seen[0] == "two" and seen[1:] in ([], ["three"])
    assert engine.tail(log, 2) == ["two", "three"]


@pytest.mark.parametrize(
    ("stderr", "message", "code"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "engine does not answer", REFUSED),
        ("permission denied while trying to connect to the Docker daemon socket", "do not have permission", REFUSED),
        ("docker: 'compose' is not a docker command.", "Compose is not installed", REFUSED),
        # What docker 28 says when the plugin is missing: it took the options for its own.
        ("unknown flag: --project-directory\n\nUsage:  docker [OPTIONS] COMMAND", "Compose is not installed", REFUSED),
        ("unknown shorthand flag: 'f' in -f compose", "Compose is not installed", REFUSED),
        ('Failed to initialize: unable to resolve docker endpoint: context "x": context not found', "context", REFUSED),
        ("unable to resolve docker endpoint: open /x/ca.pem: no such file or directory", "TLS files", REFUSED),
        ("unable to read CA file: open /x/ca.pem: no such file", "TLS files", REFUSED),
        ("image with reference x was found but does not match the specified platform", "processor", REFUSED),
        ("could not find an available, non-overlapping IPv4 address pool among the defaults", "address range", FAILED),
        ("all predefined address pools have been fully subnetted", "address range", FAILED),
        ("write /x: no space left on device", "disk is full", FAILED),
    ],
)
def test_well_known_complaints(stderr: str, message: str, code: int) -> None:
    error = engine.failure(engine.Completed(("docker", "ps"), 1, "", stderr))
    assert message in error.message
    assert error.remedy
    assert error.code == code


def test_messages_leave_out_what_every_compose_command_has(env: Environment) -> None:
    assert engine.brief(engine.compose_argv(env, "config", "--hash", "*")) == "docker compose config --hash *"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-23T13:48:59.653861735Z", 1795441739.653861),
        ("2026-11-23T14:48:59+01:00", 1795441739.0),
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
    ],
)
def test_docker_times(text: str, seconds: float) -> None:
    assert engine.timestamp(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("given", "listed"),
    [
        ("postgres:18.6", "postgres:18.6"),
        ("docker.io/library/postgres:18.6", "postgres:18.6"),
        ("registry:5000/acme/web", "registry:5000/acme/web:latest"),
        ("acme/web@sha256:00", "acme/web@sha256:00"),
        ("docker.io/library/postgres:18.6@sha256:00", "postgres@sha256:00"),
        ("registry:5000/acme/web:1@sha256:00", "registry:5000/acme/web@sha256:00"),
    ],
)
def test_image_names_as_the_engine_lists_them(given: str, listed: str) -> None:
    assert engine.canonical(given) == listed


def test_a_container_from_docker_inspect() -> None:
    found = engine.container(
        {
            "Id": "abc",
            "Name": "/acme-dev-web-2",
            "Image": "sha256:1",
            "Created": "2026-11-23T13:48:59Z",
            "RestartCount": 4,
            "Config": {
                "Image": "acme/web:current",
                "Labels": {
                    "com.docker.compose.service": "web",
                    "com.docker.compose.container-number": "2",
                    "com.docker.compose.config-hash": "h",
                },
            },
            "State": {
                "Status": "running",
                "StartedAt": "2026-11-23T13:49:00Z",
                "Error": "no space left",
                "Health": {"Status": "unhealthy", "Log": [{"Output": "no answer\n"}]},
            },
            "NetworkSettings": {
                "Ports": {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "18080"}], "9/tcp": None},
                "Networks": {"frontend": {"IPAddress": "10.0.0.2"}, "backend": {"IPAddress": ""}},
            },
        }
    )
    assert (found.name, found.service, found.number, found.config_hash) == ("acme-dev-web-2", "web", 2, "h")
    assert (found.health, found.health_log, found.restarts) == ("unhealthy", ("no answer",), 4)
    assert found.ports == ("127.0.0.1:18080->8080",)
    assert (found.error, found.addresses) == ("no space left", {"frontend": "10.0.0.2"})
    assert found.running and not found.ready


@pytest.mark.parametrize(
    ("state", "restarts", "health", "looping"),
    [
        ("restarting", 0, "", True),
        ("running", 1, "starting", True),
        ("running", 0, "starting", False),
        ("running", 3, "healthy", False),
    ],
)
def test_a_container_that_keeps_restarting(make_container, state, restarts, health, looping) -> None:
    assert make_container("web", state=state, restarts=restarts, health=health).looping is looping


def test_nothing_else_says_docker() -> None:
    """The engine module is the only one that starts the program."""
    folder = Path(engine.__file__).parent
    for path in folder.parent.rglob("*.py"):
        if folder not in path.parents and "tests" not in path.parts:
            assert '["docker"' not in path.read_text(), path.name
            assert '("docker"' not in path.read_text(), path.name


def test_modules_that_load_at_once_are_light() -> None:
    """`invoke --list` imports tasks.py, which must not draw in what only a running command needs."""
    heavy = ("rich", "cryptography", "ops.engine")
    code = f"import sys, tasks; print([name for name in {heavy} if name in sys.modules])"
    project = Path(engine.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_answer_that_is_cut_off_is_a_sentence() -> None:
    with pytest.raises(OpsError, match="`docker ps` is not what was expected"):
        engine.Completed(("docker", "ps"), 0, '[{"Id": "ab', "").json()
    assert engine.Completed(("docker", "ps"), 0, '{"a": 1}\n{"a": 2}\n', "").json() == [{"a": 1}, {"a": 2}]


def test_where_setpriv_is_not_to_be_found_a_child_starts_without_it() -> None:
    assert process._following("sh", {"PATH": "/nonexistent"}) == ()
    assert process._following("sh", {"PATH": os.environ["PATH"]})[:1] in {("setpriv",), ()}
    assert bool(process._following("sh", None)) is bool(shutil.which("setpriv"))


def test_a_pool_that_is_interrupted_is_left_when_its_threads_have_ended() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        time.sleep(0.3)
        ended.set()

    with pytest.raises(KeyboardInterrupt), engine.pool(1) as pool:
        pool.submit(work)
        begun.wait(10)
        raise KeyboardInterrupt
    assert ended.is_set()


def test_the_last_lines_of_a_short_log_are_whole(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("one\ntwo\n")
    assert engine.tail(log, 5) == ["one", "two"]
    log.write_text("x" * 500 + "\nlast\n")
    assert engine.tail(log, 1) == ["last"]


def test_a_line_that_is_too_long_is_cut_from_the_left(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number:03}" for number in range(100)))
    assert engine.tail(log, 1) == [log.read_text()[-200:]]


def test_a_stream_that_was_opened_as_a_pipe() -> None:
    with process.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        process.pipe(child.stdin).write(b"there and back")
        process.pipe(child.stdin).close()
        assert process.pipe(child.stdout).read() == b"there and back"
        with pytest.raises(AssertionError):
            process.pipe(child.stderr)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel groups no sessions")
def test_a_child_is_as_nice_as_the_command() -> None:
    """With autogroups a nice value counts within a session only, and a child has a session of its own."""
    # It waits for its input, so that it looks after the value was given to it.
    script = (
        "import os; from ops import engine; os.setpriority(os.PRIO_PROCESS, 0, 7);"
        "print(engine.run(['sh', '-c', 'sleep 1; cat /proc/self/autogroup']).stdout)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "7"


# ── at our own terminal ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("cat; exit 7", 7),
        ("kill -KILL $$", 137),
        ("trap 'exit 9' TERM; sleep 0.5; kill -TERM $PPID; sleep 20 >/dev/null & wait", 9),
    ],
)
def test_a_command_that_is_attended_has_our_streams_and_gets_our_signals(script: str, code: int) -> None:
    program = "import sys; from ops import engine; sys.exit(engine.attended(['sh', '-c', sys.argv[1]]))"
    argv = [sys.executable, "-c", program, script]
    done = subprocess.run(argv, input="in", cwd=PROJECT, stdout=subprocess.PIPE, text=True, timeout=15)
    assert (done.returncode, done.stdout) == (code, "in" if script.startswith("cat") else "")


def test_becoming_another_program_keeps_its_exit_code_and_the_streams() -> None:
    program = "import sys; from ops import engine; print('before'); engine.become(['sh', '-c', 'cat; exit 7'])"
    done = subprocess.run([sys.executable, "-c", program], input="in", cwd=PROJECT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (7, "before\nin")


@pytest.mark.parametrize("run", [process.become, process.attended])
def test_a_program_that_is_not_there_is_a_sentence(run: Callable[[list[str]], object]) -> None:
    before = signal.getsignal(signal.SIGPIPE)
    with pytest.raises(OpsError, match="no-such-program is not installed"):
        run(["no-such-program"])
    assert signal.getsignal(signal.SIGPIPE) == before
