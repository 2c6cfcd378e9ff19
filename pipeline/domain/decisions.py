"""Decide what a command means, and ask the gate. Pure: no clock, no ids, no I/O.

A decision is the changes it causes, `Nothing`, or a `Refusal`; `incidents.evolve` folds them. Who may take which transition
is one row in `transitions`; the gate's conditions are in `promotion`; what candidates lead to is in `occurrences`.
"""

from dataclasses import dataclass
from typing import Final, TypedDict, assert_never

from pipeline.domain.authority import AuthorityContext
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
from pipeline.domain.controls import NO_CONTROLS, PinnedControls
from pipeline.domain.envelope import Change
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import (
    STEPS,
    Attachment,
    Comment,
    EvidenceAttached,
    IncidentCancelled,
    IncidentLinked,
    IncidentOpened,
    Judgement,
    NoteAdded,
    PromotionDecided,
    Relationship,
    SeverityChanged,
    SeverityShift,
    Step,
)
from pipeline.domain.incidents import Accumulation, Incident
from pipeline.domain.promotion import (
    DISMISSED_POLICY,
    GateInputs,
    Outcome,
    PinnedPolicy,
    Policies,
    judge,
)
from pipeline.domain.transitions import (
    SEVERITY_MUTABLE,
    UNPROMOTED,
    AuthorityType,
    EventType,
    Severity,
    State,
    transition,
    transitions_from,
)

# PENDING → OPEN always has this actor; a person who asked for it stands in `requestedBy`.
GATE: Final = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="opx", actor_id="promotion-gate")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the promotion gate goes by: the shipped policies, and the live controls as they are now."""

    policies: Policies
    controls: PinnedControls = NO_CONTROLS


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
COUNTED: Final = Nothing("COUNTED")

Decision = Accepted | Nothing | Refusal


class Three(TypedDict):
    service: str
    severity: Severity
    title: str


# --- the gate ---------------------------------------------------------------------------------------------------------


def judged(
    summary: Three,
    so_far: Accumulation,
    actor: AuthorityContext,
    gate: Gate,
    policy: PinnedPolicy,
    *,
    requested: bool = False,
    alone: bool = False,
) -> Change:
    """Return the gate's judgement of what an incident adds up to, as the change it makes.

    `policy` is judged first, then the others that the incident's candidates came under: one that promotes is enough, so it
    does not matter in which order they came. Where none does, `policy` says why. `alone`: by `policy` and nothing else, the
    live controls not asked either.
    """
    human = actor.authority_type is AuthorityType.HUMAN
    behind = {actor.authority_type, *(so_far.authority_types or (AuthorityType.SYSTEM,))}
    switch = gate.controls.paused(summary["service"]) if not alone else None
    inputs = GateInputs(
        confidence=so_far.confidence,
        severity=summary["severity"],
        detections=so_far.detections,
        newest_observed_at=so_far.newest_observed_at,
        authority_type=actor.authority_type,
        requested_by_human=requested and human,
        authority_types=tuple(sorted(behind)) if len(behind) > 1 else None,
        age_s=so_far.age_s,
        key_ended_at=so_far.key_ended_at,
        maintenance=so_far.maintenance if so_far.detections == 0 else None,
        paused=switch.service if switch is not None else None,
        controls=gate.controls.digest if not alone else None,
    )
    others = [] if alone else sorted({so_far.policy_id, *(so_far.policies or ())} - {policy.policy.policy_id})
    known = (gate.policies.newest(name) for name in others)
    # One that is not shipped here promotes nothing.
    in_turn = (policy, *(other for other in known if not isinstance(other, Refusal)))
    decisions = [judge(pinned, inputs)[0] for pinned in in_turn]
    decision = next((found for found in decisions if found.outcome is Outcome.PROMOTE), decisions[0])
    judgement = Judgement(**summary, decision=decision, requested_by=actor if human else None)
    if decision.outcome is Outcome.PROMOTE:
        return Change(IncidentOpened(metadata=judgement), GATE, State.OPEN)
    return Change(PromotionDecided(metadata=judgement), GATE, State.PENDING)


def summary_of(incident: Incident) -> Three:
    """Return the incident in three words, as every fact carries them."""
    return {"service": incident.service, "severity": incident.severity, "title": incident.title}


def shifted(incident: Incident, severity: Severity, reason: str | None, actor: AuthorityContext) -> Change:
    """Return the change of an incident's severity."""
    shift = SeverityShift(
        service=incident.service,
        severity=severity,
        title=incident.title,
        previous_severity=incident.severity,
        reason=reason,
    )
    return Change(SeverityChanged(metadata=shift), actor, incident.state)


# --- commands --------------------------------------------------------------------------------------------------------


def decide_command(command: OnIncident, incident: Incident, actor: AuthorityContext, gate: Gate) -> Decision:
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
            attachment = Attachment(**summary_of(incident), evidence=command.evidence)
            return Accepted((Change(EvidenceAttached(metadata=attachment), actor, incident.state),))
        case ChangeSeverity():
            return _change_severity(command, incident, actor)
        case AddNote():
            comment = Comment(**summary_of(incident), note=command.note)
            return Accepted((Change(NoteAdded(metadata=comment), actor, incident.state),))
        case RequestPromotion():
            return _request_promotion(command, incident, actor, gate)
        case Dismiss():
            return _dismiss(command, incident, actor, gate)
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
    step = Step(**summary_of(incident), reason=command.justification)
    return Accepted((Change(STEPS[row.event_type](metadata=step), actor, row.target),))


def _change_severity(command: ChangeSeverity, incident: Incident, actor: AuthorityContext) -> Decision:
    if incident.state not in SEVERITY_MUTABLE:
        return _refused(incident, Code.SEVERITY_FROZEN, f"The incident is {incident.state}.")
    if command.severity is incident.severity:
        return UNCHANGED
    return Accepted((shifted(incident, command.severity, command.justification, actor),))


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


def _request_promotion(command: RequestPromotion, incident: Incident, actor: AuthorityContext, gate: Gate) -> Decision:
    refusal = _of_a_person_on_pending(command, incident, actor)
    if refusal is not None:
        return refusal
    policy = gate.policies.newest(incident.metadata.promotion.policy_id)
    if isinstance(policy, Refusal):
        return policy
    actor = _justified(actor, command.justification)
    return Accepted((judged(summary_of(incident), incident.metadata.promotion, actor, gate, policy, requested=True),))


def _justified(actor: AuthorityContext, reason: str | None) -> AuthorityContext:
    return actor if actor.justification else actor.model_copy(update={"justification": reason})


def _dismiss(command: Dismiss, incident: Incident, actor: AuthorityContext, gate: Gate) -> Decision:
    refusal = _of_a_person_on_pending(command, incident, actor)
    if refusal is not None:
        return refusal
    policy = gate.policies.newest(DISMISSED_POLICY)
    if isinstance(policy, Refusal):
        return policy
    # Nobody is paged by what is cancelled at once: a pause does not keep people from clearing up.
    opened = judged(summary_of(incident), incident.metadata.promotion, actor, gate, policy, requested=True, alone=True)
    if opened.fact.event_type is not EventType.INCIDENT_OPENED:
        return _refused(incident, Code.TRANSITION_ILLEGAL, "The policy `dismissed` does not let it be opened and cancelled.")
    step = Step(**summary_of(incident), reason=command.justification)
    return Accepted((opened, Change(IncidentCancelled(metadata=step), actor, State.CANCELLED)))


def _link(command: LinkIncident, incident: Incident, actor: AuthorityContext) -> Decision:
    if command.target == incident.incident_id:
        return _refused(incident, Code.LINK_TO_ITSELF, "An incident is not linked to itself.", "target")
    relationship = Relationship(**summary_of(incident), relation=command.relation, target=command.target)
    return Accepted((Change(IncidentLinked(metadata=relationship), actor, incident.state),))
