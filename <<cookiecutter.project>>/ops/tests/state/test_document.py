"""The document that holds a state: written in turn to two files, so that a kill never costs both."""

from __future__ import annotations

import json

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.state import document
from ops.state.document import State

OLD = State(3, "00" * 32, {"abc": {"config/dev/secrets/A": "x"}}, ({"number": 1, "by": "änn"},), {"1": {"name": "n"}})
NEW = State(4, "00" * 32, {}, ({"number": 1}, {"number": 2}))


def test_what_is_written_is_read() -> None:
    assert document.decode(document.encode(OLD)) == OLD
    assert document.encode(OLD).isascii()


def test_the_newest_counts() -> None:
    assert document.newest([document.encode(NEW), document.encode(OLD)]) == NEW
    assert document.newest([]) is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_write_that_was_cut_leaves_the_one_before(share: float) -> None:
    text = document.encode(NEW)
    assert document.newest([text[: int(len(text) * share)], document.encode(OLD)]) == OLD


def test_a_changed_byte_is_noticed() -> None:
    head, body = document.encode(NEW).split("\n", 1)
    changed = ("B" if body[40] == "A" else "A").join([body[:40], body[41:]])
    assert document.decode(f"{head}\n{changed}") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}\n", '{"format": 1}\nx', "1\n2"])
def test_what_is_no_document(text: str) -> None:
    assert document.decode(text) is None


def test_a_newer_version_is_not_overwritten() -> None:
    head, body = document.encode(NEW).split("\n", 1)
    newer = json.dumps({**json.loads(head), "format": 2})
    with pytest.raises(OpsError, match="deployed by a newer version") as caught:
        document.newest([f"{newer}\n{body}", document.encode(OLD)])
    assert caught.value.code == REFUSED


def test_keys_differ() -> None:
    assert State().key != State().key
    assert len(bytes.fromhex(State().key)) == 32
