"""`opx replay verify`: is everything still what was once decided? Names each divergence; reads only.

Over an export, or tables in use, all of it; or some incidents one by one. Exit code 0: clean. 1: something diverges. 2: it
could not be told of everything, or an export or a seal can't be used.
"""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.text import Text

from pipeline.cli.last_verify import remember
from pipeline.cli.replay_scope import (
    Exports,
    Ids,
    Scope,
    Since,
    TablePrefix,
    Until,
    exports_at,
    now,
    scope_of,
    stored_in,
    working_folder,
)
from pipeline.cli.sealed_file import read_seal
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.terminal import DONE, FAILED, REFUSED, Column, CommandError, Screen, cell, key_values
from pipeline.cli.versioned import Config
from pipeline.domain.canonical import Document
from pipeline.domain.divergences import MEANS, Divergence, Kind
from pipeline.replay.exports import Export, ExportError, Spread
from pipeline.replay.live import ORDER, LiveReplay, scan_into, table_name
from pipeline.replay.partition import Counts, Wanted
from pipeline.replay.ranks import Table
from pipeline.replay.suspects import settle
from pipeline.replay.verifying import Place, divergences, replay, spread_exports, spread_seal
from pipeline.replay.workers import WorkerLost, Workers
from pipeline.runtime import shipped
from pipeline.stores.stored_items import StoredItems

COMMAND: Final = "opx replay verify"
SHOWN_MAX: Final = 50
T = TypeVar("T")

Seal = Annotated[Path | None, typer.Option("--seal", metavar="FILE", help="Compare with what was sealed, too.")]
Processes = Annotated[
    int | None, typer.Option("--processes", min=1, help="Processes to spread the work over; one a core, if not said.")
]
WorkIn = Annotated[
    Path | None,
    typer.Option("--work-in", metavar="DIR", help="Where to spread what is replayed: about as much room as it takes."),
]


@dataclass(slots=True)
class Verification:
    """What a verification came to. `unsettled`: incidents that changed at every look."""

    scope: Scope
    counts: Counts = field(default_factory=Counts)
    kinds: Counter[str] = field(default_factory=Counter)
    divergences: int = 0
    shown: list[Divergence] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    sealed: int | None = None
    compared: tuple[str, ...] = ()
    # What was not, and why.
    not_compared: dict[str, str] = field(default_factory=dict)
    took_s: float = 0.0

    @property
    def exit_code(self) -> int:
        if self.divergences:
            return REFUSED
        return FAILED if self.unsettled or self.unknown else DONE

    def tell(self, screen: Screen, found: Iterable[Divergence]) -> None:
        for one in found:
            self.divergences += 1
            self.kinds[one.kind.value] += 1
            if screen.as_json:
                screen.record({"divergence": one.to_document()})
            elif len(self.shown) < SHOWN_MAX:
                self.shown.append(one)

    def tell_unread(self, screen: Screen, spread: Spread) -> None:
        """Tell of items that could be placed nowhere; beyond the first thousand, how many more."""
        self.tell(screen, spread.found)
        self.divergences += spread.unreadable - len(spread.found)

    def to_document(self) -> Document:
        return {
            "scope": self.scope.told,
            "incidents": self.counts.incidents,
            "events": self.counts.events,
            "compared": list(self.compared),
            "notCompared": list(self.not_compared),
            "divergences": self.divergences,
            "kinds": dict(sorted(self.kinds.items())),
            "unsettled": self.unsettled,
            "unknown": self.unknown,
            "sealed": self.sealed,
            "tookS": round(self.took_s, 3),
            "eventsPerS": round(self.counts.events / self.took_s) if self.took_s else 0,
        }


def verify(
    context: typer.Context,
    ids: Ids = None,
    since: Since = None,
    until: Until = None,
    export: Exports = None,
    events_only: Annotated[
        bool, typer.Option("--events-only", help="Of an export, the event table alone: no rows, pointers, receipts.")
    ] = False,
    seal: Seal = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Read each event as the model it must be; a few times slower.")
    ] = False,
    tables: TablePrefix = None,
    processes: Processes = None,
    work_in: WorkIn = None,
    config: Config = None,
) -> None:
    """Fold the events and compare: numbers, hashes, steps, decisions, rows, pointers and receipts. Names what diverges.

    Example: opx replay verify --export exports/2026-11 --seal seal-2026-10.txt
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} replay verify"
        scope = scope_of(ids, since, until, command)
        lines = read_seal(seal) if seal is not None else None
        began = asyncio.get_running_loop().time()
        verification = Verification(scope)
        with working_folder(work_in) as folder, Workers(processes or os.cpu_count() or 1) as workers:
            place = Place(folder, config, workers)
            if export:
                exports = exports_at(export, command, events_only=events_only)
                rows, receipts = Table.INCIDENTS in exports, Table.IDEMPOTENCY in exports
                wanted = scope.wanted(rows=rows, receipts=receipts, thorough=thorough)
                verification.not_compared = left_out(wanted, "--events-only" if events_only else "their export is not there")
                await replay_export(invocation.screen, verification, place, exports, wanted, lines)
            else:
                async with open_session(invocation.selection, "dynamodb", "ssm") as session:
                    await _verify_live(invocation, session, verification, place, tables, thorough, lines)
        verification.took_s = asyncio.get_running_loop().time() - began
        show(invocation, verification)
        # What could not be told of everything is no verification of it.
        if not export and scope.is_everything and tables is None and verification.exit_code != FAILED:
            await remember(invocation, now(), verification.to_document())
        return verification.exit_code

    run(context, work)


def left_out(wanted: Wanted, why: str) -> dict[str, str]:
    """Return what a replay of exports does not compare, and why."""
    found = {} if wanted.rows else {"rows": why, "pointers": why}
    if wanted.rows and not wanted.is_everything:
        found["pointers"] = "only when everything is verified"
    return found if wanted.receipts else found | {"receipts": why}


async def working(workers: Workers, work: Callable[..., T], *arguments: Any) -> T:
    """Do a replay's work in a thread. Cancelled, it waits until the work has ended: its folder is about to be removed."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        workers.stop()
        await asyncio.wait({running})
        # Asked for, or it would be complained about: nobody wants to know any more.
        running.exception()
        raise
    except WorkerLost as error:
        raise CommandError(f"Not done: {error}.", f"{COMMAND} --processes 1", FAILED) from None


async def replay_export(
    screen: Screen,
    verification: Verification,
    place: Place,
    exports: dict[Table, Export],
    wanted: Wanted,
    sealed: Iterable[str] | None = None,
) -> None:
    """Replay exports, and tell what diverges."""
    scope, total = verification.scope, sum(one.items for one in exports.values())
    verification.compared = tuple(sorted(table.value for table in exports))
    try:
        with screen.progress("reading the export", total) as meter:
            spread = await working(place.workers, spread_exports, place, exports.values(), scope.only, meter.at)
    except ExportError as error:
        raise CommandError(f"The export can't be used. {error}", f"{COMMAND} --help") from None
    if sealed is not None:
        verification.sealed = await working(place.workers, spread_seal, place, sealed, scope.only)
    with screen.progress("replaying", exports[Table.EVENTS].items) as meter:
        verification.counts = await working(place.workers, replay, place, wanted, spread.items, meter.at)
    verification.tell_unread(screen, spread)
    verification.tell(screen, divergences(place))
    if scope.ids and not verification.counts.incidents:
        verification.unknown += scope.ids


async def replay_tables(
    screen: Screen,
    verification: Verification,
    place: Place,
    stored: StoredItems,
    wanted: Wanted,
    sealed: Iterable[str] | None = None,
) -> None:
    """Replay all of the tables in use, ask again for what diverges, and tell what still does; `wanted` keeps."""
    verification.compared = tuple(sorted(table.value for table in Table))
    total = sum([await stored.count(table_name(stored.tables, table)) for table in ORDER])
    with screen.progress("reading the tables", total or None) as meter:
        spread = await scan_into(place.folders(total), stored, ORDER, meter.at)
    if sealed is not None:
        verification.sealed = spread_seal(place, sealed, None)
    with screen.progress("replaying") as meter:
        verification.counts = await working(place.workers, replay, place, wanted, spread.items, meter.at)
    with screen.progress("asking again for what diverges"):
        async for settled in settle(place, LiveReplay(stored, shipped.policies(place.config))):
            verification.tell(screen, settled.found)
            verification.unsettled += settled.unsettled
    verification.tell_unread(screen, spread)


async def _verify_live(
    invocation: Invocation,
    session: Session,
    verification: Verification,
    place: Place,
    tables: str | None,
    thorough: bool,
    seal: Iterable[str] | None,
) -> None:
    screen, scope = invocation.screen, verification.scope
    stored = stored_in(session, tables)
    if scope.is_everything:
        await replay_tables(screen, verification, place, stored, scope.wanted(thorough=thorough, keep=True), seal)
        return
    if seal is not None:
        raise CommandError("A seal is compared with everything.", f"{invocation.opx} replay verify --seal FILE", REFUSED)
    verification.compared = ("incident-events", "incidents")
    verification.not_compared = {"receipts": "in tables in use only when everything is verified"}
    live = LiveReplay(stored, shipped.policies(place.config))
    await _verify_some(screen, verification, live, scope.incident_ids(session, stored, invocation.opx))


async def _verify_some(
    screen: Screen, verification: Verification, live: LiveReplay, incident_ids: AsyncIterator[str]
) -> None:
    counts = verification.counts
    with screen.progress("replaying") as meter:
        async for verified in live.verify_all(incident_ids):
            counts.incidents += 1
            counts.events += verified.version
            meter.at(counts.incidents)
            if not verified.settled:
                verification.unsettled.append(verified.incident_id)
            elif not verified.exists and not verified.found:
                verification.unknown.append(verified.incident_id)
            else:
                verification.tell(screen, verified.found)


def show(invocation: Invocation, verification: Verification) -> None:
    """Show what a verification came to."""
    screen = invocation.screen
    document = verification.to_document()
    if screen.as_json:
        screen.record(document)
        return
    if verification.shown:
        columns = (Column("incident", cap=36), Column("kind"), Column("where", wrap=True), Column("differs", wrap=True))
        screen.table(columns, [_row(one) for one in verification.shown])
    if verification.divergences > len(verification.shown):
        screen.notice(f"{len(verification.shown)} of {verification.divergences} are shown; --json tells them all.")
    rate = f"{document['eventsPerS']:,} events/s"
    told = f"{document['incidents']:,} incidents, {document['events']:,} events in {verification.took_s:.1f} s ({rate})"
    key_values(screen, [("replayed", f"{verification.scope.told}: {told}"), ("compared", ", ".join(verification.compared))])
    if verification.not_compared:
        whys = dict.fromkeys(verification.not_compared.values())
        parts = [(", ".join(what for what, why in verification.not_compared.items() if why == one), one) for one in whys]
        key_values(screen, [("not compared", "; ".join(f"{what} ({why})" for what, why in parts))])
    if verification.sealed is not None:
        key_values(screen, [("seal", f"{verification.sealed:,} incidents were sealed")])
    for kind, number in sorted(verification.kinds.items()):
        key_values(screen, [(f"{number:>8}", f"{kind}: {MEANS[Kind(kind)]}")])
    for incident in verification.unsettled:
        screen.notice(f"{incident} changed at every look: it could not be told whether it is whole.")
    for incident in verification.unknown:
        screen.notice(f"{incident}: there is no such incident.")
    if not verification.divergences:
        clean = "clean" if verification.counts.incidents else "clean: there is nothing here"
        clean += " as far as it was compared" if verification.not_compared else ""
        screen.say(clean if verification.exit_code == DONE else "nothing diverges, but not all could be told", "bold")
        return
    screen.say(f"{verification.divergences} divergences", "bold red")
    first = verification.shown[0].incident_id if verification.shown else "ID"
    screen.next(f"{invocation.opx} replay show {first}", "see infra/runbooks/corruption.md before anything is written")


def _row(one: Divergence) -> tuple[Text, ...]:
    differs = Text.assemble(cell(one.expected), (" is expected, found ", "dim"), cell(one.found))
    return cell(one.incident_id, "cyan"), cell(one.kind.value, "red"), cell(one.where), differs
