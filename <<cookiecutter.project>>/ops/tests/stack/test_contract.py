"""What a service must say of itself, and what is said to whoever wrote something else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ops.base.errors import USAGE, OpsError
from ops.stack import contract, labels, model
from ops.stack.contract import Problem


def problems(**entry: object) -> list[Problem]:
    """The mistakes of a service `shop` with this entry in the resolved Compose files."""
    usual = {"image": "acme/shop:1", "healthcheck": {"test": ["CMD", "true"]}, "restart": "unless-stopped"}
    services = {"shop": usual | entry, "scheduler": {"image": "acme/scheduler:1", "labels": {"ops.part": "scheduler"}}}
    return list(contract.problems(model.parse({"name": "acme-dev", "services": services})))


def test_a_plain_service_is_fine() -> None:
    assert problems(restart="unless-stopped") == []


@pytest.mark.parametrize(
    ("label", "remedy"),
    [
        ("ops.prot", "Write ops.port."),
        ("ops.scheduel", "Write ops.schedule."),
        ("ops.wholly-unheard-of", 'docs/architecture.md, "Labels", lists those that do.'),
    ],
)
def test_an_unknown_label_is_refused_with_the_one_that_was_meant(label: str, remedy: str) -> None:
    assert problems(labels={label: "1"}) == [Problem(f"shop has the label {label}, which does not exist.", remedy)]


def test_a_mistyped_label_of_a_part_does_not_make_it_a_service_of_the_owner_unseen() -> None:
    (found,) = problems(labels={"ops.statefull": "postgres"})
    assert found.remedy == "Write ops.stateful."


def test_a_service_without_a_restart_policy_is_refused() -> None:
    """Docker's default is never, by which a rollout also knows a container that is not proven yet."""
    (found,) = problems(restart=None)
    assert found.message.startswith("shop has no restart policy")
    assert found.remedy.startswith("Add restart: unless-stopped")


@pytest.mark.parametrize("name", ["Shop", "shop.x", "-shop", "shop_", "a" * 64])
def test_a_name_that_can_be_no_host_name_is_refused(name: str) -> None:
    (found,) = named(name)
    assert found.message == f'"{name}" cannot be the name of a service.'


@pytest.mark.parametrize("name", sorted(labels.RESERVED))
def test_a_name_that_nginx_or_haproxy_uses_is_refused(name: str) -> None:
    (found,) = named(name)
    assert found.message.startswith(f'A service cannot be called "{name}"')
    assert found.remedy.startswith(f"Choose another, such as {name}-service.")


def test_names_that_are_fine() -> None:
    assert [found for name in ("shop", "2048", "my_shop", "price-list", "a" * 63) for found in named(name)] == []


def named(name: str) -> list[Problem]:
    usual = {"image": "acme/shop:1", "healthcheck": {"test": ["CMD", "true"]}, "restart": "always"}
    return list(contract.problems(model.parse({"name": "acme-dev", "services": {name: usual}})))


def test_every_name_of_haproxys_own_configuration_is_reserved() -> None:
    """A pool of that name is dangerous, HAProxy says, and 3.3 refuses it."""
    text = (Path(__file__).parents[3] / "infrastructure/haproxy/haproxy.cfg").read_text()
    assert set(re.findall(r"^(?:frontend|backend|defaults|listen) (\S+)", text, re.MULTILINE)) == labels.SECTIONS


def test_a_name_of_another_service_is_refused() -> None:
    """Docker would send every second request to the other one."""
    shop = {"image": "x", "healthcheck": {"test": ["CMD", "true"]}, "restart": "always"}
    edge = {"image": "x", "labels": {"ops.part": "edge"}, "networks": {"backend": {"aliases": ["inside"]}}}

    def messages(**services: dict) -> list[str]:
        return [each.message for each in contract.problems(model.parse({"name": "a", "services": services}))]

    assert messages(edge=edge, inside={**shop, "networks": {"backend": None}}) == [
        "edge and inside both have the name inside in the network backend."
    ]
    joined = {"networks": {"serving": {"aliases": ["a.serving"]}}}
    assert messages(a={**shop, **joined}, b={**shop, **joined}) == [
        "b and a both have the name a.serving in the network serving."
    ]
    elsewhere = {"networks": {"other": {"aliases": ["a.serving"]}}}
    assert messages(edge=edge, inside={**shop, "networks": {"other": None}}) == []
    assert messages(a={**shop, **joined}, b={**shop, **elsewhere}) == []


def test_a_port_of_the_host_that_two_services_publish_is_refused() -> None:
    def messages(one: dict, other: dict) -> list[str]:
        usual = {"image": "x", "labels": {"ops.part": "edge"}}
        services = {"nginx": {**usual, "ports": [one]}, "shop": {**usual, "ports": [other]}}
        return [each.message for each in contract.problems(model.parse({"name": "a", "services": services}))]

    port = {"published": "8443", "protocol": "tcp", "host_ip": "127.0.0.1"}
    assert messages(port, port) == ["shop and nginx both publish port 8443 of the host."]
    assert messages(port, {"published": "8443"}) == ["shop and nginx both publish port 8443 of the host."]
    for fine in ({**port, "published": "8444"}, {**port, "protocol": "udp"}, {**port, "host_ip": "127.0.0.2"}):
        assert messages(port, fine) == []


def test_labels_of_other_programs_are_none_of_ours() -> None:
    assert problems(labels={"traefik.enable": "true", "opsgenie": "x"}) == []


def test_what_runs_to_its_end_says_when() -> None:
    (found,) = problems(restart="no")
    assert found.message == 'shop has restart: "no", so it runs to its end, but it does not say when.'
    assert "ops.job: migration" in found.remedy and 'ops.schedule: "0 3 * * *"' in found.remedy


@pytest.mark.parametrize("said", [{"ops.job": "migration"}, {"ops.job": "manual"}, {"ops.schedule": "0 3 * * *"}])
def test_a_job_that_says_when_is_fine(said: dict[str, str]) -> None:
    assert problems(restart="no", labels=said) == []


def test_a_one_shot_part_of_the_stack_needs_not_say_so() -> None:
    assert problems(restart="no", labels={"ops.tier": "monitoring"}) == []


@pytest.mark.parametrize(
    ("entry", "message", "remedy"),
    [
        ({"restart": "no", "labels": {"ops.job": "nightly"}}, 'label ops.job of shop is "nightly".', "Write migration"),
        (
            {"restart": "no", "labels": {"ops.job": "manual", "ops.schedule": "0 3 * * *"}},
            "shop has both ops.job and ops.schedule.",
            "Keep one",
        ),
        (
            {"restart": "always", "labels": {"ops.job": "migration"}},
            "shop is a job and has restart: always, so it would begin again when it has ended.",
            'Write restart: "no".',
        ),
    ],
)
def test_a_job_that_cannot_be_meant(entry: dict, message: str, remedy: str) -> None:
    (found,) = problems(**entry)
    assert found.message == message
    assert found.remedy.startswith(remedy)


SERVING = {"serving": {"aliases": ["shop.serving"]}}


@pytest.mark.parametrize(
    ("entry", "message", "remedy"),
    [
        (
            {"healthcheck": None},
            "shop has no health check, so nobody can tell when it is ready.",
            "Add a healthcheck to",
        ),
        (
            {"healthcheck": {"disable": True}, "labels": {"ops.port": "3000"}, "networks": SERVING},
            "shop has no health check, so nobody can tell when it is ready.",
            "Add a healthcheck to it, or the label ops.ready: /path (answers 200 when ready) or ops.ready: tcp.",
        ),
        (
            {"labels": {"ops.ready": "/up"}},
            'shop has the label ops.ready: "/up", but no ops.port to ask at.',
            "Add ops.port",
        ),
        (
            {"labels": {"ops.route": "/shop"}},
            "shop has the label ops.route, but no ops.port, so it gets no",
            "Add ops.port",
        ),
        (
            {"labels": {"ops.smoke": "login", "ops.port": "3000"}, "networks": SERVING},
            'label ops.smoke of shop is "login"; it must be a path',
            "Correct it.",
        ),
        (
            {"labels": {"ops.smoke": "/me four", "ops.port": "3000"}, "networks": SERVING},
            'label ops.smoke of shop is "/me four"; it must be a path',
            "Correct it.",
        ),
        (
            {"labels": {"ops.database-connections": "many"}},
            'label ops.database-connections of shop is "many"; it must be a whole number.',
            "Correct it.",
        ),
        (
            {"labels": {"ops.port": "80", "ops.drain": "10m"}, "networks": SERVING},
            'label ops.drain of shop is "10m"; it must be a number of seconds, up to 99999.',
            "Correct it.",
        ),
        (
            {"labels": {"ops.rollout": "recreate"}},
            'label ops.rollout of shop is "recreate"; it must be rolling',
            "Corr",
        ),
        (
            {"volumes": [{"type": "volume", "source": "shop_data", "target": "/data"}]},
            "shop has a volume (shop_data) and does not say whether two of its containers may use that at once",
            "Add the label ops.rollout: restart when they must not",
        ),
        (
            {"labels": {"ops.port": "http"}, "networks": SERVING},
            'label ops.port of shop is "http"; it must',
            "Correct it.",
        ),
        (
            {"labels": {"ops.port": "3000"}},
            "shop has the label ops.port, but not the name shop.serving",
            "Write, in its",
        ),
    ],
)
def test_what_is_refused(entry: dict, message: str, remedy: str) -> None:
    (found,) = problems(**entry)
    assert found.message.startswith(message)
    assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    "entry",
    [
        {"healthcheck": None, "labels": {"ops.ready": "healthcheck"}},
        {"healthcheck": None, "labels": {"ops.ready": "tcp", "ops.port": "3000"}, "networks": SERVING},
        {"healthcheck": None, "labels": {"ops.ready": "/up", "ops.port": "3000"}, "networks": SERVING},
        {"healthcheck": None, "labels": {"ops.tier": "data"}},
        {"healthcheck": None, "restart": "no", "labels": {"ops.job": "manual"}},
        {"labels": {"ops.rollout": "rolling"}, "volumes": [{"type": "volume", "source": "v", "target": "/d"}]},
        {"labels": {"ops.smoke": "/me 401", "ops.port": "3000"}, "networks": SERVING},
    ],
)
def test_what_is_accepted(entry: dict) -> None:
    assert problems(**entry) == []


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"ops.schedule": "0 3 30 2 *"}, 'shop: ops.schedule: "0 3 30 2 *" never comes.'),
        ({"ops.schedule": "0 25 * * *"}, 'shop: ops.schedule: "0 25 * * *" is not a cron expression: bad hour.'),
        (
            {"ops.schedule": "0 3 * * *", "ops.schedule.timezone": "Mars/Olympus"},
            'shop: ops.schedule.timezone: there is no time zone "Mars/Olympus".',
        ),
        (
            {"ops.schedule": "0 3 * * *", "ops.schedule.timezon": "UTC"},
            "shop has the label ops.schedule.timezon, which",
        ),
    ],
)
def test_a_schedule_that_cannot_be_meant(said: dict[str, str], message: str) -> None:
    (found,) = problems(restart="no", labels=said)
    assert found.message.startswith(message)
    assert found.remedy


def test_a_scheduled_job_has_one_container() -> None:
    (found,) = problems(restart="no", labels={"ops.schedule": "0 3 * * *"}, deploy={"replicas": 2})
    assert found.message == "shop is a scheduled job with 2 replicas."


def test_a_schedule_needs_the_scheduler() -> None:
    entry = {"image": "x", "restart": "no", "labels": {"ops.schedule": "0 3 * * *"}}
    (found,) = contract.problems(model.parse({"name": "acme-dev", "services": {"shop": entry, "till": entry}}))
    assert found.message == "shop, till would never run: there is no scheduler."
    assert "docker-compose.scheduler.yml" in found.remedy


@pytest.mark.parametrize(
    ("variable", "value", "gone"),
    [
        ("REDIS_SENTINELS", "redis-sentinel-1:26379,redis-sentinel-2:26379", "redis-sentinel-1, redis-sentinel-2"),
        ("DATABASE_HOSTS", "shop:5432, postgres-primary:5432", "postgres-primary"),
        ("RABBITMQ_HOSTS", "rabbit.example.com,10.0.0.1,shop.serving,", ""),
        ("REDIS_SENTINELS", None, ""),
        ("CACHE_HOST", "anything", ""),
        ("REDIS_HOST", "redis-primary", "redis-primary"),
    ],
)
def test_a_node_that_does_not_exist_is_refused(variable: str, value: str | None, gone: str) -> None:
    """Automatic failover was taken out, and the setting was left: the service would ask nobody for ever."""
    found = problems(environment={variable: value})
    assert [each.message for each in found] == (
        [f"{variable} of shop names {gone}, and no service is called that."] if gone else []
    )


def test_a_host_name_that_is_the_domain_is_refused() -> None:
    shop = {
        "image": "acme/shop:1",
        "labels": {"ops.port": "3000", "ops.ready": "tcp", "ops.host": "acme.example"},
        "networks": SERVING,
        "restart": "always",
    }
    nginx = {"image": "nginx:1", "labels": {"ops.part": "edge"}, "environment": {"DOMAIN": "Acme.example"}}
    (found,) = contract.problems(model.parse({"name": "acme-dev", "services": {"shop": shop, "nginx": nginx}}))
    assert found.message == 'label ops.host of shop is "acme.example", which is DOMAIN.'


def test_one_mistake_is_a_sentence_and_several_are_a_list() -> None:
    entry = {"image": "x", "restart": "no"}  # a job that does not say when
    one = model.parse({"name": "acme-dev", "services": {"shop": entry}})
    with pytest.raises(OpsError) as caught:
        contract.refuse(one)
    assert caught.value.message.startswith('The Compose files: shop has restart: "no"')
    assert caught.value.code == USAGE
    two = model.parse({"name": "acme-dev", "services": {"shop": entry, "till": entry}})
    with pytest.raises(OpsError) as caught:
        contract.refuse(two)
    lines = caught.value.message.splitlines()
    assert lines[0] == "The Compose files have 2 mistakes:"
    assert [line.split()[0] for line in lines[1:]] == ["shop", "till"]


def test_the_table_has_every_label_and_no_other() -> None:
    text = (Path(__file__).parents[3] / "docs/architecture.md").read_text(encoding="utf-8")
    table = text.partition("### Labels")[2].partition("\n| label")[2].partition("\n\n")[0]
    written = set(re.findall(r"`(ops\.[a-z.-]+)", table))
    assert written == labels.KNOWN


# ── a PostgreSQL outside of the stack ─────────────────────────────────────────────────────────────────────────────────


def outside(cluster: bool = False, client: bool = True, **shop: object) -> list[Problem]:
    """The mistakes of a stack whose service `shop` uses such a server."""
    entry = {"image": "x", "healthcheck": {"test": ["CMD", "true"]}, "restart": "always", **shop}
    services = {
        "shop": entry,
        **({"postgres-client": {"image": "x", "labels": {"ops.tier": "data"}}} if client else {}),
    }
    networks = {"database": {"internal": True}, "backend": {}, "managed": {}}
    document = {"name": "acme-dev", "services": services, "networks": networks}
    return list(contract.problems(model.parse(document), cluster))


AT_DB = {"DATABASE_HOSTS": "db.example.com:5432"}


def test_who_uses_a_server_outside_needs_a_way_to_it() -> None:
    assert outside(environment=AT_DB, networks={"database": None, "managed": None}) == []
    (found,) = outside(environment=AT_DB, networks={"database": None})
    assert found.message.startswith("shop uses PostgreSQL at db.example.com:5432, outside of the stack")
    assert "docker-compose.postgres-clients.yml" in found.remedy and "shop: *client" in found.remedy
    # With a way out of another kind it would be reached, and without the settings for TLS.
    assert len(outside(environment=AT_DB, networks={"backend": None})) == 1


def test_without_the_files_any_way_out_will_do() -> None:
    assert outside(client=False, environment=AT_DB, networks={"backend": None}) == []
    assert len(outside(client=False, environment=AT_DB, networks={"database": None})) == 1


def test_in_a_cluster_policies_are_the_way_out() -> None:
    assert outside(cluster=True, client=False, environment=AT_DB, networks={"database": None}) == []


def test_a_server_outside_and_one_inside_exclude_each_other() -> None:
    postgres = {"image": "x", "labels": {"ops.tier": "data"}}
    services = {"postgres-client": postgres, "postgres-primary": postgres}
    (found,) = contract.problems(model.parse({"name": "acme-dev", "services": services}))
    assert "a PostgreSQL of the stack as well" in found.message
    found, _ = outside(environment={"DATABASE_HOSTS": "postgres-primary:5432"}, networks={"database": None})
    assert found.message == "DATABASE_HOSTS of shop names postgres-primary, and no service is called that."
    (found,) = outside(environment={"DATABASE_HOSTS": "postgres-client:5432"}, networks={"managed": None})
    assert "DATABASE_HOSTS of shop is postgres-client:5432" in found.message
