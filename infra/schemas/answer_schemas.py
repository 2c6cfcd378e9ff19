"""The schemas of what the HTTP API answers: the models themselves, and beside them the few documents that `answers` and
`problems` put together. Pure; what an answer means for a client stands in the descriptions.
"""

from typing import Any, Final

from pydantic import TypeAdapter

from infra.schemas.model_schemas import DEFINITIONS, Schema, fields_of, told, told_event
from pipeline.api.problems import TYPE
from pipeline.domain.base import Uuid
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import HTTP_MEANINGS, MEANINGS
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import Answer, IdempotencyRecord, Result
from pipeline.domain.transitions import AuthorityType, State

# An answer to a write over HTTP is one of these; the others are of messages.
WRITTEN: Final = (Answer.CREATED, Answer.JOINED, Answer.APPLIED, Answer.UNCHANGED)
_TEXT: Final[Schema] = {"type": "string"}


def answer_schemas() -> dict[str, Schema]:
    """Return every schema that answers refer to, by name; references are under `$defs`."""
    made: dict[str, Schema] = {}
    models: dict[str, Schema] = {
        "Incident": told(Incident),
        "IncidentEvent": told_event(),
        "IdempotencyRecord": told(IdempotencyRecord),
        "State": told(State),
        "AuthorityType": told(AuthorityType),
    }
    for name, schema in models.items():
        for inner, definition in schema.pop("$defs", {}).items():
            if made.setdefault(inner, definition) != definition:
                raise ValueError(f"two schemas are called {inner}")
        made[name] = schema
    return made | _writes() | _reads() | {"Problem": _problem()}


def _ref(name: str) -> Schema:
    return {"$ref": DEFINITIONS + name}


def _object(properties: Schema, required: tuple[str, ...], description: str = "") -> Schema:
    said = {"description": description} if description else {}
    return said | {"type": "object", "properties": properties, "required": list(required)}


def _array(name: str) -> Schema:
    return {"type": "array", "items": _ref(name)}


def _writes() -> dict[str, Schema]:
    record = told(IdempotencyRecord)["properties"]
    effect: Schema = {
        "answer": {
            "enum": [answer.value for answer in WRITTEN],
            "description": "`unchanged`: it was so already, and nothing was written.",
        },
        "operation": {"enum": sorted(COMMAND_TYPES)},
        "incidentId": told(TypeAdapter(Uuid)),
        **fields_of(told(Result), ("firstSequence", "lastSequence", "state", "controlVersion")),
        "allowedTransitions": _array("AllowedTransition"),
    }
    receipt: Schema = {
        "decidedAt": record["createdAt"],
        "idempotencyKey": record["idempotencyKey"] | {"description": "The key the request goes by: see /receipts/{key}."},
        "retrySafe": {"type": "boolean", "description": "False: the same request again is another request."},
        "next": _TEXT | {"description": "What to do for a retry to be safe; only where it is not."},
    }
    certain = ("answer", "operation", "incidentId")
    whole = "What a write did. The same request again is answered with the same body."
    dry = "What a write would do. `events` are absent where the request was taken before."
    return {
        "AllowedTransition": _object(
            {
                "to": _ref("State"),
                "by": {"enum": ["change-state", "request-promotion"], "description": "The command that takes it."},
                "authority": _array("AuthorityType"),
                "needsReason": {"type": "boolean"},
            },
            ("to", "by", "authority", "needsReason"),
        ),
        "WriteAnswer": _object(effect | receipt, (*certain, "decidedAt", "idempotencyKey", "retrySafe"), whole),
        "DryRun": _object(
            {"dryRun": {"const": True}} | effect | {"events": _array("IncidentEvent")}, ("dryRun", *certain), dry
        ),
    }


def _reads() -> dict[str, Schema]:
    cursor = _TEXT | {"description": "Where to go on; absent at the end, and only there."}
    may: Schema = {
        "youMay": {"type": "boolean", "description": "Whether the registry grants that to whoever asks."},
    }
    next_step = {"allOf": [_ref("AllowedTransition"), _object(may, ("youMay",))]}
    steps: Schema = {"allowedTransitions": {"type": "array", "items": _ref("NextStep")}}
    past: Schema = {"asOf": _object({"version": {"type": "integer", "minimum": 1}}, ("version",))}
    outcome: Schema = {
        "outcome": {"enum": ["applied", "refused"]},
        "next": _TEXT | {"description": "What to do about a refusal."},
        "others": {"type": "array", "items": _ref("Receipt"), "description": "Of the same message, where rules counted it."},
    }
    return {
        "NextStep": next_step,
        "CurrentIncident": {"allOf": [_ref("Incident"), _object(steps, ("allowedTransitions",))]},
        "PastIncident": {"allOf": [_ref("Incident"), _object(past, ("asOf",))]},
        "IncidentAnswer": {"anyOf": [_ref("CurrentIncident"), _ref("PastIncident")]},
        "IncidentPage": _object({"incidents": _array("Incident"), "nextCursor": cursor}, ("incidents",)),
        "EventPage": _object({"events": _array("IncidentEvent"), "nextCursor": cursor}, ("events",)),
        "Receipt": {"allOf": [_ref("IdempotencyRecord"), _object(outcome, ("outcome",))]},
    }


def _problem() -> Schema:
    known: dict[Any, Any] = {**MEANINGS, **HTTP_MEANINGS}
    lines = [f"- `{code.value}` ({meaning.status}): {meaning.advice}" for code, meaning in known.items()]
    properties: Schema = {
        "type": {"type": "string", "pattern": f"^{TYPE}[a-z-]+$"},
        "title": _TEXT,
        "status": {"type": "integer"},
        "detail": _TEXT | {"description": "What was wrong with this very request."},
        "code": {"type": "string", "description": "\n".join(["Stable; match on it.", "", *lines])},
        "next": _TEXT | {"description": "What to do."},
        "field": _TEXT | {"description": "The field, parameter or header that is wrong."},
        "incidentId": told(TypeAdapter(Uuid)),
        "state": _ref("State"),
        "allowedTransitions": _array("State") | {"description": "The states that may come next."},
        "outcome": {"const": "unknown", "description": "Of a receipt that is not known."},
    }
    required = ("type", "title", "status", "detail", "code", "next")
    return _object(properties, required, "A refusal, or a failure (RFC 9457).")
