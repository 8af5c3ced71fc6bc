"""The preview of a deploy: the plan itself, for people and for programs."""

from __future__ import annotations

import json

import pytest

from ops.base import findings
from ops.base.errors import REFUSED, OpsError
from ops.rollout import plan, preflight, preview
from ops.rollout.observe import Survey
from ops.stack.model import Service, Stack

WEB = Service("web", "acme/web:dev", built=True, has_health=True)
ROUTED = {"labels": {"ops.port": "8000"}, "networks": {"serving": {"aliases": ["web.serving"]}}}
POSTGRES = Service("postgres", "postgres:18", labels={"ops.stateful": "postgres"})


@pytest.fixture
def seen(make_container):
    """A stack of which these services have a new configuration."""

    def run(*changed: str) -> Survey:
        document = {
            "services": {"web": {**ROUTED, "cpus": 2}, "postgres": {}},
            "networks": {"serving": {"name": "acme-dev_serving"}},
        }
        declared = Stack("acme-dev", {"web": WEB, "postgres": POSTGRES}, document)
        containers = [make_container("web", addresses={"acme-dev_serving": "172.18.0.2"}), make_container("postgres")]
        hashes = {each.id: "new" if each.service in changed else "hash" for each in containers}
        present = {"acme/web:dev": "sha256:1", "postgres:18": "sha256:1"}
        return Survey(
            declared, hashes, containers, [], present, {}, deployed={"web": {**ROUTED, "cpus": 1, "mem_limit": 9}}
        )

    return run


@pytest.fixture
def previewing(env, seen, monkeypatch):
    """Previews what these services' new configuration would bring."""
    monkeypatch.setattr(preflight, "run", lambda *_args: [])

    def run(*changed: str, as_json: bool = False, share: int = 0) -> int:
        monkeypatch.setattr(preview, "survey", lambda _env: seen(*changed))
        return preview.preview(env, as_json, share)

    return run


def test_nothing_to_do(previewing, capsys) -> None:
    previewing()
    assert capsys.readouterr().out == "nothing to do: dev is as declared\n"


def test_operations_in_their_order_with_every_cause(previewing, capsys) -> None:
    previewing("web", "postgres")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line.split(maxsplit=1)[0] for line in lines if line][:4] == ["WHAT", "restart", "roll", "mem_limit"]
    assert "restart (asks first)  postgres  new configuration" in lines
    assert "roll out              web       cpus 1 → 2" in lines
    assert lines[-1] == "nothing was changed; `invoke deploy --env dev` does this, in this order"


def test_for_programs(env, previewing, seen, capsys) -> None:
    previewing("web", as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "environment": "dev",
        "idle": False,
        "hooks": [],
        "operations": [
            {
                "phase": "rollout",
                "operation": "roll out",
                "subject": "web",
                "replaces": True,
                "asks": False,
                "causes": ["cpus 1 → 2", "mem_limit 9 → none"],
            }
        ],
        "refused": [],
    }
    # What is printed is the plan that a deploy executes, no second opinion.
    assert preview.as_document(env, plan.decide(seen("web"))) == document


def test_a_canary(previewing, capsys) -> None:
    previewing("web", share=10)
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "try out  web      cpus 1 → 2" in lines
    assert lines[-1] == "nothing was changed; `invoke deploy --canary 10 --env dev` does this, in this order"
    with pytest.raises(OpsError, match="more to deploy:\n  restart postgres"):
        previewing("web", "postgres", share=10)


def full(*args) -> list[findings.Check]:
    """Checks of which one warns, with what is started beside, and one fails."""
    return [
        findings.Check("memory", findings.WARNING, f"little for {args[3]}"),
        findings.Check("disk", findings.FAILED, "full", "Make room."),
    ]


def test_what_a_deploy_would_refuse(previewing, monkeypatch, capsys) -> None:
    monkeypatch.setattr(preflight, "run", full)
    with pytest.raises(OpsError, match="disk: full") as caught:
        previewing("web")
    assert caught.value.code == REFUSED
    said = capsys.readouterr()
    assert "roll out" in said.out and "does this" not in said.out
    assert "memory: little for {'web': 1}" in said.err


def test_what_a_deploy_would_refuse_for_programs(previewing, monkeypatch, capsys) -> None:
    monkeypatch.setattr(preflight, "run", full)
    assert previewing("web", as_json=True) == REFUSED
    document = json.loads(capsys.readouterr().out)
    assert document["refused"] == [{"name": "disk", "status": "failed", "detail": "full", "remedy": "Make room."}]
    assert len(document["operations"]) == 1


def test_a_deploy_that_does_nothing_is_not_refused(previewing, monkeypatch) -> None:
    monkeypatch.setattr(preflight, "run", full)
    assert previewing() == 0
