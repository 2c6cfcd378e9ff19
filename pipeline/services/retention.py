"""Retention: what is closed, and has been left alone for long enough, is archived. As SYSTEM, by the same controller as all.

Quiet is measured from the last event, not from the closing: a late note or piece of evidence says that somebody still works
with it. Each archiving is a decision of its own under a key made of the incident, so a run that died and one beside it come
to one effect and one receipt; nothing is remembered between runs. Whatever fails is told and left for the next run.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Key, Received
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Code, Corrupt, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import AuthorityType, State
from pipeline.services.controller import ControllerService
from pipeline.services.decision import Answered, Applied, Outcome, Refused, View
from pipeline.services.ports import EXAMINED_MAX, Clock, Listing, Position

ARCHIVED_MAX: Final = 5000
# Beyond the bound of a run, so many more are counted as waiting.
WAITING_MAX: Final = 5000
AT_ONCE: Final = 8
# One contended incident must not take the time of all.
TRY_S: Final = 10.0
# So many in a row that could not be reached, and it is the table that can't be.
UNREACHED_MAX: Final = 8
# How closely what can't be read is fenced in: what was created in the same span stays, and the rest goes on.
SPAN_MIN: Final = timedelta(milliseconds=1)
SPAN_FIRST_MIN: Final = timedelta(days=1)
EARLIEST: Final = datetime(2000, 1, 1, tzinfo=UTC)
KEY_KIND: Final = "retention"
REASON: Final = "Retention: closed, and nothing has happened to it for longer than ArchiveAfterDays."
# It is not what it was when it was looked at, so it is not for this run to judge.
MOVED: Final = frozenset({Code.VERSION_STALE, Code.TRANSITION_ILLEGAL, Code.INCIDENT_UNKNOWN})
FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Archival:
    """What became of one incident that was due; of none, where a page could not be read. `error`: it is tried again."""

    incident_id: str | None
    outcome: Outcome | None
    error: Exception | None
    duration_s: float

    @property
    def moved(self) -> bool:
        """True where something happened to it meanwhile: it stays closed, or is archived already."""
        return isinstance(self.outcome, Refused) and self.outcome.refusal.code in MOVED

    @property
    def refused(self) -> bool:
        return isinstance(self.outcome, Refused) and not self.moved


@dataclass(slots=True)
class Run:
    """What a run came to. `waiting`: were due and not reached, as far as counted; `whole`: everything was looked at."""

    archived: int = 0
    refused: int = 0
    failed: int = 0
    waiting: set[str] = field(default_factory=set)
    whole: bool = True


Tell = Callable[[Archival], None]


class RetentionService:
    """Archives in the name of `sender` what has been quiet for `after`; nothing where that is no time at all."""

    def __init__(
        self, controller: ControllerService, sender: Sender, after: timedelta, *, archived_max: int = ARCHIVED_MAX
    ) -> None:
        self.controller = controller
        self.sender = sender
        self.after = after
        self.archived_max = archived_max
        self.store = controller.loop.store
        self.clock: Clock = controller.loop.clock

    async def run(self, asked_at: datetime | None, deadline: float, tell: Tell) -> Run:
        """Archive what is due, oldest first, until all is, the bound is reached or `deadline` comes (monotonic).

        `asked_at` is the time by whoever asked for the run: with two clocks the earlier one counts, because what is archived
        too early can't be taken back. `tell` hears of each incident as soon as it is settled.
        """
        return await _Round(self, self._quiet_since(asked_at), deadline, tell).go()

    def _quiet_since(self, asked_at: datetime | None) -> datetime:
        """Return the moment since when nothing may have happened to an incident; the earliest of all where none is due."""
        now = self.clock.now()
        asked = now if asked_at is None else min(now, asked_at)
        return asked - self.after if timedelta() < self.after < asked - EARLIEST else EARLIEST

    async def archive(self, seen: Incident, deadline: float) -> Outcome:
        """Archive one incident as it was seen. Refuses with `version-stale` where anything has happened to it since."""
        received = Received(self.sender, seen.incident_id, self.clock.now())
        work = self.controller.work_of(command_for(seen.incident_id), received, Key(KEY_KIND, seen.incident_id))
        view = View()
        view.keep(seen)
        return await self.controller.take(replace(work, row_version=seen.version), view, deadline)


def command_for(incident_id: str) -> Document:
    """Return the command, the same for an incident at all times: it is what its receipt compares with."""
    return {
        "type": "change-state",
        "incidentId": incident_id,
        "newState": State.ARCHIVED.value,
        "authority": AuthorityType.SYSTEM.value,
        "reason": REASON,
    }


def spans(until: datetime, first: timedelta) -> list[tuple[datetime, datetime]]:
    """Return the time before `until` in spans that double going back, oldest first.

    Listings go from new to old, and only these are in reach. By spans, what has waited longest comes first: nothing young
    can keep anything old from its turn.
    """
    found: list[tuple[datetime, datetime]] = []
    width = max(first, SPAN_FIRST_MIN)
    while until > EARLIEST:
        since = until - width if width < until - EARLIEST else EARLIEST
        found.append((since, until))
        until, width = since, width * 2
    return found[::-1]


class _Round:
    """One run under way."""

    def __init__(self, service: RetentionService, quiet_since: datetime, deadline: float, tell: Tell) -> None:
        self.service = service
        self.quiet_since = quiet_since
        self.deadline = deadline
        self.tell = tell
        self.done = Run()
        self.tried: set[str] = set()
        self.unreached = 0
        self.stopped = False

    async def go(self) -> Run:
        # Whatever has been quiet since then was created before.
        for since, until in spans(self.quiet_since, self.service.after):
            async for rows in self._pages(since, until):
                await self._settle([row for row in rows if row.updated_at < self.quiet_since])
                if not self._goes_on():
                    self.done.whole = False
                    return self.done
        return self.done

    def _goes_on(self) -> bool:
        in_time = self.service.clock.monotonic() < self.deadline
        return in_time and not self.stopped and len(self.done.waiting) < WAITING_MAX

    async def _pages(self, since: datetime, until: datetime) -> AsyncIterator[Sequence[Incident]]:
        """Yield what is closed and was created in a span; around what can't be read, all but its own millisecond."""
        rest = [(since, until)]
        while rest:
            since, until = rest.pop()
            before: Position | None = None
            while True:
                listing = Listing(state=State.CLOSED, since=since, until=until, limit=EXAMINED_MAX, before=before)
                try:
                    page = await self.service.store.page(listing)
                except Corrupt as error:
                    middle = since + (until - since) / 2
                    if until - since > SPAN_MIN:
                        rest += [(middle, until), (since, middle)]
                    else:
                        self._failed(error.incident_id, error)
                    break
                except Unavailable as error:
                    self._failed(None, error)
                    self.stopped = True
                    yield ()
                    return
                yield page.incidents
                if page.next is None:
                    break
                before = page.next

    async def _settle(self, due: Sequence[Incident]) -> None:
        """Archive incidents, a few at a time; those that the run can't take are counted."""
        rest = [row for row in due if row.incident_id not in self.tried]
        while rest:
            size = min(AT_ONCE, self.service.archived_max - self.done.archived)
            if size < 1 or not self._goes_on():
                self.done.waiting |= {row.incident_id for row in rest}
                return
            group, rest = rest[:size], rest[size:]
            self.tried |= {row.incident_id for row in group}
            # One that fails, however it does, takes none along.
            answers = await asyncio.gather(*(self._archive(row) for row in group), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer

    async def _archive(self, row: Incident) -> None:
        clock = self.service.clock
        started = clock.monotonic()
        within = min(self.deadline, started + TRY_S)
        (answer,) = await asyncio.gather(self.service.archive(row, within), return_exceptions=True)
        if isinstance(answer, BaseException) and not isinstance(answer, Exception):
            raise answer
        if isinstance(answer, Unavailable) and clock.monotonic() >= self.deadline:
            # No fault of anybody's: the time was up.
            self.done.waiting.add(row.incident_id)
            return
        self._count(row.incident_id, answer, clock.monotonic() - started)

    def _count(self, incident_id: str | None, answer: Answered, duration_s: float) -> None:
        outcome, error = (None, answer) if isinstance(answer, Exception) else (answer, None)
        archival = Archival(incident_id, outcome, error, duration_s)
        self.unreached = self.unreached + 1 if isinstance(error, Unavailable) else 0
        self.done.archived += isinstance(outcome, Applied)
        self.done.refused += archival.refused
        self.done.failed += error is not None
        # What is forbidden is so for all of them: retention itself may do nothing.
        forbidden = isinstance(outcome, Refused) and outcome.refusal.status == FORBIDDEN
        self.stopped = self.stopped or forbidden or self.unreached == UNREACHED_MAX
        self.tell(archival)

    def _failed(self, incident_id: str | None, error: Exception) -> None:
        self._count(incident_id, error, 0.0)
