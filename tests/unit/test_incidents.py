"""Folding: an incident is what its history says, in bounded space, and `evolve` judges nothing."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest

from pipeline.domain.base import read
from pipeline.domain.canonical import canonical_bytes, parse_document
from pipeline.domain.envelope import GENESIS_HASH, Change, IncidentEvent, event_hash
from pipeline.domain.events import (
    Attachment,
    Evidence,
    EvidenceAttached,
    IncidentLinked,
    ObservationKind,
    Relation,
    Relationship,
)
from pipeline.domain.ids import event_id, incident_id
from pipeline.domain.incidents import INCIDENT, NEWEST_MAX, RELATED_MAX, Incident, advance, evolve
from pipeline.domain.transitions import Severity, State
from tests.support.audit import audit_history, fold
from tests.support.clock import NOW
from tests.support.histories import (
    HUMAN,
    INCIDENT_ID,
    OTHER_ID,
    ROOT,
    STATE_PATHS,
    SYSTEM,
    change,
    incident_in,
    observation,
    whole_life,
)

SUMMARY: dict[str, Any] = {"service": "checkout", "severity": Severity.SEV2, "title": "5xx above 5 %"}


def attachment(*refs: str, **seen: Any) -> Change:
    items = tuple(Evidence(kind="log", ref=ref) for ref in refs) or None
    kind = seen.pop("kind", ObservationKind.FIRING)
    fact = Attachment(**SUMMARY, observation=observation(kind, **seen) if seen else None, evidence=items)
    return Change(EvidenceAttached(metadata=fact), SYSTEM, State.OPEN)


def after(given: Incident, *changes: Change) -> Incident:
    return advance(given, INCIDENT_ID, changes, NOW)[1]


@pytest.mark.parametrize("state", State)
def test_the_shortest_history_leads_to_each_state(state: State) -> None:
    incident = incident_in(state)
    assert incident.state is state
    assert incident.version == len(STATE_PATHS[state].split())
    assert read(INCIDENT, incident.to_document()) == incident


@pytest.mark.parametrize("history", whole_life(), ids=["to ARCHIVED", "to CANCELLED"])
def test_a_whole_life_is_an_intact_history(history: tuple[IncidentEvent, ...]) -> None:
    audit_history([event.to_document() for event in history])


def test_the_fold_of_a_whole_life_is_the_recorded_row() -> None:
    golden = (ROOT / "tests" / "golden" / "rows" / "Incident.v1.json").read_bytes()
    folded = fold([event.to_document() for event in whole_life()[0]])
    assert canonical_bytes(folded.to_document()) + b"\n" == golden
    assert read(INCIDENT, parse_document(golden)) == folded


def test_a_history_starts_with_a_creation() -> None:
    _, second, *_ = whole_life()[0]
    with pytest.raises(ValueError, match="IncidentCreated"):
        evolve(None, second)
    with pytest.raises(ValueError, match="no change"):
        advance(None, INCIDENT_ID, (), NOW)


def test_control_version_and_authority_are_those_of_the_last_event_that_moved_control() -> None:
    given = incident_in(State.OPEN)
    assert (given.version, given.control_version, given.authority.actor_id) == (2, 2, "promotion-gate")
    more = after(given, attachment("a"), attachment("b"))
    assert (more.version, more.control_version, more.authority) == (4, 2, given.authority)
    moved = after(more, change("mitigated"))
    assert (moved.version, moved.control_version, moved.authority) == (5, 5, HUMAN)


def test_the_newest_references_and_their_count_are_kept_and_nothing_more() -> None:
    given = incident_in(State.OPEN)
    stormed = after(given, *(attachment(f"r-{number}") for number in range(50)), attachment("x", "y"))
    assert stormed.metadata.evidence.count == 52
    assert stormed.metadata.evidence.newest == ("x", "y")
    assert len(stormed.metadata.evidence.newest) == NEWEST_MAX
    fewer = after(given, *(attachment(f"r-{number}") for number in range(10)), attachment("x", "y"))
    assert len(canonical_bytes(stormed.to_document())) - len(canonical_bytes(fewer.to_document())) <= 3


def test_the_newest_relations_are_kept_and_nothing_more() -> None:
    targets = [incident_id("checkout", f"k-{number}", 1) for number in range(30)]
    links = (
        Change(
            IncidentLinked(metadata=Relationship(**SUMMARY, relation=Relation.CAUSED_BY, target=target)), HUMAN, State.OPEN
        )
        for target in targets
    )
    related = after(incident_in(State.OPEN), *links).metadata.related
    assert related is not None
    assert [one.target for one in related] == targets[-RELATED_MAX:]


def test_trouble_accumulates_and_a_recovery_does_not_count() -> None:
    given = incident_in(State.OPEN)
    seen = after(
        given,
        attachment(confidence=Decimal("0.9"), detections=3, observed_at=NOW + timedelta(minutes=2)),
        attachment(confidence=Decimal("0.2"), detections=4, observed_at=NOW - timedelta(minutes=2)),
        attachment(kind=ObservationKind.RECOVERY, confidence=Decimal(1), detections=9, observed_at=NOW + timedelta(days=1)),
    ).metadata
    assert (seen.promotion.confidence, seen.promotion.detections) == (Decimal("0.9"), 8)
    assert seen.promotion.newest_observed_at == NOW + timedelta(minutes=2)
    assert seen.evidence.last_observation is ObservationKind.RECOVERY


@pytest.mark.parametrize("state", [State.RESOLVED, State.CANCELLED])
def test_an_ending_remembers_when_and_why(state: State) -> None:
    ending = incident_in(state).metadata.resolution
    assert ending is not None
    assert (ending.at, bool(ending.reason)) == (NOW, True)
    assert incident_in(State.OPEN).metadata.resolution is None


def test_closing_does_not_move_the_ending() -> None:
    given = incident_in(State.RESOLVED)
    closed = advance(given, INCIDENT_ID, [change("closed")], NOW + timedelta(days=3))[1]
    assert closed.metadata.resolution == given.metadata.resolution
    assert closed.updated_at == NOW + timedelta(days=3)
    assert closed.created_at == NOW


def test_events_are_numbered_chained_and_named_by_their_place() -> None:
    events, incident = advance(None, OTHER_ID, [change("created"), change("opened"), change("mitigated")], NOW)
    assert [event.sequence for event in events] == [1, 2, 3]
    assert events[0].previous_hash == GENESIS_HASH
    assert all(after.previous_hash == before.hash for before, after in pairwise(events))
    assert [event.event_id for event in events] == [event_id(OTHER_ID, number) for number in (1, 2, 3)]
    assert all(event.hash == event_hash(event.to_document()) for event in events)
    assert (incident.version, incident.last_event_hash) == (3, events[-1].hash)


def test_time_never_runs_backwards_within_an_incident() -> None:
    given = incident_in(State.OPEN)
    jumps = [timedelta(hours=-5), timedelta(0), timedelta(minutes=1), timedelta(days=-400)]
    stamps = []
    for jump in jumps:
        (event,), given = advance(given, INCIDENT_ID, [attachment("r")], NOW + jump)
        stamps.append(event.timestamp)
    assert stamps == [NOW, NOW, NOW + timedelta(minutes=1), NOW + timedelta(minutes=1)]


def test_the_same_changes_at_the_same_time_are_the_same_bytes() -> None:
    one, other = (advance(None, INCIDENT_ID, [change("created"), change("opened")], NOW) for _ in range(2))
    assert [canonical_bytes(event.to_document()) for event in one[0]] == [
        canonical_bytes(event.to_document()) for event in other[0]
    ]
    assert one[1] == other[1]


def test_usual_rows_and_events_are_small() -> None:
    events, incident = advance(None, INCIDENT_ID, [change("created"), change("opened")], NOW)
    assert len(canonical_bytes(incident.to_document())) <= 1024
    assert [len(canonical_bytes(event.to_document())) <= 2048 for event in events] == [True, True]


def test_an_ending_is_by_the_deciding_hosts_clock_where_an_earlier_hosts_ran_ahead() -> None:
    ahead = NOW + timedelta(days=1)
    given = incident_in(State.MITIGATING)
    events, noted = advance(given, given.incident_id, [replace(attachment("r"), new_state=State.MITIGATING)], ahead)
    assert events[0].decided_at is None
    (resolved,), after_all = advance(noted, given.incident_id, [change("resolved")], NOW)
    assert (resolved.timestamp, resolved.decided_at) == (ahead, NOW), "time never runs backwards in a history"
    assert after_all.metadata.resolution is not None
    assert after_all.metadata.resolution.at == NOW
    assert event_hash(resolved.to_document()) == resolved.hash
    assert IncidentEvent.from_document(resolved.to_document()) == resolved
