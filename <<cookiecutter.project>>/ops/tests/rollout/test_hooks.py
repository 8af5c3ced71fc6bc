"""Hooks are real programs here."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ops.base.errors import REFUSED, OpsError
from ops.base.findings import FAILED, OK, WARNING
from ops.rollout import hooks


@pytest.fixture
def hook(project: Path):
    """A function that writes a hook."""
    (project / "hooks").mkdir()

    def write(name: str, text: str, mode: int = 0o755) -> Path:
        path = project / "hooks" / name
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


def limited(env, seconds: int):
    env.values["HOOK_TIMEOUT"] = str(seconds)
    return env


def test_no_folder_no_hooks(env) -> None:
    assert hooks.present(env) == []
    assert [(each.status, each.detail) for each in hooks.check(env)] == [(OK, "none")]
    assert hooks.run(env, hooks.PRE_DEPLOY, {}) == ""


def test_it_is_told_what_happens_and_its_output_is_shown(env, hook, capfd, project: Path) -> None:
    hook("pre-deploy", '#!/bin/sh\necho "$STACK_HOOK $STACK_ENV $STACK_SERVICES"; pwd; echo "to stderr" >&2\n')
    hooks.before(env, hooks.PRE_DEPLOY, {"ENV": "dev", "SERVICES": "web api"})
    said = capfd.readouterr()
    assert said.out.splitlines() == ["running hooks/pre-deploy", "pre-deploy dev web api", str(project)]
    assert said.err == "to stderr\n"


def test_it_has_no_terminal_to_wait_for(env, hook) -> None:
    hook("pre-deploy", "#!/bin/sh\nread answer && exit 9\nexit 0\n")
    assert hooks.run(env, hooks.PRE_DEPLOY, {}) == ""


def test_one_before_that_fails_refuses(env, hook) -> None:
    hook("pre-deploy", "#!/bin/sh\nexit 4\n")
    with pytest.raises(OpsError) as caught:
        hooks.before(env, hooks.PRE_DEPLOY, {})
    assert caught.value.code == REFUSED
    assert caught.value.message == "Nothing was changed, because hooks/pre-deploy failed with exit code 4."


def test_one_that_hangs_is_stopped_with_all_it_started(env, hook, project: Path) -> None:
    hook("pre-deploy", "#!/bin/sh\n(sleep 4; touch survived) &\nsleep 60\n")
    began = time.monotonic()
    with pytest.raises(OpsError, match="did not end within 1 s and was stopped") as caught:
        hooks.before(limited(env, 1), hooks.PRE_DEPLOY, {})
    assert caught.value.code == REFUSED
    assert "HOOK_TIMEOUT" in caught.value.message
    assert time.monotonic() - began < 4
    time.sleep(max(0, 4.5 - (time.monotonic() - began)))
    assert not (project / "survived").exists()


def test_one_afterwards_that_fails_is_a_warning(env, hook, capsys) -> None:
    hook("post-deploy", "#!/bin/sh\nexit 4\n")
    hooks.after(env, hooks.POST_DEPLOY, {})
    assert "hooks/post-deploy failed with exit code 4. What was deployed is not affected." in capsys.readouterr().err


def test_one_whose_interpreter_is_not_there_refuses(env, hook, capfd) -> None:
    hook("pre-deploy", "#!/usr/bin/no-such-interpreter\n")
    with pytest.raises(OpsError) as caught:
        hooks.before(env, hooks.PRE_DEPLOY, {})
    assert caught.value.code == REFUSED and "hooks/pre-deploy failed" in caught.value.message
    assert "No such file" in capfd.readouterr().err


def test_one_that_does_not_say_what_runs_it_is_found_before_anything_happens(env, hook) -> None:
    hook("pre-deploy", "echo hi\n")
    found = list(hooks.check(env))
    assert [(each.status, each.detail) for each in found] == [(FAILED, "hooks/pre-deploy does not say what runs it")]


def test_one_that_is_not_executable_is_found_before_anything_happens(env, hook) -> None:
    hook("post-deploy", "#!/bin/sh\n", 0o644)
    found = list(hooks.check(env))
    assert [(each.status, each.detail, each.remedy) for each in found] == [
        (FAILED, "hooks/post-deploy is not executable", "chmod +x hooks/post-deploy")
    ]


def test_a_name_that_is_nearly_one(env, hook) -> None:
    hook("predeploy.sh", "#!/bin/sh\n")
    hook("README.md", "words")
    hook("notify-slack", "#!/bin/sh\n")
    found = list(hooks.check(env))
    assert [(each.status, each.detail, each.remedy) for each in found] == [
        (WARNING, "hooks/predeploy.sh is never run", "Did you mean pre-deploy?")
    ]


def test_a_limit_that_is_no_number_is_found_before_anything_happens(env, hook) -> None:
    hook("post-deploy", "#!/bin/sh\n")
    env.values["HOOK_TIMEOUT"] = "soon"
    with pytest.raises(OpsError, match="HOOK_TIMEOUT must be a whole number"):
        list(hooks.check(env))
