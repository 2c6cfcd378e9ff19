"""Sends one command and finds out what became of it: its receipt, or its copy in the rejected queue.

The effect is exactly once under the command's key, whatever becomes of the waiting. No presentation.
"""

import asyncio
import re
import time
from dataclasses import dataclass
from typing import Any, Final

from pipeline.cli.outbox import Queue
from pipeline.cli.send import single
from pipeline.cli.session import Session
from pipeline.cli.telling import refusal_line
from pipeline.cli.terminal import REFUSED, CommandError
from pipeline.domain.base import read
from pipeline.domain.canonical import Document, canonical_bytes, digest, normalise, parse_document
from pipeline.domain.commands import COMMAND
from pipeline.domain.errors import Rejected, Unavailable
from pipeline.domain.ids import receipt_id
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.services.rejection import ATTRIBUTE
from pipeline.stores.clients import translated

WAIT_S: Final = 20.0
POLL_S: Final = 0.1
POLL_S_MAX: Final = 0.5
# How long a looked-at rejected message stays hidden from others: just longer than one look at the next ten.
PEEK_S: Final = 2
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-f]{4})|x([0-9a-f]{2}))")


@dataclass(frozen=True, slots=True)
class Posted:
    """A command on the queue."""

    key: str
    message_id: str
    request_digest: str
    incident_id: str | None = None


@dataclass(frozen=True, slots=True)
class Turned:
    """The command was refused and left no receipt: what the rejected queue says."""

    code: str
    reason: str


# None: neither came in time, or may be read.
Found = IdempotencyRecord | Turned | None


async def post(session: Session, document: Document) -> Posted:
    """Send a command; raise where it can't be one, before anything is sent."""
    try:
        read(COMMAND, normalise(document))
    except Rejected as error:
        told = refusal_line(error.refusal.code, error.refusal.sentence())
        raise CommandError(told, "opx send --help", REFUSED) from None
    body = canonical_bytes(normalise(document)).decode()
    message = single(body, Queue.COMMANDS)
    with translated("sending the command"):
        answer = await session.clients.sqs.send_message(
            QueueUrl=session.target.output("CommandsQueueUrl"),
            MessageBody=body,
            MessageGroupId=message.group,
            MessageDeduplicationId=message.deduplication,
        )
    sent_digest = digest(parse_document(body))
    return Posted(document["idempotencyKey"], answer["MessageId"], sent_digest, document.get("incidentId"))


async def principal_of(sts: Any) -> str:
    """Return the caller's unique id without its session: what receipts are kept under."""
    with translated("asking who is calling"):
        identity = await sts.get_caller_identity()
    principal: str = identity["UserId"]
    return principal.partition(":")[0]


async def outcome_of(session: Session, posted: Posted, within_s: float = WAIT_S) -> Found:
    """Wait for the receipt of this very command or its copy in the rejected queue, whichever comes first."""
    receipt = receipt_id(await principal_of(session.clients.of("sts")), "caller", posted.key)
    deadline = time.monotonic() + within_s
    pause, may_look = POLL_S, True
    while True:
        found = await session.store.load_receipt(receipt)
        # Under a reused key another request's receipt is found: this one was refused.
        if found is not None and found.request_digest == posted.request_digest:
            return found
        if may_look:
            try:
                turned = await _rejected(session, posted.message_id)
            except Unavailable:
                # Whoever may send commands need not be allowed to read the rejected queue.
                may_look, turned = False, None
            if turned is not None:
                return turned
        if time.monotonic() + pause > deadline:
            return None
        await asyncio.sleep(pause)
        pause = min(POLL_S_MAX, pause * 1.5)


async def _rejected(session: Session, message_id: str) -> Turned | None:
    with translated("looking at the rejected queue"):
        answer = await session.clients.sqs.receive_message(
            QueueUrl=session.target.output("RejectedQueueUrl"),
            MaxNumberOfMessages=10,
            VisibilityTimeout=PEEK_S,
            MessageAttributeNames=[ATTRIBUTE],
        )
    for message in answer.get("Messages", ()):
        told = explanation_of(message)
        if told.get("originalMessageId") == message_id:
            return Turned(str(told.get("code", "")), str(told.get("reason", "")))
    return None


def explanation_of(message: Document) -> Document:
    """Return why a message lies in the rejected queue; nothing where it doesn't say so."""
    try:
        told = parse_document(message["MessageAttributes"][ATTRIBUTE]["StringValue"])
    except (KeyError, Rejected):
        return {}
    # Attributes carry ASCII; what was escaped for that is text again.
    reason = _ESCAPE.sub(lambda found: chr(int(found[1] or found[2], 16)), str(told.get("reason", "")))
    return told | {"reason": reason}
