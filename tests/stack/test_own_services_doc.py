"""docs/your-own-services.md, followed by a reader with an engine: every command, in the order of the document."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest

from tests import documents, quickstart, template

from .project import Project


@pytest.mark.fault
def test_the_document_is_right(dev_stack: Project) -> None:
    quickstart.provide(template.bases())
    project = dev_stack
    compose = project.folder / "docker-compose.services.yml"
    before = compose.read_text()
    for command in documents.commands(project.folder / "docs/your-own-services.md"):
        if not command.startswith("invoke "):
            subprocess.run(["bash", "-ec", command], cwd=project.folder, check=True)
            continue
        words = shlex.split(command)[1:]
        # What a person would be asked, as in the document's own commands.
        project.invoke(*words, *(["--yes"] if words == ["deploy"] else []))
        if match := re.fullmatch(r"invoke scale (\S+) (\d)", command):
            name, count = match.groups()
            assert sum(f"-{name}-" in each for each in project.containers()) == int(count)
            with project.client() as client:
                assert client.get(f"/{name}/").status_code == 200
    assert compose.read_text() == before
    assert not [each for each in project.containers() if "-shop-" in each]
    assert project.health()["healthy"] is True
