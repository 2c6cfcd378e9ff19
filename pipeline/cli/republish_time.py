"""The event table by time, for a command: what reading all of it costs is said before, and asked where it is much."""

from collections.abc import Sequence
from typing import Final

from pipeline.cli.session import Invocation, Session
from pipeline.cli.terminal import REFUSED, CommandError
from pipeline.services.stored_events import EventsOfTime, Span
from pipeline.stores.event_scan import DynamoEventScan, TableSize

SEGMENTS: Final = 4
LARGE_BYTES: Final = 1 << 30
# On demand, us-east-1, November 2025.
READ_UNITS_USD_PER_MILLION: Final = 0.125


async def by_time(invocation: Invocation, session: Session, spans: Sequence[Span], *, yes: bool) -> EventsOfTime:
    """Return the events of spans of time; what reading them costs is said before, and asked where it is much."""
    scan = DynamoEventScan(session.clients.dynamodb, session.target.output("EventsTableName"))
    size = await scan.size()
    if size.size_bytes:
        invocation.screen.notice(cost_told(size))
    if size.size_bytes > LARGE_BYTES and not yes:
        answer = None if invocation.screen.as_json else invocation.around.ask("Read all of it?")
        if not answer:
            message = "The table is large, and nothing was read." if answer is None else "Nothing was read."
            raise CommandError(message, "the same command with --yes", REFUSED)
    return EventsOfTime(scan, spans, SEGMENTS)


def cost_told(size: TableSize) -> str:
    usd = size.read_units * READ_UNITS_USD_PER_MILLION / 1e6
    return (
        f"There is no index by time: all of the event table is read, about {size.events} events in "
        f"{size.size_bytes / 2**20:.0f} MiB, {size.read_units} read units, {usd:.2f} USD in us-east-1."
    )
