"""Senders and delayers of SQS messages: the rejected queue, the fan-out's failure queue, and a source queue's visibility.

Nothing is dropped: what a queue does not take raises `Unavailable`, and the message it was about is delivered again.
Receiving and deleting are the Lambda service's business.
"""

import json
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_random_exponential

from pipeline.domain.errors import Unavailable
from pipeline.services.ports import Clock, FailedRecord, Message, RejectedMessage
from pipeline.stores.clients import translated

BATCH_MAX: Final = 10
VISIBILITY_S_MAX: Final = 43_200
ATTRIBUTE: Final = "opx"
ROUNDS_MAX: Final = 4
ROUND_WAIT = wait_random_exponential(multiplier=0.1, max=1)
# Ten of these and their names stay far below a batch's limit of 256 KiB.
DETAIL_CHARS_MAX: Final = 2048

Entry = dict[str, Any]

# The message is no longer ours to delay: its handle has expired, it is visible or deleted already, or it has been in
# flight for 12 hours, so the queue delivers it again (or another delivery has it). Nothing is lost.
NO_LONGER_OURS: Final = frozenset(
    {
        "ReceiptHandleIsInvalid",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
        # "The receipt handle has expired", "not available for visibility timeout change": time-outs are kept in range here.
        "InvalidParameterValue",
        "InvalidParameterValueException",
    }
)


class SqsRejectedQueue:
    """Implements `RejectedQueue` on an open client."""

    def __init__(self, client: Any, queue_url: str) -> None:
        self.client = client
        self.queue_url = queue_url

    async def reject(self, message: RejectedMessage) -> None:
        with translated("SendMessage to the rejected queue"):
            await self.client.send_message(
                QueueUrl=self.queue_url,
                MessageBody=message.body,
                MessageAttributes={ATTRIBUTE: {"DataType": "String", "StringValue": sayable_json(message.explanation)}},
            )


class SqsSourceQueue:
    """Implements `SourceQueue` for one queue on an open client."""

    def __init__(self, client: Any, queue_url: str, clock: Clock) -> None:
        self.client = client
        self.queue_url = queue_url
        self.clock = clock

    async def delay(self, messages: Sequence[Message], delay_s: int) -> None:
        timeout = max(0, min(VISIBILITY_S_MAX, delay_s))
        wanted = [{"ReceiptHandle": message.receipt_handle, "VisibilityTimeout": timeout} for message in messages]

        async def send(batch: list[Entry]) -> list[Entry]:
            answer = await self.client.change_message_visibility_batch(QueueUrl=self.queue_url, Entries=batch)
            failed: list[Entry] = answer.get("Failed", [])
            return [entry for entry in failed if entry.get("Code") not in NO_LONGER_OURS]

        await _in_batches("ChangeMessageVisibilityBatch", wanted, send, self.clock)


class SqsFailureQueue:
    """Implements `FailureQueue` on an open client."""

    def __init__(self, client: Any, queue_url: str, clock: Clock) -> None:
        self.client = client
        self.queue_url = queue_url
        self.clock = clock

    async def keep(self, failures: Sequence[FailedRecord]) -> None:
        wanted = [{"MessageBody": ascii_json(_failure_document(failure))} for failure in failures]

        async def send(batch: list[Entry]) -> list[Entry]:
            answer = await self.client.send_message_batch(QueueUrl=self.queue_url, Entries=batch)
            failed: list[Entry] = answer.get("Failed", [])
            return failed

        await _in_batches("SendMessageBatch to the failure queue", wanted, send, self.clock)


def _failure_document(failure: FailedRecord) -> dict[str, Any]:
    known = {"incidentId": failure.incident_id, "sequence": failure.sequence, "error": failure.error}
    document = known | {"detail": failure.detail[:DETAIL_CHARS_MAX]}
    return {name: value for name, value in document.items() if value is not None}


# All but what SQS takes, which is written as JSON escapes.
_UNSAYABLE: Final = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def sayable_json(document: Any) -> str:
    """Return JSON that SQS takes and that grows text at most twofold, so that a copied message's attributes always fit.

    (Escaped ASCII may grow sixfold, and a message that can't be copied to the rejected queue would come back for ever.)
    """
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return _UNSAYABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def ascii_json(document: Any) -> str:
    """Return JSON in printable ASCII, names sorted: SQS refuses control characters and U+FFFE, and whatever a broken
    message held must still be sayable.
    """
    return json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)


async def _in_batches(
    doing: str,
    wanted: Sequence[Entry],
    send: Callable[[list[Entry]], Awaitable[list[Entry]]],
    clock: Clock,
) -> None:
    """Send entries ten a call, the failed ones again for a few rounds. Raises `Unavailable` where some keep failing."""
    pending: list[Entry] = [{**entry, "Id": str(number)} for number, entry in enumerate(wanted)]
    codes: set[str] = set()

    async def one_round() -> bool:
        nonlocal pending
        failed: list[Entry] = []
        for start in range(0, len(pending), BATCH_MAX):
            with translated(doing):
                failed += await send(pending[start : start + BATCH_MAX])
        codes.clear()
        codes.update(str(entry.get("Code")) for entry in failed)
        again = {entry["Id"] for entry in failed}
        pending = [entry for entry in pending if entry["Id"] in again]
        return bool(pending)

    def given_up(state: RetryCallState) -> bool:
        raise Unavailable(f"{doing}: {len(pending)} entries failed {state.attempt_number} times: {', '.join(sorted(codes))}")

    retrying = AsyncRetrying(
        retry=retry_if_result(bool),
        wait=ROUND_WAIT,
        stop=stop_after_attempt(ROUNDS_MAX),
        sleep=clock.sleep,
        retry_error_callback=given_up,
    )
    if pending:
        await retrying(one_round)
