"""A project that was baked with `services` = hello or image: one service in the place of the examples."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests import compose, template
from tests import test_own_services as own
from tests import test_policy as policy
from tests.conftest import Bake
from tests.test_adopting import run
from tests.test_bake import contents

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

each_environment = pytest.mark.parametrize("environment", template.ENVIRONMENTS)
FILE = "docker-compose.services.yml"
# Settings that the examples are the first to read, and that what `service-add` writes reads as well.
FOR_NEW_SERVICES = {"DATABASE_HOSTS", "RABBITMQ_HOSTS", "REDIS_SENTINELS"}


@pytest.fixture(scope="module")
def hello(bake: Bake) -> Path:
    """The project. Not to be written into."""
    return bake(services="hello")


@pytest.fixture
def copy(hello: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(hello, tmp_path / hello.name, symlinks=True))


def variables(project: Path, environment: str) -> set[str]:
    """The names that Compose looks up for an environment."""
    done = compose.config(project, environment, "--profile", "*", "config", "--variables")
    assert done.returncode == 0, done.stderr
    return {line.split()[0] for line in done.stdout.splitlines()[1:]}


def test_only_the_services_differ(project: Path, hello: Path) -> None:
    """Whatever else the examples come to own goes with them, or this says so."""
    theirs, ours = contents(project), contents(hello)
    changed = {path for path in theirs.keys() & ours.keys() if theirs[path] != ours[path]}
    assert changed == {
        *(".cookiecutter.json", "README.md", FILE, "pyproject.toml", "services/pyproject.toml"),
        *("docker-compose.backup-volumes.yml", "docker-compose.postgres-clients.yml"),
        *(f"config/{environment}/.env" for environment in template.ENVIRONMENTS),
    }
    gone = {path for path in theirs.keys() - ours.keys() if path != "services/examples.md"}
    assert {path.split("/")[1] for path in gone} == {"api", "auth", "notification", "web"}
    assert {path.split("/")[1] for path in ours.keys() - theirs.keys()} == {"hello"}
    assert {path.name for path in (hello / "services").iterdir() if path.is_dir()} == {"common", "hello"}


def test_it_is_what_service_add_writes(hello: Path, copy: Path) -> None:
    """The hook and the command must not drift apart."""
    run(copy, "invoke service-remove hello --yes")
    shutil.rmtree(copy / "services/hello")
    assert "hello" not in (copy / FILE).read_text(encoding="utf-8")
    run(copy, "invoke service-add hello --from python --route /")
    assert without_bytecode(contents(copy)) == contents(hello)


def without_bytecode(found: dict[str, tuple[bytes, int]]) -> dict[str, tuple[bytes, int]]:
    return {path: each for path, each in found.items() if "__pycache__" not in path}


@each_environment
def test_settings_that_only_the_examples_read_are_gone(project: Path, hello: Path, environment: str) -> None:
    theirs, ours = (dotenv_values(folder / "config" / environment / ".env") for folder in (project, hello))
    unread = variables(project, environment) - variables(hello, environment)
    assert theirs.keys() - ours.keys() == unread - FOR_NEW_SERVICES
    assert ours.items() <= theirs.items()
    new = variables(hello, environment) - variables(project, environment)
    assert new == {"HELLO_REPLICAS", "HELLO_CPUS", "HELLO_MEMORY"}


@each_environment
def test_the_settings_still_read_well(hello: Path, environment: str) -> None:
    """No heading and no comment is left of what went."""
    text = (hello / "config" / environment / ".env").read_text(encoding="utf-8")
    for section in text.split("\n\n")[1:]:
        assert section.startswith("# ----")
        assert re.match(r"[A-Z][A-Z0-9_]*=", section.rstrip().splitlines()[-1]), section
    assert not re.search(r"\b(web|api|auth|auth-service|notification|notification-service)\b", text)


@each_environment
def test_it_resolves_without_a_warning(hello: Path, environment: str) -> None:
    done = compose.config(hello, environment, "--profile", "*", "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")


@each_environment
def test_it_keeps_to_the_policy(hello: Path, environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "OURS", {"hello"})
    model = compose.resolve(hello, environment)
    service = model["services"]["hello"]
    for check in (
        *(policy.test_limits, policy.test_logs_are_rotated_and_labelled),
        *(policy.test_mounted_scripts_need_no_execute_bit, policy.test_health_checks_ask_past_a_proxy),
        *(policy.test_no_secret_in_the_environment, policy.test_no_secret_on_the_command_line),
    ):
        check(service)
    for named in (
        *(policy.test_health_check, policy.test_restart_policy, policy.test_least_privilege),
        *(policy.test_nobody_holds_the_engine, policy.test_image_is_pinned, policy.test_secrets_folder_is_not_mounted),
        policy.test_files_of_the_host_are_read_only,
    ):
        named(service, "hello")
    policy.test_only_nginx_faces_the_world(service, "hello", environment)
    policy.test_it_may_finish_before_it_is_killed(service, "hello", hello, environment)
    policy.test_only_networks_that_need_one_have_a_way_out(model)
    policy.test_secrets_are_files_of_this_environment(model, hello, environment)
    policy.test_environments_but_dev_run_what_is_built_for_production(model, environment)
    for name, each in model["services"].items():
        policy.test_dependencies_are_waited_for(each, name)
        policy.test_every_part_of_the_stack_says_that_it_is_one(each, name)
    assert "secrets" not in service
    assert {*service["networks"]} == {"serving", "backend", "scrape"}


@each_environment
def test_everything_is_derived_from_it(hello: Path, environment: str) -> None:
    found = json.loads(own.derived(hello, environment, own.DERIVED))
    assert found["problems"] == []
    assert found["own"] == ["hello"]
    assert "hello" in found["site"] and "hello" in found["rolling"] and found["migrations"] == []
    assert len(found["pools"]) == 1 and "hello" in found["pools"][0]
    assert found["scaled by"] == {"hello": "HELLO_REPLICAS"}
    assert ["ready", "hello-1"] in found["health"]
    assert any(subject == "hello" for _, subject, *_ in found["plan"])
    routes = json.dumps(found["routes"])
    assert "hello" in routes and not [name for name in own.RENAMED if re.search(rf'[" ]{name}[":. ;]', routes)]


def test_its_own_tests_and_those_of_the_workspace_pass(hello: Path, copy: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    linters = (("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy", f"--cache-dir={tmp_path}/mypy"))
    tests = ("pytest", "-q", "-p", "no:cacheprovider")
    for folder, commands in (
        ("services/hello", (tests, *linters)),
        ("services", ((*tests, "--collect-only"), *linters)),
        (".", ((*tests, "ops/tests/adopt", "ops/tests/parts/test_connections.py"), *linters)),
    ):
        for command in commands:
            argv = [sys.executable, "-m", *command]
            done = subprocess.run(argv, cwd=copy / folder, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, f"{folder}: {command}: {done.stdout}{done.stderr}"


def test_another_service_can_be_added_and_this_one_removed(copy: Path) -> None:
    run(copy, "invoke service-add shop --from python --route /shop --schema --queue --cache")
    refused = run(copy, "invoke service-add other --from node --route /", code=2)
    assert "has the same one" in re.sub(r"\s+", " ", refused.stderr)
    run(copy, "invoke service-remove hello --yes")
    for environment in template.ENVIRONMENTS:
        assert own.derived(copy, environment, "print([*contract.problems(stack)])") == "[]\n"


def test_the_readme_is_about_it(hello: Path) -> None:
    text = (hello / "README.md").read_text(encoding="utf-8")
    note = re.search(r"^Where a document gives an example, .*\n.*\n", text, re.MULTILINE)
    assert note and all(f"`{name}`" in note[0] for name in own.RENAMED)
    rest = text.replace(note[0], "")
    assert not re.search(r"\b(invoke \S+|invoke run) (web|api)\b|auth-service|notification-service|\bfour\b", rest)
    assert "services/hello" in rest and "invoke scale hello 5" in rest


# ── an image of one's own ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def image(bake: Bake) -> Path:
    """The project of a team that brings an image. Not to be written into."""
    return bake(services="image", **template.OWN_IMAGE)


def test_only_that_service_differs_from_hello(hello: Path, image: Path) -> None:
    theirs, ours = contents(hello), contents(image)
    assert {path for path in theirs.keys() & ours.keys() if theirs[path] != ours[path]} == {
        *(".cookiecutter.json", "README.md", FILE, "pyproject.toml"),
    }
    assert {path.split("/")[1] for path in theirs.keys() - ours.keys()} == {"hello"}
    assert not ours.keys() - theirs.keys()


def test_the_image_is_what_service_add_writes(image: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(image, tmp_path / image.name, symlinks=True))
    run(copy, "invoke service-remove app --yes")
    assert "app:" not in (copy / FILE).read_text(encoding="utf-8")
    run(copy, "invoke service-add app --from image --image ghcr.io/acme/shop:1.4.2 --route / --port 3000")
    assert without_bytecode(contents(copy)) == contents(image)


@each_environment
def test_everything_is_derived_from_the_image(image: Path, environment: str) -> None:
    done = compose.config(image, environment, "--profile", "*", "config", "--quiet")
    assert (done.returncode, done.stderr) == (0, "")
    assert compose.resolve(image, environment)["services"]["app"]["image"] == "ghcr.io/acme/shop:1.4.2"
    found = json.loads(own.derived(image, environment, own.DERIVED))
    assert found["problems"] == [] and found["own"] == ["app"] and found["migrations"] == []
    assert len(found["pools"]) == 1 and "app" in found["pools"][0] and "3000" in found["pools"][0]
    assert found["scaled by"] == {"app": "APP_REPLICAS"}
    assert ["ready", "app-1"] in found["health"]


def test_the_linters_and_tests_of_that_project_pass(image: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(image, tmp_path / image.name, symlinks=True))
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    for folder in ("services", "."):
        for command in (
            ("ruff", "check", "."),
            ("ruff", "format", "--check", "."),
            ("mypy", f"--cache-dir={tmp_path}/m"),
        ):
            argv = [sys.executable, "-m", *command]
            done = subprocess.run(argv, cwd=copy / folder, env=environ, capture_output=True, text=True)
            assert done.returncode == 0, f"{folder}: {command}: {done.stdout}{done.stderr}"


def test_the_readme_is_about_the_image(image: Path) -> None:
    text = (image / "README.md").read_text(encoding="utf-8")
    assert "`ghcr.io/acme/shop:1.4.2`, the service `app`" in text and "invoke scale app 5" in text
    assert "hello" not in text and "services/app" not in text
