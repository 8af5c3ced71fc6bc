"""`invoke service-add`: a new service, or an existing image, as an entry of docker-compose.services.yml.

Everything is decided and checked before the first file is written; then the folder and the entry come in one step each.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

from ops.adopt import backed_up, check, clients, composefile, entry, skeletons
from ops.adopt.check import BACKED_UP, CLIENTS, FILE, refuse_unless
from ops.adopt.entry import DOCKERFILE, IMAGE, KINDS, MADE, PYTHON, Wanted
from ops.base import console
from ops.base.environments import Environment
from ops.stack import labels
from ops.stack.model import Stack

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# `<project>-staging-NAME-10` is a host name, and a role in PostgreSQL has room for 30.
_LONGEST = 30
# Folders of services/, and names that mean something else there; and what nginx and HAProxy call their own.
_RESERVED = {"stack", "common", "tests", "migrate", "services", *labels.RESERVED}
_PATH = re.compile(r"(/[a-z0-9._~-]+)+")
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
_MOUNT = re.compile(r"(/[A-Za-z0-9._-]+)+")
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]*|\$\{[A-Z0-9_]+[^{}]*\}")


def add(env: Environment, wanted: Wanted) -> None:
    """Add a service. Raises OpsError (USAGE) when something about it cannot be meant, or is there already; then
    nothing was written."""
    wanted = entry.completed(wanted)
    refuse(wanted, env.project_dir)
    texts = check.texts_of(env.project_dir)
    before = check.edited(env, texts)
    added = [wanted.name, *([wanted.migrations] if wanted.migrations else [])]
    _refuse_taken(before, added)
    changed = {FILE: entry.put(texts[FILE], wanted, _secrets_elsewhere(before))}
    if wanted.volume and BACKED_UP in texts:
        changed[BACKED_UP] = backed_up.put(texts[BACKED_UP], wanted.volume_name)
    if wanted.stored and CLIENTS in texts:
        changed[CLIENTS] = clients.put(texts[CLIENTS], added)
    after = check.edited(env, texts | changed)
    check.compare(before, after, [*added, *([backed_up.SERVICE] if BACKED_UP in changed else [])])
    files = skeletons.files(wanted, env.project_dir)
    if wanted.queue:
        files["rabbitmq.json"] = skeletons.definitions(wanted)
    _write(env.project_dir, wanted, files, changed)
    _say(env, wanted, files, added, changed)


def refuse(wanted: Wanted, project: Path) -> None:
    """Raise OpsError (USAGE) for a wish that cannot be meant. Looks at no engine."""
    name, kind = wanted.name, wanted.kind
    refuse_unless(
        bool(_NAME.fullmatch(name)) and len(name) <= _LONGEST and name not in _RESERVED,
        f'"{name}" cannot be the name of a service.',
        f"Use up to {_LONGEST} characters of a-z, 0-9 and single hyphens, a letter first: shop, price-list."
        f" Reserved: {', '.join(sorted(_RESERVED))}.",
    )
    taken = _parts(project).get(name)
    refuse_unless(
        not taken,
        f'"{name}" cannot be the name of a service: {taken} has one of that name.',
        f"Choose another, such as {name}-service. It is taken also where COMPOSE_FILE does not name that file.",
    )
    refuse_unless(kind in KINDS, f'A service cannot be made from "{kind}".', f"Use: {', '.join(KINDS)}.")
    if kind == PYTHON:
        refuse_unless(
            wanted.module not in _modules(project),
            f'"{name}" cannot be the name of a Python service: a module of that name is there already.',
            f"Choose another, such as {name}-service.",
        )
    refuse_unless(
        bool(wanted.image) == (kind == IMAGE) and (not wanted.image or bool(_IMAGE.fullmatch(wanted.image))),
        f'--image is "{wanted.image}"; with --from image it must be a reference, otherwise it must not be there.',
        "For example: --from image --image ghcr.io/acme/shop:1.4.2",
    )
    refuse_unless(
        wanted.route in ("", "/") or bool(_PATH.fullmatch(wanted.route)),
        f'--route "{wanted.route}" is not a path of the site.',
        "For example: --route /shop. For a whole host name: --host shop.example.com",
    )
    refuse_unless(
        not wanted.host or bool(_HOST.fullmatch(wanted.host)),
        f'--host "{wanted.host}" is not a host name.',
        "For example: --host shop.example.com, without https:// and a path.",
    )
    refuse_unless(0 <= wanted.port < 65536, f"--port {wanted.port} is not a port.", "Use a number from 1 to 65535.")
    refuse_unless(
        wanted.kind in MADE or not wanted.serves or bool(wanted.port),
        "The port is missing on which the service takes requests.",
        "For example: --port 3000",
    )
    refuse_unless(
        not (wanted.ends and (wanted.serves or wanted.port)),
        "A job takes no requests: it runs to its end.",
        "Leave out --route, --host, --internal and --port, or --job and --schedule.",
    )
    refuse_unless(not (wanted.job and wanted.schedule), "--job and --schedule exclude each other.", "Use one of them.")
    refuse_unless('"' not in wanted.schedule, f"--schedule {wanted.schedule} is not a schedule.", 'Use "0 3 * * *".')
    refuse_unless(
        not (wanted.schema and wanted.database), "--schema and --database exclude each other.", "Use one of them."
    )
    refuse_unless(
        not wanted.volume or bool(_MOUNT.fullmatch(wanted.volume)),
        f'--volume "{wanted.volume}" is not a path in the container.',
        "For example: --volume /data",
    )
    refuse_unless(
        kind != PYTHON or wanted.volume in ("", skeletons.DATA),
        f"A Python service keeps its files in {skeletons.DATA}: services/Dockerfile makes that folder for its user.",
        f"Use --volume {skeletons.DATA}",
    )
    folder = project / wanted.folder
    if kind == DOCKERFILE:
        refuse_unless(
            (folder / "Dockerfile").is_file(),
            f"There is no {wanted.folder}/Dockerfile.",
            "Put your source there first; the entry in the Compose file is what this command writes.",
        )
    elif kind in MADE:
        refuse_unless(not folder.exists(), f"{wanted.folder} exists already.", "Choose another name, or remove it.")


def _parts(project: Path) -> dict[str, str]:
    """The file of each part of the stack, whether an environment has it or not: the commands know parts by name."""
    files = [path for path in sorted(project.glob("docker-compose*.yml")) if path.name not in (FILE, CLIENTS)]
    return {name: path.name for path in files for name in composefile.names(path.read_text("utf-8"), "services")}


def _modules(project: Path) -> set[str]:
    """Names that a package of a service must not have: the image has modules of that name."""
    lock = project / "services/requirements.lock"
    packages = re.findall(r"^([A-Za-z0-9_.-]+)==", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return {*sys.stdlib_module_names, *(each.replace("-", "_").lower() for each in packages), "psycopg_pool", "jwt"}


def _refuse_taken(before: dict[str, Stack], added: list[str]) -> None:
    for name in added:
        for environment, stack in before.items():
            refuse_unless(
                name not in stack.document["services"],
                f"There is a service {name} already ({environment}).",
                "Choose another name.",
            )


def _secrets_elsewhere(before: dict[str, Stack]) -> set[str]:
    return {name for stack in before.values() for name in stack.document.get("secrets") or {}}


def _write(project: Path, wanted: Wanted, files: dict[str, str], texts: dict[str, str]) -> None:
    """Write all or nothing: the folder comes complete, and goes again when the entry cannot be written."""
    folder = project / wanted.folder
    made = bool(files) and not folder.exists()
    if made:
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as temporary:
            staged = Path(temporary) / folder.name
            _write_files(staged, files)
            staged.rename(folder)
    elif files:
        _write_files(folder, files)
    try:
        check.write(project, texts)
    except BaseException:
        if made:
            shutil.rmtree(folder)
        raise


def _write_files(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _say(env: Environment, wanted: Wanted, files: dict[str, str], added: list[str], changed: Collection[str]) -> None:
    if files:
        console.say(f"wrote {wanted.folder}/: {', '.join(sorted(files))}")
    console.say(f"wrote {FILE}: {' and '.join(added)}")
    if BACKED_UP in changed:
        console.say(f"wrote {BACKED_UP}: {wanted.volume_name}")
    if CLIENTS in changed:
        console.say(f"wrote {CLIENTS}: {' and '.join(added)}")
    if wanted.stored or wanted.queue or wanted.cache:
        console.say("\nIts passwords are still to be made, in each environment:")
        console.say(f"  invoke secret-init --env {env.name}")
    console.say("\nNext:")
    console.say(f"  invoke deploy --env {env.name}")
    if wanted.ends:
        console.say(f"  invoke run {wanted.name} --env {env.name}")
