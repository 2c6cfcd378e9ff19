"""Policy files: read strictly, pinned by digest, kept for ever; what the shipped ones say, and where order matters."""

from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from pipeline.domain.canonical import digest, parse_document
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.promotion import Outcome, PinnedPolicy, Policies, Policy, judge
from pipeline.domain.transitions import AuthorityType, Severity
from tests.support.histories import POLICIES, POLICY_FILES, pinned
from tests.unit.test_promotion import STRICT, inputs

FIRST: dict[str, Any] = {"policyId": "strict", "version": 1}


def test_an_unknown_policy_is_refused_and_never_replaced_by_another() -> None:
    found = POLICIES.newest("made-up")
    assert isinstance(found, Refusal)
    assert (found.code, found.status, found.remembered) == (Code.POLICY_UNKNOWN, 404, False)


def test_the_newest_version_judges_and_every_version_recomputes() -> None:
    policies = Policies.load([STRICT, STRICT | {"version": 10, "minimumDetections": 1}, STRICT | {"version": 9}])
    newest = policies.newest("strict")
    assert isinstance(newest, PinnedPolicy)
    assert newest.policy.version == 10
    for number in (1, 9, 10):
        decision, _ = judge(policies.pinned["strict", number], inputs())
        assert policies.recorded(decision) == policies.pinned["strict", number]


def test_a_decision_under_a_policy_that_is_not_the_shipped_one_has_no_policy() -> None:
    decision, _ = judge(pinned("default"), inputs())
    assert POLICIES.recorded(decision) is not None
    assert POLICIES.recorded(decision.model_copy(update={"policy_digest": "0" * 64})) is None
    assert POLICIES.recorded(decision.model_copy(update={"policy_version": 99})) is None
    assert POLICIES.recorded(decision.model_copy(update={"policy_id": "gone"})) is None


def test_a_policy_is_pinned_by_the_digest_of_its_file_not_of_its_model() -> None:
    spelled_out = STRICT | {"humanMayWaive": (), "description": ""}
    assert Policies.load([STRICT]).pinned["strict", 1].digest == digest(STRICT)
    assert digest(spelled_out) != digest(STRICT)


def test_one_version_of_a_policy_is_one_file() -> None:
    with pytest.raises(ValueError, match="never changed"):
        Policies.load([STRICT, STRICT | {"minimumDetections": 1}])


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown field": ({"cooldown": 5}, "cooldown"),
    "an unknown condition": ({"humanMayWaive": ("killSwitch",)}, "humanMayWaive.0"),
    "a waived kill switch": ({"humanMayWaive": ("age", "kill-switch")}, "humanMayWaive.1"),
    "a waived authority": ({"humanMayWaive": ("authority",)}, "humanMayWaive.0"),
    "an unknown severity": ({"allowedSeverities": ("SEV9",)}, "allowedSeverities.0"),
    "no severity at all": ({"allowedSeverities": ()}, "allowedSeverities"),
    "nobody's authority": ({"allowedAuthorityTypes": ()}, "allowedAuthorityTypes"),
    "nobody's authority at a severity": ({"severityAuthorityTypes": {"SEV1": ()}}, "severityAuthorityTypes.SEV1"),
    "authority at an unknown severity": ({"severityAuthorityTypes": {"SEV9": ("HUMAN",)}}, "severityAuthorityTypes.SEV9"),
    "confidence above one": ({"minimumConfidence": Decimal("1.1")}, "minimumConfidence"),
    "version zero": ({"version": 0}, "version"),
    "no detections": ({"minimumDetections": 0}, "minimumDetections"),
    "pending for no time": ({"pendingExpiresS": 0}, "pendingExpiresS"),
    "pending for less than a minute": ({"pendingExpiresS": 59}, "pendingExpiresS"),
    "no cooldown, spelled as zero": ({"cooldownS": 0}, "cooldownS"),
    "a cooldown of years": ({"cooldownS": 366 * 24 * 3600 + 1}, "cooldownS"),
    "no age": ({"maximumAgeS": 0}, "maximumAgeS"),
    "an age in text": ({"maximumAgeS": "10 min"}, "maximumAgeS"),
}


@pytest.mark.parametrize(("fields", "named"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_policy_that_cannot_be_read_judges_nothing_and_its_field_is_named(fields: Any, named: str) -> None:
    with pytest.raises(Rejected) as refused:
        Policies.load([STRICT | fields])
    assert (refused.value.refusal.field or "").startswith(named)


ORDER: dict[str, tuple[dict[str, Any], str | None]] = {
    "everything allowed": ({}, None),
    "all but the mildest": ({"allowedSeverities": ("SEV1", "SEV2", "SEV3")}, None),
    "the worst alone": ({"allowedSeverities": ("SEV1",)}, None),
    "not the worst": ({"allowedSeverities": ("SEV2", "SEV3", "SEV4")}, "SEV1 is not allowed, but the milder SEV2 is"),
    "a gap": ({"allowedSeverities": ("SEV1", "SEV3")}, "SEV2 is not allowed, but the milder SEV3 is"),
    "the mildest alone": ({"allowedSeverities": ("SEV4",)}, "SEV3 is not allowed, but the milder SEV4 is"),
    "people for the worst": (
        {"severityAuthorityTypes": {"SEV1": ("HUMAN",)}},
        "SEV1 asks for more authority than the milder SEV2",
    ),
    "another's word for the worst": (
        {"allowedAuthorityTypes": ("SYSTEM",), "severityAuthorityTypes": {"SEV1": ("HUMAN",)}},
        "SEV1 asks for more authority than the milder SEV2",
    ),
    "people for the mildest": ({"severityAuthorityTypes": {"SEV4": ("HUMAN",)}}, None),
    "more authority the worse it is": (
        {"allowedAuthorityTypes": ("HUMAN",), "severityAuthorityTypes": {"SEV1": ("HUMAN", "SYSTEM")}},
        None,
    ),
    "people from a severity on": (
        {"severityAuthorityTypes": {"SEV1": ("HUMAN",), "SEV2": ("HUMAN",)}},
        "SEV2 asks for more authority than the milder SEV3",
    ),
    "people for all that is allowed": (
        {"allowedSeverities": ("SEV1",), "severityAuthorityTypes": {"SEV1": ("HUMAN",)}},
        None,
    ),
    "all the rest": (
        {
            "minimumConfidence": Decimal("0.9"),
            "minimumDetections": 5,
            "maximumAgeS": 60,
            "cooldownS": 60,
            "allowedAuthorityTypes": ("SYSTEM",),
            "humanMayWaive": ("cooldown",),
            "pendingExpiresS": 60,
        },
        None,
    ),
}


@pytest.mark.parametrize(("fields", "why"), ORDER.values(), ids=ORDER.keys())
def test_a_policy_says_whether_the_order_of_arrival_can_change_its_verdict(fields: Any, why: str | None) -> None:
    assert Policies.load([FIRST | fields]).pinned["strict", 1].policy.order_dependence == why


@pytest.mark.parametrize(("fields", "why"), ORDER.values(), ids=ORDER.keys())
def test_where_order_does_not_matter_whatever_promotes_midway_promotes_at_the_end(fields: Any, why: str | None) -> None:
    """The severity of what came so far is the worst of it: a policy is free of order if worse never promotes less."""
    under = Policies.load([FIRST | fields]).pinned["strict", 1]
    known: dict[str, Any] = {"confidence": Decimal(1), "detections": 9, "age_s": None, "key_ended_at": None}
    ends = set()
    reports = [(kind, severity) for severity in Severity for kind in AuthorityType]
    for order in permutations(reports, 3):
        promoted, worst, behind = False, Severity.SEV4, set[AuthorityType]()
        for kind, severity in order:
            worst, behind = min(worst, severity), behind | {kind}
            seen = inputs(**known, severity=worst, authority_type=kind, authority_types=tuple(sorted(behind)))
            promoted = promoted or judge(under, seen)[0].outcome is Outcome.PROMOTE
        ends.add((frozenset(order), promoted))
    assert (len(ends) > len({found for found, _ in ends})) == (why is not None)


@pytest.mark.parametrize("name", ["default", "declared", "dismissed"])
def test_the_order_of_arrival_does_not_matter_to_a_shipped_policy(name: str) -> None:
    assert pinned(name).policy.order_dependence is None


def test_the_shipped_policies_do_what_their_descriptions_say() -> None:
    assert {path.name for path in POLICY_FILES} >= {"default.v1.json", "declared.v1.json", "dismissed.v1.json"}
    outcome = {
        (name, kind.value): judge(pinned(name), inputs(authority_type=kind, detections=1))[0].outcome.value
        for name in ("default", "declared", "dismissed")
        for kind in AuthorityType
    }
    assert outcome == {
        ("default", "SYSTEM"): "PROMOTE",
        ("default", "HUMAN"): "PROMOTE",
        ("declared", "SYSTEM"): "REJECT",
        ("declared", "HUMAN"): "PROMOTE",
        ("dismissed", "SYSTEM"): "REJECT",
        ("dismissed", "HUMAN"): "PROMOTE",
    }
    assert judge(pinned("default"), inputs(severity=Severity.SEV4))[0].outcome is Outcome.DEFER
    assert judge(pinned("default"), inputs(confidence=Decimal("0.79")))[0].outcome is Outcome.DEFER


def test_a_person_may_ask_for_whatever_the_default_policy_holds_back() -> None:
    held: dict[str, Any] = {"severity": Severity.SEV4, "confidence": Decimal(0), "detections": 0, "maintenance": "w-1"}
    assert judge(pinned("default"), inputs(**held))[0].outcome is Outcome.SUPPRESS
    assert judge(pinned("default"), inputs(**held, requested_by_human=True))[0].outcome is Outcome.PROMOTE


def test_a_policy_names_its_file_and_its_version() -> None:
    for path in POLICY_FILES:
        document = parse_document(path.read_bytes())
        assert path.name == f"{document['policyId']}.v{document['version']}.json"
        assert Policies.load([document]).pinned.keys() == {(document["policyId"], document["version"])}


def test_pending_incidents_keep_their_key_for_seven_days_unless_a_policy_says_otherwise() -> None:
    assert Policy(policy_id="any", version=1).pending_expires.days == 7
