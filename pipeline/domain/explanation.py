"""Why the gate said what it said: recorded decisions judged again from their events, and policies in plain words. Pure.

A stored decision holds its inputs and its policy's digest; the trace is not stored, it is computed again here. Where what
comes out is not what was recorded, `Recorded.problem` says so. The conditions themselves are in `promotion`.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.events import (
    Correlation,
    EvidenceAttached,
    IncidentCreated,
    IncidentOpened,
    Observation,
    PromotionDecided,
)
from pipeline.domain.promotion import (
    Check,
    Condition,
    GateDecision,
    Outcome,
    PinnedPolicy,
    Policies,
    Policy,
    Verdict,
    judge,
)
from pipeline.domain.rules import MOST_SEVERE, Rule
from pipeline.domain.transitions import AuthorityType, Severity

_SECONDS: Final = re.compile(r"\b(\d+) s\b")
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded decision, judged again. `pinned` is None where the very policy is not among those known here."""

    incident_id: str
    sequence: int
    at: datetime
    decision: GateDecision
    service: str
    severity: Severity
    requested_by: AuthorityContext | None
    observation: Observation | None
    correlation: Correlation | None
    pinned: PinnedPolicy | None
    again: GateDecision | None
    trace: tuple[Check, ...]
    # Another file stands here under the policy's id and version.
    other_file: bool = False

    @property
    def policy(self) -> str:
        return f"{self.decision.policy_id} v{self.decision.policy_version}"

    @property
    def deciding(self) -> Check | None:
        """The condition that failed first; None where nothing did, or the trace can't be computed."""
        return next((check for check in self.trace if check.verdict is Verdict.FAILED), None)

    @property
    def waived(self) -> tuple[Check, ...]:
        return tuple(check for check in self.trace if check.verdict is Verdict.WAIVED)

    @property
    def problem(self) -> str | None:
        """What is wrong with the record, or None where judging again gives exactly what was recorded."""
        if self.pinned is None:
            here = (
                "another file stands here under that name"
                if self.other_file
                else "that version is not among those known here"
            )
            return f"Policy {self.policy} (digest {self.decision.policy_digest[:12]}) can't be judged again: {here}."
        if self.again == self.decision:
            return None
        again = "nothing" if self.again is None else _outcome(self.again)
        return f"The record says {_outcome(self.decision)}; judged again from its inputs it is {again}."


def _outcome(decision: GateDecision) -> str:
    return decision.outcome.value + (f" by {decision.rule.value}" if decision.rule is not None else "")


def recorded(events: Iterable[IncidentEvent], policies: Policies) -> Iterator[Recorded]:
    """Yield each decision in an incident's history, in order, judged again; with what had last been reported by then."""
    observation: Observation | None = None
    correlation: Correlation | None = None
    for event in events:
        match event.fact:
            case IncidentCreated(metadata=creation):
                observation, correlation = creation.observation, creation.correlation
            case EvidenceAttached(metadata=attachment) if attachment.observation is not None:
                observation, correlation = attachment.observation, attachment.correlation
            case PromotionDecided(metadata=judgement) | IncidentOpened(metadata=judgement):
                decision = judgement.decision
                pinned = policies.recorded(decision)
                again, trace = judge(pinned, decision.inputs) if pinned is not None else (None, ())
                yield Recorded(
                    incident_id=event.incident_id,
                    sequence=event.sequence,
                    at=event.timestamp,
                    decision=decision,
                    service=judgement.service,
                    severity=judgement.severity,
                    requested_by=judgement.requested_by,
                    observation=observation,
                    correlation=correlation,
                    pinned=pinned,
                    again=again,
                    trace=trace,
                    other_file=pinned is None and (decision.policy_id, decision.policy_version) in policies.pinned,
                )
            case _:
                continue


def reason(one: Recorded) -> str:
    """Return in one line what decided: the condition that failed, or that all held (and what a person waived)."""
    failed, rule = one.deciding, one.decision.rule
    if failed is not None and one.pinned is not None:
        return failure(failed, one.pinned.policy)
    if rule is not None:
        return rule.value
    if one.waived:
        return f"a person waived {' and '.join(check.condition.value for check in one.waived)}"
    inputs = one.decision.inputs
    seen = "1 detection" if inputs.detections == 1 else f"{inputs.detections} detections"
    return f"{inputs.severity}, confidence {inputs.confidence}, {seen}"


def failure(check: Check, policy: Policy) -> str:
    """Return in a few words why a condition of `policy` failed: what it saw, and what it wanted."""
    saw = spoken(check.saw)
    match check.condition:
        case Condition.KILL_SWITCH:
            said = saw
        case Condition.MAINTENANCE:
            said = f"seen {saw}"
        case Condition.COOLDOWN:
            wanted = span_of_time(policy.cooldown_s or 0)
            said = f"observed {saw.removesuffix(' it')} the last ending, at least {wanted} wanted"
        case Condition.AGE:
            said = f"{saw} old when sent, at most {span_of_time(policy.maximum_age_s or 0)} wanted"
        case _:
            said = f"{saw}, wanted {spoken(check.wanted)}"
    return f"{check.condition.value}: {said}"


def spoken(text: str) -> str:
    """Return a check's text with its seconds as people say them: 1800 s is 30 min."""
    return _SECONDS.sub(lambda found: span_of_time(int(found[1])), text)


def span_of_time(seconds: int) -> str:
    """Return a length of time in its two largest units: 5400 is 1 h 30 min."""
    parts = []
    for size, unit in _UNITS:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


# --- a policy in plain words -----------------------------------------------------------------------------------------


def policy_in_words(policy: Policy) -> tuple[tuple[Condition, str], ...]:
    """Return what each condition of a policy means, in the order in which the gate looks."""
    said = {
        Condition.KILL_SWITCH: "nothing opens while the service, or everything, is paused",
        Condition.AUTHORITY: _authority_in_words(policy),
        Condition.MAINTENANCE: "something must have been observed outside of maintenance windows",
        Condition.COOLDOWN: "may open again right after the key's last incident ended"
        if policy.cooldown_s is None
        else f"observed {span_of_time(policy.cooldown_s)} or more after the key's last incident ended",
        Condition.AGE: "may have been of any age when it was sent"
        if policy.maximum_age_s is None
        else f"the freshest observation was at most {span_of_time(policy.maximum_age_s)} old when it was sent",
        Condition.SEVERITY: "of any severity"
        if set(policy.allowed_severities) == set(Severity)
        else f"only {_either(policy.allowed_severities)}",
        Condition.CONFIDENCE: "of any confidence"
        if policy.minimum_confidence == 0
        else f"confidence of {policy.minimum_confidence} or more, the highest reported",
        Condition.DETECTIONS: "one detection is enough"
        if policy.minimum_detections == 1
        else f"{policy.minimum_detections} detections or more, all reports of the incident together",
    }
    waivable = " (a person's request overrides it)"
    return tuple(
        (condition, said[condition] + (waivable if condition in policy.human_may_waive else "")) for condition in Condition
    )


def _authority_in_words(policy: Policy) -> str:
    said = _reported_by(policy.allowed_authority_types)
    for severity, kinds in sorted((policy.severity_authority_types or {}).items()):
        said += f"; {severity}: {_reported_by(kinds)}"
    return said


def _reported_by(kinds: Iterable[AuthorityType]) -> str:
    found = sorted(set(kinds))
    if len(found) == len(AuthorityType):
        return "reported by anybody"
    return "only what a person reports or asks for" if found == [AuthorityType.HUMAN] else "only what programs report"


def _either(names: Iterable[str]) -> str:
    found = sorted(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def policy_in_short(policy: Policy) -> str:
    """Return a policy in one line: the conditions that ask for something."""
    asks = {
        _reported_by(policy.allowed_authority_types): set(policy.allowed_authority_types) != set(AuthorityType),
        "more authority by severity": policy.severity_authority_types is not None,
        f"cooldown {span_of_time(policy.cooldown_s or 0)}": policy.cooldown_s is not None,
        f"at most {span_of_time(policy.maximum_age_s or 0)} old": policy.maximum_age_s is not None,
        _either(policy.allowed_severities): set(policy.allowed_severities) != set(Severity),
        f"confidence {policy.minimum_confidence}": policy.minimum_confidence > 0,
        f"{policy.minimum_detections} detections": policy.minimum_detections > 1,
    }
    return ", ".join(text for text, asked in asks.items() if asked) or "everything"


def rule_in_short(rule: Rule) -> str:
    """Return a rule in one line: what it counts, how, and what comes of it."""
    match = rule.match
    kinds = "detections" if match.signal_types == ("*",) else " and ".join(match.signal_types)
    where = [] if match.services == ("*",) else [f"of {', '.join(match.services)}"]
    where += [] if match.sources == ("*",) else [f"from {', '.join(match.sources)}"]
    where += [] if set(match.severities) == set(Severity) else [f"of {_either(match.severities)}"]
    least = rule.threshold.minimum_severity
    worst = "" if least is Severity.SEV4 else f", one of them {least} or worse"
    severity = "the most severe counted" if rule.severity == MOST_SEVERE else rule.severity
    counted = " ".join([f"{rule.threshold.detections} {kinds}", *where])
    return (
        f"{counted} in {span_of_time(rule.window_s)} per {', '.join(rule.group_by)}{worst}: "
        f"{severity}, policy {rule.policy_id}" + ("" if rule.enabled else " (switched off)")
    )


def released(policies: Policies, pinned: PinnedPolicy) -> str | None:
    """Return why a policy file may not be put in force beside those that are known, or None where it may."""
    policy = pinned.policy
    known = policies.pinned.get((policy.policy_id, policy.version))
    if known is None or known.digest == pinned.digest:
        return None
    return f"{policy.policy_id} v{policy.version} is released with other content, and a released version never changes."


def promotes(decision: GateDecision) -> bool:
    return decision.outcome is Outcome.PROMOTE
