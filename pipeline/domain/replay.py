"""Fold a history, check it in every way it can be checked, and compare it with what else was written. Pure; reads nothing.

`Replay` takes what is stored of one incident, in order and one thing at a time, so that its memory does not grow with the
history. What is wrong is named once, where it is wrong, and not again by all that follows from it. What of a history is
damaged is said in `chains`, what of its receipts in `coverage`; whether a divergence counts is for the caller to say.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

from pipeline.domain.canonical import Document
from pipeline.domain.chains import Chain
from pipeline.domain.coverage import Coverage
from pipeline.domain.divergences import Divergence, Kind, span
from pipeline.domain.envelope import IncidentEvent, event_hash
from pipeline.domain.errors import Rejected
from pipeline.domain.events import IncidentCreated, Judgement
from pipeline.domain.ids import incident_id as id_of
from pipeline.domain.incidents import Incident, evolve
from pipeline.domain.promotion import Policies, judge
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.transitions import State, transition

RowOf = Callable[[Incident], Document]


def fold(documents: Iterable[Document]) -> Incident | None:
    """Return the incident that stored events, in order, add up to; None for no events."""
    incident: Incident | None = None
    for document in documents:
        incident = evolve(incident, IncidentEvent.from_document(document))
    return incident


class Replay:
    """One incident's row, receipts and events, taken in this order: the row, then each receipt before the events it names.

    `row_of` makes the row that an incident must have (as stored, with what finds it); `policies`: to judge recorded
    decisions again, None to leave that out. `folded` is the incident so far while its history is whole, else None.
    """

    def __init__(
        self,
        incident_id: str,
        *,
        row_of: RowOf = Incident.to_document,
        policies: Policies | None = None,
        hash_of: Callable[[Document], str] = event_hash,
        with_receipts: bool = False,
    ) -> None:
        self.incident_id = incident_id
        self.folded: Incident | None = None
        # What the incident was created with: service, dedupKey and occurrence; by its row's word where the creation is gone.
        self.created_as: tuple[str, str, int] | None = None
        self._row_of = row_of
        self._policies = policies
        self._found: list[Divergence] = []
        self._chain = Chain(incident_id, self._report, hash_of)
        self._coverage = Coverage(self._report) if with_receipts else None
        self._row: Document | None = None
        self._rows_count = False
        # The event that the row is of, by its hash; 0 before it was met.
        self._row_is_of = 0
        # Which attribute of a changed event its receipts contradict, by its number.
        self._hints: dict[int, str] = {}
        self._timestamp, self._state = "", State.PENDING.value
        self._whole = True

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
        self._found.append(Divergence(self.incident_id, kind, where, str(expected), str(found)))

    def row(self, document: Document | None) -> None:
        """Take the incident's row, None where there is none; not called at all, rows are not compared."""
        self._row, self._rows_count = document, True
        if document is not None:
            told = document.get("metadata")
            known = told if isinstance(told, dict) else {}
            match document.get("service"), known.get("dedupKey"), known.get("occurrence"):
                case str() as service, str() as dedup_key, int() as occurrence:
                    self.created_as = (service, dedup_key, occurrence)

    def receipt(self, receipt: IdempotencyRecord) -> None:
        if self._coverage is not None:
            self._coverage.receipt(receipt)

    def event(self, document: Document) -> None:
        """Take the next stored event."""
        sound = self._chain.take(document)
        ranges = self._coverage.event(self._chain.last) if self._coverage is not None else []
        if not sound:
            hint = self._coverage.contradicts(document, ranges) if self._coverage is not None else ""
            if hint:
                self._hints[self._chain.last] = hint
            self.folded = None
            return
        event = self._read(document)
        if event is None:
            self.folded = None
            return
        self._check(document, event)
        if self.is_whole:
            self.folded = evolve(self.folded, event)
        else:
            self.folded = None
        if self._coverage is not None:
            self._coverage.agree(event, self.folded.control_version if self.folded is not None else None, ranges)
        if self._row is not None and self._row.get("lastEventHash") == document["hash"]:
            self._compare_row(event.sequence)

    def _read(self, document: Document) -> IncidentEvent | None:
        try:
            return IncidentEvent.from_document(document)
        except (Rejected, ValueError) as error:
            self._whole = False
            self._report(Kind.UNREADABLE, f"event {document.get('sequence')}", "an event this version can read", error)
            return None

    def _check(self, document: Document, event: IncidentEvent) -> None:
        """Check what the events before it and the tables of rules say of an event."""
        where, fact = f"event {event.sequence}", event.fact
        if isinstance(fact, IncidentCreated) is not (event.sequence == 1):
            self._differs(Kind.IDENTITY, f"{where}: eventType", "a creation as the first event alone", fact.event_type)
        if isinstance(fact, IncidentCreated):
            born = fact.metadata
            self.created_as = (born.service, born.dedup_key, born.occurrence)
            made = id_of(born.service, born.dedup_key, born.occurrence)
            self._differs(Kind.IDENTITY, f"{where}: incidentId", made, self.incident_id)
        if document["timestamp"] < self._timestamp:
            self._differs(Kind.TIME, f"{where}: timestamp", f"at least {self._timestamp}", document["timestamp"])
        if self.is_whole:
            self._differs(Kind.TRANSITION, f"{where}: previousState", self._state, document["previousState"])
        self._timestamp, self._state = document["timestamp"], document["newState"]
        if event.new_state is not event.previous_state:
            step = transition(event.previous_state, event.new_state)
            if step is None or step.event_type is not fact.event_type or event.actor.authority_type not in step.authorities:
                taken = f"{event.previous_state} to {event.new_state} by {fact.event_type} of {event.actor.authority_type}"
                self._differs(Kind.TRANSITION, where, "a step of the table", taken)
        if self._policies is not None and isinstance(fact.metadata, Judgement):
            self._judge_again(where, fact.metadata)

    def _judge_again(self, where: str, recorded: Judgement) -> None:
        assert self._policies is not None
        decision = recorded.decision
        policy = self._policies.recorded(decision)
        if policy is None:
            told = f"policy {decision.policy_id} version {decision.policy_version} of digest {decision.policy_digest}"
            self._differs(Kind.DECISION, f"{where}: policy", told, "not among the policies at hand")
        elif (again := judge(policy, decision.inputs)[0]) != decision:
            self._differs(Kind.DECISION, where, f"{again.outcome} by {again.rule}", f"{decision.outcome} by {decision.rule}")

    def _differs(self, kind: Kind, where: str, expected: Any, found: Any) -> None:
        if expected != found:
            self._whole = self._whole and kind in (Kind.DECISION, Kind.TIME)
            self._report(kind, where, expected, found)

    def _compare_row(self, sequence: int) -> None:
        self._row_is_of = sequence
        if self.folded is not None and self._row is not None:
            self._found += compare(self.incident_id, self._row_of(self.folded), self._row)

    def finish(self) -> tuple[Divergence, ...]:
        """Return all that is wrong, in the order of events; nothing may be taken afterwards."""
        version = self._row.get("version") if self._row is not None else None
        known = version if isinstance(version, int) else 0
        self._chain.finish(known)
        self._settle_row(known)
        self._settle_receipts()
        return tuple(self._hinted(found) for found in self._found)

    def _hinted(self, found: Divergence) -> Divergence:
        """Add to a changed event what its receipts contradict."""
        if found.kind is not Kind.CHANGED or not found.where.removeprefix("event ").isdecimal():
            return found
        hint = self._hints.get(int(found.where.removeprefix("event ")))
        where = f"{found.where}: {hint}" if hint else found.where
        return Divergence(found.incident_id, found.kind, where, found.expected, found.found)

    def _settle_row(self, version: int) -> None:
        last, row = self._chain.last, self._row
        if not self._rows_count or (row is None and last == 0):
            return
        if row is None:
            self._report(Kind.ROW_MISSING, "row", f"version {last}", "absent")
        elif last == 0:
            self._report(Kind.MISSING, span(1, version) if version else "every event", "stored", "absent")
        elif self._row_is_of and self._row_is_of < last:
            self._settle_what_the_row_lacks(self._row_is_of, last)
        elif not self._row_is_of and version > last:
            if version > last + self._chain.lost:
                self._report(Kind.MISSING, span(last + 1, version), "stored", "absent")
        elif not self._row_is_of:
            self._compare_row(last)

    def _settle_what_the_row_lacks(self, version: int, last: int) -> None:
        """Tell of a row that is right for an earlier event: either it is behind, or nobody decided what follows."""
        uncovered = self._coverage is None or any(run[1] > version for run in self._coverage.uncovered())
        if not uncovered:
            self._report(Kind.ROW, "version", last, version)
        elif self._chain.intact:
            self._report(Kind.INSERTED, span(version + 1, last), f"the row ends with event {version}", "stored")

    def _settle_receipts(self) -> None:
        if self._coverage is None:
            return
        told = any(one.kind in (Kind.INSERTED, Kind.DUPLICATED) for one in self._found)
        for first, last in self._coverage.uncovered():
            if not (told and last == self._chain.last):
                self._report(Kind.RECEIPT_MISSING, span(first, last), "a receipt", "none")
        missing = any(one.kind is Kind.MISSING for one in self._found)
        if self._coverage.reaches > self._chain.last and not missing:
            kind, where = Kind.MISSING, span(self._chain.last + 1, self._coverage.reaches)
            self._report(kind, where, "stored, as a receipt says", "absent")


def verify(incident_id: str, documents: Iterable[Document], row: Document | None) -> tuple[Divergence, ...]:
    """Check one incident's whole history and its row; a history that can't be folded is a divergence, not an error."""
    replay = Replay(incident_id)
    replay.row(row)
    for document in documents:
        replay.event(document)
    return replay.finish()


def compare(incident_id: str, expected: Document, found: Document) -> tuple[Divergence, ...]:
    """Compare a row with the one its events lead to, attribute by attribute."""
    return tuple(
        Divergence(incident_id, Kind.ROW, path, _show(wanted), _show(stored))
        for path, wanted, stored in _differences(expected, found, "")
    )


_ABSENT: Final = object()


def _show(value: Any) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _differences(expected: Any, found: Any, path: str) -> Iterable[tuple[str, Any, Any]]:
    if isinstance(expected, dict) and isinstance(found, dict):
        for name in sorted(expected.keys() | found.keys()):
            inner = f"{path}.{name}" if path else name
            yield from _differences(expected.get(name, _ABSENT), found.get(name, _ABSENT), inner)
    elif expected != found:
        yield path, expected, found
