"""Every mixture of reasons for a cancelled transaction has exactly one meaning."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from pipeline.domain.errors import Conflict, Corrupt, OpxError, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.services.ports import Commit, KeyHeld, PointerMoved, ReceiptExists, RowUnmoved, VersionMoved, WindowMoved
from pipeline.stores.cancellations import read_cancellation
from pipeline.stores.items import event_item, incident_item, pointer_item, receipt_item, window_item
from tests.contract.commits import attaching, beginning, counting, opening, receipt, taking, window

Reason = dict[str, Any]
NONE: Reason = {"Code": "None"}
FAILED: Reason = {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
CONFLICT: Reason = {"Code": "TransactionConflict"}
THROTTLED: Reason = {"Code": "ThrottlingError"}
EXCEEDED: Reason = {"Code": "ProvisionedThroughputExceeded"}
INVALID: Reason = {"Code": "ValidationError", "Message": "Item size has exceeded the maximum allowed size"}
COLLECTION: Reason = {"Code": "ItemCollectionSizeLimitExceeded"}
STRANGE: Reason = {"Code": "SomethingNew"}


def first(key: str = "k1", occurrence: int = 1) -> Commit:
    return beginning(key, occurrence=occurrence)


def row(commit: Commit) -> Incident:
    assert commit.incident is not None
    return commit.incident


def kinds(commit: Commit) -> list[str]:
    """Name the commit's items in the order of its reasons."""
    named = ["receipt"] * len(commit.receipts) + ["event"] * len(commit.events)
    named += ["incident"] * (commit.incident is not None) + ["window"] * (commit.window is not None)
    return named + ["pointer"] * (commit.pointer is not None) + ["guard"] * (commit.guard is not None)


def stored(commit: Commit, position: int) -> dict[str, Any]:
    """Return an item of the kind at `position`, as ALL_OLD would give it."""
    match kinds(commit)[position]:
        case "receipt":
            return receipt_item(commit.receipts[position])
        case "event":
            return event_item(commit.events[position - len(commit.receipts)])
        case "incident":
            return incident_item(row(commit))
        case "window":
            assert commit.window is not None
            return window_item(commit.window)
        case "guard":
            assert commit.guard is not None
            match commit.guard:
                case KeyHeld(pointer):
                    return pointer_item(pointer)
                case RowUnmoved(incident):
                    return incident_item(incident)
        case _:
            assert commit.pointer is not None
            return pointer_item(commit.pointer)


def with_item(commit: Commit, position: int) -> Reason:
    return FAILED | {"Item": stored(commit, position)}


def meaning(commit: Commit, reasons: list[Reason]) -> str:
    """Read the mixture by the code under test; return the outcome's name."""
    try:
        return type(read_cancellation(commit, reasons)).__name__
    except OpxError as error:
        return type(error).__name__


def expected(commit: Commit, reasons: list[Reason]) -> str:
    """Read the mixture once more, as a table of rules in the order of SPEC §7: the first that holds decides."""
    named = list(zip(kinds(commit), reasons, strict=True))
    codes = {reason["Code"] for reason in reasons}

    def condition(kind: str, *, item: bool | None = None) -> bool:
        found = [reason for name, reason in named if name == kind and reason["Code"] == "ConditionalCheckFailed"]
        return any(item is None or ("Item" in reason) is item for reason in found)

    held, unmoved = isinstance(commit.guard, KeyHeld), isinstance(commit.guard, RowUnmoved)
    later = commit.pointer is not None and commit.pointer.occurrence > 1
    rules = [
        ("ReceiptExists", condition("receipt", item=True)),
        ("Conflict", bool(codes & {"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})),
        ("Unavailable", "SomethingNew" in codes),
        ("Corrupt", bool(codes & {"ValidationError", "ItemCollectionSizeLimitExceeded"})),
        ("Unavailable", condition("receipt")),
        ("WindowMoved", condition("window")),
        ("PointerMoved", condition("pointer", item=True)),
        ("Corrupt", condition("pointer") and later),
        ("Unavailable", condition("pointer")),
        ("PointerMoved", held and condition("guard", item=True)),
        ("Corrupt", held and condition("guard")),
        ("VersionMoved", condition("incident") or (unmoved and condition("guard"))),
        ("Corrupt", condition("event")),
        ("Unavailable", True),
    ]
    return next(outcome for outcome, holds in rules if holds)


SHAPES = {
    "first occurrence": first(),
    "later occurrence": first(occurrence=2),
    "joining": attaching(row(first()), "k2", "k3"),
    "opening what has waited": opening(row(first()), "k2"),
    "taking the key of what has expired": taking(row(first()), "k2"),
    "receipts alone": Commit((receipt("k1"), receipt("k2"))),
    "counting alone": counting("k1"),
    "counting and joining": replace(attaching(row(first()), "k2"), window=window()),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_mixture_of_reasons_has_exactly_one_meaning(shape: str) -> None:
    commit = SHAPES[shape]
    choices = [
        [NONE, FAILED, with_item(commit, position), CONFLICT, THROTTLED, INVALID, STRANGE]
        for position in range(len(kinds(commit)))
    ]
    mixtures = [list(mixture) for mixture in itertools.product(*choices)]
    wrong = [mixture for mixture in mixtures if meaning(commit, mixture) != expected(commit, mixture)]
    assert wrong == []


@pytest.mark.parametrize("reason", [CONFLICT, THROTTLED, EXCEEDED])
def test_conflicts_and_throttles_are_decided_again(reason: Reason) -> None:
    with pytest.raises(Conflict):
        read_cancellation(first(), [NONE, NONE, reason, NONE])


def test_a_conflict_beats_pointer_and_version() -> None:
    commit = first()
    with pytest.raises(Conflict):
        read_cancellation(commit, [NONE, CONFLICT, with_item(commit, 2), with_item(commit, 3)])


def test_a_receipt_beats_everything() -> None:
    commit = first()
    result = read_cancellation(commit, [with_item(commit, 0), CONFLICT, INVALID, STRANGE])
    assert result == ReceiptExists((commit.receipts[0],))


def test_every_receipt_that_exists_is_told_and_no_other() -> None:
    commit = Commit((receipt("k1"), receipt("k2"), receipt("k3")))
    result = read_cancellation(commit, [NONE, with_item(commit, 1), with_item(commit, 2)])
    assert result == ReceiptExists(commit.receipts[1:])
    # One that the store did not return is tried again and told then; the others are answered now.
    assert read_cancellation(commit, [FAILED, NONE, with_item(commit, 2)]) == ReceiptExists(commit.receipts[2:])


def test_a_pointer_in_the_way_brings_the_row_that_stands_at_our_id() -> None:
    commit = first()
    assert commit.pointer is not None
    both = read_cancellation(commit, [NONE, FAILED, with_item(commit, 2), with_item(commit, 3)])
    assert both == PointerMoved(commit.pointer, commit.incident)
    alone = read_cancellation(commit, [NONE, NONE, NONE, with_item(commit, 3)])
    assert alone == PointerMoved(commit.pointer, None)


def test_a_moved_window_brings_the_row_or_none() -> None:
    commit = counting("k1", version=3)
    theirs = window(version=7)
    moved = read_cancellation(commit, [NONE, FAILED | {"Item": window_item(theirs)}])
    assert moved == WindowMoved(theirs)
    assert read_cancellation(commit, [NONE, FAILED]) == WindowMoved(None)


def test_a_moved_window_is_counted_in_again_before_anything_else_is_looked_at() -> None:
    """What else is wrong was decided on a count that no longer holds."""
    commit = replace(first(), window=window())
    mixture = [NONE, NONE, with_item(commit, 2), with_item(commit, 3), with_item(commit, 4)]
    assert isinstance(read_cancellation(commit, mixture), WindowMoved)


def test_a_moved_version_brings_the_row_or_none() -> None:
    before = row(first())
    commit = attaching(before, "k2")
    moved = replace(commit, incident=row(attaching(row(commit), "k9")))
    assert read_cancellation(commit, [NONE, NONE, FAILED | {"Item": incident_item(row(moved))}]) == VersionMoved(row(moved))
    assert read_cancellation(commit, [NONE, NONE, FAILED]) == VersionMoved(None)


@pytest.mark.parametrize("reason", [INVALID, COLLECTION])
def test_what_the_store_refuses_from_us_is_corruption(reason: Reason) -> None:
    with pytest.raises(Corrupt, match="refuses"):
        read_cancellation(first(), [NONE, NONE, reason, NONE])


def test_an_unreadable_row_in_the_way_is_corruption() -> None:
    commit = attaching(row(first()), "k2")
    with pytest.raises(Corrupt, match="cannot be read"):
        read_cancellation(commit, [NONE, NONE, FAILED | {"Item": {"pk": {"S": "x"}}}])


@pytest.mark.parametrize("reasons", [[], [NONE] * 3, [NONE] * 5, [NONE] * 4, [{}] * 4])
def test_reasons_that_say_nothing_are_not_success(reasons: list[Reason]) -> None:
    with pytest.raises(Unavailable):
        read_cancellation(first(), reasons)
