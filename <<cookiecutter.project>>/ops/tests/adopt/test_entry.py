"""What an entry says, and which source it comes with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ops.adopt import add, check, entry, skeletons
from ops.adopt.entry import KINDS, Wanted
from ops.base.errors import USAGE, OpsError

PROJECT = Path(__file__).resolve().parents[3]


def lines(wanted: Wanted) -> list[str]:
    return [line.strip() for block in entry.services(entry.completed(wanted)) for line in block]


def test_a_service_of_nodejs_below_a_path() -> None:
    found = lines(Wanted("shop", "node", route="/shop/"))
    for line in (
        *("context: ./services/shop", "ops.port: 3000", "ops.route: /shop/", "ops.smoke: /shop/"),
        *("ops.ready: /health/ready", "ops.metrics: /metrics", "BASE_PATH: /shop"),
        *("serving: {aliases: [shop.serving]}", "scrape:", "replicas: ${SHOP_REPLICAS:-1}"),
    ):
        assert line in found
    assert "database:" not in found and [line for line in found if line.startswith("secrets: [ca_bundle]")]


@pytest.mark.parametrize("kind", ["python", "node", "go"])
def test_a_service_at_the_root_of_the_site(kind: str) -> None:
    add.refuse(Wanted("shop", kind, route="/"), PROJECT)
    found = lines(Wanted("shop", kind, route="/"))
    assert {"ops.route: /", "ops.smoke: /", "ops.ready: /health/ready", "ops.metrics: /metrics"} <= {*found}
    assert not [line for line in found if line.startswith("BASE_PATH")]


def test_one_that_takes_no_requests_is_scraped_all_the_same() -> None:
    found = lines(Wanted("mailer", "go"))
    assert "ops.metrics: 8080/metrics" in found
    assert not [line for line in found if line.startswith(("ops.port", "serving"))]


def test_what_it_uses_of_the_data_tier() -> None:
    found = lines(Wanted("price-list", "go", host="prices.example.com", schema=True, queue=True, cache=True))
    for line in (
        *("ops.host: prices.example.com", "ops.schema: price_list", "ops.rabbitmq: price_list", "database:"),
        *("ops.rabbitmq.definitions: services/price-list/rabbitmq.json", "DATABASE_NAME: ${POSTGRES_DB}"),
        "secrets: [PRICE_LIST_DB_PASSWORD, PRICE_LIST_RABBITMQ_PASSWORD, PRICE_LIST_REDIS_PASSWORD]",
        *("ops.redis: price_list", "REDIS_USER: price_list"),
    ):
        assert line in found


def test_python_with_a_database_of_its_own_has_a_migration() -> None:
    found = lines(Wanted("price-list", "python", internal=True, database=True))
    for line in (
        *("price-list-migrate:", "ops.job: migration", "ops.database: price_list", "DATABASE_NAME: price_list"),
        *("SERVICE: price_list", "PACKAGES: price_list", "MIGRATE: price_list", 'ops.internal: "true"'),
        "price-list-migrate: {condition: service_completed_successfully}",
    ):
        assert line in found


def test_an_image_is_asked_for_its_port_only_when_nothing_else_is_said() -> None:
    image = Wanted("site", "image", image="nginx:1", host="www.example.com", port=80)
    assert {"image: nginx:1", "ops.port: 80", "ops.ready: tcp"} <= {*lines(image)}
    assert "ops.ready: /up" in lines(Wanted(**{**image.__dict__, "ready": "/up"}))
    assert not [line for line in lines(image) if line.startswith(("build", "ops.metrics", "ops.smoke", "develop"))]


def test_any_dockerfile_may_ask_for_the_mirror_and_the_authorities() -> None:
    found = lines(Wanted("shop", "dockerfile", route="/shop", port=80))
    assert "REGISTRY_MIRROR: ${REGISTRY_MIRROR}" in found
    assert [line for line in found if line.startswith("secrets: [ca_bundle]")]


def test_jobs() -> None:
    assert {'restart: "no" # it runs to its end', "ops.job: manual"} <= {*lines(Wanted("tidy", "node", job=True))}
    scheduled = lines(Wanted("tidy", "python", schedule="0 3 * * *"))
    assert {'ops.schedule: "0 3 * * *"', "command: [python, -m, tidy]"} <= {*scheduled}
    assert not [line for line in scheduled if line.startswith(("replicas", "healthcheck", "ops.metrics"))]


def test_a_volume_is_kept_and_backed_up() -> None:
    wanted = Wanted("shop", "node", route="/shop", volume="/files")
    assert {'volumes: ["shop_data:/files"]', "ops.backup: shop_data"} <= {*lines(wanted)}
    assert entry.volumes(wanted) == ["  shop_data:"]
    assert [line for line in lines(wanted) if line.startswith("ops.rollout: rolling")]
    # Nobody knows what somebody else's image does when two share its files.
    other = Wanted("wiki", "image", image="wiki:1", route="/wiki", port=80, volume="/files")
    assert [line for line in lines(other) if line.startswith("ops.rollout: restart")]
    # A new volume takes its owner from the image.
    assert "install -d -o 10001 -g 10001 /files" in skeletons.files(wanted, PROJECT)["Dockerfile"]


@pytest.mark.parametrize("kind", entry.MADE)
@pytest.mark.parametrize("changes", [{}, {"schema": True}, {"job": True}])
def test_no_name_of_the_skeleton_is_left(kind: str, changes: dict) -> None:
    files = skeletons.files(Wanted("price-list", kind, **changes), PROJECT)
    assert len(files) > 3
    for name, text in files.items():
        for word in ("newservice", "new-service", "NewService", "NEWSERVICE"):
            assert word not in name + text, name


def test_definitions_are_of_its_own_name() -> None:
    found = json.loads(skeletons.definitions(Wanted("price-list", "node", queue=True)))
    assert found["permissions"] == [{"configure": "^$", "write": "^price_list$", "read": "^price_list$"}]
    assert [each["name"] for each in (*found["queues"], *found["exchanges"])] == ["price_list", "price_list"]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("Shop", "node"), '"Shop" cannot be the name of a service'),
        (Wanted("shop_x", "node"), "cannot be the name of a service"),
        (Wanted("a" * 31, "node"), "cannot be the name of a service"),
        (Wanted("common", "python"), "cannot be the name of a service"),
        (Wanted("internal", "node"), "cannot be the name of a service"),
        (Wanted("metrics", "node"), "cannot be the name of a service"),
        (Wanted("redis-primary", "node"), "docker-compose.redis.yml has one of that name"),
        (Wanted("json", "python"), "a module of that name is there already"),
        (Wanted("redis", "python"), "a module of that name is there already"),
        (Wanted("shop", "ruby"), 'A service cannot be made from "ruby"'),
        (Wanted("shop", ""), 'A service cannot be made from ""'),
        (Wanted("shop", "image"), "with --from image it must be a reference"),
        (Wanted("shop", "image", image="a b"), "with --from image it must be a reference"),
        (Wanted("shop", "node", image="nginx:1"), "otherwise it must not be there"),
        (Wanted("shop", "node", route="shop"), '--route "shop" is not a path of the site'),
        (Wanted("shop", "node", route="/a b"), "is not a path of the site"),
        (Wanted("shop", "node", host="https://shop.example.com"), "is not a host name"),
        (Wanted("shop", "node", port=70000, route="/shop"), "--port 70000 is not a port"),
        (Wanted("shop", "image", image="nginx:1", route="/shop"), "The port is missing"),
        (Wanted("shop", "node", route="/shop", job=True), "A job takes no requests"),
        (Wanted("shop", "node", job=True, schedule="* * * * *"), "--job and --schedule exclude each other"),
        (Wanted("shop", "node", schema=True, database=True), "--schema and --database exclude each other"),
        (Wanted("shop", "node", volume="data"), '--volume "data" is not a path'),
        (Wanted("shop", "python", volume="/files"), "keeps its files in /data"),
        (Wanted("shop", "dockerfile"), "There is no services/shop/Dockerfile"),
    ],
)
def test_what_cannot_be_meant_is_refused(wanted: Wanted, words: str) -> None:
    with pytest.raises(OpsError) as raised:
        add.refuse(wanted, PROJECT)
    assert words in raised.value.message
    assert raised.value.code == USAGE
    assert raised.value.remedy


def test_a_folder_that_is_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "services/shop").mkdir(parents=True)
    with pytest.raises(OpsError, match="services/shop exists already"):
        add.refuse(Wanted("shop", "node"), tmp_path)


def test_every_kind_is_explained() -> None:
    assert {*KINDS} == {"python", "node", "go", "dockerfile", "image"}


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services").mkdir()
    files = [tmp_path / "docker-compose.services.yml", tmp_path / "docker-compose.backup-volumes.yml"]
    for file in files:
        file.write_text("services:\n")
    written: list[str] = []

    def full(path: Path, content: str | bytes, _mode: int) -> None:
        if path == files[1]:
            raise OSError(28, "No space left on device")
        written.append(path.name)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    monkeypatch.setattr(check, "replace_file", full)
    new = {each.name: "services: new\n" for each in files}
    with pytest.raises(OSError, match="No space"):
        add._write(tmp_path, Wanted("shop", "node"), {"src/main.js": ""}, new)
    # written, and taken back
    assert written == [files[0].name] * 2
    assert [file.read_text() for file in files] == ["services:\n"] * 2
    assert list((tmp_path / "services").iterdir()) == []
