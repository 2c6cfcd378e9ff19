"""`opx list`: incidents as the API lists them, and the filters that other commands share. Reads only."""

from typing import Annotated, Final

import typer

from pipeline.cli.finding import PAGE
from pipeline.cli.session import Invocation, run
from pipeline.cli.tables import incidents_table
from pipeline.cli.telling import read_incident, short
from pipeline.cli.terminal import DONE, safe, time_of
from pipeline.clients.answers import Incident
from pipeline.clients.calls import Filters
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.transitions import HOLDS_KEY, Severity, State

LIMIT_MAX: Final = 10_000

InState = Annotated[State | None, typer.Option("--state", help="Only incidents in this state.", case_sensitive=False)]
OfService = Annotated[str | None, typer.Option("--service", help="Only incidents of this service.")]
OfSeverity = Annotated[
    Severity | None, typer.Option("--severity", help="Only incidents of this severity.", case_sensitive=False)
]
CreatedFrom = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only those created from then on.")]
CreatedTo = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only those created before.")]


def list_(
    context: typer.Context,
    state: InState = None,
    service: OfService = None,
    severity: OfSeverity = None,
    since: CreatedFrom = None,
    until: CreatedTo = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most so many.")] = 50,
) -> None:
    """List incidents, the newest first.

    Example: opx list --state open --service checkout --from 2026-01-31T00:00Z
    """

    async def work(invocation: Invocation) -> int:
        filters = filters_of(invocation, "list", state, service, severity, since, until)
        screen = invocation.screen
        with screen.progress("listing"):
            async with invocation.api() as api:
                found, more = await newest(api.operator, filters, limit)
        if screen.as_json:
            for incident in found:
                screen.record(incident.document)
        elif not found:
            screen.say(nothing_found(filters))
            screen.next(f"{invocation.opx} list" if filters else f"{invocation.opx} declare --help")
        else:
            incidents_table(screen, tuple(map(read_incident, found)))
        if more:
            screen.notice(f"Only the newest {limit} are shown; there are more (--limit N, at most {LIMIT_MAX}).")
        if found:
            screen.next(f"{invocation.opx} open {short(_first_to_open(found).incident_id)}")
        return DONE

    run(context, work)


def _first_to_open(found: list[Incident]) -> Incident:
    """Return the most severe that is not over, the newest of equals; where all are over, the newest of all."""
    return min(found, key=lambda one: (one.state not in HOLDS_KEY, one.severity if one.state in HOLDS_KEY else ""))


async def newest(operator: AsyncOperator, filters: Filters, limit: int) -> tuple[list[Incident], bool]:
    """Return the newest incidents that match, `limit` at most, and whether there are more."""
    found: list[Incident] = []
    async for incident in operator.incidents(page=min(PAGE, limit + 1), **filters):
        if len(found) == limit:
            return found, True
        found.append(incident)
    return found, False


def filters_of(
    invocation: Invocation,
    command: str,
    state: State | None,
    service: str | None,
    severity: Severity | None,
    since: str | None,
    until: str | None,
) -> Filters:
    """Return what a listing is narrowed to; raise where a time is none."""
    again = f"{invocation.opx} {command}"
    filters: Filters = {}
    if state is not None:
        filters["state"] = state.value
    if service is not None:
        filters["service"] = service
    if severity is not None:
        filters["severity"] = severity.value
    if since is not None:
        filters["created_from"] = time_of(since, "--from", again)
    if until is not None:
        filters["created_to"] = time_of(until, "--to", again)
    return filters


def nothing_found(filters: Filters) -> str:
    """Return what is said where a list is empty, by the filter that left it so."""
    if not filters:
        return "There are no incidents."
    severity = f"{filters['severity']} " if "severity" in filters else ""
    service = f" of service {safe(filters['service'])}" if "service" in filters else ""
    time = " of that time" if filters.keys() & {"created_from", "created_to"} else ""
    state = f" is {filters['state']}" if "state" in filters else " is known"
    return f"No {severity}incident{service}{time}{state}."
