"""Candidates that come together: reported by whom, decided on until none is left, and what became of the incident."""

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.canonical import normalise, parse_document
from pipeline.domain.controls import PinnedControls
from pipeline.domain.decisions import NOTHING_OPEN, Accepted, Gate, Nothing
from pipeline.domain.errors import Refusal
from pipeline.domain.events import Attachment, EvidenceAttached, Fact, ObservationKind
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.occurrences import Reported, Ruling, decide_candidates
from pipeline.domain.promotion import Policies
from tests.support.clock import NOW
from tests.support.histories import DEDUP_KEY, POLICIES, POLICY_FILES, SERVICE, SYSTEM, candidate

DAY: Final = timedelta(days=1)
FIRING: Final = ObservationKind.FIRING
# Shipped policies, one with a cooldown, one that waits long for promotion.
OWN_POLICIES: Final = Policies.load(
    [
        *(parse_document(path.read_bytes()) for path in POLICY_FILES),
        {"policyId": "damped", "version": 1, "cooldownS": 1800},
        {"policyId": "damped-for-long", "version": 1, "cooldownS": 30 * 24 * 3600},
        {"policyId": "patient", "version": 1, "minimumDetections": 100, "pendingExpiresS": 14 * 24 * 3600},
    ]
)


def reported(
    name: str, kind: ObservationKind = FIRING, *, by: AuthorityContext = SYSTEM, at: datetime | float = 0, **fields: Any
) -> Reported:
    """Return a candidate for the key of `INCIDENT_ID`, observed at a time, or so many seconds after `NOW`."""
    seen = at if isinstance(at, datetime) else NOW + timedelta(seconds=at)
    return Reported(candidate(kind, observed_at=seen, **fields), by, name)


def names(ruling: Ruling) -> list[str]:
    return [one.id for one in ruling.about]


def facts(ruling: Ruling) -> list[Fact]:
    assert isinstance(ruling.decision, Accepted), ruling.decision
    return [change.fact for change in ruling.decision.changes]


def attachments(ruling: Ruling) -> list[Attachment]:
    return [fact.metadata for fact in facts(ruling) if isinstance(fact, EvidenceAttached)]


def line(ruling: Ruling) -> str:
    """Return what a ruling does in one line: its events, or why there are none."""
    match ruling.decision:
        case Accepted(changes, occurrence):
            text = " ".join(change.fact.event_type.value for change in changes)
            return f"{text} #{occurrence}" if occurrence else text
        case Refusal(code):
            return code.value
        case Nothing(code):
            return code


def controls(*, paused: Sequence[str] = (), maintenance: Iterable[tuple[str, datetime, datetime]] = ()) -> PinnedControls:
    """Return live controls: kill switches by pattern, and windows (service, from, to) named w-0, w-1, …"""
    switches = [{"service": one, "reason": "why", "by": "dana", "since": NOW.isoformat()} for one in paused]
    windows = [
        {
            "id": f"w-{number}",
            "service": service,
            "startsAt": starts.isoformat(),
            "endsAt": ends.isoformat(),
            "reason": "deploy",
            "by": "dana",
        }
        for number, (service, starts, ends) in enumerate(maintenance)
    ]
    return PinnedControls.load(normalise({"killSwitches": switches, "maintenance": windows}))


class Key:
    """One key's incidents, decided on as the services do: the newest holds it, what is left is decided on after it."""

    def __init__(self, holder: Incident | None = None, gate: Gate | None = None) -> None:
        self.incidents = {holder.metadata.occurrence: holder} if holder is not None else {}
        self.gate = gate or Gate(POLICIES)
        self.lines: list[str] = []
        self.nothing: list[str] = []

    @property
    def holder(self) -> Incident | None:
        return self.incidents[max(self.incidents)] if self.incidents else None

    def take(self, *batch: Reported, now: datetime = NOW) -> "Key":
        """Decide on a batch until none of it is left; each ruling must be about at least one."""
        waiting = list(batch)
        while waiting:
            ruling = decide_candidates(waiting, self.holder, self.gate)
            assert ruling.about, "a ruling is about somebody"
            assert len({one.id for one in ruling.about}) == len(ruling.about)
            self.lines.append(line(ruling))
            if ruling.decision is NOTHING_OPEN:
                self.nothing += names(ruling)
            if isinstance(ruling.decision, Accepted):
                self._apply(ruling.decision, now)
            done = set(names(ruling))
            waiting = [one for one in waiting if one.id not in done]
        return self

    def _apply(self, decision: Accepted, now: datetime) -> None:
        holder = self.holder
        if decision.occurrence is not None:
            identity = incident_id(SERVICE, DEDUP_KEY, decision.occurrence)
            self.incidents[decision.occurrence] = advance(None, identity, decision.changes, now)[1]
            return
        assert holder is not None
        after = advance(holder, holder.incident_id, decision.changes, now)[1]
        self.incidents[holder.metadata.occurrence] = after


def shuffled(items: Sequence[Reported], rng: random.Random) -> list[Reported]:
    return rng.sample(items, len(items))
