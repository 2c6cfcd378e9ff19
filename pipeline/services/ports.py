"""What the services need from the outside, as protocols; no AWS name stands here. Adapters are in `stores`.

One decision is one `Commit`; a store applies it wholly or not at all and says exactly which of the results it was.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from pipeline.domain.base import DedupKey, Model, Service, Uuid
from pipeline.domain.base import Sequence as EventSequence
from pipeline.domain.canonical import Document
from pipeline.domain.controls import PinnedControls
from pipeline.domain.correlation import Window
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.transitions import Severity, State


class Pointer(Model):
    """Which incident holds (or last held) a key. Changes only when an occurrence begins."""

    service: Service
    dedup_key: DedupKey
    occurrence: EventSequence
    incident_id: Uuid


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """A guard: the key's pointer still names this occurrence. Kept by what opens a pending incident."""

    pointer: Pointer


@dataclass(frozen=True, slots=True)
class RowUnmoved:
    """A guard: the incident is still at the version it was seen at. Kept by what takes the key of one that has expired."""

    incident: Incident


@dataclass(frozen=True, slots=True)
class Commit:
    """One decision's whole effect.

    `events` are the next of `incident` (its state after them) and are conditioned on the version before the first of them;
    `pointer` is set where an occurrence begins: absent before the first, the previous number before a later one. `guard` is
    checked with the rest and written by nothing: together they keep one open incident per key. `window` is a correlation
    window as counted with this commit, conditioned on the version before it (absent for version 1).
    """

    receipts: tuple[IdempotencyRecord, ...]
    events: tuple[IncidentEvent, ...] = ()
    incident: Incident | None = None
    pointer: Pointer | None = None
    guard: KeyHeld | RowUnmoved | None = None
    window: Window | None = None

    @property
    def expected_version(self) -> int:
        """The incident's version before this commit; 0 where it must not exist yet."""
        return self.events[0].sequence - 1 if self.events else 0


@dataclass(frozen=True, slots=True)
class Committed:
    """All of it took effect, now."""


@dataclass(frozen=True, slots=True)
class ReceiptExists:
    """Nothing was written: requests with these keys were answered before; the others of the commit were not."""

    receipts: tuple[IdempotencyRecord, ...]


@dataclass(frozen=True, slots=True)
class PointerMoved:
    """Nothing was written: another incident holds the key. `incident` is the row in the way, where the store saw one."""

    pointer: Pointer
    incident: Incident | None


@dataclass(frozen=True, slots=True)
class VersionMoved:
    """Nothing was written: the incident is not at the expected version. `incident` is its row now, None if there is none."""

    incident: Incident | None


@dataclass(frozen=True, slots=True)
class WindowMoved:
    """Nothing was written: somebody else counted in the window meanwhile. `window` is its row now, None if there is none."""

    window: Window | None


CommitResult = Committed | ReceiptExists | PointerMoved | VersionMoved | WindowMoved


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a listing, which an incident keeps for ever: listings descend by creation, then by id."""

    created_at: datetime
    incident_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which incidents to list, newest first; None means any. `since` is included, `until` and `before` are not."""

    state: State | None = None
    service: str | None = None
    severity: Severity | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 50
    before: Position | None = None

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError("a listing of nothing; the limit is at least 1")

    def matches(self, incident: Incident) -> bool:
        """Return whether an incident, as it is, belongs into this listing."""
        return (
            (self.state is None or incident.state is self.state)
            and (self.service is None or incident.service == self.service)
            and (self.severity is None or incident.severity is self.severity)
            and (self.since is None or self.since <= incident.created_at)
            and (self.until is None or incident.created_at < self.until)
            and (self.before is None or position(incident) < self.before)
        )


def position(incident: Incident) -> Position:
    return Position(incident.created_at, incident.incident_id)


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing. `next` is where to go on, None only at the end: a short page, even an empty one, may have it."""

    incidents: tuple[Incident, ...]
    next: Position | None


# Entries of an index examined for one page, at most: a filter that finds little costs more pages, not longer ones.
EXAMINED_MAX: Final = 1000


class IncidentStore(Protocol):
    """The three tables. Every method may raise `Unavailable`. Reads are strongly consistent, but for which incidents `page`
    finds: an index lags a moment behind.
    """

    async def commit(self, commit: Commit) -> CommitResult:
        """Apply a commit atomically. Raises `Conflict` where another transaction was in the way, `Corrupt` where an event
        exists that the incident's row does not know of. After `Unavailable` it may or may not have taken effect.
        """
        ...

    async def load(self, incident_id: str) -> Incident | None: ...

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None: ...

    async def load_window(self, window_id: str) -> Window | None: ...

    async def load_receipt(self, receipt_id: str) -> IdempotencyRecord | None: ...

    def history(self, incident_id: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Document]:
        """Yield the stored events behind sequence `after`, in order, as stored; at most `limit` (from 1)."""
        ...

    def scan_events(self) -> AsyncIterator[Document]:
        """Yield every stored event of every incident, in no order, as stored."""
        ...

    async def page(self, listing: Listing) -> Page:
        """Return a page of the incidents that match, as they are now.

        Going on from each page's `next` finds every incident that matched throughout, exactly once and in order, whatever
        else happens meanwhile. One page examines `EXAMINED_MAX` at most. What an index doesn't show yet is not found: what
        was created a moment before; and, where a state but no service is asked for, what came to that state a moment before.
        """
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a queue delivered it. `receive_count` starts at 1; `attributes` are the sender's own."""

    message_id: str
    body: str
    sender_id: str
    sent_at: datetime
    receive_count: int
    receipt_handle: str
    source: str
    group: str | None = None
    attributes: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedMessage:
    """A message that will never be applied as it is: the intact body and one attribute that says why."""

    body: str
    explanation: Document


class RejectedQueue(Protocol):
    async def reject(self, message: RejectedMessage) -> None:
        """Keep a refused message where people find it. Raises `Unavailable`."""
        ...


class SourceQueue(Protocol):
    async def delay(self, messages: Sequence[Message], delay_s: int) -> None:
        """Make undeleted messages visible again after `delay_s` seconds. Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class BusEntry:
    """One event for the bus, as the bus takes it."""

    detail_type: str
    detail: str
    time: datetime
    resource: str


class EventBus(Protocol):
    async def publish(self, entries: Sequence[BusEntry]) -> tuple["BusRefusal | None", ...]:
        """Publish, resending failed entries; return per entry None or why the bus will never take it.

        Raises `Unavailable` where the bus is down or entries keep failing for a reason that may pass.
        """
        ...


@dataclass(frozen=True, slots=True)
class BusRefusal:
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class FailedRecord:
    """A stream record that can never be published."""

    incident_id: str | None
    sequence: int | None
    error: str
    detail: str


class FailureQueue(Protocol):
    async def keep(self, failures: Sequence[FailedRecord]) -> None:
        """Keep records that were not published, for a person. Raises `Unavailable`."""
        ...


class ControlsSource(Protocol):
    async def current(self) -> PinnedControls:
        """Return the controls in force, at most 30 seconds old while they can be read, else the last that were.

        Raises `Unavailable` where they can't be read and never were.
        """
        ...


class Clock(Protocol):
    def now(self) -> datetime:
        """Return the time of day in UTC; may jump."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never run backwards, for deadlines."""
        ...

    async def sleep(self, seconds: float) -> None: ...
