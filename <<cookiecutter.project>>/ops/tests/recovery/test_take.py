"""What a run that takes an entry does around its parts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.recovery import catalogue, configuration, rabbitmq, redis, take, volumes
from ops.recovery.catalogue import Catalogue, Entry, Part, Verification
from ops.recovery.postgres import base, dumps
from ops.recovery.repository import Snapshot, Unreachable
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.state import document
from ops.state.document import State
from ops.tests.recovery.test_recovery_catalogue import entry, run_of

TAKEN = entry(run_of(1)[0].began)


@dataclass
class Run:
    """A run whose repositories only note what they are asked. found: the catalogue of the first target; away: what a
    target raises when something is copied to it, by its location."""

    settings: Settings
    found: Catalogue = Catalogue()
    away: dict[str, OpsError] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    previous: Entry | None = None

    def repository(self, _settings: Settings, target: Target, kind: str) -> Any:
        steps = self.steps

        class Repository:
            location = f"{target.location}/{kind}"

            def __init__(self) -> None:
                self.target, self.settings, self.place = target, _settings, kind

            def ensure(self, _like: object = None) -> None:
                steps.append(f"ensure {self.location}")

            def give_up_lost(self) -> None:
                steps.append(f"give up {self.location}")

            def repair(self, work: Path) -> list[str]:
                assert work.is_dir()
                steps.append("repair")
                return ["abc"]

            def prune(self) -> bool:
                steps.append(f"prune {self.location}")
                return True

        return Repository()

    def entry(self, _settings: Settings, _repository: object, previous: Entry | None) -> Entry:
        self.previous = previous
        self.steps.append("entry")
        return TAKEN

    def copy(self, _first: object, other: Any) -> int:
        self.steps.append(f"copy to {other.location}")
        if other.target.location in self.away:
            raise self.away[other.target.location]
        return 1


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    paths = Paths(cache=tmp_path / "cache", scratch=tmp_path / "scratch", wal=tmp_path)
    settings = Settings("prod", "acme", (Target("/backups"), Target("/other")), 30, 7, Keep(7, 4, 6), paths=paths)
    run = Run(settings)
    replaced: tuple[tuple[object, str, Callable[..., Any]], ...] = (
        (take, "Repository", run.repository),
        (take, "_entry", run.entry),
        (catalogue, "read", lambda _: run.found),
        (catalogue, "remove_unfinished", lambda _: run.steps.append("remove unfinished")),
        (catalogue, "copy_missing", run.copy),
        (catalogue, "remove_expired", lambda each, _: frozenset({"x"} if each.target.location == "/other" else ())),
    )
    for module, name, value in replaced:
        monkeypatch.setattr(module, name, value)
    return run


def test_an_entry_is_copied_and_what_has_expired_is_removed(run: Run) -> None:
    assert take.take(run.settings) == TAKEN
    assert run.steps == [
        *("ensure /backups/backups", "remove unfinished", "entry"),
        *("ensure /other/backups", "copy to /other/backups", "prune /other/backups"),
    ]


def test_an_entry_that_could_not_be_copied_is_told_and_stays(run: Run) -> None:
    run.away["/other"] = Unreachable("/other/backups", "/other cannot be reached.")
    with pytest.raises(
        OpsError, match=f"Entry {TAKEN.id} was taken. It was not copied: /other cannot be reached."
    ) as it:
        take.take(run.settings)
    assert "The next run copies" in it.value.remedy and "prune /other/backups" in run.steps


def test_a_damaged_target_is_repaired_once_and_a_full_backup_follows(run: Run) -> None:
    found = run_of(3, last=catalogue.moment(4_000_000_000))
    run.found = Catalogue(tuple(found))
    take.take(run.settings)
    assert run.previous == found[-1]
    failed = Verification(found[0].id, 1.0, 1.0, False, ("postgres: /backups/backups is damaged: a pack.",), 1)
    run.found = Catalogue(tuple(found), (failed,))
    for times in (1, 2):
        take.take(run.settings)
        assert run.previous is None
        assert run.steps.count("repair") == 1, times
    assert run.steps.index("repair") < len(run.steps) - 1 - run.steps[::-1].index("entry")


def test_a_lost_repository_is_given_up_on_request_only(run: Run) -> None:
    take.take(run.settings)
    assert not any(each.startswith("give up") for each in run.steps)
    take.take(run.settings, init=True)
    given_up = [each for each in run.steps if each.startswith("give up")]
    assert given_up == [f"give up {target}/{kind}" for target in ("/backups", "/other") for kind in ("backups", "wal")]


def test_only_one_run_takes_an_entry(run: Run) -> None:
    with (
        take.alone(run.settings),
        pytest.raises(OpsError, match="already") as refused,
    ):
        take.take(run.settings)
    assert refused.value.code == REFUSED and run.steps == []
    take.take(run.settings)


def test_a_broker_that_cannot_be_asked_is_named_and_not_in_the_entry(run: Run, tmp_path: Path) -> None:
    closed = replace(run.settings, rabbitmq_hosts=("rabbitmq",), rabbitmq_closed="nobody may ask for its definitions")
    files = take._Files()
    take._servers(closed, tmp_path, files)
    assert "RabbitMQ: nobody may ask for its definitions" in files.left_out and take.RABBITMQ not in files.details
    without = take._Files()
    take._servers(replace(closed, rabbitmq_hosts=()), tmp_path, without)
    assert "RabbitMQ: the stack has none" in without.left_out


# ── what is in an entry ───────────────────────────────────────────────────────────────────────────────────────────────


class Shelf:
    """A repository that keeps in memory what is saved; files: content by path, of each snapshot."""

    location = "/backups/backups"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.files: dict[str, dict[str, bytes]] = {}
        self.tags: dict[str, frozenset[str]] = {}

    def save_paths(self, paths: Sequence[Path], tags: Sequence[str]) -> str:
        found = (each for path in paths for each in path.rglob("*") if each.is_file())
        return self._keep({str(each): each.read_bytes() for each in found}, tags)

    def save_text(self, name: str, text: str, tags: Sequence[str]) -> str:
        return self._keep({name: text.encode()}, tags)

    def _keep(self, files: dict[str, bytes], tags: Sequence[str]) -> str:
        id = f"snapshot-{len(self.files)}"
        self.files[id], self.tags[id] = files, frozenset(tags)
        return id

    def snapshots(self, tags: Sequence[str] = ()) -> list[Snapshot]:
        return [
            Snapshot(id, TAKEN.began, of, size=sum(map(len, self.files[id].values())), added=1)
            for id, of in self.tags.items()
            if of >= set(tags)
        ]

    def content(self, part: Part) -> dict[str, bytes]:
        """What a part holds, by path below its root."""
        root = part.details.get("root", "")
        return {name.removeprefix(f"{root}/"): text for name, text in self.files[part.snapshot].items()}

    def record(self) -> Entry | None:
        """The entry that was written, if any."""
        found = [files["entry.json"] for files in self.files.values() if "entry.json" in files]
        return catalogue.decode(found[0].decode()) if found else None


DEFINITIONS = {"rabbitmq_version": "4.2", **{key: [{"name": "x"}] for key in rabbitmq.KEPT}}
SECRETS = {"REDIS_PASSWORD": "of redis", "RABBITMQ_PASSWORD": "of rabbitmq"}


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A stack with everything that an entry can hold; its servers answer whoever asks as they should."""
    paths = Paths(*(tmp_path / name for name in ("wal", "cache", "scratch", "volumes", "secrets", "etc", "memory")))
    project = tmp_path / "project"
    (project / "secrets").mkdir(parents=True)
    (project / "secrets" / "cert.pem").write_text("the certificate")
    (project / "configuration").mkdir()
    (project / "configuration" / ".env").write_text("A=1")
    (project / "state").mkdir()
    (paths.volumes / "web_uploads").mkdir(parents=True)
    (paths.volumes / "web_uploads" / "cat.jpg").write_bytes(b"a cat")
    paths.secrets.mkdir()
    for name, value in SECRETS.items():
        (paths.secrets / name).write_text(value)
    with sqlite3.connect(project / "grafana.db") as database:
        database.execute("CREATE TABLE dashboard (id INTEGER)")
        database.executemany("INSERT INTO dashboard VALUES (?)", [(1,), (2,)])
    for function, place in {
        "copy_configuration": "configuration",
        "copy_secrets": "secrets",
        "copy_releases": "state",
        "deployed": "state",
        "save_grafana": "grafana.db",
    }.items():
        monkeypatch.setattr(configuration, function, partial(getattr(configuration, function), source=project / place))

    def save(into: Path, hosts: Sequence[str], password: str, sentinels: Sequence[str]) -> redis.Snapshot:
        assert (hosts, password, sentinels) == (("redis-primary",), "of redis", ("redis-sentinel:26379",))
        into.write_bytes(b"REDIS0012")
        return redis.Snapshot("redis-primary", "8.4", 7)

    def definitions(nodes: Sequence[str], user: str, password: str) -> Mapping[str, Any]:
        assert (nodes, user, password) == (["rabbitmq", "rabbitmq-2"], "stack", "of rabbitmq")
        return DEFINITIONS

    def take_base(_settings: object, _repository: object, entry_id: str, previous: Entry | None) -> Part:
        return Part(catalogue.POSTGRES, f"of {entry_id}", catalogue.FULL, previous.id if previous else "", 10, 5)

    monkeypatch.setattr(redis, "save", save)
    monkeypatch.setattr(rabbitmq, "definitions", definitions)
    monkeypatch.setattr(base, "take_base", take_base)
    return Settings(
        *("prod", "acme", (Target("/backups"),), 30, 7, Keep(7, 4, 6)),
        database_hosts=("postgres-primary:5432",),
        redis_hosts=("redis-primary",),
        redis_sentinels=("redis-sentinel:26379",),
        rabbitmq_hosts=("rabbitmq:5672", "rabbitmq-2:5672"),
        rabbitmq_user="stack",
        paths=paths,
    )


def taken(settings: Settings, previous: Entry | None = None) -> tuple[Entry, Shelf]:
    shelf = Shelf(settings)
    return take._entry(settings, shelf, previous), shelf  # type: ignore[arg-type]


def test_an_entry_holds_every_part_of_the_stack(stack: Settings, tmp_path: Path) -> None:
    made, shelf = taken(stack)
    assert shelf.record() == made and (made.environment, made.project) == ("prod", "acme")
    assert set(made.parts) == {"postgres", "files", "inventory"}
    assert made.parts["postgres"].snapshot == f"of {made.id}" and made.size > 10
    files = made.parts["files"]
    content = shelf.content(files)
    assert set(content) == {
        *("redis.rdb", "rabbitmq.json", "grafana.db", "configuration/.env", "secrets/tls/cert.pem"),
        f"{stack.paths.volumes}/web_uploads/cat.jpg",
    }
    assert json.loads(content["rabbitmq.json"]) == DEFINITIONS
    assert files.details["redis.rdb"] == {"keys": 7, "node": "redis-primary", "version": "8.4"}
    assert files.details["rabbitmq.json"] == {**dict.fromkeys(rabbitmq.KEPT, 1), "version": "4.2"}
    assert files.details["grafana.db"] == {"dashboard": 2}
    assert (files.details["configuration"], files.details["secrets"], files.details["releases"]) == (1, 1, 0)
    assert files.details["volumes"] == {"web_uploads": {"files": 1, "bytes": 5}}
    assert not (stack.paths.scratch / "take").exists()


def test_every_file_of_an_entry_is_in_its_inventory(stack: Settings) -> None:
    """By which a verification tells whether it came back as it was."""
    made, shelf = taken(stack)
    text = json.loads(shelf.content(made.parts["inventory"])["inventory.json"])
    noted = {
        f"{path}/{name}"
        for path, lines in text.items()
        for name, each in volumes.decode(lines.encode()).files.items()
        if each.kind == "file"
    }
    assert noted == set(shelf.files[made.parts["files"].snapshot])


def test_an_entry_says_what_is_not_in_it(stack: Settings, tmp_path: Path) -> None:
    made, _ = taken(stack)
    assert made.left_out == (
        "RabbitMQ: messages that wait in queues; its users, which are made from the secrets",
        "secrets but the certificate: BACKUP_SECRETS is false",
        "volumes that are not mounted: which there are is not known before the first release",
    )
    bare = replace(stack, database_hosts=(), redis_hosts=(), rabbitmq_hosts=(), with_secrets=True)
    (tmp_path / "project" / "grafana.db").unlink()
    thumbnails = {"services": {"web": {"volumes": [{"type": "volume", "source": "web_thumbnails"}]}}}
    (tmp_path / "project" / "state" / "a").write_text(document.encode(State(documents={"1": thumbnails})))
    made, shelf = taken(bare)
    assert made.left_out == (
        "PostgreSQL: the stack has none",
        "Redis: the stack has none",
        "RabbitMQ: the stack has none",
        "Grafana: it has no database",
        "volume web_thumbnails: no label ops.backup of web names it",
    )
    assert set(made.parts) == {"files", "inventory"} and made.kind == catalogue.FULL
    assert "secrets/cert.pem" in shelf.content(made.parts["files"])


def test_a_database_outside_of_the_stack_is_dumped(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dumps, "take", lambda *_args: [Part("dump-shop", "a"), Part("dump-billing", "b")])
    managed = replace(stack, database_hosts=(), managed_hosts=("db.example.com:5432",))
    made, _ = taken(managed)
    assert [each.name for each in made.dumps] == ["dump-billing", "dump-shop"]
    assert made.left_out[0].endswith("point-in-time recovery of db.example.com:5432 is the provider's")


def test_an_incremental_entry_names_the_one_that_it_builds_on(stack: Settings) -> None:
    made, _ = taken(stack, TAKEN)
    assert made.previous == TAKEN.id


def test_a_part_that_fails_fails_the_entry(stack: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: object) -> None:
        raise OpsError("RabbitMQ's definitions cannot be read: rabbitmq: it answers 401 Unauthorized.")

    monkeypatch.setattr(rabbitmq, "definitions", refused)
    shelf = Shelf(stack)
    with pytest.raises(OpsError, match="401"):
        take._entry(stack, shelf, None)  # type: ignore[arg-type]
    assert shelf.record() is None and not (stack.paths.scratch / "take").exists()


def test_programs_get_the_entry_as_it_is_kept(stack: Settings) -> None:
    made, _ = taken(stack)
    assert catalogue.decode(json.dumps(take.as_json(made))) == made
