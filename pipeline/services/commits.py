"""A decision as the one transaction it is: events sealed and folded, receipts, pointer, window and guard. Pure.

Who loads, commits and decides again is in `decision`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.domain.base import EVENT_BYTES_MAX
from pipeline.domain.correlation import Window
from pipeline.domain.decisions import COUNTED, NOTHING_OPEN, UNCHANGED, Accepted, Decision, Nothing
from pipeline.domain.envelope import IncidentEvent, size_of
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.ids import incident_id as id_of
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.receipts import Answer, Request, Result, result_of_change
from pipeline.domain.transitions import HOLDS_KEY, UNPROMOTED, EventType
from pipeline.services.ports import Commit, KeyHeld, Pointer, RowUnmoved


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is decided at once, and about which requests. `window`: as counted with it, in the same transaction; where it
    `fires`, all that is later counted in it goes to the same incident.
    """

    decision: Decision
    requests: tuple[Request, ...]
    window: Window | None = None
    fires: bool = True


def commit_of(
    key: tuple[str, str] | None, ruling: Ruling, incident: Incident | None, now: datetime, version: int
) -> Commit | Refusal:
    """Return a ruling as the one transaction it is, or the refusal it amounts to.

    `version`: the schema version that its events are written as.
    """
    match ruling.decision:
        case Refusal() as refusal:
            return refusal
        case Nothing() as nothing:
            identity = incident.incident_id if incident is not None and ruling.window is None else None
            answered = Result(answer=_NOTHING[nothing.code])
            receipts = tuple(request.receipt(answered, identity, now) for request in ruling.requests)
            return Commit(receipts=receipts, window=ruling.window)
        case Accepted(changes, occurrence):
            pass
    pointer = None
    if occurrence is not None and key is not None:
        service, dedup_key = key
        identity = id_of(service, dedup_key, occurrence)
        pointer = Pointer(service=service, dedup_key=dedup_key, occurrence=occurrence, incident_id=identity)
        events, after = advance(None, identity, changes, now, version)
        answer, before = Answer.CREATED, 0
    elif incident is not None:
        events, after = advance(incident, incident.incident_id, changes, now, version)
        joins = key is not None or ruling.window is not None
        answer, before = Answer.JOINED if joins else Answer.APPLIED, incident.version
    else:
        raise ValueError("a decision without an incident begins one")
    for event in events:
        if size_of(event) > EVENT_BYTES_MAX:
            return Refusal(Code.TOO_LARGE, f"The event would be larger than {EVENT_BYTES_MAX} bytes.", "evidence")
    receipts = tuple(
        request.receipt(result_of_change(told, before, after), after.incident_id, now)
        for request, told in zip(ruling.requests, _answers(answer), strict=False)
    )
    guard = _guard_of(key, events, incident, after)
    window = ruling.window
    if window is not None and ruling.fires:
        window = window.model_copy(update={"incident_id": after.incident_id})
    return Commit(receipts=receipts, events=events, incident=after, pointer=pointer, guard=guard, window=window)


_NOTHING: Final = {
    NOTHING_OPEN.code: Answer.NOTHING_OPEN,
    UNCHANGED.code: Answer.UNCHANGED,
    COUNTED.code: Answer.COUNTED,
}


def _answers(first: Answer) -> Iterator[Answer]:
    """Yield what each request of a commit is told: one begins an incident, the others join it."""
    yield first
    while True:
        yield Answer.JOINED if first is Answer.CREATED else first


def _guard_of(
    key: tuple[str, str] | None, events: tuple[IncidentEvent, ...], before: Incident | None, after: Incident
) -> KeyHeld | RowUnmoved | None:
    """Return what must still be true for the key to have one open incident after this.

    Opening one that has waited, or joining it by its key: it still holds that key. Taking the key from one that holds it
    (it has expired): nothing has happened to that one meanwhile.
    """
    if before is None:
        return None
    if before.incident_id != after.incident_id:
        return RowUnmoved(before) if before.state in HOLDS_KEY else None
    opened = any(event.fact.event_type is EventType.INCIDENT_OPENED for event in events)
    joins_waiting = key is not None and after.state in UNPROMOTED
    if after.state not in HOLDS_KEY or not (opened or joins_waiting):
        return None
    metadata = after.metadata
    return KeyHeld(
        Pointer(
            service=after.service,
            dedup_key=metadata.dedup_key,
            occurrence=metadata.occurrence,
            incident_id=after.incident_id,
        )
    )
