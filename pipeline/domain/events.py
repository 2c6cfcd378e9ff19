"""What can have happened to an incident: the frozen event types and the data each carries. The storage format.

Every fact carries the summary (service, severity, title after it) so that a subscriber's rule can filter on it, and all
that `evolve` needs. Changing a name or a field here is a schema version. The envelope around a fact is in `envelope`.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import (
    EVIDENCE_MAX,
    LINKS_MAX,
    Count,
    Data,
    DedupKey,
    Description,
    Digest,
    Href,
    Line,
    Model,
    Note,
    Reason,
    Reference,
    Remark,
    Sequence,
    Service,
    Share,
    Slug,
    Time,
    Title,
    Uuid,
)
from pipeline.domain.promotion import GateDecision, LaxSeverity
from pipeline.domain.transitions import EventType


class Evidence(Model):
    """One piece of evidence: what it is and where to find it."""

    kind: Slug
    ref: Reference
    observed_at: Time | None = None
    note: Remark | None = None


class Link(Model):
    rel: Slug
    href: Href


class ObservationKind(StrEnum):
    """What was seen. Only a firing and a declaration report trouble; the others are evidence on what is open."""

    FIRING = "firing"
    RECOVERY = "recovery"
    NO_DATA = "no-data"
    DECLARATION = "declaration"


REPORTS_TROUBLE = frozenset({ObservationKind.FIRING, ObservationKind.DECLARATION})


class Observation(Model):
    """What candidates reported: who saw it, when, how sure, how often.

    Where several were folded into one: the newest time and its source, the highest confidence, the sum of detections, and
    beside them the first time and the other sources. `ageS` is the age of the freshest when it was sent, in whole seconds
    (absent: none). What was seen during a maintenance window is evidence, and does not count towards promotion. Neither does
    what was seen before the key's last incident ended: its `detections` are 0.
    """

    kind: Annotated[ObservationKind, Field(strict=False)]
    source: Line
    observed_at: Time
    confidence: Share
    detections: Count = 1
    first_observed_at: Time | None = None
    more_sources: tuple[Line, ...] | None = None
    age_s: Count | None = None
    maintenance: Slug | None = None


class Relation(StrEnum):
    DUPLICATE_OF = "duplicate-of"
    CAUSED_BY = "caused-by"


EvidenceItems = Annotated[tuple[Evidence, ...], Field(max_length=EVIDENCE_MAX)]
Links = Annotated[tuple[Link, ...], Field(max_length=LINKS_MAX)]


class Summary(Model):
    """The incident in three words, as it is after the event."""

    service: Service
    severity: LaxSeverity
    title: Title


class Correlation(Model):
    """Which rule made the candidate, from which window: `detections` had been counted in it when this was decided."""

    rule_id: Slug
    rule_version: Sequence
    rule_digest: Digest
    candidate_id: Uuid
    window_start: Time
    window_end: Time
    detections: Count


class Creation(Summary):
    """Where the key had an incident before, `keyEndedAt` is when the last one ended."""

    description: Description
    dedup_key: DedupKey
    occurrence: Sequence
    predecessor: Uuid | None = None
    policy_id: Slug
    observation: Observation
    evidence: EvidenceItems | None = None
    links: Links | None = None
    tags: Data | None = None
    correlation: Correlation | None = None
    key_ended_at: Time | None = None


class Judgement(Summary):
    decision: GateDecision
    requested_by: AuthorityContext | None = None


class Step(Summary):
    reason: Reason | None = None


class Report(Model):
    """What a joining candidate said that the incident does not say already; kept for whoever asks later, moves nothing."""

    severity: LaxSeverity | None = None
    title: Title | None = None
    description: Description | None = None
    links: Links | None = None
    tags: Data | None = None


class Attachment(Summary):
    """`policies`: those its candidates came under, where that is not the incident's own alone; `moreReports`: where several
    candidates that said different things were folded into one event.
    """

    observation: Observation | None = None
    evidence: EvidenceItems | None = None
    report: Report | None = None
    more_reports: tuple[Report, ...] | None = None
    policies: tuple[Slug, ...] | None = None
    correlation: Correlation | None = None


class SeverityShift(Summary):
    previous_severity: LaxSeverity
    reason: Reason | None = None


class Comment(Summary):
    note: Note


class Relationship(Summary):
    relation: Annotated[Relation, Field(strict=False)]
    target: Uuid


class IncidentCreated(Model):
    event_type: Literal[EventType.INCIDENT_CREATED] = EventType.INCIDENT_CREATED
    metadata: Creation


class PromotionDecided(Model):
    event_type: Literal[EventType.PROMOTION_DECIDED] = EventType.PROMOTION_DECIDED
    metadata: Judgement


class IncidentOpened(Model):
    event_type: Literal[EventType.INCIDENT_OPENED] = EventType.INCIDENT_OPENED
    metadata: Judgement


class MitigationStarted(Model):
    event_type: Literal[EventType.MITIGATION_STARTED] = EventType.MITIGATION_STARTED
    metadata: Step


class IncidentResolved(Model):
    event_type: Literal[EventType.INCIDENT_RESOLVED] = EventType.INCIDENT_RESOLVED
    metadata: Step


class IncidentClosed(Model):
    event_type: Literal[EventType.INCIDENT_CLOSED] = EventType.INCIDENT_CLOSED
    metadata: Step


class IncidentCancelled(Model):
    event_type: Literal[EventType.INCIDENT_CANCELLED] = EventType.INCIDENT_CANCELLED
    metadata: Step


class IncidentArchived(Model):
    event_type: Literal[EventType.INCIDENT_ARCHIVED] = EventType.INCIDENT_ARCHIVED
    metadata: Step


class EvidenceAttached(Model):
    event_type: Literal[EventType.EVIDENCE_ATTACHED] = EventType.EVIDENCE_ATTACHED
    metadata: Attachment


class SeverityChanged(Model):
    event_type: Literal[EventType.SEVERITY_CHANGED] = EventType.SEVERITY_CHANGED
    metadata: SeverityShift


class NoteAdded(Model):
    event_type: Literal[EventType.NOTE_ADDED] = EventType.NOTE_ADDED
    metadata: Comment


class IncidentLinked(Model):
    event_type: Literal[EventType.INCIDENT_LINKED] = EventType.INCIDENT_LINKED
    metadata: Relationship


StepTaken = MitigationStarted | IncidentResolved | IncidentClosed | IncidentCancelled | IncidentArchived
Fact = Annotated[
    IncidentCreated
    | PromotionDecided
    | IncidentOpened
    | MitigationStarted
    | IncidentResolved
    | IncidentClosed
    | IncidentCancelled
    | IncidentArchived
    | EvidenceAttached
    | SeverityChanged
    | NoteAdded
    | IncidentLinked,
    Field(discriminator="event_type"),
]
FACT: TypeAdapter[Fact] = TypeAdapter(Fact)

STEPS: dict[EventType, type[StepTaken]] = {
    EventType.MITIGATION_STARTED: MitigationStarted,
    EventType.INCIDENT_RESOLVED: IncidentResolved,
    EventType.INCIDENT_CLOSED: IncidentClosed,
    EventType.INCIDENT_CANCELLED: IncidentCancelled,
    EventType.INCIDENT_ARCHIVED: IncidentArchived,
}
