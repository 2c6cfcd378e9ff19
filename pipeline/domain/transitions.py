"""The state machine and who may move it: one table, frozen by a digest test. Nowhere else is a state compared to permit.

Changing a row is an architectural decision (ARCHITECTURE.md): every stored history was made under this table.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class State(StrEnum):
    PENDING = "PENDING"
    OPEN = "OPEN"
    MITIGATING = "MITIGATING"
    RESOLVED = "RESOLVED"
    CLOSED = "CLOSED"
    CANCELLED = "CANCELLED"
    ARCHIVED = "ARCHIVED"


class Severity(StrEnum):
    """SEV1 is the most severe."""

    SEV1 = "SEV1"
    SEV2 = "SEV2"
    SEV3 = "SEV3"
    SEV4 = "SEV4"


class AuthorityType(StrEnum):
    HUMAN = "HUMAN"
    SYSTEM = "SYSTEM"


class EventType(StrEnum):
    INCIDENT_CREATED = "IncidentCreated"
    PROMOTION_DECIDED = "PromotionDecided"
    INCIDENT_OPENED = "IncidentOpened"
    MITIGATION_STARTED = "MitigationStarted"
    INCIDENT_RESOLVED = "IncidentResolved"
    INCIDENT_CLOSED = "IncidentClosed"
    INCIDENT_CANCELLED = "IncidentCancelled"
    INCIDENT_ARCHIVED = "IncidentArchived"
    EVIDENCE_ATTACHED = "EvidenceAttached"
    SEVERITY_CHANGED = "SeverityChanged"
    NOTE_ADDED = "NoteAdded"
    INCIDENT_LINKED = "IncidentLinked"


class Transition(NamedTuple):
    source: State
    target: State
    trigger: str
    authorities: frozenset[AuthorityType]
    event_type: EventType
    needs_reason: bool


_HUMAN: Final = frozenset({AuthorityType.HUMAN})
_SYSTEM: Final = frozenset({AuthorityType.SYSTEM})
_EITHER: Final = _HUMAN | _SYSTEM

# fmt: off
TRANSITIONS: Final[tuple[Transition, ...]] = (
    Transition(State.PENDING,    State.OPEN,       "promotion approved",   _SYSTEM, EventType.INCIDENT_OPENED,    False),
    Transition(State.OPEN,       State.MITIGATING, "mitigation started",   _EITHER, EventType.MITIGATION_STARTED, False),
    Transition(State.MITIGATING, State.RESOLVED,   "issue resolved",       _HUMAN,  EventType.INCIDENT_RESOLVED,  True),
    Transition(State.RESOLVED,   State.CLOSED,     "post-mortem complete", _HUMAN,  EventType.INCIDENT_CLOSED,    True),
    Transition(State.OPEN,       State.CANCELLED,  "false positive",       _HUMAN,  EventType.INCIDENT_CANCELLED, True),
    Transition(State.CLOSED,     State.ARCHIVED,   "retention policy",     _SYSTEM, EventType.INCIDENT_ARCHIVED,  False),
)
# fmt: on

# States whose incident holds its key: further candidates of the key join it.
HOLDS_KEY: Final = frozenset({State.PENDING, State.OPEN, State.MITIGATING})
# States in which severity may still change.
SEVERITY_MUTABLE: Final = frozenset({State.PENDING, State.OPEN, State.MITIGATING})
# States the gate still judges, and from which a person may request promotion or dismiss.
UNPROMOTED: Final = frozenset({State.PENDING})

# Events that leave control with whoever has it: they move `version`, never `controlVersion`.
UNCONTROLLED: Final = frozenset(
    {
        EventType.EVIDENCE_ATTACHED,
        EventType.NOTE_ADDED,
        EventType.INCIDENT_LINKED,
        EventType.PROMOTION_DECIDED,
    }
)


def transition(source: State, target: State) -> Transition | None:
    """Return the one row from `source` to `target`, or None: there is no such transition."""
    return next((row for row in TRANSITIONS if row.source is source and row.target is target), None)


def transitions_from(source: State) -> tuple[Transition, ...]:
    """Return the rows that leave `source`; empty for a terminal state."""
    return tuple(row for row in TRANSITIONS if row.source is source)


def more_severe(one: Severity, other: Severity) -> bool:
    """True where `one` is strictly more severe than `other`."""
    return one.value < other.value
