"""One stored item as one line of DynamoDB-JSON, and the way back: fast, because a replay does it for every event there is.

A line is what an export holds and what a scan is turned into, so everything behind it is the same for both. The hash is
made by a faster writer of the canonical form than the core's; where it differs from what is stored, the core's own word
counts, and the tests hold the two against each other. Nothing here trusts a line: what is none of ours raises `Corrupt`.
"""

import re
from base64 import b64encode
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import orjson

from pipeline.domain.canonical import DEPTH_MAX, Document
from pipeline.domain.envelope import event_hash
from pipeline.domain.errors import Corrupt
from pipeline.replay.usual_event import NUMBER, number_of, usual_event_of
from pipeline.stores.items import Item, from_item

# The keys of an event, where they stand once in a line. Quotes within text are escaped, so no text can look like this; a
# caller's own data can hold the same names, and then the line is read as a whole.
_INCIDENT: Final = b'"incidentId":{"S":"'
_SEQUENCE: Final = b'"sequence":{"N":"'
_INCIDENT_LENGTH: Final = len(_INCIDENT)
_SEQUENCE_LENGTH: Final = len(_SEQUENCE)
_ID_LENGTH: Final = 36
_DIGITS_MAX: Final = 16
_ID: Final = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
# A stored document lies somewhat deeper than the request that it was made of.
_DEPTH_MAX: Final = 2 * DEPTH_MAX
_TYPES: Final[dict[str, type]] = {"S": str, "N": str, "BOOL": bool, "NULL": bool, "M": dict, "L": list}
_NO_ATTRIBUTE: Final = (ValueError, AttributeError, TypeError, KeyError, ArithmeticError, RecursionError)


def line_of(item: Item) -> bytes:
    """Return an item as a line, without its end."""
    return orjson.dumps({"Item": item}, default=_binary)


def _binary(value: Any) -> str:
    # As an export writes it. opx never stores one, so whoever reads the line says that it is none of ours.
    if isinstance(value, bytes | bytearray):
        return b64encode(value).decode()
    return str(value)


def item_of(line: bytes) -> Item:
    """Return the item in a line. Raises `Corrupt` where there is none."""
    try:
        item: Item = orjson.loads(line)["Item"]
    except (orjson.JSONDecodeError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"a line is not an item of an export: {type(error).__name__}: {error}") from None
    if not isinstance(item, dict):
        raise Corrupt("a line is not an item of an export: the item is no object")
    return item


def event_key(line: bytes) -> tuple[bytes, int]:
    """Return the incidentId and sequence of an event's line. Raises `Corrupt` where it has none."""
    found = quick_event_key(line)
    if found is not None:
        return found
    item = item_of(line)
    incident, text = said(item.get("incidentId"), "S"), said(item.get("sequence"), "N")
    if not incident or len(text) > _DIGITS_MAX or not NUMBER.fullmatch(text):
        raise Corrupt("a line is not an event: it has not the keys of one")
    try:
        return incident.encode(), max(0, int(text))
    except ValueError:
        raise Corrupt(f"a line is not an event: its number is {text}") from None


def said(attribute: Any, kind: str) -> str:
    """Return what an attribute of a kind says: nothing, where it is none."""
    found = attribute.get(kind) if isinstance(attribute, dict) else None
    return found if isinstance(found, str) else ""


def quick_event_key(line: bytes) -> tuple[bytes, int] | None:
    """Return the keys of an event's line where they are plain to see, an incident's id as it must be; else None."""
    at, number = line.find(_INCIDENT), line.find(_SEQUENCE)
    if at >= 0 and number >= 0 and line.find(_INCIDENT, at + 1) < 0 and line.find(_SEQUENCE, number + 1) < 0:
        at, number = at + _INCIDENT_LENGTH, number + _SEQUENCE_LENGTH
        key = line[at : at + _ID_LENGTH]
        sequence = _whole_number(line[number : line.find(b'"', number)])
        if sequence >= 0 and line[at + _ID_LENGTH : at + _ID_LENGTH + 1] == b'"' and is_id(key):
            return key, sequence
    return None


@lru_cache(maxsize=4096)
def _whole_number(digits: bytes) -> int:
    return int(digits) if digits.isdigit() and len(digits) <= _DIGITS_MAX else -1


# An incident's events lie together in an export.
@lru_cache(maxsize=64)
def is_id(key: bytes) -> bool:
    """Return whether this is an incident's id, as ids are made."""
    return _ID.fullmatch(key) is not None


def document_of(line: bytes) -> Document:
    """Return the document in a line. Raises `Corrupt` on what opx never writes.

    Made for events by the million: in their metadata, of a value with two kinds one is read. `exact_document_of` refuses it.
    """
    event = usual_event_of(line)
    return exact_document_of(line) if event is None else event


def exact_document_of(line: bytes) -> Document:
    """Return the document in a line. Raises `Corrupt` for all that no item of ours can be."""
    item = item_of(line)
    try:
        for attribute in item.values():
            _check(attribute, 1)
        return from_item(item)
    except _NO_ATTRIBUTE as error:
        raise Corrupt(f"an item's attribute is not one of DynamoDB's: {type(error).__name__}: {error}") from None


def _check(attribute: dict[str, Any], depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise ValueError(f"nested deeper than {_DEPTH_MAX}")
    kind: str
    value: Any
    ((kind, value),) = attribute.items()
    if not isinstance(value, _TYPES.get(kind, object)):
        raise TypeError(f"{type(value).__name__} as {kind}")
    if kind == "N":
        number_of(value)
    elif kind in ("M", "L"):
        for inner in attribute["M"].values() if kind == "M" else attribute["L"]:
            _check(inner, depth + 1)


def hash_of(event: Document) -> str:
    """Return the hash a stored event must carry, as `event_hash` does. Raises `Corrupt` for what no event can hold."""
    said = event.pop("hash", _ABSENT)
    try:
        made = sha256(_dumps(event, _plain, _SORTED)).hexdigest()
        # A mistake of the fast writer must never be called a damaged event.
        return made if made == said else event_hash(event)
    except TypeError as error:
        raise Corrupt(f"an event without a canonical form: {error}") from None
    finally:
        if said is not _ABSENT:
            event["hash"] = said


_ABSENT: Final = object()
_dumps: Final = orjson.dumps
_SORTED: Final = orjson.OPT_SORT_KEYS


def _plain(value: Any) -> Any:
    if type(value) is Decimal:
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no canonical form")
