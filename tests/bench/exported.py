"""A made-up export of any size: usual incidents with usual lives, sealed and chained as real ones are."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.envelope import Change
from pipeline.domain.events import (
    Attachment,
    Comment,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentClosed,
    IncidentCreated,
    IncidentOpened,
    IncidentResolved,
    Judgement,
    MitigationStarted,
    NoteAdded,
    Observation,
    ObservationKind,
    Step,
)
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import advance
from pipeline.domain.promotion import GateInputs, Outcome, PinnedPolicy, judge
from pipeline.domain.transitions import AuthorityType, Severity, State
from pipeline.runtime import shipped
from pipeline.stores.items import Item, event_item
from tests.support.exporting import write_export

BEGAN = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
DETECTOR = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="AROAEXAMPLEDETECTOR", actor_id="monitor-7")
PERSON = AuthorityContext(authority_type=AuthorityType.HUMAN, principal="AROAEXAMPLEOPERATOR", actor_id="dana@example.com")
GATE = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="opx", actor_id="promotion-gate")
# Created, opened, evidence twice, mitigated, a note, resolved, closed.
EVENTS_EACH = 8


def life(number: int, policy: PinnedPolicy) -> Iterator[Item]:
    """Yield the stored events of one usual incident."""
    service, key = f"service-{number % 97}", f"alarm-{number}"
    identity = incident_id(service, key, 1)
    told: dict[str, Any] = {"service": service, "severity": Severity.SEV2, "title": "5xx above 5 % for ten minutes"}
    at = BEGAN + timedelta(seconds=number)
    seen = Observation(
        kind=ObservationKind.FIRING, source="cloudwatch:checkout-5xx", observed_at=at, confidence=Decimal("0.95")
    )
    evidence = (Evidence(kind="cloudwatch-alarm", ref=f"alarm/{number}", observed_at=at, note="ALARM"),)
    inputs = GateInputs(
        confidence=seen.confidence,
        severity=Severity.SEV2,
        detections=1,
        newest_observed_at=at,
        authority_type=AuthorityType.SYSTEM,
    )
    decision = judge(policy, inputs)[0]
    assert decision.outcome is Outcome.PROMOTE
    creation = Creation(
        **told, description="", dedup_key=key, occurrence=1, policy_id="default", observation=seen, evidence=evidence
    )
    steps = (
        Change(IncidentCreated(metadata=creation), DETECTOR, State.PENDING),
        Change(IncidentOpened(metadata=Judgement(**told, decision=decision)), GATE, State.OPEN),
        Change(EvidenceAttached(metadata=Attachment(**told, observation=seen, evidence=evidence)), DETECTOR, State.OPEN),
        Change(EvidenceAttached(metadata=Attachment(**told, observation=seen, evidence=evidence)), DETECTOR, State.OPEN),
        Change(MitigationStarted(metadata=Step(**told)), PERSON, State.MITIGATING),
        Change(NoteAdded(metadata=Comment(**told, note="Rolling back to build 412.")), PERSON, State.MITIGATING),
        Change(IncidentResolved(metadata=Step(**told, reason="rolled back")), PERSON, State.RESOLVED),
        Change(IncidentClosed(metadata=Step(**told, reason="post-mortem 12")), PERSON, State.CLOSED),
    )
    for event in advance(None, identity, steps, at)[0]:
        yield event_item(event)


def write(folder: Path, events: int, files: int = 4) -> Path:
    """Write an export of so many events, in as many files; return its folder."""
    policies = shipped.policies()
    policy = policies.newest("default")
    assert isinstance(policy, PinnedPolicy)
    incidents = events // EVENTS_EACH
    parts = ((item for number in range(part, incidents, files) for item in life(number, policy)) for part in range(files))
    write_export(folder, "incident-events", parts)
    return folder
