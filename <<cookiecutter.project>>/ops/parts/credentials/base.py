"""What a part does for a rotation; the class itself stands for a secret that no part keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ops.engine import Container


@dataclass(frozen=True)
class Credential:
    """A password that a part keeps. holders: its running containers, which take the new one without a restart.

    Every step may be taken again. Each raises OpsError with its reason.
    """

    holders: Sequence[Container]

    # Services that are stopped while the part takes the new password, because they would lose what they send.
    pauses: ClassVar[tuple[str, ...]] = ()

    # It outlives the containers: they must run to be told.
    in_volume: ClassVar[bool] = False
    # Services that keep it, where those are not the ones that read its file.
    keepers: ClassVar[tuple[str, ...]] = ()

    def check(self) -> None:
        """Raise OpsError unless the part can be told."""

    def both(self, new: str) -> None:
        """Accept the new password beside the old one, where the part can."""

    def switch(self, new: str) -> None:
        """Take the new password. The secret file holds it by now."""

    def only(self, new: str) -> None:
        """Accept the new password and no other."""

    def accepts(self, value: str) -> dict[str, bool]:
        """Whether each holder accepts a password, by service; empty when it cannot be asked."""
        return {}
