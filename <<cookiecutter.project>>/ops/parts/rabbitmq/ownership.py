"""Users, exchanges, queues and permissions of the services: what the running broker lacks, and making it.

What a service owns stands in a file of its own (the label `ops.rabbitmq.definitions`), in the form of RabbitMQ's
definitions; its user comes from the label `ops.rabbitmq`. All of it is imported through the management API, without a
restart. What is there is never taken away.
"""

from __future__ import annotations

import json
import secrets as random_source
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.base.environments import Environment
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import rabbitmq
from ops.secrets.definitions import fits, rabbitmq_hash
from ops.secrets.files import read
from ops.stack.owned import Owned, User

VHOST = "/"
# An import goes on for a moment after it was answered.
_APPLY_SECONDS = 30.0


@dataclass(frozen=True)
class _Kind:
    """A kind of definition. singular: for people; key: fields by which two are the same thing; defaults: fields that
    may be left out; fixed: whether one that exists can no longer be changed."""

    singular: str
    key: tuple[str, ...]
    defaults: Mapping[str, Any]
    fixed: bool = False


_NOTHING: Mapping[str, Any] = {}
KINDS = {
    "permissions": _Kind("permission", ("user",), {}),
    "topic_permissions": _Kind("topic permission", ("user", "exchange"), {}),
    "exchanges": _Kind(
        "exchange", ("name",), {"durable": True, "auto_delete": False, "internal": False, "arguments": _NOTHING}, True
    ),
    "queues": _Kind("queue", ("name",), {"durable": True, "auto_delete": False, "arguments": _NOTHING}, True),
    "bindings": _Kind(
        "binding",
        ("source", "destination", "destination_type", "routing_key", "arguments"),
        {"destination_type": "queue", "routing_key": "", "arguments": _NOTHING},
    ),
    "policies": _Kind("policy", ("name",), {"apply-to": "all", "priority": 0}),
}
_NEEDED = {
    "permissions": ("configure", "write", "read"),
    "topic_permissions": ("exchange", "write", "read"),
    "exchanges": ("name", "type"),
    "queues": ("name",),
    "bindings": ("source", "destination"),
    "policies": ("name", "pattern", "definition"),
}

Definitions = dict[str, list[dict[str, Any]]]


# ── what is declared ──────────────────────────────────────────────────────────────────────────────────────────────────


def declared(project: Path, owned: Owned) -> dict[User, Definitions]:
    """What each user owns, complete. Raises OpsError (USAGE) for a file that is missing or cannot be meant, and for
    two services that declare one thing differently."""
    found = {user: _of_user(project, user) for user in owned.users}
    seen: dict[tuple[str, str], tuple[User, dict[str, Any]]] = {}
    for user, definitions in found.items():
        for kind, entries in definitions.items():
            for entry in entries:
                other, there = seen.setdefault((kind, _identity(kind, entry)), (user, entry))
                if there != entry:
                    raise OpsError(
                        f"{' and '.join(dict.fromkeys((*other.definitions, *user.definitions)))} declare the"
                        f" {KINDS[kind].singular} {_title(kind, entry)} differently.",
                        "Make both the same, or leave it to one of them.",
                        USAGE,
                    )
    return found


def queues(project: Path, owned: Owned) -> list[str]:
    """Names of every queue that a service declares."""
    found = declared(project, owned).values()
    return list(dict.fromkeys(queue["name"] for definitions in found for queue in definitions["queues"]))


def _of_user(project: Path, user: User) -> Definitions:
    merged: Definitions = {kind: [] for kind in KINDS}
    for file in user.definitions:
        for kind, entries in _parse(project, file, user).items():
            merged[kind] += [entry for entry in entries if entry not in merged[kind]]
    if not merged["permissions"]:
        # Everything whose name begins with the user's; the default exchange leads to queues by their names.
        mine = f"^{user.name}([._-].*)?$"
        write = f"^(amq\\.default|{user.name}([._-].*)?)$"
        entry = {"user": user.name, "vhost": VHOST, "configure": mine, "write": write, "read": mine}
        merged["permissions"] = [entry]
    return merged


def _parse(project: Path, file: str, user: User) -> Definitions:
    """A file with what may be left out. Raises OpsError (USAGE)."""

    def wrong(what: str) -> OpsError:
        return OpsError(f"{file}, of {', '.join(user.services)}: {what}.", "", USAGE)

    try:
        document = json.loads((project / file).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OpsError(
            f"{', '.join(user.services)}: the label ops.rabbitmq.definitions names {file}, which does not exist.",
            "Write the file, or remove the label.",
            USAGE,
        ) from error
    except (OSError, ValueError) as error:
        raise wrong(f"it is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise wrong("it must be a JSON object")
    if "users" in document:
        raise wrong("users have no place in it: the label ops.rabbitmq makes the user")
    if unknown := [key for key in document if key not in KINDS]:
        raise wrong(f"{unknown[0]} has no place in it; there may be {', '.join(KINDS)}")
    return {kind: [_complete(kind, entry, user, wrong) for entry in document.get(kind, [])] for kind in KINDS}


def _complete(kind: str, entry: Any, user: User, wrong: Any) -> dict[str, Any]:
    about = KINDS[kind]
    if not isinstance(entry, dict):
        raise wrong(f"every entry of {kind} must be a JSON object")
    if missing := [field for field in _NEEDED[kind] if field not in entry]:
        raise wrong(f"a {about.singular} lacks {missing[0]}: {json.dumps(entry)}")
    if entry.get("vhost", VHOST) != VHOST:
        raise wrong(f"the stack has one virtual host, {VHOST}, not {entry['vhost']}")
    if "user" in about.key and entry.get("user", user.name) != user.name:
        raise wrong(f"it may not change the permissions of another user, {entry['user']}")
    if about.fixed and str(entry["name"]).startswith("amq."):
        raise wrong(f"{entry['name']}: names that begin with amq. are RabbitMQ's own")
    whole = {"vhost": VHOST, **about.defaults, **({"user": user.name} if "user" in about.key else {}), **entry}
    if kind == "queues":
        whole["arguments"] = {"x-queue-type": "quorum", **whole["arguments"]}
    return whole


def _identity(kind: str, entry: Mapping[str, Any]) -> str:
    return json.dumps([entry.get(field) for field in KINDS[kind].key], sort_keys=True)


def _title(kind: str, entry: Mapping[str, Any]) -> str:
    if kind == "bindings":
        return f"{entry['source']} -> {entry['destination']}"
    return str(entry.get("name") or entry.get("user"))


# ── what is missing ───────────────────────────────────────────────────────────────────────────────────────────────────


def missing(env: Environment, owned: Owned, broker: Container) -> dict[User, tuple[str, ...]]:
    """What the broker lacks for each user, in words; only of users that lack something.

    Raises OpsError when it cannot be asked, and (REFUSED) when an exchange or queue exists that cannot be changed into
    what is declared.
    """
    wanted = declared(env.project_dir, owned)
    present = _present(broker)
    found = {user: tuple(compare(user, wanted[user], present, read(env, user.secret))) for user in owned.users}
    return {user: causes for user, causes in found.items() if causes}


def compare(user: User, wanted: Definitions, present: Mapping[str, Any], password: str) -> Iterator[str]:
    """What a broker lacks for a user, in words. present: its definitions; password: "" when it is not known.

    Raises OpsError (REFUSED) as of `missing`.
    """
    for kind in ("exchanges", "queues"):
        _refuse_changed(kind, wanted[kind], present)
    hashes = {each["name"]: each.get("password_hash", "") for each in present.get("users", ())}
    if user.name not in hashes:
        yield f"RabbitMQ has no user {user.name}"
        return
    if password and not fits(hashes[user.name], password):
        yield f"RabbitMQ does not accept the password in {user.secret}"
    for kind, entries in wanted.items():
        there = {_identity(kind, each): each for each in present.get(kind, ()) if each.get("vhost") == VHOST}
        for entry in entries:
            known = there.get(_identity(kind, entry))
            if "user" in KINDS[kind].key and known != entry:
                yield f"RabbitMQ has other {kind.replace('_', ' ')} for {user.name}"
            elif known is None:
                yield f"RabbitMQ has no {KINDS[kind].singular} {_title(kind, entry)}"
            elif not KINDS[kind].fixed and any(known.get(field, value) != value for field, value in entry.items()):
                yield f"{KINDS[kind].singular} {_title(kind, entry)} differs"


def _refuse_changed(kind: str, entries: list[dict[str, Any]], present: Mapping[str, Any]) -> None:
    there = {each["name"]: each for each in present.get(kind, ()) if each.get("vhost") == VHOST}
    for entry in entries:
        known = there.get(entry["name"])
        if known is None:
            continue
        # RabbitMQ adds arguments of its own.
        known, arguments = {**KINDS[kind].defaults, **known}, known.get("arguments", {})
        fields = [field for field in entry if field != "arguments" and known.get(field) != entry[field]]
        fields += [f"arguments.{key}" for key, value in entry["arguments"].items() if arguments.get(key) != value]
        if fields:
            raise OpsError(
                f"RabbitMQ's {KINDS[kind].singular} {entry['name']} has another {', '.join(fields)} than is declared,"
                f" and {kind} cannot be changed.",
                'Give the new one another name: docs/runbook.md, "A queue that must change".',
                REFUSED,
            )


# ── making it ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def provide(env: Environment, owned: Owned, broker: Container) -> None:
    """Import what every user owns, and wait until the broker has it. Raises OpsError."""
    wanted = declared(env.project_dir, owned)
    present = _present(broker)
    rabbitmq.api(broker, "POST", "/api/definitions", json.dumps(document(env, wanted, present)))
    if left := until(lambda: missing(env, owned, broker), _APPLY_SECONDS, 0.5, accept=lambda left: not left):
        causes = "; ".join(cause for each in left.values() for cause in each)
        raise OpsError(f"RabbitMQ did not take the definitions: {causes}.", "invoke logs --service rabbitmq")


def document(env: Environment, wanted: Mapping[User, Definitions], present: Mapping[str, Any]) -> dict[str, Any]:
    """What is imported: everything, and the hash of a password only anew where it does not fit."""
    hashes = {each["name"]: each.get("password_hash", "") for each in present.get("users", ())}
    users = []
    for user in wanted:
        if not (password := read(env, user.secret)):
            raise OpsError(
                f"The secret {user.secret} is missing or empty.", f"invoke secret-init --env {env.name}", REFUSED
            )
        users.append(entry_of(user.name, password, hashes.get(user.name, "")))
    kinds = {kind: [entry for each in wanted.values() for entry in each[kind]] for kind in KINDS}
    return {"users": users, **{kind: _once(entries) for kind, entries in kinds.items()}}


def entry_of(name: str, password: str, known: str = "") -> dict[str, Any]:
    """A user without tags as definitions hold it. known: its hash, which is kept when it fits."""
    kept = known if fits(known, password) else rabbitmq_hash(password, random_source.token_bytes(4))
    return {"name": name, "password_hash": kept, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}


def _once(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for number, entry in enumerate(entries) if entry not in entries[:number]]


def _present(broker: Container) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rabbitmq.api(broker, "GET", "/api/definitions"))
    return found
