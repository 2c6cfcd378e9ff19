"""What lies in the fan-out's failure queue: our own records name an event, Lambda's a batch by when it arrived.

A record is removed only when the events it stands for are on the bus. One that tells of corruption is evidence: its event
may go out, the record stays for whoever looks into it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pipeline.domain.canonical import Document, parse_document, parse_time
from pipeline.domain.errors import Rejected
from pipeline.services.fanout import CORRUPTION
from pipeline.services.stored_events import Span
from pipeline.stores.clients import translated

# Between the time in an event and its arrival in the stream lie a decision's deadline and two clocks.
MARGIN: Final = timedelta(minutes=5)
# What is not removed by then shows again: of a run that was killed soon, of one that takes longer to no harm.
HIDDEN_S: Final = 900
READ_MAX: Final = 10_000
EMPTY_MAX: Final = 3
BATCH: Final = 10
_WAITING: Final = "ApproximateNumberOfMessages"
_HELD: Final = "ApproximateNumberOfMessagesNotVisible"


@dataclass(frozen=True, slots=True)
class FailureRecord:
    """One message. It stands for an `event`, for a `span` of time, or, where neither can be read of it, for nothing.

    `stays`: why it is not removed, whatever becomes of its events.
    """

    message_id: str
    handle: str
    event: tuple[str, int] | None = None
    span: Span | None = None
    stays: str = ""


def record_of(message: Any) -> FailureRecord:
    """Read a message of the failure queue."""
    message_id, handle = str(message["MessageId"]), str(message["ReceiptHandle"])
    try:
        told = parse_document(message["Body"])
    except Rejected as error:
        return FailureRecord(message_id, handle, stays=f"it can't be read: {error}")
    incident, sequence = told.get("incidentId"), told.get("sequence")
    if isinstance(incident, str) and isinstance(sequence, int):
        stays = "it tells of corruption" if told.get("error") == CORRUPTION else ""
        return FailureRecord(message_id, handle, event=(incident, sequence), stays=stays)
    try:
        return FailureRecord(message_id, handle, span=_span(told))
    except (KeyError, ValueError, TypeError, AttributeError):
        return FailureRecord(message_id, handle, stays="it names neither an event nor when its batch arrived")


def _span(told: Document) -> Span:
    """Return the span of time in which a batch's events lie: when its records arrived, to the second, and a margin."""
    batch = told["DDBStreamBatchInfo"]
    first = parse_time(batch["approximateArrivalOfFirstRecord"])
    last = parse_time(batch["approximateArrivalOfLastRecord"])
    return min(first, last) - MARGIN, max(first, last) + MARGIN


class FailureRecords:
    """The failure queue, as whoever settles it sees it."""

    def __init__(self, sqs: Any, queue_url: str) -> None:
        self.sqs = sqs
        self.queue_url = queue_url
        # What others had taken when this one came: another run, or one that was killed.
        self.held = 0

    async def take(self) -> list[FailureRecord]:
        """Return what lies in the queue, hidden from others meanwhile. Raises `Unavailable`."""
        found: dict[str, FailureRecord] = {}
        empty = 0
        with translated("counting the fan-out's failure queue"):
            told = await self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=[_WAITING, _HELD])
        depth, self.held = (int(told.get("Attributes", {}).get(name, 0)) for name in (_WAITING, _HELD))
        # Depths are approximate, and an empty answer may be chance where there should be more.
        while len(found) < READ_MAX and empty < (1 if len(found) >= depth else EMPTY_MAX):
            with translated("reading the fan-out's failure queue"):
                answer = await self.sqs.receive_message(
                    QueueUrl=self.queue_url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1, VisibilityTimeout=HIDDEN_S
                )
            records = [record_of(message) for message in answer.get("Messages", ())]
            found |= {record.message_id: record for record in records}
            empty = 0 if records else empty + 1
        return list(found.values())

    async def remove(self, records: Sequence[FailureRecord]) -> None:
        """Remove records whose events are on the bus. What can't be removed shows again, and is published again."""
        for batch in _batches(records):
            with translated("removing settled failure records"):
                await self.sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=batch)

    async def give_back(self, records: Sequence[FailureRecord]) -> None:
        """Make records visible again, at once."""
        for batch in _batches(records):
            entries = [entry | {"VisibilityTimeout": 0} for entry in batch]
            with translated("giving back failure records"):
                await self.sqs.change_message_visibility_batch(QueueUrl=self.queue_url, Entries=entries)


def _batches(records: Sequence[FailureRecord]) -> Iterable[list[dict[str, Any]]]:
    for start in range(0, len(records), BATCH):
        yield [
            {"Id": str(number), "ReceiptHandle": record.handle}
            for number, record in enumerate(records[start : start + BATCH])
        ]
