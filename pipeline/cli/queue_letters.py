"""Messages that lie in queues nobody works off: whose they are, why they lie there, and as what they are sent in again.

Pure. Whose a message is is said by the doors' own reading (`services.rejection`), never by what a sender wrote.
"""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.cli.counting import WEBHOOK_DLQ
from pipeline.cli.operating import explanation_of
from pipeline.cli.outbox import Line, Queue, address, service_of
from pipeline.domain.authority import Registry
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document, digest, format_time, parse_document
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.services.ports import Message
from pipeline.services.rejection import ATTRIBUTE, claim, origin
from pipeline.stores.queues import sayable_json

DLQ: Final = "-dlq"
REJECTED: Final = "rejected"
FAILURES: Final = "fanout-failures"
# Not opx's codes: what there is to say of a message that no door refused.
DIED, UNDELIVERED, UNEXPLAINED, UNPUBLISHED = "died", "undelivered", "unexplained", "unpublished"
# What EventBridge and SNS write beside a message that they could not deliver.
_ERRORS: Final = (("ERROR_CODE", "ERROR_MESSAGE"), ("ErrorCode", "ErrorMessage"))


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it lies in a queue. `message` is what a door would get; `explanation` is what opx says beside it."""

    queue: str
    message: Message
    explanation: Document = field(default_factory=dict)

    @classmethod
    def of(cls, queue: str, raw: Mapping[str, Any]) -> "Letter":
        """Read a message as SQS gave it, with all its attributes."""
        explanation = explanation_of(dict(raw)) if queue == REJECTED else {}
        source = str(explanation.get("source", "")) if queue == REJECTED else queue.removesuffix(DLQ)
        system = raw["Attributes"]
        message = Message(
            message_id=raw["MessageId"],
            body=raw["Body"],
            sender_id=system["SenderId"],
            sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
            receive_count=int(system["ApproximateReceiveCount"]),
            receipt_handle=raw["ReceiptHandle"],
            source=source,
            group=system.get("MessageGroupId"),
            attributes={name: _attribute(value) for name, value in raw.get("MessageAttributes", {}).items()},
        )
        return cls(queue, message, explanation)

    @property
    def is_redrivable(self) -> bool:
        """True where it is a message for one of opx's doors; the others tell of events, which are published again."""
        return self.queue not in (FAILURES, WEBHOOK_DLQ)

    @property
    def is_dead(self) -> bool:
        return self.is_redrivable and self.queue != REJECTED

    @property
    def destination(self) -> Queue:
        # The queues that prove their sender take from one AWS service alone; theirs come back by the candidates queue.
        return Queue.COMMANDS if self.message.source == Queue.COMMANDS else Queue.CANDIDATES

    @property
    def first_sent(self) -> str:
        """Return when its first sender sent it, so that texts sort as times do."""
        return str(self.explanation.get("originalSentAt") or format_time(self.message.sent_at))

    @property
    def document(self) -> Document:
        """Return what its body says; nothing where that can't be read."""
        try:
            return parse_document(self.message.body)
        except Rejected:
            return {}

    @property
    def service(self) -> str | None:
        found = service_of(self.document)
        return found if isinstance(found, str) else None

    def received(self, registry: Registry) -> Received:
        """Return who first sent it, and when. Raises `Rejected` where it doesn't say so to be believed."""
        if self.queue != REJECTED:
            return origin(self.message, registry)
        if ATTRIBUTE not in self.message.attributes:
            raise Rejected(Refusal(Code.INVALID_FIELD, "It doesn't say whose it was.", ATTRIBUTE))
        # Only the doors can have written what lies there: believed as if the redrive role said it.
        return origin(replace(self.message, source=self.destination, sender_id=_believed(registry)), registry)

    def claim(self, registry: Registry) -> str:
        """Return what a redrive says of it: all that opx wrote beside it, or else its first sender. Raises `Rejected`."""
        received = self.received(registry)
        if self.queue == REJECTED:
            return str(self.message.attributes[ATTRIBUTE]["stringValue"])
        return sayable_json(claim(self.message, received))

    def trouble(self) -> tuple[str, str]:
        """Return why it lies there, as a code and a sentence, as far as it says so itself."""
        if self.queue == REJECTED:
            code, reason = self.explanation.get("code"), self.explanation.get("reason")
            return str(code or UNEXPLAINED), str(reason or "It doesn't say why.")
        if self.queue == FAILURES:
            return _unpublished(self.document)
        for name, text in _ERRORS:
            if name in self.message.attributes:
                told = [str(self.message.attributes.get(key, {}).get("stringValue", "")) for key in (name, text)]
                return UNDELIVERED, ": ".join(part for part in told if part)
        return DIED, "It came 100 times and was never settled: it crashes its reader, or what that needs was down for a day."

    def group(self) -> str | None:
        """Return the group it is sent in: the one it had, or where the rejected queue has none, that of such a message."""
        return self.message.group or address(Line(1, self.message.body), self.destination).group

    def deduplication(self) -> str:
        """Return what the FIFO queue knows this copy by: sent twice, it is taken once. The original was another."""
        return digest(["redrive/1", self.queue, self.message.message_id])

    def to_document(self) -> Document:
        message = self.message
        facts = {
            "messageId": message.message_id,
            "lyingSince": format_time(message.sent_at),
            "receivedTimes": message.receive_count,
            "group": message.group,
            "body": message.body,
        }
        told = {"queue": self.queue} | {name: value for name, value in facts.items() if value is not None}
        others = {name: value for name, value in message.attributes.items() if name != ATTRIBUTE or not self.explanation}
        return told | ({"messageAttributes": others} if others else {}) | self.explanation


def redriven(letter: Letter, registry: Registry) -> Message:
    """Return the message as its door would get it again. Raises `Rejected` where it doesn't say whose it is."""
    attribute = {"dataType": "String", "stringValue": letter.claim(registry)}
    return replace(
        letter.message,
        sender_id=_believed(registry),
        source=letter.destination,
        message_id=f"redriven-{letter.message.message_id}"[:100],
        attributes={ATTRIBUTE: attribute},
    )


def known_by(letter: Letter, registry: Registry) -> str:
    """Return what copies of one message have in common: its first sender, the id it first had, and its body."""
    received = letter.received(registry)
    return digest([received.sender.signed_id, received.message_id, letter.message.source, letter.message.body])


def _believed(registry: Registry) -> str:
    """Return the sender whose word for others the registry takes."""
    for entry in registry.entries:
        if entry.speaks_for_senders:
            return entry.principals[0]
    raise Rejected(Refusal(Code.PRINCIPAL_UNKNOWN, "The registry knows no role that sends messages in again."))


def _attribute(value: Mapping[str, Any]) -> Document:
    """Return an attribute as a function gets it."""
    told = {"dataType": value.get("DataType", "String")}
    if "StringValue" in value:
        return told | {"stringValue": value["StringValue"]}
    return told | {"binaryValue": b64encode(value.get("BinaryValue", b"")).decode()}


def _unpublished(document: Document) -> tuple[str, str]:
    if "incidentId" in document:
        place = f"Event {document.get('sequence', '?')} of incident {document['incidentId']}"
        return str(document.get("error") or UNPUBLISHED), f"{place}: {document.get('detail') or 'it says no more.'}"
    # What the stream's mapping gave up: records by their place in the stream.
    condition = document.get("requestContext", {}) if isinstance(document.get("requestContext"), dict) else {}
    batch = document.get("DDBStreamBatchInfo") if isinstance(document.get("DDBStreamBatchInfo"), dict) else {}
    size = batch.get("batchSize", "some") if isinstance(batch, dict) else "some"
    return str(condition.get("condition") or UNPUBLISHED), f"The stream gave up {size} records; their times are in the body."
