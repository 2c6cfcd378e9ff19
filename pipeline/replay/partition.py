"""Replay one partition: every incident in it, whole, one after the other. Runs in a process of its own where there are many.

Writes what is wrong, and what an auditor may seal, into files beside the partitions, and hands back numbers alone. Of one
incident at most `KEPT_MAX` divergences and `ASKED_AGAIN_BYTES_MAX` of its events are held, so damage fills nobody's memory.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Final

from pipeline.domain.canonical import Document, format_time, parse_time
from pipeline.domain.divergences import KEPT_MAX, Divergence, Kind, said
from pipeline.domain.errors import Corrupt, Rejected, Unavailable
from pipeline.domain.ids import pointer_id
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Policies
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.folding import DocumentFold
from pipeline.replay.line_file import LineFile
from pipeline.replay.lines import document_of, event_key, exact_document_of, hash_of, line_of
from pipeline.replay.ranks import PointerRank, Rank, outline_of
from pipeline.replay.seals import Sealed, sum_with
from pipeline.replay.spill import Entry, RawEntry, SpillWriter, by_key, entry_of
from pipeline.replay.workers import Beat
from pipeline.stores.items import from_item, incident_item, read_receipt, to_item

# As they are read: compared once an event.
_ROW: Final = b"%d" % Rank.ROW
_EVENT: Final = b"%d" % Rank.EVENT
_OF_THE_FOLD: Final = frozenset({Kind.ROW, Kind.UNREADABLE})
# Events between two looks at whether to go on.
AT_A_TIME: Final = 2_000
# Events of one incident that are kept for the core's own fold, as lines; what is longer goes by the fast one.
ASKED_AGAIN_BYTES_MAX: Final = 4 * 1024 * 1024
# Receipts of one incident among which one that stands there twice is told.
RECEIPTS_MAX: Final = 10_000
UNBORN_MAX: Final = 10_000
Tell = Callable[[Iterable[Divergence]], None]
EVENTS: Final = "events"
POINTERS: Final = "pointers"
FOUND: Final = "found"
SEALS: Final = "seals"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a replay is to look at. `since`, `until`: incidents created then (RFC 3339 as stored; until is not included).

    `rows`, `receipts`: whether there are such to compare with. `part`: of some incidents. `seal`: write what can be sealed.
    `thorough`: read each event as the model it must be, a few times slower. `confirm`: ask the core's own fold about what
    the fast one says of rows. `keep`: what was spread, to be asked again.
    """

    rows: bool = True
    receipts: bool = True
    seal: bool = False
    since: str = ""
    until: str = "9"
    part: bool = False
    thorough: bool = False
    keep: bool = False
    confirm: bool = True

    @property
    def is_of_a_span(self) -> bool:
        return bool(self.since) or self.until != "9"

    @property
    def is_everything(self) -> bool:
        return not self.part and not self.is_of_a_span

    def may_include(self, created_at: object) -> bool:
        """Return whether an incident is of the span by what its row or first event says; one that says no time may be."""
        return not _is_time(created_at) or self.since <= str(created_at) < self.until

    def may_begin_with(self, number: Decimal | int, at: object) -> bool:
        """Return whether an incident is of the span by the lowest of its events.

        Where that is not the first, the first is gone, and was no later.
        """
        if number == 1:
            return self.may_include(at)
        return number < 1 or not _is_time(at) or self.since <= str(at)


def _is_time(said: object) -> bool:
    """Return whether this is a time as opx stores one: only then the order of texts is that of times."""
    try:
        return isinstance(said, str) and format_time(parse_time(said)) == said
    except ValueError:
        return False


@dataclass(slots=True)
class Counts:
    """How much was replayed."""

    incidents: int = 0
    events: int = 0
    rows: int = 0
    receipts: int = 0
    pointers: int = 0
    divergences: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    # Incidents with events of which nothing says what they were created with, the first of them.
    unborn: set[str] = field(default_factory=set)

    def add(self, other: "Counts") -> None:
        for name in ("incidents", "events", "rows", "receipts", "pointers", "divergences"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for kind, number in other.kinds.items():
            self.kinds[kind] = self.kinds.get(kind, 0) + number
        for identity in other.unborn:
            self.lacks_creation(identity)

    def lacks_creation(self, identity: str) -> None:
        """Take it that an incident's key is not known."""
        if len(self.unborn) < UNBORN_MAX:
            self.unborn.add(identity)

    def tell(self, found: Divergence) -> None:
        self.divergences += 1
        self.kinds[found.kind.value] = self.kinds.get(found.kind.value, 0) + 1


def row_of(incident: Incident) -> Document:
    """Return the row an incident must have, with the keys that find it."""
    return from_item(incident_item(incident))


def replay_partition(
    part: str, files: tuple[Path, ...], folder: Path, wanted: Wanted, policies: Policies | None, beat: Beat
) -> Counts:
    """Replay one partition of the folder; its divergences are in `found`, its pointers' side in `pointers`."""
    counts = Counts()
    told_of = 0
    judged: set[Hashable] = set()
    with ExitStack() as stack:
        found = stack.enter_context(LineFile(folder / FOUND, part))
        sealing = stack.enter_context(LineFile(folder / SEALS, part)) if wanted.seal else None
        pointers = stack.enter_context(SpillWriter(folder / POINTERS, f"creations-{part}", len(part)))

        def tell(some: Iterable[Divergence]) -> None:
            for one in some:
                counts.tell(one)
                found.write(json.dumps(one.to_document()))

        for key, group in by_key(files, folder / f"runs-{part}"):
            incident = Replaying(key.decode(), wanted, policies, judged, tell)
            tell(incident.take_all(group))
            if incident.left_out:
                continue
            counts.incidents += 1
            counts.events += incident.events
            if counts.events >= told_of + AT_A_TIME:
                beat(counts.events - told_of)
                told_of = counts.events
            counts.rows += incident.rows
            counts.receipts += incident.receipts
            if sealing is not None and incident.replay.version:
                sealing.write(incident.sealed().line())
            if wanted.rows and (creation := creation_of(incident.replay)) is not None:
                pointers.put(*creation)
            elif incident.replay.version or incident.receipts:
                counts.lacks_creation(key.decode())
    beat(counts.events - told_of)
    if not wanted.keep:
        for path in files:
            path.unlink()
    return counts


def creation_of(replay: Replay) -> Entry | None:
    """Return what an incident's creation says to its key's pointer; None where nothing tells of it."""
    if replay.created_as is None:
        return None
    service, dedup_key, occurrence = replay.created_as
    creation = {"incidentId": replay.incident_id, "occurrence": occurrence, "service": service, "dedupKey": dedup_key}
    return Entry(pointer_id(service, dedup_key).encode(), occurrence, PointerRank.CREATION, line_of(to_item(creation)))


class Replaying:
    """One incident, replayed from its entries; `left_out` where it is not wanted, by its time.

    `tell`: takes what is wrong, once it is too much to be kept.
    """

    def __init__(
        self,
        key: str,
        wanted: Wanted,
        policies: Policies | None,
        judged: set[Hashable] | None = None,
        tell: Tell | None = None,
    ) -> None:
        self.replay = Replay(
            key,
            ModelFold(row_of) if wanted.thorough else DocumentFold(),
            policies=policies,
            judged=judged,
            hash_of=hash_of,
            with_receipts=wanted.receipts,
            overflow=tell,
        )
        self.left_out = False
        self.events = self.rows = self.receipts = 0
        self.summed = 0
        self._wanted = wanted
        self._policies = policies
        self._key = key
        self._overflow = tell
        self._found: list[Divergence] = []
        self._receipts: set[str] = set()
        # What the core's own fold is asked about: all of it, or nothing.
        self._read = exact_document_of if wanted.thorough else document_of
        self._row: Document | None = None
        self._lines: list[bytes] = []
        self._all_kept = True

    def take_all(self, group: Iterator[RawEntry]) -> tuple[Divergence, ...]:
        """Take all there is of it; return what is wrong."""
        began, take, read, kept = False, self.replay.event, self._read, self._lines
        events, room = 0, ASKED_AGAIN_BYTES_MAX
        undecided = self._wanted.is_of_a_span
        for raw in group:
            _, place, rank, line = raw
            if not began and rank != _ROW:
                began = self._begin()
            try:
                if rank != _EVENT:
                    self._take_other(entry_of(raw))
                    continue
                if undecided:
                    undecided = False
                    if not self._may_be_wanted(int(place), line):
                        self.left_out = True
                        # The rest of the group is read past by whoever asks for the next.
                        return ()
                room -= len(line)
                if room >= 0:
                    kept.append(line)
                elif kept:
                    kept.clear()
                document = read(line)
                events += 1
                take(document)
            except (Corrupt, Rejected, Unavailable) as error:
                self._unread(entry_of(raw), error)
        if not began:
            self._begin()
        if undecided and self.rows and not self._row_may_be_wanted():
            self.left_out = True
            return ()
        self.events, self._all_kept = events, room >= 0
        return (*self._found, *self._confirmed(self.replay.finish()))

    def _may_be_wanted(self, number: int, line: bytes) -> bool:
        """Return whether the incident is of the span by the word of its row or of the lowest of its events.

        One of the two may have been changed, so either is enough; and what can't be read says nothing against it.
        """
        if self.rows and self._row_may_be_wanted():
            return True
        try:
            return self._wanted.may_begin_with(number, self._read(line).get("timestamp"))
        except (Corrupt, Rejected, Unavailable):
            return True

    def _row_may_be_wanted(self) -> bool:
        return self._row is None or self._wanted.may_include(self._row.get("createdAt"))

    def _confirmed(self, found: tuple[Divergence, ...]) -> tuple[Divergence, ...]:
        """Ask the core's own fold where the fast one differs from a row: a mistake of it is no damage."""
        fast = self._wanted.confirm and not self._wanted.thorough and self._all_kept
        if not fast or not any(one.kind in _OF_THE_FOLD for one in found):
            return found
        core = Replay(self._key, ModelFold(row_of), policies=self._policies, hash_of=hash_of)
        if self._wanted.rows:
            core.row(self._row)
        for line in self._lines:
            try:
                core.event(document_of(line))
            except (Corrupt, Rejected, Unavailable):
                core.lost(event_key(line)[1])
        known = {(one.kind, one.where) for one in found}
        told = core.finish()
        if further := [one for one in told if one.kind is Kind.UNREADABLE and (one.kind, one.where) not in known]:
            # What it can't read it can't make a row of either.
            return (*found, *further)
        # Of what the receipts say the core is not asked.
        by_receipts = {"version", *self.replay.by_receipts}
        said_by_core = {(one.kind, one.where) for one in told}
        return tuple(
            one
            for one in found
            if one.kind not in _OF_THE_FOLD or one.where in by_receipts or (one.kind, one.where) in said_by_core
        )

    def _begin(self) -> bool:
        # A row comes before all else: now there is none.
        if self._wanted.rows and not self.rows:
            self.replay.row(None)
        return True

    def _take_other(self, entry: Entry) -> None:
        if entry.rank == Rank.ROW:
            self.rows += 1
            if self.rows > 1:
                self._tell(Kind.DUPLICATED, "row", "one row", "another under the same key")
                return
            self._row = exact_document_of(entry.line)
            self.replay.row(self._row)
        elif entry.rank == Rank.RECEIPT:
            self._take_receipt(entry)
        else:
            self._compare_seal(Sealed.read(entry.line.decode()))

    def _unread(self, entry: Entry, error: Exception) -> None:
        """Tell of what can't be read, once: what it should have covered is not missing as well."""
        where = f"event {entry.place}"
        if entry.rank == Rank.EVENT:
            self.replay.lost(entry.place)
        elif entry.rank == Rank.RECEIPT:
            key, events = outline_of(entry.line)
            where = f"receipt {key}"
            self.replay.covered(*events)
        elif entry.rank == Rank.ROW:
            where = "row"
        self._tell(Kind.UNREADABLE, where, "readable", str(error))

    def _take_receipt(self, entry: Entry) -> None:
        self.receipts += 1
        document = exact_document_of(entry.line)
        receipt = read_receipt(to_item(document))
        if receipt.id in self._receipts:
            self._tell(Kind.DUPLICATED, f"receipt {receipt.id}", "one receipt", "another of the same key")
            return
        if len(self._receipts) < RECEIPTS_MAX:
            self._receipts.add(receipt.id)
        if receipt.id != document.get("pk"):
            where = f"receipt {document.get('pk')}: key"
            self._tell(Kind.RECEIPT, where, f"the key of its principal and idempotencyKey, {receipt.id}", "another")
        if receipt.result.first_sequence is not None:
            self.summed = sum_with(self.summed, document)
        self.replay.receipt(receipt)

    def _compare_seal(self, sealed: Sealed) -> None:
        version, replay = sealed.version, self.replay
        if replay.version != version:
            self._tell(Kind.SEAL, f"event {version}", f"sealed with hash {sealed.tip}", "absent")
        elif replay.tip != sealed.tip:
            self._tell(Kind.SEAL, f"events 1 to {version}", f"a chain that ends in {sealed.tip}", replay.tip)
        elif self._wanted.receipts and self.summed != sealed.receipts:
            self._tell(Kind.SEAL, f"receipts of events 1 to {version}", f"{sealed.receipts:064x}", f"{self.summed:064x}")

    def sealed(self) -> Sealed:
        """Return what can be sealed of it."""
        return Sealed(self._key, self.replay.version, self.replay.tip, self.summed)

    def _tell(self, kind: Kind, where: str, expected: str, found: str) -> None:
        self._found.append(Divergence(self._key, kind, said(where), said(expected), said(found)))
        if self._overflow is not None and len(self._found) >= KEPT_MAX:
            self._overflow(self._found)
            self._found.clear()
