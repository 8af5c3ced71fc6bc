"""The folder that the part `backup` mounts."""

from __future__ import annotations

import os

import pytest

from ops import engine
from ops.parts import targets
from ops.stack.model import Service


@pytest.fixture
def lines(monkeypatch):
    found = []
    monkeypatch.setattr(engine, "docker", lambda *line: found.append(line))
    return found


def test_it_is_made_and_given_to_the_user_of_the_containers(env, make_stack, lines, monkeypatch) -> None:
    stack = make_stack(Service("nginx", "nginx:1"), Service("backup", "acme/backup"))
    targets.make_folder(env, stack)
    folder = env.project_dir / "backups/dev/repository"
    assert folder.is_dir() and folder.parent.stat().st_mode & 0o777 == 0o700
    ((*_, image, owner, place),) = lines
    assert (image, owner, place) == ("nginx:1", "999:999", "/folder") and f"{folder}:/folder" in lines[0]
    monkeypatch.setattr(targets, "_OWNER", os.getuid())
    targets.make_folder(env, stack)
    assert len(lines) == 1, "once it is theirs nothing is run"


def test_a_stack_without_the_part_gets_none(env, make_stack, lines) -> None:
    targets.make_folder(env, make_stack(Service("nginx", "nginx:1")))
    assert lines == [] and not (env.project_dir / "backups").exists()
