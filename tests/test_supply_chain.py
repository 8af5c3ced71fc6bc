"""What a project takes from others is pinned: packages by hash, actions by commit, images by version."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import template
from tests.conftest import Bake


def locks(project: Path) -> list[Path]:
    """Files that pip installs from."""
    names = (path for path in template.files(project) if re.fullmatch(r"requirements[\w-]*\.(txt|lock)", path.name))
    return [project / path for path in names]


def entries(lock: Path) -> list[str]:
    """The requirements of a lock file, each with its hashes."""
    text = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]


def test_every_package_is_pinned_and_hashed(project: Path) -> None:
    found = {lock: entries(lock) for lock in locks(project)}
    assert {path.relative_to(project).as_posix() for path in found} >= {
        "requirements.txt",
        "requirements-dev.txt",
        "services/requirements.lock",
        "services/requirements-dev.lock",
    }
    loose = [
        f"{lock.relative_to(project)}: {line[:60]}"
        for lock, lines in found.items()
        for line in lines
        if not re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+ ", line) or " --hash=sha256:" not in line
    ]
    assert loose == []


def test_no_lock_names_an_index(project: Path) -> None:
    """A company's mirror must work unchanged, and nobody's must be written down."""
    assert [lock for lock in locks(project) if re.search(r"https?://|--index|--find-links", lock.read_text())] == []


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_the_lock_fits_what_is_wanted(project: Path, name: str) -> None:
    """Somebody who edits the .in file and forgets the lock is told here, not by a deploy."""
    wanted = (project / f"{name}.in").read_text(encoding="utf-8")
    pinned = {re.split(r"==", line)[0]: line.split()[0] for line in entries(project / f"{name}.txt")}
    for line in wanted.splitlines():
        if requirement := re.match(r"([a-z][\w-]*)(==\S+)?", line):
            assert requirement[1] in pinned, f"{requirement[1]} is not in {name}.txt"
            if requirement[2]:
                assert pinned[requirement[1]] == requirement[0]


def test_what_the_tests_install_is_what_the_commands_install(project: Path) -> None:
    development = set(entries(project / "requirements-dev.txt"))
    assert set(entries(project / "requirements.txt")) <= development


def workflow(bake: Bake) -> Path:
    return bake(ci="github") / ".github" / "workflows" / "ci.yml"


def test_actions_are_pinned_by_commit(bake: Bake) -> None:
    lines = re.findall(r"uses: (\S+)(.*)", workflow(bake).read_text(encoding="utf-8"))
    assert lines
    assert [line for line in lines if not re.fullmatch(r"[\w/.-]+@[0-9a-f]{40}", line[0])] == []
    assert [line for line in lines if not re.fullmatch(r" # v\d+\.\d+\.\d+", line[1])] == []


def test_jobs_have_no_right_that_they_do_not_use(bake: Bake) -> None:
    document = yaml.safe_load(workflow(bake).read_text(encoding="utf-8"))
    assert document["permissions"] == {}
    rights = {name: job["permissions"] for name, job in document["jobs"].items()}
    writing = {name: right for name, right in rights.items() if set(right.values()) - {"read"}}
    assert writing == {"publish": {"contents": "read", "packages": "write", "id-token": "write"}}
    checkouts = [
        step
        for job in document["jobs"].values()
        for step in job["steps"]
        if step.get("uses", "").startswith("actions/checkout@")
    ]
    assert checkouts
    assert [step for step in checkouts if step.get("with", {}).get("persist-credentials") is not False] == []


def test_what_publishes_and_deploys_is_off_until_it_is_wanted(bake: Bake) -> None:
    jobs = yaml.safe_load(workflow(bake).read_text(encoding="utf-8"))["jobs"]
    for name, setting in {"publish": "vars.PUBLISH_IMAGES == 'true'", "deploy": "vars.DEPLOY_HOST != ''"}.items():
        assert setting in jobs[name]["if"] and "github.event_name == 'push'" in jobs[name]["if"]
    pipeline = yaml.safe_load((bake(ci="gitlab") / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    for name, setting in {"publish": '$PUBLISH_IMAGES == "true"', "deploy": "$DEPLOY_HOST"}.items():
        assert [rule["if"] for rule in pipeline[name]["rules"]] == [
            f"$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH && {setting}"
        ]


def test_ci_installs_from_locks_alone(bake: Bake) -> None:
    for ci, path in {"github": ".github/workflows/ci.yml", "gitlab": ".gitlab-ci.yml"}.items():
        text = (bake(ci=ci) / path).read_text(encoding="utf-8")
        installs = re.findall(r"pip install (.*)", text)
        assert len(installs) >= 3
        assert [line for line in installs if not re.fullmatch(r"--quiet --require-hashes -r \S+", line)] == []
        assert ":latest" not in text


def test_the_workflow_passes_its_auditor(bake: Bake) -> None:
    program = shutil.which("zizmor", path=str(Path(sys.executable).parent)) or shutil.which("zizmor")
    if program is None:
        pytest.skip("zizmor is not installed")
    command = [program, "--offline", "--no-config", "."]
    done = subprocess.run(command, cwd=workflow(bake).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "completed ./.github/workflows/ci.yml" in done.stdout + done.stderr


def test_renovate_finds_every_image(project: Path) -> None:
    """An image of a setting that it does not find is an image that nobody updates."""
    settings = json.loads((project / "renovate.json").read_text(encoding="utf-8"))
    [manager] = settings["customManagers"]
    [pattern] = manager["managerFilePatterns"]
    expression = re.compile(manager["matchStrings"][0].replace("(?<", "(?P<"))
    for environment in template.ENVIRONMENTS:
        path = f"config/{environment}/.env"
        assert re.search(pattern.strip("/"), path)
        text = (project / path).read_text(encoding="utf-8")
        images = re.findall(r"^(\w+_IMAGE)=(.*)$", text, flags=re.MULTILINE)
        assert len(images) >= 18
        for name, image in images:
            found = expression.search(f"{name}={image}\n")
            assert found and f"{found['depName']}:{found['currentValue']}" == image.removeprefix("${REGISTRY_MIRROR}")
    found = expression.search(f"POSTGRES_IMAGE=${{REGISTRY_MIRROR}}postgres:18.6@sha256:{'a' * 64}\n")
    assert found and found["currentDigest"] == f"sha256:{'a' * 64}" and found["currentValue"] == "18.6"


def test_every_image_has_a_version(project: Path) -> None:
    for environment in template.ENVIRONMENTS:
        text = (project / "config" / environment / ".env").read_text(encoding="utf-8")
        for name, tag in re.findall(r"^(\w+_IMAGE)=.*:([^:\n]+)$", text, flags=re.MULTILINE):
            assert re.search(r"\d+\.\d+", tag), f"{environment}: {name} has the tag {tag}"


@pytest.mark.parametrize("answers", template.product(), ids=lambda answers: "-".join(answers.values()))
def test_updates_are_proposed(bake: Bake, answers: dict[str, str]) -> None:
    project = bake(**answers)
    assert (project / "renovate.json").is_file()
    assert (project / ".github" / "dependabot.yml").exists() == (answers["ci"] == "github")
