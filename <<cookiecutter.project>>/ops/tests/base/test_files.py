"""Files are replaced in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ops.base import files


@pytest.mark.parametrize("content", ["täxt", "täxt".encode()])
def test_a_file_is_replaced_with_its_mode(tmp_path: Path, content: str | bytes) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    files.replace_file(target, content, 0o640)
    assert target.read_text(encoding="utf-8") == "täxt"
    assert target.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interruption_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def interrupt(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.replace_file(target, "new", 0o600)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
