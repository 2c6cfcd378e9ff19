"""The event table by time, for a command: what reading all of it costs is said before, and asked where it is much."""

from collections.abc import Sequence
from typing import Final

from pipeline.cli.session import Invocation, Session
from pipeline.cli.whole_table import agree_to_read, cost_of
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
