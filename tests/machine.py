"""From a bare machine to nox: `python3 noxfile.py [--yes] [SESSION …] [-- …]`.

Standard library only, for nothing else is there yet. The generated project knows how to prepare a machine for itself
(`scripts/bootstrap.py`); the template uses that program, so that it is tested each time.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from ctypes.util import find_library
from functools import cache
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BOOTSTRAP = ROOT / "<<cookiecutter.project>>" / "scripts" / "bootstrap.py"
REQUIREMENTS = ROOT / "tests" / "requirements.txt"

# Everything that nox runs by default.
TESTS = "tests"
NEED_ENGINE = {TESTS, "validators", "stack", "faults", "bench", "cluster", "quickstart"}
NEED_BROWSER = {TESTS, "stack", "faults"}

# Set for the sessions when `--yes` was given: they have no terminal to ask on.
CONSENT = "ENTERPRISE_STACK_YES"
# Set for the sessions when all of them run: the first ones need no images, and the last ones find them made.
LADDER = "ENTERPRISE_STACK_LADDER"


@cache
def bootstrap() -> ModuleType:
    """The generated project's own program that prepares a machine, loaded from where it is."""
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["bootstrap"] = module  # its classes look their module up by name
    spec.loader.exec_module(module)
    return module


def python() -> Path:
    """The Python of `.venv`, which holds what the tests need. Raises bootstrap's error when it cannot be made."""
    program = bootstrap()
    return program.ensure_venv(ROOT / ".venv", REQUIREMENTS, program.ask(yes=True))


def install(command: str, consent: Callable[[str], None] | None = None) -> None:
    """Install the Debian package of a command that is not on PATH. Raises bootstrap's error when that is not possible.

    consent: asks before the system is changed; by default the answer is the one given when the machine was prepared.
    """
    if shutil.which(command) is None:
        program = bootstrap()
        program.ensure_system_packages([command], consent or program.ask(yes=CONSENT in os.environ))


def install_browser(consent: Callable[[str], None]) -> None:
    """Install Chromium, and the library that Playwright's own Node.js is linked against. Raises as `install` does."""
    missing = [] if shutil.which("chromium") or shutil.which("google-chrome") else ["chromium"]
    if find_library("atomic") is None:
        missing.append("libatomic1")
    if missing:
        bootstrap().ensure_system_packages(missing, consent)


def nox_command(nox: Path, sessions: Sequence[str], posargs: Sequence[str]) -> list[str]:
    """The command line of nox for what was asked for; `tests`, or nothing, is what nox runs by default."""
    chosen = [session for session in sessions if session != TESTS]
    return [
        *(str(nox), "--noxfile", str(ROOT / "noxfile.py")),
        *(["--sessions", *chosen] if chosen else []),
        *(["--", *posargs] if posargs else []),
    ]


def prepare(program: ModuleType, sessions: set[str], yes: bool) -> Path:
    """Install what the sessions need and return the Python of `.venv`. Raises bootstrap's error when that fails."""
    consent = program.ask(yes)
    if yes:
        os.environ[CONSENT] = "1"
    install("git", consent)
    environment_python = program.ensure_venv(ROOT / ".venv", REQUIREMENTS, consent)
    if sessions & NEED_ENGINE:
        program.ensure_engine(consent)
    if sessions & NEED_BROWSER:
        try:
            install_browser(consent)
        except program.BootstrapError as error:
            print(f"The browser test will be skipped: {error}", file=sys.stderr)
    return environment_python


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare the machine, then become nox. Returns only when that fails."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        prog="noxfile.py",
        description="Prepare this machine, then run nox sessions.",
        epilog="Sessions: tests (everything, the default), quickstart, and what `nox --list` shows. "
        "What follows `--` goes to the session.",
    )
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    parser.add_argument("sessions", nargs="*", metavar="SESSION", default=[TESTS])
    options = parser.parse_args(arguments[:at])
    program = bootstrap()
    try:
        nox = prepare(program, set(options.sessions), options.yes).with_name("nox")
    except program.BootstrapError as error:
        print(f"noxfile: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if TESTS in options.sessions:
        os.environ[LADDER] = "1"
    sys.stdout.flush()
    os.execv(nox, nox_command(nox, options.sessions, arguments[at + 1 :]))
