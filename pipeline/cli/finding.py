"""Which incident is meant by an id, or by the beginning of one: asked of the API, or of a store that is open anyway."""

import re
from typing import Annotated, Final, Protocol, TypeVar

import typer

from pipeline.cli.telling import SHORT, matches
from pipeline.cli.terminal import REFUSED, CommandError, safe
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.incidents import Incident
from pipeline.services.listing import list_incidents
from pipeline.services.ports import IncidentStore, Listing

SEARCHED_MAX: Final = 1000
PAGE: Final = 100
NAMED_MAX: Final = 10
ID_CHARACTERS: Final = 36
_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

IncidentId = Annotated[str, typer.Argument(metavar="ID", help="The incident's id, or the beginning of it.")]


class Named(Protocol):
    """What an incident is told by, however it was read."""

    @property
    def incident_id(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def state(self) -> str: ...


Found = TypeVar("Found", bound=Named)


def is_full_id(text: str) -> bool:
    return _ID.fullmatch(text.strip().lower()) is not None


def full_id(text: str) -> str:
    """Return a whole id as it is stored; raise where it is the beginning of one: an export can't be asked for the rest."""
    if not is_full_id(text):
        raise CommandError(f"{text} is not a whole id; in an export ids must be.", "opx list --json", REFUSED)
    return text.strip().lower()


async def stored_id(store: IncidentStore, text: str, opx: str) -> str:
    """Return the id that `text` means: a whole one as it is, row or no row; else that of the row it begins."""
    return text.strip().lower() if is_full_id(text) else (await find_incident(store, text, opx)).incident_id


async def identity_of(operator: AsyncOperator, text: str, opx: str) -> str:
    """Return the id that `text` means, looked for among the newest incidents; raise where none or several begin so.

    A whole id is taken as it is: whoever may act on an incident need not be allowed to list them.
    """
    wanted = _wanted(text, opx)
    if is_full_id(wanted):
        return wanted
    found = []
    looked_at = 0
    async for incident in operator.incidents(page=PAGE):
        looked_at += 1
        if incident.incident_id.startswith(wanted):
            found.append(incident)
        if looked_at == SEARCHED_MAX:
            break
    return the_one(found, text, opx, looked_at).incident_id


async def find_incident(store: IncidentStore, text: str, opx: str = "opx") -> Incident:
    """Return the incident that an id, or the beginning of one, names in a store; raise where none or several match."""
    wanted = _wanted(text, opx)
    if is_full_id(wanted):
        incident = await store.load(wanted)
        return the_one([] if incident is None else [incident], text, opx)
    listed = await list_incidents(store, Listing(limit=SEARCHED_MAX))
    return the_one(matches(listed, wanted), text, opx, len(listed))


def the_one(found: list[Found], text: str, opx: str, looked_at: int = 0) -> Found:
    """Return the only one that was found; raise where there is none, or several: each as far as it tells them apart."""
    if len(found) == 1:
        return found[0]
    if not found:
        among = f" among the newest {SEARCHED_MAX}: give the whole id" if looked_at >= SEARCHED_MAX else ""
        raise CommandError(f"No incident is known as {text}{among}.", f"{opx} list", REFUSED)
    length = next(
        size for size in range(SHORT, ID_CHARACTERS + 1) if len({one.incident_id[:size] for one in found}) == len(found)
    )
    named = [f"{one.incident_id[:length]}  {safe(one.service)}  {one.state}" for one in found[:NAMED_MAX]]
    more = [f"… and {len(found) - NAMED_MAX} more"] if len(found) > NAMED_MAX else []
    listed = "".join(f"\n  {line}" for line in [*named, *more])
    raise CommandError(f"{len(found)} incidents begin with {text}:{listed}", f"{opx} list", REFUSED)


def _wanted(text: str, opx: str) -> str:
    wanted = text.strip().lower()
    if not wanted:
        raise CommandError("Name an incident's id.", f"{opx} list", REFUSED)
    return wanted
