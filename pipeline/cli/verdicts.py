"""Why an incident is open or waits, in the words of whoever is woken by it. Pure: says what the recorded decisions say.

What is returned still holds text from outside: print it through `terminal`. Judging again is in `domain.explanation`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from pipeline.cli.controls import named
from pipeline.cli.telling import actor_of, clock_time, short_time
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.controls import Controls, KillSwitch, MaintenanceWindow, PinnedControls
from pipeline.domain.explanation import Recorded, promotes, reason, span_of_time
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import DISMISSED_POLICY, Check, Condition, GateInputs, Policy, Verdict
from pipeline.domain.transitions import UNPROMOTED

# Where the newest decision differs from the row: another one was taken between the two reads.
NOT_JUDGED: Final = "not judged yet"


def deciding(incident: Incident, decisions: Sequence[Recorded]) -> Recorded | None:
    """Return the decision that made the incident what it is: the one that opened it, else the last that held it."""
    opened = next((one for one in decisions if promotes(one.decision)), None)
    return opened or (decisions[-1] if decisions else None)


def headline(incident: Incident, decisions: Sequence[Recorded]) -> str:
    """Return in one sentence what state the incident is in, and by which policy and input."""
    one = deciding(incident, decisions)
    if one is None:
        return f"{incident.state}: {NOT_JUDGED}"
    if not promotes(one.decision):
        return f"{incident.state}: held by {one.policy}: {reason(one)}"
    if one.decision.policy_id == DISMISSED_POLICY:
        return f"{incident.state}: dismissed by {_who(one)} at {clock_time(one.at)} UTC"
    asked = (
        f" at the request of {_who(one)}" if one.requested_by is not None and one.decision.inputs.requested_by_human else ""
    )
    because = f"promoted{asked} by {one.policy}: {reason(one)}"
    ending = incident.metadata.resolution
    if ending is not None:
        return f"{incident.state} (ended {clock_time(ending.at)} UTC): opened {clock_time(one.at)}, {because}"
    return f"{incident.state} since {clock_time(one.at)} UTC: {because}"


def _who(one: Recorded) -> str:
    return actor_of(one.requested_by) if one.requested_by is not None else "somebody"


def reported(one: Recorded) -> list[tuple[str, str]]:
    """Return what the decision was about: the report before it, and the rule that counted, as names and values."""
    facts = []
    if (seen := one.observation) is not None:
        more = f" and {len(seen.more_sources)} more" if seen.more_sources else ""
        facts.append(("input", f"{seen.kind} from {seen.source}{more}, seen {clock_time(seen.observed_at)} UTC"))
    if (found := one.correlation) is not None:
        span = f"{clock_time(found.window_start)} to {_until(found.window_start, found.window_end)}"
        facts.append(("rule", f"{found.rule_id} v{found.rule_version}: {found.detections} counted in {span} UTC"))
    elif one.observation is not None:
        facts.append(("rule", "none: it came as a candidate"))
    facts.append(("policy", f"{one.policy}, digest {one.decision.policy_digest[:12]}"))
    return facts


def _until(start: datetime, end: datetime) -> str:
    return end.strftime("%H:%M:%S") if start.date() == end.date() else clock_time(end)


def would_open(incident: Incident, one: Recorded) -> str | None:
    """Return what would open an incident that waits, by its deciding condition; None where it does not wait."""
    failed = one.deciding
    if incident.state not in UNPROMOTED or failed is None or one.pinned is None:
        return None
    wanted = _wanted(failed.condition, one.pinned.policy, one.decision.inputs)
    others = [check.condition.value for check in one.trace if check.verdict is Verdict.FAILED and check is not failed]
    return wanted + (f"; then {' and '.join(others)} would still be in the way" if others and wanted else "")


def _wanted(failed: Condition, policy: Policy, inputs: GateInputs) -> str:
    match failed:
        case Condition.DETECTIONS:
            missing = policy.minimum_detections - inputs.detections
            return f"{missing} more detection{'s' if missing > 1 else ''}"
        case Condition.COOLDOWN if policy.cooldown_s is not None and inputs.key_ended_at is not None:
            over = inputs.key_ended_at + timedelta(seconds=policy.cooldown_s)
            return f"anything observed from {clock_time(over)} UTC on"
        case Condition.CONFIDENCE:
            return f"a report of confidence {policy.minimum_confidence} or more"
        case Condition.SEVERITY:
            return f"a report of severity {' or '.join(policy.allowed_severities)}"
        case Condition.AGE if policy.maximum_age_s is not None:
            return f"a report sent within {span_of_time(policy.maximum_age_s)} of what it observed"
        case Condition.KILL_SWITCH:
            return "opx resume, and then the key's next report"
        case Condition.MAINTENANCE:
            return "anything observed after the maintenance window"
        case Condition.AUTHORITY:
            return f"a report by {' or '.join(policy.authority_types(inputs.severity))}"
        case _:
            return ""


def doubt(one: Recorded) -> str | None:
    """Return what is wrong with a recorded decision, said so that it is not overlooked; None where it agrees."""
    if one.problem is None:
        return None
    return f"{'DOES NOT AGREE' if one.pinned is not None else 'CAN NOT BE CHECKED'}, event {one.sequence}: {one.problem}"


def person_may(one: Recorded) -> bool:
    """True where a person's request would open what waits: the policy lets them override each condition that failed."""
    failed = [check.condition for check in one.trace if check.verdict is Verdict.FAILED]
    return one.pinned is not None and set(failed) <= set(one.pinned.policy.human_may_waive)


def controls_now(service: str, controls: Controls, now: datetime, met: Recorded | None) -> list[str]:
    """Return what the live controls say of a service now, and what of what a decision met is over."""
    pinned = PinnedControls(controls, "")
    lines = []
    switch, window = pinned.paused(service), pinned.maintenance(service, now)
    if switch is not None:
        lines.append(paused_line(switch))
    elif met is not None and met.decision.inputs.paused is not None:
        lines.append(f"The pause of {named(met.decision.inputs.paused)} is over: the key's next report is judged again.")
    if window is not None:
        lines.append(_maintenance_line(window))
    return lines


def paused_line(switch: KillSwitch) -> str:
    return f"PAUSED now: {named(switch.service)}, by {switch.by} since {short_time(switch.since)}: {switch.reason}"


def _maintenance_line(window: MaintenanceWindow) -> str:
    until = short_time(window.ends_at)
    return f"Maintenance {window.id} now: {named(window.service)}, until {until}, by {window.by}: {window.reason}"


def check_document(check: Check) -> Document:
    return {
        "condition": check.condition.value,
        "wanted": check.wanted,
        "saw": check.saw,
        "verdict": check.verdict.value,
    }


def decision_document(one: Recorded) -> Document:
    """Return one recorded decision for programs: as recorded, and its trace as judged again."""
    document: Document = {
        "sequence": one.sequence,
        "at": format_time(one.at),
        "reason": reason(one),
        "decision": one.decision.to_document(),
        "trace": [check_document(check) for check in one.trace],
        "agrees": one.problem is None,
    }
    document |= {"problem": one.problem} if one.problem else {}
    document |= {"correlation": one.correlation.to_document()} if one.correlation is not None else {}
    return document | ({"requestedBy": one.requested_by.to_document()} if one.requested_by is not None else {})
