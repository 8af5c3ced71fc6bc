"""What a person wants restored: everything, or some parts of it (`restore --only`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ops.base.errors import USAGE, OpsError
from ops.recovery import archive

_FORMS = "postgres, database:NAME, redis, rabbitmq, volume:NAME"


@dataclass(frozen=True)
class Part:
    """A part of a backup. kind: postgres (every database), database, redis, rabbitmq or volume; name: of a database or
    a volume."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else self.kind


def parse(text: str) -> tuple[Part, ...]:
    """The parts that an option names, separated by commas; none for "". Raises OpsError (USAGE)."""
    found = []
    for each in text.split(",") if text else ():
        kind, colon, name = each.strip().partition(":")
        if kind in {"database", "volume"} and name or kind in {"postgres", "redis", "rabbitmq"} and not colon:
            found.append(Part(kind, name))
        else:
            raise OpsError(f'--only "{each.strip()}" is no part of a backup.', f"Write {_FORMS}.", USAGE)
    return tuple(dict.fromkeys(found))


def members(parts: Sequence[Part], held: Iterable[str], common: str) -> list[str]:
    """The members of an archive that belong to some parts; all of them for no parts.

    held: members of the archive; common: the name of the database POSTGRES_DB. Raises OpsError (USAGE) for a part that
    is not in it.
    """
    held = list(held)
    databases = {**archive.databases(held), **({common: archive.POSTGRES} if archive.POSTGRES in held else {})}
    volumes = archive.volumes(held)
    chosen: list[str] = []
    for part in parts:
        found = {
            "postgres": [*databases.values()],
            "database": [databases[part.name]] if part.name in databases else [],
            "redis": [archive.REDIS] if archive.REDIS in held else [],
            "rabbitmq": [archive.RABBITMQ] if archive.RABBITMQ in held else [],
            "volume": [volumes[part.name]] if part.name in volumes else [],
        }[part.kind]
        if not found:
            there = [*(f"database:{name}" for name in databases), *(f"volume:{name}" for name in volumes)]
            there += [kind for kind, name in (("redis", archive.REDIS), ("rabbitmq", archive.RABBITMQ)) if name in held]
            raise OpsError(f"The backup does not hold {part}.", f"It holds {', '.join(sorted(there))}.", USAGE)
        chosen += found
    return [name for name in held if name in chosen] if parts else held
