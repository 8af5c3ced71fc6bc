"""Roles, schemas and databases of the services: what the running primary lacks of what labels declare, and making it.

Everything is made by psql in the primary, without a restart, and can be made again. What is there is never taken away:
a service that is removed leaves its data. A limit or search path that somebody has set for a role by hand stays.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import REFUSED, OpsError
from ops.engine import Container
from ops.parts import postgres
from ops.secrets.files import read
from ops.stack.owned import Owned, Role

# Who of it may connect over the network: infrastructure/postgres/pg_hba.conf. The superuser is no member.
GROUP = "services"
# A request has given up long before this, so the database may too. Migrations set their own limits.
LIMITS = {"statement_timeout": "15s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "30s"}

# Settings of a role that hold in every database. Has a role the right to connect, and has everybody?
_LOOK = """
SELECT json_build_object(
  'roles', (SELECT json_object_agg(rolname, json_build_object(
      'password', coalesce(rolpassword, ''), 'login', rolcanlogin, 'superuser', rolsuper,
      'settings', (SELECT coalesce(json_agg(split_part(setting, '=', 1)), '[]')
        FROM pg_db_role_setting s, unnest(s.setconfig) AS setting WHERE s.setrole = a.oid AND s.setdatabase = 0),
      'member', EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
        WHERE m.member = a.oid AND g.rolname = 'services'),
      'connects', has_database_privilege(a.oid, current_database(), 'CONNECT'),
      'copies', rolreplication AND rolbypassrls AND pg_has_role(a.oid, 'pg_read_all_data', 'USAGE')
        AND pg_has_role(a.oid, 'pg_read_all_stats', 'USAGE'),
      'pauses', has_function_privilege(a.oid, 'pg_wal_replay_pause()', 'EXECUTE')
        AND has_function_privilege(a.oid, 'pg_wal_replay_resume()', 'EXECUTE'),
      'closed', (SELECT coalesce(json_agg(datname), '[]') FROM pg_database d
        WHERE datallowconn AND NOT has_database_privilege(a.oid, d.oid, 'CONNECT'))))
    FROM pg_authid a WHERE rolname NOT LIKE 'pg\\_%'),
  'schemas', (SELECT json_object_agg(nspname, pg_get_userbyid(nspowner)) FROM pg_namespace),
  'databases', (SELECT json_object_agg(datname, json_build_object(
      'owner', pg_get_userbyid(datdba), 'public', has_database_privilege('public', oid, 'CONNECT'))) FROM pg_database));
"""
# A failed or slow statement would be logged with the password in it.
_QUIETLY = """
SET log_min_error_statement = panic;
SET log_min_duration_statement = -1;
SET log_statement = none;
SET client_min_messages = warning;
"""


@dataclass(frozen=True)
class Step:
    """Something that is missing: what, in words, and the statement that makes it. alone: not within a transaction."""

    cause: str
    statement: str
    alone: bool = False


def missing(env: Environment, owned: Owned, container: Container, database: str = "") -> dict[Role, tuple[str, ...]]:
    """What each role lacks in the running primary, in words; only of roles that lack something.

    database: in place of the common one. Raises OpsError when it cannot be asked, and (REFUSED) when something of that
    name belongs to somebody else.
    """
    found = _look(env, container, database)
    common = database or env.values["POSTGRES_DB"]
    needs = {role: steps(role, found, common, read(env, role.secret)) for role in owned.roles}
    return {role: tuple(dict.fromkeys(step.cause for step in needed)) for role, needed in needs.items() if needed}


def provide(env: Environment, owned: Owned, container: Container, database: str = "") -> None:
    """Make what is missing in the running primary; arguments and errors as of `missing`."""
    if not owned.roles:
        return
    _provide(env, owned, container, database)
    if any(role.copies for role in owned.roles):
        # Of a database that was made just now.
        _provide(env, owned, container, database)


def _provide(env: Environment, owned: Owned, container: Container, database: str) -> None:
    found = _look(env, container, database)
    common = database or env.values["POSTGRES_DB"]
    needed: list[Step] = []
    for role in owned.roles:
        mine = steps(role, found, common, password := read(env, role.secret))
        if mine and not password:
            raise OpsError(
                f"The secret {role.secret} is missing or empty.", f"invoke secret-init --env {env.name}", REFUSED
            )
        needed += mine
    if needed:
        argv = postgres.psql(env, "--file=-", database=common)
        done = engine.exec_(container.id, argv, input=script(needed), check=False)
        if not done.ok:
            raise engine.explain(done.stderr) or OpsError(f"PostgreSQL: {engine.reason(done.stderr)}")


def script(needed: list[Step]) -> str:
    """What psql is told: everything in one transaction, but for what cannot be."""
    together = [f"{step.statement};" for step in needed if not step.alone]
    alone = [f"{step.statement};" for step in needed if step.alone]
    group = f"SELECT 'CREATE ROLE {GROUP}' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{GROUP}')\n\\gexec"
    return "\n".join([_QUIETLY, "BEGIN;", group, *together, "COMMIT;", *alone]) + "\n"


def steps(role: Role, found: Mapping[str, Any], common: str, password: str) -> list[Step]:
    """What is missing of a role. found: what the primary says of itself; common: the name of the common database.

    Raises OpsError (REFUSED) when something of that name belongs to somebody else.
    """
    name, there = identifier(role.name), found["roles"].get(role.name, {})
    _refuse_foreign(role, found, there)
    if role.copies:
        return _copying(role, there, found, password)
    kind = "a database" if role.database else "a schema"
    needed: list[Step] = []

    def need(lacks: bool, cause: str, *statements: str, alone: bool = False) -> None:
        if lacks:
            needed.extend(Step(cause, statement, alone) for statement in statements)

    change = f"ALTER ROLE {name} LOGIN PASSWORD {literal(password)}"
    if not there:
        need(True, f"PostgreSQL has no role {role.name}", f"CREATE ROLE {name}", change)
    else:
        accepted = there["login"] and (not password or accepts(there["password"], password))
        need(not accepted, f"PostgreSQL does not accept the password in {role.secret}", change)
    need(not there.get("member"), f"role {role.name} may not connect yet", f"GRANT {GROUP} TO {name}")
    if role.schema:
        connect = f"GRANT CONNECT ON DATABASE {identifier(common)} TO {name}"
        need(not there.get("connects"), f"role {role.name} may not connect to {common}", connect)
        create = f"CREATE SCHEMA {name} AUTHORIZATION {name}"
        need(role.schema not in found["schemas"], f"PostgreSQL has no schema {role.schema}", create)
    settings = there.get("settings", ())
    if role.schema:
        path = f"ALTER ROLE {name} SET search_path = {name}"
        need("search_path" not in settings, f"role {role.name} has no search path", path)
    limits = [f"ALTER ROLE {name} SET {key} = '{value}'" for key, value in LIMITS.items() if key not in settings]
    need(bool(limits), f"role {role.name} has no limits", *limits)
    if role.database:
        database = identifier(role.database)
        here = found["databases"].get(role.database)
        create = f"CREATE DATABASE {database} OWNER {name} TEMPLATE template0"
        need(not here, f"PostgreSQL has no database {role.database}", create, alone=True)
        close = f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
        need(not here or here["public"], f"database {role.database} is open to every role", close, alone=True)
    # One cause for everything that comes with a new role.
    if not there:
        return [Step(f"PostgreSQL has no role {role.name} with {kind}", each.statement, each.alone) for each in needed]
    return needed


def _copying(role: Role, there: Mapping[str, Any], found: Mapping[str, Any], password: str) -> list[Step]:
    """What is missing of the role that backups are taken as: it receives WAL and sees how far it is, reads every table,
    and holds replay on a standby for a moment."""
    name = identifier(role.name)
    change = f"ALTER ROLE {name} LOGIN REPLICATION BYPASSRLS PASSWORD {literal(password)}"
    read = f"GRANT pg_read_all_data, pg_read_all_stats TO {name}"
    pause = f"GRANT EXECUTE ON FUNCTION pg_wal_replay_pause(), pg_wal_replay_resume() TO {name}"
    closed = there["closed"] if there else list(found["databases"])
    connect = [f"GRANT CONNECT ON DATABASE {identifier(each)} TO {name}" for each in closed if each != "template0"]
    if not there:
        cause = f"PostgreSQL has no role {role.name} to take backups as"
        return [Step(cause, each) for each in (f"CREATE ROLE {name}", change, read, pause, *connect)]
    needed = []
    if not (there["login"] and (not password or accepts(there["password"], password))):
        needed.append(Step(f"PostgreSQL does not accept the password in {role.secret}", change))
    if not there["copies"]:
        needed += [Step(f"role {role.name} may not copy everything", each) for each in (change, read)]
    if not there["pauses"]:
        needed.append(Step(f"role {role.name} may not pause the replay of a standby", pause))
    needed += [Step(f"role {role.name} may not connect to every database", each) for each in connect]
    return needed


def _refuse_foreign(role: Role, found: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    if there.get("superuser"):
        raise _foreign(role, f"the role {role.name} is a superuser", "Give the service another name for its role.")
    owner = found["schemas"].get(role.schema or None, role.name)
    if owner != role.name:
        statement = f'ALTER SCHEMA "{role.schema}" OWNER TO "{role.name}"'
        raise _foreign(
            role, f"the schema {role.schema} belongs to {owner}", f"Choose another name, or, in psql: {statement}"
        )
    owner = found["databases"].get(role.database or None, {}).get("owner", role.name)
    if owner != role.name:
        statement = f'ALTER DATABASE "{role.database}" OWNER TO "{role.name}"'
        raise _foreign(
            role, f"the database {role.database} belongs to {owner}", f"Choose another name, or, in psql: {statement}"
        )


def _foreign(role: Role, what: str, remedy: str) -> OpsError:
    return OpsError(f"PostgreSQL, for {', '.join(role.services)}: {what}.", remedy, REFUSED)


def _look(env: Environment, container: Container, database: str) -> dict[str, Any]:
    done = engine.exec_(container.id, postgres.psql(env, database=database), input=_LOOK, check=False)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{container.service}: {engine.reason(done.stderr)}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def accepts(verifier: str, password: str) -> bool:
    """Whether PostgreSQL accepts a password, by the verifier that it keeps (SCRAM-SHA-256$iterations:salt$stored:…).

    Of one that is not ASCII nobody can tell here: PostgreSQL normalises it (SASLprep). It counts as accepted.
    """
    if not password.isascii():
        return bool(verifier)
    try:
        method, parameters, keys = verifier.split("$")
        iterations, salt = parameters.split(":")
        stored = base64.b64decode(keys.split(":")[0], validate=True)
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    client = hmac.digest(salted, b"Client Key", "sha256")
    return method == "SCRAM-SHA-256" and hmac.compare_digest(hashlib.sha256(client).digest(), stored)


def _doubled(quote: str) -> Callable[[str], str]:
    return lambda text: quote + text.replace(quote, 2 * quote) + quote


# As SQL writes them. psql replaces nothing within quotes, and a backslash is a character like any other.
identifier, literal = _doubled('"'), _doubled("'")
