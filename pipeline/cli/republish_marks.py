"""The marks of a republication as its checkpoint holds them: places, numbers, and parts that are done, never an event.

And up to when a run went that was asked for everything from a time on: the next one of the same question goes on by that.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from pipeline.cli.checkpoint import Form
from pipeline.domain.canonical import Document, format_time, parse_time
from pipeline.services.republish import Marks, Place
from pipeline.services.stored_events import ranges_of

_COUNTS: Final = ("examined", "published", "failed")


def _document(marks: Marks) -> Document:
    places = {part: list(place) for part, place in marks.places.items()}
    counts = {name: getattr(marks, name) for name in _COUNTS}
    settled = {part: _ranges(found) for part, found in marks.settled.items()}
    return {"places": places, "done": sorted(marks.done)} | ({"settled": settled} if settled else {}) | counts


def _ranges(places: Iterable[Place]) -> dict[str, list[list[int]]]:
    """Return numbers by their incident, as ranges: a page holds many."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for incident, sequence in places:
        numbers[incident].append(sequence)
    return {incident: [list(ends) for ends in ranges_of(found)] for incident, found in numbers.items()}


def _settled(said: Any) -> set[Place]:
    found: set[Place] = set()
    for incident, ranges in said.items():
        for first, last in ranges:
            if type(first) is not int or type(last) is not int:
                raise ValueError("a range is from one sequence to another")
            found |= {(incident, sequence) for sequence in range(first, last + 1)}
    return found


def _marks(said: Document) -> Marks:
    places = {part: (incident, sequence) for part, (incident, sequence) in said["places"].items()}
    if not all(isinstance(incident, str) and type(sequence) is int for incident, sequence in places.values()):
        raise ValueError("a place is an incident and a sequence")
    if not all(isinstance(part, str) for part in said["done"]):
        raise ValueError("a part is named by text")
    counts = [said[name] for name in _COUNTS]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("counts are numbers from 0")
    # Written before there was this, a file says nothing of it.
    settled = {part: _settled(found) for part, found in said.get("settled", {}).items()}
    return Marks(places, settled, set(said["done"]), *counts)


MARKS: Final = Form("republish/1", _document, _marks)
UNTIL: Final[Form[datetime]] = Form(
    "republish-until/1", lambda until: {"until": format_time(until)}, lambda said: parse_time(said["until"])
)
