"""Deploy to a cluster: bring what runs there to what is declared, in the order and with the words of one host.

It looks, decides (plan.py) and carries the plan out phase by phase: secrets and configuration, data tier, migrations,
rollout, scheduled jobs. Until the rollout a failure leaves the old version serving. A rollout that fails is taken back
to the release before, and the old pods have served all the while: Kubernetes removes none before its successor is
ready. Then it looks once more.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ops import engine
from ops.base import console, findings, undo
from ops.base.environments import Environment, relative
from ops.base.errors import MIGRATION, OpsError
from ops.engine import kubectl
from ops.engine.kubectl import Object
from ops.kubernetes import gate, marks, plan, preflight, running
from ops.kubernetes.plan import Apply, Key, Plan, Seen, key, survey
from ops.parts import provision
from ops.rollout import announce, interrupt
from ops.rollout import gate as judgement
from ops.rollout.deploy import TIMEOUT
from ops.rollout.jobs import LIMIT
from ops.rollout.plan import Operation, Phase, Provision
from ops.stack import images, model, registry
from ops.stack.model import Stack
from ops.state import lock, memory, releases, swap

# Between two looks at a rollout. Each is a request that the API server answers in some 50 ms.
_LOOK_SECONDS = 1.5
# What is applied before any pod that needs it; workloads have their turn by phase.
_TURNS = (*plan.WORKLOADS, plan.JOB, plan.CRONJOB)
_LOG_LINES = 15


@dataclass
class Deployment:
    """One deploy. doing: what it is at, for the message after Ctrl-C; took: seconds by service; release: its number, 0
    before it has one."""

    env: Environment
    held: lock.Lock
    command: str = "deploy"
    assume_yes: bool = False
    began: float = field(default_factory=time.monotonic)
    doing: str = "looking around"
    touched: bool = False
    not_undone: list[str] = field(default_factory=list)
    took: dict[str, float] = field(default_factory=dict)
    release: int = 0

    @property
    def timeout(self) -> float:
        """Seconds that each tier has to become healthy."""
        return self.env.number(*TIMEOUT)

    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began

    def run(self) -> None:
        """Deploy. Raises OpsError when it is refused or fails."""
        env = self.env
        if not memory.load(env).generation:
            # The key by which secrets are sealed must be the one that is kept.
            memory.update(env, lambda state: state)
        decided = plan.decide(survey(env))
        if decided.idle:
            self._confirm_healthy(decided.seen)
            return
        self.doing = "checking"
        checks = preflight.run(env, decided)
        findings.refuse(checks)
        findings.warn(checks)
        self._agree(decided)
        changes = {name: each.cause or each.word for name, each in decided.of_services().items()}
        with announce.announced(self, changes, releases.DEPLOYED):
            with self.released(decided.seen.stack, changes):
                self._carry_out(decided)
            self._tidy(decided.seen)
            self._summarise(decided)
            self._look_again()

    def _confirm_healthy(self, seen: Seen) -> None:
        self.doing = "waiting for health"
        self.await_ready(seen.stack, [*seen.workloads()])
        self._tidy(seen)
        count = len(seen.workloads())
        console.say(f"nothing to change: {count} services healthy in {self.env.name} ({self._duration()})", "green")

    def _duration(self) -> str:
        return console.duration(self.elapsed())

    def _agree(self, decided: Plan) -> None:
        """Ask before something restarts that holds data. Raises OpsError when the answer is no."""
        restarts = [each for each in decided.operations if each.asks]
        if not restarts:
            return
        console.say("These will restart, one pod at a time, and may be unavailable for a few seconds:")
        for each in restarts:
            console.say(f"  {each.subject:<24} {each.cause}")
        if not console.confirm(f"Restart {len(restarts)} of {self.env.name}?", self.assume_yes):
            raise OpsError("Nothing that runs was changed.")

    @contextlib.contextmanager
    def released(self, declared: Stack, changes: Mapping[str, str], success: str = releases.DEPLOYED) -> Iterator[None]:
        """A new entry in the history of releases, with how it ended. success: its result when nothing failed."""
        release = releases.begin(self.env, declared.document, self.command, changes)
        self.release = release.number
        try:
            yield
        except BaseException as error:
            result = releases.BROKEN if isinstance(error, Exception) else releases.INTERRUPTED
            reason = str(error).partition("\n")[0]

            def note() -> None:
                releases.finish(self.env, release, result, reason=reason, seconds=self.elapsed())

            self.go_back(error, "noting how the release ended", note)
            raise
        own = {
            each.service: each.image
            for each in running.containers(self.env, declared)
            if each.service in declared.services and declared.services[each.service].own
        }
        releases.finish(self.env, release, success, seconds=self.elapsed(), images=own)

    # ── phases ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _carry_out(self, decided: Plan) -> None:
        """Carry out a plan."""
        seen, of = decided.seen, decided.of
        self._fetch(seen)
        self.touched = True
        self.prepare(seen)
        self._provision(of(Phase.PROVISION), seen)
        self._data_tier(of(Phase.DATA_TIER), seen)
        self._provision(of(Phase.PROVISION_NEW), seen)
        for each in of(Phase.JOBS):
            self._run_job(each, seen)
        turns = (Phase.EDGE, Phase.ROLLOUT, Phase.SERVICES)
        self.roll_out("rolling out", of(*turns), seen)
        self._apply(_objects(of(Phase.SCHEDULED_JOBS), seen))
        self._monitoring(of(Phase.MONITORING), seen)
        self._remove(of(Phase.LEFTOVERS))

    def _fetch(self, seen: Seen) -> None:
        """Build and push images. Nothing that runs is touched by it."""
        env = self.env
        if seen.unbuilt:
            self.doing = "building images"
            names = ", ".join(each.service for each in seen.unbuilt)
            with console.activity(f"building {names} (log: {relative(env.log_file('build.log'))})") as tick:
                images.build(env, seen.unbuilt, tick)
        if seen.unpushed:
            self.doing = "pushing images"
            with console.activity(f"pushing {', '.join(each.service for each in seen.unpushed)}") as tick:
                registry.push([each.content for each in seen.unpushed], tick)

    def prepare(self, seen: Seen, services: Collection[str] | None = None) -> None:
        """Apply everything that pods need to be there: secrets, files, accounts, networks, claims, names. services:
        only for these, and what belongs to no service."""
        self.doing = "applying secrets and configuration"
        self._apply(seen.secrets)
        self._apply(
            [
                each
                for each in seen.wanted
                if each["kind"] not in (*_TURNS, plan.NAMESPACE)
                and (services is None or marks.service(each) in {"", *services})
            ]
        )

    def _apply(self, objects: Sequence[Object]) -> None:
        self.held.check()
        kubectl.apply(kubectl.place(self.env), objects)

    def _provision(self, operations: Sequence[Operation], seen: Seen) -> None:
        """Make what services own, in parts that run."""
        parts = {each.part for each in operations if isinstance(each, Provision)}
        if not parts:
            return
        self.doing = "making what the services own in the data tier"
        self.held.check()
        names = ", ".join(dict.fromkeys(each.subject for each in operations))
        console.say(f"provisioning {' and '.join(sorted(parts))} for {names}")
        provision.provide(self.env, seen.owned, running.containers(self.env, seen.stack), parts)

    def _data_tier(self, operations: Sequence[Operation], seen: Seen) -> None:
        """Bring the data tier up: what is new at once, for its members must find each other; then what is replaced,
        one after the other, each when all others are ready."""
        workloads = seen.workloads()
        data = [name for name, each in workloads.items() if plan.phase_of(seen.stack, each) == Phase.DATA_TIER]
        replaced = [each for each in operations if isinstance(each, plan.Restart)]
        if others := [each for each in operations if each not in replaced]:
            self.doing = "starting the data tier"
            console.say(f"{self.doing}: {', '.join(each.subject for each in others)}")
            self._apply(_objects(others, seen))
        if replaced:
            self.await_ready(seen.stack, data)
        else:
            started = {each.subject for each in others}
            self.await_ready(seen.stack, [name for name in data if name in started or name in seen.away(data)])
        for each in replaced:
            self.doing = f"restarting {each.subject}"
            console.say(f"{self.doing}: {each.cause}")
            began = time.monotonic()
            self._apply(_objects([each], seen))
            self.await_ready(seen.stack, data)
            self.took[each.subject] = time.monotonic() - began

    def roll_out(self, doing: str, operations: Sequence[Operation], seen: Seen) -> None:
        """Replace the pods of services, and wait until the new ones serve. After a failure these services are taken
        back to what they were. Raises OpsError with the exit code of what went wrong."""
        if not operations:
            return
        self.doing = doing
        names = [each.subject for each in operations]
        console.say(f"{doing}: {', '.join(names)}")
        kinds = (*plan.WORKLOADS, plan.CRONJOB)
        before = [seen.live[each] for each in keys(operations) if each[0] in kinds and each in seen.live]
        self._apply(_objects(operations, seen))
        try:
            self.await_ready(seen.stack, [name for name in names if name in seen.workloads()])
        except BaseException as error:
            if before:
                with contextlib.suppress(OSError):
                    console.say(f"going back to the release before: {', '.join(map(marks.service, before))}")
                self.go_back(error, "going back to the release before", lambda: self._restore(before))
            raise

    def go_back(self, error: BaseException, words: str, step: Callable[[], object]) -> None:
        """Take a step back after an error, whose message says so when that fails. words: what the step does."""
        if not (failed := undo.every([(words, step)])):
            return
        if isinstance(error, OpsError):
            error.message += f"\nThe way back failed too: {failed[0]}."
            if not self.not_undone:
                error.remedy = f"{error.remedy} See what runs: invoke status --env {self.env.name}".lstrip()
        self.not_undone += failed

    def _restore(self, before: Sequence[Object]) -> None:
        """Let workloads be what they were. A pod of theirs has served all the while."""
        kubectl.apply(kubectl.place(self.env), [plan.clean(each) for each in before])

    def await_ready(self, stack: Stack, names: Collection[str]) -> None:
        """Wait until services have what they should, and nothing else. Raises OpsError when one never will."""
        known = {name: stack.services.get(name) or model.Service(name, "") for name in names}
        if not known:
            return
        judge = gate.Gate(known, at=kubectl.place(self.env), stack=stack, selector=marks.selector(self.env))

        def look() -> list[engine.Container]:
            self.held.check()
            return judge.look()

        verdict = judgement.watch(judge, look, self.timeout, pause=_LOOK_SECONDS)
        if verdict.status == judgement.FAILED:
            raise gate.explain(kubectl.place(self.env), verdict)
        for row in verdict.rows:
            self.took.setdefault(row.service, row.since)

    def _run_job(self, operation: Operation, seen: Seen) -> None:
        """Run a job to its end; the services that wait for it are not touched when it fails."""
        assert isinstance(operation, Apply)
        name = operation.subject
        self.doing = f"running {name}"
        self.held.check()
        began = time.monotonic()
        job = next(each[1] for each in operation.objects if each[0] == plan.JOB)
        if isinstance(operation, plan.Run):
            kubectl.delete(kubectl.place(self.env), "job", job, wait=True)
            self._apply(_objects([operation], seen))
        try:
            with console.activity(f"running {name}") as tick:
                finish(self.env, seen.stack, name, job, self.held, tick)
        except BaseException as error:
            # None outlives its deploy: the next one must not meet it in the middle of an ALTER.
            if not isinstance(error, Failed):
                at = kubectl.place(self.env)
                self.go_back(error, f"stopping {name}", lambda: kubectl.delete(at, "job", job, wait=True))
            raise
        self.took[name] = time.monotonic() - began

    def _monitoring(self, operations: Sequence[Operation], seen: Seen) -> None:
        """The site serves without what watches it: what fails there is a warning."""
        if not operations:
            return
        self.doing = "starting monitoring"
        try:
            self._apply(_objects(operations, seen))
            self.await_ready(seen.stack, [each.subject for each in operations if each.subject in seen.workloads()])
        except OpsError as error:
            self.held.check()
            console.warn(f"The site is up, but its monitoring is not complete. {error.message}")

    def _remove(self, operations: Sequence[Operation]) -> None:
        self.doing = "removing what is no longer needed"
        self.held.check()
        for each in operations:
            console.say(f"removing {each.subject}: {each.cause}")
        for kind, name in keys(operations):
            kubectl.delete(kubectl.place(self.env), kind, name)

    def _tidy(self, seen: Seen) -> None:
        """Remove what is named by its content and that no pod uses any more."""
        self.doing = "tidying up"
        by_kind: dict[str, list[str]] = {}
        for each in plan.leftovers(seen):
            if each["kind"] in plan.BY_CONTENT:
                by_kind.setdefault(each["kind"], []).append(each["metadata"]["name"])
        for kind, names in by_kind.items():
            kubectl.delete(kubectl.place(self.env), kind, *names)

    # ── afterwards ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _look_again(self) -> None:
        """Look once more, and say what is left to do. Raises OpsError when that is something."""
        self.doing = "looking once more"
        left = plan.decide(survey(self.env)).operations
        if not left:
            console.say("nothing left to do")
            return
        rows = "\n".join(f"  {each.word} {each.subject}{f': {each.cause}' if each.cause else ''}" for each in left)
        raise OpsError(
            f"{self.env.name} is deployed, but something has changed meanwhile. Left to do:\n{rows}",
            f"Run the same command again, or see what it would do: invoke deploy --plan --env {self.env.name}",
        )

    def _summarise(self, decided: Plan) -> None:
        operations = decided.of_services()
        rows = []
        for name in dict.fromkeys([*decided.seen.workloads(), *operations]):
            operation = operations.get(name)
            rows.append(
                (
                    name,
                    operation.done if operation else "unchanged",
                    console.plain(operation.cause) if operation else "",
                    console.duration(self.took[name]) if self.took.get(name) else "",
                )
            )
        console.say()
        console.print_table(("SERVICE", "CHANGE", "REASON", "TOOK"), rows)
        count = len(decided.seen.workloads())
        console.say(f"\n{self.env.name} is deployed: {count} services healthy ({self._duration()})", "green")

    def standing(self) -> str:
        """How far it came, for the message after Ctrl-C."""
        try:
            declared = model.load(self.env)
            found = running.containers(self.env, declared)
        except (OpsError, OSError) as error:
            return f"what runs now is not known ({error})"
        # A job that waits for its time, and a pod that was evicted, are not what should be healthy.
        jobs = {name for name, each in declared.services.items() if each.one_shot}
        lasting = [each for each in found if each.service not in jobs and each.state != "exited"]
        ready = sum(each.ready for each in lasting)
        return f"{ready} pods are healthy, {len(lasting) - ready} are not"


class Failed(OpsError):
    """A job ended, and not well."""


def finish(
    env: Environment, declared: Stack, name: str, job: str, held: lock.Lock, tick: Callable[[str], None]
) -> None:
    """Wait until a Job ends well. Raises Failed (MIGRATION) when it does not, OpsError (MIGRATION) when it does not
    start or exceeds its limit, and (BUILD) when its image cannot be had."""
    at, limit, began = kubectl.place(env), env.number(*LIMIT), time.monotonic()
    start = gate.Start(env.number(*TIMEOUT))
    while True:
        held.check()
        found = kubectl.find(at, "job", job)
        if found is None:
            raise OpsError(f"The Job {job} was removed while it ran.", "Run the same command again.", MIGRATION)
        ended = plan.conditions(found)
        if "Complete" in ended:
            return
        mine = kubectl.items(at, ("pods",), f"job-name={job}")
        newest = max(mine, key=lambda pod: str(pod["metadata"]["creationTimestamp"]), default=None)
        container = running.container(at, declared, newest) if newest else None
        if "Failed" in ended:
            lines = engine.logs(container.id, _LOG_LINES) if container else []
            code = f" with exit code {container.exit_code}" if container and container.exit_code else ""
            said = "\n".join(f"  {judgement.shorten(line)}" for line in lines)
            raise Failed(
                f"{name} failed{code}. Its last lines:\n{said}",
                "The services were not touched: the old version keeps running, if there was one.",
                MIGRATION,
            )
        took = time.monotonic() - began
        if why := start.failed(newest, time.monotonic()):
            remedy = (
                f"Push its image: invoke images push --env {env.name}."
                if why in gate.PULL
                else f"Correct that. It may take {TIMEOUT[0]} in the .env file to start, in seconds."
            )
            about = newest["metadata"]["name"] if newest else job
            untouched = f"{remedy} The services were not touched."
            raise gate.not_started(at, name, about, why, untouched, MIGRATION)
        if limit and took > limit:
            raise OpsError(
                f"{name} did not end within {limit:.0f} s and was stopped.",
                f"Give it more time: {LIMIT[0]} in the .env file, in seconds; 0 is no limit.",
                MIGRATION,
            )
        last = "".join(engine.logs(container.id, 1))[:120] if container and container.running else ""
        if container and not container.running:
            last = container.error
        tick(f"{console.duration(took)}{f': {last}' if last else ''}")
        time.sleep(_LOOK_SECONDS)


def keys(operations: Sequence[Operation]) -> list[Key]:
    """The objects of operations."""
    return [each for operation in operations if isinstance(operation, Apply) for each in operation.objects]


def _objects(operations: Sequence[Operation], seen: Seen) -> list[Object]:
    """The objects of operations, as they are declared."""
    wanted = {*keys(operations)}
    return [each for each in seen.wanted if key(each) in wanted]


@contextlib.contextmanager
def deployment(env: Environment, command: str, assume_yes: bool = False, lock_wait: float = 0) -> Iterator[Deployment]:
    """A deployment that holds the environment's lock. lock_wait: for how many seconds to wait for it.

    Raises OpsError: REFUSED when somebody else holds it, INTERRUPTED after Ctrl-C.
    """
    with lock.hold(env, f"{command} --env {env.name}", lock_wait) as held:
        swap.refuse(env)
        work = Deployment(env, held, command, assume_yes)
        with interrupt.explained(work):
            yield work


def deploy(env: Environment, assume_yes: bool = False, lock_wait: float = 0) -> None:
    """Bring an environment to what is declared, and wait until it is healthy. Raises OpsError with the exit code of
    what went wrong; when that is REFUSED nothing was touched."""
    _namespace(env)
    with deployment(env, "deploy", assume_yes, lock_wait) as work:
        work.run()


def _namespace(env: Environment) -> None:
    """Make the namespace, which holds the lock, if it is not there yet."""
    at = kubectl.place(env)
    if kubectl.find(at, "namespace", at.namespace, namespaced=False):
        return
    from ops.kubernetes import export

    made = next(each for each in export.render(env).objects if each["kind"] == plan.NAMESPACE)
    kubectl.apply(at, [made])
    console.say(f"made the namespace {at.namespace} in {at.context}")
