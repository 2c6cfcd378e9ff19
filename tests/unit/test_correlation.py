"""Counting by rules, as values: where a detection counts, when a window becomes a candidate, and which candidate it is."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.domain.candidates import Candidate, Detection
from pipeline.domain.canonical import normalise
from pipeline.domain.correlation import (
    Span,
    Window,
    count,
    first_candidate,
    later_candidate,
    reached,
    recovery_candidate,
    span_of,
    that_count,
    window_start,
)
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import ObservationKind
from pipeline.domain.ids import candidate_id
from pipeline.domain.rules import PinnedRule, Rules
from pipeline.domain.transitions import Severity
from tests.support.clock import NOW

MICROSECOND = timedelta(microseconds=1)
EDGE = datetime(2026, 1, 31, 6, 0, tzinfo=UTC)


def pinned(**change: Any) -> PinnedRule:
    basis = {"ruleId": "errors", "version": 1, "windowS": 21600, "threshold": {"detections": 3}, "confidence": 0.9}
    (found,) = Rules.load([normalise(basis | {"title": "{rule}: {threshold} in {window}"} | change)]).active
    return found


def seen(number: int = 0, **fields: Any) -> Detection:
    basis = Detection(f"d-{number:03}", "checkout", "probe", "http-5xx", Severity.SEV3, NOW + timedelta(seconds=number))
    return replace(basis, **fields)


def span(rule: PinnedRule, detection: Detection | None = None) -> Span:
    found = span_of(rule, detection or seen())
    assert isinstance(found, Span)
    return found


def counted(rule: PinnedRule, detections: Sequence[Detection]) -> Window:
    """Count one detection after the other."""
    where, window = span(rule, detections[0]), None
    for detection in detections:
        window = count(where, window, (detection,))
    assert window is not None
    return window


# --- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width_s", [60, 90, 3600, 21600, 86400, 604800])
def test_a_window_is_half_open_and_aligned_to_the_epoch(width_s: int) -> None:
    width = timedelta(seconds=width_s)
    start = window_start(EDGE, width_s)
    assert (start - datetime(1970, 1, 1, tzinfo=UTC)) % width == timedelta()
    assert start <= EDGE < start + width
    assert window_start(start, width_s) == start, "what is seen exactly on an edge belongs to the later window"
    assert window_start(start - MICROSECOND, width_s) == start - width
    assert window_start(start + width - MICROSECOND, width_s) == start
    assert window_start(start + width, width_s) == start + width


def test_a_window_depends_on_when_it_was_seen_and_not_in_which_zone_it_was_said() -> None:
    there = datetime.fromisoformat("2026-01-31T11:44:59.999999+05:45")
    assert window_start(there, 21600) == EDGE - timedelta(hours=6)
    assert window_start(there + MICROSECOND, 21600) == EDGE


GROUPS: dict[str, tuple[list[str], dict[str, Any], str]] = {
    "service": (["service"], {}, 'errors:["checkout"]'),
    "in the rule's order": (["source", "service"], {}, 'errors:["probe","checkout"]'),
    "everything there is": (
        ["service", "source", "signalType", "severity", "dedupKey", "resource"],
        {"dedup_key": "k", "resource": "r"},
        'errors:["checkout","probe","http-5xx","SEV3","k","r"]',
    ),
    "an attribute": (["service", "attributes.region"], {"attributes": {"region": "eu"}}, 'errors:["checkout","eu"]'),
    "a number": (["service", "attributes.n"], {"attributes": {"n": 7}}, 'errors:["checkout",7]'),
    "the same in text is another": (["service", "attributes.n"], {"attributes": {"n": "7"}}, 'errors:["checkout","7"]'),
    "false is a value": (["service", "attributes.n"], {"attributes": {"n": False}}, 'errors:["checkout",false]'),
    "an attribute with dots": (["service", "attributes.a.b"], {"attributes": {"a.b": "x"}}, 'errors:["checkout","x"]'),
}


@pytest.mark.parametrize("case", GROUPS.values(), ids=GROUPS.keys())
def test_the_key_of_the_incident_comes_from_rule_and_group(case: tuple[list[str], dict[str, Any], str]) -> None:
    group_by, fields, key = case
    found = span(pinned(groupBy=group_by), seen(**fields))
    assert (found.service, found.dedup_key) == ("checkout", key)


def test_long_values_and_long_keys_become_digests() -> None:
    long = span(pinned(groupBy=["service", "resource"]), seen(resource="x" * 257))
    assert long.group["resource"] != "x" * 257
    assert len(long.group["resource"]) == 64
    names = [f"attributes.{name}" for name in "abcd"]
    wide = span(pinned(groupBy=["service", *names]), seen(attributes=dict.fromkeys("abcd", "y" * 200)))
    assert wide.dedup_key.startswith("errors:")
    assert len(wide.dedup_key.encode()) <= 512


@pytest.mark.parametrize("field", ["resource", "dedupKey", "attributes.region"])
def test_a_rule_cannot_place_what_lacks_a_value_it_groups_by(field: str) -> None:
    refusal = span_of(pinned(groupBy=["service", field]), seen(attributes={"zone": "a"}))
    assert isinstance(refusal, Refusal)
    assert (refusal.code, refusal.field) == (Code.INVALID_FIELD, field)
    assert "'errors'" in refusal.detail


def test_a_rule_may_name_the_service_of_its_incidents() -> None:
    assert span(pinned(groupBy=["resource"], service="edge"), seen(resource="r")).service == "edge"


def test_another_version_counts_anew_and_leads_to_the_same_key() -> None:
    one, two = span(pinned()), span(pinned(version=2))
    assert one.id != two.id
    assert one.dedup_key == two.dedup_key
    assert span(pinned(windowS=3600)).dedup_key == one.dedup_key


# --- counting -------------------------------------------------------------------------------------------------------


def mixed(number: int) -> list[Detection]:
    """Return detections of one window: early and late by hours, of all severities, from two sources, some in maintenance."""
    found = []
    for index in range(number):
        held = {"maintenance": f"w{index % 3}"} if index % 4 == 0 else {}
        found.append(
            seen(
                index,
                severity=list(Severity)[index * 7 % 4],
                observed_at=EDGE + timedelta(minutes=index * 53 % 359),
                source=f"probe-{index % 2}",
                age_s=1000 - index,
                **held,
            )
        )
    return found


def test_what_is_counted_depends_on_no_order_and_no_batches(rng: random.Random) -> None:
    rule, detections = pinned(cap=5), mixed(24)
    expected = counted(rule, detections)
    for _ in range(50):
        rng.shuffle(detections)
        window: Window | None = None
        rest = list(detections)
        while rest:
            size = rng.randint(1, 10)
            window, rest = count(span(rule, detections[0]), window, tuple(rest[:size])), rest[size:]
        assert window is not None
        assert window.model_copy(update={"version": 1}) == expected.model_copy(update={"version": 1})


def test_above_its_cap_a_window_counts_on_and_keeps_the_most_severe() -> None:
    detections = mixed(24)
    window = counted(pinned(cap=5), detections)
    assert (window.detections, window.held) == (18, 6)
    wanted = sorted(that_count(detections), key=lambda item: (item.severity.value, item.observed_at, item.id))[:5]
    assert [item.id for item in window.kept] == [item.id for item in wanted]


def test_of_equally_severe_ones_the_earliest_are_kept_then_by_id_and_sender() -> None:
    worst = seen(9, severity=Severity.SEV1, observed_at=NOW + timedelta(hours=1))
    early = [seen(5, observed_at=NOW), seen(4, observed_at=NOW), seen(4, observed_at=NOW, source="another")]
    for order in itertools.permutations([worst, *early, seen(0, observed_at=NOW + MICROSECOND)]):
        window = counted(pinned(cap=3), order)
        assert [(item.id, item.source) for item in window.kept] == [
            ("d-009", "probe"),
            ("d-004", "another"),
            ("d-004", "probe"),
        ]


def test_what_was_seen_during_maintenance_is_counted_and_known_apart() -> None:
    detections = mixed(24)
    window = counted(pinned(), detections)
    assert (window.detections, window.held) == (18, 6)
    assert window == counted(pinned(), that_count(detections)).model_copy(update={"held": 6, "version": window.version})


def test_a_window_of_nothing_but_maintenance_reaches_no_threshold_and_gives_way_to_the_first_that_counts() -> None:
    rule = pinned(threshold={"detections": 1})
    held = counted(rule, [seen(0, maintenance="w2", severity=Severity.SEV1), seen(1, maintenance="w1")])
    assert (held.detections, held.held, held.kept) == (0, 2, ())
    assert not reached(rule.rule, held)
    after = count(span(rule, seen(2)), held, (seen(2, severity=Severity.SEV4),))
    assert (after.severity, after.detections, after.held, after.version) == (Severity.SEV4, 1, 2, held.version + 1)
    assert reached(rule.rule, after)


THRESHOLDS: dict[str, tuple[dict[str, Any], list[str], bool]] = {
    "too few": ({"detections": 3}, ["SEV1", "SEV1"], False),
    "enough": ({"detections": 3}, ["SEV4", "SEV4", "SEV4"], True),
    "one is enough for one": ({"detections": 1}, ["SEV4"], True),
    "enough, none severe enough": ({"detections": 2, "minimumSeverity": "SEV2"}, ["SEV3", "SEV3", "SEV4"], False),
    "enough, one severe enough": ({"detections": 2, "minimumSeverity": "SEV2"}, ["SEV3", "SEV2"], True),
    "more severe than needed": ({"detections": 2, "minimumSeverity": "SEV2"}, ["SEV1", "SEV4"], True),
    "severe and too few": ({"detections": 3, "minimumSeverity": "SEV2"}, ["SEV1", "SEV1"], False),
}


@pytest.mark.parametrize("case", THRESHOLDS.values(), ids=THRESHOLDS.keys())
def test_a_threshold_asks_for_a_number_and_for_the_most_severe(case: tuple[dict[str, Any], list[str], bool]) -> None:
    threshold, severities, expected = case
    rule = pinned(threshold=threshold)
    window = counted(rule, [seen(number, severity=Severity(text)) for number, text in enumerate(severities)])
    assert reached(rule.rule, window) is expected


# --- candidates -----------------------------------------------------------------------------------------------------


def first(rule: PinnedRule, detections: Sequence[Detection]) -> Candidate:
    return first_candidate(span(rule, detections[0]), counted(rule, detections))


def test_the_first_candidate_is_all_that_was_counted() -> None:
    detections = mixed(24)
    found = first(pinned(cap=5, policyId="declared"), detections)
    assert (found.service, found.dedup_key, found.policy_id) == ("checkout", 'errors:["checkout"]', "declared")
    assert (found.observation.kind, found.observation.detections) == (ObservationKind.FIRING, 18)
    assert found.observation.observed_at == max(item.observed_at for item in that_count(detections))
    assert found.observation.first_observed_at == min(item.observed_at for item in that_count(detections))
    assert found.observation.maintenance is None
    assert len(found.evidence) == 5
    assert found.correlation is not None
    assert (found.correlation.detections, found.correlation.window_end - found.correlation.window_start) == (
        18,
        timedelta(hours=6),
    )


def test_a_later_candidate_is_what_has_come_since() -> None:
    rule, detections = pinned(), mixed(10)
    where = span(rule, detections[0])
    before = counted(rule, detections[:7])
    more = that_count(detections[7:])
    found = later_candidate(where, count(where, before, tuple(detections[7:])), more)
    assert found.correlation is not None
    assert (found.observation.detections, found.correlation.detections) == (2, 7)
    assert {item.ref for item in found.evidence} == {item.id for item in more}
    assert found.severity == min(item.severity for item in more)
    assert {found.observation.source, *(found.observation.more_sources or ())} == {item.source for item in more}


def test_the_first_candidate_and_the_later_ones_add_up_to_what_counts() -> None:
    rule, detections = pinned(), mixed(24)
    where = span(rule, detections[0])
    for cut in range(2, 24):
        window = counted(rule, detections[:cut])
        parts = [first_candidate(where, window)]
        for detection in detections[cut:]:
            window = count(where, window, (detection,))
            parts += [later_candidate(where, window, one) for one in [that_count((detection,))] if one]
        assert sum(one.observation.detections for one in parts) == 18


@pytest.mark.parametrize(("choice", "expected"), [("most-severe", "SEV1"), ("SEV4", "SEV4")])
def test_the_severity_is_the_rules_own_or_the_most_severe(choice: str, expected: str) -> None:
    found = first(pinned(severity=choice), [seen(0), seen(1, severity=Severity.SEV1), seen(2, severity=Severity.SEV4)])
    assert found.severity == expected


def test_the_candidates_id_is_its_windows_and_never_its_members() -> None:
    rule = pinned()
    ids = {
        one.correlation.candidate_id
        for one in (first(rule, [seen(1)]), first(rule, [seen(2), seen(3)]), first(rule, [seen(4), seen(1)]))
        if one.correlation is not None
    }
    assert ids == {candidate_id("errors", 1, {"service": "checkout"}, window_start(NOW, 21600))}
    other = first(rule, [seen(1, observed_at=NOW - timedelta(hours=6))]).correlation
    newer = first(pinned(version=2), [seen(1)]).correlation
    assert other is not None
    assert newer is not None
    assert len({*ids, other.candidate_id, newer.candidate_id}) == 3


TITLES: dict[str, tuple[dict[str, Any], str]] = {
    "the rule's own": ({}, "errors: 3 in 6 h"),
    "minutes": ({"windowS": 5400}, "errors: 3 in 1 h 30 min"),
    "less than an hour": ({"windowS": 300}, "errors: 3 in 5 min"),
    "the group": (
        {"title": "{service} in {attributes.region}", "groupBy": ["service", "attributes.region"]},
        "checkout in eu",
    ),
    "braces": ({"title": "{{{service}}}"}, "{checkout}"),
    "nothing but blanks": ({"title": "  "}, "errors"),
}


@pytest.mark.parametrize("case", TITLES.values(), ids=TITLES.keys())
def test_the_words_come_from_the_rule_and_the_group_alone(case: tuple[dict[str, Any], str]) -> None:
    change, expected = case
    rule, region = pinned(**change), {"region": "eu"}
    one = first(rule, [seen(1, attributes=region), seen(2, attributes=region, severity=Severity.SEV1)])
    assert one.title == expected
    assert first(rule, [seen(7, attributes=region, source="another")]).title == expected
    assert one.description == ""


def test_a_description_is_filled_like_a_title() -> None:
    assert first(pinned(description="{service}: {threshold}"), [seen()]).description == "checkout: 3"


def test_a_recovery_is_evidence_for_the_groups_key_and_no_window() -> None:
    rule = pinned()
    over = seen(3, kind=ObservationKind.RECOVERY)
    found = recovery_candidate(span(rule, over), over)
    assert (found.dedup_key, found.observation.kind, found.correlation) == (
        span(rule).dedup_key,
        ObservationKind.RECOVERY,
        None,
    )
    assert [item.ref for item in found.evidence] == ["d-003"]
