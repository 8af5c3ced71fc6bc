"""Entries put into a Compose file and taken out of it, with everything else as its owner wrote it."""

from __future__ import annotations

import pytest

from ops.adopt import composefile
from ops.base.errors import OpsError

FILE = """\
# Ours.

services:
  # the first
  web:
    image: web:1 # pinned

    labels:
      a: "1"
  # the second,
  # in two lines
  "api":
    image: api:1
    command: |
      services:
        no: entry

# what they keep
volumes:
  data:

secrets:
  KEY: {file: ./KEY}
"""
SHOP = ["  shop:", "    image: shop:1"]


def test_names_are_those_of_the_entries() -> None:
    assert composefile.names(FILE, "services") == ["web", "api"]
    assert composefile.names(FILE, "secrets") == ["KEY"]
    assert composefile.names(FILE, "configs") == []


def test_an_entry_comes_last_in_its_section() -> None:
    text = composefile.insert(FILE, "services", SHOP)
    block = "        no: entry\n\n  shop:\n    image: shop:1\n\n# what they keep\nvolumes:\n"
    assert block in text
    assert text.replace("\n  shop:\n    image: shop:1\n", "", 1) == FILE


def test_what_was_added_can_be_taken_out_again() -> None:
    for section, entry in (("services", SHOP), ("volumes", ["  shop_data:"]), ("secrets", ["  SHOP: {file: ./SHOP}"])):
        name = entry[0].partition(":")[0].strip()
        assert composefile.remove(composefile.insert(FILE, section, entry), section, name) == FILE


@pytest.mark.parametrize("begin", ["services:\n", "services: {}\n", "services: {} # none yet\n", ""])
def test_the_first_entry(begin: str) -> None:
    text = composefile.insert(f"{begin}\nvolumes:\n  data:\n", "services", SHOP)
    assert "services:\n  shop:\n    image: shop:1\n" in text
    assert composefile.names(text, "services") == ["shop"]
    assert composefile.names(text, "volumes") == ["data"]


def test_other_indentation_is_followed() -> None:
    text = composefile.insert("services:\n    web:\n        image: web:1\n", "services", SHOP)
    assert text == "services:\n    web:\n        image: web:1\n\n    shop:\n      image: shop:1\n"


def test_a_section_in_one_line_is_refused() -> None:
    with pytest.raises(OpsError, match="docker-compose.services.yml:1: services is written in one line"):
        composefile.insert("services: {web: {image: web:1}}\n", "services", SHOP)


def test_an_entry_goes_with_the_comment_right_above_it() -> None:
    text = composefile.remove(FILE, "services", "web")
    assert text.startswith('# Ours.\n\nservices:\n  # the second,\n  # in two lines\n  "api":\n')
    text = composefile.remove(FILE, "services", "api")
    assert '      a: "1"\n\n# what they keep\nvolumes:\n' in text
    assert "second" not in text and "the first" in text


def test_the_last_entry_takes_its_section_along() -> None:
    text = composefile.remove(FILE, "volumes", "data")
    assert "volumes" not in text
    assert composefile.names(text, "secrets") == ["KEY"]
    assert composefile.remove("secrets:\n  KEY: {file: ./KEY}\n", "secrets", "KEY") == ""
