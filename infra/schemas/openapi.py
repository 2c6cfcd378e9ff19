"""The OpenAPI document of the HTTP API, made from routes, models and error codes. Pure; the same bytes each time.

`python -m infra.schemas` writes it down; how models become schemas is in `model_schemas`, what words say in `wording`.
"""

from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from infra.schemas.answer_schemas import answer_schemas
from infra.schemas.model_schemas import DEFINITIONS, DIALECT, Schema, rewritten, taken
from infra.schemas.wording import ABOUT, BODIES, HEADERS, INCIDENT_ID, PARAMETERS, STATUSES
from pipeline.api.answers import CREATED, OK
from pipeline.api.cursors import CURSOR_CHARACTERS_MAX
from pipeline.api.problems import JSON, PROBLEM, REPLAYED, HttpAnswer, http_problem, problem_of
from pipeline.api.requests import KEY_HEADER, SAID_ELSEWHERE
from pipeline.api.routes import LIMIT_DEFAULT, LIMIT_MAX, ROUTES, Read, Route
from pipeline.domain.base import Count, IdempotencyKey, Line, Sequence, Service, Time, Uuid
from pipeline.domain.commands import ChangeState, Declare, Dismiss, RequestPromotion
from pipeline.domain.errors import HTTP_MEANINGS, MEANINGS, Code, HttpCode, Refusal
from pipeline.domain.incidents import LaxState
from pipeline.domain.promotion import LaxSeverity
from pipeline.domain.transitions import TRANSITIONS, State

COMPONENTS: Final = "#/components/schemas/"
# What API Gateway answers by itself, in the same form as every refusal: code → statuses.
GATEWAY_CODES: Final[dict[str, tuple[int, ...]]] = {
    "not-signed": (403,),
    "forbidden": (403,),
    "too-large": (413,),
    "throttled": (429,),
    "gateway-failure": (500, 504),
}
OUR_STATUSES: Final = tuple(sorted({meaning.status for meaning in (*MEANINGS.values(), *HTTP_MEANINGS.values())}))
RETRIED: Final = (429, 503)

_PARAMETERS: Final[dict[str, Any]] = {
    "state": LaxState,
    "service": Service,
    "severity": LaxSeverity,
    "from": Time,
    "to": Time,
    "limit": Annotated[int, Field(ge=1, le=LIMIT_MAX)],
    "cursor": Annotated[str, Field(min_length=1, max_length=CURSOR_CHARACTERS_MAX, pattern="^[A-Za-z0-9_-]+$")],
    "version": Sequence,
    "at": Time,
    "after": Count,
    "principal": Line,
    "dryRun": bool,
    "id": Uuid,
    "key": IdempotencyKey,
    KEY_HEADER: IdempotencyKey,
    "If-Match": Annotated[str, Field(pattern=r'^(\*|"[1-9][0-9]{0,14}"|[1-9][0-9]{0,14})$')],
}
_EXAMPLES: Final = {"id": INCIDENT_ID, "key": "page-4711", KEY_HEADER: "page-4711", "If-Match": '"3"', "limit": 20}


def document() -> Schema:
    """Return the whole document."""
    schemas = answer_schemas()
    bodies = _bodies(schemas)
    paths: Schema = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    whole = {
        "openapi": "3.1.0",
        "jsonSchemaDialect": DIALECT,
        "info": {"title": "opx", "version": "1.0.0", "summary": "An incident control plane.", "description": ABOUT},
        "servers": [
            {
                "url": "https://{api}.execute-api.{region}.amazonaws.com/v1",
                "description": "The stack's output ApiUrl.",
                "variables": {"api": {"default": "abcdef1234"}, "region": {"default": "us-east-1"}},
            }
        ],
        "security": [{"sigv4": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "sigv4": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "AWS Signature Version 4, service `execute-api`.",
                    "x-amazon-apigateway-authtype": "awsSigv4",
                }
            },
            "headers": {name: _header(name) for name in HEADERS},
            "parameters": {_name(name): _parameter(name) for name in _PARAMETERS},
            "responses": {f"Problem{status}": _problem(status) for status in sorted(STATUSES) if status >= 400},
            "schemas": dict(sorted((schemas | bodies).items())),
        },
    }
    found: Schema = rewritten(whole, lambda name: COMPONENTS + name)
    return found


# --- operations ------------------------------------------------------------------------------------------------------


def _operation(route: Route) -> Schema:
    writes = not isinstance(route.does, Read)
    names = [part[1:-1] for part in route.path.split("/") if part.startswith("{")]
    parameters = [{"$ref": f"#/components/parameters/{_name(name)}"} for name in (*names, *route.query)]
    if writes:
        needed = route.does is Declare
        parameters.append(_parameter(KEY_HEADER, required=True) if needed else _parameter_reference(KEY_HEADER))
        parameters += [] if needed else [_parameter_reference("If-Match")]
    operation: Schema = {
        "operationId": route.name,
        "summary": route.summary,
        "description": _granted(route),
        "parameters": parameters,
        "responses": _responses(route),
    }
    if writes:
        example = BODIES[route.name]
        content = {"schema": {"$ref": COMPONENTS + _body_name(route)}, "example": example}
        operation["requestBody"] = {"required": True, "content": {JSON: content}}
    return operation


def _granted(route: Route) -> str:
    if route.operation is None:
        return "Asks for a place in the registry, and for no operation: a sender sees its own receipts."
    return f"Asks for the operation `{route.operation}` on the incident's service."


def _parameter_reference(name: str) -> Schema:
    return {"$ref": f"#/components/parameters/{_name(name)}"}


def _name(parameter: str) -> str:
    return parameter.replace("-", "")


def _parameter(name: str, *, required: bool = False) -> Schema:
    schema = taken(TypeAdapter(_PARAMETERS[name]))
    schema.pop("$defs", None)
    where = "path" if name in ("id", "key") else "header" if name in (KEY_HEADER, "If-Match") else "query"
    if name == "limit":
        schema["default"] = LIMIT_DEFAULT
    limits = schema.pop("description", None)
    made: Schema = {"name": name, "in": where, "description": " ".join(filter(None, (PARAMETERS[name], limits)))}
    if required or where == "path":
        made["required"] = True
    made["schema"] = schema
    return made | ({"example": _EXAMPLES[name]} if name in _EXAMPLES else {})


def _bodies(told_schemas: Schema) -> Schema:
    """Return the schemas of all bodies. What is taken in another form than it is told gets a name of its own."""
    made: Schema = {}
    for route in ROUTES:
        if isinstance(route.does, Read):
            continue
        schema = taken(route.does)
        definitions = schema.pop("$defs", {})
        fields = {name: field for name, field in schema["properties"].items() if name not in SAID_ELSEWHERE}
        body: Schema = {"type": "object", "properties": fields}
        required = [name for name in schema.get("required", ()) if name not in SAID_ELSEWHERE]
        body |= {"required": required} if required else {}
        body |= {"additionalProperties": False} | _reasoned(route)
        names = {name: _taken_name(name, each, told_schemas) for name, each in definitions.items()}
        found = {names[name]: each for name, each in definitions.items()} | {_body_name(route): body}
        made |= _renamed(found, names)
    return made


def _renamed(schemas: Schema, names: dict[str, str]) -> Schema:
    found: Schema = rewritten(schemas, lambda name: DEFINITIONS + names[name])
    return found


def _taken_name(name: str, schema: Schema, told_schemas: Schema) -> str:
    return name if told_schemas.get(name, schema) == schema else f"New{name}"


def _body_name(route: Route) -> str:
    return f"{route.name[0].upper()}{route.name[1:]}Body"


def _reasoned(route: Route) -> Schema:
    """Return what a body needs where a person decides: a reason, in either of its two places."""
    reason: Schema = {"required": ["reason"], "properties": {"reason": {"type": "string"}}}
    justified = {"type": "object", "required": ["justification"], "properties": {"justification": {"type": "string"}}}
    either = [reason, {"required": ["authority"], "properties": {"authority": justified}}]
    if route.does in (RequestPromotion, Dismiss):
        return {"anyOf": either}
    if route.does is ChangeState:
        reasoned = {row.target for row in TRANSITIONS if row.needs_reason}
        free = {"enum": [state.value for state in State if state not in reasoned]}
        return {"anyOf": [{"properties": {"newState": free}}, *either]}
    return {}


# --- answers ---------------------------------------------------------------------------------------------------------


def _responses(route: Route) -> Schema:
    made = _write_responses(route) if not isinstance(route.does, Read) else _read_responses(route.does)
    for status in _refusals(route):
        made[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return made


def _refusals(route: Route) -> tuple[int, ...]:
    """Return the statuses ≥ 400 that a route can answer with."""
    of_writes = {409, 412, 413, 422}
    left_out = of_writes if isinstance(route.does, Read) else set()
    left_out |= {404} if route.does is Read.LIST else set()
    left_out |= {412} if route.does is Declare else set()
    return tuple(status for status in sorted(STATUSES) if status >= 400 and status not in left_out)


def _write_responses(route: Route) -> Schema:
    told_too = ("ETag", REPLAYED) + (("Location",) if route.does is Declare else ())
    schema = {"anyOf": [{"$ref": COMPONENTS + "WriteAnswer"}, {"$ref": COMPONENTS + "DryRun"}]}
    made = {"200": _response(OK, schema, told_too, links=route.does is not Declare)}
    if route.does is Declare:
        # Joined an open incident, the same declaration again, or a dry run.
        only = {"$ref": COMPONENTS + "WriteAnswer"}
        made = {"201": _response(CREATED, only, ("ETag", "Location"), sure=True, links=True)} | made
    return made


def _read_responses(read: Read) -> Schema:
    answer = {
        Read.LIST: "IncidentPage",
        Read.INCIDENT: "IncidentAnswer",
        Read.EVENTS: "EventPage",
        Read.RECEIPT: "Receipt",
    }[read]
    headers = ("ETag",) if read is Read.INCIDENT else ()
    return {"200": _response(OK, {"$ref": COMPONENTS + answer}, headers)}


def _response(status: int, schema: Schema, headers: tuple[str, ...], *, sure: bool = False, links: bool = False) -> Schema:
    made: Schema = {
        "description": STATUSES[status],
        "headers": {"Opx-Request-Id": {"$ref": "#/components/headers/Opx-Request-Id"}}
        | {name: _header(name, required=sure) for name in headers},
        "content": {JSON: {"schema": schema}},
    }
    return made | ({"links": _links()} if links else {})


def _links() -> Schema:
    """Return where an answer to a write leads: the incident by its id, the receipt by its key."""
    by_id = {"parameters": {"id": "$response.body#/incidentId"}}
    made = {route.name: {"operationId": route.name} | by_id for route in ROUTES if "{id}" in route.path}
    return made | {
        "getReceipt": {"operationId": "getReceipt", "parameters": {"key": "$response.body#/idempotencyKey"}},
    }


def _header(name: str, *, required: bool | None = None) -> Schema:
    forms: dict[str, Schema] = {
        "ETag": {"pattern": '^"[1-9][0-9]*"$'},
        "Location": {"pattern": "^incidents/[0-9a-f-]{36}$"},
        REPLAYED: {"const": "true"},
        "Retry-After": {"type": "integer", "minimum": 1},
    }
    schema = {"type": "string"} | forms.get(name, {})
    sure = name in ("Opx-Request-Id", "Retry-After") if required is None else required
    return {"description": HEADERS[name]} | ({"required": True} if sure else {}) | {"schema": schema}


def codes_of(status: int) -> dict[str, HttpAnswer | None]:
    """Return every code that an answer of this status can carry, with such an answer; None for the gateway's own."""
    detail = "What exactly was wrong, in a sentence."
    made: dict[str, HttpAnswer | None] = {
        code.value: problem_of(Refusal(code, detail)) for code in Code if MEANINGS[code].status == status
    }
    made |= {code.value: http_problem(code, detail) for code in HttpCode if HTTP_MEANINGS[code].status == status}
    return made | {code: None for code, statuses in GATEWAY_CODES.items() if status in statuses and code not in made}


def _problem(status: int) -> Schema:
    codes = codes_of(status)
    exactly = {"code": {"enum": list(codes)}, "status": {"const": status}}
    headers = {"Opx-Request-Id": {"$ref": "#/components/headers/Opx-Request-Id"}}
    headers |= {"Retry-After": {"$ref": "#/components/headers/Retry-After"}} if status in RETRIED else {}
    if status in (409, 412):
        headers |= {REPLAYED: {"$ref": f"#/components/headers/{REPLAYED}"}}
    examples = {code: {"value": answer.body} for code, answer in codes.items() if answer is not None}
    content: Schema = {"schema": {"allOf": [{"$ref": COMPONENTS + "Problem"}, {"properties": exactly}]}}
    return {
        "description": STATUSES[status],
        "headers": headers,
        "content": {PROBLEM: content | ({"examples": examples} if examples else {})},
    }
