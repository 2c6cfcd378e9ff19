"""What people and programs see: tables on a terminal, JSON lines elsewhere, errors that end with the next command.

Text that came from outside is only printed through `safe` (or as JSON): an incident's title must never move a cursor, hide
text, or be read as markup. Knows nothing of incidents; what is shown is said by the commands.
"""

import io
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from pipeline.domain.canonical import Document, canonical_bytes, normalise, parse_time

DONE: Final = 0
REFUSED: Final = 1
FAILED: Final = 2
INTERRUPTED: Final = 130
TERMINATED: Final = 143

# Below this many characters tables leave out what a reader can do without.
WIDE_CHARACTERS_MIN: Final = 110
FLOOR_CHARACTERS: Final = 24

_NO_SECONDS: Final = re.compile(r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d)([Zz]|[+-]\d\d:\d\d)", re.ASCII)

# Controls, and what reorders or hides text: bidirectional marks, separators, invisible operators, tags, surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_UNSAFE_BUT_LAYOUT: Final = re.compile("(?![\n\t])" + _UNSAFE.pattern)

SEVERITY_STYLES: Final = {"SEV1": "bold red", "SEV2": "red", "SEV3": "yellow", "SEV4": "dim"}
STATE_STYLES: Final = {
    "PENDING": "dim",
    "OPEN": "bold red",
    "MITIGATING": "yellow",
    "RESOLVED": "green",
    "CLOSED": "green",
    "CANCELLED": "dim",
    "ARCHIVED": "dim",
}


class CommandError(Exception):
    """The command did not do what was asked. `then` is the next command to try; `facts` are for programs alone."""

    def __init__(self, message: str, then: str, exit_code: int = FAILED, facts: Document | None = None) -> None:
        super().__init__(message)
        self.facts = facts or {}
        self.message = message
        self.then = then
        self.exit_code = exit_code


def ask(question: str) -> bool | None:
    """Ask the person for a yes or no (Enter is no); None where nobody sits at a terminal. Ctrl-C leaves at once."""
    if sys.stdin is None or not sys.stdin.isatty() or not sys.stderr.isatty():
        return None
    sys.stderr.write(f"{safe(question)} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


def time_of(text: str, option: str, command: str) -> datetime:
    """Read a time with a zone; seconds may be left out. Raises where it is none."""
    short = _NO_SECONDS.fullmatch(text)
    try:
        return parse_time(f"{short[1]}:00{short[2]}" if short else text)
    except ValueError:
        message = f"{option} {text} is not a time with a zone, such as 2026-01-31T03:00Z."
        raise CommandError(message, f"{command} --help", REFUSED) from None


def safe(text: object, *, lines: bool = False) -> str:
    """Return text that no terminal obeys: each dangerous character spelled out. `lines` keeps line ends and tabs."""
    pattern = _UNSAFE_BUT_LAYOUT if lines else _UNSAFE
    return pattern.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), str(text))


def json_line(value: Any) -> str:
    """Return a document as one line of canonical JSON that is safe on a terminal, too."""
    line = canonical_bytes(normalise(value)).decode("utf-8", "surrogatepass")
    return _UNSAFE.sub(lambda found: _json_escape(found[0]), line)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[index] << 8 | units[index + 1]:04x}" for index in range(0, len(units), 2))


def cell(value: object, style: str = "") -> Text:
    """Return outside text as a table cell or part of a line: never markup, never control characters."""
    return Text(safe(value), style=style)


def state_cell(state: str) -> Text:
    return cell(state, STATE_STYLES.get(state, ""))


def severity_cell(severity: str) -> Text:
    return cell(severity, SEVERITY_STYLES.get(severity, ""))


@dataclass(frozen=True)
class Column:
    """A table's column. What may wrap gives way first on a narrow terminal; nothing goes below `floor` while that helps."""

    title: str
    style: str = ""
    right: bool = False
    wrap: bool = False
    floor: int = FLOOR_CHARACTERS
    cap: int | None = None


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[Text]], room: int) -> list[int]:
    """Return each column's width, so that together they take `room` characters at most."""

    def natural(index: int, column: Column) -> int:
        widest = max((line.cell_len for row in rows for line in row[index].split()), default=0)
        return max(1, len(column.title), min(widest, room, column.cap or room))

    widths = [natural(index, column) for index, column in enumerate(columns)]
    while sum(widths) > room and max(widths) > 1:
        ranks = [(width > columns[at].floor, columns[at].wrap, width, at) for at, width in enumerate(widths)]
        # Below the floors the widest gives way, whichever it is.
        *_, at = max(rank if rank[0] else (False, False, *rank[2:]) for rank in ranks)
        widths[at] -= 1
    return widths


def _console(*, stderr: bool) -> Console:
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=False)


@dataclass(frozen=True)
class Screen:
    """Where a command writes. `as_json`: one JSON document a line on standard output, nothing else there."""

    as_json: bool
    out: Console = field(default_factory=lambda: _console(stderr=False))
    err: Console = field(default_factory=lambda: _console(stderr=True))

    @classmethod
    def of(cls, as_json: bool) -> "Screen":
        if sys.stdout is None:
            # Closed by the caller (`>&-`): what is written goes nowhere.
            sys.stdout = io.StringIO()
        return cls(as_json or not sys.stdout.isatty())

    @property
    def is_wide(self) -> bool:
        return self.out.width >= WIDE_CHARACTERS_MIN

    def record(self, document: Document) -> None:
        """Write one document for programs."""
        self.out.file.write(json_line(document) + "\n")
        self.out.file.flush()

    def say(self, line: str | Text = "", style: str = "") -> None:
        """Write a line for people; programs don't see it."""
        if not self.as_json:
            self.out.print(line if isinstance(line, Text) else Text(line, style=style))

    def notice(self, line: str) -> None:
        """Write a line beside the result, for programs and people: to standard error."""
        if self.as_json:
            self.err.file.write(json_line({"notice": line}) + "\n")
            self.err.file.flush()
            return
        self.err.print(Text(safe(line), style="dim"))

    def next(self, *commands: str) -> None:
        """Say what to try next."""
        for index, command in enumerate(commands):
            self.say(Text.assemble(("Next: " if index == 0 else "      ", "dim"), (safe(command), "bold")))

    def table(self, columns: Sequence[Column], rows: Iterable[Sequence[Text]], title: str = "") -> None:
        """Write a table for people."""
        if self.as_json:
            return
        gap = 1 if self.is_wide else 0
        table = Table(
            box=SIMPLE_HEAD,
            title=cell(title, "bold") if title else None,
            title_justify="left",
            padding=(0, gap, 0, 0),
            show_edge=False,
        )
        shown = list(rows)
        # Beside its gap each column has the box's own separator.
        room = self.out.width - len(columns) * (gap + 1)
        for column, width in zip(columns, _widths(columns, shown, room), strict=True):
            table.add_column(
                column.title,
                style=column.style or None,
                justify="right" if column.right else "left",
                width=width,
                no_wrap=not column.wrap,
                overflow="fold" if column.wrap else "ellipsis",
            )
        for row in shown:
            table.add_row(*row)
        self.out.print(table)
        self.out.print()

    def fail(self, error: CommandError) -> None:
        """Write an error, ending with the next command to try, to standard error."""
        if self.as_json:
            self.err.file.write(json_line({**error.facts, "error": error.message, "next": error.then}) + "\n")
            self.err.file.flush()
            return
        mark = "refused" if error.exit_code == REFUSED else "failed"
        self.err.print(Text.assemble((f"{mark}: ", "bold red"), safe(error.message, lines=True)))
        self.err.print(Text.assemble(("Next: ", "dim"), (safe(error.then), "bold")))

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator["Meter"]:
        """Show progress on standard error while a person watches; without a total, only that it goes on."""
        if not self.err.is_terminal:
            yield Meter()
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False))
        counted = (BarColumn(), MofNCompleteColumn()) if total is not None else ()
        with Progress(*columns, *counted, TimeElapsedColumn(), console=self.err, transient=True) as shown:
            yield Meter(shown, shown.add_task(safe(what), total=total))


@dataclass
class Meter:
    """How far something has come; does nothing where nobody watches."""

    shown: Progress | None = None
    task: Any = None

    def at(self, done: int) -> None:
        if self.shown is not None:
            self.shown.update(self.task, completed=done)

    def say(self, what: str) -> None:
        if self.shown is not None:
            self.shown.update(self.task, description=safe(what))


def key_values(screen: Screen, pairs: Iterable[tuple[str, object]]) -> None:
    """Write names and values in two columns for people."""
    shown = [(name, value if isinstance(value, Text) else cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in shown), default=0)
    room = screen.out.width - width - 2
    for name, value in shown:
        # A single word, such as an address, must stay one that can be copied.
        parts = value.wrap(screen.out, room) if " " in value.plain and room >= FLOOR_CHARACTERS else [value]
        for index, part in enumerate(parts):
            part.rstrip()
            screen.say(Text.assemble((f"{'' if index else name:<{width}}  ", "dim"), part))
