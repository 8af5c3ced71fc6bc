"""Makes the secrets of an environment. Standard library only, so that the post-generation hook can call `create`."""

from __future__ import annotations

import secrets as random_source
from pathlib import Path
from typing import TYPE_CHECKING

from ops.secrets import definitions
from ops.secrets.catalogue import ALPHABET, CATALOGUE, Secret
from ops.secrets.files import FOLDER_MODE, publish_new

if TYPE_CHECKING:
    from ops.base.environments import Environment


def init(env: Environment) -> list[str]:
    """Create every secret of `env` that is missing; return the names of the files written, existing ones stay."""
    return create(env.secrets_dir, env.project_dir / definitions.SOURCE)


def create(folder: Path, definitions_source: Path) -> list[str]:
    """`init` for a folder: for callers that have no `Environment` yet, such as the post-generation hook."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    created = []
    for secret in CATALOGUE:
        target = folder / secret.name
        if not target.exists() and publish_new(target, generate(secret).encode()):
            created.append(secret.name)
    if definitions.render(folder, definitions_source):
        created.append(definitions.FILE)
    return created


def generate(secret: Secret) -> str:
    """A new value for a secret; "" for one that somebody else gives."""
    if not secret.length:
        return ""
    # A leading - or _ would look like an option to some program some day.
    first = random_source.choice(ALPHABET[:-2])
    return first + "".join(random_source.choice(ALPHABET) for _ in range(secret.length - 1))
