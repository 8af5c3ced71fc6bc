"""The load of tests/load on a cluster: every node is an edge, as where a name has several addresses."""

from __future__ import annotations

import httpx

from tests.cluster.site import Site
from tests.load.run import Load


class ClusterLoad(Load):
    """As `Load`, with requests at all nodes. rate: requests a second, few because the nodes share two processors."""

    def __init__(self, site: Site, *, rate: float = 8) -> None:
        super().__init__(site.project, site.environment, rate=rate, mixture="plain")
        self._site = site

    def _targets(self) -> list[str]:
        return self._site.edges()

    def _authority(self) -> str:
        return self._site.domain

    def _client(self) -> httpx.Client:
        return self._site.client(self._site.edges()[0])

    def _count(self, query: str) -> list[str]:
        return self._site.sql(query)
