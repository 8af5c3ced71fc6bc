"""Deploy: what it decides and asks, what it prints, and how it ends when it is refused, fails or is interrupted."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

from ops import engine
from ops.base import findings
from ops.base.errors import INTERRUPTED, NOT_READY, OUT_OF_MEMORY, REFUSED, OpsError
from ops.rollout import deploy, gate, plan, preflight
from ops.stack import images
from ops.stack.model import Port, Service
from ops.state import lock, releases


def surveyed(declared, *containers) -> deploy.Survey:
    hashes = {each.id: "hash" for each in containers}
    present = {each.image: "sha256:1" for each in declared.services.values()}
    return deploy.Survey(declared, hashes, list(containers), [], present, {})


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch):
    """No engine: every call that would reach it fails the test."""

    def unexpected(*args: object, **_options: object) -> None:
        raise AssertionError(args)

    monkeypatch.setattr(engine, "run", unexpected)
    monkeypatch.setattr(engine, "warn_overridden", lambda env: None)
    monkeypatch.setattr(lock, "hold", lambda *_args: nullcontext(SimpleNamespace(check=lambda: None)))
    return monkeypatch


@pytest.mark.parametrize("command", [deploy.deploy, deploy.update])
def test_nobody_has_agreed_unless_they_say_so(env, quiet, command) -> None:
    agreed = []
    quiet.setattr(deploy.Deployment, "run", lambda self: agreed.append(self.assume_yes))
    quiet.setattr(deploy, "_fetch_newer", lambda _env: {})
    command(env)
    command(env, assume_yes=True)
    with deploy.deployment(env, "rollback") as work:
        agreed.append(work.assume_yes)
    assert agreed == [False, True, False]


def test_whoever_deploys_yields_to_what_serves(env, quiet) -> None:
    quiet.setattr(deploy.Deployment, "run", lambda self: None)
    wanted = []
    quiet.setattr(os, "getpriority", lambda which, who: 3)
    quiet.setattr(os, "setpriority", lambda *args: wanted.append(args))
    deploy.deploy(env)
    quiet.setattr(os, "getpriority", lambda which, who: 15)
    deploy.deploy(env)
    assert wanted == [(os.PRIO_PROCESS, 0, 10), (os.PRIO_PROCESS, 0, 15)]


def test_nothing_to_change(env, make_stack, make_container, quiet, capsys) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared, make_container("web")))
    deploy.deploy(env)
    assert capsys.readouterr().out.startswith("nothing to change: 1 services healthy in dev (")


def test_nothing_to_change_but_unwell(env, make_stack, make_container, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    sick = make_container("web", state="restarting", health="", restarts=9)
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared, sick))
    quiet.setattr(engine, "containers", lambda env: [sick])
    quiet.setattr(engine, "logs", lambda *_args: ["boom"])
    quiet.setattr(gate, "LOOK_SECONDS", 0.01)
    env.values["DEPLOY_TIMEOUT"] = "0"
    with pytest.raises(OpsError, match=r"web was not healthy within 0 s \(it is restarting\)"):
        deploy.deploy(env)


def test_refusal_touches_nothing(env, make_stack, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1"))
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared))
    quiet.setattr(deploy.Deployment, "_prepare", lambda self, _seen: False)
    quiet.setattr(preflight, "run", lambda *_args: [findings.Check("disk", findings.FAILED, "full", "Make room.")])
    with pytest.raises(OpsError, match="Nothing was started") as caught:
        deploy.deploy(env)
    assert caught.value.code == REFUSED


@pytest.mark.parametrize(
    ("touched", "state"), [(False, "nothing was changed"), (True, "1 containers are healthy, 1 are not")]
)
def test_interruption_is_one_sentence(env, make_stack, make_container, quiet, touched: bool, state: str) -> None:
    def interrupted(self: deploy.Deployment) -> None:
        self.doing, self.touched = "building images", touched
        raise KeyboardInterrupt

    containers = [make_container("web"), make_container("api", state="created"), make_container("migrate")]
    # A scheduled job waits for its time.
    containers += [make_container("report", state="exited", health=""), make_container("tidy", state="created")]
    quiet.setattr(deploy.Deployment, "run", interrupted)
    quiet.setattr(
        deploy.model,
        "load",
        lambda env: make_stack(
            Service("migrate", "x", one_shot=True, labels={"ops.job": "migration"}),
            Service("report", "x", one_shot=True, labels={"ops.schedule": "0 3 * * *"}),
            Service("tidy", "x", one_shot=True, labels={"ops.schedule": "0 4 * * *"}),
        ),
    )
    quiet.setattr(engine, "containers", lambda env: containers)
    with pytest.raises(OpsError) as caught:
        deploy.deploy(env)
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == f"Interrupted while building images: {state}."
    assert caught.value.remedy == "`invoke deploy --env dev` continues from here."


def test_a_release_keeps_the_images_that_were_not_built_here(env, make_container, quiet) -> None:
    quiet.setattr(engine, "containers", lambda env: [make_container(name, image_id=f"sha256:{name}") for name in found])
    found = {
        "web": {"image": "acme/web:1", "build": {"context": "."}},
        "blog": {"image": "ghost:6"},
        "cache": {"image": "redis:8", "labels": {"ops.tier": "data"}},
    }
    kept: list[object] = []
    quiet.setattr(images, "keep", lambda _env, running: kept.append(running))
    quiet.setattr(releases, "revision", lambda _folder: "")
    work = deploy.Deployment(env, SimpleNamespace(check=None))
    with work.released({"name": "acme-dev", "services": found}, [], {}, "deploy"):
        pass
    assert kept == [{"blog": "sha256:blog"}]
    assert releases.history(env)[-1].images == {"web": "sha256:web", "blog": "sha256:blog"}


def test_a_failure_gives_tags_back_and_is_noted_although_that_fails(env, make_stack, make_container, quiet) -> None:
    web, noted = make_container("web", image_id="sha256:old", image="acme/web:1"), []
    own = [images.OwnImage("web", "acme/web:1", "acme/web:0123456789ab")]
    quiet.setattr(engine, "containers", lambda env: [web])
    quiet.setattr(images, "tag", lambda pairs: noted.append(list(pairs)))
    quiet.setattr(releases, "revision", lambda _folder: "")
    work = deploy.Deployment(env, SimpleNamespace(check=None))
    document = {"name": "acme-dev", "services": {}}
    with pytest.raises(OpsError, match=r"^The new one crashed\.$"), work.released(document, own, {}, "deploy"):
        raise OpsError("The new one crashed.")
    assert noted == [[("sha256:old", "acme/web:1")]]
    (release,) = releases.history(env)
    assert (release.result, release.reason) == (releases.BROKEN, "The new one crashed.")

    def away(env: object) -> None:
        raise OSError("the engine is away")

    quiet.setattr(engine, "containers", away)
    with pytest.raises(OpsError) as caught, work.released(document, own, {}, "deploy"):
        raise OpsError("The new one crashed.")
    assert caught.value.message == (
        "The new one crashed.\nTidying up failed too: giving images their tags back (the engine is away)."
    )
    assert releases.history(env)[-1].result == releases.BROKEN


def test_an_interruption_tells_what_was_not_undone(env, quiet) -> None:
    def interrupted(self: deploy.Deployment) -> None:
        self.doing, self.touched = "draining the old ones", True
        self.not_undone.append("removing the new containers (busy)")
        raise KeyboardInterrupt

    def broken(env: object) -> None:
        raise OpsError("The engine does not answer.")

    quiet.setattr(deploy.Deployment, "run", interrupted)
    quiet.setattr(deploy.model, "load", broken)
    with pytest.raises(OpsError) as caught:
        deploy.deploy(env)
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == (
        "Interrupted while draining the old ones: what runs now is not known (The engine does not answer.)."
        " The way back failed: removing the new containers (busy)."
    )


# ── a plan is executed exactly, phase by phase ────────────────────────────────────────────────────────────────────────

WEB = Service("web", "acme/web:1", built=True)
POSTGRES = Service("postgres-primary", "postgres:18", labels={"ops.tier": "data"}, networks=("database",))
REPLICA = Service(
    "postgres-replica",
    "postgres:18",
    labels={"ops.tier": "data"},
    networks=("database",),
    depends_on=("postgres-primary",),
)
MIGRATE = Service(
    "migrate", "acme/migrate:1", built=True, one_shot=True, labels={"ops.job": "migration"}, networks=("database",)
)
NGINX = Service("nginx", "nginx:1", labels={"ops.part": "edge"})
HAPROXY = Service("haproxy", "haproxy:3", labels={"ops.part": "edge"})
GRAFANA = Service("grafana", "grafana:13", labels={"ops.tier": "monitoring"}, profiles=("dashboards",))
KIBANA = Service("kibana", "kibana:9", labels={"ops.tier": "monitoring"}, profiles=("dashboards",))
STACK = (WEB, POSTGRES, REPLICA, MIGRATE, HAPROXY, NGINX, GRAFANA, KIBANA)


class Executed:
    """A deployment over an engine of lists; notes what it does. fails: names of services that do not become healthy."""

    def __init__(self, env, declared, containers, monkeypatch) -> None:
        self.declared, self.containers, self.done = declared, containers, []
        self.fails: dict[str, OpsError] = {}
        self.work = deploy.Deployment(env, SimpleNamespace(check=lambda: None), assume_yes=True)
        monkeypatch.setattr(engine, "containers", lambda _env: self.containers)
        monkeypatch.setattr(engine, "docker", lambda *args, **_options: self.done.append(" ".join(args)))
        monkeypatch.setattr(deploy.jobs, "run", lambda _env, name, remedy: self.done.append(f"run {name}: {remedy}"))
        monkeypatch.setattr(deploy.edge, "reload", lambda nginx: self.done.append(f"reload {nginx.name}"))
        monkeypatch.setattr(deploy.pool, "reload", lambda haproxy: self.done.append(f"reload {haproxy.name}"))
        monkeypatch.setattr(deploy.pool, "let_in", lambda found, *_args: self._note("let in", *found))
        monkeypatch.setattr(
            deploy.routes, "write", lambda _env, _stack, files: self.done.append(f"routes {files['site.conf']}")
        )
        monkeypatch.setattr(engine, "look", lambda ids: [each for each in self.containers if each.id in ids])
        monkeypatch.setattr(deploy, "primaries", lambda *_args: {"postgres-primary"})
        monkeypatch.setattr(deploy.failover, "one_after_the_other", self._nodes)
        monkeypatch.setattr(deploy, "bring_up", self._bring_up)
        monkeypatch.setattr(deploy, "Rollout", self._rollout)

    def _note(self, *words: object) -> None:
        self.done.append(" ".join(str(getattr(each, "name", each)) for each in words))

    def _nodes(self, _env, names, _declared):
        return [name for name in names if name.startswith("postgres-")]

    def _bring_up(self, _env, argv, judge, timeout, patient):
        assert timeout == 180
        names = [word for word in argv or () if word in self.declared.services]
        force = "replace " if "--force-recreate" in (argv or ()) else ""
        self.done.append(f"{force}{' '.join(names)}" if argv else f"all of {' '.join(judge.services)}")
        if argv:
            assert set(judge.services) == set(names) & set(self.declared.lasting)
        assert patient == (set(judge.services) <= {"grafana", "kibana"} and bool(judge.services))
        for name in judge.services:
            if name in self.fails:
                raise self.fails[name]
        return [gate.Row(name, 1, 1, "healthy", 7.0) for name in judge.services]

    def _rollout(self, _env, document, declared, moves, timeout, check, weights):
        names = ", ".join(str(each) for each in moves) + (f" weighing {weights}" if weights else "")
        return SimpleNamespace(run=lambda: self.done.append(f"roll out {names}"), doing="rolling", not_undone=[])

    def execute(self, *changed: str, **seen) -> list[str]:
        """Deploy these services, of a new configuration; what was done."""
        found = surveyed(self.declared, *self.containers)
        new = {each.id: "new" for each in self.containers if each.service in changed}
        decided = plan.decide(replace(found, hashes={**found.hashes, **new}, **seen))
        self.work._carry_out(decided)
        return self.done


@pytest.fixture
def running(env, make_stack, make_container, quiet) -> Executed:
    """The whole stack runs, as declared."""
    containers = [make_container(each.name) for each in STACK if not each.one_shot]
    containers.append(make_container("migrate", state="exited", health=""))
    entries = {each.name: {"build": {}} if each.built else {} for each in STACK}
    declared = replace(make_stack(*STACK), document={"name": "acme-dev", "services": entries})
    return Executed(env, declared, containers, quiet)


SITE = "all of web postgres-primary postgres-replica haproxy nginx"
MONITORING = "all of grafana kibana"
DATA = "all of postgres-primary postgres-replica"


def test_everything_at_once_in_its_order(running) -> None:
    assert running.execute(*(each.name for each in STACK)) == [
        *("replace postgres-replica", "replace postgres-primary", DATA),
        "run migrate: The services were not touched: the old version keeps running.",
        *("replace haproxy", "all of haproxy", "replace nginx", "all of nginx"),
        "roll out web (1 new, 1 to go)",
        *(SITE, "replace grafana", "replace kibana", MONITORING),
    ]
    assert running.work.touched
    assert running.work.took["postgres-replica"] == 7.0
    assert running.work.took["web"] < 7


def test_the_first_deploy_creates(running) -> None:
    running.containers = []
    assert running.execute() == [
        *("postgres-primary postgres-replica", DATA),
        "run migrate: The services were not touched.",
        *("haproxy", "all of haproxy", "nginx", "all of nginx"),
        *("web", SITE, "grafana kibana", MONITORING),
    ]


def test_what_compose_starts_must_get_requests(running, monkeypatch) -> None:
    """No rollout proves it: without this a service on another port is a green deploy and a dead site."""
    web = next(each for each in running.containers if each.service == "web")
    running.containers = [each for each in running.containers if each is not web]
    entry = {"labels": {"ops.port": "8000"}, "networks": {"serving": {"aliases": ["web.serving"]}}}
    services = {**running.declared.document["services"], "web": {"build": {}, **entry}}
    document = {**running.declared.document, "services": services, "networks": {"serving": {"name": "s"}}}
    running.declared = replace(running.declared, document=document)
    started = running._bring_up

    def bring_up(*args):
        if args[1] and "web" in args[1]:
            running.containers.append(replace(web, addresses={"s": "10.9.0.4"}))
        return started(*args)

    def await_choice(haproxy, wanted, seconds) -> None:
        assert (haproxy.service, seconds) == ("haproxy", 180)
        raise OpsError(f"HAProxy does not choose {wanted}")

    monkeypatch.setattr(deploy, "bring_up", bring_up)
    monkeypatch.setattr(deploy.pool, "await_choice", await_choice)
    with pytest.raises(OpsError, match=r"does not choose \{'web': \{'10.9.0.4'\}\}"):
        running.execute()


def test_a_restart_takes_the_configuration_that_it_is_given(running, monkeypatch) -> None:
    """As a rollback does: the Compose files declare something newer."""
    single = Service("web", "acme/web:1", replicas=2, labels={"ops.rollout": "restart"})
    lines: list[str] = []

    def bring_up(_env, argv, judge, timeout):
        assert (judge.services, timeout) == ({"web": single}, 180)
        lines.append(" ".join(argv))

    monkeypatch.setattr(deploy, "bring_up", bring_up)
    running.work.restart({"web": single}, running.declared)
    assert len(lines) == 1 and "--force-recreate --scale web=2 web" in lines[0]
    assert "--file" in lines[0] and "compose.json" in lines[0]


def test_what_is_stopped_is_replaced_together_after_what_is_new(running, make_container) -> None:
    running.containers = [
        make_container(name, state="exited", health="") for name in ("postgres-primary", "postgres-replica", "nginx")
    ]
    done = running.execute("postgres-primary", "postgres-replica")
    assert done[:2] == ["replace postgres-primary postgres-replica", DATA]
    assert done[3:] == [
        *("haproxy", "all of haproxy", "nginx", "all of nginx"),
        *("web", SITE, "grafana kibana", MONITORING),
    ]


def test_migrations_wait_for_the_data_tier_although_it_does_not_change(running) -> None:
    assert running.execute("migrate")[:2] == [
        DATA,
        "run migrate: The services were not touched: the old version keeps running.",
    ]


def test_the_data_tier_is_not_looked_at_when_only_a_service_changes(running) -> None:
    assert running.execute("web") == ["roll out web (1 new, 1 to go)", SITE, MONITORING]


def test_nginx_reloads_before_the_rollout(running) -> None:
    files = {"nginx": {"edge.conf": "b"}}
    assert running.execute("web", files=files)[:2] == ["reload acme-dev-nginx-1", "roll out web (1 new, 1 to go)"]


OLD_ROUTES = {"site.conf": "old", "pools.cfg": "old"}
NEW_ROUTES = {"site.conf": "new", "pools.cfg": "new"}


def test_changed_routes_are_written_before_they_are_read(running) -> None:
    told = {"routes": OLD_ROUTES, "declared_routes": NEW_ROUTES}
    assert running.execute("web", **told)[:4] == [
        *("routes new", "reload acme-dev-haproxy-1", "reload acme-dev-nginx-1", "roll out web (1 new, 1 to go)"),
    ]


def test_routes_that_are_refused_are_taken_back(running, monkeypatch) -> None:
    """A restart would read them."""
    told = {"routes": OLD_ROUTES, "declared_routes": NEW_ROUTES}

    def refuse(_nginx: object) -> None:
        raise OpsError("nginx refuses its new configuration")

    monkeypatch.setattr(deploy.edge, "reload", refuse)
    with pytest.raises(OpsError, match="refuses its new"):
        running.execute("web", **told)
    assert running.done == ["routes new", "reload acme-dev-haproxy-1", "routes old", "reload acme-dev-haproxy-1"]


@pytest.fixture
def watched(running, monkeypatch) -> Executed:
    """The running stack with Prometheus in place of Grafana; new metrics are told by a reload."""
    declared = {
        **running.declared.services,
        "prometheus": replace(running.declared.services["grafana"], name="prometheus"),
    }
    del declared["grafana"]
    document = running.declared.document
    running.declared = replace(
        running.declared,
        services=declared,
        document={**document, "services": {**document["services"], "prometheus": {}}},
    )
    running.containers = [
        replace(each, service="prometheus", name="acme-dev-prometheus-1") if each.service == "grafana" else each
        for each in running.containers
    ]
    monkeypatch.setattr(deploy.routes, "write", lambda _env, _stack, files: running.done.append(f"write {files}"))
    monkeypatch.setattr(deploy.prometheus, "reload", lambda each: running.done.append(f"reload {each.name}"))
    monkeypatch.setattr(running.work, "_bring_up", lambda doing, *_args, **_options: running.done.append(doing))
    return running


METRICS = {"routes": {"services.yml": "old"}, "declared_routes": {"services.yml": "new"}}


def test_prometheus_is_told_by_a_reload(watched) -> None:
    assert watched.execute(**METRICS) == [
        *("starting the services", "write {'services.yml': 'new'}", "reload acme-dev-prometheus-1"),
        "starting monitoring",
    ]
    assert watched.work.unwell == ()


def test_metrics_that_prometheus_refuses_are_a_warning_and_are_tried_again(watched, monkeypatch, capsys) -> None:
    def refuse(_prometheus: object) -> None:
        raise OpsError("Prometheus refuses its new configuration")

    monkeypatch.setattr(deploy.prometheus, "reload", refuse)
    assert watched.execute(**METRICS)[1:] == [
        *("write {'services.yml': 'new'}", "write {'services.yml': 'old'}", "starting monitoring"),
    ]
    assert watched.work.unwell == ("prometheus",)
    assert "monitoring is not complete. Prometheus refuses" in capsys.readouterr().err.replace("\n", " ")


def test_an_existing_project_gets_its_balancer_before_anything_is_rolled_out(running) -> None:
    """Its containers are let in before nginx looks for them there."""
    pool = {"build": {}, "labels": {"ops.port": 8000}, "networks": {"serving": {"aliases": ["web.serving"]}}}
    services = {**running.declared.document["services"], "web": pool}
    running.declared = replace(
        running.declared, document={**running.declared.document, "services": services, "networks": {"serving": {}}}
    )
    running.containers = [each for each in running.containers if each.service != "haproxy"]
    assert running.execute("web", "nginx", declared_routes=NEW_ROUTES)[:7] == [
        *("routes new", "haproxy", "all of haproxy", "let in acme-dev-web-1", "replace nginx", "all of nginx"),
        "roll out web (1 new, 1 to go)",
    ]


def test_what_nothing_declares_is_stopped_and_removed_last(running, make_container) -> None:
    running.containers += [make_container("mail"), make_container("old", ports=("80",))]
    assert running.execute() == [
        *("stop acme-dev-old-1", "rm --force acme-dev-old-1", SITE, MONITORING),
        *("stop acme-dev-mail-1", "rm --force acme-dev-mail-1"),
    ]


def test_what_an_interruption_left_is_removed_or_renamed(running, make_container) -> None:
    running.containers += [make_container("web", id="new", name="0123456789ab_acme-dev-web-1", state="created")]
    running.containers[4] = make_container("nginx", name="0123456789ab_acme-dev-nginx-1")
    assert running.execute()[:3] == ["stop new", "rm --force new", "rename acme-dev-nginx-1 acme-dev-nginx-1"]


def test_a_part_of_monitoring_that_fails_is_a_warning(running, make_container, capsys) -> None:
    running.fails["grafana"] = OpsError("grafana stopped: out of memory, its limit is too low.", code=OUT_OF_MEMORY)
    running.containers[5] = make_container("grafana", state="restarting", health="")
    assert running.execute("web", "grafana")[-1] == "replace grafana"
    said = capsys.readouterr()
    assert "warning: The site is up, but its monitoring is not complete. grafana stopped: out of memory" in said.err
    assert "warning: grafana is not healthy (restarting). See: invoke logs --service grafana --env dev" in said.err
    assert "kibana" not in said.err
    assert running.work._healthy(running.declared) == "6 services healthy, monitoring incomplete (grafana)"


def test_a_part_of_monitoring_that_is_gone_is_named(running, capsys) -> None:
    running.fails["grafana"] = OpsError("grafana has 0 of 1 containers.")
    del running.containers[5]
    running.execute()
    assert "warning: grafana is not healthy (waiting)" in capsys.readouterr().err
    assert running.work.unwell == ("grafana",)


def test_a_part_of_the_site_that_fails_is_an_error(running) -> None:
    running.fails["nginx"] = OpsError("nginx is unhealthy.", code=NOT_READY)
    with pytest.raises(OpsError, match="nginx is unhealthy"):
        running.execute("nginx")


def test_a_lost_lock_is_no_matter_of_monitoring(running) -> None:
    def lost() -> None:
        if running.done[-1:] == ["replace grafana"]:
            raise OpsError("The lock is gone.")

    running.fails["grafana"] = OpsError("grafana is unhealthy.")
    running.work.held.check = lost
    with pytest.raises(OpsError, match="The lock is gone"):
        running.execute("grafana")


@pytest.mark.parametrize("phase", ["postgres-primary", "migrate", "nginx", "grafana"])
def test_without_the_lock_no_phase_begins(running, phase: str) -> None:
    def lost() -> None:
        raise OpsError("The lock is gone.")

    running.work.held.check = lost
    with pytest.raises(OpsError, match="The lock is gone"):
        running.execute(phase)
    assert running.done == []


def test_restarts_of_what_is_in_use_are_asked_for_once(env, running, quiet, capsys) -> None:
    running.containers = running.containers[:3]
    found = surveyed(running.declared, *running.containers)
    decided = plan.decide(replace(found, hashes=dict.fromkeys(found.hashes, "new")))
    work = deploy.Deployment(env, SimpleNamespace(check=None))
    quiet.setattr(deploy.console, "confirm", lambda question, yes: False)
    with pytest.raises(OpsError, match="Nothing that runs was changed"):
        work._agree(decided)
    assert "postgres-primary         new configuration" in capsys.readouterr().out
    quiet.setattr(deploy.console, "confirm", lambda question, yes: question == "Restart 2 of dev?")
    agreed = work._agree(decided)
    assert agreed == {"postgres-primary", "postgres-replica"}
    quiet.setattr(deploy.console, "confirm", lambda *_args: pytest.fail("asked twice"))
    assert work._agree(decided, agreed) == agreed


# ── the whole of it ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def whole(env, running, quiet, remembered):
    """Deploys with looks that are given one after the other; what was done."""
    done = running.done
    quiet.setattr(preflight, "run", lambda *args: done.append(f"check beside {args[3]}") or [])
    quiet.setattr(deploy.majors, "check", lambda *_args: [])
    quiet.setattr(deploy.Deployment, "_make_certificate", lambda self, _stack: bool(done.append("certificate")))
    quiet.setattr(deploy.Deployment, "_prepare", lambda self, _seen: bool(done.append("prepare")))
    quiet.setattr(images, "prune", lambda *_args: done.append("prune") or [])
    quiet.setattr(images, "build", lambda _env, own, _tick: done.append(f"build {own[0].service}"))
    quiet.setattr(images, "pull", lambda references, _tick: done.append(f"pull {' '.join(references)}") or {})
    quiet.setattr(images, "tag", lambda pairs: done.extend(f"tag {old} {new}" for old, new in pairs))
    quiet.setattr(releases, "revision", lambda _folder: "")
    quiet.setattr(deploy, "note", lambda *_args: done.append("notes"))

    def run(*looks: deploy.Survey) -> list[str]:
        left = list(looks)
        quiet.setattr(deploy, "survey", lambda _env: left.pop(0))
        quiet.setattr(lock, "hold", lambda *_args: nullcontext(running.work.held))
        deploy.deploy(env, assume_yes=True)
        assert not left
        return done

    return run


def seen(running, *changed: str, **told) -> deploy.Survey:
    found = surveyed(running.declared, *running.containers)
    hashes = {each.id: "new" if each.service in changed else "hash" for each in running.containers}
    return replace(found, hashes=hashes, **told)


def test_images_first_then_what_they_bring_then_one_more_look(env, running, whole, capsys) -> None:
    own = [images.OwnImage("web", "acme/web:1", "acme/web:0123456789ab")]
    before, built = seen(running, own=own), {**seen(running).image_ids, "acme/web:0123456789ab": "sha256:2"}
    after = seen(running, own=own, image_ids={**built, "acme/web:1": "sha256:2"})
    assert whole(before, after, seen(running)) == [
        *("prepare", "check beside {'web': 1}", "certificate", "build web"),
        *("roll out web (1 new, 1 to go)", SITE, MONITORING, "notes", "prune"),
    ]
    said = capsys.readouterr().out
    assert said.rstrip().endswith("nothing left to do")
    assert "dev is deployed: 7 services healthy" in said
    rows = [line.split()[:2] for line in said.splitlines()]
    assert ["web", "replaced"] in rows and ["nginx", "unchanged"] in rows
    assert any(line.startswith("web") and line.endswith("0.0 s") for line in said.splitlines())
    assert not any(line.startswith("nginx") and line.endswith(" s") for line in said.splitlines())
    (release,) = releases.history(env)
    assert (release.result, release.changes) == (releases.DEPLOYED, {"web": "its source or build settings changed"})


def test_one_look_is_enough_where_nothing_can_have_changed_since(running, whole, quiet) -> None:
    done = whole(seen(running, "web"), seen(running))
    assert done[:3] == ["prepare", "check beside {'web': 1}", "certificate"]
    assert "roll out web (1 new, 1 to go)" in done


def test_a_certificate_that_was_made_is_looked_at(running, whole, quiet) -> None:
    quiet.setattr(deploy.Deployment, "_make_certificate", lambda self, _stack: True)
    assert "roll out web (1 new, 1 to go)" not in whole(seen(running, "web"), seen(running), seen(running))


def test_pulls_and_names_images(running, whole) -> None:
    own = [images.OwnImage("web", "acme/web:1", "acme/web:0123456789ab")]
    present = {name: image for name, image in seen(running).image_ids.items() if name != "nginx:1"}
    first = seen(running, own=own, image_ids={**present, "acme/web:0123456789ab": "sha256:2"})
    done = whole(first, seen(running), seen(running))
    assert done[3:5] == ["pull nginx:1", "tag acme/web:0123456789ab acme/web:1"]


def test_an_image_that_cannot_be_had_is_refused_before_anything_is_touched(running, whole, quiet) -> None:
    quiet.setattr(images, "pull", lambda references, _tick: {"nginx:1": "no such host"})
    with pytest.raises(OpsError, match="no such host"):
        whole(seen(running, image_ids={}))
    assert not any(line.startswith(("roll out", "replace")) for line in running.done)


def test_a_restart_that_only_the_pulled_image_brings_is_asked_for(env, running, whole, quiet) -> None:
    """The image of a database that runs was removed by hand; the registry now has another one."""
    asked = []
    quiet.setattr(deploy.console, "confirm", lambda question, _yes: asked.append(question) or True)
    present = {name: image for name, image in seen(running).image_ids.items() if name != "postgres:18"}
    whole(
        seen(running, image_ids=present), seen(running, image_ids={**present, "postgres:18": "sha256:2"}), seen(running)
    )
    assert asked == ["Restart 2 of dev?"]


def test_a_job_of_a_killed_deploy_is_waited_for(running, whole, make_container, quiet) -> None:
    job = make_container("migrate", health="")
    running.containers[-1] = job
    quiet.setattr(engine, "look", lambda ids: [job] if ids == [job.id] else [])
    quiet.setattr(deploy.jobs, "finish", lambda _env, each: running.done.append(f"finish {each.name}"))
    first = seen(running)
    running.containers[-1] = make_container("migrate", state="exited", health="")
    done = whole(first, seen(running, "web"), seen(running))
    assert done[3:5] == ["finish acme-dev-migrate-1", "roll out web (1 new, 1 to go)"]


def test_a_job_of_a_killed_deploy_that_fails_runs_again(running, whole, make_container, quiet) -> None:
    def failing(_env: object, each: engine.Container) -> None:
        raise deploy.jobs.Failed(f"{each.service} failed.")

    running.containers[-1] = make_container("migrate", health="")
    quiet.setattr(engine, "look", lambda _ids: running.containers[-1:])
    quiet.setattr(deploy.jobs, "finish", failing)
    first = seen(running)
    running.containers[-1] = make_container("migrate", state="exited", health="", exit_code=1)
    again = seen(running)
    running.containers[-1] = make_container("migrate", state="exited", health="")
    assert any(line.startswith("run migrate") for line in whole(first, again, seen(running)))


def test_what_is_left_after_a_deploy_is_named(env, running, whole, capsys) -> None:
    with pytest.raises(OpsError) as caught:
        whole(seen(running, "web"), seen(running, "nginx"))
    assert caught.value.message == (
        "dev is deployed, but something has changed meanwhile. Left to do:\n  restart nginx: new configuration"
    )
    assert caught.value.remedy.endswith("invoke deploy --plan --env dev")
    assert releases.history(env)[-1].result == releases.DEPLOYED


def test_what_is_left_of_monitoring_is_a_warning(running, whole, capsys) -> None:
    whole(seen(running, "web"), seen(running, "grafana"))
    said = capsys.readouterr()
    assert "warning: Left to do, and it can wait:\n  replace grafana: new configuration" in said.err
    assert "nothing left to do" not in said.out


def test_a_canary_of_nothing_is_not_watched(env, make_stack, make_container, quiet, capsys) -> None:
    declared = make_stack(Service("web", "acme/web:1", has_health=True))
    quiet.setattr(deploy, "survey", lambda env: surveyed(declared, make_container("web")))
    quiet.setattr(deploy.model, "load", lambda env: declared)
    quiet.setattr(engine, "containers", lambda env: [make_container("web")])
    quiet.setattr(deploy.trial, "watch", lambda *_args: pytest.fail("watched"))
    deploy.deploy(env, canary=10, minutes=5)
    assert capsys.readouterr().out.startswith("nothing to change: 1 services healthy in dev (")


def test_who_interrupts_a_canary_is_told_how_it_goes_on(env, make_stack, make_container, quiet) -> None:
    declared = make_stack(Service("web", "acme/web:1"))

    def interrupted(*_args: object) -> str:
        raise KeyboardInterrupt

    quiet.setattr(deploy.Deployment, "run", lambda self: None)
    quiet.setattr(deploy.model, "load", lambda env: declared)
    quiet.setattr(engine, "containers", lambda env: [make_container("web")])
    quiet.setattr(deploy.trial, "of", lambda *_args: {"web": [make_container("web")]})
    quiet.setattr(deploy.trial, "watch", interrupted)
    with pytest.raises(OpsError, match="Interrupted while watching the canary") as caught:
        deploy.deploy(env, canary=10, minutes=5)
    assert caught.value.code == INTERRUPTED
    assert caught.value.remedy == "`invoke deploy --promote --env dev` continues from here."


# ── and what else there is ────────────────────────────────────────────────────────────────────────────────────────────


def test_addresses_to_open(env, make_stack) -> None:
    declared = make_stack(
        Service(
            "nginx", "nginx:1", labels={"ops.part": "edge"}, ports=(Port("127.0.0.1", 8080), Port("127.0.0.1", 8443))
        ),
        Service("mail", "mail:1", ports=(Port("127.0.0.1", 8025),)),
    )
    assert deploy.urls(env, declared) == [("site", "https://localhost:8443"), ("mail", "http://localhost:8025")]
    env.values.update(SSL_PORT="443", DOMAIN="example.com")
    assert deploy.urls(env, make_stack()) == [("site", "https://example.com")]


# ── update ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def updating(env, make_stack, quiet):
    """An update whose pulls fail as told; notes what it did."""
    declared = make_stack(
        Service("redis", "redis:8", labels={"ops.tier": "data"}),
        Service("nginx", "nginx:1", labels={"ops.part": "edge"}),
    )
    done: list[str] = []

    def run(failing: dict[str, str], present: dict[str, str]) -> list[str]:
        before = deploy.Survey(declared, {}, [], [], present, {})
        quiet.setattr(deploy, "survey", lambda env: before)
        quiet.setattr(images, "pull", lambda references, tick: done.append(f"pull {references}") or failing)
        quiet.setattr(engine, "image_ids", lambda references: {each: "sha256:new" for each in references})
        quiet.setattr(deploy.Deployment, "run", lambda self: done.append(self.command))
        deploy.update(env)
        return done

    run.done = done
    return run


OLD = {"redis:8": "sha256:old", "nginx:1": "sha256:new"}


def test_update_shows_old_and_new(updating, capsys) -> None:
    assert updating({}, OLD) == ["pull ['redis:8', 'nginx:1']", "update"]
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["redis:8", "old", "new"] in rows
    assert not any(row[:1] == ["nginx:1"] for row in rows)


def test_update_goes_on_with_what_is_there_and_says_so_at_the_end(updating) -> None:
    with pytest.raises(OpsError, match="could not be pulled; what is deployed uses the ones on this machine") as caught:
        updating({"redis:8": "no such host"}, OLD)
    assert caught.value.code == 1
    assert updating.done[-1] == "update"


def test_update_stops_when_an_image_is_nowhere(updating) -> None:
    with pytest.raises(OpsError, match="not on this machine and could not be pulled"):
        updating({"redis:8": "no such host"}, {"nginx:1": "sha256:new"})
    assert "update" not in updating.done
