"""`opx incidents`, `show` and `timeline`: what the stack knows. Reads only."""

import re
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.tables import incidents_table, timeline_table
from pipeline.cli.telling import SHORT, allowed_documents, incident_facts, matches, next_steps, short, who_may
from pipeline.cli.terminal import (
    DONE,
    REFUSED,
    CommandError,
    key_values,
    safe,
    severity_cell,
    state_cell,
)
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import State, transitions_from
from pipeline.services.listing import list_incidents
from pipeline.services.ports import IncidentStore, Listing

SEARCHED_MAX: Final = 1000
LIMIT_MAX: Final = 1000
NAMED_MAX: Final = 10
ID_CHARACTERS: Final = 36
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

IncidentId = Annotated[str, typer.Argument(metavar="ID", help="The incident's id, or the beginning of it.")]


def incidents(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only incidents in this state.", case_sensitive=False)] = None,
    service: Annotated[str | None, typer.Option(help="Only incidents of this service.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most so many, the newest first.")] = 50,
) -> None:
    """List incidents, the newest first."""

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb") as session:
            found = await list_incidents(session.store, Listing(state=state, service=service, limit=limit + 1))
        screen, shown = invocation.screen, found[:limit]
        if screen.as_json:
            for incident in shown:
                screen.record(incident.to_document())
        elif not shown:
            screen.say(nothing_found(state, service))
            screen.next(f"{invocation.opx} incidents" if state or service else f"{invocation.opx} send FILE")
        else:
            incidents_table(screen, shown)
        if len(found) > limit:
            screen.notice(f"Only the newest {limit} are shown; there are more (--limit N, at most {LIMIT_MAX}).")
        if shown:
            screen.next(f"{invocation.opx} show {short(shown[0].incident_id)}")
        return DONE

    run(context, work)


def nothing_found(state: State | None, service: str | None) -> str:
    """Return what is said where a list is empty, by the filter that left it so."""
    if state is None and service is None:
        return "There are no incidents."
    return "No incident" + (f" of service {safe(service)}" if service else "") + (f" is {state}." if state else ".")


def is_full_id(text: str) -> bool:
    return _ID.fullmatch(text.strip().lower()) is not None


async def find_incident(store: IncidentStore, text: str, opx: str = "opx") -> Incident:
    """Return the incident that an id, or the beginning of one, names; raise where none or several match."""
    wanted = text.strip().lower()
    if not wanted:
        raise CommandError("Name an incident's id.", f"{opx} incidents", REFUSED)
    if is_full_id(wanted):
        incident = await store.load(wanted)
        found = [] if incident is None else [incident]
    else:
        found = matches(await list_incidents(store, Listing(limit=SEARCHED_MAX)), wanted)
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f"No incident is known as {text}.", f"{opx} incidents", REFUSED)
    raise CommandError(f"{len(found)} incidents begin with {text}:{_candidates(found)}", f"{opx} incidents", REFUSED)


def _candidates(found: list[Incident]) -> str:
    # As much of each id as tells them apart.
    length = next(
        size for size in range(SHORT, ID_CHARACTERS + 1) if len({one.incident_id[:size] for one in found}) == len(found)
    )
    named = [f"{one.incident_id[:length]}  {safe(one.service)}  {one.state}" for one in found[:NAMED_MAX]]
    more = [f"… and {len(found) - NAMED_MAX} more"] if len(found) > NAMED_MAX else []
    return "".join(f"\n  {line}" for line in [*named, *more])


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
        steps = [f"{invocation.opx} command {step}" for step in next_steps(incident)]
        screen.next(*steps, f"{invocation.opx} timeline {short(incident.incident_id)}")
        return DONE

    run(context, work)


def timeline(
    context: typer.Context,
    incident_id: IncidentId,
    everything: Annotated[bool, typer.Option("--all", help="Each event, also where many in a row are evidence.")] = False,
) -> None:
    """Show everything that happened to one incident, in order."""

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb") as session:
            incident = await find_incident(session.store, incident_id, invocation.opx)
            documents = [document async for document in session.store.history(incident.incident_id)]
        screen = invocation.screen
        if screen.as_json:
            for document in documents:
                screen.record(document)
            return DONE
        title = f"{incident.service}: {incident.title}"
        if timeline_table(screen, documents, title, collapse=not everything):
            screen.next(f"{invocation.opx} timeline {short(incident.incident_id)} --all")
        return DONE

    run(context, work)
