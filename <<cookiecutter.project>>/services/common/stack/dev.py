"""`python -m stack.dev`: the service, started again whenever a file of it changes. It ends when the service does."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

from watchfiles import PythonFilter, watch

STOP_SECONDS = 30


def serve() -> int | None:
    """Run the service until it ends; its exit status, or None when it was stopped because a file has changed."""
    child = subprocess.Popen([sys.executable, "-m", "stack", *sys.argv[1:]])
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: child.send_signal(number))
    ended = threading.Event()

    def await_end() -> None:
        child.wait()
        ended.set()

    threading.Thread(target=await_end, daemon=True).start()
    files = PythonFilter(extra_extensions=(".html", ".css"))
    if next(watch(Path(__file__).parent.parent, watch_filter=files, stop_event=ended), None) is None:
        return child.wait()
    child.terminate()
    child.wait(STOP_SECONDS)
    return None


def main() -> int:
    """The exit status of the service: a crash must be seen by the engine, not hidden until a file changes."""
    while (code := serve()) is None:
        pass
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
