"""Decide what candidates of one key do: begin an occurrence, join the one there is, or nothing. Pure, like `decisions`.

Candidates that came together are decided together: each of the same reporter and kind becomes part of one evidence event.
Whatever order they come in, alone or together, the incidents, their states and severities are the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.base import EVENT_BYTES_MAX, EVIDENCE_MAX
from pipeline.domain.candidates import Candidate
from pipeline.domain.canonical import canonical_bytes
from pipeline.domain.controls import PinnedControls
from pipeline.domain.decisions import NOTHING_OPEN, Accepted, Decision, Gate, Three, judged, shifted, summary_of
from pipeline.domain.envelope import Change
from pipeline.domain.errors import Refusal
from pipeline.domain.events import (
    REPORTS_TROUBLE,
    Attachment,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentCreated,
    Observation,
    ObservationKind,
    Report,
)
from pipeline.domain.incidents import Accumulation, Incident, accumulate, first_accumulation
from pipeline.domain.promotion import PinnedPolicy
from pipeline.domain.transitions import HOLDS_KEY, UNPROMOTED, Severity, State, more_severe

# One transaction takes a hundred items: a receipt each, and what else a decision writes.
TOGETHER_MAX: Final = 90
EVENTS_MAX: Final = 4
# What is folded into one event stays clear of the event's limit, whatever else stands in it.
_FOLDED_BYTES_MAX: Final = EVENT_BYTES_MAX * 3 // 4


@dataclass(frozen=True, slots=True)
class Reported:
    """One candidate, who reported it, and the text that orders it among others seen at the same time (its receipt's id)."""

    candidate: Candidate
    actor: AuthorityContext
    id: str

    @property
    def rank(self) -> tuple[datetime, str]:
        return self.candidate.observation.observed_at, self.id


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is decided, and about which of the candidates; the others are decided on what is there after it."""

    decision: Decision
    about: tuple[Reported, ...]


def decide_candidates(reported: Iterable[Reported], holder: Incident | None, gate: Gate) -> Ruling:
    """Decide on candidates of one key, given the key's newest incident (`holder`); at least one is decided on.

    They join while the incident holds its key, and afterwards where they were observed not later than its ending (a drained
    backlog). Otherwise the next occurrence begins; a backlog that comes after that is evidence on it and moves nothing, as
    it would have moved nothing before. A recovery never begins or moves anything.
    """
    waiting = sorted((_held(one, gate.controls) for one in reported), key=lambda one: one.rank)
    for named in dict.fromkeys(one.candidate.policy_id for one in waiting):
        refusal = gate.policies.newest(named)
        if isinstance(refusal, Refusal):
            return Ruling(refusal, tuple(one for one in waiting if one.candidate.policy_id == named))
    if holder is not None and holder.state in HOLDS_KEY:
        waiting = [_of_the_past(one, holder) for one in waiting]
        joining = tuple(takewhile(lambda one: not _expired(one.candidate, holder, gate), waiting))
        return _join(joining, holder, gate) if joining else _begin(waiting, holder, gate)
    late = [one for one in waiting if _troubles(one) and is_backlog(one.candidate, holder)]
    begins = next((one for one in waiting if _troubles(one) and one not in late), None)
    # A recovery that follows what begins here is evidence on it, as if they had come one by one.
    alone = [one for one in waiting if not _troubles(one) and (begins is None or one.rank < begins.rank)]
    if alone:
        return Ruling(NOTHING_OPEN, tuple(alone[:TOGETHER_MAX]))
    return attach(late, holder) if late and holder is not None else _begin(waiting, holder, gate)


def is_backlog(candidate: Candidate, newest: Incident | None) -> bool:
    """True where a candidate was observed not later than the last ending of its key, whose newest incident is given."""
    ended_at = _key_ended_at(newest)
    return ended_at is not None and candidate.observation.observed_at <= ended_at


def _of_the_past(one: Reported, holder: Incident) -> Reported:
    """Mark a backlog that comes when the key's next incident is already there. A declaration is heard at any time."""
    seen = one.candidate.observation
    if seen.kind is not ObservationKind.FIRING or not is_backlog(one.candidate, holder):
        return one
    return _marked(one, detections=0)


def _marked(one: Reported, **marks: Any) -> Reported:
    seen = one.candidate.observation.model_copy(update=marks)
    return replace(one, candidate=replace(one.candidate, observation=seen))


def attach(reported: Sequence[Reported], holder: Incident) -> Ruling:
    """Attach candidates as evidence and nothing more: to an incident that no longer holds its key."""
    taken, changes = _attached(reported, holder)
    return Ruling(Accepted(changes), taken)


def join(reported: Sequence[Reported], holder: Incident, gate: Gate) -> Ruling:
    """Join candidates to an incident: one that holds its key may rise in severity and be judged again."""
    held = [_held(one, gate.controls) for one in reported]
    return _join(held, holder, gate) if holder.state in HOLDS_KEY else attach(held, holder)


def _held(one: Reported, controls: PinnedControls) -> Reported:
    """Mark what was seen during maintenance. A declaration is somebody's word, and is heard at any time."""
    seen = one.candidate.observation
    if seen.kind is not ObservationKind.FIRING or one.candidate.correlation is not None:
        return one
    window = controls.maintenance(one.candidate.service, seen.observed_at)
    return one if window is None else _marked(one, maintenance=window.id)


def _troubles(one: Reported) -> bool:
    return _reports_trouble(one.candidate)


def _expired(candidate: Candidate, holder: Incident, gate: Gate) -> bool:
    """True where the incident has waited for promotion too long before this was seen: by the most patient policy."""
    if holder.state not in UNPROMOTED or candidate.observation.kind not in REPORTS_TROUBLE:
        return False
    so_far = holder.metadata.promotion
    names = {candidate.policy_id, so_far.policy_id, *(so_far.policies or ())}
    known = [pinned for pinned in map(gate.policies.newest, names) if not isinstance(pinned, Refusal)]
    silence = candidate.observation.observed_at - so_far.newest_observed_at
    return silence > max(pinned.policy.pending_expires for pinned in known)


# --- beginning -------------------------------------------------------------------------------------------------------


def _begin(waiting: Sequence[Reported], predecessor: Incident | None, gate: Gate) -> Ruling:
    """Begin an occurrence with the most severe candidate (of these the earliest); the others join it at once."""
    troubled = [one for one in waiting if _troubles(one)]
    first = _most_severe([one for one in troubled if _counts(one)] or troubled)
    candidate, seen = first.candidate, first.candidate.observation
    policy = _policy_of(candidate, gate)
    occurrence = predecessor.metadata.occurrence + 1 if predecessor else 1
    ended_at = _key_ended_at(predecessor)
    created = IncidentCreated(
        metadata=Creation(
            service=candidate.service,
            severity=candidate.severity,
            title=candidate.title,
            description=candidate.description,
            dedup_key=candidate.dedup_key,
            occurrence=occurrence,
            predecessor=predecessor.incident_id if predecessor else None,
            policy_id=policy.policy.policy_id,
            observation=seen,
            evidence=candidate.evidence or None,
            links=candidate.links or None,
            tags=candidate.tags or None,
            correlation=candidate.correlation,
            key_ended_at=ended_at,
        )
    )
    so_far = first_accumulation(policy.policy.policy_id, seen, first.actor.authority_type, ended_at)
    same_trouble = takewhile(lambda one: not _apart(one, first, policy), (one for one in waiting if one is not first))
    said = _Said(candidate.service, candidate.severity, candidate.title, candidate, candidate.policy_id)
    taken, changes = _fold(tuple(same_trouble), said, State.PENDING, TOGETHER_MAX - 1)
    for one in taken:
        so_far = _counted(so_far, one)
    summary: Three = {"service": candidate.service, "severity": candidate.severity, "title": candidate.title}
    verdict = judged(summary, so_far, first.actor, gate, policy)
    steps = (Change(created, first.actor, State.PENDING), *changes, verdict)
    return Ruling(Accepted(steps, occurrence=occurrence), (first, *taken))


def _apart(one: Reported, first: Reported, policy: PinnedPolicy) -> bool:
    """True where two candidates are too far apart to be one pending incident."""
    between = one.candidate.observation.observed_at - first.candidate.observation.observed_at
    return abs(between) > policy.policy.pending_expires


def _key_ended_at(predecessor: Incident | None) -> datetime | None:
    if predecessor is None:
        return None
    ending = predecessor.metadata.resolution
    return ending.at if ending is not None else predecessor.metadata.promotion.key_ended_at


def _policy_of(candidate: Candidate, gate: Gate) -> PinnedPolicy:
    policy = gate.policies.newest(candidate.policy_id)
    if isinstance(policy, Refusal):
        raise ValueError("a candidate of an unknown policy is refused before")
    return policy


# --- joining ---------------------------------------------------------------------------------------------------------


def _join(reported: Sequence[Reported], holder: Incident, gate: Gate) -> Ruling:
    taken, changes = _attached(reported, holder)
    # An incident of nothing that counts waits for the first that does, and becomes as severe as if it had begun with it.
    empty = holder.state in UNPROMOTED and holder.metadata.promotion.detections == 0
    counting = [one for one in taken if _counts(one)]
    held = [one for one in taken if _troubles(one) and one.candidate.observation.detections > 0] if empty else []
    troubled = counting or held
    if not troubled:
        return Ruling(Accepted(changes), taken)
    steps = list(changes)
    worst = _most_severe(troubled)
    severity = holder.severity
    replaces = empty and bool(counting) and worst.candidate.severity is not severity
    if replaces or more_severe(worst.candidate.severity, severity):
        severity = worst.candidate.severity
        steps.append(shifted(holder, severity, None, worst.actor))
    if holder.state in UNPROMOTED:
        so_far = holder.metadata.promotion
        for one in taken:
            so_far = _counted(so_far, one)
        newest = troubled[-1]
        summary = summary_of(holder) | {"severity": severity}
        steps.append(judged(summary, so_far, newest.actor, gate, _policy_of(newest.candidate, gate)))
    return Ruling(Accepted(tuple(steps)), taken)


def _counts(one: Reported) -> bool:
    """True where it moves something: trouble, seen outside of maintenance and after the key's last ending."""
    seen = one.candidate.observation
    return _troubles(one) and seen.detections > 0 and seen.maintenance is None


def _most_severe(reported: Sequence[Reported]) -> Reported:
    return min(reported, key=lambda one: (one.candidate.severity, *one.rank))


def _counted(so_far: Accumulation, one: Reported) -> Accumulation:
    return accumulate(so_far, one.candidate.observation, one.actor.authority_type, (one.candidate.policy_id,))


def _attached(reported: Sequence[Reported], holder: Incident) -> tuple[tuple[Reported, ...], tuple[Change, ...]]:
    metadata = holder.metadata
    like = Candidate(
        holder.service,
        metadata.dedup_key,
        holder.severity,
        holder.title,
        reported[0].candidate.observation,
        holder.description,
        links=metadata.links or (),
        tags=metadata.tags,
    )
    said = _Said(holder.service, holder.severity, holder.title, like, metadata.promotion.policy_id)
    return _fold(tuple(reported), said, holder.state, TOGETHER_MAX)


# --- folding ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Said:
    """What the incident says already: its summary, the words a report may differ from, and its policy."""

    service: str
    severity: Severity
    title: str
    words: Candidate
    policy_id: str


def _fold(
    reported: tuple[Reported, ...], said: _Said, state: State, members_max: int
) -> tuple[tuple[Reported, ...], tuple[Change, ...]]:
    """Fold candidates into one evidence event for each reporter and kind; return those taken, and the events.

    Taken are as many, in order, as fit: by number, by evidence and size of each event, and by events. The first always is.
    """
    groups: dict[tuple[AuthorityContext, ObservationKind, str | None, bool], list[Reported]] = {}
    sizes: dict[object, tuple[int, int]] = {}
    taken: list[Reported] = []
    for one in reported[:members_max]:
        window = one.candidate.correlation.candidate_id if one.candidate.correlation else None
        key = (one.actor, one.candidate.observation.kind, window, one.candidate.observation.maintenance is not None)
        pieces, size = sizes.get(key, (0, 0))
        pieces, size = pieces + len(one.candidate.evidence), size + _size(one, said)
        full = pieces > EVIDENCE_MAX or size > _FOLDED_BYTES_MAX or (key not in groups and len(groups) == EVENTS_MAX)
        if full and taken:
            break
        sizes[key] = pieces, size
        groups.setdefault(key, []).append(one)
        taken.append(one)
    # The one that holds the latest observation comes last, so that what was last seen is what was seen last.
    in_turn = sorted(groups.values(), key=lambda group: group[-1].rank)
    return tuple(taken), tuple(_evidence_of(group, said, state) for group in in_turn)


def _size(one: Reported, said: _Said) -> int:
    evidence = sum(len(canonical_bytes(item.to_document())) + 1 for item in one.candidate.evidence)
    report = _report(said, one.candidate)
    words = len(canonical_bytes(report.to_document())) if report else 0
    return evidence + words + 4 * len(one.candidate.observation.source) + len(one.candidate.policy_id) + 8


def _evidence_of(group: Sequence[Reported], said: _Said, state: State) -> Change:
    candidates = [one.candidate for one in group]
    reports: list[Report] = []
    for candidate in candidates:
        report = _report(said, candidate)
        if report is not None and report not in reports:
            reports.append(report)
    evidence: tuple[Evidence, ...] = tuple(item for candidate in candidates for item in candidate.evidence)
    counting = [item for item in candidates if _reports_trouble(item) and item.observation.detections > 0]
    under = {candidate.policy_id for candidate in counting}
    attachment = Attachment(
        service=said.service,
        severity=said.severity,
        title=said.title,
        observation=_folded([candidate.observation for candidate in candidates]),
        evidence=evidence or None,
        report=reports[0] if reports else None,
        more_reports=tuple(reports[1:]) or None,
        policies=tuple(sorted(under)) if under - {said.policy_id} else None,
        correlation=candidates[-1].correlation,
    )
    return Change(EvidenceAttached(metadata=attachment), group[0].actor, state)


def _reports_trouble(candidate: Candidate) -> bool:
    return candidate.observation.kind in REPORTS_TROUBLE


def _folded(seen: Sequence[Observation]) -> Observation:
    """Add up observations of one kind, all of them seen during maintenance or none. A backlog adds only its time."""
    if len(seen) == 1:
        return seen[0]
    counting = [one for one in seen if one.detections > 0] or list(seen)
    newest = max(seen, key=lambda one: (one.observed_at, one.source))
    first = min(one.first_observed_at or one.observed_at for one in seen)
    sources = {source for one in seen for source in (one.source, *(one.more_sources or ()))} - {newest.source}
    return Observation(
        kind=newest.kind,
        source=newest.source,
        observed_at=newest.observed_at,
        confidence=max(one.confidence for one in counting),
        detections=sum(one.detections for one in counting),
        first_observed_at=first if first != newest.observed_at else None,
        more_sources=tuple(sorted(sources)) or None,
        age_s=min(one.age_s or 0 for one in counting) or None,
        maintenance=min((one.maintenance for one in counting if one.maintenance is not None), default=None),
    )


def _report(said: _Said, candidate: Candidate) -> Report | None:
    words = said.words
    found = Report(
        severity=candidate.severity if candidate.severity is not words.severity else None,
        title=candidate.title if candidate.title != words.title else None,
        description=candidate.description if candidate.description not in ("", words.description) else None,
        links=candidate.links if candidate.links and candidate.links != words.links else None,
        tags=candidate.tags if candidate.tags and candidate.tags != words.tags else None,
    )
    return found if found.model_dump(exclude_none=True) else None
