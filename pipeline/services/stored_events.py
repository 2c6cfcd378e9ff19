"""Which stored events a republication is about: named ones of named incidents, or all of a span of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from pipeline.domain.canonical import Document, parse_time
from pipeline.domain.errors import Corrupt
from pipeline.services.fanout import UNREADABLE
from pipeline.services.ports import FailedRecord, IncidentStore
from pipeline.services.republish import EventPage, Place

MISSING: Final = "missing"
HISTORY_PAGE: Final = 100
# In one page: beyond that a history can't be read at all.
UNREADABLE_MAX: Final = 100

# From one sequence to another, both included; None: to the last there is.
Sequences = tuple[int, int | None]
Span = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Sequences of one incident, in order and apart. `exact`: each of them is known to exist."""

    ranges: tuple[Sequences, ...]
    exact: bool = True


def ranges_of(sequences: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Return numbers as ranges, in order; a repetition counts once."""
    found: list[tuple[int, int]] = []
    for sequence in sorted(set(sequences)):
        if found and found[-1][1] == sequence - 1:
            found[-1] = (found[-1][0], sequence)
        else:
            found.append((sequence, sequence))
    return tuple(found)


def overlapping(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return spans of time in order, those that overlap or touch as one."""
    found: list[Span] = []
    for since, until in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(until, found[-1][1]))
        else:
            found.append((since, until))
    return tuple(found)


class NamedEvents:
    """Implements `StoredEvents`: each incident is a part."""

    def __init__(self, store: IncidentStore, wanted: Mapping[str, Wanted]) -> None:
        self.store = store
        self.wanted = wanted

    @property
    def parts(self) -> Sequence[str]:
        return tuple(self.wanted)

    async def page(self, part: str, behind: Place | None) -> EventPage:
        at = 0 if behind is None else behind[1]
        for first, last in self.wanted[part].ranges:
            if last is None or last > at:
                return await self._page(part, max(first - 1, at), last, exact=self.wanted[part].exact)
        return EventPage((), (), 0, None)

    async def _page(self, incident: str, after: int, last: int | None, *, exact: bool) -> EventPage:
        """Read on within one range. A gap in the table, and what can't be read there, is lost; what is behind it is not."""
        documents: list[Document] = []
        lost: list[FailedRecord] = []
        at = after
        room = HISTORY_PAGE if last is None else min(HISTORY_PAGE, last - after)
        while len(documents) < room:
            try:
                async for document in self.store.history(incident, at, room - len(documents)):
                    sequence = int(document["sequence"])
                    beyond = last is not None and sequence > last
                    lost += _missing(incident, at + 1, last if last is not None and beyond else sequence - 1)
                    at = last if last is not None and beyond else sequence
                    if beyond:
                        return EventPage(tuple(documents), tuple(lost), len(documents), (incident, at))
                    documents.append(document)
                if len(documents) < room:
                    return self._end(incident, documents, lost, at, last if exact else None)
            except Corrupt as error:
                if len(lost) >= UNREADABLE_MAX:
                    raise
                at += 1
                lost.append(FailedRecord(incident, at, UNREADABLE, str(error)))
        return EventPage(tuple(documents), tuple(lost), len(documents), (incident, at))

    @staticmethod
    def _end(incident: str, documents: list[Document], lost: list[FailedRecord], at: int, promised: int | None) -> EventPage:
        """Return the last page of a history: what is promised behind its end is lost."""
        if promised is None:
            return EventPage(tuple(documents), tuple(lost), len(documents), None)
        gone = (*lost, *_missing(incident, at + 1, promised))
        return EventPage(tuple(documents), gone, len(documents), (incident, max(at, promised)))


def _missing(incident: str, first: int, last: int) -> list[FailedRecord]:
    if first > last:
        return []
    which = f"event {first} is" if first == last else f"events {first} to {last} are"
    return [FailedRecord(incident, first, MISSING, f"{which} not in the event table")]


class Scanned(Protocol):
    """A page of a segment of the event table."""

    @property
    def documents(self) -> tuple[Document, ...]: ...
    @property
    def unreadable(self) -> tuple[FailedRecord, ...]: ...
    @property
    def examined(self) -> int: ...
    @property
    def last(self) -> Place | None: ...


class EventScan(Protocol):
    async def page(self, segment: int, total: int, span: Span, behind: Place | None) -> Scanned:
        """Return a segment's next events of a span of time; an incident lies in one segment whole. Raises `Unavailable`."""
        ...


class EventsOfTime:
    """Implements `StoredEvents`: each segment of the event table is a part. `spans` are in order and apart."""

    def __init__(self, scan: EventScan, spans: Sequence[Span], segments: int) -> None:
        self.scan = scan
        self.spans = tuple(spans)
        self.segments = segments

    @property
    def parts(self) -> Sequence[str]:
        return tuple(f"{number}/{self.segments}" for number in range(self.segments))

    async def page(self, part: str, behind: Place | None) -> EventPage:
        whole = (self.spans[0][0], self.spans[-1][1])
        found = await self.scan.page(int(part.partition("/")[0]), self.segments, whole, behind)
        documents = [document for document in found.documents if self._is_within(document)]
        # Incidents stay as they came; DynamoDB promises nothing of what is in one, so it is put in order here.
        turn = {incident: number for number, incident in enumerate(dict.fromkeys(map(_incident, documents)))}
        documents.sort(key=lambda document: (turn[_incident(document)], int(document["sequence"])))
        return EventPage(tuple(documents), found.unreadable, found.examined, found.last)

    def _is_within(self, document: Document) -> bool:
        if len(self.spans) == 1:
            return True
        try:
            times = [parse_time(document[name]) for name in ("timestamp", "decidedAt") if name in document]
        except (ValueError, TypeError, AttributeError):
            return True
        return any(since <= time < until for since, until in self.spans for time in times)


def _incident(document: Document) -> str:
    return str(document["incidentId"])
