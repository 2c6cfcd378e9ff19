"""From an HTTP request to what it asks: a command document with its key, or the parameters of a read. Pure.

What the route or a header says may also stand in the body, if it says the same. Nothing is guessed: an unknown query
parameter, a second value, or a header in another form is refused, since each would quietly ask for something else.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from pipeline.api.cursors import position_of
from pipeline.api.problems import Problem, http_problem
from pipeline.api.routes import DRY_RUN, LIMIT_DEFAULT, LIMIT_MAX, Route
from pipeline.domain.authority import Sender
from pipeline.domain.base import LINE, IdempotencyKey, Sequence, Service, Time, Uuid, read
from pipeline.domain.candidates import Key, Received
from pipeline.domain.canonical import INTEGER_MAX, Document, digest, format_time, parse_document, parse_time
from pipeline.domain.commands import Declare
from pipeline.domain.errors import Code, HttpCode, Refusal, Rejected
from pipeline.domain.incidents import LaxState
from pipeline.domain.promotion import LaxSeverity
from pipeline.domain.transitions import Severity, State
from pipeline.services.intake import check_size
from pipeline.services.ports import Position

KEY_HEADER: Final = "Idempotency-Key"
VERSION_HEADER: Final = "If-Match"
# What path and headers say; in a body it may stand, too, if it says the same.
SAID_ELSEWHERE: Final = ("type", "incidentId", "idempotencyKey", "expectedVersion")
_KEY: Final = TypeAdapter(IdempotencyKey)
_SERVICE: Final = TypeAdapter(Service)
_STATE: Final[TypeAdapter[State]] = TypeAdapter(LaxState)
_SEVERITY: Final[TypeAdapter[Severity]] = TypeAdapter(LaxSeverity)
_ROW: Final[TypeAdapter[tuple[datetime, str]]] = TypeAdapter(tuple[Time, Uuid])
EVENT: Final[TypeAdapter[tuple[int]]] = TypeAdapter(tuple[Sequence])
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBER: Final = re.compile(r"[0-9]{1,16}", re.ASCII)
_ETAG: Final = re.compile(r'([1-9][0-9]{0,15})|"([1-9][0-9]{0,15})"', re.ASCII)

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, as its door received it: nothing is checked yet, not even that `sender` names somebody.

    Header names are in lower case; a header and a query parameter may stand several times.
    """

    route: Route
    path: Mapping[str, str]
    query: Mapping[str, tuple[str, ...]]
    headers: Mapping[str, tuple[str, ...]]
    body: str | None
    sender: Sender
    request_id: str
    received_at: datetime
    is_base64: bool = False

    @property
    def received(self) -> Received:
        return Received(self.sender, self.request_id, self.received_at)


@dataclass(frozen=True, slots=True)
class Write:
    """A command as asked over HTTP. `derived`: the key it goes by where the caller chose none."""

    document: Document
    derived: Key
    dry_run: bool

    @property
    def retry_safe(self) -> bool:
        """False where the same request, sent again, is another one."""
        return "idempotencyKey" in self.document or self.derived.kind != "request"


def write_of(request: HttpRequest) -> Write:
    """Return the command that a request asks for, as the document a queue would carry, and its key."""
    known_query(request)
    body = _body(request)
    check_size(body)
    # Without a body it is an object of nothing: the answer then names what is missing.
    document = parse_document(body) if body.strip() else {}
    said: Document = {"type": request.route.operation}
    if "id" in request.path:
        said["incidentId"] = request.path["id"]
    key, version = key_header(request), version_header(request)
    if key is not None:
        said["idempotencyKey"] = key
    if version is not None:
        said["expectedVersion"] = version
    for name in SAID_ELSEWHERE:
        if name in document and document[name] is None:
            raise Rejected(Refusal(Code.INVALID_FIELD, "Leave it out, or give it a value.", name))
    for name, value in said.items():
        if name in document and document[name] != value:
            detail = "The body says something else here than the request's path or headers."
            raise Rejected(Refusal(Code.INVALID_FIELD, detail, name))
    document |= said
    if request.route.does is Declare:
        if "idempotencyKey" not in document:
            raise Problem(http_problem(HttpCode.KEY_MISSING, f"{KEY_HEADER} is required here.", field=KEY_HEADER))
        if VERSION_HEADER.lower() in request.headers:
            detail = "What is declared has no version yet."
            raise Rejected(Refusal(Code.INVALID_FIELD, detail, VERSION_HEADER))
    derived = Key("request", request.request_id)
    if "expectedVersion" in document:
        # Route and version stand in the document; the principal is part of every receipt's id.
        derived = Key("if-match", digest(document))
    return Write(document, derived, _truth(request, DRY_RUN))


def _body(request: HttpRequest) -> str:
    if not request.body or not request.is_base64:
        return request.body or ""
    try:
        return base64.b64decode(request.body, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Rejected(Refusal(Code.MALFORMED_JSON, "The body is not UTF-8.")) from None


def key_header(request: HttpRequest) -> str | None:
    """Return the caller's idempotency key, or None. Raises `Rejected` for one that can't be."""
    found = _header(request, KEY_HEADER)
    return None if found is None else _read(_KEY, found, KEY_HEADER)


def version_header(request: HttpRequest) -> int | None:
    """Return the controlVersion that If-Match asks for; None for none, or for any."""
    found = _header(request, VERSION_HEADER)
    if found is None or found.strip() == "*":
        return None
    match = _ETAG.fullmatch(found.strip())
    version = int(match[1] or match[2]) if match else 0
    if not 1 <= version <= INTEGER_MAX:
        raise Rejected(Refusal(Code.INVALID_FIELD, 'A controlVersion is needed, such as "3".', VERSION_HEADER))
    return version


def _header(request: HttpRequest, name: str) -> str | None:
    """Return a header's value. Raises `Rejected` where it stands twice: whoever added the other meant another request."""
    values = request.headers.get(name.lower(), ())
    if len(values) > 1:
        raise Rejected(Refusal(Code.INVALID_FIELD, "This header stands several times.", name))
    return values[0] if values else None


# --- parameters ------------------------------------------------------------------------------------------------------


def known_query(request: HttpRequest) -> None:
    """Raise `Rejected` for a parameter that the route does not know, or one that stands twice."""
    for name, values in request.query.items():
        if name not in request.route.query:
            known = ", ".join(request.route.query)
            raise Rejected(
                Refusal(Code.UNKNOWN_FIELD, f"There is no such query parameter here; there are {known}.", name[:80])
            )
        if len(values) != 1:
            raise Rejected(Refusal(Code.INVALID_FIELD, "This query parameter stands several times.", name))


def parameter(request: HttpRequest, name: str) -> str | None:
    return next(iter(request.query.get(name, ())), None)


def incident_of(request: HttpRequest) -> str:
    """Return the incident that the path names. Raises `Rejected` where that is no id."""
    identity = request.path["id"]
    if not _UUID.fullmatch(identity):
        raise Rejected(Refusal(Code.INVALID_FIELD, "An incident's id is a UUID in lower case.", "incidentId"))
    return identity


def receipt_key(request: HttpRequest) -> str:
    """Return the key that the path names. Raises `Rejected` for what can't be one."""
    return _read(_KEY, request.path["key"], "key")


def principal_of(request: HttpRequest) -> str | None:
    """Return whose receipt is asked for; None for the sender's own."""
    return _optional(request, "principal", LINE)


def number(request: HttpRequest, name: str, least: int, most: int = INTEGER_MAX) -> int | None:
    """Return a whole number from the query; None where it isn't given."""
    text = parameter(request, name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not least <= int(text) <= most:
        raise Rejected(Refusal(Code.INVALID_FIELD, f"A whole number from {least} to {most} is needed.", name))
    return int(text)


def limit_of(request: HttpRequest) -> int:
    return number(request, "limit", 1, LIMIT_MAX) or LIMIT_DEFAULT


def moment(request: HttpRequest, name: str) -> datetime | None:
    """Return a time from the query; None where it isn't given."""
    text = parameter(request, name)
    if text is None:
        return None
    try:
        # In a query string a plus is a blank; nobody means one here.
        return parse_time(text.replace(" ", "+"))
    except ValueError as error:
        raise Rejected(Refusal(Code.INVALID_FIELD, f"{error}.", name)) from None


def _optional(request: HttpRequest, name: str, adapter: TypeAdapter[V]) -> V | None:
    text = parameter(request, name)
    return None if text is None else _read(adapter, text, name)


def at_most_one(request: HttpRequest, one: str, other: str) -> None:
    """Raise `Rejected` where two parameters are given that say the same in two ways."""
    if one in request.query and other in request.query:
        raise Rejected(Refusal(Code.INVALID_FIELD, f"Say either {one} or {other}.", other))


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is narrowed to. `asked`: the same as a document, which its cursors are bound to."""

    state: State | None
    service: str | None
    severity: Severity | None
    since: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, request: HttpRequest) -> "Filters":
        found = cls(
            _optional(request, "state", _STATE),
            _optional(request, "service", _SERVICE),
            _optional(request, "severity", _SEVERITY),
            moment(request, "from"),
            moment(request, "to"),
        )
        if found.since is not None and found.until is not None and found.since >= found.until:
            raise Rejected(Refusal(Code.INVALID_FIELD, "`to` must be later than `from`.", "to"))
        return found

    def before(self, cursor: str | None) -> Position | None:
        """Return the position that a cursor of this listing holds."""
        if cursor is None:
            return None
        return Position(*position_of(cursor, self.asked, _ROW))

    @property
    def asked(self) -> Document:
        since = format_time(self.since) if self.since is not None else None
        until = format_time(self.until) if self.until is not None else None
        named = {"state": self.state, "service": self.service, "severity": self.severity, "from": since, "to": until}
        return {name: str(value) for name, value in named.items() if value is not None}


def _truth(request: HttpRequest, name: str) -> bool:
    text = parameter(request, name)
    if text not in (None, "true", "false"):
        raise Rejected(Refusal(Code.INVALID_FIELD, "true or false is needed.", name))
    return text == "true"


def _read(adapter: TypeAdapter[V], value: Any, name: str) -> V:
    try:
        return read(adapter, value)
    except Rejected as error:
        raise Rejected(Refusal(error.refusal.code, error.refusal.detail, name)) from None
