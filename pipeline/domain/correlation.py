"""Correlation: rules count raw detections in windows and make candidates of them. Pure; reads no clock.

A window is a span of `observedAt`, aligned to the epoch and half-open: what is seen exactly on an edge belongs to the later
window. A detection counts in its own window however late, early or out of order it comes. What counts is a sum, a maximum
or a minimum, so order leaves no trace. The rules themselves are next door, in `rules`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from string import Formatter
from typing import Any, Final

from pydantic import TypeAdapter

from pipeline.domain.base import (
    EVENT_BYTES_MAX,
    Count,
    Digest,
    Line,
    Model,
    Reference,
    Sequence,
    Slug,
    Time,
    Uuid,
    cleaned,
    has_control,
)
from pipeline.domain.candidates import Candidate, Detection
from pipeline.domain.canonical import YEAR_MIN, Document, canonical_bytes, digest
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import Correlation, Evidence, Observation, ObservationKind
from pipeline.domain.ids import candidate_id, window_id
from pipeline.domain.promotion import LaxSeverity
from pipeline.domain.rules import ATTRIBUTE, MOST_SEVERE, PinnedRule, Rule
from pipeline.domain.transitions import Severity

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_GROUP_VALUE_MAX: Final = 256
_KEY_BYTES_MAX: Final = 512
# Half an event, so that the longest words beside it fit too.
EVIDENCE_BYTES_MAX: Final = EVENT_BYTES_MAX // 2


class Kept(Model):
    """One detection that a window keeps by name."""

    severity: LaxSeverity
    observed_at: Time
    id: Reference
    source: Line
    resource: Line | None = None

    @property
    def rank(self) -> tuple[str, datetime, str, str, str]:
        """The total order by which a full window keeps: the most severe, of these the earliest, then by id and by whose it
        is (two senders may choose the same key).
        """
        return self.severity.value, self.observed_at, self.id, self.source, self.resource or ""


class Window(Model):
    """What a rule has counted of one group in one span of time. `detections` is exact; `kept` the most severe of them.

    `held` were seen during maintenance: they are counted apart, reach no threshold and lead to nothing. `ageS` is the age of
    the freshest. `version` counts the commits that wrote it. `incidentId` is set with the commit in which the threshold was
    reached: everything later of this window goes there.
    """

    rule_id: Slug
    rule_version: Sequence
    rule_digest: Digest
    group: dict[str, Any]
    starts_at: Time
    ends_at: Time
    version: Sequence
    detections: Count
    held: Count = 0
    severity: LaxSeverity
    first_observed_at: Time
    newest_observed_at: Time
    newest_source: Line
    age_s: Count
    kept: tuple[Kept, ...]
    incident_id: Uuid | None = None

    @property
    def id(self) -> str:
        return window_id(self.rule_id, self.rule_version, self.group, self.starts_at)


WINDOW: Final = TypeAdapter(Window)


@dataclass(frozen=True, slots=True)
class Span:
    """One group's window of one rule: where a detection counts, and the key of the incident it may lead to."""

    pinned: PinnedRule
    group: Document
    starts_at: datetime

    @property
    def ends_at(self) -> datetime:
        return self.starts_at + timedelta(seconds=self.pinned.rule.window_s)

    @property
    def id(self) -> str:
        return window_id(self.pinned.rule.rule_id, self.pinned.rule.version, self.group, self.starts_at)

    @property
    def service(self) -> str:
        return self.pinned.rule.service or str(self.group["service"])

    @property
    def dedup_key(self) -> str:
        """The key of the group's incident: the same for every version of the rule and every window."""
        rule = self.pinned.rule
        values = [self.group[name] for name in rule.group_by]
        key = f"{rule.rule_id}:{canonical_bytes(values).decode()}"
        fits = len(key.encode()) <= _KEY_BYTES_MAX and not has_control(key)
        return key if fits else f"{rule.rule_id}:{digest(values)}"


def span_of(pinned: PinnedRule, detection: Detection) -> Span | Refusal:
    """Return where a detection counts under a rule that matches it, or why the rule can't place it."""
    group: Document = {}
    for name in pinned.rule.group_by:
        value = _value_of(detection, name)
        if value is None:
            detail = f"The rule {pinned.rule.rule_id!r} groups by it, and the detection has none."
            return Refusal(Code.INVALID_FIELD, detail, name)
        if isinstance(value, str) and len(value) > _GROUP_VALUE_MAX:
            value = digest(value)
        group[name] = value
    starts_at = window_start(detection.observed_at, pinned.rule.window_s)
    if starts_at.year < YEAR_MIN:
        detail = f"Its window under the rule {pinned.rule.rule_id!r} begins before the year {YEAR_MIN}."
        return Refusal(Code.INVALID_FIELD, detail, "observedAt")
    return Span(pinned, group, starts_at)


def window_start(observed_at: datetime, window_s: int) -> datetime:
    """Return the start of the epoch-aligned window that holds a time; a time on an edge begins a window."""
    width = timedelta(seconds=window_s)
    return _EPOCH + (observed_at - _EPOCH) // width * width


def _value_of(detection: Detection, name: str) -> Any:
    if name.startswith(ATTRIBUTE):
        return (detection.attributes or {}).get(name.removeprefix(ATTRIBUTE))
    fields = {
        "service": detection.service,
        "source": detection.source,
        "signalType": detection.signal_type,
        "severity": detection.severity.value,
        "dedupKey": detection.dedup_key,
        "resource": detection.resource,
    }
    return fields[name]


def count(span: Span, window: Window | None, detections: tuple[Detection, ...]) -> Window:
    """Return the window after more detections. `window` None: nothing was counted in it so far.

    What was seen during maintenance is counted apart, in `held`; what a window of nothing else says of severity and times
    is of those, until the first comes that counts.
    """
    rule = span.pinned.rule
    counting = that_count(detections)
    of = counting or detections
    newest_observed_at, newest_source = max((item.observed_at, item.source) for item in of)
    more = Window(
        rule_id=rule.rule_id,
        rule_version=rule.version,
        rule_digest=span.pinned.digest,
        group=span.group,
        starts_at=span.starts_at,
        ends_at=span.ends_at,
        version=1,
        detections=len(counting),
        held=len(detections) - len(counting),
        severity=min(item.severity for item in of),
        first_observed_at=min(item.observed_at for item in of),
        newest_observed_at=newest_observed_at,
        newest_source=newest_source,
        age_s=min(item.age_s for item in of),
        kept=tuple(sorted(map(_kept, counting), key=lambda item: item.rank)[: rule.cap]),
    )
    return more if window is None else _added(window, more, rule.cap)


def that_count(detections: Iterable[Detection]) -> tuple[Detection, ...]:
    """Return those that count: not seen during maintenance."""
    return tuple(item for item in detections if item.maintenance is None)


def _added(window: Window, more: Window, cap: int) -> Window:
    both = {
        "version": window.version + 1,
        "detections": window.detections + more.detections,
        "held": window.held + more.held,
        "kept": tuple(sorted((*window.kept, *more.kept), key=lambda item: item.rank)[:cap]),
        "incident_id": window.incident_id,
    }
    if bool(window.detections) is not bool(more.detections):
        # One of the two holds nothing that counts: what the other says stands.
        return (window if window.detections else more).model_copy(update=both)
    newest = max((window.newest_observed_at, window.newest_source), (more.newest_observed_at, more.newest_source))
    return more.model_copy(
        update=both
        | {
            "severity": min(window.severity, more.severity),
            "first_observed_at": min(window.first_observed_at, more.first_observed_at),
            "newest_observed_at": newest[0],
            "newest_source": newest[1],
            "age_s": min(window.age_s, more.age_s),
        }
    )


def reached(rule: Rule, window: Window) -> bool:
    """True where a window has become a candidate. Once true it stays true, whatever else is counted."""
    enough = window.detections >= rule.threshold.detections
    return enough and window.severity <= rule.threshold.minimum_severity


def first_candidate(span: Span, window: Window) -> Candidate:
    """Return the candidate of a window that has just reached its threshold: all that was counted in it."""
    return _candidate(span, window, window.severity, _trouble(span, window), _fitting(window.kept))


def later_candidate(span: Span, window: Window, detections: tuple[Detection, ...]) -> Candidate:
    """Return the candidate of what is counted in a window after it reached its threshold. `window`: with them counted;
    `detections`: those of them that count.
    """
    alone = count(span, None, detections)
    sources = tuple(sorted({item.source for item in detections} - {alone.newest_source}))
    observation = _trouble(span, alone).model_copy(update={"more_sources": sources or None})
    kept = tuple(sorted(map(_kept, detections), key=lambda item: item.rank))
    return _candidate(span, window, alone.severity, observation, kept)


def _trouble(span: Span, counted: Window) -> Observation:
    """Return what was counted as the one observation that it comes to."""
    first, newest = counted.first_observed_at, counted.newest_observed_at
    return Observation(
        kind=ObservationKind.FIRING,
        source=counted.newest_source,
        observed_at=newest,
        confidence=span.pinned.rule.confidence,
        detections=counted.detections,
        first_observed_at=first if first != newest else None,
        age_s=counted.age_s or None,
    )


def _fitting(kept: tuple[Kept, ...]) -> tuple[Kept, ...]:
    """Return as many, the most severe first, as go into one event whatever their names: the window keeps them all."""
    sizes = accumulate(len(canonical_bytes(_evidence(item).to_document())) for item in kept)
    return tuple(item for item, size in zip(kept, sizes, strict=True) if size <= EVIDENCE_BYTES_MAX)


def recovery_candidate(span: Span, detection: Detection) -> Candidate:
    """Return the recovery (or silence) that a native notice reports of a group: evidence on what is open, never counted."""
    observation = Observation(
        kind=detection.kind,
        source=detection.source,
        observed_at=detection.observed_at,
        confidence=span.pinned.rule.confidence,
        age_s=detection.age_s or None,
    )
    return _candidate(span, None, detection.severity, observation, (_kept(detection),))


def _candidate(
    span: Span, window: Window | None, worst: Severity, observation: Observation, kept: tuple[Kept, ...]
) -> Candidate:
    rule = span.pinned.rule
    text = rule.description
    return Candidate(
        service=span.service,
        dedup_key=span.dedup_key,
        severity=worst if rule.severity == MOST_SEVERE else Severity(rule.severity),
        title=_filled(rule, rule.title, span.group, 512),
        description=_filled(rule, text, span.group, 4096) if text else "",
        observation=observation,
        evidence=tuple(_evidence(item) for item in kept),
        policy_id=rule.policy_id,
        correlation=None if window is None else _correlation(span, window),
    )


def _correlation(span: Span, window: Window) -> Correlation:
    rule = span.pinned.rule
    return Correlation(
        rule_id=rule.rule_id,
        rule_version=rule.version,
        rule_digest=span.pinned.digest,
        candidate_id=candidate_id(rule.rule_id, rule.version, span.group, span.starts_at),
        window_start=span.starts_at,
        window_end=span.ends_at,
        detections=window.detections,
    )


def _kept(detection: Detection) -> Kept:
    return Kept(
        severity=detection.severity,
        observed_at=detection.observed_at,
        id=detection.id,
        source=detection.source,
        resource=detection.resource,
    )


def _evidence(kept: Kept) -> Evidence:
    where = f"{kept.source} {kept.resource}" if kept.resource else kept.source
    return Evidence(kind="detection", ref=kept.id, observed_at=kept.observed_at, note=f"{kept.severity} {where}"[:512])


def _filled(rule: Rule, template: str, group: Document, length_max: int) -> str:
    hours, minutes = divmod(rule.window_s // 60, 60)
    values = {name: str(value) for name, value in group.items()}
    values |= {
        "rule": rule.rule_id,
        "threshold": str(rule.threshold.detections),
        "window": f"{hours} h {minutes} min" if hours and minutes else f"{hours} h" if hours else f"{minutes} min",
    }
    text = "".join(literal + (values[name] if name is not None else "") for literal, name in _parsed(template))
    return cleaned(text, length_max).strip() or rule.rule_id


@lru_cache(maxsize=256)
def _parsed(template: str) -> tuple[tuple[str, str | None], ...]:
    return tuple((literal, name) for literal, name, _, _ in Formatter().parse(template))
