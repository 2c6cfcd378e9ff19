"""Folding a history and naming whatever in it, or in its row, is not as it should be."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.replay import check_history, compare, fold, verify
from pipeline.domain.transitions import State
from tests.support.doors import Doors, command_message, message
from tests.support.histories import INCIDENT_ID, STATE_PATHS, incident_in, whole_life
from tests.support.streams import sealed

FIRST_LIFE, SECOND_LIFE = (tuple(event.to_document() for event in history) for history in whole_life())
History = tuple[Document, ...]


def row_of(history: History) -> Document:
    folded = fold(history)
    assert folded is not None
    return folded.to_document()


def kinds(history: History, row: Document | None = None) -> list[tuple[str, str]]:
    found = verify(history[0]["incidentId"], history, row if row is not None else row_of(history))
    return [(one.kind, one.where) for one in found]


def rechained(history: History) -> History:
    """Return the history with every hash made right again from the first to the last: only its sense is wrong then."""
    made: list[Document] = []
    for document in history:
        linked = document | ({"previousHash": made[-1]["hash"]} if made else {})
        made.append(sealed(linked))
    return tuple(made)


def with_event(number: int, history: History, **changes: Any) -> History:
    return tuple(document | changes if document["sequence"] == number else document for document in history)


# --- folding ------------------------------------------------------------------------------------------------------------


def test_no_events_fold_into_nothing() -> None:
    assert fold(()) is None
    assert verify(INCIDENT_ID, (), None) == ()


@pytest.mark.parametrize("state", State, ids=str)
def test_the_shortest_history_of_each_state_folds_into_it(state: State) -> None:
    assert STATE_PATHS[state]
    assert incident_in(state).state is state


@pytest.mark.parametrize("history", [FIRST_LIFE[:1], SECOND_LIFE], ids=["creation", "second life"])
def test_folding_goes_through_the_stored_bytes_alone(history: History) -> None:
    assert fold(history) == fold(list(history))
    assert row_of(history)["version"] == len(history)
    assert row_of(history)["lastEventHash"] == history[-1]["hash"]


def test_a_prefix_folds_into_the_past() -> None:
    states = [row_of(SECOND_LIFE[:length])["state"] for length in range(1, len(SECOND_LIFE) + 1)]
    assert states == ["PENDING", "OPEN", "CANCELLED"]


async def test_what_the_doors_stored_verifies() -> None:
    doors = Doors()
    body = {"type": "candidate", "service": "s", "severity": "SEV2", "title": "t", "dedupKey": "k"}
    await doors.offer(message("a", body), message("b", body | {"severity": "SEV1"}), message("c", body | {"dedupKey": "l"}))
    for identity in list(doors.memory.incidents):
        step = {"type": "change-state", "incidentId": identity, "newState": "MITIGATING", "authority": "HUMAN"}
        await doors.order(command_message(f"m-{identity}", step))
    for identity, row in doors.memory.incidents.items():
        history = tuple(document for _, document in sorted(doors.memory.events[identity].items()))
        assert len(history) >= 3
        assert verify(identity, history, row) == ()


# --- histories that are not as they were written ------------------------------------------------------------------------

TAMPERED: dict[str, tuple[Callable[[], History], tuple[str, str]]] = {
    "a missing event": (lambda: (SECOND_LIFE[0], SECOND_LIFE[2]), ("gap", "event 3: sequence")),
    "a missing beginning": (lambda: SECOND_LIFE[1:], ("gap", "event 2: sequence")),
    "an event twice": (lambda: (*SECOND_LIFE[:2], SECOND_LIFE[1], SECOND_LIFE[2]), ("gap", "event 2: sequence")),
    "events swapped": (lambda: (SECOND_LIFE[0], SECOND_LIFE[2], SECOND_LIFE[1]), ("gap", "event 3: sequence")),
    "another incident's event id": (
        lambda: rechained(with_event(2, SECOND_LIFE, eventId=FIRST_LIFE[1]["eventId"])),
        ("identity", "event 2: eventId"),
    ),
    "a changed fact": (
        lambda: with_event(3, SECOND_LIFE, metadata=SECOND_LIFE[2]["metadata"] | {"reason": "another"}),
        ("hash", "event 3: hash"),
    ),
    "a changed actor": (
        lambda: with_event(1, SECOND_LIFE, actor=SECOND_LIFE[0]["actor"] | {"actorId": "somebody else"}),
        ("hash", "event 1: hash"),
    ),
    "a changed fact, hashed again": (
        lambda: (sealed(SECOND_LIFE[0] | {"timestamp": "2026-01-31T03:00:00.000000Z"}), *SECOND_LIFE[1:]),
        ("chain", "event 2: previousHash"),
    ),
    "a state that does not follow": (
        lambda: rechained(with_event(3, SECOND_LIFE, previousState="MITIGATING")),
        ("chain", "event 3: previousState"),
    ),
    "time running backwards": (
        lambda: rechained(with_event(2, SECOND_LIFE, timestamp="2026-01-01T00:00:00.000000Z")),
        ("time", "event 2: timestamp"),
    ),
    "a creation for another key": (
        lambda: rechained(with_event(1, SECOND_LIFE, metadata=SECOND_LIFE[0]["metadata"] | {"dedupKey": "another key"})),
        ("identity", "event 1: incidentId"),
    ),
}


@pytest.mark.parametrize(("tampered", "named"), TAMPERED.values(), ids=TAMPERED.keys())
def test_a_history_that_was_changed_is_named(tampered: Callable[[], History], named: tuple[str, str]) -> None:
    identity = SECOND_LIFE[0]["incidentId"]
    found = check_history(identity, tampered())
    assert named in [(one.kind, one.where) for one in found]
    assert {one.incident_id for one in found} == {identity}
    assert all(one.expected != one.found for one in found)


def test_a_history_that_cannot_be_folded_is_a_divergence_and_no_error() -> None:
    future = rechained(with_event(2, SECOND_LIFE, schemaVersion=99))
    assert ("fold", "history") in kinds(future, {})
    headless = rechained(SECOND_LIFE[1:])
    assert ("fold", "history") in kinds(headless, {})


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_a_row_that_differs_names_the_attribute_and_both_values() -> None:
    row = row_of(SECOND_LIFE)
    wrong = row | {"state": "CLOSED", "metadata": row["metadata"] | {"occurrence": 9}}
    found = compare(wrong, fold(SECOND_LIFE))
    assert [(one.kind, one.where, one.expected, one.found) for one in found] == [
        ("row", "metadata.occurrence", "1", "9"),
        ("row", "state", repr(row["state"]), "'CLOSED'"),
    ]


def test_a_missing_row_is_every_attribute_absent() -> None:
    found = compare(None, fold(SECOND_LIFE))
    assert {one.found for one in found} == {"absent"}
    assert {one.where for one in found} == set(row_of(SECOND_LIFE))


def test_a_row_without_events_is_named_attribute_by_attribute() -> None:
    found = compare(row_of(SECOND_LIFE), None)
    assert {one.expected for one in found} == {"absent"}
    assert {one.incident_id for one in found} == {SECOND_LIFE[0]["incidentId"]}


def test_an_attribute_too_many_and_one_too_few_are_both_named() -> None:
    row = row_of(SECOND_LIFE)
    del row["title"]
    assert [(one.where, one.expected, one.found) for one in compare(row | {"extra": 1}, fold(SECOND_LIFE))] == [
        ("extra", "absent", "1"),
        ("title", "'5xx above 5 %'", "absent"),
    ]


def test_a_row_that_lags_behind_its_history_is_named() -> None:
    found = kinds(SECOND_LIFE, row_of(SECOND_LIFE[:-1]))
    assert ("row", "version") in found
    assert ("row", "state") in found
