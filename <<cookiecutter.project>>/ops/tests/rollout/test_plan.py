"""What a deploy would do: which operations, in which order, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ops.parts.provision import Need
from ops.rollout import plan
from ops.rollout.observe import Survey
from ops.rollout.plan import Phase
from ops.stack import images
from ops.stack.model import Service, Stack
from ops.state.drift import NEW_CONFIGURATION

WEB = Service("web", "acme/web:dev", built=True, has_health=True)
NGINX = Service("nginx", "nginx:1", labels={"ops.part": "edge"})
HAPROXY = Service("haproxy", "haproxy:3", labels={"ops.part": "edge"})
POSTGRES = Service("postgres", "postgres:18", labels={"ops.tier": "data"}, networks=("database",))
MIGRATE = Service(
    "migrate", "acme/migrate:dev", built=True, one_shot=True, labels={"ops.job": "migration"}, networks=("database",)
)
GRAFANA = Service("grafana", "grafana:13", labels={"ops.tier": "monitoring"}, profiles=("dashboards",))
INDEX = Service("index", "curl:8", labels={"ops.tier": "monitoring"}, one_shot=True, profiles=("logging",))
SERVICES = (WEB, HAPROXY, NGINX, POSTGRES, MIGRATE, GRAFANA, INDEX)
PRESENT = {each.image: "sha256:1" for each in SERVICES}
OWN = images.OwnImage("web", "acme/web:dev", "acme/web:0123456789ab")


@pytest.fixture
def see(make_container):
    """What is seen when these things are as told; all else is as declared. changed: containers by service."""

    def run(**told) -> Survey:
        web = {"build": {"target": "production"}, "environment": {"LOG_LEVEL": "debug"}}
        document = {"services": {**{each.name: {} for each in SERVICES}, "web": web}}
        found = {each.name: [make_container(each.name)] for each in SERVICES}
        for job in ("migrate", "index"):
            found[job] = [make_container(job, state="exited", health="")]
        found.update(told.get("changed", {}))
        containers = [each for mine in found.values() for each in mine]
        declared = [replace(each, **told.get("declared", {}).get(each.name, {})) for each in SERVICES]
        return Survey(
            Stack("acme-dev", {each.name: each for each in declared}, document),
            {each.id: told.get("hashes", {}).get(each.service, "hash") for each in containers},
            containers,
            told.get("own", []),
            told.get("present", PRESENT),
            told.get("files", {}),
            routes=told.get("routes", {}),
            declared_routes=told.get("declared_routes", {}),
            needed=told.get("needed", ()),
            deployed=told.get("deployed", {}),
        )

    return run


@pytest.fixture
def decide(see):
    """The plan when these things are as told."""
    return lambda **told: plan.decide(see(**told))


def words(decided: plan.Plan) -> list[str]:
    return [f"{each.word} {each.subject}" for each in decided.operations]


def test_nothing_to_do(decide) -> None:
    assert decide().idle


def test_the_first_deploy_in_its_order(decide) -> None:
    decided = decide(changed=dict.fromkeys((each.name for each in SERVICES), []), own=[OWN], present={})
    assert words(decided) == [
        *("pull haproxy:3", "pull nginx:1", "pull postgres:18", "pull acme/migrate:dev", "pull grafana:13"),
        *("pull curl:8", "build web", "create postgres", "run migrate", "create haproxy", "create nginx"),
        *("create web", "create grafana", "run index"),
    ]
    assert [each.phase for each in decided.operations][7:] == [
        *(Phase.DATA_TIER, Phase.JOBS, Phase.EDGE, Phase.EDGE, Phase.SERVICES, Phase.MONITORING, Phase.MONITORING),
    ]
    assert decided.operations[6].causes == ("its image is not on this machine",)


def test_what_serves_is_rolled_out_and_the_rest_is_not(decide, make_container) -> None:
    web = make_container("web")
    hashes = dict.fromkeys(("web", "postgres", "nginx", "grafana", "migrate"), "new")
    decided = decide(hashes=hashes, changed={"web": [web]})
    assert words(decided) == ["restart postgres", "run migrate", "restart nginx", "roll out web", "replace grafana"]
    assert [each.subject for each in decided.operations if each.asks] == ["postgres", "nginx"]
    (step,) = decided.moves
    assert (step.service, step.fresh, step.leave) == (WEB, 1, (web,))
    assert [each.causes for each in decided.operations] == [(NEW_CONFIGURATION,)] * 5


def test_a_setting_is_the_cause(decide) -> None:
    decided = decide(hashes={"web": "new"}, deployed={"web": {"environment": {"LOG_LEVEL": "info"}}})
    assert [(each.word, each.causes) for each in decided.operations] == [("roll out", ("LOG_LEVEL: info → debug",))]


@pytest.mark.parametrize(
    ("deployed", "cause"),
    [
        ({}, "its source or build settings changed"),
        ({"web": {"build": {"target": "production"}}}, "its source changed"),
        ({"web": {"build": {"target": "dev"}}}, "build target dev → production"),
    ],
)
def test_a_source_is_the_cause(decide, deployed: dict, cause: str) -> None:
    decided = decide(own=[OWN], deployed=deployed)
    assert words(decided) == ["build web", "roll out web"]
    assert [each.causes for each in decided.operations] == [(cause,), (cause,)]


def test_an_image_that_somebody_removed_is_no_change_of_its_source(decide) -> None:
    present = {name: image for name, image in PRESENT.items() if name != "acme/web:dev"}
    decided = decide(own=[OWN], present=present, deployed={"web": {"build": {"target": "production"}}})
    assert words(decided) == ["build web", "roll out web"]
    assert {each.causes for each in decided.operations} == {("its image is not on this machine",)}


def test_an_image_that_was_built_before_gets_its_name_again(decide) -> None:
    decided = decide(own=[OWN], present={**PRESENT, OWN.content: "sha256:0"})
    assert words(decided) == ["tag web", "roll out web"]


def test_all_causes_are_told(decide, make_container) -> None:
    decided = decide(
        changed={"web": [make_container("web", 1), make_container("web", 2)]},
        hashes={"web": "new"},
        own=[OWN],
        files={"web": {"SECRET": "b"}},
    )
    (rollout,) = decided.every(plan.RollOut)
    assert rollout.causes == (
        NEW_CONFIGURATION,
        "its source or build settings changed",
        "SECRET changed",
        "2 -> 1",
    )
    assert rollout.cause == "new configuration and 3 more"


def test_more_containers(decide) -> None:
    decided = decide(declared={"web": {"replicas": 2}})
    assert [(each.word, each.phase, each.causes) for each in decided.operations] == [
        ("scale", Phase.ROLLOUT, ("1 -> 2",))
    ]


def test_a_service_that_is_switched_off_goes(decide) -> None:
    decided = decide(declared={"grafana": {"replicas": 0}}, hashes={"grafana": "new"})
    assert [(each.word, each.causes) for each in decided.operations] == [("scale", ("1 -> 0",))]


@pytest.mark.parametrize(("state", "word"), [("exited", "start"), ("created", "start")])
def test_what_does_not_serve_is_just_started(decide, make_container, state: str, word: str) -> None:
    decided = decide(changed={"web": [make_container("web", state=state, health="")]})
    assert [(each.word, each.phase) for each in decided.operations] == [(word, Phase.SERVICES)]


@pytest.mark.parametrize("state", ["exited", "restarting"])
def test_nobody_is_asked_about_what_is_not_in_use(decide, make_container, state: str) -> None:
    stopped = {name: [make_container(name, state=state, health="", restarts=3)] for name in ("postgres", "nginx")}
    decided = decide(changed=stopped, hashes={"postgres": "new", "nginx": "new"})
    assert words(decided) == ["replace postgres", "replace nginx"]
    assert not any(each.asks or each.running for each in decided.every(plan.Replace))


def test_a_file_of_nginx_is_a_reload_before_the_rollout(decide) -> None:
    files = {"nginx": {"edge.conf": "b"}}
    decided = decide(hashes={"web": "new"}, files=files)
    assert words(decided) == ["reload nginx", "roll out web"]


def test_a_job_that_still_runs_is_waited_for_first(decide, make_container) -> None:
    job = make_container("migrate", health="")
    decided = decide(changed={"migrate": [job]}, hashes={"migrate": "new", "postgres": "new"})
    assert words(decided) == ["wait for migrate", "restart postgres"]
    assert decided.every(plan.AwaitJob)[0].container == job.id
    assert decided.operations[0].phase in plan.FIRST


def test_a_job_of_monitoring_that_still_runs_holds_nobody_up(decide, make_container) -> None:
    assert decide(changed={"index": [make_container("index", health="")]}).idle


def test_what_nothing_declares_goes_last_unless_it_holds_a_port(decide, make_container) -> None:
    orphans = {
        "mail": [make_container("mail"), make_container("mail", 2)],
        "old": [make_container("old", ports=("80",))],
    }
    decided = decide(changed=orphans, hashes={"web": "new"})
    assert words(decided) == ["remove old", "roll out web", "remove mail"]
    assert decided.every(plan.Remove)[1].containers == ("acme-dev-mail-1", "acme-dev-mail-2")
    assert decided.operations[2].causes == ("nothing declares it any more",)


def test_what_an_interruption_left_is_tidied_up(decide, make_container) -> None:
    left = [
        make_container("web"),
        make_container("web", id="new", name="0123456789ab_acme-dev-web-1", state="created"),
    ]
    decided = decide(changed={"web": left, "grafana": [make_container("grafana", name="0123456789ab_grafana-1")]})
    assert words(decided) == ["remove web", "rename grafana"]
    assert decided.every(plan.Remove)[0].containers == ("new",)
    assert decided.every(plan.Rename)[0].name == "grafana-1"


def test_changed_routes_are_a_reload_of_both_readers(decide) -> None:
    both = {"site.conf": "b", "pools.cfg": "b"}
    told = {"routes": {"site.conf": "a", "pools.cfg": "a"}, "declared_routes": both}
    decided = decide(**told, hashes={"web": "new"})
    assert words(decided) == ["reload haproxy", "reload nginx", "roll out web"]
    assert decided.operations[0].cause == "the services' routes changed"
    # Whatever is made anew reads them anyhow.
    assert words(decide(**told, hashes={"nginx": "new"})) == ["reload haproxy", "restart nginx"]
    twice = decide(**told, files={"nginx": {"edge.conf": "b"}})
    assert twice.operations[1].causes == ("edge.conf changed", "the services' routes changed")


def test_who_reads_nothing_new_is_not_reloaded(decide) -> None:
    told = {"site.conf": "a", "pools.cfg": "a"}
    assert words(decide(routes=told, declared_routes={**told, "pools.cfg": "b"})) == ["reload haproxy"]


def test_new_metrics_are_a_reload_of_prometheus_after_everything_else(decide, make_container) -> None:
    declared = {"grafana": {"name": "prometheus"}}
    told = {"routes": {"services.yml": "a"}, "declared_routes": {"services.yml": "b"}}
    decided = decide(
        changed={"grafana": [make_container("prometheus")]}, hashes={"web": "new"}, declared=declared, **told
    )
    assert words(decided) == ["roll out web", "reload prometheus"]
    assert decided.operations[-1].phase == Phase.MONITORING
    assert decided.operations[-1].cause == "the services' metrics changed"


def test_a_changed_rule_is_a_reload_of_prometheus(decide, make_container) -> None:
    declared = {"grafana": {"name": "prometheus"}}
    told = {"changed": {"grafana": [make_container("prometheus")]}, "declared": declared}
    decided = decide(**told, files={"prometheus": {"rules/stack.yml": "b"}})
    assert words(decided) == ["reload prometheus"]
    assert decided.operations[0].phase == Phase.MONITORING
    assert words(decide(**told, files={"prometheus": {"start.sh": "b"}})) == ["replace prometheus"]


def test_the_edge_stands_before_anything_is_rolled_out(decide) -> None:
    decided = decide(changed={"haproxy": []}, hashes={"web": "new", "nginx": "new"})
    assert words(decided) == ["create haproxy", "restart nginx", "roll out web"]
    assert {each.phase for each in decided.operations[:2]} == {Phase.EDGE}


def test_what_serves_outside_the_pool_is_let_in(see, make_container) -> None:
    inside = {"acme_serving": "10.0.0.2"}
    web = [
        make_container("web", 1, addresses=inside),
        make_container("web", 2, addresses={"acme_backend": "10.0.1.3"}),
        make_container("web", 3, state="exited", health=""),
        make_container("web", 4, restart_policy="no"),  # on probation: not proven yet
    ]
    seen = see(changed={"web": web})
    pool = {"labels": {"ops.port": 8000}, "networks": {"serving": {"aliases": ["web.serving"]}}}
    document = {
        "services": {**seen.stack.document["services"], "web": pool},
        "networks": {"serving": {"name": "acme_serving"}},
    }
    stack = replace(seen.stack, document=document)
    joins = plan.decide(replace(seen, stack=stack)).every(plan.Join)
    assert [(each.subject, each.containers, each.phase) for each in joins] == [("web", (web[1].id,), Phase.EDGE)]
    # In the order in which they are carried out: HAProxy sees it before nginx asks HAProxy for it.
    moved = replace(seen, stack=stack, containers=[each for each in seen.containers if each.service != "haproxy"])
    moved = replace(moved, hashes={**moved.hashes, **{each.id: "new" for each in web[:1]}})
    assert words(plan.decide(moved))[:2] == ["create haproxy", "join web"]


def test_what_becomes_of_each_service(decide) -> None:
    found = decide(own=[OWN], hashes={"postgres": "new"}).of_services()
    assert {name: each.word for name, each in found.items()} == {"postgres": "restart", "web": "roll out"}


def test_what_services_own_is_made_before_the_data_tier_restarts_and_before_migrations(decide) -> None:
    """Rules of a new pg_hba.conf let in only who was made a member before."""
    needed = (
        Need("PostgreSQL", "web", ("role web may not connect yet",)),
        Need("RabbitMQ", "web", ("RabbitMQ does not answer yet",), later=True),
    )
    decided = decide(hashes={"postgres": "new", "migrate": "new"}, needed=needed)
    assert words(decided) == ["provision web", "restart postgres", "provision web", "run migrate"]
    assert [each.part for each in decided.every(plan.Provision)] == ["PostgreSQL", "RabbitMQ"]
    assert decided.operations[0].cause == "role web may not connect yet"


# ── scheduled jobs ────────────────────────────────────────────────────────────────────────────────────────────────────

REPORT = Service("report", "acme/report:dev", one_shot=True, labels={"ops.schedule": "0 3 * * *"})
MANUAL = Service("report", "acme/report:dev", one_shot=True, labels={"ops.job": "manual"})


def scheduled(see, service: Service, *containers, **told) -> plan.Plan:
    """The plan for a stack with a job, and these containers of it."""
    seen = see(**told)
    stack = Stack(
        "acme-dev",
        {**seen.stack.services, service.name: service},
        {"services": {**seen.stack.document["services"], service.name: {}}},
    )
    hashes = {**seen.hashes, **{each.id: told.get("hashes", {}).get(service.name, "hash") for each in containers}}
    return plan.decide(
        replace(
            seen,
            stack=stack,
            hashes=hashes,
            containers=[*seen.containers, *containers],
            image_ids={**seen.image_ids, service.image: "sha256:1"},
        )
    )


def test_a_scheduled_job_gets_a_container_and_is_not_started(see) -> None:
    decided = scheduled(see, REPORT)
    assert words(decided) == ["schedule report"]
    (operation,) = decided.every(plan.Schedule)
    assert (operation.phase, operation.containers) == (Phase.SCHEDULED_JOBS, ())


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "created", "health": "", "restart_policy": "no"},
        {"state": "exited", "health": "", "exit_code": 3, "restart_policy": "no"},
        {"state": "running", "health": ""},
    ],
)
def test_a_scheduled_job_that_is_as_declared_is_left_alone(see, make_container, changes: dict) -> None:
    """Also when its last run failed: a deploy does not repeat it."""
    assert scheduled(see, REPORT, make_container("report", **changes)).idle


def test_a_scheduled_job_that_changed_is_made_anew(see, make_container) -> None:
    old = make_container("report", state="exited", health="")
    decided = scheduled(see, REPORT, old, hashes={"report": "new"})
    (operation,) = decided.every(plan.Schedule)
    assert (operation.containers, operation.causes) == ((old.id,), (NEW_CONFIGURATION,))


@pytest.mark.parametrize("service", [MANUAL, replace(REPORT, replicas=0)])
def test_what_has_no_schedule_any_more_is_not_started_any_more(see, make_container, service: Service) -> None:
    old = make_container("report", state="exited", health="")
    decided = scheduled(see, service, old)
    assert words(decided) == ["remove report"]
    assert scheduled(see, service, make_container("report", state="running")).idle
