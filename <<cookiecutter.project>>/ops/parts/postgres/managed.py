"""PostgreSQL outside of the stack, as a provider runs it (docker-compose.postgres-managed.yml).

It is asked from the container postgres-client, which is where the services are, as the roles of the services and with
their passwords: nothing here needs an administrator of the server. What is missing there, its administrator makes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from ops import engine
from ops.base import libpq
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.parts.probes import Check
from ops.secrets.files import read
from ops.stack import labels
from ops.stack.owned import Owned, Role

SERVICE = labels.POSTGRES_CLIENT
# libpq tries each host for so long. A probe has twice that, and another half for its answer.
_CONNECT_SECONDS = 4
_ANSWER_SECONDS = 10

# The password comes first on the standard input: not on a command line, and in no environment but that of psql.
_WITH_PASSWORD = 'IFS= read -r PGPASSWORD; export PGPASSWORD; exec "$@"'
_ASK = """
SELECT json_build_object(
  'version', current_setting('server_version'),
  'tls', (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()),
  'reads', (SELECT pg_has_role(oid, 'USAGE') FROM pg_roles WHERE rolname = 'pg_read_all_data'),
  'schema', has_schema_privilege(to_regnamespace(:'schema')::oid, 'CREATE'));
"""


@dataclass(frozen=True)
class Answer:
    """What the server says to a role. problem: why it lets the role not in, or what the role lacks, in words; "" when
    it is as declared; statements: what its administrator does about it, in SQL; remedy: the same, or what else to do.
    """

    role: Role
    version: str = ""
    tls: str = ""
    problem: str = ""
    statements: tuple[str, ...] = ()
    remedy: str = ""


def here(env: Environment) -> bool:
    """Whether the PostgreSQL of an environment is outside of the stack."""
    return labels.MANAGED_FILE in env.values.get("COMPOSE_FILE", "").split(":")


def hosts(env: Environment) -> list[str]:
    """Where the server is: HOST:PORT, as DATABASE_HOSTS says."""
    return [*libpq.addresses(env.values.get("DATABASE_HOSTS", ""), "5432")]


def shown(env: Environment) -> str:
    """The server as messages name it."""
    return ", ".join(hosts(env))


def conninfo(env: Environment, user: str, database: str) -> str:
    """A connection string of libpq to whichever host takes writes, without a password. How the connection is protected,
    the container's environment says."""
    parts = {
        "user": libpq.quoted(user),
        "dbname": libpq.quoted(database),
        "target_session_attrs": "read-write",
        "connect_timeout": str(_CONNECT_SECONDS),
        "application_name": "health",
    }
    return libpq.conninfo(hosts(env), parts)


def client(env: Environment, containers: Iterable[Container]) -> Container:
    """The container to ask from. Raises OpsError when it does not run."""
    if found := next((each for each in containers if each.service == SERVICE and each.running), None):
        return found
    raise OpsError(f"{SERVICE} is not running in {env.name}.", f"invoke deploy --env {env.name}")


def look(env: Environment, roles: Sequence[Role], container: Container) -> list[Answer]:
    """Log in as every role, at once; in their order."""
    if not roles:
        return []
    with engine.pool(min(8, len(roles))) as pool:
        return list(pool.map(partial(ask, env, container), roles))


def ask(env: Environment, container: Container, role: Role) -> Answer:
    """Log in as a role, from a container."""
    common = env.values.get("POSTGRES_DB", "postgres")
    if not (password := read(env, role.secret)):
        return Answer(role, problem=f"the secret {role.secret} is missing or empty", remedy=f"Write it: {role.secret}")
    argv = ("bash", "-c", _WITH_PASSWORD, "bash", "psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only")
    options = ("--no-align", "--set=ON_ERROR_STOP=1", f"--set=schema={role.schema or 'public'}")
    target = conninfo(env, role.name, role.database or common)
    try:
        done = engine.exec_(
            container.id, [*argv, *options, target], input=f"{password}\n{_ASK}", check=False, timeout=_ANSWER_SECONDS
        )
    except OpsError as error:
        return Answer(role, problem=f"no answer: {error.message}", remedy=_REACH)
    if not done.ok:
        if known := engine.explain(done.stderr):
            return Answer(role, problem=known.message, remedy=known.remedy)
        return refusal(role, common, done.stderr)
    return judge(role, common, done.stdout)


def judge(role: Role, common: str, text: str) -> Answer:
    """What an answer of the server means. text: JSON, as _ASK makes it; common: the name of the common database."""
    found = json.loads(text)
    problem, needed = "", tuple[str, ...]()
    if role.schema and found["schema"] is None:
        problem, needed = f"has no schema {role.schema}", (statements(role, common)[2],)
    elif role.schema and not found["schema"]:
        problem = f"does not let the role {role.name} create tables in the schema {role.schema}"
        needed = (f'ALTER SCHEMA "{role.schema}" OWNER TO "{role.name}"',)
    elif role.copies and not found["reads"]:
        problem, needed = f"does not let the role {role.name} read every table", (_reads(role),)
    return Answer(
        role,
        str(found["version"]).split()[0],
        found["tls"] or "",
        problem,
        needed,
        _made_by_administrator(needed, common),
    )


_REACH = "Check DATABASE_HOSTS, the provider's firewall and its list of allowed addresses."
# What libpq says, and what to do about it. The first that fits counts.
_REFUSALS = (
    (
        r"certificate verify failed|root certificate|no valid hostname|does not match host name|server certificate",
        "Write the certificate of the provider's authority to config/<env>/postgres/ca.crt and set"
        " DATABASE_SSLROOTCERT=/etc/postgres/ca.crt. DATABASE_HOSTS must name the server as its certificate does.",
    ),
    (
        r"server does not support SSL",
        "Switch TLS on at the server. Without it passwords and data cross the network unprotected:"
        " DATABASE_SSLMODE=disable.",
    ),
    (
        r"no pg_hba\.conf entry .*no encryption|SSL/TLS required|SSL connection is required",
        "The server asks for TLS: set DATABASE_SSLMODE=verify-full.",
    ),
    (r"no pg_hba\.conf entry", "Let the role in from this address at the provider (pg_hba.conf, allowed addresses)."),
    (r"session is (not read-write|read-only)", "DATABASE_HOSTS names a server that takes no writes."),
)


def refusal(role: Role, common: str, said: str) -> Answer:
    """What it means that the server let a role not in. said: what psql wrote."""
    lines = [line.strip() for line in said.strip().splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"error:|failed:|FATAL", line)]
    reason = re.sub(r"^psql: error: ", "", (told or lines or ["it gave no reason"])[-1])
    everything = statements(role, common)
    if re.search(r"password authentication failed|no password supplied|role .* does not exist", said):
        # A server does not say which of the two it is: a role that is not there, or another password.
        problem = f"does not accept the password in {role.secret} for the role {role.name}"
        needed = everything
    elif re.search(r'database ".*" does not exist', said):
        problem = f"has no database {role.database or common}"
        needed = (everything[2] if role.database else f'CREATE DATABASE "{common}"',)
    elif re.search(r"permission denied for database", said):
        problem, needed = f"does not let the role {role.name} into {role.database or common}", (_connect(role, common),)
    else:
        remedy = next((remedy for pattern, remedy in _REFUSALS if re.search(pattern, said)), _REACH)
        return Answer(role, problem=f"refuses or does not answer: {reason}", remedy=remedy)
    return Answer(role, problem=problem, statements=needed, remedy=_made_by_administrator(needed, common))


def statements(role: Role, common: str) -> tuple[str, ...]:
    """What an administrator of the server runs to make everything that a role needs, in this order."""
    name = f'"{role.name}"'
    login = (f"CREATE ROLE {name}", f"ALTER ROLE {name} LOGIN PASSWORD 'the value of the secret {role.secret}'")
    if role.copies:
        return (*login, _connect(role, common), _reads(role))
    if role.database:
        return (*login, f'CREATE DATABASE "{role.database}" OWNER {name}')
    return (
        *login,
        f"CREATE SCHEMA {name} AUTHORIZATION {name}",
        f"ALTER ROLE {name} SET search_path = {name}",
        _connect(role, common),
    )


def _connect(role: Role, common: str) -> str:
    return f'GRANT CONNECT ON DATABASE "{role.database or common}" TO "{role.name}"'


def _reads(role: Role) -> str:
    return f'GRANT pg_read_all_data TO "{role.name}"'


def _made_by_administrator(needed: Sequence[str], common: str) -> str:
    """Those of the statements that are not made yet. common: where a schema is made."""
    return f"As its administrator, in {common}, what of this is missing: {'; '.join(needed)};" if needed else ""


# ── a deploy ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def refuse_missing(env: Environment, owned: Owned, container: Container) -> None:
    """Raise OpsError when a role cannot use the server as declared: REFUSED for what somebody must make there, and for
    a server that does not answer."""
    lacking = [each for each in look(env, owned.roles, container) if each.problem]
    if not lacking:
        return
    # A server that is away is so for every role.
    said = list(dict.fromkeys(each.problem for each in lacking))
    needed = list(dict.fromkeys(statement for each in lacking for statement in each.statements))
    remedies = list(dict.fromkeys(each.remedy for each in lacking if not each.statements))
    if needed:
        remedies.append(_made_by_administrator(needed, env.values.get("POSTGRES_DB", "postgres")))
    raise OpsError(f"PostgreSQL at {shown(env)} {'; '.join(said)}.", " ".join(remedies), REFUSED)


# ── health ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def checks(env: Environment, owned: Owned, container: Container) -> Iterator[Check]:
    """The server, as every role of the services finds it."""
    answers = look(env, owned.roles, container)
    if not answers:
        yield Check("postgres", "managed", "warn", f"{shown(env)}: no service has a role that it could be asked as")
        return
    well = [each for each in answers if not each.problem]
    if well:
        yield _server(env, well[0])
    # A server that is away, or whose certificate is not accepted, is so for every role.
    told: dict[str, Answer] = {each.problem: each for each in reversed(answers) if each.problem}
    for problem, each in reversed(told.items()):
        target = each.role.name if well or len(told) > 1 else "managed"
        remedy = f": {each.remedy}" if each.remedy else ""
        yield Check("postgres", target, "fail", f"{shown(env)} {problem}{remedy}")
    if len(well) == len(answers):
        names = ", ".join(owned.claimants(owned.roles))
        yield Check("postgres", "services", "ok", f"the services {names} log in, and have what they declare")


def _server(env: Environment, answer: Answer) -> Check:
    protected = answer.tls or "without TLS"
    detail = f"managed, PostgreSQL {answer.version} at {shown(env)}, takes writes, {protected}"
    return Check("postgres", "managed", "ok" if answer.tls else "warn", detail)
