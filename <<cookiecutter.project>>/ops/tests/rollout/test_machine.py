"""What doctor says of the machine before a deploy finds it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.base import environments
from ops.base.findings import FAILED, WARNING
from ops.rollout import host
from ops.stack.model import Port, Service


def test_an_address_of_another_machine_is_refused_also_where_nginx_runs(env) -> None:
    ports = [Port("127.0.0.1", 80), Port("", 81), Port("0.0.0.0", 82), Port("192.0.2.7", 443)]
    (check,) = host.check_addresses(env, ports)
    assert check.status == FAILED and check.detail == "192.0.2.7 is not an address of this machine"
    assert "BIND_ADDRESS in config/dev/.env" in check.remedy


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_addresses_of_this_machine(address: str) -> None:
    assert host.is_local(address)


def test_a_missing_ca_bundle_names_the_setting(env, tmp_path: Path) -> None:
    env.values["BUILD_CA_BUNDLE"] = str(tmp_path / "none.crt")
    (check,) = host.check_ca_bundle(env)
    assert check.status == FAILED and check.detail == f"BUILD_CA_BUNDLE={tmp_path / 'none.crt'} does not exist"
    env.values["IMAGE_SOURCE"] = "pull"
    assert [*host.check_ca_bundle(env)] == []
    env.values["IMAGE_SOURCE"] = "build"
    (tmp_path / "none.crt").touch()
    assert [*host.check_ca_bundle(env)] == []


@pytest.mark.parametrize(("value", "image", "said"), [("0", "redis:8", 1), ("1", "redis:8", 0), ("0", "nginx:1", 0)])
def test_overcommit_is_worth_a_warning_where_redis_runs(
    project, make_stack, tmp_path: Path, value, image, said
) -> None:
    setting = tmp_path / "overcommit_memory"
    setting.write_text(f"{value}\n")
    prod, declared = environments.load("prod", project), make_stack(Service("cache", image))
    found = [*host.check_overcommit(prod, declared, setting)]
    assert [each.status for each in found] == [WARNING] * said
    assert [*host.check_overcommit(prod, declared, tmp_path / "not linux")] == []
    assert [*host.check_overcommit(environments.load("dev", project), declared, setting)] == []


@pytest.mark.parametrize(
    ("existing", "total", "pools", "said"),
    [((), 29, False, 1), ((), 28, False, 0), ((), 29, True, 0), (("a", "b"), 31, False, 0), (("a",), 30, False, 1)],
)
def test_address_ranges(existing, total: int, pools: bool, said: int) -> None:
    assert len([*host.check_networks(("a", "b"), existing, total, pools)]) == said


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512 << 20), ("2GB", 2 << 30), ("100kB", 100 << 10), ("16384", 128 << 20), ("much", 0)]
)
def test_sizes_of_postgresql(text: str, size: int) -> None:
    assert host.size(text) == size


@pytest.mark.parametrize(
    ("buffers", "status"), [("512MB", ""), ("614MB", ""), ("615MB", WARNING), ("1GB", FAILED), ("", "")]
)
def test_shared_buffers_need_room_for_connections(env, buffers: str, status: str) -> None:
    env.values["POSTGRES_SHARED_BUFFERS"] = buffers
    found = [*host.check_shared_buffers(env, {"postgres-primary": 1 << 30, "postgres-replica": 0})]
    assert [each.status for each in found] == ([status] if status else [])
