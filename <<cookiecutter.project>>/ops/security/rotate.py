"""Rotation: give secrets new values while the stack serves.

The order keeps everybody logged in: whoever keeps a password accepts the new one beside the old where it can; the file
is rewritten in place, so that containers which mount it see the new value; the part is told; readers are replaced by
the rollout that a deploy uses; then the old value is taken away, and both are tried.

After a kill at any step the same command finishes: NAME.next holds the new value and NAME.previous the old one until
the end, and every step may be taken again.
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ops import engine
from ops.base import console
from ops.base.environments import Environment, relative
from ops.base.errors import REFUSED, USAGE, OpsError
from ops.engine import Container
from ops.parts import credentials, provision
from ops.parts.credentials import Credential
from ops.rollout import gate
from ops.rollout.compose_up import bring_up
from ops.rollout.deploy import Deployment, deployment
from ops.rollout.observe import note
from ops.rollout.roll import Rollout, move
from ops.secrets import declared, definitions
from ops.secrets.catalogue import Secret
from ops.secrets.check import padding, weaknesses
from ops.secrets.files import path_of, publish_new, read, rewrite
from ops.secrets.make import generate
from ops.secrets.pending import NEXT, PREVIOUS, SUFFIXES, pending
from ops.stack import model
from ops.stack.model import Stack
from ops.state import digests, elsewhere, memory, releases

ALL = "--all"


@dataclass(frozen=True)
class Rotation:
    """One secret on its way from its old value to its new one. credential: of the part that keeps it."""

    secret: Secret
    old: str
    new: str
    credential: Credential

    @property
    def name(self) -> str:
        return self.secret.name


@dataclass(frozen=True)
class Source:
    """What new containers are made from: the resolved configuration that the running ones come from.

    document: where that stands; None: the Compose files.
    """

    stack: Stack
    document: Path | None


# ── what to rotate ────────────────────────────────────────────────────────────────────────────────────────────────────


def chosen(env: Environment, names: str, secrets: Mapping[str, Secret]) -> list[Secret]:
    """The secrets that somebody named, separated by commas, or all that can be generated. Raises OpsError (usage)."""
    if names == ALL:
        return [each for each in secrets.values() if each.length]
    wanted = [name for name in names.split(",") if name]
    unknown = [name for name in wanted if name not in secrets]
    if unknown or not wanted:
        raise OpsError(
            f'"{(unknown or [names])[0]}" is not a secret of {env.name}.',
            f"Separate several by commas; {ALL} takes all that can be generated. There are: {', '.join(secrets)}.",
            USAGE,
        )
    return [secrets[name] for name in dict.fromkeys(wanted)]


def new_value(secret: Secret, kept: Collection[str], ask: Callable[[Secret], str]) -> str:
    """A new value: generated, or given where it comes from elsewhere. Raises OpsError for one that is unfit.

    kept: names of secrets that hold old values only, and are emptied.
    """
    if secret.length or secret.name in kept:
        return generate(secret)
    value = ask(secret)
    problems = [*weaknesses(secret, value)]
    if not value or padding(value.encode()) or problems:
        what = problems[0] if problems else "empty, or with white space around it"
        raise OpsError(f"The new value of {secret.name} cannot be used: {what}.", "Nothing was changed.", USAGE)
    return value


def given(secret: Secret) -> str:
    """What a person types without an echo, or what comes next on standard input. Raises OpsError when there is nothing.

    A value with lines of its own, such as a private key, is read from a file that the person names; on standard input
    it ends with its line "-----END …", or with the input.
    """
    if not sys.stdin.isatty():
        value = _lines() if secret.text else sys.stdin.readline()
        if not value:
            raise OpsError("This needs a value, and there is no terminal.", "Give it on standard input.", USAGE)
        return value.removesuffix("\n").removesuffix("\r")
    if not secret.text:
        return getpass.getpass(f"New value of {secret.name} (it is not shown): ")
    path = Path(input(f"File with the new value of {secret.name}: ").strip()).expanduser()
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise OpsError(f"{path} cannot be read: {reason}.", "Nothing was changed.", USAGE) from None


def _lines() -> str:
    found = []
    for line in sys.stdin:
        found.append(line)
        if line.startswith("-----END "):
            break
    return "".join(found)


# ── the command ───────────────────────────────────────────────────────────────────────────────────────────────────────


def rotate(env: Environment, names: str, assume_yes: bool = False) -> None:
    """Give secrets new values, bring them into everything that runs, and verify that the old ones are refused.

    names: separated by commas, or ALL. Raises OpsError; the same command then goes on from where it ended.
    """
    stack = model.load(env)
    known = declared.every(env, stack.document)
    secrets, kept = chosen(env, names, known), declared.kept(known.values())
    owned = provision.declared(env, stack)
    with deployment(env, f"secret-rotate {names}", assume_yes) as work:
        containers = engine.containers(env)
        refuse_elsewhere(env, containers)
        with source_of(env, containers) as source:
            keepers = {each.name: credentials.of(env, containers, each.name, owned) for each in secrets}
            refuse_unready(env, source.stack, containers, keepers)
            agree(env, source.stack, secrets, keepers, assume_yes)
            values = {each.name: new_value(each, kept, given) for each in secrets if not pending(env, each.name)}
            rotations = [begin(env, each, keepers[each.name], values.get(each.name, "")) for each in secrets]
            _Rotating(work, source, rotations).run()


def refuse_elsewhere(env: Environment, containers: Sequence[Container]) -> None:
    """Raise OpsError (REFUSED) when containers mount the secrets of another checkout."""
    if other := next(iter(elsewhere.folders(containers, env.project_dir)), ""):
        raise OpsError(
            f"{env.name} was deployed from {other}, and its containers mount the secrets of that folder.",
            "Run this command there. Nothing was changed.",
            REFUSED,
        )


def refuse_unready(
    env: Environment, stack: Stack, containers: Sequence[Container], keepers: Mapping[str, Credential]
) -> None:
    """Raise OpsError (REFUSED) when a part that keeps one of these secrets does not run. keepers: by secret."""
    if not containers:
        # Nobody can have a password yet, unless a volume has it.
        filters = ("--filter", f"label=com.docker.compose.project={env.project}")
        if engine.docker("volume", "ls", "--quiet", *filters).stdout.split():
            raise OpsError(f"{env.name} is not running, and its volumes keep passwords.", _start(env), REFUSED)
        return
    for secret, credential in keepers.items():
        where = [
            name
            for name in stack.lasting
            if name in credential.keepers or (not credential.keepers and secret in mounted(env, stack, name))
        ]
        if credential.in_volume and where and not credential.holders:
            raise OpsError(f"{where[0]} is not running in {env.name}.", _start(env), REFUSED)
        credential.check()


def _start(env: Environment) -> str:
    return f"invoke deploy --env {env.name}, then run this again. Nothing was changed."


def agree(
    env: Environment, stack: Stack, secrets: Sequence[Secret], keepers: Mapping[str, Credential], assume_yes: bool
) -> None:
    """Say what will happen and ask. Raises OpsError when the answer is no."""
    for each in secrets:
        console.say(f"  {each.name:<32} {each.purpose}")
        console.say(f"  {'':<32} {each.rotation}")
    live = {found.service for each in keepers.values() for found in each.holders}
    wanted = files_of(secrets)
    restarts = [
        name
        for name in stack.lasting
        if name not in stack.rolling and name not in live and wanted & mounted(env, stack, name)
    ]
    if restarts:
        console.say(f"These will restart and be unavailable for a few seconds: {', '.join(restarts)}")
    count = f"{len(secrets)} secret{'s' if len(secrets) > 1 else ''}"
    if not console.confirm(f"Rotate {count} of {env.name}?", assume_yes):
        raise OpsError("Nothing was changed.")


def begin(env: Environment, secret: Secret, credential: Credential, value: str) -> Rotation:
    """Keep the new and the old value in files beside the secret, or go on with those of an interrupted rotation."""
    current = read(env, secret.name)
    begun = pending(env, secret.name)
    if NEXT not in begun and PREVIOUS in begun:
        # Killed between removing the two: only what follows is left to do.
        new = current
    elif begun:
        new = begun[NEXT]
    else:
        new = value
        publish_new(path_of(env, secret.name + NEXT), new.encode())
    if PREVIOUS not in begun and current != new:
        publish_new(path_of(env, secret.name + PREVIOUS), current.encode())
    old = read(env, secret.name + PREVIOUS)
    return Rotation(secret, old, new, credential)


# ── who reads what ────────────────────────────────────────────────────────────────────────────────────────────────────


def files_of(secrets: Iterable[Secret]) -> set[str]:
    """Names of the files that a rotation of these secrets changes."""
    return {name for each in secrets for name in (each.name, each.keeps) if name}


def mounted(env: Environment, stack: Stack, service: str) -> set[str]:
    """Names of the secret files that a service mounts."""
    return {each.source.name for each in stack.services[service].mounts if each.source.parent == env.secrets_dir}


@contextmanager
def source_of(env: Environment, containers: Sequence[Container]) -> Iterator[Source]:
    """What the running containers of rolling services were made from: the current release, or the Compose files.

    Raises OpsError (REFUSED) when it is neither: a rotation must not bring what is still to be deployed.
    """

    def made_from(stack: Stack, hashes: Mapping[str, str]) -> bool:
        rolling = [each for each in containers if each.service in stack.rolling and each.running]
        return all(each.config_hash == hashes.get(each.service) for each in rolling)

    current = releases.current(env)
    if current and releases.is_documented(env, current):
        stack = model.parse(releases.document(env, current))
        if made_from(stack, releases.hashes(env, current)):
            with releases.as_file(stack.document) as document:
                yield Source(stack, document)
            return
    stack = model.load(env)
    if made_from(stack, model.hashes(env)):
        yield Source(stack, None)
        return
    raise OpsError(
        f"{env.name} runs neither its last release nor what the files declare.",
        f"invoke deploy --env {env.name}, then run this again. Nothing was changed.",
        REFUSED,
    )


# ── the steps ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Rotating:
    work: Deployment
    source: Source
    rotations: Sequence[Rotation]

    @property
    def env(self) -> Environment:
        return self.work.env

    def run(self) -> None:
        """Take every step, from the first to the last. Raises OpsError."""
        began = time.monotonic()
        self.work.touched = True
        self._announce()
        self._step("letting both passwords in")
        for each in self.rotations:
            each.credential.both(each.new)
        self._pause()
        self._step("changing the passwords")
        for each in self.rotations:
            self._write(each)
            each.credential.switch(each.new)
        stale = self._note_holders()
        self._replace_readers({name for each in self.rotations for name in files_of([each.secret])})
        self._step("taking the old passwords away")
        for each in self.rotations:
            each.credential.only(each.new)
        self._step("trying the old and the new ones")
        for each in self.rotations:
            self._verify(each)
        for each in self.rotations:
            for suffix in SUFFIXES:
                path_of(self.env, each.name + suffix).unlink(missing_ok=True)
        self._report(time.monotonic() - began, stale)

    def _step(self, text: str) -> None:
        self.work.held.check()
        self.work.doing = text
        console.say(text)

    def _announce(self) -> None:
        """A key that several verify is known to all of them before the first one signs with it."""
        early = [each for each in self.rotations if each.secret.keeps and read(self.env, each.name) != each.new]
        early = [each for each in early if len(self._readers({each.name})) > 1]
        for each in early:
            kept = read(self.env, each.secret.keeps)
            if kept not in {"", each.new}:
                console.warn(f"{each.secret.keeps} is not empty: what was signed with it is refused from now on.")
            rewrite(path_of(self.env, each.secret.keeps), each.new.encode())
        if early:
            self._replace_readers({each.secret.keeps for each in early})

    def _write(self, each: Rotation) -> None:
        rewrite(path_of(self.env, each.name), each.new.encode())
        if each.secret.keeps:
            rewrite(path_of(self.env, each.secret.keeps), each.old.encode())
        definitions.render(self.env.secrets_dir, self.env.project_dir / definitions.SOURCE, rewrite)

    def _pause(self) -> None:
        names = {name for each in self.rotations for name in each.credential.pauses if each.credential.holders}
        ids = [each.id for each in engine.containers(self.env) if each.service in names and each.running]
        if ids:
            engine.docker("stop", *ids, timeout=None)

    def _readers(self, files: set[str]) -> list[str]:
        """Services of which containers exist that read one of these files at their start."""
        stack = self.source.stack
        live = {found.service for each in self.rotations for found in each.credential.holders}
        present = {each.service for each in engine.containers(self.env)}
        return [
            name
            for name in stack.lasting
            if name in present and name not in live and files & mounted(self.env, stack, name)
        ]

    def _replace_readers(self, files: set[str]) -> None:
        """Replace whoever reads these files: by a rollout, or by a restart where a service cannot run twice."""
        stack, names = self.source.stack, self._readers(files)
        if not names:
            return
        self._step(f"replacing the readers: {', '.join(names)}")
        before = [each.id for each in engine.containers(self.env)]
        now = model.load(self.env).services
        mine = {name: [each for each in engine.containers(self.env) if each.service == name] for name in names}
        moves = [
            move(as_declared(stack.services[name], now.get(name)), mine[name], lambda _: False)
            for name in names
            if name in stack.rolling and any(each.running for each in mine[name])
        ]
        if moves:
            Rollout(self.env, self.source.document, stack, moves, self.work.timeout, self.work.held.check).run()
        rest = [name for name in names if name not in {each.service.name for each in moves}]
        if rest:
            watched = {name: stack.services[name] for name in rest}
            judge = gate.Gate(watched, before=engine.containers(self.env))
            bring_up(self.env, recreate_argv(self.env, self.source.document, rest), judge, self.work.timeout)
        note(self.env, stack, before)

    def _note_holders(self) -> list[str]:
        """Note that containers which mount a rewritten file have the new value; names of those that do not.

        Whoever replaced a file by another one has left them with the one that was there.
        """
        paths = {path_of(self.env, name) for each in self.rotations for name in files_of([each.secret])}
        paths.add(self.env.secrets_dir / definitions.FILE)
        services = {name for name in self.source.stack.lasting if name not in self._readers({p.name for p in paths})}
        noted, stale = memory.load(self.env).mounted, []
        seen: dict[str, dict[str, str]] = {}
        for each in engine.containers(self.env):
            names = mounted(self.env, self.source.stack, each.service) if each.service in services else set()
            for path in sorted(path for path in paths if path.name in names and path.exists()):
                wanted = digests.file_digest(path)
                if _mounted_digest(each, path.name) != wanted:
                    stale.append(each.service)
                elif each.id in noted:
                    seen.setdefault(each.id, {})[str(path.relative_to(self.env.project_dir))] = wanted
        memory.add(self.env, seen)
        return sorted(set(stale))

    def _verify(self, each: Rotation) -> None:
        """Raise OpsError unless every holder accepts the new value and refuses the old one."""
        refusing = [name for name, accepted in each.credential.accepts(each.new).items() if not accepted]
        if refusing:
            raise OpsError(f"{', '.join(refusing)} refuses the new value of {each.name}.", self._again())
        if each.old in {"", each.new}:
            return
        accepting = [name for name, accepted in each.credential.accepts(each.old).items() if accepted]
        if accepting:
            raise OpsError(f"{', '.join(accepting)} still accepts the old value of {each.name}.", self._again())

    def _again(self) -> str:
        names = ",".join(each.name for each in self.rotations)
        return f"Run it again: invoke secret-rotate {names} --env {self.env.name}"

    def _report(self, seconds: float, stale: Sequence[str]) -> None:
        rows = [(each.name, *_outcome(each)) for each in self.rotations]
        console.print_table(("SECRET", "NEW VALUE", "OLD VALUE"), rows)
        for each in self.rotations:
            if each.secret.after:
                console.say(f"{each.name}: {each.secret.after}")
        if stale:
            console.warn(
                f"{', '.join(stale)} still has the file that was there before somebody replaced it;"
                f" `invoke deploy --env {self.env.name}` restarts it."
            )
        count = f"{len(rows)} secret{'s' if len(rows) > 1 else ''}"
        console.say(f"rotated {count} of {self.env.name} ({console.duration(seconds)})", "green")
        console.say(f"Save a copy of {relative(self.env.secrets_dir)}: backups do not contain secrets.")


def _outcome(each: Rotation) -> tuple[str, str]:
    if not each.credential.holders:
        return "in its file", "replaced in its file"
    return "accepted", "refused"


def as_declared(service: model.Service, now: model.Service | None) -> model.Service:
    """The service with as many replicas as the files declare now, as after `invoke scale`.

    Not as many as run: a rollout that was killed leaves old and new ones beside each other.
    """
    return replace(service, replicas=now.replicas) if now else service


def _mounted_digest(container: Container, name: str) -> str:
    """SHA-256 of a secret file as a container sees it; "" when it cannot be asked."""
    done = engine.exec_(container.id, ["sha256sum", f"/run/secrets/{name}"], check=False)
    return done.stdout.split(" ")[0] if done.ok else ""


def recreate_argv(env: Environment, document: Path | None, services: Sequence[str]) -> list[str]:
    """The Compose command that replaces services in place."""
    fixed = ("--detach", "--no-deps", "--no-build", "--pull", "never", "--quiet-pull", "--force-recreate")
    return engine.compose_argv(env, "up", *fixed, *services, document=document)
