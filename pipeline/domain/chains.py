"""One incident's stored events, one after the other: numbering, ids, hashes and their chain. Pure, in bounded memory.

Every event carries its number, an id made of that number, its own hash and the hash before it. So of a damaged history can
be said not only that it is damaged, but how: each of these four contradicts the others in a way of its own.
"""

from collections.abc import Callable
from typing import Any, Final

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Kind, span
from pipeline.domain.envelope import GENESIS_HASH, event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.ids import event_id, event_ids

# Beyond so many, the places of events are told one by one and no longer put together.
MISPLACED_MAX: Final = 10_000
LOOKED_AT_MAX: Final = 100_000
_WITHOUT_PLACE: Final = ("sequence",)

Report = Callable[[Kind, str, Any, Any], None]


class Chain:
    """Takes an incident's events in the order of their numbers; `report` is told what is wrong.

    Raises `Corrupt` for an id that is none. `intact`: nothing was wrong, so far. `last` is the number of the last event,
    `tip` its stored hash.
    """

    def __init__(self, incident_id: str, report: Report, hash_of: Callable[[Document], str] = event_hash) -> None:
        self.incident_id = incident_id
        self.hash_of = hash_of
        self.intact = True
        self.last = 0
        # Events that are not there, though the numbers run without a gap.
        self.lost = 0
        self.tip = GENESIS_HASH
        self._report = report
        try:
            self._id_of = event_ids(incident_id)
        except ValueError:
            raise Corrupt(f"{incident_id[:60]!r} is no incident's id") from None
        self._before: Document | None = None
        # Whether what the next event must chain to is known: the event before it is there, and in its place.
        self._linked = True
        self._changed: tuple[int, str] | None = None
        self._misplaced: dict[int, str] = {}
        self._copies: set[int] = set()

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
            self._wrong(Kind.MISSING, span(self.last + 1, sequence - 1), "stored", "absent")
            # Told, also where it turns out that nothing can be read of this one.
            self.last, self._linked = sequence - 1, False
        sound = self._check(event, sequence)
        self.last, self.tip, self._before = sequence, str(event.get("hash", "")), event
        return sound

    def skip(self, sequence: int) -> None:
        """Take it that there is an event under a number, of which nothing can be read."""
        self._settle_change(None)
        if sequence > self.last + 1:
            self._wrong(Kind.MISSING, span(self.last + 1, sequence - 1), "stored", "absent")
        self.intact = self._linked = False
        self.last, self.tip, self._before = max(self.last, sequence), "", None

    def _check(self, event: Document, sequence: int) -> bool:
        found = self.hash_of(event)
        if event.get("eventId") != event_id(self.incident_id, sequence):
            self._misplaced[sequence] = str(event.get("eventId"))
            if self._before is not None and _content(event) == _content(self._before):
                self._copies.add(sequence)
            self.intact = self._linked = False
            if len(self._misplaced) > MISPLACED_MAX:
                self.finish()
            return False
        if event.get("hash") != found:
            self._changed = (sequence, found)
            self.intact, self._linked = False, True
            return False
        expected = self.tip if self._linked else event.get("previousHash")
        self._linked = True
        if event.get("previousHash") != expected:
            return self._wrong(Kind.CHAIN, f"event {sequence}: previousHash", expected, event.get("previousHash"))
        return True

    def _settle_change(self, following: Document | None) -> None:
        """Tell of an event whose hash is wrong, once the one behind it tells which of the two was changed."""
        if self._changed is None:
            return
        (sequence, found), self._changed = self._changed, None
        where, said = f"event {sequence}", self.tip
        follows = following is not None and following.get("sequence") == sequence + 1
        if follows and following is not None and following.get("previousHash") == found:
            # Somebody else's word for what the event is: so it is the hash beside it that was changed.
            where, self._linked = f"event {sequence}: hash", False
        self._report(Kind.CHANGED, where, f"content of hash {said}", f"content of hash {found}")

    def _wrong(self, kind: Kind, where: str, expected: Any, found: Any) -> bool:
        self.intact = False
        self._report(kind, where, expected, found)
        return False

    def finish(self, known_until: int = 0) -> None:
        """Tell of what can be told only at the end: which events stand in whose place. `known_until`: as the row says."""
        self._settle_change(None)
        misplaced, self._misplaced = self._misplaced, {}
        if not misplaced:
            return
        # Looked for around the places where they were found, however far the numbers go.
        wanted, numbers = set(misplaced.values()), dict[str, int]()
        lowest, highest = max(1, min(misplaced) - MISPLACED_MAX), max(self.last, known_until) + MISPLACED_MAX
        for number in range(lowest, min(highest, lowest + LOOKED_AT_MAX) + 1):
            if not wanted:
                break
            made = event_id(self.incident_id, number)
            if made in wanted:
                numbers[made] = number
                wanted.discard(made)
        belongs = {place: numbers.get(found) for place, found in misplaced.items()}
        for place in _without(belongs, self._tell_swapped(belongs)):
            self._tell(place, belongs, misplaced[place])

    def _tell_swapped(self, belongs: dict[int, int | None]) -> set[int]:
        told: set[int] = set()
        for place, other in belongs.items():
            if other is not None and place < other and belongs.get(other) == place:
                told |= {place, other}
                self._report(Kind.SWAPPED, f"events {place} and {other}", "each in its place", "each in the other's place")
        return told

    def _tell(self, place: int, belongs: dict[int, int | None], found: str) -> None:
        """Tell of one place; what only follows from the place before it was told with that one."""
        home = belongs[place]
        before = _shift(place - 1, belongs)
        if home is None:
            self._tell_stranger(place, belongs, found)
        elif home - place == before:
            # As far off as the event before it: told with that one.
            return
        elif home > place and before is not None and 0 <= before < home - place and home - place < MISPLACED_MAX:
            self.lost += home - place - before
            self._report(Kind.MISSING, span(place + before, home - 1), "stored", f"event {home} in its place")
        elif home < place and before is None:
            # Behind strangers, which were told.
            return
        elif home == place - 1 and home not in belongs and place not in self._copies:
            # The event in its place is not the one it pushed behind.
            self._report(Kind.INSERTED, span(home, home), "what was decided", f"the event before it stood here: {place}")
        elif home not in belongs and home <= self.last:
            self._report(Kind.DUPLICATED, span(home, home), "once", f"again as event {place}")
        else:
            self._report(Kind.IDENTITY, f"event {place}: eventId", event_id(self.incident_id, place), found)

    def _tell_stranger(self, place: int, belongs: dict[int, int | None], found: str) -> None:
        """Tell of an event that is none of this incident's: pushed in before others, or in the place of one."""
        first, last = place, place
        while belongs.get(first - 1, 0) is None:
            first -= 1
        while belongs.get(last + 1, 0) is None:
            last += 1
        if belongs.get(last + 1) == first:
            if place == first:
                self._report(Kind.INSERTED, f"{span(first, last)}: eventId", event_id(self.incident_id, place), found)
        else:
            self._report(Kind.IDENTITY, f"event {place}: eventId", event_id(self.incident_id, place), found)


def _shift(place: int, belongs: dict[int, int | None]) -> int | None:
    """Return how far behind its place an event stands: 0 in its place, None for a stranger."""
    home = belongs.get(place, place)
    return None if home is None else home - place


def _without(belongs: dict[int, int | None], told: set[int]) -> list[int]:
    return [place for place in sorted(belongs) if place not in told]


def _content(event: Document) -> Document:
    return {name: value for name, value in event.items() if name not in _WITHOUT_PLACE}
