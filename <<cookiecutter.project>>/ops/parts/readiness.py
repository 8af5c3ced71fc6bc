"""The health of the owner's services: each container's own readiness check, whatever it is written in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ops import engine
from ops.engine import Container
from ops.parts.nginx import edge
from ops.parts.probes import PROBE_SECONDS, Check, Probe, Seen
from ops.stack import pools
from ops.stack.pools import Pool

TITLE = "Services"


def probes(seen: Seen) -> Iterator[Probe]:
    """Run the health check of every running container of the owner's services; where there is none, nginx asks what
    the label ops.ready says."""
    nginx = edge.find(seen.containers)
    known = pools.declared(seen.declared)
    for name, service in seen.declared.lasting.items():
        if not service.own:
            continue
        argv = command(seen.declared.document["services"][name].get("healthcheck") or {})
        asked = known.get(name)
        for each in seen.running(name):
            target = f"{name}-{each.number}"
            if argv:
                yield Probe("ready", target, partial(_ready, each, argv))
            elif nginx and asked and asked.ready != pools.HEALTHCHECK and (address := edge.address(each, nginx)):
                yield Probe("ready", target, partial(_reply, nginx, asked, address, target))


def _reply(nginx: Container, asked: Pool, address: str, target: str) -> Iterable[Check]:
    url = f"http://{address}:{asked.port}{asked.path or '/'}"
    wanting = edge.replies(nginx, [url]).get(url, edge.Reply()).wanting(asked)
    return [Check("ready", target, "fail" if wanting else "ok", wanting or "ready")]


def command(healthcheck: Mapping[str, Any]) -> list[str]:
    """The command of a health check as Compose declares it; empty when there is none."""
    test: Sequence[str] = healthcheck.get("test") or ()
    if healthcheck.get("disable") or not test:
        return []
    kind, *argv = test
    return {"CMD": argv, "CMD-SHELL": ["sh", "-c", *argv]}.get(kind, [])


def _ready(container: Container, argv: Sequence[str]) -> Iterable[Check]:
    done = engine.exec_(container.id, argv, check=False, timeout=PROBE_SECONDS)
    if known := engine.explain(done.stderr):
        raise known
    return [judge_ready(f"{container.service}-{container.number}", done.ok, done.stdout or done.stderr)]


def judge_ready(target: str, ok: bool, answer: str) -> Check:
    """What a service says about itself; without one of its lesser dependencies it is degraded and still serves."""
    try:
        body = json.loads(answer)
        missing = list(body["missing"])
        state = str(body["status"])
    except (ValueError, KeyError, TypeError):
        lines = answer.strip().splitlines()
        return Check("ready", target, "ok" if ok else "fail", lines[-1] if lines else "ready" if ok else "no answer")
    detail = f"{state}: {', '.join(missing)} missing" if missing else state
    return Check("ready", target, "fail" if not ok else "warn" if missing else "ok", detail)
