"""Lines of a file become messages that a queue can take, in batches as large as it takes. Pure but for reading the file.

What can't be sent is named with its line number; what is merely wrong goes out as it is: opx's door records it as rejected.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import BinaryIO, Final
from uuid import uuid4

from pipeline.clients.messages import group_of
from pipeline.domain.canonical import Document, digest, parse_document
from pipeline.domain.errors import Rejected

# The queues' MaximumMessageSize in template.yaml; SQS refuses what is larger.
MESSAGE_BYTES_MAX: Final = 384 * 1024
BATCH_ENTRIES_MAX: Final = 10
# SQS takes 1 MiB a batch; half of it leaves room for attributes and for older endpoints' habits of counting.
BATCH_BYTES_MAX: Final = 512 * 1024

# SQS takes what XML 1.0 can carry; a body may hold anything else only in escaped form.
_FORBIDDEN: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Queue(StrEnum):
    CANDIDATES = "candidates"
    COMMANDS = "commands"
    ALARMS = "alarms"
    ALERTMANAGER = "alertmanager"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input, from 1."""

    number: int
    body: str


@dataclass(frozen=True, slots=True)
class Unsendable:
    """A line, or a message, that no queue takes, and why."""

    number: int
    why: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message as it is sent. `deduplication` is set for FIFO queues only."""

    number: int
    body: str
    size: int
    group: str | None = None
    deduplication: str | None = None


def read_lines(file: BinaryIO) -> Iterator[Line | Unsendable]:
    """Yield the non-empty lines of JSON-lines input; never holds more than one message in memory."""
    number = 0
    while raw := file.readline(MESSAGE_BYTES_MAX + 2):
        number += 1
        too_long = not raw.endswith(b"\n") and len(raw) > MESSAGE_BYTES_MAX
        while too_long and (rest := file.readline(MESSAGE_BYTES_MAX)):
            if rest.endswith(b"\n"):
                break
        if too_long:
            yield Unsendable(number, f"longer than the {MESSAGE_BYTES_MAX} bytes a queue takes")
            continue
        text = raw.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(b"\xef\xbb\xbf")
        if text.strip():
            yield read_body(number, text)


def read_body(number: int, raw: bytes) -> Line | Unsendable:
    """Return one message's text, or why no queue takes it."""
    if len(raw) > MESSAGE_BYTES_MAX:
        return Unsendable(number, f"longer than the {MESSAGE_BYTES_MAX} bytes a queue takes")
    try:
        body = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Unsendable(number, f"not UTF-8 (byte {error.start} of the line)")
    if (found := _FORBIDDEN.search(body)) is not None:
        return Unsendable(number, f"holds the character U+{ord(found[0]):04X}, which queues refuse unless it is escaped")
    return Line(number, body)


def shuffled(lines: Iterable[Line | Unsendable], seed: int) -> list[Line | Unsendable]:
    """Return the lines in an order that depends on the seed alone."""
    found = list(lines)
    random.Random(seed).shuffle(found)
    return found


def address(line: Line, queue: Queue) -> Outgoing:
    """Return the message with its group: by service on a standard queue (fair queues), by incident on the commands queue."""
    document = _readable(line.body)
    size = len(line.body.encode("utf-8"))
    if queue is not Queue.COMMANDS:
        return Outgoing(line.number, line.body, size, group=_group(service_of(document)))
    return Outgoing(line.number, line.body, size, command_group(line.body, document), deduplication_of(line.body, document))


def command_group(body: str, document: Document | None) -> str:
    """Return the order in which a command stands: its incident's, or for a declaration that of the key it declares."""
    document = document or {}
    if (incident := _group(document.get("incidentId"))) is not None:
        return incident
    of = [document.get("service"), document["dedupKey"]] if "dedupKey" in document else [body]
    return "declare-" + digest(["group/1", *of])[:32]


def deduplication_of(body: str, document: Document | None) -> str:
    """Return what the queue knows a copy by: key and body, so that a reused key is seen and refused, not dropped.

    Without a key every sending is a new try, as it is on a standard queue.
    """
    key = (document or {}).get("idempotencyKey")
    return digest(["deduplication/1", key, body]) if isinstance(key, str) else uuid4().hex


def batched(items: Iterable[Outgoing | Unsendable]) -> Iterator[tuple[Outgoing | Unsendable, ...]]:
    """Cut items into batches that one call can carry; what is unsendable rides along and counts for nothing."""
    batch: list[Outgoing | Unsendable] = []
    entries = size = 0
    for item in items:
        if isinstance(item, Outgoing):
            if batch and (entries == BATCH_ENTRIES_MAX or size + item.size > BATCH_BYTES_MAX):
                yield tuple(batch)
                batch, entries, size = [], 0, 0
            entries, size = entries + 1, size + item.size
        elif len(batch) >= 10 * BATCH_ENTRIES_MAX:
            yield tuple(batch)
            batch, entries, size = [], 0, 0
        batch.append(item)
    if batch:
        yield tuple(batch)


def addressed(
    lines: Iterable[Line | Unsendable], queue: Queue, change: Callable[[str], str] = lambda body: body
) -> Iterator[Outgoing | Unsendable]:
    """Turn lines into messages, each body changed first (see `rebase`)."""
    for line in lines:
        yield line if isinstance(line, Unsendable) else address(Line(line.number, change(line.body)), queue)


def _readable(body: str) -> Document | None:
    try:
        return parse_document(body)
    except Rejected:
        return None


def service_of(document: Document | None) -> object:
    """Return the service a message says it is about; of an alarm that names none, what else keeps it apart: its own name."""
    if document is None:
        return None
    if "detail-type" in document:
        detail = _part(document, "detail")
        mapping = _readable(str(_part(detail, "configuration").get("description"))) or {}
        return mapping.get("service", detail.get("alarmName"))
    if "groupKey" in document:
        return _part(document, "commonLabels").get("service")
    return document.get("service")


def _part(document: Document, name: str) -> Document:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _group(value: object) -> str | None:
    return group_of(value) if isinstance(value, str) and value else None
