"""What became of the long faults: the table that is committed after `nox -s faults`.

`python -m tests.faults RUNG…` writes tests/bench/FAULTS.md from the reports that these rungs left.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from datetime import date

from tests import times
from tests.times import Took

TABLE = times.ROOT / "tests" / "bench" / "FAULTS.md"


def table(tests: Iterable[Took], day: date) -> str:
    """Every chapter with its result and how long it took."""
    tests = list(tests)
    counts = {result: sum(each.result == result for each in tests) for result in ("passed", "failed", "skipped")}
    lines = [
        "# Faults",
        "",
        f"`nox -s faults`, {day.isoformat()}: {', '.join(f'{count} {result}' for result, count in counts.items())}.",
        "The stories that have long faults, whole (tests/README.md).",
        "",
        "| module | test | result | seconds |",
        "| --- | --- | --- | ---: |",
        *(f"| {each.module.rpartition('.')[2]} | {each.name} | {each.result} | {each.seconds:.0f} |" for each in tests),
    ]
    return "\n".join(lines) + "\n"


def main(*rungs: str) -> int:
    """Write the table of these rungs."""
    files = [times.FOLDER / f"{rung}.xml" for rung in rungs]
    found = [test for file in files if file.is_file() for test in times.read(file)]
    TABLE.write_text(table(found, date.today()), encoding="utf-8")
    print(f"{TABLE.relative_to(times.ROOT)}: {len(found)} tests")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
