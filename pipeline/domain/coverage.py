"""One incident's receipts against its events: every event was decided once, and its receipts say what it says. Pure.

Receipts come before the events they name, ordered by the first of them. What was decided together has one range of events
and a receipt each. A receipt is under no hash of its own: what is not said again by an event, only a seal can tell. Kept is
what names events still to come, however much before them is damaged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.domain.canonical import Document, format_time
from pipeline.domain.decisions import GATE
from pipeline.domain.divergences import Kind, Report, span
from pipeline.domain.receipts import Answer, IdempotencyRecord

# What is answered where nothing came of it.
_WITHOUT_EVENTS: Final = frozenset({Answer.REFUSED, Answer.UNCHANGED, Answer.NOTHING_OPEN, Answer.COUNTED})
# What is decided together, events and receipts, is written in one transaction, which takes a hundred items.
TOGETHER_MAX: Final = 100
# Receipts that are held at once; where none is damaged, these are of one decision.
OPEN_MAX: Final = 10 * TOGETHER_MAX


def are_together(first: int, last: int) -> bool:
    """Return whether a receipt can name these events."""
    return 0 < first <= last < first + TOGETHER_MAX


@dataclass
class Range:
    """What was decided together: events `first` to `last`, and the receipts that name them."""

    first: int
    last: int
    receipts: list[IdempotencyRecord] = field(default_factory=list)
    told: set[str] = field(default_factory=set)


class Coverage:
    """Takes an incident's receipts and its events; `report` is told what they contradict each other in."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._open: dict[tuple[int, int], Range] = {}
        # The last run of events that no receipt names; those before it were told.
        self._run: tuple[int, int] | None = None
        self._reaches: tuple[int, IdempotencyRecord | None] = (0, None)

    def receipt(self, receipt: IdempotencyRecord) -> None:
        """Take a receipt that names events."""
        first, last = receipt.result.first_sequence, receipt.result.last_sequence
        if first is None and last is None:
            return
        where = f"receipt {receipt.id}: events"
        if first is None or last is None or not are_together(first, last):
            self._report(Kind.RECEIPT, where, f"first to last, at most {TOGETHER_MAX}", f"{first} to {last}")
            return
        if len(self._open) >= TOGETHER_MAX:
            # Receipts come in the order of what they name: what ends before was missing, which is told.
            self._open = {bounds: one for bounds, one in self._open.items() if one.last >= first}
        if sum(len(one.receipts) for one in self._open.values()) >= OPEN_MAX:
            self._report(Kind.RECEIPT, where, "one decision of each event", f"more than {OPEN_MAX} receipts at once")
            return
        answer = receipt.result.answer
        # Of several that began an incident together, the first created it and the others joined.
        if answer in _WITHOUT_EVENTS or (answer is Answer.CREATED and first != 1):
            self._report(Kind.RECEIPT, f"receipt {receipt.id}: result.answer", f"of events {first} to {last}", answer)
        self.assume(first, last).receipts.append(receipt)
        if last > self._reaches[0]:
            self._reaches = (last, receipt)

    def assume(self, first: int, last: int) -> Range:
        """Take it that events were decided together, also where the receipt that says so can't be read."""
        return self._open.setdefault((first, last), Range(first, last))

    def event(self, sequence: int, decided_at: str) -> list[Range]:
        """Take the next event's number, and when it was decided; return the ranges it is in: one, if all is well."""
        self._open = {bounds: one for bounds, one in self._open.items() if one.last >= sequence}
        found = [one for one in self._open.values() if one.first <= sequence]
        if not found:
            # The same number again is no further event without a receipt.
            if self._run is not None and self._run[1] in (sequence - 1, sequence):
                self._run = (self._run[0], sequence)
            else:
                self.tell_uncovered()
                self._run = (sequence, sequence)
        elif len(found) > 1 and sequence == max(one.first for one in found):
            told = " and ".join(sorted(f"{one.first} to {one.last}" for one in found))
            # Who says another time than the event is the one that has no business here.
            known = [one for one in found if one.receipts]
            wrong = [one for one in known if format_time(one.receipts[0].created_at) != decided_at] or known
            for one in wrong:
                where = f"receipt {one.receipts[0].id}: events"
                self._once(one, where, "one decision of each event", told)
        return found

    def agree(self, event: Document, control_version: int | None, ranges: Iterable[Range]) -> None:
        """Compare an event that is as it was stored with its receipts."""
        ranges = tuple(ranges)
        if len(ranges) != 1:
            # Told already; which of several is right can't be.
            return
        (one,) = ranges
        decided_at = event.get("decidedAt", event["timestamp"])
        for receipt in one.receipts:
            self._say(one, receipt, "createdAt", decided_at, format_time(receipt.created_at))
            if one.last == event["sequence"]:
                self._say(one, receipt, "result.state", event["newState"], receipt.result.state)
                if control_version is not None:
                    self._say(one, receipt, "result.controlVersion", control_version, receipt.result.control_version)
        if one.receipts and not _reported_by(event, one.receipts):
            where = f"receipt {one.receipts[0].id}: principal"
            self._once(one, where, event["actor"]["principal"], _principals(one.receipts))

    def contradicts(self, document: Document, ranges: Iterable[Range]) -> str:
        """Return which attribute of a changed event its receipts contradict, or nothing."""
        receipts = [receipt for one in ranges for receipt in one.receipts]
        if not receipts:
            return ""
        decided_at = str(document.get("decidedAt", document.get("timestamp")))
        if decided_at not in {format_time(one.created_at) for one in receipts}:
            return "timestamp"
        actor = document.get("actor")
        principal = actor.get("principal") if isinstance(actor, dict) else None
        known = {GATE.principal, *(receipt.principal for receipt in receipts)}
        return "" if str(principal) in known else "actor"

    def _say(self, one: Range, receipt: IdempotencyRecord, name: str, expected: Any, found: Any) -> None:
        if expected != found:
            self._once(one, f"receipt {receipt.id}: {name}", str(expected), str(found))

    def _once(self, one: Range, where: str, expected: str, found: str) -> None:
        """Tell of a decision's receipt once, however many events it has."""
        if where not in one.told:
            one.told.add(where)
            self._report(Kind.RECEIPT, where, expected, found)

    def said_of_the_row(self, row: Document, sequence: int) -> Document:
        """Return what the row must say by the receipt that ends with its last event; a receipt that errs itself is told."""
        reaches, receipt = self._reaches
        if receipt is None or reaches != sequence or receipt.result.state is None:
            return {}
        state, stored = str(receipt.result.state), str(row.get("state"))
        if state != stored and str(row.get("stateShard")).startswith(f"{stored}#"):
            # The row says it twice.
            self._report(Kind.RECEIPT, f"receipt {receipt.id}: result.state", stored, state)
            return {}
        control = receipt.result.control_version
        return {"state": state} | ({} if control is None else {"controlVersion": control})

    @property
    def uncovered_until(self) -> int:
        """The number of the last event that no receipt names, 0 where each has one."""
        return 0 if self._run is None else self._run[1]

    def tell_uncovered(self) -> None:
        """Tell of the last run of events that no receipt names; the ones before it were told when it began."""
        if self._run is not None:
            self._report(Kind.RECEIPT_MISSING, span(*self._run), "a receipt", "none")

    @property
    def reaches(self) -> tuple[int, IdempotencyRecord | None]:
        """The highest number of an event that a receipt names, and the receipt."""
        return self._reaches


def _principals(receipts: Iterable[IdempotencyRecord]) -> str:
    return ", ".join(sorted({receipt.principal for receipt in receipts}))


def _reported_by(event: Document, receipts: Iterable[IdempotencyRecord]) -> bool:
    """Return whether one of the receipts is of whoever the event says it was."""
    asked = event["metadata"].get("requestedBy", {}).get("principal")
    principals = {GATE.principal, *(receipt.principal for receipt in receipts)}
    return event["actor"]["principal"] in principals or asked in principals
