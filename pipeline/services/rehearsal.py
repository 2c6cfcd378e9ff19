"""A store that reads and never writes: what a command would do, decided by the very loop and core that would do it.

It checks what a transaction would check, by reads: another's write between two of them can make the real answer differ.
"""

from collections.abc import AsyncIterator

from pipeline.domain.canonical import Document
from pipeline.domain.correlation import Window
from pipeline.domain.errors import Corrupt
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.services.ports import (
    Commit,
    CommitResult,
    Committed,
    IncidentStore,
    KeyHeld,
    Listing,
    Page,
    Pointer,
    PointerMoved,
    ReceiptExists,
    RowUnmoved,
    VersionMoved,
    WindowMoved,
)


class RehearsalStore:
    """Implements `IncidentStore` on another one. A commit that would be applied is answered as applied, and is not."""

    def __init__(self, store: IncidentStore) -> None:
        self.store = store

    async def commit(self, commit: Commit) -> CommitResult:
        known = [await self.store.load_receipt(receipt.id) for receipt in commit.receipts]
        met = tuple(receipt for receipt in known if receipt is not None)
        if met:
            return ReceiptExists(met)
        return (
            await self._window_in_the_way(commit)
            or await self._pointer_in_the_way(commit)
            or await self._version_in_the_way(commit)
            or await self._guard_broken(commit)
            or Committed()
        )

    async def _window_in_the_way(self, commit: Commit) -> WindowMoved | None:
        if commit.window is None:
            return None
        known = await self.store.load_window(commit.window.id)
        return None if (known.version if known else 0) == commit.window.version - 1 else WindowMoved(known)

    async def _pointer_in_the_way(self, commit: Commit) -> PointerMoved | None:
        if commit.pointer is None:
            return None
        known = await self.store.load_pointer(commit.pointer.service, commit.pointer.dedup_key)
        if (known.occurrence if known else 0) == commit.pointer.occurrence - 1:
            return None
        if known is None:
            raise Corrupt("a later occurrence begins, but the key has no pointer", commit.pointer.incident_id)
        return PointerMoved(known, None)

    async def _version_in_the_way(self, commit: Commit) -> VersionMoved | None:
        if commit.incident is None:
            return None
        row = await self.store.load(commit.incident.incident_id)
        return None if (row.version if row else 0) == commit.expected_version else VersionMoved(row)

    async def _guard_broken(self, commit: Commit) -> PointerMoved | VersionMoved | None:
        match commit.guard:
            case KeyHeld(pointer):
                known = await self.store.load_pointer(pointer.service, pointer.dedup_key)
                if known is None:
                    raise Corrupt("an incident opens, but its key has no pointer", pointer.incident_id)
                return None if known.occurrence == pointer.occurrence else PointerMoved(known, None)
            case RowUnmoved(incident):
                row = await self.store.load(incident.incident_id)
                return None if row is not None and row.version == incident.version else VersionMoved(row)
            case None:
                return None

    async def load(self, incident_id: str) -> Incident | None:
        return await self.store.load(incident_id)

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        return await self.store.load_pointer(service, dedup_key)

    async def load_window(self, window_id: str) -> Window | None:
        return await self.store.load_window(window_id)

    async def load_receipt(self, receipt_id: str) -> IdempotencyRecord | None:
        return await self.store.load_receipt(receipt_id)

    def history(self, incident_id: str, after: int = 0, limit: int | None = None) -> AsyncIterator[Document]:
        return self.store.history(incident_id, after, limit)

    def scan_events(self) -> AsyncIterator[Document]:
        return self.store.scan_events()

    async def page(self, listing: Listing) -> Page:
        return await self.store.page(listing)
