"""Lines on disk, cut into partitions by their key and given back in order: what makes a replay's memory constant.

A line goes to one of 16 or 256 files by the first digits of its key, which are as good as random. Each partition is then
read in the order of its keys; what is too large to be sorted in memory is sorted in runs, which are merged.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from itertools import groupby
from operator import itemgetter, methodcaller
from pathlib import Path
from typing import Final, NamedTuple, Self

# From so many lines on they go into 256 files, instead of 16: opening files is most of the work where there is little else.
MANY: Final = 60_000
# What is sorted in memory at once; as Python objects it takes about twice that.
RUN_BYTES_MAX: Final = 4 * 1024 * 1024
# What all of a writer's open partitions together hold back, so that it is the same for few and for many of them.
WRITE_BUFFERS_BYTES: Final = 4 * 1024 * 1024
READ_BUFFER_BYTES: Final = 256 * 1024
# As many of these as there are runs are open at once.
RUN_BUFFER_BYTES: Final = 32 * 1024
# Runs that are read at once; what is more is merged in rounds.
MERGED_MAX: Final = 64


class Entry(NamedTuple):
    """One line: whose, at which place of theirs, of what kind, and what it says."""

    key: bytes
    place: int
    rank: int
    line: bytes


# An entry as it is read: its key, place and rank in digits, its line. No object is made of it, as most are read once.
RawEntry = list[bytes]


class SpillWriter:
    """Writes entries into partitions under a folder; `name` tells its writers apart, `digits` is the same for all."""

    def __init__(self, folder: Path, name: str, digits: int = 2) -> None:
        self.folder = folder
        self.name = name
        self.digits = digits
        self._files = ExitStack()
        self._writes: dict[bytes, Callable[[bytes], int]] = {}

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._writes.clear()
        self._files.close()

    def put(self, key: bytes, place: int, rank: int, line: bytes) -> None:
        """Keep a line, with its end or without. `key` begins with two hexadecimal digits.

        Equal keys come back together, by place, then rank.
        """
        part = key[: self.digits]
        write = self._writes.get(part) or self._opened(part)
        write(key + _mark(place, rank) + (line if line.endswith(b"\n") else line + b"\n"))

    def _opened(self, part: bytes) -> Callable[[bytes], int]:
        path = self.folder / f"{part.decode()}.{self.name}"
        file = self._files.enter_context(path.open("ab", buffering=WRITE_BUFFERS_BYTES >> (4 * self.digits)))
        self._writes[part] = file.write
        return file.write


@lru_cache(maxsize=4096)
def _mark(place: int, rank: int) -> bytes:
    return b" %016d %d " % (place, rank)


def digits_for(lines: int) -> int:
    """Return by how many digits of their keys so many lines are best cut."""
    return 2 if lines >= MANY else 1


def partitions(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the files of each partition, in the order of partitions."""
    if not folder.is_dir():
        return {}
    named = sorted(path for path in folder.iterdir() if path.is_file())
    return {part: tuple(files) for part, files in groupby(named, key=lambda path: path.name.partition(".")[0])}


def by_key(
    files: Iterable[Path], scratch: Path, run_bytes: int = RUN_BYTES_MAX
) -> Iterator[tuple[bytes, Iterator[RawEntry]]]:
    """Yield a partition's keys in order, each with its entries by place and rank. `scratch` is a folder of the caller's own.

    A line keeps its end, which no reader of JSON minds.
    """
    return groupby(map(_FIELDS_OF, _in_order(files, scratch, run_bytes)), key=_KEY_OF)


_FIELDS_OF: Final = methodcaller("split", b" ", 3)
_KEY_OF: Final = itemgetter(0)


def entry_of(raw: RawEntry) -> Entry:
    """Return an entry that was read."""
    key, place, rank, line = raw
    return Entry(key, int(place), int(rank), line)


def _in_order(files: Iterable[Path], scratch: Path, run_bytes: int) -> Iterator[bytes]:
    runs: list[Path] = []
    held: list[bytes] = []
    size = 0
    for path in files:
        with path.open("rb", buffering=READ_BUFFER_BYTES) as file:
            while lines := file.readlines(run_bytes - size):
                held += lines
                size += sum(map(len, lines))
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
    with path.open("wb", buffering=READ_BUFFER_BYTES) as file:
        file.writelines(lines)
    return path


def _merged(runs: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of sorted runs in order, and remove the runs."""
    runs = tuple(runs)
    with ExitStack() as stack:
        yield from heapq.merge(*(stack.enter_context(path.open("rb", buffering=RUN_BUFFER_BYTES)) for path in runs))
    for path in runs:
        path.unlink()
