"""A stack between two major versions of PostgreSQL: which one it runs, and what is in it."""

from __future__ import annotations

from .clients import container
from .project import Project, docker

OLD, NEW = "postgres:17.6", "postgres:18.6"


def psql(project: Project, text: str, service: str = "postgres-primary") -> str:
    login = ("psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--username=admin", "--dbname=appdb")
    return docker("exec", container(project, service), *login, f"--command={text}")


def version(project: Project, service: str = "postgres-primary") -> str:
    return psql(project, "SHOW server_version", service).partition(".")[0]


def digests(project: Project) -> dict[str, str]:
    """A digest of every row of every table."""
    tables = psql(
        project,
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
        " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')",
    ).splitlines()
    assert len(tables) >= 6, tables
    text = "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '') FROM {} t"
    return {table: psql(project, text.format(table)) for table in tables}
