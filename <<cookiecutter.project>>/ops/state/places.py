"""Where the project lies says nothing about what is deployed: resolved configurations are kept without its folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Stands for the project's folder. No path and no setting holds it.
_HERE = "@project-folder@"


def without_folder(document: Any, folder: Path) -> Any:
    """A resolved configuration with a mark in place of the project's folder."""
    # Not a longer name that only begins alike, nor a path that only ends so.
    path = re.compile(rf"(?<![\w./-]){re.escape(str(folder))}(?![\w.-])")
    return _mapped(document, lambda text: path.sub(_HERE, text))


def with_folder(document: Any, folder: Path) -> Any:
    """The resolved configuration as it is in a folder."""
    return _mapped(document, lambda text: text.replace(_HERE, str(folder)))


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_mapped(each, change) for each in value]
    if isinstance(value, dict):
        return {key: _mapped(each, change) for key, each in value.items()}
    return value
