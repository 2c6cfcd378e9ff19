"""`opx incidents`, `show` and `timeline`: what the stack knows. Reads only."""

import re
from itertools import groupby
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.telling import (
    actor_of,
    allowed_documents,
    clock_time,
    incident_facts,
    matches,
    read_event,
    short,
    told,
    who_may,
)
from pipeline.cli.terminal import (
    DONE,
    REFUSED,
    Column,
    CommandError,
    Screen,
    cell,
    key_values,
    severity_cell,
    state_cell,
)
from pipeline.domain.canonical import Document
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import EventType, State, transitions_from
from pipeline.services.ports import IncidentStore, Listing

SEARCHED_MAX: Final = 1000
COLLAPSED_MIN: Final = 3
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

IncidentId = Annotated[str, typer.Argument(metavar="ID", help="The incident's id, or the beginning of it.")]


def incidents(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only incidents in this state.", case_sensitive=False)] = None,
    service: Annotated[str | None, typer.Option(help="Only incidents of this service.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, the newest first.")] = 50,
) -> None:
    """List incidents, the newest first."""

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb") as session:
            found = await session.store.list_incidents(Listing(state, service, limit))
        screen = invocation.screen
        if screen.as_json:
            for incident in found:
                screen.record(incident.to_document())
        elif not found:
            screen.say("There is no such incident." if state or service else "There are no incidents.")
            screen.next(f"{invocation.opx} send FILE")
        else:
            incidents_table(screen, found)
            screen.next(f"{invocation.opx} show {short(found[0].incident_id)}")
        return DONE

    run(context, work)


def incidents_table(screen: Screen, found: tuple[Incident, ...], title: str = "") -> None:
    """Show incidents as a table."""
    columns = (
        Column("id"),
        Column("state"),
        Column("sev"),
        Column("service"),
        Column("title", wrap=True),
        Column("evidence", right=True),
        Column("created (UTC)"),
    )
    rows = [
        (
            cell(short(incident.incident_id), "cyan"),
            state_cell(incident.state),
            severity_cell(incident.severity),
            cell(incident.service),
            cell(incident.title),
            cell(incident.metadata.evidence.count),
            cell(clock_time(incident.created_at), "dim"),
        )
        for incident in found
    ]
    screen.table(columns, rows, title)


def is_full_id(text: str) -> bool:
    return _ID.fullmatch(text.strip().lower()) is not None


async def find_incident(store: IncidentStore, text: str, opx: str = "opx") -> Incident:
    """Return the incident that an id, or the beginning of one, names; raise where none or several match."""
    wanted = text.strip().lower()
    if is_full_id(wanted):
        incident = await store.load(wanted)
        found = [] if incident is None else [incident]
    else:
        found = matches(await store.list_incidents(Listing(limit=SEARCHED_MAX)), wanted) if wanted else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f"No incident is known as {text}.", f"{opx} incidents", REFUSED)
    raise CommandError(f"{len(found)} incidents begin with {text}.", f"{opx} show {found[0].incident_id}", REFUSED)


def show(context: typer.Context, incident_id: IncidentId) -> None:
    """Show one incident, and who may do what next."""

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb") as session:
            incident = await find_incident(session.store, incident_id, invocation.opx)
        screen = invocation.screen
        if screen.as_json:
            screen.record(incident.to_document() | {"allowedTransitions": allowed_documents(incident)})
            return DONE
        heading = Text.assemble((incident.incident_id, "bold cyan"), "  ", state_cell(incident.state), "  ")
        screen.say(heading + severity_cell(incident.severity))
        for name, value in incident_facts(incident):
            key_values(screen, [(f"{name:<15}", value)])
        screen.say()
        if not transitions_from(incident.state):
            screen.say(f"{incident.state} is final: nothing leads out of it.", "dim")
        for row in transitions_from(incident.state):
            reason = ", with a reason" if row.needs_reason else ""
            may = Text.assemble("may become ", state_cell(row.target), f" ({row.trigger}) by {who_may(row)}{reason}")
            screen.say(may)
        screen.next(f"{invocation.opx} timeline {short(incident.incident_id)}")
        return DONE

    run(context, work)


def timeline(context: typer.Context, incident_id: IncidentId) -> None:
    """Show everything that happened to one incident, in order."""

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb") as session:
            incident = await find_incident(session.store, incident_id, invocation.opx)
            documents = [document async for document in session.store.history(incident.incident_id)]
        if invocation.screen.as_json:
            for document in documents:
                invocation.screen.record(document)
            return DONE
        timeline_table(invocation.screen, documents, f"{incident.service}: {incident.title}")
        return DONE

    run(context, work)


def timeline_table(screen: Screen, documents: list[Document], title: str = "", *, collapse: bool = False) -> None:
    """Show stored events as a table, one line each; `collapse` draws a run of evidence together."""
    columns = (
        Column("#", right=True),
        Column("time (UTC)"),
        Column("event"),
        Column("state"),
        Column("actor"),
        Column("what", wrap=True),
    )
    rows = []
    for attached, run_of in groupby(documents, key=lambda found: found.get("eventType") == EventType.EVIDENCE_ATTACHED):
        group = list(run_of)
        if collapse and attached and len(group) > COLLAPSED_MIN:
            rows += [_timeline_row(group[0]), _collapsed_row(group[1:-1]), _timeline_row(group[-1])]
        else:
            rows += [_timeline_row(document) for document in group]
    screen.table(columns, rows, title)


def _collapsed_row(group: list[Document]) -> tuple[Text, ...]:
    blank = cell("")
    return (cell("…", "dim"), blank, cell(f"{len(group)} more EvidenceAttached", "dim"), blank, blank, blank)


def _timeline_row(document: Document) -> tuple[Text, ...]:
    event = read_event(document)
    if event is None:
        kind = cell(document.get("eventType", "?"), "red")
        unread = cell("this version of opx can't read it; see --json", "red")
        return (cell(document.get("sequence", "?")), cell(document.get("timestamp", "?")), kind, cell(""), cell(""), unread)
    moved = event.previous_state is not event.new_state
    return (
        cell(event.sequence),
        cell(event.timestamp.strftime("%m-%d %H:%M:%S.%f")[:-3], "dim"),
        cell(event.fact.event_type.value, "bold" if moved else ""),
        state_cell(event.new_state) if moved else cell(""),
        cell(actor_of(event.actor)),
        cell(told(event)),
    )
