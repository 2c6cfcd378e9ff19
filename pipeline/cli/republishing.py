"""Runs a republication for a command: its pace, its marks, what is seen of it, and what is said when it is broken off."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pipeline.cli.checkpoint import Checkpoint
from pipeline.cli.republish_marks import MARKS
from pipeline.cli.session import Invocation, Session
from pipeline.cli.target import Target
from pipeline.cli.telling import short
from pipeline.cli.terminal import CommandError, Meter, Screen, key_values
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import BusEntry, BusRefusal, EventBus, FailedRecord
from pipeline.services.republish import LANES, Marks, Pace, Republisher, StoredEvents
from pipeline.stores.clients import Clients
from pipeline.stores.eventbridge import EventBridgeBus

ROLE: Final = "RepublishRoleArn"
SERVICES: Final = ("dynamodb", "events", "sqs")
# EventBridge hands 750 events a second to targets in its smallest regions, of all rules together.
RATE: Final = 200.0
UNLIMITED: Final = 1e9
NAMED_MAX: Final = 20


@dataclass(frozen=True, slots=True)
class Terms:
    """How to publish: events a second; only count; ask nothing; go on where an earlier run stopped; how long to wait for
    a bus or a table that is down.
    """

    rate: float = RATE
    dry_run: bool = False
    yes: bool = False
    resume: bool = True
    patience_s: float = 60.0

    @property
    def arguments(self) -> str:
        """Return the options that a run which goes on must have, too."""
        return "" if self.rate == RATE else f" --rate {self.rate:g}"


class NoBus:
    """Takes every event and publishes none. Implements `EventBus` for a dry run."""

    async def publish(self, entries: Sequence[BusEntry]) -> tuple[BusRefusal | None, ...]:
        return (None,) * len(entries)


@dataclass
class Seen:
    """What a run shows while it goes on. Implements `Watch`. `out` are the events that were published, if they are kept."""

    screen: Screen
    meter: Meter
    what: str
    keeps: bool = False
    examined: int = 0
    count: int = 0
    named_first: list[FailedRecord] = field(default_factory=list)
    out: set[tuple[str, int]] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    def read(self, examined: int) -> None:
        self.examined += examined
        self._show()

    def published(self, documents: Sequence[Document]) -> None:
        self.count += len(documents)
        if self.keeps:
            self.out |= {(str(document["incidentId"]), int(document["sequence"])) for document in documents}
        self._show()

    def named(self, failure: FailedRecord) -> None:
        if len(self.named_first) < NAMED_MAX:
            self.named_first.append(failure)
        if self.screen.as_json:
            self.screen.record({"notPublished": document_of(failure)})

    def waits(self, error: Unavailable, seconds: float) -> None:
        self.screen.notice(f"Waiting {seconds:.0f} s: {error}")

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self.began, 1e-6)

    def _show(self) -> None:
        rate = self.count / self.seconds
        self.meter.say(f"{self.what}: {self.count} of {self.examined} read events, {rate:.0f}/s")


def document_of(failure: FailedRecord) -> Document:
    told = {
        "incidentId": failure.incident_id,
        "sequence": failure.sequence,
        "error": failure.error,
        "detail": failure.detail,
    }
    return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Republished:
    """What a run came to. `before` is what earlier runs of the same question had published."""

    marks: Marks
    before: int
    seconds: float
    named: Sequence[FailedRecord] = ()
    out: frozenset[tuple[str, int]] = frozenset()

    @property
    def published(self) -> int:
        return self.marks.published - self.before


def marks_file(target: Target, *question: object) -> Checkpoint[Marks]:
    """Return where the marks of a question about a target are kept."""
    return Checkpoint.of(MARKS, republications(target), (*target.identity, *question))


def republications(target: Target) -> Path:
    return target.state_dir.parent / "republications"


async def republish_events(
    invocation: Invocation,
    session: Session,
    events: StoredEvents,
    terms: Terms,
    marks_at: Checkpoint[Marks] | None,
    again: str,
    *,
    keeps: bool = False,
    lanes: int = LANES,
) -> Republished:
    """Publish events again; what is broken off says `again`, the command that goes on. A dry run leaves no marks."""
    screen, clock = invocation.screen, SystemClock()
    marks = (marks_at.read() if marks_at is not None and terms.resume and not terms.dry_run else None) or Marks()
    before = marks.published
    if before or marks.examined:
        screen.say(f"Going on where an earlier run stopped: {before} are published.", "dim")
    bus: EventBus = NoBus() if terms.dry_run else bus_of(session.clients, session.target)
    pace = Pace(UNLIMITED if terms.dry_run else terms.rate, clock)

    def keep(moved: Marks) -> None:
        if marks_at is not None and not terms.dry_run:
            marks_at.write(moved)

    what = "counting" if terms.dry_run else "publishing again"
    with screen.progress(what) as meter:
        seen = Seen(screen, meter, what, keeps)
        try:
            await Republisher(bus, clock, pace, seen, terms.patience_s).run(events, marks, keep, lanes)
        except Unavailable as error:
            raise CommandError(f"Broken off after {marks.published} events: {error}", again) from error
        except asyncio.CancelledError:
            screen.say(f"Interrupted after {marks.published} events; to go on: {again}", "dim")
            raise
    if marks_at is not None and not terms.dry_run:
        marks_at.remove()
    return Republished(marks, before, seen.seconds, seen.named_first, frozenset(seen.out))


def bus_of(clients: Clients, target: Target) -> EventBus:
    return EventBridgeBus(clients.events, target.output("BusName"), SystemClock())


def tell(screen: Screen, found: Republished, terms: Terms, more: Document | None = None) -> None:
    """Write what a run came to."""
    marks, seconds = found.marks, found.seconds
    verb = "wouldPublish" if terms.dry_run else "published"
    if screen.as_json:
        counts = {verb: found.published, "publishedBefore": found.before, "read": marks.examined}
        rate = {"seconds": round(seconds, 3), "eventsPerSecond": round(found.published / seconds, 1)}
        screen.record(counts | {"notPublished": marks.failed} | rate | (more or {}))
        return
    shown: list[tuple[str, object]] = []
    if terms.dry_run:
        shown.append(("would publish", f"{events_told(found.published)}; nothing was done"))
    else:
        shown.append(
            (
                "published",
                f"{events_told(found.published)} in {seconds:.1f} s ({found.published / seconds:.0f}/s), marked as replayed",
            )
        )
    if found.before:
        shown.append(("before", f"{events_told(found.before)}, by the run that was broken off"))
    if marks.failed:
        shown.append(("not published", f"{marks.failed}, each for its own reason:"))
    key_values(screen, shown)
    for failure in found.named:
        screen.say(f"  {short(failure.incident_id or '?')} #{failure.sequence}: {failure.error}: {failure.detail}", "red")
    if marks.failed > len(found.named):
        screen.say(f"  … and {marks.failed - len(found.named)} more; --json names them all", "red")


def events_told(number: int) -> str:
    return "1 event" if number == 1 else f"{number} events"
