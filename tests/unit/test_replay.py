"""Folding a history and naming whatever in it, or in its row, is not as it should be."""

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import compare
from pipeline.domain.ids import event_id
from pipeline.domain.incidents import advance
from pipeline.domain.replay import fold, verify
from pipeline.domain.transitions import State
from tests.support.clock import NOW
from tests.support.doors import Doors, command_message, message
from tests.support.histories import INCIDENT_ID, STATE_PATHS, change, incident_in, whole_life
from tests.support.streams import sealed

History = tuple[Document, ...]
OTHER_LIFE: History = tuple(event.to_document() for event in whole_life()[1])
LIFE = [change(step) for step in ("created", "opened", "cancelled")]
SECOND_LIFE: History = tuple(event.to_document() for event in advance(None, INCIDENT_ID, LIFE, NOW)[0])
NOTE = next(event.to_document() for event in whole_life()[0] if event.fact.event_type == "NoteAdded")
COMMENT = {"eventType": "NoteAdded", "metadata": NOTE["metadata"]}


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


def renumbered(history: History) -> History:
    """Return events under the numbers 1, 2, 3, with nothing else about them changed."""
    return tuple(document | {"sequence": number} for number, document in enumerate(history, start=1))


def forged(like: Document, sequence: int) -> Document:
    """Return an event that was never decided, with everything about it made right."""
    made = like | {"sequence": sequence, "eventId": event_id(like["incidentId"], sequence), "previousHash": like["hash"]}
    return sealed(made | {"previousState": like["newState"], "newState": like["newState"]} | COMMENT)


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


@pytest.mark.parametrize("history", [OTHER_LIFE[:1], SECOND_LIFE], ids=["creation", "second life"])
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
    "a missing event": (lambda: (SECOND_LIFE[0], SECOND_LIFE[2]), ("missing", "event 2")),
    "a missing beginning": (lambda: SECOND_LIFE[1:], ("missing", "event 1")),
    "a missing end": (lambda: SECOND_LIFE[:-1], ("missing", "event 3")),
    "an event twice": (lambda: (*SECOND_LIFE[:2], SECOND_LIFE[1], SECOND_LIFE[2]), ("duplicated", "event 2")),
    "an event twice, the later ones moved behind it": (
        lambda: renumbered((*SECOND_LIFE[:2], SECOND_LIFE[1], SECOND_LIFE[2])),
        ("duplicated", "event 2"),
    ),
    "an event again at the end": (
        lambda: (*SECOND_LIFE, SECOND_LIFE[0] | {"sequence": 4}),
        ("duplicated", "event 1"),
    ),
    "events swapped": (lambda: renumbered((SECOND_LIFE[0], SECOND_LIFE[2], SECOND_LIFE[1])), ("swapped", "events 2 and 3")),
    "events swapped under their own numbers": (
        lambda: (SECOND_LIFE[0], *(SECOND_LIFE[3 - place] | {"sequence": place + 1} for place in (1, 2))),
        ("swapped", "events 2 and 3"),
    ),
    "another incident's event, the later ones moved behind it": (
        lambda: renumbered((SECOND_LIFE[0], OTHER_LIFE[1], *SECOND_LIFE[1:])),
        ("inserted", "event 2: eventId"),
    ),
    "an event made up, the later ones moved behind it": (
        lambda: renumbered((*SECOND_LIFE[:2], forged(SECOND_LIFE[1], 3), SECOND_LIFE[2])),
        ("inserted", "event 3"),
    ),
    "an event made up at the end": (lambda: (*SECOND_LIFE, forged(SECOND_LIFE[2], 4)), ("inserted", "event 4")),
    "an event taken out, the later ones moved into its place": (
        lambda: renumbered((SECOND_LIFE[0], SECOND_LIFE[2])),
        ("missing", "event 2"),
    ),
    "another incident's event id": (
        lambda: rechained(with_event(2, SECOND_LIFE, eventId=OTHER_LIFE[1]["eventId"])),
        ("identity", "event 2: eventId"),
    ),
    "a changed fact": (
        lambda: with_event(3, SECOND_LIFE, metadata=SECOND_LIFE[2]["metadata"] | {"reason": "another"}),
        ("changed", "event 3"),
    ),
    "a changed actor": (
        lambda: with_event(1, SECOND_LIFE, actor=SECOND_LIFE[0]["actor"] | {"actorId": "somebody else"}),
        ("changed", "event 1"),
    ),
    "a changed timestamp": (
        lambda: with_event(2, SECOND_LIFE, timestamp="2026-01-31T03:00:00.000001Z"),
        ("changed", "event 2"),
    ),
    "a changed hash": (lambda: with_event(2, SECOND_LIFE, hash="0" * 64), ("changed", "event 2: hash")),
    "a changed fact, hashed again": (
        lambda: (sealed(SECOND_LIFE[0] | {"timestamp": "2026-01-31T02:00:00.000001Z"}), *SECOND_LIFE[1:]),
        ("chain", "event 2: previousHash"),
    ),
    "a state that does not follow": (
        lambda: rechained(with_event(3, SECOND_LIFE, previousState="MITIGATING")),
        ("transition", "event 3: previousState"),
    ),
    "a step of somebody who may not take it": (
        lambda: rechained(with_event(3, SECOND_LIFE, actor=SECOND_LIFE[2]["actor"] | {"authorityType": "SYSTEM"})),
        ("transition", "event 3"),
    ),
    "time running backwards": (
        lambda: rechained(with_event(2, SECOND_LIFE, timestamp="2026-01-01T00:00:00.000000Z")),
        ("time", "event 2: timestamp"),
    ),
    "a creation for another key": (
        lambda: rechained(with_event(1, SECOND_LIFE, metadata=SECOND_LIFE[0]["metadata"] | {"dedupKey": "another key"})),
        ("identity", "event 1: incidentId"),
    ),
    "a number that is none": (lambda: with_event(1, SECOND_LIFE, sequence=True), ("unreadable", "sequence")),
}
# Where more is told: what was hashed again contradicts the row, too.
OF_THE_ROW = {
    "a changed fact, hashed again",
    "a state that does not follow",
    "a step of somebody who may not take it",
    "another incident's event id",
    "time running backwards",
    "a creation for another key",
    "a number that is none",
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_history_that_was_changed_is_named_and_nothing_else(name: str) -> None:
    tampered, named = TAMPERED[name]
    identity = SECOND_LIFE[0]["incidentId"]
    found = verify(identity, tampered(), row_of(SECOND_LIFE))
    told = [(one.kind, one.where) for one in found]
    assert named in told
    assert {one.incident_id for one in found} == {identity}
    assert all(one.expected != one.found for one in found)
    if name not in OF_THE_ROW:
        assert told == [named]


def test_a_history_that_cannot_be_folded_is_a_divergence_and_no_error() -> None:
    future = rechained(with_event(2, SECOND_LIFE, schemaVersion=99))
    assert ("unreadable", "event 2") in kinds(future, row_of(SECOND_LIFE))
    headless = rechained(SECOND_LIFE[1:])
    assert kinds(headless, row_of(SECOND_LIFE))[0] == ("missing", "event 1")


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_a_row_that_differs_names_the_attribute_and_both_values() -> None:
    row = row_of(SECOND_LIFE)
    wrong = row | {"state": "CLOSED", "metadata": row["metadata"] | {"occurrence": 9}}
    found = verify(row["incidentId"], SECOND_LIFE, wrong)
    assert [(one.kind, one.where, one.expected, one.found) for one in found] == [
        ("row", "metadata.occurrence", "1", "9"),
        ("row", "state", repr(row["state"]), "'CLOSED'"),
    ]


def test_a_missing_row_is_named() -> None:
    assert [(one.kind, one.where) for one in verify(INCIDENT_ID, SECOND_LIFE, None)] == [("row-missing", "row")]


def test_a_row_without_events_says_how_many_are_missing() -> None:
    row = row_of(SECOND_LIFE)
    assert [(one.kind, one.where) for one in verify(row["incidentId"], (), row)] == [("missing", "events 1 to 3")]


def test_an_attribute_too_many_and_one_too_few_are_both_named() -> None:
    whole = row_of(SECOND_LIFE)
    row = {name: value for name, value in whole.items() if name != "title"} | {"extra": 1}
    assert [(one.where, one.expected, one.found) for one in compare(whole["incidentId"], whole, row)] == [
        ("extra", "absent", "1"),
        ("title", "'5xx above 5 %'", "absent"),
    ]


@pytest.mark.parametrize("version", [1, 2, 9])
def test_a_row_with_another_version_is_no_missing_event(version: int) -> None:
    assert kinds(SECOND_LIFE, row_of(SECOND_LIFE) | {"version": version}) == [("row", "version")]


def test_a_row_of_an_earlier_event_is_told_from_its_hash() -> None:
    # Without receipts nobody can tell a row that was set back from events that nobody decided.
    assert kinds(SECOND_LIFE, row_of(SECOND_LIFE[:-1])) == [("inserted", "event 3")]


def test_a_row_whose_hash_alone_was_changed_is_named() -> None:
    assert kinds(SECOND_LIFE, row_of(SECOND_LIFE) | {"lastEventHash": "1" * 64}) == [("row", "lastEventHash")]


def test_a_dropped_event_is_missed_though_all_that_follow_were_chained_anew() -> None:
    whole: History = tuple(event.to_document() for event in whole_life()[0])
    number = next(event["sequence"] for event in whole if event["eventType"] == "NoteAdded")
    left = rechained(tuple(event for event in whole if event["sequence"] != number))
    assert ("missing", f"event {number}") in kinds(left)
