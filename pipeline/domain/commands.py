"""Commands on an incident, as queue and API receive them: one tagged union, told apart by `type`.

A command says what somebody wants; whether it happens is decided in `decisions`. A body never says who its sender is.
"""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from pipeline.domain.authority import COMMAND_OPERATIONS, AuthorityClaim
from pipeline.domain.base import (
    Data,
    DedupKey,
    Description,
    IdempotencyKey,
    Model,
    Note,
    Reason,
    SchemaVersion,
    Sequence,
    Service,
    Title,
    Uuid,
)
from pipeline.domain.events import EvidenceItems, Links, Relation
from pipeline.domain.incidents import LaxState
from pipeline.domain.promotion import LaxSeverity


class _Request(Model):
    schema_version: SchemaVersion = 1
    idempotency_key: IdempotencyKey | None = None
    authority: AuthorityClaim | None = None
    reason: Reason | None = None

    @property
    def justification(self) -> str | None:
        """The reason a person gave, in either of its two places."""
        return self.reason or (self.authority.justification if self.authority else None)


class _OnIncident(_Request):
    incident_id: Uuid
    expected_version: Sequence | None = None


class Declare(_Request):
    type: Literal["declare"] = "declare"
    service: Service
    severity: LaxSeverity
    title: Title
    description: Description = ""
    dedup_key: DedupKey | None = None
    evidence: EvidenceItems = ()
    links: Links = ()
    metadata: Data | None = None


class ChangeState(_OnIncident):
    type: Literal["change-state"] = "change-state"
    new_state: LaxState


class AttachEvidence(_OnIncident):
    type: Literal["attach-evidence"] = "attach-evidence"
    evidence: Annotated[EvidenceItems, Field(min_length=1)]


class ChangeSeverity(_OnIncident):
    type: Literal["change-severity"] = "change-severity"
    severity: LaxSeverity


class AddNote(_OnIncident):
    type: Literal["add-note"] = "add-note"
    note: Note


class RequestPromotion(_OnIncident):
    type: Literal["request-promotion"] = "request-promotion"


class Dismiss(_OnIncident):
    type: Literal["dismiss"] = "dismiss"


class LinkIncident(_OnIncident):
    type: Literal["link"] = "link"
    relation: Annotated[Relation, Field(strict=False)]
    target: Uuid


OnIncident = ChangeState | AttachEvidence | ChangeSeverity | AddNote | RequestPromotion | Dismiss | LinkIncident
Command = Annotated[Declare | OnIncident, Field(discriminator="type")]
COMMAND: TypeAdapter[Command] = TypeAdapter(Command)
COMMAND_TYPES = COMMAND_OPERATIONS
