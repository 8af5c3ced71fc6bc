import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from stack.problems import Problem
from stack.settings import load
from web.settings import WebSettings
from web.uploads import Uploads

ANN, BOB = uuid.uuid4(), uuid.uuid4()
LIMIT = 100_000


def uploads_in(folder: Path) -> Uploads:
    return Uploads(folder, limit=LIMIT, quota=3 * LIMIT, most=50)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return uploads_in(tmp_path)


def form(content: bytes, name: str = "a.txt", field: str = "file") -> tuple[str, bytes]:
    request = httpx.Request("POST", "https://x", data={"other": "1"}, files={field: (name, content)})
    return request.headers["content-type"], request.read()


async def pieces(body: bytes, size: int, fail: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
    if fail:
        raise ConnectionError("the browser has gone")


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
async def test_a_file_is_kept_as_it_is(uploads: Uploads, size: int) -> None:
    content = bytes(range(256)) * 20 + b"\r\n--not the boundary\r\n"
    kind, body = form(content, "Größe.bin")
    assert await uploads.receive(ANN, kind, pieces(body, size)) == "Größe.bin"
    (kept,) = await uploads.list(ANN)
    assert (kept.name, kept.size) == ("Größe.bin", len(content))
    path, _ = await uploads.find(ANN, kept.id)
    assert path.read_bytes() == content
    assert await uploads.list(BOB) == []
    with pytest.raises(Problem):
        await uploads.find(BOB, kept.id)


@pytest.mark.parametrize(("size", "fits"), [(LIMIT, True), (LIMIT + 1, False), (10 * LIMIT, False)])
async def test_the_limit_is_exact_and_nothing_is_left(uploads: Uploads, tmp_path: Path, size: int, fits: bool) -> None:
    kind, body = form(b"x" * size)
    if fits:
        await uploads.receive(ANN, kind, pieces(body, 5000))
        assert len(left(tmp_path)) == 1
        return
    with pytest.raises(Problem) as refused:
        await uploads.receive(ANN, kind, pieces(body, 5000))
    assert (refused.value.status, left(tmp_path)) == (413, [])


async def test_an_upload_that_breaks_off_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    kind, body = form(b"x" * 50_000)
    with pytest.raises(ConnectionError):
        await uploads.receive(ANN, kind, pieces(body[:30_000], 1000, fail=True))
    with pytest.raises(Problem, match="interrupted"):
        await uploads.receive(ANN, kind, pieces(body[:30_000], 1000))
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"no boundary at all"),
        form(b"x", field="another"),
        form(b"", name=""),
    ],
    # The boundary of a form is random.
    ids=["text", "no boundary", "another boundary", "another field", "no name"],
)
async def test_what_is_no_upload(uploads: Uploads, tmp_path: Path, kind: str, body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        await uploads.receive(ANN, kind, pieces(body, 100))
    assert (refused.value.status, left(tmp_path)) == (400, [])


async def test_the_quota_is_each_persons_own(uploads: Uploads) -> None:
    kind, body = form(b"x" * LIMIT)
    for _ in range(3):
        await uploads.receive(ANN, kind, pieces(body, 50_000))
    with pytest.raises(Problem, match="no room"):
        await uploads.receive(ANN, kind, pieces(body, 50_000))
    await uploads.receive(BOB, kind, pieces(body, 50_000))
    await uploads.delete(ANN, (await uploads.list(ANN))[0].id)
    await uploads.receive(ANN, kind, pieces(body, 50_000))


@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "without one"])
async def test_uploads_at_the_same_time_cannot_pass_the_quota(tmp_path: Path, declared: bool) -> None:
    # as several processes would, each with an object of its own
    kind, body = form(b"x" * (LIMIT // 2))

    async def upload() -> bool:
        kept = uploads_in(tmp_path)
        try:
            await kept.receive(ANN, kind, slow(body), len(body) if declared else None)
        except Problem as refused:
            assert (refused.status, "no room" in refused.detail) == (413, True)
            return False
        return True

    done = await asyncio.gather(*(upload() for _ in range(32)))
    assert sum(upload.size for upload in await uploads_in(tmp_path).list(ANN)) <= 3 * LIMIT
    # A length that is not declared may be as much as one file can have.
    assert sum(done) == (5 if declared else 3)
    assert len(left(tmp_path)) == sum(done)


async def slow(body: bytes) -> AsyncIterator[bytes]:
    async for piece in pieces(body, 10_000):
        await asyncio.sleep(0.02)
        yield piece


async def test_what_broke_off_does_not_count_for_long(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / str(ANN)).mkdir()
    part = tmp_path / str(ANN) / ".dead.part"
    part.write_bytes(b"x" * 3 * LIMIT)
    with pytest.raises(Problem, match="no room"):
        await uploads.receive(ANN, *form_and_pieces(b"x"))
    os.utime(part, (0, 0))
    await uploads.receive(ANN, *form_and_pieces(b"x"))


async def test_the_number_of_files_has_its_limit(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, limit=LIMIT, quota=3 * LIMIT, most=2)
    for _ in range(2):
        await uploads.receive(ANN, *form_and_pieces(b"x"))
    with pytest.raises(Problem, match="at most 2 files"):
        await uploads.receive(ANN, *form_and_pieces(b"x"))
    await uploads.receive(BOB, *form_and_pieces(b"x"))


async def test_a_small_file_fits_where_the_largest_does_not(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path, limit=LIMIT, quota=LIMIT, most=50)
    for declared in (None, 1000):
        kind, body = form_and_pieces(b"x" * 10)
        await uploads.receive(ANN, kind, body, declared)
    with pytest.raises(Problem, match="no room"):
        await uploads.receive(ANN, *form_and_pieces(b"x" * LIMIT))
    assert [upload.size for upload in await uploads.list(ANN)] == [10, 10]


def form_and_pieces(content: bytes) -> tuple[str, AsyncIterator[bytes]]:
    kind, body = form(content)
    return kind, pieces(body, 50_000)


@pytest.mark.parametrize(("largest", "quota", "fits"), [("20", None, True), ("600", None, False), ("600", "600", True)])
def test_a_quota_below_the_largest_file_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], largest: str, quota: str | None, fits: bool
) -> None:
    monkeypatch.setenv("API_URL", "http://api:8000")
    monkeypatch.setenv("UPLOAD_MAX_MB", largest)
    if quota:
        monkeypatch.setenv("UPLOAD_QUOTA_MB", quota)
    if fits:
        assert load(WebSettings).upload_max_mb == int(largest)
        return
    with pytest.raises(SystemExit):
        load(WebSettings)
    assert "UPLOAD_QUOTA_MB is 500, less than one file of UPLOAD_MAX_MB, 600: raise it" in capsys.readouterr().out


async def test_leftovers_are_removed_when_they_are_old(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / str(ANN)).mkdir()
    old, young = (tmp_path / str(ANN) / f".{name}.part" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    uploads.clean()
    assert left(tmp_path) == [young.name]
    assert await uploads.list(ANN) == []
