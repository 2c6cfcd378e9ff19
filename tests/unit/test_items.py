"""Rows as items and back, and what they weigh: DynamoDB bills by the kilobyte."""

import time
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.base import read
from pipeline.domain.canonical import Document, canonical_bytes, normalise
from pipeline.domain.envelope import IncidentEvent, event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.incidents import INCIDENT, Incident
from pipeline.domain.receipts import RECEIPT
from pipeline.domain.transitions import State
from pipeline.services.decision import View
from pipeline.stores.items import (
    CREATED_KEY,
    INDEX_KEYS,
    Item,
    event_item,
    from_item,
    incident_item,
    item_size,
    pointer_item,
    read_incident,
    read_pointer,
    read_receipt,
    receipt_item,
    to_item,
)
from pipeline.stores.memory import MemoryStore
from tests.contract.commits import attaching, beginning, moving
from tests.contract.rigs import received, rig
from tests.house.template import load, of_type, resolve

ALARMS = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"

numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.decimals(-(10**15), 10**15, allow_nan=False, places=6)
texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
leaves = st.none() | st.booleans() | numbers | texts
names = texts.filter(bool)
values = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))
documents = st.dictionaries(names, values).map(normalise)


def as_dynamodb_returns(attribute: dict[str, Any]) -> dict[str, Any]:
    """Write numbers as the service does: normalised, at times with an exponent."""
    match attribute:
        case {"N": str(text)}:
            return {"N": str(Decimal(text).normalize())}
        case {"M": dict(items)}:
            return {"M": {name: as_dynamodb_returns(value) for name, value in items.items()}}
        case {"L": list(values)}:
            return {"L": [as_dynamodb_returns(value) for value in values]}
        case _:
            return attribute


@settings(print_blob=True)
@given(documents)
def test_every_document_comes_back_byte_for_byte(document: Document) -> None:
    returned = {name: as_dynamodb_returns(attribute) for name, attribute in to_item(document).items()}
    assert canonical_bytes(from_item(returned)) == canonical_bytes(document)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("-7", -7),
        ("1E+2", 100),
        ("100.0", 100),
        ("0.10", Decimal("0.1")),
        ("-1.5E-7", Decimal("-1.5E-7")),
        ("0", 0),
    ],
)
def test_numbers_are_read_in_canonical_form(text: str, number: int | Decimal) -> None:
    found = from_item({"n": {"N": text}})["n"]
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize("attribute", [{"SS": ["a"]}, {"B": b"a"}, {"N": "1E+40"}, {"M": {"x": {"NS": ["1"]}}}])
def test_what_opx_never_writes_is_corruption(attribute: dict[str, Any]) -> None:
    with pytest.raises(Corrupt):
        from_item({"a": attribute})


def test_rows_come_back_as_they_were() -> None:
    commit = beginning("k1")
    assert commit.incident is not None
    assert commit.pointer is not None
    assert read_incident(incident_item(commit.incident)) == commit.incident
    assert read_pointer(pointer_item(commit.pointer)) == commit.pointer
    assert read_receipt(receipt_item(commit.receipts[0])) == commit.receipts[0]


def test_a_row_of_another_kind_is_corruption() -> None:
    commit = beginning("k1")
    assert commit.incident is not None
    assert commit.pointer is not None
    for reader, item in (
        (read_pointer, incident_item(commit.incident)),
        (read_incident, pointer_item(commit.pointer)),
        (read_receipt, pointer_item(commit.pointer)),
    ):
        with pytest.raises(Corrupt, match="cannot be read"):
            reader(item)


def test_an_event_item_is_its_document_and_verifies() -> None:
    event = beginning("k1").events[0]
    item = event_item(event)
    assert from_item(item) == event.to_document()
    assert event_hash(from_item(item)) == event.hash
    assert IncidentEvent.from_document(from_item(item)) == event


def projected() -> set[str]:
    """Return every attribute that some index of the incidents table holds."""
    tables = dict(of_type(resolve(load(), "local"), "AWS::DynamoDB::Table"))
    indexes = tables["IncidentsTable"]["GlobalSecondaryIndexes"]
    keys = {key["AttributeName"] for index in indexes for key in index["KeySchema"]}
    return keys | {name for index in indexes for name in index["Projection"].get("NonKeyAttributes", ())} | {"pk"}


def test_evidence_changes_nothing_that_an_index_holds() -> None:
    first = beginning("k1").incident
    assert first is not None
    second = attaching(first, "k2").incident
    assert second is not None
    before, after = incident_item(first), incident_item(second)
    assert before != after
    assert projected() <= before.keys()
    assert {name: before[name] for name in projected()} == {name: after[name] for name in projected()}


def test_a_state_change_moves_the_row_within_the_index_by_state_alone() -> None:
    first = beginning("k1").incident
    assert first is not None
    opened = moving(first, State.OPEN, "k2").incident
    assert opened is not None
    before, after = incident_item(first), incident_item(opened)
    assert [name for name in INDEX_KEYS if before[name] != after[name]] == ["stateShard"]
    assert after["stateShard"]["S"].partition("#")[0] == "OPEN"


def test_created_keys_order_as_creation_does() -> None:
    keys = [incident_item(started(moment))[CREATED_KEY]["S"] for moment in (1, 2, 10, 999_999)]
    assert keys == sorted(keys)


def started(microsecond: int) -> Incident:
    incident = beginning("k1", now=datetime(2026, 1, 31, 3, 0, 0, microsecond, UTC)).incident
    assert incident is not None
    return incident


# --- weight ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "size"),
    [
        ({"abc": {"S": "de"}}, 3 + 2),
        ({"a": {"S": "ü"}}, 1 + 2),
        ({"a": {"N": "123"}}, 1 + 2 + 1),
        ({"a": {"N": "-123"}}, 1 + 2 + 1 + 1),
        ({"a": {"N": "1000"}}, 1 + 1 + 1),
        ({"a": {"BOOL": True}, "b": {"NULL": True}}, 2 + 2),
        ({"a": {"M": {"bc": {"S": "d"}}}}, 1 + 3 + 2 + 1 + 1),
        ({"a": {"L": [{"S": "d"}, {"S": "e"}]}}, 1 + 3 + 2 * (1 + 1)),
        ({"a": {"M": {}}, "b": {"L": []}}, 2 * (1 + 3)),
    ],
)
def test_sizes_are_counted_by_dynamodbs_rules(item: Item, size: int) -> None:
    assert item_size(item) == size


async def test_rows_and_events_of_real_alarms_stay_within_their_size() -> None:
    """SPEC §13: usual items at most 1 KB, decision events at most 2 KB."""
    store = MemoryStore()
    services = rig(store)
    rows = []
    for number, line in enumerate(ALARMS.read_text(encoding="utf-8").splitlines()):
        work = services.intake.read(line, received(f"m{number}"))
        await services.intake.take_all([work], View(), time.monotonic() + 5)
        rows += [item_size(incident_item(read(INCIDENT, document))) for document in store.incidents.values()]
    events = defaultdict(list)
    for document in store.feed:
        events[document["eventType"]].append(item_size(to_item(document)))
    assert len(store.incidents) == 8
    assert max(rows) <= 1024
    assert max(item_size(receipt_item(read(RECEIPT, document))) for document in store.receipts.values()) <= 1024
    assert max(item_size(pointer_item(pointer)) for pointer in store.pointers.values()) <= 1024
    assert max(events["EvidenceAttached"]) <= 1024
    assert max(events["IncidentCreated"] + events["IncidentOpened"]) <= 2048
