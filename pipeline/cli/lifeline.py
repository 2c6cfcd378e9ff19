"""An incident's life in one line: which states it was in, for how long; and whether what it is about still goes on. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.text import Text

from pipeline.cli.terminal import cell, state_cell
from pipeline.domain.canonical import Document, format_time, parse_time
from pipeline.domain.explanation import span_of_time

DAY_S: Final = 86_400
DAYS_ALONE_S: Final = 30 * DAY_S
_ARROW: Final = "─► "


@dataclass(frozen=True, slots=True)
class Stay:
    """A state the incident was in; `until` None: it still is."""

    state: str
    since: datetime
    until: datetime | None

    def to_document(self) -> Document:
        until = {} if self.until is None else {"until": format_time(self.until)}
        return {"state": self.state, "since": format_time(self.since)} | until


def stays(events: Iterable[Document]) -> list[Stay]:
    """Return the states of a history, in order."""
    changes: list[tuple[str, datetime]] = []
    for event in events:
        state = str(event["newState"])
        if not changes or changes[-1][0] != state:
            changes.append((state, parse_time(str(event["timestamp"]))))
    ends = [*(since for _, since in changes[1:]), None]
    return [Stay(state, since, until) for (state, since), until in zip(changes, ends, strict=True)]


def life_line(found: list[Stay], now: datetime | None) -> Text:
    """Return the states as one line, each with how long it lasted; `now` None leaves the last one's length open."""
    line = Text()
    for stay in found:
        line += state_cell(stay.state)
        if stay.until is not None:
            # Created and opened in one transaction: it was never seen in between.
            lasted = _span(stay.since, stay.until) if stay.until > stay.since else ""
            line += Text(f" {f'─ {lasted} ' if lasted else ''}{_ARROW}", style="dim")
        elif now is not None:
            line += Text(f" for {_span(stay.since, now)}")
    return line


@dataclass(frozen=True, slots=True)
class Signal:
    """The newest observation of what an incident is about: its kind, when it was seen, and by whom."""

    kind: str
    observed_at: datetime
    source: str

    def to_document(self) -> Document:
        return {"kind": self.kind, "observedAt": format_time(self.observed_at), "source": self.source}

    def told(self, now: datetime) -> Text:
        """Return whether it still goes on, as far as anybody reported."""
        ago = f"{_span(self.observed_at, now)} ago"
        by = cell(f", by {self.source}", "dim")
        match self.kind:
            case "firing":
                return Text.assemble(("still firing", "bold red"), f": seen {ago}, no recovery since", by)
            case "recovery":
                return Text.assemble(("recovery seen", "green"), f" {ago}", by)
            case "no-data":
                return Text.assemble(("no data", "yellow"), f" since {ago}: nobody can tell", by)
            case "declaration":
                return Text.assemble(("declared", "bold"), f" {ago}, no detector has reported it", by)
            case _:
                return Text.assemble(cell(self.kind), f" {ago}", by)


def signal(events: Iterable[Document], known: Signal | None = None) -> Signal | None:
    """Return the newest observation in a history, whatever order it was reported in; None where there is none.

    `known`: the newest of the events before these. Of observations of the same moment the one that was applied last counts.
    """
    newest = known
    for event in events:
        seen = event.get("metadata", {}).get("observation")
        if isinstance(seen, dict) and (newest is None or parse_time(str(seen["observedAt"])) >= newest.observed_at):
            newest = Signal(str(seen["kind"]), parse_time(str(seen["observedAt"])), str(seen["source"]))
    return newest


def _span(since: datetime, until: datetime) -> str:
    seconds = max(0, int((until - since).total_seconds()))
    # Nobody asks for the hours of what is older than a month.
    return span_of_time(seconds - seconds % DAY_S if seconds >= DAYS_ALONE_S else seconds)
