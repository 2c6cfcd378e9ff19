"""One stored item as one line of DynamoDB-JSON, and the way back: fast, because a replay does it for every event there is.

A line is what an export holds and what a scan is turned into, so everything behind it is the same for both. The hash is
made by a faster writer of the canonical form than the core's; where it differs from what is stored, the core's own word
counts, and the tests hold the two against each other.
"""

import re
from base64 import b64encode
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

import orjson

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import event_hash
from pipeline.domain.errors import Corrupt
from pipeline.stores.items import Item, from_item

# The keys of an event, where they stand once in a line. Quotes within text are escaped, so no text can look like this; a
# caller's own data can hold the same names, and then the line is read as a whole.
_INCIDENT: Final = b'"incidentId":{"S":"'
_SEQUENCE: Final = b'"sequence":{"N":"'
_ID_LENGTH: Final = 36
_DIGITS_MAX: Final = 16
_ID: Final = re.compile(rb'[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"')
_EXACT_DIGITS_MAX: Final = 15


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
    if found[0]:
        return found
    item = item_of(line)
    try:
        text = str(item["sequence"]["N"])
        if len(text) > _DIGITS_MAX:
            raise ValueError(f"a number of {len(text)} digits")
        return str(item["incidentId"]["S"]).encode(), int(text)
    except (KeyError, TypeError, ValueError) as error:
        raise Corrupt(f"a line is not an event: {type(error).__name__}: {error}") from None


def quick_event_key(line: bytes) -> tuple[bytes, int]:
    """Return the keys of an event's line where they are plain to see, an incident's id as it must be; else an empty one."""
    at, number = line.find(_INCIDENT), line.find(_SEQUENCE)
    if at >= 0 and number >= 0 and line.find(_INCIDENT, at + 1) < 0 and line.find(_SEQUENCE, number + 1) < 0:
        key = line[at + len(_INCIDENT) : at + len(_INCIDENT) + _ID_LENGTH + 1]
        digits = line[number + len(_SEQUENCE) : line.find(b'"', number + len(_SEQUENCE))]
        if _ID.fullmatch(key) and digits.isdigit() and len(digits) <= _DIGITS_MAX:
            return key[:_ID_LENGTH], int(digits)
    return b"", 0


def document_of(line: bytes) -> Document:
    """Return the document in a line. Raises `Corrupt` on what opx never writes."""
    item = item_of(line)
    try:
        return {name: inner["S"] if "S" in inner else _value(inner) for name, inner in item.items()}
    except (ValueError, AttributeError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise Corrupt(f"an item's attribute is not one of DynamoDB's: {type(error).__name__}: {error}") from None


def _value(attribute: dict[str, Any]) -> Any:
    # Texts, which most values are, are taken where they stand: no call for each.
    if "M" in attribute:
        return {name: inner["S"] if "S" in inner else _value(inner) for name, inner in attribute["M"].items()}
    if "L" in attribute:
        return tuple([inner["S"] if "S" in inner else _value(inner) for inner in attribute["L"]])
    if "N" in attribute:
        text = attribute["N"]
        if len(text) <= _EXACT_DIGITS_MAX and text.isdecimal():
            return int(text)
        return _fraction(text)
    # Seldom: truth, null, and what opx never writes.
    return from_item({"value": attribute})["value"]


@lru_cache(maxsize=4096)
def _fraction(text: str) -> int | Decimal:
    # Confidences, of which there are few.
    number: int | Decimal = from_item({"value": {"N": text}})["value"]
    return number


def hash_of(event: Document) -> str:
    """Return the hash a stored event must carry, as `event_hash` does."""
    made = quick_hash(event)
    # A mistake of the fast writer must never be called a damaged event.
    return made if made == event.get("hash") else event_hash(event)


def quick_hash(event: Document) -> str:
    """Return the hash of a canonical document without its own `hash`, by the fast writer."""
    said = event.pop("hash", _ABSENT)
    try:
        return sha256(orjson.dumps(event, default=_plain, option=orjson.OPT_SORT_KEYS)).hexdigest()
    finally:
        if said is not _ABSENT:
            event["hash"] = said


_ABSENT: Final = object()


def _plain(value: Any) -> Any:
    if type(value) is Decimal:
        return orjson.Fragment(format(value, "f"))
    raise TypeError(f"{type(value).__name__} has no canonical form")
