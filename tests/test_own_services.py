"""The services of the owner: what the examples declare, and that nothing knows them by their names."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import compose, template

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

each_environment = pytest.mark.parametrize("environment", template.ENVIRONMENTS)

# The examples, and what they are called in a project of somebody else. None of the new names is part of any other word.
RENAMED = {
    "web": "qq-shopfront",
    "api": "qq-gateway",
    "auth-service": "qq-accounts",
    "notification-service": "qq-mailer",
    "migrate": "qq-schema",
}
_HEAD = """\
import json, sys
from pathlib import Path
from ops.base import environments
from ops.stack import contract, model
env = environments.load(sys.argv[1], Path.cwd())
stack = model.load(env)
"""
# What the commands derive from the declaration, as JSON.
DERIVED = """
from concurrent.futures import Future
from ops.engine import Container
from ops.parts import readiness, routes
from ops.parts.postgres import connections
from ops.parts.probes import Seen
from ops.rollout import observe, plan
from ops.stack import images, pools

def container(service):
    return Container(
        id=service, name=service, service=service, number=1, state="running", health="healthy", image_id="", image="",
        config_hash="", created=0, started=0, addresses={"n": "10.0.0.1"},
    )

declared = Future()
declared.set_result(stack)
running = [container(name) for name in stack.lasting]
own = images.own_images(env, stack)
survey = observe.Survey(
    stack, {}, [], own, {}, {}, declared_routes=routes.render(stack)
)
print(json.dumps({
    "problems": [list(each) for each in contract.problems(stack)],
    "own": [name for name, each in stack.services.items() if each.own],
    **{name: [*getattr(stack, name)] for name in (
        "lasting", "monitoring", "site", "rolling", "migrations", "foundation", "clients"
    )},
    "pools": [repr(each) for each in pools.declared(stack).values()],
    "routes": {name: text.splitlines() for name, text in routes.render(stack).items()},
    "connections": connections.per_container(stack),
    "health": [[each.name, each.target] for each in readiness.probes(Seen(env, running, declared))],
    "plan": [[each.word, each.subject, int(each.phase), *each.causes] for each in plan.decide(survey).operations],
    "scaled by": model.replica_settings(env),
}))
"""


def derived(project: Path, environment: str, program: str) -> str:
    """What a program says that is run on a project's own `ops`, with the declared stack as `stack`."""
    argv = [sys.executable, "-c", _HEAD + program, environment]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def renamed(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with other names for its five services, in its own Compose files and settings and nowhere else."""
    folder = tmp_path_factory.mktemp("renamed") / project.name
    shutil.copytree(project, folder, symlinks=True)
    for name in ("docker-compose.services.yml", "docker-compose.postgres-clients.yml"):
        file = folder / name
        file.write_text(rename(file.read_text(encoding="utf-8")), encoding="utf-8")
    for file in folder.glob("config/*/.env"):
        text = file.read_text(encoding="utf-8")
        for old, new in RENAMED.items():
            text = text.replace(f"http://internal:8081/{old}\n", f"http://internal:8081/{new}\n")
        file.write_text(text, encoding="utf-8")
    return folder


def rename(text: str) -> str:
    """A Compose file with the new names where a service is meant: not a folder, a schema, a role or a setting."""
    for old, new in RENAMED.items():
        for place in (
            rf"^(  ){old}(?=:)",  # the entry
            rf"^(      ){old}(?=: \{{condition)",  # what others wait for
            rf"(\{{aliases: \[){old}(?=\.serving)",
            rf"(image: \S+/){old}(?=:\$)",
            rf"(SERVICE_NAME: ){old}$",
        ):
            text = re.sub(place, rf"\g<1>{new}", text, flags=re.MULTILINE)
    return text


def back(text: str) -> str:
    """Text about the renamed project with the old names."""
    for old, new in RENAMED.items():
        text = text.replace(new, old)
    return text


def unordered(value: object) -> object:
    """A value in which order does not matter: much is sorted by the names of services."""
    if isinstance(value, dict):
        return {key: unordered(each) for key, each in value.items()}
    if isinstance(value, list):
        return sorted((unordered(each) for each in value), key=str)
    return value


@each_environment
def test_the_examples_keep_the_contract(project: Path, environment: str) -> None:
    assert derived(project, environment, "print([*contract.problems(stack)])") == "[]\n"


@each_environment
def test_under_other_names_the_configuration_is_the_same(project: Path, renamed: Path, environment: str) -> None:
    """So whatever tests/test_policy.py asserts of it holds as well."""
    for everything in (False, True):
        ours = json.dumps(compose.resolve(project, environment, everything))
        theirs = back(json.dumps(compose.resolve(renamed, environment, everything)))
        assert all(new in json.dumps(compose.resolve(renamed, environment, everything)) for new in RENAMED.values())
        assert json.loads(theirs.replace(str(renamed), str(project))) == json.loads(ours)


@each_environment
def test_under_other_names_everything_derived_from_it_is_the_same(
    project: Path, renamed: Path, environment: str
) -> None:
    ours, theirs = (derived(folder, environment, DERIVED) for folder in (project, renamed))
    assert not set(RENAMED) & set(json.loads(theirs)["own"])
    assert sorted(json.loads(ours)["own"]) == sorted(RENAMED)
    assert unordered(json.loads(back(theirs))) == unordered(json.loads(ours))


# -- no list of names -------------------------------------------------------------------------------------------------

# Where one of the words is no name of a service, and what it is.
OTHER_MEANINGS = {
    ("ops/adopt/add.py", "migrate"): "a folder of services/, which no new service may be called",
}


def strings(source: str) -> Iterator[str]:
    """Every string of a module but its docstrings."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


def named(text: str, name: str, whole: bool) -> bool:
    """Whether a text names a service: as a word of its own, or (whole) only when it is nothing but that word."""
    if "-" in name:
        return re.search(rf"(?<![\w-]){name}(?![\w-])", text) is not None
    if whole:
        return text.strip() == name
    quoted = (
        rf"[\"']{name}[\"']|=~?\\?\"([^\"]*\|)?{name}(\|[^\"]*)?\\?\"|//{name}[:/.]|^ *- {name}$|\b{name}\.serving\b"
    )
    return re.search(quoted, text, re.MULTILINE) is not None


def test_no_file_of_the_template_names_a_service_of_the_owner() -> None:
    found = set()
    for path in template.sources():
        if path.parts[0] not in {"ops", "infrastructure", "monitoring"} or "tests" in path.parts:
            continue
        content = (template.FOLDER / path).read_bytes()
        if b"\0" in content or path.suffix == ".lock":
            continue
        text, whole = content.decode("utf-8"), path.suffix == ".py"
        pieces = [*strings(text)] if whole else [text]
        found |= {(str(path), name) for name in RENAMED if any(named(each, name, whole) for each in pieces)}
    assert found - OTHER_MEANINGS.keys() == set()


def test_that_search_finds_names() -> None:
    """A control: what it looks for, as it stood in the files."""
    assert named('up{job=~"web|api|auth-service"}', "web", whole=False)
    assert named('up{job=~"web|api|auth-service"}', "auth-service", whole=False)
    assert named("      - {names: ['api'], port: 8000}", "api", whole=False)
    assert named("proxy_pass http://web:8000;", "web", whole=False)
    assert [each for each in strings('"""Not web."""\nSERVICES = ("web", "migrate")') if named(each, "web", True)]
    assert not named("http://x/api/health and a web page", "api", whole=False)
