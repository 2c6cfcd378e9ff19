"""A DynamoDB export on disk: what its manifest says, and its files spread into partitions. Never trusts a file unseen.

An export to S3 is a folder with two manifests and gzipped files of DynamoDB-JSON, one item a line. Three tables exported at
one point in time are what a replay compares; other points in time would show what was written between as damage.
"""

import io
import json
from base64 import b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import md5
from itertools import islice
from pathlib import Path
from typing import Any, Final

from isal import igzip, igzip_lib

from pipeline.domain.canonical import INTEGER_MAX
from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.replay.alone import check_alone
from pipeline.replay.lines import quick_event_key
from pipeline.replay.ranks import PLACES, Rank, Table
from pipeline.replay.spill import SpillWriter
from pipeline.replay.workers import Beat

SUMMARY: Final = "manifest-summary.json"
FILES: Final = "manifest-files.json"
# Lines between two looks at whether to go on.
AT_A_TIME: Final = 5_000
READ_BYTES: Final = 1024 * 1024
LINES_BYTES: Final = 64 * 1024
UNREADABLE_MAX: Final = 1000
SHOWN_MAX: Final = 120


class ExportError(Exception):
    """An export that can't be used, and why."""


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of an export, as its manifest has it."""

    path: Path
    items: int
    md5: str | None


@dataclass(frozen=True, slots=True)
class Export:
    """One table's export."""

    folder: Path
    table: Table
    exported_at: str
    items: int
    files: tuple[DataFile, ...]
    # The account, region and prefix of the table.
    stack: str = ""


def find_exports(folders: Iterable[Path]) -> dict[Table, Export]:
    """Return the exports that lie under the folders, one for each table. Raises `ExportError` naming what is wrong."""
    found: dict[Table, Export] = {}
    for folder in folders:
        try:
            summaries = sorted(folder.rglob(SUMMARY)) if folder.is_dir() else []
        except OSError as error:
            raise ExportError(f"{folder}: can't be read: {error.strerror}") from None
        if not summaries:
            raise ExportError(f"{folder}: no export is there (no {SUMMARY})")
        for summary in summaries:
            export = _export(summary.parent)
            if export.table in found:
                raise ExportError(
                    f"two exports of the table {export.table.value}: {found[export.table].folder}, {summary.parent}"
                )
            found[export.table] = export
    if Table.EVENTS not in found:
        raise ExportError("the event table's export is missing: without events there is nothing to replay")
    if len(stacks := {export.stack for export in found.values()}) > 1:
        raise ExportError(f"the exports are of several stacks: {', '.join(sorted(stacks))}")
    moments = {export.exported_at for export in found.values()}
    if len(moments) > 1:
        raise ExportError(
            f"the exports are of different points in time ({', '.join(sorted(moments))}): "
            "export all three with one --export-time, or give the event table's alone"
        )
    return found


def _export(folder: Path) -> Export:
    at = str(folder / SUMMARY)
    summary = _manifest(_read(folder / SUMMARY), at)
    arn = _text(summary, "tableArn", "", at)
    table = next((one for one in Table if arn.endswith(f"-{one.value}")), None)
    if table is None:
        raise ExportError(f"{folder}: the table {arn or 'without a name'} is none of opx's three")
    if (form := _text(summary, "outputFormat", "DYNAMODB_JSON", at)) != "DYNAMODB_JSON":
        raise ExportError(f"{folder}: the format is {form}; export as DYNAMODB_JSON")
    if (kind := _text(summary, "exportType", "FULL_EXPORT", at)) != "FULL_EXPORT":
        raise ExportError(f"{folder}: an incremental export ({kind}) is no whole table; make a full one")
    files = tuple(_data_files(folder))
    items = sum(one.items for one in files)
    if "itemCount" in summary and (said := _count(summary, at)) != items:
        raise ExportError(f"{folder}: {SUMMARY} says {said} items, {FILES} {items}")
    exported_at = _text(summary, "exportTime", "", at)
    return Export(folder, table, exported_at, items, files, arn.removesuffix(f"-{table.value}"))


def _data_files(folder: Path) -> Iterator[DataFile]:
    seen: set[str] = set()
    for number, line in enumerate(_read(folder / FILES).split("\n"), start=1):
        if not line.strip():
            continue
        at = f"{folder / FILES}, line {number}"
        told = _manifest(line, at)
        name, items = Path(_text(told, "dataFileS3Key", None, at)).name, _count(told, at)
        if name in seen:
            raise ExportError(f"{folder}: {FILES} names data/{name} twice")
        seen.add(name)
        path = folder / "data" / name
        try:
            there = path.is_file()
        except OSError as error:
            raise ExportError(f"{at}: a file of this name can't be read: {error.strerror}") from None
        if not there:
            raise ExportError(f"{folder}: the file data/{name} is missing: was the export copied whole?")
        yield DataFile(path, items, _text(told, "md5Checksum", None, at) if "md5Checksum" in told else None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ExportError(f"{path}: can't be read: {error}") from None


def _manifest(text: str, at: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{at}: can't be read: {error}") from None
    if not isinstance(document, dict):
        raise ExportError(f"{at}: no manifest")
    return document


def _text(manifest: dict[str, Any], name: str, default: str | None, at: str) -> str:
    found = manifest.get(name, default)
    if not isinstance(found, str) or not found.isprintable():
        raise ExportError(f"{at}: {name} is {_shown(found)}, where a text is expected")
    return found


def _count(manifest: dict[str, Any], at: str) -> int:
    found = manifest.get("itemCount")
    if type(found) is not int or not 0 <= found <= INTEGER_MAX:
        raise ExportError(f"{at}: itemCount is {_shown(found)}, where a number of items is expected")
    return found


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{ascii(value)[:SHOWN_MAX]}" if not isinstance(value, dict | list) else "nested"


@contextmanager
def opened(file: DataFile) -> Iterator[Iterable[bytes]]:
    """Open a file of an export and give its lines. Raises `ExportError` where it can't be read or is damaged."""
    try:
        with (
            _raw(file.path) as raw,
            igzip.open(raw, "rb") as unpacked,  # type: ignore[no-untyped-call]
            # Its own lines are made by Python, these are not.
            io.BufferedReader(unpacked, LINES_BYTES) as lines,
        ):
            yield lines
    except (EOFError, igzip_lib.IsalError, igzip.BadGzipFile) as error:  # type: ignore[misc] # its type stub has it as a variable
        raise ExportError(f"{file.path}: damaged: {error}") from None


class _RawFile(io.FileIO):
    """A file whose failure is the export's: an `OSError` of what is written meanwhile must not be taken for one."""

    def readinto(self, buffer: Any) -> int | None:
        try:
            return super().readinto(buffer)
        except OSError as error:
            raise ExportError(f"{self.name}: can't be read: {error.strerror}") from None


def _raw(path: Path) -> _RawFile:
    try:
        return _RawFile(path)
    except OSError as error:
        raise ExportError(f"{path}: can't be read: {error.strerror}") from None


@dataclass(slots=True)
class Spread:
    """What came of spreading: how many items, and what of them could not be placed."""

    items: int = 0
    alone: int = 0
    found: list[Divergence] = field(default_factory=list)
    unreadable: int = 0

    def add(self, other: "Spread") -> None:
        self.items += other.items
        self.alone += other.alone
        self.unreadable += other.unreadable
        self.found += other.found[: UNREADABLE_MAX - len(self.found)]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where entries go: those of incidents, and those of pointers; cut by so many digits of their keys."""

    events: Path
    pointers: Path
    digits: int = 2


def spread_files(
    files: tuple[tuple[Table, DataFile], ...], folders: Folders, name: str, only: frozenset[bytes] | None, beat: Beat
) -> Spread:
    """Spread files of exports, one after the other. Raises `ExportError` where one is not the file of its manifest."""
    spread = Spread()
    with (
        SpillWriter(folders.events, name, folders.digits) as incidents,
        SpillWriter(folders.pointers, name, folders.digits) as pointers,
    ):
        for table, file in files:
            _check_md5(file)
            before = spread.items
            spreading = Spreading(table, incidents, pointers, only, spread)
            with opened(file) as lines:
                spreading.place_all(lines, beat)
            if (found := spread.items - before) != file.items:
                raise ExportError(f"{file.path}: {found} items, where the manifest says {file.items}")
    return spread


class Spreading:
    """Puts a table's lines where they belong, and counts them in `spread`. `only`: leaves out what is of other incidents."""

    def __init__(
        self,
        table: Table,
        incidents: SpillWriter,
        pointers: SpillWriter,
        only: frozenset[bytes] | None,
        spread: Spread,
    ) -> None:
        self.table = table
        self.spread = spread
        self._place_of = PLACES[table]
        self._incidents = incidents
        self._pointers = pointers
        self._only = only

    def place_all(self, lines: Iterable[bytes], beat: Beat) -> None:
        """Put a file's lines where they belong."""
        waiting = iter(lines)
        quick = self.table is Table.EVENTS and self._only is None
        while placed := (self._place_events if quick else self._place_some)(islice(waiting, AT_A_TIME)):
            beat(placed)

    def _place_some(self, lines: Iterable[bytes]) -> int:
        number = 0
        for line in lines:
            self.place(line.rstrip(b"\r\n"))
            number += 1
        return number

    def _place_events(self, lines: Iterable[bytes]) -> int:
        # The events are most of what there is: what the others need is not asked for each of them.
        put, number, others = self._incidents.put, 0, 0
        for line in lines:
            keys = quick_event_key(line)
            if keys is None:
                self.place(line.rstrip(b"\r\n"))
                others += 1
            else:
                put(*keys, Rank.EVENT, line)
                number += 1
        self.spread.items += number
        return number + others

    def place(self, line: bytes) -> None:
        """Put one item's line where it belongs, or check it here where it is of no incident.

        One that is none is told, beyond the first thousand only counted, and stops nothing.
        """
        spread, only = self.spread, self._only
        spread.items += 1
        try:
            place = self._place_of(line)
            if place is None:
                spread.alone += 1
                if only is None:
                    check_alone(line)
            elif only is None or (place[0] in only and not place[3]):
                key, number, rank, is_pointer = place
                (self._pointers if is_pointer else self._incidents).put(key, number, rank, line)
        except (Corrupt, Unavailable, ArithmeticError) as error:
            spread.unreadable += 1
            if len(spread.found) < UNREADABLE_MAX:
                where = f"an item of {self.table.value}: {line[:SHOWN_MAX].decode('utf-8', 'replace')}"
                spread.found.append(Divergence("", Kind.UNREADABLE, where, "readable", str(error)))


def _check_md5(file: DataFile) -> None:
    if file.md5 is None:
        return
    digest = md5(usedforsecurity=False)
    block = memoryview(bytearray(READ_BYTES))
    with _raw(file.path) as raw:
        while size := raw.readinto(block):
            digest.update(block[:size])
    if (found := b64encode(digest.digest()).decode()) != file.md5:
        raise ExportError(f"{file.path}: the checksum is {found}, where the manifest says {file.md5}")
