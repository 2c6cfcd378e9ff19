"""What `opx republish` says: before it reads much, when it is broken off, and where the next run goes on."""

import asyncio
import io
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.republish_time import begun_at, by_time, end_of_earlier, marks_of
from pipeline.cli.republishing import Republished, Terms, marks_file, republish_events, tell
from pipeline.cli.session import Around, Invocation, Session
from pipeline.cli.target import Selection, Target
from pipeline.cli.terminal import FAILED, REFUSED, CommandError, Screen
from pipeline.cli.whole_table import LARGE_BYTES
from pipeline.services.republish import Marks
from pipeline.services.stored_events import NamedEvents, Wanted
from pipeline.stores.clients import Clients
from pipeline.stores.memory import MemoryStore
from tests.support.clock import NOW
from tests.support.event_table import EventTable
from tests.support.noting import a_life

OUTPUTS = {"BusName": "opx-bus", "EventsTableName": "opx-incident-events", "EventsStreamArn": "arn:one"}
AGAIN = "opx republish --from A --to B"


class Bus:
    """EventBridge as its API answers; `ends`: what a call raises, by its number."""

    def __init__(self, ends: Callable[[int], BaseException | None] = lambda call: None) -> None:
        self.ends = ends
        self.calls = 0
        self.taken: list[int] = []

    async def put_events(self, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        self.calls += 1
        end = self.ends(self.calls)
        if end is not None:
            raise end
        self.taken += [json.loads(entry["Detail"])["sequence"] for entry in Entries]
        return {"Entries": [{"EventId": "e"} for _ in Entries]}


class Desk:
    """A person at a terminal, a target with a bus and a table, and what was written and asked."""

    def __init__(self, folder: Path, bus: Bus | None = None, size_bytes: int = 0, answer: bool | None = None) -> None:
        self.asked: list[str] = []
        self.answer = answer
        self.consoles = [Console(file=io.StringIO(), width=160) for _ in range(2)]
        around = Around(ask=self.ask, screen=Screen(False, *self.consoles))
        target = Target("stack", "us-east-1", folder / "state", outputs=OUTPUTS)
        clients = {"events": bus or Bus(), "dynamodb": EventTable([], size_bytes=size_bytes)}
        self.session = Session(target, Clients(clients))
        self.invocation = Invocation(around.screen or Screen.of(False), Selection(), around=around)

    def ask(self, question: str) -> bool | None:
        self.asked.append(question)
        return self.answer

    @property
    def text(self) -> str:
        return "".join(console.file.getvalue() for console in self.consoles if isinstance(console.file, io.StringIO))

    def republish(self, terms: Terms, question: str = "A-B") -> Republished:
        store = MemoryStore()
        asyncio.run(store.commit(a_life("checkout", "key", 90, NOW)))
        store.events["again"] = next(iter(store.events.values()))
        events = NamedEvents(store, {identity: Wanted(((1, None),), exact=False) for identity in store.events})
        marks_at = marks_file(self.session.target, question)
        return asyncio.run(republish_events(self.invocation, self.session, events, terms, marks_at, AGAIN, lanes=1))


FAST = Terms(rate=1e6, patience_s=0)


def down(_: int) -> BaseException:
    return EndpointConnectionError(endpoint_url="https://events.us-east-1.amazonaws.com")


def test_a_bus_that_stays_down_ends_with_2_and_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Desk(tmp_path, Bus(down)).republish(FAST)
    assert (caught.value.exit_code, caught.value.then) == (FAILED, AGAIN)
    assert "Broken off after 0 events" in caught.value.message


@pytest.mark.parametrize("end", [down(0), asyncio.CancelledError()], ids=["outage", "Ctrl-C"])
def test_the_next_run_of_the_same_question_goes_on(tmp_path: Path, end: BaseException) -> None:
    desk = Desk(tmp_path, Bus(lambda call: end if call == 12 else None))
    with pytest.raises((CommandError, asyncio.CancelledError)):
        desk.republish(FAST)
    if isinstance(end, asyncio.CancelledError):
        assert f"Interrupted after 110 events; to go on: {AGAIN}" in desk.text
    # Another question, a dry run and --restart begin from the start; a dry run leaves the marks.
    assert Desk(tmp_path).republish(FAST, "C-D").before == 0
    assert Desk(tmp_path).republish(Terms(dry_run=True)).before == 0
    desk = Desk(tmp_path, bus := Bus())
    found = desk.republish(FAST)
    assert (found.before, found.published, len(bus.taken)) == (110, 70, 70)
    assert "Going on where an earlier run stopped: 110 are published." in desk.text
    assert Desk(tmp_path).republish(FAST).before == 0, "what is done is done"


def test_without_an_end_the_same_command_goes_on_up_to_when_it_began(tmp_path: Path) -> None:
    target, end = Desk(tmp_path).session.target, NOW + timedelta(hours=3)
    assert end_of_earlier(target, NOW) is None
    begun_at(target, NOW).write(end)
    assert end_of_earlier(target, NOW) is None, "nothing of it is left to go on with"
    marks_of(target, (NOW, end)).write(Marks(published=70))
    assert end_of_earlier(target, NOW) == end
    assert end_of_earlier(target, end) is None, "another question"
    # What was asked for by the command with its end is done: nothing is to go on with.
    marks_of(target, (NOW, end)).remove()
    assert end_of_earlier(target, NOW) is None


def test_a_restart_forgets_what_was_done(tmp_path: Path) -> None:
    with pytest.raises(CommandError):
        Desk(tmp_path, Bus(lambda call: down(0) if call == 12 else None)).republish(FAST)
    bus = Bus()
    assert Desk(tmp_path, bus).republish(Terms(rate=1e6, resume=False)).published == 180
    assert len(bus.taken) == 180


def test_a_dry_run_asks_nothing_of_the_bus(tmp_path: Path) -> None:
    bus = Bus()
    found = Desk(tmp_path, bus).republish(Terms(rate=0.1, dry_run=True))
    assert (found.published, bus.calls) == (180, 0)


def test_what_reading_a_large_table_costs_is_said_and_asked(tmp_path: Path) -> None:
    def read(desk: Desk, *, yes: bool = False) -> None:
        asyncio.run(by_time(desk.invocation, desk.session, [(NOW, NOW)], yes=yes))

    small = Desk(tmp_path, size_bytes=LARGE_BYTES)
    read(small)
    # 1 GiB in units of 4 KiB, each read strongly consistently.
    assert "1024 MiB, 262144 read units, 0.03 USD" in small.text
    assert small.asked == []
    for answer, said in ((None, "The table is large, and nothing was read."), (False, "Nothing was read.")):
        large = Desk(tmp_path, size_bytes=100 * LARGE_BYTES, answer=answer)
        with pytest.raises(CommandError, match=said) as caught:
            read(large)
        assert (caught.value.exit_code, large.asked) == (REFUSED, ["Read all of it?"])
        assert "3.28 USD" in large.text
    read(Desk(tmp_path, size_bytes=100 * LARGE_BYTES, answer=True))
    unasked = Desk(tmp_path, size_bytes=100 * LARGE_BYTES)
    read(unasked, yes=True)
    assert unasked.asked == []


def test_what_was_not_published_is_told_with_its_reason(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    tell(desk.invocation.screen, Republished(Marks(published=12, failed=25), 2, 2.0), Terms())
    assert "10 events in 2.0 s (5/s), marked as replayed" in desk.text
    assert "2 events, by the run that was broken off" in desk.text
    assert "… and 25 more; --json names them all" in desk.text


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ID", "--failures"],
        ["--to", "2026-01-31T03:00Z"],
        ["--failures", "--from", "2026-01-31T03:00Z"],
        ["--failures", "--from-sequence", "3"],
        ["--from", "yesterday"],
        ["--from", "2026-01-31T03:00Z", "--to", "2026-01-31T03:00Z"],
    ],
    ids=" ".join,
)
def test_a_question_that_is_none_is_refused(arguments: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--json", "--state-dir", str(tmp_path), "republish", *arguments])
    assert result.exit_code == REFUSED
    assert json.loads(result.stderr.splitlines()[-1])["next"].endswith("republish --help")
