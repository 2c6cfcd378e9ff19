"""DynamoDB's side of a scan of the event table: segments, pages, the filter by time, and where to go on."""

import zlib
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import EndpointConnectionError

from pipeline.domain.canonical import Document
from pipeline.stores.items import to_item


class EventTable:
    """Answers `scan` and `describe_table`. `page` items are examined for one answer; `down_at` are calls that fail."""

    def __init__(
        self, documents: Iterable[Document], page: int = 7, down_at: Iterable[int] = (), size_bytes: int = 0
    ) -> None:
        self.items = [to_item(document) for document in documents]
        self.page = page
        self.down_at = set(down_at)
        self.size_bytes = size_bytes
        self.requests: list[dict[str, Any]] = []

    async def describe_table(self, TableName: str) -> dict[str, Any]:
        return {"Table": {"ItemCount": len(self.items), "TableSizeBytes": self.size_bytes}}

    async def scan(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        if len(self.requests) - 1 in self.down_at:
            raise EndpointConnectionError(endpoint_url="https://dynamodb.us-east-1.amazonaws.com")
        total, segment = request["TotalSegments"], request["Segment"]
        mine = sorted(
            (item for item in self.items if zlib.crc32(item["incidentId"]["S"].encode()) % total == segment), key=_place
        )
        if "ExclusiveStartKey" in request:
            mine = [item for item in mine if _place(item) > _place(request["ExclusiveStartKey"])]
        examined, more = mine[: self.page], mine[self.page :]
        told = request["ExpressionAttributeValues"]
        since, until = told[":since"]["S"], told[":until"]["S"]
        named = request["ExpressionAttributeNames"].values()
        found = [item for item in examined if any(name in item and since <= item[name]["S"] < until for name in named)]
        # Who asks may not rely on any order within a page.
        answer: dict[str, Any] = {"Items": found[::-1], "ScannedCount": len(examined)}
        if more:
            answer["LastEvaluatedKey"] = {name: examined[-1][name] for name in ("incidentId", "sequence")}
        return answer


def _place(item: dict[str, Any]) -> tuple[str, int]:
    return item["incidentId"]["S"], int(item["sequence"]["N"])
