"""The commands of this stack. `invoke --list` shows them, `invoke --help NAME` explains one.

A task is a docstring, its arguments and a few lines: what is done is in ops/, and imported only when it is needed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from difflib import get_close_matches
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import invoke.program
from invoke import task
from invoke.exceptions import Exit, ParseError
from invoke.parser import Parser

# What ops/ needs beside invoke, by the names of the modules (requirements.in has those of the packages).
MODULES = ("cronsim", "cryptography", "dotenv", "rich", "tzdata", "yaml")

# The environment of commands that name none.
ENV = os.environ.get("STACK_ENV") or "dev"
ENV_HELP = "environment: dev, staging or prod, a folder of config/ (default: $STACK_ENV, or dev)"
YES_HELP = "answer yes to all prompts (for scripts and cron)"
RESTART_HELP = "restart databases and nginx without asking, where a change needs it"
JSON_HELP = "print JSON for programs instead of a table"

# What a word after a command means when it belongs to no option: "logs api" is "logs --service api".
MEANT = {"logs": "--service", "rollback": "--to", "psql": "--database", "restore": "--archive"}
# What stands after `--`, word by word: Invoke would join the words, and so lose their quotes.
AFTER_DASHES: list[str] = []
# The commands that do something with it.
EXAMPLES = {
    "run": "invoke run api -- python -V",
    "psql": "invoke psql -- --command 'SELECT 1'",
    "redis-cli": "invoke redis-cli -- INFO",
}


class Usage(ParseError, Exit):
    """A command line that cannot be read. Invoke prints the sentence and exits with 2, for an Exit tells its code."""

    code, message = 2, None

    def __init__(self, words: str, context: Any) -> None:
        Exception.__init__(self, words)
        self.context = context


class CommandLine(Parser):
    """Invoke's parser, for what people type: "deploy prod", "logs api", "rollback 3". Suggests what may be meant.

    Invoke has no optional positional arguments and no hook for its parser, hence the assignment below.
    """

    def parse_argv(self, argv: list[str]) -> Any:
        """Raises Usage when the line cannot be read."""
        try:
            return super().parse_argv(spelled_out(argv, self.contexts))
        except ParseError as error:
            raise Usage(explained(error, list(self.contexts)), error.context) from None


invoke.program.Parser = CommandLine  # type: ignore[misc]
PARSE_CLEANUP = invoke.program.Program.parse_cleanup


def print_what_was_asked_for(program: Any) -> None:
    """Invoke's step between reading the line and running commands: prints help or the list, and raises Exit after it.

    Raises Usage for help about something that is no command. A closed output (`invoke --list | head -1`) ends it
    silently, as it ends `ls`; commands outlive that.
    """
    # The parser above is given what stands before the dashes: Invoke has read the line once before it reads this file.
    AFTER_DASHES[:] = program.argv[program.argv.index("--") + 1 :] if "--" in program.argv else []
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        PARSE_CLEANUP(program)
    except ParseError:
        unknown, commands = program.args.help.value, list(program.parser.contexts)
        raise Usage(suggestion(f'There is no command "{unknown}".', unknown, commands), None) from None
    signal.signal(signal.SIGPIPE, before)


invoke.program.Program.parse_cleanup = print_what_was_asked_for


def explained(error: ParseError, commands: list[str]) -> str:
    """A sentence for a line that cannot be read, with the name that is probably meant."""
    unknown = str(error).partition("No idea what '")[2].rpartition("'")[0]
    if not unknown:
        return f"error: {error}"
    command = error.context.name if error.context else None
    after = f"What {command} runs stands after --: {EXAMPLES[command]}" if command in EXAMPLES else ""
    if not unknown.startswith("-"):
        words = f'"{unknown}" is neither a command nor an environment.'
        return suggestion(words, unknown, [*commands, *environments()], after or "See: invoke --list")
    known = [flag for flag in error.context.flags if flag.startswith("--")] if error.context else []
    remedy = after or (f"See: invoke --help {command}" if command else "")
    # Options are longer than what they differ in: --environment is --env.
    return suggestion(f'There is no option "{unknown}".', unknown, known, remedy, 0.5)


def suggestion(
    words: str, unknown: str, known: list[str], otherwise: str = "See: invoke --list", cutoff: float = 0.7
) -> str:
    """An error's sentence with the known name that is most like the unknown one, or with what else may help."""
    near = get_close_matches(unknown, known, n=1, cutoff=cutoff)
    remedy = f"Did you mean {near[0]}?" if near else otherwise
    return f"error: {words}" + (f"\n       {remedy}" if remedy else "")


def spelled_out(argv: list[str], contexts: Any) -> list[str]:
    """The command line with the option of every word that has none: `deploy prod` becomes `deploy --env prod`.

    Only a word right after a command that takes no positional arguments, or after these, is meant.
    """
    found: list[str] = []
    command, positional = "", 0
    for token in argv:
        if command and positional and token not in contexts[command].flags:
            positional -= 1
        elif token in contexts:
            command, positional = token, len(contexts[token].positional_args)
        else:
            flag = "" if token.startswith("-") or not command else flag_of(command, token)
            found += [flag] if flag else []
            # After an option comes its value.
            command = command if flag else ""
        found.append(token)
    return found


def flag_of(command: str, word: str) -> str:
    """The option that a word after a command is the value of; empty when there is none."""
    return "--env" if word in environments() else MEANT.get(command, "")


def environments() -> list[str]:
    """The words that name an environment."""
    folders = sorted(path.parent.name for path in Path(__file__).parent.glob("config/*/.env"))
    return [*folders, "production", "development"]


def command(**help_texts: str) -> Callable[[Callable[..., Any]], Any]:
    """A task whose errors are sentences: an OpsError ends it with its exit code, Ctrl-C with 130, and no traceback.

    Work is finished or undone even when the output is closed, and the exit code says how that went.

    help_texts: help of each argument; `positional`: names of the arguments given without a flag, `iterable`: of those
    that can be given several times, separated by blanks; `optional`: of those whose flag may stand without a value.
    """
    positional = help_texts.pop("positional", "").split()
    iterable = help_texts.pop("iterable", "").split()
    optional = help_texts.pop("optional", "").split()

    def decorate(body: Callable[..., Any]) -> Any:
        @wraps(body)
        def guarded(*args: Any, **kwargs: Any) -> None:
            advice = wrong_invoke()  # no walrus here: the other invoke may be of an older Python
            if advice:
                print(advice, file=sys.stderr)
                sys.exit(2)
            from ops.base import console, signals
            from ops.base.errors import INTERRUPTED, OpsError

            # When a job runner stops it or the terminal is closed: end as cleanly as after Ctrl-C.
            signals.interrupt_on_ending()
            console.outlive_readers()
            try:
                code = perform(body.__name__.replace("_", "-"), kwargs)
                if code is None:
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

        return task(guarded, help=help_texts, positional=positional, iterable=iterable, optional=optional)

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


def perform(name: str, given: dict[str, Any]) -> Any:
    """Do what a command does in a cluster, where that is what its environment is in; None where it is not, and for a
    command that is the same everywhere."""
    from ops.base import environments

    if "env" not in given or name == "environment-add":
        return None
    env = environments.load(given["env"])
    if env.engine != environments.KUBERNETES:
        return None
    from ops.kubernetes import commands

    return commands.perform(env, name, given, AFTER_DASHES)


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
    canary="let the new containers have only this share of the requests, in percent, for a trial",
    minutes="with --canary: promote it after so many minutes, or abort it as soon as it answers more errors",
    promote="let the canary that is under way have all requests",
    abort="take the canary that is under way out again",
)
def deploy(
    _context,
    env=ENV,
    plan=False,
    yes=False,
    json=False,
    lock_wait="0",
    canary="",
    minutes="",
    promote=False,
    abort=False,
):
    """Bring an environment up, or up to date, and wait for health.

    Builds and pulls what is missing, runs migrations, then rolls out: new containers start beside the old ones and take
    over when they are healthy, without interrupting requests. If they do not become healthy, the old ones keep serving.
    Run it as often as you like: what is up to date is not touched.
    """
    from ops.rollout import canary as trial

    trial.one_of(canary=canary, promote=promote, abort=abort)
    share = trial.share(canary) if canary else 0
    if plan or json:
        from ops.rollout import preview

        return preview.preview(load(env), json, share)
    from ops.rollout import deploy as deployment
    from ops.state import lock

    wait = lock.seconds(lock_wait)
    if abort:
        return deployment.abort_canary(load(env), wait)
    return deployment.deploy(load(env), yes, wait, share, trial.minutes(minutes, canary), promote)


@command(env=ENV_HELP, yes=RESTART_HELP)
def update(_context, env=ENV, yes=False):
    """Pull newer images, rebuild ours on them, then deploy.

    Pinned tags are republished with security fixes: this takes them. To take another version, change the *_IMAGE
    setting in config/<env>/.env and deploy.
    """
    from ops.rollout import deploy as deployment

    deployment.update(load(env), assume_yes=yes)


@command(env=ENV_HELP, json=JSON_HELP)
def releases(_context, env=ENV, json=False):
    """Show what was deployed when, by whom, and with which result."""
    from ops.commands import history as commands

    commands.releases(load(env), as_json=json)


@command(env=ENV_HELP, yes=YES_HELP)
def unlock(_context, env=ENV, yes=False):
    """Remove a lock left by a machine that no longer exists.

    Not needed after Ctrl-C or a kill: a lock ends when its holder does.
    """
    from ops.state import lock

    lock.unlock(load(env), assume_yes=yes)


@command(to="number of a release, as `invoke releases` lists them (default: the one before)", env=ENV_HELP)
def rollback(_context, to="", env=ENV):
    """Return the services to an earlier release: rollback 3.

    Rolls out the images and settings that your services had then. Data and database
    schema stay as they are. It does not ask: `invoke deploy` brings the newer version back.
    """
    from ops.rollout import rollback as rolling_back

    rolling_back.rollback(load(env), rolling_back.number(to))


@command(
    service="a service whose deploy.replicas is a setting, such as web or api",
    replicas="how many containers, from 1",
    env=ENV_HELP,
    positional="service replicas",
)
def scale(_context, service, replicas, env=ENV):
    """Change the number of containers: scale web 5 --env prod.

    The number is written to config/<env>/.env, so that the next deploy keeps it.
    """
    from ops.rollout import scale as scaling

    scaling.scale(load(env), service, replicas)


@command(state="on, off, or status", env=ENV_HELP, positional="state")
def maintenance(_context, state, env=ENV):
    """Put up the maintenance page, or take it down: maintenance on.

    Visitors get the page with status 503 at once. Open requests finish, and everything behind nginx keeps running.
    """
    from ops.parts.nginx import maintenance as mode

    mode.switch(load(env), state)


@command(env=ENV_HELP)
def stop(_context, env=ENV):
    """Stop all containers; deploy starts them again."""
    from ops.commands import stop as commands

    commands.stop(load(env))


@command(env=ENV_HELP, volumes="delete all data too, after asking", yes=YES_HELP)
def down(_context, env=ENV, volumes=False, yes=False):
    """Remove containers and networks; with --volumes all data too.

    Without --volumes the data stays, and the next deploy uses it.
    """
    from ops.commands import stop as commands

    commands.down(load(env), volumes=volumes, assume_yes=yes)


@command(env=ENV_HELP)
def failover(_context, env=ENV):
    """Switch PostgreSQL's primary and standby, without losing data.

    Writes wait for one or two seconds. It refuses, with the reason, when it is not safe.
    """
    from ops.parts.postgres import failover as failing_over

    failing_over.failover(load(env))


@command(env=ENV_HELP, yes=YES_HELP)
def promote(_context, env=ENV, yes=False):
    """Make PostgreSQL's standby the primary when the primary is lost.

    Says which data may be lost and asks first. The old primary is stopped and returns as the standby.
    """
    from ops.parts.postgres import failover as failing_over

    failing_over.promote(load(env), assume_yes=yes)


@command(action="what to do with them: push", env=ENV_HELP, positional="action")
def images(_context, action, env=ENV):
    """Push the images that are built here to their registry: images push.

    Builds what is not built yet. IMAGE_PREFIX names the registry; each image is pushed by its content and by IMAGE_TAG.
    """
    from ops.commands import images as commands

    commands.images(load(env), action)


# ── look ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(env=ENV_HELP, json=JSON_HELP)
def status(_context, env=ENV, json=False):
    """Show every service: how many run, health, age, image, ports."""
    from ops.commands import status as commands

    commands.status(load(env), as_json=json)


@command(env=ENV_HELP, json=JSON_HELP)
def health(_context, env=ENV, json=False):
    """Check that every part works, from outside and inside.

    Also replication, queues, disks and the certificate. Exit code 1 when something fails.
    """
    from ops.commands import health as checks

    report = checks.report(load(env))
    present(checks, report, json)
    return 0 if report.healthy else 1


@command(
    service="show only this service or job; give it again for more (default: all)",
    env=ENV_HELP,
    follow="keep showing new lines until Ctrl-C",
    tail="number of last lines of each container, or all",
    since="only newer lines: 10m, 2h, or a time such as 2026-01-31T12:00",
    level="only lines of this level and above: debug, info, warning, error, critical",
    grep="only lines in which this regular expression is found; case does not matter",
    iterable="service",
)
def logs(_context, service, env=ENV, follow=False, tail="100", since="", level="", grep=""):
    """Show the logs of all services, or of some: logs api web --level error.

    With --level or --grep all that is kept is searched; the lines of all containers come in the order of their times.
    """
    from ops.commands import logs as commands

    return commands.logs(load(env), service, follow=follow, tail=tail, since=since, level=level, grep=grep)


@command(env=ENV_HELP, json=JSON_HELP)
def config(_context, env=ENV, json=False):
    """Show the resolved configuration and its plain Compose command."""
    from ops.commands import config as commands

    commands.config(load(env), as_json=json)


@command(env=ENV_HELP)
def doctor(_context, env=ENV):
    """Check engine, settings, ports, disk, memory, secrets.

    It changes nothing. The same checks run before every deploy that changes something. Exit code 1 when one fails.
    """
    from ops.commands import doctor as commands

    return 0 if commands.doctor(load(env)) else 1


@command(
    target="what to write it for: kubernetes",
    env=ENV_HELP,
    out="folder to write to, in which each environment has its own (default: kubernetes)",
    secrets="print the secrets as manifests instead, for kubectl apply -f -",
    positional="target",
)
def export(_context, target, env=ENV, out="", secrets=False):
    """Write an environment as Kubernetes manifests: export kubernetes.

    What it says that Kubernetes cannot is named on standard error. Nothing secret is in the manifests:
    docs/kubernetes.md.
    """
    from ops.kubernetes import export as exporting

    exporting.export(load(env), target, out, as_secrets=secrets)


# ── inside the containers ─────────────────────────────────────────────────────────────────────────────────────────────


@command(
    service="a service of your own, or a job",
    env=ENV_HELP,
    entrypoint="let the image's entrypoint start COMMAND (--no-entrypoint: start COMMAND itself)",
    positional="service",
)
def run(_context, service, env=ENV, entrypoint=True):
    """Run a command in a one-off container: run api -- COMMAND.

    The container has the service's image, settings, secrets and networks, gets no requests, and is removed when the
    command has ended; its exit code is that of the command. Without a command it does what the service does: so a job
    is run by hand.
    """
    from ops.commands import inside

    return inside.run(load(env), service, AFTER_DASHES, entrypoint)


@command(service="a service", env=ENV_HELP, new="in a new container, not in one that serves", positional="service")
def shell(_context, service, env=ENV, new=False):
    """Open a shell in a running container of a service: shell api."""
    from ops.commands import inside

    return inside.shell(load(env), service, new)


@command(database="name of a database (default: POSTGRES_DB)", env=ENV_HELP)
def psql(_context, database="", env=ENV):
    """Open psql on PostgreSQL's primary, as the superuser.

    What follows -- is for psql: invoke psql -- --command 'SELECT 1'. It reads SQL from a pipe, too.
    """
    from ops.commands import inside

    inside.psql(load(env), database, AFTER_DASHES)


@command(env=ENV_HELP)
def redis_cli(_context, env=ENV):
    """Open redis-cli on Redis' primary, with every right.

    What follows -- is for redis-cli: invoke redis-cli -- INFO memory.
    """
    from ops.commands import inside

    inside.redis_cli(load(env), AFTER_DASHES)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(
    env=ENV_HELP,
    list="show the backups at every target: age, size, verified when, and which moments can be recovered",
    verify="restore a backup in a container and compare: its id or latest, or without a value all that never were",
    full="copy all of PostgreSQL, not only what has changed since the last backup",
    init="begin a new repository at a target that has lost the one it had",
    portable="write one archive, unencrypted, into backups/<env>/ instead: to move data to another version or machine",
    json=JSON_HELP,
    optional="verify",
)
def backup(_context, env=ENV, list=False, verify="", full=False, init=False, portable=False, json=False):
    """Take a backup of everything now, as the schedule does, and bring it to every target.

    Where COMPOSE_FILE does not name docker-compose.backup.yml it writes the archive of --portable.
    """
    from ops.data import command

    return command.backup(load(env), command.BackupOptions(list, verify, full, init, portable, json))


@command(
    archive="a file of backups/<env>/, the id of a backup (invoke backup --list), or latest",
    env=ENV_HELP,
    to='PostgreSQL as of this moment: "2026-11-22 14:03:00+09:00", or newest for all that was written',
    only="only these parts, separated by commas: postgres, database:NAME, redis, rabbitmq, volume:NAME",
    into="scratch: into a PostgreSQL server beside the stack, which is not touched",
    target="where the backup is taken from: a part of its location (default: the first of BACKUP_TARGETS)",
    drop_scratch="remove the server of --into scratch",
    undo="put back the data that a restore which was killed had begun to replace",
    configuration="write the files of config/<env>/ that are in a backup and not here: for a new machine",
    yes=YES_HELP,
    json=JSON_HELP,
    other_environment="accept a backup of another environment",
    keep_old="keep the old database beside the new one",
)
def restore(
    _context,
    archive="",
    env=ENV,
    to="",
    only="",
    into="",
    target="",
    drop_scratch=False,
    undo=False,
    configuration=False,
    yes=False,
    json=False,
    other_environment=False,
    keep_old=False,
):
    """Replace data with a backup: restore latest, restore --to "2026-11-22 14:03:00+09:00".

    The backup is verified and loaded beside the current data; services stop only while the two are swapped. It shows
    what will be lost and asks first.
    """
    from ops.data import command

    return command.restore(
        load(env),
        command.Options(
            archive, to, only, into, target, drop_scratch, undo, configuration, yes, json, other_environment, keep_old
        ),
    )


@command(
    env=ENV_HELP,
    image="the image of the new major, written to config/<env>/.env (default: the one set there)",
    back="return to the database before the last upgrade, which is kept",
    tidy="remove the old database that an upgrade keeps: there is no way back after that",
    yes=YES_HELP,
)
def upgrade_database(_context, env=ENV, image="", back=False, tidy=False, yes=False):
    """Move the data to another major version of PostgreSQL.

    Makes a verified backup while the site serves, puts up the maintenance page, copies the data into a new database
    beside the old one, compares every table, and opens the site. After a failure it returns to the old database, which
    is kept. It says how long this may take and asks first.
    """
    from ops.data import upgrade as upgrading

    upgrading.command(load(env), image, back=back, tidy=tidy, assume_yes=yes)


# ── your own services ─────────────────────────────────────────────────────────────────────────────────────────────────


@command(
    name="name of the service: a-z, 0-9 and single hyphens",
    from_="what it is made of: python, node or go (a working service is written), dockerfile (yours) or image",
    image="with --from image: the reference, such as ghcr.io/acme/shop:1.4.2",
    route="public path: /shop",
    host="host name of its own: shop.example.com",
    port="port on which it takes requests (python: 8000, node: 3000, go: 8080)",
    ready="how to see that it takes requests: a path that answers 200, or tcp",
    schema="a schema and a role of its own in the common database",
    database="a database and a role of its own",
    queue="a user, an exchange and a queue of its own in RabbitMQ",
    cache="let it use Redis as a cache",
    volume="folder in the container whose files are kept and backed up: /data",
    job="it runs to its end, by `invoke run`",
    schedule='it runs to its end at these times: "0 3 * * *"',
    internal="other services call it, as http://internal:8081/NAME/",
    env="environment in the commands that it prints",
    positional="name",
)
def service_add(
    _context,
    name,
    from_="",
    image="",
    route="",
    host="",
    port=0,
    ready="",
    schema=False,
    database=False,
    queue=False,
    cache=False,
    volume="",
    job=False,
    schedule="",
    internal=False,
    env=ENV,
):
    """Add a service: service-add shop --from node --route /shop.

    Writes services/NAME (python, node, go) and an entry in docker-compose.services.yml, and says what to run next.
    Nothing is written when something about it is wrong.
    """
    from ops.adopt import add, entry

    wanted = entry.Wanted(
        name, from_, image, route, host, port, ready, schema, database, queue, cache, volume, job, schedule, internal
    )
    add.add(load(env), wanted)


@command(
    name="name of the service",
    env="environment in the commands that it prints",
    yes=YES_HELP,
    positional="name",
)
def service_remove(_context, name, env=ENV, yes=False):
    """Take a service out of docker-compose.services.yml; says what stays, and how to delete that."""
    from ops.adopt import remove

    remove.remove(load(env), name, assume_yes=yes)


@command(
    name="name of the new environment: a-z and 0-9",
    from_="the environment that it is like: a folder of config/",
    positional="name",
)
def environment_add(_context, name, from_="staging"):
    """Add an environment: environment-add qa --from staging. It has a name, ports, secrets and data of its own."""
    from ops.adopt import environment

    environment.add(load(from_), name)


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@command(env=ENV_HELP)
def secret_init(_context, env=ENV):
    """Create the secrets that are missing; existing ones are kept."""
    from ops.commands import secrets as commands

    commands.secret_init(load(env))


@command(env=ENV_HELP, json=JSON_HELP)
def secret_check(_context, env=ENV, json=False):
    """Check that secrets are strong, private and not leaked.

    Finds secrets that are weak, reused, readable by others or tracked by git, and copies in files, images and
    containers. Exit code 1 when there is a problem.
    """
    from ops.commands import secrets as commands

    return commands.secret_check(load(env), as_json=json)


@command(
    names="secrets, separated by commas, or --all for all that can be generated",
    env=ENV_HELP,
    yes=YES_HELP,
    positional="names",
)
def secret_rotate(_context, names, env=ENV, yes=False):
    """Change secrets while the stack serves: secret-rotate REDIS_PASSWORD.

    Changes the password in the running database, cache or broker, replaces whatever reads it, and verifies that the
    old value is refused. If it is interrupted, run it again: it continues where it stopped.
    """
    from ops.security import rotate

    rotate.rotate(load(env), names, assume_yes=yes)


@command(env=ENV_HELP, self_signed="prod: create a certificate that browsers do not trust, to try things out")
def certificate(_context, env=ENV, self_signed=False):
    """Show the TLS certificate; in dev and staging create or renew it."""
    from ops.commands import secrets as commands

    commands.certificate(load(env), self_signed=self_signed)
