"""Decide what a candidate or a command means. Pure: no clock, no ids, no I/O.

Each `decide_*` returns the changes it causes, `Nothing`, or a `Refusal`; `incidents.evolve` folds them. Who may take which
transition is one row in `transitions`; whether a candidate is good enough is the gate's, in `promotion`.
"""

from dataclasses import dataclass
from typing import Final, TypedDict, assert_never

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.candidates import Candidate
from pipeline.domain.commands import (
    AddNote,
    AttachEvidence,
    ChangeSeverity,
    ChangeState,
    Dismiss,
    LinkIncident,
    OnIncident,
    RequestPromotion,
)
from pipeline.domain.envelope import Change
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import (
    REPORTS_TROUBLE,
    STEPS,
    Attachment,
    Comment,
    Creation,
    EvidenceAttached,
    IncidentCancelled,
    IncidentCreated,
    IncidentLinked,
    IncidentOpened,
    Judgement,
    NoteAdded,
    PromotionDecided,
    Relationship,
    Report,
    SeverityChanged,
    SeverityShift,
    Step,
)
from pipeline.domain.incidents import Accumulation, Incident, accumulate
from pipeline.domain.promotion import (
    DISMISSED_POLICY,
    GateInputs,
    Outcome,
    PinnedPolicy,
    Policies,
    judge,
)
from pipeline.domain.transitions import (
    HOLDS_KEY,
    SEVERITY_MUTABLE,
    UNPROMOTED,
    AuthorityType,
    EventType,
    Severity,
    State,
    more_severe,
    transition,
    transitions_from,
)

# PENDING → OPEN always has this actor; a person who asked for it stands in `requestedBy`.
GATE: Final = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="opx", actor_id="promotion-gate")


@dataclass(frozen=True, slots=True)
class Accepted:
    """Changes to apply to one incident. `occurrence` is set where they begin it (1 for a key's first incident)."""

    changes: tuple[Change, ...]
    occurrence: int | None = None


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to change, and that is the answer: it gets a receipt like any other."""

    code: str


NOTHING_OPEN: Final = Nothing("NOTHING_OPEN")
UNCHANGED: Final = Nothing("UNCHANGED")

Decision = Accepted | Nothing | Refusal


class _Three(TypedDict):
    service: str
    severity: Severity
    title: str


# --- candidates ------------------------------------------------------------------------------------------------------


def decide_candidate(candidate: Candidate, holder: Incident | None, actor: AuthorityContext, policies: Policies) -> Decision:
    """Decide what a candidate does to its key's newest incident (`holder`): begin one, join it, or nothing.

    Joins while the incident holds its key, and afterwards where the observation is not later than its ending (a drained
    backlog). Otherwise the next occurrence begins. A recovery never begins or moves anything.
    """
    policy = policies.newest(candidate.policy_id)
    if isinstance(policy, Refusal):
        return policy
    troubled = candidate.observation.kind in REPORTS_TROUBLE
    if holder is None:
        return _begin(candidate, None, actor, policy) if troubled else NOTHING_OPEN
    if holder.state not in HOLDS_KEY:
        if not troubled:
            return NOTHING_OPEN
        ending = holder.metadata.resolution
        if ending is None or candidate.observation.observed_at > ending.at:
            return _begin(candidate, holder, actor, policy)
        return Accepted((_attach(holder, candidate, actor),))
    if troubled and _expired(candidate, holder, policy):
        return _begin(candidate, holder, actor, policy)
    return Accepted(_join(candidate, holder, actor, policy if troubled else None))


def _expired(candidate: Candidate, holder: Incident, policy: PinnedPolicy) -> bool:
    silence = candidate.observation.observed_at - holder.metadata.promotion.newest_observed_at
    return holder.state in UNPROMOTED and silence > policy.policy.pending_expires


def _begin(candidate: Candidate, predecessor: Incident | None, actor: AuthorityContext, policy: PinnedPolicy) -> Accepted:
    seen = candidate.observation
    occurrence = predecessor.metadata.occurrence + 1 if predecessor else 1
    created = IncidentCreated(
        metadata=Creation(
            service=candidate.service,
            severity=candidate.severity,
            title=candidate.title,
            description=candidate.description,
            dedup_key=candidate.dedup_key,
            occurrence=occurrence,
            predecessor=predecessor.incident_id if predecessor else None,
            policy_id=policy.policy.policy_id,
            observation=seen,
            evidence=candidate.evidence or None,
            links=candidate.links or None,
            tags=candidate.tags or None,
        )
    )
    so_far = Accumulation(
        policy_id=policy.policy.policy_id,
        confidence=seen.confidence,
        detections=seen.detections,
        newest_observed_at=seen.observed_at,
    )
    summary: _Three = {"service": candidate.service, "severity": candidate.severity, "title": candidate.title}
    return Accepted((Change(created, actor, State.PENDING), _judge(summary, so_far, actor, policy)), occurrence=occurrence)


def _attach(holder: Incident, candidate: Candidate, actor: AuthorityContext) -> Change:
    attachment = Attachment(
        **_summary(holder),
        observation=candidate.observation,
        evidence=candidate.evidence or None,
        report=_report(holder, candidate),
    )
    return Change(EvidenceAttached(metadata=attachment), actor, holder.state)


def _report(holder: Incident, candidate: Candidate) -> Report | None:
    said = Report(
        severity=candidate.severity if candidate.severity is not holder.severity else None,
        title=candidate.title if candidate.title != holder.title else None,
        description=candidate.description if candidate.description not in ("", holder.description) else None,
        links=candidate.links if candidate.links and candidate.links != holder.metadata.links else None,
        tags=candidate.tags if candidate.tags and candidate.tags != holder.metadata.tags else None,
    )
    return said if said.model_dump(exclude_none=True) else None


def _join(
    candidate: Candidate, holder: Incident, actor: AuthorityContext, policy: PinnedPolicy | None
) -> tuple[Change, ...]:
    changes = [_attach(holder, candidate, actor)]
    if policy is None:
        return tuple(changes)
    severity = holder.severity
    if more_severe(candidate.severity, severity):
        changes.append(_shift(holder, candidate.severity, None, actor))
        severity = candidate.severity
    if holder.state in UNPROMOTED:
        so_far = accumulate(holder.metadata.promotion, candidate.observation)
        summary = _summary(holder) | {"severity": severity}
        changes.append(_judge(summary, so_far, actor, policy))
    return tuple(changes)


def _judge(
    summary: _Three,
    so_far: Accumulation,
    actor: AuthorityContext,
    policy: PinnedPolicy,
    *,
    requested: bool = False,
) -> Change:
    human = actor.authority_type is AuthorityType.HUMAN
    inputs = GateInputs(
        confidence=so_far.confidence,
        severity=summary["severity"],
        detections=so_far.detections,
        newest_observed_at=so_far.newest_observed_at,
        authority_type=actor.authority_type,
        requested_by_human=requested and human,
    )
    decision, _ = judge(policy, inputs)
    judgement = Judgement(**summary, decision=decision, requested_by=actor if human else None)
    if decision.outcome is Outcome.PROMOTE:
        return Change(IncidentOpened(metadata=judgement), GATE, State.OPEN)
    return Change(PromotionDecided(metadata=judgement), GATE, State.PENDING)


def _summary(incident: Incident) -> _Three:
    return {"service": incident.service, "severity": incident.severity, "title": incident.title}


def _shift(incident: Incident, severity: Severity, reason: str | None, actor: AuthorityContext) -> Change:
    shift = SeverityShift(
        service=incident.service,
        severity=severity,
        title=incident.title,
        previous_severity=incident.severity,
        reason=reason,
    )
    return Change(SeverityChanged(metadata=shift), actor, incident.state)


# --- commands --------------------------------------------------------------------------------------------------------


def decide_command(command: OnIncident, incident: Incident, actor: AuthorityContext, policies: Policies) -> Decision:
    """Decide what a command does to an existing incident. `expectedVersion` is compared with controlVersion."""
    if command.expected_version is not None and command.expected_version != incident.control_version:
        return _refused(
            incident,
            Code.VERSION_STALE,
            f"controlVersion is {incident.control_version}, not {command.expected_version}.",
        )
    if isinstance(command, AttachEvidence | AddNote | LinkIncident):
        # These facts have no place for a reason of their own; it stands beside who gave it.
        actor = _justified(actor, command.reason)
    match command:
        case ChangeState():
            return _change_state(command, incident, actor)
        case AttachEvidence():
            attachment = Attachment(**_summary(incident), evidence=command.evidence)
            return Accepted((Change(EvidenceAttached(metadata=attachment), actor, incident.state),))
        case ChangeSeverity():
            return _change_severity(command, incident, actor)
        case AddNote():
            comment = Comment(**_summary(incident), note=command.note)
            return Accepted((Change(NoteAdded(metadata=comment), actor, incident.state),))
        case RequestPromotion():
            return _request_promotion(command, incident, actor, policies)
        case Dismiss():
            return _dismiss(command, incident, actor, policies)
        case LinkIncident():
            return _link(command, incident, actor)
        case _:
            assert_never(command)


def _refused(incident: Incident, code: Code, detail: str, field: str | None = None) -> Refusal:
    allowed = tuple(row.target.value for row in transitions_from(incident.state))
    return Refusal(code, detail, field, incident.incident_id, incident.state.value, allowed)


def _change_state(command: ChangeState, incident: Incident, actor: AuthorityContext) -> Decision:
    row = transition(incident.state, command.new_state)
    if row is None:
        return _refused(incident, Code.TRANSITION_ILLEGAL, f"There is no transition {incident.state} → {command.new_state}.")
    if actor.authority_type not in row.authorities:
        needed = " or ".join(sorted(row.authorities))
        return _refused(incident, Code.TRANSITION_AUTHORITY, f"{row.source} → {row.target} needs {needed} authority.")
    if row.event_type is EventType.INCIDENT_OPENED:
        return _refused(
            incident, Code.TRANSITION_AUTHORITY, "Only the promotion gate opens an incident; send request-promotion."
        )
    if row.needs_reason and command.justification is None:
        return _refused(incident, Code.REASON_MISSING, f"{row.source} → {row.target} needs a reason.", "reason")
    step = Step(**_summary(incident), reason=command.justification)
    return Accepted((Change(STEPS[row.event_type](metadata=step), actor, row.target),))


def _change_severity(command: ChangeSeverity, incident: Incident, actor: AuthorityContext) -> Decision:
    if incident.state not in SEVERITY_MUTABLE:
        return _refused(incident, Code.SEVERITY_FROZEN, f"The incident is {incident.state}.")
    if command.severity is incident.severity:
        return UNCHANGED
    return Accepted((_shift(incident, command.severity, command.justification, actor),))


def _of_a_person_on_pending(
    command: RequestPromotion | Dismiss, incident: Incident, actor: AuthorityContext
) -> Refusal | None:
    if incident.state not in UNPROMOTED:
        return _refused(
            incident, Code.TRANSITION_ILLEGAL, f"{command.type} is for a pending incident; it is {incident.state}."
        )
    if actor.authority_type is not AuthorityType.HUMAN:
        return _refused(incident, Code.TRANSITION_AUTHORITY, f"{command.type} needs HUMAN authority.")
    if command.justification is None:
        return _refused(incident, Code.REASON_MISSING, f"{command.type} needs a reason.", "reason")
    return None


def _request_promotion(
    command: RequestPromotion, incident: Incident, actor: AuthorityContext, policies: Policies
) -> Decision:
    refusal = _of_a_person_on_pending(command, incident, actor)
    if refusal is not None:
        return refusal
    policy = policies.newest(incident.metadata.promotion.policy_id)
    if isinstance(policy, Refusal):
        return policy
    actor = _justified(actor, command.justification)
    return Accepted((_judge(_summary(incident), incident.metadata.promotion, actor, policy, requested=True),))


def _justified(actor: AuthorityContext, reason: str | None) -> AuthorityContext:
    return actor if actor.justification else actor.model_copy(update={"justification": reason})


def _dismiss(command: Dismiss, incident: Incident, actor: AuthorityContext, policies: Policies) -> Decision:
    refusal = _of_a_person_on_pending(command, incident, actor)
    if refusal is not None:
        return refusal
    policy = policies.newest(DISMISSED_POLICY)
    if isinstance(policy, Refusal):
        return policy
    opened = _judge(_summary(incident), incident.metadata.promotion, actor, policy, requested=True)
    step = Step(**_summary(incident), reason=command.justification)
    return Accepted((opened, Change(IncidentCancelled(metadata=step), actor, State.CANCELLED)))


def _link(command: LinkIncident, incident: Incident, actor: AuthorityContext) -> Decision:
    if command.target == incident.incident_id:
        return _refused(incident, Code.LINK_TO_ITSELF, "An incident is not linked to itself.", "target")
    relationship = Relationship(**_summary(incident), relation=command.relation, target=command.target)
    return Accepted((Change(IncidentLinked(metadata=relationship), actor, incident.state),))
