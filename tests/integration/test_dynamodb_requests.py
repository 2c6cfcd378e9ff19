"""What the store asks DynamoDB for: promises that an engine with one copy of everything would keep by itself."""

import itertools
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from pipeline.domain.ids import CREATED_SHARDS, SERVICE_SHARDS, STATE_SHARDS
from pipeline.domain.transitions import Severity, State
from pipeline.local.engine import RunningEngine
from pipeline.services.listing import list_incidents
from pipeline.services.ports import EXAMINED_MAX, Committed, Listing, Page, position
from pipeline.stores.items import STATE_SHARD, incident_item
from tests.contract.commits import NOW, attaching, beginning, moving
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


async def test_a_page_asks_each_partition_once_and_reads_no_more_rows_than_it_may(tapped: Tapped) -> None:
    store = tapped.world.store
    for number in range(60):
        now = NOW + timedelta(seconds=number // 2)
        assert await store.commit(beginning(f"k{number}", dedup_key=f"d{number}", now=now)) == Committed()
    every = await list_incidents(store, Listing(limit=60))
    assert len(every) == 60
    for partitions, listing in (
        (CREATED_SHARDS, Listing()),
        (CREATED_SHARDS, Listing(severity=Severity.SEV1)),
        (CREATED_SHARDS, Listing(since=NOW, until=NOW + timedelta(seconds=10))),
        (SERVICE_SHARDS, Listing(service="checkout")),
        (SERVICE_SHARDS, Listing(service="checkout", state=State.OPEN, severity=Severity.SEV1)),
        (STATE_SHARDS, Listing(state=State.PENDING)),
        (STATE_SHARDS, Listing(state=State.PENDING, severity=Severity.SEV1)),
    ):
        for limit, before in itertools.product((1, 10, 5000), (None, position(every[7]))):
            tapped.requests.clear()
            page = await store.page(replace(listing, limit=limit, before=before))
            queries, batches = tapped.of("Query"), tapped.of("BatchGetItem")
            assert len(queries) == partitions
            assert sum(query["Limit"] for query in queries) <= EXAMINED_MAX
            rows = [len(table["Keys"]) for batch in batches for table in batch["RequestItems"].values()]
            # Where every row matches, none is read that the page has no room for; where none does, none twice.
            assert sum(rows) == len(page.incidents) or (not page.incidents and sum(rows) <= len(every))
            assert {name for name, _ in tapped.requests} <= {"Query", "BatchGetItem"}


async def test_a_page_is_in_order_whatever_order_its_rows_come_in(tapped: Tapped, rng: random.Random) -> None:
    def shuffle(parsed: dict[str, Any], **context: Any) -> None:
        for rows in parsed["Responses"].values():
            rng.shuffle(rows)

    store = tapped.world.store
    for number in range(12):
        now = NOW + timedelta(seconds=number)
        assert await store.commit(beginning(f"k{number}", dedup_key=f"d{number}", now=now)) == Committed()
    tapped.world.client.meta.events.register("after-call.dynamodb.BatchGetItem", shuffle)
    found = await store.page(Listing(limit=10))
    assert [incident.metadata.dedup_key for incident in found.incidents] == [f"d{number}" for number in range(11, 1, -1)]


async def test_a_run_of_equal_keys_costs_as_many_queries_as_it_fills(tapped: Tapped) -> None:
    store = tapped.world.store
    for number in range(20):
        commit = beginning(f"k{number}", dedup_key=f"d{number}", identity=f"abcdef01-0000-4000-8000-{number:010x}00")
        assert await store.commit(commit) == Committed()
    tapped.requests.clear()
    page = await store.page(Listing(limit=5))
    assert [incident.incident_id[-4:-2] for incident in page.incidents] == ["13", "12", "11", "10", "0f"]
    # Twenty in sevens, and the three other partitions.
    assert len(tapped.of("Query")) == 3 + 3


async def test_nothing_is_filtered_in_an_index_since_it_lags(tapped: Tapped) -> None:
    store = tapped.world.store
    listing = Listing(state=State.PENDING, service="checkout", severity=Severity.SEV1)
    await list_incidents(store, listing)
    await list_incidents(store, replace(listing, service=None))
    await list_incidents(store, replace(listing, service=None, state=None))
    assert len(tapped.of("Query")) == SERVICE_SHARDS + STATE_SHARDS + CREATED_SHARDS
    assert [query for query in tapped.of("Query") if "FilterExpression" in query] == []


async def test_a_row_that_an_index_still_shows_in_its_former_state_is_not_listed_there(tapped: Tapped) -> None:
    store, commit = tapped.world.store, beginning("k1")
    assert await store.commit(commit) == Committed()
    assert commit.incident is not None
    opened = moving(commit.incident, State.OPEN, "k2").incident
    assert opened is not None
    # The row has moved; its place in the index by state has not yet.
    item = incident_item(opened) | {STATE_SHARD: incident_item(commit.incident)[STATE_SHARD]}
    await tapped.world.client.put_item(TableName=tapped.world.tables.incidents, Item=item)
    assert await store.page(Listing(state=State.PENDING)) == Page((), None)
    assert await store.page(Listing()) == Page((opened,), None)
    assert await store.page(Listing(service="checkout", state=State.OPEN)) == Page((opened,), None)


async def test_events_behind_a_number_are_asked_for_as_many_as_are_wanted(tapped: Tapped) -> None:
    store, commit = tapped.world.store, beginning("k1")
    assert await store.commit(commit) == Committed()
    incident = commit.incident
    for number in range(5):
        assert incident is not None
        further = attaching(incident, f"e{number}")
        assert await store.commit(further) == Committed()
        incident = further.incident
    assert incident is not None
    found = [document["sequence"] async for document in store.history(incident.incident_id, 1, 3)]
    assert found == [2, 3, 4]
    assert [query["Limit"] for query in tapped.of("Query")] == [3]
