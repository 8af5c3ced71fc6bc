"""The ladder of tests, cheap to dear: `nox` climbs it, `nox --list` names the rungs, `nox -s RUNG` runs one.

On a machine that has nothing yet: `python3 noxfile.py --yes tests`, or `quickstart`.
"""

# No __future__ import: Python 3.6 must be able to read this file, so that it can say that it is too old.

import os
import shutil
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a program: make an environment that has nox, and start over inside it.
    if sys.version_info < (3, 11):  # noqa: UP036
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        sys.exit(f"noxfile: Python {found} is too old, 3.11 or newer is needed: run python3.11 {sys.argv[0]}")
    from tests.machine import main

    sys.exit(main())

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests import machine  # noqa: E402  (nox loads this file from anywhere, its folder is not on the path)

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True

ROOT = Path(__file__).parent
PROJECT = ROOT / machine.BOOTSTRAP.parents[1].name
# Two modules at a time: each bakes its own projects, so what shares one stays together.
SIDE_BY_SIDE = ("-n", "2", "--dist", "loadfile")
# What was measured in this run; a rung that did not run is not reported.
measured: list[str] = []


def python(session: nox.Session, *requirements: Path) -> str:
    """The Python of `.venv`, up to date. Shared: making an environment would take longer than most rungs."""
    program = str(machine.python())
    for file in requirements:
        session.run(program, "-m", "pip", "install", "--quiet", "-r", str(file), external=True)
    return program


def pytest(session: nox.Session, program: str, *arguments: str, part: str = "") -> None:
    """Run pytest and keep how long each test took. part: of a rung that runs it more than once."""
    rung = f"{session.name}{f'-{part}' if part else ''}"
    report = ROOT / "build" / "times" / f"{rung}.xml"
    measured.append(rung)
    session.run(
        *(program, "-m", "pytest", f"--junitxml={report}", *arguments, *session.posargs),
        external=True,
        # No caches in the template's tree: what lies there would be baked.
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        # 5: what was asked for by name is in another part.
        success_codes=[0, 5] if session.posargs and part else [0],
    )


def provide_images(session: nox.Session, program: str) -> None:
    """Pull or build the images of every environment. Waits for one that was begun in the background."""
    session.run(program, "-m", "tests.quickstart", "--images-of", str(baked(session, program)), external=True)


def baked(session: nox.Session, program: str, services: str = "example") -> Path:
    """A project of the default answers but one, from the files that a clone would have."""
    # Not session.create_tmp(): it moves TMPDIR too, so that a rung would run in another place alone than in the ladder.
    output = ROOT / "build" / "bakes" / session.name / services
    shutil.rmtree(output, ignore_errors=True)
    answer = f"services={services}"
    session.run(program, "-m", "tests.template", str(output), answer, external=True, silent=True)
    return next(path for path in output.iterdir() if path.is_dir())


def need_compose(session: nox.Session) -> None:
    """Skip without the client and its plugin; configurations are resolved without an engine."""
    if not shutil.which("docker") or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        session.skip("no docker client with Compose: `python3 noxfile.py` offers to install it")


def need_engine(session: nox.Session) -> None:
    """Skip without an engine that answers."""
    need_compose(session)
    answer = subprocess.run(["docker", "info"], capture_output=True, text=True)
    if answer.returncode:
        session.skip("no Docker engine answers: `python3 noxfile.py` offers to install or start one")


def begin_images(session: nox.Session, program: str) -> None:
    """In a run of the whole ladder: let the images be made beside the rungs that need none.

    Nobody waits for it here. The first rung that needs the images does, and says what became of them.
    """
    if machine.LADDER in os.environ and shutil.which("docker"):
        command = [program, "-m", "tests.quickstart", "--images-of", str(baked(session, program))]
        (ROOT / "build").mkdir(exist_ok=True)
        with (ROOT / "build" / "images.log").open("w") as log:
            subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def on_engine(session: nox.Session, program: str, *options: str) -> None:
    """Run tests with a stack: two at a time, for they mostly wait; then those that need the machine for themselves.

    The longest come first (tests/stack/conftest.py), and what runs on one stack stays together.
    """
    beside = ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder", "-m", "not alone")
    try:
        pytest(session, program, "tests/stack", *beside, *options, part="beside")
    finally:
        pytest(session, program, "tests/load", "tests/stack", "-m", "alone", *options, part="alone")


@nox.session(venv_backend="none")
def bake(session: nox.Session) -> None:
    """Bake every combination of answers, refuse the bad ones, test the hooks and the tests' own programs."""
    program = python(session)
    begin_images(session, program)
    modules = (
        "test_bake",
        "test_answers",
        "test_hooks",
        "test_machine",
        "test_ports",
        "test_supply_chain",
        "test_times",
        "test_mutants",
    )
    parts = ("tests/images", "tests/cluster/test_programs.py")
    pytest(session, program, *(f"tests/{name}.py" for name in modules), *parts, *SIDE_BY_SIDE)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Lint the template, and what comes out of it."""
    # Types are checked against the versions that run, so what the services are locked to has to be there.
    program = python(session, PROJECT / "services" / "requirements.lock", PROJECT / "requirements.txt")
    pytest(session, program, "tests/test_lint.py", "tests/test_docs.py", "tests/test_metrics.py")


@nox.session(venv_backend="none")
def config(session: nox.Session) -> None:
    """Resolve every environment with Compose, and let the policy, and an API server, judge what comes out."""
    need_compose(session)
    # A service that is added is linted and tested as its owner would.
    program = python(session, PROJECT / "services" / "requirements.lock", PROJECT / "requirements.txt")
    longest = ("test_adopting", "cluster/test_admission", "test_hello", "test_own_services")
    modules = (*longest, "test_export", "test_policy")
    pytest(session, program, *(f"tests/{name}.py" for name in modules), *SIDE_BY_SIDE)


@nox.session(venv_backend="none")
def standin(session: nox.Session) -> None:
    """Run the commands beside a stand-in for docker that fails, hangs, is cut off or is another version."""
    need_compose(session)
    pytest(session, python(session, PROJECT / "requirements.txt"), "tests/standin", "-n", "2")


@nox.session(reuse_venv=True)
def unit(session: nox.Session) -> None:
    """Run the tests of the commands and of the services, inside a bake and without Docker."""
    program = python(session)
    project = baked(session, program)
    without_examples = baked(session, program, "hello")
    # An environment of their own: the services' lock file decides there, not what the other rungs need. In steps,
    # because pip wants hashes for all or for none.
    session.install("--quiet", "-r", str(project / "services" / "requirements-dev.lock"))
    session.install("--quiet", "-r", str(project / "requirements.txt"))
    session.install("--quiet", "pytest-xdist>=3.8")
    for folder, suffix in ((project, ""), (without_examples, "-hello")):
        session.chdir(folder)
        pytest(session, "python", "ops/tests", "-n", "2", part=f"commands{suffix}")
        session.chdir(folder / "services")
        pytest(session, "python", "-n", "2", part=f"services{suffix}")


@nox.session(reuse_venv=True)
def update(session: nox.Session) -> None:
    """Let a project take the template's next version with cruft."""
    # An environment of its own: cruft's releases are rare and hold other packages back.
    session.install("--quiet", "cruft>=2.16", "pytest", "pyyaml", "python-dotenv")
    pytest(session, "python", "tests/test_update.py")


@nox.session(venv_backend="none")
def validators(session: nox.Session) -> None:
    """Let each tool judge its own configuration, in the image that will run it."""
    need_engine(session)
    program = python(session)
    provide_images(session, program)
    modules = ("test_edge", "test_start_scripts", "test_validators")
    pytest(session, program, *(f"tests/{name}.py" for name in modules), *SIDE_BY_SIDE)


@nox.session(venv_backend="none")
def stack(session: nox.Session) -> None:
    """Run the real stack on a real engine, driven by the generated commands as its owner drives it."""
    need_engine(session)
    program = python(session, PROJECT / "requirements.txt")
    provide_images(session, program)
    on_engine(session, program)


@nox.session(venv_backend="none")
def times(session: nox.Session) -> None:
    """Print the slowest tests of the rungs before it, and hold each module to its budget."""
    if not measured:
        session.skip("no rung ran before it")
    session.run(python(session), "-m", "tests.times", *measured, external=True)


@nox.session(venv_backend="none", default=False)
def faults(session: nox.Session) -> None:
    """Run the long faults, which are not part of the ladder: every way that was found for a stack to be hurt."""
    need_engine(session)
    program = python(session, PROJECT / "requirements.txt")
    provide_images(session, program)
    try:
        on_engine(session, program, "--faults")
    finally:
        session.run(program, "-m", "tests.faults", *measured, external=True)


@nox.session(venv_backend="none", default=False)
def repositories(session: nox.Session) -> None:
    """Run the tests of backups in their image, against a folder, an S3 server and an SFTP server: some minutes."""
    need_engine(session)
    program = python(session)
    provide_images(session, program)
    pytest(session, program, "tests/test_backup_image.py")


@nox.session(venv_backend="none", default=False)
def cluster(session: nox.Session) -> None:
    """Run prod on a real Kubernetes of three nodes on this machine, whose programs are built once: some minutes."""
    need_engine(session)
    program = python(session, PROJECT / "requirements.txt")
    built = subprocess.run([program, "-m", "tests.cluster", "build"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if built.returncode:
        session.skip(built.stderr.strip())
    provide_images(session, program)
    pytest(session, program, "tests/cluster")


@nox.session(venv_backend="none", default=False)
def mutants(session: nox.Session) -> None:
    """Change one thing in a module of ops/ at a time, and see whether its own tests fail: `-- MODULE…`."""
    program = python(session, PROJECT / "requirements.txt")
    session.run(program, "-m", "tests.mutants", *session.posargs, external=True)


@nox.session(venv_backend="none", default=False)
def bench(session: nox.Session) -> None:
    """Measure, with a control in the same run; not a test, and not part of the ladder."""
    program = python(session, PROJECT / "requirements.txt")
    for file in sorted((ROOT / "tests" / "bench").glob("[!_]*.py")):
        if not session.posargs or file.stem in session.posargs:
            session.run(program, "-m", f"tests.bench.{file.stem}", external=True)


@nox.session(venv_backend="none", default=False)
def quickstart(session: nox.Session) -> None:
    """Bake a project into build/acme-stack (or --output FOLDER) and deploy it on this machine."""
    need_engine(session)
    session.run(python(session), "-m", "tests.quickstart", *session.posargs, external=True)
