"""Makes the secrets of an environment, and checks that they are strong and nowhere but where they belong.

Making needs the standard library only, so that the post-generation hook can call `create`.
No function here ever returns or prints a value in a message.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets as random_source
import shlex
import stat
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from ops.base.errors import OpsError
from ops.secrets import strength
from ops.secrets.catalogue import ALPHABET, BY_NAME, CATALOGUE, Secret

if TYPE_CHECKING:
    from ops.base.environments import Environment

FOLDER_MODE = 0o700
# Compose keeps the host's owner and mode, and the readers run as different users: only the folder keeps others out.
FILE_MODE = 0o444

DEFINITIONS = "rabbitmq_definitions.json"
DEFINITIONS_SOURCE = "infrastructure/rabbitmq/definitions.json"

# What ops/certificates.py keeps beside the secrets.
_CERTIFICATE_FILES = {"tls", "ca.pem", "ca.key"}

# Shorter values would be found by chance, and are reported as too weak anyway.
_SEARCHABLE_LENGTH = 8


def path_of(env: Environment, name: str) -> Path:
    """Where the secret `name` is kept."""
    return env.secrets_dir / name


def read(env: Environment, name: str) -> str:
    """The value of the secret `name`, "" when there is none; blanks around it do not count."""
    return _read(path_of(env, name))


def init(env: Environment) -> list[str]:
    """Create every secret of `env` that is missing; return the names of the files written, existing ones stay."""
    return create(env.secrets_dir, env.project_dir / DEFINITIONS_SOURCE)


def create(folder: Path, definitions_source: Path) -> list[str]:
    """`init` for a folder: for callers that have no `Environment` yet, such as the post-generation hook."""
    folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    created = []
    for secret in CATALOGUE:
        target = folder / secret.name
        if not target.exists() and _publish_new(target, _generate(secret).encode()):
            created.append(secret.name)
    if _render_definitions(folder, definitions_source):
        created.append(DEFINITIONS)
    return created


def _generate(secret: Secret) -> str:
    if not secret.length:
        return ""
    # A leading - or _ would look like an option to some program some day.
    first = random_source.choice(ALPHABET[:-2])
    return first + "".join(random_source.choice(ALPHABET) for _ in range(secret.length - 1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except UnicodeDecodeError as error:
        raise OpsError(f"{path} is not text.", f"Write it again: install -m 0444 /dev/stdin {path}") from error
    except PermissionError as error:
        raise OpsError(f"{path} cannot be read.", "Run this as the user who owns the secrets folder.") from error


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _complete_file(target: Path, content: bytes, mode: int = FILE_MODE) -> Iterator[Path]:
    """A finished, synced file of the right mode beside `target`, whatever the umask; gone afterwards."""
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(mode)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _publish_new(target: Path, content: bytes) -> bool:
    """Write `target` unless it exists, in one step; return whether it was written."""
    with _complete_file(target, content) as complete:
        try:
            # Unlike a rename, a link cannot overwrite what somebody else made in the meantime.
            os.link(complete, target)
        except FileExistsError:
            return False
        except OSError:
            # Some shared folders know no links.
            if target.exists():
                return False
            complete.rename(target)
    return True


def replace_file(target: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Write `target` in one step, also over an older version."""
    with _complete_file(target, content, mode) as complete:
        complete.replace(target)


# ── RabbitMQ definitions ──────────────────────────────────────────────────────────────────────────────────────────────


def rabbitmq_hash(password: str, salt: bytes) -> str:
    """RabbitMQ's `rabbit_password_hashing_sha256`: base64 of the 4-byte salt and SHA-256 over salt and password."""
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _salt_of(password_hash: str) -> bytes:
    try:
        return base64.b64decode(password_hash, validate=True)[:4]
    except ValueError:
        return b""


def definitions(source: str, value_of: Callable[[str], str], previous: str = "") -> str:
    """RabbitMQ's definitions with every `password_secret` of `source` replaced by the hash of that secret's value.

    A hash of `previous` that still fits is kept, so that unchanged passwords give unchanged text.
    Raises ValueError for JSON that is broken, KeyError for a user without name or for a secret that has no value.
    """
    document = json.loads(source)
    hashes = _hashes(previous)
    for user in document.get("users", []):
        if "password_secret" not in user:
            continue
        name = user.pop("password_secret")
        password = value_of(name)
        if not password:
            raise KeyError(name)
        kept = hashes.get(user["name"], "")
        salt = _salt_of(kept)
        fits = len(salt) == 4 and kept == rabbitmq_hash(password, salt)
        user["password_hash"] = kept if fits else rabbitmq_hash(password, random_source.token_bytes(4))
        user["hashing_algorithm"] = "rabbit_password_hashing_sha256"
    return json.dumps(document, indent=2) + "\n"


def _hashes(text: str) -> dict[str, str]:
    try:
        return {user["name"]: user["password_hash"] for user in json.loads(text)["users"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _definitions_text(folder: Path, source: Path) -> str:
    """What `folder/rabbitmq_definitions.json` should hold now."""
    target = folder / DEFINITIONS
    previous = target.read_text(encoding="utf-8") if target.exists() else ""
    try:
        return definitions(source.read_text(encoding="utf-8"), lambda name: _read(folder / name), previous)
    except FileNotFoundError as error:
        raise OpsError(f"{source} is missing.", f"git checkout -- {DEFINITIONS_SOURCE}") from error
    except ValueError as error:
        raise OpsError(f"{source} is not valid JSON: {error}.", f"git diff -- {DEFINITIONS_SOURCE}") from error
    except KeyError as error:
        raise OpsError(
            f"{source}: {error.args[0]} has no value.", f"{folder / str(error.args[0])} must not be empty."
        ) from error


def _render_definitions(folder: Path, source: Path) -> bool:
    target = folder / DEFINITIONS
    wanted = _definitions_text(folder, source).encode()
    if target.exists() and target.read_bytes() == wanted:
        return False
    replace_file(target, wanted)
    return True


# ── checking ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Severity = Literal["error", "warning", "skipped"]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a secret, where it was seen, and a command that cures it.

    `skipped` stands for a check that could not be made; `secret` is "*" when it concerns all of them.
    """

    severity: Severity
    secret: str
    what: str
    where: str
    remedy: str


@dataclass(frozen=True)
class _Checked:
    """What all checks look at: the environment, its values, and how commands are spelled for it."""

    env: Environment
    values: dict[str, str]

    def at(self, path: Path) -> str:
        """`path` as a user in the project folder would type it."""
        return os.path.relpath(path, self.env.project_dir)

    def file(self, name: str) -> str:
        return self.at(path_of(self.env, name))

    @property
    def init(self) -> str:
        return f"invoke secret-init --env {self.env.name}"

    def renew(self, secret: Secret) -> str:
        if not secret.length:
            return f"install -m 0444 /dev/stdin {shlex.quote(self.file(secret.name))}"
        return f"rm -f {shlex.quote(self.file(secret.name))} && {self.init}"


def check(env: Environment) -> list[Finding]:
    """Everything that is wrong with the secrets of `env`, worst first; checks that could not run are `skipped`."""
    if not env.secrets_dir.is_dir():
        checked = _Checked(env, {})
        return [Finding("error", "*", "there are no secrets yet", checked.at(env.secrets_dir), checked.init)]
    checked = _Checked(env, {secret.name: read(env, secret.name) for secret in CATALOGUE})
    findings = [
        *_check_values(checked),
        *_check_reuse(checked),
        *_check_modes(checked),
        *_check_derived(checked),
        *_check_strays(checked),
        *_check_git(checked),
        *_check_project_files(checked),
        *_check_docker(checked),
    ]
    order = ("error", "warning", "skipped")
    return sorted(findings, key=lambda finding: (order.index(finding.severity), finding.secret, finding.where))


def failed(findings: Iterable[Finding]) -> bool:
    """Whether a program should stop here."""
    return any(finding.severity == "error" for finding in findings)


def as_json(env: Environment, findings: list[Finding]) -> dict[str, Any]:
    """The findings for programs."""
    return {
        "environment": env.name,
        "ok": not failed(findings),
        "findings": [asdict(finding) for finding in findings],
    }


def _check_values(checked: _Checked) -> Iterator[Finding]:
    names = [checked.env.values.get(key, "") for key in ("COMPOSE_PROJECT_NAME", "IMAGE_PREFIX", "DOMAIN")]
    names = [part for name in names for part in (name, name.removesuffix(f"-{checked.env.name}")) if len(part) > 2]
    for secret in CATALOGUE:
        where, value = checked.file(secret.name), checked.values[secret.name]
        if not path_of(checked.env, secret.name).exists():
            yield Finding("error", secret.name, "missing", where, checked.init)
        elif not value:
            setting = secret.required_by
            if secret.optional and not checked.env.values.get(setting):
                continue
            what = f"empty, but {setting} is set" if secret.optional else "empty"
            yield Finding("error", secret.name, what, where, checked.renew(secret))
        else:
            for what in weaknesses(secret, value, *names):
                yield Finding("error", secret.name, what, where, checked.renew(secret))


def weaknesses(secret: Secret, value: str, *names: str) -> Iterator[str]:
    """What is wrong with `value` itself, in words that do not give it away; `names` are known to everybody."""
    if strength.well_known(value, *names):
        yield "a default or placeholder that everybody knows"
    if any(character.isspace() or not character.isprintable() for character in value):
        yield "holds a blank, a line break or an unprintable character, which its readers treat differently"
    bits = strength.estimated_bits(value)
    if len(value) < secret.minimum_length:
        yield f"too short: {len(value)} characters, at least {secret.minimum_length} are needed"
    elif bits < secret.minimum_bits:
        yield f"too easy to guess: about {bits:.0f} bits, at least {secret.minimum_bits} are needed"


def _check_reuse(checked: _Checked) -> Iterator[Finding]:
    env = checked.env
    seen: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, value in checked.values.items():
        seen[value].append((name, checked.file(name)))
    for other in sorted(env.secrets_dir.parent.parent.glob(f"*/{env.secrets_dir.name}")):
        if other == env.secrets_dir:
            continue
        for secret in CATALOGUE:
            with contextlib.suppress(OpsError):
                seen[_read(other / secret.name)].append((secret.name, checked.at(other / secret.name)))
    for value, places in seen.items():
        own = [(name, where) for name, where in places if where == checked.file(name)]
        # Of two of our own, renewing the second and later ones is enough; one shared with another environment must go.
        for name, where in own[1:] if len(own) == len(places) else own:
            twins = ", ".join(other for _, other in places if other != where)
            if value and twins:
                yield Finding("error", name, f"same value as {twins}", where, checked.renew(BY_NAME[name]))


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
    for name, mode in {**dict.fromkeys((*BY_NAME, DEFINITIONS), FILE_MODE), "ca.key": 0o600}.items():
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
    folder = checked.env.secrets_dir
    target, where = folder / DEFINITIONS, checked.file(DEFINITIONS)
    try:
        wanted = _definitions_text(folder, checked.env.project_dir / DEFINITIONS_SOURCE)
    except OpsError as error:
        yield Finding("error", DEFINITIONS, f"cannot be made: {error.message}", where, error.remedy or checked.init)
        return
    if not target.exists():
        yield Finding("error", DEFINITIONS, "missing", where, checked.init)
    elif target.read_text(encoding="utf-8") != wanted:
        yield Finding("error", DEFINITIONS, "older than the secrets or definitions it is made of", where, checked.init)


def _check_strays(checked: _Checked) -> Iterator[Finding]:
    known = {*BY_NAME, DEFINITIONS, *_CERTIFICATE_FILES}
    for path in sorted(checked.env.secrets_dir.iterdir()):
        if path.name not in known and not path.name.startswith(".git"):
            where = checked.at(path)
            remedy = f"rm -ri {shlex.quote(where)}"
            yield Finding("warning", path.name, "no part of the stack knows this file", where, remedy)


# ── checking: git ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _git(folder: Path, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, input=input, capture_output=True, text=True, timeout=60, check=False)


def _in_git(folder: Path) -> bool:
    try:
        return _git(folder, "rev-parse", "--is-inside-work-tree").stdout.strip() == "true"
    except (OSError, subprocess.TimeoutExpired):
        return False


def _check_git(checked: _Checked) -> Iterator[Finding]:
    root, folder = checked.env.project_dir, checked.env.secrets_dir
    where = checked.at(folder)
    if not _in_git(root):
        what = "tracked by git, ignored by git: the project is in no git work tree, or git is not installed"
        yield Finding("skipped", "*", what, where, "git init")
        return
    tracked = _git(root, "ls-files", "-z", "--", where).stdout.split("\0")
    for path in filter(None, tracked):
        # .gitignore and .gitkeep files hold no secret.
        if not Path(path).name.startswith(".git"):
            command = f"git rm --cached {shlex.quote(path)}"
            yield Finding("error", Path(path).name, "tracked by git: commit its removal, then renew it", path, command)
    names = [checked.file(name) for name in (*BY_NAME, DEFINITIONS, "ca.key", "tls/privkey.pem")]
    # --no-index: a tracked file counts as not ignored otherwise, and is reported above.
    ignored = set(_git(root, "check-ignore", "--no-index", "-z", "--stdin", input="\0".join(names)).stdout.split("\0"))
    for name in names:
        if name not in ignored:
            command = "echo '/config/*/secrets/' >> .gitignore"
            yield Finding("error", Path(name).name, "not ignored by git", name, command)
    for path, content in _committed(root, where):
        for name in _leaks(checked.values, content):
            what = "the history of git holds its value: everybody who has the repository has it"
            yield Finding("error", name, what, path, checked.renew(BY_NAME[name]))


def _committed(root: Path, where: str) -> Iterator[tuple[str, str]]:
    """Path and content of every version of every file below `where` in the history of all branches."""
    listed = _git(root, "rev-list", "--all", "--objects", "--", where).stdout.splitlines()
    paths = dict(line.split(" ", 1) for line in listed if " " in line)
    for blob, path in paths.items():
        if not Path(path).name.startswith(".git"):
            yield path, _git(root, "cat-file", "-p", blob).stdout


# ── checking: copies of a value elsewhere ─────────────────────────────────────────────────────────────────────────────


def spellings(value: str) -> set[str]:
    """The ways in which a value turns up in text: as it is, in Compose, JSON, a URL, base64."""
    encoded = base64.b64encode(value.encode()).decode().rstrip("=")
    return {value, value.replace("$", "$$"), json.dumps(value)[1:-1], quote(value, safe=""), encoded}


def _leaks(values: dict[str, str], text: str) -> Iterator[str]:
    """Names of the secrets whose values stand in `text`."""
    for name, value in values.items():
        if len(value) >= _SEARCHABLE_LENGTH and any(spelling in text for spelling in spellings(value)):
            yield name


def _check_project_files(checked: _Checked) -> Iterator[Finding]:
    """Every file that git has or would take, and every .env file, ignored or not."""
    root = checked.env.project_dir
    paths = {*root.glob(".env*"), *root.glob("config/*/.env*"), *root.glob("services/**/.env*")}
    if _in_git(root):
        listed = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout.split("\0")
        paths |= {root / path for path in listed if path}
    secret_folders = tuple(root.glob("config/*/secrets"))
    for path in sorted(paths):
        if not path.is_file() or any(path.is_relative_to(folder) for folder in secret_folders):
            continue
        text = path.read_bytes().decode("utf-8", errors="replace")
        for name in _leaks(checked.values, text):
            where = checked.at(path)
            remedy = f"${{EDITOR:-vi}} {shlex.quote(where)} && {checked.renew(BY_NAME[name])}"
            yield Finding("error", name, "its value stands in a file that is no secret file", where, remedy)


def _check_docker(checked: _Checked) -> Iterator[Finding]:
    from ops import engine

    env = checked.env

    def leaks(text: str, where: str, what: str) -> Iterator[Finding]:
        for name in _leaks(checked.values, text):
            # It came from a Compose file or a Dockerfile: mend that, renew the value, replace what carries the old one.
            remedy = f"git grep -n {name} && {checked.renew(BY_NAME[name])} && invoke deploy --env {env.name}"
            yield Finding("error", name, what, where, remedy)

    images: set[str] = set()
    try:
        resolved = engine.compose(env, "config", "--format", "json", all_profiles=True).stdout
    except OpsError as error:
        yield Finding("skipped", "*", f"docker compose config: {error.message}", "docker compose config", error.remedy)
    else:
        yield from leaks(resolved, "docker compose config", "its value stands in the resolved configuration")
        services = json.loads(resolved)["services"]
        yield from _check_readers(services)
        images = {service["image"] for service in services.values() if "build" in service and "image" in service}
    try:
        listed = engine.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
        for image in sorted(images & set(listed)):
            text = engine.docker("image", "inspect", image).stdout
            text += engine.docker("history", "--no-trunc", "--format", "{{json .}}", image).stdout
            yield from leaks(text, f"image {image}", "its value stands in the image's settings or history")
        for container in engine.inspect([container.id for container in engine.containers(env)]):
            where = f"container {container['Name'].lstrip('/')}"
            yield from leaks(json.dumps(container, ensure_ascii=False), where, "docker inspect shows its value")
    except OpsError as error:
        yield Finding("skipped", "*", f"images and containers: {error.message}", "docker", error.remedy)


def _check_readers(services: dict[str, Any]) -> Iterator[Finding]:
    """Services that mount a secret which the catalogue does not let them read."""
    for service, definition in sorted(services.items()):
        for mount in definition.get("secrets", []):
            secret = BY_NAME.get(mount["source"])
            if secret and service not in secret.readers:
                remedy = f"git grep -n {secret.name} -- 'docker-compose*.yml' ops/catalogue.py"
                what = f"{service} may read it, but the catalogue does not say so"
                yield Finding("error", secret.name, what, f"docker compose config: {service}", remedy)
