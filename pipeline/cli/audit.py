"""`opx audit`: who did what under which authority, by the events as they are stored. Reads only.

Believed is what carries its own hash; whatever would answer and does not carry it is named, and the exit code is 1. Whether
the chain around an event holds is for `opx replay verify` to say.
"""

import shlex
from dataclasses import replace
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.audit_question import Question
from pipeline.cli.audit_reading import read_export, read_incident, read_table
from pipeline.cli.audit_view import SHOWN, Newest, Tally, actor_of, deeds_table, tally_table
from pipeline.cli.finding import full_id, stored_id
from pipeline.cli.replay_scope import Exports, TablePrefix, exports_at, stored_in
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError, Screen, cell, time_of
from pipeline.domain.canonical import Document
from pipeline.domain.divergences import MEANS, Divergence, Kind
from pipeline.domain.errors import OpxError
from pipeline.domain.transitions import EventType
from pipeline.replay.exports import Export, ExportError
from pipeline.replay.lines import hash_of
from pipeline.replay.ranks import Table

NAMED_MAX: Final = 20
TYPES: Final = {kind.value.lower(): kind.value for kind in EventType}

ActorText = Annotated[
    str | None,
    typer.Option(
        "--actor", metavar="TEXT", help="By name or principal; also who spoke, or asked the gate. `*` is any text."
    ),
]
PrincipalText = Annotated[
    str | None, typer.Option("--principal", metavar="TEXT", help="By the signer's unique id alone; also who asked the gate.")
]
ServicePattern = Annotated[str | None, typer.Option("--service", metavar="PATTERN", help="On services: 'checkout*'.")]
IncidentText = Annotated[
    str | None, typer.Option("--incident", metavar="ID", help="On one incident; its events alone are read.")
]
Types = Annotated[
    list[str] | None, typer.Option("--type", metavar="EVENTTYPE", help="Of this type; may be given several times.")
]
Since = Annotated[str | None, typer.Option("--from", metavar="TIME", help="From this time on.")]
Until = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Before this time.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help=f"The newest so many.  [default: {SHOWN}; as JSON all, as they are read]"),
]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask before a large table is read.")]


def audit(
    context: typer.Context,
    actor: ActorText = None,
    principal: PrincipalText = None,
    service: ServicePattern = None,
    incident: IncidentText = None,
    types: Types = None,
    since: Since = None,
    until: Until = None,
    export: Exports = None,
    tables: TablePrefix = None,
    limit: Limit = None,
    yes: Yes = False,
) -> None:
    """Say who did what, when, why and under which authority: from the event table, or an export of it.

    What was refused changed nothing, so it is in no event, at most in a receipt (opx receipt KEY). An event that was altered
    until it no longer matches is found by opx replay verify.

    Example: opx audit --actor dana@example.com --service 'checkout*' --from 2026-11-01T00:00Z
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} audit"
        span = [
            None if text is None else time_of(text, name, command) for text, name in ((since, "--from"), (until, "--to"))
        ]
        if span[0] and span[1] and span[0] >= span[1]:
            raise CommandError("--from is not before --to.", f"{command} --help", REFUSED)
        if export and tables:
            raise CommandError("--export or --tables, not both.", f"{command} --help", REFUSED)
        question = Question(actor, principal, service, incident, _types(types, command), *span)
        answer = Answer(invocation.screen, question, limit)
        places = [
            *(f"--export {shlex.quote(str(folder))}" for folder in export or ()),
            *([f"--tables {tables}"] if tables else []),
        ]
        if export:
            await _of_export(invocation, answer, exports_at(export, command, events_only=True)[Table.EVENTS])
        else:
            await _of_table(invocation, answer, tables, yes=yes)
        _show(invocation, answer, " ".join(places))
        return REFUSED if answer.damaged else DONE

    run(context, work)


def _types(asked: list[str] | None, command: str) -> tuple[str, ...]:
    for text in asked or ():
        if text.lower() not in TYPES:
            known = ", ".join(TYPES.values())
            raise CommandError(f"{text} is no event type; there are {known}.", f"{command} --help", REFUSED)
    return tuple(dict.fromkeys(TYPES[text.lower()] for text in asked or ()))


class Answer:
    """Takes what was read, one after the other: what matches and can be believed is counted, and told or kept.

    As JSON without a limit each event is written as it comes; otherwise the newest are kept, and no more.
    """

    def __init__(self, screen: Screen, question: Question, limit: int | None) -> None:
        self.screen = screen
        self.question = question
        self.tally = Tally()
        self.newest = None if screen.as_json and limit is None else Newest(limit or SHOWN)
        self.damaged = 0
        self.named: list[Divergence] = []

    def take(self, found: Document | Divergence) -> None:
        if isinstance(found, Divergence):
            self._name(found)
        elif self.question.matches(found):
            self._believe(found)

    def _believe(self, event: Document) -> None:
        said, place = event.get("hash"), (str(event.get("incidentId")), f"event {event.get('sequence')}")
        try:
            made = hash_of(event)
        except OpxError as error:
            self._name(Divergence(place[0], Kind.UNREADABLE, place[1], "readable", str(error)))
            return
        actor = actor_of(event)
        if made != said:
            content = (f"content of hash {said}", f"content of hash {made}")
            self._name(Divergence(place[0], Kind.CHANGED, place[1], *content))
        elif actor is None:
            self._name(Divergence(place[0], Kind.UNREADABLE, place[1], "an event with an actor", "none"))
        else:
            self.tally.take(actor, event["eventType"])
            if self.newest is None:
                self.screen.record(event)
            else:
                self.newest.take(event)

    def _name(self, divergence: Divergence) -> None:
        self.damaged += 1
        if self.screen.as_json:
            self.screen.record({"divergence": divergence.to_document()})
        elif len(self.named) < NAMED_MAX:
            self.named.append(divergence)


async def _of_export(invocation: Invocation, answer: Answer, export: Export) -> None:
    question = answer.question
    if question.incident is not None:
        answer.question = replace(question, incident=full_id(question.incident))
    try:
        await read_export(invocation, export, answer.question, answer.take)
    except ExportError as error:
        message = f"Broken off after {answer.tally.events} events: the export can't be used. {error}"
        raise CommandError(message, f"{invocation.opx} audit --help", FAILED) from None


async def _of_table(invocation: Invocation, answer: Answer, prefix: str | None, *, yes: bool) -> None:
    question = answer.question
    async with open_session(invocation.selection, "dynamodb") as session:
        stored = stored_in(session, prefix)
        if question.incident is None:
            await read_table(invocation, stored, question, answer.take, yes=yes)
            return
        text = question.incident.strip().lower()
        whole = await stored_id(session.store, text, invocation.opx)
        answer.question = replace(question, incident=whole)
        await read_incident(stored, whole, answer.take)


def _show(invocation: Invocation, answer: Answer, place: str) -> None:
    screen, tally = invocation.screen, answer.tally
    shown = [] if answer.newest is None else answer.newest.in_order()
    if screen.as_json:
        for event in shown:
            screen.record(event)
        screen.record({"summary": tally.to_document() | {"divergences": answer.damaged}})
        return
    if shown:
        deeds_table(screen, shown)
        tally_table(screen, tally)
    if tally.events > len(shown):
        again = f"{invocation.opx} audit{answer.question.arguments} {place}".rstrip()
        screen.notice(f"The newest {len(shown)} of {tally.events} events are shown; all of them: {again} --json")
    if not tally.events:
        screen.say("No event matches.")
    if answer.damaged:
        _show_damage(invocation, answer)


def _show_damage(invocation: Invocation, answer: Answer) -> None:
    screen = invocation.screen
    one = answer.damaged == 1
    screen.say(f"Not believed and not counted: {answer.damaged} event{'' if one else 's'}.", "bold red")
    for found in answer.named:
        where = f"{found.incident_id} {found.where}".strip()
        screen.say(Text.assemble("  ", cell(where, "cyan"), f": {MEANS[found.kind]}"))
    if answer.damaged > len(answer.named):
        screen.notice(f"{len(answer.named)} of {answer.damaged} are named; --json names them all.")
    first = answer.named[0].incident_id
    screen.next(f"{invocation.opx} replay verify {first}".rstrip(), "see infra/runbooks/corruption.md")
