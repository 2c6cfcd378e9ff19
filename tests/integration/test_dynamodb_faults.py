"""What happens between the store and DynamoDB when the network or the service fails: one effect, never none, never two."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from pipeline.domain.errors import Conflict, Corrupt, Unavailable
from pipeline.local.engine import RunningEngine
from pipeline.runtime.clock import SystemClock
from pipeline.services.decision import Applied, Replayed
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Committed, Listing, ReceiptExists
from pipeline.stores.clients import open_clients
from pipeline.stores.dynamodb import DynamoIncidentStore
from tests.contract.commits import attaching, beginning
from tests.contract.rigs import rig
from tests.contract.worlds import DynamoWorld, dynamo_world
from tests.integration.faults import LOST, Proxy, cancelled, proxy_before

pytestmark = pytest.mark.engine

WRITE = "TransactWriteItems"
ATTEMPTS = 3


@dataclass(frozen=True)
class Line:
    """A store at the far end of a line that can be spoilt."""

    world: DynamoWorld
    proxy: Proxy

    async def events(self) -> int:
        return len([document async for document in self.world.store.scan_events()])


@pytest_asyncio.fixture
async def line(engine: RunningEngine, rng: random.Random) -> AsyncIterator[Line]:
    async with (
        dynamo_world(engine.endpoint_url, rng) as near,
        proxy_before(engine.endpoint_url) as proxy,
        open_clients(("dynamodb",), endpoint_url=proxy.endpoint_url) as clients,
    ):
        # The proxy reads the service's model at its first request, for seconds; a listing may be asked for again.
        await clients.dynamodb.list_tables()
        store = DynamoIncidentStore(clients.dynamodb, near.tables, SystemClock())
        yield Line(DynamoWorld(store, clients.dynamodb, near.tables), proxy)


async def test_a_lost_answer_is_asked_for_again_under_the_same_token(line: Line) -> None:
    line.proxy.spoil(WRITE, 1, LOST)
    assert await line.world.store.commit(beginning("k1")) == Committed()
    assert line.proxy.fired() == 1
    assert await line.events() == 1


async def test_an_answer_lost_for_good_is_unavailable_and_the_redelivery_finds_the_effect(line: Line) -> None:
    services = rig(line.world.store)
    line.proxy.spoil(WRITE, ATTEMPTS, LOST)
    with pytest.raises(Unavailable):
        await services.candidate("m1")
    assert line.proxy.fired() == ATTEMPTS
    assert await line.events() == 2

    again = await services.candidate("m1")
    assert isinstance(again, Replayed)
    (incident,) = await list_incidents(line.world.store, Listing())
    assert again.receipt.incident_id == incident.incident_id
    assert (incident.version, incident.metadata.promotion.detections) == (2, 1)
    assert await line.events() == 2


async def test_a_lost_answer_to_a_joining_candidate_counts_it_once(line: Line) -> None:
    services = rig(line.world.store)
    await services.candidate("m1")
    # The first transaction finds the pointer in the way; the answer to the second is lost, each time.
    line.proxy.spoil(WRITE, 1 + ATTEMPTS, LOST)
    with pytest.raises(Unavailable):
        await services.candidate("m2")
    assert isinstance(await services.candidate("m2"), Applied | Replayed)
    (incident,) = await list_incidents(line.world.store, Listing())
    assert incident.metadata.promotion.detections == 2
    assert await line.events() == incident.version == 3


async def test_a_request_that_never_arrived_is_unavailable_and_the_redelivery_applies_it(line: Line) -> None:
    services = rig(line.world.store)
    line.proxy.spoil(WRITE, ATTEMPTS, {"reset": True})
    with pytest.raises(Unavailable):
        await services.candidate("m1")
    assert await line.events() == 0
    assert isinstance(await services.candidate("m1"), Applied)
    assert await line.events() == 2


@pytest.mark.parametrize("code", ["ProvisionedThroughputExceededException", "InternalServerError"])
async def test_a_passing_throttle_is_not_seen_and_a_lasting_one_is_unavailable(line: Line, code: str) -> None:
    status = 500 if code == "InternalServerError" else 400
    line.proxy.spoil(WRITE, ATTEMPTS - 1, {"error": {"code": code, "status": status}})
    assert await line.world.store.commit(beginning("k1")) == Committed()
    assert line.proxy.fired() == ATTEMPTS - 1

    line.proxy.spoil(WRITE, ATTEMPTS, {"error": {"code": code, "status": status}})
    with pytest.raises(Unavailable, match=code):
        await line.world.store.commit(beginning("k2", dedup_key="another"))
    assert await line.events() == 1


@pytest.mark.parametrize("code", ["TransactionInProgressException", "ExpiredTokenException", "AccessDeniedException"])
async def test_what_may_pass_is_unavailable(line: Line, code: str) -> None:
    line.proxy.spoil(WRITE, ATTEMPTS, {"error": {"code": code, "status": 400}})
    with pytest.raises(Unavailable, match=code):
        await line.world.store.commit(beginning("k1"))
    assert await line.events() == 0


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"])
async def test_a_transaction_in_the_way_is_a_conflict_and_never_sent_again_as_it_is(line: Line, code: str) -> None:
    line.proxy.spoil(WRITE, 1, cancelled("None", code, "None", "None"))
    with pytest.raises(Conflict):
        await line.world.store.commit(beginning("k1"))
    assert await line.events() == 0


async def test_a_conflict_is_decided_again_within_the_request(line: Line) -> None:
    services = rig(line.world.store)
    line.proxy.spoil(WRITE, 2, cancelled("None", "None", "None", "TransactionConflict", "None"))
    outcome = await services.candidate("m1")
    assert isinstance(outcome, Applied)
    assert outcome.attempts == 3
    assert await line.events() == 2


async def test_a_write_the_service_refuses_is_corruption(line: Line) -> None:
    line.proxy.spoil(WRITE, 1, {"error": {"code": "ValidationException", "status": 400}})
    with pytest.raises(Corrupt, match="ValidationException"):
        await line.world.store.commit(beginning("k1"))


@pytest.mark.parametrize("fault", [{"truncate_frac": 0.5}, {"corrupt_bytes": 3}, {"truncate_bytes": 0}])
async def test_a_garbled_answer_is_not_taken_for_an_absent_row(line: Line, fault: dict[str, float]) -> None:
    commit = beginning("k1")
    assert await line.world.store.commit(commit) == Committed()
    assert commit.incident is not None
    line.proxy.spoil("GetItem", ATTEMPTS, {"response": fault})
    with pytest.raises(Unavailable):
        await line.world.store.load(commit.incident.incident_id)
    line.proxy.spoil("GetItem", 0, LOST)
    assert await line.world.store.load(commit.incident.incident_id) == commit.incident


async def test_a_table_that_is_not_there_is_unavailable(line: Line) -> None:
    gone = line.world.tables.idempotency
    await line.world.client.delete_table(TableName=gone)
    with pytest.raises(Unavailable, match="ResourceNotFoundException"):
        await line.world.store.commit(beginning("k1"))
    assert await line.events() == 0
    await line.world.client.create_table(
        TableName=gone,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
    )


async def test_a_row_larger_than_an_item_may_be_is_corruption_and_writes_nothing(line: Line) -> None:
    commit = beginning("k1")
    assert commit.incident is not None
    larger = commit.incident.model_copy(update={"description": "x" * 450_000})
    with pytest.raises(Corrupt):
        await line.world.store.commit(replace(commit, incident=larger))
    assert await line.events() == 0


async def test_more_receipts_than_a_transaction_takes_are_refused_before_the_call(line: Line) -> None:
    first = beginning("k1").incident
    assert first is not None
    seen = line.proxy.microburst.requests_seen
    with pytest.raises(Corrupt, match="101 items"):
        await line.world.store.commit(attaching(first, *(f"r{number}" for number in range(99))))
    assert line.proxy.microburst.requests_seen == seen


async def test_keys_that_the_service_puts_off_are_asked_for_again(line: Line) -> None:
    commit = beginning("k1")
    assert await line.world.store.commit(commit) == Committed()
    rounds = 0

    def put_off(parsed: dict[str, object], **answer: object) -> None:
        """Make the first two answers those of a service that had no time."""
        nonlocal rounds
        rounds += 1
        if rounds <= 2:
            assert commit.incident is not None
            keys = [{"pk": {"S": commit.incident.incident_id}}]
            parsed["UnprocessedKeys"] = {line.world.tables.incidents: {"Keys": keys, "ConsistentRead": True}}
            parsed["Responses"] = {}

    line.world.client.meta.events.register("after-call.dynamodb.BatchGetItem", put_off)
    assert await list_incidents(line.world.store, Listing()) == (commit.incident,)
    assert rounds == 3


async def test_a_copy_of_what_took_effect_long_ago_is_answered_by_its_receipt(line: Line) -> None:
    commit = beginning("k1")
    assert await line.world.store.commit(commit) == Committed()
    line.proxy.spoil(WRITE, 1, LOST)
    assert await line.world.store.commit(commit) == ReceiptExists((commit.receipts[0],))
    assert line.proxy.fired() == 1
