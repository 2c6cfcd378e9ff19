"""From what was decided or read to its HTTP answer. Pure; equal outcomes give equal bodies.

The answer to a write is made of its receipt alone: a later copy of the same request gets the same bytes, whatever has
happened to the incident since, and without another read.
"""

from dataclasses import replace
from typing import Final, assert_never

from pipeline.api.cursors import cursor_of
from pipeline.api.problems import REPLAYED, HttpAnswer, http_problem, problem_of
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import MEANINGS, HttpCode
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import Answer, IdempotencyRecord
from pipeline.domain.transitions import Transition, transitions_from
from pipeline.services.decision import Applied, Outcome, Refused, Replayed
from pipeline.services.ports import Page
from pipeline.services.reading import EventsPage, Step

CREATED: Final = 201
OK: Final = 200
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
        headers["Location"] = f"/incidents/{receipt.incident_id}"
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
        found["allowedTransitions"] = [row_document(row) for row in transitions_from(result.state)]
    return {name: value for name, value in found.items() if value is not None}


def _rehearsed(applied: Applied) -> Document:
    return {"dryRun": True} | _effect(applied.receipt) | {"events": [event.to_document() for event in applied.events]}


# --- reads -----------------------------------------------------------------------------------------------------------


def row_document(row: Transition) -> Document:
    """Return a transition as programs read it."""
    return {"to": row.target.value, "authority": sorted(row.authorities), "needsReason": row.needs_reason}


def incident_answer(incident: Incident, steps: tuple[Step, ...]) -> HttpAnswer:
    """Return an incident as it is, and what may come next. `by`: the command; `youMay`: whether the reader may send it."""
    allowed = [row_document(step.row) | {"by": step.command, "youMay": step.may} for step in steps]
    body = incident.to_document() | {"allowedTransitions": allowed}
    return HttpAnswer(OK, body, {"ETag": etag(incident.control_version)})


def past_answer(incident: Incident) -> HttpAnswer:
    """Return an incident as it was; nothing can be done to that, so it has no tag."""
    return HttpAnswer(OK, incident.to_document() | {"asOf": {"version": incident.version}})


def page_answer(page: Page, asked: Document) -> HttpAnswer:
    """Return a page of incidents; `nextCursor` is absent only at the end."""
    body: Document = {"incidents": [incident.to_document() for incident in page.incidents]}
    if page.next is not None:
        body["nextCursor"] = cursor_of((format_time(page.next.created_at), page.next.incident_id), asked)
    return HttpAnswer(OK, body)


def events_answer(page: EventsPage, asked: Document) -> HttpAnswer:
    """Return a page of stored events, exactly as stored."""
    body: Document = {"events": list(page.events)}
    if page.more:
        body["nextCursor"] = cursor_of((page.events[-1]["sequence"],), asked)
    return HttpAnswer(OK, body)


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
