"""The routes of the HTTP API as calls: what is sent, and how the answer is read. Pure; sending is in `operator`.

A call is made once and sent as it is, however often: the same bytes under the same key.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote
from uuid import uuid4

from pipeline.clients.answers import Event, Incident, Outcome, Page, Receipt
from pipeline.domain.canonical import canonical_bytes, format_time, normalise

T = TypeVar("T", covariant=True)

Authority = str | Mapping[str, Any]
Items = Sequence[Mapping[str, Any]]
# What may stand for itself in a path or query (RFC 3986); all else is escaped, as the signature's recipe wants it.
_PLAIN: Final = "-_.~"
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class WriteOptions(TypedDict, total=False):
    """What every write takes. `if_match`: only if the incident's controlVersion is still this one.

    `idempotency_key`: one of your own, so that a later run of your program repeats the request instead of making another.
    `authority`: `"HUMAN"`, `"SYSTEM"` or the object; over the operator's own. `dry_run`: decide, and change nothing.
    """

    idempotency_key: str
    if_match: int | Literal["*"]
    authority: Authority
    dry_run: bool


class Filters(TypedDict, total=False):
    """What a listing of incidents is narrowed to: created from `created_from` on and before `created_to`, among others."""

    state: str
    service: str
    severity: str
    created_from: datetime | str
    created_to: datetime | str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that was no refusal: its document, and its headers in lower case."""

    document: Mapping[str, Any]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request, ready to be sent: `target` is path and query, escaped. `key` is a write's idempotency key."""

    method: str
    target: str
    read: Callable[[Reply], T]
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    key: str | None = None

    @property
    def name(self) -> str:
        return f"{self.method} {self.target}"


# --- writes ----------------------------------------------------------------------------------------------------------


def declared(
    service: str,
    severity: str,
    title: str,
    description: str | None,
    dedup_key: str | None,
    evidence: Items | None,
    links: Items | None,
    metadata: Mapping[str, Any] | None,
    reason: str | None,
) -> dict[str, Any]:
    """Return what a declaration says, as its document."""
    optional = {"description": description, "dedupKey": dedup_key, "reason": reason}
    data = {"evidence": evidence, "links": links, "metadata": metadata}
    return {"service": service, "severity": severity, "title": title} | optional | data


def declare(fields: Mapping[str, Any], options: WriteOptions) -> Call[Outcome]:
    return _write("POST", "/incidents", fields, options)


def on_incident(
    incident_id: str, what: str, fields: Mapping[str, Any], options: WriteOptions, method: str = "POST"
) -> Call[Outcome]:
    """Return a write on an incident; `what` is the part of the path behind its id."""
    return _write(method, f"/incidents/{_segment(incident_id)}/{what}", fields, options)


def _write(method: str, path: str, fields: Mapping[str, Any], options: WriteOptions) -> Call[Outcome]:
    key = options.get("idempotency_key", str(uuid4()))
    if not _KEY.fullmatch(key):
        raise ValueError(f"an idempotency key has 1 to 128 letters, digits, . _ : or -, not {key[:140]!r}")
    headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)]
    version = options.get("if_match")
    if version is not None:
        headers.append(("If-Match", version if isinstance(version, str) else f'"{version}"'))
    said = {**fields, "authority": options.get("authority")}
    body = canonical_bytes(normalise({name: value for name, value in said.items() if value is not None}))
    query = {"dryRun": "true"} if options.get("dry_run") else {}
    return Call(method, _target(path, query), _outcome, tuple(headers), body, key)


def _outcome(reply: Reply) -> Outcome:
    return Outcome.of(reply.document, replayed=reply.headers.get("idempotent-replayed") == "true")


# --- reads -----------------------------------------------------------------------------------------------------------


def incident(incident_id: str, version: int | None, at: datetime | str | None) -> Call[Incident]:
    query = {"version": version, "at": _moment(at)}
    return Call("GET", _target(f"/incidents/{_segment(incident_id)}", query), lambda reply: Incident.of(reply.document))


def incidents(filters: Mapping[str, Any], limit: int | None, cursor: str | None) -> Call[Page[Incident]]:
    query = {**filters, "limit": limit, "cursor": cursor}
    return Call("GET", _target("/incidents", query), lambda reply: _page(reply, "incidents", Incident.of))


def filtered(filters: Filters) -> dict[str, Any]:
    """Return filters as the query spells them."""
    spelled = {"created_from": "from", "created_to": "to"}
    return {spelled.get(name, name): _moment(value) for name, value in filters.items()}


def events(incident_id: str, after: int, limit: int | None, cursor: str | None) -> Call[Page[Event]]:
    # A cursor stands for where to go on: the API takes one or the other.
    query = {"after": after if after and cursor is None else None, "limit": limit, "cursor": cursor}
    path = f"/incidents/{_segment(incident_id)}/events"
    return Call("GET", _target(path, query), lambda reply: _page(reply, "events", Event.of))


def receipt(key: str, principal: str | None) -> Call[Receipt]:
    target = _target(f"/receipts/{_segment(key)}", {"principal": principal})
    return Call("GET", target, lambda reply: Receipt.of(reply.document))


def _page(reply: Reply, name: str, read: Callable[[Mapping[str, Any]], T]) -> Page[T]:
    documents: Sequence[Mapping[str, Any]] = reply.document.get(name, ())
    return Page(tuple(read(document) for document in documents), reply.document.get("nextCursor"))


# --- addresses -------------------------------------------------------------------------------------------------------


def _target(path: str, query: Mapping[str, Any]) -> str:
    given = [f"{_escaped(name)}={_escaped(str(value))}" for name, value in query.items() if value is not None]
    return f"{path}?{'&'.join(given)}" if given else path


def _segment(text: str) -> str:
    if text in ("", ".", ".."):
        raise ValueError(f"{text!r} can't stand in a path")
    return _escaped(text)


def _escaped(text: str) -> str:
    return quote(text, safe=_PLAIN)


def _moment(value: Any) -> Any:
    return format_time(value) if isinstance(value, datetime) else value
