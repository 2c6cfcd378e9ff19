"""What a subscriber did not receive of what the event table holds. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from pipeline.domain.canonical import Document, parse_time
from pipeline.services.stored_events import ranges_of

TOLD_MAX: Final = 12


class Where(StrEnum):
    INSIDE = "inside"
    BEHIND = "behind"
    NEVER_SEEN = "never-seen"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Which stored events a subscriber should have by now: of its services and types, and old enough to have arrived."""

    before: datetime
    services: Sequence[str] = ()
    detail_types: Sequence[str] = ()

    def concerns(self, document: Document) -> bool:
        service = document.get("metadata", {}).get("service")
        return (not self.services or service in self.services) and (
            not self.detail_types or document.get("eventType") in self.detail_types
        )

    def is_due(self, document: Document) -> bool:
        """Return whether an event is old enough; one whose time can't be read is."""
        try:
            return parse_time(document["timestamp"]) < self.before
        except (KeyError, ValueError, TypeError):
            return True


@dataclass(frozen=True, slots=True)
class Missing:
    """What is missing of one incident: behind the newest that came, inside what came, or all where none came."""

    incident_id: str
    sequences: tuple[int, ...]
    newest_received: int

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        return ranges_of(self.sequences)

    @property
    def where(self) -> tuple[Where, ...]:
        if not self.newest_received:
            return (Where.NEVER_SEEN,)
        inside = [Where.INSIDE] if self.sequences[0] < self.newest_received else []
        behind = [Where.BEHIND] if self.sequences[-1] > self.newest_received else []
        return (*inside, *behind)

    def to_document(self) -> Document:
        return {
            "incidentId": self.incident_id,
            "missing": [list(found) for found in self.ranges],
            "count": len(self.sequences),
            "newestReceived": self.newest_received,
            "where": [where.value for where in self.where],
        }

    def told(self) -> str:
        """Return the sequences in short: 3-5, 9; of many gaps the first."""
        shown = [str(first) if first == last else f"{first}-{last}" for first, last in self.ranges]
        more = [f"… and {len(shown) - TOLD_MAX} more gaps"] if len(shown) > TOLD_MAX else []
        return ", ".join([*shown[:TOLD_MAX], *more])


def missing_of(expected: Mapping[str, set[int]], received: Mapping[str, set[int]]) -> list[Missing]:
    """Return what is expected and was not received, the most of one incident first."""
    found = []
    for incident, sequences in expected.items():
        came = received.get(incident, set())
        gone = sequences - came
        if gone:
            found.append(Missing(incident, tuple(sorted(gone)), max(came, default=0)))
    return sorted(found, key=lambda one: (-len(one.sequences), one.incident_id))
