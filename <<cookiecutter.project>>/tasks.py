"""The commands of this stack. `invoke --list` shows them, `invoke --help NAME` explains one.

A task is a docstring, its arguments and a few lines: what is done is in ops/, and imported only when it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from invoke import task

# What ops/ needs beside invoke, by the names of the modules (requirements.in has those of the packages).
MODULES = ("cryptography", "dotenv", "rich")

ENV_HELP = "environment: dev, staging or prod (a folder of config/)"
YES_HELP = "agree to everything beforehand: for programs and cron"
RESTART_HELP = "restart databases and nginx without asking, where their change needs it"
JSON_HELP = "print JSON for programs instead of a table"


def command(**help_texts: str) -> Callable[[Callable[..., Any]], Any]:
    """A task whose errors are sentences: an OpsError ends it with its exit code, Ctrl-C with 130, and no traceback.

    Its work is finished or undone although nobody reads its output any more, and its exit code tells how that went.

    help_texts: help of each argument; `positional`: names of the arguments given without a flag, separated by blanks.
    """
    positional = help_texts.pop("positional", "").split()

    def decorate(body: Callable[..., Any]) -> Any:
        @wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            advice = wrong_invoke()  # no walrus here: the other invoke may be of an older Python
            if advice:
                print(advice, file=sys.stderr)
                sys.exit(2)
            from ops.base import console, signals
            from ops.base.errors import INTERRUPTED, OpsError

            # Also when a job runner gives up, and when the terminal is closed: leave as orderly as after Ctrl-C.
            signals.interrupt_on_ending()
            console.outlive_readers()
            try:
                code = body(*args, **kwargs)
            except OpsError as error:
                if kwargs.get("json"):
                    # A program that reads the output gets a document whatever happens.
                    console.say(error.as_json())
                console.fail(error)
                code = error.code
            except KeyboardInterrupt:
                from ops import engine

                engine.end_all()
                console.fail(OpsError("Interrupted."))
                code = INTERRUPTED
            sys.exit(code or 0)

        return task(guarded, help=help_texts, positional=positional)

    return decorate


def wrong_invoke() -> str:
    """What to do when the `invoke` that runs this is not the one of .venv and cannot run it; empty when it can.

    One that came with apt or pipx has a Python of its own, without the packages that ops/ imports.
    """
    missing = [name for name in MODULES if find_spec(name) is None]
    if sys.version_info >= (3, 11) and not missing:
        return ""
    own = Path(__file__).parent / ".venv" / "bin" / "invoke"
    if own.exists():
        return (
            f"This is not the project's invoke and lacks its packages. Run {own}, or first: source .venv/bin/activate"
        )
    return (
        "The project's packages are not installed. Run: python3 scripts/bootstrap.py, then: source .venv/bin/activate"
    )


def load(env: str) -> Any:
    """The environment of that name."""
    from ops.base import environments

    return environments.load(env)


def present(module: Any, result: Any, as_json: bool) -> None:
    """Show a result the way its module does, or as JSON."""
    if as_json:
        from json import dumps

        print(dumps(module.as_json(result), indent=2))
    else:
        module.show(result)


# ── deploy and change ─────────────────────────────────────────────────────────────────────────────────────────────────


@command(
    env=ENV_HELP,
    plan="show what would change and why, and change nothing",
    yes=RESTART_HELP,
    json="with --plan: print JSON for programs",
    lock_wait="seconds to wait while somebody else is changing the environment (default: 0)",
)
def deploy(_context, env="dev", plan=False, yes=False, json=False, lock_wait="0"):
    """Bring an environment up, or up to date, and wait for health.

    Builds and pulls what is missing, runs migrations, then rolls out: new containers start beside the old ones, and
    take over when they have shown that they are well; no request is lost, and when they are not, the old ones stay. Run
    it as often as you like: what is up to date is not touched.
    """
    if plan or json:
        from ops.rollout import preview

        preview.preview(load(env), as_json=json)
    else:
        from ops.rollout import deploy as deployment
        from ops.state import lock

        deployment.deploy(load(env), assume_yes=yes, lock_wait=lock.seconds(lock_wait))


@command(env=ENV_HELP, yes=RESTART_HELP)
def update(_context, env="dev", yes=False):
    """Fetch newer images, rebuild ours on them, then deploy.

    Pinned tags are published again with security fixes: this takes them. To take another version, change the *_IMAGE
    setting in config/<env>/.env and deploy.
    """
    from ops.rollout import deploy as deployment

    deployment.update(load(env), assume_yes=yes)


@command(env=ENV_HELP, json=JSON_HELP)
def releases(_context, env="dev", json=False):
    """Show what was deployed when, by whom, and with which result."""
    from ops.commands import history as commands

    commands.releases(load(env), as_json=json)


@command(env=ENV_HELP, yes=YES_HELP)
def unlock(_context, env="dev", yes=False):
    """Break the lock of a command whose machine is gone for good.

    Not needed after Ctrl-C or a kill: a lock ends with its holder.
    """
    from ops.state import lock

    lock.unlock(load(env), assume_yes=yes)


@command(to="number of a release, as `invoke releases` lists them (default: the one before)", env=ENV_HELP)
def rollback(_context, to="", env="dev"):
    """Bring the services back to an earlier release.

    Images and settings of web, api, auth-service and notification-service come back by the rollout that brings new
    ones. Data and schema stay. It does not ask: the way back is `invoke deploy`.
    """
    from ops.rollout import rollback as rolling_back

    rolling_back.rollback(load(env), rolling_back.number(to))


@command(
    service="a service whose deploy.replicas is a setting, such as web or api",
    replicas="how many containers, from 1",
    env=ENV_HELP,
    positional="service replicas",
)
def scale(_context, service, replicas, env="dev"):
    """Run more or fewer containers: invoke scale web 5 --env prod.

    The number is written to config/<env>/.env, so that the next deploy keeps it.
    """
    from ops.rollout import scale as scaling

    scaling.scale(load(env), service, replicas)


@command(state="on, off, or status", env=ENV_HELP, positional="state")
def maintenance(_context, state, env="dev"):
    """Close the site with a decent page, or open it again.

    Visitors get 503 with Retry-After at once; open requests finish, and everything behind nginx keeps running.
    """
    from ops.parts.nginx import maintenance as mode

    mode.switch(load(env), state)


@command(env=ENV_HELP)
def stop(_context, env="dev"):
    """Stop all containers; deploy starts them again."""
    from ops.commands import stop as commands

    commands.stop(load(env))


@command(env=ENV_HELP, volumes="delete all data too, after asking", yes=YES_HELP)
def down(_context, env="dev", volumes=False, yes=False):
    """Remove containers and networks; with --volumes all data too.

    Without --volumes the data stays and the next deploy goes on with it.
    """
    from ops.commands import stop as commands

    commands.down(load(env), volumes=volumes, assume_yes=yes)


@command(env=ENV_HELP)
def failover(_context, env="dev"):
    """Let PostgreSQL's standby take over, planned: nothing is lost.

    The primary becomes the standby; writes wait for one or two seconds. Refused with the reason when it is not safe.
    """
    from ops.parts.postgres import failover as failing_over

    failing_over.failover(load(env))


@command(env=ENV_HELP, yes=YES_HELP)
def promote(_context, env="dev", yes=False):
    """Make PostgreSQL's standby the primary when the primary is lost.

    Says what may be lost and asks first. The old primary is stopped, and comes back as standby.
    """
    from ops.parts.postgres import failover as failing_over

    failing_over.promote(load(env), assume_yes=yes)


# ── look ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(env=ENV_HELP, json=JSON_HELP)
def status(_context, env="dev", json=False):
    """Show every service: how many run, health, age, image, ports."""
    from ops.commands import status as commands

    commands.status(load(env), as_json=json)


@command(env=ENV_HELP, json=JSON_HELP)
def health(_context, env="dev", json=False):
    """Ask every part whether it works, from outside and inside.

    Replication, queues, disks and certificate too. Exit code 1 when something fails.
    """
    from ops.commands import health as checks

    report = checks.report(load(env))
    present(checks, report, json)
    return 0 if report.healthy else 1


@command(
    service="show only this service (default: all)",
    env=ENV_HELP,
    follow="go on showing new lines until Ctrl-C",
    tail="how many of the last lines of each container, or all",
    since="only what is newer: 10m, 2h, or a time such as 2026-01-31T12:00",
)
def logs(_context, service="", env="dev", follow=False, tail="100", since=""):
    """Show what services write: invoke logs --service api --follow."""
    from ops.commands import logs as commands

    return commands.logs(load(env), service, follow=follow, tail=tail, since=since)


@command(env=ENV_HELP, json=JSON_HELP)
def config(_context, env="dev", json=False):
    """Show the resolved configuration and its plain Compose command."""
    from ops.commands import config as commands

    commands.config(load(env), as_json=json)


@command(env=ENV_HELP)
def doctor(_context, env="dev"):
    """Check engine, settings, ports, disk, memory, secrets.

    The same checks run before every deploy that changes something; nothing is touched. Exit code 1 when one fails.
    """
    from ops.commands import doctor as commands

    return 0 if commands.doctor(load(env)) else 1


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(env=ENV_HELP, json=JSON_HELP)
def backup(_context, env="dev", json=False):
    """Back up all data into backups/<env>/, verified, while it runs."""
    from ops.base import console
    from ops.data import backup as backups
    from ops.state import lock

    environment = load(env)
    with (
        lock.hold(environment, f"backup --env {environment.name}"),
        console.activity(f"backing up {environment.name}", quiet=json) as tick,
    ):
        result = backups.create(environment, tick)
    present(backups, result, json)


@command(
    archive="a file of backups/<env>/",
    env=ENV_HELP,
    yes=YES_HELP,
    json=JSON_HELP,
    other_environment="accept an archive of another environment",
    keep_old="keep the old database beside the new one",
    positional="archive",
)
def restore(_context, archive, env="dev", yes=False, json=False, other_environment=False, keep_old=False):
    """Replace all data by a backup: invoke restore ARCHIVE.

    The archive is verified and loaded beside what runs; services are away only while names are swapped. It shows what
    will be lost and asks first.
    """
    from pathlib import Path

    from ops.base import console
    from ops.data import restore as restoring

    result = restoring.restore(
        load(env), Path(archive), yes, other_environment=other_environment, keep_old=keep_old, tick=console.ticker(json)
    )
    present(restoring, result, json)


@command(
    env=ENV_HELP,
    image="the image of the new major, written to config/<env>/.env (default: the one that stands there)",
    back="return to the database before the last upgrade, which is kept",
    tidy="remove what upgrades have kept: from then on there is no way back",
    yes=YES_HELP,
)
def upgrade_database(_context, env="dev", image="", back=False, tidy=False, yes=False):
    """Move the data to another major version of PostgreSQL.

    Makes a verified backup while the site serves, then closes it, copies the data into a new database beside the old
    one, compares every table, and opens again. What fails leads back to the old database, which is kept. It says how
    long that may take, and asks first.
    """
    from ops.data import upgrade as upgrading

    upgrading.command(load(env), image, back=back, tidy=tidy, assume_yes=yes)


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(env=ENV_HELP)
def secret_init(_context, env="dev"):
    """Make the secrets that are missing; existing ones are kept."""
    from ops.commands import secrets as commands

    commands.secret_init(load(env))


@command(env=ENV_HELP, json=JSON_HELP)
def secret_check(_context, env="dev", json=False):
    """Check that secrets are strong, private and nowhere else.

    Looks for weak, reused, readable and tracked ones, and for copies in files, images and containers. Exit code 1 when
    there is a problem.
    """
    from ops.commands import secrets as commands

    return commands.secret_check(load(env), as_json=json)


@command(
    names="secrets, separated by commas, or --all for every one that can be generated",
    env=ENV_HELP,
    yes=YES_HELP,
    positional="names",
)
def secret_rotate(_context, names, env="dev", yes=False):
    """Give secrets new values without interrupting requests: invoke secret-rotate REDIS_PASSWORD.

    Changes the password in the running database, cache or broker, replaces whatever reads it, and verifies that the
    old value is refused. If it is interrupted, run it again: it continues where it stopped.
    """
    from ops.security import rotate

    rotate.rotate(load(env), names, assume_yes=yes)


@command(env=ENV_HELP, self_signed="prod: make a certificate that browsers will not trust, for a first try")
def certificate(_context, env="dev", self_signed=False):
    """Show the TLS certificate; outside prod make or renew it."""
    from ops.commands import secrets as commands

    commands.certificate(load(env), self_signed=self_signed)
