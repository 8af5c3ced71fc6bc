"""`python3 -m ops.recovery.serve FOLDER`: serve a database that was recovered into FOLDER, until SIGINT.

For people and their programs: every role logs in with its password, over TCP; whoever is in the container needs none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Below the folder that a recovery was made into.
DATA = "data"

_HBA = """\
local all all trust
host all all all scram-sha-256
"""


def configuration(folder: Path, work: Path) -> str:
    """Settings of the server. It takes over none: those of the stack name files that are not here."""
    settings = {
        "data_directory": str(folder / DATA),
        "hba_file": str(work / "pg_hba.conf"),
        "ident_file": str(work / "pg_ident.conf"),
        "listen_addresses": "*",
        "unix_socket_directories": str(work),
        "shared_buffers": "64MB",
        "log_destination": "stderr",
        "logging_collector": "off",
        "archive_mode": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
    }
    return "".join(f"{key} = '{value}'\n" for key, value in settings.items())


def main() -> None:
    """Become the server."""
    folder, work = Path(sys.argv[1]), Path("/tmp")
    (work / "pg_hba.conf").write_text(_HBA, encoding="ascii")
    (work / "pg_ident.conf").touch()
    (work / "postgresql.conf").write_text(configuration(folder, work), encoding="utf-8")
    # The image has another one, and the server would look there first.
    os.environ.pop("PGDATA", None)
    os.execvp("postgres", ["postgres", f"--config-file={work / 'postgresql.conf'}"])


if __name__ == "__main__":
    main()
