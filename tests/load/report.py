"""What a load came to: sent, lost and how long it took, phase by phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.load.generator import Sample

# A request sent later than this after it was due, in seconds, is a late start: the generator's fault, not the server's.
LATE = 0.05


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed; 0 when there are none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100).__int__() - 1)] if ordered else 0.0


@dataclass(frozen=True)
class Phase:
    """Requests of one phase, or of all."""

    name: str
    samples: Sequence[Sample]

    @property
    def sent(self) -> int:
        """How many were due, and so were sent."""
        return len(self.samples)

    @property
    def lost(self) -> list[Sample]:
        """Those without the answer that they should have got."""
        return [each for each in self.samples if each.lost]

    @property
    def rate(self) -> float:
        """Requests a second as they really were due."""
        moments = [each.due for each in self.samples]
        return (len(moments) - 1) / (max(moments) - min(moments)) if len(moments) > 1 else 0.0

    @property
    def late_starts(self) -> int:
        """How many were sent noticeably later than they were due."""
        return sum(each.late > LATE for each in self.samples)

    def took(self, percent: float) -> float:
        """Milliseconds from when a request was due to its answer, without the lost and those slow on purpose."""
        return 1000 * percentile(
            [each.took for each in self.samples if not each.lost and "slow" not in each.kind], percent
        )

    def late(self, percent: float) -> float:
        """Milliseconds that requests were sent after they were due."""
        return 1000 * percentile([each.late for each in self.samples], percent)

    def __str__(self) -> str:
        figures = f"p50 {self.took(50):.0f} ms, p99 {self.took(99):.0f}, max {self.took(100):.0f}"
        lateness = f"late starts {self.late_starts} (p99 {self.late(99):.1f} ms, max {self.late(100):.0f})"
        return f"{self.name}: {self.sent} sent at {self.rate:.0f}/s, {len(self.lost)} lost, {figures}; {lateness}"


@dataclass(frozen=True)
class Report:
    """One run of the generator. reopened: kept connections found closed before anything was sent; resent: HTTP/2
    streams that the server had said it would not process."""

    samples: Sequence[Sample]
    rate: float = 0.0
    reopened: int = 0
    resent: int = 0

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Report:
        """From the generator's result."""
        samples = sorted((Sample(*each) for each in values["samples"]), key=lambda each: each.due)
        return cls(samples, values["rate"], values["reopened"], values["resent"])

    @property
    def all(self) -> Phase:
        """Everything that was sent."""
        return Phase("all", self.samples)

    def phase(self, *names: str) -> Phase:
        """What was due in these phases."""
        return Phase(" + ".join(names), [each for each in self.samples if each.phase in names])

    @property
    def phases(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(each.phase for each in self.samples))

    def losses(self) -> Counter[str]:
        """How many were lost, by phase, connection, kind and reason."""
        return Counter(f"{each.phase} · {each.transport} · {each.kind} · {each.lost}" for each in self.all.lost)

    def share(self, wanted: Iterable[bool]) -> float:
        """The part of all requests of which something is true."""
        return sum(wanted) / max(1, len(self.samples))

    def __str__(self) -> str:
        lines = [str(self.phase(name)) for name in self.phases]
        lines.append(str(self.all))
        lines.append(f"reopened {self.reopened}, resent {self.resent}")
        lines += [f"  lost {count:>5}  {what}" for what, count in self.losses().most_common(20)]
        first = self.all.lost[0] if self.all.lost else None
        return "\n".join([*lines, f"  the first of them: {first}"] if first else lines)
