"""The metrics that exist: a file of names for each program that is scraped, made from the pinned version of it.

`python -m tests.metrics URL` writes them anew from a running Prometheus. A file begins with the image that is pinned; a
new pin without new names is an error of tests/test_metrics.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# Which file holds the metrics of which jobs: those of prometheus.yml, and the four services with the label ops.metrics.
JOBS = {
    "stack": ("web", "api", "auth-service", "notification-service"),
    "scheduler": ("scheduler",),
    "backup": ("wal-receiver",),
    "nginx-exporter": ("nginx",),
    "haproxy": ("haproxy",),
    "blackbox-exporter": ("endpoint", "elasticsearch"),
    "postgres-exporter": ("postgres",),
    "patroni": ("patroni",),
    "redis-exporter": ("redis", "redis-sentinel"),
    "rabbitmq": ("rabbitmq", "rabbitmq-queues"),
    "node-exporter": ("node",),
    "prometheus": ("prometheus",),
    "alertmanager": ("alertmanager",),
    "otel-collector": ("otel-collector",),
}
# What Prometheus adds to every target, and makes of alerts.
OF_PROMETHEUS = {"up", "ALERTS", "ALERTS_FOR_STATE"}

_LABELS = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w:.$])[a-zA-Z_:][\w:]*(?![\w:]|\s*\()")
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}


@dataclass(frozen=True)
class Names:
    """The content of a file. pinned: the image, or the package, whose metrics these are."""

    pinned: str
    names: frozenset[str]


def load() -> dict[str, Names]:
    """Every file, by its name without the ending."""
    found = {}
    for path in sorted(HERE.glob("*.txt")):
        lines = path.read_text(encoding="utf-8").splitlines()
        names = frozenset(line for line in lines if line and not line.startswith("#"))
        found[path.stem] = Names(lines[0].removeprefix("# "), names)
    return found


def asked_for(expression: str) -> Iterator[str]:
    """The metrics that a PromQL expression reads."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", expression)
    bare = re.sub(r"{[^}]*}|\[[^\]]*\]", "", bare)
    for name in _NAME.findall(_LABELS.sub(" ", bare)):
        if name.lower() not in _WORDS:
            yield name
