"""How long baking takes: by hand, in process, and for every combination of answers with its validation.

    python -m tests.bench.bake [--rounds 5]

The control is the smallest template there is (one folder, one file, no hook), baked in the same run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests import compose, template

# Seconds. Targets of the design, for the reference machine.
CLI_TARGET = 1.0
PRODUCT_TARGET = 60.0


def minimal(folder: Path) -> Path:
    """A template that makes one file."""
    project = folder / "{{cookiecutter.project}}"
    project.mkdir(parents=True)
    (folder / "cookiecutter.json").write_text('{"project": "minimal"}', encoding="utf-8")
    (project / "README.md").write_text("# {{cookiecutter.project}}\n", encoding="utf-8")
    return folder


def by_cli(source: Path, output: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", str(source), "--no-input", "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True)


def in_process(source: Path, output: Path) -> None:
    template.cookiecutter(str(source), no_input=True, output_dir=str(output))


def full_product(source: Path, output: Path) -> None:
    """Bake every combination of answers, and let Compose resolve each in every environment with everything on."""
    for number, answers in enumerate(template.product()):
        project = template.bake(output / str(number), source, **answers)
        for environment in template.ENVIRONMENTS:
            done = compose.config(project, environment, "--profile", "*", "config", "--quiet")
            assert done.returncode == 0, done.stderr


def median(work: Callable[[Path, Path], None], source: Path, scratch: Path, rounds: int) -> float:
    """Median seconds of some rounds, each into a folder of its own."""
    times = []
    for _ in range(rounds):
        output = Path(tempfile.mkdtemp(dir=scratch))
        start = time.perf_counter()
        work(source, output)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure how long baking takes.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args(arguments).rounds
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["COOKIECUTTER_CONFIG"] = str(scratch / "config.yml")
        (scratch / "config.yml").write_text(f"replay_dir: {scratch}/replay\n", encoding="utf-8")
        ours, control = template.export(scratch / "enterprise-stack"), minimal(scratch / "minimal")
        files = sum(1 for path in ours.rglob("*") if path.is_file())
        table = [
            f"| median of {rounds} | this template ({files} files) | control (1 file) | ratio | target |",
            "| --- | --- | --- | --- | --- |",
        ]
        for title, work, target in (
            ("`cookiecutter`, by hand", by_cli, f"≤ {CLI_TARGET:g} s"),
            ("in process, as the tests do", in_process, ""),
        ):
            own, other = (median(work, source, scratch, rounds) for source in (ours, control))
            table.append(f"| {title} | {own:.2f} s | {other:.2f} s | {own / other:.1f} | {target} |")
        count = len(template.product()) * len(template.ENVIRONMENTS)
        once = median(full_product, ours, scratch, 1)
        table.append(
            f"| every answer baked, {count} configurations resolved | {once:.1f} s | | | ≤ {PRODUCT_TARGET:g} s |"
        )
    # At the end, below what the hooks said.
    print("\n".join(table))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
