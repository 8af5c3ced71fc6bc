"""Failover: another PostgreSQL node becomes the primary, by plan (`failover`) or by force (`promote`).

Planned, nothing is lost: the old primary ends its work, and the standby has all of it. Forced, the old primary is put
out of action first: two primaries are worse than none.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from ops import engine
from ops.base import console, signals
from ops.base.environments import Environment
from ops.base.errors import FAILED, REFUSED, OpsError
from ops.base.waiting import until
from ops.engine import Container
from ops.parts import postgres
from ops.parts.postgres import Node, View
from ops.stack.model import Service
from ops.state import lock

# A planned one takes 2 s. A forced one waits for Patroni's lease at worst (20 s), and for a busy machine.
SECONDS = 60
# An old primary that was far behind is copied anew, which is not waited for.
REJOIN_SECONDS = 120
# Beside the data folder, as in infrastructure/postgres/node.sh.
_FENCE = 'touch "$(dirname "$PGDATA")/.fenced"'
_FENCED = '[ ! -e "$(dirname "$PGDATA")/.fenced" ] || echo fenced'

# When it begins, and a line for every write that was acknowledged, until there is one no more; or the first that is.
_LAST = "date +%s.%N; while {write} && date +%s.%N && [ $SECONDS -lt {limit} ]; do sleep 0.02; done"
_FIRST = "until {write}; do sleep 0.02; [ $SECONDS -lt {limit} ] || exit 1; done; date +%s.%N"
_MESSAGE = "SELECT pg_logical_emit_message(true, 'failover', '')"
# A write may wait for a standby that has just gone away.
_WRITE = f'timeout 5 psql -qXtA -U {{user}} -d postgres -o /dev/null -c "{_MESSAGE}" 2>/dev/null'


def failover(env: Environment) -> None:
    """Let the standby become the primary, and the primary its standby, without losing anything.

    Raises OpsError (REFUSED) with the reason when it is not safe; nothing was touched then.
    """
    with lock.hold(env, f"failover --env {env.name}"):
        view = look(env)
        if handed := _handed_over(env, view):
            old, new = handed
            console.say(f"An earlier failover was interrupted after {old.name} had ended: finishing it.")
            _finish(env, old, new)
            console.say(f"{new.name} is the primary now", "green")
            _await_standby(env, old.name)
            return
        if hazard := view.hazard():
            raise OpsError(
                f"It is not safe to fail over in {env.name}: {hazard}. Nothing was touched.",
                "See docs/runbook.md. When the primary is lost: invoke promote.",
                REFUSED,
            )
        seconds = switch_over(env, view)
        old, new = view.pair()
        console.say(f"{new.name} is the primary now; no write for {console.duration(seconds)}", "green")
        _await_standby(env, old.name)


def look(env: Environment) -> View:
    """The nodes as they are. Raises OpsError when none runs."""
    view = postgres.look(env, engine.containers(env))
    if not view.nodes:
        raise OpsError(f"PostgreSQL is not running in {env.name}.", f"invoke deploy --env {env.name}", REFUSED)
    return view


def switch_over(env: Environment, view: View) -> float:
    """Swap the roles of the two nodes of a view without hazard; seconds in which no write was acknowledged."""
    old, new = view.pair()
    with _outage(env, old.container, new.container) as measured:
        if view.automatic:
            order = {"leader": old.name, "candidate": new.name}
            postgres.patroni(old.container, "POST", "/switchover", json.dumps(order), timeout=SECONDS)
        else:
            _hand_over(env, old, new)
        return measured()


def one_after_the_other(env: Environment, names: Sequence[str], declared: Mapping[str, Service]) -> Iterator[str]:
    """The nodes of PostgreSQL among services that are to be replaced, in the order that keeps most of it serving.

    The standby comes before its primary. A primary under Patroni hands its role over before it is named, so that a
    restart of both costs no more than a planned failover.
    """
    nodes = [name for name in names if name in postgres.NODES]
    if not nodes:
        return
    view = postgres.look(env, engine.containers(env))
    primary = view.primary.name if view.primary else ""
    # A pair that goes over to Patroni: the standby waits for the primary to have formed the cluster.
    standby_first = view.automatic or not any(declared[name].stateful for name in nodes)
    for name in sorted(nodes, key=lambda name: (name == primary) == standby_first):
        # Not where both become a plain pair: Patroni is gone from the standby by then.
        if name == primary and view.automatic and declared[name].stateful and len(view.nodes) > 1:
            _step_down(env)
        yield name


def _step_down(env: Environment) -> None:
    """Hand the primary's role over, when that is safe within a minute; otherwise its restart is an outage."""
    view = until(lambda: look(env), SECONDS, 0.5, accept=lambda view: not view.hazard())
    if hazard := view.hazard():
        console.warn(f"{view.primary.name if view.primary else 'the primary'} is restarted without failover: {hazard}")
        return
    seconds = switch_over(env, view)
    console.say(f"{view.pair()[1].name} is the primary now; no write for {console.duration(seconds)}")


def _hand_over(env: Environment, old: Node, new: Node) -> None:
    """Swap the roles of a plain pair: a clean stop sends everything to the standby before it ends."""
    engine.docker("stop", old.container.id, timeout=None)
    try:
        ended = _end_of_history(env, old)
        if not _has(env, new, ended):
            raise OpsError(f"{new.name} did not get everything from {old.name}, which is the primary again.")
    except BaseException:
        with signals.undisturbed():
            engine.docker("start", old.container.id)
        raise
    # Between the fence and the promotion there is no primary, and a fenced node never becomes one by itself.
    with signals.undisturbed():
        _fence(env, old)
        _finish(env, old, new)


def _finish(env: Environment, old: Node, new: Node) -> None:
    """Promote the standby of a primary that has ended and is fenced, and start that as its standby."""
    try:
        _promote(env, new)
    except OpsError as error:
        error.remedy = (
            f"{old.name} has ended and waits for it. Run the same command again; if that fails too:"
            f" invoke promote --env {env.name}"
        )
        raise
    finally:
        engine.docker("start", old.container.id)


def _handed_over(env: Environment, view: View) -> tuple[Node, Node] | None:
    """The old primary and the standby of a planned failover that was killed halfway: the one has ended cleanly and is
    fenced, and the other has all of it. None when that is not what there is."""
    new = view.standby
    if view.primary or view.automatic or not new:
        return None
    for each in engine.containers(env):
        if each.service not in postgres.NODES or each.service == new.name:
            continue
        old = Node(each)
        if _one_off(env, old, _FENCED).strip() != "fenced":
            continue
        with suppress(OpsError):
            if _has(env, new, _end_of_history(env, old)):
                return old, new
    return None


def _end_of_history(env: Environment, node: Node) -> str:
    """Where the WAL of a stopped primary ends: its last checkpoint is the last thing it wrote."""
    said = _one_off(env, node, 'pg_controldata "$PGDATA"')
    fields = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
    if fields["Database cluster state"].strip() != "shut down":
        raise OpsError(f"{node.name} did not end cleanly.", f"invoke logs --service {node.name}")
    return fields["Latest checkpoint location"].strip()


def _has(env: Environment, node: Node, position: str) -> bool:
    """Whether a standby has received WAL up to a position, which is on its way."""
    received = f"SELECT pg_last_wal_receive_lsn() > '{position}'"
    return until(lambda: _sql(env, node.container, received) == "t", SECONDS, 0.05)


def promote(env: Environment, assume_yes: bool = False) -> None:
    """Make the standby the primary although the primary is lost or does not answer; after asking.

    Raises OpsError (REFUSED) when the primary is well, or nobody can take its place.
    """
    with lock.hold(env, f"promote --env {env.name}"):
        containers = engine.containers(env)
        view = look(env)
        if view.primary:
            raise OpsError(
                f"{view.primary.name} is the primary and answers: there is nothing to force.",
                f"To swap the roles without losing anything: invoke failover --env {env.name}.",
                REFUSED,
            )
        if not (new := view.standby):
            said = "; ".join(f"{node.name}: {node.reason}" for node in view.nodes)
            raise OpsError(f"No standby answers that could be promoted ({said}).", "See docs/runbook.md.", REFUSED)
        others = [each for each in containers if each.service in postgres.NODES and each.service != new.name]
        console.say(f"{new.name} becomes the primary of {env.name}. {_at_stake(env, view, new)}")
        for each in others:
            console.say(
                f"{each.service} is stopped first, and comes back as its standby: what only it has is given up."
            )
        question = f"Promote {new.name}?"
        if not console.confirm(question, assume_yes, expect=env.name if env.name == "prod" else ""):
            raise OpsError("Nothing was changed.", code=FAILED)
        began = time.monotonic()
        for each in others:
            # It may be paused, or hang: the signal that nobody can refuse.
            engine.docker("kill", each.id, check=False)
        if view.automatic:
            _take_lease(env, containers, new, view.cluster["scope"] if view.cluster else "")
        else:
            for each in others:
                _fence(env, Node(each))
            _promote(env, new)
        took = console.duration(time.monotonic() - began)
        console.say(f"{new.name} is the primary now ({took})", "green")
        for each in others:
            engine.docker("start", each.id)
            _await_standby(env, each.service)


def _at_stake(env: Environment, view: View, new: Node) -> str:
    """What a promotion may lose, in words."""
    members = (view.cluster or {}).get("members", [])
    if any(each["name"] == new.name and each["role"] in {"sync_standby", "quorum_standby"} for each in members):
        return "It is the synchronous standby: no acknowledged write is lost."
    if since := _sql(env, new.container, "SELECT pg_last_xact_replay_timestamp()"):
        return f"What was written after {since} is lost."
    return "It has replayed nothing since its start: what was written after that is lost."


def _take_lease(env: Environment, containers: list[Container], new: Node, scope: str) -> None:
    """Let Patroni promote a node at once: the holder of the lease was just put out of action, so nobody needs to wait
    for its end. scope: the cluster's name in etcd."""
    if not (scope and postgres.forget(containers, scope, "leader")):
        raise OpsError("etcd does not run. Without it Patroni cannot fail over.", f"invoke deploy --env {env.name}")
    order = json.dumps({"candidate": new.name})
    # A synchronous standby may have been quicker: then there is nothing left to order, and Patroni refuses.
    with suppress(OpsError):
        postgres.patroni(new.container, "POST", "/failover", order, timeout=SECONDS)
    _await_writes(env, new)


def _promote(env: Environment, node: Node) -> None:
    _sql(env, node.container, f"SELECT pg_promote(true, {SECONDS})")
    _await_writes(env, node)


def _await_writes(env: Environment, node: Node) -> None:
    if not until(lambda: postgres.ask(env, node.container).role == postgres.PRIMARY, SECONDS):
        raise OpsError(
            f"{node.name} did not become the primary within {SECONDS} s.", f"invoke logs --service {node.name}"
        )


def _await_standby(env: Environment, name: str) -> None:
    """Wait until a node follows; that it does not yet is worth a warning, no failure."""
    with console.activity(f"waiting for {name} to follow"):
        hazard = until(lambda: look(env).hazard(), REJOIN_SECONDS, 0.5, accept=lambda hazard: not hazard)
    if hazard:
        console.warn(f"{name} does not follow yet: {hazard}. See: invoke health --env {env.name}")
        return
    console.say(f"{name} follows as its standby", "green")


def _fence(env: Environment, node: Node) -> None:
    """Mark the volume of a stopped node, so that it never starts as a primary again."""
    _one_off(env, node, _FENCE)


def _one_off(env: Environment, node: Node, script: str) -> str:
    """What a shell script prints that runs in a stopped node's volume."""
    options = ("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", node.name, "-c", script)
    return engine.compose(env, *options).stdout


def _sql(env: Environment, container: Container, text: str) -> str:
    argv = postgres.psql(env, "--command", text, database="postgres")
    return engine.exec_(container.id, argv, timeout=SECONDS + postgres.ANSWER_SECONDS).stdout.strip()


@contextmanager
def _outage(env: Environment, old: Container, new: Container) -> Iterator[Callable[[], float]]:
    """Write to both nodes as fast as it goes; gives a function that tells how long none of them took a write, in
    seconds. Where the old one takes none at all, that counts from here."""
    write = _WRITE.format(user=env.values["POSTGRES_USER"])
    with (
        engine.popen(_shell(old, _LAST, write), stdout=subprocess.PIPE) as before,
        engine.popen(_shell(new, _FIRST, write), stdout=subprocess.PIPE) as after,
    ):
        # It has begun before anything changes, and one write is through; or none, when the old one's disk is full.
        last, first = engine.pipe(before.stdout), engine.pipe(after.stdout)
        begun = [last.readline(), last.readline()]

        def measured() -> float:
            lines = b"".join([*begun, last.read()]).split()
            if not (lines and (taken := first.read().strip())):
                raise OpsError(
                    f"{new.service} has not taken a write within {SECONDS} s.", f"invoke health --env {env.name}"
                )
            return float(taken) - float(lines[-1])

        yield measured


def _shell(container: Container, script: str, write: str) -> list[str]:
    return engine.exec_argv(container.id, "bash", "-c", script.format(write=write, limit=SECONDS))
