"""Taking turns: who meets nobody never waits, who loses makes way, and a storm that is over is forgotten."""

import random

import pytest

from pipeline.domain.errors import Conflict
from pipeline.services.ports import Commit, CommitResult
from pipeline.services.turns import KNOWN_MAX, LOST, REMEMBERED_S, WAIT_S, WAIT_S_MAX, WON, Turns
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import candidate_body, command_body
from tests.support.clock import FixedClock
from tests.support.world import World, applied

PLACE = ("checkout", "checkout-5xx")


def most(turns: Turns, place: object = PLACE) -> float:
    """Return about the longest wait there is now."""
    return max(turns.wait_s(place) for _ in range(200))


def test_who_has_met_nobody_does_not_wait() -> None:
    turns = Turns(FixedClock())
    turns.won(PLACE)
    assert most(turns) == 0
    turns.lost(PLACE)
    assert 0 < most(turns) <= WAIT_S
    assert most(turns, ("search", "lag")) == 0


def test_losing_waits_longer_up_to_a_limit_and_winning_shorter_down_to_nothing() -> None:
    turns = Turns(FixedClock())
    longest = []
    for _ in range(8):
        turns.lost(PLACE)
        longest.append(turns.crowds[PLACE].wait_s)
    assert longest[:3] == pytest.approx([WAIT_S, WAIT_S * LOST, WAIT_S * LOST**2])
    assert longest[-1] == WAIT_S_MAX
    turns.won(PLACE)
    assert turns.crowds[PLACE].wait_s == pytest.approx(WAIT_S_MAX * WON)
    for _ in range(30):
        turns.won(PLACE)
    assert turns.crowds == {}


def test_a_storm_long_ago_is_forgotten() -> None:
    clock = FixedClock()
    turns = Turns(clock)
    turns.lost(PLACE)
    clock.elapsed_s += REMEMBERED_S + 1
    assert turns.wait_s(PLACE) == 0
    assert turns.crowds == {}


def test_what_is_remembered_is_bounded() -> None:
    turns = Turns(FixedClock())
    for number in range(KNOWN_MAX + 10):
        turns.lost(number)
    assert len(turns.crowds) == KNOWN_MAX
    assert (turns.crowds.get(9), 10 in turns.crowds) == (None, True)


@pytest.mark.parametrize("others", [2, 8, 20])
def test_whatever_their_number_about_one_in_five_loses(others: int, rng: random.Random) -> None:
    """A model of the others alone: an attempt loses where another's came within the time that both take."""
    clock = FixedClock()
    turns = [Turns(clock) for _ in range(others)]
    random.seed(rng.random())
    due = [(0.0, number) for number in range(others)]
    last, lost, tries = -1.0, 0, 0
    for _ in range(400 * others):
        now, number = min(due)
        clock.elapsed_s = now
        loses = now - last < WAIT_S
        (turns[number].lost if loses else turns[number].won)(PLACE)
        last = last if loses else now
        due[number] = (now + WAIT_S + turns[number].wait_s(PLACE), number)
        tries, lost = tries + 1, lost + loses
    assert lost / tries < 0.35


class Busy(MemoryStore):
    """A store whose first commits meet others."""

    conflicts = 0

    async def commit(self, commit: Commit) -> CommitResult:
        if self.conflicts:
            self.conflicts -= 1
            raise Conflict("another transaction was in the way")
        return await super().commit(commit)


async def test_a_batch_waits_before_it_reads_where_the_one_before_it_lost() -> None:
    store = Busy()
    world = World(store)
    await world.offer(candidate_body())
    assert world.clock.elapsed_s == 0
    store.conflicts = 3
    await world.offer(candidate_body())
    waited = world.clock.elapsed_s
    assert waited > 0
    await world.offer(candidate_body())
    assert world.clock.elapsed_s > waited
    waited = world.clock.elapsed_s
    await world.offer(candidate_body(service="search"))
    assert world.clock.elapsed_s == waited, "what has nothing to do with the storm waits for nothing"


async def test_a_persons_command_does_not_take_turns() -> None:
    store = Busy()
    world = World(store)
    identity = applied(await world.offer(candidate_body())).incident_id
    for _ in range(4):
        world.controller.loop.turns.lost(PLACE)
    await world.order(command_body("change-state", identity, newState="MITIGATING", reason="seen"))
    assert world.clock.elapsed_s == 0
    store.conflicts = 2
    await world.order(command_body("change-state", identity, newState="RESOLVED", reason="restarted"))
    assert 0 < world.clock.elapsed_s < 0.1


async def test_a_turn_that_would_outlast_the_request_is_not_waited_for() -> None:
    world = World()
    loop = world.intake.loop
    for _ in range(8):
        loop.turns.lost(PLACE)
    await loop.turn(PLACE, deadline=1e-9)
    assert world.clock.elapsed_s == 0
