"""What a proof finds: what it takes, what it reads back, and which of its errors are answers."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import IO, Any

import pytest

from ops.base.errors import OpsError
from ops.recovery import catalogue, rabbitmq, redis, verify, volumes
from ops.recovery.catalogue import Catalogue, Part
from ops.recovery.repository import Damaged, Unreachable
from ops.recovery.settings import Keep, Paths, Settings, Target
from ops.tests.recovery.test_recovery_catalogue import entry, proof, run_of


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    paths = Paths(cache=tmp_path / "cache", scratch=tmp_path / "scratch")
    paths.scratch.mkdir()
    return Settings("prod", "acme", (Target("/backups"),), 30, 7, Keep(7, 4, 6), paths=paths)


def test_what_a_proof_takes_of_the_disk() -> None:
    found = run_of(3)
    assert verify.needed_bytes(found[:1]) == 10
    # What is combined lies beside what it comes from.
    assert verify.needed_bytes(found) == 10 + 10 + 10 + 10
    assert verify.needed_bytes([entry(found[0].began, database=False)]) == 0


def test_a_short_disk_is_told_before_anything_is_fetched(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_of(1)
    monkeypatch.setattr(catalogue, "read", lambda _: Catalogue(tuple(found)))
    monkeypatch.setattr(verify, "_SPARE_BYTES", 1 << 60)
    with pytest.raises(OpsError, match=f"to restore {found[0].id} takes up to"):
        verify.verify(settings)


def recorded(settings: Settings, monkeypatch: pytest.MonkeyPatch, found: Catalogue, problems: Any) -> list[Any]:
    """What is recorded of each entry that is proven, the problems being what `problems` gives."""
    noted: list[Any] = []
    monkeypatch.setattr(catalogue, "read", lambda _: found)
    monkeypatch.setattr(verify, "_problems", problems)
    monkeypatch.setattr(catalogue, "record", lambda _, each: noted.append(each))
    return noted


def test_what_was_never_proven_is_proven_the_newest_first(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    found = run_of(4)
    state = Catalogue(tuple(found), (proof(found[1], True), proof(found[3], False)))
    noted = recorded(settings, monkeypatch, state, lambda *_: iter(["a", "b"] * 10))
    done = verify.verify(settings)
    assert [each.entry for each in done] == [found[2].id, found[0].id] and noted == done
    assert not done[0].good and len(done[0].problems) == verify.NAMED and done[0].count == 20
    noted = recorded(settings, monkeypatch, state, lambda *_: iter(()))
    assert [(each.entry, each.good) for each in verify.verify(settings, found[3].id)] == [(found[3].id, True)]


def test_a_target_that_cannot_be_read_has_nothing_proven(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(settings, monkeypatch, Catalogue(broken=("/backups is damaged.",)), lambda *_: iter(()))
    with pytest.raises(OpsError, match="No backup at this target can be read: /backups is damaged"):
        verify.verify(settings)
    recorded(settings, monkeypatch, Catalogue(), lambda *_: iter(()))
    assert verify.verify(settings) == []


def test_damage_is_an_answer_and_a_target_that_is_away_is_none(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    of = entry(run_of(1)[0].began)

    def raising(error: OpsError) -> Any:
        def prove(*_: object) -> Any:
            raise error
            yield

        return prove

    repository: Any = None
    monkeypatch.setattr(verify, "_postgres", raising(Damaged("/backups", "/backups is damaged: a pack.")))
    assert list(verify._problems(settings, repository, of, tmp_path)) == ["postgres: /backups is damaged: a pack."]
    monkeypatch.setattr(verify, "_postgres", raising(Unreachable("/backups", "/backups is away.")))
    with pytest.raises(Unreachable):
        list(verify._problems(settings, repository, of, tmp_path))


class Stored:
    """A repository that gives back some bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def dump(self, _id: str, _path: str, sink: IO[bytes]) -> None:
        sink.write(self.content)


def archive(path: str, content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        info = tarfile.TarInfo(path)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return target.getvalue()


def test_every_byte_of_a_volume_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 5_000_000)
    taken, _ = volumes.take_down(tmp_path)

    def found(content: bytes) -> list[str]:
        stored: Any = Stored(archive(f"{str(tmp_path).strip('/')}/a", content))
        return [each for each in volumes.differences(taken, verify._read_back(stored, "abc", str(tmp_path)))]

    changed = b"x" * 4_999_999 + b"y"
    assert any(each.startswith("a has") for each in found(changed))
    cut: Any = Stored(archive("volumes/a", changed)[:2_000_000])
    with pytest.raises(OpsError, match="/volumes cannot be read back"):
        verify._read_back(cut, "abc", "/volumes")


def test_what_servers_load_is_compared_with_what_was_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = {key: [{"name": "q"}] if key == "queues" else [] for key in rabbitmq.KEPT}
    (tmp_path / "rabbitmq.json").write_text(json.dumps(definitions))
    monkeypatch.setattr(redis, "load", lambda _: 3)
    counts = rabbitmq.counts((tmp_path / "rabbitmq.json").read_bytes())
    details = {"redis.rdb": {"keys": 3}, "rabbitmq.json": {**counts, "version": "4"}}
    assert list(verify._loaded(tmp_path, Part("files", "abc", details=details))) == []
    details = {"redis.rdb": {"keys": 4}, "rabbitmq.json": {**counts, "queues": 2, "version": "4"}}
    assert list(verify._loaded(tmp_path, Part("files", "abc", details=details))) == [
        "Redis: 3 keys were loaded, 4 were saved",
        "RabbitMQ: 1 queues, 2 were saved",
    ]
