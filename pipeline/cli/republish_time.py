"""The event table by time, for a command: what reading all of it costs is said before, and asked where it is much.

A run without an end goes up to when it began. Broken off, the same command must go on, so that moment is kept.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pipeline.cli.checkpoint import Checkpoint
from pipeline.cli.republish_marks import UNTIL
from pipeline.cli.republishing import marks_file, republications
from pipeline.cli.session import Invocation, Session
from pipeline.cli.target import Target
from pipeline.cli.whole_table import agree_to_read, cost_of
from pipeline.domain.canonical import format_time
from pipeline.services.republish import Marks
from pipeline.services.stored_events import EventsOfTime, Span
from pipeline.stores.event_scan import DynamoEventScan

SEGMENTS: Final = 4


async def by_time(invocation: Invocation, session: Session, spans: Sequence[Span], *, yes: bool) -> EventsOfTime:
    """Return the events of spans of time; what reading them costs is said before, and asked where it is much."""
    scan = DynamoEventScan(session.clients.dynamodb, session.target.output("EventsTableName"))
    size = await scan.size()
    told = f"There is no index by time: all of the event table is read, {cost_of(size)}."
    agree_to_read(invocation, size, told, "the same command with --yes", yes=yes)
    return EventsOfTime(scan, spans, SEGMENTS)


def marks_of(target: Target, span: Span) -> Checkpoint[Marks]:
    return marks_file(target, "time", *map(format_time, span), SEGMENTS)


def begun_at(target: Target, first: datetime) -> Checkpoint[datetime]:
    """Return where it is kept up to when a run goes that has no end."""
    return Checkpoint.of(UNTIL, republications(target), (*target.identity, "open", format_time(first)))


def end_of_earlier(target: Target, first: datetime) -> datetime | None:
    """Return up to when a run went that was broken off, if something of it is left to go on with."""
    end = begun_at(target, first).read()
    return end if end is not None and marks_of(target, (first, end)).read() is not None else None
