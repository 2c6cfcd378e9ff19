"""From the event table to the bus once more: at least once, each incident's events in order, at a bounded rate, resumable.

What does not carry its own hash, what is not there, and what the bus refuses for good is named and left out; the rest goes
on. An event is marked only after the bus has taken it, so whatever ends a run, a later one that is given the marks loses
none, and sends hardly any again. What is published is the stored event, marked as replayed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.services.fanout import entry_of, unpublishable
from pipeline.services.ports import BusRefusal, Clock, EventBus, FailedRecord

# One request to the bus takes ten.
CHUNK_MAX: Final = 10
LANES: Final = 4
# So much at most a run that is killed has published beyond its marks, and one request of each lane.
UNMARKED_MAX: Final = 50
UNMARKED_S: Final = 1.0
PAUSE_S: Final = 1.0
PAUSE_S_MAX: Final = 15.0

# An incident and a sequence: behind it a part goes on.
Place = tuple[str, int]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some of a part's events. `lost` should be here and can't be published; `last` is None at the part's end."""

    documents: tuple[Document, ...]
    lost: tuple[FailedRecord, ...]
    examined: int
    last: Place | None


class StoredEvents(Protocol):
    """Which events are asked for, in parts that are read on their own. An incident is in one part whole."""

    @property
    def parts(self) -> Sequence[str]: ...

    async def page(self, part: str, behind: Place | None) -> EventPage:
        """Return what a part has next behind a place, each incident's events in order. Raises `Unavailable`."""
        ...


@dataclass
class Marks:
    """How far a republication has come. `failed` counts what was named and not published.

    `settled`: of the page behind a part's place, what the bus has taken or refused for good.
    """

    places: dict[str, Place] = field(default_factory=dict)
    settled: dict[str, set[Place]] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    examined: int = 0
    published: int = 0
    failed: int = 0


class Watch(Protocol):
    """Who looks on while events go out."""

    def read(self, examined: int) -> None: ...

    def published(self, documents: Sequence[Document]) -> None: ...

    def named(self, failure: FailedRecord) -> None:
        """Be told of an event that is not published."""
        ...

    def waits(self, error: Unavailable, seconds: float) -> None: ...


class Pace:
    """So many events a second, whoever publishes them; what was not used is not made up for later."""

    def __init__(self, rate: float, clock: Clock) -> None:
        if rate <= 0:
            raise ValueError("the rate is above 0")
        self.rate = rate
        self.clock = clock
        self._next = clock.monotonic()

    @property
    def chunk(self) -> int:
        """Return how many go out together."""
        return max(1, min(CHUNK_MAX, int(self.rate)))

    async def take(self, count: int) -> None:
        """Wait until `count` events may go out."""
        now = self.clock.monotonic()
        start = max(now, self._next)
        self._next = start + count / self.rate
        if start > now:
            await self.clock.sleep(start - now)


class Republisher:
    """Publishes stored events again. `patience_s`: how long it waits for a bus or a table that is down."""

    def __init__(self, bus: EventBus, clock: Clock, pace: Pace, watch: Watch, patience_s: float = 60.0) -> None:
        self.bus = bus
        self.clock = clock
        self.pace = pace
        self.watch = watch
        self.patience_s = patience_s
        self._unmarked = 0
        self._marked_at = clock.monotonic()

    async def run(self, events: StoredEvents, marks: Marks, keep: Callable[[Marks], None], lanes: int = LANES) -> None:
        """Publish what is asked for and not marked yet; `keep` gets the marks often, and however this ends.

        Raises `Unavailable` where bus or table stay down; then the marks say where to go on.
        """
        rest = iter([part for part in events.parts if part not in marks.done])

        async def lane() -> None:
            for part in rest:
                await self._part(events, part, marks, keep)

        tasks = [asyncio.create_task(lane()) for _ in range(lanes)]
        try:
            await asyncio.gather(*tasks)
        finally:
            # What ends one lane ends the others: nothing goes on in the background.
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            keep(marks)

    async def _part(self, events: StoredEvents, part: str, marks: Marks, keep: Callable[[Marks], None]) -> None:
        while part not in marks.done:
            page = await self._patiently(partial(events.page, part, marks.places.get(part)))
            self.watch.read(page.examined)
            await self._publish(page, part, marks, keep)
            marks.examined += page.examined
            marks.settled.pop(part, None)
            if page.last is None:
                marks.done.add(part)
                marks.places.pop(part, None)
            else:
                marks.places[part] = page.last
            self._mark(marks, keep)

    async def _publish(self, page: EventPage, part: str, marks: Marks, keep: Callable[[Marks], None]) -> None:
        """Publish what an earlier run did not of a page, and name what can't be."""
        settled = marks.settled.setdefault(part, set())
        lost = list(page.lost)
        sound: list[Document] = []
        for document in page.documents:
            wrong = unpublishable(document)
            if wrong is not None:
                lost.append(FailedRecord(document.get("incidentId"), document.get("sequence"), *wrong))
            elif _place(document) not in settled:
                sound.append(document)
        for start in range(0, len(sound), self.pace.chunk):
            chunk = sound[start : start + self.pace.chunk]
            await self.pace.take(len(chunk))
            answers = await self._patiently(partial(self._send, chunk))
            out = [document for document, refusal in zip(chunk, answers, strict=True) if refusal is None]
            self.watch.published(out)
            marks.published += len(out)
            refused = [
                FailedRecord(*_place(document), refusal.code, refusal.detail)
                for document, refusal in zip(chunk, answers, strict=True)
                if refusal is not None
            ]
            self._name(refused, marks)
            settled.update(map(_place, chunk))
            self._unmarked += len(chunk)
            if self._unmarked >= UNMARKED_MAX or self.clock.monotonic() - self._marked_at >= UNMARKED_S:
                self._mark(marks, keep)
        # What can't be published is found again by a run that goes on: named when its page is done, it counts once.
        self._name(lost, marks)

    def _name(self, failures: Sequence[FailedRecord], marks: Marks) -> None:
        marks.failed += len(failures)
        for failure in failures:
            self.watch.named(failure)

    def _mark(self, marks: Marks, keep: Callable[[Marks], None]) -> None:
        keep(marks)
        self._unmarked, self._marked_at = 0, self.clock.monotonic()

    async def _send(self, documents: Sequence[Document]) -> tuple[BusRefusal | None, ...]:
        return await self.bus.publish([entry_of(document, replayed=True) for document in documents])

    async def _patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what is asked for; while it is unavailable ask again after growing pauses, until patience is at its end."""
        waited, pause = 0.0, PAUSE_S
        while True:
            try:
                return await ask()
            except Unavailable as error:
                if waited >= self.patience_s:
                    raise
                self.watch.waits(error, pause)
            await self.clock.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, PAUSE_S_MAX)


def _place(document: Document) -> Place:
    return str(document["incidentId"]), int(document["sequence"])
