"""Fold a history, check its chain, compare it with the row it should have led to. Pure; reads nothing.

A divergence names what differs and where. Whether one counts is for the caller to say, who may have read in mid-write.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import GENESIS_HASH, IncidentEvent, event_hash
from pipeline.domain.errors import Rejected
from pipeline.domain.ids import event_id, incident_id
from pipeline.domain.incidents import Incident, evolve


@dataclass(frozen=True, slots=True)
class Divergence:
    """One thing that is not as the history says. `where` is an attribute path or a sequence."""

    incident_id: str
    kind: str
    where: str
    expected: str
    found: str


def fold(documents: Iterable[Document]) -> Incident | None:
    """Return the incident that stored events, in order, add up to; None for no events."""
    incident: Incident | None = None
    for document in documents:
        incident = evolve(incident, IncidentEvent.from_document(document))
    return incident


def check_history(incident: str, documents: Iterable[Document]) -> tuple[Divergence, ...]:
    """Check numbering, ids, hashes and their chain, and that time never runs backwards; in one pass, without folding."""
    found: list[Divergence] = []
    sequence, previous_hash, previous_time, previous_state = 0, GENESIS_HASH, "", "PENDING"

    def differs(kind: str, where: str, expected: Any, actual: Any) -> None:
        if expected != actual:
            at = f"event {document.get('sequence')}: {where}"
            found.append(Divergence(incident, kind, at, str(expected), str(actual)))

    for document in documents:
        differs("gap", "sequence", sequence + 1, document.get("sequence"))
        sequence = document.get("sequence", sequence + 1)
        differs("identity", "eventId", event_id(incident, sequence), document.get("eventId"))
        differs("hash", "hash", event_hash(document), document.get("hash"))
        differs("chain", "previousHash", previous_hash, document.get("previousHash"))
        differs("chain", "previousState", previous_state, document.get("previousState"))
        if document.get("timestamp", "") < previous_time:
            differs("time", "timestamp", f"at least {previous_time}", document.get("timestamp"))
        previous_hash = document.get("hash", "")
        previous_time = document.get("timestamp", "")
        previous_state = document.get("newState", "")
        if sequence == 1:
            differs("identity", "incidentId", incident, _identity(document))
    return tuple(found)


def _identity(created: Document) -> str:
    """Return the id that the creation event's own facts give."""
    try:
        told = created["metadata"]
        return incident_id(told["service"], told["dedupKey"], told["occurrence"])
    except (KeyError, TypeError):
        return "none: the first event is not a creation"


def compare(row: Document | None, folded: Incident | None) -> tuple[Divergence, ...]:
    """Compare a stored incident row, as a document, with what its events fold into; attribute by attribute."""
    expected = folded.to_document() if folded is not None else {}
    found = row or {}
    identity = expected.get("incidentId") or found.get("incidentId") or ""
    return tuple(
        Divergence(identity, "row", path, _show(expected_value), _show(found_value))
        for path, expected_value, found_value in _differences(expected, found, "")
    )


_ABSENT = object()


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _differences(expected: Any, found: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            inner = f"{path}.{name}" if path else name
            yield from _differences(expected.get(name, _ABSENT), found.get(name, _ABSENT), inner)
    elif expected != found:
        yield path, expected, found


def verify(incident: str, documents: tuple[Document, ...], row: Document | None) -> tuple[Divergence, ...]:
    """Check one incident's whole history and its row; a history that can't be folded is a divergence, not an error."""
    found = check_history(incident, documents)
    try:
        folded = fold(documents)
    except (Rejected, ValueError) as error:
        return (*found, Divergence(incident, "fold", "history", "a history that folds", str(error)))
    return (*found, *compare(row, folded))
