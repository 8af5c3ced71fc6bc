"""Fixtures of the cluster session: one cluster, and one site on it, for the whole run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.lab import Lab
from tests.cluster.programs import Unavailable
from tests.cluster.site import Site
from tests.stack.project import RUN

# Beside one that somebody works with (`python -m tests.cluster up`).
NUMBER = 78

_broken: dict[str, str] = {}


def pytest_configure() -> None:
    os.environ.setdefault(RUN, str(os.getpid()))


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """A story is told in order: when a chapter fails, the later ones cannot be judged."""
    if "story" in item.keywords and call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        _broken.setdefault(str(item.parent), item.name)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "story" in item.keywords and str(item.parent) in _broken:
        pytest.fail(f"an earlier chapter failed: {_broken[str(item.parent)]}", pytrace=False)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three nodes, nothing on them; or the reason why they cannot be had."""
    try:
        cluster = Cluster(Lab(NUMBER))
    except Unavailable as error:
        pytest.skip(str(error))
    try:
        cluster.start(3)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Prod of the default answers, exported, its images pushed; nothing applied."""
    site = Site.prepare(tmp_path_factory.mktemp("bake"), cluster)
    try:
        site.export()
        site.push()
        yield site
    finally:
        site.project.remove()


def eventually(condition: object, seconds: float, what: str) -> None:
    """Wait until something is true."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)
