"""Doctor shows every check, also when some of them cannot be made."""

from __future__ import annotations

from ops import engine
from ops.base import findings
from ops.commands import doctor
from ops.rollout import preflight
from ops.stack import model


def test_doctor(env, make_stack, monkeypatch, capsys) -> None:
    found = [findings.Check("disk", findings.OK, "lots"), findings.Check("ports", findings.WARNING, "hm", "Look.")]
    monkeypatch.setattr(preflight, "engine_info", dict)
    monkeypatch.setattr(preflight, "compose_version", str)
    monkeypatch.setattr(preflight, "check_versions", lambda _info, _compose: [])
    monkeypatch.setattr(preflight, "run", lambda *_args: found)
    monkeypatch.setattr(model, "load", lambda env: make_stack())
    monkeypatch.setattr(engine, "containers", lambda env: [])
    assert doctor.doctor(env)
    assert "dev can be deployed" in capsys.readouterr().out
    found.append(findings.Check("memory", findings.FAILED, "none", "Buy some."))
    assert not doctor.doctor(env)
    assert "dev cannot be deployed: memory" in capsys.readouterr().out


def test_every_mistake_in_a_label_is_told(env, monkeypatch, capsys) -> None:
    entry = {"image": "shop", "healthcheck": {"test": ["CMD", "true"]}, "labels": {"ops.prot": "1", "ops.job": "x"}}
    monkeypatch.setattr(preflight, "engine_info", dict)
    monkeypatch.setattr(preflight, "compose_version", str)
    monkeypatch.setattr(preflight, "check_versions", lambda _info, _compose: [])
    monkeypatch.setattr(model, "load", lambda env: model.parse({"name": "acme-dev", "services": {"shop": entry}}))
    assert not doctor.doctor(env)
    shown = capsys.readouterr().out
    assert "ops.prot" in shown and "ops.job" in shown and "dev cannot be deployed: services" in shown


def test_what_is_too_old_to_read_the_files_is_told_by_itself(env, monkeypatch, capsys) -> None:
    too_old = [findings.Check("compose", findings.FAILED, "2.5.0 is too old", "Install 2.32 or newer.")]
    monkeypatch.setattr(preflight, "engine_info", dict)
    monkeypatch.setattr(preflight, "compose_version", str)
    monkeypatch.setattr(preflight, "check_versions", lambda _info, _compose: too_old)
    assert not doctor.doctor(env)
    assert "2.5.0 is too old" in capsys.readouterr().out


def test_what_no_service_can_own_is_told_too(env, monkeypatch, capsys) -> None:
    entry = {
        "image": "shop",
        "healthcheck": {"test": ["CMD", "true"]},
        "labels": {"ops.schema": "postgres"},
        "secrets": [{"source": "POSTGRES_DB_PASSWORD"}],
    }
    monkeypatch.setattr(preflight, "engine_info", dict)
    monkeypatch.setattr(preflight, "compose_version", str)
    monkeypatch.setattr(preflight, "check_versions", lambda _info, _compose: [])
    monkeypatch.setattr(model, "load", lambda _env: model.parse({"name": "acme-dev", "services": {"shop": entry}}))
    assert not doctor.doctor(env)
    assert "the stack itself uses that name" in " ".join(capsys.readouterr().out.split())
