"""What is remembered of an environment, kept on the engine: whoever changes it, from whatever folder, sees the same.

It is one document in a volume. A container that is never started gives access to the volume: `docker cp` reads and
writes it in some 50 ms and runs nothing. The volume belongs to the Compose project, so `invoke down` keeps it and
`invoke down --volumes` removes it with all other data; the container does not, so no command takes it for a service.

The document is written in turn to one of two files, each with a number and a checksum. Whoever is killed while writing
damages the older one at most, and the newest complete one counts.

In a cluster they are the keys of a Secret in the namespace, for the document holds the key of the digests. It is
written as a whole, so one document is enough there.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace

from ops import engine
from ops.base import console, tar
from ops.base.environments import KUBERNETES, Environment
from ops.engine import kubectl
from ops.state.document import State, encode, newest

_FOLDER = "/state"
_SLOTS = ("a", "b")
# The Secret in a cluster.
SECRET = "deployed"


def name_of(env: Environment) -> str:
    """The container, its volume and its empty image."""
    return f"{env.project}-state"


def read(env: Environment) -> State | None:
    """What is remembered on the engine; None when nothing is. Raises OpsError when a newer version wrote it."""
    texts = [text for name, text in _files(env).items() if name in _SLOTS]
    found = newest(texts)
    if not found and texts:
        console.warn(f"What was remembered of {env.name} is damaged (volume {name_of(env)}): its releases are lost.")
    return found


def write(env: Environment, state: State) -> State:
    """Keep what is to be remembered, as the next generation. The caller holds the environment's lock."""
    following = replace(state, generation=state.generation + 1)
    _put(env, _SLOTS[following.generation % len(_SLOTS)], encode(following))
    return following


def note(env: Environment, name: str) -> str:
    """A short text that is kept beside the document under a name; "" when there is none."""
    return _files(env).get(name, "")


def put_note(env: Environment, name: str, text: str) -> None:
    """Keep a short text beside the document. The caller holds the environment's lock."""
    _put(env, name, text)


def _files(env: Environment) -> dict[str, str]:
    """Everything in the volume, by name; nothing when there is none."""
    if env.engine == KUBERNETES:
        return _kept(kubectl.find(kubectl.place(env), "secret", SECRET) or {})
    name = name_of(env)
    done = engine.docker("cp", f"{name}:{_FOLDER}", "-", check=False)
    if not done.ok and not engine.inspect([name]):
        if not engine.inspect([name], "volume"):
            return {}
        # The container was pruned; the volume is what matters.
        _create(env)
        done = engine.docker("cp", f"{name}:{_FOLDER}", "-", check=False)
    if not done.ok:
        raise engine.failure(done)
    return {path.rpartition("/")[2]: text for path, text in tar.unpacked(done.stdout.encode()).items()}


def _kept(secret: kubectl.Object) -> dict[str, str]:
    return {key: base64.b64decode(text).decode() for key, text in (secret.get("data") or {}).items()}


def _put_in_cluster(env: Environment, name: str, text: str) -> None:
    at = kubectl.place(env)
    there = kubectl.find(at, "secret", SECRET)
    kept = {key: old for key, old in _kept(there or {}).items() if name not in _SLOTS or key not in _SLOTS}
    data = {key: base64.b64encode(each.encode()).decode() for key, each in {**kept, name: text}.items()}
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": SECRET, "namespace": at.namespace, "labels": {kubectl.RECORD: env.project}},
        "data": data,
    }
    verb = "replace" if there else "create"
    kubectl.run(at, verb, "--filename=-", "--output=name", input=json.dumps(document))


def _put(env: Environment, name: str, text: str) -> None:
    if env.engine == KUBERNETES:
        _put_in_cluster(env, name, text)
        return
    content = tar.packed({name: text})
    argv = ("cp", "-", f"{name_of(env)}:{_FOLDER}")
    done = engine.docker(*argv, input=content, check=False)
    # Of a container that is not there, docker only says here that the destination is no folder.
    if not done.ok and not engine.inspect([name_of(env)]):
        _create(env)
        done = engine.docker(*argv, input=content, check=False)
    if not done.ok:
        raise engine.failure(done)


def remove(env: Environment) -> None:
    """Forget everything about an environment."""
    if env.engine == KUBERNETES:
        kubectl.delete(kubectl.place(env), "secret", SECRET)
        return
    name = name_of(env)
    for line in (("rm", "--force", name), ("volume", "rm", "--force", name), ("rmi", "--force", name)):
        engine.docker(*line, check=False)


def _create(env: Environment) -> None:
    """Make the container, and the volume unless it is there. The image is empty, so nothing has to be pulled."""
    name = name_of(env)
    if not engine.inspect([name], "image"):
        engine.docker("import", "-", name, input=tar.packed({".empty": ""}))
    engine.docker("volume", "create", "--label", f"com.docker.compose.project={env.project}", name)
    engine.docker(
        *("create", "--name", name, "--label", f"ops.state={env.project}", "--network", "none"),
        *("--volume", f"{name}:{_FOLDER}", name, "never-started"),
    )
