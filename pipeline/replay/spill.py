"""Lines on disk, cut into partitions by their key and given back in order: what makes a replay's memory constant.

A line goes to one of 16 or 256 files by the first digits of its key, which are as good as random. Each partition is then
read in the order of its keys; what is too large to be sorted in memory is sorted in runs, which are merged.
"""

import heapq
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Self

# From so many lines on they go into 256 files, instead of 16: opening files is most of the work where there is little else.
MANY: Final = 60_000
# What is sorted in memory at once; as Python objects it takes about twice that.
RUN_BYTES_MAX: Final = 4 * 1024 * 1024
# As many of these as there are partitions are open in each process that writes.
BUFFER_BYTES: Final = 8 * 1024
# Runs that are read at once; what is more is merged in rounds.
MERGED_MAX: Final = 64


class Entry(NamedTuple):
    """One line: whose, at which place of theirs, of what kind, and what it says."""

    key: bytes
    place: int
    rank: int
    line: bytes


class SpillWriter:
    """Writes entries into partitions under a folder; `name` tells its writers apart, `digits` is the same for all."""

    def __init__(self, folder: Path, name: str, digits: int = 2) -> None:
        self.folder = folder
        self.name = name
        self.digits = digits
        self._files: dict[bytes, BinaryIO] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def put(self, key: bytes, place: int, rank: int, line: bytes) -> None:
        """Keep a line. `key` begins with two hexadecimal digits; equal keys come back together, by place, then rank."""
        part = key[: self.digits]
        file = self._files.get(part)
        if file is None:
            path = self.folder / f"{part.decode()}.{self.name}"
            file = self._files[part] = path.open("ab", buffering=BUFFER_BYTES)
        file.write(b"%b %016d %d %b\n" % (key, place, rank, line))


def digits_for(lines: int) -> int:
    """Return by how many digits of their keys so many lines are best cut."""
    return 2 if lines >= MANY else 1


def partitions(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of each partition, in the order of partitions."""
    if not folder.is_dir():
        return {}
    named = sorted(path for path in folder.iterdir() if path.is_file())
    return {part: tuple(files) for part, files in groupby(named, key=lambda path: path.name.partition(".")[0])}


def entries(files: Iterable[Path], scratch: Path, run_bytes: int = RUN_BYTES_MAX) -> Iterator[Entry]:
    """Yield a partition's entries in order: by key, place and rank. `scratch` is a folder of the caller's own.

    A line keeps its end, which no reader of JSON minds.
    """
    for raw in _in_order(files, scratch, run_bytes):
        key, place, rank, line = raw.split(b" ", 3)
        yield Entry(key, int(place), int(rank), line)


def _in_order(files: Iterable[Path], scratch: Path, run_bytes: int) -> Iterator[bytes]:
    runs: list[Path] = []
    held: list[bytes] = []
    size = 0
    for path in files:
        with path.open("rb") as file:
            for raw in file:
                held.append(raw)
                size += len(raw)
                if size >= run_bytes:
                    runs.append(_written(sorted(held), scratch, len(runs)))
                    held, size = [], 0
    held.sort()
    if not runs:
        yield from held
        return
    runs.append(_written(held, scratch, len(runs)))
    del held
    made = len(runs)
    while len(runs) > MERGED_MAX:
        merged, runs = runs[:MERGED_MAX], runs[MERGED_MAX:]
        runs.append(_written(_merged(merged), scratch, made))
        made += 1
    yield from _merged(runs)


def _written(lines: Iterable[bytes], scratch: Path, number: int) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / f"run-{number}"
    with path.open("wb") as file:
        file.writelines(lines)
    return path


def _merged(runs: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of sorted runs in order, and remove the runs."""
    runs = tuple(runs)
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context(path.open("rb", buffering=BUFFER_BYTES)) for path in runs))
    for path in runs:
        path.unlink()
