"""Provide container images on a machine where perhaps no registry answers.

For every image reference, in this order: it is on disk and stays; it can be pulled; the folder of this directory that
bears the repository's last name (`axllent/mailpit` -> `mailpit/`) builds a drop-in with exactly that name and tag; it
is unavailable. What a drop-in holds is compared with what its tag says: another release needs an entry in ACCEPTED.

Runs as a program (`python3 tests/images/build.py postgres:18.6 …`) and as a module (`tests.images.build.provide`).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
SUITE = "forky"
BASE = f"enterprise-stack/base:{SUITE}"
LABEL = "enterprise-stack.drop-in"
SOURCE_LABEL = f"{LABEL}.source"
VERSION_FILE = "/etc/drop-in-version"
PULL_ANSWER_SECONDS = 20
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
NO_REGISTRY = (
    "no such host",
    "i/o timeout",
    "connection refused",
    "network is unreachable",
    "no route to host",
    "temporary failure in name resolution",
    "server misbehaving",
    "context deadline exceeded",
    "request canceled while waiting for connection",
    "x509:",
    "proxyconnect",
    "did not answer",
)

# Drop-ins that may hold another release than their tag says: which one, and why. Any other needs a new look.
ACCEPTED = {
    ("mailpit", "1.4"): "not Mailpit: a small program with its ports and a part of its API",
    ("postgres-exporter", "0.19"): "the module proxy does not serve 0.20; Debian's",
    ("redis", "8.0"): "newer ones are in no package registry; Debian's. Nothing newer than 8.0 is used",
    ("redis_exporter", "1.86"): "the module proxy does not serve 1.90; Debian's",
}

Say = Callable[[str], None]


class BuildError(Exception):
    """An image could not be built; the text says which step failed and how."""


@dataclass
class Result:
    """What became of each image; `built` and `present` drop-ins carry the real version, `unavailable` the reason."""

    present: list[str] = field(default_factory=list)
    pulled: list[str] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    drop_ins: dict[str, str] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)
    """Drop-ins that hold another release than is pinned, with nothing in ACCEPTED for it, and what is to be done."""

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (image, state, note) for every image, sorted by name."""
        states = {"present": self.present, "pulled": self.pulled, "built": self.built}
        rows = [(image, state, self._note(image)) for state, images in states.items() for image in images]
        return sorted(rows + [(image, "unavailable", reason) for image, reason in self.unavailable.items()])

    def _note(self, image: str) -> str:
        if image not in self.drop_ins:
            return ""
        if self.drop_ins[image] == pinned(image):
            return f"drop-in, holds {self.drop_ins[image]}"
        reason = self.other.get(image) or accepted(image, self.drop_ins[image]) or "a patch release apart"
        return f"drop-in, pinned {pinned(image)} ≠ inside {self.drop_ins[image]}: {reason}"


def provide(
    images: Iterable[str],
    *,
    parallel: int = 2,
    pull: bool = True,
    say: Say = print,
    prepare: Callable[[], None] = lambda: None,
) -> Result:
    """Make every image available on the local engine as far as that goes, and tell what became of each.

    prepare: called before the base image is built; a chance to install what that takes (debootstrap).
    """
    result = Result()
    to_build: list[str] = []
    registry_answers = pull
    for image in dict.fromkeys(images):
        folder = build_folder(image)
        source = image_label(image, SOURCE_LABEL)
        if source is not None and (source == "" or folder is None or source == source_hash(folder)):
            result.present.append(image)
            continue
        error = pull_image(image) if registry_answers else "no registry answers"
        if error is None:
            say(f"{image}: pulled")
            result.pulled.append(image)
            continue
        if registry_answers and says_no_registry(error):
            say(f"no registry can be reached ({error}): drop-ins are built instead")
            registry_answers = False
        if folder is None:
            result.unavailable[image] = f"cannot be pulled ({error}) and there is no drop-in for it"
        else:
            to_build.append(image)
    build_all(to_build, result, parallel, say, prepare)
    for image in result.present + result.built:
        # an image built on a drop-in inherits its labels but is none
        if build_folder(image) and (version := image_label(image, LABEL)):
            result.drop_ins[image] = version
            if not same_release(pinned(image), version) and not accepted(image, version):
                result.other[image] = "build the pinned one, change the pin, or enter the reason in ACCEPTED"
    return result


def build_all(images: Sequence[str], result: Result, parallel: int, say: Say, prepare: Callable[[], None]) -> None:
    """Build the drop-ins of `images` and enter each into `result` as built or unavailable."""
    if not images:
        return
    try:
        ensure_base(say, prepare)
    except BuildError as error:
        result.unavailable.update(dict.fromkeys(images, str(error)))
        return
    # What is compiled takes minutes, the rest seconds: last, it would be waited for alone.
    ordered = sorted(images, key=lambda image: not compiled(image))
    with ThreadPoolExecutor(max_workers=parallel) as pool:
        jobs = {image: pool.submit(build_image, image, say) for image in ordered}
    for image, job in jobs.items():
        error = job.exception()
        if error is None:
            result.built.append(image)
        elif isinstance(error, BuildError):
            result.unavailable[image] = str(error)
        else:
            raise error


def ensure_base(say: Say, prepare: Callable[[], None]) -> None:
    """Create the Debian base image of all drop-ins, unless the present one comes from the same source.

    Raises BuildError when debootstrap or the import fails.
    """
    source = source_hash(HERE / "base")
    if image_label(BASE, SOURCE_LABEL) == source:
        return
    prepare()
    say(f"{BASE}: building from Debian packages")
    make = [HERE / "base" / "make.sh", SUITE]
    label = f"LABEL {SOURCE_LABEL}={source}"
    load = ["docker", "import", "--change", label, "--change", 'CMD ["bash"]', "-", BASE]
    with tempfile.TemporaryFile("w+") as log:
        with subprocess.Popen(make, stdout=subprocess.PIPE, stderr=log) as archive:
            imported = subprocess.run(load, stdin=archive.stdout, capture_output=True, text=True)
        log.seek(0)
        errors = log.read()
    if archive.returncode:
        remove_image(BASE)
        raise BuildError(f"base image: debootstrap failed (it needs root and the debootstrap package): {tail(errors)}")
    if imported.returncode:
        raise BuildError(f"base image: docker import failed: {tail(imported.stderr)}")


def build_image(image: str, say: Say) -> None:
    """Build the drop-in for `image` under exactly that name, labelled with the real version inside.

    Raises BuildError when a step fails.
    """
    folder = build_folder(image)
    if folder is None:
        raise BuildError(f"{image}: there is no drop-in for it in {HERE}")
    say(f"{image}: building a drop-in from {folder.name}/")
    started = time.monotonic()
    unlabelled = f"enterprise-stack/drop-in:{folder.name}-{image.rpartition(':')[2]}"
    secret = ["--secret", f"id=ca,src={bundle}"] if (bundle := ca_bundle()) else []
    tag = f"TAG={image.rpartition(':')[2]}"
    docker(["build", "--progress", "plain", "--build-arg", tag, *secret, "--tag", unlabelled, str(folder)])
    version = docker(["run", "--rm", "--network", "none", "--entrypoint", "cat", unlabelled, VERSION_FILE]).strip()
    labels = ["--label", f"{LABEL}={version}", "--label", f"{SOURCE_LABEL}={source_hash(folder)}"]
    docker(["build", *labels, "--tag", image, "-"], stdin=f"FROM {unlabelled}\n")
    remove_image(unlabelled)
    say(f"{image}: drop-in built in {time.monotonic() - started:.0f} s, holds {version}")


def build_folder(image: str) -> Path | None:
    """Return the folder that builds a drop-in for `image`, or None when there is none."""
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    folder = HERE / name
    return folder if (folder / "Dockerfile").is_file() else None


def compiled(image: str) -> bool:
    """Whether the drop-in for `image` is compiled from Go sources, and not put together from packages."""
    folder = build_folder(image)
    return folder is not None and (folder / "go.sum").is_file()


def pinned(image: str) -> str:
    """Return the version that the tag of an image says: 1.90.0 for `v1.90.0-alpine`; "" when it says none."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", image.partition("@")[0].rpartition("/")[2].partition(":")[2])
    return match[1] if match else ""


def same_release(wanted: str, inside: str) -> bool:
    """Tell whether two versions differ in their last number at most, the patch: 18.6 and 18.7, 3.14.7 and 3.14.8."""
    numbers = re.findall(r"\d+", wanted)
    release = numbers[: max(1, len(numbers) - 1)]
    return re.findall(r"\d+", inside)[: len(release)] == release


def accepted(image: str, inside: str) -> str | None:
    """Return why a drop-in may hold another release than its tag says, or None."""
    folder = build_folder(image)
    for (name, version), reason in ACCEPTED.items():
        if folder and folder.name == name and re.search(rf"(^|\D){re.escape(version)}(\D|$)", inside):
            return reason
    return None


def source_hash(folder: Path) -> str:
    """Return a hash of everything an image is built from: its folder and the base's, with execute bits."""
    digest = hashlib.sha256()
    for root in dict.fromkeys([HERE / "base", folder]):
        for path in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            executable = bool(path.stat().st_mode & 0o100)
            digest.update(f"{path.relative_to(HERE)}\0{executable}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def image_label(image: str, label: str) -> str | None:
    """Return the value of a label ("" when it has none), or None when the image is not on disk."""
    template = f'{{{{with .Config}}}}{{{{with .Labels}}}}{{{{index . "{label}"}}}}{{{{end}}}}{{{{end}}}}'
    command = ["docker", "image", "inspect", "--format", template, image]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def pull_image(image: str) -> str | None:
    """Try to pull once; return None, or the reason it failed. Gives up early on a registry that stays silent."""
    command = ["docker", "pull", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        answered, _, _ = select.select([process.stdout], [], [], PULL_ANSWER_SECONDS)
        if not answered:
            process.terminate()
            return f"the registry did not answer within {PULL_ANSWER_SECONDS} s"
        output = process.stdout.read()
    return None if process.returncode == 0 else tail(output, lines=1)


def says_no_registry(error: str) -> bool:
    """Tell whether a failed pull means that no registry can be reached, rather than that this image is missing."""
    return any(sign in error.lower() for sign in NO_REGISTRY)


def ca_bundle() -> Path | None:
    """Return the machine's CA bundle, which builds need where TLS to package registries is signed anew."""
    bundle = Path(os.environ.get("SSL_CERT_FILE") or CA_BUNDLE)
    return bundle if bundle.is_file() else None


def docker(arguments: Sequence[str], stdin: str | None = None) -> str:
    """Run docker and return its standard output. Raises BuildError with the last lines when it fails."""
    command = ["docker", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"docker {arguments[0]} failed: {tail(failed_step(done.stderr))}")
    return done.stdout


def failed_step(output: str) -> str:
    """Return the part of BuildKit's output that shows the step that failed, or all of it when there is no such part."""
    before, mark, after = output.partition("\n------\n > [")
    return after.partition("\n------\n")[0] if mark else before


def remove_image(image: str) -> None:
    """Drop a name of an image, if it is there."""
    subprocess.run(["docker", "image", "rm", image], capture_output=True)


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of a program's output, the part that tells why it failed."""
    return "\n".join(text.strip().splitlines()[-lines:])


def main(arguments: Sequence[str] | None = None) -> int:
    """Provide the images named on the command line, print a table and return the exit code."""
    parser = argparse.ArgumentParser(description="Pull images, or build drop-ins for those that cannot be pulled.")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="e.g. postgres:18.6 redis:8.2.9")
    parser.add_argument("--allow-missing", action="store_true", help="exit 0 even when an image is unavailable")
    parser.add_argument("--no-pull", action="store_true", help="do not try any registry")
    parser.add_argument("--parallel", type=int, default=2, metavar="N", help="builds at the same time (default 2)")
    options = parser.parse_args(arguments)
    result = provide(options.images, parallel=options.parallel, pull=not options.no_pull)
    rows = result.rows()
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for image, state, note in rows:
        print(f"{image:<{widths[0]}}  {state:<{widths[1]}}  {note}")
    return 1 if result.other or (result.unavailable and not options.allow_missing) else 0


if __name__ == "__main__":
    sys.exit(main())
