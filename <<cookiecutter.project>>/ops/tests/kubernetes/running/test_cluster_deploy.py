"""A deploy to a cluster: what it does and in which order, what it says, and how it ends when something goes wrong."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from ops import engine
from ops.base.environments import Environment
from ops.base.errors import CRASHED, INTERRUPTED, MIGRATION, NOT_READY, USAGE, OpsError
from ops.base.findings import FAILED, Check
from ops.engine import kubectl
from ops.engine.kubectl import Place
from ops.kubernetes import deploy, export, gate, plan, preflight, running, scale
from ops.parts import provision
from ops.stack import images, model, registry
from ops.stack.images import OwnImage
from ops.stack.model import Stack
from ops.state import lock, releases

from .conftest import DOCUMENT, metadata

Make = Callable[..., dict[str, Any]]
LOOP = {"waiting": {"reason": "CrashLoopBackOff"}}
CRASH = {"terminated": {"exitCode": 3, "reason": "Error"}}


class Namespace:
    """A namespace whose controllers are done at once; done: what was changed in it. A workload whose image ends with
    `:broken` gets a pod that crashes, and such a job fails. lost: whether the API server is away."""

    def __init__(self, pod: Make) -> None:
        self.objects: dict[plan.Key, dict[str, Any]] = {}
        self.done: list[str] = []
        self.lost = False
        self._pod = pod

    def apply(self, _at: Place, objects: Sequence[kubectl.Object], dry_run: bool = False) -> None:
        if self.lost:
            raise OpsError("The cluster of test does not answer.")
        for each in objects:
            settled = _settled(copy.deepcopy(dict(each)))
            if settled == self.objects.get(plan.key(each)):
                continue
            note = f"apply {each['kind']} {each['metadata']['name']}"
            self.done.append(f"{note} as {_image(each)}" if each["kind"] in plan.WORKLOADS else note)
            self.objects[plan.key(each)] = settled

    def delete(self, _at: Place, kind: str, *names: str, wait: bool = False) -> None:
        for name in names:
            self.done.append(f"delete {kind} {name}")
            gone = kind.lower(), name
            self.objects = {key: each for key, each in self.objects.items() if (key[0].lower(), key[1]) != gone}

    def find(self, _at: Place, kind: str, name: str, namespaced: bool = True) -> dict[str, Any] | None:
        assert namespaced == (kind != "namespace")
        return next((each for key, each in self.objects.items() if (key[0].lower(), key[1]) == (kind, name)), None)

    def items(self, _at: Place, kinds: Sequence[str], selector: str = "") -> list[dict[str, Any]]:
        pods = [self._pod_of(each) for each in self.objects.values() if each["kind"] in plan.WORKLOADS]
        wanted = [each for each in self.objects.values() if f"{each['kind'].lower()}s" in {*map(_plural, kinds)}]
        return [*wanted, *(pods if "pods" in kinds and not selector.startswith("job-name") else ())]

    def _pod_of(self, workload: dict[str, Any]) -> dict[str, Any]:
        name = workload["metadata"]["name"]
        if _image(workload).endswith(":broken"):
            return self._pod(name, state=LOOP, last=CRASH, restarts=3, ready=False)
        return self._pod(name)

    def applied(self, *kinds: str) -> list[str]:
        """What was applied of some kinds."""
        return [each for each in self.done if each.split()[:2] in [["apply", kind] for kind in kinds]]


def _plural(kind: str) -> str:
    return kind.partition(".")[0]


def _image(workload: kubectl.Object) -> str:
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


def _settled(object: dict[str, Any]) -> dict[str, Any]:
    """An object after the controllers have done what they can."""
    if object["kind"] == plan.JOB:
        condition = "Failed" if _image(object).endswith(":broken") else "Complete"
        return {**object, "status": {"conditions": [{"type": condition, "status": "True"}]}}
    if object["kind"] not in plan.WORKLOADS:
        return object
    wanted = 0 if _image(object).endswith(":broken") else object["spec"]["replicas"]
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), wanted)
    return {**object, "status": {"observedGeneration": 1, **counts}}


@pytest.fixture
def stack() -> Stack:
    grafana = {"image": "grafana:13", "labels": {"ops.tier": "monitoring"}}
    standby = {"image": "postgres:18", "labels": {"ops.stateful": "postgres"}}
    services = {**DOCUMENT["services"], "grafana": grafana, "postgres-replica": standby}
    return model.parse({**DOCUMENT, "services": services})


class Site:
    """A namespace, what is declared for it, and a deploy of the one to the other."""

    def __init__(self, env: Environment, stack: Stack, namespace: Namespace) -> None:
        self.env, self.stack, self.namespace = env, stack, namespace
        self.wanted: list[dict[str, Any]] = []
        self.secrets: list[dict[str, Any]] = []
        self.more: dict[str, Any] = {}

    def declare(self, *objects: dict[str, Any]) -> None:
        """Declare objects, in place of those of the same kind and service."""
        changed = {(each["kind"], each["metadata"]["labels"].get("app.kubernetes.io/name")) for each in objects}
        kept = [
            each
            for each in self.wanted
            if (each["kind"], each["metadata"]["labels"].get("app.kubernetes.io/name")) not in changed
        ]
        self.wanted = [*kept, *objects]

    def see(self, _env: Environment) -> plan.Seen:
        """What a survey would find."""
        live = {name: each for name, each in self.namespace.objects.items() if each["kind"] != plan.NAMESPACE}
        would = {plan.key(each): each for each in self.wanted}
        return plan.Seen(
            *(Place("test", "acme-dev"), self.stack, tuple(self.wanted), tuple(self.secrets), live, would),
            containers=tuple(running.containers(self.env, self.stack)),
            **self.more,
        )

    def deploy(self, assume_yes: bool = False) -> list[str]:
        """Deploy, and return what was changed in the namespace."""
        self.namespace.done = []
        deploy.deploy(self.env, assume_yes)
        return self.namespace.done


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch, pod: Make) -> Namespace:
    found = Namespace(pod)
    for name in ("apply", "delete", "find", "items"):
        monkeypatch.setattr(kubectl, name, getattr(found, name))
    monkeypatch.setattr(engine, "logs", lambda *_args: ["boom"])
    monkeypatch.setattr(gate, "events", lambda *_args: [])
    found.objects["Namespace", "acme-dev"] = {"kind": "Namespace", "metadata": metadata("acme-dev")}
    return found


def workload(deployment: Make, service: str, image: str, wanted: int = 1, kind: str = "Deployment") -> dict[str, Any]:
    found = deployment(service, wanted, image)
    del found["status"]
    return {**found, "kind": kind}


def plain(kind: str, name: str, service: str = "") -> dict[str, Any]:
    return {"kind": kind, "metadata": metadata(name, service)}


def job(name: str, image: str = "acme/migrate:1") -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "migrate", "image": image}]}}
    return {"kind": "Job", "metadata": metadata(name, "migrate"), "spec": {"template": template}}


@pytest.fixture
def held() -> SimpleNamespace:
    return SimpleNamespace(check=lambda: None)


@pytest.fixture
def site(
    env: Environment,
    stack: Stack,
    namespace: Namespace,
    deployment: Make,
    held: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    """A site that is declared, and nothing of it is there yet."""
    found = Site(env, stack, namespace)
    cronjob = workload(deployment, "report", "acme/report:1")
    found.declare(
        plain("ConfigMap", "web-config-1", "web"),
        # Before the Job among the objects of the migration.
        plain("NetworkPolicy", "migrate", "migrate"),
        workload(deployment, "web", "acme/web:1", 2),
        *(workload(deployment, name, "postgres:18", 1, "StatefulSet") for name in ("postgres-primary",)),
        job("migrate-1"),
        {**cronjob, "kind": "CronJob", "spec": {"jobTemplate": {"spec": cronjob["spec"]}}},
        workload(deployment, "grafana", "grafana:13"),
    )
    found.wanted.insert(3, workload(deployment, "postgres-replica", "postgres:18", 1, "StatefulSet"))
    found.secrets = [plain("Secret", "db-password")]
    monkeypatch.setattr(deploy, "survey", found.see)
    monkeypatch.setattr(preflight, "run", lambda *_args: [])
    monkeypatch.setattr(model, "load", lambda _env: stack)
    monkeypatch.setattr(lock, "hold", lambda *_args: nullcontext(held))
    monkeypatch.setattr(releases, "revision", lambda _folder: "")
    return found


@pytest.fixture
def deployed(site: Site, capsys: pytest.CaptureFixture[str]) -> Site:
    """The same, deployed once."""
    site.deploy()
    capsys.readouterr()
    return site


def results(env: Environment) -> list[str]:
    return [each.result for each in releases.history(env, busy=False)]


# ── what it does ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_first_deploy_makes_everything_in_its_order(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.deploy() == [
        "apply Secret db-password",
        *("apply ConfigMap web-config-1", "apply NetworkPolicy migrate"),
        *("apply StatefulSet postgres-replica as postgres:18", "apply StatefulSet postgres-primary as postgres:18"),
        *("delete job migrate-1", "apply Job migrate-1"),
        "apply Deployment web as acme/web:1",
        "apply CronJob report",
        "apply Deployment grafana as grafana:13",
    ]
    said = capsys.readouterr().out
    assert "\ndev is deployed: 4 services healthy (" in said and said.endswith("nothing left to do\n")
    (release,) = releases.history(site.env)
    assert (release.number, release.result, release.command) == (1, releases.DEPLOYED, "deploy")
    assert release.images == {"web": "acme/web:1", "report": "acme/report:1"}, "of what is the owner's"
    assert release.changes["web"] == "not in the cluster yet"


def test_a_new_deployment_has_no_release_yet(env: Environment, held: SimpleNamespace) -> None:
    assert deploy.Deployment(env, held).release == 0


def test_nothing_to_change_changes_nothing(deployed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    assert deployed.deploy() == []
    assert capsys.readouterr().out.startswith("nothing to change: 4 services healthy in dev (")
    assert results(deployed.env) == [releases.DEPLOYED]


def test_nothing_to_change_but_unwell(deployed: Site, namespace: Namespace) -> None:
    namespace.objects["Deployment", "web"]["status"]["availableReplicas"] = 0
    deployed.env.values["DEPLOY_TIMEOUT"] = "0"
    with pytest.raises(OpsError, match="web was not healthy within 0 s") as caught:
        deployed.deploy()
    assert caught.value.code == NOT_READY


def test_what_is_named_by_its_content_goes_when_no_pod_uses_it_any_more(
    deployed: Site, namespace: Namespace, deployment: Make
) -> None:
    gone = plain("Service", "old")
    namespace.objects["Service", "old"] = gone
    deployed.declare(plain("ConfigMap", "web-config-2", "web"), workload(deployment, "web", "acme/web:2", 2))
    deployed.declare(job("migrate-2", "acme/migrate:2"))
    assert deployed.deploy() == [
        "apply ConfigMap web-config-2",
        *("delete job migrate-2", "apply Job migrate-2"),
        "apply Deployment web as acme/web:2",
        "delete Service old",
        *("delete ConfigMap web-config-1", "delete Job migrate-1"),
    ]


def test_a_rollout_asks_nobody(deployed: Site, deployment: Make) -> None:
    deployed.declare(workload(deployment, "web", "acme/web:2", 2))
    assert "apply Deployment web as acme/web:2" in deployed.deploy()
    assert results(deployed.env) == [releases.DEPLOYED, releases.DEPLOYED]


def test_a_restart_of_what_holds_data_is_agreed_to_first(
    deployed: Site, deployment: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.declare(workload(deployment, "postgres-primary", "postgres:19", 1, "StatefulSet"))
    with pytest.raises(OpsError, match=r"Restart 1 of dev\? This needs confirmation") as caught:
        deployed.deploy()
    assert caught.value.code == USAGE
    assert "postgres-primary" in capsys.readouterr().out
    monkeypatch.setattr(deploy.console, "confirm", lambda _question, yes: yes)
    with pytest.raises(OpsError, match=r"^Nothing that runs was changed\.$"):
        deployed.deploy()
    assert deployed.namespace.done == [] and results(deployed.env) == [releases.DEPLOYED]
    assert "apply StatefulSet postgres-primary as postgres:19" in deployed.deploy(assume_yes=True)


def test_images_are_built_and_pushed_before_anything_is_touched(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    web, api = (OwnImage(name, f"r.example.com/{name}:1", f"r.example.com/{name}:0f") for name in ("web", "api"))
    done: list[Any] = []
    monkeypatch.setattr(images, "build", lambda _env, own, _tick: done.append((own, [*site.namespace.done])))
    monkeypatch.setattr(registry, "push", lambda names, _tick: done.append((names, [*site.namespace.done])))
    monkeypatch.setattr(deploy.Deployment, "_look_again", lambda self: None)
    site.more = {"unbuilt": (web,), "unpushed": (web, api)}
    site.deploy()
    assert done == [((web,), []), (["r.example.com/web:0f", "r.example.com/api:0f"], [])]


def test_what_the_services_own_is_made_in_the_parts_that_lack_it(
    deployed: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Any] = []
    needs = [
        provision.Need("redis", "web", ("user web is missing",)),
        provision.Need("postgres", "web", ("role web is missing",)),
        provision.Need("rabbitmq", "report", ("nothing is known yet",), later=True),
    ]
    monkeypatch.setattr(provision, "provide", lambda _env, _owned, found, parts: made.append((len(found), parts)))
    monkeypatch.setattr(deploy.Deployment, "_look_again", lambda self: None)
    deployed.more = {"needed": tuple(needs)}
    deployed.deploy()
    assert [parts for _, parts in made] == [{"redis", "postgres"}, {"rabbitmq"}]
    assert all(count for count, _ in made), "it asks the pods that run"
    said = capsys.readouterr().out
    assert "provisioning postgres and redis for web\n" in said and "provisioning rabbitmq for report\n" in said


def test_what_differs_after_a_deploy_is_told(deployed: Site, deployment: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has changed the files, or the cluster, meanwhile."""
    deployed.declare(workload(deployment, "web", "acme/web:2", 2))
    tidy = deploy.Deployment._tidy

    def meanwhile(self: deploy.Deployment, seen: plan.Seen) -> None:
        tidy(self, seen)
        deployed.declare(workload(deployment, "web", "acme/web:3", 2))

    monkeypatch.setattr(deploy.Deployment, "_tidy", meanwhile)
    with pytest.raises(
        OpsError, match=r"dev is deployed, but something has changed meanwhile. Left to do:\n  roll out"
    ):
        deployed.deploy()


# ── when something goes wrong ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_check_that_fails_refuses_before_anything_is_touched(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "run", lambda *_args: [Check("rights", FAILED, "may not", "Ask.")])
    with pytest.raises(OpsError, match="Nothing was started"):
        site.deploy()
    assert site.namespace.done == [] and results(site.env) == []


@pytest.fixture
def broken(deployed: Site, deployment: Make) -> Site:
    """A deployed site for which a new version is declared, which crashes."""
    deployed.declare(workload(deployment, "web", "acme/web:broken", 2))
    return deployed


def test_a_version_that_crashes_is_taken_back(broken: Site, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OpsError, match="web restarted 3 times with exit code 3") as caught:
        broken.deploy()
    assert caught.value.code == CRASHED and "failed too" not in caught.value.message
    assert broken.namespace.applied("Deployment") == [
        "apply Deployment web as acme/web:broken",
        "apply Deployment web as acme/web:1",
    ]
    assert "going back to the release before: web\n" in capsys.readouterr().out
    assert results(broken.env) == [releases.DEPLOYED, releases.BROKEN]
    assert releases.history(broken.env)[-1].reason == "web restarted 3 times with exit code 3."


def test_a_way_back_that_fails_is_told(broken: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new version is still declared in the cluster: nobody may take the old one for restored."""
    look = gate.Gate.look

    def then_away(self: gate.Gate) -> list[engine.Container]:
        broken.namespace.lost = True
        return look(self)

    monkeypatch.setattr(gate.Gate, "look", then_away)
    with pytest.raises(OpsError) as caught:
        broken.deploy()
    assert caught.value.code == CRASHED
    assert caught.value.message.startswith("web restarted 3 times with exit code 3.")
    assert caught.value.message.endswith(
        "\nThe way back failed too: going back to the release before (The cluster of test does not answer.)."
    )
    assert caught.value.remedy.endswith("run the same command again. See what runs: invoke status --env dev")


def test_a_first_version_that_crashes_has_no_way_back(site: Site, deployment: Make) -> None:
    site.declare(workload(deployment, "web", "acme/web:broken", 2))
    with pytest.raises(OpsError, match="web restarted"):
        site.deploy()
    assert site.namespace.applied("Deployment") == ["apply Deployment web as acme/web:broken"]


def test_ctrl_c_during_a_rollout_takes_it_back(broken: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: gate.Gate) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gate.Gate, "look", interrupted)
    with pytest.raises(OpsError) as caught:
        broken.deploy()
    assert caught.value.code == INTERRUPTED
    assert caught.value.message == "Interrupted while rolling out: 4 pods are healthy, 0 are not."
    assert broken.namespace.done[-1] == "apply Deployment web as acme/web:1"
    assert results(broken.env)[-1] == releases.INTERRUPTED


def test_a_migration_that_fails_leaves_the_services_alone(
    deployed: Site, deployment: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed.declare(job("migrate-2", "acme/migrate:broken"), workload(deployment, "web", "acme/web:2", 2))
    with pytest.raises(OpsError, match="migrate failed") as caught:
        deployed.deploy()
    assert caught.value.code == MIGRATION
    assert deployed.namespace.applied("Deployment") == []
    # It stays, so that its log can be read, and is made anew by the next deploy.
    assert ("Job", "migrate-2") in deployed.namespace.objects
    deployed.declare(job("migrate-2"), workload(deployment, "web", "acme/web:2", 2))
    done = deployed.deploy()
    assert done.index("delete job migrate-2") < done.index("apply Job migrate-2")


def test_ctrl_c_during_a_migration_stops_it(deployed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next deploy must not meet it in the middle of an ALTER."""

    def interrupted(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(deploy, "finish", interrupted)
    deployed.declare(job("migrate-2"))
    with pytest.raises(OpsError, match="Interrupted while running migrate"):
        deployed.deploy()
    assert deployed.namespace.done[-2:] == ["apply Job migrate-2", "delete job migrate-2"]


def test_a_migration_that_cannot_be_stopped_is_told(deployed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object, **_options: object) -> None:
        raise OpsError("The cluster of test does not answer.")

    def late(*_args: object) -> None:
        monkeypatch.setattr(kubectl, "delete", away)
        raise OpsError("migrate did not end within 600 s and was stopped.", "Give it more time.", MIGRATION)

    monkeypatch.setattr(deploy, "finish", late)
    deployed.declare(job("migrate-2"))
    with pytest.raises(OpsError, match="did not end within 600 s") as caught:
        deployed.deploy()
    assert "failed too: stopping migrate (The cluster of test does not answer.)" in caught.value.message
    assert caught.value.remedy == "Give it more time. See what runs: invoke status --env dev"


def test_monitoring_that_does_not_start_is_a_warning(
    deployed: Site, deployment: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.declare(workload(deployment, "grafana", "grafana:broken"))
    deployed.deploy()
    assert "The site is up, but its monitoring is not complete. grafana restarted" in capsys.readouterr().err
    assert results(deployed.env)[-1] == releases.DEPLOYED


def test_a_deploy_that_has_lost_its_lock_changes_nothing_more(deployed: Site, deployment: Make, held: Any) -> None:
    deployed.declare(workload(deployment, "web", "acme/web:2", 2))

    def gone() -> None:
        raise OpsError("The lock acme-dev is gone.")

    held.check = gone
    with pytest.raises(OpsError, match="The lock acme-dev is gone"):
        deployed.deploy()
    assert deployed.namespace.done == []


def test_scheduled_jobs_and_what_has_ended_are_no_pods_that_should_be_healthy(
    site: Site, pod: Make, held: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cronjob = {
        "kind": "CronJob",
        "metadata": metadata("report", "report"),
        "spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [{"image": "acme/report:1"}]}}}}},
    }
    there = [
        cronjob,
        *(pod(), pod(ready=False), pod("postgres-primary")),
        pod("migrate", state={"terminated": {"exitCode": 0}}),
        pod("web", state={"terminated": {"exitCode": 0}}),
    ]
    monkeypatch.setattr(kubectl, "items", lambda *_args: there)
    assert deploy.Deployment(site.env, held).standing() == "2 pods are healthy, 1 are not"


def test_who_cannot_ask_the_cluster_says_so(site: Site, held: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object) -> None:
        raise OpsError("The cluster of test does not answer.")

    monkeypatch.setattr(kubectl, "items", away)
    words = "what runs now is not known (The cluster of test does not answer.)"
    assert deploy.Deployment(site.env, held).standing() == words


# ── waiting for a job ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[float]:
    """A clock that has long been running, of which every look takes ten seconds."""
    found = itertools.count(100_000, 10.0)
    monkeypatch.setattr(deploy, "time", SimpleNamespace(monotonic=lambda: next(found), sleep=lambda _seconds: None))
    return found


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch, pod: Make) -> Callable[[int], None]:
    """A migration that has ended after so many looks."""

    def at_work(looks: int) -> None:
        states: Iterator[dict[str, Any]] = itertools.chain(
            itertools.repeat({}, looks), itertools.repeat({"conditions": [{"type": "Complete", "status": "True"}]})
        )
        monkeypatch.setattr(kubectl, "find", lambda *_args: {**job("migrate-1"), "status": next(states)})
        monkeypatch.setattr(kubectl, "items", lambda *_args: [pod("migrate")])
        monkeypatch.setattr(engine, "logs", lambda *_args: ["step 3 of 7"])

    return at_work


@pytest.mark.usefixtures("clock")
def test_a_migration_has_the_time_that_it_is_given(
    env: Environment, stack: Stack, held: Any, migration: Callable[[int], None]
) -> None:
    env.values["MIGRATION_TIMEOUT"] = "600"
    said: list[str] = []
    migration(20)
    deploy.finish(env, stack, "migrate", "migrate-1", held, said.append)
    assert len(said) == 20 and said[0] == "10 s: step 3 of 7"
    migration(1000)
    with pytest.raises(OpsError, match="migrate did not end within 600 s and was stopped") as caught:
        deploy.finish(env, stack, "migrate", "migrate-1", held, said.append)
    assert caught.value.code == MIGRATION and "MIGRATION_TIMEOUT" in caught.value.remedy


@pytest.mark.usefixtures("clock")
def test_without_a_limit_a_migration_may_take_for_ever(
    env: Environment, stack: Stack, held: Any, migration: Callable[[int], None]
) -> None:
    migration(1000)
    deploy.finish(env, stack, "migrate", "migrate-1", held, lambda _said: None)


def test_a_migration_that_somebody_removes_is_told(
    env: Environment, stack: Stack, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubectl, "find", lambda *_args: None)
    with pytest.raises(OpsError, match="The Job migrate-1 was removed while it ran") as caught:
        deploy.finish(env, stack, "migrate", "migrate-1", held, print)
    assert caught.value.code == MIGRATION


# ── the lock and the namespace ────────────────────────────────────────────────────────────────────────────────────────


def test_who_does_not_say_that_they_wait_does_not_wait_for_the_lock(
    site: Site, held: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(lock, "hold", lambda _env, purpose, wait: asked.append((purpose, wait)) or nullcontext(held))
    with deploy.deployment(site.env, "scale web 3") as work:
        assert not work.assume_yes
    monkeypatch.setattr(deploy.Deployment, "run", lambda self: asked.append(self.assume_yes))
    deploy.deploy(site.env, True, 600)
    assert asked == [("scale web 3 --env dev", 0), ("deploy --env dev", 600), True]


def test_the_namespace_is_made_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = site.namespace.objects.pop(("Namespace", "acme-dev"))
    monkeypatch.setattr(export, "render", lambda _env: SimpleNamespace(objects=[plain("ConfigMap", "x"), made]))
    monkeypatch.setattr(deploy.Deployment, "run", lambda self: None)
    assert site.deploy() == ["apply Namespace acme-dev"]
    assert capsys.readouterr().out == "made the namespace acme-dev in test\n"
    assert site.deploy() == []


# ── another number of pods ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scalable(deployed: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A deployed site that scales at once; nothing else is asked of kubectl."""

    def run(_at: Place, *words: str, **_options: object) -> None:
        verb, name, before, wanted = words
        web = deployed.namespace.objects["Deployment", "web"]
        assert (verb, name, before) == ("scale", "deployment/web", f"--current-replicas={web['spec']['replicas']}")
        if deployed.namespace.lost:
            raise OpsError("The cluster of test does not answer.")
        web["spec"]["replicas"] = int(wanted.partition("=")[2])
        deployed.namespace.objects["Deployment", "web"] = _settled(web)

    monkeypatch.setattr(kubectl, "run", run)
    monkeypatch.setattr(model, "replica_settings", lambda _env: {"web": "WEB_REPLICAS"})
    return deployed


def test_the_number_is_declared_when_the_pods_are_ready(scalable: Site, capsys: pytest.CaptureFixture[str]) -> None:
    scale.scale(scalable.env, "web", "5")
    assert "WEB_REPLICAS=5\n" in scalable.env.env_file.read_text()
    assert "web: 2 -> 5, all healthy (" in capsys.readouterr().out
    release = releases.history(scalable.env)[-1]
    assert (release.result, release.command) == (releases.SCALED, "scale web 5")
    scale.scale(scalable.env, "web", "5")
    assert capsys.readouterr().out.endswith("nothing to change: 5 web healthy\n")


def test_a_number_that_cannot_be_had_neither_stays_nor_is_declared(
    scalable: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_args: object) -> None:
        raise OpsError("web was not healthy within 180 s.", "Fix the cause.", NOT_READY)

    monkeypatch.setattr(deploy.Deployment, "await_ready", late)
    with pytest.raises(OpsError, match=r"^web was not healthy within 180 s\.$"):
        scale.scale(scalable.env, "web", "5")
    assert scalable.namespace.objects["Deployment", "web"]["spec"]["replicas"] == 2
    assert "WEB_REPLICAS=2\n" in scalable.env.env_file.read_text()

    def late_and_away(*_args: object) -> None:
        scalable.namespace.lost = True
        late()

    monkeypatch.setattr(deploy.Deployment, "await_ready", late_and_away)
    with pytest.raises(OpsError, match="web was not healthy within 180 s") as caught:
        scale.scale(scalable.env, "web", "5")
    assert caught.value.code == NOT_READY
    assert "failed too: going back to 2 web (The cluster of test does not answer.)" in caught.value.message


def test_what_does_not_run_is_only_declared(scalable: Site, capsys: pytest.CaptureFixture[str]) -> None:
    del scalable.namespace.objects["Deployment", "web"]
    scale.scale(scalable.env, "web", "3")
    assert "WEB_REPLICAS=3\n" in scalable.env.env_file.read_text()
    assert "`invoke deploy --env dev` starts 3" in capsys.readouterr().out
