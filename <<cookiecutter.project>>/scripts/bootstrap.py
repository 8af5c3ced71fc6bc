#!/usr/bin/env python3
"""Prepare a machine for this project: a Docker engine, and `.venv` with the packages of requirements.txt.

    python3 scripts/bootstrap.py            says what is missing, asks, installs it
    python3 scripts/bootstrap.py --yes      does not ask
    python3 scripts/bootstrap.py --check    only reports; exit code 1 when something is missing
    python3 scripts/bootstrap.py --engine   only the engine: `sudo` needs to run no more than that
    python3 scripts/bootstrap.py --update   updates the engine
    python3 scripts/bootstrap.py --stop     stops the engine, if this script started it

An engine that answers is used as it is; only --update changes one. Where none is there, one is installed on Debian 12,
Ubuntu 22.04 and newer: docker-ce from Docker's own apt repository or, where that cannot be reached, the distribution's
packages. Those of Debian 12 and 13 are too old: there, the packages of a newer Debian are unpacked beside the system in
/opt/docker-engine. apt checks every signature. Standard library only.
"""

# No __future__ import, no walrus: Python 3.6 must be able to read this file, so that it can say what is wrong below.

import argparse
import base64
import contextlib
import hashlib
import http.client
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

MINIMUM_PYTHON = (3, 11)

if sys.version_info < MINIMUM_PYTHON:  # at import: older ones cannot evaluate what follows
    newer = [name for name in (f"python3.{minor}" for minor in range(30, 10, -1)) if shutil.which(name)]
    install = "install python3.11 and python3.11-venv (Ubuntu 22.04), python3.12 (RHEL 9) or python (Homebrew)"
    sys.exit(
        f"bootstrap: Python {sys.version_info[0]}.{sys.version_info[1]} is too old, this project needs 3.11 or newer: "
        f"{'' if newer else install + ', then '}run {newer[0] if newer else 'python3.11'} {sys.argv[0]}"
    )

Version = tuple[int, ...]
Consent = Callable[[str], None]

MINIMUM_ENGINE: Version = (25, 0)
MINIMUM_COMPOSE: Version = (2, 32)
TEST_LOCK = "services/requirements-dev.lock"
NEEDED = "Docker Engine >= 25, Compose >= 2.32 and buildx"

OLDEST_RELEASE = {"debian": 12, "ubuntu": 22}
NEWEST_DEBIAN_WITH_OLD_DOCKER = 13
ARCHITECTURES = ("x86_64", "aarch64")

DOCKER_SITE = "https://download.docker.com/linux"
DOCKER_PACKAGES = ("docker-ce", "docker-ce-cli", "containerd.io", "docker-buildx-plugin", "docker-compose-plugin")
# "Docker Release (CE deb) <docker@docker.com>", as Docker's documentation names it
DOCKER_FINGERPRINT = "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
DOCKER_KEY = Path("/etc/apt/keyrings/docker.asc")
DOCKER_SOURCE = Path("/etc/apt/sources.list.d/docker.sources")
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# What installs an engine where this script does not, by ID or ID_LIKE of os-release.
DNF_INSTALL = f"sudo dnf install {' '.join(DOCKER_PACKAGES)} && sudo systemctl enable --now docker"
DNF_ADD = "sudo dnf install dnf-plugins-core && sudo dnf config-manager --add-repo"
MANUAL = {
    "fedora": f"sudo dnf config-manager addrepo --from-repofile {DOCKER_SITE}/fedora/docker-ce.repo && {DNF_INSTALL}",
    "centos": f"{DNF_ADD} {DOCKER_SITE}/centos/docker-ce.repo && {DNF_INSTALL}",
    "rhel": f"{DNF_ADD} {DOCKER_SITE}/rhel/docker-ce.repo && {DNF_INSTALL}",
    "arch": "sudo pacman -S docker docker-compose docker-buildx && sudo systemctl enable --now docker",
    "Darwin": "https://docs.docker.com/desktop/setup/install/mac-install/",
    "Windows": "work inside WSL 2: https://docs.docker.com/desktop/features/wsl/",
    "": "https://docs.docker.com/engine/install/",
}

DONOR_SUITE = "forky"
DONOR_PACKAGES = ("containerd", "docker-buildx", "docker-cli", "docker-compose", "docker.io", "tini-static")
COMPANION_PACKAGES = ("ca-certificates", "iptables", "runc")
DISTRIBUTION_PACKAGES = {
    "debian": ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables", "ca-certificates"),
    "ubuntu": ("docker.io", "docker-compose-v2", "docker-buildx", "iptables", "ca-certificates"),
}
# What belongs together of an installed engine, by the package that dockerd is in.
ENGINE_PACKAGES = {
    "docker-ce": DOCKER_PACKAGES,
    "docker.io": ("docker.io", "docker-cli", "docker-compose", "docker-compose-v2", "docker-buildx", "containerd"),
}
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)

ENGINE_FOLDER = Path("/opt/docker-engine")
UNPACKED = ENGINE_FOLDER / "root"
DONOR_FOLDER = ENGINE_FOLDER / "unpacking"
# its packages, by the names of their files
PACKAGES_FILE = ".packages"
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
# for one question to the engine, and for one to Docker's repository
ANSWER_SECONDS = 20
SILENT = "no answer in time"
# the exit code of a program that is not there, as a shell gives it
NOT_THERE = 127

# What containers read through bind mounts and build contexts, as another user than the one who made the files.
SHARED_FILES = ("infrastructure", "monitoring", "services", "config/*/nginx")

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
    """What decides whether and how an engine can be installed, started or updated here."""

    system: str
    architecture: str
    distribution: str
    like: str
    codename: str
    release: int | None
    root: bool
    apt: bool
    # whether Docker's own repository answers and has this release
    repository: bool
    unpacked: bool
    installed: Version | None
    # what apt has installed of that engine
    packages: tuple[str, ...]
    docker_host: str


class Action(Enum):
    """The ways to get an engine."""

    USE = "use"
    START_UNPACKED = "start the engine unpacked in /opt/docker-engine"
    START_INSTALLED = "start the installed engine"
    ADD_REPOSITORY = "install docker-ce from Docker's repository"
    UNPACK = "unpack a newer engine"
    INSTALL = "install the distribution's engine"
    UPGRADE = "upgrade the installed packages"
    REFUSE = "refuse"


class Plan(NamedTuple):
    """What to do about the engine, in words for the user; packages: what apt installs or upgrades."""

    action: Action
    message: str
    packages: tuple[str, ...] = ()


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
        return f"this is {'macOS' if machine.system == 'Darwin' else machine.system}, not Debian or Ubuntu"
    oldest = OLDEST_RELEASE.get(machine.distribution)
    if oldest is None:
        return f"this is {machine.distribution or 'an unknown Linux'}, not Debian or Ubuntu"
    if machine.release is not None and machine.release < oldest:
        return f"this is {machine.distribution.capitalize()} {machine.release}, older than {oldest}"
    if machine.architecture not in ARCHITECTURES:
        return f"the architecture {machine.architecture} is not one of {', '.join(ARCHITECTURES)}"
    if not machine.apt:
        return "there is no apt-get"
    return ""


def by_hand(machine: Machine) -> str:
    """Return the command, or else the page, that installs an engine on this system."""
    if machine.system != "Linux" or machine.distribution in MANUAL:
        return MANUAL.get(machine.distribution or machine.system, MANUAL[""])
    return next((MANUAL[name] for name in ("centos", "fedora", "arch") if name in machine.like.split()), MANUAL[""])


def decide(machine: Machine, tools: Tools) -> Plan:
    """Return what to do about the engine on this machine. An engine that answers is used or refused, never changed."""
    if tools.server:
        return decide_running(tools.server, missing_tools(tools), machine)
    if machine.docker_host:
        return refuse(
            f"DOCKER_HOST={machine.docker_host} does not answer: "
            "start that engine or unset DOCKER_HOST, and run this again."
        )
    if "permission denied" in tools.problem.lower():
        return refuse(
            "A Docker engine runs here but this user may not use it: run `sudo usermod -aG docker $USER`, "
            "log in again and run this again. (Members of the group docker can become root on this machine.)"
        )
    if tools.problem == SILENT:
        return refuse(f"The Docker engine gave no answer within {ANSWER_SECONDS} s: restart it and run this again.")
    if machine.installed:
        return decide_installed(machine, machine.installed)
    if machine.unpacked:
        if machine.root:
            return Plan(Action.START_UNPACKED, f"start the Docker engine unpacked in {ENGINE_FOLDER}")
        return refuse(f"The Docker engine in {ENGINE_FOLDER} does not run: run this as root to start it.")
    reason = cannot_install(machine)
    if reason:
        return refuse(
            f"No Docker engine answers here and this script cannot install one ({reason}). "
            f"This project needs {NEEDED}. Install it and run this again: {by_hand(machine)}"
        )
    if not machine.root:
        return refuse(
            "No Docker engine answers here, and installing one needs root: "
            "run `sudo python3 scripts/bootstrap.py --engine`, then this again."
        )
    return decide_source(machine)


def decide_source(machine: Machine) -> Plan:
    """Return from where a machine that can have an engine gets it."""
    if machine.repository:
        return Plan(
            Action.ADD_REPOSITORY,
            f"add Docker's repository {DOCKER_SITE}/{machine.distribution} to apt (key {DOCKER_FINGERPRINT}), "
            f"install {', '.join(DOCKER_PACKAGES)} and start the engine",
            DOCKER_PACKAGES,
        )
    because = "(Docker's own repository cannot be reached, or does not have this release)"
    old = machine.release is not None and machine.release <= NEWEST_DEBIAN_WITH_OLD_DOCKER
    if machine.distribution == "debian" and old:
        return Plan(
            Action.UNPACK,
            f"install {', '.join(COMPANION_PACKAGES)} with apt, unpack Docker Engine, Compose and buildx from "
            f"Debian {DONOR_SUITE} (about 85 MB) into {ENGINE_FOLDER}, link them into /usr/local and start the engine "
            + because,
        )
    packages = DISTRIBUTION_PACKAGES[machine.distribution]
    return Plan(Action.INSTALL, f"install {', '.join(packages)} with apt and start the engine {because}", packages)


def decide_update(machine: Machine, tools: Tools) -> Plan:
    """Return how the engine of this machine is updated: as it was installed."""
    restart = "restart the engine: every container on this machine stops and starts again"
    if machine.docker_host:
        return refuse(f"DOCKER_HOST={machine.docker_host} is another machine's engine: update it there.")
    if tools.server is None and not machine.installed and not machine.unpacked:
        return refuse("There is no Docker engine to update here: run this without --update to get one.")
    if not machine.packages and not machine.unpacked:
        return refuse("apt and this script did not install the engine: update it the way it was installed.")
    if not machine.root:
        return refuse("Updating the engine needs root: run `sudo python3 scripts/bootstrap.py --update`.")
    if machine.packages:
        return Plan(Action.UPGRADE, f"upgrade {', '.join(machine.packages)} with apt and {restart}", machine.packages)
    return Plan(Action.UNPACK, f"replace the engine in {ENGINE_FOLDER} by Debian {DONOR_SUITE}'s newest, {restart}")


def decide_running(server: Version, missing: Sequence[str], machine: Machine) -> Plan:
    """Return what to do about an engine that answers."""
    if not missing:
        return Plan(Action.USE, f"{show(server)} answers")
    ours = machine.packages or machine.unpacked
    how = "run this with --update" if ours else f"install that ({by_hand(machine)}) and run this again"
    return refuse(
        f"The Docker engine that runs here is left as it is, but this project needs {' and '.join(missing)}: {how}."
    )


def decide_installed(machine: Machine, installed: Version) -> Plan:
    """Return what to do about an engine that is installed but does not answer."""
    if installed < MINIMUM_ENGINE:
        return refuse(
            f"Docker Engine {show(installed)} is installed here, does not run and is too old: "
            f"{'run this with --update' if machine.packages else 'update'} or remove it, and run this again."
        )
    if not machine.root:
        return refuse("Docker Engine is installed here but does not run: start it, or run this as root.")
    return Plan(Action.START_INSTALLED, f"start the installed Docker Engine {show(installed)}")


def refuse(message: str) -> Plan:
    """Return the plan that changes nothing and tells the user what to do."""
    return Plan(Action.REFUSE, message)


def docker_source(distribution: str, codename: str) -> str:
    """Return apt's entry of Docker's repository."""
    return (
        f"Types: deb\nURIs: {DOCKER_SITE}/{distribution}\nSuites: {codename}\n"
        f"Components: stable\nSigned-By: {DOCKER_KEY}\n"
    )


def fingerprints(armored: bytes) -> list[str]:
    """Return the fingerprints of the OpenPGP keys (version 4) in an ASCII-armored text.

    Raises ValueError when it is none.
    """
    body = armored.replace(b"\r", b"").partition(b"\n\n")[2].partition(b"\n=")[0].partition(b"-----END")[0]
    # Tag 6 is a primary key. Its fingerprint is defined over this header and the packet (RFC 9580, 5.5.4.2).
    return [
        hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet).hexdigest().upper()
        for tag, packet in openpgp_packets(base64.b64decode(b"".join(body.split()), validate=True))
        if tag == 6
    ]


def openpgp_packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each packet (RFC 9580, 4.2). Raises ValueError for what a key does not consist of."""
    at = 0
    while at < len(data):
        first, at = data[at], at + 1
        if first & 0xC0 == 0xC0:
            tag, width = first & 0x3F, 1
            if at < len(data) and data[at] == 0xFF:
                at, width = at + 1, 4
            elif at < len(data) and data[at] >= 192:
                width = 2
        elif first & 0x80 and first & 3 != 3:
            tag, width = first >> 2 & 0x0F, 1 << (first & 3)
        else:
            raise ValueError("not an OpenPGP key")
        length = int.from_bytes(data[at : at + width], "big")
        if first & 0x40 and width == 2:
            length -= (192 << 8) - 192
        at += width
        if at + length > len(data):
            raise ValueError("an incomplete OpenPGP key")
        yield tag, data[at : at + length]
        at += length


def last_lines(text: str, lines: int = 12) -> str:
    """Return the end of a program's output, the part that tells why it failed."""
    return "\n".join(text.strip().splitlines()[-lines:])


# --- running programs ------------------------------------------------------------------------------------------------


def run(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return what it said; one that is not there, or not done after `timeout` seconds, has failed."""
    arguments = [str(part) for part in command]
    try:
        return subprocess.run(
            arguments,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            env=env,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 124, "", SILENT)
    except OSError as error:
        return subprocess.CompletedProcess(arguments, NOT_THERE, "", str(error))


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
        """Raises BootstrapError when the answer is no, or when there is no terminal to ask on."""
        say(f"To do: {what}.")
        if yes:
            return
        if not sys.stdin.isatty():
            raise BootstrapError("This changes the system and there is no terminal to ask on: run this with --yes.")
        try:
            answer = input("Continue? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise BootstrapError("Nothing was changed.")

    return consent


# --- looking at the machine ------------------------------------------------------------------------------------------


def look_at_tools() -> Tools:
    """Ask the docker command line what is there."""
    server = run(["docker", "info", "--format", "{{.ServerVersion}}"], timeout=ANSWER_SECONDS)
    compose = run(["docker", "compose", "version", "--short"], timeout=ANSWER_SECONDS)
    buildx = run(["docker", "buildx", "version"], timeout=ANSWER_SECONDS)
    return Tools(
        server=parse_version(server.stdout) if server.returncode == 0 else None,
        compose=parse_version(compose.stdout) if compose.returncode == 0 else None,
        buildx=parse_version(buildx.stdout) if buildx.returncode == 0 else None,
        problem=last_lines(server.stderr, 1) if server.returncode not in (0, NOT_THERE) else "",
    )


def look_at_machine(tools: Tools) -> Machine:
    """Collect what decides how an engine can be had here.

    Docker's repository is asked only where no engine answers and one could be installed.
    """
    os_release = read_os_release()
    dockerd = installed_dockerd()
    machine = Machine(
        system=platform.system(),
        architecture=platform.machine(),
        distribution=os_release.get("ID", ""),
        like=os_release.get("ID_LIKE", ""),
        codename=os_release.get("VERSION_CODENAME", ""),
        release=release_number(os_release),
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get") is not None,
        repository=False,
        unpacked=UNPACKED.is_dir(),
        installed=parse_version(run([dockerd, "--version"]).stdout) if dockerd else None,
        packages=engine_packages(dockerd) if dockerd else (),
        docker_host=os.environ.get("DOCKER_HOST", ""),
    )
    if decide(machine, tools).action in (Action.UNPACK, Action.INSTALL):
        return machine._replace(repository=repository_answers(machine.distribution, machine.codename))
    return machine


def engine_packages(dockerd: str) -> tuple[str, ...]:
    """Return the packages of an engine that apt has installed, none when dockerd does not belong to a package."""
    owner = run(["dpkg-query", "--search", dockerd]).stdout.partition(":")[0]
    return tuple(name for name in ENGINE_PACKAGES.get(owner, ()) if is_installed(name))


def repository_answers(distribution: str, codename: str) -> bool:
    """Tell whether Docker's repository can be reached and has packages for this release."""
    try:
        with urllib.request.urlopen(f"{DOCKER_SITE}/{distribution}/dists/{codename}/InRelease", timeout=ANSWER_SECONDS):
            return True
    except urllib.error.URLError as error:
        # Without certificate authorities nothing can be verified yet. They are installed before anything is trusted.
        return isinstance(error.reason, ssl.SSLError) and not SYSTEM_CERTIFICATES.exists()
    except (OSError, http.client.HTTPException, ValueError):
        return False


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
        raise BootstrapError(f"{', '.join(missing)} missing: install it, or run this as root on Debian or Ubuntu.")
    consent(f"install {', '.join(missing)} with apt")
    install_packages(missing)


def is_installed(package: str) -> bool:
    """Tell whether a Debian package is installed."""
    done = run(["dpkg-query", "--show", "--showformat", "${db:Status-Status}", package])
    return done.returncode == 0 and done.stdout == "installed"


def install_packages(names: Sequence[str]) -> None:
    """Install Debian packages, without removing one. Raises BootstrapError when apt fails."""
    say(f"installing {', '.join(names)}")
    update_package_lists()
    apt_install(f"install {', '.join(names)}", "--no-install-recommends", *names)


def apt_install(purpose: str, *arguments: str) -> str:
    """Run apt-get install, which must not ask or remove anything. Raises BootstrapError when it fails."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    return must(["apt-get", "install", "--yes", "--no-remove", *arguments], purpose, environment)


def update_package_lists() -> None:
    """Read what the package sources have now; one that does not answer is named and does not stop the others."""
    update = run(["apt-get", "update"])
    if update.returncode:
        say(f"apt-get update was not complete, continuing: {last_lines(update.stderr, 1)}")


# --- the engine ------------------------------------------------------------------------------------------------------


def ensure_engine(consent: Consent) -> Engine:
    """Return an engine that answers and is new enough; start or install one, after asking, where none is there.

    Raises BootstrapError when that is not possible here, or when the engine that runs here does not suffice.
    """
    if UNPACKED.is_dir() and os.geteuid() == 0:
        link_programs()
    tools = look_at_tools()
    plan = decide(look_at_machine(tools), tools)
    if plan.action is Action.REFUSE:
        raise BootstrapError(plan.message)
    if plan.action in (Action.ADD_REPOSITORY, Action.UNPACK, Action.INSTALL):
        consent(plan.message)
    if plan.action is Action.ADD_REPOSITORY:
        add_docker_repository()
    if plan.action in (Action.ADD_REPOSITORY, Action.INSTALL):
        install_packages(plan.packages)
    if plan.action is Action.UNPACK:
        unpack_engine()
    if plan.action is not Action.USE:
        start_engine()
        tools = look_at_tools()
    return sufficient(tools, started=plan.action is not Action.USE)


def sufficient(tools: Tools, started: bool) -> Engine:
    """Return the engine with its versions. Raises BootstrapError when a part is missing or too old."""
    missing = missing_tools(tools)
    if missing:
        raise BootstrapError(f"The engine runs, but this is missing: {' and '.join(missing)}: install that.")
    assert tools.server and tools.compose and tools.buildx
    return Engine(tools.server, tools.compose, tools.buildx, started)


def update_engine(consent: Consent) -> Engine:
    """Update the engine as it was installed, after asking, and return it. Nothing restarts when it is the newest.

    Raises BootstrapError when it was not installed by apt or by this script, or when the update fails.
    """
    tools = look_at_tools()
    plan = decide_update(look_at_machine(tools), tools)
    if plan.action is Action.REFUSE:
        raise BootstrapError(plan.message)
    if plan.action is Action.UPGRADE:
        changed = upgrade_packages(plan, consent)
    else:
        changed = replace_unpacked_engine(plan, consent)
    if not changed:
        say("the engine is the newest that its package source has")
    return sufficient(look_at_tools(), started=changed)


def upgrade_packages(plan: Plan, consent: Consent) -> bool:
    """Upgrade the packages of a plan, after asking; return False when there is nothing newer."""
    update_package_lists()
    what = f"upgrade {', '.join(plan.packages)}"
    if "\nInst " not in "\n" + apt_install(f"see what would {what}", "--simulate", "--only-upgrade", *plan.packages):
        return False
    consent(plan.message)
    apt_install(what, "--only-upgrade", *plan.packages)
    if not has_systemd():  # there, the packages restart their engine themselves
        stop_engine()
    start_engine()
    return True


def add_docker_repository() -> None:
    """Add Docker's repository to apt, with the key whose fingerprint is known here. Can be repeated.

    Raises BootstrapError when the key cannot be had or is another one.
    """
    os_release = read_os_release()
    if not SYSTEM_CERTIFICATES.exists():
        install_packages(["ca-certificates"])
    for folder in (DOCKER_KEY.parent, DOCKER_SOURCE.parent):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if any(uri.startswith(DOCKER_SITE) for uri in repositories()):
        return  # apt refuses a second entry with another key
    place(DOCKER_KEY, download_docker_key(f"{DOCKER_SITE}/{os_release['ID']}/gpg"))
    place(DOCKER_SOURCE, docker_source(os_release["ID"], os_release["VERSION_CODENAME"]).encode())


def download_docker_key(url: str) -> bytes:
    """Return the key that Docker's packages are signed with. Raises BootstrapError when another one is there."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:
            key = bytes(answer.read(1 << 20))
        found = fingerprints(key)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise BootstrapError(f"Cannot read Docker's key from {url}: {error}.") from None
    if found != [DOCKER_FINGERPRINT]:
        raise BootstrapError(
            f"{url} holds the key {', '.join(found) or '(none)'}, expected {DOCKER_FINGERPRINT}: not trusted. "
            "Is a proxy changing the answer? Otherwise compare it with https://docs.docker.com/engine/install/."
        )
    return key


def place(path: Path, content: bytes) -> None:
    """Write a file of apt's configuration that everybody may read, whatever the umask."""
    path.write_bytes(content)
    path.chmod(0o644)


def unpack_engine() -> None:
    """Unpack a newer Debian's engine beside the system, which keeps its own package sources and libraries.

    Raises BootstrapError when a package cannot be had or its signature does not fit.
    """
    install_packages(COMPANION_PACKAGES)
    with donor_apt() as apt:
        download_engine(apt).rename(UNPACKED)
    link_programs()


def replace_unpacked_engine(plan: Plan, consent: Consent) -> bool:
    """Replace the unpacked engine by the newest, after asking; return False when it is the newest.

    Raises BootstrapError when the new one does not start: the old one runs again then.
    """
    new, old = ENGINE_FOLDER / "new", ENGINE_FOLDER / "previous"
    for left_over in (new, old):
        shutil.rmtree(left_over, ignore_errors=True)
    with donor_apt() as apt:
        if newest_packages(apt) == recorded_packages():
            return False
        consent(plan.message)
        download_engine(apt).rename(new)
    stop_engine()
    UNPACKED.rename(old)
    new.rename(UNPACKED)
    try:
        start_engine()
    except BootstrapError as error:
        stop_engine()
        shutil.rmtree(UNPACKED)
        old.rename(UNPACKED)
        start_engine()
        raise BootstrapError(f"The new engine does not start, the old one runs again. {error}") from None
    shutil.rmtree(old)
    return True


def download_engine(apt: Sequence[str | Path]) -> Path:
    """Download the donor's packages, unpack them and return the folder, which the caller takes away.

    Raises BootstrapError when a package cannot be had or its signature does not fit.
    """
    names = newest_packages(apt)
    root, packages = DONOR_FOLDER / "root", DONOR_FOLDER / "packages"
    for folder in (root, packages):
        folder.mkdir()
    say(f"downloading Docker Engine, Compose and buildx from Debian {DONOR_SUITE}")
    # apt-get download writes into the working directory
    must(["env", "--chdir", packages, *apt, "download", *DONOR_PACKAGES], f"download {', '.join(DONOR_PACKAGES)}")
    for package in sorted(packages.glob("*.deb")):
        must(["dpkg", "-x", package, root], f"unpack {package.name}")
    (root / PACKAGES_FILE).write_text("\n".join(names))
    return root


def recorded_packages() -> list[str]:
    """Return the file names of the packages that the unpacked engine consists of, none where that was not recorded."""
    record = UNPACKED / PACKAGES_FILE
    return record.read_text().split() if record.is_file() else []


def newest_packages(apt: Sequence[str | Path]) -> list[str]:
    """Return the file names of the donor's newest packages, versions included, without downloading them."""
    listing = must([*apt, "download", "--print-uris", *DONOR_PACKAGES], f"find {', '.join(DONOR_PACKAGES)}")
    return sorted(line.split()[1] for line in listing.splitlines() if line.startswith("'"))


@contextlib.contextmanager
def donor_apt() -> Iterator[list[str | Path]]:
    """Give the beginning of apt command lines over the donor suite alone, with a state of their own, up to date.

    What they leave behind is removed at the end. Raises BootstrapError when the package lists cannot be read.
    """
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        raise BootstrapError(f"No Debian keyring at {KEYRINGS[-1]}: install debian-archive-keyring and run this again.")
    state = DONOR_FOLDER / "apt"
    shutil.rmtree(DONOR_FOLDER, ignore_errors=True)
    for folder in (state / "lists/partial", state / "cache/archives/partial"):
        folder.mkdir(parents=True)
    sources = state / "sources.list"
    sources.write_text(f"deb [signed-by={keyring}] {debian_mirror()} {DONOR_SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::State::Lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Acquire::Retries": 3,
    }
    apt: list[str | Path] = ["apt-get", *(part for item in settings.items() for part in ("-o", "{}={}".format(*item)))]
    try:
        must([*apt, "update"], f"read the package lists of Debian {DONOR_SUITE}")
        yield apt
    finally:
        shutil.rmtree(DONOR_FOLDER)


def debian_mirror() -> str:
    """Return the address from which this machine's apt takes Debian itself. Raises BootstrapError when none is set."""
    codename = read_os_release().get("VERSION_CODENAME", "")
    mirrors = repositories("Component: main", f"Release: {codename}")
    if not mirrors:
        raise BootstrapError(f"apt's sources name no mirror of Debian {codename}: add one to /etc/apt.")
    return mirrors[0]


def repositories(*filters: str) -> list[str]:
    """Return the addresses of apt's package sources."""
    listing = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", *filters]
    return must(listing, "read apt's sources").split()


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
        if run(["docker", "info"], timeout=max(1.0, deadline - time.monotonic())).returncode == 0:
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
        # not python3-venv: on Ubuntu 22.04 that is another Python's
        ensure_system_packages([f"python{show(sys.version_info[:2])}-venv"], consent)
    say(f"installing the packages of {requirements.name} into {folder}")
    if not venv_works(folder) and Path(sys.prefix) != folder.resolve():
        must([sys.executable, "-m", "venv", "--clear", folder], f"create the virtual environment {folder}")
    must([python, "-m", "pip", "install", "--quiet", "--requirement", requirements], f"install {requirements}")
    stamp_file(folder).write_text("\n".join(venv_stamp(folder, requirements)))
    return python


def venv_is_current(folder: Path, requirements: Path) -> bool:
    """Tell whether the environment was made from these requirements, in this place, and its Python still starts."""
    return read_stamp(folder) == venv_stamp(folder, requirements) and venv_works(folder)


def venv_works(folder: Path) -> bool:
    """Tell whether the environment belongs to this Python and this place (its programs hold their path), and starts."""
    same = read_stamp(folder)[:2] == venv_place(folder)
    return same and run([folder / "bin/python", "-c", "import pip"]).returncode == 0


def stamp_file(folder: Path) -> Path:
    """Return the file that remembers what the environment was made from."""
    return folder / ".requirements"


def read_stamp(folder: Path) -> list[str]:
    """Return what the environment was made from, nothing where that is not known."""
    return stamp_file(folder).read_text().split("\n") if stamp_file(folder).is_file() else []


def venv_place(folder: Path) -> list[str]:
    """Return what an environment cannot survive a change of: this Python's version and the folder's path."""
    return [show(sys.version_info[:2]), str(folder.resolve())]


def venv_stamp(folder: Path, requirements: Path) -> list[str]:
    """Return all that the environment depends on: its place, and a digest of the requirements."""
    return [*venv_place(folder), hashlib.sha256(requirements.read_bytes()).hexdigest()]


# --- the project's files ---------------------------------------------------------------------------------------------


def closed_files(project: Path) -> list[Path]:
    """Return files and folders that containers use and other users may not read: made under umask 077, for example."""
    found = []
    for pattern in SHARED_FILES:
        for top in sorted(project.glob(pattern)):
            for folder, folders, names in os.walk(top):
                folders[:] = [name for name in folders if name != ".venv"]
                found += [path for path in (Path(folder), *(Path(folder, name) for name in names)) if is_closed(path)]
    return found


def is_closed(path: Path) -> bool:
    """Tell whether others may not read a file that its owner may, or not enter such a folder."""
    return not path.is_symlink() and open_mode(path.stat().st_mode) != path.stat().st_mode


def open_mode(mode: int) -> int:
    """Return a mode with its owner's rights to read and to execute given to everybody, as in `chmod go+rX`."""
    return mode | (mode & 0o400) >> 3 | (mode & 0o400) >> 6 | (mode & 0o100) >> 3 | (mode & 0o100) >> 6


def open_files(project: Path) -> None:
    """Let containers read the project's files. Raises BootstrapError when they belong to somebody else."""
    closed = closed_files(project)
    if not closed:
        return
    try:
        for path in closed:
            path.chmod(open_mode(path.stat().st_mode))
    except PermissionError as error:
        raise BootstrapError(
            f"Containers cannot read {error.filename}, which belongs to another user. Let them: "
            f"sudo chmod -R go+rX {' '.join(SHARED_FILES)}"
        ) from None
    say(f"made {len(closed)} {'file' if len(closed) == 1 else 'files'} readable for containers (made under umask 077?)")


# --- the program -----------------------------------------------------------------------------------------------------


def check(project: Path) -> list[Finding]:
    """Return what is there and what is missing, without a change."""
    tools = look_at_tools()
    plan = decide(look_at_machine(tools), tools)
    fine = plan.action is Action.USE
    wording = plan.message if fine or plan.action is Action.REFUSE else f"missing; a run would {plan.message}"
    versions = [("Compose", tools.compose, MINIMUM_COMPOSE), ("buildx", tools.buildx, (0,))]
    requirements = project / "requirements.txt"
    current = requirements.is_file() and venv_is_current(project / ".venv", requirements)
    closed = closed_files(project)
    return [
        Finding("Docker Engine", fine, wording),
        *(
            Finding(name, found is not None and found >= minimum, show(found) if found else "missing")
            for name, found, minimum in versions
        ),
        Finding(".venv", current, "up to date" if current else "missing or out of date"),
        Finding("files", not closed, f"not readable for containers: {closed[0]}" if closed else "readable"),
    ]


def report(findings: Sequence[Finding]) -> int:
    """Print the findings and return the exit code."""
    for name, fine, text in findings:
        say(f"{'ok     ' if fine else 'MISSING'}  {name}: {text}")
    return 0 if all(finding.fine for finding in findings) else 1


def describe(engine: Engine) -> str:
    """Return the versions of an engine in one line."""
    server = f"{show(engine.server)} ({'started' if engine.started else 'already running'})"
    return f"Docker Engine {server}, Compose {show(engine.compose)}, buildx {show(engine.buildx)}"


def prepare(project: Path, consent: Consent) -> None:
    """Provide the engine and the environment. Raises BootstrapError when one cannot be had."""
    say(describe(ensure_engine(consent)))
    user = os.environ.get("SUDO_USER")
    if user and os.geteuid() == 0 and project.stat().st_uid != 0:
        raise BootstrapError(
            f"The engine is ready. Run this again as {user}, without sudo, or .venv would belong to root. "
            f"{user} may use the engine after `sudo usermod -aG docker {user}` and a new log-in."
        )
    ensure_venv(project / ".venv", project / "requirements.txt", consent)
    open_files(project)
    say(next_steps(project, Path.cwd(), Path(os.environ.get("SHELL", "")).name))


def next_steps(project: Path, here: Path, shell: str) -> str:
    """Return what to type next, for the shell in use (bash where it is another one than zsh or fish)."""
    activate, completion = {
        "fish": (".venv/bin/activate.fish", "invoke --print-completion-script fish | source"),
        "zsh": (".venv/bin/activate", "source <(invoke --print-completion-script zsh)"),
    }.get(shell, (".venv/bin/activate", "source <(invoke --print-completion-script bash)"))
    steps = [
        *([(f"cd {shlex.quote(str(project))}", "")] if here != project else []),
        (f"source {activate}", "once in every terminal, or type .venv/bin/invoke"),
        (completion, "optional: tab completion"),
        ("invoke deploy", "starts the dev environment; invoke --list shows all commands"),
    ]
    return "ready. Next:\n" + "\n".join(f"  {line:<56}{note and '# ' + note}".rstrip() for line, note in steps)


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
        code = subprocess.run([python, "-m", "pytest"], cwd=folder, check=False).returncode
        if code:
            return code
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says and return the exit code."""
    parser = argparse.ArgumentParser(description="Prepare this machine: a Docker engine and the project's .venv.")
    parser.add_argument("--yes", action="store_true", help="install what is missing without asking")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only report what is there and missing (exit code 0 or 1)")
    mode.add_argument("--tests", action="store_true", help="run the tests, which need no engine, and nothing else")
    mode.add_argument("--engine", action="store_true", help="prepare only the engine, not .venv (for sudo)")
    mode.add_argument("--update", action="store_true", help="update the engine, the way it was installed")
    mode.add_argument("--stop", action="store_true", help="stop the engine, if this script started it")
    options = parser.parse_args(arguments)
    project = Path(__file__).resolve().parent.parent
    try:
        if options.check:
            return report(check(project))
        if options.stop:
            say("the Docker engine is stopped" if stop_engine() else "no Docker engine of this script runs")
            return 0
        if options.tests:
            return run_tests(project, ask(options.yes))
        if options.engine or options.update:
            say(describe((update_engine if options.update else ensure_engine)(ask(options.yes))))
            return 0
        prepare(project, ask(options.yes))
    except (BootstrapError, OSError) as error:
        print(f"bootstrap: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bootstrap: interrupted; run it again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
