"""What an explanation is about where no incident is named: keys and correlation windows, from messages or from names.

A window's row is found by its id alone, which is a digest of rule, version, group and start: so the ids are computed from
what is known of the group, at most `WINDOWS_MAX` of them, and each is read by its key. Nothing is scanned.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from typing import Final

from pipeline.cli.messages import Unread
from pipeline.domain.candidates import Signal
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.cloudwatch import AlarmMapping, mapped
from pipeline.domain.correlation import Span, Window, span_of, window_start
from pipeline.domain.errors import Refusal
from pipeline.domain.events import REPORTS_TROUBLE
from pipeline.domain.rules import PinnedRule, Rules
from pipeline.domain.transitions import Severity
from pipeline.services.ports import IncidentStore

WINDOWS_MAX: Final = 400
GROUPS_MAX: Final = 16
AT_ONCE: Final = 16


@dataclass(slots=True)
class Subject:
    """One key: whose incident it would be, and the windows in which rules may be counting towards it."""

    service: str
    dedup_key: str
    names: set[str] = field(default_factory=set)
    spans: dict[str, Span] = field(default_factory=dict)
    messages: int = 0

    def is_about(self, text: str) -> bool:
        wanted = text.casefold()
        return any(wanted in name.casefold() for name in (self.service, self.dedup_key, *self.names))


@dataclass(slots=True)
class Told:
    """What messages are about: their keys, in order; what no rule counts, and what can't be read."""

    subjects: dict[tuple[str, str], Subject] = field(default_factory=dict)
    unmatched: int = 0
    unread: list[Unread] = field(default_factory=list)

    def of(self, service: str, dedup_key: str) -> Subject:
        return self.subjects.setdefault((service, dedup_key), Subject(service, dedup_key))


def told_by(found: Iterable[tuple[int, Signal] | Unread], rules: Rules) -> Told:
    """Return which keys and windows messages are about, under the rules in force and their earlier versions."""
    told = Told()
    for item in found:
        if isinstance(item, Unread):
            told.unread.append(item)
            continue
        number, signal = item
        detection, candidate = signal.detection, signal.candidate
        matching = rules.matching(detection) if detection is not None else ()
        if detection is None or not matching:
            if candidate is None:
                told.unmatched += 1
            else:
                subject = told.of(candidate.service, candidate.dedup_key)
                subject.names |= {candidate.title, candidate.observation.source}
                subject.messages += 1
            continue
        for pinned in matching:
            for version in versions_of(rules, pinned):
                span = span_of(version, detection)
                if isinstance(span, Refusal):
                    told.unread += [Unread(number, span)] if version is pinned else []
                    continue
                subject = told.of(span.service, span.dedup_key)
                subject.names.add(detection.source)
                subject.messages += version is pinned
                if detection.kind in REPORTS_TROUBLE:
                    subject.spans[span.id] = span
    return told


def versions_of(rules: Rules, pinned: PinnedRule) -> tuple[PinnedRule, ...]:
    """Return a rule and its earlier versions, the newest first: what they counted still stands in their own windows."""
    known = [item for key, item in rules.pinned.items() if key[0] == pinned.rule.rule_id and item is not pinned]
    return (pinned, *sorted(known, key=lambda item: -item.rule.version))


# --- by name ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Names:
    """What a person said: a service, an alarm or a source, and values of groupBy fields."""

    what: str
    service: str | None
    group: Mapping[str, str]
    first: datetime
    last: datetime


def named_by(names: Names, rules: Rules, mappings: tuple[AlarmMapping, ...]) -> tuple[Told, list[str]]:
    """Return the windows that names lead to, and a sentence for each rule of whose group too little is said."""
    told, missing = Told(), []
    for pinned in rules.active:
        values = {name: _values(name, names, pinned, mappings) for name in pinned.rule.group_by}
        unsaid = [name for name, known in values.items() if not known]
        if unsaid:
            rule, options = pinned.rule, " ".join(f"--group {name}=…" for name in unsaid)
            missing.append(f"Rule {rule.rule_id} v{rule.version} groups by {', '.join(rule.group_by)}: say {options}.")
            continue
        for group in list(product(*values.values()))[:GROUPS_MAX]:
            for version in versions_of(rules, pinned):
                if set(version.rule.group_by) != set(values):
                    continue
                known = dict(zip(values, group, strict=True))
                for span in _spread(version, known, names.first, names.last):
                    told.of(span.service, span.dedup_key).spans[span.id] = span
    return told, missing


def _values(name: str, names: Names, pinned: PinnedRule, mappings: tuple[AlarmMapping, ...]) -> list[str]:
    """Return what a groupBy field may hold, going by what was said."""
    if name in names.group:
        return [names.group[name]]
    match name:
        case "service":
            if names.service is not None:
                return [names.service]
            mapping = mapped(names.what, mappings)
            return [names.what if mapping is None else mapping.service]
        case "source":
            # A service's name is nobody's source; an alarm's is, behind the word that says so.
            return [names.what, f"cloudwatch:{names.what}"] if names.service is not None else []
        case "severity":
            return [severity.value for severity in pinned.rule.match.severities or Severity]
        case "signalType":
            return [kind for kind in pinned.rule.match.signal_types if "*" not in kind]
        case "attributes.alarmName":
            return [names.what] if names.service is not None else []
        case _:
            return []


def _spread(pinned: PinnedRule, group: Document, first: datetime, last: datetime) -> Iterator[Span]:
    """Yield a group's windows from `last` back to `first`, the newest first, as far as the bound goes."""
    start = window_start(last, pinned.rule.window_s)
    for _ in range(WINDOWS_MAX):
        yield Span(pinned, group, start)
        if start <= first:
            return
        start -= timedelta(seconds=pinned.rule.window_s)


# --- what stands there -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """What rules have counted of a key: the windows that have a row, and how many were asked for."""

    asked: int
    first: datetime | None
    last: datetime | None
    windows: tuple[tuple[Span, Window], ...]
    left_out: int = 0

    @property
    def best(self) -> tuple[Span, Window] | None:
        """The window nearest to its threshold; of equals the latest."""

        def nearness(found: tuple[Span, Window]) -> tuple[float, datetime]:
            span, window = found
            return window.detections / span.pinned.rule.threshold.detections, window.starts_at

        return max(self.windows, key=nearness, default=None)


async def counted_of(store: IncidentStore, subject: Subject, windows_max: int) -> Counted:
    """Read the windows of a key, the newest `windows_max` of them. Raises `Unavailable` where they can't be read."""
    spans = sorted(subject.spans.values(), key=lambda one: (one.starts_at, one.id), reverse=True)
    asked, gate = spans[:windows_max], asyncio.Semaphore(AT_ONCE)

    async def load(span: Span) -> Window | None:
        async with gate:
            return await store.load_window(span.id)

    rows = await asyncio.gather(*(load(span) for span in asked))
    found = tuple((span, row) for span, row in zip(asked, rows, strict=True) if row is not None)
    first = min((span.starts_at for span in asked), default=None)
    last = max((span.ends_at for span in asked), default=None)
    return Counted(len(asked), first, last, found, len(spans) - len(asked))


def counting(counted: Counted) -> str:
    """Return in one sentence how far rules have counted below their threshold; what a window has fired is an incident."""
    best = counted.best
    if best is None:
        if not counted.asked or counted.first is None or counted.last is None:
            return "no incident: nothing of it was taken"
        many = "the 1 window" if counted.asked == 1 else f"{counted.asked} windows"
        return f"no incident: nothing counted in {many} from {_at(counted.first)} to {_at(counted.last)} UTC"
    span, window = best
    rule = span.pinned.rule
    at = f"best: {_at(window.starts_at)} to {_at(window.ends_at)} UTC"
    if window.detections >= rule.threshold.detections:
        least = rule.threshold.minimum_severity
        return f"no incident: rule {rule.rule_id} v{rule.version} counted {window.detections}, none {least} or worse ({at})"
    return (
        f"no incident: rule {rule.rule_id} v{rule.version} counted at most {window.detections} of "
        f"{rule.threshold.detections} in a window ({at})"
    )


def window_documents(windows: Sequence[tuple[Span, Window]]) -> list[Document]:
    return [
        {
            "ruleId": window.rule_id,
            "ruleVersion": window.rule_version,
            "group": window.group,
            "startsAt": format_time(window.starts_at),
            "endsAt": format_time(window.ends_at),
            "detections": window.detections,
            "threshold": span.pinned.rule.threshold.detections,
            "severity": window.severity.value,
        }
        | ({"incidentId": window.incident_id} if window.incident_id is not None else {})
        for span, window in windows
    ]


def _at(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M")
