"""`opx republish --failures`: what the fan-out's failure queue names goes out again, and only then leaves the queue."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from pipeline.cli.failure_records import HIDDEN_S, FailureRecord, FailureRecords
from pipeline.cli.republish_time import SEGMENTS, by_time
from pipeline.cli.republishing import ROLE, SERVICES, Republished, Terms, marks_file, republish_events, tell
from pipeline.cli.roles import open_as
from pipeline.cli.session import Invocation, Session
from pipeline.cli.target import resolve
from pipeline.cli.terminal import DONE, REFUSED, Screen
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import Unavailable
from pipeline.services.stored_events import NamedEvents, Wanted, overlapping, ranges_of


@dataclass
class Taken:
    """What was taken from the queue and is not settled yet; `why` it stays, by message."""

    records: dict[str, FailureRecord]
    why: dict[str, str] = field(default_factory=dict)

    def settle(self, settled: Sequence[FailureRecord]) -> None:
        for record in settled:
            del self.records[record.message_id]


async def republish_failures(invocation: Invocation, terms: Terms) -> int:
    """Settle the failure queue: named events first, then the times in which batches of the stream were given up."""
    screen = invocation.screen
    target = await resolve(invocation.selection)
    async with open_as(target, ROLE, SERVICES) as clients:
        session = Session(target, clients)
        queue = FailureRecords(clients.sqs, target.output("FanoutFailuresQueueUrl"))
        with screen.progress("reading the failure queue"):
            records = await queue.take()
        taken = Taken({record.message_id: record for record in records})
        failed = 0
        try:
            for part in (_named, _of_time):
                settled, found = await part(invocation, session, taken, terms)
                if found is not None:
                    tell(screen, found, terms)
                    failed += found.marks.failed
                if not terms.dry_run:
                    await queue.remove(settled)
                    taken.settle(settled)
        finally:
            # Where that can't be done they show again by themselves, only later.
            with suppress(Unavailable):
                await queue.give_back(list(taken.records.values()))
    _tell_records(screen, taken, len(records), terms)
    if queue.held:
        minutes = HIDDEN_S // 60
        screen.notice(f"{queue.held} more are held by another run, or by one that was killed: again in {minutes} minutes.")
    kept = bool(taken.records) and not terms.dry_run
    if failed or kept:
        screen.next(f"{invocation.opx} replay verify", f"{invocation.opx} republish --failures")
    return REFUSED if failed or kept else DONE


async def _named(
    invocation: Invocation, session: Session, taken: Taken, terms: Terms
) -> tuple[list[FailureRecord], Republished | None]:
    """Publish the events that records name; return the records whose events are out."""
    sequences: dict[str, list[int]] = defaultdict(list)
    for record in taken.records.values():
        if record.event is not None:
            sequences[record.event[0]].append(record.event[1])
    if not sequences:
        return [], None
    events = NamedEvents(session.store, {incident: Wanted(ranges_of(found)) for incident, found in sequences.items()})
    again = f"{invocation.opx} republish --failures{terms.arguments}"
    # Without marks: the records themselves say what is still to be done.
    found = await republish_events(invocation, session, events, terms, None, again, keeps=True)
    settled = []
    for record in taken.records.values():
        if record.event in found.out and not record.stays:
            settled.append(record)
        elif record.event is not None:
            taken.why[record.message_id] = record.stays or "its event is not on the bus"
    return settled, found


async def _of_time(
    invocation: Invocation, session: Session, taken: Taken, terms: Terms
) -> tuple[list[FailureRecord], Republished | None]:
    """Publish what was written while given-up batches arrived; return their records, if all of it is out."""
    records = [record for record in taken.records.values() if record.span is not None]
    spans = overlapping(record.span for record in records if record.span is not None)
    if not spans:
        return [], None
    events = await by_time(invocation, session, spans, yes=terms.yes)
    marks_at = marks_file(session.target, "times", SEGMENTS, *(format_time(end) for span in spans for end in span))
    again = f"{invocation.opx} republish --failures{terms.arguments}"
    found = await republish_events(invocation, session, events, terms, marks_at, again)
    if not found.marks.failed:
        return records, found
    taken.why |= {record.message_id: "not all events of its time are on the bus" for record in records}
    return [], found


def _tell_records(screen: Screen, taken: Taken, number: int, terms: Terms) -> None:
    """Say which records are settled, and why others stay."""
    left = 0 if terms.dry_run else len(taken.records)
    reasons = {record.message_id: taken.why.get(record.message_id, record.stays) for record in taken.records.values()}
    if screen.as_json:
        kept: list[Document] = [{"messageId": name, "why": why} for name, why in reasons.items() if why]
        screen.record({"records": number, "settled": 0 if terms.dry_run else number - left, "kept": kept})
        return
    if not number:
        screen.say("Nothing lies in the fan-out's failure queue.")
    elif terms.dry_run:
        screen.say(f"{number} records, all still in the queue.")
    else:
        screen.say(f"{number - left} of {number} records are settled and gone.")
    for name, why in reasons.items() if left else ():
        screen.say(f"  {name} stays: {why}", "red")
