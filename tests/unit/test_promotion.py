"""The promotion gate: each condition passing, failing and waived; the first that fails decides."""

from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.canonical import digest, parse_document
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.promotion import (
    Condition,
    GateDecision,
    GateInputs,
    Outcome,
    PinnedPolicy,
    Policies,
    Policy,
    Verdict,
    judge,
)
from pipeline.domain.transitions import AuthorityType, Severity
from tests.support.clock import NOW
from tests.support.histories import POLICIES, POLICY_FILES, pinned

STRICT: dict[str, Any] = {
    "policyId": "strict",
    "version": 1,
    "minimumConfidence": Decimal("0.8"),
    "allowedSeverities": ("SEV1", "SEV2"),
    "minimumDetections": 3,
    "allowedAuthorityTypes": ("SYSTEM",),
}


def policy(**fields: Any) -> PinnedPolicy:
    found = Policies.load([STRICT | fields]).newest("strict")
    assert isinstance(found, PinnedPolicy)
    return found


def inputs(**fields: Any) -> GateInputs:
    known: dict[str, Any] = {
        "confidence": Decimal("0.8"),
        "severity": Severity.SEV2,
        "detections": 3,
        "newest_observed_at": NOW,
        "authority_type": AuthorityType.SYSTEM,
    }
    return GateInputs(**(known | fields))


ALL = ("authority", "severity", "confidence", "detections")
HUMAN = AuthorityType.HUMAN
BAD: dict[str, Any] = {"severity": Severity.SEV3, "confidence": Decimal("0.79"), "detections": 2}
JUDGED: dict[str, Any] = {
    "everything at its edge": ({}, (), Outcome.PROMOTE, None, "PPPP"),
    "above every edge": (
        {"confidence": Decimal(1), "detections": 9, "severity": Severity.SEV1},
        (),
        Outcome.PROMOTE,
        None,
        "PPPP",
    ),
    "too unsure": ({"confidence": Decimal("0.7999")}, (), Outcome.DEFER, "confidence", "PPFP"),
    "too few": ({"detections": 2}, (), Outcome.DEFER, "detections", "PPPF"),
    "too mild": ({"severity": Severity.SEV3}, (), Outcome.DEFER, "severity", "PFPP"),
    "wrong authority": ({"authority_type": HUMAN}, (), Outcome.REJECT, "authority", "FPPP"),
    "all wrong, the first decides": (BAD | {"authority_type": HUMAN}, (), Outcome.REJECT, "authority", "FFFF"),
    "all but authority wrong": (BAD, (), Outcome.DEFER, "severity", "PFFF"),
    "waivable, but nobody asks": (BAD, ALL, Outcome.DEFER, "severity", "PFFF"),
    "waived by a person": (BAD | {"requested_by_human": True}, ALL, Outcome.PROMOTE, None, "PWWW"),
    "a person asks where nothing is waivable": (BAD | {"requested_by_human": True}, (), Outcome.DEFER, "severity", "PFFF"),
    "a person asks, one is not waivable": (
        BAD | {"requested_by_human": True},
        ("severity", "detections"),
        Outcome.DEFER,
        "confidence",
        "PWFW",
    ),
    "authority is never waived": (
        {"authority_type": HUMAN, "requested_by_human": True},
        ALL,
        Outcome.REJECT,
        "authority",
        "FPPP",
    ),
    "what passes is not waived": ({"requested_by_human": True}, ALL, Outcome.PROMOTE, None, "PPPP"),
}
LETTERS = {"P": Verdict.PASSED, "F": Verdict.FAILED, "W": Verdict.WAIVED}


@pytest.mark.parametrize("case", JUDGED.values(), ids=JUDGED.keys())
def test_the_gate_evaluates_all_conditions_and_the_first_failing_one_decides(case: Any) -> None:
    fields, waivable, outcome, rule, verdicts = case
    decision, trace = judge(policy(humanMayWaive=waivable), inputs(**fields))
    assert (decision.outcome, decision.rule) == (outcome, rule)
    assert [check.verdict for check in trace] == [LETTERS[letter] for letter in verdicts]
    assert [check.condition.value for check in trace] == list(ALL) == [condition.value for condition in Condition]


def test_a_recorded_decision_recomputes_to_the_same_outcome_and_trace() -> None:
    under = policy()
    for fields in (case[0] for case in JUDGED.values()):
        decision, trace = judge(under, inputs(**fields))
        recorded = GateDecision.model_validate(decision.to_document())
        assert judge(under, recorded.inputs) == (decision, trace)


def test_a_trace_says_what_was_wanted_and_what_was_seen() -> None:
    _, trace = judge(policy(), inputs(confidence=Decimal("0.5")))
    assert [(check.wanted, check.saw) for check in trace] == [
        ("SYSTEM", "SYSTEM"),
        ("SEV1 or SEV2", "SEV2"),
        ("at least 0.8", "0.5"),
        ("at least 3", "3"),
    ]


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


MALFORMED: dict[str, Any] = {
    "an unknown field": {"cooldown": 5},
    "an unknown condition": {"humanMayWaive": ("killSwitch",)},
    "an unknown severity": {"allowedSeverities": ("SEV9",)},
    "confidence above one": {"minimumConfidence": Decimal("1.1")},
    "version zero": {"version": 0},
    "pending for no time": {"pendingExpiresS": 0},
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_policy_that_cannot_be_read_judges_nothing(fields: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        Policies.load([STRICT | fields])


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


def test_a_policy_names_its_file_and_its_version() -> None:
    for path in POLICY_FILES:
        document = parse_document(path.read_bytes())
        assert path.name == f"{document['policyId']}.v{document['version']}.json"
        assert Policies.load([document]).pinned.keys() == {(document["policyId"], document["version"])}


def test_pending_incidents_keep_their_key_for_seven_days_unless_a_policy_says_otherwise() -> None:
    assert Policy(policy_id="any", version=1).pending_expires.days == 7
