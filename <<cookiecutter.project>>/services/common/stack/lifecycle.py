"""Whether this process is going away: set by the server, read by health checks, the edge and background tasks."""

import asyncio


class Lifecycle:
    """One process's state: serving, then draining."""

    def __init__(self) -> None:
        self._draining = asyncio.Event()

    @property
    def draining(self) -> bool:
        """True from the first SIGTERM on."""
        return self._draining.is_set()

    def drain(self) -> None:
        """Note that the process is to go: readiness fails from now on."""
        self._draining.set()

    async def until_draining(self) -> None:
        """Return once the process is to go."""
        await self._draining.wait()
