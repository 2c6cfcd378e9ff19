"""`opx demo`: the whole pipeline on this machine, from a storm of alarms to a closed incident, with proof.

Uses an engine of its own, so a person's `opx up` is never touched, and leaves no process behind. Exit 2 if any promise
does not hold.
"""

import time
from contextlib import suppress
from dataclasses import replace
from typing import Final

import typer
from rich.console import Console
from rich.text import Text

from pipeline.cli import demo_steps as steps
from pipeline.cli.engine import bring_up
from pipeline.cli.reading import incidents_table, timeline_table
from pipeline.cli.session import Invocation, Session, run, session_at
from pipeline.cli.subscription import Subscription, subscribe
from pipeline.cli.target import Selection, Target
from pipeline.cli.terminal import DONE, FAILED, Column, CommandError, Screen, cell
from pipeline.domain.canonical import Document
from pipeline.local import engine as local
from pipeline.local.paths import PROJECT_ROOT

STATE: Final = PROJECT_ROOT / ".opx" / "demo"
WIDTH_OFF_TERMINAL: Final = 120
HELD: Final = Text("✓", style="bold green")
BROKEN: Final = Text("✗", style="bold red")


class Show:
    """The demo's presentation: numbered sections, promises with their marks; or records for programs."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.number = 0
        self.broken: list[str] = []

    def section(self, title: str, line: str) -> None:
        self.number += 1
        self.screen.say(Text.assemble("\n", (f"{self.number}  {title:<12}", "bold cyan"), line))

    def promise(self, name: str, held: bool, line: str) -> None:
        self.screen.say(Text.assemble(" " * 15, HELD if held else BROKEN, " ", cell(line, "" if held else "bold red")))
        if self.screen.as_json:
            self.screen.record({"promise": name, "held": held, "detail": line})
        if not held:
            self.broken.append(name)


def demo(context: typer.Context) -> None:
    """Run everything once on this machine: storm, incidents, commands, subscriber, replay. About half a minute."""
    given: Invocation = context.obj
    screen = given.screen if given.json_asked else _for_people()
    invocation = replace(given, screen=screen, selection=Selection(state_dir=STATE))
    context.obj = invocation
    run(context, _demo)


def _for_people() -> Screen:
    """Return a screen that tells the story in words also where nobody sits at a terminal: a log is read by people, too."""
    screen = Screen(as_json=False)
    if screen.out.is_terminal:
        return screen
    return replace(screen, out=Console(markup=False, emoji=False, highlight=False, width=WIDTH_OFF_TERMINAL))


async def _demo(invocation: Invocation) -> int:
    screen, began = invocation.screen, time.monotonic()
    screen.say("opx demo: detectors → queue → decision → one transaction → stream → bus → a subscriber's queue", "bold")
    screen.say("The real template.yaml, deployed into an AWS emulator on this machine. Nothing leaves it.", "dim")
    show = Show(screen)
    try:
        target, _ = bring_up(invocation, leash=True)
        show.section("engine", f"{target.endpoint_url}, stack deployed by the SAM CLI in {time.monotonic() - began:.1f} s")
        await _tell_story(show, target)
    finally:
        with suppress(local.EngineError):
            local.stop(STATE)
    if show.broken:
        raise CommandError(f"These promises did not hold: {', '.join(show.broken)}.", "opx up, then: opx send FILE", FAILED)
    screen.say(
        Text.assemble(
            "\n", ("Every promise held", "bold green"), f" ({time.monotonic() - began:.1f} s). Nothing is left running."
        )
    )
    screen.next(
        "opx up          # an engine of your own, which stays",
        "opx send FILE   # your own candidates or CloudWatch alarms",
        "opx tail        # what reaches the bus, live",
    )
    return DONE


async def _tell_story(show: Show, target: Target) -> None:
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
    rejections = await steps.read_rejections(session, count)
    show.section("rejected", "kept for 14 days with their bodies intact, and with the reason beside them")
    columns = (Column("code", "red"), Column("message"), Column("reason", wrap=True))
    rows = [(cell(item.code), cell(steps.first_words(item.body)[:44]), cell(item.reason)) for item in rejections]
    show.screen.table(columns, rows)
    expected = {"malformed-json", "invalid-field", "unknown-field", "authority-not-granted", "key-reused"}
    found = {item.code for item in rejections}
    told = "two malformed, one naming its own principal, one claiming to be a person, one reusing a key: all refused by name"
    show.promise("bad input refused by name", found == expected and len(rejections) == count, told)


async def _walk(show: Show, session: Session) -> None:
    show.section("commands", f"one incident (payments) from OPEN to CLOSED; its id follows from its key: {steps.WALKED}")
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
    show.screen.table((Column(""), Column("what"), Column("outcome"), Column("", wrap=True)), rows)
    for item in tried:
        if not item.as_expected:
            show.promise(f"command: {item.attempt.what}", False, f"{item.outcome}: {item.detail}")
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


def _timeline(show: Show, stored: steps.Stored) -> None:
    show.section("timeline", "the walked incident, event by event, as stored")
    timeline_table(show.screen, list(stored.histories.get(steps.WALKED, ())), collapse=True)


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
