"""Ends the process when its event loop is stuck, so that the restart policy can act."""

import asyncio
import faulthandler
import os
import sys
import threading
import time

from stack import log

EXIT_STUCK = 70  # EX_SOFTWARE of sysexits.h


class Watchdog(threading.Thread):
    """Watches the running loop from a thread of its own.

    Args:
        limit: longest that the loop may take to come round, seconds.
    """

    def __init__(self, limit: float = 30.0) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.limit, self.interval = limit, limit / 10
        self._loop = asyncio.get_running_loop()
        self._seen = time.monotonic()
        self._beat()

    def _beat(self) -> None:
        self._seen = time.monotonic()
        self._loop.call_later(self.interval, self._beat)

    def run(self) -> None:
        """Look regularly until the process ends."""
        slack = 0.0
        looked = time.monotonic()
        while True:
            time.sleep(self.interval)
            now = time.monotonic()
            # If the whole process was paused, the loop is late through no fault of its own.
            slack = 0.0 if self._seen > looked else slack + max(0.0, now - looked - 2 * self.interval)
            looked = now
            stuck = now - self._seen - slack
            if stuck > self.limit:
                log.get().critical("event loop is stuck: exiting", seconds=round(stuck, 1))
                sys.stdout.flush()
                faulthandler.dump_traceback(all_threads=True)
                os._exit(EXIT_STUCK)
