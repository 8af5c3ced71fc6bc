"""What the volume of a PostgreSQL server holds: databases of which majors, and what an upgrade has left there.

17/docker          a database; that of the highest major is the one in use, others are kept as a way back
18/upgraded-from   the images before and after, of the upgrade that led to 18; a standby may copy its primary
.upgrade/          a change of major is under way, or was killed: see changeover.py
.aside/            what a way back has put aside
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ops import engine
from ops.base.errors import OpsError
from ops.parts.postgres.majors import ROOT, Server

STAGING = f"{ROOT}/.upgrade"
TARGET = f"{STAGING}/target"


@dataclass(frozen=True)
class Change:
    """A change of major: "up" or "down", to which, and the images before and after."""

    direction: str
    major: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.direction} {self.major} {self.before} {self.after}"


@dataclass(frozen=True)
class Holding:
    """What a volume holds. databases: majors, ascending; standbys: those of them that follow another server;
    origins: image before, by the major that an upgrade led to; aside: put aside by a way back; begun: a change that is
    under way, or was killed."""

    databases: tuple[int, ...] = ()
    standbys: frozenset[int] = frozenset()
    origins: Mapping[int, str] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    begun: Change | None = None

    @property
    def current(self) -> int:
        """The major that the volume's database is of; 0 when there is none."""
        return self.databases[-1] if self.databases else 0

    @property
    def reached(self) -> bool:
        """Whether the change that is under way has come to where its database is the one in use."""
        return self.begun is not None and self.begun.major == self.current

    @property
    def kept(self) -> tuple[str, ...]:
        """Folders that nothing uses any more, relative to the volume."""
        return (*(f"{major}/docker" for major in self.databases[:-1]), *(f".aside/{name}" for name in self.aside))


# Prints what parse() reads.
_LOOK = f"""
cd {ROOT}
for file in */docker/PG_VERSION; do [ ! -s "$file" ] || echo "database ${{file%%/*}}"; done
for file in */docker/standby.signal; do [ ! -e "$file" ] || echo "standby ${{file%%/*}}"; done
for file in */upgraded-from; do [ ! -e "$file" ] || echo "origin ${{file%%/*}} $(cat "$file")"; done
for folder in .aside/*; do [ ! -e "$folder" ] || echo "aside ${{folder#*/}}"; done
[ ! -e {TARGET} ] || echo "begun $(cat {TARGET})"
"""


def parse(text: str) -> Holding:
    """A Holding from what the script that looks into a volume prints."""
    found: dict[str, list[list[str]]] = {}
    for words in (line.split() for line in text.splitlines() if line.strip()):
        found.setdefault(words[0], []).append(words[1:])
    begun = found.get("begun", [[]])[0]
    return Holding(
        tuple(sorted(int(words[0]) for words in found.get("database", ()))),
        frozenset(int(words[0]) for words in found.get("standby", ())),
        {int(words[0]): words[1] for words in found.get("origin", ()) if len(words) > 1},
        tuple(words[0] for words in found.get("aside", ())),
        Change(begun[0], int(begun[1]), begun[2], begun[3]) if len(begun) == 4 else None,
    )


def look(server: Server, image: str) -> Holding:
    """What the volume of a server holds; nothing when there is none. image: any with bash."""
    if not engine.inspect([server.volume], "volume"):
        return Holding()
    return parse(run_in_volume(server, image, _LOOK))


def run_in_volume(server: Server, image: str, script: str, *arguments: str) -> str:
    """What a shell script prints that has the volume of a server, which need not run. Raises OpsError when it fails."""
    done = engine.run(volume_argv(server, image, script, *arguments), timeout=None, check=False)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{server.volume}: {engine.reason(done.stderr)}")
    return done.stdout


def volume_argv(server: Server, image: str, script: str, *arguments: str) -> list[str]:
    """The command line that runs a shell script with the volume of a server, in which it starts."""
    return engine.docker_argv(
        *("run", "--rm", "--pull", "never", "--network", "none", "--read-only", "--cap-drop", "ALL"),
        *(("--user", server.user) if server.user else ()),
        *("--volume", f"{server.volume}:{ROOT}", "--workdir", ROOT, "--entrypoint", "bash", image),
        *("-euc", script, "bash", *arguments),
    )
