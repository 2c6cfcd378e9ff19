"""Histories written out fact by fact, without asking `decide`: the given of a given/when/then table.

`incident_in(State.X)` is the shortest history that leads to a state; `whole_life` holds every event type, every field set.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.candidates import Candidate
from pipeline.domain.canonical import parse_document
from pipeline.domain.envelope import Change, IncidentEvent
from pipeline.domain.events import (
    Attachment,
    Comment,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentArchived,
    IncidentCancelled,
    IncidentClosed,
    IncidentCreated,
    IncidentLinked,
    IncidentOpened,
    IncidentResolved,
    Judgement,
    Link,
    MitigationStarted,
    NoteAdded,
    Observation,
    ObservationKind,
    PromotionDecided,
    Relation,
    Relationship,
    SeverityChanged,
    SeverityShift,
    Step,
)
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.promotion import GateInputs, PinnedPolicy, Policies, judge
from pipeline.domain.transitions import AuthorityType, Severity, State
from tests.support.clock import NOW

ROOT: Final = Path(__file__).parents[2]
POLICY_FILES: Final = sorted((ROOT / "pipeline" / "policies").glob("*.v*.json"))
POLICIES: Final = Policies.load(parse_document(path.read_bytes()) for path in POLICY_FILES)

SYSTEM: Final = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="AROADETECTOR", actor_id="monitor-7")
HUMAN: Final = AuthorityContext(authority_type=AuthorityType.HUMAN, principal="AROAOPERATOR", actor_id="dana@example.com")
GATE: Final = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="opx", actor_id="promotion-gate")
ACTORS: Final = {AuthorityType.HUMAN: HUMAN, AuthorityType.SYSTEM: SYSTEM}

SERVICE: Final = "checkout"
DEDUP_KEY: Final = "checkout-5xx"
INCIDENT_ID: Final = incident_id(SERVICE, DEDUP_KEY, 1)
OTHER_ID: Final = incident_id(SERVICE, "another", 1)

STATE_PATHS: Final = {
    State.PENDING: "created deferred",
    State.OPEN: "created opened",
    State.MITIGATING: "created opened mitigated",
    State.RESOLVED: "created opened mitigated resolved",
    State.CLOSED: "created opened mitigated resolved closed",
    State.CANCELLED: "created opened cancelled",
    State.ARCHIVED: "created opened mitigated resolved closed archived",
}


def pinned(name: str) -> PinnedPolicy:
    found = POLICIES.newest(name)
    assert isinstance(found, PinnedPolicy)
    return found


def observation(kind: ObservationKind = ObservationKind.FIRING, **fields: Any) -> Observation:
    known: dict[str, Any] = {"source": "monitor", "observed_at": NOW, "confidence": Decimal(1)}
    return Observation(**(known | {"kind": kind} | fields))


_OF_OBSERVATIONS: Final = tuple(name for name in Observation.model_fields if name != "kind")


def candidate(kind: ObservationKind = ObservationKind.FIRING, **fields: Any) -> Candidate:
    """Return a candidate for the key of `INCIDENT_ID`; fields of its observation may be given beside its own."""
    seen = {name: fields.pop(name) for name in _OF_OBSERVATIONS if name in fields}
    basis = Candidate(SERVICE, DEDUP_KEY, Severity.SEV2, "5xx above 5 %", observation(kind, **seen))
    return replace(basis, **fields)


def change(step: str, *, severity: Severity = Severity.SEV2, confidence: Decimal = Decimal("0.5")) -> Change:
    """Return one step of the shortest histories, by name."""
    summary: dict[str, Any] = {"service": SERVICE, "severity": severity, "title": "5xx above 5 %"}
    seen = observation(confidence=confidence)
    match step:
        case "created":
            creation = Creation(
                **summary, description="", dedup_key=DEDUP_KEY, occurrence=1, policy_id="default", observation=seen
            )
            return Change(IncidentCreated(metadata=creation), SYSTEM, State.PENDING)
        case "deferred":
            return Change(PromotionDecided(metadata=_judgement(summary, seen)), GATE, State.PENDING)
        case "opened":
            promoted = observation(confidence=Decimal(1))
            return Change(IncidentOpened(metadata=_judgement(summary, promoted)), GATE, State.OPEN)
        case "mitigated":
            return Change(MitigationStarted(metadata=Step(**summary)), HUMAN, State.MITIGATING)
        case "resolved":
            return Change(IncidentResolved(metadata=Step(**summary, reason="rolled back")), HUMAN, State.RESOLVED)
        case "closed":
            return Change(IncidentClosed(metadata=Step(**summary, reason="reviewed")), HUMAN, State.CLOSED)
        case "archived":
            return Change(IncidentArchived(metadata=Step(**summary)), SYSTEM, State.ARCHIVED)
        case "cancelled":
            return Change(IncidentCancelled(metadata=Step(**summary, reason="a test")), HUMAN, State.CANCELLED)
    raise ValueError(step)


def _judgement(summary: dict[str, Any], seen: Observation) -> Judgement:
    inputs = GateInputs(
        confidence=seen.confidence,
        severity=summary["severity"],
        detections=seen.detections,
        newest_observed_at=seen.observed_at,
        authority_type=AuthorityType.SYSTEM,
    )
    # Version 1 for ever: what is written out here lies in golden files.
    decision, _ = judge(POLICIES.pinned["default", 1], inputs)
    return Judgement(**summary, decision=decision)


def incident_in(state: State, **fields: Any) -> Incident:
    """Return an incident in `state`, reached by its shortest history at `NOW`."""
    changes = [change(step, **fields) for step in STATE_PATHS[state].split()]
    return advance(None, INCIDENT_ID, changes, NOW)[1]


def whole_life() -> tuple[tuple[IncidentEvent, ...], tuple[IncidentEvent, ...]]:
    """Return two histories that together hold every event type, each with every optional field set."""
    severity: dict[str, Any] = {"severity": Severity.SEV1}
    first = [
        _full_creation(),
        change("deferred"),
        _full_attachment(),
        _full_shift(),
        _full_opening(),
        _with_reason(change("mitigated", **severity), "failing over"),
        _remark(),
        _relationship(),
        change("resolved", **severity),
        change("closed", **severity),
        _with_reason(change("archived", **severity), "90 days"),
    ]
    second = [change("created"), change("opened"), change("cancelled")]
    steps = [NOW + timedelta(microseconds=123456), NOW + timedelta(minutes=5)]
    return advance(None, INCIDENT_ID, first, steps[0])[0], advance(None, OTHER_ID, second, steps[1])[0]


_RAISED: Final[dict[str, Any]] = {"service": SERVICE, "severity": Severity.SEV1, "title": "5xx above 5 %"}


def _evidence(observed_at: datetime = NOW) -> tuple[Evidence, ...]:
    return (
        Evidence(kind="dashboard", ref="https://example.com/d/1", observed_at=observed_at, note="Größe – 5 ‰"),
        Evidence(kind="log", ref="logs/1"),
    )


def _full_creation() -> Change:
    creation = Creation(
        service=SERVICE,
        severity=Severity.SEV2,
        title="5xx above 5 %",
        description="line one\nline two\tétat 😀",
        dedup_key=DEDUP_KEY,
        occurrence=2,
        predecessor=OTHER_ID,
        policy_id="default",
        observation=observation(confidence=Decimal("0.5"), detections=3),
        evidence=_evidence(),
        links=(Link(rel="runbook", href="https://example.com/r"),),
        tags={"region": "eu", "share": Decimal("0.25"), "hosts": ("a", "b"), "spare": None, "on": True},
    )
    return Change(IncidentCreated(metadata=creation), SYSTEM, State.PENDING)


def _full_attachment() -> Change:
    seen = observation(confidence=Decimal("0.875"), detections=2, observed_at=NOW - timedelta(seconds=1))
    attachment = Attachment(
        service=SERVICE, severity=Severity.SEV2, title="5xx above 5 %", observation=seen, evidence=_evidence()
    )
    return Change(EvidenceAttached(metadata=attachment), SYSTEM, State.PENDING)


def _full_shift() -> Change:
    shift = SeverityShift(**_RAISED, previous_severity=Severity.SEV2, reason="all regions")
    return Change(SeverityChanged(metadata=shift), HUMAN, State.PENDING)


def _full_opening() -> Change:
    asked = HUMAN.model_copy(update={"justification": "customers call", "asserted_by": "portal"})
    judgement = _judgement(_RAISED, observation(confidence=Decimal("0.875")))
    requested = judgement.model_copy(update={"requested_by": asked})
    return Change(IncidentOpened(metadata=requested), GATE, State.OPEN)


def _with_reason(step: Change, reason: str) -> Change:
    metadata = step.fact.metadata.model_copy(update={"reason": reason})
    return replace(step, fact=step.fact.model_copy(update={"metadata": metadata}))


def _remark() -> Change:
    return Change(NoteAdded(metadata=Comment(**_RAISED, note="Paged the database team.")), HUMAN, State.MITIGATING)


def _relationship() -> Change:
    relationship = Relationship(**_RAISED, relation=Relation.CAUSED_BY, target=OTHER_ID)
    return Change(IncidentLinked(metadata=relationship), HUMAN, State.MITIGATING)
