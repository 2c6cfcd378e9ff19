"""The marks of a republication as its checkpoint holds them: places and parts that are done, never an event."""

from typing import Final

from pipeline.cli.checkpoint import Form
from pipeline.domain.canonical import Document
from pipeline.services.republish import Marks

_COUNTS: Final = ("examined", "published", "failed")


def _document(marks: Marks) -> Document:
    places = {part: list(place) for part, place in marks.places.items()}
    counts = {name: getattr(marks, name) for name in _COUNTS}
    return {"places": places, "done": sorted(marks.done), **counts}


def _marks(said: Document) -> Marks:
    places = {part: (incident, sequence) for part, (incident, sequence) in said["places"].items()}
    if not all(isinstance(incident, str) and type(sequence) is int for incident, sequence in places.values()):
        raise ValueError("a place is an incident and a sequence")
    if not all(isinstance(part, str) for part in said["done"]):
        raise ValueError("a part is named by text")
    counts = [said[name] for name in _COUNTS]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("counts are numbers from 0")
    return Marks(places, set(said["done"]), *counts)


MARKS: Final = Form("republish/1", _document, _marks)
