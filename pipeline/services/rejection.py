"""What a rejected message says beside its intact body, and how a redriven one gets its first sender back.

Both directions of one format stand here: `explanation` writes the single attribute `opx` (`claim` what a redrive needs of
it), `origin` reads it, and believes it only from a sender whose registry entry speaks for others (the stack's redrive role).
"""

from collections.abc import Mapping
from typing import Any, Final

from pipeline.domain.authority import Registry, Sender, identified, sender_from_id
from pipeline.domain.base import LINE, read
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document, format_time, parse_document, parse_time
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.services.ports import Message, RejectedMessage

ATTRIBUTE: Final = "opx"
REASON_BYTES_MAX: Final = 512
# Queues that take from one AWS service alone, by their own policy. The service has no principal of the account, so there
# the queue is the sender, whatever stands in a message.
PROVEN: Final[Mapping[str, Sender]] = {name: Sender(f"queue:{name}") for name in ("alarms", "alertmanager")}
_PROVEN_BY_PRINCIPAL: Final = {sender.principal: sender for sender in PROVEN.values()}


def rejection(message: Message, received: Received, refusal: Refusal) -> RejectedMessage:
    """Return the message for the rejected queue: its body untouched, and why, from whom and when in one attribute."""
    return RejectedMessage(message.body, explanation(message, received, refusal))


def explanation(message: Message, received: Received, refusal: Refusal) -> Document:
    return {"code": refusal.code.value, "reason": ascii_text(refusal.sentence())} | claim(message, received)


def claim(message: Message, received: Received) -> Document:
    """Return whose a message was, when it came and by which queue: what the redrive role says of it."""
    attributes = dict(message.attributes)
    if received.message_id != message.message_id:
        # Redriven: `opx` is the first rejection's word, and what it keeps are the first sender's attributes.
        earlier = attributes.pop(ATTRIBUTE, {})
        kept = parse_document(str(earlier.get("stringValue", "{}"))).get("attributes")
        attributes |= kept if isinstance(kept, dict) else {}
    document: Document = {
        "source": message.source,
        "originalSenderId": received.sender.signed_id,
        "originalMessageId": received.message_id,
        "originalSentAt": format_time(received.sent_at),
    }
    return document | {"attributes": attributes} if attributes else document


def ascii_text(text: str) -> str:
    """Return `text` in at most 512 ASCII bytes; other characters are written as escapes."""
    return text.encode("ascii", "backslashreplace")[:REASON_BYTES_MAX].decode("ascii")


def origin(message: Message, registry: Registry) -> Received:
    """Return who really sent a message, and when: its signer, or the first sender where the signer may say so.

    Raises `Rejected` where that is nobody.
    """
    if message.source in PROVEN:
        return Received(PROVEN[message.source], message.message_id, message.sent_at)
    signer = Received(identified(sender_from_id(message.sender_id)), message.message_id, message.sent_at)
    claimed = message.attributes.get(ATTRIBUTE)
    if claimed is None or not registry.believes(signer.sender):
        return signer
    return _first_sender(claimed)


def _first_sender(claimed: Mapping[str, Any]) -> Received:
    try:
        told = parse_document(str(claimed.get("stringValue", "")))
        sender_id, message_id = str(told["originalSenderId"]), str(told["originalMessageId"])
        sender = _PROVEN_BY_PRINCIPAL.get(sender_id) or sender_from_id(sender_id)
        return Received(identified(sender), read(LINE, message_id), parse_time(str(told["originalSentAt"])))
    except (KeyError, ValueError, Rejected) as error:
        detail = f"The redriven message does not say whose it was ({type(error).__name__}: {error})."
        raise Rejected(Refusal(Code.INVALID_FIELD, detail, ATTRIBUTE)) from None
