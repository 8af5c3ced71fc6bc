"""The packages of ops/ stand on each other in one direction."""

from __future__ import annotations

import ast
import re
from pathlib import Path

OPS = Path(__file__).resolve().parents[1]
# From the top down: a package may import from those that stand after it.
PACKAGES = (
    "kubernetes",
    "commands",
    "adopt",
    "data",
    "security",
    "rollout",
    "parts",
    "secrets",
    "recovery",
    "state",
    "stack",
    "engine",
    "base",
    "scheduler",
)


def imported(source: str) -> set[str]:
    """Packages of ops that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "ops":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ops."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ops."))
    return names


def upward(package: str, source: str) -> set[str]:
    """Packages that a module of a package imports although they stand above it."""
    return imported(source) & set(PACKAGES[: PACKAGES.index(package)])


def test_imports_run_downwards_only() -> None:
    wrong = {
        str(path.relative_to(OPS)): names
        for package in PACKAGES
        for path in (OPS / package).rglob("*.py")
        if (names := upward(package, path.read_text(encoding="utf-8")))
    }
    assert wrong == {}


def test_what_runs_in_the_containers_of_backups_is_in_their_image() -> None:
    """infrastructure/backup/Dockerfile copies no more of ops/ than this."""
    modules = [path.read_text(encoding="utf-8") for path in (OPS / "recovery").rglob("*.py")]
    assert set().union(*map(imported, modules)) <= {"recovery", "base", "state"}
    assert {name for source in modules for name in re.findall(r"from ops\.state\S* import", source)} <= {
        "from ops.state.document import"
    }


def test_every_module_is_in_a_package() -> None:
    assert {path.name for path in OPS.glob("*.py")} == {"__init__.py"}
    assert {path.parent.name for path in OPS.glob("*/__init__.py")} - {"tests"} <= set(PACKAGES)


def test_an_import_that_runs_upwards_is_seen() -> None:
    assert upward("base", "def f():\n    from ops import engine") == {"engine"}
    assert upward("state", "from ops.rollout.plan import Plan") == {"rollout"}
    assert upward("rollout", "import ops.engine\nfrom ops.base import console") == set()
