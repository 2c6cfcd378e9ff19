"""What an operation costs in round trips and capacity units: SPEC §13's floors, counted on the wire.

A round trip is one request that left the process, retries included. Units are what the tables say they consumed: a
transaction writes 2 per KB and item; a consistent read is 1 per 4 KB.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from pipeline.domain.canonical import format_time
from pipeline.local.engine import RunningEngine
from pipeline.services.decision import Applied, Outcome, Replayed, View
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing
from tests.contract.commits import NOW
from tests.contract.rigs import Rig, SetClock, rig
from tests.contract.worlds import DynamoWorld, dynamo_world

pytestmark = pytest.mark.engine

WRITE, READ = "TransactWriteItems", "GetItem"
HISTORY = 300
BEGINNING = {"incident-events": 4, "incidents": 4, "idempotency": 2, "by-state": 1, "by-service": 1, "by-created": 1}
# One event, the row, one receipt; no index is written.
JOINING = {"incident-events": 2, "incidents": 2, "idempotency": 2}


@dataclass
class Cost:
    """Requests in order, and units by table and index."""

    requests: list[str] = field(default_factory=list)
    units: Counter[str] = field(default_factory=Counter)

    def report(self, operation: str, consumed: Sequence[dict[str, Any]]) -> None:
        for table in consumed:
            name = table["TableName"].split("-", 1)[1]
            indexes = table.get("GlobalSecondaryIndexes", {})
            self.units[name] += table["CapacityUnits"] - sum(spent["CapacityUnits"] for spent in indexes.values())
            for index, spent in indexes.items():
                self.units[index] += spent["CapacityUnits"]

    def taken(self) -> tuple[list[str], dict[str, int]]:
        """Return what was spent since the last time."""
        spent = (list(self.requests), dict(self.units))
        self.requests.clear()
        self.units.clear()
        return spent


@dataclass
class Bench:
    world: DynamoWorld
    services: Rig
    clock: SetClock
    cost: Cost

    def another(self) -> Rig:
        """Return a process that has met none of the keys so far."""
        return rig(self.world.store, self.clock)


@pytest_asyncio.fixture
async def bench(engine: RunningEngine, rng: random.Random) -> AsyncIterator[Bench]:
    cost, clock = Cost(), SetClock()
    async with dynamo_world(engine.endpoint_url, rng, report_capacity=cost.report) as world:

        def count(event_name: str, **sent: Any) -> None:
            cost.requests.append(event_name.rpartition(".")[2])

        world.client.meta.events.register("before-send.dynamodb", count)
        yield Bench(world, rig(world.store, clock), clock, cost)


async def applied(outcome: Outcome) -> str:
    """Return the incident that a request took effect on."""
    assert isinstance(outcome, Applied)
    assert outcome.incident is not None
    return outcome.incident.incident_id


async def resolve(bench: Bench, incident_id: str) -> None:
    """End an occurrence, and let a minute pass."""
    for state in ("MITIGATING", "RESOLVED"):
        key = f"{incident_id}-{state}"
        await applied(await bench.services.command("change-state", incident_id, key, newState=state, reason="restarted"))
    bench.clock.time_of_day += timedelta(minutes=1)
    bench.cost.taken()


async def test_a_keys_first_candidate_is_one_round_trip_without_a_read(bench: Bench) -> None:
    await applied(await bench.services.candidate("m1"))
    requests, units = bench.cost.taken()
    assert requests == [WRITE]
    # Two events, row and pointer, receipt: five items of at most 1 KB; and the row's entry in each index.
    assert units == BEGINNING


async def test_joining_the_first_occurrence_is_two_round_trips(bench: Bench) -> None:
    first = await applied(await bench.services.candidate("m1"))
    bench.cost.taken()
    assert await applied(await bench.another().candidate("m2")) == first
    requests, units = bench.cost.taken()
    assert requests == [WRITE, WRITE]
    assert units == JOINING
    # A process that has met the key asks first: one unit of reading instead of a refused transaction.
    assert await applied(await bench.services.candidate("m3")) == first
    requests, units = bench.cost.taken()
    assert requests == [READ, WRITE]
    assert units == JOINING | {"incidents": 2 + 1}


async def test_joining_an_incident_seen_in_the_same_batch_is_one_round_trip(bench: Bench) -> None:
    view = View()
    await applied(await bench.services.candidate("m1", view))
    bench.cost.taken()
    await applied(await bench.services.candidate("m2", view))
    assert bench.cost.taken()[0] == [WRITE]


async def test_beginning_and_joining_a_later_occurrence_are_at_most_three_round_trips(bench: Bench) -> None:
    first = await applied(await bench.services.candidate("m1"))
    await resolve(bench, first)
    later = format_time(NOW + timedelta(seconds=30))

    second = await applied(await bench.another().candidate("m2", observedAt=later, idempotencyKey="a"))
    assert second != first
    requests, units = bench.cost.taken()
    assert requests == [WRITE, WRITE]
    assert units == BEGINNING

    assert await applied(await bench.another().candidate("m3", observedAt=later, idempotencyKey="b")) == second
    requests, units = bench.cost.taken()
    assert requests == [WRITE, READ, WRITE]
    assert units == JOINING | {"incidents": 2 + 1}

    await resolve(bench, second)
    even_later = format_time(NOW + timedelta(seconds=90))
    third = await applied(await bench.another().candidate("m4", observedAt=even_later, idempotencyKey="c"))
    assert third not in (first, second)
    assert bench.cost.taken()[0] == [WRITE, READ, WRITE]


async def test_a_process_that_has_met_the_key_needs_no_more_round_trips_for_later_occurrences(bench: Bench) -> None:
    knows_the_first, knows_the_second = bench.another(), bench.another()
    first = await applied(await knows_the_first.candidate("m1"))
    await resolve(bench, first)
    later = format_time(NOW + timedelta(seconds=30))
    second = await applied(await knows_the_second.candidate("m2", observedAt=later, idempotencyKey="a"))
    bench.cost.taken()
    # Somebody else has begun it meanwhile: the refused attempt says so, with the row.
    assert await applied(await knows_the_first.candidate("m3", observedAt=later, idempotencyKey="b")) == second
    assert bench.cost.taken()[0] == [READ, WRITE, WRITE]
    assert await applied(await knows_the_second.candidate("m4", observedAt=later, idempotencyKey="c")) == second
    assert bench.cost.taken()[0] == [READ, WRITE]

    await resolve(bench, second)
    # A backlog: the pointer is asked, by trying, whether it is still the newest.
    assert await applied(await knows_the_second.candidate("m5", observedAt=later, idempotencyKey="d")) == second
    assert bench.cost.taken()[0] == [READ, WRITE, WRITE]
    even_later = format_time(NOW + timedelta(seconds=90))
    third = await applied(await knows_the_second.candidate("m6", observedAt=even_later, idempotencyKey="e"))
    assert third not in (first, second)
    assert bench.cost.taken()[0] == [READ, WRITE]


async def test_a_duplicate_is_the_one_call_that_finds_out(bench: Bench) -> None:
    for copy in ("created", "joined"):
        await applied(await bench.services.candidate(copy))
        bench.cost.taken()
        assert isinstance(await bench.another().candidate(copy), Replayed)
        assert bench.cost.taken()[0] == [WRITE]
        assert isinstance(await bench.services.candidate(copy), Replayed)
        assert bench.cost.taken()[0] == [READ, WRITE], "where the key has been met, what comes before any writing to it"


async def test_a_state_change_is_one_read_and_one_transaction(bench: Bench) -> None:
    first = await applied(await bench.services.candidate("m1"))
    bench.cost.taken()
    await applied(await bench.services.command("change-state", first, "c1", newState="MITIGATING"))
    requests, units = bench.cost.taken()
    assert requests == [READ, WRITE]
    # The row leaves one partition of the index by state for another, changes in the index by service, and stays by creation.
    assert units == JOINING | {"incidents": 2 + 1, "by-state": 2, "by-service": 1}


async def test_the_cost_of_evidence_does_not_grow_with_the_history(bench: Bench) -> None:
    view = View()
    spent = []
    for number in range(HISTORY):
        await applied(await bench.services.candidate(f"m{number}", view))
        spent.append(bench.cost.taken())
    assert spent[-1] == spent[4]
    assert spent[-1] == ([WRITE], JOINING)
    # The same for one that knows nothing of it yet.
    await applied(await bench.another().candidate("late"))
    assert bench.cost.taken() == ([WRITE, WRITE], JOINING)


async def test_the_cost_of_a_first_candidate_does_not_grow_with_the_tables(bench: Bench) -> None:
    spent = []
    for number in range(60):
        await applied(await bench.services.candidate(f"m{number}", dedupKey=f"key-{number:03}"))
        spent.append(bench.cost.taken())
    assert spent[-1] == spent[0]
    assert len(await list_incidents(bench.world.store, Listing(limit=100))) == 60
