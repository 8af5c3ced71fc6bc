"""Docker command lines, built from lists of arguments (pure), and the functions that run them.

Which variables Compose sees: the settings file is the declared state. A variable of the caller's shell that would
override it (same name, another value) is dropped with a warning, and so is every COMPOSE_* variable; otherwise the
same command would deploy different things from two terminals. All else is passed on.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ops.base.console import warn
from ops.base.environments import Environment, relative
from ops.engine import kubectl, process
from ops.engine.process import DOCKER
from ops.engine.results import Completed


def docker_argv(*args: str) -> list[str]:
    """Command line of a plain docker command."""
    return [DOCKER, *args]


def compose_argv(
    env: Environment,
    *args: str,
    all_profiles: bool = False,
    document: Path | None = None,
) -> list[str]:
    """Command line of a Compose command for an environment: the same a person would type in the project's folder.

    all_profiles: also services that are switched off, for what must reach everything (stop, down).
    document: a resolved configuration to use instead of the Compose files, such as that of a release.
    """
    return [
        *(DOCKER, "compose", "--project-directory", str(env.project_dir), "--env-file", str(env.env_file)),
        *(("--file", str(document)) if document else ()),
        *(("--profile", "*") if all_profiles else ()),
        *args,
    ]


def plain_command(env: Environment, *args: str) -> str:
    """What a person types in the project's folder for the configuration that compose_argv uses."""
    return shlex.join([DOCKER, "compose", "--env-file", str(env.env_file.relative_to(env.project_dir)), *args])


def exec_argv(
    container: str, *argv: str, user: str = "", variables: Sequence[str] = (), stdin: bool = False
) -> list[str]:
    """Command line that runs something in a container.

    container: its id; variables: names only; values come from the child's environment, so that a secret is never on a
    command line. In a pod there is neither another user nor a variable.
    """
    if pod := kubectl.pod(container):
        if user or variables:
            raise ValueError("a command in a pod has the user and the environment of its container")
        return kubectl.exec_argv(pod, *argv, stdin=stdin)
    options = (*(("--user", user) if user else ()), *(("--interactive",) if stdin else ()))
    return docker_argv("exec", *options, *(part for name in variables for part in ("--env", name)), container, *argv)


def child_environment(env: Environment | None, base: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours without COMPOSE_* and what the settings file says itself, with its overrides."""
    base = os.environ if base is None else base
    settings = env.values if env else {}
    kept = {key: value for key, value in base.items() if not key.startswith("COMPOSE_") and key not in settings}
    return {**kept, **(env.overrides if env else {})}


def overridden(env: Environment, base: Mapping[str, str] | None = None) -> list[str]:
    """Names of variables in the caller's shell that would have changed the environment's settings."""
    base = os.environ if base is None else base
    return sorted(key for key, value in base.items() if env.values.get(key, value) != value)


def docker(*args: str, **options: Any) -> Completed:
    """Run a docker command; options as of `run`."""
    return process.run(docker_argv(*args), **options)


def compose(
    env: Environment,
    *args: str,
    all_profiles: bool = False,
    document: Path | None = None,
    **options: Any,
) -> Completed:
    """Run a Compose command for an environment; options as of `run`."""
    argv = compose_argv(env, *args, all_profiles=all_profiles, document=document)
    return process.run(argv, **surroundings(env), **options)


def surroundings(env: Environment) -> dict[str, Any]:
    """What a Compose command needs around it (options of `run`, `popen`, `show`): its variables, and the project's
    folder, because Compose looks up the names in COMPOSE_FILE from where it is called."""
    warn_overridden(env)
    return {"environment": child_environment(env), "cwd": env.project_dir}


def exec_(
    container: str,
    argv: Sequence[str],
    *,
    user: str = "",
    variables: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    **options: Any,
) -> Completed:
    """Run a command in a container; variables are set for it without showing on a command line; options as of `run`."""
    variables = variables or {}
    line = exec_argv(container, *argv, user=user, variables=list(variables), stdin=input is not None)
    return process.run(line, input=input, environment={**os.environ, **variables}, **options)


@cache
def _warn_once(text: str) -> None:
    warn(text)


def warn_overridden(env: Environment) -> None:
    """One warning for shell variables that the settings file wins over."""
    if names := overridden(env):
        _warn_once(
            f"{', '.join(names)} from your shell {'is' if len(names) == 1 else 'are'} ignored:"
            f" {relative(env.env_file)} decides."
        )
