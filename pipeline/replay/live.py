"""Replay tables that are in use: whole, by a scan spread into partitions, or one incident after the other.

Whoever reads a table that others write to sees things that are about to be right. So a divergence counts only after a second
consistent read at an unchanged version; what changes all the time is told as unsettled and never as damage.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Divergence, Kind, said
from pipeline.domain.errors import Corrupt, Rejected, Unavailable
from pipeline.domain.ids import pointer_id
from pipeline.domain.promotion import Policies
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.exports import Folders, Spread, Spreading
from pipeline.replay.lines import event_key, exact_document_of, hash_of, line_of
from pipeline.replay.lines import said as said_in
from pipeline.replay.partition import row_of
from pipeline.replay.pointers import compare_pointer
from pipeline.replay.ranks import Table, outline_of
from pipeline.replay.spill import SpillWriter
from pipeline.stores.dynamodb import Tables
from pipeline.stores.items import Item, read_receipt, to_item
from pipeline.stores.stored_items import StoredItems

T = TypeVar("T")

SEGMENTS: Final = 8
READS_MAX: Final = 5
AT_ONCE: Final = 16
Progress = Callable[[int], None]
# In this order: the receipts of events that were seen are there by then, and a row that is newer than they is read again.
ORDER: Final = (Table.EVENTS, Table.IDEMPOTENCY, Table.INCIDENTS)


def table_name(tables: Tables, table: Table) -> str:
    return {Table.EVENTS: tables.events, Table.INCIDENTS: tables.incidents, Table.IDEMPOTENCY: tables.idempotency}[table]


async def scan_into(folders: Folders, stored: StoredItems, wanted: Iterable[Table], progress: Progress) -> Spread:
    """Scan tables, in parallel segments, into partitions; `progress` is told how many items are done."""
    spread = Spread()
    with (
        SpillWriter(folders.events, "scan", folders.digits) as incidents,
        SpillWriter(folders.pointers, "scan", folders.digits) as pointers,
    ):

        async def segment(table: Table, number: int) -> None:
            spreading = Spreading(table, incidents, pointers, None, spread)
            async for items in stored.scan(table_name(stored.tables, table), number, SEGMENTS):
                for item in items:
                    spreading.place(line_of(item))
                progress(spread.items)

        for table in (one for one in ORDER if one in set(wanted)):
            await together(segment(table, number) for number in range(SEGMENTS))
    return spread


async def some_at_once(incident_ids: AsyncIterator[str], work: Callable[[str], Coroutine[Any, Any, T]]) -> AsyncIterator[T]:
    """Do something with each incident, some at once; yield what it comes to as it is done."""
    waiting: set[asyncio.Task[T]] = set()
    try:
        async for incident_id in incident_ids:
            waiting.add(asyncio.create_task(work(incident_id)))
            if len(waiting) < AT_ONCE:
                continue
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
        for future in asyncio.as_completed(waiting):
            yield await future
    finally:
        for task in waiting:
            task.cancel()


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; what one of them raises ends the others, and is raised as itself."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(slots=True)
class Verified:
    """What one incident came to. `receipts` were compared as far as they were at hand; `version` is its last event's."""

    incident_id: str
    found: tuple[Divergence, ...]
    version: int
    settled: bool = True
    exists: bool = True


@dataclass(slots=True)
class Known:
    """What of an incident was scanned: its receipts' lines, and the number of the last event seen then."""

    receipts: list[bytes] = field(default_factory=list)
    version: int = 0


class LiveReplay:
    """Verifies incidents of tables in use, each as a whole; reads every event as the model it must be."""

    def __init__(self, stored: StoredItems, policies: Policies | None) -> None:
        self.stored = stored
        self.policies = policies

    async def verify(self, incident_id: str, known: Known | None = None) -> Verified:
        """Check one incident, its row and its key's pointer. What diverges counts once read twice at one version."""
        before: Item | None = None
        found: tuple[Divergence, ...] = ()
        version = 0
        for _ in range(READS_MAX):
            row = await self.stored.row(incident_id)
            try:
                replay, unreadable = await self._replayed(incident_id, row, known)
                found, version = (*unreadable, *_counted(replay.finish(), known)), replay.version
                found += await self._pointer(replay)
            except (Corrupt, Rejected) as error:
                found = (Divergence(incident_id, Kind.UNREADABLE, "what is stored", "readable", str(error)),)
            if not found or (row or {}) == before:
                return Verified(incident_id, found, version, exists=version > 0 or row is not None)
            before = row or {}
        return Verified(incident_id, found, version, settled=False)

    async def _replayed(self, incident_id: str, row: Item | None, known: Known | None) -> tuple[Replay, list[Divergence]]:
        """Replay an incident; what can't be read is told, and hides nothing else that is wrong with it."""
        unreadable: list[Divergence] = []

        def tell(where: str, error: Exception) -> None:
            unreadable.append(Divergence(incident_id, Kind.UNREADABLE, where, "readable", said(error)))

        replay = Replay(
            incident_id,
            ModelFold(row_of),
            policies=self.policies,
            hash_of=hash_of,
            with_receipts=known is not None,
        )
        try:
            replay.row(None if row is None else exact_document_of(line_of(row)))
        except Corrupt as error:
            tell("row", error)
        for line in known.receipts if known is not None else ():
            try:
                replay.receipt(read_receipt(to_item(exact_document_of(line))))
            except (Corrupt, Unavailable):
                # Told by the scan; receipts never change.
                replay.covered(*outline_of(line)[1])
        async for item in self.stored.history(incident_id):
            line = line_of(item)
            try:
                replay.event(exact_document_of(line))
            except (Corrupt, Rejected) as error:
                number = event_key(line)[1]
                replay.lost(number)
                tell(f"event {number}", error)
        return replay, unreadable

    async def _pointer(self, replay: Replay) -> tuple[Divergence, ...]:
        """Compare the pointer of an incident's key; a later occurrence than this one is as good."""
        if replay.created_as is None or not replay.version:
            return ()
        service, dedup_key, occurrence = replay.created_as
        item = await self.stored.pointer(service, dedup_key)
        if item is not None and _occurrence(item) > occurrence:
            return ()
        key = pointer_id(service, dedup_key)
        try:
            pointer: Document | None = None if item is None else exact_document_of(line_of(item))
        except Corrupt as error:
            return (Divergence(replay.incident_id, Kind.UNREADABLE, f"pointer {key}", "readable", said(error)),)
        newest = {
            "incidentId": replay.incident_id,
            "occurrence": occurrence,
            "service": service,
            "dedupKey": dedup_key,
        }
        return tuple(compare_pointer(key, newest, pointer))

    def verify_all(self, incident_ids: AsyncIterator[str]) -> AsyncIterator[Verified]:
        """Verify incidents, some at once; yield each as it is done."""
        return some_at_once(incident_ids, self.verify)


def _occurrence(pointer: Item) -> int:
    digits = said_in(pointer.get("occurrence"), "N")
    return int(digits) if digits.isdecimal() else 0


def _counted(found: Iterable[Divergence], known: Known | None) -> Iterable[Divergence]:
    """Leave out what only shows that there are events since the scan, whose receipts were not read."""
    for one in found:
        since = one.kind is Kind.RECEIPT_MISSING and known is not None and _first(one.where) > known.version
        if not since:
            yield one


def _first(where: str) -> int:
    return int(where.split()[1])
