"""Writes to the database from inside the stack, and notes every write that was acknowledged.

Runs in a container of a service's image, with that service's own connection settings; reads its orders from the
environment (HOSTS, ROLE, THREADS, BEGIN: the first id) and writes a line for every event to standard output:
`ack ID SECONDS`, `fail SECONDS REASON`. Times are those of the engine's clock. Ends on SIGTERM.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import psycopg
from pydantic import SecretStr
from stack.database import connection_arguments
from stack.settings import DatabaseSettings

PAUSE_SECONDS = 0.05  # after a failure: short, so that an outage is measured and not this
INSERT = "INSERT INTO failover_probe (id) VALUES (%s)"


def main() -> None:
    settings = DatabaseSettings(
        service_name="writer",
        database_hosts=os.environ["HOSTS"],
        database_name=os.environ["DATABASE"],
        database_user="api",
    )
    password = SecretStr(Path("/run/password").read_text(encoding="utf-8").rstrip("\n"))
    arguments = connection_arguments(settings, password, os.environ["ROLE"])
    ids, stop, lock = itertools.count(int(os.environ["BEGIN"])), threading.Event(), threading.Lock()

    def note(*words: object) -> None:
        with lock:
            sys.stdout.write(" ".join(map(str, words)) + "\n")
            sys.stdout.flush()

    def work() -> None:
        connection = None
        while not stop.is_set():
            number = next(ids)
            try:
                connection = connection or psycopg.connect(autocommit=True, **arguments)
                connection.execute(INSERT, (number,))
                note("ack", number, time.time())
            except psycopg.Error as error:
                note("fail", time.time(), str(error).splitlines()[-1] if str(error) else type(error).__name__)
                if connection:
                    connection.close()
                connection = None
                stop.wait(PAUSE_SECONDS)

    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    threads = [threading.Thread(target=work, daemon=True) for _ in range(int(os.environ["THREADS"]))]
    for each in threads:
        each.start()
    for each in threads:
        while each.is_alive():
            each.join(0.2)
            if stop.is_set():
                each.join(10)
                break
    note("end")
    os._exit(0)


if __name__ == "__main__":
    main()
