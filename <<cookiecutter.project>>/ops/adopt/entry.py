"""The entry of a service in docker-compose.services.yml, written as a person would write it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ops.adopt import composefile

PYTHON, NODE, GO, DOCKERFILE, IMAGE = "python", "node", "go", "dockerfile", "image"
KINDS = (PYTHON, NODE, GO, DOCKERFILE, IMAGE)
# Made by service-add; the others are there already.
MADE = (PYTHON, NODE, GO)
# Where the services that are made listen.
PORTS = {PYTHON: 8000, NODE: 3000, GO: 8080}
READY = "/health/ready"
_HEALTH = {
    NODE: "[CMD, node, -e, \"fetch('http://127.0.0.1:{port}/health/ready')"
    '.then((a) => process.exit(a.ok ? 0 : 1), () => process.exit(1))"]',
    GO: "[CMD, /{module}, healthy]",
}


@dataclass(frozen=True)
class Wanted:
    """A service that is to be added. kind: one of KINDS; image: of IMAGE; route: the public path ("/shop"; "/": all
    that no other service takes), host: the host name of its own, port: where it takes requests (0: nowhere); ready: how
    it says that it is ready ("": by its health check); schema, database, queue, cache: what it uses of the data tier;
    volume: where it keeps files; job: it runs to its end, when a person says so; schedule: or at these times; internal:
    other services call it."""

    name: str
    kind: str
    image: str = ""
    route: str = ""
    host: str = ""
    port: int = 0
    ready: str = ""
    schema: bool = False
    database: bool = False
    queue: bool = False
    cache: bool = False
    volume: str = ""
    job: bool = False
    schedule: str = ""
    internal: bool = False

    @property
    def module(self) -> str:
        """Its name where a hyphen cannot stand: the Python package, the role in PostgreSQL, the user in RabbitMQ."""
        return self.name.replace("-", "_")

    @property
    def prefix(self) -> str:
        """What its settings and secrets begin with: SHOP."""
        return self.module.upper()

    @property
    def folder(self) -> str:
        """Where its source is. For Python it is the package's name, which services/Dockerfile goes by."""
        return f"services/{self.module if self.kind == PYTHON else self.name}"

    @property
    def base_path(self) -> str:
        """What its public paths begin with: "" at the root of the site."""
        return self.route.rstrip("/")

    @property
    def ends(self) -> bool:
        """Whether it runs to its end."""
        return self.job or bool(self.schedule)

    @property
    def stored(self) -> bool:
        """Whether it has something in PostgreSQL."""
        return self.schema or self.database

    @property
    def serves(self) -> bool:
        """Whether it takes requests through the edge."""
        return bool(self.route or self.host or self.internal)

    @property
    def migrations(self) -> str:
        """The name of the job that migrates its schema; "" when it has none."""
        return f"{self.name}-migrate" if self.kind == PYTHON and self.stored and not self.ends else ""

    @property
    def secrets(self) -> list[str]:
        """The secrets that it reads."""
        return [
            *([f"{self.prefix}_DB_PASSWORD"] if self.stored else []),
            *([f"{self.prefix}_RABBITMQ_PASSWORD"] if self.queue else []),
            *([f"{self.prefix}_REDIS_PASSWORD"] if self.cache else []),
        ]

    @property
    def volume_name(self) -> str:
        """The volume that it keeps files in."""
        return f"{self.module}_data"


def completed(wanted: Wanted) -> Wanted:
    """What was asked for, with what follows from it: the port and readiness of a service that is made, no slash at the
    end of its route."""
    route = wanted.route.rstrip("/") or wanted.route[:1]
    port, ready = wanted.port, wanted.ready
    if wanted.kind in MADE and wanted.serves:
        port, ready = port or PORTS[wanted.kind], ready or READY
    elif wanted.kind in (DOCKERFILE, IMAGE) and wanted.serves:
        ready = ready or "tcp"
    return replace(wanted, route=route, port=port, ready=ready)


def put(text: str, wanted: Wanted, declared: Collection[str] = ()) -> str:
    """The text of docker-compose.services.yml with a service in it. declared: secrets that other files declare."""
    for lines in services(wanted):
        text = composefile.insert(text, "services", lines)
    if wanted.volume:
        text = composefile.insert(text, "volumes", volumes(wanted))
    for name in wanted.secrets:
        if name not in declared and name not in composefile.names(text, "secrets"):
            text = composefile.insert(text, "secrets", secret(name))
    return text


def services(wanted: Wanted) -> list[list[str]]:
    """The entries for `services:`, a list of lines each: the service, and the job that migrates its schema."""
    entries = [[f"  {wanted.name}:", *(f"    {line}" if line else "" for line in _service(wanted))]]
    if wanted.migrations:
        entries.append([f"  {wanted.migrations}:", *(f"    {line}" for line in _migrations(wanted))])
    return entries


def volumes(wanted: Wanted) -> list[str]:
    """The line for `volumes:`, if it needs one."""
    return [f"  {wanted.volume_name}:"] if wanted.volume else []


def secret(name: str) -> list[str]:
    """The line for `secrets:` of a secret."""
    return [f'  {name}: {{file: "./config/${{ENVIRONMENT}}/secrets/{name}"}}']


def _service(wanted: Wanted) -> Iterator[str]:
    base = "hardened" if wanted.kind != PYTHON else "python-job" if wanted.ends else "python"
    if wanted.kind in (DOCKERFILE, IMAGE):
        yield "# `hardened`: it writes to volumes and /tmp only, and has no capabilities. Give an image more here:"
        yield "# read_only: false, cap_add: [CHOWN, SETGID, SETUID], or a tmpfs for each folder that it writes to"
    yield f"extends: {{file: infrastructure/service.yml, service: {base}}}"
    yield from _image(wanted)
    if wanted.ends:
        if wanted.kind == PYTHON:
            yield f"command: [python, -m, {wanted.module}]"
        yield 'restart: "no" # it runs to its end'
    if wanted.kind in (NODE, GO):
        yield 'user: "10001:10001"'
    yield from _labels(wanted)
    yield from _environment(wanted)
    if wanted.secrets:
        yield f"secrets: [{', '.join(wanted.secrets)}]"
    if wanted.volume:
        yield f'volumes: ["{wanted.volume_name}:{wanted.volume}"]'
    if wanted.kind != PYTHON:
        yield 'tmpfs: ["/tmp:mode=1777,size=64m"]'
    yield from _networks(wanted)
    yield from _depends_on(wanted)
    if wanted.kind in _HEALTH and not wanted.ends:
        port = wanted.port or PORTS[wanted.kind]
        yield "healthcheck:"
        yield f"  test: {_HEALTH[wanted.kind].format(port=port, module=wanted.module)}"
        yield from ("  interval: 30s", "  timeout: 5s", "  start_period: 60s", "  start_interval: 2s")
    if wanted.kind in (NODE, GO) and not wanted.ends:
        yield "stop_grace_period: 45s # DRAIN_SECONDS, 20 s for requests that are open, and some more"
    if wanted.kind != IMAGE:
        yield from ("develop:", "  watch:")
        path = f"./{wanted.folder}/{wanted.module}" if wanted.kind == PYTHON else f"./{wanted.folder}"
        yield f"    - {{action: rebuild, path: {path}}}"
    yield "deploy:"
    if not wanted.ends:
        yield f"  replicas: ${{{wanted.prefix}_REPLICAS:-1}}"
    yield from ("  resources:", "    limits:")
    yield f"      cpus: ${{{wanted.prefix}_CPUS:-0.5}}"
    yield f"      memory: ${{{wanted.prefix}_MEMORY:-256m}}"
    yield "      pids: 128"


def _image(wanted: Wanted) -> Iterator[str]:
    if wanted.kind == IMAGE:
        yield f"image: {wanted.image}"
        return
    yield f"image: ${{IMAGE_PREFIX}}/{wanted.name}:${{IMAGE_TAG}}"
    yield "build:"
    if wanted.kind == PYTHON:
        if wanted.ends:
            yield "  target: production # the dev image waits for changes of its source, this one must end"
        yield from ("  args:", f"    SERVICE: {wanted.module}")
        return
    yield f"  context: ./{wanted.folder}"
    yield from ("  args:", "    REGISTRY_MIRROR: ${REGISTRY_MIRROR}")
    yield from ("  labels:", "    ops.project: ${COMPOSE_PROJECT_NAME} # old images are removed by it")
    yield "  secrets: [ca_bundle] # for networks that inspect TLS; only a Dockerfile that asks for it gets it"


def _labels(wanted: Wanted) -> Iterator[str]:
    found: list[str] = []
    if wanted.serves:
        found.append(f"ops.port: {wanted.port}")
        found += [f"ops.route: {wanted.base_path}/"] if wanted.route else []
        found += [f"ops.host: {wanted.host}"] if wanted.host else []
        found += ['ops.internal: "true"'] if wanted.internal else []
        found += [f"ops.ready: {wanted.ready}"] if wanted.ready else []
        found += ["ops.live: /health/live", f"ops.smoke: {wanted.base_path}/"] if wanted.kind in MADE else []
    if wanted.kind in MADE and not wanted.ends:
        found.append(
            "ops.metrics: " + ("/metrics" if wanted.serves else f"{wanted.port or PORTS[wanted.kind]}/metrics")
        )
    if wanted.schema:
        found.append(f"ops.schema: {wanted.module}")
    if wanted.database:
        found.append(f"ops.database: {wanted.module}")
    if wanted.stored and not wanted.ends:
        found.append("ops.database-connections: 5 # at most, of one container: its pool")
    if wanted.queue:
        found.append(f"ops.rabbitmq: {wanted.module}")
        found.append(f"ops.rabbitmq.definitions: {wanted.folder}/rabbitmq.json")
    if wanted.cache:
        found.append(f"ops.redis: {wanted.module}")
    if wanted.volume:
        found.append(f"ops.backup: {wanted.volume_name}")
        if wanted.kind in MADE:
            found.append(
                "ops.rollout: rolling # two containers share the files in a rollout; restart, when they must not"
            )
        elif not wanted.ends:
            found.append(
                "ops.rollout: restart # stopped before its successor starts; rolling, when both may share the files"
            )
    if wanted.job:
        found.append("ops.job: manual")
    if wanted.schedule:
        found.append(f'ops.schedule: "{wanted.schedule}"')
    if found:
        yield "labels:"
        yield from (f"  {each}" for each in found)


def _environment(wanted: Wanted) -> Iterator[str]:
    found: list[str] = []
    if wanted.kind == PYTHON:
        found.append(f"SERVICE_NAME: {wanted.name}")
    if wanted.kind in MADE and not wanted.ends:
        if wanted.port and wanted.port != PORTS[wanted.kind]:
            found.append(f'PORT: "{wanted.port}"')
        if wanted.base_path:
            found.append(f"BASE_PATH: {wanted.base_path}")
        if wanted.kind != PYTHON:
            found.append("DRAIN_SECONDS: ${DRAIN_SECONDS}")
    if wanted.stored:
        found.append("DATABASE_HOSTS: ${DATABASE_HOSTS}")
        found.append(f"DATABASE_NAME: {wanted.module if wanted.database else '${POSTGRES_DB}'}")
        found.append(f"DATABASE_USER: {wanted.module}")
    if wanted.queue:
        found += ["RABBITMQ_HOSTS: ${RABBITMQ_HOSTS}", f"RABBITMQ_USER: {wanted.module}"]
    if wanted.cache:
        found += ["REDIS_HOST: redis-primary", 'REDIS_PORT: "6379"', "REDIS_SENTINELS: ${REDIS_SENTINELS}"]
        found += [f"REDIS_USER: {wanted.module}", f'REDIS_PREFIX: "{wanted.module}:" # its own keys and channels']
    if found:
        yield "environment:"
        yield from (f"  {each}" for each in found)


def _networks(wanted: Wanted) -> Iterator[str]:
    yield "networks:"
    if wanted.serves:
        yield f"  serving: {{aliases: [{wanted.name}.serving]}}"
    yield "  backend:"
    if wanted.stored or wanted.queue or wanted.cache:
        yield "  database:"
    if wanted.kind in MADE and not wanted.ends:
        yield "  scrape:"


def _depends_on(wanted: Wanted) -> Iterator[str]:
    if wanted.migrations:
        yield from ("depends_on:", f"  {wanted.migrations}: {{condition: service_completed_successfully}}")


def _migrations(wanted: Wanted) -> Iterator[str]:
    yield "extends: {file: infrastructure/service.yml, service: python-job}"
    yield f"image: ${{IMAGE_PREFIX}}/{wanted.migrations}:${{IMAGE_TAG}}"
    yield "build:"
    yield "  target: production # the dev image waits for changes of its source, this one must end"
    yield from ("  args:", "    SERVICE: migrate", f"    PACKAGES: {wanted.module}")
    yield 'restart: "no" # it runs to its end'
    yield from (
        "labels:",
        "  ops.job: migration",
        f"  ops.{'database' if wanted.database else 'schema'}: {wanted.module}",
    )
    yield "environment:"
    yield f"  SERVICE_NAME: {wanted.migrations}"
    yield f"  MIGRATE: {wanted.module}"
    yield "  DATABASE_HOSTS: ${DATABASE_HOSTS}"
    yield f"  DATABASE_NAME: {wanted.module if wanted.database else '${POSTGRES_DB}'}"
    yield f"secrets: [{wanted.prefix}_DB_PASSWORD]"
    yield "networks: [database]"
    yield from ("deploy:", "  resources:", "    limits:", '      cpus: "1"', "      memory: 256m", "      pids: 64")
