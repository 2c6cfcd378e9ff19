"""What the store asks DynamoDB for: promises that an engine with one copy of everything would keep by itself."""

import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from pipeline.local.engine import RunningEngine
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Committed, Listing
from tests.contract.commits import attaching, beginning
from tests.contract.worlds import DynamoWorld, dynamo_world

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Tapped:
    """A store whose requests are written down before they are signed."""

    world: DynamoWorld
    requests: list[tuple[str, dict[str, Any]]]

    def of(self, operation: str) -> list[dict[str, Any]]:
        return [request for name, request in self.requests if name == operation]


@pytest_asyncio.fixture
async def tapped(engine: RunningEngine, rng: random.Random) -> AsyncIterator[Tapped]:
    requests: list[tuple[str, dict[str, Any]]] = []
    async with dynamo_world(engine.endpoint_url, rng) as world:

        def note(params: dict[str, Any], model: Any, **context: Any) -> None:
            requests.append((model.name, json.loads(params["body"])))

        world.client.meta.events.register("before-call.dynamodb", note)
        yield Tapped(world, requests)


async def test_every_read_but_an_indexs_is_strongly_consistent(tapped: Tapped) -> None:
    store, commit = tapped.world.store, beginning("k1")
    assert await store.commit(commit) == Committed()
    assert commit.incident is not None
    await store.load(commit.incident.incident_id)
    await store.load_pointer("checkout", "checkout-5xx")
    await store.load_receipt(commit.receipts[0].id)
    assert len([document async for document in store.history(commit.incident.incident_id)]) == 1
    assert len([document async for document in store.scan_events()]) == 1
    assert await list_incidents(store, Listing(service="checkout")) == (commit.incident,)

    assert [request["ConsistentRead"] for request in tapped.of("GetItem")] == [True] * 3
    assert [request["ConsistentRead"] for request in tapped.of("Scan")] == [True]
    (batch,) = tapped.of("BatchGetItem")
    assert [table["ConsistentRead"] for table in batch["RequestItems"].values()] == [True]
    plain = [request for request in tapped.of("Query") if "IndexName" not in request]
    assert [request["ConsistentRead"] for request in plain] == [True]


async def test_every_write_of_a_transaction_is_a_conditioned_put_that_returns_what_was_in_its_way(tapped: Tapped) -> None:
    commit = beginning("k1")
    assert await tapped.world.store.commit(commit) == Committed()
    assert commit.incident is not None
    joined = attaching(commit.incident, "k2", "k3")
    assert await tapped.world.store.commit(joined) == Committed()
    later = beginning("k4", occurrence=2)
    assert await tapped.world.store.commit(later) == Committed()

    conditions = []
    for request in tapped.of("TransactWriteItems"):
        puts = [item["Put"] for item in request["TransactItems"]]
        assert all(item.keys() == {"Put"} for item in request["TransactItems"])
        assert all(put["ReturnValuesOnConditionCheckFailure"] == "ALL_OLD" for put in puts)
        conditions.append([put["ConditionExpression"] for put in puts])
    absent, expected = "attribute_not_exists(#key)", "#number = :expected"
    assert conditions == [
        [absent] * 4,
        [absent, absent, absent, expected],
        [absent, absent, absent, expected],
    ]


async def test_every_transaction_has_a_token_of_its_own(tapped: Tapped) -> None:
    commit = beginning("k1")
    assert await tapped.world.store.commit(commit) == Committed()
    await tapped.world.store.commit(commit)
    tokens = {request["ClientRequestToken"] for request in tapped.of("TransactWriteItems")}
    assert len(tokens) == 2
