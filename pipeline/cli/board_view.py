"""A board as people see it: totals on top, then the incidents, as many as fit; on a narrow terminal each takes two lines.

Pure: ages are told by the time that is handed in. Programs get documents instead, see `looking`.
"""

from datetime import datetime, timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.cli.lifeline import DAY_S, DAYS_ALONE_S
from pipeline.cli.looking import EVIDENCE, LINGERS, NEW, SEVERITY, STATE, Board, Standing
from pipeline.cli.telling import short
from pipeline.cli.terminal import WIDE_CHARACTERS_MIN, cell, severity_cell, state_cell

# A board that is older than a few looks take is no board of now.
LATE_LOOKS: Final = 3
LATE_S: Final = 5.0
# Lines above and below the incidents.
AROUND: Final = 6
CHANGED: Final = "bold reverse"
ENDED_MAX: Final = 4
_UNITS: Final = ((DAY_S, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SEEN: Final = {
    "firing": ("firing", "red"),
    "recovery": ("recovered", "green"),
    "no-data": ("no data", "yellow"),
    "declaration": ("declared", ""),
}


def brief(moment: datetime | None, now: datetime) -> str:
    """Return how long ago something was, in at most two units: 3h10m; over a month in days alone."""
    if moment is None:
        return "?"
    left = max(0, int((now - moment).total_seconds()))
    if left >= DAYS_ALONE_S:
        return f"{left // DAY_S}d"
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:2])


def view(board: Board, now: datetime, where: str, every_s: float, width: int, height: int | None = None) -> RenderableType:
    """Return a board to show; with `height` no more of it than fits."""
    is_wide = width >= WIDE_CHARACTERS_MIN
    lines_each = 1 if is_wide else 2
    room = len(board.standings) if height is None else max(1, (height - AROUND) // lines_each)
    shown = board.standings[:room]
    parts: list[RenderableType] = [*_head(board, now, where, every_s), Text()]
    if shown:
        parts.append(_wide(shown, now) if is_wide else _narrow(shown, now))
    else:
        parts.append(Text("Nothing is open, and nothing waits.", style="green"))
    parts += _foot(board, now, len(shown))
    return Group(*parts)


def _head(board: Board, now: datetime, where: str, every_s: float) -> list[Text]:
    count = sum(not one.is_over for one in board.standings)
    more = "more than " if board.more else ""
    title = Text.assemble(("opx ", "bold"), cell(where), f"   {more}{count} not ended   ")
    title.append(f"as of {board.at:%H:%M:%S} UTC", style="dim")
    old = now - board.at > timedelta(seconds=LATE_LOOKS * every_s + LATE_S)
    states, severities = board.counts(lambda one: one.state), board.counts(lambda one: one.severity)
    totals = [state_cell(state) + Text(f" {number}") for state, number in states.items()]
    totals += [severity_cell(severity) + Text(f" {number}") for severity, number in severities.items()]
    lines = [title, Text("   ").join(totals)]
    if board.stale is not None or old:
        why = f": {board.stale}" if board.stale else ": the next look takes long"
        stale = Text.assemble(
            (f" STALE since {board.at:%H:%M:%S} UTC ({brief(board.at, now)}) ", "bold white on red"), cell(why)
        )
        lines.append(stale)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _foot(board: Board, now: datetime, shown: int) -> list[Text]:
    lines = []
    hidden = len(board.standings) - shown
    if hidden or board.more:
        said = [f"{hidden} more don't fit on the screen"] if hidden else []
        said += ["there are more than are looked at: --service, --severity"] if board.more else []
        lines.append(Text("; ".join(said) + ".", style="yellow"))
    ended = [one for at, one in board.ended if at > now - LINGERS]
    if ended:
        line = Text("ended: ", style="dim")
        line += Text(", ").join(
            Text.assemble(cell(short(one.incident_id), "cyan"), " ", state_cell(one.state), " ", cell(one.service))
            for one in ended[-ENDED_MAX:]
        )
        lines.append(line)
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines


def _is_lit(one: Standing, what: str, now: datetime) -> bool:
    at = one.changed.get(what)
    return at is not None and at > now - LINGERS


def _mark(one: Standing, now: datetime) -> Text:
    if _is_lit(one, NEW, now):
        return Text("+", style="bold green")
    lit = any(_is_lit(one, what, now) for what in (STATE, SEVERITY, EVIDENCE))
    return Text("●" if lit else " ", style="bold yellow")


def _lit(text: Text, one: Standing, what: str, now: datetime) -> Text:
    if _is_lit(one, what, now):
        text.stylize(CHANGED)
    return text


def _state(one: Standing, now: datetime) -> Text:
    return _lit(state_cell(one.incident.state), one, STATE, now)


def _severity(one: Standing, now: datetime) -> Text:
    text = severity_cell(one.incident.severity)
    return _lit(text, one, SEVERITY, now)


def _seen(one: Standing, now: datetime) -> Text:
    if one.seen is None or not one.seen.kind:
        return Text("")
    words, style = _SEEN.get(one.seen.kind, (one.seen.kind, ""))
    ago = f" {brief(one.seen.at, now)} ago" if one.seen.at is not None else ""
    # What was not all read may have been followed by something else.
    doubt = "" if one.seen.certain else "?"
    return _lit(cell(f"{words}{ago}{doubt}", style), one, EVIDENCE, now)


def _grid() -> Table:
    return Table(box=None, padding=(0, 1, 0, 0), show_edge=False, expand=True, header_style="dim")


def _wide(shown: tuple[Standing, ...], now: datetime) -> Table:
    table = _grid()
    for title, width in (("", 1), ("id", 8), ("sev", 4), ("state", 10), ("for", 6)):
        table.add_column(title, width=width, no_wrap=True)
    table.add_column("service", ratio=2, no_wrap=True, overflow="ellipsis")
    table.add_column("title", ratio=4, no_wrap=True, overflow="ellipsis")
    table.add_column("age", width=6, no_wrap=True)
    table.add_column("last evidence", width=22, no_wrap=True)
    table.add_column("seen", width=5, no_wrap=True, justify="right")
    table.add_column("last acted", ratio=2, no_wrap=True, overflow="ellipsis")
    for one in shown:
        incident = one.incident
        table.add_row(
            _mark(one, now),
            cell(short(incident.incident_id), "cyan"),
            _severity(one, now),
            _state(one, now),
            Text(brief(one.since, now)),
            cell(incident.service, "bold"),
            cell(incident.title),
            Text(brief(incident.created_at, now), style="dim"),
            _seen(one, now),
            _lit(Text(str(one.detections)), one, EVIDENCE, now),
            cell(one.actor, "dim"),
            style="dim" if one.is_over else None,
        )
    return table


def _narrow(shown: tuple[Standing, ...], now: datetime) -> Table:
    """Each incident in two lines: what it is, and under that how it stands."""
    table = _grid()
    for title, width in (("", 1), ("id, age", 8), ("sev", 4), ("state, for", 10)):
        table.add_column(title, width=width, no_wrap=True)
    table.add_column("service: title, last evidence, who acted last", ratio=1, no_wrap=True)
    for one in shown:
        incident = one.incident
        what = Text.assemble(cell(incident.service, "bold"), cell(f": {incident.title}"))
        how = Text.assemble(_seen(one, now), "  ", _lit(Text(f"seen {one.detections}"), one, EVIDENCE, now))
        how += cell(f"  {one.actor}", "dim")
        for line in (what, how):
            line.no_wrap, line.overflow = True, "ellipsis"
        age = Text(brief(incident.created_at, now), style="dim")
        table.add_row(
            _mark(one, now),
            Group(cell(short(incident.incident_id), "cyan"), age),
            _severity(one, now),
            Group(_state(one, now), Text(brief(one.since, now))),
            Group(what, how),
            style="dim" if one.is_over else None,
        )
    return table
