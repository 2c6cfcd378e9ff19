"""`opx demo`: the whole pipeline on this machine, from a storm of alarms to a closed incident, with proof.

Uses an engine of its own, so a person's `opx up` is never touched, and leaves no process behind. Exit 2 if any promise
does not hold.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli import demo_steps as steps
from pipeline.cli.engine import bring_up
from pipeline.cli.peeking import Queues
from pipeline.cli.session import Invocation, Session, execute, guarded, session_at
from pipeline.cli.subscription import Subscription, subscribe
from pipeline.cli.tables import incidents_table, timeline_table
from pipeline.cli.target import Selection, Target
from pipeline.cli.telling import short
from pipeline.cli.terminal import DONE, FAILED, Column, CommandError, Screen, cell
from pipeline.domain.canonical import Document
from pipeline.local import engine as local
from pipeline.local.paths import PROJECT_ROOT

STATE: Final = PROJECT_ROOT / ".opx" / "demo"
WIDTH_OFF_TERMINAL: Final = 120
HEADING_WIDTH: Final = 15
MESSAGE_CHARACTERS_MIN: Final = 12
MESSAGE_CHARACTERS_MAX: Final = 44
REASON_CHARACTERS_MIN: Final = 30
HELD: Final = Text("✓", style="bold green")
BROKEN: Final = Text("✗", style="bold red")


class Show:
    """The demo's presentation: numbered sections, promises with their marks; or records for programs."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.number = 0
        self.broken: list[str] = []
        self.gap = True

    def section(self, title: str, line: str) -> None:
        self.number += 1
        if self.gap:
            self.screen.say()
        self._line(Text(f"{self.number}  {title}", style="bold cyan"), Text(line))
        self.gap = True

    def promise(self, name: str, held: bool, line: str) -> None:
        mark, style = (HELD, "") if held else (BROKEN, "bold red")
        self._line(Text(), Text.assemble(mark, " ", cell(line, style)))
        if self.screen.as_json:
            self.screen.record({"promise": name, "held": held, "detail": line})
        if not held:
            self.broken.append(name)
        self.gap = True

    def table(self, columns: Sequence[Column], rows: Sequence[Sequence[Text]]) -> None:
        self.screen.table(columns, rows)
        self.gap = False

    def _line(self, heading: Text, line: Text) -> None:
        if self.screen.as_json:
            return
        grid = Table.grid()
        grid.add_column(width=HEADING_WIDTH)
        grid.add_column()
        grid.add_row(heading, line)
        self.screen.out.print(grid)


def demo(context: typer.Context) -> None:
    """Run everything once on this machine: storm, incidents, commands, subscriber, replay. About half a minute.

    Example: opx demo
    """
    given: Invocation = context.obj
    screen = given.screen if given.json_asked else _for_people()
    invocation = replace(given, screen=screen, selection=Selection(state_dir=STATE))
    context.obj = invocation
    began = time.monotonic()
    screen.say("opx demo: detectors → queue → decision → one transaction → stream → bus → a subscriber's queue", "bold")
    screen.say("The real template.yaml, deployed into an AWS emulator on this machine. Nothing leaves it.", "dim")
    with guarded(invocation):
        # Outside of any event loop, so that Ctrl-C ends it at once; the engine's leash takes it along.
        target, _ = bring_up(invocation, leash=True)
        show = Show(screen)
        try:
            show.section("engine", f"{target.endpoint_url}, stack deployed by the SAM CLI, {time.monotonic() - began:.1f} s")
            code = execute(_tell_story(show, target))
        finally:
            with screen.progress("stopping the engine"):
                local.stop(STATE)
        if code != DONE:
            raise typer.Exit(code)
        _end(show, time.monotonic() - began)


def _end(show: Show, seconds: float) -> None:
    """Say that every promise held, or raise naming those that did not."""
    if show.broken:
        log = STATE.relative_to(PROJECT_ROOT) / "engine.log"
        raise CommandError(f"These promises did not hold: {', '.join(show.broken)}.", f"less {log}", FAILED)
    words = f" ({seconds:.1f} s). Nothing is left running."
    show.screen.say(Text.assemble("\n", ("Every promise held", "bold green"), words))
    opx = called()
    show.screen.next(
        f"{opx} up          # an engine of your own, which stays",
        f"{opx} send FILE   # your own candidates or CloudWatch alarms",
        f"{opx} tail        # what reaches the bus, live",
    )


def called() -> str:
    """Return how `opx` is called here: by its name where the shell finds it, else by its path in the project."""
    return "opx" if shutil.which("opx") else ".venv/bin/opx"


def _for_people() -> Screen:
    """Return a screen that tells the story in words also where nobody sits at a terminal: a log is read by people, too."""
    screen = Screen(as_json=False)
    if screen.out.is_terminal:
        return screen
    return replace(screen, out=Console(markup=False, emoji=False, highlight=False, width=WIDTH_OFF_TERMINAL))


async def _tell_story(show: Show, target: Target) -> int:
    async with (
        session_at(target, "dynamodb", "sqs", "events", "sts") as session,
        subscribe(session.clients, target.output("BusName"), target.prefix) as subscription,
    ):
        storm = await _storm(show, session)
        await _refusals(show, session, storm.rejected)
        await _walk(show, session)
        stored = await steps.read_stored(session)
        _incidents(show, stored)
        _timeline(show, stored)
        await _subscriber(show, subscription, stored)
        _proof(show, stored)
    return DONE


async def _storm(show: Show, session: Session) -> steps.Storm:
    with show.screen.progress("sending a storm and waiting until it is settled") as meter:
        storm = await steps.send_storm(session, meter)
    show.section(
        "storm",
        f"{storm.sent} messages of {_sources()} detectors, an old recording moved to now; "
        f"sent in {storm.sending_s:.1f} s, settled after {storm.settling_s:.1f} s",
    )
    total = (
        f"{storm.receipts} receipts + {storm.copies} copies (each shares its original's receipt) + {storm.rejected} rejected"
    )
    sign = "=" if storm.adds_up else "≠"
    show.promise("every message accounted for", storm.adds_up, f"{total} + {storm.dead} dead {sign} {storm.sent} sent")
    return storm


def _sources() -> int:
    lines = steps.sample().decode().splitlines()
    documents = [steps.readable(line) for line in lines]
    names = {document.get("source") if "detail-type" not in document else _alarm_name(document) for document in documents}
    return len(names - {None})


def _alarm_name(document: Document) -> str:
    return str(document["detail"]["alarmName"])


async def _refusals(show: Show, session: Session, count: int) -> None:
    look = await Queues(session).look("rejected", lambda copy: True)
    rejections = sorted(look.copies, key=lambda item: str(item.explanation.get("code")))
    show.section("rejected", "kept for 14 days with their bodies intact, and with the reason beside them")
    columns = (
        Column("code", "red"),
        Column("message", floor=MESSAGE_CHARACTERS_MIN, cap=MESSAGE_CHARACTERS_MAX),
        Column("reason", wrap=True, floor=REASON_CHARACTERS_MIN),
    )
    rows = [
        (cell(item.explanation.get("code")), cell(steps.first_words(item.body)), cell(item.explanation.get("reason")))
        for item in rejections
    ]
    show.table(columns, rows)
    expected = {"malformed-json", "invalid-field", "unknown-field", "authority-not-granted", "key-reused"}
    found = {item.explanation.get("code") for item in rejections}
    told = "two malformed, one naming its own principal, one claiming to be a person, one reusing a key: all refused by name"
    show.promise("bad input refused by name", found == expected and len(rejections) == count, told)


async def _walk(show: Show, session: Session) -> None:
    show.section(
        "commands",
        f"incident {short(steps.WALKED)} (payments) from OPEN to CLOSED; its id follows from service and key alone",
    )
    tried = []
    for order in steps.walk():
        with show.screen.progress(order.what):
            tried.append(await steps.attempt(session, order))
    rows = [
        (
            HELD if item.as_expected else BROKEN,
            cell(item.attempt.what),
            cell(item.outcome, "red" if item.attempt.refused_as else "green"),
            cell(item.detail),
        )
        for item in tried
    ]
    show.table((Column(""), Column("what"), Column("outcome"), Column("", wrap=True)), rows)
    surprising = [item.attempt.what for item in tried if not item.as_expected]
    refused = sum(item.attempt.refused_as is not None for item in tried)
    told = f"{len(tried) - refused} commands took effect, {refused} were refused: the state machine and its authority hold"
    show.promise("commands", not surprising, told if not surprising else f"not as expected: {', '.join(surprising)}")
    if show.screen.as_json:
        for item in tried:
            show.screen.record({"command": item.attempt.document, "outcome": item.outcome, "asExpected": item.as_expected})


def _incidents(show: Show, stored: steps.Stored) -> None:
    show.section(
        "incidents", f"{len(stored.incidents)} incidents, {stored.events} events; PENDING: not sure or severe enough"
    )
    if show.screen.as_json:
        for incident in stored.incidents:
            show.screen.record(incident.to_document())
    incidents_table(show.screen, stored.incidents)
    show.gap = False


def _timeline(show: Show, stored: steps.Stored) -> None:
    show.section("timeline", "the walked incident, event by event, as stored")
    timeline_table(show.screen, list(stored.histories.get(steps.WALKED, ())), collapse=True)
    show.gap = False


async def _subscriber(show: Show, subscription: Subscription, stored: steps.Stored) -> None:
    with show.screen.progress("waiting for the subscriber's events", stored.events) as meter:
        got = await steps.receive_all(subscription, stored, meter.at)
    kinds = ", ".join(f"{count} {kind}" for kind, count in list(got.by_type.items())[:4])
    show.section("subscriber", f"a queue on a rule of the bus got {got.arrivals} events: {kinds}, …")
    again = got.arrivals - got.distinct
    told = f"each of {stored.events} stored events arrived ({again} more than once, {got.late} late), no incident has a gap"
    complete = not got.missing and got.gapless and got.distinct == stored.events
    show.promise("every event delivered", complete, told if complete else f"missing: {got.missing[:5]}")


def _proof(show: Show, stored: steps.Stored) -> None:
    divergences = stored.divergences()
    show.section("proof", f"{stored.events} events replayed and compared with {len(stored.incidents)} stored rows")
    told = "every row equals its history, byte for byte; every hash chain is intact"
    if divergences:
        first = divergences[0]
        told = f"{len(divergences)} divergences, first: {first.incident_id} {first.where}: {first.expected} ≠ {first.found}"
    show.promise("replay equals the stored rows", not divergences and bool(stored.incidents), told)
