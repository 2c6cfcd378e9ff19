"""The promotion gate: each condition at its edge; the first that fails decides, and whoever asks again gets the same."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import combinations
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.domain.base import read
from pipeline.domain.canonical import parse_document
from pipeline.domain.promotion import (
    Condition,
    GateDecision,
    GateInputs,
    Outcome,
    PinnedPolicy,
    Policies,
    Verdict,
    judge,
)
from pipeline.domain.transitions import AuthorityType, Severity
from tests.support.clock import NOW
from tests.support.histories import POLICIES, ROOT, pinned

SYSTEM, HUMAN = AuthorityType.SYSTEM, AuthorityType.HUMAN
SEV1, SEV2, SEV3, SEV4 = Severity
PASSED, FAILED, WAIVED = Verdict
TICK = timedelta(microseconds=1)
HALF_AN_HOUR = timedelta(seconds=1800)

# Every condition is set; `inputs` without fields meets each exactly at its edge.
STRICT: dict[str, Any] = {
    "policyId": "strict",
    "version": 1,
    "minimumConfidence": Decimal("0.8"),
    "allowedSeverities": ("SEV1", "SEV2"),
    "minimumDetections": 3,
    "maximumAgeS": 600,
    "cooldownS": 1800,
    "allowedAuthorityTypes": ("SYSTEM",),
}
BOTH = ("HUMAN", "SYSTEM")


def policy(**fields: Any) -> PinnedPolicy:
    found = Policies.load([STRICT | fields]).newest("strict")
    assert isinstance(found, PinnedPolicy)
    return found


def inputs(**fields: Any) -> GateInputs:
    known: dict[str, Any] = {
        "confidence": Decimal("0.8"),
        "severity": SEV2,
        "detections": 3,
        "newest_observed_at": NOW,
        "authority_type": SYSTEM,
        "age_s": 600,
        "key_ended_at": NOW - HALF_AN_HOUR,
        "controls": "c" * 64,
    }
    return GateInputs(**(known | fields))


def verdicts(pinned: PinnedPolicy, seen: GateInputs) -> dict[Condition, Verdict]:
    return {check.condition: check.verdict for check in judge(pinned, seen)[1]}


# --- one condition at a time --------------------------------------------------------------------------------------------

OVERRIDE = {"severityAuthorityTypes": {"SEV1": ("HUMAN",)}}
WIDER = {"severityAuthorityTypes": {"SEV2": BOTH}}
ELSEWHERE = {"severityAuthorityTypes": {"SEV3": ("HUMAN",)}}
NOT_ASKED: dict[str, Any] = {"cooldownS": ..., "maximumAgeS": ...}
# (what is seen, what is seen of it in the policy, whether the condition holds)
EDGES: list[tuple[Condition, dict[str, Any], dict[str, Any], bool]] = [
    (Condition.KILL_SWITCH, {}, {}, True),
    (Condition.KILL_SWITCH, {"controls": None}, {}, True),
    (Condition.KILL_SWITCH, {"paused": "*"}, {}, False),
    (Condition.KILL_SWITCH, {"paused": "checkout"}, {}, False),
    (Condition.AUTHORITY, {"authority_type": HUMAN}, {}, False),
    (Condition.AUTHORITY, {"authority_type": HUMAN, "authority_types": (HUMAN,)}, {}, False),
    (Condition.AUTHORITY, {"authority_type": HUMAN, "authority_types": (HUMAN, SYSTEM)}, {}, True),
    (Condition.AUTHORITY, {"authority_types": (HUMAN,)}, {}, True),
    (Condition.AUTHORITY, {"authority_type": HUMAN}, {"allowedAuthorityTypes": BOTH}, True),
    (Condition.AUTHORITY, {"severity": SEV1}, OVERRIDE, False),
    (Condition.AUTHORITY, {"severity": SEV1, "authority_type": HUMAN}, OVERRIDE, True),
    (Condition.AUTHORITY, {"severity": SEV1, "authority_types": (HUMAN, SYSTEM)}, OVERRIDE, True),
    (Condition.AUTHORITY, {}, OVERRIDE, True),
    (Condition.AUTHORITY, {"authority_type": HUMAN}, OVERRIDE, False),
    (Condition.AUTHORITY, {"authority_type": HUMAN}, WIDER, True),
    (Condition.AUTHORITY, {"severity": SEV1, "authority_type": HUMAN}, WIDER, False),
    (Condition.AUTHORITY, {"authority_type": HUMAN}, ELSEWHERE, False),
    (Condition.MAINTENANCE, {"detections": 0}, {}, True),
    (Condition.MAINTENANCE, {"maintenance": "w-1", "detections": 0}, {}, False),
    (Condition.MAINTENANCE, {"maintenance": "w-1", "detections": 1}, {}, True),
    (Condition.COOLDOWN, {"key_ended_at": None}, {}, True),
    (Condition.COOLDOWN, {"key_ended_at": NOW - HALF_AN_HOUR - TICK}, {}, True),
    (Condition.COOLDOWN, {"key_ended_at": NOW - HALF_AN_HOUR + TICK}, {}, False),
    (Condition.COOLDOWN, {"key_ended_at": NOW}, {}, False),
    (Condition.COOLDOWN, {"key_ended_at": NOW + HALF_AN_HOUR}, {}, False),
    (Condition.COOLDOWN, {"key_ended_at": NOW}, NOT_ASKED, True),
    (Condition.COOLDOWN, {"newest_observed_at": NOW - TICK}, {}, False),
    (Condition.AGE, {"age_s": None}, {}, True),
    (Condition.AGE, {"age_s": 0}, {}, True),
    (Condition.AGE, {"age_s": 601}, {}, False),
    (Condition.AGE, {"age_s": 10**6}, NOT_ASKED, True),
    (Condition.SEVERITY, {"severity": SEV1}, {}, True),
    (Condition.SEVERITY, {"severity": SEV3}, {}, False),
    (Condition.SEVERITY, {"severity": SEV4}, {"allowedSeverities": ...}, True),
    (Condition.CONFIDENCE, {"confidence": Decimal(1)}, {}, True),
    (Condition.CONFIDENCE, {"confidence": Decimal("0.79999999")}, {}, False),
    (Condition.CONFIDENCE, {"confidence": Decimal(0)}, {"minimumConfidence": ...}, True),
    (Condition.DETECTIONS, {"detections": 4}, {}, True),
    (Condition.DETECTIONS, {"detections": 2}, {}, False),
    (Condition.DETECTIONS, {"detections": 1}, {"minimumDetections": ...}, True),
    (Condition.DETECTIONS, {"detections": 0}, {"minimumDetections": ...}, False),
]
ON_FAILURE = {
    Condition.KILL_SWITCH: Outcome.SUPPRESS,
    Condition.AUTHORITY: Outcome.REJECT,
    Condition.MAINTENANCE: Outcome.SUPPRESS,
    Condition.COOLDOWN: Outcome.SUPPRESS,
    Condition.AGE: Outcome.REJECT,
    Condition.SEVERITY: Outcome.DEFER,
    Condition.CONFIDENCE: Outcome.DEFER,
    Condition.DETECTIONS: Outcome.DEFER,
}


@pytest.mark.parametrize(("condition", "fields", "own", "holds"), EDGES)
def test_a_condition_holds_exactly_up_to_its_edge(condition: Any, fields: Any, own: Any, holds: bool) -> None:
    asked = {name: value for name, value in (STRICT | own).items() if value is not ...}
    under = Policies.load([asked]).pinned["strict", 1]
    decision, _ = judge(under, inputs(**fields))
    assert verdicts(under, inputs(**fields))[condition] is (PASSED if holds else FAILED)
    if not holds:
        assert (decision.rule, decision.outcome) == (condition, ON_FAILURE[condition])
    else:
        assert decision.rule is not condition


def test_what_is_exactly_at_every_edge_is_promoted() -> None:
    decision, trace = judge(policy(), inputs())
    assert (decision.outcome, decision.rule) == (Outcome.PROMOTE, None)
    assert {check.verdict for check in trace} == {PASSED}


# --- all conditions together --------------------------------------------------------------------------------------------

# What makes each condition fail. During maintenance nothing counts, so there the number fails as well.
FAILING: dict[Condition, dict[str, Any]] = {
    Condition.KILL_SWITCH: {"paused": "*"},
    Condition.AUTHORITY: {"authority_type": HUMAN},
    Condition.MAINTENANCE: {"maintenance": "w-1", "detections": 0},
    Condition.COOLDOWN: {"key_ended_at": NOW},
    Condition.AGE: {"age_s": 601},
    Condition.SEVERITY: {"severity": SEV3},
    Condition.CONFIDENCE: {"confidence": Decimal("0.79")},
    Condition.DETECTIONS: {"detections": 2},
}
WAIVABLE = tuple(condition.value for condition in Condition if condition not in (Condition.KILL_SWITCH, Condition.AUTHORITY))


def mixtures() -> Iterator[tuple[set[Condition], dict[str, Any]]]:
    """Yield every set of conditions that can fail together, with the inputs that make exactly these fail."""
    for number in range(len(Condition) + 1):
        for chosen in combinations(Condition, number):
            fields: dict[str, Any] = {}
            for condition in reversed(chosen):
                fields |= FAILING[condition]
            failing = set(chosen) | ({Condition.DETECTIONS} if Condition.MAINTENANCE in chosen else set())
            yield failing, fields


def first_of(conditions: Iterable[Condition]) -> Condition | None:
    return next((condition for condition in ON_FAILURE if condition in conditions), None)


def test_the_gate_evaluates_all_conditions_in_their_order_and_the_first_failing_one_decides() -> None:
    under, seen = policy(), 0
    for failing, fields in mixtures():
        decision, trace = judge(under, inputs(**fields))
        assert [check.condition for check in trace] == list(ON_FAILURE) == list(Condition)
        assert {check.condition for check in trace if check.verdict is FAILED} == failing
        first = first_of(failing)
        assert decision.rule is first
        assert decision.outcome is (ON_FAILURE[first] if first else Outcome.PROMOTE)
        seen += 1
    assert seen == 2 ** len(Condition)


@pytest.mark.parametrize("waivable", [(), *((name,) for name in WAIVABLE), WAIVABLE], ids="+".join)
@pytest.mark.parametrize("asked", [True, False], ids=["a person asks", "nobody asks"])
def test_only_a_person_who_asks_waives_and_only_what_the_policy_lets_them(waivable: tuple[str, ...], asked: bool) -> None:
    under = policy(humanMayWaive=waivable)
    for failing, fields in mixtures():
        seen = inputs(**fields, requested_by_human=asked)
        waived = {condition for condition in failing if asked and condition.value in waivable}
        decision, trace = judge(under, seen)
        assert {check.condition for check in trace if check.verdict is WAIVED} == waived, "what passes is not waived"
        assert {check.condition for check in trace if check.verdict is FAILED} == failing - waived
        assert decision.rule is first_of(failing - waived)
        if failing & {Condition.KILL_SWITCH, Condition.AUTHORITY}:
            assert decision.outcome is not Outcome.PROMOTE, "never waived"


# --- what is recorded ---------------------------------------------------------------------------------------------------

DECISION = TypeAdapter(GateDecision)


def test_a_recorded_decision_recomputes_to_the_same_outcome_and_trace() -> None:
    under = policy(humanMayWaive=WAIVABLE)
    for _, fields in mixtures():
        for asked in (False, True):
            decision, trace = judge(under, inputs(**fields, requested_by_human=asked))
            recorded = read(DECISION, decision.to_document())
            assert recorded == decision
            assert judge(under, recorded.inputs) == (decision, trace)


GOLDEN = [(generation, kind) for generation in ("v1", "v2") for kind in ("PromotionDecided", "IncidentOpened")]


@pytest.mark.parametrize(("generation", "kind"), GOLDEN)
def test_every_stored_decision_of_every_generation_recomputes_to_its_bytes(generation: str, kind: str) -> None:
    stored = parse_document((ROOT / "tests" / "golden" / "events" / f"{kind}.{generation}.json").read_bytes())
    document = stored["metadata"]["decision"]
    recorded = read(DECISION, document)
    under = POLICIES.recorded(recorded)
    assert under is not None
    again, trace = judge(under, recorded.inputs)
    assert again.to_document() == document
    assert [check.condition for check in trace] == list(Condition), "conditions that came later pass where nothing is known"
    assert recorded.rule in (None, *Condition)


def test_inputs_that_are_not_given_are_not_stored() -> None:
    """Else an old event, read and written again, would be another."""
    least = GateInputs(
        confidence=Decimal(1), severity=SEV2, detections=1, newest_observed_at=NOW, authority_type=SYSTEM
    ).to_document()
    assert set(least) == {
        "confidence",
        "severity",
        "detections",
        "newestObservedAt",
        "authorityType",
        "requestedByHuman",
    }


def test_a_trace_says_what_was_wanted_and_what_was_seen() -> None:
    _, trace = judge(policy(), inputs(confidence=Decimal("0.5"), paused="check*", authority_types=(HUMAN, SYSTEM)))
    assert [(check.condition.value, check.wanted, check.saw) for check in trace] == [
        ("kill-switch", "not paused", "paused: check*"),
        ("authority", "SYSTEM", "HUMAN and SYSTEM"),
        ("maintenance", "something observed outside maintenance", "something"),
        ("cooldown", "observed at least 1800 s after the last ending", "1800 s after it"),
        ("age", "at most 600 s old when sent", "600 s"),
        ("severity", "SEV1 or SEV2", "SEV2"),
        ("confidence", "at least 0.8", "0.5"),
        ("detections", "at least 3", "3"),
    ]


def test_a_trace_says_so_where_a_policy_does_not_ask() -> None:
    _, trace = judge(pinned("default"), inputs(key_ended_at=None, age_s=None, maintenance="w-1", detections=0))
    said = {check.condition: (check.wanted, check.saw) for check in trace}
    assert said[Condition.KILL_SWITCH] == ("not paused", "not paused")
    assert said[Condition.MAINTENANCE] == ("something observed outside maintenance", "only during w-1")
    assert said[Condition.COOLDOWN] == ("any time", "no earlier ending")
    assert said[Condition.AGE] == ("any age", "0 s")
