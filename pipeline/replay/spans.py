"""Which incidents a replay of tables in use looks at: all there are, or those that anything says to be of a span of time.

Events and rows are scanned both, since either may be changed or gone: an incident is looked at by the word of the lowest of
its events or of its row. What says no time is of every span. Memory does not grow with the tables.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Final

from pipeline.replay.lines import said
from pipeline.replay.live import AT_ONCE, SEGMENTS
from pipeline.replay.partition import Wanted
from pipeline.stores.items import PK, Item
from pipeline.stores.stored_items import StoredItems

_BEGINNINGS: Final = {
    "ProjectionExpression": "#incident, #sequence, #time",
    "ExpressionAttributeNames": {"#incident": "incidentId", "#sequence": "sequence", "#time": "timestamp"},
}
_CREATED: Final = {
    "ProjectionExpression": "#key, #time",
    "ExpressionAttributeNames": {"#key": PK, "#time": "createdAt"},
}
_POINTER: Final = re.compile(r"[0-9a-f]{64}")


async def incident_ids(stored: StoredItems, wanted: Wanted) -> AsyncIterator[str]:
    """Yield the ids of the incidents of a span of time, or of all, that have an event or a row."""
    async for lowest in _lowest_events(stored):
        if _begins_within(lowest, wanted):
            yield lowest["incidentId"]["S"]
    async for ids in _rows(stored, wanted):
        # Those found by their events were yielded; asked for, and not remembered, as there may be any number of them.
        events = await asyncio.gather(*(stored.lowest(incident_id) for incident_id in ids))
        for incident_id, first in zip(ids, events, strict=True):
            if first is None or not _begins_within(first, wanted):
                yield incident_id


def _begins_within(lowest: Item, wanted: Wanted) -> bool:
    # Whatever is no time is handed on as none.
    return wanted.may_begin_with(_number(lowest), said(lowest.get("timestamp"), "S"))


def _number(event: Item) -> Decimal:
    return Decimal(event["sequence"]["N"])


async def _lowest_events(stored: StoredItems) -> AsyncIterator[Item]:
    """Yield the lowest of each incident's events; a table keeps, and a scan gives, an incident's events together."""
    for segment in range(SEGMENTS):
        lowest: Item | None = None
        async for items in stored.scan(stored.tables.events, segment, SEGMENTS, _BEGINNINGS):
            for item in items:
                if lowest is None or item["incidentId"] != lowest["incidentId"]:
                    if lowest is not None:
                        yield lowest
                    lowest = item
                elif _number(item) < _number(lowest):
                    lowest = item
        if lowest is not None:
            yield lowest


async def _rows(stored: StoredItems, wanted: Wanted) -> AsyncIterator[list[str]]:
    """Yield the ids of rows of the span, a few at a time."""
    ids: list[str] = []
    for segment in range(SEGMENTS):
        async for items in stored.scan(stored.tables.incidents, segment, SEGMENTS, _CREATED):
            for item in items:
                key = item[PK]["S"]
                if not _POINTER.fullmatch(key) and wanted.may_include(said(item.get("createdAt"), "S")):
                    ids.append(key)
                if len(ids) == AT_ONCE:
                    yield ids
                    ids = []
    if ids:
        yield ids
