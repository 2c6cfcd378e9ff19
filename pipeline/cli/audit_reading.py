"""Where an audit reads: all of the event table in parallel segments, one incident's events, or an export file by file.

Hands over what was read piece by piece and keeps none of it. What an item is worth is judged by whoever takes it.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from pipeline.cli.audit_question import Question
from pipeline.cli.session import Invocation
from pipeline.cli.terminal import Meter, Screen
from pipeline.cli.whole_table import agree_to_read, cost_of
from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt
from pipeline.replay.exports import Export
from pipeline.replay.lines import document_of, event_key
from pipeline.replay.live import SEGMENTS, together
from pipeline.replay.reading import lines_in
from pipeline.stores.event_scan import DynamoEventScan
from pipeline.stores.items import Item, from_item
from pipeline.stores.stored_items import StoredItems

LINES_AT_ONCE: Final = 2000
# A page of a scan is what DynamoDB examined for it, found or not.
PAGE_BYTES: Final = 1 << 20
Take = Callable[[Document | Divergence], None]


async def read_table(invocation: Invocation, stored: StoredItems, question: Question, take: Take, *, yes: bool) -> None:
    """Read all of the event table; what that costs is said before, and asked where it is much."""
    screen, table = invocation.screen, stored.tables.events
    size = await DynamoEventScan(stored.client, table).size()
    told = f"All of the event table is read, {cost_of(size)}; --incident and --export read less of it, or none."
    agree_to_read(invocation, size, told, "the same command with --yes, or --export with an export of it", yes=yes)
    pages = 0
    with _progress(screen, "reading the event table, MiB", -(-size.size_bytes // PAGE_BYTES) or None) as meter:

        async def segment(number: int) -> None:
            nonlocal pages
            async for items in stored.scan(table, number, SEGMENTS, question.filters()):
                pages += 1
                meter.at(pages)
                for item in items:
                    take(_document(item))

        await together(segment(number) for number in range(SEGMENTS))


async def read_incident(stored: StoredItems, incident_id: str, take: Take) -> None:
    """Read one incident's events."""
    async for item in stored.history(incident_id):
        take(_document(item))


async def read_export(invocation: Invocation, export: Export, question: Question, take: Take) -> None:
    """Read an export of the event table. Raises `ExportError` where a file is damaged or not as long as it must be."""
    only = None if question.incident is None else question.incident.encode()
    with _progress(invocation.screen, "reading the export", export.items) as meter:
        for number, line in enumerate(lines_in(export), start=1):
            if only is None or only in line:
                take(_read_line(line))
            if number % LINES_AT_ONCE == 0:
                meter.at(number)
                # So that Ctrl-C is heard.
                await asyncio.sleep(0)


def _progress(screen: Screen, what: str, total: int | None) -> AbstractContextManager[Meter]:
    """Show progress; not between lines that are written to the same terminal."""
    return nullcontext(Meter()) if screen.as_json and screen.out.is_terminal else screen.progress(what, total)


def _document(item: Item) -> Document | Divergence:
    try:
        return from_item(item)
    except Corrupt as error:
        identity, number = item["incidentId"].get("S", ""), item["sequence"].get("N", "?")
        return Divergence(identity, Kind.UNREADABLE, f"event {number}", "readable", str(error))


def _read_line(line: bytes) -> Document | Divergence:
    try:
        return document_of(line)
    except Corrupt as error:
        identity, where = "", "an item of the event table"
        try:
            key, number = event_key(line)
            identity, where = key.decode(), f"event {number}"
        except Corrupt:
            # Not even whose event it is can be told; the line counts all the same.
            where += ", of no incident that could be told"
        return Divergence(identity, Kind.UNREADABLE, where, "readable", str(error))
