"""Write the projection again from the events: rows and pointers, one incident at a time, also while others decide.

A row is put only where there is none, or one that is not newer. Its events are read anew right before, and asked for news
right after: so a row that a decision has moved on meanwhile is never set back, and one that was missing ends where its
events end. A history that is damaged is told, and makes no row.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt, Rejected
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Policies
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.lines import document_of, hash_of, line_of
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


async def rebuild(stored: StoredItems, incident_id: str, policies: Policies | None, *, dry_run: bool = False) -> Rebuilt:
    """Write an incident's row and its key's pointer again."""
    for _ in range(ROUNDS_MAX):
        row = await stored.row(incident_id)
        fold, hashes = ModelFold(), dict[int, str]()
        try:
            replay = Replay(incident_id, fold, policies=policies, hash_of=hash_of)
        except Corrupt as error:
            return _unreadable(incident_id, 0, error)
        try:
            async for item in stored.history(incident_id):
                event = document_of(line_of(item))
                if event.get("sequence") == _version(row):
                    hashes[event["sequence"]] = str(event.get("hash"))
                replay.event(event)
        except (Corrupt, Rejected) as error:
            return _unreadable(incident_id, replay.version, error)
        found = replay.finish()
        if not replay.version:
            return Rebuilt(incident_id, Answer.UNKNOWN)
        if not replay.is_whole:
            return Rebuilt(incident_id, Answer.DAMAGED, replay.version, found=found)
        if doubt := _doubt(incident_id, row, hashes, replay.version):
            return Rebuilt(incident_id, Answer.DAMAGED, replay.version, found=(doubt,))
        pointed = await _put(stored, _pointer_of(fold.incident), "occurrence", dry_run)
        answer = await _put(stored, incident_item(fold.incident), "version", dry_run)
        # With a row that was missing nothing could be decided; with an older one, something may have been since.
        more = not dry_run and [item async for item in stored.history(incident_id, replay.version)]
        if answer is Answer.NEWER or not more:
            return Rebuilt(incident_id, answer, replay.version, pointed is Answer.WRITTEN)
    # Decided on faster than it could be read: its row is moved on by those decisions.
    return Rebuilt(incident_id, Answer.NEWER)


def _unreadable(incident_id: str, version: int, error: Exception) -> Rebuilt:
    found = Divergence(incident_id, Kind.UNREADABLE, "its events", "readable", str(error))
    return Rebuilt(incident_id, Answer.DAMAGED, version, found=(found,))


def _doubt(incident_id: str, row: Item | None, hashes: dict[int, str], last: int) -> Divergence | None:
    """Return why a row must not be written over: it is of another event than the one of its version.

    Then the event may be the one that was forged, and the row all that still tells of it.
    """
    version = _version(row)
    if row is None or version > last:
        return None
    said = row.get("lastEventHash", {}).get("S", "absent")
    stored = hashes.get(version, f"no event {version}")
    if said == stored:
        return None
    return Divergence(incident_id, Kind.ROW, "lastEventHash", stored, said)


def _pointer_of(incident: Incident) -> Item:
    metadata = incident.metadata
    return pointer_item(
        Pointer(
            service=incident.service,
            dedup_key=metadata.dedup_key,
            occurrence=metadata.occurrence,
            incident_id=incident.incident_id,
        )
    )


async def _put(stored: StoredItems, item: Item, number: str, dry_run: bool) -> Answer:
    there = await stored.row(item["pk"]["S"])
    if there == item:
        return Answer.CURRENT
    if there is not None and _number(there, number) > int(item[number]["N"]):
        return Answer.NEWER
    if dry_run:
        return Answer.WRITTEN
    return Answer.WRITTEN if await stored.put_back(item, number) else Answer.NEWER


def _version(row: Item | None) -> int:
    return 0 if row is None else _number(row, "version")


def _number(item: Item, name: str) -> int:
    found = item.get(name, {}).get("N", "0")
    return int(found) if str(found).isdecimal() else 0
