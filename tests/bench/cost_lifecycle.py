"""One incident's whole life on the real tables, and what each step of it consumes. Counted on the wire, never estimated.

The life: a candidate that opens the incident, a join by a process that has not met its key, one by a process that has, a
copy of the first message, mitigated, resolved and closed by a person, archived by retention. What a cancelled transaction
would have written is counted from its request, since the service does not report it.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import Any, Final

from pipeline.domain.authority import Sender
from pipeline.domain.canonical import canonical_bytes
from pipeline.services.decision import Applied, Outcome
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing
from pipeline.services.retention import RetentionService
from pipeline.stores.items import from_item
from tests.contract.rigs import DEADLINE_S, SENDER, SetClock, rig
from tests.contract.worlds import DynamoWorld, dynamo_world
from tests.house.template import load, of_type, resolve

OPENED, JOINED, JOINED_AGAIN, COPY = "opened", "joined, key not met", "joined, key met", "a copy"
MITIGATED, RESOLVED, CLOSED, ARCHIVED = "mitigated", "resolved", "closed", "archived"
STEPS: Final = (OPENED, JOINED, JOINED_AGAIN, COPY, MITIGATED, RESOLVED, CLOSED, ARCHIVED)
MESSAGES: Final = (OPENED, JOINED, JOINED_AGAIN, COPY)
COMMANDS: Final = {MITIGATED: "MITIGATING", RESOLVED: "RESOLVED", CLOSED: "CLOSED"}
REASON: Final = "rolled back to build 412; p99 back to normal"
# A candidate as a detector of some care sends it.
BODY: Final[dict[str, Any]] = {
    "type": "candidate",
    "service": "checkout",
    "severity": "SEV2",
    "title": "5xx above 5 % for 3 minutes",
    "description": "5xx of the load balancer, mean of three minutes, against a threshold of 5 %.",
    "dedupKey": "checkout-5xx",
    "links": [{"rel": "runbook", "href": "https://runbooks.example/checkout/5xx"}],
    "evidence": [{"kind": "metric", "ref": "checkout/5xx/2026-01-31T03:00Z", "note": "7.3 %"}],
}
RETAINED: Final = timedelta(days=90)
LISTED: Final = 20
KB: Final = 1024


def size_of(value: Any) -> int:
    """Return the bytes of a DynamoDB attribute value as DynamoDB counts them."""
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return len(content.encode())
        case "N":
            return (len(content.lstrip("-0").replace(".", "")) + 1) // 2 + 1
        case "BOOL" | "NULL":
            return 1
        case "L":
            return 3 + sum(1 + size_of(one) for one in content)
        case "M":
            return 3 + sum(1 + len(name.encode()) + size_of(one) for name, one in content.items())
    raise ValueError(f"an attribute of type {kind} is not counted here")


def item_size(item: dict[str, Any]) -> int:
    return sum(len(name.encode()) + size_of(value) for name, value in item.items())


@dataclass
class Spent:
    """Calls and capacity units. `asked`: what transactions would write, applied or not; `applied`: what the tables told."""

    calls: Counter[str] = field(default_factory=Counter)
    read: float = 0.0
    applied: float = 0.0
    asked: float = 0.0
    indexes: float = 0.0
    transactions: int = 0
    events: int = 0


class Meter:
    """Hooks of a client and a store that add up what is spent."""

    def __init__(self) -> None:
        self.spent = Spent()
        # What lies under a key: a write is charged by the larger of what was there and what comes.
        self.sizes: dict[tuple[str, ...], int] = {}
        self.coming: dict[tuple[str, ...], int] = {}

    def sent(self, event_name: str, **_: Any) -> None:
        self.spent.calls[event_name.rpartition(".")[2]] += 1

    def requested(self, params: dict[str, Any], **_: Any) -> None:
        """Add what a transaction writes, which is charged also where it is refused: 2 units for each item and KB."""
        puts = [action["Put"] for action in params["TransactItems"] if "Put" in action]
        checks = len(params["TransactItems"]) - len(puts)
        self.coming = {_key(put): item_size(put["Item"]) for put in puts}
        largest = (max(size, self.sizes.get(key, 0)) for key, size in self.coming.items())
        self.spent.asked += sum(2 * ceil(size / KB) for size in largest) + 2 * checks

    def rows(self, params: dict[str, Any], **_: Any) -> None:
        """Add what rows read by key cost, one unit each below 4 KB; the engine does not report it."""
        self.spent.read += sum(len(wanted["Keys"]) for wanted in params["RequestItems"].values())

    def answered(self, operation: str, consumed: Sequence[dict[str, Any]]) -> None:
        for table in consumed:
            indexes = sum(spent["CapacityUnits"] for spent in table.get("GlobalSecondaryIndexes", {}).values())
            if operation == "TransactWriteItems":
                self.spent.indexes += indexes
                self.spent.applied += table["CapacityUnits"] - indexes
            elif operation != "BatchGetItem":
                self.spent.read += table["CapacityUnits"]
        if operation == "TransactWriteItems":
            self.spent.transactions += 1
            self.spent.events += sum(len(key) > 2 for key in self.coming)  # incidentId and sequence
            self.sizes |= self.coming

    def taken(self) -> dict[str, Any]:
        """Return what was spent, and begin again. Raises where our count of applied transactions is not the tables'."""
        spent, self.spent = self.spent, Spent()
        if spent.calls["TransactWriteItems"] == spent.transactions and spent.asked != spent.applied:
            raise RuntimeError(f"counted {spent.asked} units of writing, the tables say {spent.applied}")
        return {
            "calls": dict(sorted(spent.calls.items())),
            "writeUnits": spent.asked,
            "refusedUnits": spent.asked - spent.applied,
            "indexUnits": spent.indexes,
            "readUnits": spent.read,
            "transactions": spent.transactions,
            "events": spent.events,
        }


def _key(put: dict[str, Any]) -> tuple[str, ...]:
    item = put["Item"]
    found = [item["pk"]["S"]] if "pk" in item else [item["incidentId"]["S"], item["sequence"]["N"]]
    return (put["TableName"], *found)


async def counted(endpoint_url: str) -> dict[str, Any]:
    """Live the life once and return what it took; the same every time, for the same code."""
    meter, clock = Meter(), SetClock()
    async with dynamo_world(endpoint_url, random.Random(0), report_capacity=meter.answered) as world:
        hooks = world.client.meta.events
        hooks.register("provide-client-params.dynamodb.TransactWriteItems", meter.requested)
        hooks.register("provide-client-params.dynamodb.BatchGetItem", meter.rows)
        hooks.register("before-send.dynamodb", meter.sent)
        steps, incident_id = await _live(world, clock, meter)
        incident = await world.store.load(incident_id)
        meter.taken()
        get = await _reads(world, meter, incident_id)
        stored, events = await _stored(world)
    assert incident is not None
    return {
        "steps": {step: steps[step] for step in STEPS},
        "version": incident.version,
        "storedBytes": stored,
        "events": len(events),
        "eventBytes": sum(events),
        "largestEventBytes": max(events),
        "read": get,
        "retentionRunReadUnits": steps["a run of retention"]["readUnits"],
    }


async def _live(world: DynamoWorld, clock: SetClock, meter: Meter) -> tuple[dict[str, dict[str, Any]], str]:
    services, steps = rig(world.store, clock), {}

    def another() -> Any:
        return rig(world.store, clock)

    opened = _applied(await services.candidate("m1", **BODY))
    steps[OPENED] = meter.taken()
    _applied(await another().candidate("m2", **BODY))
    steps[JOINED] = meter.taken()
    _applied(await services.candidate("m3", **BODY))
    steps[JOINED_AGAIN] = meter.taken()
    await another().candidate("m1", **BODY)
    steps[COPY] = meter.taken()
    for step, state in COMMANDS.items():
        clock.time_of_day += timedelta(minutes=5)
        _applied(await services.command("change-state", opened, f"key-{state}", newState=state, reason=REASON))
        steps[step] = meter.taken()
    retention = RetentionService(services.controller, Sender(SENDER.principal), RETAINED)
    deadline = clock.monotonic() + DEADLINE_S
    await retention.run(None, deadline, lambda _: None)
    steps["a run of retention"] = meter.taken()
    clock.time_of_day += RETAINED + timedelta(days=1)
    done = await retention.run(None, deadline, lambda _: None)
    if done.archived != 1:
        raise RuntimeError(f"retention archived {done.archived} incidents, not one")
    steps[ARCHIVED] = meter.taken()
    # What a run looks at anyway is a run's; the incident's own is its row, and its entry among others of a page.
    steps[ARCHIVED]["calls"] = {"TransactWriteItems": 1}
    steps[ARCHIVED]["readUnits"] = 1.0
    return steps, opened


def _applied(outcome: Outcome) -> str:
    if not isinstance(outcome, Applied) or outcome.incident is None:
        raise RuntimeError(f"a step of the life did not take effect: {outcome}")
    return outcome.incident.incident_id


async def _reads(world: DynamoWorld, meter: Meter, incident_id: str) -> dict[str, float]:
    """Return the units of reading one incident, and a page of a service's."""
    await world.store.load(incident_id)
    get = meter.taken()["readUnits"]
    services = rig(world.store, SetClock())
    for number in range(LISTED):
        await services.candidate(f"listed-{number}", **BODY | {"service": "listed", "dedupKey": f"listed-{number}"})
    meter.taken()
    listed = await list_incidents(world.store, Listing(service="listed", limit=LISTED))
    if len(listed) != LISTED:
        raise RuntimeError(f"the listing holds {len(listed)} incidents, not {LISTED}")
    return {"incident": get, "list": meter.taken()["readUnits"]}


async def _stored(world: DynamoWorld) -> tuple[dict[str, int], list[int]]:
    """Return the bytes that the one life has left in tables and indexes, and those of its events on the bus."""
    kept: dict[str, int] = {"items": 0, "itemBytes": 0, "entries": 0, "entryBytes": 0}
    events = []
    for table, rows in (await world.everything()).items():
        for row in rows:
            if "listed" in str(row):
                continue
            kept["items"] += 1
            kept["itemBytes"] += item_size(row)
            for names in _projections(row) if table == world.tables.incidents else ():
                kept["entries"] += 1
                kept["entryBytes"] += item_size({name: row[name] for name in names if name in row})
            if table == world.tables.events:
                events.append(len(canonical_bytes(from_item(row))))
    return kept, events


def _projections(row: dict[str, Any]) -> list[set[str]]:
    """Return the attributes that each index of the template keeps of a row; none of a row that has not its keys."""
    (properties,) = (
        of for _, of in of_type(resolve(load(), "prod"), "AWS::DynamoDB::Table") if "GlobalSecondaryIndexes" in of
    )
    own = {key["AttributeName"] for key in properties["KeySchema"]}
    found = []
    for index in properties["GlobalSecondaryIndexes"]:
        keys = {key["AttributeName"] for key in index["KeySchema"]}
        if keys <= row.keys():
            found.append(own | keys | set(index["Projection"].get("NonKeyAttributes", ())))
    return found
