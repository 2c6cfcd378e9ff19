"""Where each stored item belongs in a replay: under which key, at which place, in which order.

Of one incident the row comes first, then each receipt before the first event that it names, then the event, then what an
auditor sealed at it. Pointers and the creations that should have moved them meet under the pointer's key.
"""

import re
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Final, NamedTuple

from pipeline.domain.errors import Corrupt
from pipeline.replay.lines import event_key, is_id, item_of, said
from pipeline.stores.items import Item

_PK: Final = re.compile(rb'"pk":\{"S":"([0-9a-f-]{36}|[0-9a-f]{64})"\}')
_FIRST: Final = re.compile(rb'"firstSequence":\{"N":"([0-9]{1,16})"\}')
_LAST: Final = re.compile(rb'"lastSequence":\{"N":"([0-9]{1,16})"\}')
_OF_INCIDENT: Final = re.compile(rb'"incidentId":\{"S":"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"\}')
_RECEIPT: Final = b'"requestDigest":{"S":"'
_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")
_PLACE: Final = re.compile(r"[0-9]{1,16}")
_UUID_LENGTH: Final = 36


class Table(Enum):
    """The three tables, by the end of their names."""

    EVENTS = "incident-events"
    INCIDENTS = "incidents"
    IDEMPOTENCY = "idempotency"


class Rank(IntEnum):
    """What of an incident comes first."""

    ROW = 0
    RECEIPT = 1
    EVENT = 2
    SEAL = 3


class PointerRank(IntEnum):
    """What of a key comes first."""

    CREATION = 0
    POINTER = 1


class Place(NamedTuple):
    """Where a line goes: to an incident's lines, or, for a pointer, to its key's."""

    key: bytes
    place: int
    rank: int
    is_pointer: bool = False


def place_of_event(line: bytes) -> Place:
    """Return where an event's line belongs. Raises `Corrupt` where it has not the keys of an event."""
    incident, sequence = event_key(line)
    if not is_id(incident):
        raise Corrupt(f"an event of {incident[:60]!r}, which is no incident's id")
    return Place(incident, sequence, Rank.EVENT)


def place_of_row(line: bytes) -> Place:
    """Return where a row of the incidents table belongs: an incident's, or a key's pointer."""
    key = _key(line)
    is_pointer = len(key) != _UUID_LENGTH
    return Place(key, 0, PointerRank.POINTER if is_pointer else Rank.ROW, is_pointer)


def place_of_receipt(line: bytes) -> Place | None:
    """Return where a receipt belongs; None for what tells of no incident."""
    found = _OF_INCIDENT.search(line)
    if found is not None and _RECEIPT in line:
        first = _FIRST.search(line)
        return Place(found[1], int(first[1]) if first else 0, Rank.RECEIPT)
    # Written by another hand than an export's, perhaps: read as a whole.
    item = item_of(line)
    if "requestDigest" not in item or "incidentId" not in item:
        return None
    incident = said(item["incidentId"], "S").encode()
    if not is_id(incident):
        raise Corrupt(f"a receipt of {incident[:60]!r}, which is no incident's id")
    # Whatever else of it can't be read is told by whoever takes it, with its incident.
    return Place(incident, events_of(item)[0], Rank.RECEIPT)


def events_of(receipt: Item) -> tuple[int, int]:
    """Return the events that a receipt names, as far as that much of it can be read; else none: (0, 0)."""
    result = receipt.get("result")
    members = result.get("M") if isinstance(result, dict) else None
    if not isinstance(members, dict):
        return 0, 0
    first, last = (said(members.get(name), "N") for name in ("firstSequence", "lastSequence"))
    both = _PLACE.fullmatch(first) and _PLACE.fullmatch(last)
    return (int(first), int(last)) if both else (0, 0)


def outline_of(receipt: bytes) -> tuple[str, tuple[int, int]]:
    """Return the key of a receipt that can't be read, and the events it names, as far as these can be told."""
    try:
        item = item_of(receipt)
    except Corrupt:
        key, first, last = (pattern.search(receipt) for pattern in (_PK, _FIRST, _LAST))
        events = (int(first[1]), int(last[1])) if first and last else (0, 0)
        return key[1].decode() if key else "", events
    return said(item.get("pk"), "S"), events_of(item)


PLACES: Final[dict[Table, Callable[[bytes], Place | None]]] = {
    Table.EVENTS: place_of_event,
    Table.INCIDENTS: place_of_row,
    Table.IDEMPOTENCY: place_of_receipt,
}


def _key(line: bytes) -> bytes:
    found = _PK.findall(line)
    # A caller's own data may hold the same name: then the line is read as a whole.
    key = found[0] if len(found) == 1 else said(item_of(line).get("pk"), "S").encode()
    if not (is_id(key) or _DIGEST.fullmatch(key)):
        raise Corrupt("an item without the key of its table")
    return bytes(key)
