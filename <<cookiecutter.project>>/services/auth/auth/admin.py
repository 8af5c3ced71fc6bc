"""`python -m auth.admin grant|revoke EMAIL ROLE` · `python -m auth.admin show EMAIL`: who may do what."""

import argparse
import asyncio
import sys

from auth.accounts import ROLES, normalise_email
from auth.settings import AuthSettings
from auth.store import PostgresStore, Store
from stack import log
from stack.database import Database
from stack.problems import Problem
from stack.settings import load


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m auth.admin", description="Who may do what.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("grant", "give an account a role"), ("revoke", "take a role from an account")):
        command = commands.add_parser(name, help=words)
        command.add_argument("email")
        command.add_argument("role", choices=ROLES)
    commands.add_parser("show", help="say which roles an account has").add_argument("email")
    return parser.parse_args(arguments)


async def act(store: Store, options: argparse.Namespace) -> str:
    """Carry out a command and return the result. A role takes effect at the next login or refresh.

    Raises:
        ValueError: no such account.
    """
    email = normalise_email(options.email)
    user = await store.user_by_email(email)
    if user is None:
        raise ValueError(f"there is no account {email}")
    roles = set(user.roles)
    if options.command == "grant":
        roles.add(options.role)
    elif options.command == "revoke":
        roles.discard(options.role)
    if roles != set(user.roles):
        await store.set_roles(email, sorted(roles))
    return f"{email}: {', '.join(sorted(roles)) or 'no roles'}"


async def _main(options: argparse.Namespace) -> int:
    settings = load(AuthSettings)
    log.configure(settings.service_name, "error")
    database = Database(settings, settings.live("auth_db_password"))
    try:
        print(await act(PostgresStore(database), options))
    except (ValueError, Problem) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        await database.close()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(parse(sys.argv[1:]))))
