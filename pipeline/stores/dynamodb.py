"""The three tables in DynamoDB. One decision is one TransactWriteItems; a write is never sent again by this file.

Reads are strongly consistent and follow every page; only the indexes behind `page` lag, so the rows it returns are read
again by key. Keys and items are in `items`, the reading of a cancelled transaction in `cancellations`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_random_exponential

from pipeline.domain.canonical import Document, format_time, parse_time
from pipeline.domain.correlation import Window
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.ids import CREATED_SHARDS, SERVICE_SHARDS, STATE_SHARDS, pointer_id
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.services.ports import (
    EXAMINED_MAX,
    Clock,
    Commit,
    CommitResult,
    Committed,
    KeyHeld,
    Listing,
    Page,
    Pointer,
    Position,
    RowUnmoved,
    position,
)
from pipeline.stores.cancellations import read_cancellation
from pipeline.stores.clients import translate, translated
from pipeline.stores.items import (
    CREATED_KEY,
    CREATED_SHARD,
    PK,
    SERVICE_SHARD,
    STATE_SHARD,
    Item,
    created_key,
    created_shard,
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

# Of a partition at once: one entry that was seen before, one that is new, and one that shows where it ends.
ENTRIES_MIN: Final = 3

Json = dict[str, Any]
# An index's entry: createdKey and incidentId, which sort as positions do.
Entry = tuple[str, str]
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

    def __init__(
        self,
        client: Any,
        tables: Tables,
        clock: Clock,
        *,
        report_capacity: CapacityReport | None = None,
        examined_max: int = EXAMINED_MAX,
    ) -> None:
        self.client = client
        self.tables = tables
        self.clock = clock
        self.report_capacity = report_capacity
        self.examined_max = examined_max

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

    async def history(self, incident_id: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Document]:
        request: Json = {
            "TableName": self.tables.events,
            "ConsistentRead": True,
            "KeyConditionExpression": "#incident = :incident AND #sequence > :after",
            "ExpressionAttributeNames": {"#incident": "incidentId", "#sequence": "sequence"},
            "ExpressionAttributeValues": {":incident": {"S": incident_id}, ":after": {"N": str(after)}},
        }
        if limit is not None:
            request["Limit"] = limit
        yielded = 0
        async for page in self._pages("query", request):
            for item in page["Items"]:
                yield from_item(item)
                yielded += 1
                if yielded == limit:
                    return

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

    async def page(self, listing: Listing) -> Page:
        """Merge the newest of every index partition, then read the rows themselves and keep what matches as it is now.

        Nothing is filtered in an index. It lags, and what it still shows as it was would be passed over for good; the price
        is one unit for each row read in vain. A partition by state is such a filter: all that a listing by state can miss.
        """
        found: list[Incident] = []
        keys, whole = await self._entries(listing)
        rest = keys
        while rest and len(found) < listing.limit:
            size = BATCH_GET_MAX if _reads_in_vain(listing) else min(BATCH_GET_MAX, listing.limit - len(found))
            batch, rest = rest[:size], rest[size:]
            rows = await self._rows([incident_id for _, incident_id in batch])
            found += sorted(filter(listing.matches, rows), key=position, reverse=True)
        if len(found) > listing.limit or (len(found) == listing.limit and (rest or not whole)):
            return Page(tuple(found[: listing.limit]), position(found[listing.limit - 1]))
        return Page(tuple(found), None if whole else _place(keys[-1]))

    async def _entries(self, listing: Listing) -> tuple[list[Entry], bool]:
        """Return the next entries of a listing, in order and without a gap, and whether these are all there are."""
        low = "0" if listing.since is None else format_time(listing.since)
        high = "9" if listing.until is None else format_time(listing.until)
        if listing.before is not None:
            high = min(high, created_key(listing.before))
        if low >= high:
            return [], True
        queries = [self._partition(*partition, low, high) for partition in _partitions(listing)]
        size = max(ENTRIES_MIN, self.examined_max // len(queries))
        if not _reads_in_vain(listing):
            # Of one partition, no more than the page holds can matter; and one that was seen, and one that shows more.
            size = min(size, listing.limit + 2)
        # All are waited for, whatever one of them meets: nothing may go on in the next invocation.
        asked = (self._newest(query, size, listing.before) for query in queries)
        parts: list[tuple[list[Entry], str | None]] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            parts.append(answer)
        # Down to where a partition goes on, an order over all of them is known; further down it isn't.
        known_down_to = max((end for _, end in parts if end is not None), default="")
        keys = sorted((key for keys, _ in parts for key in keys if key[0] > known_down_to), reverse=True)
        return keys, not known_down_to

    async def _newest(self, query: Json, size: int, before: Position | None) -> tuple[list[Entry], str | None]:
        """Return a partition's newest entries behind `before`, and the createdKey above which none is missing.

        Equal keys have no order that can be relied on, so a run of them counts once its end has been seen: it is read whole,
        however long. (Longer than `size` takes hundreds of incidents of one microsecond and the same eight digits.)
        """
        keys: list[Entry] = []
        behind = None if before is None else (created_key(before), before.incident_id)
        async for page in self._pages("query", query | {"Limit": size}):
            entries = [(item[CREATED_KEY]["S"], item[PK]["S"]) for item in page["Items"]]
            keys += [entry for entry in entries if behind is None or entry < behind]
            last = page.get("LastEvaluatedKey")
            if last and keys and keys[0][0] > last[CREATED_KEY]["S"]:
                return keys, last[CREATED_KEY]["S"]
        return keys, None

    def _partition(self, index: str, name: str, key: str, low: str, high: str) -> Json:
        """Return the query of one index partition, newest first."""
        return {
            "TableName": self.tables.incidents,
            "IndexName": index,
            "ScanIndexForward": False,
            "KeyConditionExpression": "#partition = :partition AND #created BETWEEN :low AND :high",
            "ExpressionAttributeNames": {"#partition": name, "#created": CREATED_KEY},
            "ExpressionAttributeValues": {":partition": {"S": key}, ":low": {"S": low}, ":high": {"S": high}},
        }

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


def _partitions(listing: Listing) -> list[tuple[str, str, str]]:
    """Return index, key attribute and key of the partitions that a listing is in: as few as hold all of it."""
    if listing.service is not None:
        keys = [service_shard(listing.service, number) for number in range(SERVICE_SHARDS)]
        return [("by-service", SERVICE_SHARD, key) for key in keys]
    if listing.state is not None:
        keys = [state_shard(listing.state, number) for number in range(STATE_SHARDS)]
        return [("by-state", STATE_SHARD, key) for key in keys]
    return [("by-created", CREATED_SHARD, created_shard(number)) for number in range(CREATED_SHARDS)]


def _reads_in_vain(listing: Listing) -> bool:
    """Return whether rows of the listing's partitions may well not match."""
    return listing.severity is not None or (listing.service is not None and listing.state is not None)


def _place(entry: Entry) -> Position:
    created, incident_id = entry
    return Position(parse_time(created.partition("#")[0]), incident_id)
