"""What a member of a portable archive contains, in numbers: noted when it is written, compared when it is restored."""

from __future__ import annotations

import gzip
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from ops.base.errors import OpsError

_CHUNK = 1 << 20

# ── a database ────────────────────────────────────────────────────────────────────────────────────────────────────────

# Exact, and cheap beside the dump. Partitioned tables are counted through their partitions.
COUNT_ROWS = """
SELECT format('SELECT json_build_array(%L, count(*)) FROM %I.%I', nspname || '.' || relname, nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND relpersistence = 'p' AND nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
ORDER BY nspname, relname
\\gexec
"""

# A function without a schema in its body finds its tables by the search path of whoever calls it, and a dump is loaded
# with an empty one. So a restore looks in every schema: first where the database itself would.
SEARCH_PATH = """
SELECT string_agg(quote_ident(nspname), ', ' ORDER BY position, nspname)
FROM (SELECT nspname, array_position(current_schemas(false), nspname) AS position FROM pg_namespace
      WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema') AS schemas
"""

# Roles are no part of a database's dump, but its grants and owners name them. No password, not even a hash, is kept.
LIST_ROLES = """
SELECT coalesce(json_agg(json_build_object('name', r.rolname,
  'options', concat_ws(' ', CASE WHEN rolsuper THEN 'SUPERUSER' END, CASE WHEN rolcanlogin THEN 'LOGIN' END,
    CASE WHEN NOT rolinherit THEN 'NOINHERIT' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
    CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolreplication THEN 'REPLICATION' END,
    CASE WHEN rolbypassrls THEN 'BYPASSRLS' END,
    CASE WHEN rolconnlimit >= 0 THEN 'CONNECTION LIMIT ' || rolconnlimit END),
  'member_of', (SELECT coalesce(json_agg(g.rolname ORDER BY g.rolname), '[]') FROM pg_auth_members m
    JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid AND g.rolname NOT LIKE 'pg\\_%'))
  ORDER BY r.rolname), '[]')
FROM pg_roles r WHERE r.rolname NOT LIKE 'pg\\_%'
"""


def rows(lines: str) -> dict[str, int]:
    """What psql answers to COUNT_ROWS: {"schema.table": count}."""
    return dict(json.loads(line) for line in lines.splitlines())


def of_database(name: str, counted: dict[str, int], ask: Callable[[str], str]) -> dict[str, Any]:
    """What a database contains. counted: rows of every table; ask: what psql answers in that database."""
    return {
        "database": name,
        "database_bytes": int(ask("SELECT pg_database_size(current_database())")),
        "rows": counted,
        "search_path": ask(SEARCH_PATH),
        "roles": json.loads(ask(LIST_ROLES)),
    }


# ── Redis ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def rdb_keys(snapshot: IO[bytes]) -> tuple[int, int]:
    """Keys a Redis snapshot holds in database 0, and how many of them expire. Raises OpsError when it is none."""
    if snapshot.read(5) != b"REDIS" or not snapshot.read(4).isdigit():
        raise OpsError("Redis sent something that is no snapshot.", "See: invoke logs --service redis-replica")
    while True:
        code = _exactly(snapshot, 1)[0]
        if code == 0xFA:  # a property of the snapshot: name, value
            _skip_string(snapshot)
            _skip_string(snapshot)
        elif code == 0xF5:  # a library of functions
            _skip_string(snapshot)
        elif code == 0xFE:  # a database begins
            if _length(snapshot)[0] != 0:
                return 0, 0
        elif code == 0xFB:  # its size: keys, keys that expire
            return _length(snapshot)[0], _length(snapshot)[0]
        elif code == 0xFF:  # the end
            return 0, 0
        else:
            raise OpsError(
                f"The Redis snapshot begins in an unknown way (code {code:#x}).", "Is Redis newer than this?"
            )


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise OpsError("The Redis snapshot ends too early.", "See: invoke logs --service redis-replica")
    return data


def _length(file: IO[bytes]) -> tuple[int, bool]:
    """A length in Redis' encoding, and whether it is the code of a special string instead."""
    first = _exactly(file, 1)[0]
    kind, rest = first >> 6, first & 0x3F
    if kind == 0:
        return rest, False
    if kind == 1:
        return rest << 8 | _exactly(file, 1)[0], False
    if kind == 3:
        return rest, True
    return struct.unpack(">Q" if rest == 1 else ">I", _exactly(file, 8 if rest == 1 else 4))[0], False


def _skip_string(file: IO[bytes]) -> None:
    size, special = _length(file)
    if special and size == 3:  # compressed: length here, length when unpacked
        size = _length(file)[0]
        _length(file)
    elif special:  # a number of 1, 2 or 4 bytes
        size = 1 << size
    _exactly(file, size)


# ── volumes ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def count_files(packed: IO[bytes], volume: str) -> dict[str, int]:
    """Files and their bytes in a .tar.gz, all of which is read. Raises OpsError when it is broken."""
    try:
        with gzip.open(packed) as unpacked:
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                sizes = [info.size for info in tar if info.isfile() or info.islnk()]
            # tarfile does not mind a missing end, and gzip's checksum comes after it.
            while unpacked.read(_CHUNK):
                pass
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise OpsError(f"The volume {volume} could not be packed: {error}.", "Run the command again.") from error
    return {"files": len(sizes), "bytes": sum(sizes)}
