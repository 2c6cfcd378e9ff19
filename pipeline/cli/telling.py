"""Incidents and events in words: one line for each event, names and values for an incident. Pure.

What is returned still holds text from outside: print it through `terminal`. Rules are not here: who may do what is asked of
`domain.transitions`.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import assert_never

from pipeline.cli.terminal import CommandError
from pipeline.clients.answers import Incident as Answered
from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import read
from pipeline.domain.canonical import Document, normalise
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.errors import MEANINGS, Code, Rejected
from pipeline.domain.events import (
    Attachment,
    EvidenceAttached,
    IncidentArchived,
    IncidentCancelled,
    IncidentClosed,
    IncidentCreated,
    IncidentLinked,
    IncidentOpened,
    IncidentResolved,
    Judgement,
    MitigationStarted,
    NoteAdded,
    PromotionDecided,
    SeverityChanged,
)
from pipeline.domain.incidents import INCIDENT, Incident
from pipeline.domain.transitions import Transition

SHORT: int = 8
# The commands that lead to a state; the gate opens, if it is asked to.
VERBS: dict[str, tuple[str, ...]] = {
    "OPEN": ("promote", "dismiss"),
    "MITIGATING": ("mitigate",),
    "RESOLVED": ("resolve",),
    "CLOSED": ("close",),
    "CANCELLED": ("cancel",),
}
NAMED_EVIDENCE_MAX: int = 2
_FIELD = re.compile(r"[A-Za-z][\w.]*")


def short(identity: str) -> str:
    """Return the beginning of an id, which commands accept in its place while it is unique."""
    return identity[:SHORT]


def clock_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def short_time(moment: datetime) -> str:
    return moment.strftime("%m-%d %H:%M")


def actor_of(actor: AuthorityContext, *, speaker: bool = True) -> str:
    """Return who acted: authority, name, and (with `speaker`) who spoke for them."""
    spoken_for = f" via {actor.asserted_by}" if actor.asserted_by and speaker else ""
    return f"{actor.authority_type} {actor.actor_id}{spoken_for}"


def read_event(document: Document) -> IncidentEvent | None:
    """Return a stored event, or None where this version of opx can't read it."""
    try:
        return IncidentEvent.from_document(document)
    except Rejected:
        return None


def told(event: IncidentEvent, *, brief: bool = False) -> str:
    """Return what happened, in one line; `brief` counts what others would name."""
    fact = event.fact
    match fact:
        case IncidentCreated(metadata=creation):
            seen = creation.observation
            return f"{creation.title} · {creation.severity}, confidence {seen.confidence}, {seen.kind} from {seen.source}"
        case PromotionDecided(metadata=judgement) | IncidentOpened(metadata=judgement):
            return _judged(judgement)
        case (
            MitigationStarted(metadata=step)
            | IncidentResolved(metadata=step)
            | IncidentClosed(metadata=step)
            | IncidentCancelled(metadata=step)
            | IncidentArchived(metadata=step)
        ):
            return f"{event.previous_state} → {event.new_state}" + (f": {step.reason}" if step.reason else "")
        case EvidenceAttached(metadata=attachment):
            return _attached(attachment, brief=brief)
        case SeverityChanged(metadata=shift):
            return f"{shift.previous_severity} → {shift.severity}" + (f": {shift.reason}" if shift.reason else "")
        case NoteAdded(metadata=remark):
            return remark.note
        case IncidentLinked(metadata=relationship):
            return f"{relationship.relation} {relationship.target}"
        case _:
            assert_never(fact)


def _judged(judgement: Judgement) -> str:
    decision = judgement.decision
    by = f" for {actor_of(judgement.requested_by)}" if judgement.requested_by else ""
    because = f", not enough {decision.rule}" if decision.rule else ""
    return f"{decision.outcome} under policy {decision.policy_id} v{decision.policy_version}{because}{by}"


def _attached(attachment: Attachment, *, brief: bool) -> str:
    items = attachment.evidence or ()
    seen = attachment.observation
    observed = f"{seen.kind} from {seen.source}" if seen else ""
    if brief and observed and items:
        return f"{observed} · {len(items)} items" if len(items) > 1 else observed
    named = ", ".join(f"{item.kind} {item.ref}" for item in items[:NAMED_EVIDENCE_MAX])
    more = f" and {len(items) - NAMED_EVIDENCE_MAX} more" if len(items) > NAMED_EVIDENCE_MAX else ""
    return " · ".join(part for part in (observed, named + more) if part)


def refusal_line(code: str, sentence: str) -> str:
    """Return a refusal for a person: its code, what was wrong, and the field; what to do next is said elsewhere."""
    advice = MEANINGS[Code(code)].advice if code in MEANINGS else ""
    field, separator, detail = sentence.removesuffix(advice).strip().partition(": ")
    if not separator or _FIELD.fullmatch(field) is None:
        return f"{code}: {sentence.removesuffix(advice).strip()}"
    where = "" if field.lower() in detail.lower() else f" ({field})"
    return f"{code}: {detail.removesuffix('.')}{where}."


def incident_facts(incident: Incident) -> list[tuple[str, str]]:
    """Return an incident's row as names and values, the most important first."""
    meta = incident.metadata
    evidence = f"{meta.evidence.count}" + (f" (newest: {', '.join(meta.evidence.newest)})" if meta.evidence.newest else "")
    facts = [
        ("service", incident.service),
        ("title", incident.title),
        ("description", incident.description),
        ("key", f"{meta.dedup_key} (occurrence {meta.occurrence})"),
        ("created", f"{clock_time(incident.created_at)} UTC"),
        ("updated", f"{clock_time(incident.updated_at)} UTC"),
        ("last decided by", actor_of(incident.authority)),
        ("evidence", evidence),
        ("detections", f"{meta.promotion.detections}, newest {clock_time(meta.promotion.newest_observed_at)} UTC"),
        ("promotion", _promotion(incident)),
        ("resolution", _ending(incident)),
        ("predecessor", meta.predecessor or ""),
        ("links", ", ".join(f"{link.rel} {link.href}" for link in meta.links or ())),
        ("related", ", ".join(f"{item.relation} {item.target}" for item in meta.related or ())),
        ("version", f"{incident.version} (control version {incident.control_version})"),
    ]
    return [(name, value) for name, value in facts if value]


def _promotion(incident: Incident) -> str:
    """Return the gate's last word while it still counts. By which policy it was is in the timeline: a person's differs."""
    promotion = incident.metadata.promotion
    policy = f"candidates are judged by policy {promotion.policy_id}"
    over = incident.metadata.resolution is not None
    return policy if over else f"{promotion.outcome or 'not judged'}; {policy}"


def _ending(incident: Incident) -> str:
    ending = incident.metadata.resolution
    if ending is None:
        return ""
    return f"{clock_time(ending.at)} UTC" + (f": {ending.reason}" if ending.reason else "")


def who_may(row: Transition) -> str:
    return " or ".join(sorted(row.authorities))


def steps_of(incident: Answered) -> list[str]:
    """Return what the reader can do to the incident now, behind `opx`."""
    identity, steps = short(incident.incident_id), []
    for row in incident.allowed_transitions:
        reason = " --reason TEXT" if row.needs_reason or row.by == "request-promotion" else ""
        steps += [f"{verb} {identity}{reason}" for verb in VERBS.get(row.to, ()) if row.you_may]
    return steps


def read_incident(incident: Answered) -> Incident:
    """Return an incident as the domain knows it; raise where a newer opx says it in a form that is not known here."""
    told = {name: value for name, value in incident.document.items() if name not in ("allowedTransitions", "asOf")}
    try:
        return read(INCIDENT, normalise(told))
    except Rejected as error:
        message = f"Incident {incident.incident_id} has a form this opx doesn't know: {error.refusal.detail}"
        raise CommandError(message, "the same command with --json") from None


def matches(incidents: Iterable[Incident], prefix: str) -> list[Incident]:
    """Return the incidents whose id begins with `prefix`."""
    return [incident for incident in incidents if incident.incident_id.startswith(prefix)]
