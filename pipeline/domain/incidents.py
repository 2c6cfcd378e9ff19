"""The incident: what its history folds into. `evolve` holds no rules; whatever was stored is what happened.

The row in the incidents table is this model and nothing more (plus index keys), so a fold and a row can be compared byte
for byte. Everything in it is bounded: the cost of an event never grows with the history. Rules are in `decisions`.
"""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, assert_never

from pydantic import Field, TypeAdapter

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import (
    Count,
    Data,
    DedupKey,
    Description,
    Digest,
    Model,
    Reason,
    Reference,
    Sequence,
    Service,
    Share,
    Slug,
    Time,
    Title,
    Uuid,
)
from pipeline.domain.envelope import GENESIS_HASH, SCHEMA_VERSION, Change, IncidentEvent, Tip, seal
from pipeline.domain.events import (
    REPORTS_TROUBLE,
    Attachment,
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
    Links,
    MitigationStarted,
    NoteAdded,
    Observation,
    ObservationKind,
    PromotionDecided,
    Relation,
    SeverityChanged,
)
from pipeline.domain.promotion import AuthorityTypes, LaxSeverity, Outcome
from pipeline.domain.transitions import UNCONTROLLED, AuthorityType, State, transition

# Two references keep a usual row, its predecessor's id included, within the 1 KB that a write unit pays for.
NEWEST_MAX: Final = 2
RELATED_MAX: Final = 10
# Policies that candidates of one incident came under besides its own; kept by name, so that their order never matters.
POLICIES_MAX: Final = 8

LaxState = Annotated[State, Field(strict=False)]


class EvidenceSummary(Model):
    """How much evidence there is, and the newest few references; the whole of it is in the events."""

    count: Count = 0
    newest: tuple[Reference, ...] = ()
    last_observation: Annotated[ObservationKind, Field(strict=False)] | None = None


class Accumulation(Model):
    """What the gate judges: the highest confidence, the sum of detections and the newest observation so far.

    `keyEndedAt`: when the key's last incident ended; what was seen until then adds nothing. The other fields behind
    `outcome` matter only until the incident opens, and are gone then. `policies`: further ones that candidates came under;
    `authorityTypes`: who reported, absent for SYSTEM alone; `ageS`: of the freshest observation when sent, absent for none;
    `maintenance`: the window of what doesn't count.
    """

    policy_id: Slug
    confidence: Share
    detections: Count
    newest_observed_at: Time
    outcome: Annotated[Outcome, Field(strict=False)] | None = None
    policies: tuple[Slug, ...] | None = None
    authority_types: AuthorityTypes | None = None
    age_s: Count | None = None
    key_ended_at: Time | None = None
    maintenance: Slug | None = None


class Ending(Model):
    """When the incident stopped holding its key (resolved or cancelled), and why."""

    at: Time
    reason: Reason | None = None


class Related(Model):
    relation: Annotated[Relation, Field(strict=False)]
    target: Uuid


class IncidentMetadata(Model):
    dedup_key: DedupKey
    occurrence: Sequence
    predecessor: Uuid | None = None
    tags: Data | None = None
    links: Links | None = None
    related: tuple[Related, ...] | None = None
    evidence: EvidenceSummary
    promotion: Accumulation
    resolution: Ending | None = None


class Incident(Model):
    """One incident. `version` is the sequence of its last event; `control_version` that of the last event which moved
    control (neither evidence, note, link nor promotion decision): ETag, If-Match and expectedVersion mean this one.
    """

    incident_id: Uuid
    state: LaxState
    severity: LaxSeverity
    service: Service
    title: Title
    description: Description
    created_at: Time
    updated_at: Time
    authority: AuthorityContext
    metadata: IncidentMetadata
    version: Sequence
    control_version: Sequence
    last_event_hash: Digest
    # The newest version of its events; absent for 1. Code that does not know it leaves the row to newer code.
    schema_version: Sequence | None = None


INCIDENT: TypeAdapter[Incident] = TypeAdapter(Incident)


def evolve(incident: Incident | None, event: IncidentEvent) -> Incident:
    """Fold one event into the incident. Total for every stored event; raises ValueError only for a history without start."""
    fact = event.fact
    if isinstance(fact, IncidentCreated):
        return _created(event, fact.metadata)
    if incident is None:
        raise ValueError("a history starts with IncidentCreated")
    metadata = incident.metadata
    match fact:
        case EvidenceAttached():
            metadata = _attached(metadata, fact.metadata, event.actor)
        case PromotionDecided() | IncidentOpened():
            metadata = _judged(metadata, fact.metadata)
        case IncidentResolved() | IncidentCancelled():
            # By the deciding host's own clock: one host whose clock once ran ahead must not make this key swallow all new
            # trouble until the others' clocks have caught up with it.
            ending = Ending(at=event.decided_at or event.timestamp, reason=fact.metadata.reason)
            metadata = metadata.model_copy(update={"resolution": ending})
        case IncidentLinked():
            related = Related(relation=fact.metadata.relation, target=fact.metadata.target)
            kept = (*(metadata.related or ()), related)[-RELATED_MAX:]
            metadata = metadata.model_copy(update={"related": kept})
        case SeverityChanged() | NoteAdded() | MitigationStarted() | IncidentClosed() | IncidentArchived():
            pass
        case _:
            assert_never(fact)
    controls = fact.event_type not in UNCONTROLLED
    return incident.model_copy(
        update={
            "state": event.new_state,
            "severity": fact.metadata.severity,
            "updated_at": event.timestamp,
            "authority": event.actor if controls else incident.authority,
            "metadata": metadata,
            "version": event.sequence,
            "control_version": event.sequence if controls else incident.control_version,
            "last_event_hash": event.hash,
            "schema_version": _newest_version(event.schema_version, incident.schema_version),
        }
    )


def advance(
    incident: Incident | None, incident_id: str, changes: Iterable[Change], now: datetime, version: int = SCHEMA_VERSION
) -> tuple[tuple[IncidentEvent, ...], Incident]:
    """Seal `changes` as the incident's next events and fold them; return the events and the incident after them.

    `version`: the schema version that the events are written as.

    Raises ValueError for a change of state that is not in the table of transitions: it is not stored, whatever decided it.
    """
    events: list[IncidentEvent] = []
    for change in changes:
        tip = _tip(incident)
        if change.new_state is not tip.state and transition(tip.state, change.new_state) is None:
            raise ValueError(f"there is no transition {tip.state} to {change.new_state}")
        event = seal(change, incident_id, tip, now, version)
        incident = evolve(incident, event)
        events.append(event)
    if incident is None:
        raise ValueError("no change to apply")
    return tuple(events), incident


def _tip(incident: Incident | None) -> Tip:
    if incident is None:
        return Tip(0, GENESIS_HASH, State.PENDING, None)
    return Tip(incident.version, incident.last_event_hash, incident.state, incident.updated_at)


def _newest_version(of_event: int, so_far: int | None) -> int | None:
    newest = max(of_event, so_far or 1)
    return newest if newest > 1 else None


def _created(event: IncidentEvent, creation: Creation) -> Incident:
    seen = creation.observation
    return Incident(
        incident_id=event.incident_id,
        state=event.new_state,
        severity=creation.severity,
        service=creation.service,
        title=creation.title,
        description=creation.description,
        created_at=event.timestamp,
        updated_at=event.timestamp,
        authority=event.actor,
        metadata=IncidentMetadata(
            dedup_key=creation.dedup_key,
            occurrence=creation.occurrence,
            predecessor=creation.predecessor,
            tags=creation.tags,
            links=creation.links,
            evidence=_with_evidence(EvidenceSummary(last_observation=seen.kind), creation.evidence or ()),
            promotion=first_accumulation(creation.policy_id, seen, event.actor.authority_type, creation.key_ended_at),
        ),
        version=event.sequence,
        control_version=event.sequence,
        last_event_hash=event.hash,
        schema_version=_newest_version(event.schema_version, None),
    )


def _with_evidence(summary: EvidenceSummary, items: tuple[Evidence, ...]) -> EvidenceSummary:
    newest = (*summary.newest, *(item.ref for item in items))[-NEWEST_MAX:]
    return summary.model_copy(update={"count": summary.count + len(items), "newest": newest})


def _attached(metadata: IncidentMetadata, attachment: Attachment, actor: AuthorityContext) -> IncidentMetadata:
    evidence = _with_evidence(metadata.evidence, attachment.evidence or ())
    promotion = metadata.promotion
    if (seen := attachment.observation) is not None:
        evidence = evidence.model_copy(update={"last_observation": seen.kind})
        promotion = accumulate(promotion, seen, actor.authority_type, attachment.policies or ())
    return metadata.model_copy(update={"evidence": evidence, "promotion": promotion})


def first_accumulation(
    policy_id: str, seen: Observation, authority_type: AuthorityType, key_ended_at: datetime | None
) -> Accumulation:
    """Return what an incident's first observation adds up to."""
    counts = seen.maintenance is None
    return Accumulation(
        policy_id=policy_id,
        confidence=seen.confidence if counts else Decimal(0),
        detections=seen.detections if counts else 0,
        newest_observed_at=seen.observed_at,
        authority_types=_beyond_system({authority_type}),
        age_s=seen.age_s if counts else None,
        key_ended_at=key_ended_at,
        maintenance=seen.maintenance,
    )


def accumulate(
    promotion: Accumulation, seen: Observation, authority_type: AuthorityType, policies: Iterable[str] = ()
) -> Accumulation:
    """Add one observation: highest confidence, sum of detections, newest time; who reported it, and under which policies.

    Only trouble counts; what was seen during maintenance, or before the key's last incident ended, counts for nothing. An
    incident of nothing that counts takes on what the first does that counts, as if it had begun with it. So adding is
    commutative: the order in which observations arrive leaves no trace.
    """
    if seen.kind not in REPORTS_TROUBLE or seen.detections == 0:
        return promotion
    waits = promotion.outcome is not Outcome.PROMOTE
    if seen.maintenance is not None:
        if promotion.detections or not waits:
            return promotion
        newest = max(promotion.newest_observed_at, seen.observed_at)
        held = min(filter(None, (promotion.maintenance, seen.maintenance)))
        return promotion.model_copy(update={"newest_observed_at": newest, "maintenance": held})
    under = set(policies) or {promotion.policy_id}
    if promotion.detections == 0 and waits:
        first, *others = sorted(under)
        begun = first_accumulation(first, seen, authority_type, promotion.key_ended_at)
        update: dict[str, Any] = {"outcome": promotion.outcome, "policies": tuple(others[:POLICIES_MAX]) or None}
        return begun.model_copy(update=update)
    update = {
        "newest_observed_at": max(promotion.newest_observed_at, seen.observed_at),
        "confidence": max(promotion.confidence, seen.confidence),
        "detections": promotion.detections + seen.detections,
    }
    if waits:
        known = set(promotion.authority_types or (AuthorityType.SYSTEM,))
        further = {*(promotion.policies or ()), *under} - {promotion.policy_id}
        update["authority_types"] = _beyond_system(known | {authority_type})
        update["policies"] = tuple(sorted(further)[:POLICIES_MAX]) or None
        update["age_s"] = min(seen.age_s or 0, promotion.age_s or 0) or None
    return promotion.model_copy(update=update)


def _beyond_system(kinds: set[AuthorityType]) -> tuple[AuthorityType, ...] | None:
    return None if kinds == {AuthorityType.SYSTEM} else tuple(sorted(kinds))


# What only the gate asks for: gone from the row once the incident is open.
_OF_THE_GATE: Final = {"policies": None, "authority_types": None, "age_s": None, "maintenance": None}


def _judged(metadata: IncidentMetadata, judgement: Judgement) -> IncidentMetadata:
    outcome = judgement.decision.outcome
    update: dict[str, Any] = {"outcome": outcome} | (_OF_THE_GATE if outcome is Outcome.PROMOTE else {})
    return metadata.model_copy(update={"promotion": metadata.promotion.model_copy(update=update)})
