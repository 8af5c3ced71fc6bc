"""Makes the secrets of an environment."""

from __future__ import annotations

import secrets as random_source
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ops.secrets import declared, definitions
from ops.secrets.catalogue import ALPHABET, Secret
from ops.secrets.files import FOLDER_MODE, publish_new

if TYPE_CHECKING:
    from ops.base.environments import Environment


def init(env: Environment, document: Mapping[str, Any] | None) -> list[str]:
    """Create every secret of `env` that is missing and that no person must provide; return the names of the files
    written, existing ones stay. document: the resolved configuration; None: only the stack's own secrets."""
    return create(env, declared.every(env, document).values())


def create(env: Environment, secrets: Iterable[Secret]) -> list[str]:
    """`init` for some secrets."""
    folder = env.secrets_dir
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    created = []
    for secret in secrets:
        target = folder / secret.name
        if not (secret.provided or target.exists()) and publish_new(target, generate(secret).encode()):
            created.append(secret.name)
    if definitions.render(folder, env.project_dir / definitions.SOURCE):
        created.append(definitions.FILE)
    return created


def generate(secret: Secret) -> str:
    """A new value for a secret; "" for one that somebody else gives."""
    if not secret.length:
        return ""
    # A leading - or _ would look like an option to some program some day.
    first = random_source.choice(ALPHABET[:-2])
    return first + "".join(random_source.choice(ALPHABET) for _ in range(secret.length - 1))
