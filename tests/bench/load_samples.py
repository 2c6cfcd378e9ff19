"""Figures of a load: latencies by operation, errors by kind, and which processes the processors worked for."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.local.engine import RunningEngine
from pipeline.local.processes import descendants, stat_fields

TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
SHARES: Final = (0.5, 0.9, 0.99)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of the sorted values don't exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass
class Samples:
    """Milliseconds by operation, and what went wrong."""

    taken_ms: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def took(self, operation: str, milliseconds: float) -> None:
        self.taken_ms[operation].append(milliseconds)

    def failed(self, operation: str, kind: str) -> None:
        self.errors[operation][kind] += 1

    def row(self, operation: str) -> tuple[str, ...]:
        """Return count, p50, p90, p99, max and the errors of one operation, as text."""
        ordered = sorted(self.taken_ms[operation])
        shown = [f"{quantile(ordered, share):,.0f}" for share in SHARES] + [f"{ordered[-1]:,.0f}"] if ordered else ["–"] * 4
        wrong = ", ".join(f"{count} × {kind}" for kind, count in self.errors[operation].most_common()) or "none"
        return (f"{len(ordered):,}", *shown, wrong)


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of processor time so far: of the emulator, of our functions' processes, and of the load's own."""

    emulator: float
    functions: float
    load: float

    def since(self, before: "Work") -> "Work":
        return Work(self.emulator - before.emulator, self.functions - before.functions, self.load - before.load)

    @property
    def total(self) -> float:
        return self.emulator + self.functions + self.load


def worked(engine: RunningEngine) -> Work:
    """Return what the processors worked until now. A function's process that ended meanwhile is no longer seen."""
    return Work(
        emulator=_seconds(engine.pid),
        functions=sum(_seconds(pid) for pid in descendants(engine.pid)),
        load=sum(os.times()[:2]),
    )


def _seconds(pid: int) -> float:
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND if fields is not None else 0.0
