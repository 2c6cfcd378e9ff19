"""Messages as a detector would send them, read from a file without sending any: for lint, trials and explanations.

What a message says is told by the domain's own readers, the very ones that the door uses.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.cli.outbox import MESSAGE_BYTES_MAX, Line, Unsendable, read_body, read_lines
from pipeline.cli.rebase import rebased
from pipeline.cli.terminal import REFUSED, CommandError, Meter
from pipeline.domain.alertmanager import AlertMapping
from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Received, Signal
from pipeline.domain.canonical import parse_document
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.errors import Refusal, Rejected
from pipeline.domain.intake import read_intake

# A message that has no time of its own takes the time it is sent; one that is only read here was never sent.
NEVER_SENT: Final = datetime(2100, 12, 31, tzinfo=UTC)
SOMEBODY: Final = Sender("somebody")
TICK: Final = 500
SPOOL_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Mappings:
    """How native alarms are read."""

    alarms: tuple[AlarmMapping, ...]
    alerts: AlertMapping


@dataclass(frozen=True, slots=True)
class Unread:
    """A line, or a part of one, that the door would refuse as it is written."""

    number: int
    refusal: Refusal | str

    def sentence(self) -> str:
        return self.refusal if isinstance(self.refusal, str) else self.refusal.sentence()


@contextmanager
def opened(file: str | None, json_body: str | None, command: str) -> Iterator[Iterable[Line | Unsendable]]:
    """Open a file of messages, standard input (`-`), or the one message given; a single one may take several lines."""
    if (file is None) == (json_body is None):
        raise CommandError("Name a file (or -), or give --json-body; one of them.", f"{command} --help", REFUSED)
    if json_body is not None:
        yield [read_body(1, json_body.encode("utf-8", "surrogateescape"))]
        return
    if file == "-":
        with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
            shutil.copyfileobj(sys.stdin.buffer, spool)
            spool.seek(0)
            yield _messages(spool)  # type: ignore[arg-type] # a spooled file is a binary file in all but its type
        return
    try:
        found = Path(str(file)).open("rb")  # noqa: SIM115 # closed below, whichever kind of file it is
    except OSError as error:
        raise CommandError(f"{file} can't be read: {error.strerror}.", f"{command} --help", REFUSED) from None
    with found:
        if not found.seekable():
            raise CommandError(f"{file} can be read only once.", f"{command} - < {file}", REFUSED)
        yield _messages(found)


def _messages(stream: BinaryIO) -> Iterable[Line | Unsendable]:
    """Return the messages of a stream: one a line, or a single one that is written over several."""
    head = stream.read(MESSAGE_BYTES_MAX + 1)
    if len(head) <= MESSAGE_BYTES_MAX:
        whole = head.removeprefix(b"\xef\xbb\xbf").strip()
        if b"\n" in whole and _is_document(whole):
            return [read_body(1, whole)]
    stream.seek(0)
    return read_lines(stream)


def _is_document(text: bytes) -> bool:
    try:
        parse_document(text)
    except Rejected:
        return False
    return True


def counted(lines: Iterable[Line | Unsendable], meter: Meter) -> Iterator[Line | Unsendable]:
    """Pass lines on and tell the meter how many there were."""
    for number, line in enumerate(lines, 1):
        if number % TICK == 0:
            meter.at(number)
        yield line


def signals(
    lines: Iterable[Line | Unsendable],
    mappings: Mappings,
    sent_at: datetime | None,
    days: int = 0,
    otherwise: datetime | None = None,
) -> Iterator[tuple[int, Signal] | Unread]:
    """Yield what each message reports, with its line's number, and what can't be read.

    Without `sent_at` each message was sent when what it reports was observed; then it must say when that was, or it
    is taken as `otherwise`. `days` moves an old recording, as `opx send --rebase-to-now` did.
    """
    for line in lines:
        if isinstance(line, Unsendable):
            yield Unread(line.number, f"{line.why}.")
            continue
        received = Received(SOMEBODY, f"line-{line.number}", sent_at or NEVER_SENT)
        try:
            document = parse_document(rebased(line.body, days))
            intake = read_intake(document, received, mappings.alarms, mappings.alerts)
        except Rejected as error:
            yield Unread(line.number, error.refusal)
            continue
        for refusal in intake.refusals:
            yield Unread(line.number, refusal)
        for signal in intake.signals:
            found = signal if sent_at is not None else _when_observed(signal, otherwise)
            yield (line.number, found) if found is not None else Unread(line.number, "it has no observedAt: say --sent-at.")


def _when_observed(signal: Signal, otherwise: datetime | None) -> Signal | None:
    detection, candidate = signal.detection, signal.candidate
    if detection is not None:
        seen = detection.observed_at if detection.observed_at < NEVER_SENT else otherwise
        if seen is None:
            return None
        detection = replace(detection, observed_at=seen, age_s=0)
    if candidate is not None:
        seen = candidate.observation.observed_at if candidate.observation.observed_at < NEVER_SENT else otherwise
        if seen is None:
            return None
        observation = candidate.observation.model_copy(update={"observed_at": seen, "age_s": None})
        candidate = replace(candidate, observation=observation)
    return replace(signal, detection=detection, candidate=candidate)
