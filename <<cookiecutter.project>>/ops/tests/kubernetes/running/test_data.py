"""What backup and restore do to a namespace: against objects that are changed as the API server would."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from ops.base.errors import REFUSED, USAGE, OpsError
from ops.data import restore
from ops.data.backup import Parts
from ops.engine import kubectl
from ops.kubernetes import byhand, commands, data, inside, marks
from ops.kubernetes.data import WORK, Cluster
from ops.stack import model
from ops.stack.model import Service, Stack
from ops.stack.owned import Owned, Volume
from ops.state import swap

from .conftest import DOCUMENT, metadata

Make = Callable[..., dict[str, Any]]


def merged(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """What a merge patch makes of an object."""
    found = dict(old)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, Mapping):
            found[key] = merged(found.get(key) or {}, value)
        else:
            found[key] = value
    return found


class Api:
    """A namespace. Pods of a workload that is scaled to 0 are gone at once, and a pod that is applied runs."""

    def __init__(self) -> None:
        self.objects: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    def items(self, _at: Any, kinds: tuple[str, ...], selector: str = "") -> list[dict[str, Any]]:
        wanted = {each.partition(".")[0].removesuffix("s") for each in kinds}
        terms = [each.partition("=") for each in selector.split(",")]
        return [
            each
            for each in self.objects
            if each["kind"].lower() in wanted
            and all(
                marks.labels(each).get(key) == value if equals else key in marks.labels(each)
                for key, equals, value in terms
            )
        ]

    def run(self, _at: Any, *words: str, **_options: Any) -> Any:
        if words[:2] == ("rollout", "status"):
            return SimpleNamespace(ok=True)
        assert words[0] == "patch"
        kind, _, name = words[1].partition("/")
        (number,) = (
            number
            for number, each in enumerate(self.objects)
            if (each["kind"].lower(), each["metadata"]["name"]) == (kind, name)
        )
        change = json.loads(words[words.index("--patch") + 1])
        self.objects[number] = merged(self.objects[number], change)

    def apply(self, _at: Any, objects: list[dict[str, Any]], dry_run: bool = False) -> None:
        self.objects += objects

    def delete(self, _at: Any, _kind: str, *names: str, wait: bool = False) -> None:
        self.deleted += names
        self.objects = [each for each in self.objects if each["metadata"]["name"] not in names]

    def find(self, _at: Any, kind: str, name: str) -> dict[str, Any] | None:
        return next((each for each in self.objects if each["metadata"]["name"] == name), None)

    def spec(self, name: str) -> Any:
        return next(each for each in self.objects if each["metadata"]["name"] == name)["spec"]

    def notes(self) -> dict[str, str]:
        noted = (
            (each, (each["metadata"].get("annotations") or {}).get("stack/replicas-before")) for each in self.objects
        )
        return {each["metadata"]["name"]: note for each, note in noted if note}


def workload(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    container = {"name": name, "image": f"acme/{name}:1", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    template = {"metadata": {"labels": {}}, "spec": {"containers": [container], "securityContext": {"runAsUser": 999}}}
    body = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    return {"kind": kind, "metadata": metadata(name, name), "spec": {**body, **spec}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    found = Api()
    for name in ("items", "run", "apply", "delete", "find"):
        monkeypatch.setattr(kubectl, name, getattr(found, name))
    monkeypatch.setattr(inside, "await_start", lambda *_: None)
    claim = [{"metadata": {"name": "data"}}]
    found.objects = [
        workload("Deployment", "web", replicas=2),
        workload("Deployment", "watcher", replicas=1),
        workload("Deployment", "retired", replicas=1),
        workload("StatefulSet", "postgres-primary", replicas=1, volumeClaimTemplates=claim),
        workload("CronJob", "report", schedule="0 3 * * *"),
        workload("CronJob", "backup-verify", schedule="0 4 * * *"),
        workload("CronJob", "tidy", schedule="0 0 1 1 *", suspend=True),
    ]
    return found


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> Stack:
    document = {
        **DOCUMENT,
        "services": {
            **DOCUMENT["services"],
            "watcher": {"image": "acme/watcher:1", "labels": {"ops.part": "edge"}},
            "backup-verify": {"image": "acme/backup:1", "restart": "no", "labels": {"ops.part": "backup"}},
            "nginx": {"image": "nginx:1", "labels": {"ops.part": "edge"}},
        },
    }
    found = model.parse(document)
    monkeypatch.setattr(model, "load", lambda _env: found)
    return found


@pytest.fixture
def site(env, api: Api, declared: Stack) -> Iterator[Cluster]:
    with Cluster(env) as found:
        yield found


# ── what runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_uses_the_data_stops_and_comes_back_as_it_was(site: Cluster, api: Api, declared: Stack) -> None:
    running = [each for each in site.clients(declared, []) if each.running]
    assert {each.service for each in running} == {"web", "retired", "report", "backup-verify"}, (
        "also what nothing declares any more; not what neither writes nor is a job that a person starts"
    )
    site.stop(running)
    assert (api.spec("web")["replicas"], api.spec("retired")["replicas"], api.spec("watcher")["replicas"]) == (0, 0, 1)
    assert api.spec("report")["suspend"] and api.spec("backup-verify")["suspend"]
    site.start(running)
    assert (api.spec("web")["replicas"], api.spec("retired")["replicas"]) == (2, 1)
    assert not api.spec("report")["suspend"] and api.spec("tidy")["suspend"]
    assert api.notes() == {}


def test_whoever_comes_after_a_command_that_was_killed_knows_how_many_there_were(
    env, site: Cluster, api: Api, declared: Stack
) -> None:
    begun = [each.id for each in site.clients(declared, []) if each.running]
    site.stop([each for each in site.clients(declared, []) if each.id in begun])
    later = Cluster(env)
    again = [each for each in later.clients(declared, []) if each.id in begun]
    assert {each.state for each in again} == {"exited"}
    later.stop(again)
    later.start(again)
    assert api.spec("web")["replicas"] == 2 and api.notes() == {}


def test_a_note_of_an_earlier_command_is_not_believed_while_the_workload_runs(
    site: Cluster, api: Api, declared: Stack
) -> None:
    """Somebody has scaled it since: as many as run now come back."""
    (web,) = [each for each in api.objects if each["metadata"]["name"] == "web"]
    web["metadata"]["annotations"] = {"stack/replicas-before": "7"}
    running = [each for each in site.clients(declared, []) if each.service == "web"]
    site.stop(running)
    assert api.notes()["web"] == "2"
    site.start(running)
    assert api.spec("web")["replicas"] == 2


def test_what_runs_goes_on_as_it_is(site: Cluster, api: Api, declared: Stack) -> None:
    before = json.dumps(api.objects)
    site.start(site.clients(declared, []))
    assert json.dumps(api.objects) == before


def test_a_member_that_is_stopped_is_known_by_the_pod_it_will_have(site: Cluster, api: Api) -> None:
    (member,) = [each for each in site.containers() if each.service == "postgres-primary"]
    assert member.id == "kubernetes:test/acme-dev/postgres-primary-0/postgres-primary" and not member.running
    site.stop([member])
    assert api.spec("postgres-primary")["replicas"] == 0
    site.start([member])
    assert api.spec("postgres-primary")["replicas"] == 1


def test_pods_that_do_not_go_are_named(site: Cluster, api: Api, pod: Make, declared: Stack, monkeypatch) -> None:
    monkeypatch.setattr(data, "_GONE_SECONDS", 0.0)
    api.objects.append(pod("web", "web-1"))
    with pytest.raises(OpsError, match="Still there after 0 s: web-1"):
        site.stop([each for each in site.clients(declared, []) if each.service == "web"])


def test_jobs_of_the_owner_end_and_those_of_the_stack_go_on(
    site: Cluster, api: Api, declared: Stack, pod: Make
) -> None:
    def job(name: str, service: str, active: int) -> dict[str, Any]:
        return {"kind": "Job", "metadata": metadata(name, service), "status": {"active": active}}

    person = pod("", "web-run-1", labels={marks.ONE_OFF: "web"})
    api.objects += [
        job("report-1", "report", 1),
        job("report-0", "report", 0),
        job("verify-1", "backup-verify", 1),
        person,
    ]
    site.stop_jobs(declared)
    assert api.deleted == ["report-1", "web-run-1"]


def test_a_migration_has_run_although_its_pod_is_gone(site: Cluster, api: Api, make_container) -> None:
    api.objects.append({"kind": "Job", "metadata": metadata("migrate-abc", "migrate"), "status": {}})
    assert {"web", "migrate"} <= {*site.ran([make_container("web")])}


def test_a_migration_runs_with_the_database_that_it_is_told(
    site: Cluster, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = workload("CronJob", "migrate")["spec"]["jobTemplate"]["spec"]
    job["template"]["spec"]["containers"][0]["env"] = [
        {"name": "A", "value": "1"},
        {"name": "DATABASE_NAME", "value": "x"},
    ]
    api.objects.append({"kind": "Job", "metadata": metadata("migrate-abc", "migrate"), "spec": job})
    ran = []

    def to_its_end(_env: Any, _at: Any, pod: dict[str, Any]) -> tuple[int, str]:
        ran.append(pod)
        return 1, "column exists"

    monkeypatch.setattr(byhand, "to_its_end", to_its_end)
    done = site.migrate("migrate", {"DATABASE_NAME": "new"})
    assert not done.ok and done.stdout == "column exists"
    (made,) = ran
    assert made["spec"]["containers"][0]["env"] == [
        {"name": "A", "value": "1"},
        {"name": "DATABASE_NAME", "value": "new"},
    ]
    assert WORK in marks.labels(made) and marks.ONE_OFF not in marks.labels(made)


def test_workloads_that_do_not_get_ready_are_named(
    site: Cluster, api: Api, declared: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def run(_at: Any, *words: str, **_options: Any) -> Any:
        asked.append(words[2])
        return SimpleNamespace(ok=words[2] != "deployment/web")

    monkeypatch.setattr(kubectl, "run", run)
    with pytest.raises(OpsError, match="Not healthy after 180 s: web") as caught:
        site.wait_healthy(site.clients(declared, []))
    assert asked == ["deployment/web", "deployment/retired"], "a scheduled job has nothing to become"
    assert "invoke logs web" in caught.value.remedy


def test_a_restore_that_was_killed_while_it_swapped_is_undone(
    env, api: Api, declared: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had scaled to 0 comes back with as many pods as before, once Redis has its old files."""
    data_tier = {"image": "redis:8", "labels": {"ops.tier": "data"}}
    nodes = {name: data_tier for name in ("redis-primary", "redis-replica")}
    stack = model.parse({**declared.document, "services": {**declared.document["services"], **nodes}})
    monkeypatch.setattr(model, "load", lambda _env: stack)
    for name in nodes:
        api.objects.append(
            workload("StatefulSet", name, replicas=1, volumeClaimTemplates=[{"metadata": {"name": "data"}}])
        )
    killed = Cluster(env)
    begun = [each for each in killed.clients(stack, []) if each.running]
    killed.stop(begun)
    killed.stop([each for each in killed.containers() if each.service in nodes])
    assert (api.spec("web")["replicas"], api.spec("redis-primary")["replicas"]) == (0, 0)

    done: list[str] = []
    note = swap.Swap(True, "1", cache="redis-primary", services=tuple(each.id for each in begun))
    monkeypatch.setattr(swap, "begun", lambda _env: note)
    monkeypatch.setattr(swap, "end", lambda _env: done.append("ended"))
    monkeypatch.setattr(restore, "find", lambda env, found, cache: Parts(stack, Owned(), None, cache(env, found), None))
    monkeypatch.setattr(restore, "run_in", lambda node, argv, _what: done.append(f"{node.service}: {argv[-1]}"))
    monkeypatch.setattr(restore.redis, "resume_failover", lambda _all: done.append("sentinels act"))

    def script(line: list[str], what: str) -> None:
        assert (api.spec("redis-primary")["replicas"], api.spec("web")["replicas"]) == (0, 0)
        done.append(f"{what}: {line[-1]}")

    monkeypatch.setattr(byhand, "checked", script)
    with Cluster(env) as site:
        assert restore.undo_killed(env, site=site)
    assert "mv .before appendonlydir" in done[0] and done[0].startswith("redis-primary: ")
    assert done[1:] == [
        "redis-replica: rm -rf /data/appendonlydir",
        "sentinels act",
        "redis-primary: rm -rf /data/.restore",
        "ended",
    ]
    assert [api.spec(name)["replicas"] for name in ("redis-primary", "redis-replica", "web", "retired")] == [1, 1, 2, 1]
    assert not api.spec("report")["suspend"] and api.notes() == {}
    assert not [each for each in api.objects if each["kind"] == "Pod"], "no pod of the command is left"


# ── files ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_volume_is_reached_by_a_pod_with_its_claim_as_the_user_of_its_service(
    site: Cluster, api: Api, declared: Stack
) -> None:
    volume = Volume("web_uploads", "acme-dev_web_uploads", "web")
    line = site.in_volume(declared, volume, "ls")
    assert line[-3:] == ["sh", "-c", "set -eu; cd /volume; ls"] and "--stdin" in line
    assert site.in_volume(declared, volume, "ls") == line, "the same pod again"
    (holder,) = [each for each in api.objects if each["kind"] == "Pod"]
    (files,) = holder["spec"]["containers"]
    assert files["image"] == "nginx:1" and files["volumeMounts"] == [{"name": "web-uploads", "mountPath": "/volume"}]
    assert holder["spec"]["securityContext"] == {"runAsUser": 999}
    assert marks.SERVICE not in marks.labels(holder), "no Service sends it requests"
    # As the API server would demand.
    (near,) = holder["spec"]["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert 1 <= near["weight"] <= 100
    assert near["podAffinityTerm"]["labelSelector"] == {"matchLabels": {marks.SERVICE: "web"}}
    quantities = [each for kind in files["resources"].values() for each in kind.values()]
    assert quantities and all(re.fullmatch(r"\d+(m|Mi)", each) for each in quantities)
    site.start([])
    assert holder["metadata"]["name"] in api.deleted, "its claim is free before the service starts"


def test_the_claims_of_a_member_are_reached_while_it_is_stopped(site: Cluster, api: Api, monkeypatch) -> None:
    ran = []
    monkeypatch.setattr(byhand, "checked", lambda line, what: ran.append((line[-1], what)))
    site.beside("postgres-primary", "ls /data")
    (pod,) = [each for each in api.objects if each["kind"] == "Pod"]
    assert pod["spec"]["volumes"] == [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data-postgres-primary-0"}}
    ]
    assert pod["spec"]["containers"][0]["command"] == ["sleep", "infinity"]
    assert ran == [("ls /data", "postgres-primary")]


def test_pods_of_a_command_are_removed_however_it_ends(env, api: Api, declared: Stack, monkeypatch) -> None:
    with pytest.raises(ZeroDivisionError), Cluster(env) as site:
        site._keep("x", site._member("postgres-primary"))
        (pod,) = [each for each in api.objects if each["kind"] == "Pod"]
        raise ZeroDivisionError
    assert api.deleted == [pod["metadata"]["name"]]

    def away(*_args: object, **_options: object) -> None:
        raise OpsError("The cluster of test does not answer.")

    monkeypatch.setattr(kubectl, "delete", away)
    with pytest.raises(ZeroDivisionError), Cluster(env) as site:
        site._keep("x", site._member("postgres-primary"))
        raise ZeroDivisionError


def test_pods_of_a_command_that_was_killed_are_removed_by_the_next(env, site: Cluster, api: Api) -> None:
    abandoned = Cluster(env)
    abandoned._keep("x", abandoned._member("postgres-primary"))
    (pod,) = [each for each in api.objects if each["kind"] == "Pod"]
    # By this label, which commands of another version know as well.
    assert marks.labels(pod)["stack/data-work"] == "x"
    site.remove_left()
    assert api.deleted == [pod["metadata"]["name"]]


# ── the part `backup` ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_part_that_is_not_exported_is_refused_with_what_to_add(site: Cluster, make_stack) -> None:
    left_out = Service("backup-verify", "", labels={"ops.kubernetes.omit": "backup.yml exports it"})
    with pytest.raises(OpsError, match="not in the cluster: backup.yml exports it") as caught:
        site.prepare(make_stack(left_out), print)
    assert caught.value.code == REFUSED and "deploy" in caught.value.remedy


def test_what_goes_on_by_itself_is_a_job_and_what_is_waited_for_a_pod(site: Cluster, api: Api, monkeypatch) -> None:
    jobs, lines = [], []

    def job(_env, _at, cronjob, arguments, _tick):
        jobs.append((cronjob["metadata"]["name"], arguments))
        return b"[]", [], 1

    def converse(line, _tick, _sink):
        lines.append(line[line.index("--") + 1 :])
        return b"{}", [], 0

    monkeypatch.setattr(byhand, "job", job)
    monkeypatch.setattr(data.part, "converse", converse)
    assert site.call(["verify"], print, attended=False, verdict=True) == []
    assert jobs == [("backup-verify", ["verify", "--json"])]
    assert site.call(["materialize", "latest", "--plan"], print) == {}
    assert lines == [["python3", "-m", "ops.recovery", "materialize", "latest", "--plan", "--attended", "--json"]]


@pytest.mark.parametrize("option", [{"into": "scratch"}, {"drop_scratch": True}, {"configuration": True}])
def test_what_only_one_host_restores_is_refused(env, option: dict[str, Any]) -> None:
    given = {
        **dict.fromkeys(("archive", "to", "only", "into", "target"), ""),
        **dict.fromkeys(
            ("drop_scratch", "undo", "configuration", "yes", "json", "other_environment", "keep_old"), False
        ),
    }
    with pytest.raises(OpsError, match="in place") as caught:
        commands.perform(env, "restore", {**given, "archive": "latest", **option}, [])
    assert caught.value.code == USAGE
