"""`python -m stack.dev`: the service, started again whenever a file of it changes."""

import sys
from pathlib import Path

from watchfiles import PythonFilter, run_process

if __name__ == "__main__":
    command = [sys.executable, "-m", "stack", *sys.argv[1:]]
    run_process(
        Path(__file__).parent.parent,
        target=" ".join(command),
        target_type="command",
        watch_filter=PythonFilter(extra_extensions=(".html", ".css")),
        sigint_timeout=30,
    )
