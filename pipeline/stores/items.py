"""Keys, and rows as DynamoDB items: pure, both ways. Who writes them is next door, in `dynamodb`.

An event's item is its document exactly; the other rows are their document plus the keys that find them. Numbers are read
back in canonical form, so a hash made before the write verifies after the read.
"""

from decimal import Decimal
from typing import Any, Final

from pydantic import TypeAdapter

from pipeline.domain.canonical import Document, format_time, normalise
from pipeline.domain.correlation import WINDOW, Window
from pipeline.domain.envelope import IncidentEvent, read_stored
from pipeline.domain.errors import Corrupt, Rejected
from pipeline.domain.ids import CREATED_SHARDS, SERVICE_SHARDS, STATE_SHARDS, pointer_id, shard
from pipeline.domain.incidents import INCIDENT, Incident
from pipeline.domain.receipts import RECEIPT, IdempotencyRecord
from pipeline.domain.transitions import State
from pipeline.services.ports import Pointer, Position, position

Item = dict[str, dict[str, Any]]

PK: Final = "pk"
STATE_SHARD: Final = "stateShard"
SERVICE_SHARD: Final = "serviceShard"
CREATED_SHARD: Final = "createdShard"
CREATED_KEY: Final = "createdKey"
INDEX_KEYS: Final = (PK, STATE_SHARD, SERVICE_SHARD, CREATED_SHARD, CREATED_KEY)
POINTER: TypeAdapter[Pointer] = TypeAdapter(Pointer)


# --- rows ------------------------------------------------------------------------------------------------------------


def incident_item(incident: Incident) -> Item:
    """Return the incident's row. The index keys change with the state alone, so evidence never writes to an index."""
    keys = {
        PK: incident.incident_id,
        STATE_SHARD: state_shard(incident.state, shard(incident.incident_id, STATE_SHARDS)),
        SERVICE_SHARD: service_shard(incident.service, shard(incident.incident_id, SERVICE_SHARDS)),
        CREATED_SHARD: created_shard(shard(incident.incident_id, CREATED_SHARDS)),
        CREATED_KEY: created_key(position(incident)),
    }
    return to_item(keys | incident.to_document())


def read_incident(item: Item) -> Incident:
    """Read an incident's row. Like all that read here: raises `Unavailable` where newer code wrote it, `Corrupt` where it is
    none.
    """
    return read_stored(INCIDENT, without_keys(from_item(item)), "incident")


def pointer_item(pointer: Pointer) -> Item:
    return to_item({PK: pointer_id(pointer.service, pointer.dedup_key)} | pointer.to_document())


def read_pointer(item: Item) -> Pointer:
    """Read a pointer's row."""
    return read_stored(POINTER, without_keys(from_item(item)), "pointer")


def receipt_item(receipt: IdempotencyRecord) -> Item:
    return to_item({PK: receipt.id} | receipt.to_document())


def read_receipt(item: Item) -> IdempotencyRecord:
    """Read a receipt."""
    return read_stored(RECEIPT, without_keys(from_item(item)), "receipt")


def window_item(window: Window) -> Item:
    return to_item({PK: window.id} | window.to_document())


def read_window(item: Item) -> Window:
    """Read a correlation window's row."""
    return read_stored(WINDOW, without_keys(from_item(item)), "window")


def event_item(event: IncidentEvent) -> Item:
    """Return the event's item: its document, so that the table, its stream and an export can be read without this code."""
    return to_item(event.to_document())


def state_shard(state: State, number: int) -> str:
    return f"{state.value}#{number}"


def service_shard(service: str, number: int) -> str:
    return f"{service}#{number}"


def created_shard(number: int) -> str:
    return str(number)


def created_key(place: Position) -> str:
    """Return what the indexes sort by. Eight digits of the id: a whole one would push usual rows over 1 KB.

    So two incidents may share a key, and whoever reads an index puts those in order by their ids.
    """
    return f"{format_time(place.created_at)}#{place.incident_id[:8]}"


def row_key(key: str) -> Item:
    """Return the key of a row in the incidents table (incidentId, or a pointer's digest) or of a receipt."""
    return {PK: {"S": key}}


def without_keys(document: Document) -> Document:
    """Return a row's document without the attributes that only find it."""
    return {name: value for name, value in document.items() if name not in INDEX_KEYS}


# --- values ----------------------------------------------------------------------------------------------------------


def to_item(document: Document) -> Item:
    """Return a canonical document as DynamoDB attributes."""
    return {name: _attribute(value) for name, value in document.items()}


def _attribute(value: Any) -> dict[str, Any]:
    match value:
        case str():
            return {"S": value}
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": int.__repr__(value)}
        case Decimal():
            return {"N": format(value, "f")}
        case dict():
            return {"M": to_item(value)}
        case tuple() | list():
            return {"L": [_attribute(item) for item in value]}
        case _:
            raise TypeError(f"{type(value).__name__} is not a canonical value")


def from_item(item: Item) -> Document:
    """Return DynamoDB attributes as a canonical document. Raises `Corrupt` on what opx never writes (binary, sets)."""
    return {name: _value(attribute) for name, attribute in item.items()}


def _value(attribute: dict[str, Any]) -> Any:
    ((kind, value),) = attribute.items()
    match kind:
        case "S" | "BOOL":
            return value
        case "N":
            return _number(value)
        case "NULL":
            return None
        case "M":
            return from_item(value)
        case "L":
            return tuple(_value(element) for element in value)
        case _:
            raise Corrupt(f"a stored attribute is of type {kind}")


def _number(text: str) -> int | Decimal:
    if len(text) <= 15 and text.isdecimal():
        return int(text)
    try:
        number: int | Decimal = normalise(Decimal(text))
    except Rejected as error:
        raise Corrupt(f"a stored number is out of range: {error}") from error
    return number


def item_size(item: Item) -> int:
    """Return an item's size in bytes by DynamoDB's rules: names and values in UTF-8, numbers by their digits.

    Source: the developer guide, "Item sizes and formats". A number has 1 byte per two significant digits and 1 more (1 more
    again where it is negative); a map or a list has 3 bytes and 1 more per element.
    """
    return sum(len(name.encode()) + _size(attribute) for name, attribute in item.items())


def _size(attribute: dict[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    match kind:
        case "S":
            return len(value.encode())
        case "N":
            sign, digits, _ = Decimal(value).normalize().as_tuple()
            return (len(digits) + 1) // 2 + 1 + sign
        case "BOOL" | "NULL":
            return 1
        case "M":
            return 3 + item_size(value) + len(value)
        case "L":
            return 3 + sum(_size(element) + 1 for element in value)
        case _:
            raise ValueError(f"opx stores no attribute of type {kind}")
