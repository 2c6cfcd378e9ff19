"""What a cancelled transaction means: pure, one outcome for every mixture of reasons.

DynamoDB gives one reason per item, in the order of the items. Order of reading (SPEC §7): a receipt that exists answers
the request whatever else failed; then conflict or throttle, pointer, version. What is not understood is never success.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.domain.errors import Conflict, Corrupt, Unavailable
from pipeline.services.ports import Commit, CommitResult, KeyHeld, PointerMoved, ReceiptExists, VersionMoved, WindowMoved
from pipeline.stores.items import Item, read_incident, read_pointer, read_receipt, read_window

Reason = dict[str, Any]

NONE: Final = "None"
CONDITION: Final = "ConditionalCheckFailed"
# Nothing is wrong with the decision: it is made again, with jitter, until the request's deadline.
AGAIN: Final = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
# The store will never take such an item from us.
OURS: Final = frozenset({"ValidationError", "ItemCollectionSizeLimitExceeded", "DuplicateItem"})


def read_cancellation(commit: Commit, reasons: Sequence[Reason]) -> CommitResult:
    """Return why nothing of `commit` was written, or raise.

    `reasons` are in the order receipts, events, incident, window, pointer, guard. Raises `Conflict` where another
    transaction was in the way, `Corrupt` where storage contradicts itself or refuses what we wrote, `Unavailable` where
    the reasons say nothing.
    """
    receipts, events, incident, window, pointer, guard = _split(commit, reasons)
    if known := tuple(read_receipt(item) for item in _items_of(receipts)):
        return ReceiptExists(known)
    _raise_for(reasons)
    if any(_failed(reason) for reason in receipts):
        raise Unavailable("a receipt exists, but the store did not return it")
    if window is not None and _failed(window):
        item = window.get("Item")
        return WindowMoved(read_window(item) if item else None)
    if pointer is not None and _failed(pointer):
        return _pointer_moved(commit, pointer, incident)
    if guard is not None and _failed(guard) and isinstance(commit.guard, KeyHeld):
        return _key_lost(commit.guard, guard)
    for reason in (incident, guard):
        if reason is not None and _failed(reason):
            item = reason.get("Item")
            return VersionMoved(read_incident(item) if item else None)
    for event, reason in zip(commit.events, events, strict=True):
        if _failed(reason):
            raise Corrupt(f"event {event.sequence} exists, but the row does not know of it", event.incident_id)
    raise Unavailable("a transaction was cancelled for no reason given")


def _split(
    commit: Commit, reasons: Sequence[Reason]
) -> tuple[Sequence[Reason], Sequence[Reason], Reason | None, Reason | None, Reason | None, Reason | None]:
    rest = iter(reasons)
    try:
        receipts = [next(rest) for _ in commit.receipts]
        events = [next(rest) for _ in commit.events]
        incident = next(rest) if commit.incident is not None else None
        window = next(rest) if commit.window is not None else None
        pointer = next(rest) if commit.pointer is not None else None
        guard = next(rest) if commit.guard is not None else None
    except StopIteration:
        raise Unavailable(f"a transaction was cancelled with only {len(reasons)} reasons") from None
    if next(rest, None) is not None:
        raise Unavailable(f"a transaction was cancelled with {len(reasons)} reasons, more than it had items")
    return receipts, events, incident, window, pointer, guard


def _code(reason: Reason) -> str:
    return str(reason.get("Code") or NONE)


def _failed(reason: Reason) -> bool:
    return _code(reason) == CONDITION


def _items_of(reasons: Sequence[Reason]) -> Iterator[Item]:
    return (reason["Item"] for reason in reasons if _failed(reason) and reason.get("Item"))


def _raise_for(reasons: Sequence[Reason]) -> None:
    """Raise for whatever is no condition of ours: conflict and throttle first, then the unknown, then our own mistakes."""
    codes = {_code(reason) for reason in reasons} - {NONE, CONDITION}
    if again := codes & AGAIN:
        raise Conflict(f"the transaction was cancelled: {', '.join(sorted(again))}")
    if unknown := codes - OURS:
        raise Unavailable(f"the transaction was cancelled: {', '.join(sorted(unknown))}")
    if codes:
        said = next((str(reason.get("Message", "")) for reason in reasons if _code(reason) in OURS), "")
        raise Corrupt(f"the store refuses what was written: {', '.join(sorted(codes))}: {said[:300]}")


def _key_lost(guard: KeyHeld, reason: Reason) -> PointerMoved:
    item = reason.get("Item")
    if not item:
        raise Corrupt("an incident opens, but its key has no pointer", guard.pointer.incident_id)
    return PointerMoved(read_pointer(item), None)


def _pointer_moved(commit: Commit, reason: Reason, incident: Reason | None) -> PointerMoved:
    item = reason.get("Item")
    if not item:
        if commit.pointer is not None and commit.pointer.occurrence > 1:
            raise Corrupt("a later occurrence begins, but the key has no pointer", commit.pointer.incident_id)
        raise Unavailable("a pointer exists, but the store did not return it")
    row = incident.get("Item") if incident is not None and _failed(incident) else None
    return PointerMoved(read_pointer(item), read_incident(row) if row else None)
