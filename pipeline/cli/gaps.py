"""`opx gaps`: what a subscriber did not receive, by its queue or its log and the event table; and to send just that."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.cli.concerns import RUNBOOKS
from pipeline.cli.missing import Expectation, Missing, missing_of
from pipeline.cli.received import Received, SubscribersQueue, of_file
from pipeline.cli.republish_time import by_time
from pipeline.cli.republishing import RATE, ROLE, SERVICES, Terms, events_told, republish_events, tell
from pipeline.cli.roles import open_as
from pipeline.cli.send import counted
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.telling import short
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Meter, cell, key_values, time_of
from pipeline.domain.canonical import Document
from pipeline.domain.transitions import EventType
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import FailedRecord
from pipeline.services.republish import StoredEvents
from pipeline.services.stored_events import NamedEvents, Span, Wanted

GRACE_S: Final = 60.0
AT_ONCE: Final = 8
SHOWN_MAX: Final = 50
COLUMNS: Final = (Column("incident"), Column("missing", right=True), Column("events", wrap=True), Column("where"))


@dataclass(frozen=True, slots=True)
class Question:
    """Whose gaps: a queue or a file; of which stored events; and whether to send them again."""

    queue_url: str | None
    file: Path | None
    span: Span | None
    expectation: Expectation
    republish: bool
    terms: Terms


@dataclass
class Expected:
    """Sequences that should have come, by incident; `recent` ones may still be on their way.

    `unknown` incidents came, and the event table has none of them: they are another stack's. `lost` events are there and
    can't be read, so that nobody can say whether they should have come.
    """

    sequences: dict[str, set[int]]
    recent: int = 0
    unknown: int = 0
    lost: list[FailedRecord] = field(default_factory=list)

    def take(self, document: Document, expectation: Expectation) -> None:
        if not expectation.concerns(document):
            return
        if expectation.is_due(document):
            self.sequences[str(document["incidentId"])].add(int(document["sequence"]))
        else:
            self.recent += 1


def gaps(
    context: typer.Context,
    queue_url: Annotated[
        str | None, typer.Argument(help="The subscriber's queue; what is looked at is given back.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Instead: what it received, one event or EventBridge envelope a line.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="All from this time on, also of incidents it never saw."),
    ] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="All events before this time.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="Only these services, as its rule says; repeatable.")] = None,
    detail_type: Annotated[list[EventType] | None, typer.Option(help="Only these events; repeatable.")] = None,
    grace: Annotated[float, typer.Option(min=0, help="Seconds within which an event may still be on its way.")] = GRACE_S,
    republish: Annotated[bool, typer.Option("--republish", help="Publish what is missing again.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, help="Events a second, at most.")] = RATE,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Tell which events a subscriber did not receive: inside what came, behind it, or of incidents it never saw.

    Of a queue that is worked off only what still lies there is seen; the rest counts as missing. Then give its log: --file.

    Example: opx gaps --file received.jsonl --from 2026-01-31T03:00Z
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} gaps"
        if (queue_url is None) == (file is None):
            raise CommandError("Name a queue, or a file with --file.", f"{command} --help", REFUSED)
        if until is not None and since is None:
            raise CommandError("--to needs --from.", f"{command} --help", REFUSED)
        now = SystemClock().now()
        end = now if until is None else time_of(until, "--to", command)
        span = None if since is None else (time_of(since, "--from", command), end)
        expectation = Expectation(
            now - timedelta(seconds=grace), tuple(service or ()), tuple(kind.value for kind in detail_type or ())
        )
        return await _gaps(invocation, Question(queue_url, file, span, expectation, republish, Terms(rate=rate, yes=yes)))

    run(context, work)


async def _gaps(invocation: Invocation, question: Question) -> int:
    screen = invocation.screen
    async with open_session(invocation.selection, "dynamodb", "sqs") as session:
        with screen.progress("looking at what came") as meter:
            received = await _received(session, question, meter)
        expected = await _expected(invocation, session, question, received)
        missing = missing_of(expected.sequences, received.sequences)
        tell_gaps(invocation, question, received, expected, missing)
        if not (missing and question.republish):
            return verdict(missing, expected)
        _ask(invocation, question, missing)
        sent = await _send(invocation, session, question, missing)
        return sent or verdict([], expected)


async def _received(session: Session, question: Question, meter: Meter) -> Received:
    if question.file is not None:
        return await asyncio.to_thread(of_file, question.file)
    assert question.queue_url is not None
    return await SubscribersQueue(session.clients.sqs, question.queue_url).look(meter)


async def _expected(invocation: Invocation, session: Session, question: Question, received: Received) -> Expected:
    """Read what should have come: of a span of time all there is, else all of the incidents that were seen."""
    expected = Expected(defaultdict(set))
    if question.span is not None:
        events = await by_time(invocation, session, (question.span,), yes=question.terms.yes)
        with invocation.screen.progress("reading the event table"):
            await take_all(expected, events, question.expectation)
        return expected

    gate = asyncio.Semaphore(AT_ONCE)

    async def read(incident: str) -> None:
        known = False
        async with gate:
            async for document in session.store.history(incident):
                known = True
                expected.take(document, question.expectation)
        expected.unknown += not known

    with invocation.screen.progress("reading the event table"):
        await asyncio.gather(*map(read, sorted(received.sequences)))
    return expected


def verdict(missing: list[Missing], expected: Expected) -> int:
    """Return 0 only where everything that should have come could be read, and came."""
    return REFUSED if missing or expected.lost else DONE


async def take_all(expected: Expected, events: StoredEvents, expectation: Expectation) -> None:
    """Take what should have come of all events there are, and note what can't be read of them."""
    for part in events.parts:
        place, more = None, True
        while more:
            page = await events.page(part, place)
            for document in page.documents:
                expected.take(document, expectation)
            expected.lost += page.lost
            place, more = page.last, page.last is not None


def tell_gaps(
    invocation: Invocation, question: Question, received: Received, expected: Expected, missing: list[Missing]
) -> None:
    screen = invocation.screen
    count = sum(len(one.sequences) for one in missing)
    if screen.as_json:
        for one in missing:
            screen.record(one.to_document())
        seen: Document = {"messages": received.messages, "events": received.events, "incidents": len(received.sequences)}
        doubts: Document = {"notEvents": received.others, "notSeen": received.unseen, "onTheirWay": expected.recent}
        doubts |= {"unknownIncidents": expected.unknown, "unreadable": [_place(one) for one in expected.lost]}
        screen.record(seen | doubts | {"missing": count, "ofIncidents": len(missing)})
    else:
        rows = [
            (cell(short(one.incident_id), "cyan"), cell(len(one.sequences)), cell(one.told()), cell(", ".join(one.where)))
            for one in missing[:SHOWN_MAX]
        ]
        if rows:
            screen.table(COLUMNS, rows)
        if len(missing) > SHOWN_MAX:
            screen.say(f"… and {_incidents(len(missing) - SHOWN_MAX)} more; --json names them all.", "dim")
        key_values(screen, _facts(received, expected, count, len(missing)))
    if question.queue_url is not None:
        screen.notice("Only what lies in the queue now was seen: what was taken from it before counts as missing.")
    if received.unseen:
        screen.notice(f"About {counted(received.unseen)} could not be looked at: others hold them.")
    if expected.unknown:
        screen.notice(f"{expected.unknown} incidents that came are not in this stack's event table: are they another's?")
    if question.span is not None:
        screen.notice("Only events of that time were asked for: what is missing of before is not told.")
    if expected.lost:
        places = ", ".join(map(_place, expected.lost[:SHOWN_MAX]))
        screen.notice(f"{events_told(len(expected.lost))} can't be read, and may be missing: {places}.")
        screen.next(f"{invocation.opx} replay verify", f"see {RUNBOOKS}/corruption.md")
    if missing and not question.republish:
        screen.next("the same command with --republish", f"{invocation.opx} republish --help")


def _facts(received: Received, expected: Expected, count: int, incidents: int) -> list[tuple[str, object]]:
    came = f"{events_told(received.events)} of {_incidents(len(received.sequences))}, in {counted(received.messages)}"
    facts: list[tuple[str, object]] = [("came", came)]
    none = "nothing of what can be read" if expected.lost else "nothing"
    facts.append(("missing", f"{events_told(count)} of {_incidents(incidents)}" if count else none))
    if expected.recent:
        facts.append(("on their way", f"{events_told(expected.recent)}, too young to be missed"))
    if received.others:
        facts.append(("no events", f"{counted(received.others)} that hold none, or one of a form that is not known here"))
    return facts


def _place(record: FailedRecord) -> str:
    return f"{record.incident_id}/{record.sequence}"


def _incidents(number: int) -> str:
    return "1 incident" if number == 1 else f"{number} incidents"


def _ask(invocation: Invocation, question: Question, missing: list[Missing]) -> None:
    if question.terms.yes:
        return
    count = sum(len(one.sequences) for one in missing)
    asked = f"Publish {events_told(count)} of {_incidents(len(missing))} again, to every subscriber of the bus?"
    if not (None if invocation.screen.as_json else invocation.around.ask(asked)):
        raise CommandError("Nothing was published.", "the same command with --yes", REFUSED)


async def _send(invocation: Invocation, session: Session, question: Question, missing: list[Missing]) -> int:
    wanted = {one.incident_id: Wanted(one.ranges) for one in missing}
    async with open_as(session.target, ROLE, SERVICES) as clients:
        publishing = Session(session.target, clients)
        events = NamedEvents(publishing.store, wanted)
        # Without marks: what has arrived by then is not missing any more.
        found = await republish_events(invocation, publishing, events, question.terms, None, "the same command again")
    tell(invocation.screen, found, question.terms)
    return REFUSED if found.marks.failed else DONE
