"""Each damage to the stored tables is named by replay exactly, at its own place, and nothing else is."""

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain.divergences import MEANS, Kind
from pipeline.domain.errors import Corrupt
from pipeline.replay.lines import line_of
from pipeline.replay.partition import Wanted
from pipeline.replay.ranks import place_of_receipt
from pipeline.stores.items import from_item, to_item
from tests.support.damages import (
    DAMAGES,
    INCIDENT,
    NEXT,
    POINTER,
    change_metadata,
    event,
    last,
    lived,
    pointer_gone,
    receipt_until,
    row,
    told,
)
from tests.support.exporting import Tables, tables_of
from tests.support.replaying import WANTED, verify_tables
from tests.support.streams import sealed


@pytest.fixture
async def tables() -> Tables:
    return copy.deepcopy(tables_of(await lived()))


async def test_what_nobody_touched_is_clean(tables: Tables) -> None:
    assert verify_tables(tables) == []
    assert len(tables["incident-events"]) >= 10
    assert len(tables["idempotency"]) >= 7


@pytest.mark.parametrize("name", DAMAGES)
async def test_each_damage_is_named_exactly_and_nothing_else_is(name: str, tables: Tables, rng: random.Random) -> None:
    damage, expected = DAMAGES[name]
    damage(tables)
    for items in tables.values():
        rng.shuffle(items)
    found = verify_tables(tables)
    assert told(found) == expected(tables)
    assert len(found) == len(told(found)), "told more than once"
    assert all(one.expected != one.found for one in found)


async def test_damages_of_several_incidents_are_told_apart(tables: Tables) -> None:
    change_metadata(tables)
    pointer_gone(tables)
    assert told(verify_tables(tables)) == {
        (INCIDENT, "changed", "event 3"),
        (NEXT, "pointer-missing", f"pointer {POINTER}"),
    }


def test_every_kind_of_divergence_has_a_meaning_in_words() -> None:
    assert set(MEANS) == set(Kind)


def reseal(tables: Tables, sequence: int, **changes: Any) -> None:
    """Make another event of one, its hash right again; None takes an attribute away. The row agrees where it is the last."""
    stored = event(tables, sequence)
    made = {name: value for name, value in (from_item(stored) | changes).items() if value is not None}
    stored.clear()
    stored.update(to_item(sealed(made)))
    if sequence == last(tables):
        row(tables)["lastEventHash"] = stored["hash"]


FORGED: dict[str, tuple[int, Callable[[Tables], dict[str, Any]], str]] = {
    "no principal": (0, lambda _: {"actor": {"authorityType": "HUMAN", "actorId": "x"}}, "unreadable"),
    "no actor": (0, lambda _: {"actor": None}, "unreadable"),
    "somebody who asked, of no form": (
        0,
        lambda tables: {"metadata": from_item(event(tables, last(tables)))["metadata"] | {"requestedBy": "x"}},
        "unreadable",
    ),
    "no summary": (0, lambda _: {"metadata": {"reason": "x"}}, "unreadable"),
    "metadata of no form": (0, lambda _: {"metadata": "x"}, "unreadable"),
    "an occurrence in words": (
        1,
        lambda tables: {"metadata": from_item(event(tables, 1))["metadata"] | {"occurrence": "1"}},
        "unreadable",
    ),
}


@pytest.mark.parametrize("alone", [True, False], ids=["all else whole", "event 2 gone"])
@pytest.mark.parametrize("name", FORGED)
async def test_an_event_that_was_forged_without_form_is_told_and_ends_nothing(name: str, alone: bool) -> None:
    sequence, changes, kind = FORGED[name]
    tables = tables_of(await lived())
    number = sequence or last(tables)
    reseal(tables, number, **changes(tables))
    if not alone:
        tables["incident-events"].remove(event(tables, 2))
    # Without receipts nobody asks what their principal is compared with; that ends nothing either.
    verify_tables(tables, wanted=Wanted(confirm=False, receipts=False))
    for wanted in (WANTED, Wanted(thorough=True)):
        found = told(verify_tables(tables, wanted=wanted))
        assert (INCIDENT, kind, f"event {number}") in found, wanted
        assert alone or (INCIDENT, "missing", "event 2") in found


async def test_a_receipt_under_a_name_that_is_no_incidents_id_is_corrupt_wherever_it_goes() -> None:
    tables = tables_of(await lived())
    receipt = receipt_until(tables, last(tables))
    with pytest.raises(Corrupt):
        place_of_receipt(line_of({**receipt, "incidentId": {"S": "0" * 36}}))


@pytest.mark.parametrize("alone", [True, False], ids=["all else whole", "event 1 gone"])
async def test_a_decision_that_can_not_be_read_is_told_by_the_fast_way_too(alone: bool) -> None:
    tables = tables_of(await lived())
    opening = from_item(event(tables, 2))["metadata"]
    inputs = opening["decision"]["inputs"] | {"newestObservedAt": "never"}
    reseal(tables, 2, metadata=opening | {"decision": opening["decision"] | {"inputs": inputs}})
    if not alone:
        tables["incident-events"].remove(event(tables, 1))
    for wanted in (WANTED, Wanted(), Wanted(thorough=True)):
        assert (INCIDENT, "unreadable", "event 2") in told(verify_tables(tables, wanted=wanted)), wanted
