"""Rule files: what may stand in one, which of several is in force, and which detections a rule takes."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.domain.candidates import Detection
from pipeline.domain.canonical import digest, normalise
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import Severity
from tests.support.clock import NOW
from tests.support.histories import POLICIES

SMALLEST: dict[str, Any] = {
    "ruleId": "errors",
    "version": 1,
    "windowS": 3600,
    "threshold": {"detections": 3},
    "confidence": 0.9,
    "title": "Too many errors of {service}",
}
SEEN = Detection("d-1", "checkout", "probe-1", "http-5xx", Severity.SEV2, NOW)


def rules(*changes: dict[str, Any]) -> Rules:
    documents = [{name: value for name, value in (SMALLEST | change).items() if value is not ...} for change in changes]
    return Rules.load([normalise(document) for document in documents], POLICIES)


def test_the_smallest_rule_counts_everything_of_a_service() -> None:
    (pinned,) = rules({}).active
    rule = pinned.rule
    assert (rule.group_by, rule.severity, rule.policy_id, rule.cap) == (("service",), "most-severe", "default", 20)
    assert rule.matches(SEEN)
    assert pinned.digest == digest(normalise(SMALLEST))


WRONG: dict[str, tuple[dict[str, Any], Code, str, str]] = {
    "a field that is not known": ({"cooldownS": 5}, Code.UNKNOWN_FIELD, "cooldownS", "not known"),
    "a field that is not known below": ({"match": {"service": ["x"]}}, Code.UNKNOWN_FIELD, "match.service", "not known"),
    "no threshold": ({"threshold": ...}, Code.INVALID_FIELD, "threshold", "required"),
    "a threshold of none": ({"threshold": {"detections": 0}}, Code.INVALID_FIELD, "threshold.detections", "1"),
    "a window under a minute": ({"windowS": 59}, Code.INVALID_FIELD, "windowS", "60"),
    "a window over a week": ({"windowS": 604801}, Code.INVALID_FIELD, "windowS", "604800"),
    "a cap over fifty": ({"cap": 51}, Code.INVALID_FIELD, "cap", "50"),
    "more than certain": ({"confidence": 1.1}, Code.INVALID_FIELD, "confidence", "1"),
    "no severity at all": ({"match": {"severities": []}}, Code.INVALID_FIELD, "match.severities", "1"),
    "a group field that is not known": ({"groupBy": ["service", "host"]}, Code.INVALID_FIELD, "groupBy.1", "'host'"),
    "an attribute without name": ({"groupBy": ["service", "attributes."]}, Code.INVALID_FIELD, "groupBy.1", "attributes."),
    "no group": ({"groupBy": []}, Code.TOO_LARGE, "groupBy", ""),
    "a group field twice": ({"groupBy": ["service", "service"]}, Code.INVALID_FIELD, "", "twice"),
    "no service anywhere": ({"groupBy": ["resource"], "title": "t"}, Code.INVALID_FIELD, "", "must name the service"),
    "a title with a field not grouped by": ({"title": "{resource} is down"}, Code.INVALID_FIELD, "", "{resource}"),
    "a title with a place without name": ({"title": "{} is down"}, Code.INVALID_FIELD, "", "{}"),
    "a title with a format": ({"title": "{service:>9}"}, Code.INVALID_FIELD, "", "no format"),
    "a title with a conversion": ({"title": "{service!r}"}, Code.INVALID_FIELD, "", "no format"),
    "a title that reaches into a value": ({"title": "{service.__class__}"}, Code.INVALID_FIELD, "", "service.__class__"),
    "a title with an open brace": ({"title": "{service"}, Code.INVALID_FIELD, "", ""),
    "a description with a field not grouped by": ({"description": "{severity}"}, Code.INVALID_FIELD, "", "{severity}"),
    "a severity of its own": ({"severity": "least-severe"}, Code.INVALID_FIELD, "severity", ""),
    "a switch that is a text": ({"enabled": "no"}, Code.INVALID_FIELD, "enabled", ""),
}


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_rule_is_refused_by_the_field_that_is_wrong(case: tuple[dict[str, Any], Code, str, str]) -> None:
    change, code, field, words = case
    with pytest.raises(Rejected) as raised:
        rules(change)
    refusal = raised.value.refusal
    if code is not Code.TOO_LARGE:
        assert refusal.code is code
    assert (refusal.field or "").startswith(field)
    assert words in refusal.detail


def test_a_rule_without_service_in_its_group_names_its_service() -> None:
    (pinned,) = rules({"groupBy": ["attributes.region"], "service": "edge", "title": "{attributes.region}: {rule}"}).active
    assert pinned.rule.service == "edge"


def test_a_version_is_released_once() -> None:
    with pytest.raises(ValueError, match="never changed"):
        rules({}, {"title": "Another {service}"})


def test_a_rule_of_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'errors'.*'nobody-wrote-it'"):
        rules({"policyId": "nobody-wrote-it"})


def test_only_what_is_in_force_needs_its_policy() -> None:
    assert len(rules({"policyId": "gone"}, {"version": 2}).active) == 1


def test_the_newest_version_is_in_force_also_from_nine_to_ten() -> None:
    found = rules({"version": 10}, {"version": 9}, {"version": 2})
    assert [item.rule.version for item in found.active] == [10]
    assert set(found.pinned) == {("errors", 10), ("errors", 9), ("errors", 2)}


def test_a_rule_whose_newest_version_is_disabled_counts_nothing() -> None:
    found = rules({}, {"version": 2, "enabled": False}, {"ruleId": "others"})
    assert [item.rule.rule_id for item in found.active] == ["others"]
    assert [item.rule.rule_id for item in found.matching(SEEN)] == ["others"]


MATCHES: dict[str, tuple[dict[str, Any], bool]] = {
    "everything": ({}, True),
    "the service": ({"services": ["checkout"]}, True),
    "a pattern of it": ({"services": ["check*"]}, True),
    "one of two": ({"services": ["search", "*out"]}, True),
    "not a part without a star": ({"services": ["check"]}, False),
    "another service": ({"services": ["search"]}, False),
    "a dot is a dot": ({"services": ["chec.out"]}, False),
    "a question mark is itself": ({"services": ["checkou?"]}, False),
    "upper case is another": ({"services": ["CHECKOUT"]}, False),
    "no service": ({"services": []}, False),
    "the source": ({"sources": ["probe-*"]}, True),
    "another source": ({"sources": ["probe-2"]}, False),
    "the signal": ({"signalTypes": ["http-*"]}, True),
    "another signal": ({"signalTypes": ["oom"]}, False),
    "the severity": ({"severities": ["SEV1", "SEV2"]}, True),
    "another severity": ({"severities": ["SEV1"]}, False),
    "all but one": ({"services": ["*"], "sources": ["*"], "signalTypes": ["*"], "severities": ["SEV4"]}, False),
}


@pytest.mark.parametrize("case", MATCHES.values(), ids=MATCHES.keys())
def test_a_rule_takes_what_all_of_its_patterns_cover(case: tuple[dict[str, Any], bool]) -> None:
    match, expected = case
    assert bool(rules({"match": match}).matching(SEEN)) is expected


def test_a_detection_may_be_taken_by_several_rules_in_order_of_their_ids() -> None:
    found = rules({"ruleId": "b"}, {"ruleId": "a"}, {"ruleId": "c", "match": {"sources": ["x"]}})
    assert [item.rule.rule_id for item in found.matching(SEEN)] == ["a", "b"]
    assert [item.rule.rule_id for item in found.matching(replace(SEEN, source="x"))] == ["a", "b", "c"]
