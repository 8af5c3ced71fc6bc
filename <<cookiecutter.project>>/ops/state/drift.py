"""How a container differs from what is declared. Pure: a deploy, a plan, a rollback and scaling all ask here."""

from __future__ import annotations

from dataclasses import dataclass, field

from ops.engine import Container
from ops.state.digests import Digests, changed

NEW_CONFIGURATION, NEW_IMAGE = "new configuration", "new image"
FOLDER_GONE = "mounts files of a folder that is gone"
LEFT_BEHIND = "left behind by a rollout that was killed"
# The restart policy of a container that a rollout has made and not taken in; no lasting service is declared with it.
PROBATION = "no"


@dataclass(frozen=True)
class Declared:
    """What a container of a service should be. config_hash: Compose's own; image: its id, "" while it is not known;
    files: digests of what it mounts."""

    config_hash: str
    image: str = ""
    files: Digests = field(default_factory=dict)


@dataclass(frozen=True)
class Drift:
    """Everything in which a container differs from what is declared. files: mounted files whose content it has not
    seen; elsewhere: it mounts files of another folder than this one; homeless: and that folder is gone."""

    configuration: bool = False
    image: bool = False
    left_behind: bool = False
    files: tuple[str, ...] = ()
    elsewhere: bool = False
    homeless: bool = False

    @property
    def reason(self) -> str:
        """What weighs most, for people; "" when the container is as declared."""
        if self.configuration:
            return NEW_CONFIGURATION
        if self.image:
            return NEW_IMAGE
        if self.left_behind:
            return LEFT_BEHIND
        if self.homeless:
            return FOLDER_GONE
        if self.files:
            more = f"and {len(self.files) - 1} more " if len(self.files) > 1 else ""
            return f"{self.files[0]} {more}changed"
        return ""


def drift(
    container: Container, declared: Declared, mounted: Digests, *, elsewhere: bool = False, homeless: bool = False
) -> Drift:
    """How a container differs. mounted: digests of what it has mounted; elsewhere, homeless: as of Drift."""
    return Drift(
        configuration=container.config_hash != declared.config_hash,
        image=bool(declared.image) and container.image_id != declared.image,
        left_behind=container.restart_policy == PROBATION,
        files=tuple(changed(declared.files, mounted)),
        elsewhere=elsewhere,
        homeless=homeless,
    )
