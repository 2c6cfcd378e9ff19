"""`opx command …`: what a person wants done to an incident, sent to the commands queue, and what became of it."""

import getpass
from collections.abc import Callable
from typing import Annotated, Any, Final
from uuid import uuid4

import typer
from rich.text import Text

from pipeline.cli.operating import WAIT_S, Found, Posted, Turned, outcome_of, post
from pipeline.cli.reading import IncidentId, find_incident, is_full_id
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.telling import refusal_line, short
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError, cell, state_cell
from pipeline.domain.canonical import Document
from pipeline.domain.errors import Code, Unavailable
from pipeline.domain.events import Relation
from pipeline.domain.receipts import Answer, IdempotencyRecord
from pipeline.domain.transitions import AuthorityType, Severity, State

commands = typer.Typer(no_args_is_help=True, help="Act on incidents: declare, change, annotate, promote, dismiss, link.")

As = Annotated[AuthorityType, typer.Option("--as", help="The authority to claim.", case_sensitive=False)]
Actor = Annotated[str | None, typer.Option(help="Who acts, if not you; only registered principals may say so.")]
Reason = Annotated[str | None, typer.Option(help="Why. Required to resolve, close, cancel, promote and dismiss.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="The idempotency key; else one is made and printed.")]
Expected = Annotated[int | None, typer.Option("--expect", help="The control version you decided on; refused if it moved.")]
Wait = Annotated[bool, typer.Option(help=f"Wait up to {WAIT_S:.0f} s for the outcome.")]
Evidence = Annotated[list[str] | None, typer.Option("--evidence", metavar="KIND=REF", help="Evidence; repeatable.")]

HUMAN: Final = AuthorityType.HUMAN


@commands.command()
def declare(
    context: typer.Context,
    service: Annotated[str, typer.Option(help="The service in trouble.")],
    severity: Annotated[Severity, typer.Option(case_sensitive=False)],
    title: Annotated[str, typer.Option(help="What is wrong, in one line.")],
    description: Annotated[str, typer.Option()] = "",
    dedup_key: Annotated[str | None, typer.Option(help="Join the open incident of this key, if there is one.")] = None,
    evidence: Evidence = None,
    authority: As = HUMAN,
    actor: Actor = None,
    reason: Reason = None,
    key: KeyOption = None,
    wait: Wait = True,
) -> None:
    """Declare an incident: open at once, if a person does."""
    wanted: Document = {"service": service, "severity": severity.value, "title": title, "description": description or None}
    wanted |= {"dedupKey": dedup_key, "evidence": _evidence(evidence) or None}
    _act(context, "declare", None, wanted, authority, actor, reason, key, wait)


@commands.command()
def state(
    context: typer.Context,
    incident_id: IncidentId,
    new_state: Annotated[State, typer.Argument(case_sensitive=False)],
    authority: As = HUMAN,
    actor: Actor = None,
    reason: Reason = None,
    key: KeyOption = None,
    expect: Expected = None,
    wait: Wait = True,
) -> None:
    """Change an incident's state; `opx transitions` shows what is possible."""
    wanted = {"newState": new_state.value, "expectedVersion": expect}
    _act(context, "change-state", incident_id, wanted, authority, actor, reason, key, wait)


@commands.command()
def evidence(
    context: typer.Context,
    incident_id: IncidentId,
    items: Annotated[list[str], typer.Argument(metavar="KIND=REF…", help="What it is, and where to find it.")],
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    wait: Wait = True,
) -> None:
    """Attach evidence."""
    _act(context, "attach-evidence", incident_id, {"evidence": _evidence(items)}, authority, actor, None, key, wait)


@commands.command()
def severity(
    context: typer.Context,
    incident_id: IncidentId,
    new_severity: Annotated[Severity, typer.Argument(case_sensitive=False)],
    authority: As = HUMAN,
    actor: Actor = None,
    reason: Reason = None,
    key: KeyOption = None,
    expect: Expected = None,
    wait: Wait = True,
) -> None:
    """Change an incident's severity."""
    wanted = {"severity": new_severity.value, "expectedVersion": expect}
    _act(context, "change-severity", incident_id, wanted, authority, actor, reason, key, wait)


@commands.command()
def note(
    context: typer.Context,
    incident_id: IncidentId,
    text: Annotated[str, typer.Argument(help="What to remember.")],
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    wait: Wait = True,
) -> None:
    """Add a note."""
    _act(context, "add-note", incident_id, {"note": text}, authority, actor, None, key, wait)


@commands.command()
def promote(
    context: typer.Context,
    incident_id: IncidentId,
    authority: As = HUMAN,
    actor: Actor = None,
    reason: Reason = None,
    key: KeyOption = None,
    expect: Expected = None,
    wait: Wait = True,
) -> None:
    """Ask the gate to open a pending incident, for a reason."""
    _act(context, "request-promotion", incident_id, {"expectedVersion": expect}, authority, actor, reason, key, wait)


@commands.command()
def dismiss(
    context: typer.Context,
    incident_id: IncidentId,
    authority: As = HUMAN,
    actor: Actor = None,
    reason: Reason = None,
    key: KeyOption = None,
    expect: Expected = None,
    wait: Wait = True,
) -> None:
    """Dismiss a pending incident as a false positive, for a reason."""
    _act(context, "dismiss", incident_id, {"expectedVersion": expect}, authority, actor, reason, key, wait)


@commands.command()
def link(
    context: typer.Context,
    incident_id: IncidentId,
    relation: Annotated[Relation, typer.Argument(case_sensitive=False)],
    target: Annotated[str, typer.Argument(help="The other incident's id.")],
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    wait: Wait = True,
) -> None:
    """Say how two incidents belong together."""

    async def wanted(session: Session) -> Document:
        return {"relation": relation.value, "target": await _identity(session, target, "opx")}

    _act(context, "link", incident_id, wanted, authority, actor, None, key, wait)


def _evidence(items: list[str] | None) -> list[Document]:
    found = []
    for item in items or ():
        kind, separator, ref = item.partition("=")
        if not separator or not kind or not ref:
            raise typer.BadParameter(f"{item!r} is not KIND=REF, such as graph=https://…")
        found.append({"kind": kind, "ref": ref})
    return found


def _act(
    context: typer.Context,
    kind: str,
    incident: str | None,
    wanted: Document | Callable[[Session], Any],
    authority: AuthorityType,
    actor: str | None,
    reason: str | None,
    key: str | None,
    wait: bool,
) -> None:
    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "sqs", "dynamodb", "sts") as session:
            document: Document = {"type": kind, "idempotencyKey": key or f"cli-{uuid4().hex}", "reason": reason}
            document["authority"] = _claim(authority, actor, local=session.target.is_local)
            if incident is not None:
                document["incidentId"] = await _identity(session, incident, invocation.opx)
            document |= wanted if isinstance(wanted, dict) else await wanted(session)
            posted = await post(session, {name: value for name, value in document.items() if value is not None})
            return await _follow(invocation, session, posted, wait)

    run(context, work)


def _claim(authority: AuthorityType, actor: str | None, *, local: bool) -> Document:
    """Return the claim. At the local engine all are one account, so the person's name is said; elsewhere it is signed."""
    name = actor or (getpass.getuser() if local and authority is HUMAN else None)
    return {"authorityType": authority.value} | ({"actorId": name} if name else {})


async def _identity(session: Session, text: str, opx: str) -> str:
    # A whole id is taken as it is: whoever may send commands need not be allowed to read incidents.
    return text.lower() if is_full_id(text) else (await find_incident(session.store, text, opx)).incident_id


async def _follow(invocation: Invocation, session: Session, posted: Posted, wait: bool) -> int:
    screen = invocation.screen
    if not wait:
        if screen.as_json:
            screen.record({"idempotencyKey": posted.key, "messageId": posted.message_id, "outcome": "sent"})
        screen.say(Text.assemble("sent under the key ", cell(posted.key, "cyan")))
        screen.next(f"{invocation.opx} status")
        return DONE
    try:
        with screen.progress("waiting for the outcome"):
            found = await outcome_of(session, posted)
    except Unavailable as error:
        message = f"It was sent under the key {posted.key}, but what became of it can't be read: {error}"
        raise CommandError(message, f"{invocation.opx} status") from error
    return _tell(invocation, posted, found)


def _tell(invocation: Invocation, posted: Posted, found: Found) -> int:
    screen = invocation.screen
    if isinstance(found, IdempotencyRecord):
        if screen.as_json:
            screen.record(found.to_document())
        return _tell_receipt(invocation, found)
    if isinstance(found, Turned):
        if screen.as_json:
            record = {"idempotencyKey": posted.key, "result": {"answer": "refused", "code": found.code}}
            screen.record(record | {"reason": found.reason})
            return REFUSED
        then = _after_refusal(found.code, found.reason, invocation.opx, posted.incident_id)
        raise CommandError(refusal_line(found.code, found.reason), then, REFUSED)
    message = f"No outcome within {WAIT_S:.0f} s. It was sent under the key {posted.key} and may still be waiting."
    raise CommandError(message, f"{invocation.opx} status", FAILED)


def _after_refusal(code: str, reason: str, opx: str, incident_id: str | None) -> str:
    again = "the same command"
    match code:
        case Code.REASON_MISSING:
            return f"{again} with --reason TEXT"
        case Code.TRANSITION_AUTHORITY | Code.AUTHORITY_NOT_GRANTED | Code.AUTHORITY_UNCLEAR:
            needed = [kind.value for kind in AuthorityType if f"needs {kind}" in reason]
            return f"{again} with --as {' or '.join(needed or AuthorityType)}"
        case Code.ACTOR_NOT_ASSERTABLE:
            return f"{again} without --actor"
        case Code.KEY_REUSED:
            return f"{again} without --key"
        case Code.LINK_TO_ITSELF:
            return f"{again} with another incident as the target"
        case Code.PRINCIPAL_UNKNOWN | Code.OPERATION_NOT_GRANTED:
            return "have an entry for the sender in pipeline/policies/authority.json, and deploy"
        case Code.INCIDENT_UNKNOWN:
            return f"{opx} incidents"
        case Code.TRANSITION_ILLEGAL | Code.SEVERITY_FROZEN | Code.VERSION_STALE if incident_id is not None:
            return f"{opx} show {short(incident_id)}"
        case _:
            return f"{opx} command --help"


def _tell_receipt(invocation: Invocation, receipt: IdempotencyRecord) -> int:
    screen, result = invocation.screen, receipt.result
    refusal = receipt.refusal()
    if refusal is not None:
        if screen.as_json:
            return REFUSED
        told = refusal_line(refusal.code, refusal.sentence())
        if refusal.code is Code.TRANSITION_ILLEGAL and refusal.state:
            told += f" From {refusal.state} it may become: {', '.join(refusal.allowed) or 'nothing'}."
        then = _after_refusal(refusal.code, refusal.detail, invocation.opx, receipt.incident_id)
        raise CommandError(told, then, REFUSED)
    line = Text.assemble((result.answer.value, "bold green" if result.answer is not Answer.UNCHANGED else "bold"))
    if result.state is not None:
        line += Text.assemble(", now ", state_cell(result.state))
    if result.first_sequence is not None:
        several = "" if result.first_sequence == result.last_sequence else f"–{result.last_sequence}"
        line += Text(f"  event {result.first_sequence}{several}, control version {result.control_version}", style="dim")
    screen.say(line)
    screen.say(Text.assemble(("key ", "dim"), cell(receipt.idempotency_key, "dim")))
    screen.next(f"{invocation.opx} timeline {short(receipt.incident_id or '')}")
    return DONE
