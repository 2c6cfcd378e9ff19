"""What another policy would have decided on recorded inputs: a fold over decisions, in any order. Pure.

Each recorded decision is judged again under the policy on trial; an incident opens with the first that promotes. What comes
after an incident has opened was never judged, so what was not recorded is counted and told, never guessed.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from pipeline.domain.canonical import Document, format_time
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.errors import Rejected
from pipeline.domain.events import IncidentOpened, Judgement, PromotionDecided
from pipeline.domain.explanation import failure, promotes
from pipeline.domain.promotion import (
    DEFAULT_POLICY,
    DISMISSED_POLICY,
    GateDecision,
    PinnedPolicy,
    Policies,
    Verdict,
    judge,
)
from pipeline.domain.transitions import EventType

_DECISIONS: Final = frozenset({EventType.PROMOTION_DECIDED.value, EventType.INCIDENT_OPENED.value})


class Turn(StrEnum):
    """How an incident would have gone otherwise."""

    HELD = "held"
    OPENS = "opens"
    EARLIER = "opens earlier"
    LATER = "opens later"
    REASON = "waits for another reason"


@dataclass(frozen=True, slots=True)
class Moment:
    """One decision, in few words: when, and by which condition (empty: it promoted)."""

    sequence: int
    at: datetime
    condition: str = ""
    why: str = ""


@dataclass(slots=True)
class Course:
    """One incident's decisions: when it opened, when it would have, and what was said last (or held it) where it did not."""

    incident_id: str
    service: str
    title: str
    opened: Moment | None = None
    would_open: Moment | None = None
    # Opened by a policy that is not on trial, as a declaration or a dismissal is.
    other: Moment | None = None
    last: Moment | None = None
    would_last: Moment | None = None
    held: Moment | None = None

    @property
    def turn(self) -> Turn | None:
        """How it would have gone otherwise, or None where nothing changes."""
        was, would = _first(self.opened, self.other), _first(self.would_open, self.other)
        if was is None and would is None:
            conditions = {one.condition for one in (self.last, self.would_last) if one is not None}
            return Turn.REASON if len(conditions) > 1 else None
        if would is None:
            return Turn.HELD
        if was is None:
            return Turn.OPENS
        if would.sequence == was.sequence:
            return None
        return Turn.EARLIER if would.sequence < was.sequence else Turn.LATER

    @property
    def why(self) -> str:
        """The condition that makes the difference."""
        match self.turn:
            case Turn.HELD | Turn.LATER:
                return self.held.why if self.held is not None else ""
            case Turn.REASON:
                return self.would_last.why if self.would_last is not None else ""
            case _:
                was = self.last.condition if self.last is not None else ""
                return f"{was} no longer in the way" if was else ""

    def to_document(self) -> Document:
        was, would = _first(self.opened, self.other), _first(self.would_open, self.other)
        document: Document = {"kind": "change", "incidentId": self.incident_id, "service": self.service}
        document |= {"change": str(self.turn), "why": self.why}
        document |= {"openedAt": format_time(was.at), "openedBy": was.sequence} if was is not None else {}
        return document | ({"wouldOpenAt": format_time(would.at), "wouldOpenBy": would.sequence} if would else {})


def _first(*moments: Moment | None) -> Moment | None:
    return min((one for one in moments if one is not None), key=lambda one: one.sequence, default=None)


@dataclass(slots=True)
class PolicyTrial:
    """A policy on trial over recorded history. `instead_of` is the policy whose decisions it would have made."""

    pinned: PinnedPolicy
    instead_of: str
    decisions: int = 0
    events: int = 0
    unread: int = 0
    # Decided before the live controls were asked: what they said then is not recorded.
    without_controls: int = 0
    others: Counter[str] = field(default_factory=Counter)
    courses: dict[str, Course] = field(default_factory=dict)

    def see(self, document: Document) -> None:
        """Take one stored event, of any kind; in any order."""
        self.events += 1
        if document.get("eventType") not in _DECISIONS:
            return
        try:
            event = IncidentEvent.from_document({name: value for name, value in document.items() if name != "replayed"})
        except Rejected:
            self.unread += 1
            return
        if isinstance(event.fact, IncidentOpened | PromotionDecided):
            self._decision(event, event.fact.metadata)

    def _decision(self, event: IncidentEvent, judgement: Judgement) -> None:
        decision = judgement.decision
        known = self.courses.get(event.incident_id)
        if known is None:
            known = Course(event.incident_id, judgement.service, judgement.title)
            self.courses[event.incident_id] = known
        at = Moment(event.sequence, event.timestamp)
        if decision.policy_id != self.instead_of:
            self.others[decision.policy_id] += 1
            if promotes(decision):
                known.other = _first(known.other, at)
            return
        self.decisions += 1
        self.without_controls += decision.inputs.controls is None and decision.policy_id != DISMISSED_POLICY
        again, trace = judge(self.pinned, decision.inputs)
        failed = next((check for check in trace if check.verdict is Verdict.FAILED), None)
        why = "" if failed is None else failure(failed, self.pinned.policy)
        would = Moment(event.sequence, event.timestamp, _condition(again), why)
        was = Moment(event.sequence, event.timestamp, _condition(decision))
        self._place(known, was, would)

    @staticmethod
    def _place(known: Course, was: Moment, would: Moment) -> None:
        if was.condition:
            if known.last is None or was.sequence > known.last.sequence:
                known.last = was
        else:
            known.opened = _first(known.opened, was)
            if would.condition and known.opened is was:
                known.held = would
        if not would.condition:
            known.would_open = _first(known.would_open, would)
        elif known.would_last is None or would.sequence > known.would_last.sequence:
            known.would_last = would

    @property
    def changes(self) -> list[Course]:
        order = list(Turn)
        found = [course for course in self.courses.values() if course.turn is not None]
        return sorted(found, key=lambda one: (order.index(one.turn or Turn.REASON), one.service, one.incident_id))

    @property
    def counts(self) -> Counter[str]:
        return Counter(str(course.turn) for course in self.courses.values() if course.turn is not None)

    def unknown(self) -> list[str]:
        """Return what this trial can't know, in sentences; only what applies to it."""
        counts, policy = self.counts, self.pinned.policy
        said = []
        if held := counts[Turn.HELD] + counts[Turn.LATER]:
            which = "this one" if held == 1 else f"these {held}"
            said.append(
                f"Once an incident is open the gate is not asked again: whether later reports would have opened {which} "
                "is not recorded."
            )
        if policy.cooldown_s is not None and counts:
            said.append("Cooldowns are counted from when incidents really ended, not from when they would have.")
        if self.without_controls:
            missing = " and perhaps without age and last ending" if policy.maximum_age_s or policy.cooldown_s else ""
            said.append(
                f"{self.without_controls} decisions were recorded without the live controls{missing}: taken as not paused."
            )
        if self.unread:
            said.append(f"{self.unread} events can't be read by this version of opx and are left out.")
        return said


def _condition(decision: GateDecision) -> str:
    if promotes(decision):
        return ""
    return decision.rule.value if decision.rule is not None else decision.outcome.value


def replaced(policy_id: str, known: Policies) -> str:
    """Return whose decisions a policy would have made: its own earlier versions', else the default policy's."""
    return policy_id if any(name == policy_id for name, _ in known.pinned) else DEFAULT_POLICY
