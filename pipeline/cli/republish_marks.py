"""How far a republication has come, kept so that a broken-off `opx republish` goes on where it stopped.

One small file per (target, question). A torn, foreign or missing one means: from the start, which only sends again. Never
holds an event.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.domain.canonical import digest
from pipeline.services.republish import Marks

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class MarksFile:
    path: Path
    key: str

    @classmethod
    def of(cls, folder: Path, facts: Iterable[object]) -> "MarksFile":
        """Return the file of one republication, told apart by target and question."""
        key = digest(["republish/1", *facts])
        return cls(folder / f"{key[:32]}.json", key)

    def read(self) -> Marks | None:
        """Return the marks of an earlier run, or None where there are none that can be trusted."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
            if said["version"] != VERSION or said["key"] != self.key:
                return None
            return _marks(said)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, marks: Marks) -> None:
        """Keep the marks, wholly or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        counts = {name: getattr(marks, name) for name in _COUNTS}
        where = {"places": {part: list(place) for part, place in marks.places.items()}, "done": sorted(marks.done)}
        fresh.write_text(json.dumps({"version": VERSION, "key": self.key, **where, **counts}), encoding="utf-8")
        fresh.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


_COUNTS: Final = ("examined", "published", "failed")


def _marks(said: Any) -> Marks:
    """Read marks; raise ValueError or TypeError where these are none."""
    places = {part: (incident, sequence) for part, (incident, sequence) in said["places"].items()}
    if not all(isinstance(incident, str) and type(sequence) is int for incident, sequence in places.values()):
        raise ValueError("a place is an incident and a sequence")
    if not all(isinstance(part, str) for part in said["done"]):
        raise ValueError("a part is named by text")
    counts = [said[name] for name in _COUNTS]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("counts are numbers from 0")
    return Marks(places, set(said["done"]), *counts)
