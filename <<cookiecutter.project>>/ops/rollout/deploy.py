"""Deploy and update: bring what runs to what is declared.

The order is look, decide, check, fetch images, data tier, migrations, rollout of the services, everything else, gate.
Up to the rollout a failure leaves the old version running, and a rollout leads back to it (see rollout.py). With
nothing to change it ends after "decide", so running it again is cheap.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ops import engine
from ops.base import console, findings, signals, undo
from ops.base.environments import Environment, relative
from ops.base.errors import INTERRUPTED, MIGRATION, OpsError
from ops.engine import Container
from ops.parts import postgres, redis
from ops.parts.nginx import edge
from ops.parts.postgres import failover, majors
from ops.rollout import gate, plan, preflight
from ops.rollout.compose_up import bring_up, up_argv
from ops.rollout.observe import Survey, decide, survey
from ops.rollout.plan import Plan
from ops.rollout.roll import Move, Rollout, move
from ops.stack import images, model
from ops.stack.model import Stack
from ops.state import digests, lock, releases
from ops.state.releases import Release

# Setting and default, in seconds, for each tier. On two busy cores with empty volumes the whole stack took 60.
TIMEOUT = ("DEPLOY_TIMEOUT", 180)
# Of the deployer and all that it starts: a tenth of the weight of what serves, when there is too little for both.
_NICE = 10

_DONE = {
    plan.CREATE: "created",
    plan.RECREATE: "replaced",
    plan.REFRESH: "replaced",
    plan.SCALE: "scaled",
    plan.START: "started",
    plan.RELOAD: "reloaded",
    plan.RUN: "ran",
    plan.UNCHANGED: "unchanged",
}


@dataclass
class Deployment:
    """One deploy. doing: what it is at, for the message after Ctrl-C."""

    env: Environment
    held: lock.Lock
    command: str = "deploy"
    assume_yes: bool = False
    began: float = field(default_factory=time.monotonic)
    doing: str = "looking around"
    touched: bool = False
    not_undone: list[str] = field(default_factory=list)
    ready_after: dict[str, float] = field(default_factory=dict)

    @property
    def timeout(self) -> float:
        """Seconds that each tier has to become healthy."""
        return self.env.number(*TIMEOUT)

    def run(self) -> None:
        """Deploy. Raises OpsError when it is refused or fails."""
        env = self.env
        seen = survey(env)
        decided = decide(seen)
        if decided.idle and not seen.needs():
            self._confirm_healthy(seen)
            return
        self._prepare()
        self.doing = "checking"
        beside = {each.service.name: each.fresh for each in moving(seen.stack, decided, seen.containers)}
        findings.refuse(report_warnings(preflight.run(env, seen.stack, seen.containers, beside)))
        self._agree_to_restarts(seen, decided)
        self._make_certificate()
        with self.released(seen.stack.document, seen.own, changed(decided), self.command) as release:
            if needs := seen.needs():
                self._fetch(needs)
            self.doing = "deciding"
            seen = survey(env)
            if needs:
                # What was not here before could not be asked which major version it is.
                findings.refuse(list(majors.check(env, seen.stack, seen.containers)))
            decided = decide(seen)
            self._apply(seen, decided, release)
            digests.write_notes(env, engine.containers(env), seen.files)
        self._prune()
        self._summarise(seen, decided)

    @contextlib.contextmanager
    def released(
        self, document: Mapping, own: Sequence[images.OwnImage], changes: Mapping[str, str], command: str
    ) -> Iterator[Release]:
        """A new entry in the history of releases, with how it ended.

        After a failure our images get their tags back from those that run, so that nothing starts from the failed ones.
        """
        release = releases.begin(self.env, document, command, changes)
        try:
            yield release
        except BaseException as error:
            result = releases.BROKEN if isinstance(error, Exception) else releases.INTERRUPTED
            reason = str(error).partition("\n")[0]

            def note() -> None:
                releases.finish(self.env, release, result, reason=reason, seconds=self._elapsed())

            failed = undo.every(
                [
                    ("giving images their tags back", lambda: images.tag_back(own, engine.containers(self.env))),
                    ("noting how the release ended", note),
                ]
            )
            self.not_undone += failed
            if failed and isinstance(error, OpsError):
                error.message += f"\nTidying up failed too: {'; '.join(failed)}."
            raise
        # Those of a rollback: nobody goes back to an older database server by it.
        names = {name for name, each in model.parse(document).services.items() if each.built and not each.stateful}
        running = {each.service: each.image_id for each in engine.containers(self.env) if each.service in names}
        releases.finish(self.env, release, releases.DEPLOYED, seconds=self._elapsed(), images=running)

    def _elapsed(self) -> float:
        return time.monotonic() - self.began

    def _agree_to_restarts(self, seen: Survey, decided: Plan) -> None:
        """Ask before something restarts that cannot be rolled out. Raises OpsError when the answer is no."""
        restarts = restarting(seen.stack, decided, seen.containers)
        if not restarts:
            return
        console.say("These restart, and are away for some seconds while they do:")
        for change in restarts:
            console.say(f"  {change.service:<24} {change.reason}")
        if not console.confirm(f"Restart {len(restarts)} of {self.env.name}?", self.assume_yes):
            raise OpsError("Nothing was changed.")

    def standing(self) -> str:
        """How far it came, for the message after Ctrl-C."""
        try:
            migrations = model.load(self.env).migrations
            containers = [each for each in engine.containers(self.env) if each.service not in migrations]
        except (OpsError, OSError) as error:
            return f"what runs now is not known ({error})"
        ready = sum(each.ready for each in containers)
        return f"{ready} containers are healthy, {len(containers) - ready} are not"

    def _confirm_healthy(self, seen: Survey) -> None:
        """Nothing to change: make sure that what runs is well."""
        self.doing = "waiting for health"
        lasting = seen.stack.lasting
        checked = gate.Gate(lasting, before=seen.containers)
        verdict = checked.observe(seen.containers, time.monotonic())
        if verdict.status != gate.READY:
            # A database that refuses its volume stays as it is however long one waits.
            findings.refuse(list(majors.check(self.env, seen.stack, seen.containers)))
        if verdict.status == gate.WAITING:
            verdict = gate.watch(checked, lambda: engine.containers(self.env), self.timeout)
        gate.demand(verdict)
        elapsed = console.duration(time.monotonic() - self.began)
        console.say(f"nothing to change: {len(lasting)} services healthy in {self.env.name} ({elapsed})", "green")

    def _prepare(self) -> None:
        """What dev makes by itself. Elsewhere secrets are made by a person's decision, and preflight says so."""
        if self.env.name != "dev":
            return
        from ops.secrets import make

        if made := make.init(self.env):
            files = "file" if len(made) == 1 else "files"
            console.say(f"made {len(made)} secret {files} in {relative(self.env.secrets_dir)} (dev only)")

    def _make_certificate(self) -> None:
        from ops.secrets import certificates

        certificate = certificates.ensure(self.env)
        if certificate.issued:
            authority = relative(certificates.authority_of(self.env))
            console.say(
                f"made a certificate for {', '.join(certificate.names)}; trust {authority} to be rid of warnings"
            )

    def _fetch(self, needs: images.Needs) -> None:
        env = self.env
        if needs.pull:
            self.doing = "pulling images"
            with console.activity(f"pulling {', '.join(needs.pull)}") as tick:
                failed = images.pull(needs.pull, tick)
            if failed:
                raise images.unavailable(env, failed)
        if needs.build:
            self.doing = "building images"
            names = ", ".join(each.service for each in needs.build)
            with console.activity(f"building {names} (log: {relative(env.state_dir / 'build.log')})") as tick:
                images.build(env, needs.build, tick)
        images.tag((each.content, each.reference) for each in needs.tag)

    def _apply(self, seen: Survey, decided: Plan, release: Release) -> None:
        declared = seen.stack
        self.touched = True
        self._tidy(decided)
        foundation = declared.foundation
        jobs = decided.of_kind(plan.RUN, among=declared.migrations)
        first = [name for name in foundation if decided.changes[name].kind != plan.UNCHANGED]
        if first or (jobs and foundation):
            self._up("starting the data tier", first, decided, foundation)
        for job in jobs:
            self._run_job(job, seen)
        for name in decided.of_kind(plan.RELOAD):
            self._reload([each for each in seen.containers if each.service == name])
        moves = moving(declared, decided, seen.containers)
        if moves:
            self.roll_out(moves, seen.stack, release)
        elif decided.pinned and (nginx := edge.find(seen.containers)):
            edge.release(nginx)
        done = {*foundation, *jobs, *(each.service.name for each in moves)}
        rest = [
            name
            for name, change in decided.changes.items()
            if name not in done and change.kind not in {plan.UNCHANGED, plan.RELOAD}
        ]
        self._up("starting the services", rest, decided, declared.lasting)
        # Only now: what was replaced may have leaned on it, as a primary does on the lease in etcd.
        self._remove([each for each in decided.orphans if not each.ports])

    def _reload(self, containers: Sequence[Container]) -> None:
        self.doing = "reloading nginx"
        self.held.check()
        console.say("reloading nginx: its configuration has changed")
        for each in containers:
            edge.reload(each)

    def roll_out(self, moves: Sequence[Move], declared: Stack, release: Release) -> None:
        """Roll services out as they are declared in a release."""
        self.touched = True
        rollout = Rollout(
            self.env,
            releases.document_path(self.env, release),
            declared.document["services"],
            moves,
            self.timeout,
            self.held.check,
        )
        try:
            rollout.run()
        finally:
            self.doing = rollout.doing
            self.not_undone += rollout.not_undone
            self.ready_after.update(rollout.ready_after)

    def _prune(self) -> None:
        self.doing = "removing old images"
        if removed := images.prune(self.env, releases.images_kept(self.env)):
            console.say(f"removed {len(removed)} old images, of which no release is kept")

    def _tidy(self, decided: Plan) -> None:
        """Remove what an interrupted run left behind, and what holds a port that its successor may want."""
        self._remove([each for each in decided.orphans if each.ports])
        self.doing = "removing what an interrupted run left behind"
        if decided.discard:
            engine.docker("rm", "--force", *(each.id for each in decided.discard))
        for container, name in decided.rename:
            engine.docker("rename", container.id, name)

    def _remove(self, orphans: Sequence[Container]) -> None:
        self.doing = "removing what is no longer declared"
        if orphans:
            gone = sorted({each.service for each in orphans})
            console.say(f"removing {', '.join(gone)}: no longer part of {self.env.name}")
            ids = [each.id for each in orphans]
            engine.docker("stop", *ids, timeout=None)
            engine.docker("rm", "--force", *ids)

    def _up(self, doing: str, names: Sequence[str], decided: Plan, watched: Mapping[str, model.Service]) -> None:
        """Let Compose bring some services up, and wait until all of `watched` are healthy."""
        self.doing = doing
        self.held.check()
        if names:
            console.say(f"{doing}: {', '.join(names)}")
        replaced = decided.of_kind(plan.RECREATE, plan.REFRESH, among=names)
        # What is new comes first: those that are replaced may ask it for their role.
        if others := [name for name in names if name not in replaced]:
            fresh = {name: service for name, service in watched.items() if name in others}
            self._watch(up_argv(self.env, others), others, fresh)
        containers = engine.containers(self.env)
        running = {each.service for each in containers if each.running}
        # Nothing is away for what does not run anyhow; and nodes that were stopped find their roles only together.
        if stopped := [name for name in replaced if name not in running]:
            argv = up_argv(self.env, stopped, "--force-recreate")
            self._watch(argv, stopped, {name: watched[name] for name in stopped})
        # One after the other, and a standby before what it follows: as little as can be is away at a time.
        replaced = [name for name in replaced if name in running]
        leading = primaries(self.env, containers) if replaced else set()
        ordered = sorted(replaced, key=lambda name: (name in leading, -len(watched[name].depends_on)))
        rest = [name for name in ordered if name not in postgres.NODES]
        # Asked for one by one: the primary hands its role over when its turn has come.
        for name in itertools.chain(rest, failover.one_after_the_other(self.env, ordered, watched)):
            argv = up_argv(self.env, [name], "--force-recreate")
            self._watch(argv, [name], {name: watched[name]})
        self._watch(None, (), watched)

    def _watch(self, argv: list[str] | None, names: Sequence[str], watched: Mapping[str, model.Service]) -> None:
        judge = gate.Gate(watched, before=engine.containers(self.env))
        for row in bring_up(self.env, argv, judge, self.timeout):
            if row.service in names:
                self.ready_after[row.service] = row.since

    def _run_job(self, name: str, seen: Survey) -> None:
        """Run a one-shot service to its end; the services that wait for it are not touched when it fails."""
        self.doing = f"running {name}"
        self.held.check()
        began = time.monotonic()
        console.say(f"running {name}")
        argv = ("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", name)
        engine.compose(self.env, *argv, timeout=self.timeout)
        job = next(each for each in reversed(engine.containers(self.env)) if each.service == name)
        try:
            code = engine.docker("wait", job.id, timeout=self.timeout).stdout.strip()
            problem = "" if code == "0" else f"failed with exit code {code}"
        except engine.TimedOut:
            problem = f"did not end within {self.timeout:.0f} s"
        if problem:
            lines = "\n".join(f"  {line}" for line in engine.logs(job.id, 15))
            untouched = seen.stack.lasting.keys() - seen.stack.foundation.keys()
            running = any(each.running for each in seen.containers if each.service in untouched)
            raise OpsError(
                f"{name} {problem}. Its last lines:\n{lines}",
                f"The services were not touched{': the old version keeps running' if running else ''}.",
                MIGRATION,
            )
        self.ready_after[name] = time.monotonic() - began

    def _summarise(self, seen: Survey, decided: Plan) -> None:
        rows = [
            (
                name,
                _DONE[change.kind],
                console.plain(change.reason),
                console.duration(self.ready_after[name]) if name in self.ready_after else "",
            )
            for name, change in decided.changes.items()
        ]
        console.say()
        console.print_table(("SERVICE", "CHANGE", "REASON", "TOOK"), rows)
        console.say()
        for name, url in urls(self.env, seen.stack):
            console.say(f"  {name:<16} {url}")
        elapsed = console.duration(time.monotonic() - self.began)
        console.say(f"\n{self.env.name} is deployed: {len(seen.stack.lasting)} services healthy ({elapsed})", "green")


def changed(decided: Plan) -> dict[str, str]:
    """What changes, by service, in a few words."""
    return {name: each.reason or each.kind for name, each in decided.changes.items() if each.kind != plan.UNCHANGED}


def moving(declared: Stack, decided: Plan, containers: Sequence[Container]) -> list[Move]:
    """The services that are rolled out: what changes of them while they serve. What does not run is just started."""
    mine = {name: [each for each in containers if each.service == name] for name in declared.rolling}
    return [
        move(service, mine[name], lambda each: each.id not in decided.outdated)
        for name, service in declared.rolling.items()
        if decided.changes[name].kind != plan.UNCHANGED and any(each.running for each in mine[name])
    ]


def primaries(env: Environment, containers: Sequence[Container]) -> set[str]:
    """Nodes of the data tier that are the primary at this moment, as far as anybody knows."""
    with contextlib.suppress(OpsError):
        return {redis.primary(env, containers).service}
    return set()


def restarting(declared: Stack, decided: Plan, containers: Sequence[Container]) -> list[plan.Change]:
    """Changes that take something away for a moment although it is in use: the data tier, and nginx itself."""
    running = {each.service for each in containers if each.running}
    return [
        decided.changes[name]
        for name in decided.of_kind(plan.RECREATE, plan.REFRESH, among=(*declared.foundation, edge.SERVICE))
        if name in running
    ]


@contextlib.contextmanager
def deployment(env: Environment, command: str, assume_yes: bool = False) -> Iterator[Deployment]:
    """A deployment that holds the environment's lock.

    Raises OpsError: REFUSED when somebody else holds it, INTERRUPTED after Ctrl-C.
    """
    # What serves has requests to answer; whoever changes it can wait, and so can every command that it starts.
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with lock.hold(env, f"{command} --env {env.name}") as held:
        work = Deployment(env, held, command, assume_yes)
        try:
            yield work
        except KeyboardInterrupt:
            # A second press would cut short the tidying up.
            with signals.undisturbed():
                engine.end_all()
                state = work.standing() if work.touched else "nothing was changed"
            failed = f" The way back failed: {'; '.join(work.not_undone)}." if work.not_undone else ""
            raise OpsError(
                f"Interrupted while {work.doing}: {state}.{failed}",
                f"`invoke {command} --env {env.name}` continues from here.",
                INTERRUPTED,
            ) from None


def deploy(env: Environment, assume_yes: bool = False) -> None:
    """Bring an environment to what is declared, and wait until it is healthy.

    assume_yes: restart what must restart without asking. Raises OpsError with the exit code of what went wrong; when
    that is REFUSED nothing was touched.
    """
    with deployment(env, "deploy", assume_yes) as work:
        work.run()


def update(env: Environment, assume_yes: bool = False) -> None:
    """Fetch newer versions of every image, rebuild our own on them, and deploy.

    Where a pull fails the images that are there are used, and OpsError says so at the end.
    """
    findings.refuse(list(preflight.check_settings(env)))
    with deployment(env, "update", assume_yes) as work:
        failed = _fetch_newer(env)
        work.run()
    if failed:
        raise OpsError(
            f"{len(failed)} image(s) could not be pulled; what is deployed uses the ones on this machine:\n"
            f"{images.reasons(failed)}",
            "Check the network or REGISTRY_MIRROR, and run the same command again.",
        )


def _fetch_newer(env: Environment) -> dict[str, str]:
    """Pull and rebuild; the reason by reference for images that could not be pulled."""
    before = survey(env)
    own = {each.reference for each in before.own}
    foreign = [reference for reference in images.references(before.stack, ()) if reference not in own]
    console.say(f"looking for newer versions of {len(foreign)} images")
    with console.activity("pulling") as tick:
        failed = images.pull(foreign, tick)
    absent = {reference: reason for reference, reason in failed.items() if reference not in before.image_ids}
    if absent:
        raise images.unavailable(env, absent)
    if failed:
        console.warn(
            f"{len(failed)} of {len(foreign)} images could not be pulled; going on with those on this machine."
        )
    if before.own:
        with console.activity(f"building {', '.join(each.service for each in before.own)}") as tick:
            images.build(env, before.own, tick, newer_base=not failed)
    after = engine.image_ids(images.references(before.stack, ()))
    changed = [
        (reference, short(before.image_ids.get(reference, "")), short(identity))
        for reference, identity in after.items()
        if before.image_ids.get(reference) != identity
    ]
    if changed:
        console.print_table(("IMAGE", "OLD", "NEW"), changed)
    else:
        console.say("no image has changed")
    return failed


def report_warnings(found: list[findings.Check]) -> list[findings.Check]:
    """Show the warnings, and hand all of them on."""
    for each in found:
        if each.status == findings.WARNING:
            console.warn(f"{each.name}: {each.detail}{f' ({each.remedy})' if each.remedy else ''}")
    return found


def urls(env: Environment, declared: Stack) -> list[tuple[str, str]]:
    """What a person can open: (name, address), the site first."""
    port = env.values.get("SSL_PORT", "443")
    host = env.values.get("DOMAIN") or "localhost"
    site = ("site", f"https://{host}{'' if port == '443' else f':{port}'}")
    edge = {env.values.get("WEB_PORT"), port}
    others = [
        (name, f"http://{'localhost' if each.address in {'', '0.0.0.0', '127.0.0.1'} else each.address}:{each.number}")
        for name, service in declared.services.items()
        for each in service.ports
        if str(each.number) not in edge
    ]
    return [site, *others]


def short(image_id: str) -> str:
    """An image id for people: "sha256:0123456789abcdef…" -> "0123456789ab"."""
    return image_id.removeprefix("sha256:")[:12] or "-"
