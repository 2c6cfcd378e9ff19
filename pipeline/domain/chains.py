"""One incident's stored events, one after the other: numbering, ids, hashes and their chain. Pure, in bounded memory.

Every event carries its number, an id made of that number, its own hash and the hash before it. So of a damaged history can
be said not only that it is damaged, but how: each of these four contradicts the others in a way of its own. What stands in
whose place is told at the end (`places`).
"""

from collections.abc import Callable
from typing import Any, Final

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Kind, Report, span
from pipeline.domain.envelope import GENESIS_HASH, event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import event_ids
from pipeline.domain.places import Around, Placed, tell

# Beyond so many, the places of events are told in portions that know little of each other.
MISPLACED_MAX: Final = 10_000
# How far from its place an event's home is looked for: first near, then far.
_NEAR: Final = 64
_GAPS_MAX: Final = 1_000


class Chain:
    """Takes an incident's events in the order of their numbers; `report` is told what is wrong.

    Raises `Corrupt` for an id that is none. `intact`: nothing was wrong, so far. `last` is the number of the last event,
    `tip` its stored hash. `is_in_place`: it bears the id of its number; `home`: the number of its id,
    or its place. Of one that is not sound, `content` is the hash of what it is. `never_decided`: numbers of events that were
    taken as sound, and turned out to be inserted.
    """

    def __init__(self, incident_id: str, report: Report, hash_of: Callable[[Document], str] = event_hash) -> None:
        self.incident_id = incident_id
        self.hash_of = hash_of
        self.intact = True
        self.last = 0
        self.tip = GENESIS_HASH
        self.is_in_place = True
        self.home = 0
        self.content = ""
        self.never_decided: set[int] = set()
        self._report = report
        try:
            self._id_of = event_ids(incident_id)
        except ValueError:
            raise Corrupt(f"{incident_id[:60]!r} is no incident's id") from None
        self._before: Document | None = None
        # Whether what the next event must chain to is known: the event before it is there, and in its place.
        self._linked = True
        self._changed: tuple[int, str] | None = None
        self._placed: dict[int, Placed] = {}
        self._gaps: list[tuple[int, int]] = []
        # The homes of ids around the last place that was looked around; the events told of so far, and the highest of them.
        self._homes: dict[str, int] = {}
        self._homes_around = (0, 0)
        self._told_until = 0
        self._highest = 0

    @property
    def until(self) -> int:
        """The highest number of an event that was decided, as far as the events say; to be asked after `finish`."""
        return self._highest if self.last <= self._told_until else self.last

    def take(self, event: Document) -> bool:
        """Check the next event; return whether it is what was once stored under this number."""
        sequence = event.get("sequence")
        # Nearly every event is what it should be: that is asked first, and of what isn't it is told afterwards what.
        if (
            self._linked
            and self._changed is None
            and type(sequence) is int
            and sequence == self.last + 1
            and event.get("previousHash") == self.tip
            and event.get("eventId") == self._id_of(b"%d" % sequence)
            and (said := event.get("hash")) == self.hash_of(event)
        ):
            self.last, self.tip, self._before = sequence, str(said), event
            return True
        return self._take_odd(event, sequence)

    def _take_odd(self, event: Document, sequence: Any) -> bool:
        """Take an event that has something wrong with it, or stands behind one that has."""
        if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
            return self._wrong(Kind.UNREADABLE, "sequence", "a number from 1", sequence)
        if sequence == self.last:
            same = event == self._before
            told = "one event of this number" if same else "one event of this number, not two that differ"
            return self._wrong(Kind.DUPLICATED, span(sequence, sequence), told, "the same number again")
        if self._changed is not None:
            self._settle_change(event)
        if sequence != self.last + 1:
            self._miss(self.last + 1, sequence - 1)
            # Told, also where it turns out that nothing can be read of this one.
            self.last, self._linked = sequence - 1, False
        sound = self._check(event, sequence)
        self.last, self.tip, self._before = sequence, str(event.get("hash", "")), event
        return sound

    def skip(self, sequence: int) -> None:
        """Take it that there is an event under a number, of which nothing can be read."""
        self._settle_change(None)
        if sequence > self.last + 1:
            self._miss(self.last + 1, sequence - 1)
        self.intact = self._linked = False
        self.last, self.tip, self._before = max(self.last, sequence), "", None

    def _miss(self, first: int, last: int) -> None:
        self._wrong(Kind.MISSING, span(first, last), "stored", "absent")
        if len(self._gaps) < _GAPS_MAX:
            self._gaps.append((first, last))

    def _check(self, event: Document, sequence: int) -> bool:
        if event.get("eventId") != self._id_of(b"%d" % sequence):
            self._misplace(event, sequence)
            return False
        self.is_in_place, self.home = True, sequence
        found = self.content = self.hash_of(event)
        if event.get("hash") != found:
            self._changed = (sequence, found)
            self.intact, self._linked = False, True
            return False
        expected = self.tip if self._linked else event.get("previousHash")
        self._linked = True
        if event.get("previousHash") != expected:
            return self._wrong(Kind.CHAIN, f"event {sequence}: previousHash", expected, event.get("previousHash"))
        return True

    def _misplace(self, event: Document, sequence: int) -> None:
        """Take an event that does not belong where it stands."""
        identity, said = str(event.get("eventId")), str(event.get("hash"))
        home = self._home_of(identity, sequence)
        content = self.hash_of(event if home is None else event | {"sequence": home})
        one = Placed(identity, home, content == said, said, content)
        before = self._placed.get(self.last)
        if home == self.last and self.is_in_place and one.genuine and self._before is not None and self.tip != said:
            # It was pushed out of its place by the one before it, which bears its id.
            self._never_decided(home)
        together = before is not None and before.genuine and one.genuine and before.home == (home or 0) - 1
        if together and event.get("previousHash") != self.tip:
            # Moved together, they are a chain all the same.
            self._wrong(Kind.CHAIN, f"event {home}: previousHash", self.tip, event.get("previousHash"))
        self.is_in_place, self.home, self.content = False, sequence if home is None else home, content
        self._placed[sequence] = one
        self.intact = self._linked = False
        if len(self._placed) > MISPLACED_MAX:
            self.last = sequence
            self.finish()

    def _never_decided(self, sequence: int) -> None:
        self.never_decided.add(sequence)
        told = "another event of this number, which the one behind it says it is"
        self._report(Kind.INSERTED, span(sequence, sequence), "what was decided", told)

    def _home_of(self, identity: str, place: int) -> int | None:
        """Return the number that an id was made of, if it is anywhere near."""
        before = self._placed.get(place - 1)
        if before is not None and before.home is not None and identity == self._id_of(b"%d" % (before.home + 1)):
            # As far off as the one before it.
            return before.home + 1
        for reach in (_NEAR, MISPLACED_MAX):
            first, last = self._homes_around
            if not first <= place <= last or last - first < reach:
                first, last = max(1, place - reach), place + reach
                self._homes = {self._id_of(b"%d" % number): number for number in range(first, last + 1)}
                self._homes_around = (first, last)
            if (home := self._homes.get(identity)) is not None:
                return home
        return None

    def _settle_change(self, following: Document | None) -> None:
        """Tell of an event whose hash is wrong, once the one behind it tells which of the two was changed."""
        if self._changed is None:
            return
        (sequence, found), self._changed = self._changed, None
        if following is not None and self._is_pushed_out(following, sequence):
            self._never_decided(sequence)
            return
        where, said = f"event {sequence}", self.tip
        follows = following is not None and following.get("sequence") == sequence + 1
        if follows and following is not None and following.get("previousHash") == found:
            # Somebody else's word for what the event is: so it is the hash beside it that was changed.
            where, self._linked = f"event {sequence}: hash", False
        self._report(Kind.CHANGED, where, f"content of hash {said}", f"content of hash {found}")

    def _is_pushed_out(self, event: Document, sequence: int) -> bool:
        """Return whether an event is, whole, what is to stand under another number than its own."""
        if event.get("eventId") != self._id_of(b"%d" % sequence) or event.get("sequence") == sequence:
            return False
        return event.get("hash") == self.hash_of(event | {"sequence": sequence})

    def _wrong(self, kind: Kind, where: str, expected: Any, found: Any) -> bool:
        self.intact = False
        self._report(kind, where, expected, found)
        return False

    def finish(self, known_until: int = 0) -> None:
        """Tell of what can be told only at the end: which events stand in whose place. `known_until`: how many
        there were, as row or receipts say."""
        self._settle_change(None)
        if not self._placed:
            return
        around = Around(self.last, known_until, self._told_until, self._gaps, self.never_decided.__contains__)
        placed, self._placed = self._placed, {}
        self._highest = tell(placed, around, lambda number: self._id_of(b"%d" % number), self._report)
        self._told_until = max(self.last, self._highest)

    def release(self) -> None:
        """Take it that nothing is told any more; whoever is told things holds this, and is no longer held by it."""
        self._report = _nothing_more


def _nothing_more(*_: object) -> None:
    """Nothing is told of what is finished."""
