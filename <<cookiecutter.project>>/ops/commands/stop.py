"""Stop the containers of an environment, or remove them, with or without their data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ops import engine
from ops.base import console
from ops.base.environments import Environment
from ops.base.errors import FAILED, OpsError
from ops.data import scratch
from ops.engine import Container
from ops.parts.nginx import edge
from ops.rollout.compose_up import compose_failed
from ops.stack import images, model
from ops.state import lock, store

_PROJECT_LABEL = "label=com.docker.compose.project="


def stop(env: Environment) -> None:
    """Stop every container of an environment, also of services that are switched off. Nothing is lost."""
    if not (running := _running(env)):
        console.say(f"nothing to stop: no container of {env.name} runs")
        return
    with lock.hold(env, f"stop --env {env.name}"):
        running = _running(env)
        declared = _declared(env)
        with console.activity(f"stopping {len(running)} containers") as tick:
            drain(running, declared)
            if declared:
                log = env.log_file("stop.log")
                argv = engine.compose_argv(env, "stop", all_profiles=True)
                if engine.logged(argv, log, tick, **engine.surroundings(env)):
                    raise compose_failed(env, log)
            # Those of a service that no Compose file declares any more; all of them when the files do not resolve.
            if left := [each.id for each in _running(env)]:
                engine.docker("stop", *left, timeout=None)
    console.say(
        f"stopped {len(running)} containers of {env.name}; `invoke deploy --env {env.name}` starts them again", "green"
    )


def _running(env: Environment) -> list[Container]:
    found = [*engine.containers(env), *engine.one_offs(env)]
    return [each for each in found if each.state in {"running", "restarting", "paused"}]


def _declared(env: Environment) -> model.Stack | None:
    """The declared stack. None, with a warning, when it does not resolve: that must not keep anything running."""
    try:
        return model.load(env)
    except OpsError as error:
        console.warn(f"{error.message.rstrip('.')}. All containers of {env.name} are stopped at once, by their label.")
        return None


def drain(containers: Sequence[Container], declared: model.Stack | None) -> None:
    """Let open requests finish before everything is stopped; new ones are answered with 503 meanwhile."""
    if not (nginx := edge.find(containers)):
        return
    try:
        edge.close(nginx)
    except OpsError as error:
        console.warn(f"Open requests could not be waited for: {error}")
    # Their drain is done; the signal of the stop that follows is the second, which tells them not to wait for it.
    rolling = declared.rolling if declared else {}
    ours = [each.id for each in containers if each.running and each.service in rolling]
    if ours:
        engine.docker("kill", "--signal", "TERM", *ours, check=False)


@dataclass(frozen=True)
class Leftovers:
    """What still carries the project's label."""

    containers: tuple[str, ...]
    networks: tuple[str, ...]
    volumes: tuple[str, ...]

    def describe(self) -> str:
        kinds = (("container", self.containers), ("network", self.networks), ("volume", self.volumes))
        return ", ".join(f"{kind} {name}" for kind, names in kinds for name in names)


def leftovers(env: Environment) -> Leftovers:
    """Everything on the engine that belongs to the environment, one-off containers too."""
    label = f"{_PROJECT_LABEL}{env.project}"
    return Leftovers(
        containers=_names("ps", "--all", "--filter", label, "--format", "{{.Names}}"),
        networks=_names("network", "ls", "--filter", label, "--format", "{{.Name}}"),
        volumes=_names("volume", "ls", "--filter", label, "--format", "{{.Name}}"),
    )


def _names(*args: str) -> tuple[str, ...]:
    return tuple(sorted(engine.docker(*args).stdout.split()))


def down(env: Environment, *, volumes: bool = False, assume_yes: bool = False) -> None:
    """Remove containers and networks; with `volumes`, after asking, all data too.

    Raises OpsError when the person does not agree, or something is left over.
    """
    before = leftovers(env)
    if not (before.containers or before.networks or (volumes and before.volumes) or scratch.find(env)):
        kept = f"; {len(before.volumes)} volumes with its data are kept" if before.volumes else ""
        console.say(f"nothing to remove: {env.name} is down{kept}")
        return
    # Before the question: no deploy may add to what is about to be lost while a person thinks about it.
    with lock.hold(env, f"down --env {env.name}"):
        before = leftovers(env)
        doomed = before.volumes if volumes else ()
        if doomed:
            _agree_to_lose(env, doomed, assume_yes)
        scratch.drop(env)
        declared = _declared(env)
        drain(_running(env), declared)
        _remove(env, before, doomed, declared is not None)
    after = leftovers(env)
    left = Leftovers(after.containers, after.networks, after.volumes if volumes else ())
    if described := left.describe():
        raise OpsError(f"{env.name} is not down, this is left: {described}.", "See who uses it: docker ps --all")
    kept = f", {len(after.volumes)} volumes kept" if after.volumes else ""
    console.say(
        f"{env.name} is down: {len(before.containers)} containers, {len(before.networks)} networks"
        f"{f', {len(doomed)} volumes' if doomed else ''} removed{kept}",
        "green",
    )


def _agree_to_lose(env: Environment, doomed: Sequence[str], assume_yes: bool) -> None:
    sizes = volume_sizes()
    console.say(f"These volumes of {env.name}, and all data in them, will be lost:")
    for name in doomed:
        console.say(f"  {name}  {console.size(sizes[name]) if sizes.get(name, -1) >= 0 else 'size unknown'}")
    question = f"Permanently delete {console.amount(len(doomed), 'volume')} of {env.name}?"
    if not console.confirm(question, assume_yes, expect=env.name if env.name == "prod" else ""):
        raise OpsError("Nothing was removed.", code=FAILED)


def volume_sizes() -> dict[str, int]:
    """Bytes of each volume on the engine; -1 where it does not say. Slow with many files: it counts them."""
    done = engine.docker("system", "df", "--verbose", "--format", "{{json .Volumes}}", check=False, timeout=120)
    if not done.ok:
        return {}
    return {each["Name"]: _bytes(each.get("Size", "")) for each in done.json() or []}


_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _bytes(text: str) -> int:
    """Bytes of a size as Docker prints it: "12.5MB" -> 12500000; -1 for anything else."""
    number = text.rstrip("kMGTB")
    unit = text[len(number) :]
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        return -1


def _remove(env: Environment, before: Leftovers, doomed: Sequence[str], resolves: bool) -> None:
    """Remove everything. resolves: whether Compose can read its files, and so stop services in their order."""
    with console.activity(f"removing {len(before.containers)} containers") as tick:
        if resolves:
            log = env.log_file("down.log")
            options = ("--remove-orphans", *(("--volumes",) if doomed else ()))
            argv = engine.compose_argv(env, "down", *options, all_profiles=True)
            if engine.logged(argv, log, tick, **engine.surroundings(env)):
                raise compose_failed(env, log)
        elif running := [each.id for each in _running(env)]:
            engine.docker("stop", *running, timeout=None)
        # What no Compose file declares any more: Compose does not know it, the label does.
        after = leftovers(env)
        if after.containers:
            engine.docker("rm", "--force", *after.containers, check=False)
        if after.networks:
            engine.docker("network", "rm", *after.networks, check=False)
        if store.name_of(env) in doomed:
            store.remove(env)
            images.forget(env)
        if doomed and after.volumes:
            engine.docker("volume", "rm", *after.volumes, check=False)
