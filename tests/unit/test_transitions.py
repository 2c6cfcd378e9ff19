"""The state machine: every state × state × authority, and the words around it."""

from itertools import product

import pytest

from pipeline.domain.commands import ChangeState
from pipeline.domain.decisions import Accepted, Gate, decide_command
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.transitions import (
    HOLDS_KEY,
    SEVERITY_MUTABLE,
    TRANSITIONS,
    UNCONTROLLED,
    AuthorityType,
    EventType,
    Severity,
    State,
    more_severe,
    transition,
    transitions_from,
)
from tests.support.histories import ACTORS, INCIDENT_ID, POLICIES, incident_in

# The specification's table, copied by hand: (from, to) → who. All the rest is refused.
SPECIFIED = {
    ("PENDING", "OPEN"): "SYSTEM",
    ("OPEN", "MITIGATING"): "HUMAN SYSTEM",
    ("MITIGATING", "RESOLVED"): "HUMAN",
    ("RESOLVED", "CLOSED"): "HUMAN",
    ("OPEN", "CANCELLED"): "HUMAN",
    ("CLOSED", "ARCHIVED"): "SYSTEM",
}
EVERY_CASE = list(product(State, State, AuthorityType))


def test_the_table_is_the_specified_one() -> None:
    assert {(row.source, row.target): " ".join(sorted(row.authorities)) for row in TRANSITIONS} == SPECIFIED
    assert [len(State), len(TRANSITIONS), len(EventType), len(Severity)] == [7, 6, 12, 4]


@pytest.mark.parametrize(("source", "target", "kind"), EVERY_CASE, ids=lambda value: value.value)
def test_a_state_changes_exactly_where_the_table_says_so(source: State, target: State, kind: AuthorityType) -> None:
    decision = _change(source, target, kind)
    who = SPECIFIED.get((source, target))
    if who is None:
        assert isinstance(decision, Refusal)
        assert (decision.code, decision.status) == (Code.TRANSITION_ILLEGAL, 409)
    elif kind not in who.split() or (source, target) == ("PENDING", "OPEN"):
        # Opening is the gate's alone: even SYSTEM can't do it by a command.
        assert isinstance(decision, Refusal)
        assert (decision.code, decision.status) == (Code.TRANSITION_AUTHORITY, 403)
    else:
        assert isinstance(decision, Accepted)
        (change,) = decision.changes
        row = transition(source, target)
        assert row is not None
        assert (change.new_state, change.fact.event_type, change.actor) == (target, row.event_type, ACTORS[kind])


@pytest.mark.parametrize("source", State)
def test_a_refusal_says_the_state_and_what_is_allowed(source: State) -> None:
    decision = _change(source, source, AuthorityType.HUMAN)
    assert isinstance(decision, Refusal)
    assert decision.incident_id == INCIDENT_ID
    assert decision.state == source.value
    assert set(decision.allowed) == {target for origin, target in SPECIFIED if origin == source}


def _change(source: State, target: State, kind: AuthorityType) -> object:
    command = ChangeState(incident_id=INCIDENT_ID, new_state=target, reason="because")
    return decide_command(command, incident_in(source), ACTORS[kind], Gate(POLICIES))


@pytest.mark.parametrize("state", [State.CANCELLED, State.ARCHIVED])
def test_a_terminal_state_has_no_way_out(state: State) -> None:
    assert transitions_from(state) == ()


def test_every_state_but_the_first_is_reached_and_nothing_returns() -> None:
    seen, frontier = set(), [State.PENDING]
    while frontier:
        state = frontier.pop()
        assert state not in seen, "a cycle or a second way"
        seen.add(state)
        frontier += [row.target for row in transitions_from(state)]
    assert seen == set(State)


def test_leaving_a_decision_to_a_person_needs_a_reason() -> None:
    with_reason = {row.target.value for row in TRANSITIONS if row.needs_reason}
    assert with_reason == {"RESOLVED", "CLOSED", "CANCELLED"}


def test_severity_stays_open_as_long_as_the_key_is_held() -> None:
    assert {state.value for state in HOLDS_KEY} == {"PENDING", "OPEN", "MITIGATING"}
    assert {state.value for state in SEVERITY_MUTABLE} == {"PENDING", "OPEN", "MITIGATING"}


def test_evidence_notes_links_and_deferred_promotions_leave_control_alone() -> None:
    assert {kind.value for kind in UNCONTROLLED} == {"EvidenceAttached", "NoteAdded", "IncidentLinked", "PromotionDecided"}


def test_sev1_is_the_most_severe() -> None:
    assert [more_severe(Severity.SEV1, other) for other in Severity] == [False, True, True, True]
    assert [more_severe(other, Severity.SEV3) for other in Severity] == [True, True, False, False]
