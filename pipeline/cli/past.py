"""`opx replay show`: an incident as it was, folded from its events: at a time, at an event, or now. Reads only."""

from datetime import datetime
from typing import Annotated

import typer

from pipeline.cli.finding import IncidentId, full_id, stored_id
from pipeline.cli.replay_scope import Exports, TablePrefix, exports_at, stored_in
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.terminal import DONE, REFUSED, CommandError, key_values, severity_cell, state_cell, time_of
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.divergences import Divergence
from pipeline.domain.incidents import Incident
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.exports import ExportError
from pipeline.replay.lines import document_of, hash_of, line_of
from pipeline.replay.ranks import Table
from pipeline.replay.reading import history_in

COMMAND = "opx replay show"


def show_past(
    context: typer.Context,
    incident: IncidentId,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help="As it was at this time.")] = None,
    version: Annotated[int | None, typer.Option("--version", min=1, help="As it was after this event.")] = None,
    export: Exports = None,
    tables: TablePrefix = None,
) -> None:
    """Show an incident as it was: folded from its stored events up to a time, or up to an event.

    Example: opx replay show 1f3a9c --at 2026-11-25T03:14Z
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} replay show"
        if at is not None and version is not None:
            raise CommandError("--at or --version, not both.", f"{command} --help", REFUSED)
        moment = None if at is None else time_of(at, "--at", command)
        if export:
            history = _exported(export, incident, command)
        else:
            async with open_session(invocation.selection, "dynamodb") as session:
                history = await _stored(session, incident, tables, invocation.opx)
        _show(invocation, history, moment, version)
        return DONE

    run(context, work)


async def _stored(session: Session, text: str, tables: str | None, opx: str) -> list[Document]:
    identity = await stored_id(session.store, text, opx)
    return [document_of(line_of(item)) async for item in stored_in(session, tables).history(identity)]


def _exported(folders: Exports, text: str, command: str) -> list[Document]:
    identity = full_id(text)
    exports = exports_at(folders or [], command, events_only=True)
    try:
        return history_in(exports[Table.EVENTS], identity)
    except ExportError as error:
        raise CommandError(f"The export can't be used. {error}", f"{command} --help") from None


def _show(invocation: Invocation, history: list[Document], moment: datetime | None, version: int | None) -> None:
    until = None if moment is None else format_time(moment)
    chosen = [
        event
        for event in history
        if (until is None or str(event.get("timestamp")) <= until) and (version is None or event["sequence"] <= version)
    ]
    if not chosen or (version is not None and chosen[-1]["sequence"] != version):
        there = (
            f"It has {len(history)} events, the first of {history[0].get('timestamp')}." if history else "It has no events."
        )
        raise CommandError(f"There was no such incident then. {there}", f"{invocation.opx} list", REFUSED)
    fold = ModelFold()
    replay = Replay(chosen[0]["incidentId"], fold, hash_of=hash_of)
    for event in chosen:
        replay.event(event)
    found = replay.finish()
    if not replay.is_whole:
        raise CommandError(
            f"Its history is damaged, so what it was can't be told: {_told(found)}",
            f"{invocation.opx} replay verify",
            REFUSED,
        )
    _show_incident(invocation, fold.incident, len(history))


def _told(found: tuple[Divergence, ...]) -> str:
    return "; ".join(f"{one.kind.value} {one.where}" for one in found)


def _show_incident(invocation: Invocation, incident: Incident, events: int) -> None:
    screen = invocation.screen
    if screen.as_json:
        screen.record(incident.to_document() | {"asOf": {"version": incident.version}})
        return
    actor = incident.authority
    key_values(
        screen,
        [
            ("incident", incident.incident_id),
            ("as of", f"event {incident.version} of {events}, {format_time(incident.updated_at)}"),
            ("state", state_cell(incident.state)),
            ("severity", severity_cell(incident.severity)),
            ("service", incident.service),
            ("title", incident.title),
            ("created", format_time(incident.created_at)),
            ("last decided by", f"{actor.actor_id} ({actor.authority_type}, {actor.principal})"),
            ("evidence", str(incident.metadata.evidence.count)),
            ("hash", incident.last_event_hash),
        ],
    )
    screen.next(f"{invocation.opx} replay verify {incident.incident_id}")
