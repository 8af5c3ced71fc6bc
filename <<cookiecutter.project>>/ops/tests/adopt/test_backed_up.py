"""The volumes that a backup holds, as the team's file lists them."""

from __future__ import annotations

import pytest
import yaml

from ops.adopt import backed_up
from ops.base.errors import USAGE, OpsError

EMPTY = "# Mine.\n\nservices:\n  backup:\n    volumes: []\n"
ONE = "# Mine.\n\nservices:\n  backup:\n    volumes:\n      - web_uploads:/volumes/web_uploads:ro\n"


def volumes(text: str) -> list[str]:
    return yaml.safe_load(text)["services"]["backup"]["volumes"]


def test_a_volume_comes_and_goes() -> None:
    two = backed_up.put(ONE, "shop_data")
    assert volumes(two) == ["web_uploads:/volumes/web_uploads:ro", "shop_data:/volumes/shop_data:ro"]
    assert backed_up.remove(two, "shop_data") == ONE
    assert backed_up.put(two, "shop_data") == two


def test_the_first_and_the_last_one() -> None:
    assert backed_up.put(EMPTY, "web_uploads") == ONE
    assert backed_up.remove(ONE, "web_uploads") == EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "services:\n  other:\n    volumes:\n      - x:/y\n  backup:\n    volumes:\n    # ours\n    - a:/volumes/a:ro\n",
        "services:\n    backup:\n        environment: {A: b}\n        volumes:\n            - a:/volumes/a:ro # mine\n",
        'services:\n  backup:\n    volumes:\n      - "a:/volumes/a:ro"\n\n  other:\n    volumes: []\n',
        "services:\n  backup: # us\n    volumes:\n      - a:/volumes/a:ro",
    ],
)
def test_other_ways_to_write_it(text: str) -> None:
    changed = backed_up.put(text, "b")
    assert [each.partition(":")[0] for each in volumes(changed)] == ["a", "b"]
    assert volumes(backed_up.remove(changed, "a")) == ["b:/volumes/b:ro"]
    without = {**yaml.safe_load(changed)["services"], "backup": None}
    assert without == {**yaml.safe_load(text)["services"], "backup": None}


@pytest.mark.parametrize("text", ["", "services:\n", "services:\n  backup: {volumes: [a:/volumes/a:ro]}\n"])
def test_what_cannot_be_edited_is_told_with_the_line(text: str) -> None:
    with pytest.raises(OpsError, match="cannot be edited") as raised:
        backed_up.put(text, "b")
    assert (raised.value.code, "- b:/volumes/b:ro" in raised.value.remedy) == (USAGE, True)
    assert backed_up.remove(text, "b") == text
