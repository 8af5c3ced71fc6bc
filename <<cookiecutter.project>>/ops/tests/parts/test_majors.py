"""Majors of PostgreSQL: what an image says, which services have a volume, and when the guard is asked."""

from __future__ import annotations

import pytest

from ops import engine
from ops.base import findings
from ops.base.errors import REFUSED, OpsError
from ops.parts.postgres import majors
from ops.parts.postgres.majors import Image, Server
from ops.stack.model import Stack

DOCUMENT = {
    "services": {
        "postgres-primary": {
            "user": "999:999",
            "entrypoint": ["bash", "/etc/postgresql/guard.sh", "primary", "docker-entrypoint.sh"],
            "volumes": [{"type": "volume", "source": "one", "target": "/var/lib/postgresql"}],
        },
        "postgres-replica": {
            "user": "999:999",
            "entrypoint": ["bash", "/etc/postgresql/guard.sh", "replica", "bash", "/etc/postgresql/replica.sh"],
            "volumes": [
                {"type": "bind", "source": "/somewhere", "target": "/etc/postgresql"},
                {"type": "volume", "source": "two", "target": "/var/lib/postgresql"},
            ],
        },
        "redis-primary": {"volumes": [{"type": "volume", "source": "three", "target": "/data"}]},
    },
    "volumes": {"one": {"name": "acme_one"}, "two": {"name": "acme_two"}, "three": {"name": "acme_three"}},
}
STACK = Stack("acme-dev", {}, DOCUMENT)
PRIMARY = Server("postgres-primary", "acme_one", "999:999", "primary")
REPLICA = Server("postgres-replica", "acme_two", "999:999", "replica")


@pytest.mark.parametrize(
    ("reference", "major"),
    [
        ("postgres:18.6", 18),
        ("postgres:18", 18),
        ("mirror.example:5000/hub/postgres:17.6-trixie", 17),
        ("postgres:19beta1", 19),
        ("postgres:17.6@sha256:0123", 17),
        ("postgres", 0),
        ("mirror.example:5000/postgres", 0),
        ("postgres:latest", 0),
        ("postgres@sha256:0123", 0),
    ],
)
def test_a_tag_promises_a_major(reference: str, major: int) -> None:
    assert majors.tagged_major(reference) == major


def test_an_image_says_more_than_its_tag() -> None:
    inspected = {"Config": {"Env": ["PATH=/bin", "PG_MAJOR=18", "PGDATA=/var/lib/postgresql/18/docker"]}}
    found = majors.described("mine:latest", inspected)
    assert found == Image("mine:latest", 18, "/var/lib/postgresql/18/docker", present=True)
    assert majors.described("other", {"Config": {"Env": None}}).major == 0


def test_servers_are_found_by_their_volume() -> None:
    assert majors.servers(STACK) == [PRIMARY, REPLICA]


def test_a_service_without_the_guard_counts_as_a_primary() -> None:
    services = {"db": {"volumes": [{"type": "volume", "source": "one", "target": "/var/lib/postgresql"}]}}
    (server,) = majors.servers(Stack("acme", {}, {**DOCUMENT, "services": services}))
    assert server.role == "primary"


def test_unusable_images() -> None:
    majors.refuse_unusable(Image("postgres:18", 18, "/var/lib/postgresql/18/docker", True))
    for image, words in (
        (Image("mine", 0, "", True), "does not say which major"),
        (Image("postgres:17", 17, "/var/lib/postgresql/data", True), "keeps its data in /var/lib/postgresql/data"),
    ):
        with pytest.raises(OpsError, match=words) as caught:
            majors.refuse_unusable(image)
        assert caught.value.code == REFUSED


@pytest.fixture
def engine_with(env, monkeypatch):
    """An engine with images by id, volumes by name, and what the guard says on each volume; returns who was asked."""
    guard = env.project_dir / majors.GUARD
    guard.parent.mkdir(parents=True)
    guard.write_text("guard")
    asked: list[str] = []

    def prepare(images: dict[str, int], volumes: dict[str, str]) -> list[str]:
        def inspect(names, kind="container"):
            if kind == "volume":
                return [{"Name": name} for name in names if name in volumes]
            config = {
                name: {"Env": [f"PG_MAJOR={major}", f"PGDATA={majors.folder_of(major)}"]}
                for name, major in images.items()
            }
            return [{"Id": name, "Config": config[name]} for name in dict.fromkeys(names) if name in images]

        def run(argv, **_options):
            name = next(volume for volume in volumes if f"{volume}:{majors.ROOT}:ro" in argv)
            asked.append(name)
            said = volumes[name]
            return engine.Completed(tuple(argv), 3 if said else 0, "", said)

        monkeypatch.setattr(engine, "inspect", inspect)
        monkeypatch.setattr(engine, "run", run)
        return asked

    env.values["POSTGRES_IMAGE"] = "postgres:18.6"
    return prepare


def running(make_container, image="postgres:17.6", **changes):
    return [make_container(name, image_id=image, **changes) for name in ("postgres-primary", "postgres-replica")]


def test_what_runs_well_on_the_same_major_is_not_looked_at(env, engine_with, make_container) -> None:
    asked = engine_with({"postgres:18.6": 18}, {"acme_one": "no", "acme_two": "no"})
    (check,) = majors.check(env, STACK, running(make_container, "postgres:18.6"))
    assert (check.status, asked) == (findings.OK, [])


def test_what_runs_badly_is_looked_at(env, engine_with, make_container) -> None:
    asked = engine_with({"postgres:18.6": 18}, {"acme_one": "", "acme_two": ""})
    list(majors.check(env, STACK, running(make_container, "postgres:18.6", health="starting")))
    assert asked == ["acme_one", "acme_two"]


def test_another_major_is_refused_in_the_guards_words(env, engine_with, make_container) -> None:
    said = "a warning of docker\npostgres: it holds 17.\npostgres: do this.\n"
    engine_with({"postgres:17.6": 17, "postgres:18.6": 18}, {"acme_one": said, "acme_two": said})
    (check,) = majors.check(env, STACK, running(make_container))
    assert check.status == findings.FAILED
    assert (check.detail, check.remedy) == ("postgres-primary, postgres-replica: it holds 17.", "do this.")


def test_a_first_deploy_has_no_volumes_to_look_at(env, engine_with) -> None:
    asked = engine_with({"postgres:18.6": 18}, {})
    (check,) = majors.check(env, STACK, [])
    assert (check.status, asked) == (findings.OK, [])


def test_an_image_still_to_be_pulled_is_judged_by_its_tag_in_the_one_that_is_there(
    env, engine_with, make_container
) -> None:
    asked = engine_with({"postgres:17.6": 17}, {"acme_one": "", "acme_two": ""})
    list(majors.check(env, STACK, running(make_container)))
    assert asked == ["acme_one", "acme_two"]
    line = majors.judge_argv(PRIMARY, majors.image("postgres:18.6"), "postgres:17.6", "prod")
    assert line[-3:] == ["postgres:17.6", "-s", "primary"]
    assert {"PG_MAJOR=18", "PGDATA=/var/lib/postgresql/18/docker", "ENVIRONMENT=prod"} <= set(line)


def test_no_postgres_no_check(env, engine_with) -> None:
    engine_with({}, {})
    assert list(majors.check(env, Stack("acme", {}, {"services": {}}), [])) == []
