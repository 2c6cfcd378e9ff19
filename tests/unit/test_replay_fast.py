"""What replay does faster than the core: lines of DynamoDB-JSON, hashes and the fold. It must come to the same."""

import copy
import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import Change, event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.events import (
    Attachment,
    Creation,
    Evidence,
    EvidenceAttached,
    IncidentCreated,
    Observation,
    ObservationKind,
)
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import advance
from pipeline.domain.replay import ModelFold
from pipeline.domain.transitions import Severity, State
from pipeline.replay import folding, lines, usual_event
from pipeline.replay.folding import DocumentFold
from pipeline.replay.lines import document_of, event_key, line_of
from pipeline.replay.partition import row_of
from pipeline.stores.items import Item, from_item, to_item
from tests.support.clock import NOW
from tests.support.histories import HUMAN, SERVICE, STATE_PATHS, SYSTEM, change, incident_in, observation, whole_life

# --- lines ----------------------------------------------------------------------------------------------------------------


def test_a_line_reads_as_the_item_does() -> None:
    event = whole_life()[0][0].to_document()
    item = to_item(event | {"odd": {"a": None, "b": (True, -1, Decimal("0.25"), {"incidentId": "x"}), "c": 2**53 - 1}})
    line = line_of(item)
    assert document_of(line) == from_item(item)
    assert event_key(line) == (event["incidentId"].encode(), 1)


def test_every_event_of_a_life_is_read_in_the_usual_form_and_as_it_is() -> None:
    for event in [event.to_document() for event in whole_life()[0]]:
        decided = event | {"decidedAt": event["timestamp"]}
        actor = event["actor"] | {"assertedBy": "AROAEXAMPLE", "justification": "asked for by telephone"}
        for told in (event, decided, event | {"actor": actor}):
            assert usual_event.usual_event_of(line_of(to_item(told))) == told


@pytest.mark.parametrize(
    "change",
    [
        {"odd": {"S": "x"}},
        {"hash": {"NULL": True}},
        {"hash": {"S": 5}},
        {"hash": {"S": "x", "N": "1"}},
        {"hash": {}},
        {"schemaVersion": {"BOOL": True}},
        {"schemaVersion": {"N": "1x"}},
        {"sequence": {"N": "9" * 400}},
        {"actor": {"M": {"principal": {"S": "somebody"}}}},
        {"metadata": {"M": {"tags": {"B": "eA=="}}}},
        {"metadata": {"M": {"tags": {"M": {"a": {}}}}}},
        {"metadata": {"L": []}},
    ],
    ids=str,
)
def test_what_is_not_of_the_usual_form_is_left_to_who_looks_closer(change: Item) -> None:
    item = to_item(whole_life()[0][0].to_document())
    assert usual_event.usual_event_of(line_of(item)) == from_item(item)
    assert usual_event.usual_event_of(line_of(item | change)) is None
    assert usual_event.usual_event_of(line_of({name: value for name, value in item.items() if name != "eventId"})) is None


@pytest.mark.parametrize("claimed", [{"incidentId": "00000000-0000-5000-8000-000000000000"}, {"sequence": 7}], ids=str)
def test_keys_that_a_caller_repeats_in_data_of_its_own_are_not_taken_for_the_events(claimed: Document) -> None:
    event = whole_life()[0][2].to_document()
    behind = event | {"metadata": event["metadata"] | {"tags": claimed}}
    for told in (behind, {"aMap": claimed} | event):
        assert event_key(line_of(to_item(told))) == (event["incidentId"].encode(), 3)
        assert lines.quick_event_key(line_of(to_item(told))) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("incidentId", {"S": "../../../../../../../../../etc/passwd"}),
        ("incidentId", {"S": "c6f9052d-7272-5058-9bbf-57cf803b25851"}),
        ("incidentId", {"S": "C6F9052D-7272-5058-9BBF-57CF803B2585"}),
        ("sequence", {"N": "12345678901234567"}),
        ("sequence", {"N": "-3"}),
        ("sequence", {"N": ""}),
    ],
    ids=str,
)
def test_keys_that_no_event_has_are_never_taken_from_a_glance(name: str, value: Item) -> None:
    """They name the file on disk that a line goes to, and its place there."""
    item = {**to_item(whole_life()[0][0].to_document()), name: value}
    assert lines.quick_event_key(line_of(item)) is None


@pytest.mark.parametrize("digits", ["9007199254740993", "1E+30", "99999999999999999999"])
def test_a_number_that_opx_never_stores_is_corrupt_and_not_another_number(digits: str) -> None:
    item: Item = {**to_item(whole_life()[0][0].to_document()), "odd": {"N": digits}}
    with pytest.raises(Corrupt):
        document_of(line_of(item))


@pytest.mark.parametrize("history", whole_life(), ids=["first life", "second life"])
def test_the_fast_hash_is_the_cores(history: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody is asked again: what comes back is the fast writer's own.
    monkeypatch.setattr(lines, "event_hash", lambda _: "not the fast writer's")
    for event in history:
        document = event.to_document()
        assert lines.hash_of(document) == event_hash(document) == document["hash"]
        odd = {"text": 'a"b\\c\x7f\u2028\U0001f600/é', "n": Decimal("0.1"), "z": 0, "A": (), "e": {}}
        strange = document | {"metadata": odd}
        strange["hash"] = event_hash(strange)
        assert lines.hash_of(strange) == strange["hash"]


@pytest.mark.parametrize("line", [b"", b"{}", b'{"Item": 5}', b'{"Item": {"a": {"B": "AAA="}}}', b'{"Item": {"a": 3}}'])
def test_a_line_that_is_no_item_of_ours_is_corrupt(line: bytes) -> None:
    with pytest.raises(Corrupt):
        document_of(line)


def test_a_binary_attribute_that_was_read_from_a_table_is_corrupt_and_no_crash() -> None:
    event: dict[str, Any] = dict(to_item(whole_life()[0][0].to_document()))
    with pytest.raises(Corrupt):
        document_of(line_of(event | {"odd": {"B": b"bytes"}}))


# --- the fast fold --------------------------------------------------------------------------------------------------------


def both_folds(documents: list[Document]) -> None:
    """Assert that the core's fold and the fast one agree after every event."""
    model, plain = ModelFold(row_of), DocumentFold()
    for document in documents:
        model.take(document)
        plain.take(copy.deepcopy(document))
        assert plain.row() == model.row(), f"after event {document['sequence']}, {document['eventType']}"
        assert plain.control_version == model.control_version


@pytest.mark.parametrize("history", whole_life(), ids=["every optional field", "a short life"])
def test_the_fast_fold_makes_the_cores_row(history: Any) -> None:
    both_folds([event.to_document() for event in history])


def seen_at_random(rng: random.Random) -> Observation:
    """Return one observation, of any kind and with any of what may be said beside it."""
    maybe = {
        "detections": rng.choice((0, 1, 1, 2, 7)),
        "age_s": rng.choice((None, 0, 30, 600)),
        "maintenance": rng.choice((None, None, None, "upgrade", "a-window")),
    }
    at = NOW + timedelta(seconds=rng.randrange(-3600, 3600))
    sure = Decimal(rng.choice(("0", "1", "0.25", "0.5", "0.95")))
    return observation(rng.choice(tuple(ObservationKind)), observed_at=at, confidence=sure, **maybe)


def life_at_random(rng: random.Random) -> list[Document]:
    """Return a history of evidence of all sorts, before and after the gate has spoken."""
    told: dict[str, Any] = {"service": SERVICE, "title": "5xx above 5 %"}
    first = seen_at_random(rng)
    creation = Creation(
        **told,
        severity=Severity.SEV3,
        description="",
        dedup_key="5xx",
        occurrence=1,
        policy_id="default",
        observation=first,
        key_ended_at=rng.choice((None, NOW - timedelta(hours=2))),
    )
    changes = [Change(IncidentCreated(metadata=creation), rng.choice((SYSTEM, HUMAN)), State.PENDING)]
    state = State.PENDING
    for number in range(rng.randrange(3, 25)):
        if state is State.PENDING and rng.random() < 0.2:
            step = change(rng.choice(("deferred", "opened")))
            state = step.new_state
            changes.append(step)
            continue
        evidence = tuple(Evidence(kind="log", ref=f"logs/{number}/{one}") for one in range(rng.choice((0, 1, 2, 12))))
        attachment = Attachment(
            **told,
            severity=rng.choice(tuple(Severity)),
            observation=rng.choice((None, seen_at_random(rng), seen_at_random(rng))),
            evidence=evidence or None,
            policies=rng.choice((None, None, ("default",), ("declared", "other"), tuple("abcdefghijk"))),
        )
        changes.append(Change(EvidenceAttached(metadata=attachment), rng.choice((SYSTEM, HUMAN)), state))
    return [event.to_document() for event in advance(None, incident_id(SERVICE, "5xx", 1), changes, NOW)[0]]


@pytest.mark.parametrize("number", range(60))
def test_the_fast_fold_adds_up_observations_of_every_sort_as_the_core_does(number: int, rng: random.Random) -> None:
    both_folds(life_at_random(random.Random(f"{rng.random()}-{number}")))


def test_the_fast_fold_refuses_an_event_type_that_it_does_not_know() -> None:
    plain = DocumentFold()
    first, second, *_ = (event.to_document() for event in whole_life()[0])
    plain.take(first)
    with pytest.raises(ValueError, match="IncidentExploded"):
        plain.take(second | {"eventType": "IncidentExploded"})


def test_the_fast_fold_keeps_the_newest_schema_version_of_a_history(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "SCHEMA_VERSION", 2)
    plain = DocumentFold()
    first, second, third, *_ = (event.to_document() for event in whole_life()[0])
    plain.take(first)
    assert "schemaVersion" not in plain.row()
    # Newer code wrote one between two of older code, as in a gradual deployment.
    for event in (second | {"schemaVersion": 2}, third):
        plain.take(event)
        assert plain.row()["schemaVersion"] == 2


def test_the_fast_fold_knows_every_event_type_and_reaches_every_state() -> None:
    assert {incident_in(state).state for state in STATE_PATHS} == set(STATE_PATHS)
    kinds = {event.to_document()["eventType"] for history in whole_life() for event in history}
    assert len(kinds) == 12
