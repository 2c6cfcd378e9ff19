"""Which of an incident's events stand in whose place, and what must have been done to them. Pure.

An event says by its id which number it had, its home; the number it is stored under is its place. Where they differ, it is
asked of every home who is there for it, and of every place what it holds: nobody is there (missing), somebody else's copy
(duplicated), something that never was decided (inserted), or two and more that only changed places (swapped).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from pipeline.domain.divergences import Kind, Report, span

# Of so many or fewer that changed places each is named.
NAMED_MAX: Final = 5


class Placed(NamedTuple):
    """What stands in a place that is not its own. `home`: None for what is none of the incident's events.

    `genuine`: it is, but for its number, what its hash says; else `content` is the hash of what it is.
    """

    identity: str
    home: int | None
    genuine: bool
    said: str
    content: str


class Around(NamedTuple):
    """What is known of the places around. `last`: the highest; `until`: how many events there were, by somebody else's word.

    `begins`: places and homes before it were told of earlier. `gaps`: first to last of places where nothing stands, which is
    told; they may be of any length. `never_decided`: what stands there, in its place by its id, was told to be inserted.
    """

    last: int
    until: int
    begins: int
    gaps: Sequence[tuple[int, int]]
    never_decided: Callable[[int], bool]


def tell(placed: dict[int, Placed], around: Around, expected_id: Callable[[int], str], report: Report) -> int:
    """Tell of what stands out of place; return the highest number of an event that was decided."""
    found = _Places(placed, around, report)
    found.tell_circles()
    for place in sorted(placed):
        found.tell_claim(place)
    strangers = sorted(place for place, one in placed.items() if one.home is None)
    overwritten = {place for place in strangers if found.is_overwritten(place)}
    for run in _runs(place for place in strangers if place not in overwritten):
        report(Kind.INSERTED, f"{span(*run)}: eventId", expected_id(run[0]), placed[run[0]].identity)
    for place in sorted(overwritten):
        report(Kind.IDENTITY, f"event {place}: eventId", expected_id(place), placed[place].identity)
    highest = max([found.known, *overwritten])
    for run in _runs(home for home in found.vacant(highest) if home not in overwritten):
        instead = placed.get(run[0])
        there = "absent" if instead is None or instead.home is None else f"event {instead.home} in its place"
        report(Kind.MISSING, span(*run), "stored", there)
    return highest


class _Places:
    def __init__(self, placed: dict[int, Placed], around: Around, report: Report) -> None:
        self._placed = placed
        self._around = around
        self._report = report
        self._claims: dict[int, list[int]] = {}
        for place in sorted(placed):
            if (home := placed[place].home) is not None:
                self._claims.setdefault(home, []).append(place)
        # Of several with one home, the first that is whole.
        self._there = {
            home: next((place for place in places if placed[place].genuine), places[0])
            for home, places in self._claims.items()
        }
        self._last_of_ours = self._last(lambda place: place in placed and placed[place].home is not None)
        in_place = self._last(lambda place: False)
        # The highest number of an event that was decided: it is there, or somebody else says so.
        self.known = max([in_place, min(around.until, around.last), *self._claims])

    def _last(self, holds: Callable[[int], bool]) -> int:
        """Return the last place of which something holds, or where an event of ours stands in its place."""
        place, begins = self._around.last, self._around.begins
        while place > begins and not (holds(place) or self._in_place(place)):
            gap = self._gap_at(place - 1)
            place = place - 1 if gap is None else gap[0] - 1
        return max(place, begins)

    def _gap_at(self, place: int) -> tuple[int, int] | None:
        return next((gap for gap in self._around.gaps if gap[0] <= place <= gap[1]), None)

    def _in_place(self, home: int) -> bool:
        around = self._around
        inside = around.begins < home <= around.last
        return inside and home not in self._placed and not around.never_decided(home) and self._gap_at(home) is None

    def _is_there(self, home: int) -> bool:
        return home in self._claims or self._in_place(home)

    def is_overwritten(self, place: int) -> bool:
        """Return whether a stranger stands where an event of ours is to be, and is nowhere else."""
        # At the very end, and with nobody's word for how many there were, it is one of ours with another id.
        at_the_end = not self._around.until and place > self._last_of_ours
        return not self._is_there(place) and (place <= self.known or at_the_end)

    def vacant(self, highest: int) -> Iterator[int]:
        """Yield the homes nobody is there for, but for empty places, of which it is told already."""
        around = self._around
        beyond = range(around.last + 1, highest + 1)
        inside = (place for place in sorted(self._placed) if around.begins < place <= highest)
        for home in (*inside, *beyond):
            if not self._is_there(home):
                yield home

    def tell_circles(self) -> None:
        """Tell of those that stand in each other's place."""
        seen: set[int] = set()
        for start in sorted(self._placed):
            way: list[int] = []
            place: int | None = start
            while place is not None and place in self._placed and place not in seen:
                seen.add(place)
                way.append(place)
                place = self._placed[place].home
            if place in way:
                circle = sorted(way[way.index(place) :])
                self._report(Kind.SWAPPED, _named(circle), "each in its place", "each in the other's place")

    def tell_claim(self, place: int) -> None:
        """Tell of one that is a copy, changed, or was never decided."""
        one = self._placed[place]
        if one.home is None:
            return
        if not self._in_place(one.home) and self._there[one.home] == place:
            if not one.genuine:
                found = f"content of hash {one.content}, as event {place}"
                self._report(Kind.CHANGED, f"event {one.home}", f"content of hash {one.said}", found)
        elif one.genuine:
            self._report(Kind.DUPLICATED, span(one.home, one.home), "once", f"again as event {place}")
        else:
            told = f"the id of event {one.home}, which is there"
            self._report(Kind.INSERTED, span(place, place), "what was decided", told)


def _named(places: list[int]) -> str:
    if len(places) == 2:
        return f"events {places[0]} and {places[1]}"
    if len(places) <= NAMED_MAX:
        return f"events {', '.join(str(place) for place in places[:-1])} and {places[-1]}"
    return span(places[0], places[-1])


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of numbers without a gap."""
    for _, group in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        yield run[0], run[-1]
