"""Incidents and histories as tables. On a narrow terminal a table says less in each row, never fewer rows.

Knows no store: what is shown is handed in. Programs get records instead, see `terminal`.
"""

from itertools import groupby
from typing import Final

from rich.text import Text

from pipeline.cli.telling import actor_of, clock_time, read_event, short, short_time, told
from pipeline.cli.terminal import STATE_STYLES, Column, Screen, cell, severity_cell, state_cell
from pipeline.domain.canonical import Document
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import EventType

COLLAPSED_MIN: Final = 3
SERVICE_CHARACTERS_MAX: Final = 24
SERVICE_CHARACTERS_MIN: Final = 8
TITLE_CHARACTERS_MIN: Final = 20
ACTOR_CHARACTERS_MIN: Final = 12


def incidents_table(screen: Screen, found: tuple[Incident, ...], title: str = "") -> None:
    """Show incidents as a table. `seen` counts detections of the trouble, `evidence` what was attached to look at."""
    wide = screen.is_wide
    columns = [
        Column("id"),
        Column("state"),
        Column("sev"),
        Column("service", floor=SERVICE_CHARACTERS_MIN, cap=SERVICE_CHARACTERS_MAX),
        # Cut where there is no room for it: `opx open` shows the whole of it.
        Column("title", floor=TITLE_CHARACTERS_MIN),
        Column("seen", right=True),
        *([Column("evidence", right=True)] if wide else []),
        Column("created (UTC)" if wide else "created"),
    ]
    screen.table(columns, [_incident_row(incident, wide=wide) for incident in found], title)


def _incident_row(incident: Incident, *, wide: bool) -> list[Text]:
    meta = incident.metadata
    return [
        cell(short(incident.incident_id), "cyan"),
        state_cell(incident.state),
        severity_cell(incident.severity),
        cell(incident.service),
        cell(incident.title),
        cell(meta.promotion.detections),
        *([cell(meta.evidence.count)] if wide else []),
        cell((clock_time if wide else short_time)(incident.created_at), "dim"),
    ]


def timeline_table(screen: Screen, documents: list[Document], title: str = "", *, collapse: bool) -> bool:
    """Show stored events as a table; `collapse` draws a run of evidence together. Returns whether one was."""
    wide = screen.is_wide
    columns = [
        Column("#", right=True),
        Column("time (UTC)"),
        Column("event"),
        *([Column("state")] if wide else []),
        Column("actor", floor=ACTOR_CHARACTERS_MIN),
        Column("what", wrap=True),
    ]
    rows: list[list[Text]] = []
    collapsed = False
    for attached, run_of in groupby(documents, key=lambda found: found.get("eventType") == EventType.EVIDENCE_ATTACHED):
        group = list(run_of)
        if collapse and attached and len(group) > COLLAPSED_MIN:
            first, *hidden, last = group
            between = _event_row(cell("…", "dim"), cell(""), cell(EventType.EVIDENCE_ATTACHED, "dim"), wide=wide)
            between[-1] = cell(f"{len(hidden)} more", "dim")
            rows += [_timeline_row(first, wide=wide), between, _timeline_row(last, wide=wide)]
            collapsed = True
        else:
            rows += [_timeline_row(document, wide=wide) for document in group]
    screen.table(columns, rows, title)
    return collapsed


def _event_row(number: Text, time: Text, kind: Text, *, wide: bool) -> list[Text]:
    return [number, time, kind, *([cell("")] if wide else []), cell(""), cell("")]


def _timeline_row(document: Document, *, wide: bool) -> list[Text]:
    event = read_event(document)
    if event is None:
        number, time = cell(document.get("sequence", "?")), cell(document.get("timestamp", "?"))
        row = _event_row(number, time, cell(document.get("eventType", "?"), "red"), wide=wide)
        row[-1] = cell("this version of opx can't read it; see --json", "red")
        return row
    moved = event.previous_state is not event.new_state
    state = (state_cell(event.new_state) if moved else cell(""),)
    # Where there is no room for the state, its colour says it; the event's name does anyway.
    style = "" if not moved else "bold" if wide else STATE_STYLES[event.new_state]
    moment = event.timestamp.strftime("%m-%d %H:%M:%S.%f")
    return [
        cell(event.sequence),
        cell(moment[:-3] if wide else moment[:-7], "dim"),
        cell(event.fact.event_type.value, style),
        *(state if wide else ()),
        cell(actor_of(event.actor, speaker=wide)),
        cell(told(event, brief=not wide)),
    ]
