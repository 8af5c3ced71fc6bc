"""Whether this process is shutting down: set by the server, read by health checks, the edge and background tasks."""

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
        """Start draining: readiness fails from now on."""
        self._draining.set()

    async def until_draining(self) -> None:
        """Return when the process starts draining."""
        await self._draining.wait()
