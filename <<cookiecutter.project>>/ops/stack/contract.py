"""What a service must say so that the stack can run it, checked on the resolved Compose files before anything changes.

Each mistake says which service and label it is about, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ops.base.errors import USAGE, OpsError
from ops.stack import labels
from ops.stack.model import Service, Stack


class Problem(NamedTuple):
    """One mistake in the declaration, and what to write instead."""

    message: str
    remedy: str


def refuse(stack: Stack) -> None:
    """Raise OpsError (USAGE) that names every mistake."""
    found = list(problems(stack))
    if len(found) == 1:
        raise OpsError(f"The Compose files: {found[0].message}", found[0].remedy, USAGE)
    if found:
        listed = "\n".join(f"  {each.message} {each.remedy}" for each in found)
        raise OpsError(f"The Compose files have {len(found)} mistakes:\n{listed}", "Correct them.", USAGE)


def problems(stack: Stack) -> Iterator[Problem]:
    """Every mistake."""
    entries: Mapping[str, Mapping[str, Any]] = stack.document.get("services") or {}
    for name, service in stack.services.items():
        entry = entries.get(name, {})
        yield from _unknown(service)
        yield from _job(service, entry)


def _unknown(service: Service) -> Iterator[Problem]:
    for label in service.labels:
        if label.startswith(labels.PREFIX) and label not in labels.KNOWN:
            meant = labels.suggestion(label)
            yield Problem(
                f"{service.name} has the label {label}, which does not exist.",
                f"Write {meant}." if meant else 'docs/architecture.md, "Labels", lists those that do.',
            )


def _job(service: Service, entry: Mapping[str, Any]) -> Iterator[Problem]:
    said = service.labels.get(labels.JOB)
    if said is not None and said not in {labels.MIGRATION, labels.MANUAL}:
        yield Problem(
            f'label {labels.JOB} of {service.name} is "{said}".',
            f"Write {labels.MIGRATION} (runs before every rollout that changes it) or {labels.MANUAL} (runs by `invoke"
            " run`).",
        )
    elif said is not None and labels.SCHEDULE in service.labels:
        yield Problem(
            f"{service.name} has both {labels.JOB} and {labels.SCHEDULE}.",
            f"Keep one: a scheduled job can be run by `invoke run {service.name}` as well.",
        )
    if service.job and (policy := entry.get("restart", "no")) != "no":
        yield Problem(
            f"{service.name} is a job and has restart: {policy}, so it would begin again when it has ended.",
            'Write restart: "no".',
        )
    if service.own and service.one_shot and not service.job and said is None:
        yield Problem(
            f'{service.name} has restart: "no", so it runs to its end, but it does not say when.',
            f"Give it the label {labels.JOB}: {labels.MIGRATION} (before a rollout), {labels.JOB}: {labels.MANUAL} (by"
            f' `invoke run {service.name}`) or {labels.SCHEDULE}: "0 3 * * *"; or restart: unless-stopped when it is to'
            " keep running.",
        )
