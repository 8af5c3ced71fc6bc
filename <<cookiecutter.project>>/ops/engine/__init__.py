"""Docker: the only package that says `docker`.

Command lines are built from lists of arguments (cli: pure) and run in child processes that do not outlive the command
(process); what docker answers becomes data (containers) and its complaints become sentences (results). The rest of
ops/ uses what is named here: `from ops import engine`.
"""

from ops.engine.cli import (
    child_environment,
    compose,
    compose_argv,
    docker,
    docker_argv,
    exec_,
    exec_argv,
    overridden,
    plain_command,
    surroundings,
    warn_overridden,
)
from ops.engine.containers import (
    Container,
    canonical,
    container,
    containers,
    image_ids,
    inspect,
    logs,
    look,
    one_offs,
    processors,
    timestamp,
)
from ops.engine.process import attended, become, end, end_all, logged, pipe, pool, popen, run, show, tail
from ops.engine.results import Completed, TimedOut, brief, explain, failure, reason

__all__ = [
    "Completed",
    "Container",
    "TimedOut",
    "attended",
    "become",
    "brief",
    "canonical",
    "child_environment",
    "compose",
    "compose_argv",
    "container",
    "containers",
    "docker",
    "docker_argv",
    "end",
    "end_all",
    "exec_",
    "exec_argv",
    "explain",
    "failure",
    "image_ids",
    "inspect",
    "logged",
    "logs",
    "look",
    "one_offs",
    "overridden",
    "pipe",
    "plain_command",
    "pool",
    "popen",
    "processors",
    "reason",
    "run",
    "show",
    "surroundings",
    "tail",
    "timestamp",
    "warn_overridden",
]
