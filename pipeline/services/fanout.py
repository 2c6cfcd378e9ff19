"""From the event table's stream to the bus: publish every event at least once, settle poison, raise only when nothing moves.

What can never be published goes to the failure queue and the records behind it flow on. The bus or the failure queue
being down raises, and the stream delivers the whole batch again: what was already published goes out again under the
same eventId. Never reads from the bus. Subscribers order and dedup by (incidentId, sequence).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.domain.canonical import Document, parse_time
from pipeline.domain.envelope import detail_of, event_hash
from pipeline.services.ports import BusEntry, Clock, EventBus, FailedRecord, FailureQueue

INSERT: Final = "INSERT"
CORRUPTION: Final = "corruption"
UNREADABLE: Final = "unreadable"


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One change of the event table. `document` is the new image; None with `error` where it could not be read."""

    change: str
    incident_id: str | None
    sequence: int | None
    document: Document | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """What one batch came to. `lags_s` are seconds from an event's time to its publication, one per published event."""

    published: tuple[Document, ...] = ()
    failed: tuple[FailedRecord, ...] = ()
    lags_s: tuple[float, ...] = field(default=())

    @property
    def corrupt(self) -> int:
        return sum(failure.error == CORRUPTION for failure in self.failed)


class FanoutService:
    """Publishes stream records."""

    def __init__(self, bus: EventBus, failures: FailureQueue, clock: Clock) -> None:
        self.bus = bus
        self.failures = failures
        self.clock = clock

    async def relay(self, records: Sequence[StreamRecord]) -> Published:
        """Publish a batch; return what went out and what never will. Raises `Unavailable` where it must come again."""
        documents: list[Document] = []
        failed: list[FailedRecord] = []
        for record in records:
            checked = _check(record)
            if isinstance(checked, FailedRecord):
                failed.append(checked)
            else:
                documents.append(checked)
        answers = await self.bus.publish([entry_of(document) for document in documents]) if documents else ()
        published = []
        for document, refusal in zip(documents, answers, strict=True):
            if refusal is None:
                published.append(document)
            else:
                failed.append(FailedRecord(document["incidentId"], document["sequence"], refusal.code, refusal.detail))
        if failed:
            await self.failures.keep(failed)
        now = self.clock.now()
        lags = tuple((now - parse_time(document["timestamp"])).total_seconds() for document in published)
        return Published(tuple(published), tuple(failed), lags)

    def oldest_s(self, records: Sequence[StreamRecord]) -> float | None:
        """Return the age in seconds of a batch's oldest event, or None where no event in it can be read."""
        now = self.clock.now()
        readable = [checked for checked in map(_check, records) if not isinstance(checked, FailedRecord)]
        ages = [(now - parse_time(document["timestamp"])).total_seconds() for document in readable]
        return max(ages, default=None)


def entry_of(document: Document, *, replayed: bool = False) -> BusEntry:
    """Return the bus entry of a stored event."""
    return BusEntry(
        detail_type=document["eventType"],
        detail=detail_of(document, replayed=replayed),
        time=parse_time(document["timestamp"]),
        resource=document["incidentId"],
    )


def unpublishable(document: Document) -> tuple[str, str] | None:
    """Return why a stored event is never published (error and detail), or None where it may be.

    One that does not carry its own hash is corruption. The fact inside is not read: an event written by newer code than
    this is published all the same.
    """
    try:
        if not isinstance(document["eventType"], str):
            raise ValueError("the type of the event is no text")
        intact = document["hash"] == event_hash(document)
        entry_of(document)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return UNREADABLE, f"{type(error).__name__}: {error}"
    return None if intact else (CORRUPTION, "the event does not carry the hash of what it says")


def _check(record: StreamRecord) -> Document | FailedRecord:
    """Return the document to publish, or why it never will be.

    The event table is append-only: any change but an INSERT is corruption.
    """
    if record.change != INSERT:
        return _failure(record, CORRUPTION, f"{record.change} on the append-only event table")
    if record.document is None:
        return _failure(record, UNREADABLE, record.error or "no image")
    document = record.document
    try:
        told = (document["incidentId"], document["sequence"])
        if told != (record.incident_id, record.sequence):
            raise ValueError("the image is not the event its key names")
    except (KeyError, ValueError) as error:
        return _failure(record, UNREADABLE, f"{type(error).__name__}: {error}")
    wrong = unpublishable(document)
    return document if wrong is None else _failure(record, *wrong)


def _failure(record: StreamRecord, error: str, detail: str) -> FailedRecord:
    return FailedRecord(record.incident_id, record.sequence, error, detail)
