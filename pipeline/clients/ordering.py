"""Puts events in order: each (incidentId, sequence) comes out once and in turn, however they came in.

Delivery is at least once and in no order; sequences of an incident run from 1 without gaps. What is behind a gap is held
back, and the gap can be told (`gaps`), filled from the API (`fill`) or given up (`give_up`). Pure but for the time a gap is
first seen and the `Progress` it is given.

An event is done when its handler has returned, not before: one that fails midway comes out again. So do the last ones
before a crash. Handlers must be harmless twice: tell repetitions by `event_id`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from pipeline.clients.answers import Event
from pipeline.clients.progress import Progress
from pipeline.domain.errors import OpxError


class History(Protocol):
    """Where missing events are read: an `Operator` is one."""

    def events(self, incident_id: str, *, after: int = 0) -> Iterable[Event]:
        """Return an incident's events behind sequence `after`, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Gap:
    """Events that are not here yet although later ones are: sequences `first` to `last`, missed since then."""

    incident_id: str
    first: int
    last: int
    since: datetime


class HeldTooMany(OpxError):
    """No more can be held back: this event was not taken in. Leave it to come again, and fill or give up `gap` meanwhile.

    Where there is no gap, those before it are here and not handled: `drain` them.
    """

    def __init__(self, event: Event, gap: Gap | None, held: int) -> None:
        missing = f", {gap.first}-{gap.last} missing" if gap else ""
        super().__init__(f"{event.incident_id}: no room for event {event.sequence} ({held} are held back{missing})")
        self.event = event
        self.gap = gap


def _now() -> datetime:
    return datetime.now(UTC)


class Ordered:
    """Events on their way to one handler. Holds at most so many of one incident, and of all together."""

    def __init__(
        self,
        progress: Progress,
        *,
        held_max_each: int = 1_000,
        held_max: int = 10_000,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._progress = progress
        self._held: dict[str, dict[int, tuple[Event, datetime]]] = {}
        self._count = 0
        self._max_each = held_max_each
        self._max = held_max
        self._clock = clock

    def take(self, event: Event) -> Iterator[Event]:
        """Take an event in; iterate over those whose turn it is: the one yielded is done when the next is asked for.

        A repetition yields nothing new. Raises `HeldTooMany`, and then has not taken it.
        """
        self.offer(event)
        return self.drain(event.incident_id)

    def offer(self, event: Event) -> bool:
        """Take an event in without asking for what is ready; return False for a repetition. Raises `HeldTooMany`."""
        incident, sequence = event.incident_id, event.sequence
        at = self._progress.position(incident)
        held = self._held.get(incident, {})
        if sequence <= at or sequence in held:
            return False
        # The one that is next lets others out: it is always taken.
        full = len(held) >= self._max_each or self._count >= self._max
        if full and sequence != at + 1:
            behind = {**held, sequence: (event, self._clock())}
            raise HeldTooMany(event, next(iter(_gaps(incident, at, behind)), None), self._count)
        self._held.setdefault(incident, held)[sequence] = (event, self._clock())
        self._count += 1
        return True

    def drain(self, incident_id: str) -> Iterator[Event]:
        """Iterate over the events of an incident whose turn it is, also those whose handler failed before."""
        while (event := self.ready(incident_id)) is not None:
            yield event
            self.done(event)

    def ready(self, incident_id: str) -> Event | None:
        """Return the event that is next; it stays so until it is `done`."""
        held = self._held.get(incident_id, {})
        at = self._progress.position(incident_id)
        if at + 1 in held:
            return held[at + 1][0]
        # Of what was handled elsewhere meanwhile, or given up, nothing is kept.
        for passed in [sequence for sequence in held if sequence <= at]:
            self._forget(incident_id, passed)
        return None

    def done(self, event: Event) -> None:
        """Store that an event was handled."""
        self._progress.advance(event.incident_id, event.sequence)
        self._forget(event.incident_id, event.sequence)

    def gaps(self, incident_id: str | None = None) -> tuple[Gap, ...]:
        """Return what is missing in front of or between what is held back, of one incident or of all."""
        named = list(self._held) if incident_id is None else [incident_id]
        return tuple(
            gap
            for incident in named
            for gap in _gaps(incident, self._progress.position(incident), self._held.get(incident, {}))
        )

    def fill(self, gap: Gap, history: History) -> Iterator[Event]:
        """Read a gap's events and iterate over what is ready then, as `take` does. What is not there yet stays a gap."""
        for event in history.events(gap.incident_id, after=gap.first - 1):
            if event.sequence > gap.last:
                break
            yield from self.take(event)

    def give_up(self, gap: Gap) -> Iterator[Event]:
        """Give up a gap, and all before it, for good; iterate over what is ready then. What comes of it later is dropped."""
        self._progress.advance(gap.incident_id, gap.last)
        return self.drain(gap.incident_id)

    def _forget(self, incident_id: str, sequence: int) -> None:
        held = self._held.get(incident_id, {})
        if held.pop(sequence, None) is not None:
            self._count -= 1
        if not held:
            self._held.pop(incident_id, None)


def _gaps(incident_id: str, at: int, held: Mapping[int, tuple[Event, datetime]]) -> list[Gap]:
    """Return the gaps behind position `at`; each is missed since the first event behind it came."""
    found: list[Gap] = []
    expected = at + 1
    for sequence in sorted(one for one in held if one > at):
        if sequence > expected:
            since = min(came for one, (_, came) in held.items() if one >= sequence)
            found.append(Gap(incident_id, expected, sequence - 1, since))
        expected = sequence + 1
    return found
