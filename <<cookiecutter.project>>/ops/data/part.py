"""The part `backup` as the commands use it: one-off containers of its image that read the targets.

Such a container ends with the command that started it, also when that is killed: it watches its standard input.
"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

from ops import engine
from ops.base.environments import Environment, relative
from ops.base.errors import BUILD, FAILED, REFUSED, OpsError
from ops.base.signals import undisturbed
from ops.parts import backups, targets
from ops.stack.model import Stack

# It has the keys of the targets and no way to the servers of the stack.
SERVICE = "backup-verify"
# Containers that a command has started, with the project as the value.
LABEL = "ops.restore.work"

# The target /backups: its place in the containers, and the variable of docker-compose.backup.yml for that on the host.
_PLACE, _FOLDER = "/backups", "BACKUP_FOLDER"
# A document, or an error; an archive is longer.
_LONGEST_DOCUMENT = 16 << 20
_CHUNK = 1 << 20


def require(env: Environment, declared: Stack) -> None:
    """Raise OpsError (REFUSED) when the stack has no part `backup`."""
    if SERVICE not in declared.services:
        raise OpsError(
            f"{env.name} has no catalogue of backups: COMPOSE_FILE does not name docker-compose.backup.yml.",
            "Restore an archive of `invoke backup --portable`, or add the part: docs/recovery.md.",
            REFUSED,
        )


def make_image(env: Environment, declared: Stack, tick: Callable[[str], None]) -> None:
    """Build or pull the image, where it is missing: Compose would do it too, and write of that into the answer."""
    image = declared.services[SERVICE].image
    if engine.image_ids([image]):
        return
    making = "pull" if env.values.get("IMAGE_SOURCE") == "pull" else "build"
    tick(f"{making}ing {image}")
    done = engine.compose(env, making, SERVICE, check=False, timeout=None)
    if not done.ok:
        raise engine.explain(done.stderr) or OpsError(f"{image}: {engine.reason(done.stderr)}", code=BUILD)


def argv(
    env: Environment,
    arguments: Sequence[str],
    mounts: Sequence[str] = (),
    service: str = SERVICE,
    attended: bool = True,
    name: str = "",
) -> list[str]:
    """The Compose command for a one-off container. mounts: VOLUME:PATH; attended: it ends when its input ends."""
    # Whoever waits for it removes what an earlier one has left; a backup by hand goes on by itself.
    label = ("--label", f"{LABEL}={env.project}") if attended else ()
    named = ("--name", name) if name else ()
    options = ("run", "--rm", "--no-deps", "--no-TTY", "--quiet-pull", *named, *label)
    volumes = (word for each in mounts for word in ("--volume", each))
    ending = ("--attended",) if attended else ()
    return engine.compose_argv(env, *options, *volumes, service, *arguments, *ending, "--json")


def surroundings(env: Environment) -> dict[str, Any]:
    """What the Compose command needs around it: that of every one, and where /backups is. Raises OpsError (REFUSED)."""
    around = engine.surroundings(env)
    return {**around, "environment": {**around["environment"], _FOLDER: folder(env)}}


def folder(env: Environment) -> str:
    """The folder of this machine that is the target /backups: in the checkout that was deployed, else in this one.

    Raises OpsError (REFUSED) when there is none.
    """
    deployed = [each.mounts.get(_PLACE, "") for each in engine.containers(env) if each.service == backups.RECEIVER]
    here = targets.folder(env)
    if not any(deployed) and not here.is_dir():
        raise OpsError(
            f"{relative(here)} is not there.",
            f"invoke deploy --env {env.name} makes it. On a new machine: docs/disaster-recovery.md",
            REFUSED,
        )
    return next((each for each in deployed if each), str(here))


def remove_left(env: Environment) -> None:
    """Remove the containers that commands which were killed have left, if any. The caller holds the lock."""
    listed = engine.docker("ps", "--all", "--quiet", "--filter", f"label={LABEL}={env.project}")
    if found := listed.stdout.split():
        engine.docker("rm", "--force", *found, check=False)


def call(
    env: Environment,
    arguments: Sequence[str],
    tick: Callable[[str], None],
    *,
    sink: IO[bytes] | None = None,
    mounts: Sequence[str] = (),
    service: str = SERVICE,
    attended: bool = True,
    verdict: bool = False,
) -> Any:
    """Run a command of ops.recovery in a container: the document that it answers; None when the answer goes to `sink`.

    tick: hears what it is doing. service: whose keys and networks it has; attended: it ends when this command ends,
    however that happens; verdict: exit code 1 with a document is an answer, too. Raises the OpsError that the command
    raised; interrupted, it ends the container first.
    """
    name = f"{env.project}-{service}-{secrets.token_hex(4)}"
    line = argv(env, arguments, mounts, service, attended, name)
    try:
        head, complaints, code = converse(line, tick, sink, **surroundings(env))
    except BaseException:
        # Compose ends at once, and would leave the container at work.
        with undisturbed():
            engine.docker("stop", name, check=False)
            engine.docker("rm", "--force", "--volumes", name, check=False)
        raise
    return answered(head, complaints, code, sink, verdict)


def converse(
    line: Sequence[str], tick: Callable[[str], None], sink: IO[bytes] | None = None, **around: Any
) -> tuple[bytes, list[str], int]:
    """Run a command line to its end: what it answers, as far as a document may be long, what it complains of, and its
    exit code. Its standard input is open until then. around: options of `engine.popen`."""
    answer = sink or io.BytesIO()
    head = bytearray()
    complaints: list[str] = []
    pipe = subprocess.PIPE
    with engine.popen(line, stdin=pipe, stdout=pipe, stderr=pipe, **around) as child:
        listener = threading.Thread(target=_listen, args=(engine.pipe(child.stderr), complaints, tick), daemon=True)
        listener.start()
        while data := engine.pipe(child.stdout).read(_CHUNK):
            answer.write(data)
            head += data[: max(0, _LONGEST_DOCUMENT - len(head))] if len(head) < _LONGEST_DOCUMENT else b""
        code = child.wait()
        listener.join()
    return bytes(head), complaints, code


def answered(
    head: bytes, complaints: Sequence[str], code: int, sink: IO[bytes] | None = None, verdict: bool = False
) -> Any:
    """The document of a command that has ended; None when the answer went to `sink`. Raises the OpsError that it
    raised."""
    if code and not (verdict and code == FAILED and head.lstrip().startswith(b"[")):
        raise _failure(head, complaints, code)
    return None if sink else json.loads(head)


def _listen(stream: IO[bytes], complaints: list[str], tick: Callable[[str], None]) -> None:
    """Read the log of the container, and what Compose says."""
    for raw in stream:
        text = raw.decode(errors="replace").strip()
        with contextlib.suppress(ValueError, AttributeError):
            text = str(json.loads(text).get("event", text))
        if text:
            complaints[:] = [*complaints[-20:], text]
            with contextlib.suppress(OSError):
                tick(text)


def _failure(head: bytes, complaints: Sequence[str], code: int) -> OpsError:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        error = json.loads(head)["error"]
        return OpsError(str(error["message"]), str(error["remedy"]), int(error["code"]))
    said = "\n".join(complaints)
    return engine.explain(said) or OpsError(
        f"The container of the part backup ended with exit code {code}: {complaints[-1] if complaints else 'no word'}"
    )
