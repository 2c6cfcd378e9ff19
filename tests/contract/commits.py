"""Commits as the decision loop makes them, without the rules: what a store must be able to apply."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.correlation import Kept, Window
from pipeline.domain.envelope import Change
from pipeline.domain.events import (
    Attachment,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentCreated,
    MitigationStarted,
    Observation,
    ObservationKind,
    SeverityChanged,
    SeverityShift,
    Step,
)
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.receipts import Answer, IdempotencyRecord, Request, Result
from pipeline.domain.transitions import AuthorityType, Severity, State
from pipeline.services.ports import Commit, KeyHeld, Pointer, RowUnmoved

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
ACTOR = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="AROAEXAMPLE", actor_id="detector")
SEEN = Observation(
    kind=ObservationKind.FIRING, source="detector", observed_at=NOW, confidence=Decimal("0.875"), detections=1
)


def receipt(key: str, incident: Incident | None = None, body: str = "0") -> IdempotencyRecord:
    """A receipt of one sender's key; `body` is a hexadecimal digit that stands for the request."""
    request = Request(principal="AROAEXAMPLE", key_kind="caller", key=key, operation="candidate", request_digest=body * 64)
    result = Result(answer=Answer.CREATED, first_sequence=1, last_sequence=1, state=State.PENDING, control_version=1)
    return request.receipt(result, incident.incident_id if incident else None, NOW)


def beginning(
    key: str,
    *,
    service: str = "checkout",
    dedup_key: str = "checkout-5xx",
    occurrence: int = 1,
    severity: Severity = Severity.SEV2,
    now: datetime = NOW,
    identity: str | None = None,
) -> Commit:
    """The first commit of an occurrence: its creation event, row, pointer and receipt. An `identity` is one made up."""
    identity = identity or incident_id(service, dedup_key, occurrence)
    created = IncidentCreated(
        metadata=Creation(
            service=service,
            severity=severity,
            title="5xx above 5 %",
            description="",
            dedup_key=dedup_key,
            occurrence=occurrence,
            predecessor=incident_id(service, dedup_key, occurrence - 1) if occurrence > 1 else None,
            policy_id="default",
            observation=SEEN,
        )
    )
    events, incident = advance(None, identity, [Change(created, ACTOR, State.PENDING)], now)
    pointer = Pointer(service=service, dedup_key=dedup_key, occurrence=occurrence, incident_id=identity)
    return Commit((receipt(key, incident),), events, incident, pointer)


def attaching(incident: Incident, *keys: str, note_bytes: int = 0, items: int = 1) -> Commit:
    """Evidence on an incident; `note_bytes` makes each of its `items` larger."""
    evidence = tuple(
        Evidence(kind="alarm", ref=f"ref-{incident.version}-{number}", note="x" * note_bytes or None)
        for number in range(items)
    )
    fact = EvidenceAttached(
        metadata=Attachment(
            service=incident.service,
            severity=incident.severity,
            title=incident.title,
            observation=SEEN,
            evidence=evidence,
        )
    )
    events, after = advance(incident, incident.incident_id, [Change(fact, ACTOR, incident.state)], NOW)
    return Commit(tuple(receipt(key, after) for key in keys), events, after)


def moving(incident: Incident, target: State, key: str) -> Commit:
    """A step to another state; the store does not ask whether the state machine has it."""
    fact = MitigationStarted(
        metadata=Step(service=incident.service, severity=incident.severity, title=incident.title, reason=None)
    )
    events, after = advance(incident, incident.incident_id, [Change(fact, ACTOR, target)], NOW)
    return Commit((receipt(key, after),), events, after)


def regrading(incident: Incident, severity: Severity, key: str) -> Commit:
    """Another severity."""
    fact = SeverityChanged(
        metadata=SeverityShift(
            service=incident.service, severity=severity, title=incident.title, previous_severity=incident.severity
        )
    )
    events, after = advance(incident, incident.incident_id, [Change(fact, ACTOR, incident.state)], NOW)
    return Commit((receipt(key, after),), events, after)


def opening(incident: Incident, key: str) -> Commit:
    """A step that needs the incident's key still to be its own."""
    metadata = incident.metadata
    pointer = Pointer(
        service=incident.service,
        dedup_key=metadata.dedup_key,
        occurrence=metadata.occurrence,
        incident_id=incident.incident_id,
    )
    return replace(moving(incident, State.OPEN, key), guard=KeyHeld(pointer))


def taking(expired: Incident, key: str) -> Commit:
    """The next occurrence, which needs the one before it not to have moved."""
    following = beginning(key, occurrence=expired.metadata.occurrence + 1)
    return replace(following, guard=RowUnmoved(expired))


RULE_DIGEST = "d" * 64


def window(group: str = "checkout", *, version: int = 1, detections: int = 2, incident: Incident | None = None) -> Window:
    """A correlation window as a rule would have counted it so far; the time says which one it is."""
    return Window(
        rule_id="bursts",
        rule_version=1,
        rule_digest=RULE_DIGEST,
        group={"service": group, "attributes.zone": 4},
        starts_at=NOW,
        ends_at=NOW + timedelta(hours=1),
        version=version,
        detections=detections,
        severity=Severity.SEV2,
        first_observed_at=NOW,
        newest_observed_at=NOW + timedelta(minutes=version),
        newest_source="detector",
        age_s=0,
        kept=(Kept(severity=Severity.SEV2, observed_at=NOW, id="d-1", source="detector", resource="host-1"),),
        incident_id=incident.incident_id if incident else None,
    )


def counting(*keys: str, group: str = "checkout", version: int = 1) -> Commit:
    """Detections that are counted, and nothing more."""
    return Commit(tuple(receipt(key) for key in keys), window=window(group, version=version))
