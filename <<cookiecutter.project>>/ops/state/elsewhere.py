"""An environment that was started from another folder: another checkout, a colleague's clone, a CI workspace.

Its containers have the files of that folder mounted until they are replaced. Pure, but for a look at which files exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.state.document import State


def folders(containers: Iterable[Container], project_dir: Path) -> dict[str, list[Container]]:
    """Containers that mount files of another folder than this one, by the folder they were started from."""
    found: dict[str, list[Container]] = {}
    for each in containers:
        if is_elsewhere(each, project_dir):
            found.setdefault(each.folder, []).append(each)
    return found


def is_elsewhere(container: Container, project_dir: Path) -> bool:
    """Whether a container mounts files of the folder it was started from, and that is not this one."""
    return (
        bool(container.folder)
        and any(Path(source).is_relative_to(container.folder) for source in container.mounts.values())
        and Path(container.folder).resolve() != project_dir.resolve()
    )


def is_gone(path: Path) -> bool:
    """Whether there is no such file or folder. One that this user may not look at is not gone."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def homeless(containers: Iterable[Container], project_dir: Path) -> list[Container]:
    """Containers that mount files of a folder that is gone: they run until they are started again."""
    return [each for folder, mine in folders(containers, project_dir).items() if is_gone(Path(folder)) for each in mine]


def explain(containers: Sequence[Container], project_dir: Path) -> list[str]:
    """One line for each other folder: which one, and what that means."""
    return [
        f"{len(mine)} of {len(containers)} containers were started from {folder} and mount its files until they are"
        " replaced: " + ", ".join(sorted({each.service for each in mine})) + ". "
        f"{'That folder is gone: a deploy replaces them.' if is_gone(Path(folder)) else 'Keep that folder.'}"
        for folder, mine in folders(containers, project_dir).items()
    ]


def missing_secrets(env: Environment, containers: Sequence[Container], state: State) -> tuple[str, list[str]]:
    """Secrets that are in use and not in this folder, and the folder they were taken from; ("", []) when there are
    none. A secret that was deleted in the folder it belongs to is none of them."""
    there = folders(containers, env.project_dir)
    names = {
        Path(source).name
        for mine in there.values()
        for each in mine
        for source in each.mounts.values()
        if Path(source).parent.name == env.secrets_dir.name
    }
    place = next(iter(there), "")
    last = state.releases[-1].get("folder", "") if state.releases else ""
    if not containers and last and Path(last).resolve() != env.project_dir.resolve():
        # It is down. Its data is not.
        place, kept = last, env.secrets_dir.relative_to(env.project_dir)
        noted = {Path(path) for mounted in state.mounted.values() for path in mounted}
        names = {path.name for path in noted if path.parent == kept}
    absent = sorted(name for name in names if is_gone(env.secrets_dir / name))
    return (place, absent) if absent else ("", [])


def refuse_without_secrets(env: Environment, containers: Sequence[Container], state: State) -> None:
    """Raise OpsError (REFUSED) when new secrets would have to be made for data that has others."""
    folder, names = missing_secrets(env, containers, state)
    if names:
        raise without_secrets(env, folder, names)


def without_secrets(env: Environment, folder: str, names: Sequence[str]) -> OpsError:
    """The error for a checkout that lacks the secrets of what runs."""
    listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    there = Path(folder) / env.secrets_dir.relative_to(env.project_dir)
    return OpsError(
        f"{env.name} ({env.project}) was deployed from {folder}, and its secrets are not in this folder: {listed}."
        " New ones would not match its data.",
        f"To work on it from here, copy them: cp -a {there}/. {relative(env.secrets_dir)}/\n"
        f"       For a second stack beside it, set another COMPOSE_PROJECT_NAME and other ports in"
        f" {relative(env.env_file)}.",
        REFUSED,
    )
