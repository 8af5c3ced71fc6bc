"""Who reaches whom in dev, tried on its running containers: test_connections.py does the same, and more, in prod."""

from __future__ import annotations

from .project import Project
from .survey import expected, survey, unknown_ports


def test_what_is_allowed_connects_and_nothing_else(dev_stack: Project) -> None:
    surveyed = survey(dev_stack, "dev")
    assert unknown_ports(surveyed) == {}
    wanted = expected(dev_stack, "dev", surveyed)
    assert len(wanted) > 80
    assert sorted(map(str, surveyed.made - wanted)) == [], "connected, but not allowed by tests/connections.yml"
    assert sorted(map(str, wanted - surveyed.made)) == [], "allowed by tests/connections.yml, but refused"
