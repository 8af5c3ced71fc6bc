"""`python3 -m ops.recovery COMMAND`: what runs in the containers of docker-compose.backup.yml.

With --json a command writes one JSON document to standard output, its result or {"error": …}; its log goes elsewhere.
Exit codes are those of ops/base/errors.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from ops.base.errors import OpsError
from ops.recovery import settings as configured
from ops.recovery.log import say
from ops.recovery.settings import Settings

# A command with what it takes from the command line; the exit code comes back.
Command = Callable[[Settings, argparse.Namespace], int]


def _receive(settings: Settings, _: argparse.Namespace) -> int:
    from ops.recovery.postgres import receive

    return receive.run(settings)


def parser() -> argparse.ArgumentParser:
    """Every command with its options. Each brings its function in `command`."""
    top = argparse.ArgumentParser(prog="python3 -m ops.recovery", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, words: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=words, description=words)
        found.set_defaults(command=command)
        found.add_argument("--json", action="store_true", help="one JSON document to standard output")
        return found

    add("receive", _receive, "Receive WAL and bring it to every target, until SIGTERM.")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command."""
    arguments = parser().parse_args(argv)
    try:
        code: int = arguments.command(configured.read(os.environ), arguments)
    except OpsError as error:
        if arguments.json:
            print(error.as_json())
        else:
            say("error", error.message, remedy=error.remedy)
        return error.code
    return code


if __name__ == "__main__":
    sys.exit(main())
