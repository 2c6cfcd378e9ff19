"""What detectors report, in normal form: a `Candidate` (trouble that asks to be an incident) and a `Detection` (one raw
observation that rules count). The two wire forms of opx's own stand here too.

Native events are next door (`cloudwatch`, `alertmanager`); which form a message has is told by `intake`; what rules make of
detections is in `correlation`, what a candidate leads to in `decisions`. Nothing is guessed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, TypeAdapter

from pipeline.domain.authority import CANDIDATE_OPERATION, AuthorityClaim, Claim, Sender
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
from pipeline.domain.canonical import Document, digest
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import Correlation, Evidence, EvidenceItems, Link, Links, Observation, ObservationKind
from pipeline.domain.promotion import DEFAULT_POLICY, LaxSeverity
from pipeline.domain.transitions import Severity

LEAD_MAX: Final = timedelta(minutes=10)
OPERATION: Final = CANDIDATE_OPERATION


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
    correlation: Correlation | None = None


@dataclass(frozen=True, slots=True)
class Detection:
    """One raw observation, as correlation rules see it. `attributes` are flat: text, numbers, true or false.

    `id` tells it from every other one (its idempotency key, in text); `kind` is a recovery for a native notice that the
    trouble is over. `age_s` is its age when it was sent, `maintenance` the window of the live controls it falls into.
    """

    id: str
    service: str
    source: str
    signal_type: str
    severity: Severity
    observed_at: datetime
    age_s: int = 0
    kind: ObservationKind = ObservationKind.FIRING
    dedup_key: str | None = None
    resource: str | None = None
    attributes: Document | None = None
    maintenance: str | None = None


# Chosen by the caller; derived from the body or the queue's message; from a native event; of the HTTP API, from the whole
# request with its If-Match, or from its id alone; of retention, from the incident that it archives.
KEY_KINDS: Final = ("caller", "body", "message", "cloudwatch", "alertmanager", "if-match", "request", "retention")


@dataclass(frozen=True, slots=True)
class Key:
    """An idempotency key and where it comes from: one of `KEY_KINDS`."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Received:
    """What the door knows of a message besides its body. `sent_at` is the queue's time stamp."""

    sender: Sender
    message_id: str
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Signal:
    """One thing a message reports, with its key and the digest of what was received.

    `detection` is how rules see it, `candidate` what it is where no rule takes it. A raw detection has no candidate, a
    candidate of opx's own form no detection; a native event has both.
    """

    key: Key
    request_digest: str
    candidate: Candidate | None = None
    detection: Detection | None = None


@dataclass(frozen=True, slots=True)
class Intake:
    """All that a message reports, and what its sender claims. `refusals`: parts that can't be read, beside good ones."""

    signals: tuple[Signal, ...]
    claim: Claim | None = None
    refusals: tuple[Refusal, ...] = ()


def age_s(sent_at: datetime, observed_at: datetime) -> int:
    """Return how old an observation was when it was sent, in whole seconds rounded up; 0 where its clock was ahead."""
    return max(0, -((observed_at - sent_at) // timedelta(seconds=1)))


def observed_in_future(observed_at: datetime, sent_at: datetime, field: str = "observedAt") -> Refusal | None:
    """Return the refusal of an observation that is further ahead of its sending than clocks may differ."""
    if observed_at <= sent_at + LEAD_MAX:
        return None
    return Refusal(Code.OBSERVED_IN_FUTURE, "The observation is more than 10 minutes ahead.", field)


# --- opx's own forms -------------------------------------------------------------------------------------------------


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


def _flat(attributes: Document) -> Document:
    for name, value in attributes.items():
        if not isinstance(value, str | int | Decimal):
            raise ValueError(f"{name} is neither text nor a number nor true or false")
    return attributes


class DetectionMessage(Model):
    """The wire form `{"type":"detection", …}`: service, signalType and severity are required."""

    type: Literal["detection"]
    schema_version: SchemaVersion = 1
    service: Service
    source: Line | None = None
    signal_type: Slug
    severity: LaxSeverity
    observed_at: Time | None = None
    dedup_key: DedupKey | None = None
    resource: Line | None = None
    attributes: Annotated[Data, AfterValidator(_flat)] | None = None
    idempotency_key: IdempotencyKey | None = None
    authority: AuthorityClaim | None = None


_CANDIDATE: Final = TypeAdapter(CandidateMessage)
_DETECTION: Final = TypeAdapter(DetectionMessage)


def read_candidate(document: Document, received: Received) -> Intake:
    """Return the candidate in a message of opx's own form; raise `Rejected` naming the field that is wrong."""
    message = read(_CANDIDATE, document)
    observed_at = message.observed_at or received.sent_at
    candidate = Candidate(
        service=message.service,
        dedup_key=message.dedup_key,
        severity=message.severity,
        title=message.title,
        description=message.description,
        observation=Observation(
            kind=ObservationKind.FIRING,
            source=message.source or received.sender.principal,
            observed_at=observed_at,
            confidence=message.confidence,
            age_s=age_s(received.sent_at, observed_at) or None,
        ),
        evidence=message.evidence,
        links=message.links,
        tags=message.metadata,
        policy_id=message.policy_id or DEFAULT_POLICY,
    )
    signal = Signal(_key(message, document, received), digest(document), candidate=candidate)
    return Intake((signal,), message.authority)


def read_detection(document: Document, received: Received) -> Intake:
    """Return the raw detection in a message of opx's own form; raise `Rejected` naming the field that is wrong."""
    message = read(_DETECTION, document)
    observed_at = message.observed_at or received.sent_at
    key = _key(message, document, received)
    detection = Detection(
        id=key.value,
        service=message.service,
        source=message.source or received.sender.principal,
        signal_type=message.signal_type,
        severity=message.severity,
        observed_at=observed_at,
        age_s=age_s(received.sent_at, observed_at),
        dedup_key=message.dedup_key,
        resource=message.resource,
        attributes=message.attributes,
    )
    return Intake((Signal(key, digest(document), detection=detection),), message.authority)


def _key(message: CandidateMessage | DetectionMessage, document: Document, received: Received) -> Key:
    if message.idempotency_key is not None:
        return Key("caller", message.idempotency_key)
    if message.observed_at is not None:
        return Key("body", digest(document))
    return Key("message", received.message_id)
