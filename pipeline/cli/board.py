"""`opx watch`: all incidents that are not over, live. Reads only, through the API; Ctrl-C ends it.

What can't be read just now leaves the last board standing, and says since when it is no longer true. What a look is, is in
`looking`; how it is shown, in `board_view`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer
from rich.console import RenderableType
from rich.live import Live

from pipeline.cli.board_view import view
from pipeline.cli.looking import Board, Wanted, Watcher
from pipeline.cli.session import Invocation, run
from pipeline.cli.telling import short
from pipeline.cli.terminal import DONE, CommandError
from pipeline.domain.errors import Unavailable
from pipeline.domain.transitions import Severity
from pipeline.local.engine import EngineError
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import Clock

# How often ages go on and a new size of the terminal is noticed.
REDRAWN_PER_S: Final = 2


def watch(
    context: typer.Context,
    service: Annotated[str | None, typer.Option(help="Only incidents of this service.")] = None,
    severity: Annotated[
        list[Severity] | None, typer.Option(help="Only incidents of this severity; repeatable.", case_sensitive=False)
    ] = None,
    lately: Annotated[bool, typer.Option("--all", help="Also what ended within the last hour.")] = False,
    every: Annotated[float, typer.Option(min=0.5, max=3600, metavar="SECONDS", help="How long between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="One look, and that is all.")] = False,
) -> None:
    """Watch the incidents that are not over: how long, whether it goes on, who acted last. Until Ctrl-C.

    Example: opx watch --severity sev1 --severity sev2
    """
    wanted = Wanted(service, tuple(dict.fromkeys(one.value for one in severity or ())), lately)

    async def work(invocation: Invocation) -> int:
        looks = Looks(invocation, Watcher(wanted), every, SystemClock())
        if not once and not invocation.screen.as_json:
            await _live(invocation, looks)
        async with aclosing(looks.boards()) as boards:
            async for board in boards:
                if invocation.screen.as_json:
                    invocation.screen.record(board.to_document())
                else:
                    _show(invocation, board, every)
                if once:
                    return DONE
        return DONE

    run(context, work)


@dataclass
class Looks:
    """The looks at one target, one after the other."""

    invocation: Invocation
    watcher: Watcher
    every_s: float
    clock: Clock
    board: Board | None = None

    async def boards(self) -> AsyncGenerator[Board]:
        """Yield a board after each look, without end. Raises what the first look does; later the last board goes stale."""
        while True:
            try:
                # Opened anew after a failure: what was stopped and started again may be elsewhere.
                async with self.invocation.api() as api:
                    while True:
                        self.board = await self.watcher.look(api.operator, self.board, self.clock.now())
                        yield self.board
                        await self.clock.sleep(self.every_s)
            except (Unavailable, CommandError, EngineError) as error:
                if self.board is None:
                    raise
                self.board = replace(self.board, stale=_line(error))
            yield self.board
            await self.clock.sleep(self.every_s)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _show(invocation: Invocation, board: Board, every_s: float) -> None:
    screen = invocation.screen
    screen.out.print(view(board, board.at, _where(invocation), every_s, screen.out.width))
    screen.say()
    first = [f"{invocation.opx} open {short(one.incident.incident_id)}" for one in board.standings[:1]]
    screen.next(*(first or [f"{invocation.opx} list"]))


async def _live(invocation: Invocation, looks: Looks) -> None:
    out = invocation.screen.out

    def drawn() -> RenderableType:
        board = looks.board
        if board is None:
            return ""
        return view(board, looks.clock.now(), _where(invocation), looks.every_s, out.width, out.height)

    async with aclosing(looks.boards()) as boards:
        with invocation.screen.progress("looking"):
            await anext(boards)
        try:
            with Live(get_renderable=drawn, console=out, screen=True, refresh_per_second=REDRAWN_PER_S) as live:
                async for _ in boards:
                    live.refresh()
        finally:
            # The terminal is as it was before; what was seen last stays on it.
            out.print(drawn())


def _where(invocation: Invocation) -> str:
    return invocation.selection.stack or "local engine"
