"""Checks the secrets of an environment: complete, strong, private, and nowhere but where they belong.

A finding never holds a value. What could not be looked at is a finding too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ops.base.errors import OpsError
from ops.secrets import declared, definitions, git, strength
from ops.secrets.catalogue import BY_NAME, Secret
from ops.secrets.files import FILE_MODE, FOLDER_MODE, path_of, read, read_path
from ops.secrets.leaks import Search
from ops.secrets.pending import SUFFIXES, pending
from ops.stack import owned

if TYPE_CHECKING:
    from ops.base.environments import Environment

# What ops/secrets/certificates.py keeps beside the secrets.
_CERTIFICATE_FILES = {"tls", "ca.pem", "ca.key"}

Severity = Literal["error", "warning", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a secret, where it was seen, and a command that fixes it.

    `skipped` stands for a check that could not be made; `secret` is "*" when it concerns all of them. stops: nothing
    can be deployed with it, in any environment.
    """

    severity: Severity
    secret: str
    what: str
    where: str
    remedy: str
    stops: bool = False


@dataclass(frozen=True)
class _Checked:
    """What all checks look at: the environment, the secrets it knows, their values, and what Compose resolves (None:
    it could not be asked, and `unresolved` says why)."""

    env: Environment
    known: Mapping[str, Secret]
    values: Mapping[str, str]
    document: Mapping[str, Any] | None = None
    unresolved: OpsError | None = None
    search: Search = field(default_factory=lambda: Search({}))

    def at(self, path: Path) -> str:
        """`path` as a user in the project folder would type it."""
        return git.shown(os.fsencode(os.path.relpath(path, self.env.project_dir)))

    def file(self, name: str) -> str:
        return self.at(path_of(self.env, name))

    @property
    def init(self) -> str:
        return f"invoke secret-init --env {self.env.name}"

    def renew(self, name: str) -> str:
        return f"invoke secret-rotate {name} --env {self.env.name}"

    def provide(self, name: str) -> str:
        """The command that puts a value there that somebody else gives."""
        return f"install -m 0444 /dev/stdin {shlex.quote(self.file(name))}"


def check(env: Environment) -> list[Finding]:
    """Everything that is wrong with the secrets of `env`, worst first; checks that could not run are `skipped`."""
    document, unresolved = resolved(env)
    known = declared.every(env, document)
    if not env.secrets_dir.is_dir():
        where = os.path.relpath(env.secrets_dir, env.project_dir)
        remedy = f"invoke secret-init --env {env.name}"
        return [Finding("error", "*", "there are no secrets yet", where, remedy)]
    values = {name: read(env, name) for name in known}
    checked = _Checked(env, known, values, document, unresolved, Search(_all_values(env, values)))
    findings = [
        *_check_values(checked),
        *_check_pending(checked),
        *_check_reuse(checked),
        *_check_modes(checked),
        *_check_derived(checked),
        *_check_strays(checked),
        *_check_git(checked),
        *_check_project_files(checked),
        *_check_left_out(checked),
        *_check_docker(checked),
    ]
    order = ("error", "warning", "skipped")
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.secret, finding.where))


def failed(findings: Iterable[Finding]) -> bool:
    """Whether a program should stop here."""
    return any(finding.severity == "error" for finding in findings)


def verdict(env: Environment, findings: Iterable[Finding]) -> str:
    """The findings in one line."""
    count = sum(finding.severity == "error" for finding in findings)
    if not count:
        return f"{env.name}'s secrets are OK"
    return f"{count} problem{'s' if count > 1 else ''} found in {env.name}'s secrets"


def as_json(env: Environment, findings: list[Finding]) -> dict[str, Any]:
    """The findings for programs."""
    return {
        "environment": env.name,
        "ok": not failed(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def resolved(env: Environment) -> tuple[dict[str, Any] | None, OpsError | None]:
    """What Compose resolves, with the services that are switched off; or why it gives no answer."""
    from ops import engine

    try:
        text = engine.compose(env, "config", "--format", "json", all_profiles=True).stdout
        document: dict[str, Any] = json.loads(text)
    except OpsError as error:
        return None, error
    except ValueError:
        return None, OpsError("its answer is not JSON", "docker compose version")
    return document, None


def _all_values(env: Environment, values: Mapping[str, str]) -> dict[str, str]:
    """The values, with those of a rotation that was interrupted."""
    more = {name: each for name in values if (each := pending(env, name))}
    unfinished = {f"{name}{suffix}": value for name, each in more.items() for suffix, value in each.items()}
    return {**values, **unfinished}


def _owner(name: str) -> str:
    """The secret that a searched value belongs to."""
    return name.partition(".")[0]


# ── values ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_values(checked: _Checked) -> Iterator[Finding]:
    names = [checked.env.values.get(key, "") for key in ("COMPOSE_PROJECT_NAME", "IMAGE_PREFIX", "DOMAIN")]
    names = [part for name in names for part in (name, name.removesuffix(f"-{checked.env.name}")) if len(part) > 2]
    for secret in checked.known.values():
        where, value = checked.file(secret.name), checked.values[secret.name]
        put = checked.provide(secret.name) if not secret.length else checked.renew(secret.name)
        path = path_of(checked.env, secret.name)
        if not path.exists():
            remedy = put if secret.provided else checked.init
            yield Finding("error", secret.name, "missing", where, remedy, stops=secret.provided)
        elif not value:
            setting = secret.required_by
            if secret.optional and not checked.env.values.get(setting):
                continue
            what = f"empty, but {setting} is set" if secret.optional else "empty"
            yield Finding("error", secret.name, what, where, put, stops=secret.provided)
        else:
            if what := padding(path.read_bytes()):
                strip = f"value=$(tr -d '[:space:]' < {shlex.quote(where)})"
                remedy = f'{strip} && printf %s "$value" | {checked.provide(secret.name)}'
                yield Finding("error", secret.name, what, where, remedy)
            for what in weaknesses(secret, value, *names):
                yield Finding("error", secret.name, what, where, put)


def padding(content: bytes) -> str:
    """What is wrong with the white space around a value; one line break at the end is what editors write."""
    body = content.removesuffix(b"\n")
    if body == body.strip():
        return ""
    return "ends with a carriage return (CRLF)" if body.endswith(b"\r") else "white space before or after the value"


def weaknesses(secret: Secret, value: str, *names: str) -> Iterator[str]:
    """What is wrong with `value` itself, in words that do not give it away; `names` are known to everybody."""
    if secret.text:
        return
    if strength.well_known(value, *names):
        yield "a default or placeholder that everybody knows"
    if any(character.isspace() or not character.isprintable() for character in value):
        yield "contains a space, a line break or an unprintable character, which programs read differently"
    bits = strength.estimated_bits(value)
    if len(value) < secret.minimum_length:
        yield f"too short: {len(value)} characters, at least {secret.minimum_length} are needed"
    elif bits < secret.minimum_bits:
        yield f"too easy to guess: about {bits:.0f} bits, at least {secret.minimum_bits} are needed"


def _check_pending(checked: _Checked) -> Iterator[Finding]:
    for name in checked.known:
        if left := pending(checked.env, name):
            where = checked.file(name + next(iter(left)))
            what = "its rotation was interrupted: the old and the new value may both be in use"
            yield Finding("error", name, what, where, checked.renew(name), stops=True)


def _check_reuse(checked: _Checked) -> Iterator[Finding]:
    env = checked.env
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in checked.values.items():
        seen[value].append((name, checked.file(name)))
    for other in sorted(env.secrets_dir.parent.parent.glob(f"*/{env.secrets_dir.name}")):
        if other == env.secrets_dir:
            continue
        for name in checked.known:
            with contextlib.suppress(OpsError):
                seen[read_path(other / name)].append((name, checked.at(other / name)))
    for value, places in seen.items():
        own = [(name, where) for name, where in places if where == checked.file(name)]
        # Of two of our own, renewing the second and later ones is enough; one shared with another environment must go.
        for name, where in own[1:] if len(own) == len(places) else own:
            twins = ", ".join(other for _, other in places if other != where)
            if value and twins:
                yield Finding("error", name, f"same value as {twins}", where, checked.renew(name))


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_modes(checked: _Checked) -> Iterator[Finding]:
    folder = checked.env.secrets_dir
    if os.name != "posix":
        yield Finding("skipped", "*", "owner and mode: not known on this system", checked.at(folder), "")
        return
    at = shlex.quote(checked.at(folder))
    yield from _mode(checked, "*", folder, FOLDER_MODE)
    if folder.stat().st_uid not in (0, os.getuid()):
        yield Finding("error", "*", "belongs to another user", checked.at(folder), f"sudo chown -R $(id -un) {at}")
    owner = folder.stat().st_uid
    # No container reads the key of the local authority.
    for name, mode in {**dict.fromkeys((*checked.known, definitions.FILE), FILE_MODE), "ca.key": 0o600}.items():
        path = folder / name
        if not path.exists():
            continue
        yield from _mode(checked, name, path, mode)
        if path.stat().st_uid != owner:
            command = f"sudo chown --reference={at} {shlex.quote(checked.at(path))}"
            yield Finding("error", name, "belongs to another user than its folder", checked.at(path), command)


def _mode(checked: _Checked, name: str, path: Path, wanted: int) -> Iterator[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode != wanted:
        where = checked.at(path)
        what = f"mode is {mode:04o}, must be {wanted:04o}"
        yield Finding("error", name, what, where, f"chmod {wanted:04o} {shlex.quote(where)}")


def _check_derived(checked: _Checked) -> Iterator[Finding]:
    folder, source = checked.env.secrets_dir, checked.env.project_dir / definitions.SOURCE
    target, where = folder / definitions.FILE, checked.file(definitions.FILE)
    with contextlib.suppress(OSError, ValueError):
        names = definitions.users(source.read_text(encoding="utf-8"))
        # Said already: each of them is missing or empty itself, and the command that makes it makes this file as well.
        if any(name in checked.values and not checked.values[name] for name in names):
            return
    try:
        wanted = definitions.text(folder, source)
    except OpsError as error:
        what = f"cannot be made: {error.message}"
        yield Finding("error", definitions.FILE, what, where, error.remedy or checked.init)
        return
    if not target.exists():
        yield Finding("error", definitions.FILE, "missing", where, checked.init)
    elif target.read_bytes() != wanted.encode():
        what = "older than the secrets or definitions it is made of"
        yield Finding("error", definitions.FILE, what, where, checked.init)


def _check_strays(checked: _Checked) -> Iterator[Finding]:
    """Files that nothing declares. Without Compose's answer a team's own secrets are not known."""
    if checked.document is None:
        return
    rotated = {f"{name}{suffix}" for name in checked.known for suffix in SUFFIXES}
    known = {*checked.known, definitions.FILE, *_CERTIFICATE_FILES, *rotated}
    for path in sorted(checked.env.secrets_dir.iterdir()):
        if path.name not in known and not path.name.startswith(".git"):
            where = checked.at(path)
            what = "no service reads this file"
            remedy = "List it under secrets: of the service that needs it, and at the top level of that Compose file."
            yield Finding("warning", git.shown(os.fsencode(path.name)), what, where, remedy)


# ── git ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_git(checked: _Checked) -> Iterator[Finding]:
    root, where = checked.env.project_dir, checked.at(checked.env.secrets_dir)
    try:
        git.check_work_tree(root)
        yield from _check_tracked(checked, where)
        yield from _check_ignored(checked)
        seen: dict[str, list[str]] = defaultdict(list)
        for name, path in checked.search.in_history(root):
            seen[_owner(name)].append(path)
        for name, paths in seen.items():
            more = f" and {len(set(paths)) - 1} more" if len(set(paths)) > 1 else ""
            what = "the history of git holds its value: everybody who has the repository has it"
            yield Finding("error", name, what, f"{paths[0]}{more}", checked.renew(name))
    except git.Unanswered as error:
        yield Finding("skipped", "*", f"tracked by git, ignored by git, in its history: {error}", where, "git status")


def _check_tracked(checked: _Checked, where: str) -> Iterator[Finding]:
    for raw in git.tracked(checked.env.project_dir, where):
        path = Path(os.fsdecode(raw))
        # .gitignore and .gitkeep files hold no secret.
        if not path.name.startswith(".git"):
            command = f"git rm --cached {shlex.quote(git.shown(raw))}"
            what = "tracked by git: commit its removal, then renew it"
            yield Finding("error", git.shown(os.fsencode(path.name)), what, git.shown(raw), command)


def _check_ignored(checked: _Checked) -> Iterator[Finding]:
    names = [checked.file(name) for name in (*checked.known, definitions.FILE, "ca.key", "tls/privkey.pem")]
    ignored = git.ignored(checked.env.project_dir, names)
    for name in names:
        if name not in ignored:
            command = "echo '/config/*/secrets/' >> .gitignore"
            yield Finding("error", Path(name).name, "not ignored by git", name, command)


# ── copies of a value elsewhere ───────────────────────────────────────────────────────────────────────────────────────


def _check_project_files(checked: _Checked) -> Iterator[Finding]:
    """Every file that git has or would take, and every .env file, ignored or not."""
    root = checked.env.project_dir
    paths = {*root.glob(".env*"), *root.glob("config/*/.env*"), *root.glob("services/**/.env*")}
    with contextlib.suppress(git.Unanswered):  # said by _check_git
        paths.update(git.project_files(root))
    secret_folders = tuple(root.glob("config/*/secrets"))
    for path in sorted(paths):
        where = checked.at(path)
        try:
            if not path.is_file() or any(path.is_relative_to(folder) for folder in secret_folders):
                continue
            names = checked.search.in_file(path, where)
        except OSError as error:
            yield Finding("skipped", "*", f"copies of values: {error.strerror}", where, "")
            continue
        for name in dict.fromkeys(_owner(each) for each in names):
            remedy = f"${{EDITOR:-vi}} {shlex.quote(where)} && {checked.renew(name)}"
            yield Finding("error", name, "its value is in a file that is not a secret file", where, remedy)


def _check_left_out(checked: _Checked) -> Iterator[Finding]:
    if words := checked.search.left_out():
        yield Finding("skipped", "*", f"copies of values: not searched: {words}", "files and history of git", "")


def _check_docker(checked: _Checked) -> Iterator[Finding]:
    from ops import engine

    env = checked.env
    if checked.unresolved:
        where, error = "docker compose config", checked.unresolved
        yield Finding("skipped", "*", f"{where}: {error.message}", where, error.remedy)
    images: set[str] = set()
    if checked.document is not None:
        text = json.dumps(checked.document, ensure_ascii=False)
        yield from _leaked(checked, text, "docker compose config", "its value is in the resolved configuration")
        services = checked.document["services"]
        yield from _check_readers(services)
        images = {service["image"] for service in services.values() if "build" in service and "image" in service}
    try:
        listed = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        present = sorted(images & set(listed))
        with engine.pool(4) as pool:
            described = [pool.submit(_described, image) for image in present]
        for image, description in zip(present, described, strict=True):
            what = "its value is in the image's settings or history"
            yield from _leaked(checked, description.result(), f"image {image}", what)
        for container in engine.inspect([container.id for container in engine.containers(env)]):
            where = f"container {container['Name'].lstrip('/')}"
            yield from _leaked(
                checked, json.dumps(container, ensure_ascii=False), where, "docker inspect shows its value"
            )
    except OpsError as error:
        yield Finding("skipped", "*", f"images and containers: {error.message}", "docker", error.remedy)


def _described(image: str) -> str:
    """All that an image says of itself: its settings, and the commands that built it."""
    from ops import engine

    settings = engine.docker("image", "inspect", image).stdout
    return settings + engine.docker("history", "--no-trunc", "--format", "{{json .}}", image).stdout


def _leaked(checked: _Checked, text: str, where: str, what: str) -> Iterator[Finding]:
    for name in dict.fromkeys(_owner(each) for each in checked.search.in_text(text)):
        # It came from a Compose file or a Dockerfile: fix that, replace what carries the value, then renew it.
        remedy = f"git grep -n {name} && invoke deploy --env {checked.env.name} && {checked.renew(name)}"
        yield Finding("error", name, what, where, remedy)


def _check_readers(services: Mapping[str, Any]) -> Iterator[Finding]:
    """Services that mount a secret of the stack which the catalogue does not let them read."""
    for service, definition in sorted(services.items()):
        for mount in definition.get("secrets", []):
            secret = BY_NAME.get(mount["source"])
            if secret and service not in secret.readers and not (secret.shared and owned.is_own(definition)):
                remedy = f"git grep -n {secret.name} -- 'docker-compose*.yml' ops/secrets/catalogue.py"
                what = f"{service} may read it, but the catalogue does not say so"
                yield Finding("error", secret.name, what, f"docker compose config: {service}", remedy)
