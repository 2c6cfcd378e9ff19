"""How far a subscriber has come with each incident. Stored after an event was handled, so it may fall behind, never ahead.

`Progress` is the port: a table or cache of your own fits as well, and is the only thing that outlives a Lambda's machine.
"""

from pathlib import Path
from typing import Final, Protocol

_LINES_PER_INCIDENT_MAX: Final = 8
_LINES_MIN: Final = 10_000


class Progress(Protocol):
    """The last sequence that was handled of each incident. What it forgets is handled again, never skipped."""

    def position(self, incident_id: str) -> int:
        """Return the last sequence that was handled; 0 for none."""
        ...

    def advance(self, incident_id: str, sequence: int) -> None:
        """Store that all up to `sequence` was handled; never move back."""
        ...


class MemoryProgress:
    """As long as this process lives."""

    def __init__(self) -> None:
        self._positions: dict[str, int] = {}

    def position(self, incident_id: str) -> int:
        return self._positions.get(incident_id, 0)

    def advance(self, incident_id: str, sequence: int) -> None:
        self._positions[incident_id] = max(sequence, self.position(incident_id))


class FileProgress:
    """A file of one process: a line for each step, read again at the start and written anew when it has grown.

    A line that a crash cut off is a step forgotten: that event is handled again.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._positions: dict[str, int] = {}
        self._lines = 0
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
                self._read(line)
        self._rewrite()

    def position(self, incident_id: str) -> int:
        return self._positions.get(incident_id, 0)

    def advance(self, incident_id: str, sequence: int) -> None:
        if sequence <= self.position(incident_id):
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{incident_id} {sequence}\n")
        self._positions[incident_id] = sequence
        self._lines += 1
        if self._lines > max(_LINES_MIN, _LINES_PER_INCIDENT_MAX * len(self._positions)):
            self._rewrite()

    def _read(self, line: str) -> None:
        incident_id, _, sequence = line.removesuffix("\n").rpartition(" ")
        if line.endswith("\n") and incident_id and sequence.isascii() and sequence.isdigit():
            self._positions[incident_id] = max(int(sequence), self.position(incident_id))

    def _rewrite(self) -> None:
        """Write one line an incident: beside the file, then over it, so that a crash leaves the old or the new one."""
        beside = self._path.with_name(f"{self._path.name}.new")
        beside.write_text("".join(f"{name} {at}\n" for name, at in self._positions.items()), encoding="utf-8")
        beside.replace(self._path)
        self._lines = len(self._positions)
