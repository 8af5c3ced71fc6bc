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


def in_uploads(project: Project, script: str) -> str:
    """What a script says that runs beside the volume of uploads, in /uploads."""
    nginx = docker("inspect", "--format", "{{.Config.Image}}", container(project, "nginx"))
    volume = f"{project.name()}_web_uploads:/uploads"
    return docker("run", "--rm", "--volume", volume, "--entrypoint", "sh", nginx, "-c", script)


def write(project: Project, words: str) -> None:
    """Let PostgreSQL, Redis and the uploads hold these words, in one row, one key and two files."""
    psql(project, f"CREATE TABLE IF NOT EXISTS kept (words text); TRUNCATE kept; INSERT INTO kept VALUES ('{words}')")
    redis(project, "SET", "kept", words)
    in_uploads(project, f"echo {words} > /uploads/kept; echo {words} > /uploads/{words}")


def written(project: Project) -> tuple[str, str, str, str]:
    """What each of them holds, and which databases there are."""
    files = in_uploads(project, "cat /uploads/kept; ls -A /uploads")
    databases = psql(
        project, "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE NOT datistemplate"
    )
    return psql(project, "SELECT words FROM kept"), redis(project, "GET", "kept"), files, databases
