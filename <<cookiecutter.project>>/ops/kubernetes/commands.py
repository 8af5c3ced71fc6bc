"""What each command of tasks.py does where config/<env>/.env says ENGINE=kubernetes. The one place that decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from json import dumps
from typing import Any

from ops.base import console, findings
from ops.base.environments import Environment
from ops.base.errors import USAGE, OpsError
from ops.data import command
from ops.kubernetes import deploy as deployment
from ops.kubernetes import health as checks
from ops.kubernetes import inside, logs, plan, preflight, rollback, scale, status
from ops.kubernetes.data import Cluster
from ops.rollout import preview
from ops.rollout.rollback import number
from ops.state import lock

# Arguments of a command, by name.
Arguments = Mapping[str, Any]


def _deploy(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    if given["canary"] or given["minutes"] or given["promote"] or given["abort"]:
        raise OpsError(
            "A canary is not possible in a cluster by these commands.",
            "Use Argo Rollouts or Flagger, which share requests by the Gateway API: docs/kubernetes.md",
            USAGE,
        )
    if given["plan"] or given["json"]:
        decided = plan.decide(plan.survey(env))
        return preview.present(env, decided, preflight.run(env, decided), given["json"])
    deployment.deploy(env, given["yes"], lock.seconds(given["lock_wait"]))
    return 0


def _status(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    status.status(env, as_json=given["json"])
    return 0


def _health(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    from ops.commands import health as usual

    report = checks.report(env)
    if given["json"]:
        console.say(dumps(usual.as_json(report), indent=2))
    else:
        usual.show(report)
    return 0 if report.healthy else 1


def _scale(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    scale.scale(env, given["service"], given["replicas"])
    return 0


def _rollback(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    rollback.rollback(env, number(given["to"]))
    return 0


def _logs(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    options = {name: given[name] for name in ("follow", "tail", "since", "level", "grep")}
    return logs.logs(env, given["service"], **options)


def _run(env: Environment, given: Arguments, after: Sequence[str]) -> int:
    return inside.run(env, given["service"], after, given["entrypoint"])


def _shell(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    return inside.shell(env, given["service"], given["new"])


def _psql(env: Environment, given: Arguments, after: Sequence[str]) -> int:
    inside.psql(env, given["database"], after)


def _redis_cli(env: Environment, _given: Arguments, after: Sequence[str]) -> int:
    inside.redis_cli(env, after)


def _doctor(env: Environment, _given: Arguments, _after: Sequence[str]) -> int:
    found = preflight.run(env, plan.decide(plan.survey(env)))
    rows = [(each.name, each.status, each.detail, each.remedy) for each in found]
    console.print_table(("CHECK", "RESULT", "FOUND", "REMEDY"), rows)
    return 1 if any(each.status == findings.FAILED for each in found) else 0


def _backup(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    said = command.BackupOptions(**{each.name: given[each.name] for each in fields(command.BackupOptions)})
    with Cluster(env) as site:
        return command.backup(env, said, site)


def _restore(env: Environment, given: Arguments, _after: Sequence[str]) -> int:
    said = command.Options(**{each.name: given[each.name] for each in fields(command.Options)})
    if said.into or said.drop_scratch or said.configuration:
        raise OpsError(
            "A restore in a cluster is in place: --into, --drop-scratch and --configuration are for one host.",
            "Restore it there, or into another namespace (KUBE_NAMESPACE) with the same target.",
            USAGE,
        )
    with Cluster(env) as site:
        command.restore(env, said, site)
    return 0


# Commands that do the same by other means.
OTHERWISE: Mapping[str, Callable[[Environment, Arguments, Sequence[str]], int]] = {
    "deploy": _deploy,
    "status": _status,
    "health": _health,
    "scale": _scale,
    "rollback": _rollback,
    "logs": _logs,
    "run": _run,
    "shell": _shell,
    "psql": _psql,
    "redis-cli": _redis_cli,
    "doctor": _doctor,
    "backup": _backup,
    "restore": _restore,
}

# Commands that do not make sense there, with what to do instead.
REFUSED: Mapping[str, str] = {
    "update": "Set the newer versions in the .env file, push your images (invoke images push) and deploy.",
    "maintenance": "Scale your services to 0, or let the load balancer in front show a page.",
    "stop": "Scale each workload to 0 with kubectl; `invoke deploy` brings all of it back.",
    "down": "kubectl delete namespace removes everything, data too. Nothing asks twice there.",
    "failover": "Patroni moves the role by itself. By hand: patronictl switchover, in invoke shell postgres-primary",
    "promote": "Patroni promotes the standby by itself, and Kubernetes starts the lost pod again.",
    "upgrade-database": "Move the data into a new database by dump and restore.",
    "secret-rotate": "Change the file in secrets/ and the password in the part that has it, then deploy.",
}

# Commands that are the same everywhere: they concern the project's files, or what is kept in the cluster as on a host.
ALIKE = frozenset(
    {
        *("releases", "unlock", "config", "secret-init", "secret-check", "certificate"),
        *("service-add", "service-remove", "environment-add"),
        *("export", "images"),
    }
)


def perform(env: Environment, name: str, given: Arguments, after: Sequence[str]) -> int | None:
    """Do what a command does in a cluster; its exit code, or None when it is one that is the same everywhere.

    given: its arguments; after: the words after the dashes. Raises OpsError (USAGE) for one that makes no sense there.
    """
    if name in REFUSED:
        raise OpsError(f"`invoke {name}` is not for {env.name}, which runs on Kubernetes.", REFUSED[name], USAGE)
    act = OTHERWISE.get(name)
    return None if act is None else act(env, given, after)
