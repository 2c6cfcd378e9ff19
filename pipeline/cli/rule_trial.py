"""What a rule would have made of recorded messages: windows, what reached the threshold, what the gate would have said.

Pure, and the domain's own counting and deciding: what comes out depends on the messages alone, not on their order. Nobody
resolves anything in a trial: an incident that opens stays open.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pipeline.cli.messages import Unread
from pipeline.domain.authority import AuthorityContext
from pipeline.domain.candidates import Detection, Key, Signal
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.correlation import Span, Window, count, first_candidate, later_candidate, reached, span_of
from pipeline.domain.decisions import Accepted, Gate
from pipeline.domain.errors import Refusal
from pipeline.domain.events import REPORTS_TROUBLE, IncidentOpened, PromotionDecided
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.occurrences import Reported, decide_candidates, join
from pipeline.domain.promotion import GateDecision, Outcome, Policies
from pipeline.domain.rules import PinnedRule
from pipeline.domain.transitions import AuthorityType

_REPORTER = AuthorityContext(authority_type=AuthorityType.SYSTEM, principal="trial", actor_id="trial")


@dataclass(slots=True)
class WindowTrial:
    """One group's window: what was counted, when it reached the threshold, and the gate's last word on it.

    `decision` is None before the threshold, and where the incident was open already: then there was nothing to judge.
    """

    span: Span
    window: Window
    reached_at: datetime | None = None
    opened_at: datetime | None = None
    decision: GateDecision | None = None

    @property
    def gate(self) -> str:
        if self.reached_at is None:
            return ""
        if self.decision is None:
            return "joins"
        return self.decision.outcome.value + (f": {self.decision.rule.value}" if self.decision.rule else "")

    def to_document(self) -> Document:
        document: Document = {
            "kind": "window",
            "group": self.span.group,
            "service": self.span.service,
            "dedupKey": self.span.dedup_key,
            "startsAt": format_time(self.span.starts_at),
            "endsAt": format_time(self.span.ends_at),
            "detections": self.window.detections,
            "severity": self.window.severity.value,
            "reached": self.reached_at is not None,
        }
        if self.reached_at is not None:
            document |= {"reachedAt": format_time(self.reached_at), "gate": self.gate}
        return document | ({"opensAt": format_time(self.opened_at)} if self.opened_at is not None else {})


@dataclass(slots=True)
class RuleTrial:
    """What a rule made of a file. `incidents`: by key, as they would stand; `unread` and `unplaced` name the first few."""

    windows: list[WindowTrial] = field(default_factory=list)
    incidents: dict[tuple[str, str], Incident] = field(default_factory=dict)
    messages: int = 0
    counted: int = 0
    copies: int = 0
    unmatched: int = 0
    recoveries: int = 0
    candidates: int = 0
    unread: list[Unread] = field(default_factory=list)

    @property
    def reached(self) -> list[WindowTrial]:
        return [one for one in self.windows if one.reached_at is not None]


def try_rule(pinned: PinnedRule, policies: Policies | None, found: Iterable[tuple[int, Signal] | Unread]) -> RuleTrial:
    """Count what a rule matches, in the order of what was observed; with policies, ask the gate as well."""
    trial = RuleTrial()
    detections: dict[Key, Detection] = {}
    for item in found:
        trial.messages += 1
        if isinstance(item, Unread):
            trial.unread.append(item)
            continue
        number, signal = item
        detection = signal.detection
        if detection is None:
            trial.candidates += 1
        elif not pinned.rule.matches(detection):
            trial.unmatched += 1
        elif detection.kind not in REPORTS_TROUBLE:
            trial.recoveries += 1
        elif signal.key in detections:
            trial.copies += 1
        elif isinstance(span := span_of(pinned, detection), Refusal):
            trial.unread.append(Unread(number, span))
        else:
            detections[signal.key] = detection
    _count(trial, pinned, policies, detections.values())
    return trial


def _count(trial: RuleTrial, pinned: PinnedRule, policies: Policies | None, detections: Iterable[Detection]) -> None:
    windows: dict[str, WindowTrial] = {}
    for detection in sorted(detections, key=lambda one: (one.observed_at, one.id, one.source)):
        span = span_of(pinned, detection)
        if isinstance(span, Refusal):
            continue
        known = windows.get(span.id)
        window = count(span, known.window if known else None, (detection,))
        if known is None:
            known = windows[span.id] = WindowTrial(span, window)
        known.window = window
        trial.counted += 1
        fired = known.reached_at is not None
        if fired or reached(pinned.rule, window):
            if not fired:
                known.reached_at = detection.observed_at
            if policies is not None:
                _ask(trial, known, detection, Gate(policies), fired=fired)
    trial.windows = sorted(windows.values(), key=lambda one: (one.span.dedup_key, one.span.starts_at))


def _ask(trial: RuleTrial, known: WindowTrial, detection: Detection, gate: Gate, *, fired: bool) -> None:
    span = known.span
    key = span.service, span.dedup_key
    holder = trial.incidents.get(key)
    if fired and holder is not None:
        reported = Reported(later_candidate(span, known.window, (detection,)), _REPORTER, detection.id)
        ruling = join((reported,), holder, gate)
    else:
        reported = Reported(first_candidate(span, known.window), _REPORTER, detection.id)
        ruling = decide_candidates((reported,), holder, gate)
    if not isinstance(ruling.decision, Accepted):
        return
    begun = ruling.decision.occurrence
    before = None if begun is not None else holder
    identity = incident_id(*key, begun) if begun is not None else holder.incident_id if holder is not None else ""
    events, trial.incidents[key] = advance(before, identity, ruling.decision.changes, detection.observed_at)
    for event in events:
        if isinstance(event.fact, IncidentOpened | PromotionDecided):
            known.decision = event.fact.metadata.decision
            if known.decision.outcome is Outcome.PROMOTE:
                known.opened_at = detection.observed_at
