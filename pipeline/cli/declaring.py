"""`opx declare`, `evidence`, `link`, and `receipt`: what is done to no more than one incident at a time."""

from typing import Annotated, Any

import typer
from rich.text import Text

from pipeline.cli.acting import Terms, tell
from pipeline.cli.calling import Api
from pipeline.cli.finding import IncidentId, identity_of
from pipeline.cli.session import Invocation, run
from pipeline.cli.telling import refusal_line, short
from pipeline.cli.terminal import DONE, REFUSED, CommandError, cell, key_values, safe
from pipeline.cli.verbs import HUMAN, Actor, As, DryRun, Expected, KeyOption, Reason
from pipeline.clients.answers import Receipt
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.errors import HttpCode, Rejected
from pipeline.domain.events import Relation
from pipeline.domain.transitions import Severity

Evidence = Annotated[list[str] | None, typer.Option("--evidence", metavar="KIND=REF", help="Evidence; repeatable.")]
Links = Annotated[list[str] | None, typer.Option("--link", metavar="REL=HREF", help="A runbook, a dashboard; repeatable.")]
Metadata = Annotated[str | None, typer.Option(metavar="JSON", help="An object of your own.")]


def declare(
    context: typer.Context,
    service: Annotated[str, typer.Option(help="The service in trouble.")],
    severity: Annotated[Severity, typer.Option(case_sensitive=False)],
    title: Annotated[str, typer.Option(help="What is wrong, in one line.")],
    description: Annotated[str | None, typer.Option(help="What else is known.")] = None,
    dedup_key: Annotated[str | None, typer.Option(help="Join the open incident of this key, if there is one.")] = None,
    evidence: Evidence = None,
    links: Links = None,
    metadata: Metadata = None,
    reason: Reason = None,
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    dry_run: DryRun = False,
) -> None:
    """Declare an incident: open at once, if a person does.

    Example: opx declare --service checkout --severity SEV2 --title "Carts are empty" --link runbook=https://wiki.example/1
    """

    async def work(invocation: Invocation) -> int:
        terms = Terms(authority, actor, key, dry_run=dry_run).keyed("declare")
        more: dict[str, Any] = {"description": description, "dedup_key": dedup_key, "reason": reason}
        more |= {"evidence": pairs(evidence, "kind", "ref"), "links": pairs(links, "rel", "href")}
        async with invocation.api() as api:
            found = await api.operator.declare(
                service, severity.value, title, metadata=_object(metadata, invocation), **more, **terms.options(api)
            )
        tell(invocation, [found])
        return DONE

    run(context, work)


def evidence(
    context: typer.Context,
    incident_id: IncidentId,
    items: Annotated[list[str], typer.Argument(metavar="KIND=REF", hidden=True)],
    reason: Reason = None,
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    expect: Expected = None,
    dry_run: DryRun = False,
) -> None:
    """Attach evidence, in every state.

    KIND says what it is, REF where to find it.

    Example: opx evidence 3f9a2c1b graph=https://observe.example/d/7 log=s3://logs/checkout.gz
    """

    async def work(invocation: Invocation) -> int:
        terms = Terms(authority, actor, key, expect, dry_run).keyed("evidence")
        found = pairs(items, "kind", "ref") or []
        async with invocation.api() as api:
            incident = await identity_of(api.operator, incident_id, invocation.opx)
            outcome = await api.operator.attach_evidence(incident, found, reason=reason, **terms.options(api))
        tell(invocation, [outcome], "evidence attached")
        return DONE

    run(context, work)


def link(
    context: typer.Context,
    incident_id: IncidentId,
    relation: Annotated[Relation, typer.Argument(case_sensitive=False)],
    target: Annotated[str, typer.Argument(help="The other incident's id, or the beginning of it.")],
    reason: Reason = None,
    authority: As = HUMAN,
    actor: Actor = None,
    key: KeyOption = None,
    expect: Expected = None,
    dry_run: DryRun = False,
) -> None:
    """Say how two incidents belong together.

    Example: opx link 3f9a2c1b caused-by 81d04e7f
    """

    async def work(invocation: Invocation) -> int:
        terms = Terms(authority, actor, key, expect, dry_run).keyed("link")
        async with invocation.api() as api:
            incident, other = [await identity_of(api.operator, text, invocation.opx) for text in (incident_id, target)]
            outcome = await api.operator.link(incident, relation, other, reason=reason, **terms.options(api))
        tell(invocation, [outcome], f"{relation} {short(other)}")
        return DONE

    run(context, work)


def receipt(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="KEY", help="The idempotency key it was sent under.")],
    principal: Annotated[str | None, typer.Option(help="Whose; for auditors. Else your own.")] = None,
) -> None:
    """Say what became of a command or message: whether it took effect, and where it led.

    Example: opx receipt cli-7c9e6679f1a04b0e9d0c3a1be2f45d10
    """

    async def work(invocation: Invocation) -> int:
        async with invocation.api() as api:
            found = await _receipt(api, key, principal)
        if found is None:
            message = f"Nothing was decided under the key {key}, or it was refused without a receipt."
            facts = {"code": HttpCode.RECEIPT_UNKNOWN.value, "outcome": "unknown"}
            then = f"the same command with --key {key}, or {invocation.opx} queue show rejected"
            raise CommandError(message, then, REFUSED, facts)
        if invocation.screen.as_json:
            invocation.screen.record(found.document)
        else:
            _tell(invocation, found)
        return DONE

    run(context, work)


async def _receipt(api: Api, key: str, principal: str | None) -> Receipt | None:
    try:
        return await api.operator.receipt(key, principal=principal)
    except ValueError as error:
        raise CommandError(str(error), "opx receipt --help", REFUSED) from None


def _tell(invocation: Invocation, found: Receipt) -> None:
    screen, result = invocation.screen, found.result
    applied = "code" not in result
    answer = str(result.get("answer", ""))
    told = answer.replace(found.outcome, "") if applied else refusal_line(str(result["code"]), str(result.get("detail", "")))
    sequences = [str(result[name]) for name in ("firstSequence", "lastSequence") if name in result]
    rows = [
        ("outcome", Text.assemble((found.outcome, "bold green" if applied else "bold red"), cell(f"  {told}"))),
        ("operation", found.operation),
        ("incident", found.incident_id or ""),
        ("state then", result.get("state", "")),
        ("events", "–".join(dict.fromkeys(sequences))),
        ("decided", f"{found.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("by", found.principal),
        ("what to do", found.next or ""),
    ]
    key_values(screen, [(f"{name:<10}", value) for name, value in rows if value])
    opx = invocation.opx
    screen.next(f"{opx} open {short(found.incident_id)}" if found.incident_id else f"{opx} list")


def pairs(items: list[str] | None, name: str, place: str) -> list[Document] | None:
    """Return `NAME=PLACE` texts as documents; None where there are none."""
    found: list[Document] = []
    for item in items or ():
        first, separator, second = item.partition("=")
        if not separator or not first or not second:
            raise typer.BadParameter(f"{safe(item)!r} is not {name.upper()}={place.upper()}, such as graph=https://…")
        found.append({name: first, place: second})
    return found or None


def _object(text: str | None, invocation: Invocation) -> Document | None:
    try:
        return None if text is None else parse_document(text)
    except Rejected as error:
        message = f"--metadata is no JSON object: {error.refusal.detail}"
        raise CommandError(message, f"{invocation.opx} declare --help", REFUSED) from None
