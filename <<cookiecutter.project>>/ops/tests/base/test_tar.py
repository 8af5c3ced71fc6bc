"""Small archives, as `docker cp` takes and gives them."""

from __future__ import annotations

import io
import tarfile

from ops.base import tar


def test_there_and_back() -> None:
    packed = tar.packed({"a": "text\n", "b": "é"})
    assert tar.unpacked(packed) == {"a": "text\n", "b": "é"}
    assert tar.unpacked(b"") == {}
    assert tar.unpacked(packed[:100]) == {}


def test_modes() -> None:
    with tarfile.open(fileobj=io.BytesIO(tar.packed({"a": "x"}, 0o644))) as archive:
        assert [entry.mode for entry in archive] == [0o644]
    with tarfile.open(fileobj=io.BytesIO(tar.packed({"a": "x"}))) as archive:
        assert [entry.mode for entry in archive] == [0o600]
