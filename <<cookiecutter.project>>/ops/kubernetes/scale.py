"""Scale in a cluster: run another number of pods of a service, and keep it that way."""

from __future__ import annotations

import time

from ops.base import console
from ops.base.environments import Environment
from ops.engine import kubectl
from ops.kubernetes.deploy import deployment
from ops.rollout import scale as usual
from ops.stack import model
from ops.state import releases


def scale(env: Environment, service: str, count: str) -> None:
    """Run another number of pods of a service; the number goes into the .env file once they are ready. Raises
    OpsError."""
    wanted = usual.number(count)
    setting = usual.setting(model.load(env), model.replica_settings(env), service)
    with deployment(env, f"scale {service} {wanted}") as work:
        at = kubectl.place(env)
        found = kubectl.find(at, "deployment", service)
        if not found:
            usual.declare(env, setting, wanted)
            console.say(f"{service} does not run in {env.name}: `invoke deploy --env {env.name}` starts {wanted}")
            return
        stack, before = model.load(env), int(found["spec"].get("replicas", 1))
        if before == wanted:
            work.await_ready(stack, [service])
            usual.declare(env, setting, wanted)
            console.say(f"nothing to change: {wanted} {service} healthy", "green")
            return
        began = time.monotonic()
        work.touched, work.doing = True, f"scaling {service}"
        with work.released(stack, {service: f"{before} -> {wanted}"}, releases.SCALED):
            _set(at, service, before, wanted)
            try:
                work.await_ready(stack, [service])
            except BaseException as error:
                # A number that cannot be had must not be declared, nor stay.
                work.go_back(error, f"going back to {before} {service}", lambda: _set(at, service, wanted, before))
                raise
            usual.declare(env, setting, wanted)
        elapsed = console.duration(time.monotonic() - began)
        console.say(f"{service}: {before} -> {wanted}, all healthy ({elapsed})", "green")


def _set(at: kubectl.Place, service: str, before: int, wanted: int) -> None:
    """Change the number, if it still is what it was. The template stays as it runs, whatever was edited since."""
    kubectl.run(at, "scale", f"deployment/{service}", f"--current-replicas={before}", f"--replicas={wanted}")
