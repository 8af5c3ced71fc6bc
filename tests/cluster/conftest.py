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
from tests.stories import pytest_runtest_makereport, pytest_runtest_setup

__all__ = ["pytest_runtest_makereport", "pytest_runtest_setup"]

# Beside one that somebody works with (`python -m tests.cluster up`).
NUMBER = 78


def pytest_configure() -> None:
    os.environ.setdefault(RUN, str(os.getpid()))


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
