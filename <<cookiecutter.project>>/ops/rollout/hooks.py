"""Hooks: programs of the team in hooks/, which a deploy or a rollback runs at certain moments (hooks/README.md).

One before can still refuse it; one afterwards can only be reported.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, OpsError
from ops.base.findings import FAILED, OK, WARNING, Check

PRE_DEPLOY, POST_DEPLOY = "pre-deploy", "post-deploy"
PRE_ROLLBACK, POST_ROLLBACK = "pre-rollback", "post-rollback"
DEPLOY_FAILED = "deploy-failed"
OF_DEPLOY = (PRE_DEPLOY, POST_DEPLOY, DEPLOY_FAILED)
NAMES = (*OF_DEPLOY, PRE_ROLLBACK, POST_ROLLBACK)
# Setting and default, in seconds: how long a hook may take.
LIMIT = ("HOOK_TIMEOUT", 300)


def folder(env: Environment) -> Path:
    """Where the hooks are."""
    return env.project_dir / "hooks"


def present(env: Environment, names: Sequence[str] = NAMES) -> list[str]:
    """Which hooks there are, of some."""
    return [name for name in names if (folder(env) / name).is_file()]


def check(env: Environment) -> Iterator[Check]:
    """Hooks that cannot be run, and files that look like one and are none. Raises OpsError for a limit that is no
    number."""
    bad = False
    env.number(*LIMIT)
    for name in present(env):
        path = folder(env) / name
        shown = relative(path)
        if not os.access(path, os.X_OK):
            bad = True
            yield Check("hooks", FAILED, f"{shown} is not executable", f"chmod +x {shown}")
        elif not _says_how_to_start(path):
            bad = True
            yield Check(
                "hooks", FAILED, f"{shown} does not say what runs it", "Begin it with a line such as #!/bin/sh."
            )
    for path in sorted(folder(env).glob("*")):
        if path.is_file() and path.name not in NAMES and (near := get_close_matches(path.stem, NAMES, 1, 0.75)):
            bad = True
            yield Check("hooks", WARNING, f"{relative(path)} is never run", f"Did you mean {near[0]}?")
    if not bad:
        yield Check("hooks", OK, ", ".join(present(env)) or "none")


def _says_how_to_start(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4).startswith((b"#!", b"\x7fELF"))


def before(env: Environment, name: str, variables: Mapping[str, str]) -> None:
    """Run a hook before anything is changed. Raises OpsError (REFUSED) when it fails, or takes too long."""
    if problem := run(env, name, variables):
        raise OpsError(
            f"Nothing was changed, because {problem}.",
            "Fix what it complains about, or the hook itself, and run the same command again.",
            REFUSED,
        )


def after(env: Environment, name: str, variables: Mapping[str, str]) -> None:
    """Run a hook after what it is about: its failure is a warning, for nothing is changed by it any more."""
    if problem := run(env, name, variables):
        console.warn(f"{problem}. What was deployed is not affected.")


def run(env: Environment, name: str, variables: Mapping[str, str]) -> str:
    """Run a hook, if there is one; why it failed, "" when it did not. Its output is shown as it comes.

    variables: what it is told, by names without their prefix STACK_. It runs in the project's folder, without a
    terminal.
    """
    if not present(env, [name]):
        return ""
    path = folder(env) / name
    shown, limit = relative(path), env.number(*LIMIT)
    console.say(f"running {shown}")
    told = {f"STACK_{key}": value for key, value in {"HOOK": name, **variables}.items()}
    try:
        with engine.popen(
            [str(path)], environment={**engine.child_environment(env), **told}, cwd=env.project_dir
        ) as child:
            code = child.wait(limit)
    except subprocess.TimeoutExpired:
        return f"{shown} did not end within {limit} s and was stopped ({LIMIT[0]} in {relative(env.env_file)})"
    except OpsError as error:
        return f"{shown} could not be started: {error.message.rstrip('.')}"
    return f"{shown} failed with exit code {code}" if code else ""
