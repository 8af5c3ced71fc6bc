"""What a test writes into the databases of a stack, and reads again."""

from __future__ import annotations

from .project import Project, docker


def container(project: Project, service: str) -> str:
    """The container of a service that has one, whatever its number."""
    return next(name for name in project.containers() if name.startswith(f"{project.name()}-{service}-"))


def psql(project: Project, text: str) -> str:
    """What PostgreSQL answers, in the common database of dev."""
    primary = container(project, "postgres-primary")
    return docker("exec", primary, "psql", "--username=admin", "--dbname=appdb", "-At", "-c", text)


def redis(project: Project, *command: str) -> str:
    """What Redis answers."""
    return docker("exec", container(project, "redis-primary"), "sh", "/etc/redis/cli.sh", *command)
