"""Deploy and update: bring what runs to what is declared.

It observes, decides (plan.py) and executes the plan phase by phase: images, data tier, migrations, rollout of the
services, everything else, monitoring. Then it looks once more and says what is left to do. Up to the rollout a failure
leaves the old version running, and a rollout leads back to it (see roll.py). With nothing to do it ends after
"decide", so running it again is cheap.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ops import engine
from ops.base import console, findings, undo
from ops.base.environments import Environment, relative
from ops.base.errors import SMOKE, OpsError
from ops.engine import Container
from ops.parts import postgres, prometheus, provision, redis, routes, targets
from ops.parts.haproxy import pool
from ops.parts.nginx import edge
from ops.parts.postgres import failover, majors
from ops.rollout import announce, gate, interrupt, jobs, plan, preflight
from ops.rollout import canary as trial
from ops.rollout.compose_up import bring_up, up_argv
from ops.rollout.observe import Survey, note, survey
from ops.rollout.plan import Operation, Phase, Plan
from ops.rollout.roll import Move, Rollout
from ops.stack import images, model, pools
from ops.stack.model import Stack
from ops.state import lock, releases, swap

# Setting and default, in seconds, for each tier. On two busy cores with empty volumes the whole stack took 60.
TIMEOUT = ("DEPLOY_TIMEOUT", 180)
# Of the deployer and all that it starts: a tenth of the weight of what serves, when there is too little for both.
_NICE = 10


@dataclass
class Deployment:
    """One deploy. doing: what it is at, for the message after Ctrl-C; took: seconds by service; unwell: parts of
    monitoring that are not healthy; release: its number, 0 before it has one; canary: the share of the requests, in
    percent, that new containers get for a trial (0: all of them); promoting: whether the trial that is under way ends
    with this deploy."""

    env: Environment
    held: lock.Lock
    command: str = "deploy"
    assume_yes: bool = False
    began: float = field(default_factory=time.monotonic)
    doing: str = "looking around"
    touched: bool = False
    canary: int = 0
    promoting: bool = False
    not_undone: list[str] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)
    unwell: tuple[str, ...] = ()
    release: int = 0

    @property
    def timeout(self) -> float:
        """Seconds that each tier has to become healthy."""
        return self.env.number(*TIMEOUT)

    def run(self) -> None:
        """Deploy. Raises OpsError when it is refused or fails."""
        env = self.env
        seen = survey(env)
        (trial.demand if self.promoting else trial.refuse)(env, seen.stack, seen.containers)
        decided = self._decide(seen)
        if decided.idle:
            decided.seen.warn_elsewhere(env)
            self._confirm_healthy(decided.seen)
            return
        made = self._prepare(seen)
        self._check(decided)
        agreed = self._agree(decided)
        changes = {name: each.cause or each.word for name, each in decided.of_services().items()}
        success = releases.CANARY if self.canary else releases.DEPLOYED
        with announce.announced(self, changes, success):
            self._deploy(decided, made, agreed, changes, success)

    def _deploy(
        self, decided: Plan, made: bool, agreed: Collection[str], changes: Mapping[str, str], success: str
    ) -> None:
        """Carry out what was decided and agreed to. made: whether files that are mounted were made meanwhile."""
        env = self.env
        made |= self._make_certificate(decided.seen.stack)
        with self.released(decided.seen.stack.document, decided.seen.own, changes, self.command, success):
            self._fetch(decided)
            self._finish_jobs(decided)
            # Looking takes a second or more, so only when something may be otherwise than it was a moment ago.
            if made or agreed or decided.of(*plan.FIRST):
                self.doing = "deciding"
                decided = self._decide(survey(env))
                # What was not here before could not be asked which major version it is.
                findings.refuse(list(majors.check(env, decided.seen.stack, decided.seen.containers)))
                self._agree(decided, agreed)
            self._execute(decided)
        self._prune(decided.seen.stack)
        self._summarise(decided)
        if self.canary:
            trial.show(env, decided.seen.stack, engine.containers(env))
        else:
            self._look_again()

    def _decide(self, seen: Survey) -> Plan:
        decided = plan.decide(seen)
        return trial.limited(decided, self.canary) if self.canary else decided

    def settle_canary(self, minutes: float) -> None:
        """Watch the canary that was begun, then promote it, or abort it as soon as it does worse. Raises OpsError
        (SMOKE) when it was aborted."""
        declared = model.load(self.env)
        if not trial.of(declared, engine.containers(self.env)):
            return  # nothing had changed, so none was begun
        self.doing = "watching the canary"
        # What a person goes on with when this is interrupted: the canary has begun.
        self.command = "deploy --promote"
        console.say(f"watching for {minutes:.0f} minutes, then it is promoted")
        if name := trial.watch(self.env, declared, 60 * minutes, self.held.check):
            trial.show(self.env, declared, engine.containers(self.env))
            with announce.failing(self, [name]):
                self.abort_canary()
                raise OpsError(
                    f"The canary of {name} answered more errors than what it was to replace.",
                    "The old containers serve everything again. Fix the cause and begin again.",
                    SMOKE,
                )
        self.canary, self.promoting = 0, True
        self.run()

    def abort_canary(self) -> None:
        """Take the canary that is under way out. Raises OpsError (REFUSED) when none is."""
        self.doing = "aborting the canary"
        self.touched = True
        declared = model.load(self.env)
        found = trial.demand(self.env, declared, engine.containers(self.env))
        trial.abort(self.env, declared, found)
        images.tag_back(images.own_images(self.env, declared), engine.containers(self.env))
        names = ", ".join(found)
        console.say(f"the canary of {names} is gone: the old containers serve all of {self.env.name}", "green")

    @contextlib.contextmanager
    def released(
        self,
        document: Mapping[str, Any],
        own: Sequence[images.OwnImage],
        changes: Mapping[str, str],
        command: str,
        success: str = releases.DEPLOYED,
    ) -> Iterator[None]:
        """A new entry in the history of releases, with how it ended. success: its result when nothing failed.

        After a failure our images get their tags back from those that run, so that nothing starts from the failed ones.
        """
        release = releases.begin(self.env, document, command, changes)
        declared = model.parse(document)
        pulled = images.pulled(self.env, declared)
        self.release = release.number
        try:
            yield
        except BaseException as error:
            result = releases.BROKEN if isinstance(error, Exception) else releases.INTERRUPTED
            reason = str(error).partition("\n")[0]

            def note() -> None:
                releases.finish(self.env, release, result, reason=reason, seconds=self.elapsed())

            failed = undo.every(
                [
                    (
                        "giving images their tags back",
                        lambda: images.tag_back([*own, *pulled], engine.containers(self.env)),
                    ),
                    ("noting how the release ended", note),
                ]
            )
            self.not_undone += failed
            if failed and isinstance(error, OpsError):
                error.message += f"\nTidying up failed too: {'; '.join(failed)}."
            raise
        # Those of a rollback: nobody goes back to an older database server by it.
        names = {name for name, each in declared.services.items() if each.own}
        running = {each.service: each.image_id for each in engine.containers(self.env) if each.service in names}
        images.keep(self.env, {each.service: running[each.service] for each in pulled if each.service in running})
        releases.finish(self.env, release, success, seconds=self.elapsed(), images=running)

    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def _check(self, decided: Plan) -> None:
        """Raise OpsError (REFUSED) when something is not as it must be before anything is touched."""
        self.doing = "checking"
        found = preflight.of(self.env, decided)
        findings.warn(found)
        findings.refuse(found)

    def _agree(self, decided: Plan, agreed: Collection[str] = ()) -> set[str]:
        """Ask before something restarts that cannot be rolled out, and was not agreed to before; all that is agreed to.
        Raises OpsError when the answer is no."""
        restarts = [each for each in decided.operations if each.asks and each.subject not in agreed]
        if restarts:
            console.say("These will restart and be unavailable for a few seconds:")
            for each in restarts:
                console.say(f"  {each.subject:<24} {each.cause}")
            if not console.confirm(f"Restart {len(restarts)} of {self.env.name}?", self.assume_yes):
                raise OpsError("Nothing that runs was changed.")
        return {*agreed, *(each.subject for each in restarts)}

    def standing(self) -> str:
        """How far it came, for the message after Ctrl-C."""
        try:
            jobs = {name for name, each in model.load(self.env).services.items() if each.one_shot}
            containers = [each for each in engine.containers(self.env) if each.service not in jobs]
        except (OpsError, OSError) as error:
            return f"what runs now is not known ({error})"
        ready = sum(each.ready for each in containers)
        return f"{ready} containers are healthy, {len(containers) - ready} are not"

    def _confirm_healthy(self, seen: Survey) -> None:
        """Nothing to change: make sure that what runs is well."""
        self.doing = "waiting for health"
        site = seen.stack.site
        checked = gate.Gate(site, before=seen.containers)
        verdict = checked.observe(seen.containers, time.monotonic())
        if verdict.status != gate.READY:
            # A database that refuses its volume stays as it is however long one waits.
            findings.refuse(list(majors.check(self.env, seen.stack, seen.containers)))
        if verdict.status == gate.WAITING:
            verdict = gate.watch(checked, lambda: engine.containers(self.env), self.timeout)
        gate.demand(verdict)
        self._bring_up_monitoring([], seen)
        if seen.unnoted:
            note(self.env, seen.stack)
        console.say(f"nothing to change: {self._healthy(seen.stack)} in {self.env.name} ({self._duration()})", "green")

    def _healthy(self, stack: Stack) -> str:
        well = f"{len(stack.lasting) - len(self.unwell)} services healthy"
        return f"{well}, monitoring incomplete ({', '.join(self.unwell)})" if self.unwell else well

    def _duration(self) -> str:
        return console.duration(time.monotonic() - self.began)

    def _prepare(self, seen: Survey) -> bool:
        """What dev makes by itself; whether it made anything. Elsewhere secrets are made by a person's decision, and
        preflight says so."""
        if self.env.name != "dev":
            return False
        from ops.secrets import make

        if made := make.init(self.env, seen.stack.document):
            files = "file" if len(made) == 1 else "files"
            console.say(f"made {len(made)} secret {files} in {relative(self.env.secrets_dir)} (dev only)")
        return bool(made)

    def _make_certificate(self, stack: Stack) -> bool:
        from ops.secrets import certificates

        certificate = certificates.ensure(self.env, pools.hosts(stack))
        if certificate.issued:
            authority = relative(certificates.authority_of(self.env))
            console.say(
                f"made a certificate for {', '.join(certificate.names)}; import {authority} into your browser to avoid"
                " certificate warnings"
            )
        return certificate.issued

    # ── what can be known only when it is done ────────────────────────────────────────────────────────────────────────

    def _fetch(self, decided: Plan) -> None:
        """Pull, build and tag images."""
        env = self.env
        if pulls := [each.subject for each in decided.every(plan.Pull)]:
            self.doing = "pulling images"
            with console.activity(f"pulling {', '.join(pulls)}") as tick:
                failed = images.pull(pulls, tick)
            if failed:
                raise images.unavailable(env, failed)
        if builds := [each.image for each in decided.every(plan.Build)]:
            self.doing = "building images"
            names = ", ".join(each.service for each in builds)
            with console.activity(f"building {names} (log: {relative(env.log_file('build.log'))})") as tick:
                images.build(env, builds, tick)
        images.tag((each.image.content, each.image.reference) for each in decided.every(plan.Tag))

    def _finish_jobs(self, decided: Plan) -> None:
        """Wait for jobs that an earlier deploy began: two at once would be in each other's way."""
        for each in decided.every(plan.AwaitJob):
            self.doing = f"waiting for {each.subject}"
            console.say(f"{each.subject} is {each.cause}: waiting for it")
            # How it ends is the next look's to judge.
            for job in engine.look([each.container]):
                with contextlib.suppress(jobs.Failed):
                    jobs.finish(self.env, job)

    # ── phases ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _execute(self, decided: Plan) -> None:
        """Carry out a plan, except for what comes first (images), and remember what the containers have mounted."""
        seen = decided.seen
        try:
            self._carry_out(decided)
        except BaseException:
            # What was made until then has this content mounted, and the next deploy must know it.
            before = [each.id for each in seen.containers]
            self.not_undone += undo.every(
                [("noting what new containers have mounted", lambda: note(self.env, seen.stack, before))]
            )
            raise
        note(self.env, seen.stack)

    def _carry_out(self, decided: Plan) -> None:
        stack, of = decided.seen.stack, decided.of
        self.touched = True
        self._tidy(of(Phase.TIDY))
        targets.make_folder(self.env, stack)
        self._provision(of(Phase.PROVISION), decided.seen)
        if of(Phase.DATA_TIER, Phase.PROVISION_NEW, Phase.JOBS):
            self._bring_up("starting the data tier", of(Phase.DATA_TIER), stack.foundation)
        self._provision(of(Phase.PROVISION_NEW), decided.seen)
        for each in of(Phase.JOBS):
            self._run_job(each.subject, decided.seen)
        self._renew_edge(of(Phase.EDGE), decided.seen)
        if decided.moves:
            self.roll_out(decided.moves, stack)
        if self.canary:
            # There are more containers than are declared, until a person decides.
            return
        self._bring_up("starting the services", of(Phase.SERVICES), stack.site)
        self.await_requests([each.subject for each in of(Phase.SERVICES)], stack)
        self._schedule(of(Phase.SCHEDULED_JOBS))
        self._bring_up_monitoring(of(Phase.MONITORING), decided.seen)
        self._remove(decided.of(Phase.LEFTOVERS))

    def restart(self, services: Mapping[str, model.Service], declared: Stack) -> None:
        """Replace services that must not run beside their successors, one after the other, as they are declared."""
        self.touched = True
        with releases.as_file(declared.document) as document:
            for name, service in services.items():
                self.doing = f"restarting {name}"
                self.held.check()
                console.say(f"{self.doing}: it must not run beside its successor")
                options = ("--force-recreate", "--scale", f"{name}={service.replicas}")
                judge = gate.Gate({name: service}, before=engine.containers(self.env))
                bring_up(self.env, up_argv(self.env, [name], *options, document=document), judge, self.timeout)
        self.await_requests([*services], declared)

    def await_requests(self, names: Sequence[str], stack: Stack) -> None:
        """Wait until HAProxy sends requests to services that Compose has started: no rollout has proven them."""
        network, known = pools.network(stack), pools.declared(stack)
        containers = engine.containers(self.env) if known.keys() & {*names} else []
        wanted = {
            name: {each.addresses[network] for each in containers if each.service == name and network in each.addresses}
            for name in names
            if name in known
        }
        if wanted and (haproxy := pool.find(containers)):
            self.doing = "waiting for HAProxy to send requests"
            pool.await_choice(haproxy, wanted, self.timeout)

    def _tidy(self, operations: Sequence[Operation]) -> None:
        """Remove what an interrupted run left behind, and what holds a port that its successor may want."""
        self._remove(operations)
        for each in operations:
            if isinstance(each, plan.Rename):
                engine.docker("rename", each.container, each.name)

    def _remove(self, operations: Sequence[Operation]) -> None:
        self.doing = "removing what is no longer needed"
        removals = [each for each in operations if isinstance(each, plan.Remove)]
        for each in removals:
            console.say(f"removing {each.subject}: {each.cause}")
        if ids := [identity for each in removals for identity in each.containers]:
            engine.docker("stop", *ids, timeout=None)
            engine.docker("rm", "--force", *ids)

    def _provision(self, operations: Sequence[Operation], seen: Survey) -> None:
        """Make what services own, in parts that run."""
        parts = {each.part for each in operations if isinstance(each, plan.Provision)}
        if not parts:
            return
        self.doing = "making what the services own in the data tier"
        self.held.check()
        names = ", ".join(dict.fromkeys(each.subject for each in operations))
        console.say(f"provisioning {' and '.join(sorted(parts))} for {names}")
        provision.provide(self.env, seen.owned, engine.containers(self.env), parts)

    def _run_job(self, name: str, seen: Survey) -> None:
        """Run a one-shot service to its end; the services that wait for it are not touched when it fails."""
        self.doing = f"running {name}"
        self.held.check()
        began = time.monotonic()
        untouched = seen.stack.lasting.keys() - seen.stack.foundation.keys()
        running = any(each.running for each in seen.containers if each.service in untouched)
        jobs.run(
            self.env, name, f"The services were not touched{': the old version keeps running' if running else ''}."
        )
        self.took[name] = time.monotonic() - began

    def _schedule(self, operations: Sequence[Operation]) -> None:
        """Make the containers of scheduled jobs. One that runs is not replaced; its end is waited for."""
        self._remove(operations)
        for each in operations:
            if isinstance(each, plan.Schedule):
                self.doing = f"scheduling {each.subject}"
                self.held.check()
                jobs.schedule(self.env, each.subject, each.containers, self.timeout)

    def _renew_edge(self, operations: Sequence[Operation], seen: Survey) -> None:
        """Bring HAProxy and nginx to what is declared, each when the way around it stands: before nginx sends requests
        to HAProxy, or to the services in the network `serving`, both are there."""
        before, after = routes.of_edge(seen.routes), routes.of_edge(seen.declared_routes)
        if operations and before != after:
            routes.write(self.env, seen.stack, after)
        try:
            for name in routes.EDGE:
                mine = [each for each in operations if each.subject == name]
                if begun := [each for each in mine if not isinstance(each, plan.Reload)]:
                    self._bring_up(f"starting {name}", begun, {name: seen.stack.services[name]})
                for each in mine:
                    if isinstance(each, plan.Reload):
                        self._reload(each, seen)
                if name == pool.SERVICE:
                    self._join([each for each in operations if isinstance(each, plan.Join)], seen)
        except OpsError:
            # What a reload refused must not be what a restart reads.
            if before and before != after:
                routes.write(self.env, seen.stack, before)
                if haproxy := pool.find(seen.containers):
                    pool.reload(haproxy)
            raise

    def _join(self, operations: Sequence[plan.Join], seen: Survey) -> None:
        if operations:
            self.held.check()
            console.say(f"letting HAProxy see {', '.join(each.subject for each in operations)}")
            outside = engine.look([identity for each in operations for identity in each.containers])
            pool.let_in(outside, pools.network(seen.stack), seen.stack.document["services"])

    def _reload(self, operation: Operation, seen: Survey) -> None:
        self.doing = f"reloading {operation.subject}"
        self.held.check()
        console.say(f"reloading {operation.subject}: {operation.cause}")
        began = time.monotonic()
        part = {pool.SERVICE: pool, edge.SERVICE: edge, prometheus.SERVICE: prometheus}[operation.subject]
        for each in seen.containers:
            if each.service == operation.subject:
                part.reload(each)
        self.took[operation.subject] = time.monotonic() - began

    def roll_out(self, moves: Sequence[Move], declared: Stack) -> None:
        """Roll services out as they are declared."""
        self.touched = True
        began = time.monotonic()
        with releases.as_file(declared.document) as document:
            weights = trial.weights(moves, self.canary) if self.canary else {}
            rollout = Rollout(self.env, document, declared, moves, self.timeout, self.held.check, weights)
            try:
                rollout.run()
            finally:
                self.doing = rollout.doing
                self.not_undone += rollout.not_undone
        self.took.update(dict.fromkeys((each.service.name for each in moves), time.monotonic() - began))

    def _bring_up(
        self,
        doing: str,
        operations: Sequence[Operation],
        watched: Mapping[str, model.Service],
        patient: bool = False,
    ) -> None:
        """Let Compose bring some services up, and wait until all of `watched` are healthy.

        patient: let Compose start all of them although one has failed.
        """
        self.doing = doing
        self.held.check()
        if operations:
            console.say(f"{doing}: {', '.join(each.subject for each in operations)}")

        def up(names: Sequence[str], *options: str) -> None:
            argv = up_argv(self.env, names, *options)
            self._watch(argv, names, {name: watched[name] for name in names if name in watched}, patient)

        replaced = [each for each in operations if isinstance(each, plan.Replace)]
        # What is new comes first: those that are replaced may ask it for their role.
        if others := [each.subject for each in operations if each not in replaced]:
            up(others)
        # Nothing is away for what is not in use anyhow; and nodes that were stopped find their roles only together.
        if stopped := [each.subject for each in replaced if not each.running]:
            up(stopped, "--force-recreate")
        # One after the other, and a standby before what it follows: as little as can be is away at a time.
        names = [each.subject for each in replaced if each.running]
        leading = primaries(self.env, engine.containers(self.env)) if names else set()
        ordered = sorted(names, key=lambda name: (name in leading, -len(watched[name].depends_on)))
        rest = [name for name in ordered if name not in postgres.NODES]
        # Asked for one by one: the primary hands its role over when its turn has come.
        for name in itertools.chain(rest, failover.one_after_the_other(self.env, ordered, watched)):
            up([name], "--force-recreate")
        self._watch(None, (), watched, patient)

    def _watch(
        self, argv: list[str] | None, names: Sequence[str], watched: Mapping[str, model.Service], patient: bool
    ) -> None:
        judge = gate.Gate(watched, before=engine.containers(self.env))
        for row in bring_up(self.env, argv, judge, self.timeout, patient):
            if row.service in names and row.since:
                self.took[row.service] = row.since

    def _renew_prometheus(self, operations: Sequence[Operation], seen: Survey) -> None:
        """Tell Prometheus what it scrapes, before it starts or by a reload."""
        reader = routes.READERS[prometheus.SERVICE]
        before, after = reader.of(seen.routes), reader.of(seen.declared_routes)
        if before != after:
            routes.write(self.env, seen.stack, after)
        try:
            for each in operations:
                if isinstance(each, plan.Reload):
                    self._reload(each, seen)
        except OpsError:
            # So that the next deploy sees that it is not done.
            if before and before != after:
                routes.write(self.env, seen.stack, before)
            raise

    def _bring_up_monitoring(self, operations: Sequence[Operation], seen: Survey) -> None:
        """Bring up what watches the site. The site serves without it: what fails there is a warning for each part."""
        stack = seen.stack
        if not (operations or stack.monitoring):
            return
        incomplete = "The site is up, but its monitoring is not complete."
        if telling := [each for each in operations if each.subject == prometheus.SERVICE]:
            try:
                self._renew_prometheus(telling, seen)
            except OpsError as error:
                self.held.check()
                self.unwell += (prometheus.SERVICE,)
                console.warn(f"{incomplete} {error.message}")
        try:
            begun = [each for each in operations if not isinstance(each, plan.Reload)]
            self._bring_up("starting monitoring", begun, stack.monitoring, patient=True)
        except OpsError as error:
            # A lost lock is another matter.
            self.held.check()
            console.warn(f"{incomplete} {error.message}")
            containers = engine.containers(self.env)
            for name, service in stack.monitoring.items():
                mine = [each for each in containers if each.service == name]
                if len(mine) != service.replicas or not all(each.ready for each in mine):
                    self.unwell += (name,)
                    see = f"invoke logs --service {name} --env {self.env.name}"
                    console.warn(f"{name} is not healthy ({gate.unready(mine)}). See: {see}")

    # ── afterwards ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _prune(self, stack: Stack) -> None:
        self.doing = "removing old images"
        pulled = [each.reference for each in images.pulled(self.env, stack)]
        if removed := images.prune(self.env, releases.images_kept(self.env), pulled):
            console.say(f"removed {len(removed)} old images that no kept release uses")

    def _look_again(self) -> None:
        """Look once more, and say what is left to do. Raises OpsError when that is more than monitoring."""
        self.doing = "looking once more"
        left = plan.decide(survey(self.env)).operations
        if not left:
            console.say("nothing left to do")
            return
        rows = "\n".join(f"  {each.word} {each.subject}{f': {each.cause}' if each.cause else ''}" for each in left)
        if all(each.phase in {Phase.MONITORING, Phase.SCHEDULED_JOBS} for each in left):
            console.warn(f"Left to do, and it can wait:\n{rows}")
            return
        raise OpsError(
            f"{self.env.name} is deployed, but something has changed meanwhile. Left to do:\n{rows}",
            f"Run the same command again, or see what it would do: invoke deploy --plan --env {self.env.name}",
        )

    def _summarise(self, decided: Plan) -> None:
        operations = decided.of_services()
        rows = []
        for name in decided.seen.stack.services:
            operation = operations.get(name)
            rows.append(
                (
                    name,
                    operation.done if operation else "unchanged",
                    console.plain(operation.cause) if operation else "",
                    console.duration(self.took[name]) if name in self.took else "",
                )
            )
        console.say()
        console.print_table(("SERVICE", "CHANGE", "REASON", "TOOK"), rows)
        console.say()
        for name, url in urls(self.env, decided.seen.stack):
            console.say(f"  {name:<16} {url}")
        if self.canary:
            names = ", ".join(each.service.name for each in decided.moves)
            console.say(f"\n{self.canary} % of the requests for {names} go to the new containers ({self._duration()})")
            return
        console.say(f"\n{self.env.name} is deployed: {self._healthy(decided.seen.stack)} ({self._duration()})", "green")


def primaries(env: Environment, containers: Sequence[Container]) -> set[str]:
    """Nodes of the data tier that are the primary at this moment, as far as anybody knows."""
    with contextlib.suppress(OpsError):
        return {redis.primary(env, containers).service}
    return set()


@contextlib.contextmanager
def deployment(env: Environment, command: str, assume_yes: bool = False, lock_wait: float = 0) -> Iterator[Deployment]:
    """A deployment that holds the environment's lock. lock_wait: for how many seconds to wait for it.

    Raises OpsError: REFUSED when somebody else holds it, INTERRUPTED after Ctrl-C.
    """
    # What serves has requests to answer; whoever changes it can wait, and so can every command that it starts.
    os.setpriority(os.PRIO_PROCESS, 0, max(_NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    with lock.hold(env, f"{command} --env {env.name}", lock_wait) as held:
        swap.refuse(env)
        work = Deployment(env, held, command, assume_yes)
        with interrupt.explained(work):
            yield work


def deploy(
    env: Environment,
    assume_yes: bool = False,
    lock_wait: float = 0,
    canary: int = 0,
    minutes: float = 0,
    promote: bool = False,
) -> None:
    """Bring an environment to what is declared, and wait until it is healthy.

    assume_yes: restart what must restart without asking; lock_wait: as of `deployment`; canary: let new containers have
    only this share of the requests, in percent; minutes: and decide about them after so long; promote: let the canary
    that is under way have all. Raises OpsError with the exit code of what went wrong; when that is REFUSED nothing was
    touched.
    """
    words = f"deploy --canary {canary}" if canary else "deploy --promote" if promote else "deploy"
    with deployment(env, words, assume_yes, lock_wait) as work:
        work.canary, work.promoting = canary, promote
        work.run()
        if canary and minutes:
            work.settle_canary(minutes)


def abort_canary(env: Environment, lock_wait: float = 0) -> None:
    """End the canary that is under way: the old containers have all requests again."""
    with deployment(env, "deploy --abort", lock_wait=lock_wait) as work:
        work.abort_canary()


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


def urls(env: Environment, declared: Stack) -> list[tuple[str, str]]:
    """What a person can open: (name, address), the site first."""
    port = env.values.get("SSL_PORT", "443")
    host = env.values.get("DOMAIN") or "localhost"
    site = ("site", f"https://{host}{'' if port == '443' else f':{port}'}")
    own = (each for each in pools.declared(declared).values() if each.host)
    public = {env.values.get("WEB_PORT"), port}
    others = [
        (name, f"http://{'localhost' if each.address in {'', '0.0.0.0', '127.0.0.1'} else each.address}:{each.number}")
        for name, service in declared.services.items()
        for each in service.ports
        if str(each.number) not in public
    ]
    hosts = [(each.service, f"https://{each.host}{'' if port == '443' else f':{port}'}{each.route}") for each in own]
    return [site, *hosts, *others]


def short(image_id: str) -> str:
    """An image id for people: "sha256:0123456789abcdef…" -> "0123456789ab"."""
    return image_id.removeprefix("sha256:")[:12] or "-"
