"""Fold a history, check it in every way it can be checked, and compare it with what else was written. Pure; reads nothing.

`Replay` takes what is stored of one incident, in order and one thing at a time, so that its memory does not grow with the
history; nor with its damage, where that is taken from it as `overflow`. What is wrong is named once, where it is wrong, and
not again by all that follows from it. What of a history is damaged is said in `chains`, what of its receipts in `coverage`;
whether a divergence counts is for the caller to say.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final, Protocol

from pydantic import TypeAdapter

from pipeline.domain.base import read
from pipeline.domain.canonical import Document
from pipeline.domain.chains import Chain
from pipeline.domain.coverage import Coverage, Range, are_together
from pipeline.domain.divergences import KEPT_MAX, Divergence, Kind, compare, said, span
from pipeline.domain.envelope import IncidentEvent, event_hash
from pipeline.domain.errors import Rejected
from pipeline.domain.ids import incident_id as id_of
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.promotion import GateDecision, Policies, judge, what_decides
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.transitions import TRANSITIONS, EventType, State

RowOf = Callable[[Incident], Document]
_DECISION: Final = TypeAdapter(GateDecision)
_STEPS: Final = {(row.source.value, row.target.value): row for row in TRANSITIONS}
_SAID_BY_AN_EVENT: Final = frozenset(
    {Kind.CHAIN, Kind.IDENTITY, Kind.TIME, Kind.TRANSITION, Kind.DECISION, Kind.UNREADABLE, Kind.RECEIPT}
)
JUDGED_MAX: Final = 10_000
_CREATED: Final = EventType.INCIDENT_CREATED.value


class Fold(Protocol):
    """Adds an incident's events up, one after the other."""

    @property
    def control_version(self) -> int: ...

    def take(self, event: Document) -> None:
        """Add the next event. Raises `Rejected`, ValueError or KeyError where it is none."""
        ...

    def row(self) -> Document:
        """Return the row that the incident must have."""
        ...


class ModelFold:
    """The core's own fold, by `evolve`: reads each event as the model it must be."""

    def __init__(self, row_of: RowOf = Incident.to_document) -> None:
        self._row_of = row_of
        self._incident: Incident | None = None

    @property
    def incident(self) -> Incident:
        if self._incident is None:
            raise ValueError("a history starts with IncidentCreated")
        return self._incident

    @property
    def control_version(self) -> int:
        return self.incident.control_version

    def take(self, event: Document) -> None:
        self._incident = evolve(self._incident, IncidentEvent.from_document(event))

    def row(self) -> Document:
        return self._row_of(self.incident)


def fold(documents: Iterable[Document]) -> Incident | None:
    """Return the incident that stored events, in order, add up to; None for no events."""
    incident: Incident | None = None
    for document in documents:
        incident = evolve(incident, IncidentEvent.from_document(document))
    return incident


class Replay:
    """One incident's row, receipts and events, taken in this order: the row, then each receipt before the events it names.

    `fold` adds the events up; `policies`: to judge recorded decisions again, None to leave that out; `judged`: the kinds of
    decision that came out right already, shared by those who have the same policies; `overflow`: takes what is wrong,
    once it is too much to be kept until `finish`.
    """

    def __init__(
        self,
        incident_id: str,
        fold: Fold,
        *,
        policies: Policies | None = None,
        judged: set[Hashable] | None = None,
        hash_of: Callable[[Document], str] = event_hash,
        with_receipts: bool = False,
        overflow: Callable[[tuple[Divergence, ...]], None] | None = None,
    ) -> None:
        self.incident_id = incident_id
        # What the incident was created with: service, dedupKey and occurrence; by its row's word where the creation is gone.
        self.created_as: tuple[str, str, int] | None = None
        self._fold = fold
        self._policies = policies
        self._judged = set() if judged is None else judged
        self._overflow = overflow
        # What was found, and for each of it, which event said so; of none: 0.
        self._found: list[Divergence] = []
        self._abouts: list[int] = []
        self._about = 0
        # All that was found, by its kind; and whether a row's version, or an end that is gone, is told already.
        self._kinds: set[Kind] = set()
        self._version_told = self._end_is_told = False
        self._chain = Chain(incident_id, self._report, hash_of)
        self._coverage = Coverage(self._report) if with_receipts else None
        self._row: Document | None = None
        self._rows_count = False
        # The last event that is as it was stored.
        self._last_sound: Document | None = None
        # The number of the event that the row is of, by its hash, 0 before it was met; and whether that one was changed.
        self._row_is_of, self._row_is_of_changed = 0, False
        # Attributes of the row that are compared with receipts alone; and the first event that nobody decided, 0 for none.
        self.by_receipts: frozenset[str] = frozenset()
        self._invented_from = 0
        # Which attribute of the last event its receipts contradict; it is told as changed when the next is taken.
        self._hint = ("", "")
        self._timestamp, self._state, self._whole = "", State.PENDING.value, True

    @property
    def version(self) -> int:
        """The number of the last event taken."""
        return self._chain.last

    @property
    def tip(self) -> str:
        """The stored hash of the last event taken."""
        return self._chain.tip

    @property
    def is_whole(self) -> bool:
        """Whether nothing was wrong with the events so far."""
        return self._whole and self._chain.intact

    def _report(self, kind: Kind, where: str, expected: Any, found: Any) -> None:
        changed, hint = self._hint
        if kind is Kind.CHANGED and where == changed:
            where = f"{where}: {hint}"
        self._keep(Divergence(self.incident_id, kind, where, said(expected), said(found)))

    def _keep(self, found: Divergence) -> None:
        self._kinds.add(found.kind)
        self._found.append(found)
        self._abouts.append(self._about)
        if self._overflow is not None and len(self._found) >= KEPT_MAX:
            self._overflow(tuple(self._found))
            self._found.clear()
            self._abouts.clear()

    def row(self, document: Document | None) -> None:
        """Take the incident's row, None where there is none; not called at all, rows are not compared."""
        self._row, self._rows_count = document, True
        if document is not None:
            told = document.get("metadata")
            known = told if isinstance(told, dict) else {}
            self.created_as = _created_as(document.get("service"), known.get("dedupKey"), known.get("occurrence"))

    def lost(self, sequence: int) -> None:
        """Take it that an event is stored under a number, and can't be read."""
        self._chain.skip(sequence)
        if self._coverage is not None:
            self._coverage.event(sequence, "")

    def covered(self, first: int, last: int) -> None:
        """Take it that a receipt names these events, and can't be read."""
        if self._coverage is not None and are_together(first, last):
            self._coverage.assume(first, last)

    def receipt(self, receipt: IdempotencyRecord) -> None:
        if self._coverage is not None:
            self._coverage.receipt(receipt)

    def event(self, document: Document) -> None:
        """Take the next stored event."""
        before = self._chain.last
        self._about = before + 1
        sound = self._chain.take(document)
        ranges: list[Range] = []
        if self._coverage is not None and self._chain.last != before:
            ranges = self._covering(document, sound)
        if not sound:
            self._about = 0
            self._look_at(document)
            return
        try:
            self._check(document, document["sequence"], document["metadata"])
            if self._whole and self._chain.intact:
                self._fold.take(document)
            if self._coverage is not None:
                self._coverage.agree(document, self._fold.control_version if self.is_whole else None, ranges)
            self._last_sound = document
            if self._row is not None and self._row.get("lastEventHash") == document["hash"]:
                self._compare_row(self._chain.last)
        except (Rejected, KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
            self._whole = False
            told = f"{type(error).__name__}: {error}"
            self._report(Kind.UNREADABLE, f"event {self._chain.last}", "an event this version can read", told)
        self._about = 0

    def _look_at(self, document: Document) -> None:
        """See what an event says that is not as it was stored, and is so all the same, by somebody else's word."""
        fact = document.get("metadata")
        if self.created_as is None and isinstance(fact, dict) and "dedupKey" in fact:
            created = _created_as(fact.get("service"), fact.get("dedupKey"), fact.get("occurrence"))
            if created is not None and id_of(*created) == self.incident_id:
                self.created_as = created
        if self._row is not None and self._row.get("lastEventHash", 0) in (document.get("hash"), self._chain.content):
            self._row_is_of, self._row_is_of_changed = self._chain.home, True

    def _covering(self, document: Document, sound: bool) -> list[Range]:
        """Return the decisions whose receipts name an event; of a changed one, see what they contradict."""
        assert self._coverage is not None
        decided_at = str(document.get("decidedAt", document.get("timestamp")))
        ranges = self._coverage.event(self._chain.last, decided_at)
        if not sound and self._chain.is_in_place and (hint := self._coverage.contradicts(document, ranges)):
            self._hint = (span(self._chain.last, self._chain.last), hint)
        return ranges

    def _check(self, event: Document, sequence: int, fact: Document) -> None:
        """Check what the events before it and the tables of rules say of an event."""
        kind, before, after = event["eventType"], event["previousState"], event["newState"]
        if (kind == _CREATED) is not (sequence == 1):
            self._differs(Kind.IDENTITY, f"event {sequence}: eventType", "a creation as the first event alone", kind)
        if kind == _CREATED:
            created = _created_as(fact["service"], fact["dedupKey"], fact["occurrence"])
            if created is None:
                raise ValueError("a creation names a service, a key and which occurrence of it, from 1")
            self.created_as = created
            made = id_of(*created)
            if made != self.incident_id:
                self._differs(Kind.IDENTITY, f"event {sequence}: incidentId", made, self.incident_id)
        if event["timestamp"] < self._timestamp:
            expected = f"at least {self._timestamp}"
            self._differs(Kind.TIME, f"event {sequence}: timestamp", expected, event["timestamp"])
        if before != self._state and self.is_whole:
            self._differs(Kind.TRANSITION, f"event {sequence}: previousState", self._state, before)
        self._timestamp, self._state = event["timestamp"], after
        if after != before:
            authority = event["actor"]["authorityType"]
            step = _STEPS.get((before, after))
            if step is None or step.event_type != kind or authority not in step.authorities:
                taken = f"{before} to {after} by {kind} of {authority}"
                self._differs(Kind.TRANSITION, f"event {sequence}", "a step of the table", taken)
        if self._policies is not None and "decision" in fact:
            self._judge_again(f"event {sequence}", fact["decision"])

    def _judge_again(self, where: str, recorded: Document) -> None:
        assert self._policies is not None
        # Most decisions are of a few kinds: what was judged once needs no judge.
        kind = what_decides(recorded)
        if kind in self._judged:
            return
        decision = read(_DECISION, recorded)
        policy = self._policies.recorded(decision)
        if policy is None:
            told = f"policy {decision.policy_id} version {decision.policy_version} of digest {decision.policy_digest}"
            self._differs(Kind.DECISION, f"{where}: policy", told, "not among the policies at hand")
        elif (again := judge(policy, decision.inputs)[0]) != decision:
            self._differs(Kind.DECISION, where, f"{again.outcome} by {again.rule}", f"{decision.outcome} by {decision.rule}")
        elif len(self._judged) < JUDGED_MAX:
            self._judged.add(kind)

    def _differs(self, kind: Kind, where: str, expected: Any, found: Any) -> None:
        if expected != found:
            self._whole = self._whole and kind in (Kind.DECISION, Kind.TIME)
            self._report(kind, where, expected, found)

    def _compare_row(self, sequence: int) -> None:
        self._row_is_of = sequence
        found: tuple[Divergence, ...] = ()
        if self._row is None:
            return
        if self.is_whole:
            found = compare(self.incident_id, self._fold.row(), self._row)
        elif self._last_sound is not None and self._last_sound["sequence"] == sequence:
            # Of a damaged history the last event still tells what the row must say of it.
            event, fact = self._last_sound, self._last_sound["metadata"]
            expected = {"state": event["newState"], "severity": fact["severity"], "service": fact["service"]}
            expected |= {"updatedAt": event["timestamp"], "version": event["sequence"], "lastEventHash": event["hash"]}
            found = self._compare_with(expected)
        self._keep_of_the_row(found)

    def _compare_with(self, expected: Document) -> tuple[Divergence, ...]:
        assert self._row is not None
        stored = {name: self._row[name] for name in expected if name in self._row}
        return compare(self.incident_id, expected, stored)

    def _keep_of_the_row(self, found: tuple[Divergence, ...]) -> None:
        for one in found:
            self._version_told = self._version_told or one.where == "version"
            self._keep(one)

    def _compare_with_receipts(self, sequence: int) -> None:
        """Compare the row with what is known of an event that is gone, or was changed: by the receipt that ends with it."""
        self._row_is_of = sequence
        expected: Document = {"version": sequence}
        if self._coverage is not None:
            expected |= self._coverage.said_of_the_row(self._row or {}, sequence)
        self.by_receipts = frozenset(expected)
        self._keep_of_the_row(self._compare_with(expected))

    def finish(self) -> tuple[Divergence, ...]:
        """Return all that is wrong, in the order of events; nothing may be taken afterwards."""
        version = self._row.get("version") if self._row is not None else None
        known = version if type(version) is int and version > 0 else 0
        self._chain.finish(self._row_is_of or self._reaches or known)
        self._settle_row(known)
        self._settle_receipts()
        # Or they and this one would keep each other, events and all, until the collector comes by.
        self._chain.release()
        self._coverage = None
        return tuple(found for found, about in zip(self._found, self._abouts, strict=True) if self._is_said_of(about, found))

    def _is_said_of(self, about: int, found: Divergence) -> bool:
        """Return whether what an event says counts: what was never decided contradicts much that is right."""
        invented = about in self._chain.never_decided or 0 < self._invented_from <= about
        return not invented or found.kind not in _SAID_BY_AN_EVENT

    def _settle_row(self, version: int) -> None:
        last, row, until = self._chain.last, self._row, self._chain.until
        if not self._rows_count or (row is None and last == 0):
            return
        if row is None:
            self._report(Kind.ROW_MISSING, "row", f"version {until}", "absent")
        elif last == 0 and not version and not self._reaches:
            self._report(Kind.MISSING, "every event", "stored", "absent")
        elif self._row_is_of and self._row_is_of < until:
            self._settle_what_the_row_lacks(self._row_is_of, until)
        elif self._row_is_of_changed:
            self._compare_with_receipts(until)
        elif not self._row_is_of:
            self._settle_row_of_another(version)

    @property
    def _reaches(self) -> int:
        return 0 if self._coverage is None else self._coverage.reaches[0]

    def _settle_row_of_another(self, version: int) -> None:
        """Tell of a row that is of no event that is there: either that one is gone, or the row's own word is wrong."""
        until = self._chain.until
        decided = self._reaches if self._reaches > until else version
        if decided > until:
            self._end_is_told = True
            self._report(Kind.MISSING, span(until + 1, decided), "stored", "absent")
            self._compare_with_receipts(decided)
        else:
            self._compare_row(self._chain.last)

    def _settle_what_the_row_lacks(self, version: int, last: int) -> None:
        """Tell of a row that is right for an earlier event: either it is behind, or nobody decided what follows."""
        uncovered = self._coverage is None or self._coverage.uncovered_until > version
        if not uncovered and not self._version_told:
            self._report(Kind.ROW, "version", last, version)
        elif uncovered and self._chain.intact:
            self._invented_from = version + 1
            self._report(Kind.INSERTED, span(version + 1, last), f"the row ends with event {version}", "stored")

    def _settle_receipts(self) -> None:
        if self._coverage is None:
            return
        if self._coverage.uncovered_until != self._chain.last or self._kinds.isdisjoint((Kind.INSERTED, Kind.DUPLICATED)):
            self._coverage.tell_uncovered()
        reaches, receipt = self._coverage.reaches
        if receipt is None or reaches <= self._chain.until or self._end_is_told:
            return
        if self._chain.intact and self._row_is_of and self._row_is_of == self._chain.last:
            # Events and row are one; so it is the receipt that speaks of another incident's.
            until = f"events until {self._chain.last}"
            self._report(Kind.RECEIPT, f"receipt {receipt.id}: events", until, f"until {reaches}")
        else:
            where = span(self._chain.until + 1, reaches)
            self._report(Kind.MISSING, where, f"stored, as the receipt {receipt.id} says", "absent")


def _created_as(service: Any, dedup_key: Any, occurrence: Any) -> tuple[str, str, int] | None:
    """Return what an incident was created with, where it is said in its form."""
    if isinstance(service, str) and isinstance(dedup_key, str) and type(occurrence) is int and occurrence >= 1:
        return service, dedup_key, occurrence
    return None


def verify(incident_id: str, documents: Iterable[Document], row: Document | None) -> tuple[Divergence, ...]:
    """Check one incident's whole history and its row; a history that can't be folded is a divergence, not an error."""
    replay = Replay(incident_id, ModelFold())
    replay.row(row)
    for document in documents:
        replay.event(document)
    return replay.finish()
