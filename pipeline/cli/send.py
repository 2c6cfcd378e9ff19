"""`opx send`: one message or a JSON-lines file to an intake queue. Resumable, in batches; nothing is dropped in silence."""

import asyncio
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from pipeline.cli.checkpoint import Checkpoint
from pipeline.cli.leads import Source, leads
from pipeline.cli.messages import Mappings
from pipeline.cli.outbox import Line, Outgoing, Queue, Unsendable, addressed, read_body, read_lines, shuffled
from pipeline.cli.rebase import days_to_now, newest_time, rebased
from pipeline.cli.sending import PROGRESS, Acknowledged, Progress, Sent, SqsOutbox, send_all
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.settling import Settled, rejected_so_far, settle
from pipeline.cli.target import Target
from pipeline.cli.terminal import DONE, REFUSED, CommandError, Meter, Screen, key_values
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.runtime import shipped

SPOOL_BYTES: Final = 16 * 1024 * 1024
QUEUE_OUTPUTS: Final = {
    Queue.CANDIDATES: "CandidatesQueueUrl",
    Queue.COMMANDS: "CommandsQueueUrl",
    Queue.ALARMS: "AlarmsQueueUrl",
    Queue.ALERTMANAGER: "AlertmanagerQueueUrl",
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be sent, and how. `wait`: until it is worked off; None means only on the local engine.

    `file`: its name, where it can be read again.
    """

    queue: Queue = Queue.CANDIDATES
    rebase: bool = False
    shuffle: int | None = None
    resume: bool = True
    wait: bool | None = None
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Input that can be read more than once: how many messages it has, and which content."""

    file: BinaryIO
    count: int
    digest: str

    def lines(self, shuffle: int | None = None) -> Iterator[Line | Unsendable]:
        self.file.seek(0)
        found = read_lines(self.file)
        return found if shuffle is None else iter(shuffled(found, shuffle))


def send(
    context: typer.Context,
    file: Annotated[
        str | None, typer.Argument(help="A JSON-lines file, or - for standard input.", show_default=False)
    ] = None,
    json_body: Annotated[str | None, typer.Option("--json-body", help="One message, instead of a file.")] = None,
    queue: Annotated[
        Queue,
        typer.Option(
            help="Where to send it; on AWS, alarms and alertmanager take from their services alone.", case_sensitive=False
        ),
    ] = Queue.CANDIDATES,
    rebase: Annotated[
        bool,
        typer.Option("--rebase-to-now", help="Move all times of an old recording by whole days, into the last 24 hours."),
    ] = False,
    shuffle: Annotated[int | None, typer.Option(metavar="SEED", help="Send in an order that depends on SEED alone.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where an earlier run was broken off, or start over.")
    ] = True,
    wait: Annotated[
        bool | None,
        typer.Option("--wait/--no-wait", help="Wait until the queue is worked off.  [default: on the local engine only]"),
    ] = None,
) -> None:
    """Send messages to opx: candidates and alarms as they are, one JSON object a line.

    What is wrong with a message is for opx to say: it records refused ones with their reason. Here only what no queue
    can carry is refused, by line number, while the rest goes on.

    Example: opx send tests/data/cloudwatch_alarms.jsonl --rebase-to-now
    """
    again = file if file not in (None, "-") and Path(str(file)).is_file() else None
    order = Order(queue, rebase, shuffle, resume, wait, again)

    async def work(invocation: Invocation) -> int:
        with _input(file, json_body) as source:
            return await _send(invocation, source, order)

    run(context, work)


@contextmanager
def _input(file: str | None, json_body: str | None) -> Iterator[BinaryIO]:
    if json_body is not None:
        if file is not None:
            raise CommandError("Both a file and --json-body are given.", "opx send --help", REFUSED)
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as body:
            # One message, whatever line ends stand in it.
            body.write(" ".join(json_body.splitlines()).encode("utf-8", "surrogateescape"))
            yield body  # type: ignore[misc] # a spooled file is a binary file in all but its type
        return
    if file is None and sys.stdin.isatty():
        raise CommandError("No file is named.", "opx send --help", REFUSED)
    if file in (None, "-"):
        with _spooled(sys.stdin.buffer) as spool:
            yield spool
        return
    path = Path(str(file))
    try:
        opened = path.open("rb")
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}.", "opx send --help") from None
    with opened:
        if path.is_file():
            yield opened
            return
        with _spooled(opened) as spool:
            yield spool


@contextmanager
def _spooled(stream: BinaryIO) -> Iterator[BinaryIO]:
    """Copy what can be read only once, so that it can be counted, moved to now, and resumed."""
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        shutil.copyfileobj(stream, spool)
        yield spool  # type: ignore[misc] # a spooled file is a binary file in all but its type


def recording_of(file: BinaryIO) -> Recording:
    """Read the input once: count its messages and digest its bytes."""
    file.seek(0)
    content = hashlib.sha256()
    while chunk := file.read(1 << 20):
        content.update(chunk)
    file.seek(0)
    return Recording(file, sum(1 for _ in read_lines(file)), content.hexdigest())


async def _send(invocation: Invocation, source: BinaryIO, order: Order) -> int:
    screen = invocation.screen
    recording = recording_of(source)
    if recording.count == 0:
        raise CommandError("There is nothing to send: the input is empty.", "opx send --help", REFUSED)
    async with open_session(invocation.selection, "sqs") as session:
        checkpoint = checkpoint_of(session.target, recording, order)
        start = (checkpoint.read() if order.resume else None) or Progress()
        if start.position:
            screen.say(
                f"Going on behind message {start.position} of {recording.count}, where an earlier run stopped.", "dim"
            )
        wait = session.target.is_local if order.wait is None else order.wait
        rejected_before = await rejected_so_far(session) if wait else 0
        outbox = SqsOutbox(session.clients.sqs, session.target.output(QUEUE_OUTPUTS[order.queue]))
        began = time.monotonic()
        try:
            with screen.progress(f"sending to {order.queue}", recording.count) as meter:
                sent = await send_recording(recording, order, outbox, start, checkpoint, meter)
        except Unavailable as error:
            raise _broken_off(error, start, checkpoint, recording) from error
        except asyncio.CancelledError:
            done = (checkpoint.read() or start).position
            screen.say(f"Interrupted after {done} of {recording.count}; the same command goes on from there.", "dim")
            raise
        seconds = time.monotonic() - began
        try:
            settled = await settle(session, screen, order.queue.value, rejected_before) if wait else None
        except asyncio.CancelledError:
            screen.say(f"All {sent.progress.sent} are sent; opx goes on without you.", "dim")
            raise
    return _report(invocation, recording, start, sent, seconds, order, settled)


def _broken_off(error: Unavailable, start: Progress, checkpoint: Checkpoint[Progress], recording: Recording) -> Exception:
    done = (checkpoint.read() or start).position
    if done == start.position:
        return error
    again = "the same command again: it goes on behind the last acknowledged message"
    return CommandError(f"Broken off after {done} of {recording.count} messages: {error}", again)


def checkpoint_of(target: Target, recording: Recording, order: Order) -> Checkpoint[Progress]:
    facts = (recording.digest, *target.identity, order.queue.value, order.rebase, str(order.shuffle))
    return Checkpoint.of(PROGRESS, target.state_dir.parent / "sends", facts)


async def send_recording(
    recording: Recording,
    order: Order,
    outbox: SqsOutbox,
    start: Progress,
    checkpoint: Checkpoint[Progress] | None,
    meter: Meter,
) -> Sent:
    """Send a recording from `start` on; a rebase that was begun goes on by the same number of days."""
    if order.rebase and start.days is None:
        start = replace(start, days=_days(recording))
    change = partial(rebased, days=start.days or 0)
    items: Iterator[Outgoing | Unsendable] = addressed(recording.lines(order.shuffle), order.queue, change)
    return await send_all(items, outbox, start, checkpoint, meter)


def _days(recording: Recording) -> int:
    now = datetime.now(UTC)
    newest = newest_time((line.body for line in recording.lines() if isinstance(line, Line)), now)
    return 0 if newest is None else days_to_now(newest, now)


def _report(
    invocation: Invocation,
    recording: Recording,
    start: Progress,
    sent: Sent,
    seconds: float,
    order: Order,
    settled: Settled | None,
) -> int:
    screen, progress = invocation.screen, sent.progress
    facts: Document = {
        "queue": order.queue.value,
        "messages": recording.count,
        "sent": progress.sent - start.sent,
        "sentBefore": start.sent,
        "failed": sent.failed,
        "bytes": progress.sent_bytes - start.sent_bytes,
        "seconds": round(seconds, 3),
        "movedByDays": progress.days or 0,
    }
    # Of many nobody asks after each, and the ids of a part would pass for all.
    named = sent.acknowledged if facts["sent"] == len(sent.acknowledged) else ()
    facts |= {"messageIds": [one.message_id for one in named]} if named else {}
    refused = [{"line": item.number, "why": item.why} for item in sent.refused]
    if settled is not None:
        facts |= {
            "stillWaiting": settled.waiting,
            "rejected": settled.rejected,
            "settledAfterSeconds": round(settled.seconds, 3),
        }
    if screen.as_json:
        screen.record(facts | {"refused": refused})
    else:
        _tell(screen, facts, sent, named)
    rejected = settled is not None and settled.rejected > 0
    source = Source(order.queue, order.file, progress.days or 0)
    mappings = Mappings(shipped.alarm_mappings(None), shipped.alert_mapping(None))
    asking = leads(named, source, mappings, invocation.opx)
    screen.next(*asking, f"{invocation.opx} {'queue show rejected' if rejected else 'list'}", f"{invocation.opx} status")
    return REFUSED if sent.failed or rejected else DONE


def _tell(screen: Screen, facts: Mapping[str, object], sent: Sent, named: Sequence[Acknowledged]) -> None:
    shown = [("sent", f"{counted(facts['sent'])}, {facts['bytes']} bytes, to {facts['queue']} in {facts['seconds']} s")]
    shown += [("id" if len(named) == 1 else f"id of line {one.number}", one.message_id) for one in named]
    if facts["sentBefore"]:
        shown.append(("before", f"{facts['sentBefore']} messages, by the run that was broken off"))
    if facts["movedByDays"]:
        shown.append(("moved", f"by {facts['movedByDays']} days"))
    if facts.get("stillWaiting"):
        still = f"not all: {counted(facts['stillWaiting'])} still wait; opx goes on without you"
        shown.append(("settled", f"{still}; {facts['rejected']} rejected meanwhile"))
    elif "rejected" in facts:
        shown.append(("settled", f"after {facts['settledAfterSeconds']} s, {facts['rejected']} rejected meanwhile"))
    if sent.failed:
        shown.append(("not sent", f"{sent.failed} messages:"))
    key_values(screen, shown)
    for item in sent.refused:
        screen.say(f"  line {item.number}: {item.why}", "red")
    if sent.failed > len(sent.refused):
        screen.say(f"  … and {sent.failed - len(sent.refused)} more", "red")


def counted(number: object) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def single(body: str, queue: Queue) -> Outgoing:
    """Return one message, addressed; raise where no queue takes it."""
    line = read_body(1, body.encode("utf-8", "surrogatepass"))
    item = next(addressed([line], queue))
    if isinstance(item, Unsendable):
        raise CommandError(f"The message can't be sent: {item.why}.", "opx send --help", REFUSED)
    return item
