"""One key over time: what is a backlog, what begins again, what waits too long, and what is held back meanwhile."""

import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.decisions import Gate
from pipeline.domain.events import IncidentCreated, Judgement, ObservationKind
from pipeline.domain.incidents import Incident, advance
from pipeline.domain.occurrences import Reported, decide_candidates
from pipeline.domain.promotion import Condition, Outcome
from pipeline.domain.transitions import Severity, State
from tests.support.clock import NOW
from tests.support.histories import HUMAN, INCIDENT_ID, change, incident_in
from tests.support.reports import DAY, OWN_POLICIES, Key, facts, line, names, reported, shuffled

FIRING, RECOVERY, NO_DATA, DECLARATION = ObservationKind
SEV1, SEV2, SEV3, SEV4 = Severity
E, P, S, UP = "EvidenceAttached", "PromotionDecided", "SeverityChanged", "IncidentOpened"
BEGIN = "IncidentCreated IncidentOpened"
ENDED = (State.RESOLVED, State.CLOSED, State.CANCELLED, State.ARCHIVED)
HOUR = timedelta(hours=1)
GATE = Gate(OWN_POLICIES)


def judgement(holder: Incident | None, *batch: Reported, gate: Gate = GATE) -> tuple[Outcome, Condition | None]:
    """Return what the gate says of a batch: the outcome and the condition that decided."""
    last = facts(decide_candidates(batch, holder, gate))[-1].metadata
    assert isinstance(last, Judgement), last
    return last.decision.outcome, last.decision.rule


# --- a batch around an ending -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ENDED)
def test_what_was_seen_up_to_the_ending_is_evidence_and_only_what_is_later_begins_again(state: State) -> None:
    key = Key(incident_in(state), GATE)
    key.take(reported("late", at=0.000001), reported("at", at=0), reported("before", at=-60), reported("later", at=9))
    assert key.lines == [E, f"IncidentCreated {E} {UP} #2"]
    first, second = key.incidents[1], key.incidents[2]
    assert (first.state, first.version) == (state, incident_in(state).version + 1)
    assert (second.state, second.metadata.predecessor) == (State.OPEN, INCIDENT_ID)
    assert first.metadata.promotion.detections == 1 + 2
    assert second.metadata.promotion.detections == 2


def test_an_occurrence_knows_when_its_key_last_ended() -> None:
    resolved = advance(incident_in(State.MITIGATING), INCIDENT_ID, [change("resolved")], NOW + HOUR)[1]
    created = facts(decide_candidates([reported("a", at=7200)], resolved, GATE))[0]
    assert isinstance(created, IncidentCreated)
    assert created.metadata.key_ended_at == NOW + HOUR
    first = facts(decide_candidates([reported("a")], None, GATE))[0]
    assert isinstance(first, IncidentCreated)
    assert first.metadata.key_ended_at is None


@pytest.mark.parametrize("state", [None, *ENDED])
def test_a_recovery_alone_finds_nothing_open(state: State | None) -> None:
    holder = incident_in(state) if state else None
    ruling = decide_candidates([reported("a", RECOVERY, at=1), reported("b", NO_DATA, at=-1)], holder, GATE)
    assert (line(ruling), names(ruling)) == ("NOTHING_OPEN", ["b", "a"])


@pytest.mark.parametrize("state", [None, *ENDED])
def test_a_recovery_that_follows_what_begins_is_evidence_on_it_and_one_before_is_nothing(state: State | None) -> None:
    """As if they had come one by one, in the order in which they were seen."""
    holder = incident_in(state) if state else None
    key = Key(holder, GATE).take(
        reported("over", RECOVERY, at=20), reported("began", at=10), reported("early", RECOVERY, at=5)
    )
    assert key.nothing == ["early"]
    assert key.lines[-1].startswith(f"IncidentCreated {E} {UP}")
    assert key.holder is not None
    assert key.holder.metadata.evidence.last_observation is RECOVERY
    one_by_one = Key(holder, GATE)
    for one in (reported("early", RECOVERY, at=5), reported("began", at=10), reported("over", RECOVERY, at=20)):
        one_by_one.take(one)
    assert one_by_one.nothing == key.nothing


@pytest.mark.parametrize("state", ENDED)
def test_a_recovery_among_a_backlog_is_no_evidence_on_what_has_ended(state: State) -> None:
    key = Key(incident_in(state), GATE).take(reported("a", at=-9), reported("b", RECOVERY, at=-5))
    assert sorted(key.lines) == [E, "NOTHING_OPEN"]
    assert key.nothing == ["b"]


def test_an_unknown_policy_refuses_its_own_candidates_and_no_other() -> None:
    batch = [
        reported("a", policy_id="made-up"),
        reported("b"),
        reported("c", policy_id="gone"),
        reported("d", RECOVERY, policy_id="made-up"),
    ]
    key = Key(None, GATE).take(*batch)
    assert sorted(key.lines) == [f"{BEGIN} #1", "policy-unknown", "policy-unknown"]
    ruling = decide_candidates(batch, None, GATE)
    assert (line(ruling), names(ruling)) == ("policy-unknown", ["a", "d"])


# --- a backlog that finds the next occurrence already there --------------------------------------------------------------


def second_occurrence(**fields: Any) -> Key:
    """Return a key that ended at NOW and began again a minute later."""
    return Key(incident_in(State.RESOLVED), GATE).take(reported("again", at=60, **fields))


@pytest.mark.parametrize("confidence", [Decimal(1), Decimal("0.1")], ids=["open", "waiting"])
def test_a_backlog_behind_an_ending_is_evidence_on_the_next_occurrence_and_moves_nothing(confidence: Decimal) -> None:
    key = second_occurrence(confidence=confidence, severity=SEV3)
    before = key.holder
    assert before is not None
    late = {"severity": SEV1, "detections": 9, "policy_id": "patient", "by": HUMAN, "age_s": 1}
    key.take(reported("late", at=0, **late), reported("later still", at=-3600, **late))  # type: ignore[arg-type]
    assert key.lines[1:] == [E]
    after = key.holder
    assert after is not None
    assert (after.state, after.severity, after.metadata.promotion) == (before.state, SEV3, before.metadata.promotion)
    assert after.version == before.version + 1


def test_what_was_seen_after_the_ending_counts_wherever_it_comes() -> None:
    key = second_occurrence(confidence=Decimal("0.1"))
    key.take(reported("late", at=0), reported("since", at=0.000001))
    assert key.lines[1:] == [f"{E} {UP}"]
    assert key.holder is not None
    assert key.holder.metadata.promotion.detections == 2


def test_the_policy_of_a_backlog_is_not_asked() -> None:
    unsure: dict[str, Any] = {"confidence": Decimal("0.1")}
    key = second_occurrence(**unsure)
    key.take(reported("late", at=0, policy_id="patient"), reported("since", at=70, **unsure))
    assert key.lines[1:] == [f"{E} {P}"]
    assert key.holder is not None
    assert key.holder.metadata.promotion.policies is None


def test_a_declaration_is_heard_whenever_it_was_sent() -> None:
    key = second_occurrence(confidence=Decimal("0.1"))
    key.take(reported("word", DECLARATION, at=-5, by=HUMAN, policy_id="declared"))
    assert key.lines[1:] == [f"{E} {UP}"]


def test_a_backlog_leaves_the_same_behind_whenever_it_comes(rng: random.Random) -> None:
    """Before the next occurrence begins it is evidence on the one that ended; afterwards on the next. Neither moves."""
    batch = [
        reported("late", at=-60, severity=SEV1, detections=5),
        reported("at", at=0, severity=SEV1),
        reported("new", at=60, confidence=Decimal("0.5"), severity=SEV3),
        reported("newer", at=90, severity=SEV4),
    ]
    for _ in range(50):
        order = shuffled(batch, rng)
        key = Key(incident_in(State.RESOLVED, severity=SEV4), GATE)
        while order:
            cut = rng.randrange(1, len(order) + 1)
            key.take(*order[:cut])
            order = order[cut:]
        assert {number: (row.state, row.severity) for number, row in key.incidents.items()} == {
            1: (State.RESOLVED, SEV4),
            2: (State.OPEN, SEV3),
        }
        assert key.incidents[2].metadata.promotion.detections == 2


# --- cooldown -----------------------------------------------------------------------------------------------------------

# (seconds after the ending, what the gate says under a cooldown of half an hour)
COOLING: list[tuple[float, Outcome, Condition | None]] = [
    (0.000001, Outcome.SUPPRESS, Condition.COOLDOWN),
    (1799.999999, Outcome.SUPPRESS, Condition.COOLDOWN),
    (1800, Outcome.PROMOTE, None),
    (7200, Outcome.PROMOTE, None),
]


@pytest.mark.parametrize("state", [State.RESOLVED, State.CANCELLED])
@pytest.mark.parametrize(("after_s", "outcome", "rule"), COOLING)
def test_a_key_that_flaps_waits_for_its_cooldown(state: State, after_s: float, outcome: Any, rule: Any) -> None:
    batch = reported("a", at=after_s, policy_id="damped")
    assert judgement(incident_in(state), batch) == (outcome, rule)
    assert judgement(None, batch) == (Outcome.PROMOTE, None)


def test_the_first_observation_after_the_cooldown_opens_what_was_held() -> None:
    key = Key(incident_in(State.RESOLVED), GATE)
    for seconds in (60, 1700, 1800):
        key.take(reported(str(seconds), at=seconds, policy_id="damped"))
    assert key.lines == [f"IncidentCreated {P} #2", f"{E} {P}", f"{E} {UP}"]
    assert key.incidents[2].metadata.promotion.key_ended_at == NOW, "what was seen until then adds nothing"


def test_a_cooldown_goes_on_behind_an_incident_that_waited_too_long() -> None:
    key = Key(incident_in(State.RESOLVED), GATE)
    for days in (1, 9, 17, 31):
        key.take(reported(str(days), at=NOW + days * DAY, policy_id="damped-for-long"))
    assert key.lines == [f"IncidentCreated {P} #{number}" for number in (2, 3, 4)] + [f"{BEGIN} #5"]
    ended = [key.incidents[number].metadata.promotion.key_ended_at for number in (2, 3, 4)]
    assert ended == [NOW, NOW, NOW], "the last ending, not the last beginning"


def test_an_ending_of_its_own_counts_from_then_on() -> None:
    held = Key(incident_in(State.RESOLVED), GATE).take(reported("a", at=60, policy_id="damped")).holder
    assert held is not None
    cancelled = advance(held, held.incident_id, [change("opened"), change("cancelled")], NOW + HOUR)[1]
    created = facts(decide_candidates([reported("b", at=7200)], cancelled, GATE))[0]
    assert isinstance(created, IncidentCreated)
    assert created.metadata.key_ended_at == NOW + HOUR


# --- waiting too long ---------------------------------------------------------------------------------------------------

# (policies behind the waiting incident, policy of the candidate, days of silence, whether it still joins)
SILENCE: list[tuple[tuple[str, ...], str, timedelta, bool]] = [
    (("default",), "default", 7 * DAY, True),
    (("default",), "default", 7 * DAY + timedelta(microseconds=1), False),
    (("default",), "patient", 14 * DAY, True),
    (("default",), "patient", 14 * DAY + timedelta(microseconds=1), False),
    (("patient",), "default", 14 * DAY, True),
    (("default", "patient"), "default", 14 * DAY, True),
    (("gone",), "default", 7 * DAY, True),
    (("gone",), "default", 8 * DAY, False),
    (("default",), "default", -30 * DAY, True),
]


def waiting_under(*policies: str) -> Incident:
    holder = incident_in(State.PENDING)
    update = {"policy_id": policies[0], "policies": policies[1:] or None}
    promotion = holder.metadata.promotion.model_copy(update=update)
    return holder.model_copy(update={"metadata": holder.metadata.model_copy(update={"promotion": promotion})})


@pytest.mark.parametrize(("behind", "policy", "silence", "joins"), SILENCE)
def test_an_incident_waits_as_long_as_its_most_patient_policy(
    behind: tuple[str, ...], policy: str, silence: timedelta, joins: bool
) -> None:
    ruling = decide_candidates([reported("a", at=NOW + silence, policy_id=policy)], waiting_under(*behind), GATE)
    assert line(ruling).startswith(E if joins else "IncidentCreated")


def test_only_trouble_takes_a_key_from_what_waited_too_long() -> None:
    batch = [reported("a", RECOVERY, at=NOW + 8 * DAY), reported("b", NO_DATA, at=NOW + 9 * DAY)]
    assert line(decide_candidates(batch, incident_in(State.PENDING), GATE)) == f"{E} {E}"


def test_an_open_incident_holds_its_key_for_ever() -> None:
    for state in (State.OPEN, State.MITIGATING):
        assert line(decide_candidates([reported("a", at=NOW + 500 * DAY)], incident_in(state), GATE)) == E


def test_of_a_batch_those_within_the_silence_join_and_the_others_begin_again() -> None:
    unsure: dict[str, Any] = {"confidence": Decimal("0.1"), "severity": SEV4}
    key = Key(incident_in(State.PENDING, severity=SEV4), GATE)
    key.take(*[reported(f"{days:02}", at=NOW + days * DAY, **unsure) for days in (20, 13, 6, 1)])
    # Six days after the first, seven after the second; the last is seven days after the one before it.
    assert key.lines == [f"{E} {P}"] * 3
    key.take(reported("40", at=NOW + 40 * DAY, **unsure), reported("60", at=NOW + 60 * DAY, **unsure))
    assert key.lines[3:] == [f"IncidentCreated {P} #2", f"IncidentCreated {P} #3"], "too far apart for one"
