"""Correlation windows: counted with the receipts of what is counted, or not at all. On every store."""

import random
from dataclasses import replace

import pytest

from pipeline.services.ports import Commit, Committed, PointerMoved, ReceiptExists, VersionMoved, WindowMoved
from tests.contract.commits import attaching, beginning, counting, receipt, window
from tests.contract.test_incident_store import apply, refused
from tests.contract.worlds import World, raced


async def counted(world: World, commit: Commit) -> None:
    assert await world.store.commit(commit) == Committed()


async def test_there_is_no_window_before_something_is_counted_in_it(world: World) -> None:
    assert await world.store.load_window(window().id) is None


async def test_a_first_count_is_stored_with_its_receipts(world: World) -> None:
    commit = counting("d1", "d2")
    await counted(world, commit)
    assert await world.store.load_window(window().id) == commit.window
    assert [await world.store.load_receipt(record.id) for record in commit.receipts] == list(commit.receipts)


async def test_a_later_count_replaces_the_one_before_it(world: World) -> None:
    await counted(world, counting("d1"))
    later = counting("d2", version=2)
    await counted(world, later)
    assert await world.store.load_window(window().id) == later.window


@pytest.mark.parametrize("version", [1, 2, 4, 7])
async def test_a_count_on_another_state_of_the_window_is_told_what_stands_there(world: World, version: int) -> None:
    for number in (1, 2):
        await counted(world, counting(f"d{number}", version=number))
    result = await refused(world, counting("d9", version=version))
    assert result == WindowMoved(window(version=2))
    assert await world.store.load_receipt(receipt("d9").id) is None


async def test_a_count_on_a_window_that_is_not_there_is_told_so(world: World) -> None:
    assert await refused(world, counting("d1", version=2)) == WindowMoved(None)


async def test_a_receipt_that_exists_answers_before_a_moved_window(world: World) -> None:
    first = counting("d1", "d2")
    await counted(world, first)
    assert await refused(world, counting("d3", "d2")) == ReceiptExists(first.receipts[1:])


async def test_windows_of_two_groups_know_nothing_of_each_other(world: World) -> None:
    one, other = counting("d1", group="checkout"), counting("d2", group="search")
    await counted(world, one)
    await counted(world, other)
    assert window("checkout").id != window("search").id
    for commit in (one, other):
        assert commit.window is not None
        assert await world.store.load_window(commit.window.id) == commit.window


async def test_a_threshold_stores_count_and_incident_at_once(world: World) -> None:
    begun = beginning("d1")
    assert begun.incident is not None
    commit = replace(begun, window=window(incident=begun.incident))
    incident = await apply(world.store, commit)
    found = await world.store.load_window(window().id)
    assert found is not None
    assert found.incident_id == incident.incident_id
    assert await world.store.load(incident.incident_id) == incident
    assert await world.store.load_pointer("checkout", "checkout-5xx") == commit.pointer


async def test_a_moved_window_keeps_its_incident_from_beginning(world: World) -> None:
    await counted(world, counting("d1"))
    begun = beginning("d2")
    assert begun.incident is not None
    result = await refused(world, replace(begun, window=window(incident=begun.incident)))
    assert result == WindowMoved(window())
    assert await world.store.load(begun.incident.incident_id) is None


async def test_an_incident_that_moved_keeps_its_window_from_being_counted(world: World) -> None:
    first = await apply(world.store, beginning("k1"))
    second = await apply(world.store, attaching(first, "k2"))
    stale = replace(attaching(first, "d1"), window=window(incident=first))
    assert await refused(world, stale) == VersionMoved(second)
    assert await world.store.load_window(window().id) is None


async def test_a_key_that_is_held_keeps_a_window_from_beginning_another_incident(world: World) -> None:
    held = beginning("k1")
    await apply(world.store, held)
    assert held.pointer is not None
    result = await refused(world, replace(beginning("d1"), window=window()))
    assert result == PointerMoved(held.pointer, held.incident)
    assert await world.store.load_window(window().id) is None


async def test_of_many_counts_on_one_state_exactly_one_takes_effect(world: World, rng: random.Random) -> None:
    await counted(world, counting("d0"))
    commits = [counting(f"r{number}", version=2) for number in range(16)]
    rng.shuffle(commits)

    results = await raced(world, commits)
    assert [type(result) for result in results].count(Committed) == 1
    assert [type(result) for result in results].count(WindowMoved) == 15
    kept = [await world.store.load_receipt(receipt(f"r{number}").id) for number in range(16)]
    assert sum(record is not None for record in kept) == 1
