"""What must be right before anything is touched. Every check is a value; nothing here changes anything.

The checks judge what they are given; `run` gathers it from the machine and the engine.
"""

from __future__ import annotations

import errno
import re
import shlex
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import OpsError
from ops.base.findings import FAILED, OK, WARNING, Check
from ops.engine import Container
from ops.parts.nginx import settings as nginx
from ops.rollout import hooks, host
from ops.rollout.plan import Plan
from ops.stack import pools
from ops.stack.model import Port, Stack
from ops.state import elsewhere, memory
from ops.state.document import State

# start_interval of health checks needs Engine 25; the Compose files are tested from 2.32 on.
ENGINE_MINIMUM = (25, 0)
COMPOSE_MINIMUM = (2, 32)
# Below the first a database may stop in the middle of a write; below the second there is no room for one more build.
DISK_NEEDED = 2 * 1024**3
DISK_WANTED = 5 * 1024**3
# Limits are ceilings for bad days. At rest the stack was seen to use a sixth of them; half leaves room for load.
USED_OF_LIMIT = 0.5
# Renewal by a person takes days: warn while there are some.
CERTIFICATE_DAYS = 14

_ONE_OF = {
    "IMAGE_SOURCE": ("build", "pull"),
    "BUILD_TARGET": ("dev", "production"),
    "SMTP_TLS": ("none", "starttls", "tls"),
}
REQUIRED = (
    *("COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "ENVIRONMENT", "DOMAIN", "IMAGE_PREFIX", "IMAGE_TAG", "BUILD_TARGET"),
    *("WEB_PORT", "SSL_PORT"),
)


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: "v2.40.3-desktop.1" -> (2, 40, 3); () when there are none."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def check_version(name: str, found: str, minimum: tuple[int, ...]) -> Check:
    """A program's version against the oldest that works."""
    wanted = ".".join(str(part) for part in minimum)
    if version(found) >= minimum:
        return Check(name, OK, found)
    return Check(name, FAILED, f"{found or 'unknown version'} is too old", f"Install {wanted} or newer.")


def check_settings(env: Environment) -> Iterator[Check]:
    """Settings that must be there, be a number, or be one of a few words."""
    bad = [(key, "is not set") for key in REQUIRED if not env.values.get(key)]
    for key, value in env.values.items():
        if key.endswith("_REPLICAS") and not _whole(value, 1, 1000):
            bad.append((key, f'must be a whole number from 1, not "{value}"'))
        elif key.endswith("_PORT") and value and not _whole(value, 1, 65535):
            bad.append((key, f'must be a port from 1 to 65535, not "{value}"'))
        elif key in _ONE_OF and value not in _ONE_OF[key]:
            bad.append((key, f'must be {" or ".join(_ONE_OF[key])}, not "{value}"'))
    bad += nginx.problems(env.values)
    for key, problem in bad:
        yield Check("settings", FAILED, f"{key} {problem}", f"Change it in {relative(env.env_file)}.")
    if not bad:
        yield Check("settings", OK, f"{len(env.values)} in {relative(env.env_file)}")


def _whole(text: str, low: int, high: int) -> bool:
    return text.isascii() and text.isdigit() and low <= int(text) <= high


def check_readable(stack: Stack, env: Environment) -> Check:
    """What containers see of the project, which they read as other users. Secrets have rules of their own."""
    mounts = (mount for service in stack.services.values() for mount in service.mounts)
    sources = {mount.source for mount in mounts if mount.configures(env.project_dir)}
    closed: dict[Path, Path] = {}
    for source in sorted(sources):
        if not source.is_relative_to(env.secrets_dir):
            for path in (source, *sorted(source.rglob("*"))):
                if _closed_to_others(path):
                    closed.setdefault(source, path)
    if not closed:
        return Check("mounted files", OK, "readable in the containers")
    first = next(iter(closed.values()))
    detail = f"{relative(first)} has mode {stat.S_IMODE(first.stat().st_mode):04o}: containers cannot read it"
    folders = shlex.join(relative(source) for source in closed)
    return Check("mounted files", FAILED, detail, f"Make them readable: chmod -R go=rX {folders}")


def _closed_to_others(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False  # a link to nowhere
    needed = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & needed != needed


def port_is_free(port: Port) -> bool:
    """Whether nobody listens on a port of this machine."""
    address = port.address or "0.0.0.0"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(family, kind) as trial:
        # Connections of an earlier listener that linger are no obstacle to the engine either.
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port.number))
        except OSError as error:
            # Only "in use" is an answer: we may lack the right to bind a low port, the engine does not.
            return error.errno != errno.EADDRINUSE
    return True


def check_ports(
    stack: Stack,
    own: Iterable[Container],
    is_free: Callable[[Port], bool] = port_is_free,
    holder: Callable[[Port], str] = lambda port: "",
    setting: Callable[[int], str] = lambda number: "port in the .env file",
) -> Iterator[Check]:
    """Ports the stack publishes, unless one of its own running containers holds them already.

    holder, setting: who has a port, and where its number is chosen, for the message.
    """
    held = {_number_and_protocol(port) for each in own for port in each.ports if each.running}
    wanted = {port: name for name, service in stack.services.items() for port in service.ports}
    taken = [port for port in wanted if (port.number, port.protocol) not in held and not is_free(port)]
    for port in taken:
        number, who = port.number, holder(port)
        shown, sockets = (f"{number}/udp", "-lunp") if port.protocol == "udp" else (f"{number}", "-ltnp")
        yield Check(
            "ports",
            FAILED,
            f"{shown} for {wanted[port]} is taken{f' by {who}' if who else ''}",
            f"Stop what listens there (ss {sockets} 'sport = :{number}'), or choose another {setting(number)}.",
        )
    if not taken:
        numbers = ", ".join(str(number) for number in sorted({port.number for port in wanted}))
        yield Check("ports", OK, f"{numbers or 'none'} free or ours")


def _number_and_protocol(published: str) -> tuple[int, str]:
    """Of a port as a container has it: 0.0.0.0:443->8443/udp, where nothing at the end means TCP."""
    outside, _, inside = published.rpartition(":")[2].partition("->")
    return int(outside), inside.partition("/")[2] or "tcp"


def setting_of(env: Environment, number: int) -> str:
    """Where the number of a published port comes from, in words."""
    names = [key for key, value in env.values.items() if key.endswith("_PORT") and value == str(number)]
    return f"{' or '.join(names) or 'port'} in {relative(env.env_file)}"


def check_disk(free: int, where: str) -> Check:
    """Bytes free where the engine keeps its images and volumes."""
    detail = f"{_gib(free)} free in {where}"
    remedy = "Make room: docker system df, then docker image prune."
    if free < DISK_NEEDED:
        return Check("disk", FAILED, f"{detail}, {_gib(DISK_NEEDED)} are needed", remedy)
    if free < DISK_WANTED:
        return Check("disk", WARNING, f"{detail}, less than {_gib(DISK_WANTED)}", remedy)
    return Check("disk", OK, detail)


def memory_needed(
    stack: Stack, containers: Iterable[Container], beside: Mapping[str, int] | None = None
) -> tuple[int, int]:
    """Bytes the containers that do not run yet will (likely need, at most take).

    beside: how many a rollout starts of a service while its old ones still run.
    """
    running: dict[str, int] = {}
    for each in containers:
        running[each.service] = running.get(each.service, 0) + each.running
    likely = most = 0
    for name, service in stack.services.items():
        missing = 0 if service.one_shot else max(0, service.replicas - running.get(name, 0))
        missing = (beside or {}).get(name, missing)
        likely += missing * (service.memory_reserved or int(service.memory_limit * USED_OF_LIMIT))
        most += missing * service.memory_limit
    return likely, most


def check_memory(likely: int, most: int, available: int) -> Check:
    """What the stack will need against what the machine has left; all in bytes."""
    detail = f"{_gib(likely)} likely needed, {_gib(most)} at most, {_gib(available)} available"
    remedy = "Lower replicas or the _MEMORY settings, or switch MONITORING_ENABLED or LOGGING_ENABLED off."
    if likely > available:
        return Check("memory", FAILED, detail, remedy)
    if most > available:
        return Check("memory", WARNING, detail, remedy)
    return Check("memory", OK, detail)


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"


def available_memory(total: int = 0) -> int:
    """Bytes of memory that programs can still have; `total` where the system does not say."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return total
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else total


def check_secrets(env: Environment, findings: Sequence[Any]) -> Iterator[Check]:
    """The findings of the secrets check: production refuses every one, staging what keeps a service from starting.

    The same finding about several secrets is one line.
    """
    alike: dict[tuple[str, str, str], list[str]] = {}
    for each in findings:
        if each.severity != "skipped":
            vital = not each.stops and (each.what == "missing" or each.secret == "*")
            serious = each.severity == "error"
            stops = env.name == "prod" or each.stops or (env.name != "dev" and vital and serious)
            what = f"{each.what}; a deploy makes it" if env.name == "dev" and vital else each.what
            alike.setdefault((FAILED if stops else WARNING, what, each.remedy), []).append(each.secret)
    for (status, what, remedy), names in alike.items():
        subject = "" if names == ["*"] else f"{', '.join(names)}: "
        yield Check("secrets", status, f"{subject}{what}", remedy)
    if not alike:
        yield Check("secrets", OK, f"complete and strong in {relative(env.secrets_dir)}")


def check_folder(env: Environment, containers: Sequence[Container], state: State) -> Iterator[Check]:
    """Containers that mount files of another folder, and whether the secrets they use are here."""
    folder, names = elsewhere.missing_secrets(env, containers, state)
    if names:
        error = elsewhere.without_secrets(env, folder, names)
        yield Check("folder", FAILED, error.message, error.remedy)
    for line in elsewhere.explain(containers, env.project_dir):
        yield Check("folder", WARNING, line)


def check_certificate(
    env: Environment, validate: Callable[[Environment], Any], issuable: Callable[[Environment], bool]
) -> Check:
    """The TLS certificate. issuable: whether a deploy may make one when it is missing or unfit."""
    try:
        certificate = validate(env)
    except OpsError as error:
        if not issuable(env):
            return Check("certificate", FAILED, error.message, error.remedy)
        return Check("certificate", OK, "a deploy makes one, signed by a local authority")
    detail = f"{', '.join(certificate.names)}; {certificate.days_left} days left"
    if certificate.warning:
        return Check("certificate", WARNING, certificate.warning, "Append it: fullchain.pem, not cert.pem.")
    return Check("certificate", OK if certificate.days_left > CERTIFICATE_DAYS else WARNING, detail)


def engine_info() -> dict[str, Any]:
    """What the engine says of itself. Raises OpsError when there is none, or it does not answer."""
    info: dict[str, Any] = engine.docker("info", "--format", "{{json .}}").json()
    return info


def compose_version() -> str:
    """The version of Compose. Raises OpsError when there is none."""
    return engine.docker("compose", "version", "--short").stdout.strip()


def check_versions(info: Mapping[str, Any], compose: str) -> list[Check]:
    """The versions of the engine, which has said so in `info`, and of Compose."""
    return [
        check_version("engine", info.get("ServerVersion", ""), ENGINE_MINIMUM),
        check_version("compose", compose, COMPOSE_MINIMUM),
    ]


def of(env: Environment, decided: Plan) -> list[Check]:
    """Every check for what a deploy is about to do; none when that is nothing."""
    beside = {each.service.name: each.fresh for each in decided.moves}
    return [] if decided.idle else run(env, decided.seen.stack, decided.seen.containers, beside)


def run(
    env: Environment, stack: Stack, containers: Sequence[Container], beside: Mapping[str, int] | None = None
) -> list[Check]:
    """Every check for an environment, side by side: most of it is waiting for docker. beside: as of memory_needed."""
    from ops.parts import postgres
    from ops.parts.postgres import connections, majors
    from ops.secrets import certificates
    from ops.secrets.check import check

    with engine.pool(6) as pool:
        secrets = pool.submit(check, env)
        said = pool.submit(engine_info)
        compose = pool.submit(compose_version)
        bridges = pool.submit(engine.docker, "network", "ls", "--filter", "driver=bridge", "--format", "{{.Name}}")
        state = pool.submit(memory.load, env)
        databases = pool.submit(lambda: [*majors.check(env, stack, containers)])
    info = said.result()
    listed = bridges.result().stdout.split()
    root = Path(info.get("DockerRootDir", "/"))
    # With an engine elsewhere (a virtual machine, another host) its folders and memory are not ours to measure.
    here = root.is_dir()
    where = root if here else env.project_dir
    total = int(info.get("MemTotal", 0))
    names = {f"{stack.name}_{name}" for each in stack.services.values() for name in each.networks}
    ports = [port for service in stack.services.values() for port in service.ports]
    nodes = {name: each.memory_limit for name, each in stack.services.items() if name in postgres.NODES}
    return [
        *check_versions(info, compose.result()),
        *check_settings(env),
        *hooks.check(env),
        *(host.check_addresses(env, ports) if here else ()),
        *host.check_ca_bundle(env),
        *(host.check_overcommit(env, stack) if here else ()),
        *host.check_networks(names, listed, len(listed), bool(info.get("DefaultAddressPools"))),
        *host.check_shared_buffers(env, nodes),
        connections.check(env, stack),
        check_readable(stack, env),
        *check_ports(stack, containers, holder=port_holder, setting=lambda number: setting_of(env, number)),
        check_disk(shutil.disk_usage(where).free, str(where)),
        check_memory(*memory_needed(stack, containers, beside), available_memory(total) if here else total),
        *check_secrets(env, secrets.result()),
        *check_folder(env, containers, state.result()),
        check_certificate(env, lambda env: certificates.validate(env, pools.hosts(stack)), certificates.issuable),
        *databases.result(),
    ]


def port_holder(port: Port) -> str:
    """The container that publishes a port, when it is a container."""
    where = f"publish={port.number}/{port.protocol}"
    done = engine.docker("ps", "--filter", where, "--format", "container {{.Names}}", check=False)
    return done.stdout.strip().splitlines()[0] if done.ok and done.stdout.strip() else ""
