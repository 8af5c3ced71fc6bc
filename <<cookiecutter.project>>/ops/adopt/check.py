"""Whether an edited docker-compose.services.yml says what was meant, before it replaces the one that is there."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ops import engine
from ops.base import environments
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.base.files import complete_file
from ops.parts import routes
from ops.stack import contract, model, owned
from ops.stack.model import Stack

FILE = "docker-compose.services.yml"


def text_of(project: Path) -> str:
    """The file as it is. Raises OpsError (USAGE) when it is not there."""
    try:
        return (project / FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise OpsError(f"{FILE} is missing.", "Restore it from version control.", USAGE) from None


def edited(env: Environment, text: str) -> dict[str, Stack]:
    """The stack of every environment with that text in place of the file, all profiles included, by the environment's
    name. Raises OpsError (USAGE) when one does not resolve, or its labels cannot be meant."""
    path = env.project_dir / FILE
    with complete_file(path, text.encode(), path.stat().st_mode & 0o777) as complete:
        found = {}
        for name in environments.available(env.project_dir):
            each = environments.load(name, env.project_dir)
            files = each.values["COMPOSE_FILE"].split(":")
            if FILE not in files:
                continue
            # Named one by one: COMPOSE_FILE itself stays, for services read it.
            named = [part for file in files for part in ("--file", complete.name if file == FILE else file)]
            argv = (*named, "config", "--format", "json")
            done = engine.compose(each, *argv, all_profiles=True, check=False)
            if not done.ok:
                raise model.unresolved(each, done)
            found[name] = model.parse(done.json())
            contract.refuse(found[name])
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


def refuse_unless(condition: bool, message: str, remedy: str = "") -> None:
    """Raise OpsError (USAGE) when something is not as it must be."""
    if not condition:
        raise OpsError(message, remedy, USAGE)
