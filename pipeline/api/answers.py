"""From what was decided or read to its HTTP answer. Pure; equal outcomes give equal bodies.

The answer to a write is made of its receipt alone: a later copy of the same request gets the same bytes, whatever has
happened to the incident since, and without another read.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Final, assert_never

from pipeline.api.cursors import cursor_of
from pipeline.api.problems import REPLAYED, HttpAnswer, http_problem, problem_of
from pipeline.api.requests import Write
from pipeline.domain.canonical import Document, canonical_bytes, format_time
from pipeline.domain.errors import MEANINGS, Conflict, Corrupt, HttpCode, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import Answer, IdempotencyRecord
from pipeline.services.decision import Applied, Outcome, Refused, Replayed
from pipeline.services.ports import Page, position
from pipeline.services.reading import EventsPage, Step, steps_from

CREATED: Final = 201
OK: Final = 200
# A function may answer with 6 MB, everything around it included.
ANSWER_BYTES_MAX: Final = 4_000_000
NOT_PROTECTED: Final = "A retry of this request is another request: send an Idempotency-Key or If-Match."


def etag(control_version: int) -> str:
    """Return the entity tag that If-Match takes: the incident's controlVersion."""
    return f'"{control_version}"'


# --- writes ----------------------------------------------------------------------------------------------------------


def answer_of(outcome: Outcome, *, dry_run: bool = False) -> HttpAnswer:
    """Return the answer to a write."""
    match outcome:
        case Applied(receipt):
            if dry_run:
                return HttpAnswer(OK, _rehearsed(outcome))
            created = receipt.result.answer is Answer.CREATED
            return _told(receipt, CREATED if created else OK)
        case Replayed(receipt):
            refusal = receipt.refusal()
            first = _told(receipt, OK) if refusal is None else problem_of(refusal)
            if dry_run and refusal is None:
                first = replace(first, body={"dryRun": True} | first.body)
            return replace(first, headers=first.headers | {REPLAYED: "true"})
        case Refused(refusal):
            return problem_of(refusal)
        case _:
            assert_never(outcome)


def _told(receipt: IdempotencyRecord, status: int) -> HttpAnswer:
    safe = receipt.key_kind != "request"
    body = _effect(receipt) | {
        "decidedAt": format_time(receipt.created_at),
        "idempotencyKey": receipt.idempotency_key,
        "retrySafe": safe,
    }
    if not safe:
        body["next"] = NOT_PROTECTED
    headers = {}
    if receipt.result.control_version is not None:
        headers["ETag"] = etag(receipt.result.control_version)
    if receipt.operation == "declare":
        # Relative to the route itself: the same bytes for every stage and base path.
        headers["Location"] = f"incidents/{receipt.incident_id}"
    return HttpAnswer(status, body, headers)


def _effect(receipt: IdempotencyRecord) -> Document:
    result = receipt.result
    found: Document = {
        "answer": result.answer.value,
        "operation": receipt.operation,
        "incidentId": receipt.incident_id,
        "firstSequence": result.first_sequence,
        "lastSequence": result.last_sequence,
        "state": result.state.value if result.state is not None else None,
        "controlVersion": result.control_version,
    }
    if result.state is not None:
        found["allowedTransitions"] = [step_document(step) for step in steps_from(result.state)]
    return {name: value for name, value in found.items() if value is not None}


def _rehearsed(applied: Applied) -> Document:
    return {"dryRun": True} | _effect(applied.receipt) | {"events": [event.to_document() for event in applied.events]}


def failure_answer(error: Exception, write: Write | None) -> HttpAnswer:
    """Return the answer where something else than the request is wrong; of what is broken it tells nothing."""
    more: Document = {}
    if write is not None and not write.dry_run and not write.retry_safe:
        key = write.derived.value
        then = (
            f"GET /receipts/{key} tells whether it took effect. Sent again it is another request: send an Idempotency-Key."
        )
        more = {"retrySafe": False, "idempotencyKey": key, "next": then}
    match error:
        case Unavailable() | Conflict() | TimeoutError():
            return http_problem(HttpCode.UNAVAILABLE, "A part that this needs does not answer, or not in time.", **more)
        case Corrupt():
            return http_problem(HttpCode.CORRUPT, "What is stored contradicts itself.", **more)
        case _:
            return http_problem(HttpCode.INTERNAL, "The request could not be worked on.", **more)


# --- reads -----------------------------------------------------------------------------------------------------------


def step_document(step: Step) -> Document:
    """Return what may come next, as programs read it: by which command, under whose authority."""
    authority = sorted(step.authorities)
    return {"to": step.target.value, "by": step.command, "authority": authority, "needsReason": step.needs_reason}


def incident_answer(incident: Incident, steps: tuple[Step, ...]) -> HttpAnswer:
    """Return an incident as it is, and what may come next. `youMay`: whether the reader may send that command."""
    allowed = [step_document(step) | {"youMay": step.may} for step in steps]
    body = incident.to_document() | {"allowedTransitions": allowed}
    return HttpAnswer(OK, body, {"ETag": etag(incident.control_version)})


def past_answer(incident: Incident) -> HttpAnswer:
    """Return an incident as it was; nothing can be done to that, so it has no tag."""
    return HttpAnswer(OK, incident.to_document() | {"asOf": {"version": incident.version}})


def page_answer(page: Page, asked: Document) -> HttpAnswer:
    """Return a page of incidents; `nextCursor` is absent only at the end."""
    documents = _fitting(incident.to_document() for incident in page.incidents)
    more = page.next if len(documents) == len(page.incidents) else position(page.incidents[len(documents) - 1])
    body: Document = {"incidents": documents}
    if more is not None:
        body["nextCursor"] = cursor_of((format_time(more.created_at), more.incident_id), asked)
    return HttpAnswer(OK, body)


def events_answer(page: EventsPage, asked: Document) -> HttpAnswer:
    """Return a page of stored events, exactly as stored."""
    documents = _fitting(page.events)
    body: Document = {"events": documents}
    if page.more or len(documents) < len(page.events):
        body["nextCursor"] = cursor_of((documents[-1]["sequence"],), asked)
    return HttpAnswer(OK, body)


def _fitting(documents: Iterable[Document]) -> list[Document]:
    """Return as many of a page as one answer holds, and one at least; the cursor leads to the rest."""
    found: list[Document] = []
    room = ANSWER_BYTES_MAX
    for document in documents:
        # An answer leaves a function as JSON text within JSON, in ASCII.
        room -= len(json.dumps(canonical_bytes(document).decode()))
        if found and room < 0:
            break
        found.append(document)
    return found


def receipts_answer(receipts: tuple[IdempotencyRecord, ...]) -> HttpAnswer:
    """Return what became of a command: the receipt itself, its outcome in front. `others`: of the same message's parts."""
    if not receipts:
        return http_problem(HttpCode.RECEIPT_UNKNOWN, "No receipt is known under this key.", outcome="unknown")
    first, *others = [_receipt(receipt) for receipt in receipts]
    return HttpAnswer(OK, first | ({"others": others} if others else {}))


def _receipt(receipt: IdempotencyRecord) -> Document:
    refusal = receipt.refusal()
    outcome: Document = {"outcome": "applied" if refusal is None else "refused"}
    then: Document = {} if refusal is None else {"next": MEANINGS[refusal.code].advice}
    return outcome | receipt.to_document() | then
