import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from stack.problems import Problem
from web.uploads import Uploads

ANN, BOB = uuid.uuid4(), uuid.uuid4()
LIMIT = 100_000


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path, LIMIT, 3 * LIMIT)


def form(content: bytes, name: str = "a.txt", field: str = "file") -> tuple[str, bytes]:
    request = httpx.Request("POST", "https://x", data={"other": "1"}, files={field: (name, content)})
    return request.headers["content-type"], request.read()


async def pieces(body: bytes, size: int, fail: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]
    if fail:
        raise ConnectionError("the browser has gone")


def left(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


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
    with pytest.raises(Problem, match="cut short"):
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


async def test_leftovers_are_removed_when_they_are_old(uploads: Uploads, tmp_path: Path) -> None:
    import os

    (tmp_path / str(ANN)).mkdir()
    old, young = (tmp_path / str(ANN) / f".{name}.part" for name in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    uploads.clean()
    assert left(tmp_path) == [young.name]
    assert await uploads.list(ANN) == []
