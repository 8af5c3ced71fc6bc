"""From a clone to a running stack, as the README promises: bake, provide images, deploy, show."""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests import machine, template
from tests.images import build

ENV_FILE = Path("config", "dev", ".env")
# Held by whoever makes images: the ladder begins in the background, and waits for that before it uses them.
LOCK = template.ROOT / "build" / "images.lock"

# Which setting takes a tier out, by the beginning of its profile; the first that fits.
SWITCHES = {
    "kibana": "DASHBOARDS_ENABLED",
    "dashboards": "DASHBOARDS_ENABLED",
    "logging": "LOGGING_ENABLED",
    "monitoring": "MONITORING_ENABLED",
}


def bake(folder: Path, answers: dict[str, str]) -> None:
    """Make the project, unless it is there: a second quickstart finds the first one's secrets and data."""
    if (folder / ENV_FILE).is_file():
        print(f"{folder} is there and stays as it is")
        return
    answers.setdefault("project", folder.name)
    template.bake(folder.parent, **answers)


def model(folder: Path, *options: str, env_file: Path = ENV_FILE) -> dict[str, Any]:
    """What Compose resolves for an environment with the profiles that are on."""
    command = ["docker", "compose", "--env-file", str(env_file), *options, "config", "--format", "json"]
    return json.loads(subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout)


def images(services: dict[str, Any]) -> dict[str, str]:
    """The images that somebody else provides, each with the profile that asks for it ("" for what always runs)."""
    wanted = {}
    for service in services.values():
        arguments = service["build"]["args"] if "build" in service else {"_IMAGE": service["image"]}
        profile = next(iter(service.get("profiles", [])), "")
        for image in (value for name, value in arguments.items() if name.endswith("_IMAGE")):
            wanted[image] = min(wanted.get(image, profile), profile)
    return wanted


def switch_off(folder: Path, setting: str) -> None:
    """Set a switch of dev to false, where its owner sees it and can turn it on again."""
    path = folder / ENV_FILE
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(f"\n{setting}=true\n", f"\n{setting}=false\n"), encoding="utf-8")


def provide(wanted: Iterable[str]) -> build.Result:
    """Pull or build images; what building takes is installed first. Ends with a sentence where it cannot be."""
    LOCK.parent.mkdir(exist_ok=True)
    try:
        with LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            result = build.provide(wanted, prepare=lambda: machine.install("debootstrap"))
    except machine.bootstrap().BootstrapError as error:
        raise SystemExit(f"No registry answers, and stand-ins cannot be built: {error}") from None
    for image, state, note in result.rows():
        print(f"{image}  {state}  {note}")
    if result.other:
        raise SystemExit(f"Stand-ins hold another release than is pinned: {', '.join(result.other)} (see above).")
    return result


def provide_images(folder: Path) -> None:
    """Pull or build every image, and leave out the tiers whose images cannot be had; without the rest it ends."""
    wanted = images(model(folder)["services"])
    for image, reason in provide(wanted).unavailable.items():
        setting = next((switch for start, switch in SWITCHES.items() if wanted[image].startswith(start)), None)
        if setting is None:
            raise SystemExit(f"{image} cannot be had ({reason}), and the stack does not run without it.")
        print(f"{image} cannot be had ({reason}): {setting}=false in {folder / ENV_FILE}")
        switch_off(folder, setting)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bake, prepare, deploy, show; the exit code is that of the first step that failed."""
    sys.stdout.reconfigure(line_buffering=True)  # what we say stays in order with what the commands say
    parser = argparse.ArgumentParser(prog="quickstart", description="Bake a project and deploy its dev environment.")
    parser.add_argument(
        "--output", type=Path, default=template.ROOT / "build" / "acme-stack", help="default: build/acme-stack"
    )
    parser.add_argument("--images-of", type=Path, metavar="PROJECT", help="only provide the images of this project")
    parser.add_argument("answers", nargs="*", metavar="question=answer")
    options = parser.parse_args(arguments)
    if wrong := [answer for answer in options.answers if "=" not in answer]:
        parser.error(f"{wrong[0]!r} is no question=answer")
    if options.images_of:
        files = sorted(path.relative_to(options.images_of) for path in options.images_of.glob("config/*/.env"))
        models = [model(options.images_of, "--profile", "*", env_file=file)["services"] for file in files]
        provide({image: None for services in models for image in images(services)})
        return 0
    folder: Path = options.output.resolve()
    folder.parent.mkdir(parents=True, exist_ok=True)
    bake(folder, dict(answer.split("=", 1) for answer in options.answers))
    provide_images(folder)
    invoke = folder / ".venv" / "bin" / "invoke"
    for command in ([sys.executable, "scripts/bootstrap.py", "--yes"], [invoke, "deploy"], [invoke, "health"]):
        if code := subprocess.run(command, cwd=folder).returncode:
            return code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
