"""JSON Schemas of what opx takes and tells, made from its models: a field added to a model shows up by itself.

The models' validators are spelled out as JSON Schema here, one rule each, so that what a schema allows is rarely refused; a
validator without a rule stops the generation. What JSON Schema can't say (bytes, canonical size, depth) is in descriptions.

What is taken is closed: unknown fields are refused. What is told is open: there may be more one day, and nothing is null.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Final, get_args

from pydantic import AfterValidator, BeforeValidator, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from infra.schemas.wording import FIELDS
from pipeline.domain.authority import AuthorityClaim
from pipeline.domain.base import (
    METADATA_BYTES_MAX,
    METADATA_DEPTH_MAX,
    Data,
    DedupKey,
    Description,
    Line,
    Note,
    Reference,
    SchemaVersion,
    Share,
    Time,
)
from pipeline.domain.candidates import CandidateMessage, DetectionMessage
from pipeline.domain.canonical import DIGITS_MAX, INTEGER_MAX
from pipeline.domain.commands import COMMAND
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.transitions import AuthorityType

Schema = dict[str, Any]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
DEFINITIONS: Final = "#/$defs/"

# Characters as regular expressions of every dialect spell them; the same sets as in `domain.base`.
_CONTROL: Final = r"\u0000-\u001f\u007f-\u009f\ufffe\uffff"
_CONTROL_BUT_LAYOUT: Final = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\ufffe\uffff"
_BLANK: Final = r"\u0020\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
ONE_LINE: Final = f"^[^{_CONTROL}]*[^{_CONTROL}{_BLANK}][^{_CONTROL}]*$"
FREE_TEXT: Final = f"^[^{_CONTROL_BUT_LAYOUT}]*$"
MEANINGFUL: Final = f"^[^{_CONTROL_BUT_LAYOUT}]*[^{_CONTROL}{_BLANK}][^{_CONTROL_BUT_LAYOUT}]*$"
TIME: Final = (
    "^(20[0-9]{2}|2100)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    r"(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
STORED_TIME: Final = "^(20[0-9]{2}|2100)-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{6}Z$"

VALUE: Final = "JsonValue"
_STORABLE: Final[Schema] = {"type": "string", "pattern": r"^[^\u0000\ufffe\uffff]*$"}
_OBJECT: Final[Schema] = {
    "type": "object",
    "propertyNames": {"type": "string", "pattern": r"^[^\u0000\ufffe\uffff]+$"},
}
_NUMBER: Final[Schema] = {"type": "number", "minimum": -INTEGER_MAX, "maximum": INTEGER_MAX}
_REFERENCE: Final[Schema] = {"$ref": DEFINITIONS + VALUE}
# The generator knows only definitions of its own: this stands for ours until it is done.
_MARK: Final[Schema] = {"$comment": VALUE}
_JSON_VALUE: Final[Schema] = {
    "description": f"Whatever JSON can say. Numbers keep {DIGITS_MAX} digits; |n| ≤ 2^53-1, and ≥ 1e-100 where not 0.",
    "anyOf": [
        {"type": "null"},
        {"type": "boolean"},
        _NUMBER,
        _STORABLE,
        {"type": "array", "items": _REFERENCE},
        _OBJECT | {"additionalProperties": _REFERENCE},
    ],
}


def _validator(annotated: Any) -> Any:
    """Return the function that checks an annotated type; of several the last."""
    return next(mark.func for mark in reversed(get_args(annotated)) if isinstance(mark, AfterValidator | BeforeValidator))


def _one_line(inner: Schema) -> Schema:
    begins = inner.get("pattern")
    pattern = ONE_LINE if begins is None else f"{begins}[^{_CONTROL}]*$"
    return inner | {"pattern": pattern, "description": "One line: no control characters, not blank."}


def _bytes_max(annotated: Any) -> Callable[[Schema], Schema]:
    # Every character has at least one byte.
    limit: int = inspect.getclosurevars(_validator(annotated)).nonlocals["limit"]
    said = f"At most {limit} bytes in UTF-8. One line: no control characters, not blank."
    return lambda inner: inner | {"maxLength": limit, "description": said}


def _data(inner: Schema) -> Schema:
    said = f"At most {METADATA_BYTES_MAX} bytes as canonical JSON, nested at most {METADATA_DEPTH_MAX} deep."
    return _OBJECT | {"additionalProperties": _MARK, "description": said}


def _flat(inner: Schema) -> Schema:
    values = {"anyOf": [{"type": "boolean"}, _NUMBER, _STORABLE]}
    said = f"Text, numbers, true or false; at most {METADATA_BYTES_MAX} bytes as canonical JSON."
    return _OBJECT | {"additionalProperties": values, "description": said}


def _claim(inner: Schema) -> Schema:
    return {"anyOf": [{"type": "string", "enum": [kind.value for kind in AuthorityType]}, inner]}


_ATTRIBUTES: Final = get_args(DetectionMessage.model_fields["attributes"].annotation)[0]
_RULES: Final[dict[Any, Callable[[Schema], Schema]]] = {
    _validator(Line): _one_line,
    _validator(DedupKey): _bytes_max(DedupKey),
    _validator(Reference): _bytes_max(Reference),
    _validator(Description): lambda inner: (
        inner | {"pattern": FREE_TEXT, "description": "No control characters other than tab and line ends."}
    ),
    _validator(Note): lambda inner: (
        inner | {"pattern": MEANINGFUL, "description": "Not blank; no control characters other than tab and line ends."}
    ),
    _validator(Time): lambda inner: {
        "type": "string",
        "format": "date-time",
        "pattern": TIME,
        "description": "RFC 3339 with a zone, years 2000-2100; finer than a microsecond is cut.",
    },
    _validator(Share): lambda inner: {"type": "number", "minimum": 0, "maximum": 1, "description": "From 0 to 1."},
    _validator(Data): _data,
    _validator(_ATTRIBUTES): _flat,
    _validator(SchemaVersion): lambda inner: inner,
    _validator(AuthorityClaim): _claim,
}


class _Taken(GenerateJsonSchema):
    """What a sender may write."""

    def generate(self, schema: Any, mode: Any = "validation") -> Schema:
        return _with_values(super().generate(schema, mode))

    def function_after_schema(self, schema: Any) -> Schema:
        return self._ruled(super().function_after_schema(schema), schema)

    def function_before_schema(self, schema: Any) -> Schema:
        return self._ruled(super().function_before_schema(schema), schema)

    def _ruled(self, inner: Schema, schema: Any) -> Schema:
        return _RULES[schema["function"]["function"]](inner)

    def int_schema(self, schema: Any) -> Schema:
        return {"maximum": INTEGER_MAX} | super().int_schema(schema)

    def default_schema(self, schema: Any) -> Schema:
        made = super().default_schema(schema)
        # That an optional field is absent unless it is written goes without saying.
        return {name: value for name, value in made.items() if name != "default" or value is not None}


class _Told(_Taken):
    """What opx answers and publishes: absent is never null, and readers must expect more than they know."""

    def nullable_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> Schema:
        return self.generate_inner(schema["schema"])

    def field_is_required(self, field: Any, total: bool) -> bool:
        inner = field["schema"]
        while inner["type"] == "default":
            inner = inner["schema"]
        return bool(inner["type"] != "nullable")

    def model_schema(self, schema: Any) -> Schema:
        made = super().model_schema(schema)
        made.pop("additionalProperties", None)
        return made

    def _ruled(self, inner: Schema, schema: Any) -> Schema:
        function = schema["function"]["function"]
        if function is _validator(Time):
            return {"type": "string", "format": "date-time", "pattern": STORED_TIME}
        if function is _validator(Share):
            return {"type": "number", "minimum": 0, "maximum": 1}
        # What is told was taken once; which characters it holds is of use to who writes.
        return inner


def _with_values(schema: Schema) -> Schema:
    """Return the schema with its fields explained, and with the definition of a JSON value, where it is used."""
    found: Schema = _tidy(schema)
    if str(_REFERENCE) in str(found):
        found.setdefault("$defs", {})[VALUE] = _JSON_VALUE
    return found


def _tidy(schema: Any) -> Any:
    if schema == _MARK:
        return _REFERENCE
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    # A title that pydantic makes says the name again; a field of that name is no text.
    found = {name: _tidy(value) for name, value in schema.items() if name != "title" or not isinstance(value, str)}
    properties = found.get("properties")
    if isinstance(properties, dict):
        found["properties"] = {name: _explained(name, field) for name, field in properties.items()}
    return found


def _explained(name: str, field: Schema) -> Schema:
    if name not in FIELDS:
        return field
    limits = field.get("description")
    return field | {"description": FIELDS[name] if limits is None else f"{FIELDS[name]} {limits}"}


def taken(model: Any) -> Schema:
    """Return the schema of a model, or an adapter of several, as senders write it; definitions are under `$defs`."""
    return _schema(model, _Taken)


def told(model: Any) -> Schema:
    """Return the schema of a model as opx answers it."""
    return _schema(model, _Told)


def _schema(model: Any, generator: type[GenerateJsonSchema]) -> Schema:
    adapter = model if isinstance(model, TypeAdapter) else TypeAdapter(model)
    return dict(adapter.json_schema(schema_generator=generator))


def told_event() -> Schema:
    """Return the schema of a stored event: the envelope, and the fact's `eventType` and `metadata` beside it."""
    envelope = told(IncidentEvent)
    definitions = envelope.pop("$defs")
    fact = envelope["properties"].pop("fact")
    envelope["required"] = [name for name in envelope["required"] if name != "fact"]
    return {
        "description": envelope.pop("description"),
        "allOf": [envelope, fact],
        "$defs": definitions,
    }


def rewritten(schema: Any, place: Callable[[str], str]) -> Any:
    """Return a schema whose references, its discriminators' included, point to where `place` puts each definition."""
    if isinstance(schema, dict):
        return {name: rewritten(value, place) for name, value in schema.items()}
    if isinstance(schema, list):
        return [rewritten(item, place) for item in schema]
    if isinstance(schema, str) and schema.startswith(DEFINITIONS):
        return place(schema.removeprefix(DEFINITIONS))
    return schema


def fields_of(schema: Schema, names: Iterable[str]) -> Schema:
    """Return the properties of those names."""
    return {name: schema["properties"][name] for name in names}


# --- messages on queues and bus, each a schema of its own ------------------------------------------------------------


def messages() -> dict[str, Schema]:
    """Return the schemas of what is sent to the queues and of what comes off the bus, by file name."""
    said = {
        "candidate": (taken(CandidateMessage), "A candidate, as it is sent to the candidates queue. At most 256 KB."),
        "detection": (taken(DetectionMessage), "A detection, as it is sent to the candidates queue. At most 256 KB."),
        "command": (taken(COMMAND), "A command, as it is sent to the commands queue. At most 256 KB."),
        "event": (told_event(), "An event as it is stored and, in `detail`, published; `replayed` where it is sent again."),
    }
    return {
        name: {"$schema": DIALECT, "$id": f"urn:opx:schema:{name}:1"} | schema | {"description": description}
        for name, (schema, description) in said.items()
    }
