"""`invoke service-remove`: the entry of a service out of docker-compose.services.yml. What it owns stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.adopt import backed_up, check, clients, composefile
from ops.adopt.check import BACKED_UP, CLIENTS, FILE, refuse_unless
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.stack import labels, owned
from ops.stack.model import Stack


def remove(env: Environment, name: str, assume_yes: bool = False) -> None:
    """Take the entry of a service out. Raises OpsError (USAGE) when it is no service of the team's own, or another one
    needs it; then nothing was changed."""
    texts = check.texts_of(env.project_dir)
    here = composefile.names(texts[FILE], "services")
    before = check.edited(env, texts)
    known = any(name in stack.services for stack in before.values())
    refuse_unless(
        name in here,
        f"{name} is a part of the stack, not a service of {FILE}." if known else f"There is no service {name}.",
        f"Services of {FILE}: {', '.join(here) or 'none'}.",
    )
    for stack in before.values():
        if needed := sorted(needing(stack, name)):
            raise OpsError(f"{name} cannot be removed: {'; '.join(needed)}.", "Change or remove that first.", USAGE)
    changed = composefile.remove(texts[FILE], "services", name)
    gone = [*_unused(changed, before, name)]
    mounted = texts.get(BACKED_UP, "")
    for section, each in gone:
        changed = composefile.remove(changed, section, each)
        if section == "volumes":
            mounted = backed_up.remove(mounted, each)
    others = {BACKED_UP: mounted, CLIENTS: clients.remove(texts.get(CLIENTS, ""), name)}
    after = {FILE: changed, **{file: text for file, text in others.items() if text != texts.get(file, "")}}
    check.compare(
        before, check.edited(env, texts | after), [name, *([backed_up.SERVICE] if BACKED_UP in after else [])]
    )
    console.say(f"{FILE}: {name} goes{''.join(f', and {each} in {section}' for section, each in gone)}.")
    stays = list(remaining(env, before, name, gone))
    if stays:
        console.say("\nThis stays until you delete it yourself:")
        for what, how in stays:
            console.say(f"  {what}\n    {how}")
    for what, users in still_owned(before, name):
        console.say(f"\n{what} is still in use: {' and '.join(users)} {'owns' if len(users) == 1 else 'own'} it too.")
    if not console.confirm(f"\nRemove {name}?", assume_yes):
        raise OpsError("Nothing was changed.")
    check.write(env.project_dir, after)
    console.say(f"\nwrote {' and '.join(after)}. Next, in each environment, which stops and removes its containers:")
    console.say(f"  invoke deploy --env {env.name}")


def needing(stack: Stack, name: str) -> Iterator[str]:
    """What would be missing a service, in words."""
    entries: Mapping[str, Any] = stack.document["services"]
    for other, each in entries.items():
        if other == name:
            continue
        if name in (each.get("depends_on") or {}):
            yield f"{other} depends on it (depends_on)"
        for key in ("network_mode", "pid", "ipc"):
            if each.get(key) == f"service:{name}":
                yield f"{other} shares its {key.removesuffix('_mode')} ({key})"
        if any(str(source).partition(":")[0] == name for source in each.get("volumes_from") or ()):
            yield f"{other} uses its volumes (volumes_from)"
        if any(str(link).partition(":")[0] == name for link in each.get("links") or ()):
            yield f"{other} is linked to it (links)"
        for variable, value in (each.get("environment") or {}).items():
            if f":8081/{name}" in str(value) or f"://{name}:" in str(value):
                yield f"{other} calls it ({variable})"


def _unused(changed: str, before: Mapping[str, Stack], name: str) -> Iterator[tuple[str, str]]:
    """Volumes and secrets of the file that nothing uses without the service: (section, name)."""
    for section, used in (("volumes", _volumes), ("secrets", _secrets)):
        for each in composefile.names(changed, section):
            users = {
                other
                for stack in before.values()
                for other, entry in stack.document["services"].items()
                # A backup of what nobody uses is no use.
                if each in used(entry) and not labels.is_backup(entry.get("labels") or {})
            }
            if users == {name}:
                yield section, each


def _volumes(entry: Mapping[str, Any]) -> set[str]:
    return {str(each.get("source", "")) for each in entry.get("volumes") or () if each["type"] == "volume"}


def _secrets(entry: Mapping[str, Any]) -> set[str]:
    return {str(each["source"]) for each in entry.get("secrets") or ()}


def remaining(
    env: Environment, before: Mapping[str, Stack], name: str, gone: list[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """What a service leaves behind: what it is, and the command that deletes it in this environment."""
    stack = next(iter(before.values()))
    entry = stack.document["services"][name]
    others = [each for stack in before.values() for other, each in stack.document["services"].items() if other != name]
    folder = _source(env, entry)
    if folder and folder not in {_source(env, each) for each in others}:
        yield f"its source, {folder}", f"git rm -r {folder}"
    theirs = {(key, value) for each in others for key, value in _labels(each).items()}
    # What another service owns as well is still needed.
    said = dict(_labels(entry).items() - theirs)
    psql = f"invoke psql --env {env.name} --"
    if role := said.get(owned.SCHEMA):
        drop = f'DROP SCHEMA "{role}" CASCADE; DROP OWNED BY "{role}"; DROP ROLE "{role}"'
        yield f"its schema and role {role} in PostgreSQL", f"{psql} -c '{drop}'"
    if role := said.get(owned.DATABASE):
        drop = f"-c 'DROP DATABASE \"{role}\" WITH (FORCE)' -c 'DROP ROLE \"{role}\"'"
        yield f"its database and role {role} in PostgreSQL", f"{psql} {drop}"
    if user := said.get(owned.RABBITMQ):
        yield (
            f"its user {user} in RabbitMQ, and its queues",
            f"docker exec {env.project}-rabbitmq-1 rabbitmqctl delete_user {user} # and delete_queue for each queue",
        )
    if user := said.get(owned.REDIS):
        yield (
            f"its user {user} in Redis, and its keys",
            f"docker exec {env.project}-redis-primary-1 sh /etc/redis/users.sh remove {user} # and in each other node",
        )
    for section, each in gone:
        if section == "volumes":
            yield f"the volume {each}, with its files", f"docker volume rm {env.project}_{each}"
        else:
            yield f"the secret {each}", f"rm config/*/secrets/{each}"


def still_owned(before: Mapping[str, Stack], name: str) -> Iterator[tuple[str, list[str]]]:
    """What a service owns together with others, and which ones: its migration owns the same schema, for example."""
    entries = [(other, each) for stack in before.values() for other, each in stack.document["services"].items()]
    mine = {pair for other, each in entries if other == name for pair in _labels(each).items()}
    for label, what in (
        (owned.SCHEMA, "The schema {} of PostgreSQL"),
        (owned.DATABASE, "The database {} of PostgreSQL"),
        (owned.RABBITMQ, "The user {} of RabbitMQ"),
        (owned.REDIS, "The user {} of Redis"),
    ):
        for value in sorted(value for key, value in mine if key == label):
            users = {other for other, each in entries if other != name and _labels(each).get(label) == value}
            if users:
                yield what.format(value), sorted(users)


def _labels(entry: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in (entry.get("labels") or {}).items()}


def _source(env: Environment, entry: Mapping[str, Any]) -> str:
    """The folder of a service's source, relative to the project; "" where it has none of its own."""
    build = entry.get("build") or {}
    context = str(build.get("context", ""))
    services = env.project_dir / "services"
    if context == str(services):
        package = (build.get("args") or {}).get("SERVICE", "")
        return f"services/{package}" if package and (services / package).is_dir() else ""
    root = f"{env.project_dir}/"
    return context.removeprefix(root) if context.startswith(root) else ""
