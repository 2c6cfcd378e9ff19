"""Write the projection again from the events: rows and pointers, one incident at a time, also while others decide.

A row is put only where there is none, or one that is not newer. Its events are read anew right before, and asked for news
right after: so a row that a decision has moved on meanwhile is never set back, and one that was missing ends where its
events end. A history that is damaged is told, and makes no row. A pointer is put for its key's newest incident, whichever of
them is rebuilt.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt, Rejected
from pipeline.domain.ids import incident_id as id_of
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Policies
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.lines import document_of, hash_of, line_of, said
from pipeline.services.ports import Pointer
from pipeline.stores.items import Item, incident_item, pointer_item
from pipeline.stores.stored_items import StoredItems

ROUNDS_MAX: Final = 20
_HASH: Final = re.compile(r"[0-9a-f]{64}")


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


async def rebuild(stored: StoredItems, incident_id: str, policies: Policies | None, *, dry_run: bool = False) -> Rebuilt:
    """Write an incident's row and its key's pointer again."""
    for _ in range(ROUNDS_MAX):
        row = await stored.row(incident_id)
        fold, witness = ModelFold(), _witness(row)
        try:
            replay = Replay(incident_id, fold, policies=policies, hash_of=hash_of)
        except Corrupt as error:
            return _unreadable(incident_id, 0, error)
        try:
            async for item in stored.history(incident_id):
                event = document_of(line_of(item))
                if event.get("hash") == witness:
                    witness = ""
                replay.event(event)
        except (Corrupt, Rejected) as error:
            return _unreadable(incident_id, replay.version, error)
        found = replay.finish()
        if not replay.version:
            return Rebuilt(incident_id, Answer.UNKNOWN)
        if not replay.is_whole:
            return Rebuilt(incident_id, Answer.DAMAGED, replay.version, found=found)
        if witness and _number(row, "version") <= replay.version:
            doubt = Divergence(incident_id, Kind.ROW, "lastEventHash", replay.tip, witness)
            return Rebuilt(incident_id, Answer.DAMAGED, replay.version, found=(doubt,))
        pointed = await _point(stored, fold.incident, dry_run)
        answer = await _put(stored, incident_item(fold.incident), row, "version", "lastEventHash", dry_run)
        # With a row that was missing nothing could be decided; with an older one, something may have been since.
        more = not dry_run and [item async for item in stored.history(incident_id, replay.version)]
        if answer is Answer.NEWER or not more:
            return Rebuilt(incident_id, answer, replay.version, pointed is Answer.WRITTEN)
    # Decided on faster than it could be read: its row is moved on by those decisions.
    return Rebuilt(incident_id, Answer.NEWER)


def _unreadable(incident_id: str, version: int, error: Exception) -> Rebuilt:
    found = Divergence(incident_id, Kind.UNREADABLE, "its events", "readable", str(error))
    return Rebuilt(incident_id, Answer.DAMAGED, version, found=(found,))


def _witness(row: Item | None) -> str:
    """Return the hash of the event that a row says it is of; nothing, where it says none.

    A row of an event that is not among those stored must not be written over: that event may be the one that was replaced,
    and the row all that still tells of it. One that is of another event than that of its version tells of nothing lost.
    """
    told = said((row or {}).get("lastEventHash"), "S")
    return told if _HASH.fullmatch(told) else ""


async def _point(stored: StoredItems, incident: Incident, dry_run: bool) -> Answer:
    """Put the pointer of an incident's key, where it is missing or behind: it names the newest that has events."""
    service, dedup_key, occurrence = incident.service, incident.metadata.dedup_key, incident.metadata.occurrence
    there = await stored.pointer(service, dedup_key)
    if there is not None and _number(there, "occurrence") > occurrence:
        return Answer.NEWER
    while await stored.lowest(id_of(service, dedup_key, occurrence + 1)) is not None:
        occurrence += 1
    identity = id_of(service, dedup_key, occurrence)
    pointer = Pointer(service=service, dedup_key=dedup_key, occurrence=occurrence, incident_id=identity)
    return await _put(stored, pointer_item(pointer), there, "occurrence", "incidentId", dry_run)


async def _put(stored: StoredItems, item: Item, judged: Item | None, number: str, named: str, dry_run: bool) -> Answer:
    """Put an item where there is none, or an older one; or where the one that was judged still stands, not newer."""
    there = await stored.row(item["pk"]["S"])
    if there == item:
        return Answer.CURRENT
    if _number(there, number) > int(item[number]["N"]):
        return Answer.NEWER
    if dry_run or await stored.put_back(item, number):
        return Answer.WRITTEN
    # Either a decision has moved it on, or it is one that none can follow: of no number, or of another event than it says.
    if there is None or there != judged:
        return Answer.NEWER
    return Answer.WRITTEN if await stored.replace(item, there, (number, named)) else Answer.NEWER


def _number(item: Item | None, name: str) -> int:
    """Return a number of an item; 0 where it says none."""
    digits = said((item or {}).get(name), "N")
    return int(digits) if digits.isdecimal() else 0
