"""The storm on real tables: the cost that the simulation promises is what the wire sees, cancelled transactions included."""

import random
from collections import Counter

import pytest

from pipeline.domain.transitions import State
from pipeline.local.engine import RunningEngine
from pipeline.runtime import shipped
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing
from pipeline.stores.stored_items import StoredItems
from tests.contract.worlds import dynamo_world
from tests.simulation.storm import CountingStore, FairQueue, drain, send
from tests.simulation.test_storm import DEARER_MAX, KEYS, STORM, candidate
from tests.support.replaying import verify_stored

pytestmark = [pytest.mark.engine, pytest.mark.long]


@pytest.mark.parametrize(
    ("messages", "consumers"),
    [(1500, 2), (1500, 5), *(pytest.param(STORM, many, marks=pytest.mark.full) for many in (2, 5, 20))],
)
async def test_a_storm_on_the_engine_loses_nothing_and_costs_near_the_floor(
    engine: RunningEngine, rng: random.Random, messages: int, consumers: int
) -> None:
    random.seed(rng.random())
    async with dynamo_world(engine.endpoint_url, rng) as world:
        sent: Counter[str] = Counter()
        wire: Counter[str] = Counter()
        world.client.meta.events.register("before-send.dynamodb", lambda event_name, **_: wire.update([event_name]))
        queue, store = FairQueue(), CountingStore(world.store)
        bodies = [candidate(*rng.choice(KEYS)) for _ in range(messages)]
        sent.update(body["dedupKey"] for body in bodies)
        await send(queue, bodies)
        drained = await drain(queue, store, consumers, rng)

        spent, dearer = store.spent, store.spent.transactions / drained.floor
        print(
            f"{messages} messages, {consumers} consumers: {drained.batches} batches with {drained.floor} keys, "
            f"{spent.applied} transactions applied, {spent.cancelled} cancelled ({dearer:.3f} of the floor), "
            f"{spent.reads} reads, {drained.seconds:.1f} s"
        )
        assert wire["before-send.dynamodb.TransactWriteItems"] == spent.transactions
        rows = await list_incidents(world.store, Listing())
        assert {row.metadata.dedup_key: row.metadata.promotion.detections for row in rows} == sent
        assert {row.state for row in rows} == {State.OPEN}
        assert await verify_stored(StoredItems(world.client, world.store.tables), shipped.policies()) == []
        assert drained.rejected.messages == []
        assert spent.applied == drained.floor
        assert dearer <= DEARER_MAX
