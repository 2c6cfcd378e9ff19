"""How far a file has been sent, kept so that a broken-off `opx send` goes on where it stopped.

One small file per (content, target, options). A torn, foreign or missing one means: from the start, which is harmless, since
every message's effect is idempotent. Never holds a message.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pipeline.domain.canonical import digest

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """`position` lines (in sending order) are settled; `days` is by how much they were moved to now, if they were."""

    position: int = 0
    sent: int = 0
    sent_bytes: int = 0
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    key: str

    @classmethod
    def of(cls, folder: Path, facts: Iterable[object]) -> "Checkpoint":
        """Return the checkpoint of one sending, told apart by content, target and options."""
        key = digest(["send/1", *facts])
        return cls(folder / f"{key[:32]}.json", key)

    def read(self) -> Progress | None:
        """Return the progress of an earlier run, or None where there is none that can be trusted."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(said, dict) or said.pop("version", None) != VERSION or said.pop("key", None) != self.key:
            return None
        try:
            progress = Progress(**said)
        except TypeError:
            return None
        counts = (progress.position, progress.sent, progress.sent_bytes)
        if not all(type(count) is int and count >= 0 for count in counts) or type(progress.days) not in (int, type(None)):
            return None
        return progress

    def write(self, progress: Progress) -> None:
        """Keep the progress, wholly or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps({"version": VERSION, "key": self.key, **asdict(progress)}), encoding="utf-8")
        fresh.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
