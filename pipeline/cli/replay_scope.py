"""What a replay is about: some incidents, those created in a span of time, or everything; tables in use, or an export."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.finding import full_id, stored_id
from pipeline.cli.session import Session
from pipeline.cli.terminal import REFUSED, CommandError, time_of
from pipeline.domain.canonical import format_time
from pipeline.replay.exports import Export, ExportError, find_exports
from pipeline.replay.partition import Wanted
from pipeline.replay.ranks import Table
from pipeline.replay.spans import incident_ids as created
from pipeline.runtime.clock import SystemClock
from pipeline.stores.dynamodb import Tables
from pipeline.stores.stored_items import StoredItems

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Incidents; without any, everything.")]
Since = Annotated[str | None, typer.Option("--from", metavar="TIME", help="Those created from this time on.")]
Until = Annotated[str | None, typer.Option("--to", metavar="TIME", help="Those created before this time.")]
Exports = Annotated[
    list[Path] | None,
    typer.Option("--export", metavar="DIR", help="DynamoDB exports (DYNAMODB_JSON) instead of the tables; all under DIR."),
]
TablePrefix = Annotated[
    str | None,
    typer.Option("--tables", metavar="PREFIX", help="Other tables of the account, such as restored ones."),
]


@dataclass(frozen=True, slots=True)
class Scope:
    """Which incidents; all of them where neither ids nor times are given."""

    ids: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None

    @property
    def is_everything(self) -> bool:
        return not self.ids and self.since is None and self.until is None

    @property
    def told(self) -> str:
        if self.ids:
            return f"{len(self.ids)} incident{'s' if len(self.ids) > 1 else ''}"
        if self.is_everything:
            return "everything"
        since = "the beginning" if self.since is None else format_time(self.since)
        return f"created from {since} to {'now' if self.until is None else format_time(self.until)}"

    def wanted(self, **fields: bool) -> Wanted:
        since = "" if self.since is None else format_time(self.since)
        until = "9" if self.until is None else format_time(self.until)
        return Wanted(since=since, until=until, part=bool(self.ids), **fields)

    @property
    def only(self) -> frozenset[bytes] | None:
        """The ids as an export's reader takes them. Raises where one is not whole."""
        return frozenset(full_id(text).encode() for text in self.ids) or None

    async def incident_ids(self, session: Session, stored: StoredItems, opx: str) -> AsyncIterator[str]:
        """Yield the ids of the incidents: those named; else, by a scan of events and rows, those of the span, or all."""
        for text in self.ids:
            yield await stored_id(session.store, text, opx)
        if not self.ids:
            async for incident_id in created(stored, self.wanted()):
                yield incident_id


def scope_of(ids: list[str] | None, since: str | None, until: str | None, command: str) -> Scope:
    """Return what was asked for; raise where it contradicts itself."""
    scope = Scope(
        tuple(ids or ()),
        None if since is None else time_of(since, "--from", command),
        None if until is None else time_of(until, "--to", command),
    )
    if scope.ids and (since or until):
        raise CommandError("Name incidents, or a span of time, not both.", f"{command} --help", REFUSED)
    if scope.since and scope.until and scope.since >= scope.until:
        raise CommandError("--from is not before --to.", f"{command} --help", REFUSED)
    return scope


def exports_at(folders: list[Path], command: str, *, events_only: bool) -> dict[Table, Export]:
    """Return the exports under the folders; raise where they can't be used."""
    try:
        found = find_exports(folders)
    except ExportError as error:
        raise CommandError(f"The export can't be used. {error}", f"{command} --help") from None
    return {Table.EVENTS: found[Table.EVENTS]} if events_only else found


def stored_in(session: Session, prefix: str | None) -> StoredItems:
    """Return the target's tables, or those of another prefix, as they are stored."""
    output = session.target.output
    tables = Tables(output("IncidentsTableName"), output("EventsTableName"), output("IdempotencyTableName"))
    return StoredItems(session.clients.dynamodb, tables if prefix is None else Tables.with_prefix(prefix))


@contextmanager
def working_folder(asked: Path | None) -> Iterator[Path]:
    """Make a folder to work in, beside what was asked for, and remove it."""
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="opx-replay-", dir=asked) as folder:
        yield Path(folder)


def now() -> datetime:
    return SystemClock().now()
