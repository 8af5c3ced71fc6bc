"""Runs in a container of the part: recovers a moment and answers a question about it.

    python3 ask.py TARGET ENTRY MOMENT DATABASE STATEMENT

MOMENT: in ISO 8601, or "" for as far as the write-ahead log goes. Prints JSON: seconds until the server took writes,
and the answer, or the error.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from datetime import datetime
from pathlib import Path

from ops.base.errors import OpsError
from ops.recovery import catalogue, settings
from ops.recovery.postgres import recover
from ops.recovery.repository import Repository


def main(place: str, wanted: str, moment: str, database: str, statement: str) -> None:
    """Recover, ask, print."""
    configured = settings.read(os.environ)
    target = next(each for each in configured.targets if place in each.location)
    repository = Repository(configured, target, "backups")
    until = recover.Until(datetime.fromisoformat(moment)) if moment else recover.LATEST
    shutil.rmtree("/scratch/ask", ignore_errors=True)  # of a run that was killed
    began = time.monotonic()
    try:
        found = catalogue.entries(repository)
        if moment and wanted == catalogue.LATEST:
            entry = catalogue.before(found, datetime.fromisoformat(moment))
        else:
            entry = catalogue.find(found, wanted)
        with recover.recovered(configured, repository, entry, Path("/scratch/ask"), until) as server:
            seconds = time.monotonic() - began
            print(json.dumps({"entry": entry.id, "seconds": seconds, "answer": server.sql(statement, database)}))
    except OpsError as error:
        print(json.dumps({"error": error.message, "kind": type(error).__name__, "code": error.code}))


if __name__ == "__main__":
    main(*sys.argv[1:])
