"""Whether edited Compose files say what was meant, before they replace those that are there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from ops import engine
from ops.adopt import backed_up, clients
from ops.base import environments
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.base.files import complete_file, replace_file
from ops.parts import routes
from ops.stack import contract, model, owned
from ops.stack.model import Stack

FILE = "docker-compose.services.yml"
# What the service that takes backups mounts.
BACKED_UP = backed_up.FILE
# Who uses a PostgreSQL outside of the stack.
CLIENTS = clients.FILE


def texts_of(project: Path) -> dict[str, str]:
    """The files as they are, by name; but the first only where there is one. Raises OpsError (USAGE) when the first is
    not there."""
    names = (FILE, *(each for each in (BACKED_UP, CLIENTS) if (project / each).exists()))
    try:
        return {name: (project / name).read_text(encoding="utf-8") for name in names}
    except FileNotFoundError:
        raise OpsError(f"{FILE} is missing.", "Restore it from version control.", USAGE) from None


def edited(env: Environment, texts: Mapping[str, str]) -> dict[str, Stack]:
    """The stack of every environment with those texts in place of the files, all profiles included, by the
    environment's name. Raises OpsError (USAGE) when one does not resolve, or its labels cannot be meant."""
    with ExitStack() as stack:
        complete = {}
        for name, text in texts.items():
            path = env.project_dir / name
            complete[name] = stack.enter_context(complete_file(path, text.encode(), path.stat().st_mode & 0o777)).name
        found = {}
        for name in environments.available(env.project_dir):
            each = environments.load(name, env.project_dir)
            files = each.values["COMPOSE_FILE"].split(":")
            if FILE not in files:
                continue
            # Named one by one: COMPOSE_FILE itself stays, for services read it.
            named = [part for file in files for part in ("--file", complete.get(file, file))]
            argv = (*named, "config", "--format", "json")
            done = engine.compose(each, *argv, all_profiles=True, check=False)
            if not done.ok:
                raise model.unresolved(each, done)
            found[name] = model.parse(done.json())
            contract.refuse(found[name], each.engine == environments.KUBERNETES)
            routes.render(found[name])
            owned.declared(found[name], each.values.get("POSTGRES_USER", ""), each.values.get("POSTGRES_DB", ""))
        return found


def compare(before: dict[str, Stack], after: dict[str, Stack], changed: Collection[str]) -> None:
    """Raise OpsError (USAGE) when other services than `changed` are not what they were."""
    for name, stack in before.items():
        then, now = stack.document["services"], after[name].document["services"]
        for service in then.keys() | now.keys():
            if service not in changed and then.get(service) != now.get(service):
                raise OpsError(
                    f"{FILE} is written in a way that cannot be edited safely: {service} would change too.",
                    "Nothing was changed. Edit the file by hand: docs/your-own-services.md shows the entries.",
                    USAGE,
                )


def write(project: Path, texts: Mapping[str, str]) -> None:
    """Replace the files by those texts: each in one step, and those before it again when one cannot be written."""
    before = {name: ((project / name).read_bytes(), (project / name).stat().st_mode & 0o777) for name in texts}
    try:
        for name, text in texts.items():
            replace_file(project / name, text, before[name][1])
    except BaseException:
        for name, (content, mode) in before.items():
            if (project / name).read_bytes() != content:
                replace_file(project / name, content, mode)
        raise


def refuse_unless(condition: bool, message: str, remedy: str = "") -> None:
    """Raise OpsError (USAGE) when something is not as it must be."""
    if not condition:
        raise OpsError(message, remedy, USAGE)
