"""`opx open`: one incident with all that is known of it, as it is or as it was. Reads only."""

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from pipeline.cli.calling import Api
from pipeline.cli.finding import PAGE, IncidentId, identity_of
from pipeline.cli.lifeline import Signal, Stay, life_line, signal, stays
from pipeline.cli.session import Invocation, run
from pipeline.cli.tables import timeline_table
from pipeline.cli.telling import incident_facts, read_incident, short, steps_of
from pipeline.cli.terminal import DONE, REFUSED, CommandError, Screen, key_values, severity_cell, state_cell, time_of
from pipeline.clients.answers import AllowedTransition, Incident
from pipeline.domain.canonical import Document, normalise
from pipeline.runtime.clock import SystemClock

Everything = Annotated[bool, typer.Option("--all", help="Each event, also where many in a row are evidence.")]
EventsOnly = Annotated[bool, typer.Option("--events", help="Nothing but the events; with --json exactly as stored.")]
Version = Annotated[int | None, typer.Option(min=1, help="As it was after this many events.")]
At = Annotated[str | None, typer.Option(metavar="TIME", help="As it was then.")]


def open_(
    context: typer.Context,
    incident_id: IncidentId,
    everything: Everything = False,
    events_only: EventsOnly = False,
    version: Version = None,
    at: At = None,
) -> None:
    """Show one incident: what is known, whether it goes on, who may do what, and everything that happened.

    Example: opx open 3f9a2c1b --at 2026-01-31T03:00Z
    """

    async def work(invocation: Invocation) -> int:
        opx = invocation.opx
        if version is not None and at is not None:
            raise CommandError("--version and --at both name a moment.", f"{opx} open --help", REFUSED)
        moment = None if at is None else time_of(at, "--at", f"{opx} open")
        with invocation.screen.progress("reading"):
            async with invocation.api() as api:
                incident, events = await _read(api, await identity_of(api.operator, incident_id, opx), version, moment)
        if not events_only:
            _show(invocation, incident, events)
        elif invocation.screen.as_json:
            for document in events:
                invocation.screen.record(document)
            return DONE
        if not invocation.screen.as_json:
            _show_events(invocation, incident, events, collapse=not everything)
        return DONE

    run(context, work)


async def _read(api: Api, identity: str, version: int | None, moment: datetime | None) -> tuple[Incident, list[Document]]:
    """Return an incident and the events that made it so, no further ones."""
    events = [normalise(event.document) async for event in api.operator.events(identity, page=PAGE)]
    incident = await api.operator.incident(identity, version=version, at=moment)
    seen = len(events)
    if incident.version > seen:
        # What came between the two reads is told, too.
        events += [normalise(event.document) async for event in api.operator.events(identity, after=seen, page=PAGE)]
    return incident, [event for event in events if int(event["sequence"]) <= incident.version]


def _show(invocation: Invocation, incident: Incident, events: list[Document]) -> None:
    screen, found, lived = invocation.screen, signal(events), stays(events)
    if screen.as_json:
        seen = {} if found is None else {"signal": found.to_document()}
        screen.record(incident.document | seen | {"states": [stay.to_document() for stay in lived]})
        return
    past = incident.as_of_version is not None
    heading = Text.assemble((incident.incident_id, "bold cyan"), "  ", state_cell(incident.state), "  ")
    heading += severity_cell(incident.severity)
    if past:
        heading += Text(f"  as of version {incident.version} ({events[-1]['timestamp']})", style="bold yellow")
    screen.say(heading)
    _show_facts(screen, incident, found, lived, None if past else SystemClock().now())
    screen.say()
    if not past:
        _show_allowed(screen, incident)


def _show_facts(screen: Screen, incident: Incident, found: Signal | None, lived: list[Stay], now: datetime | None) -> None:
    screen.say(life_line(lived, now))
    screen.say()
    rows = [] if found is None else [("signal", found.told(now or incident.updated_at))]
    facts = incident_facts(read_incident(incident))
    key_values(screen, [(f"{name:<15}", value) for name, value in [*facts[:2], *rows, *facts[2:]]])


def _show_allowed(screen: Screen, incident: Incident) -> None:
    if not incident.allowed_transitions:
        screen.say(f"{incident.state} is final: nothing leads out of it.", "dim")
    for row in incident.allowed_transitions:
        screen.say(_allowed(row))
    screen.say()


def _allowed(row: AllowedTransition) -> Text:
    who, reason = " or ".join(row.authority), ", with a reason" if row.needs_reason else ""
    mark = Text("you may  ", style="green") if row.you_may else Text("not you  ", style="dim")
    gate = ", if the gate agrees, asked" if row.by == "request-promotion" else ""
    return Text.assemble(mark, "become ", state_cell(row.to), f"{gate} by {who}{reason}")


def _show_events(invocation: Invocation, incident: Incident, events: list[Document], *, collapse: bool) -> None:
    screen, opx, identity = invocation.screen, invocation.opx, short(incident.incident_id)
    title = f"{incident.service}: {incident.title}"
    cut = timeline_table(screen, events, title, collapse=collapse)
    more = [f"{opx} open {identity} --all"] if cut else []
    if incident.as_of_version is not None:
        screen.next(*more, f"{opx} open {identity}")
        return
    screen.next(*(f"{opx} {step}" for step in steps_of(incident)), *more, f"{opx} note {identity} TEXT")
