#!/usr/bin/env python3
"""Prepare a machine for this project: a Docker engine, and `.venv` with the packages of requirements.txt.

    python3 scripts/bootstrap.py            says what is missing, asks, installs it
    python3 scripts/bootstrap.py --yes      does not ask
    python3 scripts/bootstrap.py --check    only reports; exit code 1 when something is missing
    python3 scripts/bootstrap.py --stop     stops the engine, if this script started it

An engine that answers is used as it is and never changed. Where none is there, one is installed on Debian 12 or newer:
Debian 12 and 13 offer too old a Docker or Compose, so the packages of a newer Debian are unpacked beside the system in
/opt/docker-engine, their signatures checked by apt; later releases get their own packages. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

Version = tuple[int, ...]
Consent = Callable[[str], None]

MINIMUM_ENGINE: Version = (25, 0)
MINIMUM_COMPOSE: Version = (2, 32)
MINIMUM_PYTHON: Version = (3, 11)
TEST_LOCK = "services/requirements-dev.lock"
NEEDED = "Docker Engine >= 25, Compose >= 2.32, buildx, and Python >= 3.11 with venv"

OLDEST_DEBIAN = 12
NEWEST_DEBIAN_WITH_OLD_DOCKER = 13
ARCHITECTURES = ("x86_64", "aarch64")
DONOR_SUITE = "forky"
DONOR_PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io", "tini-static")
COMPANION_PACKAGES = ("ca-certificates", "iptables", "runc")
ENGINE_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables", "ca-certificates")
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)

ENGINE_FOLDER = Path("/opt/docker-engine")
UNPACKED = ENGINE_FOLDER / "root"
PID_FILE = Path("/run/docker-engine.pid")
CONTAINERD_PID_FILE = Path("/run/docker/containerd/containerd.pid")
LOG_FILE = Path("/var/log/docker-engine.log")
# The weight of all containers together, in cgroups of version 1 and 2: sixteen times that of a session.
CONTAINERS_WEIGHT = {
    Path("/sys/fs/cgroup/cpu/docker/cpu.shares"): 16 * 1024,
    Path("/sys/fs/cgroup/docker/cpu.weight"): 16 * 100,
}
UNIT = Path("/etc/systemd/system/docker-engine.service")
PLUGIN_FOLDER = Path("/usr/local/lib/docker/cli-plugins")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# the system's own directories come first: its runc fits its libc, the unpacked packages bring none
ENGINE_PATH = f"{SYSTEM_PATH}:{UNPACKED}/usr/sbin:{UNPACKED}/usr/bin"
START_SECONDS = 60
STOP_SECONDS = 60

UNIT_TEXT = f"""\
[Unit]
Description=Docker engine unpacked in {ENGINE_FOLDER}
After=network-online.target firewalld.service
Wants=network-online.target

[Service]
Type=notify
Environment=PATH={ENGINE_PATH}
ExecStart={UNPACKED}/usr/sbin/dockerd
Restart=always
RestartSec=2
TimeoutStartSec=0
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
Delegate=yes
KillMode=process
OOMScoreAdjust=-500

[Install]
WantedBy=multi-user.target
"""


class BootstrapError(Exception):
    """Something a user can understand and change: one sentence that says what, where and what to do."""


class Tools(NamedTuple):
    """What the docker command line answers; None for a part that is missing, `problem` when no engine answers."""

    server: Version | None
    compose: Version | None
    buildx: Version | None
    problem: str = ""


class Machine(NamedTuple):
    """What decides whether and how an engine can be installed or started here."""

    system: str
    architecture: str
    distribution: str
    release: int | None
    root: bool
    apt: bool
    unpacked: bool
    installed: Version | None
    docker_host: str


class Action(Enum):
    """The ways to get an engine."""

    USE = "use"
    START_UNPACKED = "start the engine unpacked in /opt/docker-engine"
    START_INSTALLED = "start the installed engine"
    UNPACK = "unpack a newer engine"
    INSTALL = "install the distribution's engine"
    REFUSE = "refuse"


class Plan(NamedTuple):
    """What to do about the engine, in words for the user."""

    action: Action
    message: str


class Engine(NamedTuple):
    """An engine that answers and is new enough."""

    server: Version
    compose: Version
    buildx: Version
    started: bool


class Finding(NamedTuple):
    """One line of `--check`."""

    name: str
    fine: bool
    text: str


# --- pure logic ------------------------------------------------------------------------------------------------------


def parse_version(text: str) -> Version | None:
    """Return the first dotted version in a text (`v2.40.3-3` gives 2.40.3), or None when there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else None


def show(version: Version) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def parse_os_release(text: str) -> dict[str, str]:
    """Return the settings of an os-release file."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def release_number(os_release: Mapping[str, str]) -> int | None:
    """Return the major release of a distribution; testing and unstable have none."""
    number = os_release.get("VERSION_ID", "").partition(".")[0]
    return int(number) if number.isdigit() else None


def missing_tools(tools: Tools) -> list[str]:
    """Return what must be installed or upgraded beside an engine that answers, each with its reason."""
    wanted = (
        ("Docker Engine", tools.server, MINIMUM_ENGINE),
        ("Docker Compose", tools.compose, MINIMUM_COMPOSE),
        ("Docker buildx", tools.buildx, (0,)),
    )
    missing = []
    for name, found, minimum in wanted:
        if found is None:
            missing.append(f"{name} >= {show(minimum)} (missing)" if any(minimum) else f"{name} (missing)")
        elif found < minimum:
            missing.append(f"{name} >= {show(minimum)} ({show(found)} is there)")
    return missing


def cannot_install(machine: Machine) -> str:
    """Return why no engine can be installed here, or an empty string when it can."""
    if machine.system != "Linux":
        return f"this is {'macOS' if machine.system == 'Darwin' else machine.system}, not Debian"
    if machine.distribution != "debian":
        return f"this is {machine.distribution or 'an unknown Linux'}, not Debian"
    if machine.release is not None and machine.release < OLDEST_DEBIAN:
        return f"this is Debian {machine.release}, older than {OLDEST_DEBIAN}"
    if machine.architecture not in ARCHITECTURES:
        return f"the architecture {machine.architecture} is not one of {', '.join(ARCHITECTURES)}"
    if not machine.apt:
        return "there is no apt-get"
    if not machine.root:
        return "it needs root"
    return ""


def decide(machine: Machine, tools: Tools) -> Plan:
    """Return what to do about the engine on this machine. An engine that answers is used or refused, never changed."""
    if tools.server:
        return decide_running(tools.server, missing_tools(tools))
    if machine.docker_host:
        return refuse(
            f"DOCKER_HOST={machine.docker_host} does not answer: "
            "start that engine or unset DOCKER_HOST, and run this again."
        )
    if "permission denied" in tools.problem.lower():
        return refuse(
            "A Docker engine is here but this user may not use it: "
            "run this as root or add the user to the group docker."
        )
    if machine.installed:
        return decide_installed(machine, machine.installed)
    if machine.unpacked:
        if machine.root:
            return Plan(Action.START_UNPACKED, f"start the Docker engine unpacked in {ENGINE_FOLDER}")
        return refuse(f"The Docker engine in {ENGINE_FOLDER} does not run: run this as root to start it.")
    if reason := cannot_install(machine):
        return refuse(
            f"No Docker engine answers here and this script cannot install one ({reason}): "
            f"install {NEEDED}, and run this again."
        )
    if machine.release is not None and machine.release <= NEWEST_DEBIAN_WITH_OLD_DOCKER:
        return Plan(
            Action.UNPACK,
            f"install {', '.join(COMPANION_PACKAGES)} with apt, unpack Docker Engine, Compose and buildx from "
            f"Debian {DONOR_SUITE} (about 85 MB) into {ENGINE_FOLDER}, link them into /usr/local and start the engine",
        )
    return Plan(Action.INSTALL, f"install {', '.join(ENGINE_PACKAGES)} with apt and start the engine")


def decide_running(server: Version, missing: Sequence[str]) -> Plan:
    """Return what to do about an engine that answers."""
    if not missing:
        return Plan(Action.USE, f"{show(server)} answers")
    return refuse(
        f"The Docker engine that runs here is left as it is, but this project needs {' and '.join(missing)}: "
        "install that and run this again."
    )


def decide_installed(machine: Machine, installed: Version) -> Plan:
    """Return what to do about an engine that is installed but does not answer."""
    if installed < MINIMUM_ENGINE:
        return refuse(
            f"Docker Engine {show(installed)} is installed here, does not run and is too old: "
            f"upgrade it to >= {show(MINIMUM_ENGINE)} or remove it, and run this again."
        )
    if not machine.root:
        return refuse("Docker Engine is installed here but does not run: start it, or run this as root.")
    return Plan(Action.START_INSTALLED, f"start the installed Docker Engine {show(installed)}")


def refuse(message: str) -> Plan:
    """Return the plan that changes nothing and tells the user what to do."""
    return Plan(Action.REFUSE, message)


def last_lines(text: str, lines: int = 12) -> str:
    """Return the end of a program's output, the part that tells why it failed."""
    return "\n".join(text.strip().splitlines()[-lines:])


# --- running programs ------------------------------------------------------------------------------------------------


def run(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; a program that is not there counts as failed."""
    arguments = [str(part) for part in command]
    try:
        return subprocess.run(arguments, capture_output=True, text=True, stdin=subprocess.DEVNULL, env=env, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(arguments, 127, "", str(error))


def must(command: Sequence[str | Path], purpose: str, env: Mapping[str, str] | None = None) -> str:
    """Run a program and return its output. Raises BootstrapError that tells the purpose and the last lines."""
    done = run(command, env)
    if done.returncode:
        raise BootstrapError(f"Cannot {purpose}: {command[0]} failed with\n{last_lines(done.stderr or done.stdout)}")
    return done.stdout


def say(text: str) -> None:
    """Tell the user what happens, at once even when the output is a file."""
    print(text, flush=True)


def ask(yes: bool) -> Consent:
    """Return a function that asks the user before the system is changed, or with `yes` only tells."""

    def consent(what: str) -> None:
        """Raises BootstrapError when the answer is no or nobody can be asked."""
        say(f"To do: {what}.")
        if yes:
            return
        if not sys.stdin.isatty():
            raise BootstrapError("This changes the system and there is no terminal to ask on: run this with --yes.")
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            raise BootstrapError("Nothing was changed.")

    return consent


# --- looking at the machine ------------------------------------------------------------------------------------------


def look_at_tools() -> Tools:
    """Ask the docker command line what is there."""
    server = run(["docker", "info", "--format", "{{.ServerVersion}}"])
    compose = run(["docker", "compose", "version", "--short"])
    buildx = run(["docker", "buildx", "version"])
    return Tools(
        server=parse_version(server.stdout) if server.returncode == 0 else None,
        compose=parse_version(compose.stdout) if compose.returncode == 0 else None,
        buildx=parse_version(buildx.stdout) if buildx.returncode == 0 else None,
        problem=last_lines(server.stderr, 1) if server.returncode else "",
    )


def look_at_machine() -> Machine:
    """Collect what decides how an engine can be had here."""
    os_release = read_os_release()
    dockerd = installed_dockerd()
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        distribution=os_release.get("ID", ""),
        release=release_number(os_release),
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get") is not None,
        unpacked=UNPACKED.is_dir(),
        installed=parse_version(run([dockerd, "--version"]).stdout) if dockerd else None,
        docker_host=os.environ.get("DOCKER_HOST", ""),
    )


def read_os_release() -> dict[str, str]:
    """Return this system's os-release settings, none where there is no such file."""
    path = Path("/etc/os-release")
    return parse_os_release(path.read_text()) if path.is_file() else {}


def installed_dockerd() -> str | None:
    """Return the machine's own dockerd, not the one this script unpacks."""
    return shutil.which("dockerd", path=SYSTEM_PATH)


def has_systemd() -> bool:
    """Tell whether systemd runs this machine."""
    return Path("/run/systemd/system").is_dir()


# --- system packages -------------------------------------------------------------------------------------------------


def ensure_system_packages(names: Sequence[str], consent: Consent) -> None:
    """Install the Debian packages that are missing, after asking.

    Raises BootstrapError when apt cannot be used here or fails.
    """
    missing = [name for name in names if not is_installed(name)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise BootstrapError(f"{', '.join(missing)} missing: install it, or run this as root on Debian.")
    consent(f"install {', '.join(missing)} with apt")
    install_packages(missing)


def is_installed(package: str) -> bool:
    """Tell whether a Debian package is installed."""
    done = run(["dpkg-query", "--show", "--showformat", "${db:Status-Status}", package])
    return done.returncode == 0 and done.stdout == "installed"


def install_packages(names: Sequence[str]) -> None:
    """Install Debian packages. Raises BootstrapError when apt fails."""
    say(f"installing {', '.join(names)}")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    update = run(["apt-get", "update"], env)
    if update.returncode:
        say(f"apt-get update was not complete, going on: {last_lines(update.stderr, 1)}")
    must(["apt-get", "install", "--yes", "--no-install-recommends", *names], f"install {', '.join(names)}", env)


# --- the engine ------------------------------------------------------------------------------------------------------


def ensure_engine(consent: Consent) -> Engine:
    """Return an engine that answers and is new enough; start or install one, after asking, where none is there.

    Raises BootstrapError when that is not possible here, or when the engine that runs here does not suffice.
    """
    if UNPACKED.is_dir() and os.geteuid() == 0:
        link_programs()
    tools = look_at_tools()
    plan = decide(look_at_machine(), tools)
    if plan.action is Action.REFUSE:
        raise BootstrapError(plan.message)
    if plan.action in (Action.UNPACK, Action.INSTALL):
        consent(plan.message)
    if plan.action is Action.UNPACK:
        unpack_engine()
    if plan.action is Action.INSTALL:
        install_packages(ENGINE_PACKAGES)
    if plan.action is not Action.USE:
        start_engine()
        tools = look_at_tools()
    if missing := missing_tools(tools):
        raise BootstrapError(f"The engine runs, but this is missing: {' and '.join(missing)}: install that.")
    assert tools.server and tools.compose and tools.buildx
    return Engine(tools.server, tools.compose, tools.buildx, started=plan.action is not Action.USE)


def unpack_engine() -> None:
    """Unpack a newer Debian's engine beside the system, which keeps its own package sources and libraries.

    Raises BootstrapError when a package cannot be had or its signature does not fit.
    """
    install_packages(COMPANION_PACKAGES)
    work = ENGINE_FOLDER / "unpacking"
    shutil.rmtree(work, ignore_errors=True)
    (work / "root").mkdir(parents=True)
    say(f"downloading Docker Engine, Compose and buildx from Debian {DONOR_SUITE}")
    for package in download_packages(work):
        must(["dpkg", "-x", package, work / "root"], f"unpack {package.name}")
    (work / "root").rename(UNPACKED)
    shutil.rmtree(work)
    link_programs()


def download_packages(work: Path) -> list[Path]:
    """Download the donor's packages with an apt state of their own and return the files."""
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise BootstrapError(f"No Debian keyring at {KEYRINGS[-1]}: install debian-archive-keyring and run this again.")
    sources, lists, cache, packages = (work / name for name in ("sources.list", "lists", "cache", "packages"))
    for folder in (lists / "partial", cache / "archives/partial", packages):
        folder.mkdir(parents=True)
    sources.write_text(f"deb [signed-by={keyring}] {debian_mirror()} {DONOR_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::Lists": lists,
        "Dir::Cache": cache,
        "Acquire::Retries": 3,
        # a suite that still moves is signed for a week only: a clock ahead of the mirror must not stop this
        "Acquire::Check-Valid-Until": "false",
    }
    apt = ["apt-get", *(part for name, value in settings.items() for part in ("-o", f"{name}={value}"))]
    must([*apt, "update"], f"read the package lists of Debian {DONOR_SUITE}")
    # apt-get download writes into the working directory
    command = ["env", "--chdir", packages, *apt, "download", *DONOR_PACKAGES]
    must(command, f"download {', '.join(DONOR_PACKAGES)}")
    return sorted(packages.glob("*.deb"))


def debian_mirror() -> str:
    """Return the address from which this machine's apt takes Debian itself. Raises BootstrapError when none is set."""
    codename = read_os_release().get("VERSION_CODENAME", "")
    filters = ["Created-By: Packages", "Component: main", f"Release: {codename}"]
    mirrors = must(["apt-get", "indextargets", "--format", "$(REPO_URI)", *filters], "read apt's sources").split()
    if not mirrors:
        raise BootstrapError(f"apt's sources name no mirror of Debian {codename}: add one to /etc/apt.")
    return mirrors[0]


def link_programs() -> None:
    """Make the unpacked client and plugins reachable, where nothing else of that name is in the way."""
    if not shutil.which("docker"):
        link(Path("/usr/local/bin/docker"), UNPACKED / "usr/bin/docker")
    for plugin in ("docker-compose", "docker-buildx"):
        link(PLUGIN_FOLDER / plugin, UNPACKED / "usr/libexec/docker/cli-plugins" / plugin)


def link(path: Path, target: Path) -> None:
    """Create a symbolic link unless a file is there; a dangling link is replaced."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def start_engine() -> None:
    """Start the machine's own engine, or else the unpacked one, and wait until it answers.

    Raises BootstrapError with the last lines of its log when it does not.
    """
    dockerd = installed_dockerd()
    say("starting the Docker engine")
    if not has_systemd():
        spawn_engine(dockerd or f"{UNPACKED}/usr/sbin/dockerd")
        return
    if dockerd is None:
        UNIT.write_text(UNIT_TEXT)
    unit = "docker.service" if dockerd else UNIT.name
    must(["systemctl", "daemon-reload"], "load the units of systemd")
    must(["systemctl", "enable", "--now", unit], f"start {unit}")
    wait_for_engine(lambda: True, lambda: run(["journalctl", "--no-pager", "--lines", "12", "--unit", unit]).stdout)


def spawn_engine(dockerd: str) -> None:
    """Start dockerd in a session of its own, so that it outlives this program and its terminal."""
    if running_pid() is not None:  # another run has just started it
        wait_for_engine(lambda: running_pid() is not None, LOG_FILE.read_text)
        return
    PID_FILE.unlink(missing_ok=True)
    if running_pid(CONTAINERD_PID_FILE, "containerd") is None:
        # left by a killed engine: dockerd would wait in vain for whatever bears that number now
        CONTAINERD_PID_FILE.unlink(missing_ok=True)
    put_containers_first()
    with LOG_FILE.open("a") as log:
        start = log.tell()
        process = subprocess.Popen(
            [dockerd, "--pidfile", str(PID_FILE)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PATH": ENGINE_PATH},
        )
    wait_for_engine(
        lambda: process.poll() is None,
        lambda: LOG_FILE.read_bytes()[start:].decode(errors="replace"),
    )


def put_containers_first() -> None:
    """Let containers weigh more than what manages them, where there is no systemd to do it.

    All of them together would get as much of a busy processor as the engine, or as one command in a terminal; under
    systemd each of them does.
    """
    for file, weight in CONTAINERS_WEIGHT.items():
        if (file.parent.parent / "cgroup.procs").exists():
            with contextlib.suppress(OSError):  # a machine that is itself a container may not be allowed to
                file.parent.mkdir(exist_ok=True)
                file.write_text(str(weight))


def wait_for_engine(alive: Callable[[], bool], log: Callable[[], str]) -> None:
    """Wait until the engine answers. Raises BootstrapError when it ends or stays silent."""
    deadline = time.monotonic() + START_SECONDS
    while alive() and time.monotonic() < deadline:
        if run(["docker", "info"]).returncode == 0:
            return
        time.sleep(0.3)
    state = f"did not answer within {START_SECONDS} s" if alive() else "ended at once"
    raise BootstrapError(f"The Docker engine {state}; the end of its log:\n{last_lines(log())}")


def stop_engine() -> bool:
    """Stop the engine that this script started and wait for its end; return False when there is none.

    Raises BootstrapError when it does not end.
    """
    if has_systemd() and UNIT.exists():
        must(["systemctl", "stop", UNIT.name], f"stop {UNIT.name}")
        return True
    pid = running_pid()
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while running_pid() == pid:
        if time.monotonic() > deadline:
            raise BootstrapError(f"Docker engine {pid} did not end within {STOP_SECONDS} s: see {LOG_FILE}.")
        time.sleep(0.2)
    return True


def running_pid(pid_file: Path = PID_FILE, program: str = "dockerd") -> int | None:
    """Return the process id in a pid file (by default of the engine started here), or None when it does not run."""
    try:
        pid = int(pid_file.read_text())
        state = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, ValueError):
        return None
    # "pid (dockerd) S": a reused number belongs to another program, a zombie has ended
    return pid if f"({program})" in state and ") Z " not in state else None


# --- the Python environment ------------------------------------------------------------------------------------------


def ensure_venv(folder: Path, requirements: Path, consent: Consent) -> Path:
    """Return the Python of the virtual environment in `folder`, made or updated to hold the requirements.

    Raises BootstrapError when a package is missing on the system or cannot be installed.
    """
    python = folder / "bin/python"
    if not requirements.is_file():
        raise BootstrapError(f"{requirements} is missing: restore it and run this again.")
    if venv_is_current(folder, requirements):
        return python
    if importlib.util.find_spec("ensurepip") is None:
        ensure_system_packages(["python3-venv"], consent)
    say(f"installing the packages of {requirements.name} into {folder}")
    if run([python, "-m", "pip", "--version"]).returncode:
        must([sys.executable, "-m", "venv", "--clear", folder], f"create the virtual environment {folder}")
    must([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], f"install {requirements}")
    stamp_file(folder).write_text(venv_stamp(requirements))
    return python


def venv_is_current(folder: Path, requirements: Path) -> bool:
    """Tell whether the environment was made from these requirements and its Python still starts."""
    stamp = stamp_file(folder)
    if not stamp.is_file() or stamp.read_text() != venv_stamp(requirements):
        return False
    return run([folder / "bin/python", "-c", "import pip"]).returncode == 0


def stamp_file(folder: Path) -> Path:
    """Return the file that remembers what the environment was made from."""
    return folder / ".requirements"


def venv_stamp(requirements: Path) -> str:
    """Return what the environment depends on: this Python's version and the text of the requirements."""
    return f"{show(sys.version_info[:2])} {hashlib.sha256(requirements.read_bytes()).hexdigest()}"


# --- the program -----------------------------------------------------------------------------------------------------


def check(project: Path) -> list[Finding]:
    """Return what is there and what is missing, without a change."""
    tools = look_at_tools()
    plan = decide(look_at_machine(), tools)
    fine = plan.action is Action.USE
    wording = plan.message if fine or plan.action is Action.REFUSE else f"missing; a run would {plan.message}"
    versions = [("Compose", tools.compose, MINIMUM_COMPOSE), ("buildx", tools.buildx, (0,))]
    current = (project / "requirements.txt").is_file() and venv_is_current(
        project / ".venv", project / "requirements.txt"
    )
    return [
        Finding("Docker Engine", fine, wording),
        *(
            Finding(name, found is not None and found >= minimum, show(found) if found else "missing")
            for name, found, minimum in versions
        ),
        Finding(".venv", current, "up to date" if current else "missing or out of date"),
    ]


def report(findings: Sequence[Finding]) -> int:
    """Print the findings and return the exit code."""
    for name, fine, text in findings:
        say(f"{'ok     ' if fine else 'MISSING'}  {name}: {text}")
    return 0 if all(finding.fine for finding in findings) else 1


def prepare(project: Path, consent: Consent) -> None:
    """Provide the engine and the environment. Raises BootstrapError when one cannot be had."""
    engine = ensure_engine(consent)
    origin = "started" if engine.started else "runs already"
    say(f"Docker Engine {show(engine.server)} ({origin}), Compose {show(engine.compose)}, buildx {show(engine.buildx)}")
    ensure_venv(project / ".venv", project / "requirements.txt", consent)
    say("ready: .venv/bin/invoke --list shows the commands")


def run_tests(project: Path, consent: Consent) -> int:
    """Run the tests of the commands and of the services, each in an environment of its own; none needs an engine.

    Returns the exit code: that of the first that failed. Raises BootstrapError when an environment cannot be made.
    """
    suites = [
        (project, ensure_venv(project / "ops/.venv", project / "requirements-dev.txt", consent)),
        (project / "services", ensure_venv(project / "services/.venv", project / TEST_LOCK, consent)),
    ]
    for folder, python in suites:
        say(f"testing {folder.relative_to(project.parent)}")
        if code := subprocess.run([python, "-m", "pytest"], cwd=folder).returncode:
            return code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(description="Prepare this machine: a Docker engine and the project's .venv.")
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only report what is there and missing (exit code 0 or 1)")
    mode.add_argument("--tests", action="store_true", help="run the tests, which need no engine, and nothing else")
    mode.add_argument("--stop", action="store_true", help="stop the engine, if this script started it")
    options = parser.parse_args(arguments)
    project = Path(__file__).resolve().parent.parent
    try:
        if sys.version_info[:2] < MINIMUM_PYTHON:
            raise BootstrapError(f"Python {show(sys.version_info[:2])} is too old: install >= {show(MINIMUM_PYTHON)}.")
        if options.check:
            return report(check(project))
        if options.stop:
            say("the Docker engine is stopped" if stop_engine() else "no Docker engine of this script runs")
            return 0
        if options.tests:
            return run_tests(project, ask(options.yes))
        prepare(project, ask(options.yes))
    except BootstrapError as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; run it again to go on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
