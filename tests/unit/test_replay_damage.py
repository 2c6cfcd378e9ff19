"""Each damage to the stored tables is named by replay exactly, at its own place, and nothing else is."""

import copy
import random

import pytest

from pipeline.domain.divergences import MEANS, Kind
from tests.support.damages import DAMAGES, INCIDENT, NEXT, POINTER, change_metadata, lived, pointer_gone, told
from tests.support.exporting import Tables, tables_of
from tests.support.replaying import verify_tables


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
