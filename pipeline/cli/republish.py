"""`opx republish`: stored events to the bus once more, for subscribers that missed some. Resumable, at a bounded rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer

from pipeline.cli.finding import identity_of, is_full_id
from pipeline.cli.republish_failures import republish_failures
from pipeline.cli.republish_time import begun_at, by_time, end_of_earlier, marks_of
from pipeline.cli.republishing import (
    RATE,
    ROLE,
    SERVICES,
    Republished,
    Terms,
    marks_file,
    republish_events,
    tell,
)
from pipeline.cli.roles import open_as
from pipeline.cli.session import Invocation, Session, run
from pipeline.cli.target import resolve
from pipeline.cli.terminal import DONE, REFUSED, CommandError, time_of
from pipeline.domain.canonical import format_time
from pipeline.runtime.clock import SystemClock
from pipeline.services.stored_events import NamedEvents, Wanted


@dataclass(frozen=True, slots=True)
class Named:
    """Incidents by id, or the beginning of one; of each from one sequence to another."""

    ids: tuple[str, ...]
    first: int
    last: int | None

    @property
    def arguments(self) -> str:
        since = f" --from-sequence {self.first}" if self.first > 1 else ""
        until = f" --to-sequence {self.last}" if self.last is not None else ""
        return " ".join(self.ids) + since + until


def republish(
    context: typer.Context,
    incident_ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Incidents' ids, or the beginnings of them.")
    ] = None,
    from_sequence: Annotated[int | None, typer.Option(min=1, help="Of each from this event on.")] = None,
    to_sequence: Annotated[int | None, typer.Option(min=1, help="Of each up to this event.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="All events from this time on.")] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="All events before this time.  [default: now]")
    ] = None,
    failures: Annotated[
        bool,
        typer.Option("--failures", help="What lies in the fan-out's failure queue; it leaves there once it is out."),
    ] = False,
    rate: Annotated[float, typer.Option(min=0.1, help="Events a second, at most.")] = RATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and publish nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before a large table is read.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume/--restart", help="Go on where an earlier run was broken off, or start over.")
    ] = True,
) -> None:
    """Publish stored events again, marked as replayed: of incidents, of a span of time, or what the fan-out could not.

    Each keeps its eventId, so whoever has it already drops it. One that does not carry its own hash is named, not published.

    Example: opx republish --from 2026-01-31T03:00Z --to 2026-01-31T04:00Z
    """
    terms = Terms(rate, dry_run, yes, resume)
    ids = tuple(incident_ids or ())

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} republish"
        asked = [bool(ids), since is not None or until is not None, failures]
        if sum(asked) != 1 or (until is not None and since is None):
            raise CommandError("Name incidents, or --from and --to, or --failures.", f"{command} --help", REFUSED)
        if not ids and (from_sequence is not None or to_sequence is not None):
            message = "--from-sequence and --to-sequence are of incidents that are named."
            raise CommandError(message, f"{command} --help", REFUSED)
        if failures:
            return await republish_failures(invocation, terms)
        if since is None:
            return await _named(invocation, Named(ids, from_sequence or 1, to_sequence), terms)
        first = time_of(since, "--from", command)
        return await _of_time(invocation, first, None if until is None else time_of(until, "--to", command), terms)

    run(context, work)


async def _named(invocation: Invocation, asked: Named, terms: Terms) -> int:
    identities = await whole_ids(invocation, asked.ids)
    target = await resolve(invocation.selection)
    async with open_as(target, ROLE, SERVICES) as clients:
        session = Session(target, clients)
        for identity in identities:
            if not [event async for event in session.store.history(identity, limit=1)]:
                raise CommandError(f"No incident is known as {identity}.", f"{invocation.opx} list", REFUSED)
        wanted = dict.fromkeys(identities, Wanted(((asked.first, asked.last),), exact=False))
        marks_at = marks_file(target, "named", *sorted(identities), str(asked.first), str(asked.last))
        again = f"{invocation.opx} republish {asked.arguments}{terms.arguments}"
        events = NamedEvents(session.store, wanted)
        found = await republish_events(invocation, session, events, terms, marks_at, again)
    return _report(invocation, found, terms)


async def whole_ids(invocation: Invocation, texts: Sequence[str]) -> list[str]:
    """Return the ids that are meant; beginnings are looked up as the caller, who need not be allowed that for whole ones."""
    if all(map(is_full_id, texts)):
        return list(dict.fromkeys(text.strip().lower() for text in texts))
    async with invocation.api() as api:
        return list(dict.fromkeys([await identity_of(api.operator, text, invocation.opx) for text in texts]))


async def _of_time(invocation: Invocation, first: datetime, last: datetime | None, terms: Terms) -> int:
    # Of a time to come nobody could say when it is all there.
    now = SystemClock().now()
    end = now if last is None else min(now, last)
    if first >= end:
        message = f"--from {format_time(first)} is not before --to {format_time(end)}."
        raise CommandError(message, f"{invocation.opx} republish --help", REFUSED)
    target = await resolve(invocation.selection)
    begun = begun_at(target, first) if (last is None or last > now) and not terms.dry_run else None
    earlier = end_of_earlier(target, first) if begun is not None and terms.resume else None
    span = (first, earlier or end)
    since, until = map(format_time, span)
    if begun is not None:
        begun.write(span[1])
    async with open_as(target, ROLE, SERVICES) as clients:
        session = Session(target, clients)
        again = f"{invocation.opx} republish --from {since} --to {until}{terms.arguments}"
        events = await by_time(invocation, session, (span,), yes=terms.yes)
        found = await republish_events(invocation, session, events, terms, marks_of(target, span), again)
    if begun is not None:
        begun.remove()
    if earlier is not None:
        invocation.screen.notice(f"Up to {until}, when the run began that was broken off; later ones were not asked for.")
        invocation.screen.next(f"{invocation.opx} republish --from {until}{terms.arguments}")
    return _report(invocation, found, terms)


def _report(invocation: Invocation, found: Republished, terms: Terms) -> int:
    tell(invocation.screen, found, terms)
    if found.marks.failed:
        invocation.screen.next(f"{invocation.opx} replay verify")
        return REFUSED
    return DONE
