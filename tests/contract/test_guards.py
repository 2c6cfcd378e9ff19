"""What keeps one open incident per key where one of them has waited too long: guards, on every store."""

import asyncio

from pipeline.domain.incidents import Incident
from pipeline.services.ports import Commit, Committed, PointerMoved, VersionMoved
from tests.contract.commits import attaching, beginning, opening, taking
from tests.contract.test_incident_store import apply, refused
from tests.contract.worlds import World


async def test_an_incident_opens_while_it_holds_its_key(world: World) -> None:
    waiting = await apply(world.store, beginning("k1"))
    opened = await apply(world.store, opening(waiting, "k2"))
    assert await world.store.load(waiting.incident_id) == opened


async def test_an_incident_whose_key_went_on_does_not_open(world: World) -> None:
    waiting = await apply(world.store, beginning("k1"))
    following = beginning("k2", occurrence=2)
    await apply(world.store, following)
    assert following.pointer is not None
    assert await refused(world, opening(waiting, "k3")) == PointerMoved(following.pointer, None)


async def test_a_key_is_taken_from_an_incident_that_has_not_moved(world: World) -> None:
    expired = await apply(world.store, beginning("k1"))
    commit = taking(expired, "k2")
    await apply(world.store, commit)
    assert await world.store.load_pointer("checkout", "checkout-5xx") == commit.pointer


async def test_a_key_is_not_taken_from_an_incident_that_has_moved(world: World) -> None:
    expired = await apply(world.store, beginning("k1"))
    moved = await apply(world.store, attaching(expired, "k2"))
    assert await refused(world, taking(expired, "k3")) == VersionMoved(moved)


async def test_of_opening_and_taking_at_once_one_wins(world: World) -> None:
    for number in range(4):
        waiting: Incident = await apply(world.store, beginning(f"b{number}", dedup_key=f"race-{number}"))
        rivals: list[Commit] = [opening(waiting, f"o{number}"), _taking(waiting, f"t{number}")]
        results = await asyncio.gather(*(world.store.commit(commit) for commit in rivals))
        assert sum(result == Committed() for result in results) == 1


def _taking(expired: Incident, key: str) -> Commit:
    following = beginning(key, dedup_key=expired.metadata.dedup_key, occurrence=2)
    return Commit(following.receipts, following.events, following.incident, following.pointer, taking(expired, key).guard)
