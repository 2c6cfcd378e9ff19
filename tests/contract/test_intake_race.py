"""Many senders at once, one incident: the promise of the pointer and the version together, over every store."""

import asyncio
import random
from datetime import datetime, timedelta

from pipeline.domain.canonical import format_time
from pipeline.domain.envelope import GENESIS_HASH
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, Outcome, Replayed
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing
from tests.contract.commits import NOW
from tests.contract.rigs import Rig, SetClock, rig
from tests.contract.worlds import World


async def at_once(rig: Rig, rng: random.Random, keys: list[str], observed_at: datetime = NOW) -> list[Outcome]:
    """Take one candidate per key, all at the same time, in any order."""
    rng.shuffle(keys)
    seen = format_time(observed_at)
    return await asyncio.gather(*(rig.candidate(key, idempotencyKey=key, observedAt=seen) for key in keys))


async def test_32_first_candidates_of_one_key_make_one_incident(world: World, rng: random.Random) -> None:
    services = rig(world.store)
    outcomes = await at_once(services, rng, [f"m{number}" for number in range(32)])
    applied = [outcome for outcome in outcomes if isinstance(outcome, Applied)]
    assert len(applied) == 32
    assert sorted(outcome.receipt.result.answer for outcome in applied) == [Answer.CREATED] + [Answer.JOINED] * 31

    (incident,) = await list_incidents(world.store, Listing())
    documents = [document async for document in world.store.history(incident.incident_id)]
    assert [document["sequence"] for document in documents] == list(range(1, incident.version + 1))
    assert [document["previousHash"] for document in documents] == [
        GENESIS_HASH,
        *(document["hash"] for document in documents[:-1]),
    ]
    # The first is created and opened, each other one is one event.
    assert incident.version == 2 + 31
    assert incident.metadata.promotion.detections == 32
    assert incident.state is State.OPEN
    for outcome in applied:
        assert await world.store.load_receipt(outcome.receipt.id) == outcome.receipt


async def test_copies_of_one_message_at_once_take_effect_once(world: World, rng: random.Random) -> None:
    services = rig(world.store)
    outcomes = await at_once(services, rng, ["same"] * 16)
    assert [type(outcome) for outcome in outcomes].count(Applied) == 1
    assert [type(outcome) for outcome in outcomes].count(Replayed) == 15
    (incident,) = await list_incidents(world.store, Listing())
    assert incident.version == 2


async def test_a_later_occurrence_begins_once_however_many_ask(world: World, rng: random.Random) -> None:
    clock = SetClock()
    services = rig(world.store, clock)
    await services.candidate("m0")
    (first,) = await list_incidents(world.store, Listing())
    await services.command("change-state", first.incident_id, "c1", newState="MITIGATING")
    await services.command("change-state", first.incident_id, "c2", newState="RESOLVED", reason="restarted")

    clock.time_of_day += timedelta(minutes=1)
    outcomes = await at_once(services, rng, [f"n{number}" for number in range(16)], NOW + timedelta(seconds=30))
    answers = sorted(outcome.receipt.result.answer for outcome in outcomes if isinstance(outcome, Applied))
    assert answers == [Answer.CREATED] + [Answer.JOINED] * 15
    second, again = await list_incidents(world.store, Listing())
    assert again.incident_id == first.incident_id
    assert (second.metadata.occurrence, second.metadata.predecessor) == (2, first.incident_id)
    assert second.metadata.promotion.detections == 16
    pointer = await world.store.load_pointer("checkout", "checkout-5xx")
    assert pointer is not None
    assert (pointer.occurrence, pointer.incident_id) == (2, second.incident_id)
