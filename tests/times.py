"""How long the tests took, against what each module may take: tests/budgets.toml.

Every rung leaves pytest's own report in build/times/RUNG.xml. `python -m tests.times` prints the slowest tests of all
rungs and the modules over their budget. It only reports: how long a test takes says as much about the machine as about
the test, and a verdict that depends on it would fail without a fault.
"""

from __future__ import annotations

import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "times"
BUDGETS = ROOT / "tests" / "budgets.toml"
SLOWEST = 20
# A busy machine explains less than that; what takes longer waits for something that it need not wait for.
TOO_LONG = 2.0
_RESULTS = {"failure": "failed", "error": "failed", "skipped": "skipped"}


@dataclass(frozen=True)
class Took:
    """One test. seconds: with its set-up, which of the first test in a module is also that of the module's stack."""

    module: str
    name: str
    seconds: float
    result: str = "passed"


@dataclass(frozen=True)
class Spent:
    """A module against its budget, both in seconds."""

    module: str
    seconds: float
    budget: float

    @property
    def over(self) -> bool:
        return self.seconds > self.budget

    @property
    def too_long(self) -> bool:
        return self.seconds > TOO_LONG * self.budget


def read(report: Path) -> Iterator[Took]:
    """The tests of a report that pytest wrote (`--junitxml`)."""
    for case in ElementTree.parse(report).iter("testcase"):
        result = next((_RESULTS[child.tag] for child in case if child.tag in _RESULTS), "passed")
        yield Took(case.get("classname", ""), case.get("name", ""), float(case.get("time", 0)), result)


def lasted(report: Path) -> float:
    """Seconds from the beginning of a rung to its end; less than its tests together where some ran side by side."""
    return sum(float(suite.get("time", 0)) for suite in ElementTree.parse(report).iter("testsuite"))


def by_module(tests: Iterable[Took]) -> dict[str, float]:
    """Seconds of each module."""
    seconds: dict[str, float] = defaultdict(float)
    for each in tests:
        seconds[each.module] += each.seconds
    return dict(seconds)


def budgets() -> dict[str, float]:
    """What is committed: seconds, by module or by the package of the modules that are not named."""
    with BUDGETS.open("rb") as file:
        return tomllib.load(file)["seconds"]


def budget(module: str, budgets: Mapping[str, float]) -> float:
    """Seconds that a module may take: its own budget, or that of the nearest package around it; "" is around all."""
    while module not in budgets:
        module = module.rpartition(".")[0]
    return budgets[module]


def spent(tests: Iterable[Took], budgets: Mapping[str, float]) -> list[Spent]:
    """Every module against its budget, the longest first."""
    found = [Spent(name, seconds, budget(name, budgets)) for name, seconds in by_module(tests).items()]
    return sorted(found, key=lambda each: -each.seconds)


def report(tests: Iterable[Took], budgets: Mapping[str, float]) -> str:
    """What is printed."""
    tests = sorted(tests, key=lambda each: -each.seconds)
    modules = spent(tests, budgets)
    lines = [f"The slowest {min(SLOWEST, len(tests))} of {len(tests)} tests:"]
    lines += [f"{each.seconds:8.1f} s  {each.module}::{each.name}" for each in tests[:SLOWEST]]
    lines += ["", "Modules, and what they may take (tests/budgets.toml):"]
    lines += [
        f"{each.seconds:8.1f} s of {each.budget:g} s  {each.module}{_verdict(each)}"
        for each in modules
        if each.over or each.seconds >= 10
    ]
    if not any(each.over for each in modules):
        lines.append("No module is over its budget.")
    return "\n".join(lines)


def _verdict(each: Spent) -> str:
    return "  FAR OVER ITS BUDGET" if each.too_long else "  OVER ITS BUDGET" if each.over else ""


def main(*rungs: str) -> int:
    """Print the report on these rungs (all that have one)."""
    files = [FOLDER / f"{rung}.xml" for rung in rungs] or sorted(FOLDER.glob("*.xml"))
    if missing := [each.name for each in files if not each.is_file()]:
        print(f"No times of: {', '.join(missing)}. pytest ended before it wrote them.")
    files = [each for each in files if each.is_file()]
    text = report([test for each in files for test in read(each)], budgets())
    print(text, "", "Rungs:", *(f"{lasted(each):8.1f} s  {each.stem}" for each in files), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
