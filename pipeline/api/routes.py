"""The routes of the HTTP API: one table, from which the door, the OpenAPI document and the template's test are made.

What a route does is not here: a write is a command of `domain.commands`, a read is in `services.reading`.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pipeline.domain.authority import READ_OPERATION
from pipeline.domain.commands import (
    AddNote,
    AttachEvidence,
    ChangeSeverity,
    ChangeState,
    Declare,
    Dismiss,
    LinkIncident,
    OnIncident,
    RequestPromotion,
)


class Read(StrEnum):
    """What is asked of the reading service."""

    LIST = "list"
    INCIDENT = "incident"
    EVENTS = "events"
    RECEIPT = "receipt"


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path. `does`: the command that its body makes, or what it reads; `query`: the parameters it knows.

    `operation` is what the authority registry must grant; None where being registered is enough.
    """

    name: str
    method: str
    path: str
    does: type[Declare | OnIncident] | Read
    operation: str | None
    summary: str
    query: tuple[str, ...] = ()


DRY_RUN: Final = "dryRun"
# The most rows or events in one answer, and how many without a word.
LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 50


def _write(name: str, method: str, path: str, command: type[Declare | OnIncident], summary: str) -> Route:
    return Route(name, method, path, command, command.model_fields["type"].default, summary, (DRY_RUN,))


def _on_incident(name: str, path: str, command: type[OnIncident], summary: str, method: str = "POST") -> Route:
    return _write(name, method, f"/incidents/{{id}}/{path}", command, summary)


ROUTES: Final = (
    _write("declare", "POST", "/incidents", Declare, "Declare an incident, or join the open one of its key."),
    Route(
        "listIncidents",
        "GET",
        "/incidents",
        Read.LIST,
        READ_OPERATION,
        "List incidents, the newest first.",
        ("state", "service", "severity", "from", "to", "limit", "cursor"),
    ),
    Route(
        "getIncident",
        "GET",
        "/incidents/{id}",
        Read.INCIDENT,
        READ_OPERATION,
        "Read one incident, as it is or as it was.",
        ("version", "at"),
    ),
    Route(
        "listEvents",
        "GET",
        "/incidents/{id}/events",
        Read.EVENTS,
        READ_OPERATION,
        "Read an incident's events, the oldest first.",
        ("after", "limit", "cursor"),
    ),
    _on_incident("changeState", "state", ChangeState, "Take an incident to its next state.", "PATCH"),
    _on_incident("attachEvidence", "evidence", AttachEvidence, "Attach evidence; in every state."),
    _on_incident("addNote", "notes", AddNote, "Add a note; in every state."),
    _on_incident("changeSeverity", "severity", ChangeSeverity, "Change the severity; until resolved."),
    _on_incident("requestPromotion", "promotion", RequestPromotion, "Ask the gate to open a pending incident."),
    _on_incident("dismiss", "dismissal", Dismiss, "Dismiss a pending incident as a false positive."),
    _on_incident("linkIncident", "links", LinkIncident, "Say how an incident belongs to another."),
    Route(
        "getReceipt",
        "GET",
        "/receipts/{key}",
        Read.RECEIPT,
        None,
        "Ask what became of a command, by its idempotency key or message id.",
        ("principal",),
    ),
)
