"""The commands as a person meets them: their list, their help, their exit codes, and never a traceback."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from invoke import Collection
from invoke.parser import Parser

import tasks

PROJECT = Path(__file__).resolve().parents[2]
COMMANDS = {
    *(
        "deploy",
        "run",
        "shell",
        "psql",
        "redis-cli",
        "update",
        "scale",
        "stop",
        "down",
        "status",
        "logs",
        "health",
        "backup",
        "restore",
        "failover",
        "promote",
        "images",
    ),
    *("rollback", "releases", "maintenance", "unlock", "upgrade-database"),
    *("service-add", "service-remove", "environment-add", "export"),
    *("secret-init", "secret-check", "secret-rotate", "certificate", "config", "doctor"),
}


def invoke(*args: str, cwd: Path = PROJECT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run invoke as a person would; without any docker on the path."""
    environment = {**os.environ, "PATH": str(Path(sys.executable).parent), "COLUMNS": "100", **variables}
    command = [sys.executable, "-m", "invoke", *args]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def other_invoke(tmp_path: Path) -> dict[str, str]:
    """Variables that make of this invoke one that apt or pipx installed: without the project's packages."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['dotenv'] = None\n")
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("command", [["status"], ["deploy", "--env", "prod"], ["scale", "web", "2"]])
def test_an_invoke_without_the_packages_names_the_remedy(
    elsewhere: Path, other_invoke: dict[str, str], command: list[str]
) -> None:
    done = invoke(*command, cwd=elsewhere, **other_invoke)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1 and "Run: python3 scripts/bootstrap.py" in done.stderr
    own = elsewhere / ".venv/bin/invoke"
    own.parent.mkdir(parents=True)
    own.touch()
    done = invoke(*command, cwd=elsewhere, **other_invoke)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "source .venv/bin/activate" in done.stderr


def test_the_list_works_with_any_invoke(other_invoke: dict[str, str]) -> None:
    assert invoke("--list", **other_invoke).returncode == 0


def test_python_3_9_can_read_the_commands() -> None:
    """An invoke of an old Python says what to do instead of a traceback."""
    ast.parse((PROJECT / "tasks.py").read_text(encoding="utf-8"), feature_version=(3, 9))


def test_every_package_is_looked_for() -> None:
    wanted = re.findall(r"^[a-z-]+", (PROJECT / "requirements.in").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.search(r"^MODULES = \((.*)\)$", (PROJECT / "tasks.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    modules = set(re.findall(r'"(\w+)"', named[1]))
    assert modules == {re.sub("^(python-|py)", "", name) for name in wanted} - {"invoke"}


@pytest.fixture
def elsewhere(project: Path) -> Path:
    """A project of its own with the real commands and made-up environments."""
    (project / "tasks.py").symlink_to(PROJECT / "tasks.py")
    (project / "ops").symlink_to(PROJECT / "ops")
    return project


def test_the_list_works_without_docker() -> None:
    done = invoke("--list")
    assert done.returncode == 0, done.stderr
    listed = dict(re.findall(r"^  ([\w-]+)\s+(.+)$", done.stdout, re.MULTILINE))
    assert set(listed) == COMMANDS
    for name, words in listed.items():
        assert words[0].isupper(), name
        assert len(words) <= 72, name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_its_arguments(name: str) -> None:
    done = invoke("--help", name)
    assert done.returncode == 0, done.stderr
    options = re.findall(r"^  -.*?(?=^  -|\Z)", done.stdout, re.MULTILINE | re.DOTALL)
    assert any("--env" in option for option in options) or name == "environment-add"
    for option in options:
        # Every option has words beside its name.
        assert len(option.split()) > 4, option


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("status", "--env", "nope"), 2, ('There is no environment "nope"', "dev, staging, prod")),
        (("secret-rotate", "--all", "--env", "nope"), 2, ('There is no environment "nope"',)),
        (("deploy",), 3, ("docker is not installed",)),
        (("scale", "web", "x"), 2, ('"x" is not a number', "invoke scale web 3")),
        (("scale", "web", "-1"), 2, ('"-1" is not a number',)),
        (("logs", "--tail", "x"), 2, ("--tail must be",)),
        (("logs", "--level", "loud"), 2, ('There is no level "loud"', "debug, info, warning, error, critical")),
    ],
)
def test_errors_are_sentences(elsewhere: Path, args: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    # tasks.py finds the environments beside ops/, wherever the link to it is: give it ours.
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from ops.base import environments;"
            " environments.PROJECT_DIR = Path.cwd(); from invoke import Program;"
            " Program().run(['invoke', *sys.argv[1:]])",
            *args,
        ],
        cwd=elsewhere,
        env={**os.environ, "PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    for each in words:
        assert each in done.stderr


def test_a_missing_argument() -> None:
    done = invoke("scale", "web")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "replicas" in done.stderr


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("deploy prod", "deploy --env prod"),
        ("deploy production --plan", "deploy --env production --plan"),
        ("logs api", "logs --service api"),
        ("logs api web --level error", "logs --service api --service web --level error"),
        ("logs api prod --follow", "logs --service api --env prod --follow"),
        ("rollback 3 prod", "rollback --to 3 --env prod"),
        ("scale web 5 prod", "scale web 5 --env prod"),
        ("scale web -1", "scale web -1"),
        ("secret-rotate --all prod", "secret-rotate --all --env prod"),
        # What needs no help is left alone.
        ("deploy --env prod", "deploy --env prod"),
        ("logs --service prod --tail 5", "logs --service prod --tail 5"),
        ("scale --env prod web 5", "scale --env prod web 5"),
        ("stop deploy", "stop deploy"),
        ("depoly prod", "depoly prod"),
    ],
)
def test_a_word_without_its_option(typed: str, meant: str) -> None:
    contexts = Parser(contexts=Collection.from_module(tasks).to_contexts()).contexts
    assert tasks.spelled_out(typed.split(), contexts) == meant.split()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["depoly"], "Did you mean deploy?"),
        (["--help", "depoly"], "Did you mean deploy?"),
        (["--help", "prod"], "See: invoke --list"),
        (["status", "stagin"], "Did you mean staging?"),
        (["deploy", "--environment", "prod"], "Did you mean --env?"),
        (["help"], "See: invoke --list"),
        (["deploy", "--zzzz"], "See: invoke --help deploy"),
        (["run", "api", "ls"], "What run runs stands after --: invoke run api -- python -V"),
        (["psql", "--command", "SELECT 1"], "What psql runs stands after --: invoke psql -- --command 'SELECT 1'"),
    ],
)
def test_a_line_that_cannot_be_read(args: list[str], words: str) -> None:
    done = invoke(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and done.stderr.endswith(f"\n       {words}\n")


@pytest.mark.parametrize("args", [["--list"], ["--help", "deploy"], ["deploy", "--help"]])
def test_help_for_a_reader_that_has_seen_enough(args: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "invoke", *args]
    done = subprocess.run(command, cwd=PROJECT, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["run", "api", "--", "sh", "-c", "echo 'a  b' | wc"], ["sh", "-c", "echo 'a  b' | wc"]),
        (["run", "api", "--env", "dev", "--", "logs", "prod", "--", "--env"], ["logs", "prod", "--", "--env"]),
        (["run", "api", "dev"], []),
        (["run", "api", "--"], []),
    ],
)
def test_what_stands_after_two_dashes_is_kept_word_by_word(typed: list[str], words: list[str]) -> None:
    script = (
        "import json, sys; from ops.commands import inside; from invoke import Program\n"
        "inside.run = lambda env, service, command, entrypoint: print(json.dumps([env.name, service, command]))\n"
        "Program().run(['invoke', *sys.argv[1:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *typed], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["dev", "api", words]


def test_the_number_of_a_release_needs_no_option() -> None:
    assert '"x" is not the number of a release' in invoke("rollback", "x").stderr


def test_an_environment_can_be_the_default_of_a_terminal() -> None:
    done = invoke("status", STACK_ENV="nope")
    assert done.returncode == 2 and 'There is no environment "nope"' in done.stderr
    assert 'There is no environment "other"' in invoke("status", "--env", "other", STACK_ENV="nope").stderr


def test_options_are_still_completed() -> None:
    done = invoke("--complete", "--", "invoke deploy prod --pl")
    assert done.returncode == 0 and "--plan" in done.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interruption_ends_a_command_with_130(number: signal.Signals) -> None:
    script = (
        "import os, tasks, time\n"
        "from ops.base import environments\n"
        # On a busy machine the signal takes its time.
        f"environments.load = lambda name: (os.kill(os.getpid(), {int(number)}), time.sleep(10))\n"
        "from invoke import Context\n"
        "tasks.status(Context())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "error: Interrupted.\n"


CHANGES = """
import os, sys, tasks, time
from ops.base import console, environments
from ops.base.errors import OpsError

def work(name):
    for number in range(2000):
        console.say(f"step {number}")
    console.print_table(("SERVICE",), [("web",)])
    console.warn("nobody reads this either")
    open(os.environ["DONE"], "w").close()
    raise OpsError("It failed.", code=7)

environments.load = work
from invoke import Context
tasks.stop(Context())
"""


@pytest.mark.parametrize("closed", ["stdout", "both", "from the beginning"])
def test_work_is_done_although_nobody_reads(tmp_path: Path, closed: str) -> None:
    done = tmp_path / "done"
    redirection = {"stdout": "2>/dev/null | true", "both": "2>&1 | true", "from the beginning": ">&- 2>&-"}[closed]
    line = f'"$PYTHON" -c "$SCRIPT" {redirection}; echo "${{PIPESTATUS[0]}}"'
    variables = {**os.environ, "PYTHON": sys.executable, "SCRIPT": CHANGES, "DONE": str(done)}
    said = subprocess.run(
        ["bash", "-c", line], cwd=PROJECT, env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert said.stdout == "7\n", said.stderr
    assert done.exists()


def test_nohup_is_respected() -> None:
    script = (
        "import os, signal, tasks\n"
        "from ops.base import environments\n"
        "environments.load = lambda name: os.kill(os.getpid(), signal.SIGHUP) or exit(9)\n"
        "from invoke import Context\n"
        "tasks.status(Context())\n"
    )
    line = ["nohup", sys.executable, "-c", script]
    done = subprocess.run(line, cwd=PROJECT, capture_output=True, timeout=60, check=False)
    assert done.returncode == 9
