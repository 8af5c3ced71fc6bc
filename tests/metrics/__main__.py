"""Write the names of all metrics anew: `python -m tests.metrics URL [NAME=FILE …]`.

URL: a Prometheus that has scraped a whole stack (prod) for a minute. NAME=FILE takes the names of one program from a
file with its own metrics page instead, for a version that the stack does not run here.
"""

from __future__ import annotations

import json
import re
import sys
import urllib.parse
import urllib.request
from pathlib import Path

from tests.metrics import HERE, JOBS

_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)[ {]", re.MULTILINE)


def scraped(url: str, jobs: tuple[str, ...]) -> set[str]:
    """Names that Prometheus has of some jobs, without those that rules record."""
    query = urllib.parse.urlencode({"match[]": f'{{job=~"{"|".join(jobs)}"}}'})
    with urllib.request.urlopen(f"{url}/api/v1/label/__name__/values?{query}", timeout=30) as answer:
        found = json.load(answer)["data"]
    return {name for name in found if ":" not in name and not name.startswith(("scrape_", "ALERTS")) and name != "up"}


def main(url: str, *pages: str) -> int:
    """Rewrite every file below its first line, which says what is pinned and is a person's to change."""
    given = dict(page.split("=", 1) for page in pages)
    for name, jobs in JOBS.items():
        path = HERE / f"{name}.txt"
        head = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
        names = (
            set(_SAMPLE.findall(Path(given[name]).read_text(encoding="utf-8"))) if name in given else scraped(url, jobs)
        )
        path.write_text("\n".join([*head, *sorted(names)]) + "\n", encoding="utf-8")
        print(f"{path.name}: {len(names)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
