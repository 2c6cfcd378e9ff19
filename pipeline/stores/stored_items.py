"""The three tables as they are: items as stored, by key, by history, or whole. For replay, which must not trust a reader.

Reads are strongly consistent. The one write here puts a projection back, and only where it is absent or not newer.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from botocore.exceptions import ClientError

from pipeline.domain.ids import pointer_id
from pipeline.stores.clients import translated
from pipeline.stores.dynamodb import Tables
from pipeline.stores.items import PK, Item, row_key

Key = dict[str, Any]


class StoredItems:
    """Reads items on an open client, and puts rows and pointers back."""

    def __init__(self, client: Any, tables: Tables) -> None:
        self.client = client
        self.tables = tables

    async def row(self, key: str) -> Item | None:
        """Return a row of the incidents table: an incident's by its id, a pointer by its digest."""
        return await self._get(self.tables.incidents, key)

    async def pointer(self, service: str, dedup_key: str) -> Item | None:
        return await self.row(pointer_id(service, dedup_key))

    async def receipt(self, key: str) -> Item | None:
        return await self._get(self.tables.idempotency, key)

    async def _get(self, table: str, key: str) -> Item | None:
        with translated("GetItem"):
            answer = await self.client.get_item(TableName=table, Key=row_key(key), ConsistentRead=True)
        found: Item | None = answer.get("Item")
        return found

    async def lowest(self, incident_id: str) -> Item | None:
        """Return the number and time of the lowest of an incident's events; None where it has none."""
        request = {
            "TableName": self.tables.events,
            "ConsistentRead": True,
            "Limit": 1,
            "KeyConditionExpression": "#incident = :incident",
            "ProjectionExpression": "#sequence, #time",
            "ExpressionAttributeNames": {"#incident": "incidentId", "#sequence": "sequence", "#time": "timestamp"},
            "ExpressionAttributeValues": {":incident": {"S": incident_id}},
        }
        with translated("query"):
            found: list[Item] = (await self.client.query(**request))["Items"]
        return found[0] if found else None

    async def history(self, incident_id: str, after: int = 0) -> AsyncIterator[Item]:
        """Yield an incident's stored events behind `after`, in the order of their numbers."""
        request: dict[str, Any] = {
            "TableName": self.tables.events,
            "ConsistentRead": True,
            "KeyConditionExpression": "#incident = :incident",
            "ExpressionAttributeNames": {"#incident": "incidentId"},
            "ExpressionAttributeValues": {":incident": {"S": incident_id}},
        }
        # From the start all that is there, also under numbers that no event has.
        if after:
            request["KeyConditionExpression"] += " AND #sequence > :after"
            request["ExpressionAttributeNames"]["#sequence"] = "sequence"
            request["ExpressionAttributeValues"][":after"] = {"N": str(after)}
        async for page in self._pages("query", request):
            for item in page["Items"]:
                yield item

    async def scan(
        self, table: str, segment: int = 0, segments: int = 1, filters: Mapping[str, Any] | None = None
    ) -> AsyncIterator[list[Item]]:
        """Yield a segment's items page by page; a page may be empty. `filters` are further parameters of the scan."""
        request = {"TableName": table, "ConsistentRead": True, "Segment": segment, "TotalSegments": segments}
        async for page in self._pages("scan", request | dict(filters or {})):
            yield page["Items"]

    async def count(self, table: str) -> int:
        """Return how many items a table holds, as DynamoDB counts every six hours or so."""
        with translated("DescribeTable"):
            answer = await self.client.describe_table(TableName=table)
        return int(answer["Table"].get("ItemCount", 0))

    async def _pages(self, method: str, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        start: dict[str, Any] = {}
        while True:
            with translated(method):
                page = await getattr(self.client, method)(**request, **start)
            yield page
            if not page.get("LastEvaluatedKey"):
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def put_back(self, item: Item, number: str) -> bool:
        """Put a row or pointer where there is none, or one whose `number` (version, occurrence) is not newer.

        A row of the same version must be of the same event: it is the one witness of what that event was. Returns whether
        it was put: False where another is there.
        """
        older, values = "#number <= :number", {":number": item[number]}
        if "lastEventHash" in item:
            older = "#number < :number OR (#number = :number AND lastEventHash = :hash)"
            values[":hash"] = item["lastEventHash"]
        return await self._put(item, f"attribute_not_exists(#key) OR {older}", {"#key": PK, "#number": number}, values)

    async def replace(self, item: Item, there: Item, names: tuple[str, ...]) -> bool:
        """Put a row or pointer in the place of `there`, if that still stands: by the attributes that every decision changes.

        Returns whether it was put.
        """
        stands, placeholders, values = ["attribute_exists(#key)"], {"#key": PK}, {}
        for place, name in enumerate(names):
            placeholders[f"#n{place}"] = name
            if name in there:
                stands.append(f"#n{place} = :n{place}")
                values[f":n{place}"] = there[name]
            else:
                stands.append(f"attribute_not_exists(#n{place})")
        return await self._put(item, " AND ".join(stands), placeholders, values)

    async def _put(self, item: Item, condition: str, names: Mapping[str, str], values: Mapping[str, Any]) -> bool:
        request: dict[str, Any] = {"TableName": self.tables.incidents, "Item": item, "ConditionExpression": condition}
        request["ExpressionAttributeNames"] = names
        # DynamoDB takes no empty ones.
        if values:
            request["ExpressionAttributeValues"] = values
        with translated("PutItem"):
            try:
                await self.client.put_item(**request)
            except ClientError as error:
                if error.response["Error"].get("Code") != "ConditionalCheckFailedException":
                    raise
                return False
        return True
