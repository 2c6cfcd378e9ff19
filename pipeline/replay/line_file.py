"""A file of lines that is there only where there are such: what one partition has to say, and nobody reads meanwhile."""

from pathlib import Path
from typing import Self, TextIO


class LineFile:
    """Made with the first line that is written into it."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, line: str) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = (self._folder / self._name).open("w", encoding="utf-8")
        self._file.write(f"{line}\n")
