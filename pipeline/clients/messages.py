"""What a detector reports, made ready to be sent: checked as opx's own door would check it, and never changed after that.

A message keeps its bytes, and with them the key opx knows it by: however often it is sent, it counts once. No I/O here;
sending is next door, in `detector`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Self

from pipeline.domain.authority import Sender
from pipeline.domain.base import INTAKE_BYTES_MAX
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document, canonical_bytes, digest, format_time, normalise
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.intake import read_intake

FORMS: Final = ("candidate", "detection")
# What SQS takes as a group; of any other service it gets the digest.
_GROUP: Final = re.compile(r"[!-~]{1,128}")
# SQS takes what XML 1.0 can carry; the rest is written as JSON escapes.
_UNSAYABLE: Final = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Message:
    """One report: its JSON, the group it is sent in (one service's storm delays no other), its size in bytes."""

    body: str
    group: str
    size: int

    @classmethod
    def of(cls, document: Mapping[str, Any], *, now: datetime | None = None) -> Self:
        """Return a candidate or detection in its wire form, ready to be sent; raise `Rejected` naming the wrong field.

        Where it has neither `observedAt` nor `idempotencyKey` it is observed now: opx then knows it by its whole text, so
        that sending this very message again is harmless. With a key of your own nothing is added: made anew from the same
        document it is the same message.
        """
        moment = now or datetime.now(UTC)
        found = normalise(document)
        if found.get("type") not in FORMS:
            raise Rejected(Refusal(Code.UNKNOWN_TYPE, f"A detector sends {' and '.join(FORMS)} messages.", "type"))
        if "observedAt" not in found and "idempotencyKey" not in found:
            found = found | {"observedAt": format_time(moment)}
        _check(found, moment)
        body = _text(found)
        size = len(body.encode())
        if size > INTAKE_BYTES_MAX:
            raise Rejected(Refusal(Code.TOO_LARGE, f"The message has {size} bytes; {INTAKE_BYTES_MAX} are the most."))
        return cls(body, group_of(found["service"]), size)


def candidate(
    *,
    service: str,
    severity: str,
    title: str,
    dedup_key: str,
    description: str | None = None,
    confidence: float | Decimal | None = None,
    observed_at: datetime | str | None = None,
    source: str | None = None,
    evidence: Sequence[Mapping[str, Any]] | None = None,
    links: Sequence[Mapping[str, Any]] | None = None,
    metadata: Mapping[str, Any] | None = None,
    policy_id: str | None = None,
    idempotency_key: str | None = None,
    authority: str | Mapping[str, Any] | None = None,
) -> Message:
    """Return trouble that asks to be an incident. Raises `Rejected`, and sends nothing."""
    fields = {
        "service": service,
        "severity": severity,
        "title": title,
        "dedupKey": dedup_key,
        "description": description,
        "confidence": confidence,
        "observedAt": _moment(observed_at),
        "source": source,
        "evidence": evidence,
        "links": links,
        "metadata": metadata,
        "policyId": policy_id,
        "idempotencyKey": idempotency_key,
        "authority": authority,
    }
    return Message.of({"type": "candidate"} | _given(fields))


def detection(
    *,
    service: str,
    signal_type: str,
    severity: str,
    observed_at: datetime | str | None = None,
    source: str | None = None,
    dedup_key: str | None = None,
    resource: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    idempotency_key: str | None = None,
    authority: str | Mapping[str, Any] | None = None,
) -> Message:
    """Return one raw observation, for rules to count. Raises `Rejected`, and sends nothing."""
    fields = {
        "service": service,
        "signalType": signal_type,
        "severity": severity,
        "observedAt": _moment(observed_at),
        "source": source,
        "dedupKey": dedup_key,
        "resource": resource,
        "attributes": attributes,
        "idempotencyKey": idempotency_key,
        "authority": authority,
    }
    return Message.of({"type": "detection"} | _given(fields))


def group_of(service: str) -> str:
    """Return the fair queue's group for a service: its name, or the name's digest where SQS does not take that."""
    return service if _GROUP.fullmatch(service) else digest(["group/1", service])[:32]


def _check(document: Document, now: datetime) -> None:
    """Raise `Rejected` as the door would for a message that is sent now. Who sends it is for the door alone to know."""
    read_intake(document, Received(Sender("detector"), "message", now))


def _text(document: Document) -> str:
    return _UNSAYABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", canonical_bytes(document).decode())


def _moment(moment: datetime | str | None) -> str | None:
    if not isinstance(moment, datetime):
        return moment
    try:
        return format_time(moment)
    except ValueError as error:
        raise Rejected(Refusal(Code.INVALID_FIELD, f"{error}.", "observedAt")) from None


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
