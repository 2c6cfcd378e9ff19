"""`make load` proves something: its plan comes out as it says, and its proof notices what is lost, doubled or changed."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.bench.load_plan import ACTED, DUPLICATE, FRESH, JOIN, MITIGATE, RESOLVE, Plan, command, plan
from tests.bench.load_proof import Stored, claims
from tests.simulation.world import World

INCIDENTS = 120


async def worked_off(load: Plan, rng: random.Random) -> Stored:
    """Deliver a plan in any order and any batches, act as its people do, and return what is left."""
    world = World()
    for number, arrival in enumerate(rng.sample(load.arrivals, len(load.arrivals))):
        world.candidates.send(f"m{number}", json.dumps(arrival.body))
    await world.drain()
    for incident in load.acted:
        for step in (MITIGATE, RESOLVE):
            world.commands.send(f"{step}-{incident}", json.dumps(command(incident, step)), incident)
    await world.drain()
    openings = [json.loads(entry.detail) for entry in world.bus.entries if entry.detail_type == "IncidentOpened"]
    return Stored(
        rows=dict(world.store.incidents),
        histories={key: tuple(history.values()) for key, history in world.store.events.items()},
        receipts=len(world.store.receipts),
        heard=frozenset(opening["incidentId"] for opening in openings),
        published=len(world.bus.entries),
        rejected=len(world.rejected.messages),
        dead=len(world.candidates.dead) + len(world.commands.dead),
    )


def broken(load: Plan, found: Stored) -> list[str]:
    return [claim.says for claim in claims(load, found) if not claim.holds]


async def test_a_plan_in_any_order_leaves_what_its_proof_asks_for(rng: random.Random) -> None:
    load = plan(rng, INCIDENTS, 1)
    counts = load.counts
    assert counts[FRESH] == INCIDENTS == len(load.detections)
    assert min(counts[JOIN], counts[DUPLICATE], len(load.acted)) > 0
    assert broken(load, await worked_off(load, rng)) == []


def test_the_same_seed_is_the_same_plan_and_another_is_not() -> None:
    assert plan(random.Random(5), 300, 2) == plan(random.Random(5), 300, 2)
    assert plan(random.Random(5), 300, 2) != plan(random.Random(6), 300, 2)
    load = plan(random.Random(7), 1000, 10)
    assert abs(len(load.acted) / len(load.detections) - ACTED) < 0.03
    assert list(load.arrivals) == sorted(load.arrivals)


def _without_a_row(found: Stored) -> Stored:
    return replace(found, rows=dict(list(found.rows.items())[1:]))


def _with_one_too_many(found: Stored) -> Stored:
    key, row = next(iter(found.rows.items()))
    alien = f"{key[:-4]}0000"
    events = tuple(event | {"incidentId": alien} for event in found.histories[key])
    return replace(
        found, rows=found.rows | {alien: row | {"incidentId": alien}}, histories=found.histories | {alien: events}
    )


def _without_an_event(found: Stored) -> Stored:
    key, history = next(iter(found.histories.items()))
    return replace(found, histories=found.histories | {key: history[:-1]})


def _counted_twice(found: Stored) -> Stored:
    key, row = next(iter(found.rows.items()))
    metadata: Any = row["metadata"]
    promotion = metadata["promotion"] | {"detections": metadata["promotion"]["detections"] + 1}
    return replace(found, rows=found.rows | {key: row | {"metadata": metadata | {"promotion": promotion}}})


def _in_another_state(found: Stored) -> Stored:
    key, row = next(iter(found.rows.items()))
    return replace(found, rows=found.rows | {key: row | {"state": "CLOSED"}})


@pytest.mark.parametrize(
    ("damage", "notices"),
    [
        (_without_a_row, "every incident that was sent exists exactly once, and no other"),
        (_with_one_too_many, "every incident that was sent exists exactly once, and no other"),
        (_without_an_event, "rows = fold of their events; hashes chain, no gap"),
        (_counted_twice, "each counts its candidates once, copies not"),
        (_in_another_state, "each is in the state that was asked for"),
        (lambda found: replace(found, receipts=found.receipts + 1), "receipts = messages without their copies"),
        (lambda found: replace(found, heard=frozenset(list(found.heard)[1:])), "a subscriber heard of every opening"),
        (lambda found: replace(found, published=found.published - 1), "every event was published"),
        (lambda found: replace(found, waiting=1), "nothing waits"),
        (lambda found: replace(found, dead=1), "nothing is dead"),
        (lambda found: replace(found, rejected=1), "nothing was rejected"),
        (lambda found: replace(found, set_aside=1), "the fan-out set nothing aside"),
    ],
)
async def test_the_proof_notices_what_is_not_as_it_was_sent(
    rng: random.Random, damage: Callable[[Stored], Stored], notices: str
) -> None:
    load = plan(rng, 30, 1)
    assert notices in broken(load, damage(await worked_off(load, rng)))
