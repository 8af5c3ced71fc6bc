"""How every service of an environment in a cluster stands."""

from __future__ import annotations

import json
import time
from dataclasses import asdict

from ops.base import console
from ops.base.environments import Environment
from ops.commands import status as usual
from ops.engine import kubectl
from ops.kubernetes import marks, running
from ops.parts import jobs
from ops.state import lock


def status(env: Environment, as_json: bool = False) -> None:
    """Show how every service stands. Raises OpsError when the cluster cannot be asked."""
    at, seen, now = kubectl.place(env), running.glance(env), time.time()
    rows = usual.standings(seen.stack, seen.containers, now, usual.roles_of(env, seen.containers))
    scheduled = jobs.standings(seen.stack, seen.containers, now)
    beside = [each for each in running.one_offs(env, seen.stack) if each.running]
    if as_json:
        document = {
            "environment": env.name,
            "project": env.project,
            "context": at.context,
            "namespace": at.namespace,
            "services": [asdict(row) for row in rows],
            "jobs": [asdict(each) for each in scheduled],
            "one_off": [{"name": each.name, "by": each.labels.get(marks.BY, "")} for each in beside],
        }
        console.say(json.dumps(document, indent=2))
        return
    usual.show_standings(rows)
    usual.show_jobs(scheduled)
    for each in beside:
        console.say(
            f"\nrun beside {each.labels[marks.ONE_OFF]} for {console.duration(now - each.started)}: {each.name}"
        )
    if held := lock.holder(env):
        console.say(f"\nbeing changed: {held.describe(now)}", "yellow")
    if not seen.containers:
        console.say(f"\n{env.name} is down; start it with `invoke deploy --env {env.name}`")
    console.say(f"\nin the namespace {at.namespace} of {at.context}")
