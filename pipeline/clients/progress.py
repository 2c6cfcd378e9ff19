"""How far a subscriber has come with each incident. Stored after an event was handled, so it may fall behind, never ahead.

`Progress` is the port, and a place of your own fits as well. On Lambda only what is kept elsewhere outlives the machine:
`TableProgress`, next door in `table`.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Final, Protocol

_LINES_PER_INCIDENT_MAX: Final = 8
_LINES_MIN: Final = 10_000
INCIDENTS_MAX: Final = 100_000


class Progress(Protocol):
    """The last sequence that was handled of each incident; nothing is ever skipped.

    Of an incident that is forgotten everything comes again, and only from a history: delivered it is not any more, and
    without a history its next event waits for good. One that forgets with its process says so by `forgets = True`.
    """

    def position(self, incident_id: str) -> int:
        """Return the last sequence that was handled; 0 for none."""
        ...

    def advance(self, incident_id: str, sequence: int) -> None:
        """Store that all up to `sequence` was handled; never move back."""
        ...


class MemoryProgress:
    """As long as this process lives: for one that reads the history at its start, or may lose what it knew.

    Beyond `incidents_max` (some 20 MB as it stands) the incident that has not moved for longest is forgotten.
    """

    forgets = True

    def __init__(self, incidents_max: int = INCIDENTS_MAX) -> None:
        if incidents_max < 1:
            raise ValueError(f"incidents_max is at least 1, not {incidents_max}")
        self._positions: OrderedDict[str, int] = OrderedDict()
        self._max = incidents_max

    def position(self, incident_id: str) -> int:
        return self._positions.get(incident_id, 0)

    def advance(self, incident_id: str, sequence: int) -> None:
        self._positions[incident_id] = max(sequence, self.position(incident_id))
        self._positions.move_to_end(incident_id)
        if len(self._positions) > self._max:
            self._positions.popitem(last=False)


class FileProgress:
    """A file of one process: a line for each step, read again at the start and written anew when it has grown.

    A line that a crash cut off is a step forgotten: that event is handled again. No incident is forgotten: a million are
    some 40 MB of file, and several times that in memory. It lasts as long as its disk: on Lambda, /tmp ends with the
    machine.
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
