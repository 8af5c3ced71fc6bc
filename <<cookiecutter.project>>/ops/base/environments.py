"""Environments: config/<name>/.env and what it says.

The file is read by us, by Docker Compose and by python-dotenv, so it is kept to the grammar all three read alike:
NAME=value, one a line; a value may be quoted as a whole; # starts a comment; ${NAME} stands for the value
of a line above. Anything else is refused with its line, rather than meaning three things.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dotenv import dotenv_values

from ops.base.errors import USAGE, OpsError
from ops.base.files import replace_file

ALIASES = {"production": "prod", "development": "dev"}
DEFAULT = "dev"
# What runs the containers of an environment: its setting ENGINE.
DOCKER, KUBERNETES = "docker", "kubernetes"
PROJECT_DIR = Path(__file__).resolve().parents[2]

_ASSIGNMENT = re.compile(r"(?P<key>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)")
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<text>(?:(?!(?P=quote))[^\\])*)(?P=quote)(?:\s+\#.*)?""")
_PLAIN = re.compile(r"(?P<text>[^\"'\\#\s](?:[^\"'\\#]|(?<=\S)#)*?)?(?:(?<=\S)\s+#.*)?")
# What Kubernetes takes as the name of a namespace.
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True)
class Environment:
    """One environment. values: every setting of its .env file, references resolved; overrides: those that are not as
    the file says, for the time of one step."""

    name: str
    project_dir: Path
    env_file: Path
    secrets_dir: Path
    values: dict[str, str]
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def project(self) -> str:
        """The Compose project name, which names every container, network and volume."""
        return self.values["COMPOSE_PROJECT_NAME"]

    @property
    def engine(self) -> str:
        """What runs the containers: DOCKER, on this machine, or KUBERNETES."""
        return self.values.get("ENGINE") or DOCKER

    @property
    def namespace(self) -> str:
        """Where it is in a cluster."""
        return self.values.get("KUBE_NAMESPACE") or self.project

    def log_file(self, name: str) -> Path:
        """Where a command writes what other programs say: in .state/<env>/ of the project, never committed.

        Where that belongs to somebody else it is in this user's cache folder. Raises OpsError when that fails too.
        """
        refused: OSError | None = None
        for folder in (self.project_dir / ".state" / self.name, _cache_home() / self.project):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (folder / name).open("ab").close()
                return folder / name
            except OSError as error:
                refused = refused or error
        raise OpsError(f"{relative(folder)} cannot be written to: {refused}.", "Check its owner and the disk.")

    def flag(self, key: str) -> bool:
        """A true|false setting; false when absent."""
        return self.values.get(key) == "true"

    def number(self, key: str, default: int) -> int:
        """A whole-number setting. Raises OpsError when it is something else."""
        value = self.values.get(key, "") or str(default)
        if not value.isascii() or not value.isdigit():
            raise OpsError(f'{relative(self.env_file)}: {key} must be a whole number, not "{value}".', code=USAGE)
        return int(value)


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 (never raises)


def relative(path: Path) -> str:
    """The path as a person in the current directory would write it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def available(root: Path | None = None) -> list[str]:
    """Names of the environments that exist, dev first and prod last."""
    order = {"dev": 0, "prod": 2}
    names = (path.parent.name for path in ((root or PROJECT_DIR) / "config").glob("*/.env"))
    return sorted(names, key=lambda name: (order.get(name, 1), name))


def load(name: str = DEFAULT, root: Path | None = None) -> Environment:
    """The environment of that name or alias. root: the project's directory.

    Raises OpsError (exit code 2) when there is none, or its file has a line that is not understood.
    """
    root = root or PROJECT_DIR
    known = available(root)
    wanted = ALIASES.get(name, name) if name not in known else name
    if wanted not in known:
        missing = root / "config" / wanted / ".env"
        if re.fullmatch(r"[\w-]+", wanted) and missing.parent.is_dir():
            raise OpsError(
                f"{relative(missing)} is missing.",
                "Restore it from version control, or copy one from a neighbour.",
                USAGE,
            )
        raise OpsError(
            f'There is no environment "{name}".',
            f"Choose one of: {', '.join(known) or 'none: config/<name>/.env does not exist yet'}.",
            USAGE,
        )
    env_file = root / "config" / wanted / ".env"
    values = parse(_text(env_file), relative(env_file))
    for key in ("COMPOSE_PROJECT_NAME", "COMPOSE_FILE"):
        if not values.get(key):
            raise OpsError(f"{relative(env_file)}: {key} is not set.", "Every command needs it.", USAGE)
    if values.get("ENVIRONMENT", wanted) != wanted:
        raise OpsError(
            f'{relative(env_file)}: ENVIRONMENT is "{values["ENVIRONMENT"]}", but the folder is "{wanted}".',
            f"Set ENVIRONMENT={wanted}: it selects the folder the secrets are mounted from.",
            USAGE,
        )
    _refuse_shared_name(root, wanted, values["COMPOSE_PROJECT_NAME"])
    env = Environment(wanted, root, env_file, env_file.parent / "secrets", values)
    _refuse_engine(env)
    return env


def _refuse_engine(env: Environment) -> None:
    """Raise OpsError (USAGE) for an engine that there is not, and for a cluster that is not named."""
    place = relative(env.env_file)
    if env.engine not in {DOCKER, KUBERNETES}:
        raise OpsError(f'{place}: ENGINE must be {DOCKER} or {KUBERNETES}, not "{env.engine}".', code=USAGE)
    if env.engine != KUBERNETES:
        return
    if not env.values.get("KUBE_CONTEXT"):
        raise OpsError(
            f"{place}: KUBE_CONTEXT is not set, so it is not known which cluster {env.name} is in.",
            "Choose one of: kubectl config get-contexts --output=name. The current one is never used by itself.",
            USAGE,
        )
    if not _NAMESPACE.fullmatch(env.namespace):
        raise OpsError(
            f'{place}: "{env.namespace}" cannot be the name of a namespace.',
            "Set KUBE_NAMESPACE to up to 63 characters of a-z, 0-9 and -, with a letter or a digit at both ends.",
            USAGE,
        )


def _text(env_file: Path, encoding: str = "utf-8-sig") -> str:
    """The text of a settings file. Raises OpsError when it cannot be read."""
    try:
        return env_file.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise OpsError(
            f"{relative(env_file)}:{line}: not UTF-8 text.", "Save the file as UTF-8 in your editor.", USAGE
        ) from None
    except OSError as error:
        raise OpsError(
            f"{relative(env_file)} cannot be read: {error.strerror}.", "Check who owns it and its mode.", USAGE
        ) from None


def _refuse_shared_name(root: Path, name: str, project: str) -> None:
    """Raise OpsError when another environment has the same COMPOSE_PROJECT_NAME: it would take over its containers."""
    for other in available(root):
        if other != name and _project_name(root / "config" / other / ".env") == project:
            raise OpsError(
                f"config/{name}/.env and config/{other}/.env have the same COMPOSE_PROJECT_NAME ({project}):"
                " each would replace the containers and data of the other.",
                "Give each its own name, such as COMPOSE_PROJECT_NAME=<project>-${ENVIRONMENT} in both files.",
                USAGE,
            )


def _project_name(env_file: Path) -> str:
    """COMPOSE_PROJECT_NAME in a settings file; "" when it cannot be told, which its own commands report."""
    try:
        return dotenv_values(stream=io.StringIO(_text(env_file))).get("COMPOSE_PROJECT_NAME") or ""
    except OpsError:
        return ""


def parse(text: str, source: str) -> dict[str, str]:
    """Settings from the text of a .env file. source: its name for error messages.

    Raises OpsError naming source:line for a line that is not understood, a key given twice, or a switch
    (*_ENABLED) that is neither true nor false.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        place = f"{source}:{number}"
        assignment = _ASSIGNMENT.fullmatch(stripped)
        if not assignment:
            raise OpsError(
                f'{place}: "{_shorten(stripped)}" is not NAME=value.', "Write NAME=value or a # comment.", USAGE
            )
        key, raw = assignment["key"], assignment["value"]
        if key in lines:
            raise OpsError(f"{place}: {key} is already set in line {lines[key]}.", "Keep one of the two lines.", USAGE)
        _refuse_ambiguous(raw, lines.keys(), place, key)
        lines[key] = number
    values = {key: value or "" for key, value in dotenv_values(stream=io.StringIO(text)).items()}
    for key in lines:
        if key.endswith("_ENABLED") and values[key] not in {"true", "false"}:
            place = f"{source}:{lines[key]}"
            raise OpsError(f'{place}: {key} must be true or false, not "{values[key]}".', code=USAGE)
    return values


def set_value(env: Environment, key: str, value: str) -> Environment:
    """Change one setting in the environment's file, leaving every other byte of it, and return the changed environment.

    The file is replaced in one step, so that an interruption leaves the old one.
    """
    # Not read_text: that would take the carriage returns of a file that was saved on Windows.
    text = env.env_file.read_bytes().decode("utf-8")
    line = _line_of(key)
    if line.search(text):
        text = line.sub(lambda match: f"{match[1]}{value}", text, count=1)
    else:
        text = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{key}={value}\n"
    replace_file(env.env_file, text, env.env_file.stat().st_mode & 0o777)
    return load(env.name, env.project_dir)


def raw_value(env: Environment, key: str) -> str:
    """A setting as it stands in the environment's file, references and all; "" when it does not."""
    found = _line_of(key).search(_text(env.env_file))
    return found[2] if found else ""


def override(env: Environment, key: str, value: str) -> Environment:
    """The environment with another value for one setting, which does not go into its file."""
    return replace(env, values={**env.values, key: value}, overrides={**env.overrides, key: value})


def _refuse_ambiguous(raw: str, known: Collection[str], place: str, key: str) -> None:
    """Raise OpsError for a value that Compose and python-dotenv do not read alike. known: names set in lines above."""
    match = (_QUOTED if raw[:1] in {'"', "'"} else _PLAIN).fullmatch(raw)
    if not match:
        raise OpsError(
            f"{place}: the value of {key} is not understood.",
            "Put a value with quotes or a # in other quotes as a whole, start it right after the =, avoid backslashes.",
            USAGE,
        )
    text = match["text"] or ""
    if "$" in (text if raw.startswith("'") else _REFERENCE.sub("", text)):
        raise OpsError(
            f"{place}: the value of {key} has a $ that is not a ${{NAME}}.",
            "Write ${NAME} for the value of a line above, outside 'single quotes'; a $ itself cannot be written.",
            USAGE,
        )
    for reference in _REFERENCE.finditer(text):
        if reference["name"] not in known:
            raise OpsError(
                f"{place}: {key} refers to {reference['name']}, which is not set above it.", "Move it up.", USAGE
            )


def _line_of(key: str) -> re.Pattern[str]:
    """A setting in the text of a file: what stands before its value, and its value."""
    # As in _PLAIN: blanks and a # inside a word belong to a value, a # after a blank begins a comment.
    plain = r"(?:[^\s#]|(?<=\S)#|[ \t]+(?![\s#]|\Z))*"
    return re.compile(rf"""^([ \t]*{re.escape(key)}=)("[^"\n]*"|'[^'\n]*'|{plain})""", re.MULTILINE)


def _shorten(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:37]}..."
