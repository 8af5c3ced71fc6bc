"""The hooks as what they are: two small programs."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jinja2
import pytest

from tests import template

ANSWERS = {
    "project_name": "Acme Stack",
    "project": "acme-stack",
    "organisation": "Acme",
    "domain": "acme.example.com",
    "admin_email": "admin@acme.example.com",
    "image_prefix": "acme",
    "services": "example",
    "service_image": "none",
    "service_port": "8080",
    "ci": "github",
    "license": "none",
}


def load_hook(name: str, folder: Path, **answers: str) -> ModuleType:
    """Render a hook as Cookiecutter does, and import it: nothing may happen before `main()` is called."""
    source = (template.ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, **template.CONTEXT["_jinja2_env_vars"])
    path = folder / f"{name}.py"
    path.write_text(environment.from_string(source).render(cookiecutter={**ANSWERS, **answers}), encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, outside any repository, which is where hooks are started."""
    folder = tmp_path / "acme-stack"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return folder


@pytest.mark.parametrize("name", ["pre_gen_project", "post_gen_project"])
def test_hooks_are_python_before_rendering_too(name: str) -> None:
    """So that linters and editors read them."""
    compile((template.ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8"), name, "exec")


@pytest.mark.parametrize("name", ["pre_gen_project", "post_gen_project"])
@pytest.mark.parametrize(
    "answer", ['"""', '\\"""', "\\", '""', "'''", "\\u0022\\u0022\\u0022", "line\nline", "<< 1 >>"]
)
def test_answers_arrive_as_they_were_given(tmp_path: Path, name: str, answer: str) -> None:
    hook = load_hook(name, tmp_path, project_name=answer, image_prefix=answer)
    assert json.loads(hook.ANSWERS) == {**ANSWERS, "project_name": answer, "image_prefix": answer}


@pytest.mark.parametrize("name", ["pre_gen_project", "post_gen_project"])
def test_hooks_run_on_the_oldest_python_that_cookiecutter_2_6_runs_on(name: str) -> None:
    """Syntax of Python 3.7; and what a newer one would evaluate at import stands in annotations alone."""
    tree = ast.parse((template.ROOT / "hooks" / f"{name}.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    aliases = [node for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign))]
    evaluated = [part for alias in aliases if alias.value for part in ast.walk(alias.value)]
    assert not [part for part in evaluated if isinstance(part, (ast.BinOp, ast.Subscript))]


def test_an_old_cookiecutter_is_told_which_one_is_needed(tmp_path: Path) -> None:
    """Before 2.6 it does not know our delimiters: hooks run as they stand here."""
    hook = template.ROOT / "hooks" / "pre_gen_project.py"
    done = subprocess.run([sys.executable, hook], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("This template needs Cookiecutter 2.6 or newer: ") and done.stderr.count("\n") == 1


def test_good_answers_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_hook("pre_gen_project", tmp_path).main() == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "question", ["project_name", "organisation", "project", "domain", "admin_email", "image_prefix"]
)
def test_one_sentence_names_the_question(tmp_path: Path, question: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_hook("pre_gen_project", tmp_path, **{question: "!\n"}).main() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(question) and err.count("\n") == 1 and err.endswith(".\n")


def test_the_first_wrong_answer_is_enough(tmp_path: Path) -> None:
    hook = load_hook("pre_gen_project", tmp_path)
    assert hook.problem({**ANSWERS, "domain": "!", "admin_email": "admin@!"}).startswith("domain")


@pytest.mark.parametrize("chosen", [{"services": "hello"}, {"services": "image", **template.OWN_IMAGE}])
def test_the_examples_are_never_removed_from_a_project_that_is_there(
    project: Path, tmp_path: Path, chosen: dict[str, str]
) -> None:
    hook = load_hook("pre_gen_project", tmp_path, **chosen)
    assert hook.problem({**ANSWERS, **chosen}) is None
    (project / "docker-compose.services.yml").write_text("services:\n", encoding="utf-8")
    refused = hook.problem({**ANSWERS, **chosen})
    assert refused.startswith(f"services '{chosen['services']}' cannot be baked over")
    assert hook.problem({**ANSWERS, "services": "example"}) is None


@pytest.mark.parametrize("chosen", [{"services": "hello"}, {"services": "image", **template.OWN_IMAGE}])
def test_a_python_that_is_too_old_for_a_service_of_ones_own_is_refused(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: dict[str, str]
) -> None:
    """It is made by the project's own code; the examples need none of it."""
    hook = load_hook("pre_gen_project", tmp_path)
    monkeypatch.setattr(hook.sys, "version_info", (3, 10, 14, "final", 0))
    assert hook.problem({**ANSWERS, **chosen}).startswith(f"services '{chosen['services']}' needs Python 3.11")
    assert hook.problem({**ANSWERS, "services": "example"}) is None


def test_settings_go_with_their_comments_and_their_section(project: Path) -> None:
    file = project / "config" / "dev" / ".env"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# Settings\n\n# ---- First\n# of both\nA=1\nB=${C}\n# of D,\n# in two lines\nD=1\n# of C\nC=1\n\n"
        "# ---- Second\n# of E\nE=1\n\n# ---- Third\nF=1\n",
        encoding="utf-8",
    )
    load_hook("post_gen_project", project.parent).remove_settings(project, {"A", "D", "E"})
    assert file.read_text(encoding="utf-8") == (
        "# Settings\n\n# ---- First\nB=${C}\n# of C\nC=1\n\n# ---- Third\nF=1\n"
    )


def test_a_setting_is_read_where_something_but_a_document_or_a_test_names_it(project: Path) -> None:
    texts = {"docker-compose.yml": "${A:-1}", "README.md": "B", "ops/tests/test_x.py": "B", "ops/x.py": '"C"'}
    for name, text in {**texts, "config/dev/.env": "B=1\nE=${D}\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    hook = load_hook("post_gen_project", project.parent)
    assert hook.unread(project, {"A", "B", "C", "D"}) == {"B"}


@pytest.mark.parametrize("answer", ["hello", "image", "example"])
def test_the_hooks_need_nothing_but_the_standard_library(tmp_path: Path, answer: str) -> None:
    """They run before anything is installed, on a machine that may have no Docker."""
    project = template.bake(tmp_path, hooks=False)
    hook = tmp_path / "hook.py"
    load_hook("post_gen_project", tmp_path, services=answer, **template.OWN_IMAGE)
    (tmp_path / "post_gen_project.py").rename(hook)
    argv = [sys.executable, "-I", "-S", str(hook)]
    done = subprocess.run(argv, cwd=project, capture_output=True, text=True, env={"PATH": "/nonexistent"})
    assert (done.returncode, done.stderr) == (0, "")
    assert (project / "services/hello/hello/app.py").exists() == (answer == "hello")
    assert not list(project.rglob("__pycache__"))


def test_finishing_can_be_repeated(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = project / "scripts" / "backup.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n", encoding="utf-8")
    plain = project / "README.md"
    plain.write_text("# Acme\n", encoding="utf-8")
    (project / ".github" / "workflows").mkdir(parents=True)
    hook = load_hook("post_gen_project", project.parent)
    for _ in range(2):
        assert hook.main() == 0
        assert script.stat().st_mode & 0o111 == 0o111
        assert plain.stat().st_mode & 0o111 == 0
        assert not (project / ".github").exists()
        assert "cd acme-stack" in capsys.readouterr().out
    branch = subprocess.run(["git", "symbolic-ref", "--short", "HEAD"], capture_output=True, text=True, check=True)
    assert branch.stdout == "main\n"


def test_a_chosen_workflow_stays(project: Path) -> None:
    workflow = project / ".github" / "workflows" / "ci.yml"
    workflow.parent.mkdir(parents=True)
    workflow.write_text("on: push\n", encoding="utf-8")
    load_hook("post_gen_project", project.parent).main()
    assert workflow.exists()


def test_a_folder_within_a_repository_joins_it(project: Path) -> None:
    subprocess.run(["git", "init", "--quiet", project.parent], check=True)
    load_hook("post_gen_project", project.parent).main()
    assert not (project / ".git").exists()


def test_a_folder_that_the_repository_around_it_ignores_gets_its_own(project: Path) -> None:
    """Nothing of it could be committed there: a scratch folder in somebody's clone, as of the quickstart."""
    subprocess.run(["git", "init", "--quiet", project.parent], check=True)
    (project.parent / ".gitignore").write_text("/acme-*/\n", encoding="utf-8")
    for _ in range(2):
        load_hook("post_gen_project", project.parent).main()
        shown = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        assert Path(shown.stdout.strip()) == project.resolve()


def test_git_is_not_needed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "PATH", str(project))
    assert load_hook("post_gen_project", project.parent).main() == 0
    assert not (project / ".git").exists()


def test_the_next_steps_exist(project: Path) -> None:
    """What the hook tells people to type is there to be typed."""
    assert "scripts/bootstrap.py" in load_hook("post_gen_project", project.parent).NEXT_STEPS
    assert (template.FOLDER / "scripts" / "bootstrap.py").is_file()
