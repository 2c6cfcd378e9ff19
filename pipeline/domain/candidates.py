"""Candidate generation: what detectors send, in every accepted form, becomes one `Candidate`. Pure and total.

Forms are told apart by shape: our own `type`, or a native event's `detail-type`. Service and severity come from an explicit
mapping and are never guessed. What a candidate leads to is in `decisions`; correlation of raw detections is next door.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from pipeline.domain.authority import AuthorityClaim, Claim, Sender
from pipeline.domain.base import (
    Data,
    DedupKey,
    Description,
    IdempotencyKey,
    Line,
    Model,
    SchemaVersion,
    Service,
    Share,
    Slug,
    Time,
    Title,
    read,
)
from pipeline.domain.canonical import Document, digest, parse_document, parse_time
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import Evidence, EvidenceItems, Link, Links, Observation, ObservationKind
from pipeline.domain.promotion import DEFAULT_POLICY, LaxSeverity
from pipeline.domain.transitions import Severity

LEAD_MAX: Final = timedelta(minutes=10)
OPERATION: Final = "candidate"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One reported trouble (or its recovery), whatever form it came in: what an incident is made of or joined by."""

    service: str
    dedup_key: str
    severity: Severity
    title: str
    observation: Observation
    description: str = ""
    evidence: tuple[Evidence, ...] = ()
    links: tuple[Link, ...] = ()
    tags: Document | None = None
    policy_id: str = DEFAULT_POLICY


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key and where it comes from: `caller`, `body`, `message`, `cloudwatch` or `request`."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Received:
    """What the door knows of a message besides its body. `sent_at` is the queue's time stamp."""

    sender: Sender
    message_id: str
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Intake:
    """A candidate with its key, the claim of its sender and the digest of the document as received."""

    candidate: Candidate
    key: Key
    claim: Claim | None
    request_digest: str


class CandidateMessage(Model):
    """The wire form `{"type":"candidate", …}`: five fields are required, all others have defaults."""

    type: Literal["candidate"]
    schema_version: SchemaVersion = 1
    service: Service
    severity: LaxSeverity
    title: Title
    dedup_key: DedupKey
    description: Description = ""
    confidence: Share = Decimal(1)
    source: Line | None = None
    observed_at: Time | None = None
    evidence: EvidenceItems = ()
    links: Links = ()
    metadata: Data | None = None
    policy_id: Slug | None = None
    idempotency_key: IdempotencyKey | None = None
    authority: AuthorityClaim | None = None


class AlarmMapping(Model):
    """Service and severity of the alarms whose name matches a pattern (`*` and `?`)."""

    alarm_name: Line
    service: Service
    severity: LaxSeverity


class _Native(Model):
    model_config = ConfigDict(extra="ignore")


class _AlarmState(_Native):
    value: Literal["ALARM", "OK", "INSUFFICIENT_DATA"]
    timestamp: str | None = None
    reason: str = ""


class _AlarmConfiguration(_Native):
    description: str | None = None


class _AlarmDetail(_Native):
    alarm_name: Line
    state: _AlarmState
    configuration: _AlarmConfiguration = _AlarmConfiguration()


class _AlarmEvent(_Native):
    id: Annotated[Line, Field(max_length=128)]
    time: str
    account: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{0,32}$")] = ""
    region: Annotated[str, Field(pattern=r"^[0-9A-Za-z-]{0,32}$")] = ""
    detail: _AlarmDetail


class _InDescription(_Native):
    service: Service
    severity: LaxSeverity


_CANDIDATE: Final = TypeAdapter(CandidateMessage)
_ALARM: Final = TypeAdapter(_AlarmEvent)
_IN_DESCRIPTION: Final = TypeAdapter(_InDescription)
_ALARM_DETAIL_TYPE: Final = "CloudWatch Alarm State Change"
_OBSERVED: Final = {
    "ALARM": ObservationKind.FIRING,
    "OK": ObservationKind.RECOVERY,
    "INSUFFICIENT_DATA": ObservationKind.NO_DATA,
}


def read_intake(document: Document, received: Received, mappings: tuple[AlarmMapping, ...] = ()) -> Intake:
    """Return the candidate in a message's document; raise `Rejected` naming the field that is wrong."""
    intake = _from_alarm(document, received, mappings) if "detail-type" in document else _from_message(document, received)
    if intake.candidate.observation.observed_at > received.sent_at + LEAD_MAX:
        raise Rejected(Refusal(Code.OBSERVED_IN_FUTURE, "The observation is more than 10 minutes ahead.", "observedAt"))
    return intake


def _from_message(document: Document, received: Received) -> Intake:
    kind = document.get("type")
    if kind != "candidate":
        hint = " It belongs on the commands queue." if isinstance(kind, str) and kind in COMMAND_TYPES else ""
        raise Rejected(Refusal(Code.UNKNOWN_TYPE, f"The `type` is missing or not known on this queue.{hint}", "type"))
    message = read(_CANDIDATE, document)
    if message.idempotency_key is not None:
        key = Key("caller", message.idempotency_key)
    elif message.observed_at is not None:
        key = Key("body", digest(document))
    else:
        key = Key("message", received.message_id)
    candidate = Candidate(
        service=message.service,
        dedup_key=message.dedup_key,
        severity=message.severity,
        title=message.title,
        description=message.description,
        observation=Observation(
            kind=ObservationKind.FIRING,
            source=message.source or received.sender.principal,
            observed_at=message.observed_at or received.sent_at,
            confidence=message.confidence,
        ),
        evidence=message.evidence,
        links=message.links,
        tags=message.metadata,
        policy_id=message.policy_id or DEFAULT_POLICY,
    )
    return Intake(candidate, key, message.authority, digest(document))


def _from_alarm(document: Document, received: Received, mappings: tuple[AlarmMapping, ...]) -> Intake:
    if document["detail-type"] != _ALARM_DETAIL_TYPE:
        raise Rejected(Refusal(Code.UNKNOWN_TYPE, "Only CloudWatch alarm state changes are read.", "detail-type"))
    event = read(_ALARM, document)
    name = event.detail.alarm_name
    mapped = _mapping(event.detail, mappings)
    observed_at = _alarm_time(event)
    kind = _OBSERVED[event.detail.state.value]
    candidate = Candidate(
        service=mapped.service,
        dedup_key=_alarm_key(event),
        severity=mapped.severity,
        title=name,
        description=_clean(event.detail.state.reason, 4096),
        observation=Observation(
            kind=kind, source=f"cloudwatch:{name}"[:256], observed_at=observed_at, confidence=Decimal(1)
        ),
        evidence=(Evidence(kind="cloudwatch-alarm", ref=event.id, observed_at=observed_at, note=event.detail.state.value),),
    )
    return Intake(candidate, Key("cloudwatch", event.id), None, digest(document))


def _mapping(detail: _AlarmDetail, mappings: tuple[AlarmMapping, ...]) -> _InDescription | AlarmMapping:
    try:
        return read(_IN_DESCRIPTION, parse_document(detail.configuration.description or ""))
    except Rejected as unread:
        for mapping in mappings:
            if fnmatchcase(detail.alarm_name, mapping.alarm_name):
                return mapping
        where = "detail.configuration.description"
        raise Rejected(
            Refusal(Code.MAPPING_MISSING, f"No service and severity can be read ({unread.refusal.detail})", where)
        ) from None


def _alarm_time(event: _AlarmEvent) -> datetime:
    # CloudWatch writes the state's time with an offset of four digits, the event's own in RFC 3339.
    stamp = event.detail.state.timestamp
    text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", stamp) if stamp else event.time
    try:
        return parse_time(text)
    except ValueError as error:
        field = "detail.state.timestamp" if stamp else "time"
        raise Rejected(Refusal(Code.INVALID_FIELD, f"{error}.", field)) from None


def _alarm_key(event: _AlarmEvent) -> str:
    key = f"cloudwatch:{event.account}:{event.region}:{event.detail.alarm_name}"
    if len(key.encode()) > 512:
        key = "cloudwatch:" + digest([event.account, event.region, event.detail.alarm_name])
    return key


_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]+")


def _clean(text: Any, limit: int) -> str:
    return _CONTROL.sub(" ", text)[:limit]
