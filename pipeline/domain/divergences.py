"""What replay names: one thing that is not as the history says, of which kind, where, and what was expected instead.

Kinds are stable: runbooks and programs go by them. Whether a divergence counts is for whoever read to say: it may have read
in mid-write.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pipeline.domain.canonical import Document

# What of one incident is kept in memory at most; and of what was found in a place, how much is told.
KEPT_MAX: Final = 10_000
SAID_MAX: Final = 1_000


class Kind(StrEnum):
    """What can be wrong with what is stored."""

    # Of the events.
    MISSING = "missing"
    DUPLICATED = "duplicated"
    SWAPPED = "swapped"
    INSERTED = "inserted"
    CHANGED = "changed"
    CHAIN = "chain"
    IDENTITY = "identity"
    TIME = "time"
    TRANSITION = "transition"
    DECISION = "decision"
    UNREADABLE = "unreadable"
    # Of what was written with them.
    ROW = "row"
    ROW_MISSING = "row-missing"
    POINTER = "pointer"
    POINTER_MISSING = "pointer-missing"
    RECEIPT = "receipt"
    RECEIPT_MISSING = "receipt-missing"
    # Of what an auditor kept.
    SEAL = "seal"


MEANS = {
    Kind.MISSING: "events are not there",
    Kind.DUPLICATED: "an event, or an item beside them, stands there twice",
    Kind.SWAPPED: "two events stand in each other's place",
    Kind.INSERTED: "events that nothing decided",
    Kind.CHANGED: "an event is not what its hash says",
    Kind.CHAIN: "an event does not follow from the one before it",
    Kind.IDENTITY: "an id is not the one its facts give",
    Kind.TIME: "time runs backwards",
    Kind.TRANSITION: "a step that the table of transitions does not have",
    Kind.DECISION: "a recorded decision, judged again, comes out otherwise",
    Kind.UNREADABLE: "not readable as what it should be",
    Kind.ROW: "an incident's row is not what its events fold into",
    Kind.ROW_MISSING: "an incident has events and no row",
    Kind.POINTER: "a key's pointer does not name its newest incident",
    Kind.POINTER_MISSING: "a key has incidents and no pointer",
    Kind.RECEIPT: "a receipt says something else than the events",
    Kind.RECEIPT_MISSING: "events that no receipt tells of",
    Kind.SEAL: "not what was sealed",
}


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that is not as it should be. `where`: an event, an attribute path, or a stored item's key."""

    incident_id: str
    kind: Kind
    where: str
    expected: str
    found: str

    def to_document(self) -> Document:
        return {
            "incidentId": self.incident_id,
            "kind": self.kind.value,
            "where": self.where,
            "expected": self.expected,
            "found": self.found,
        }


# Is told what is wrong: its kind, where, what is expected there, and what is found.
Report = Callable[[Kind, str, Any, Any], None]


def said(value: object) -> str:
    """Return how something that was expected or found is told: as its text, if that is not too long."""
    text = str(value)
    return text if len(text) <= SAID_MAX else f"{text[:SAID_MAX]}… ({len(text)} characters)"


def span(first: int, last: int) -> str:
    """Return how a run of events is called."""
    return f"event {first}" if first == last else f"events {first} to {last}"


def compare(incident_id: str, expected: Document, found: Document) -> tuple[Divergence, ...]:
    """Compare a row with the one its events lead to, attribute by attribute."""
    return tuple(
        Divergence(incident_id, Kind.ROW, path, _show(wanted), _show(stored))
        for path, wanted, stored in _differences(expected, found, "")
    )


_ABSENT: Final = object()


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _differences(expected: Any, found: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            inner = f"{path}.{name}" if path else name
            yield from _differences(expected.get(name, _ABSENT), found.get(name, _ABSENT), inner)
    elif expected != found or isinstance(expected, bool) is not isinstance(found, bool):
        yield path, expected, found
