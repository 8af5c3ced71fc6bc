"""The program that is called `docker`: the first rule that matches its arguments says what it does."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

FOLDER = Path(os.environ["STANDIN"])


def main(arguments: list[str]) -> int:
    line = " ".join(arguments)
    with (FOLDER / "calls").open("a", encoding="utf-8") as calls:
        calls.write(line + "\n")
    for rule in json.loads((FOLDER / "rules.json").read_text(encoding="utf-8")):
        if not re.search(rule["match"], line):
            continue
        if rule.get("real"):
            real = os.environ["STANDIN_REAL"]
            os.execv(real, [real, *arguments])
        time.sleep(rule.get("delay", 0))
        sys.stdout.write(rule.get("stdout", ""))
        sys.stderr.write(rule.get("stderr", ""))
        sys.stdout.flush()
        sys.stderr.flush()
        # A container that lives as long as its input, as the lock does.
        if rule.get("holds"):
            sys.stdin.read()
        # A client that waits for an engine that is stopped.
        if rule.get("hangs"):
            time.sleep(600)
        return int(rule.get("code", 0))
    sys.stderr.write(f"stand-in: no rule for docker {line}\n")
    return 97


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
