"""The report on the health of a stack: everything is asked at once, and what one part answers hides no other."""

import threading

import pytest

from ops import engine
from ops.base.errors import OpsError
from ops.commands import health
from ops.commands.health import Report
from ops.parts.nginx import health as edge
from ops.parts.probes import Check
from ops.stack import model
from ops.stack.model import Service


def statuses(checks):
    return {check.target: check.status for check in checks}


# ── containers ────────────────────────────────────────────────────────────────────────────────────────────────────────


def containers(make_stack, services, found, now=100_000.0):
    return list(health.check_containers(make_stack(*services), found, now))


def test_files_of_a_folder_that_was_deleted(env, make_container, tmp_path):
    def started(name, folder):
        labels = {"com.docker.compose.project.working_dir": str(folder)}
        return make_container(name, labels=labels, mounts={"/etc/x": f"{folder}/x"})

    found = [started("web", tmp_path / "gone"), started("api", env.project_dir), make_container("db")]
    (check,) = health.check_folders(env, found)
    assert (check.target, check.status) == ("web-1", "warn")
    assert f"{tmp_path}/gone, which is gone: it will not start again" in check.detail


def test_everything_that_is_wanted_runs(make_stack, make_container):
    found = [make_container("web", 1), make_container("web", 2), make_container("db", health="")]
    checks = containers(make_stack, [Service("web", "", replicas=2), Service("db", "")], found)
    assert statuses(checks) == {"web-1": "ok", "web-2": "ok", "db-1": "ok"}


def test_what_is_wanted_and_absent_fails(make_stack, make_container):
    checks = containers(make_stack, [Service("web", "", replicas=2), Service("db", "")], [make_container("web")])
    assert statuses(checks) == {"web-1": "ok", "web": "fail", "db": "fail"}
    assert [check.detail for check in checks if check.status == "fail"] == [
        "1 of 2 wanted are running",
        "0 of 1 wanted are running",
    ]


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"health": "unhealthy", "health_log": ("first", "no connection")}, "fail", "unhealthy: no connection"),
        ({"health": "unhealthy"}, "fail", "unhealthy"),
        ({"health": "starting"}, "warn", "starting"),
        ({"state": "paused"}, "fail", "paused"),
        ({"state": "exited", "exit_code": 137, "oom_killed": True}, "fail", "exited, exit code 137, out of memory"),
        ({"state": "created", "error": "port taken"}, "fail", "port taken"),
        ({"restarts": 3, "started": 99_990.0}, "warn", "restarted 3 times, last 10 s ago"),
        ({"restarts": 3, "started": 10.0}, "ok", "restarted 3 times"),
    ],
)
def test_a_container_in_trouble(make_stack, make_container, changes, status, words):
    (check,) = containers(make_stack, [Service("web", "")], [make_container("web", **changes)])
    assert check.status == status
    assert words in check.detail


def test_one_shot_services(make_stack, make_container):
    migrate = Service("migrate", "", one_shot=True, labels={"ops.job": "migration"})
    assert statuses(containers(make_stack, [migrate], [])) == {"migrate": "fail"}
    done = make_container("migrate", state="exited", health="")
    assert statuses(containers(make_stack, [migrate], [done])) == {"migrate-1": "ok"}
    failed = make_container("migrate", state="exited", health="", exit_code=1)
    assert statuses(containers(make_stack, [migrate], [failed])) == {"migrate-1": "fail"}


def test_containers_nobody_wants(make_stack, make_container):
    assert statuses(containers(make_stack, [], [make_container("grafana")])) == {"grafana-1": "warn"}


# ── the whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def quiet(monkeypatch):
    """Nothing outside Docker is asked."""
    monkeypatch.setattr(edge, "_https", lambda _env, _hosts: [Check("https", "nginx", "ok", "200")])


def test_a_stopped_stack_is_one_sentence(env, quiet, monkeypatch, make_stack, make_container, capsys):
    monkeypatch.setattr(model, "load", lambda _env: make_stack(Service("web", "")))
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("web", state="exited")])
    result = health.report(env)
    assert not result.healthy
    health.show(result)
    sentence = "dev is not running: all 1 containers are stopped. Start it: invoke deploy --env dev\n"
    assert capsys.readouterr().out == sentence


def test_everything_is_asked_at_once(env, quiet, monkeypatch, make_container):
    own = ["web", "api", "auth-service", "notification-service", "shop"]
    services = [*own, "postgres-replica", "redis-primary", "rabbitmq"]
    test = {"build": {}, "healthcheck": {"test": ["CMD", "true"]}}
    document = {"name": "acme-dev", "services": {name: test if name in own else {} for name in services}}

    asked, everybody = set(), threading.Event()

    def answer(container, *_args, **_options):
        asked.add(container)
        if len(asked) == len(services):
            everybody.set()
        assert everybody.wait(30), "nobody else was asked meanwhile"
        raise OpsError("no answer")

    monkeypatch.setattr(model, "load", lambda _env: model.parse(document))
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container(name) for name in services])
    monkeypatch.setattr(engine, "exec_", answer)
    result = health.report(env)
    probes = [check for check in result.checks if check.detail == "no answer"]
    assert len(probes) == len(services)
    assert all(check.status == "fail" for check in probes)


def test_a_probe_with_an_unexpected_answer_fails_alone(env, quiet, monkeypatch, make_stack, make_container):
    monkeypatch.setattr(
        model, "load", lambda _env: make_stack(Service("postgres-primary", "", labels={"ops.tier": "data"}))
    )
    monkeypatch.setattr(engine, "containers", lambda _env: [make_container("postgres-primary")])
    monkeypatch.setattr(engine, "exec_", lambda *_a, **_o: engine.Completed((), 0, "NOTICE: what?\n", ""))
    result = health.report(env)
    failed = [check for check in result.checks if check.status == "fail"]
    assert [(check.name, check.target) for check in failed] == [
        ("postgres", "failover"),
        ("postgres", "postgres-primary"),
    ]
    assert failed[1].detail.startswith("unexpected answer")


def test_a_configuration_that_does_not_resolve_is_an_error_not_a_report(env, quiet, monkeypatch, make_container):
    def broken(_env):
        raise OpsError("The Compose files do not resolve.")

    monkeypatch.setattr(model, "load", broken)
    for state in ("running", "exited"):
        monkeypatch.setattr(engine, "containers", lambda _env, s=state: [make_container("web", state=s)])
        with pytest.raises(OpsError, match="do not resolve"):
            health.report(env)


def test_the_json_form_is_stable():
    result = Report("dev", {"Host": (Check("disk", "docker", "warn", "10 %", 0.01234),)}, 0.5)
    assert health.as_json(result) == {
        "environment": "dev",
        "healthy": True,
        "seconds": 0.5,
        "checks": [{"name": "disk", "target": "docker", "status": "warn", "detail": "10 %", "seconds": 0.012}],
    }


def test_the_table_groups_and_counts(capsys):
    groups = {
        "Containers": (Check("container", "web-1", "ok", "healthy"), Check("container", "web-2", "warn", "starting")),
        "Services": (Check("ready", "web-1", "fail", "unready: [red]api[/] missing", 0.1),),
    }
    health.show(Report("dev", groups, 0.3))
    output = capsys.readouterr().out
    assert "Containers" in output and "Services" in output
    assert "unready: [red]api[/] missing" in output
    assert output.splitlines()[-1] == "dev is unhealthy: 1 ok, 1 warning, 1 failed (0.3 s)"
