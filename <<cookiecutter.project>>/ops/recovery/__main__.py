"""`python3 -m ops.recovery COMMAND`: what runs in the containers of docker-compose.backup.yml.

With --json a command writes one JSON document to standard output, its result or {"error": …}; its log goes elsewhere.
Exit codes are those of ops/base/errors.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from ops.base.errors import FAILED, INTERRUPTED, OK, OpsError
from ops.base.signals import interrupt_on_ending
from ops.recovery import settings as configured
from ops.recovery.attended import attended
from ops.recovery.log import say
from ops.recovery.settings import Settings

# Of `key try`: the password does not open a repository.
_REFUSED_KEY = 4
# A command with what it takes from the command line; the exit code comes back.
Command = Callable[[Settings, argparse.Namespace], int]


def _receive(settings: Settings, _: argparse.Namespace) -> int:
    from ops.recovery.postgres import receive

    return receive.run(settings)


def _materialize(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import materialize

    with attended(arguments.attended):
        wanted = materialize.wanted(arguments.entry, arguments.until, arguments.target)
        if arguments.plan:
            print(materialize.as_json(materialize.plan(settings, wanted)))
        else:
            materialize.materialize(settings, wanted, arguments.member, sys.stdout.buffer)
    return OK


def _recover(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import materialize

    with attended(arguments.attended):
        wanted = materialize.wanted(arguments.entry, arguments.until, arguments.target)
        materialize.recover_into(settings, wanted, arguments.into)
        print("{}")
    return OK


def _configuration(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import materialize

    with attended(arguments.attended):
        wanted = materialize.wanted(arguments.entry, "", arguments.target)
        materialize.configuration(settings, wanted, sys.stdout.buffer)
    return OK


def _key(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import keys

    password = sys.stdin.readline().rstrip("\r\n")
    if arguments.what == "try":
        return 0 if keys.accepted(settings, password) else _REFUSED_KEY
    (keys.add if arguments.what == "add" else keys.only)(settings, password)
    return 0


def _take(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import take

    interrupt_on_ending()
    entry = take.take(settings, arguments.full, arguments.init)
    if arguments.json:
        print(json.dumps(take.as_json(entry)))
    return OK


def _verify(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import verify

    interrupt_on_ending()
    found = verify.verify(settings, arguments.entry)
    if arguments.json:
        print(json.dumps([asdict(each) for each in found]))
    return OK if all(each.good for each in found) else FAILED


def _list(settings: Settings, arguments: argparse.Namespace) -> int:
    from ops.recovery import listing

    print(json.dumps(listing.report(settings), indent=None if arguments.json else 2))
    return OK


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
    taking = add("take", _take, "Take an entry, copy it to every target, and remove what is kept no longer.")
    taking.add_argument("--full", action="store_true", help="all of PostgreSQL, not only what has changed")
    taking.add_argument("--init", action="store_true", help="begin anew at targets whose repository is gone")
    proving = add("verify", _verify, "Restore entries and compare: those that were never proven, or one.")
    proving.add_argument("entry", nargs="?", default="", help="an id, the beginning of one, or latest")
    key = add("key", _key, "Change the password of every repository; it is read from standard input.")
    key.add_argument("what", choices=("add", "only", "try"))
    for name, command, words in (
        ("materialize", _materialize, "Write a moment of the past to standard output, as a portable archive."),
        ("recover", _recover, "Recover PostgreSQL as of a moment below a folder."),
        ("configuration", _configuration, "Write the configuration in a backup to standard output, as a tar archive."),
    ):
        restoring = add(name, command, words)
        restoring.add_argument("entry", help="id of a backup, or latest")
        restoring.add_argument("--target", default="", help="a part of its location")
        restoring.add_argument("--attended", action="store_true", help="end when standard input ends")
        if command is not _configuration:
            restoring.add_argument("--until", default="", help="PostgreSQL's moment, ISO 8601, or newest")
        if command is _materialize:
            restoring.add_argument("--plan", action="store_true", help="only say what that would be, as JSON")
            restoring.add_argument("--member", action="append", default=[], help="a member that is wanted")
        if command is _recover:
            restoring.add_argument("--into", type=Path, required=True, help="the folder")
    add("list", _list, "What there is at every target.")
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
    except KeyboardInterrupt:
        say("error", "interrupted")
        return INTERRUPTED
    return code


if __name__ == "__main__":
    sys.exit(main())
