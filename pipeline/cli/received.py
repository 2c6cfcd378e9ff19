"""What a subscriber has received: looked at in its queue and given back, or read from a file of what it was handed.

Looking counts as a try of each message, and takes from nobody for longer than a while; what others have taken from the queue
already can't be seen there.
"""

import json
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pipeline.cli.terminal import REFUSED, CommandError, Meter
from pipeline.clients.subscriber import NotAnEvent, read_event
from pipeline.domain.errors import Unavailable
from pipeline.stores.clients import translated

HIDDEN_S: Final = 120
WITHIN_S: Final = 90.0
# SQS lets 120,000 messages of a queue be in flight.
READ_MAX: Final = 100_000
EMPTY_MAX: Final = 3
# A message that was tried so often and not deleted goes to the dead-letter queue; looking at it is a try.
TRIES_MIN: Final = 3
BATCH: Final = 10
_DEPTHS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass
class Received:
    """Which events came, by incident. `others` were no events of opx; `unseen` messages could not be looked at."""

    sequences: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    messages: int = 0
    others: int = 0
    unseen: int = 0

    def take(self, message: Any) -> None:
        self.messages += 1
        try:
            event = read_event(message)
        except NotAnEvent:
            self.others += 1
            return
        self.sequences[event.incident_id].add(event.sequence)

    @property
    def events(self) -> int:
        return sum(map(len, self.sequences.values()))


def of_lines(lines: Iterable[str]) -> Received:
    """Read JSON lines: events, EventBridge's envelopes, or SQS messages that hold them."""
    found = Received()
    for line in lines:
        if line.strip():
            found.take(line)
    return found


def of_file(path: Path) -> Received:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return of_lines(file)
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}.", "opx gaps --help", REFUSED) from None


class SubscribersQueue:
    """A queue that somebody else works off."""

    def __init__(self, sqs: Any, queue_url: str) -> None:
        self.sqs = sqs
        self.queue_url = queue_url

    async def depth(self) -> int:
        """Return how many messages there are; raise where looking would bury them."""
        with translated("looking at the queue"):
            answer = await self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=[*_DEPTHS, "RedrivePolicy"])
        attributes = answer.get("Attributes", {})
        tries = json.loads(attributes.get("RedrivePolicy", "{}")).get("maxReceiveCount")
        if tries is not None and int(tries) < TRIES_MIN:
            message = f"The queue gives a message up after {tries} tries, and looking at it is one: nothing was looked at."
            raise CommandError(message, "opx gaps --file FILE, with what the subscriber has logged", REFUSED)
        return sum(int(attributes.get(name, 0)) for name in _DEPTHS)

    async def look(self, meter: Meter) -> Received:
        """Look at what lies there and give it back. Raises `Unavailable`."""
        depth = await self.depth()
        found, handles = Received(), dict[str, str]()
        empty, deadline = 0, time.monotonic() + WITHIN_S
        try:
            while len(handles) < READ_MAX and time.monotonic() < deadline:
                # Depths are approximate, and an empty answer may be chance where there should be more.
                if empty >= (1 if len(handles) >= depth else EMPTY_MAX):
                    break
                with translated("looking at the queue"):
                    answer = await self.sqs.receive_message(
                        QueueUrl=self.queue_url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1, VisibilityTimeout=HIDDEN_S
                    )
                messages = answer.get("Messages", ())
                empty = 0 if messages else empty + 1
                for message in messages:
                    if message["MessageId"] not in handles:
                        found.take(message)
                    handles[message["MessageId"]] = message["ReceiptHandle"]
                meter.say(f"looking at the queue: {len(handles)} of about {max(depth, len(handles))}")
        finally:
            await self._give_back(list(handles.values()))
        found.unseen = max(0, depth - len(handles))
        return found

    async def _give_back(self, handles: list[str]) -> None:
        for start in range(0, len(handles), BATCH):
            entries = [
                {"Id": str(number), "ReceiptHandle": handle, "VisibilityTimeout": 0}
                for number, handle in enumerate(handles[start : start + BATCH])
            ]
            # Whoever may look need not be allowed to do this; then they show again by themselves.
            with suppress(Unavailable), translated("giving back what was looked at"):
                await self.sqs.change_message_visibility_batch(QueueUrl=self.queue_url, Entries=entries)
