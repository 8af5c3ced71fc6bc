"""A resolved configuration is kept without the folder it was resolved in, and comes back in any other."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.state.places import with_folder, without_folder

HERE, THERE = Path("/srv/shop"), Path("/home/ann/shop")


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("/srv/shop", "/home/ann/shop"),
        ("/srv/shop/infrastructure/nginx", "/home/ann/shop/infrastructure/nginx"),
        ("/srv/shop/a:/etc/a:ro", "/home/ann/shop/a:/etc/a:ro"),
        ("/srv/shop2/a", "/srv/shop2/a"),
        ("/srv/shop.old", "/srv/shop.old"),
        ("/backup/srv/shop/a", "/backup/srv/shop/a"),
        ("/etc/postgresql", "/etc/postgresql"),
        ("${HOME} of $$ and @", "${HOME} of $$ and @"),
    ],
)
def test_another_folder(here: str, there: str) -> None:
    kept = without_folder({"a": [{"source": here, "n": 1, "none": None}]}, HERE)
    assert with_folder(kept, HERE) == {"a": [{"source": here, "n": 1, "none": None}]}
    assert with_folder(kept, THERE)["a"][0]["source"] == there
