"""The note of a restore that is under way."""

from __future__ import annotations

import pytest

from ops.state import store, swap
from ops.state.swap import Swap

WHOLE = Swap(True, "20261122", (("appdb", "postgres.dump"),), ("files",), "redis-primary", ("reader",), ("abc",), "ann")


def test_what_was_begun_is_read_as_it_was_noted(env) -> None:
    assert swap.begun(env) is None
    swap.begin(env, WHOLE)
    assert swap.begun(env) == WHOLE
    swap.end(env)
    assert swap.begun(env) is None


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"stamp": "1"}', "null", "3"])
def test_a_note_that_was_only_begun_says_nothing(env, text: str) -> None:
    store.put_note(env, "swap", text)
    assert swap.begun(env) is None
