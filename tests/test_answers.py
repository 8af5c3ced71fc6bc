"""Whatever people answer: it works in every file that holds it, or it is refused in one sentence and leaves nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cookiecutter.exceptions import CookiecutterException
from cookiecutter.prompt import prompt_for_config
from dotenv import dotenv_values

from tests import template
from tests.conftest import Bake

# Names are for people. These are legal ones, and each has broken some template's file format or hook.
NAMES = [
    "Café Ünïcode & Söhne",
    "株式会社スタック",
    'It\'s "quoted" `back` $HOME ${HOME} $$ #1',
    "C:\\temp\\new \\",
    '""" + __import__(\'os\').system(\'touch pwned\') + """',
    "'''; import os; os.system('touch pwned') #",
    "$(touch pwned) `touch pwned` ; touch pwned",
    "{{ 7 * 7 }} ${{ secrets.X }} {% raw %}",
    "a: b, [c], {d}, *e, &f, !g, |h, >i, %j, @k",
    "😀 emoji \u202f thin space"[:7],
    "</title><script>alert(1)</script>",
]

REFUSED = {
    "project_name": ["", "   ", "two\nlines", "bell\a", "tab\there", "null\0", "x" * 101, "right\u202eleft"],
    "organisation": ["", "two\r\nlines", "\x1b[31mred"],
    "project": [
        "",
        ".",
        "..",
        "../evil",
        "/tmp/evil",
        "a/b",
        "a/../../evil",
        "Acme",
        "acme_stack",
        "acme stack",
        "-acme",
        "acme-",
        "ac--me",
        "1acme",
        "acmé",
        "acme\n",
        "a" * 31,
        "--help",
        "~root",
        "$HOME",
        "a;b",
    ],
    "domain": [
        "",
        "https://example.com",
        "example.com/path",
        "Example.com",
        "example..com",
        "-example.com",
        "example.com\n",
        "exa mple.com",
        "exämple.com",
        "*.example.com",
        "example.com:443",
        "example.com;",
        "${x}.com",
        "a" * 64 + ".com",
        ".".join(["a" * 60] * 5),
    ],
    "admin_email": [
        "",
        "admin",
        "admin@",
        "@example.com",
        "a b@example.com",
        "admin@exam ple.com",
        'x"@example.com',
        "$USER@example.com",
        "a#b@example.com",
        "admin@example.com\nBcc: all@example.com",
        "Admin <admin@example.com>",
    ],
    "image_prefix": [
        "",
        "Acme",
        "acme/",
        "/acme",
        "acme//web",
        "https://registry.example.com/acme",
        "acme:latest",
        "../acme",
        "acme web",
        "acme@sha256",
        "$ACME",
        "registry.example.com:port/acme",
        "a" * 129,
    ],
}

ACCEPTED = {
    "project": ["a", "acme", "acme-stack-2", "a" * 30],
    "domain": ["localhost", "example.com", "a-b.example.co.uk", "xn--exmple-cua.com", "192-0-2-1.sslip.io"],
    "admin_email": ["a@b", "first.last+tag@example.com", "Ops_1@mail.example.com"],
    "image_prefix": [
        "acme",
        "acme/shop",
        "ghcr.io/acme",
        "registry.example.com:5000/team/acme",
        "localhost:5000/a",
        "a__b",
    ],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_data_wherever_it_stands(bake: Bake, name: str) -> None:
    project = bake(project="acme-stack", project_name=name, organisation=name, image_prefix="acme")
    kept = json.loads((project / ".cookiecutter.json").read_text(encoding="utf-8"))["cookiecutter"]
    assert (kept["project_name"], kept["organisation"]) == (name, name)
    assert name in (project / "README.md").read_text(encoding="utf-8")
    # Nothing was executed, not even by the hooks, whose folder this is.
    assert not [path for path in template.files(project) if path.name == "pwned"]


@pytest.mark.parametrize("environment", template.ENVIRONMENTS)
@pytest.mark.parametrize("name", NAMES)
def test_settings_do_not_depend_on_a_name(bake: Bake, environment: str, name: str) -> None:
    """`.env` has two readers with rules of their own for quotes, `$`, `#` and backslash; free text stays out of it."""
    plain = bake(project="acme-stack", project_name="Plain", organisation="Plain", image_prefix="acme")
    hostile = bake(project="acme-stack", project_name=name, organisation=name, image_prefix="acme")
    file = Path("config", environment, ".env")
    assert dotenv_values(hostile / file) == dotenv_values(plain / file)


@pytest.mark.parametrize("name", ["3D Shop", "2026", "42 - the answer", "-", "9" * 40, *NAMES])
def test_what_is_offered_for_the_folder_is_accepted(name: str) -> None:
    context = {"cookiecutter": {**template.CONTEXT, "__prompts__": {}, "project_name": name}}
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,29}", prompt_for_config(context, no_input=True)["project"])


@pytest.mark.parametrize(
    "domain", ["https://nova.example", "https://nova.example:8443/shop", "Nova.Example", "nova.example."]
)
def test_a_wrong_answer_is_not_offered_in_the_next_question(domain: str) -> None:
    """The hook is asked after the last question: until then a wrong domain must not lead to a wrong address."""
    context = {"cookiecutter": {**template.CONTEXT, "__prompts__": {}, "domain": domain}}
    assert prompt_for_config(context, no_input=True)["admin_email"] == "admin@nova.example"


@pytest.mark.parametrize("project", ["Acme Stack", "ACME!", "-"])
def test_a_wrong_folder_is_not_offered_as_a_domain(project: str) -> None:
    context = {"cookiecutter": {**template.CONTEXT, "__prompts__": {}, "project": project, "organisation": "-"}}
    offered = prompt_for_config(context, no_input=True)
    assert re.fullmatch(r"[a-z-]+\.example\.com", offered["domain"])
    assert re.fullmatch(r"[a-z-]+", offered["image_prefix"])


@pytest.mark.parametrize(("question", "answer"), [(name, answer) for name in REFUSED for answer in REFUSED[name]])
def test_a_refused_answer_leaves_nothing(exported: Path, tmp_path: Path, question: str, answer: str) -> None:
    output = tmp_path / "deep" / "down"
    output.mkdir(parents=True)
    with pytest.raises((CookiecutterException, OSError, ValueError)):
        template.bake(output, exported, **{question: answer})
    # Cookiecutter makes the folder before it asks the hook, and of a path (`a/b`) takes away the last part only: an
    # empty folder may stay, below the place where the project was wanted.
    assert [path for path in tmp_path.rglob("*") if not path.is_dir()] == []
    assert list(tmp_path.iterdir()) == [output.parent] and list(output.parent.iterdir()) == [output]
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        *(
            ("service_image", image)
            for image in ("none", "", "Acme/Shop", "https://ghcr.io/a", "shop:", "a b", "$A", "a/")
        ),
        *(("service_port", port) for port in ("", "0", "65536", "http", "80\n", "-1", "8080/tcp")),
    ],
)
def test_a_wrong_image_of_ones_own_is_refused(exported: Path, tmp_path: Path, question: str, answer: str) -> None:
    with pytest.raises(CookiecutterException):
        template.bake(tmp_path, exported, **{"services": "image", **template.OWN_IMAGE, question: answer})
    assert not list(tmp_path.iterdir())


def test_an_image_that_nothing_would_use_is_refused(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CookiecutterException):
        template.bake(tmp_path, exported, **template.OWN_IMAGE)


@pytest.mark.parametrize(("question", "answer"), [(name, answer) for name in ACCEPTED for answer in ACCEPTED[name]])
def test_a_good_answer_is_taken(exported: Path, tmp_path: Path, question: str, answer: str) -> None:
    assert template.bake(tmp_path, exported, **{question: answer}).is_dir()


def test_a_refusal_is_one_sentence_on_the_terminal(exported: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cookiecutter", str(exported), "--no-input", "-o", str(tmp_path)]
    done = subprocess.run([*command, "project=Acme Stack"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 1
    first, *_ = (done.stderr or done.stdout).splitlines()
    assert first.startswith("project 'Acme Stack' is not a short name: ")
    assert first.endswith(".")
