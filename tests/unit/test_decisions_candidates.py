"""Candidates: given an incident of the key, when this is observed, then exactly these events."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.decisions import NOTHING_OPEN, Accepted, Gate
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.events import (
    Evidence,
    EvidenceAttached,
    IncidentCreated,
    IncidentOpened,
    Link,
    ObservationKind,
    PromotionDecided,
    Report,
    SeverityChanged,
)
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.occurrences import Reported, decide_candidates
from pipeline.domain.promotion import Outcome
from pipeline.domain.transitions import Severity, State
from tests.support.clock import NOW
from tests.support.histories import GATE, HUMAN, INCIDENT_ID, POLICIES, SYSTEM, candidate, incident_in

WEEK = timedelta(days=7)
TICK = timedelta(microseconds=1)
FIRING, RECOVERY, NO_DATA, DECLARATION = ObservationKind
SEV1, SEV2, SEV3, SEV4 = Severity


def types(decision: Any) -> str:
    """Return what a decision does in one line: its events, or why there are none."""
    match decision:
        case Accepted(changes, occurrence):
            line = " ".join(change.fact.event_type.value for change in changes)
            return f"{line} #{occurrence}" if occurrence else line
        case Refusal():
            return decision.code.value
        case _:
            return str(decision.code)


def decide(given: Incident | None, kind: ObservationKind = FIRING, actor: Any = SYSTEM, **fields: Any) -> Any:
    return decide_candidates([Reported(candidate(kind, **fields), actor, "receipt")], given, Gate(POLICIES)).decision


BEGINS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "sure and severe": (FIRING, {}, "IncidentCreated IncidentOpened #1"),
    "just sure enough": (FIRING, {"confidence": Decimal("0.8")}, "IncidentCreated IncidentOpened #1"),
    "unsure": (FIRING, {"confidence": Decimal("0.79")}, "IncidentCreated PromotionDecided #1"),
    "mild": (FIRING, {"severity": SEV4}, "IncidentCreated PromotionDecided #1"),
    "a recovery": (RECOVERY, {}, "NOTHING_OPEN"),
    "no data": (NO_DATA, {}, "NOTHING_OPEN"),
    "an unknown policy": (FIRING, {"policy_id": "made-up"}, "policy-unknown"),
    "a recovery under an unknown policy": (RECOVERY, {"policy_id": "made-up"}, "policy-unknown"),
}


@pytest.mark.parametrize(("kind", "fields", "then"), BEGINS.values(), ids=BEGINS.keys())
def test_a_key_without_history(kind: ObservationKind, fields: Any, then: str) -> None:
    assert types(decide(None, kind, **fields)) == then


E, P, S, UP = "EvidenceAttached", "PromotionDecided", "SeverityChanged", "IncidentOpened"
BEGIN_2 = "IncidentCreated IncidentOpened #2"
UNSURE = {"confidence": Decimal("0.1")}
# (state of the key's newest incident: SEV2, last seen and ended at NOW), what is observed, what happens
WITH_HOLDER: list[tuple[State, ObservationKind, dict[str, Any], str]] = [
    (State.PENDING, FIRING, {}, f"{E} {UP}"),
    (State.PENDING, FIRING, UNSURE, f"{E} {P}"),
    (State.PENDING, FIRING, {"severity": SEV1} | UNSURE, f"{E} {S} {P}"),
    (State.PENDING, FIRING, {"severity": SEV1}, f"{E} {S} {UP}"),
    (State.PENDING, FIRING, {"severity": SEV4}, f"{E} {UP}"),
    (State.PENDING, FIRING, {"observed_at": NOW + WEEK}, f"{E} {UP}"),
    (State.PENDING, FIRING, {"observed_at": NOW + WEEK + TICK}, BEGIN_2),
    (State.PENDING, FIRING, {"observed_at": NOW - WEEK - TICK}, f"{E} {UP}"),
    (State.PENDING, RECOVERY, {}, E),
    (State.PENDING, RECOVERY, {"observed_at": NOW + WEEK + TICK}, E),
    (State.PENDING, RECOVERY, {"severity": SEV1}, E),
    (State.PENDING, FIRING, {"policy_id": "made-up"}, "policy-unknown"),
    (State.OPEN, FIRING, {}, E),
    (State.OPEN, FIRING, {"severity": SEV1}, f"{E} {S}"),
    (State.OPEN, FIRING, {"severity": SEV3}, E),
    (State.OPEN, FIRING, {"observed_at": NOW + WEEK * 52}, E),
    (State.OPEN, RECOVERY, {}, E),
    (State.OPEN, NO_DATA, {"severity": SEV1}, E),
    (State.MITIGATING, FIRING, {"severity": SEV1}, f"{E} {S}"),
    (State.MITIGATING, RECOVERY, {}, E),
]
WITH_HOLDER += [
    row
    for state in (State.RESOLVED, State.CLOSED, State.CANCELLED, State.ARCHIVED)
    for row in (
        (state, FIRING, {"observed_at": NOW}, E),
        (state, FIRING, {"observed_at": NOW - WEEK, "severity": SEV1}, E),
        (state, FIRING, {"observed_at": NOW + TICK}, BEGIN_2),
        (state, FIRING, {"observed_at": NOW + TICK} | UNSURE, "IncidentCreated PromotionDecided #2"),
        (state, RECOVERY, {"observed_at": NOW}, "NOTHING_OPEN"),
        (state, RECOVERY, {"observed_at": NOW + TICK}, "NOTHING_OPEN"),
        (state, NO_DATA, {}, "NOTHING_OPEN"),
    )
]


@pytest.mark.parametrize(("state", "kind", "fields", "then"), WITH_HOLDER)
def test_a_key_with_an_incident(state: State, kind: ObservationKind, fields: Any, then: str) -> None:
    assert types(decide(incident_in(state), kind, **fields)) == then


def test_a_creation_carries_all_that_rebuilds_incident_and_pointer() -> None:
    links, evidence = (Link(rel="runbook", href="https://h"),), (Evidence(kind="log", ref="r"),)
    decision = decide(None, links=links, evidence=evidence, tags={"a": 1}, description="d", detections=4)
    created, opened = decision.changes
    assert isinstance(created.fact, IncidentCreated)
    born = created.fact.metadata
    assert (born.service, born.severity, born.title, born.description) == ("checkout", SEV2, "5xx above 5 %", "d")
    assert (born.dedup_key, born.occurrence, born.predecessor, born.policy_id) == ("checkout-5xx", 1, None, "default")
    assert (born.links, born.evidence, born.tags, born.observation.detections) == (links, evidence, {"a": 1}, 4)
    assert (created.new_state, created.actor) == (State.PENDING, SYSTEM)
    assert (opened.new_state, opened.actor) == (State.OPEN, GATE)


def test_the_next_occurrence_names_its_predecessor() -> None:
    decision = decide(incident_in(State.RESOLVED), observed_at=NOW + TICK)
    born = decision.changes[0].fact.metadata
    assert (born.occurrence, born.predecessor) == (2, INCIDENT_ID)
    third = replace_occurrence(incident_in(State.CLOSED), 7)
    assert decide(third, observed_at=NOW + TICK).occurrence == 8


def replace_occurrence(incident: Incident, occurrence: int) -> Incident:
    metadata = incident.metadata.model_copy(update={"occurrence": occurrence})
    return incident.model_copy(update={"metadata": metadata})


def test_a_joining_candidate_is_judged_with_what_came_before() -> None:
    decision = decide(incident_in(State.PENDING), confidence=Decimal("0.3"), observed_at=NOW - TICK, detections=4)
    judged = decision.changes[-1].fact
    assert isinstance(judged, PromotionDecided)
    seen = judged.metadata.decision.inputs
    assert (seen.confidence, seen.detections, seen.newest_observed_at) == (Decimal("0.5"), 5, NOW)
    assert seen.severity is SEV2
    assert judged.metadata.decision.outcome is Outcome.DEFER


def test_a_raise_is_judged_at_the_raised_severity_and_recorded_before() -> None:
    mild = incident_in(State.PENDING, severity=SEV4, confidence=Decimal(1))
    attached, raised, opened = decide(mild, severity=SEV1).changes
    assert isinstance(attached.fact, EvidenceAttached)
    assert attached.fact.metadata.severity is SEV4
    assert isinstance(raised.fact, SeverityChanged)
    assert (raised.fact.metadata.previous_severity, raised.fact.metadata.severity) == (SEV4, SEV1)
    assert isinstance(opened.fact, IncidentOpened)
    assert opened.fact.metadata.decision.inputs.severity is SEV1


@pytest.mark.parametrize("holder", Severity)
@pytest.mark.parametrize("reported", Severity)
def test_a_candidate_raises_severity_and_never_lowers_it(holder: Severity, reported: Severity) -> None:
    before = incident_in(State.OPEN, severity=holder)
    decision = decide(before, severity=reported)
    after = advance(before, INCIDENT_ID, decision.changes, NOW)[1]
    assert after.severity is min(holder, reported)


def test_the_severity_of_a_recovery_says_nothing() -> None:
    before = incident_in(State.OPEN, severity=SEV3)
    decision = decide(before, RECOVERY, severity=SEV1)
    assert advance(before, INCIDENT_ID, decision.changes, NOW)[1].severity is SEV3


def test_evidence_after_the_end_changes_neither_state_nor_severity() -> None:
    for state in (State.RESOLVED, State.CLOSED, State.CANCELLED, State.ARCHIVED):
        before = incident_in(state)
        after = advance(before, INCIDENT_ID, decide(before, severity=SEV1).changes, NOW)[1]
        assert (after.state, after.severity, after.control_version) == (state, SEV2, before.control_version)
        assert after.version == before.version + 1


DECLARED: list[tuple[State | None, Any, str]] = [
    (None, HUMAN, "IncidentCreated IncidentOpened #1"),
    (None, SYSTEM, "IncidentCreated PromotionDecided #1"),
    (State.PENDING, HUMAN, f"{E} {UP}"),
    (State.PENDING, SYSTEM, f"{E} {UP}"),
    (State.OPEN, HUMAN, E),
    (State.MITIGATING, HUMAN, E),
    (State.RESOLVED, HUMAN, E),
]


@pytest.mark.parametrize(("state", "actor", "then"), DECLARED, ids=lambda value: getattr(value, "actor_id", None))
def test_a_declaration_promotes_a_persons_word_at_once(state: State | None, actor: Any, then: str) -> None:
    holder = incident_in(state) if state else None
    assert types(decide(holder, DECLARATION, actor, policy_id="declared")) == then


# (policies behind a pending incident and of the joining candidate, severity, its confidence, what happens, whose word it is)
SEVERAL: list[tuple[str, str, Severity, str, str, str]] = [
    ("default", "declared", SEV2, "1", UP, "default"),
    ("declared", "default", SEV2, "1", UP, "default"),
    ("default", "declared", SEV2, "0.1", P, "declared"),
    ("declared", "default", SEV2, "0.1", P, "default"),
    ("default", "default", SEV4, "1", P, "default"),
    ("gone", "default", SEV2, "1", UP, "default"),
    ("gone", "declared", SEV2, "1", P, "declared"),
]


@pytest.mark.parametrize(("behind", "joining", "severity", "confidence", "then", "whose"), SEVERAL)
def test_one_policy_that_promotes_is_enough_and_where_none_does_the_candidates_own_says_why(
    behind: str, joining: str, severity: Severity, confidence: str, then: str, whose: str
) -> None:
    holder = incident_in(State.PENDING, severity=severity)
    promotion = holder.metadata.promotion.model_copy(update={"policy_id": behind})
    holder = holder.model_copy(update={"metadata": holder.metadata.model_copy(update={"promotion": promotion})})
    decision = decide(holder, policy_id=joining, severity=severity, confidence=Decimal(confidence))
    assert types(decision) == f"{E} {then}"
    assert decision.changes[-1].fact.metadata.decision.policy_id == whose


def test_a_policy_once_named_is_judged_under_for_as_long_as_the_incident_waits() -> None:
    """Else it would matter which of two candidates came last."""
    waiting = incident_in(State.PENDING, severity=SEV4)
    named = advance(waiting, INCIDENT_ID, decide(waiting, severity=SEV4, policy_id="declared").changes, NOW)[1]
    assert named.metadata.promotion.policies == ("declared",)
    opened = decide(named, actor=HUMAN, severity=SEV4, confidence=Decimal("0.1")).changes[-1].fact
    assert isinstance(opened, IncidentOpened)
    assert opened.metadata.decision.policy_id == "declared"


def test_opening_is_always_the_gates_act_and_names_the_person_who_asked() -> None:
    for actor, asked in ((HUMAN, HUMAN), (SYSTEM, None)):
        opened = decide(None, actor=actor).changes[-1]
        assert isinstance(opened.fact, IncidentOpened)
        assert (opened.actor, opened.fact.metadata.requested_by) == (GATE, asked)


def test_a_programs_declaration_does_not_keep_later_alarms_of_the_key_from_opening_it() -> None:
    declared = decide(None, DECLARATION, SYSTEM, policy_id="declared")
    _, holder = advance(None, INCIDENT_ID, declared.changes, NOW)
    assert holder.state is State.PENDING
    assert types(decide(holder, severity=SEV1)) == f"{E} {S} {UP}"


def test_a_persons_candidate_waives_nothing_as_long_as_no_promotion_is_requested() -> None:
    for given in (None, incident_in(State.PENDING)):
        judged = decide(given, actor=HUMAN, confidence=Decimal("0.1")).changes[-1].fact
        assert isinstance(judged, PromotionDecided)
        assert not judged.metadata.decision.inputs.requested_by_human


def test_a_policy_that_is_gone_refuses_and_leaves_everything_as_it_was() -> None:
    refusal = decide(incident_in(State.OPEN), policy_id="gone")
    assert isinstance(refusal, Refusal)
    assert refusal.code is Code.POLICY_UNKNOWN


def test_nothing_open_is_one_value() -> None:
    assert decide(None, RECOVERY) is NOTHING_OPEN


def test_a_holder_whose_end_is_not_known_does_not_swallow_candidates() -> None:
    resolved = incident_in(State.RESOLVED)
    nameless = resolved.model_copy(update={"metadata": resolved.metadata.model_copy(update={"resolution": None})})
    assert types(decide(nameless, observed_at=NOW - WEEK)) == BEGIN_2


def test_a_joining_candidate_keeps_its_own_words_where_they_differ() -> None:
    holder = incident_in(State.OPEN)
    own: dict[str, Any] = {
        "severity": SEV4,
        "title": "another view of it",
        "description": "seen from the edge",
        "links": (Link(rel="dashboard", href="https://example.com/edge"),),
        "tags": {"region": "eu"},
    }
    fact = decide(holder, FIRING, **own).changes[0].fact
    assert isinstance(fact, EvidenceAttached)
    assert fact.metadata.report == Report(**own)
    assert (fact.metadata.severity, fact.metadata.title) == (holder.severity, holder.title), "the summary is the incident's"
    same: dict[str, Any] = {"severity": holder.severity, "title": holder.title, "description": "", "links": (), "tags": None}
    silent = decide(holder, FIRING, **same).changes[0].fact
    assert isinstance(silent, EvidenceAttached)
    assert silent.metadata.report is None
