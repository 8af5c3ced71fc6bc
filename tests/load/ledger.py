"""The book kept of writes: every one that was acknowledged is in the database, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.load.generator import Sample
from tests.stack.project import Project, docker

# Where each kind of write ends up: table, and the column that holds its name.
_TABLES = {"items": ("api.items", "title"), "users": ("auth.users", "split_part(email, '@', 1)")}


@dataclass(frozen=True)
class Ledger:
    """Names of writes. missing: acknowledged and not there; doubled: there more than once, acknowledged or not.

    unanswered: there without an acknowledgement, which is what may become of a request that is lost.
    """

    acknowledged: int
    missing: list[str]
    doubled: list[str]
    unanswered: list[str]

    @property
    def exact(self) -> bool:
        """Whether every acknowledged write is there, and every write once."""
        return not self.missing and not self.doubled

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} acknowledged, {len(self.missing)} of them missing; "
            f"{len(self.doubled)} twice; {len(self.unanswered)} there without an acknowledgement"
        )


def compare(samples: Iterable[Sample], found: Mapping[str, int]) -> Ledger:
    """The ledger of these requests. found: how often each name is in the database."""
    names = {each.name: each.lost for each in samples if each.writes}
    acknowledged = {name for name, lost in names.items() if not lost}
    return Ledger(
        len(acknowledged),
        sorted(acknowledged - found.keys()),
        sorted(name for name, count in found.items() if count > 1),
        sorted(found.keys() - acknowledged),
    )


def sql(project: Project, environment: str, text: str) -> list[str]:
    """Rows of a query on the primary, as the superuser over the local socket; columns are separated by |."""
    settings = project.settings(environment)
    login = (f"--username={settings['POSTGRES_USER']}", f"--dbname={settings['POSTGRES_DB']}")

    def ask(node: str, words: str) -> str:
        return docker("exec", node, "psql", "-XAqt", *login, f"--command={words}", check=False)

    nodes = [name for name in project.containers(environment) if "-postgres-" in name and "exporter" not in name]
    primary = next(node for node in nodes if ask(node, "select pg_is_in_recovery()") == "f")
    return docker("exec", primary, "psql", "-XAqt", *login, f"--command={text}").splitlines()


def check(ask: Callable[[str], list[str]], run: str, samples: Iterable[Sample]) -> Ledger:
    """Look up what a run of the generator has written. ask: gives rows, as `sql`; run: what its names begin with."""
    found: dict[str, int] = {}
    for table, column in _TABLES.values():
        query = f"select {column}, count(*) from {table} where {column} like '{run}-%' group by 1"
        found.update((name, int(count)) for name, _, count in (row.partition("|") for row in ask(query)))
    return compare(samples, found)


def undelivered(project: Project, environment: str) -> int:
    """How many items with an event have not led to a mail yet: it is handed on after the answer, and sent once."""
    items = "select count(*) from api.items where body <> 'quiet'"
    sent = "select count(*) from notification.deliveries where state = 'sent'"
    return int(sql(project, environment, f"select ({items}) - ({sent})")[0])
