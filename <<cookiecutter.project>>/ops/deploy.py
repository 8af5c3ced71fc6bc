"""Deploy and update: bring what runs to what is declared.

The order is look, decide, check, fetch images, data tier, migrations, everything else, gate: up to the migrations a
failure leaves the old version running. With nothing to change it ends after "decide", so running it again is cheap.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from ops import console, engine, gate, images, plan, preflight, stack
from ops.engine import Container
from ops.environments import Environment, relative
from ops.errors import INTERRUPTED, REFUSED, OpsError
from ops.plan import Plan
from ops.stack import Stack

# Setting and default, in seconds, for each tier. On two busy cores with empty volumes the whole stack took 60.
TIMEOUT = ("DEPLOY_TIMEOUT", 180)
NGINX_CONFIGURATION = "/etc/nginx/env/nginx.conf"

_DONE = {
    plan.CREATE: "created",
    plan.RECREATE: "recreated",
    plan.REFRESH: "recreated",
    plan.SCALE: "scaled",
    plan.START: "started",
    plan.RELOAD: "reloaded",
    plan.RUN: "ran",
    plan.UNCHANGED: "unchanged",
}


@dataclass(frozen=True)
class Survey:
    """What is declared and what exists, read at one moment."""

    stack: Stack
    hashes: dict[str, str]
    containers: list[Container]
    own: list[images.OwnImage]
    image_ids: dict[str, str]
    files: dict[str, dict[str, plan.FileState]]

    def needs(self) -> images.Needs:
        """Images to build, tag or pull."""
        return images.needs(self.stack, self.own, self.image_ids)


def survey(env: Environment) -> Survey:
    """Read everything a decision needs, concurrently: most of it is waiting for docker."""
    engine.warn_overridden(env)
    with ThreadPoolExecutor(3) as pool:
        hashes = pool.submit(stack.hashes, env)
        containers = pool.submit(engine.containers, env)
        declared = stack.load(env)
        own = images.own_images(env, declared)
        image_ids = pool.submit(engine.image_ids, images.references(declared, own))
        files = plan.mounted_files(declared, env.project_dir)
        return Survey(declared, hashes.result(), containers.result(), own, image_ids.result(), files)


@dataclass(frozen=True)
class Glance:
    """What is declared, and which containers exist."""

    stack: Stack
    containers: list[Container]


def glance(env: Environment) -> Glance:
    """Read the declaration and the containers, at once."""
    engine.warn_overridden(env)
    with ThreadPoolExecutor(1) as pool:
        containers = pool.submit(engine.containers, env)
        return Glance(stack.load(env), containers.result())


def decide(env: Environment, seen: Survey) -> Plan:
    """The plan for what was seen."""
    return plan.decide(seen.stack, seen.hashes, seen.containers, seen.image_ids, seen.files, plan.read_notes(env))


@contextlib.contextmanager
def lock(env: Environment, purpose: str) -> Iterator[None]:
    """One change of an environment at a time. The lock goes with its holder, however that ends."""
    env.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = env.state_dir / "lock"
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "another command"
            raise OpsError(f"{env.name} is being changed by {holder}.", "Wait for it to end.", REFUSED) from None
        file.truncate(0)
        file.write(f"invoke {purpose}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        file.flush()
        yield
        file.truncate(0)


@dataclass
class Deployment:
    """One deploy. doing: what it is at, for the message after Ctrl-C."""

    env: Environment
    timeout: float
    began: float = field(default_factory=time.monotonic)
    doing: str = "looking around"
    touched: bool = False
    ready_after: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Deploy. Raises OpsError when it is refused or fails."""
        env = self.env
        seen = survey(env)
        if not seen.needs() and (decided := decide(env, seen)).idle:
            self._confirm_healthy(seen)
            return
        self._prepare()
        self.doing = "checking"
        preflight.refuse(report_warnings(preflight.run(env, seen.stack, seen.containers)))
        self._make_certificate()
        if needs := seen.needs():
            self._fetch(needs)
        self.doing = "deciding"
        seen = survey(env)
        decided = decide(env, seen)
        if decided.idle:
            self._confirm_healthy(seen)
            return
        self._apply(seen, decided)
        plan.write_notes(env, seen.files)
        self._summarise(seen, decided)

    def standing(self) -> str:
        """How far it came, for the message after Ctrl-C."""
        migrations = stack.load(self.env).migrations
        containers = [each for each in engine.containers(self.env) if each.service not in migrations]
        ready = sum(each.ready for each in containers)
        return f"{ready} containers are healthy, {len(containers) - ready} are not"

    def _confirm_healthy(self, seen: Survey) -> None:
        """Nothing to change: make sure that what runs is well."""
        self.doing = "waiting for health"
        lasting = seen.stack.lasting
        checked = gate.Gate(lasting, before=seen.containers)
        verdict = checked.observe(seen.containers, time.monotonic())
        if verdict.status == gate.WAITING:
            verdict = gate.watch(checked, lambda: engine.containers(self.env), self.timeout)
        if verdict.status == gate.FAILED:
            raise gate.explain(verdict)
        elapsed = console.duration(time.monotonic() - self.began)
        console.say(f"nothing to change: {len(lasting)} services healthy in {self.env.name} ({elapsed})", "green")

    def _prepare(self) -> None:
        """What dev makes by itself. Elsewhere secrets are made by a person's decision, and preflight says so."""
        if self.env.name != "dev":
            return
        from ops import secrets

        if made := secrets.init(self.env):
            console.say(f"made {len(made)} secrets in {relative(self.env.secrets_dir)} (dev only)")

    def _make_certificate(self) -> None:
        from ops import certificates

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

    def _apply(self, seen: Survey, decided: Plan) -> None:
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
        rest = [
            name
            for name, change in decided.changes.items()
            if name not in foundation and name not in jobs and change.kind not in {plan.UNCHANGED, plan.RELOAD}
        ]
        for name in decided.of_kind(plan.RELOAD):
            self.doing = f"reloading {name}"
            reload_nginx([each for each in seen.containers if each.service == name])
        self._up("starting the services", rest, decided, declared.lasting)

    def _tidy(self, decided: Plan) -> None:
        """Remove what belongs to nothing declared, and what an interrupted run left behind."""
        self.doing = "removing what is no longer declared"
        if decided.orphans:
            gone = sorted({each.service for each in decided.orphans})
            console.say(f"removing {', '.join(gone)}: no longer part of {self.env.name}")
            ids = [each.id for each in decided.orphans]
            engine.docker("stop", *ids, timeout=None)
            engine.docker("rm", "--force", *ids)
        if decided.discard:
            engine.docker("rm", "--force", *(each.id for each in decided.discard))
        for container, name in decided.rename:
            engine.docker("rename", container.id, name)

    def _up(self, doing: str, names: Sequence[str], decided: Plan, watched: Mapping[str, stack.Service]) -> None:
        """Let Compose bring some services up, and wait until all of `watched` are healthy."""
        self.doing = doing
        if names:
            console.say(f"{doing}: {', '.join(names)}")
        refreshed = decided.of_kind(plan.REFRESH, among=names)
        others = [name for name in names if name not in refreshed]
        if refreshed:
            argv = up_argv(self.env, refreshed, "--force-recreate")
            self._watch(argv, refreshed, {name: watched[name] for name in refreshed})
        self._watch(up_argv(self.env, others) if others else None, others, watched)

    def _watch(self, argv: list[str] | None, names: Sequence[str], watched: Mapping[str, stack.Service]) -> None:
        judge = gate.Gate(watched, before=engine.containers(self.env))
        for row in bring_up(self.env, argv, judge, self.timeout):
            if row.service in names:
                self.ready_after[row.service] = row.since

    def _run_job(self, name: str, seen: Survey) -> None:
        """Run a one-shot service to its end; the services that wait for it are not touched when it fails."""
        self.doing = f"running {name}"
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


def deploy(env: Environment) -> None:
    """Bring an environment to what is declared, and wait until it is healthy.

    Raises OpsError: REFUSED when preflight refuses and nothing was touched, FAILED when something did not become
    healthy, INTERRUPTED after Ctrl-C.
    """
    work = Deployment(env, env.number(*TIMEOUT))
    try:
        with lock(env, f"deploy --env {env.name}"):
            work.run()
    except KeyboardInterrupt:
        # A second press would cut short the tidying up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        engine.end_all()
        state = work.standing() if work.touched else "nothing was changed"
        raise OpsError(
            f"Interrupted while {work.doing}: {state}. `invoke deploy --env {env.name}` goes on from here.",
            code=INTERRUPTED,
        ) from None


def update(env: Environment) -> None:
    """Fetch newer versions of every image, rebuild our own on them, and deploy.

    Where a pull fails the images that are there are used, and OpsError says so at the end.
    """
    preflight.refuse(list(preflight.check_settings(env)))
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
    deploy(env)
    if failed:
        raise OpsError(
            f"{len(failed)} image(s) could not be pulled; what is deployed uses the ones on this machine:\n"
            f"{images.reasons(failed)}",
            "Check the network or REGISTRY_MIRROR, and run the same command again.",
        )


def up_argv(env: Environment, services: Sequence[str], *options: str) -> list[str]:
    """The Compose command that starts services: images are there by now, and order is ours to keep."""
    fixed = ("--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull")
    return engine.compose_argv(env, "up", *fixed, *options, *services)


def bring_up(env: Environment, argv: list[str] | None, judge: gate.Gate, timeout: float) -> Sequence[gate.Row]:
    """Run a Compose command (None: it is done already) while the gate looks on; the rows once every service is healthy.

    Raises OpsError that says who is not, and why.
    """

    def look() -> list[Container]:
        return engine.containers(env)

    if argv is None:
        verdict, code = gate.watch(judge, look, timeout), 0
    else:
        log = env.state_dir / "up.log"
        with (
            log.open("wb") as output,
            engine.popen(argv, stdout=output, stderr=output, **engine.surroundings(env)) as work,
        ):
            verdict = gate.watch(judge, look, timeout, work)
            code = work.poll()
            if code is None:
                engine.end(work)
        if code and verdict.status != gate.FAILED:
            raise compose_failed(env, log)
    if verdict.status == gate.FAILED:
        raise gate.explain(verdict)
    return verdict.rows


def compose_failed(env: Environment, log: Path) -> OpsError:
    """The error for a Compose that gave up, from what it wrote."""
    lines = engine.tail(log, 20)
    text = "\n".join(lines)
    if known := engine.explain(text):
        return known
    reasons = [line for line in lines if "rror" in line] or lines[-3:]
    listed = "\n".join(f"  {line.strip()}" for line in reasons)
    return OpsError(f"Compose could not start everything:\n{listed}", f"All of its output: {relative(log)}")


def reload_nginx(containers: Sequence[Container]) -> None:
    """Let nginx take its changed configuration without dropping a connection.

    Raises OpsError when the configuration is wrong: nginx then keeps working with the old one.
    """
    for each in containers:
        tested = engine.exec_(each.id, ["nginx", "-t", "-q", "-c", NGINX_CONFIGURATION], check=False)
        if not tested.ok:
            lines = "\n".join(f"  {line}" for line in tested.stderr.strip().splitlines())
            raise OpsError(
                f"nginx refuses its new configuration and keeps the old one:\n{lines}", "Mend it; deploy again."
            )
    for each in containers:
        engine.exec_(each.id, ["nginx", "-s", "reload", "-c", NGINX_CONFIGURATION])


def report_warnings(checks: list[preflight.Check]) -> list[preflight.Check]:
    """Show the warnings among checks, and hand all of them on."""
    for each in checks:
        if each.status == preflight.WARNING:
            console.warn(f"{each.name}: {each.detail}{f' ({each.remedy})' if each.remedy else ''}")
    return checks


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
