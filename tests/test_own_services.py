"""The services of the owner: what the examples declare, and that nothing knows them by their names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import compose, template

pytestmark = pytest.mark.skipif(compose.unavailable() is not None, reason=str(compose.unavailable()))

each_environment = pytest.mark.parametrize("environment", template.ENVIRONMENTS)


def derived(project: Path, environment: str, program: str) -> str:
    """What a program says that is run on a project's own `ops`, with the declared stack as `stack`."""
    head = (
        "import sys; from pathlib import Path; from ops.base import environments; from ops.stack import model;"
        "env = environments.load(sys.argv[1], Path.cwd()); stack = model.load(env)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", head + program, environment], cwd=project, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@each_environment
def test_the_examples_keep_the_contract(project: Path, environment: str) -> None:
    assert (
        derived(project, environment, "from ops.stack import contract; print(list(contract.problems(stack)))") == "[]\n"
    )
