"""Secrets and certificate: make what is missing, and show what is wrong."""

from __future__ import annotations

import json

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import FAILED, OpsError
from ops.parts.credentials import backup
from ops.parts.nginx import edge
from ops.secrets.files import path_of, read
from ops.stack import model, pools
from ops.state import elsewhere, memory


def secret_init(env: Environment) -> None:
    """Make the secrets that are missing, and say which."""
    from ops.data import catalogue
    from ops.secrets import check, make

    _refuse_beside_another_folder(env)
    document, unresolved = check.resolved(env)
    made = make.init(env, document)
    if unresolved:
        console.warn(f"Only the stack's own secrets were looked at: {unresolved.message}")
    if not made:
        console.say(f"nothing to make: every secret of {env.name} is there")
        return
    files = "file" if len(made) == 1 else "files"
    console.say(f"made {len(made)} {files} in {relative(env.secrets_dir)}: {', '.join(made)}", "green")
    console.say("Keep a copy where you keep passwords: backups do not contain secrets.")
    if backup.SECRET in made and catalogue.FILE in env.values["COMPOSE_FILE"].split(":"):
        _show_key_of_backups(env)


def _show_key_of_backups(env: Environment) -> None:
    """The one secret without which nothing can be recovered; to a person only, for what programs read may be logged."""
    where = relative(path_of(env, backup.SECRET))
    shown = read(env, backup.SECRET) if console.is_terminal() else f"is in {where}"
    console.say()
    console.say(f"{backup.SECRET} {shown}", "bold")
    console.say(
        f"Without this key nobody can read a backup of {env.name}, and it is in none. Keep it in two places outside of"
        " this machine, such as the team's password manager and a printed sheet, with the location of the target and"
        " its credentials (docs/recovery.md, The key). It is not shown again."
    )


def _refuse_beside_another_folder(env: Environment) -> None:
    """Raise OpsError (REFUSED) when what runs has other secrets, in another folder."""
    try:
        containers, state = engine.containers(env), memory.load(env)
    except OpsError:
        # Secrets are often made before there is an engine: nothing runs then.
        return
    elsewhere.refuse_without_secrets(env, containers, state)


def secret_check(env: Environment, as_json: bool = False) -> int:
    """Show what is wrong with the secrets; returns the exit code."""
    from ops.secrets import check

    findings = check.check(env)
    if as_json:
        console.say(json.dumps(check.as_json(env, findings), indent=2))
    elif findings:
        colours = {"error": "red", "warning": "yellow", "skipped": "dim"}
        console.print_table(
            ("", "SECRET", "WHAT", "WHERE", "WHAT TO DO"),
            [
                (
                    f"[{colours[each.severity]}]{each.severity}[/]",
                    *(console.plain(text) for text in (each.secret, each.what, each.where, each.remedy)),
                )
                for each in findings
            ],
        )
    failed = check.failed(findings)
    if not as_json:
        console.say(check.verdict(env, findings), "red" if failed else "green")
    return FAILED if failed else 0


def certificate(env: Environment, self_signed: bool = False) -> None:
    """Show the certificate, made or renewed where that is ours to do; a running nginx takes a new one at once."""
    from ops.secrets import certificates

    hosts = pools.hosts(model.load(env))
    shown = certificates.self_sign(env, hosts) if self_signed else certificates.ensure(env, hosts)
    verb = "made" if shown.issued else "found"
    console.say(f"{verb} {relative(shown.path)}: {', '.join(shown.names)}; {shown.days_left} days left")
    if shown.issued and (nginx := edge.find(engine.containers(env))):
        edge.reload(nginx)
        console.say("nginx uses it now")
