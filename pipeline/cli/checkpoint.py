"""How far a run has come, kept so that one that was broken off goes on where it stopped: `opx send`, `opx republish`.

One small file per question, replaced whole. A torn, foreign or missing one means: from the start, which is harmless: it
only sends again what has its effect once. Never holds a message or an event.
"""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, TypeVar

from pipeline.domain.canonical import Document, digest

VERSION: Final = 1

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How what a kind of run has come to is written. `read` raises ValueError, KeyError, TypeError or AttributeError."""

    kind: str
    write: Callable[[T], Document]
    read: Callable[[Document], T]


@dataclass(frozen=True, slots=True)
class Checkpoint(Generic[T]):
    path: Path
    key: str
    form: Form[T]

    @classmethod
    def of(cls, form: Form[T], folder: Path, facts: Iterable[object]) -> "Checkpoint[T]":
        """Return the checkpoint of one question, told apart by its kind and facts, such as content, target and options."""
        key = digest([form.kind, *facts])
        return cls(folder / f"{key[:32]}.json", key, form)

    def read(self) -> T | None:
        """Return how far an earlier run came, or None where there is nothing that can be trusted."""
        try:
            said = json.loads(self.path.read_text(encoding="utf-8"))
            if said.pop("version") != VERSION or said.pop("key") != self.key:
                return None
            return self.form.read(said)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, reached: T) -> None:
        """Keep how far a run has come, wholly or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_suffix(f".{os.getpid()}.new")
        said = {"version": VERSION, "key": self.key, **self.form.write(reached)}
        fresh.write_text(json.dumps(said), encoding="utf-8")
        fresh.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
