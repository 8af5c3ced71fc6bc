"""Which command runs where, and what is refused before it starts."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from ops import engine
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.commands import inside
from ops.engine import Completed
from ops.parts import postgres, redis
from ops.stack import model
from ops.stack.model import Service


class Became(Exception):
    """Instead of another program: its command line."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv


@pytest.fixture(autouse=True)
def stack(env, make_stack, make_container, monkeypatch):
    """An environment that runs, on an engine with every image; whatever a command becomes is raised."""

    def become(argv, **_surroundings):
        raise Became(list(argv))

    services = [
        Service("api", "acme/api:dev"),
        Service("report", "acme/report:dev", labels={"ops.schedule": "0 3 * * *"}),
        Service("backup", "acme/backup:dev", labels={"ops.part": "backup", "ops.schedule": "30 2 * * *"}),
        Service("redis-primary", "redis:8", labels={"ops.tier": "data"}),
    ]
    found = [make_container("api"), make_container("api", 2), make_container("redis-primary")]
    monkeypatch.setattr(model, "load", lambda _env: make_stack(*services))
    monkeypatch.setattr(engine, "containers", lambda _env: found)
    monkeypatch.setattr(engine, "image_ids", lambda names: {name: "sha256:1" for name in names})
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 0, "appdb\npostgres\n", ""))
    monkeypatch.setattr(engine, "become", become)
    monkeypatch.setattr(engine, "attended", become)
    monkeypatch.setattr(inside, "author", lambda: "ann@host")
    monkeypatch.setattr(inside, "is_terminal", lambda: False)
    monkeypatch.setattr(postgres, "primary", lambda _env, containers: make_container("postgres-replica"))
    monkeypatch.setattr(redis, "primary", lambda _env, containers: make_container("redis-replica"))
    return found


def became(function, *args, **options) -> list[str]:
    with pytest.raises(Became) as caught:
        function(*args, **options)
    return caught.value.argv


def refused(function, *args, **options) -> OpsError:
    with pytest.raises(OpsError) as caught:
        function(*args, **options)
    assert caught.value.remedy
    return caught.value


def test_a_command_in_a_one_off_container(env) -> None:
    assert became(inside.run, env, "api", ["python", "-c", "print(1)"]) == engine.compose_argv(
        *(env, "run", "--rm", "--no-deps", "--pull", "never", "--quiet-pull", "--no-TTY"),
        *("--name", f"acme-dev-api-run-{os.getpid()}", "--label", "ops.by=ann@host"),
        *("api", "python", "-c", "print(1)"),
    )


def test_a_person_at_a_terminal_gets_one(env, monkeypatch) -> None:
    monkeypatch.setattr(inside, "is_terminal", lambda: True)
    assert "--no-TTY" not in became(inside.run, env, "api", ["top"])
    assert "--tty" in became(inside.psql, env, "", [])


def test_what_compose_leaves_when_it_is_told_to_end_is_stopped(env, monkeypatch) -> None:
    stopped = []
    monkeypatch.setattr(engine, "attended", lambda *_argv, **_surroundings: 130)
    monkeypatch.setattr(engine, "inspect", lambda names: [{}])
    monkeypatch.setattr(engine, "docker", lambda *args, **_options: stopped.append(args))
    assert inside.run(env, "api", ["ls"]) == 130
    assert stopped == [("stop", f"acme-dev-api-run-{os.getpid()}")]
    monkeypatch.setattr(engine, "inspect", lambda names: [])
    assert inside.run(env, "api", ["ls"]) == 130
    assert len(stopped) == 1


def test_without_the_entrypoint(env) -> None:
    line = became(inside.run, env, "api", ["node", "x.js"], entrypoint=False)
    assert line[-4:] == ["--entrypoint", "node", "api", "x.js"]
    assert became(inside.run, env, "api", [], entrypoint=False)[-1] == "api"


def test_a_job_is_run_by_hand(env) -> None:
    assert became(inside.run, env, "report", [])[-1] == "report"


def test_a_job_that_is_a_part_of_the_stack_is_run_by_hand(env) -> None:
    assert became(inside.run, env, "backup", [])[-1] == "backup"


def test_a_job_that_runs_is_not_run_twice(env, stack, make_container) -> None:
    stack.append(make_container("report"))
    assert "running right now" in refused(inside.run, env, "report", []).message
    # another command in its image is another matter
    assert became(inside.run, env, "report", ["ls"])[-2:] == ["report", "ls"]


@pytest.mark.parametrize("function", [inside.run, inside.shell])
def test_an_unknown_service_is_told_with_the_one_that_is_meant(env, function) -> None:
    error = refused(function, env, "apii", [])
    assert (error.message, error.remedy, error.code) == ('There is no service "apii".', "Did you mean api?", USAGE)
    assert refused(function, env, "zzz", []).remedy == "There are: api, backup, redis-primary, report."


def test_a_part_of_the_stack_gets_no_second_container(env) -> None:
    """A second Redis on the same volume would write to the files of the first."""
    error = refused(inside.run, env, "redis-primary", ["sh"])
    assert "a second one must not run beside it" in error.message
    assert error.remedy.endswith("invoke shell redis-primary")
    assert refused(inside.shell, env, "redis-primary", new=True).code == USAGE


@pytest.mark.parametrize(
    "command",
    [
        lambda env: inside.run(env, "api", ["ls"]),
        lambda env: inside.shell(env, "api"),
        lambda env: inside.psql(env, "", []),
        lambda env: inside.redis_cli(env, []),
    ],
)
def test_nothing_runs(env, stack, command) -> None:
    stack[:] = [replace(each, state="exited") for each in stack]
    error = refused(command, env)
    assert (error.message, error.code) == ("dev is not running.", REFUSED)
    assert error.remedy == "Start it: invoke deploy --env dev"


def test_an_image_that_is_not_there_is_not_built_meanwhile(env, monkeypatch) -> None:
    monkeypatch.setattr(engine, "image_ids", lambda names: {})
    assert "acme/api:dev" in refused(inside.run, env, "api", ["ls"]).message


def test_a_shell_in_the_first_container_of_a_service(env, stack) -> None:
    line = became(inside.shell, env, "api")
    assert line[:4] == ["docker", "exec", "--interactive", stack[0].id]
    assert "exec sh" in line[-1]


def test_a_shell_in_a_new_container(env) -> None:
    line = became(inside.shell, env, "api", new=True)
    assert line[line.index("--entrypoint") : line.index("--entrypoint") + 4] == ["--entrypoint", "sh", "api", "-c"]


def test_a_shell_of_a_service_that_does_not_run(env) -> None:
    error = refused(inside.shell, env, "report")
    assert error.message == "report does not run in dev."
    assert error.remedy.endswith("invoke shell report --new --env dev")


def test_an_image_without_a_shell(env, monkeypatch) -> None:
    monkeypatch.setattr(engine, "exec_", lambda *_args, **_options: Completed((), 127, "", "not found"))
    assert "has no shell" in refused(inside.shell, env, "api").message


def test_psql_on_the_primary_wherever_it_is(env) -> None:
    line = became(inside.psql, env, "appdb", ["--command", "SELECT 1"])
    assert line[:4] == ["docker", "exec", "--interactive", "acme-dev-postgres-replica-1"]
    assert line[-3:] == ["--dbname=appdb", "--command", "SELECT 1"]


def test_an_unknown_database(env) -> None:
    error = refused(inside.psql, env, "appdbb", [])
    assert (error.message, error.remedy) == ('There is no database "appdbb".', "Did you mean appdb?")


def test_redis_cli_on_the_primary(env) -> None:
    assert became(inside.redis_cli, env, ["GET", "a b"])[3:] == [
        *("acme-dev-redis-replica-1", "sh", "/etc/redis/cli.sh", "GET", "a b")
    ]
