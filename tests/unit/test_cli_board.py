"""`opx watch`: what stands on the board, what has changed on it, and what it says while nobody answers."""

import io
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from rich.console import Console

from pipeline.cli import looking
from pipeline.cli.board import Looks
from pipeline.cli.board_view import brief, view
from pipeline.cli.calling import Api
from pipeline.cli.lifeline import Signal, signal
from pipeline.cli.looking import EVIDENCE, NEW, SEVERITY, STATE, Board, Seen, Standing, Wanted, Watcher
from pipeline.cli.session import Around, Invocation
from pipeline.cli.target import Selection
from pipeline.cli.terminal import CommandError, Screen
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.transitions import HOLDS_KEY, State
from tests.support.bodies import alarm_body, candidate_body
from tests.support.clock import NOW
from tests.support.command_line import IMPATIENT, CommandLine
from tests.support.network import BASE, Network
from tests.support.registry import ALARMS
from tests.support.world import applied

EVERY_S = 2.0


def operator_of(network: Network) -> AsyncOperator:
    http = httpx.AsyncClient(transport=httpx.MockTransport(network))
    return AsyncOperator(BASE, patience=IMPATIENT, http=http)


async def looked(network: Network, before: Board | None = None, watcher: Watcher | None = None, **wanted: Any) -> Board:
    return await (watcher or Watcher(Wanted(**wanted))).look(operator_of(network), before, network.world.clock.now())


def named(board: Board) -> list[str]:
    return [one.incident.title for one in board.standings]


def the(board: Board, title: str) -> Standing:
    return next(one for one in board.standings if one.incident.title == title)


def drawn(board: Board, width: int = 80, height: int | None = None, after_s: float = 0) -> str:
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)
    console.print(view(board, board.at + timedelta(seconds=after_s), "here", EVERY_S, width, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- what stands there -------------------------------------------------------------------------------------------------


async def test_the_most_severe_come_first_and_of_equals_the_newest() -> None:
    network = Network()
    for number, severity in enumerate(("SEV3", "SEV1", "SEV2", "SEV1")):
        await network.world.opened(dedupKey=f"k{number}", title=f"t{number}", severity=severity)
        network.world.clock.jump(timedelta(minutes=1))
    board = await looked(network)
    assert named(board) == ["t3", "t1", "t2", "t0"]
    assert board.counts(lambda one: one.severity) == {"SEV1": 2, "SEV2": 1, "SEV3": 1}


async def test_what_is_over_is_left_out_and_with_all_shown_for_an_hour_behind_the_rest() -> None:
    network = Network()
    ids = {state: await network.world.opened(dedupKey=state, title=state) for state in ("open", "over")}
    await network.world.walk(ids["over"], "MITIGATING", "RESOLVED")
    assert named(await looked(network)) == ["open"]
    assert named(await looked(network, lately=True)) == ["open", "over"]
    network.world.clock.jump(timedelta(minutes=61))
    assert named(await looked(network, lately=True)) == ["open"]


async def test_service_and_severities_narrow_it() -> None:
    network = Network()
    for severity in ("SEV1", "SEV2", "SEV3"):
        await network.world.opened(dedupKey=severity, title=severity, severity=severity)
    await network.world.opened(service="ledger", dedupKey="x", title="ledger", severity="SEV1")
    assert named(await looked(network, severities=("SEV2", "SEV1"), service="checkout")) == ["SEV1", "SEV2"]
    assert named(await looked(network, service="ledger")) == ["ledger"]


async def test_a_row_says_how_long_it_is_in_its_state_also_after_its_severity_changed() -> None:
    network = Network()
    world = network.world
    waiting = await world.opened(dedupKey="waits", title="waits", confidence=0.1)
    acted_on = await world.opened(dedupKey="acted", title="acted")
    world.clock.jump(timedelta(minutes=10))
    await world.walk(acted_on, "MITIGATING")
    mitigated = world.clock.now()
    world.clock.jump(timedelta(minutes=5))
    assert (await world.call("POST", f"/incidents/{acted_on}/severity", {"severity": "SEV1", "reason": "x"})).status == 200
    board = await looked(network)
    assert the(board, "acted").since == mitigated
    assert the(board, "waits").since == NOW
    assert waiting
    assert the(board, "acted").actor.startswith("HUMAN dana")


async def test_a_row_says_whether_it_still_fires_or_has_recovered_and_when_that_was_seen() -> None:
    network = Network()
    world = network.world
    await world.opened(dedupKey="fires", title="fires")
    # Only an alarm reports a recovery; its times are its own.
    applied(await world.offer(alarm_body(), ALARMS))
    recovered = alarm_body("OK", event_id="other", timestamp="2026-01-31T02:59:50.000+0000")
    applied(await world.offer(recovered, ALARMS))
    board = await looked(network)
    fires, over = the(board, "fires").seen, the(board, "checkout-5xx").seen
    assert fires is not None
    assert over is not None
    assert (fires.kind, fires.at) == ("firing", NOW)
    assert (over.kind, over.at) == ("recovery", NOW - timedelta(seconds=10))
    assert the(board, "checkout-5xx").evidence == 2
    assert "recovered 10s ago" in drawn(board)


async def report(network: Network, kind: str, number: int) -> None:
    """An alarm is reported about: F, it fired some minutes before 3:00; R, it had recovered by then."""
    value, at = ("OK", "03:00") if kind == "R" else ("ALARM", f"02:5{number}")
    body = alarm_body(value, event_id=f"e-{number}", timestamp=f"2026-01-31T{at}:00.000+0000")
    applied(await network.world.offer(body, ALARMS))


@pytest.mark.parametrize("order", ["FFR", "FRF", "RFF"])
async def test_whatever_order_evidence_arrives_in_a_row_says_what_the_whole_history_does(order: str) -> None:
    network, watcher = Network(), Watcher(Wanted())
    board: Board | None = None
    for number, kind in enumerate(f"F{order}"):
        await report(network, kind, number)
        # Who looks all the time reads only what came since.
        board = await looked(network, board, watcher)
    (identity,) = network.world.store.incidents
    history = [document async for document in network.world.store.history(identity)]
    assert signal(history) == Signal("recovery", NOW, "cloudwatch:checkout-5xx")
    for one in (board, await looked(network)):
        assert one is not None
        assert [standing.seen for standing in one.standings] == [Seen("recovery", NOW, True)]


async def test_where_not_all_was_read_a_row_says_what_it_knows_and_that_it_may_be_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network()
    for number, kind in enumerate("FRFF"):
        await report(network, kind, number)
    # Too long a history to read the whole of it: the recovery is not among its last events.
    monkeypatch.setattr(looking, "TAIL", 2)
    board = await looked(network)
    fired = NOW - timedelta(minutes=7)
    assert [one.seen for one in board.standings] == [Seen("firing", fired, False)]
    assert board.to_document()["incidents"][0]["lastEvidence"]["certain"] is False
    assert "firing 7m ago?" in drawn(board)
    # Nothing read at all, as where many incidents wait for it.
    monkeypatch.setattr(looking, "LOOKUPS_MAX", 0)
    assert [one.seen for one in (await looked(network)).standings] == [Seen("firing", fired, False)]


async def test_what_is_known_is_not_asked_again() -> None:
    network = Network()
    for number in range(3):
        await network.world.opened(dedupKey=f"k{number}")
    watcher = Watcher(Wanted())
    board = await looked(network, None, watcher)
    asked = len(network.seen)
    await looked(network, board, watcher)
    # One listing of each state, nothing else.
    assert len(network.seen) - asked == len(HOLDS_KEY)


async def test_a_look_is_bounded_and_says_that_there_are_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LISTED_MAX", 2)
    monkeypatch.setattr(looking, "LOOKUPS_MAX", 1)
    network = Network()
    for number in range(3):
        await network.world.opened(dedupKey=f"k{number}", title=f"t{number}")
    watcher = Watcher(Wanted())
    board = await looked(network, None, watcher)
    assert (len(board.standings), board.more) == (2, True)
    assert [one.since is None for one in board.standings] == [False, True]
    assert "more than 2 not ended" in drawn(board)
    # The next look goes on with what the first had no room for.
    again = await looked(network, board, watcher)
    assert [one.since is None for one in again.standings] == [False, False]


# --- what has changed --------------------------------------------------------------------------------------------------


async def test_what_is_new_or_has_changed_since_the_last_look_is_marked_and_then_no_more() -> None:
    network = Network()
    world = network.world
    old = await world.opened(dedupKey="old", title="old")
    await world.opened(dedupKey="same", title="same")
    watcher = Watcher(Wanted())
    first = await looked(network, None, watcher)
    assert [one.changed for one in first.standings] == [{}, {}]
    world.clock.jump(timedelta(seconds=2))
    await world.opened(dedupKey="new", title="new")
    await world.walk(old, "MITIGATING")
    await world.call("POST", f"/incidents/{old}/severity", {"severity": "SEV1", "reason": "x"})
    await world.call("POST", f"/incidents/{old}/evidence", {"evidence": [{"kind": "log", "ref": "a"}]})
    second = await looked(network, first, watcher)
    assert {title: set(the(second, title).changed) for title in ("old", "same", "new")} == {
        "old": {STATE, SEVERITY, EVIDENCE},
        "same": set(),
        "new": {NEW},
    }
    lines = drawn(second, width=120).splitlines()
    assert {line[0] for line in lines if " old " in line or " new " in line} == {"●", "+"}
    world.clock.jump(timedelta(minutes=1))
    third = await looked(network, second, watcher)
    assert [line[0] for line in drawn(third, width=120).splitlines() if "SEV" in line and "checkout" in line] == [" "] * 3
    assert [one["changed"] for one in third.to_document()["incidents"]] == [[], [], []]


async def test_what_ends_leaves_the_board_and_is_named_below_it() -> None:
    network = Network()
    identity = await network.world.opened(title="over")
    watcher = Watcher(Wanted())
    first = await looked(network, None, watcher)
    await network.world.walk(identity, "MITIGATING", "RESOLVED")
    second = await looked(network, first, watcher)
    assert named(second) == []
    assert second.to_document()["ended"] == [{"incidentId": identity, "state": State.RESOLVED}]
    assert f"ended: {identity[:8]} RESOLVED checkout" in drawn(second)


async def test_what_an_index_does_not_show_yet_stays_on_the_board(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network()
    await network.world.opened(title="there")
    watcher = Watcher(Wanted())
    first = await looked(network, None, watcher)

    async def nothing(*_: Any) -> tuple[list[Any], bool]:
        return [], False

    monkeypatch.setattr(looking, "_listed", nothing)
    second = await looked(network, first, watcher)
    assert (named(second), second.ended) == (["there"], ())


# --- while nobody answers ----------------------------------------------------------------------------------------------


def nobody() -> list[httpx.Response | Exception]:
    """Return more refused connections than any call has the patience for."""
    return [httpx.ConnectError("refused")] * 10_000


def invocation_of(network: Network, reach: Any = None) -> Invocation:
    @asynccontextmanager
    async def over(_: Selection) -> AsyncIterator[Api]:
        yield Api(operator_of(network), True)

    return Invocation(Screen(False), Selection(), around=Around(reach or over))


async def test_a_board_goes_stale_while_nobody_answers_and_fresh_when_somebody_does() -> None:
    network = Network()
    await network.world.opened(title="there")
    looks = Looks(invocation_of(network), Watcher(Wanted()), EVERY_S, network.world.clock)
    async with aclosing(looks.boards()) as boards:
        first = await anext(boards)
        network.troubles = nobody()
        network.world.clock.jump(timedelta(seconds=5))
        stale = await anext(boards)
        assert (named(stale), stale.at) == (["there"], first.at)
        assert stale.to_document()["staleSince"] == "2026-01-31T03:00:00.000000Z"
        assert "STALE since 03:00:00 UTC (5s)" in drawn(stale, after_s=5)
        network.troubles = []
        fresh = await anext(boards)
        assert (fresh.stale, fresh.at) == (None, network.world.clock.now())
        assert "STALE" not in drawn(fresh)


async def test_a_target_that_is_gone_leaves_the_board_and_one_that_never_was_there_fails() -> None:
    network = Network()
    there = [True]

    @asynccontextmanager
    async def reach(_: Selection) -> AsyncIterator[Api]:
        if not there[0]:
            raise CommandError("No local engine runs.", "opx up")
        yield Api(operator_of(network), True)

    looks = Looks(invocation_of(network, reach), Watcher(Wanted()), EVERY_S, network.world.clock)
    async with aclosing(looks.boards()) as boards:
        await anext(boards)
        there[0] = False
        network.troubles = nobody()
        assert [(await anext(boards)).stale is not None for _ in range(2)] == [True, True]
        assert looks.board is not None
        assert looks.board.stale == "No local engine runs."
    never = Looks(invocation_of(network, reach), Watcher(Wanted()), EVERY_S, network.world.clock)
    with pytest.raises(CommandError):
        await anext(never.boards())


def test_a_board_that_no_look_replaces_in_time_says_so_by_itself() -> None:
    board = Board(NOW)
    assert "STALE" not in drawn(board, after_s=EVERY_S)
    assert "STALE since 03:00:00 UTC (30s)" in drawn(board, after_s=30)


# --- how it is shown ---------------------------------------------------------------------------------------------------


async def test_no_more_is_drawn_than_fits_whatever_the_size() -> None:
    network = Network()
    for number in range(30):
        await network.world.opened(dedupKey=f"k{number}", title=f"{number} {'long ' * 60}")
    board = replace(await looked(network), stale="no answer " * 40, more=True)
    for width, height in ((40, 10), (80, 24), (109, 30), (110, 12), (200, 60)):
        lines = drawn(board, width, height).splitlines()
        assert len(lines) <= height, (width, height)
        assert max(map(len, lines)) <= width
    assert "don't fit on the screen" in drawn(board, 80, 24)
    assert "don't fit" not in drawn(board, 200, 60)


async def test_a_title_from_outside_moves_no_cursor() -> None:
    network = Network()
    identity = await network.world.opened(title="plain")
    board = await looked(network)
    (one,) = board.standings
    evil = one.incident.model_copy(update={"title": "\x1b[2J[bold]x", "service": "\x1b[H"})
    text = drawn(Board(board.at, (Standing(evil),)))
    assert "\x1b" not in text
    assert "[bold]x" in text
    assert identity[:8] in text


def test_an_age_has_two_units_at_most() -> None:
    ages = {
        30 * 86_400: "30d",
        4607 * 86_400 + 7200: "4607d",
        29 * 86_400 + 7200: "29d2h",
        5: "5s",
        65: "1m5s",
        3600: "1h",
        3700: "1h1m",
        90_000: "1d1h",
        -3: "0s",
    }
    assert {seconds: brief(NOW - timedelta(seconds=seconds), NOW) for seconds in ages} == ages


async def test_a_row_counts_what_was_seen_as_a_list_does() -> None:
    network = Network()
    for number in range(3):
        applied(await network.world.offer(candidate_body(idempotencyKey=f"k{number}")))
    board = await looked(network)
    (row,) = board.standings
    assert (row.evidence, row.detections) == (0, 3)
    assert "seen 3" in drawn(board)
    head, line = (line for line in drawn(board, 140).splitlines() if " seen" in line or "checkout" in line)
    assert line[: head.index("seen") + len("seen")].endswith(" 3")
    assert board.to_document()["incidents"][0]["detections"] == 3


def test_one_look_is_printed_for_people_and_is_one_document_for_programs() -> None:
    line = CommandLine()
    identity = line.declared()
    for width in (80, 140):
        shown = line("watch", "--once", people=True, width=width)
        assert shown.code == 0
        assert "OPEN 1" in shown.out
        assert f"Next: opx open {identity[:8]}" in shown.out
        assert max(map(len, shown.out.splitlines())) <= width
    told = line("watch", "--once", "--severity", "sev2", "--json")
    (document,) = told.lines
    assert (told.code, [one["incidentId"] for one in document["incidents"]]) == (0, [identity])
    assert document["states"] == {"OPEN": 1}
    (empty,) = line("watch", "--once", "--service", "nobodys").lines
    assert (empty["incidents"], empty["more"]) == ([], False)
