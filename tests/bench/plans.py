"""Whether `invoke deploy --plan` tells the truth: random edits of a running stack, announced and then made.

    python -m tests.bench.plans [--edits 100] [--seed 1]

The control is what `docker compose up --dry-run` announces for the same edits; that nginx is reloaded is not asked of
it. It builds nothing, and would leave services running whose profile is switched off. Needs an engine.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.stack.edits import RELOAD, Editor, Outcome, forget, try_out
from tests.stack.project import Project


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    # A rollout that costs as little as it can: what is measured is what it announces.
    with tempfile.TemporaryDirectory() as folder, Project.temporary(Path(folder), quick=True) as project:
        try:
            # What the commands say belongs to a failure; here it would only bury the figures.
            with contextlib.redirect_stdout(sys.stderr):
                outcomes = measure(project, asked.edits, random.Random(asked.seed))
        finally:
            forget(project)
    print(f"`python -m tests.bench.plans --edits {asked.edits} --seed {asked.seed}`\n\n{table(outcomes)}")
    return 0 if all(each.exact for each in outcomes) else 1


def measure(project: Project, edits: int, chance: random.Random) -> list[Outcome]:
    """Make edits one after the other and deploy each."""
    project.invoke("deploy")
    editor, outcomes = Editor(project, chance), []
    for number in range(1, edits + 1):
        outcomes.append(try_out(project, editor.some()))
        print(f"==> {number}: {outcomes[-1]}", flush=True)
    return outcomes


def table(outcomes: Sequence[Outcome]) -> str:
    """Both announcements against what happened."""

    def row(name: str, said: Callable[[Outcome], frozenset[str]], apart: frozenset[str], seconds: str) -> str:
        pairs = [(said(each) - apart, each.happened - apart) for each in outcomes]
        exact = sum(announced == happened for announced, happened in pairs)
        missed = sum(len(happened - announced) for announced, happened in pairs)
        vain = sum(len(announced - happened) for announced, happened in pairs)
        changes = sum(len(happened) for _, happened in pairs)
        return f"| {name} | {len(pairs)} | {exact} | {changes} | {missed} | {vain} | {seconds} |"

    planning = statistics.median(each.planning for each in outcomes)
    idle = [each.deploying for each in outcomes if not each.happened]
    lines = [
        "| announced by | edits | exact | changes made | of them not announced | announced in vain | median |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        row("`invoke deploy --plan`", lambda each: each.announced, frozenset(), f"{planning:.1f} s"),
        row("`docker compose up --dry-run`", lambda each: each.control, frozenset({RELOAD}), "–"),
    ]
    if idle:
        lines.append(f"\nA deploy with nothing to do: {statistics.median(idle):.1f} s (median of {len(idle)}).")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
