"""The three tables in DynamoDB. One decision is one TransactWriteItems; a write is never sent again by this file.

Reads are strongly consistent and follow every page; only the indexes behind `list_incidents` lag, so the rows it returns
are read again by key. Keys and items are in `items`, the reading of a cancelled transaction in `cancellations`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_random_exponential

from pipeline.domain.canonical import Document
from pipeline.domain.correlation import Window
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.ids import SERVICE_SHARDS, STATE_SHARDS, pointer_id
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.transitions import State
from pipeline.services.ports import Clock, Commit, CommitResult, Committed, KeyHeld, Listing, Pointer, RowUnmoved
from pipeline.stores.cancellations import read_cancellation
from pipeline.stores.clients import translate, translated
from pipeline.stores.items import (
    CREATED_KEY,
    PK,
    SERVICE_SHARD,
    STATE_SHARD,
    Item,
    event_item,
    from_item,
    incident_item,
    pointer_item,
    read_incident,
    read_pointer,
    read_receipt,
    read_window,
    receipt_item,
    row_key,
    service_shard,
    state_shard,
    window_item,
)

TRANSACTION_ITEMS_MAX: Final = 100
BATCH_GET_MAX: Final = 100
# Between rounds of one BatchGetItem whose keys the service put off.
BATCH_ROUNDS_MAX: Final = 8
BATCH_WAIT = wait_random_exponential(multiplier=0.05, max=2)

Json = dict[str, Any]
# Called with the operation and what it consumed, for every answer; for measuring.
CapacityReport = Callable[[str, Sequence[Json]], None]


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of the three tables."""

    incidents: str
    events: str
    idempotency: str

    @classmethod
    def with_prefix(cls, prefix: str) -> "Tables":
        return cls(f"{prefix}-incidents", f"{prefix}-incident-events", f"{prefix}-idempotency")


class DynamoIncidentStore:
    """Implements `IncidentStore` on an open client."""

    def __init__(self, client: Any, tables: Tables, clock: Clock, *, report_capacity: CapacityReport | None = None) -> None:
        self.client = client
        self.tables = tables
        self.clock = clock
        self.report_capacity = report_capacity

    # --- the write ---------------------------------------------------------------------------------------------------

    async def commit(self, commit: Commit) -> CommitResult:
        """Apply a commit in one transaction.

        The ClientRequestToken is botocore's: one per call, the same for its transport retries, so an answer lost on the way
        is not applied twice. After a redelivery (another call, another token) the receipt's condition answers instead.
        """
        actions: list[Json] = [{"Put": put} for put in self._puts(commit)]
        if commit.guard is not None:
            actions.append({"ConditionCheck": self._check(commit.guard)})
        if len(actions) > TRANSACTION_ITEMS_MAX:
            raise Corrupt(f"a decision of {len(actions)} items; one transaction takes {TRANSACTION_ITEMS_MAX}")
        request: Json = {"TransactItems": actions}
        try:
            answer = await self.client.transact_write_items(**request, **self._capacity())
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            if isinstance(error, ClientError) and error.response["Error"].get("Code") == "TransactionCanceledException":
                return read_cancellation(commit, error.response.get("CancellationReasons") or ())
            raise translate(error, "TransactWriteItems") from error
        self._report("TransactWriteItems", answer)
        return Committed()

    def _puts(self, commit: Commit) -> list[Json]:
        """Return the transaction's items in the order `read_cancellation` reads their reasons in."""
        puts = [self._put(self.tables.idempotency, receipt_item(receipt), PK) for receipt in commit.receipts]
        puts += [self._put(self.tables.events, event_item(event), "incidentId") for event in commit.events]
        if (incident := commit.incident) is not None:
            expected = ("version", commit.expected_version) if commit.expected_version else None
            puts.append(self._put(self.tables.incidents, incident_item(incident), PK, expected))
        if (window := commit.window) is not None:
            expected = ("version", window.version - 1) if window.version > 1 else None
            puts.append(self._put(self.tables.idempotency, window_item(window), PK, expected))
        if (pointer := commit.pointer) is not None:
            expected = ("occurrence", pointer.occurrence - 1) if pointer.occurrence > 1 else None
            puts.append(self._put(self.tables.incidents, pointer_item(pointer), PK, expected))
        return puts

    def _check(self, guard: KeyHeld | RowUnmoved) -> Json:
        """Return the check of a guard: a row whose number is as it was seen, and that nothing here writes."""
        match guard:
            case KeyHeld(pointer):
                key, name, number = pointer_id(pointer.service, pointer.dedup_key), "occurrence", pointer.occurrence
            case RowUnmoved(incident):
                key, name, number = incident.incident_id, "version", incident.version
        return {
            "TableName": self.tables.incidents,
            "Key": row_key(key),
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        } | _condition(name, number)

    @staticmethod
    def _put(table: str, item: Item, key: str, expected: tuple[str, int] | None = None) -> Json:
        """Return a Put that needs the row to be absent, or one of its numbers to be as expected."""
        put: Json = {"TableName": table, "Item": item, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        if expected is None:
            return put | {"ConditionExpression": "attribute_not_exists(#key)", "ExpressionAttributeNames": {"#key": key}}
        return put | _condition(*expected)

    # --- reads by key ------------------------------------------------------------------------------------------------

    async def load(self, incident_id: str) -> Incident | None:
        item = await self._get(self.tables.incidents, incident_id)
        return None if item is None else read_incident(item)

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        item = await self._get(self.tables.incidents, pointer_id(service, dedup_key))
        return None if item is None else read_pointer(item)

    async def load_window(self, window_id: str) -> Window | None:
        item = await self._get(self.tables.idempotency, window_id)
        return None if item is None else read_window(item)

    async def load_receipt(self, receipt_id: str) -> IdempotencyRecord | None:
        item = await self._get(self.tables.idempotency, receipt_id)
        return None if item is None else read_receipt(item)

    async def _get(self, table: str, key: str) -> Item | None:
        answer = await self._call("get_item", TableName=table, Key=row_key(key), ConsistentRead=True)
        item: Item | None = answer.get("Item")
        return item

    # --- histories ---------------------------------------------------------------------------------------------------

    async def history(self, incident_id: str, after: int = 0) -> AsyncIterator[Document]:
        request = {
            "TableName": self.tables.events,
            "ConsistentRead": True,
            "KeyConditionExpression": "#incident = :incident AND #sequence > :after",
            "ExpressionAttributeNames": {"#incident": "incidentId", "#sequence": "sequence"},
            "ExpressionAttributeValues": {":incident": {"S": incident_id}, ":after": {"N": str(after)}},
        }
        async for page in self._pages("query", request):
            for item in page["Items"]:
                yield from_item(item)

    async def scan_events(self) -> AsyncIterator[Document]:
        async for page in self._pages("scan", {"TableName": self.tables.events, "ConsistentRead": True}):
            for item in page["Items"]:
                yield from_item(item)

    async def _pages(self, method: str, request: Mapping[str, Any]) -> AsyncIterator[Json]:
        """Yield every page. A page may be empty and yet have a next one."""
        start: Json = {}
        while True:
            page = await self._call(method, **request, **start)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    # --- listing -----------------------------------------------------------------------------------------------------

    async def list_incidents(self, listing: Listing) -> tuple[Incident, ...]:
        """Merge the newest of every index partition, then read the rows themselves and drop what no longer matches."""
        if listing.limit < 1:
            return ()
        parts = await asyncio.gather(*(self._newest(query, listing.limit) for query in self._partitions(listing)))
        # Behind the last key of a partition that has more, an order over all partitions isn't known.
        known_down_to = max((keys[-1][0] for keys, more in parts if more), default="")
        keys = sorted((key for keys, _ in parts for key in keys if key[0] >= known_down_to), reverse=True)
        found: list[Incident] = []
        for start in range(0, len(keys), BATCH_GET_MAX):
            rows = await self._rows([incident_id for _, incident_id in keys[start : start + BATCH_GET_MAX]])
            found += [row for row in rows if listing.state is None or row.state is listing.state]
            if len(found) >= listing.limit:
                break
        found.sort(key=lambda row: (row.created_at, row.incident_id), reverse=True)
        return tuple(found[: listing.limit])

    def _partitions(self, listing: Listing) -> list[Json]:
        """Return one query per index partition: a service has the fewest, then a state, then all states."""
        if listing.service is not None:
            keys = [service_shard(listing.service, number) for number in range(SERVICE_SHARDS)]
            return [self._partition("by-service", SERVICE_SHARD, key, listing.state) for key in keys]
        states = tuple(State) if listing.state is None else (listing.state,)
        keys = [state_shard(state, number) for state in states for number in range(STATE_SHARDS)]
        return [self._partition("by-state", STATE_SHARD, key, None) for key in keys]

    def _partition(self, index: str, name: str, key: str, state: State | None) -> Json:
        names, values = {"#partition": name}, {":partition": {"S": key}}
        request: Json = {
            "TableName": self.tables.incidents,
            "IndexName": index,
            "ScanIndexForward": False,
            "KeyConditionExpression": "#partition = :partition",
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
        }
        if state is not None:
            request["FilterExpression"] = "#state = :state"
            names["#state"] = "state"
            values[":state"] = {"S": state.value}
        return request

    async def _newest(self, query: Json, limit: int) -> tuple[list[tuple[str, str]], bool]:
        """Return up to `limit` (createdKey, incidentId) of one partition, newest first, and whether it has more."""
        keys: list[tuple[str, str]] = []
        async for page in self._pages("query", query | {"Limit": limit}):
            keys += [(item[CREATED_KEY]["S"], item[PK]["S"]) for item in page["Items"]]
            if len(keys) >= limit:
                return keys[:limit], len(keys) > limit or bool(page.get("LastEvaluatedKey"))
        return keys, False

    async def _rows(self, incident_ids: Sequence[str]) -> list[Incident]:
        """Read rows by key, consistently, in rounds until the service has put off none. Raises `Unavailable`."""
        rows: list[Incident] = []
        wanted: Json = {
            self.tables.incidents: {"Keys": [row_key(identity) for identity in incident_ids], "ConsistentRead": True}
        }

        async def one_round() -> bool:
            nonlocal wanted
            answer = await self._call("batch_get_item", RequestItems=wanted)
            rows.extend(read_incident(item) for item in answer["Responses"].get(self.tables.incidents, ()))
            wanted = answer.get("UnprocessedKeys") or {}
            return bool(wanted)

        def given_up(state: RetryCallState) -> bool:
            raise Unavailable(f"BatchGetItem: keys still put off after {state.attempt_number} rounds")

        retrying = AsyncRetrying(
            retry=retry_if_result(bool),
            wait=BATCH_WAIT,
            stop=stop_after_attempt(BATCH_ROUNDS_MAX),
            sleep=self.clock.sleep,
            retry_error_callback=given_up,
        )
        await retrying(one_round)
        return rows

    # --- calls -------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, **request: Any) -> Json:
        operation = method.title().replace("_", "")
        with translated(operation):
            answer: Json = await getattr(self.client, method)(**request, **self._capacity())
        self._report(operation, answer)
        return answer

    def _capacity(self) -> Json:
        return {} if self.report_capacity is None else {"ReturnConsumedCapacity": "INDEXES"}

    def _report(self, operation: str, answer: Json) -> None:
        if self.report_capacity is not None and "ConsumedCapacity" in answer:
            consumed = answer["ConsumedCapacity"]
            self.report_capacity(operation, consumed if isinstance(consumed, list) else [consumed])


def _condition(name: str, number: int) -> Json:
    return {
        "ConditionExpression": "#number = :expected",
        "ExpressionAttributeNames": {"#number": name},
        "ExpressionAttributeValues": {":expected": {"N": str(number)}},
    }
