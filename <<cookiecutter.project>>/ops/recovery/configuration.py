"""The project itself in an entry: its configuration, certificates, release history, and the secrets where they are
wanted."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ops.base.errors import OpsError
from ops.state.document import newest

# Where the part mounts them: what config/<env> holds beside its secrets; the certificates, or with BACKUP_SECRETS
# every secret; the volume in which the commands keep releases; Grafana's.
CONFIGURATION = Path("/project/configuration")
SECRETS = Path("/project/secrets")
STATE = Path("/project/state")
GRAFANA = Path("/project/grafana/grafana.db")

# What Kubernetes has in every folder that it mounts from an object: a link to where the files are.
_LINKED = "..data"
# The folder of the certificates among the secrets.
CERTIFICATES = "tls"


def copy_configuration(into: Path, source: Path = CONFIGURATION) -> int:
    """Copy what config/<env> holds beside its secrets; how many files that were."""
    return _copy(source, into)


def copy_secrets(into: Path, all_of_them: bool, source: Path = SECRETS) -> int:
    """Copy the certificates, with all_of_them every secret; how many files that were."""
    return _copy(source, into if all_of_them else into / CERTIFICATES)


def copy_releases(into: Path, source: Path = STATE) -> int:
    """Copy what the commands remember of this environment; how many files that were, 0 before the first release."""
    return _copy(source, into)


def deployed(source: Path = STATE) -> Mapping[str, Any]:
    """The resolved configuration of the newest release; empty before the first one. Raises OpsError when a newer
    version of the commands wrote it."""
    if not source.is_dir():
        return {}
    state = newest(each.read_text(encoding="utf-8", errors="replace") for each in source.iterdir() if each.is_file())
    number = max((int(each) for each in state.documents if each.isdigit()), default=None) if state else None
    document = state.documents[str(number)] if state and number is not None else {}
    return document if isinstance(document, dict) else {}


def unsaved_volumes(document: Mapping[str, Any], taker: str) -> list[str]:
    """Volumes that an entry does not hold, and why, a line each. document: a resolved configuration; taker: the service
    that takes entries."""
    services: Mapping[str, Any] = document.get("services") or {}
    saved = {*_mounted(services.get(taker) or {})}
    found = {}
    for name, entry in services.items():
        labels = entry.get("labels") or {}
        # The databases are saved by their servers, and every deploy renders the edge.
        if labels.keys() & {"ops.stateful", "ops.part"} or labels.get("ops.tier") == "data":
            continue
        for volume in _mounted(entry):
            if labels.get("ops.tier") != "monitoring":
                found[volume] = f"no label ops.backup of {name} names it"
            elif volume in _MONITORING:
                found[volume] = _MONITORING[volume]
    return [f"volume {volume}: {why}" for volume, why in sorted(found.items()) if volume not in saved]


# What monitoring keeps for a time that settings say.
_MONITORING = {
    "prometheus_data": "metrics",
    "alertmanager_data": "silences, and which alerts were sent",
    "elasticsearch_data": "logs",
    "otel_collector_data": "which logs were read",
}


def _mounted(entry: Mapping[str, Any]) -> list[str]:
    mounts = entry.get("volumes") or ()
    return [each["source"] for each in mounts if each.get("type") == "volume" and each.get("source")]


def _copy(source: Path, into: Path) -> int:
    if not source.is_dir():
        return 0
    # In a cluster the files of a mounted folder are links to a folder beside them, which are of no use elsewhere.
    linked = any(source.rglob(_LINKED))
    ignore = shutil.ignore_patterns("..*") if linked else None
    try:
        shutil.copytree(source, into, symlinks=not linked, ignore=ignore, dirs_exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise OpsError(f"{source} cannot be copied: {error}.") from error
    return sum(1 for each in into.rglob("*") if each.is_file())


def save_grafana(into: Path, source: Path = GRAFANA) -> dict[str, int] | None:
    """Copy Grafana's database while Grafana uses it; the rows of each table, None when there is no database."""
    if not source.is_file():
        return None
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=60)) as database,
            closing(sqlite3.connect(into)) as copy,
        ):
            database.backup(copy)
        return rows(into)
    except sqlite3.Error as error:
        raise OpsError(f"Grafana's database cannot be copied: {error}.", "See: invoke logs grafana") from error


def rows(database: Path) -> dict[str, int]:
    """The rows of every table of an SQLite database, which is checked. Raises OpsError when it is damaged."""
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as opened:
            said = [row[0] for row in opened.execute("PRAGMA integrity_check")]
            if said != ["ok"]:
                raise OpsError(f"{database.name} is damaged: {said[0]}.")
            names = [row[0] for row in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
            return {name: opened.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in names}
    except sqlite3.Error as error:
        raise OpsError(f"{database.name} is damaged: {error}.") from error
