"""Write the projection again from the events: rows and pointers, one incident at a time, also while others decide.

A row is put only where there is none, or one that is not newer. Its events are read anew right before, and asked for news
right after: so a row that a decision has moved on meanwhile is never set back, and one that was missing ends where its
events end. A history that is damaged is told, and makes no row.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.domain.divergences import Divergence
from pipeline.domain.errors import Unavailable
from pipeline.domain.promotion import Policies
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.lines import document_of, hash_of, line_of
from pipeline.replay.live import SEGMENTS
from pipeline.services.ports import Pointer
from pipeline.stores.items import Item, incident_item, pointer_item
from pipeline.stores.stored_items import StoredItems

ROUNDS_MAX: Final = 20


class Answer(StrEnum):
    """What became of one incident's row."""

    WRITTEN = "written"
    CURRENT = "current"
    NEWER = "newer"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What became of an incident; `found` says what is wrong with its history, where that is damaged."""

    incident_id: str
    answer: Answer
    version: int = 0
    pointer_written: bool = False
    found: tuple[Divergence, ...] = ()


async def incident_ids(stored: StoredItems) -> AsyncIterator[str]:
    """Yield the ids of all incidents that were ever created, by a scan of the event table."""
    creations = {
        "FilterExpression": "#type = :created",
        "ProjectionExpression": "#incident",
        "ExpressionAttributeNames": {"#type": "eventType", "#incident": "incidentId"},
        "ExpressionAttributeValues": {":created": {"S": "IncidentCreated"}},
    }
    for segment in range(SEGMENTS):
        async for items in stored.scan(stored.tables.events, segment, SEGMENTS, creations):
            for item in items:
                yield item["incidentId"]["S"]


async def rebuild(stored: StoredItems, incident_id: str, policies: Policies | None, *, dry_run: bool = False) -> Rebuilt:
    """Write an incident's row and its key's pointer again. Raises `Unavailable` where its events never hold still."""
    for _ in range(ROUNDS_MAX):
        fold = ModelFold()
        replay = Replay(incident_id, fold, policies=policies, hash_of=hash_of)
        async for item in stored.history(incident_id):
            replay.event(document_of(line_of(item)))
        found = replay.finish()
        if not replay.version:
            return Rebuilt(incident_id, Answer.UNKNOWN)
        if not replay.is_whole:
            return Rebuilt(incident_id, Answer.DAMAGED, replay.version, found=found)
        incident = fold.incident
        pointer = Pointer(
            service=incident.service,
            dedup_key=incident.metadata.dedup_key,
            occurrence=incident.metadata.occurrence,
            incident_id=incident_id,
        )
        pointed = await _put(stored, pointer_item(pointer), "occurrence", dry_run)
        answer = await _put(stored, incident_item(incident), "version", dry_run)
        # With a row that was missing nothing could be decided; with an older one, something may have been since.
        if dry_run or not [item async for item in stored.history(incident_id, replay.version)]:
            return Rebuilt(incident_id, answer, replay.version, pointed is Answer.WRITTEN)
    raise Unavailable(f"the events of {incident_id} went on and on; nothing was set back")


async def _put(stored: StoredItems, item: Item, number: str, dry_run: bool) -> Answer:
    there = await stored.row(item["pk"]["S"])
    if there == item:
        return Answer.CURRENT
    if there is not None and _number(there, number) > int(item[number]["N"]):
        return Answer.NEWER
    if dry_run:
        return Answer.WRITTEN
    return Answer.WRITTEN if await stored.put_back(item, number) else Answer.NEWER


def _number(item: Item, name: str) -> int:
    found = item.get(name, {}).get("N", "0")
    return int(found) if str(found).isdecimal() else 0
