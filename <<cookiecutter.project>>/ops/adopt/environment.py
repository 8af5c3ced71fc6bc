"""`invoke environment-add`: another environment, with a name, ports, secrets and data of its own."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

from ops.adopt.check import refuse_unless
from ops.base import console, environments
from ops.base.environments import ALIASES, Environment
from ops.base.errors import USAGE, OpsError
from ops.stack import model
from ops.stack.model import Stack

_NAME = re.compile(r"[a-z][a-z0-9]{0,19}")
_SETTING = r"^{key}=.*$"
_FIRST_PORT, _LAST_PORT = 1024, 65535


def add(source: Environment, name: str) -> None:
    """Add an environment like `source`. Raises OpsError (USAGE) when the name cannot be meant or is taken, or when the
    two would share something; then nothing was written."""
    project = source.project_dir
    refuse_unless(
        bool(_NAME.fullmatch(name)) and name not in ALIASES,
        f'"{name}" cannot be the name of an environment.',
        "Use up to 20 characters of a-z and 0-9, a letter first: qa, demo2.",
    )
    target = project / "config" / name
    refuse_unless(not target.exists(), f"config/{name} exists already.", "Choose another name, or remove it.")
    others = [environments.load(each, project) for each in environments.available(project)]
    text, changed = settings(source, name, others)
    textfile = Path("monitoring/node-exporter/textfile")
    made = [target, project / textfile / name]
    try:
        shutil.copytree(source.env_file.parent, target, ignore=_private)
        (target / "secrets").mkdir(mode=0o700, exist_ok=True)
        (target / "secrets/.gitkeep").touch()
        (target / ".env").write_text(text, encoding="utf-8")
        if (project / textfile / source.name).is_dir():
            shutil.copytree(project / textfile / source.name, made[1], ignore=shutil.ignore_patterns("*.prom"))
        refuse_shared(environments.load(name, project), others)
    except BaseException:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    console.say(f"wrote config/{name}/, a copy of config/{source.name}/ without its secrets. In config/{name}/.env:")
    for key, value in changed.items():
        console.say(f"  {key}={value}")
    console.say(f"\nRead it through, then:\n  invoke secret-init --env {name}\n  invoke deploy --env {name}")


def _private(folder: str, names: list[str]) -> list[str]:
    """What belongs to the source alone: its secrets, and the mark that its maintenance page is up."""
    return [each for each in names if Path(folder).name == "secrets" or each == "maintenance.on"]


def settings(source: Environment, name: str, others: Collection[Environment]) -> tuple[str, dict[str, str]]:
    """The text of the new .env file, and the settings that differ in it."""
    text = source.env_file.read_text(encoding="utf-8")
    raw = environments.raw_value
    changed = {"ENVIRONMENT": name}
    if "${ENVIRONMENT}" not in raw(source, "COMPOSE_PROJECT_NAME"):
        changed["COMPOSE_PROJECT_NAME"] = f"{_without_suffix(source.project, source.name)}-{name}"
    domain = source.values.get("DOMAIN", "")
    if "${ENVIRONMENT}" not in raw(source, "DOMAIN"):
        changed["DOMAIN"] = domain_of(domain, source.name, name)
    taken = {int(value) for each in others for key, value in each.values.items() if is_port(key, value)}
    for key, value in source.values.items():
        if is_port(key, value) and not raw(source, key).startswith("${"):
            changed[key] = str(free_port(int(value), taken))
            taken.add(int(changed[key]))
    subnets = {each.values.get("SUBNET_PREFIX", "") for each in others}
    if prefix := source.values.get("SUBNET_PREFIX", ""):
        changed["SUBNET_PREFIX"] = free_subnet(prefix, subnets)
    for key, value in changed.items():
        pattern = re.compile(_SETTING.format(key=key), re.MULTILINE)
        refuse_unless(bool(pattern.search(text)), f"config/{source.name}/.env does not set {key}.", "Add it.")
        text = pattern.sub(f"{key}={value}", text, count=1)
    head, newline, rest = text.partition("\n")
    if head.startswith("#"):
        text = re.sub(rf"\b{source.name}\b", name, head) + newline + rest
    return text, changed


def is_port(key: str, value: str) -> bool:
    """Whether a setting is a port of this machine. SMTP_PORT is one of the mail server."""
    return key.endswith("_PORT") and key != "SMTP_PORT" and value.isdigit()


def domain_of(domain: str, source: str, name: str) -> str:
    """The host name of an environment: qa.shop.example.com beside staging.shop.example.com or shop.example.com."""
    if "." not in domain:
        return domain  # localhost
    rest = domain.removeprefix(f"{source}.")
    return f"{name}.{rest}"


def free_port(port: int, taken: Collection[int]) -> int:
    """The next port that no environment has, and nobody on this machine listens on."""
    candidate = port if port > _FIRST_PORT else port + 8000
    while candidate in taken or not _is_free(candidate):
        candidate += 1
        if candidate > _LAST_PORT:
            raise OpsError(f"There is no free port above {port}.", "Set the ports by hand.")
    return candidate


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_subnet(prefix: str, taken: Collection[str]) -> str:
    """The next prefix of subnets ("10.81" after "10.80") that no environment has."""
    first, _, second = prefix.rpartition(".")
    candidates = (f"{first}.{number}" for number in range(int(second) + 1, 256))
    return next((each for each in candidates if each not in taken), prefix)


def _without_suffix(project: str, name: str) -> str:
    return project.removesuffix(f"-{name}")


def refuse_shared(env: Environment, others: Collection[Environment]) -> None:
    """Raise OpsError (USAGE) when an environment would share a volume, a network or a port with another one."""
    mine = model.load(env, all_profiles=True)
    for other in others:
        theirs = model.load(other, all_profiles=True)
        if found := shared(mine, theirs):
            raise OpsError(
                f"{env.name} and {other.name} would share {', '.join(found)}.",
                "Give each its own in the Compose files and config/<env>/.env, with ${COMPOSE_PROJECT_NAME} in names.",
                USAGE,
            )


def shared(one: Stack, other: Stack) -> list[str]:
    """What two environments have in common and must not: volumes, networks and containers by name, ports."""
    found = []
    for kind in ("volumes", "networks"):
        names = _names(one.document.get(kind) or {}) & _names(other.document.get(kind) or {})
        found += [f"the {kind.removesuffix('s')} {name}" for name in sorted(names)]
    containers = _containers(one) & _containers(other)
    found += [f"the container {name}" for name in sorted(containers)]
    theirs = [port for service in other.services.values() for port in service.ports]
    for service in one.services.values():
        for port in service.ports:
            if any(port.number == each.number and port.protocol == each.protocol for each in theirs):
                found.append(f"the port {port.number}")
    return list(dict.fromkeys(found))


def _names(entries: Mapping[str, Mapping[str, object]]) -> set[str]:
    return {str(each["name"]) for each in entries.values() if each and "name" in each}


def _containers(stack: Stack) -> set[str]:
    return {each["container_name"] for each in stack.document["services"].values() if "container_name" in each}
