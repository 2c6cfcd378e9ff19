"""An event's line read in the form that events have: most of a replay's time goes here.

Named beforehand, what is read needs no dictionary for each value and no look at what kind it is. And whatever is not of this
form is told from it for nothing: an attribute that no event has, a number where a text must be. What the models gain is read
by `exact_document_of`, as right and some times slower, until it is named here.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from msgspec import UNSET, MsgspecError, Struct, UnsetType
from msgspec.json import Decoder

from pipeline.domain.canonical import Document
from pipeline.domain.errors import Corrupt
from pipeline.stores.items import from_item

NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([Ee][+-]?[0-9]+)?")
_EXACT_DIGITS_MAX: Final = 15


class _Text(Struct, gc=False, forbid_unknown_fields=True):
    S: str


class _Number(Struct, gc=False, forbid_unknown_fields=True):
    N: str


class _Attribute(Struct, gc=False, forbid_unknown_fields=True):
    """A value of any kind that a caller's own data may have: one of these."""

    S: str | UnsetType = UNSET
    M: "dict[str, _Attribute] | UnsetType" = UNSET
    N: str | UnsetType = UNSET
    L: "list[_Attribute] | UnsetType" = UNSET
    BOOL: bool | UnsetType = UNSET
    NULL: bool | UnsetType = UNSET


class Actor(Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """`AuthorityContext`, as it is stored."""

    authority_type: _Text
    principal: _Text
    actor_id: _Text
    asserted_by: _Text | UnsetType = UNSET
    justification: _Text | UnsetType = UNSET


class _Actor(Struct, gc=False, forbid_unknown_fields=True):
    M: Actor


class _Metadata(Struct, gc=False, forbid_unknown_fields=True):
    M: dict[str, _Attribute]


class Event(Struct, gc=False, forbid_unknown_fields=True, rename="camel"):
    """`IncidentEvent`, as it is stored."""

    incident_id: _Text
    sequence: _Number
    event_id: _Text
    timestamp: _Text
    actor: _Actor
    previous_state: _Text
    new_state: _Text
    schema_version: _Number
    previous_hash: _Text
    hash: _Text
    event_type: _Text
    metadata: _Metadata
    decided_at: _Text | UnsetType = UNSET


class _Line(Struct, gc=False, forbid_unknown_fields=True):
    Item: Event


_decoded: Final = Decoder(_Line).decode


def usual_event_of(line: bytes) -> Document | None:
    """Return the event in a line, or None where it is of another form than usual.

    In its metadata, of a value with two kinds one is read.
    """
    try:
        event = _decoded(line).Item
        actor = event.actor.M
        document: Document = {
            "incidentId": event.incident_id.S,
            "sequence": number_of(event.sequence.N),
            "eventId": event.event_id.S,
            "timestamp": event.timestamp.S,
            "actor": {
                "authorityType": actor.authority_type.S,
                "principal": actor.principal.S,
                "actorId": actor.actor_id.S,
            },
            "previousState": event.previous_state.S,
            "newState": event.new_state.S,
            "schemaVersion": number_of(event.schema_version.N),
            "previousHash": event.previous_hash.S,
            "hash": event.hash.S,
            "eventType": event.event_type.S,
            "metadata": _unwrapped(event.metadata.M),
        }
        if actor.asserted_by is not UNSET:
            document["actor"]["assertedBy"] = actor.asserted_by.S
        if actor.justification is not UNSET:
            document["actor"]["justification"] = actor.justification.S
        if event.decided_at is not UNSET:
            document["decidedAt"] = event.decided_at.S
    except (MsgspecError, Corrupt, ValueError, RecursionError):
        return None
    return document


def _unwrapped(members: dict[str, Any]) -> Document:
    # In place, as nobody else holds them; the commonest kinds first.
    for name, attribute in members.items():
        if (said := attribute.S) is not UNSET:
            members[name] = said
        elif attribute.M is not UNSET:
            members[name] = _unwrapped(attribute.M)
        else:
            members[name] = _value(attribute)
    return members


def _value(attribute: _Attribute) -> Any:
    if attribute.S is not UNSET:
        return attribute.S
    if attribute.M is not UNSET:
        return _unwrapped(attribute.M)
    if attribute.N is not UNSET:
        return number_of(attribute.N)
    if attribute.L is not UNSET:
        return tuple([_value(inner) for inner in attribute.L])
    if attribute.BOOL is not UNSET:
        return attribute.BOOL
    if attribute.NULL is not UNSET:
        return None
    raise ValueError("a value of no kind")


@lru_cache(maxsize=4096)
def number_of(text: str) -> int | Decimal:
    """Return a stored number. Raises ValueError or `Corrupt` where it is none that opx stores."""
    # Sequences and confidences: the same few again and again.
    if len(text) <= _EXACT_DIGITS_MAX and text.isdecimal() and text.isascii():
        return int(text)
    if not NUMBER.fullmatch(text):
        raise ValueError(f"{text[:_EXACT_DIGITS_MAX]!r} is no number")
    number: int | Decimal = from_item({"value": {"N": text}})["value"]
    return number
