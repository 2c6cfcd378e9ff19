"""`opx transitions`: the state machine as it stands in `domain.transitions`. Asks nobody."""

import typer

from pipeline.cli.session import Invocation
from pipeline.cli.telling import who_may
from pipeline.cli.terminal import Column, cell, state_cell
from pipeline.domain.transitions import TRANSITIONS


def transitions(context: typer.Context) -> None:
    """Show which state may follow which, and who may do it.

    Example: opx transitions
    """
    invocation: Invocation = context.obj
    screen = invocation.screen
    if screen.as_json:
        for row in TRANSITIONS:
            screen.record(
                {
                    "from": row.source.value,
                    "to": row.target.value,
                    "trigger": row.trigger,
                    "authority": sorted(row.authorities),
                    "event": row.event_type.value,
                    "needsReason": row.needs_reason,
                }
            )
        return
    columns = (Column("from"), Column("to"), Column("trigger"), Column("who"), Column("reason"))
    screen.table(
        columns,
        [
            (
                state_cell(row.source),
                state_cell(row.target),
                cell(row.trigger),
                cell(who_may(row), "bold"),
                cell("required" if row.needs_reason else ""),
            )
            for row in TRANSITIONS
        ],
    )
    screen.say("There is no other transition: no reopening, no way around. CANCELLED and ARCHIVED are final.", "dim")
