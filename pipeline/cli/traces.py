"""Decisions and their traces as tables, for people. What is shown is handed in; words are in `verdicts`."""

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from pipeline.cli.telling import clock_time
from pipeline.cli.terminal import STATE_STYLES, Column, Screen, cell
from pipeline.domain.explanation import Recorded, reason, spoken
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Verdict

# An incident's id, and why it is what it is.
Row = tuple[Text, Text]
_STYLES: Final = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.WAIVED: "yellow"}


def state_line(line: str, incident: Incident) -> Text:
    state = incident.state.value
    style = STATE_STYLES.get(state, "")
    return Text.assemble((state, "bold" if style == "dim" else style), cell(line.removeprefix(state)))


def trace_table(screen: Screen, one: Recorded) -> None:
    failed = one.deciding
    columns = (Column(""), Column("condition"), Column("wanted", wrap=True), Column("saw", wrap=True), Column("verdict"))
    rows = []
    for check in one.trace:
        style = "bold" if check is failed else "" if check.verdict is not Verdict.PASSED else "dim"
        mark, condition = cell("►" if check is failed else "", "bold red"), cell(check.condition.value, style)
        said = (cell(spoken(check.wanted), style), cell(spoken(check.saw), style))
        rows.append((mark, condition, *said, cell(check.verdict.value, _STYLES[check.verdict])))
    if rows:
        screen.table(columns, rows)


def decisions_table(screen: Screen, decisions: Sequence[Recorded]) -> None:
    columns = (
        Column("#", right=True),
        Column("decided (UTC)"),
        Column("outcome"),
        Column("policy"),
        Column("why", wrap=True),
    )
    rows = []
    for one in decisions:
        style = "" if one.problem is None else "bold red"
        why = reason(one) if one.problem is None else one.problem
        by = cell(one.policy, "dim")
        at, outcome = cell(clock_time(one.at)[5:], "dim"), cell(one.decision.outcome, style)
        rows.append((cell(one.sequence), at, outcome, by, cell(why, style)))
    screen.table(columns, rows)


def answers_table(screen: Screen, rows: Sequence[Row]) -> None:
    if rows:
        screen.table((Column("incident"), Column("why", wrap=True)), rows)
