"""A real store in memory: the same conditions, results and change feed as the tables, for simulation and trials.

Held to the same contract suite as the DynamoDB store. It keeps documents, not models, so that what comes back has been
through the same reading and writing. Nothing survives the process.
"""

from collections.abc import AsyncIterator

from pipeline.domain.canonical import Document
from pipeline.domain.correlation import WINDOW, Window
from pipeline.domain.envelope import read_stored
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import pointer_id
from pipeline.domain.incidents import INCIDENT, Incident
from pipeline.domain.receipts import RECEIPT, IdempotencyRecord
from pipeline.services.ports import (
    EXAMINED_MAX,
    Commit,
    CommitResult,
    Committed,
    KeyHeld,
    Listing,
    Page,
    Pointer,
    PointerMoved,
    ReceiptExists,
    RowUnmoved,
    VersionMoved,
    WindowMoved,
    position,
)


class MemoryStore:
    """Implements `IncidentStore`. `feed` is every event document in commit order, as the table's stream would carry it."""

    def __init__(self, *, examined_max: int = EXAMINED_MAX) -> None:
        self.examined_max = examined_max
        self.incidents: dict[str, Document] = {}
        self.pointers: dict[str, Pointer] = {}
        self.receipts: dict[str, Document] = {}
        self.windows: dict[str, Document] = {}
        self.events: dict[str, dict[int, Document]] = {}
        self.feed: list[Document] = []

    async def commit(self, commit: Commit) -> CommitResult:
        known = [self.receipts[receipt.id] for receipt in commit.receipts if receipt.id in self.receipts]
        if known:
            return ReceiptExists(tuple(read_stored(RECEIPT, document, "receipt") for document in known))
        refused = (
            self._window_in_the_way(commit)
            or self._pointer_in_the_way(commit)
            or self._version_in_the_way(commit)
            or self._guard_broken(commit)
        )
        if refused is not None:
            return refused
        for event in commit.events:
            if event.sequence in self.events.get(event.incident_id, {}):
                raise Corrupt(f"event {event.sequence} exists, but the row does not know of it", event.incident_id)
        for receipt in commit.receipts:
            self.receipts[receipt.id] = receipt.to_document()
        for event in commit.events:
            document = event.to_document()
            self.events.setdefault(event.incident_id, {})[event.sequence] = document
            self.feed.append(document)
        if commit.incident is not None:
            self.incidents[commit.incident.incident_id] = commit.incident.to_document()
        if commit.window is not None:
            self.windows[commit.window.id] = commit.window.to_document()
        if commit.pointer is not None:
            self.pointers[pointer_id(commit.pointer.service, commit.pointer.dedup_key)] = commit.pointer
        return Committed()

    def _window_in_the_way(self, commit: Commit) -> WindowMoved | None:
        if commit.window is None:
            return None
        known = self.windows.get(commit.window.id)
        window = None if known is None else read_stored(WINDOW, known, "window")
        return None if (window.version if window else 0) == commit.window.version - 1 else WindowMoved(window)

    def _pointer_in_the_way(self, commit: Commit) -> PointerMoved | None:
        if commit.pointer is None:
            return None
        known = self.pointers.get(pointer_id(commit.pointer.service, commit.pointer.dedup_key))
        if (known.occurrence if known else 0) == commit.pointer.occurrence - 1:
            return None
        if known is None:
            raise Corrupt("a later occurrence begins, but the key has no pointer", commit.pointer.incident_id)
        return PointerMoved(known, self._row(commit.pointer.incident_id))

    def _version_in_the_way(self, commit: Commit) -> VersionMoved | None:
        if commit.incident is None:
            return None
        row = self._row(commit.incident.incident_id)
        return None if (row.version if row else 0) == commit.expected_version else VersionMoved(row)

    def _guard_broken(self, commit: Commit) -> PointerMoved | VersionMoved | None:
        match commit.guard:
            case KeyHeld(pointer):
                known = self.pointers.get(pointer_id(pointer.service, pointer.dedup_key))
                if known is None:
                    raise Corrupt("an incident opens, but its key has no pointer", pointer.incident_id)
                return None if known.occurrence == pointer.occurrence else PointerMoved(known, None)
            case RowUnmoved(incident):
                row = self._row(incident.incident_id)
                return None if row is not None and row.version == incident.version else VersionMoved(row)
            case None:
                return None

    def _row(self, incident_id: str) -> Incident | None:
        document = self.incidents.get(incident_id)
        return None if document is None else read_stored(INCIDENT, document, "incident")

    async def load(self, incident_id: str) -> Incident | None:
        return self._row(incident_id)

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        return self.pointers.get(pointer_id(service, dedup_key))

    async def load_window(self, window_id: str) -> Window | None:
        document = self.windows.get(window_id)
        return None if document is None else read_stored(WINDOW, document, "window")

    async def load_receipt(self, receipt_id: str) -> IdempotencyRecord | None:
        document = self.receipts.get(receipt_id)
        return None if document is None else read_stored(RECEIPT, document, "receipt")

    async def history(self, incident_id: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Document]:
        behind = [document for sequence, document in sorted(self.events.get(incident_id, {}).items()) if sequence > after]
        for document in behind[:limit]:
            yield document

    async def scan_events(self) -> AsyncIterator[Document]:
        for history in list(self.events.values()):
            for document in list(history.values()):
                yield document

    async def page(self, listing: Listing) -> Page:
        rows = [read_stored(INCIDENT, document, "incident") for document in self.incidents.values()]
        if listing.before is not None:
            rows = [row for row in rows if position(row) < listing.before]
        rows.sort(key=position, reverse=True)
        found: list[Incident] = []
        for examined, row in enumerate(rows, start=1):
            if listing.matches(row):
                found.append(row)
            if (len(found) == listing.limit or examined == self.examined_max) and examined < len(rows):
                return Page(tuple(found), position(row))
        return Page(tuple(found), None)
