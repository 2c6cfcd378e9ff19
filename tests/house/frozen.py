"""The frozen parts of opx as digests: the table of transitions and the schemas that every stored history was made under.

A digest leaves out titles and descriptions: rewording a docstring is no change of a schema.
"""

from typing import Any, Final

from pydantic import TypeAdapter

from pipeline.domain.authority import AuthorityContext
from pipeline.domain.canonical import digest, normalise
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.events import FACT
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.transitions import (
    HOLDS_KEY,
    SEVERITY_MUTABLE,
    TRANSITIONS,
    UNCONTROLLED,
    UNPROMOTED,
    EventType,
    Severity,
    State,
)

SCHEMAS: Final[dict[str, TypeAdapter[Any]]] = {
    "Incident": TypeAdapter(Incident),
    "IncidentEvent": TypeAdapter(IncidentEvent),
    "facts": FACT,
    "IdempotencyRecord": TypeAdapter(IdempotencyRecord),
    "AuthorityContext": TypeAdapter(AuthorityContext),
}


def without_prose(schema: Any) -> Any:
    if isinstance(schema, dict):
        # Under `properties` these are names of fields, not prose.
        return {
            name: {field: without_prose(item) for field, item in value.items()}
            if name == "properties"
            else without_prose(value)
            for name, value in schema.items()
            if name not in ("title", "description")
        }
    return [without_prose(item) for item in schema] if isinstance(schema, list) else schema


def schema_digest(name: str) -> str:
    return digest(normalise(without_prose(SCHEMAS[name].json_schema())))


def event_shape() -> dict[str, Any]:
    """Return the closed JSON Schemas of what an event of the newest version is made of: its envelope and its fact."""
    envelope = without_prose(SCHEMAS["IncidentEvent"].json_schema())
    # On the wire the fact's two fields stand beside the others.
    del envelope["properties"]["fact"]
    envelope["required"].remove("fact")
    needed = {name: envelope["$defs"][name] for name in _referred(envelope["properties"], envelope["$defs"])}
    return {"envelope": envelope | {"$defs": needed}, "fact": without_prose(SCHEMAS["facts"].json_schema())}


def _referred(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """Return the names of all definitions that a schema needs, through others, too."""
    if isinstance(schema, list):
        return {name for part in schema for name in _referred(part, definitions)}
    if not isinstance(schema, dict):
        return set()
    own = {str(schema["$ref"]).rpartition("/")[2]} if "$ref" in schema else set()
    below = {name for part in schema.values() for name in _referred(part, definitions)}
    return own | below | {deeper for name in own for deeper in _referred(definitions[name], definitions)}


def transitions_digest() -> str:
    """Return the digest of every row, of the sets of states beside them, and of the names."""
    rows = [
        [row.source, row.target, row.trigger, sorted(row.authorities), row.event_type, row.needs_reason]
        for row in TRANSITIONS
    ]
    sets = [sorted(states) for states in (HOLDS_KEY, SEVERITY_MUTABLE, UNPROMOTED, UNCONTROLLED)]
    return digest(normalise([rows, sets, list(State), list(Severity), list(EventType)]))
