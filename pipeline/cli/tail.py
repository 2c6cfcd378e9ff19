"""`opx tail`: what reaches the bus, live. Shows events as they arrive; orders nothing, hides nothing, keeps nothing.

A mark says where the bus delivered an event again, or after a later one of its incident.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.subscription import Arrival, Subscription, pattern_of, subscribe
from pipeline.cli.target import Target
from pipeline.cli.telling import actor_of, read_event, short, told
from pipeline.cli.terminal import DONE, CommandError, Screen, cell, severity_cell, state_cell
from pipeline.domain.errors import Unavailable
from pipeline.domain.transitions import EventType
from pipeline.local.engine import find_running

REMEMBERED_MAX: Final = 50_000
FAILURES_MAX: Final = 10


@dataclass
class Seen:
    """What came before, as far as remembered: enough to mark repetitions and late events."""

    event_ids: OrderedDict[str, None] = field(default_factory=OrderedDict)
    newest: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def mark(self, arrival: Arrival) -> str:
        """Return `again`, `late` or nothing, and remember the event."""
        incident, sequence = str(arrival.detail.get("incidentId")), arrival.detail.get("sequence")
        event_id = str(arrival.detail.get("eventId"))
        if event_id in self.event_ids:
            return "again"
        self.event_ids[event_id] = None
        newest = self.newest.pop(incident, 0)
        number = sequence if isinstance(sequence, int) else 0
        self.newest[incident] = max(newest, number)
        for remembered in (self.event_ids, self.newest):
            if len(remembered) > REMEMBERED_MAX:
                remembered.popitem(last=False)
        return "late" if number < newest else ""


def tail(
    context: typer.Context,
    detail_type: Annotated[list[EventType] | None, typer.Option(help="Only these events; repeatable.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="Only these services; repeatable.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many events.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")] = None,
) -> None:
    """Watch what reaches the bus, until Ctrl-C.

    Example: opx tail --service checkout
    """
    pattern = pattern_of([kind.value for kind in detail_type or ()], service or ())

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "sqs", "events") as session:
            try:
                await _listen(invocation, session)
            except Unavailable:
                # What could not be removed there went with the engine.
                if await _is_gone(session.target):
                    raise CommandError("The local engine was stopped.", f"{invocation.opx} up") from None
                raise
        return DONE

    async def _listen(invocation: Invocation, session: Session) -> None:
        bus = session.target.output("BusName")
        async with subscribe(session.clients, bus, session.target.prefix, pattern) as subscription:
            invocation.screen.say(f"Listening to {bus} on {session.target.name}. Ctrl-C ends it.", "dim")
            try:
                async with asyncio.timeout(seconds):
                    await _watch(invocation.screen, subscription, limit, session.target)
            except TimeoutError:
                invocation.screen.say(f"{seconds} s are over.", "dim")

    run(context, work)


async def _is_gone(target: Target) -> bool:
    """True where the target is a local engine that does not run any more."""
    if not target.is_local:
        return False
    # In a thread: it waits for an engine that is on its way out.
    running = await asyncio.to_thread(find_running, target.state_dir)
    return running is None or running.endpoint_url != target.endpoint_url


async def _watch(screen: Screen, subscription: Subscription, limit: int | None, target: Target) -> None:
    seen, shown, failures = Seen(), 0, 0
    while True:
        try:
            arrivals = await subscription.receive()
        except Unavailable:
            # The network may come back; what was published meanwhile waits in the queue.
            failures += 1
            if failures > FAILURES_MAX or await _is_gone(target):
                raise
            await asyncio.sleep(failures)
            continue
        failures = 0
        for arrival in arrivals:
            show_arrival(screen, arrival, seen.mark(arrival) if arrival.is_readable else "")
            shown += 1
            if limit is not None and shown >= limit:
                return


def show_arrival(screen: Screen, arrival: Arrival, mark: str) -> None:
    """Write one event: a line for people, the event as published (and its mark, if any) for programs."""
    if screen.as_json:
        screen.record(arrival.detail | ({"opxTail": mark} if mark else {}))
        return
    event = read_event({name: value for name, value in arrival.detail.items() if name != "replayed"})
    flag = Text(f" {mark}", style="yellow") if mark else Text()
    if event is None:
        screen.say(Text.assemble(cell(arrival.detail_type, "red"), " can't be read by this version; see --json", flag))
        return
    line = Text.assemble(
        (event.timestamp.strftime("%H:%M:%S.%f")[:-3], "dim"),
        "  ",
        cell(short(event.incident_id), "cyan"),
        (f" #{event.sequence:<4}", "dim"),
        state_cell(event.new_state),
        " ",
        severity_cell(event.fact.metadata.severity),
        "  ",
        cell(event.fact.event_type.value, "bold" if event.previous_state is not event.new_state else ""),
        "  ",
        cell(event.fact.metadata.service),
        (" · ", "dim"),
        cell(told(event)),
        (" · ", "dim"),
        cell(actor_of(event.actor), "dim"),
        flag,
    )
    line.truncate(max(60, screen.out.width), overflow="ellipsis")
    screen.say(line)
