"""A baked project whose `docker` is the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("program.py")
INFO = {"ServerVersion": "28.5.2", "NCPU": 2, "MemTotal": 64 << 30, "DockerRootDir": "/"}
# An engine that works, and on which there is nothing. Later rules are looked at last.
EMPTY = (
    {"match": r"^compose version", "stdout": "2.40.3\n"},
    {"match": r"^compose .*\bconfig\b", "real": True},
    {"match": r"^info", "stdout": json.dumps(INFO)},
    {"match": r"^(ps|images|volume ls|network ls|container ls)\b", "stdout": ""},
    {"match": r"^inspect", "stdout": "[]\n", "stderr": "Error response from daemon: No such object: x\n", "code": 1},
)


@dataclass
class Standin:
    """One project with its stand-in. rules: those of a test, before those of an empty engine."""

    folder: Path
    project: Path
    rules: list[dict[str, Any]] = field(default_factory=list)

    def rule(self, match: str, **does: Any) -> None:
        """What docker does when its arguments match: stdout, stderr, code, delay (seconds), holds, hangs, real."""
        self.rules.append({"match": match, **does})

    def calls(self) -> list[str]:
        """The command lines docker was called with, without its name."""
        path = self.folder / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start a command of the project."""
        (self.folder / "rules.json").write_text(json.dumps([*self.rules, *EMPTY]), encoding="utf-8")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "invoke", *arguments],
            cwd=self.project,
            env={
                **kept,
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "STANDIN": str(self.folder),
                "STANDIN_REAL": shutil.which("docker") or "",
                "PYTHONDONTWRITEBYTECODE": "1",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def invoke(self, *arguments: str, **variables: str) -> tuple[int, str, str]:
        """Run a command of the project: its exit code, output and complaints. No traceback is ever one of them."""
        with self.start(*arguments, **variables) as process:
            output, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        assert "stand-in: no rule" not in errors, errors
        return process.returncode, output, errors

    def wait_for_call(self, part: str) -> None:
        """Wait until docker was called with something."""
        ends = time.monotonic() + 30
        while not any(part in call for call in self.calls()):
            assert time.monotonic() < ends, f"docker was not called with {part}: {self.calls()}"
            time.sleep(0.02)


@pytest.fixture
def standin(tmp_path: Path, bake: Callable[..., Path]) -> Standin:
    """A project of its own, and an engine on which there is nothing."""
    project = tmp_path / "acme-stack"
    shutil.copytree(bake(), project, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f"#!{sys.executable} -S\n{PROGRAM.read_text(encoding='utf-8')}", encoding="utf-8")
    program.chmod(0o755)
    return Standin(folder, project)
