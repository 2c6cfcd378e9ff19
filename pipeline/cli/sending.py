"""Sends a file's messages: each acknowledged batch is checkpointed, only failed entries are sent again.

Raises `Unavailable` where the queue can't be reached; then the checkpoint says where to go on.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from pipeline.cli.checkpoint import Checkpoint, Form
from pipeline.cli.outbox import Outgoing, Unsendable, batched
from pipeline.cli.terminal import Meter
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.stores.clients import translated

ATTEMPTS_MAX: Final = 8
WAIT_S: Final = 0.1
WAIT_S_MAX: Final = 5.0
NAMED_MAX: Final = 20
ACKNOWLEDGED_MAX: Final = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """`position` lines (in sending order) are settled; `days` is by how much they were moved to now, if they were."""

    position: int = 0
    sent: int = 0
    sent_bytes: int = 0
    days: int | None = None


def _progress(said: Document) -> Progress:
    progress = Progress(**said)
    counts = (progress.position, progress.sent, progress.sent_bytes)
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("counts are numbers from 0")
    if type(progress.days) not in (int, type(None)):
        raise ValueError("days are a number, or none")
    return progress


PROGRESS: Final = Form("send/1", asdict, _progress)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A message as a queue took it, and the id that the queue gave it."""

    number: int
    body: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of a file. `refused` names the first few messages that no queue took; `failed` counts them all.

    `acknowledged` are the first few that one did, of this run.
    """

    progress: Progress
    failed: int = 0
    refused: tuple[Unsendable, ...] = ()
    acknowledged: tuple[Acknowledged, ...] = ()


class SqsOutbox:
    """One queue, as a sender sees it."""

    def __init__(self, sqs: Any, queue_url: str) -> None:
        self.sqs = sqs
        self.queue_url = queue_url
        # The first few; a recording may have millions.
        self.acknowledged: list[Acknowledged] = []

    async def send(self, batch: Sequence[Outgoing]) -> tuple[Unsendable, ...]:
        """Send one batch until each entry is acknowledged or refused for good; return the refused ones."""
        waiting = {str(index): message for index, message in enumerate(batch)}
        refused: list[Unsendable] = []
        reason = ""
        for attempt in range(ATTEMPTS_MAX):
            with translated("sending messages"):
                answer = await self.sqs.send_message_batch(
                    QueueUrl=self.queue_url, Entries=[_entry(key, message) for key, message in waiting.items()]
                )
            self._keep(answer.get("Successful", ()), waiting)
            failed = {entry["Id"]: entry for entry in answer.get("Failed", ())}
            refused += [
                Unsendable(waiting[key].number, f"{entry['Code']}: {entry.get('Message', '')}")
                for key, entry in failed.items()
                if entry["SenderFault"]
            ]
            waiting = {key: waiting[key] for key, entry in failed.items() if not entry["SenderFault"]}
            if not waiting:
                return tuple(refused)
            reason = next(iter(failed[key].get("Code", "") for key in waiting))
            await asyncio.sleep(min(WAIT_S_MAX, WAIT_S * 2**attempt))
        raise Unavailable(f"the queue did not take {len(waiting)} messages in {ATTEMPTS_MAX} attempts ({reason})")

    def _keep(self, entries: Iterable[Mapping[str, str]], sent: Mapping[str, Outgoing]) -> None:
        room = ACKNOWLEDGED_MAX - len(self.acknowledged)
        taken = [(sent[entry["Id"]], entry["MessageId"]) for entry in entries if "MessageId" in entry][:room]
        self.acknowledged += [Acknowledged(message.number, message.body, given) for message, given in taken]


def _entry(key: str, message: Outgoing) -> dict[str, str]:
    entry = {"Id": key, "MessageBody": message.body}
    if message.group is not None:
        entry["MessageGroupId"] = message.group
    if message.deduplication is not None:
        entry["MessageDeduplicationId"] = message.deduplication
    return entry


async def send_all(
    items: Iterable[Outgoing | Unsendable],
    outbox: SqsOutbox,
    start: Progress,
    checkpoint: Checkpoint[Progress] | None,
    meter: Meter,
) -> Sent:
    """Send all items behind `start.position`, in order; the checkpoint is written after each batch, removed at the end."""
    progress, failed = start, 0
    refused: list[Unsendable] = []
    for batch in batched(_behind(items, start.position)):
        messages = [item for item in batch if isinstance(item, Outgoing)]
        wrong = [item for item in batch if isinstance(item, Unsendable)]
        if messages:
            wrong += await outbox.send(messages)
        bad = {item.number for item in wrong}
        progress = replace(
            progress,
            position=progress.position + len(batch),
            sent=progress.sent + len(batch) - len(wrong),
            sent_bytes=progress.sent_bytes + sum(item.size for item in messages if item.number not in bad),
        )
        failed += len(wrong)
        refused += wrong[: NAMED_MAX - len(refused)]
        if checkpoint is not None:
            checkpoint.write(progress)
        meter.at(progress.position)
    if checkpoint is not None:
        checkpoint.remove()
    taken = tuple(sorted(outbox.acknowledged, key=lambda item: item.number))
    return Sent(progress, failed, tuple(sorted(refused, key=lambda item: item.number)), taken)


def _behind(items: Iterable[Outgoing | Unsendable], position: int) -> Iterable[Outgoing | Unsendable]:
    return (item for index, item in enumerate(items) if index >= position)
