"""The event table by time, which it has no index for: parallel segments of a scan, filtered by the service.

Reads only, strongly consistently: an event that was committed before a segment is read is seen. An incident lies in one
segment whole. One item that can't be read is named and keeps nothing else from being read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import OpxError
from pipeline.services.ports import FailedRecord
from pipeline.stores.clients import translated
from pipeline.stores.items import Item, from_item

UNREADABLE: Final = "unreadable"
UNIT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ScannedPage:
    """What one call found. `last`: behind which incident and sequence the segment goes on, None at its end."""

    documents: tuple[Document, ...]
    unreadable: tuple[FailedRecord, ...]
    examined: int
    last: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class TableSize:
    """How large a table is, as DynamoDB counts it every six hours or so."""

    events: int
    size_bytes: int

    @property
    def read_units(self) -> int:
        """Return what reading all of it consistently consumes."""
        return -(-self.size_bytes // UNIT_BYTES)


class DynamoEventScan:
    """Reads the event table on an open client."""

    def __init__(self, client: Any, table: str) -> None:
        self.client = client
        self.table = table

    async def size(self) -> TableSize:
        with translated("DescribeTable"):
            found = (await self.client.describe_table(TableName=self.table))["Table"]
        return TableSize(int(found.get("ItemCount", 0)), int(found.get("TableSizeBytes", 0)))

    async def page(
        self, segment: int, total: int, span: tuple[datetime, datetime], behind: tuple[str, int] | None = None
    ) -> ScannedPage:
        """Return a segment's next page of events from one time to before another. An empty one may have a next one.

        By an event's time or, where that is an earlier event's because the deciding clock was behind, by its decision's.
        """
        since, until = span
        request: dict[str, Any] = {
            "TableName": self.table,
            "ConsistentRead": True,
            "Segment": segment,
            "TotalSegments": total,
            "FilterExpression": "(#time >= :since AND #time < :until) OR (#decided >= :since AND #decided < :until)",
            "ExpressionAttributeNames": {"#time": "timestamp", "#decided": "decidedAt"},
            "ExpressionAttributeValues": {":since": {"S": format_time(since)}, ":until": {"S": format_time(until)}},
        }
        if behind is not None:
            request["ExclusiveStartKey"] = _key(*behind)
        with translated("Scan"):
            answer = await self.client.scan(**request)
        return _page(answer, _place(answer.get("LastEvaluatedKey")))


def _key(incident_id: str, sequence: int) -> Item:
    return {"incidentId": {"S": incident_id}, "sequence": {"N": str(sequence)}}


def _place(key: Item | None) -> tuple[str, int] | None:
    return (key["incidentId"]["S"], int(key["sequence"]["N"])) if key else None


def _page(answer: Mapping[str, Any], last: tuple[str, int] | None) -> ScannedPage:
    documents: list[Document] = []
    unreadable: list[FailedRecord] = []
    for item in answer["Items"]:
        try:
            documents.append(from_item(item))
        except OpxError as error:
            named = _place(item)
            assert named is not None
            unreadable.append(FailedRecord(*named, UNREADABLE, str(error)))
    return ScannedPage(tuple(documents), tuple(unreadable), int(answer.get("ScannedCount", 0)), last)
