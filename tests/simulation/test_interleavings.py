"""Every order in which processes that meet at one key can take their turns: whichever it is, the promises hold.

Processes share nothing but the store, and each call to it takes effect at once; so to give way before each call is to give
way wherever it matters. All orders are tried, one after the other, and counted.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from pipeline.domain.canonical import normalise
from pipeline.domain.receipts import Answer
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, View
from pipeline.stores.memory import MemoryStore
from tests.support.audit import audit, fold
from tests.support.bodies import ERRORS_RULE, candidate_body, command_body, text_of
from tests.support.clock import NOW
from tests.support.histories import POLICIES
from tests.support.registry import DETECTOR
from tests.support.world import DEADLINE, World, applied

ORDERS_MAX: Final = 20_000
RESOLVED_AT: Final = NOW + timedelta(minutes=1)
AFTER: Final = RESOLVED_AT + timedelta(minutes=1)
THRESHOLD: Final = 4
RULES: Final = Rules.load([normalise(ERRORS_RULE | {"threshold": {"detections": THRESHOLD}})], POLICIES)


@dataclass
class Stage:
    """Lets one process at a time do one call. `cues`: who comes next, as a number among those who could; then the first."""

    cues: Sequence[int]
    waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    taken: list[tuple[int, int]] = field(default_factory=list)

    async def give_way(self, who: str) -> None:
        self.waiting[who] = asyncio.get_running_loop().create_future()
        await self.waiting[who]

    async def play(self, parts: dict[str, Coroutine[Any, Any, Any]]) -> dict[str, Any]:
        """Run all parts to their ends in the order of the cues."""
        tasks = {who: asyncio.create_task(part) for who, part in parts.items()}
        while not all(task.done() for task in tasks.values()):
            if any(not task.done() and who not in self.waiting for who, task in tasks.items()):
                await asyncio.sleep(0)
                continue
            could = sorted(self.waiting)
            cue = self.cues[len(self.taken)] if len(self.taken) < len(self.cues) else 0
            self.taken.append((cue, len(could)))
            self.waiting.pop(could[cue]).set_result(None)
        return {who: task.result() for who, task in tasks.items()}


class GivingWay:
    """A process's way to the store: it gives way before each call."""

    def __init__(self, real: MemoryStore, stage: Stage, who: str) -> None:
        self.real, self.stage, self.who = real, stage, who

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        async def call(*arguments: Any) -> Any:
            await self.stage.give_way(self.who)
            return await method(*arguments)

        return call


@dataclass
class Scene:
    """One order: the store, and a process of its own for each part."""

    store: MemoryStore
    stage: Stage

    def process(self, who: str, now: datetime = NOW) -> World:
        world = World(GivingWay(self.store, self.stage, who), rules=RULES)  # type: ignore[arg-type] # in all but its type
        world.clock.time = now
        return world


def orders(play: Callable[[Stage], Coroutine[Any, Any, None]]) -> Iterator[tuple[int, ...]]:
    """Play every order there is, depth first; yield each one's cues."""
    ahead: list[tuple[int, ...]] = [()]
    played = 0
    while ahead:
        stage = Stage(ahead.pop())
        asyncio.run(play(stage))
        played += 1
        assert played <= ORDERS_MAX, "more orders than were thought of"
        cues = tuple(cue for cue, _ in stage.taken)
        for place in range(len(stage.cues), len(cues)):
            ahead += [(*cues[:place], other) for other in range(1, stage.taken[place][1])]
        yield cues


async def bring(world: World, *messages: tuple[str, dict[str, Any]], seen: datetime) -> list[Answer]:
    """Hand a process one batch; return what its messages were told."""
    works = [world.intake.read(text_of(body), world.received(DETECTOR, name, seen)) for name, body in messages]
    answers = await world.intake.take_all(works, View(), DEADLINE)
    assert all(isinstance(answer, Applied) for (answer,) in answers), answers
    return sorted(answer.receipt.result.answer for (answer,) in answers if isinstance(answer, Applied))


def batch(name: str, members: int) -> list[tuple[str, dict[str, Any]]]:
    return [(f"{name}-{number}", candidate_body()) for number in range(members)]


def detections(name: str, members: int) -> list[tuple[str, dict[str, Any]]]:
    body = {"type": "detection", "service": "checkout", "source": "probe", "signalType": "error", "severity": "SEV2"}
    return [
        (f"{name}-{number}", body | {"observedAt": "2026-01-31T03:00:00Z", "attributes": {"who": f"{name}-{number}"}})
        for number in range(members)
    ]


async def in_mitigation(store: MemoryStore) -> str:
    """Make an incident that somebody works on; return its id."""
    world = World(store, rules=RULES)
    identity = applied(await world.offer(candidate_body())).incident_id
    await world.walk(identity, "MITIGATING")
    return identity


async def resolve(world: World, identity: str) -> None:
    """Resolve it: a person is never refused because of a storm."""
    body = command_body("change-state", identity, newState="RESOLVED", reason="restarted")
    assert applied(await world.order(body)).state is State.RESOLVED


@pytest.mark.parametrize(
    ("seen", "consumers", "members"),
    [(NOW, 1, 3), (RESOLVED_AT, 1, 3), (AFTER, 1, 3), pytest.param(AFTER, 2, 2, marks=pytest.mark.long)],
)
@pytest.mark.parametrize("met", [False, True], ids=["a new key", "a key met before"])
def test_candidates_racing_a_resolve_are_evidence_or_the_next_occurrence(
    seen: datetime, consumers: int, members: int, met: bool
) -> None:
    occurrences = []

    async def play(stage: Stage) -> None:
        scene = Scene(MemoryStore(), stage)
        identity = await in_mitigation(scene.store)
        names = [f"consumer-{number}" for number in range(consumers)]
        worlds = [scene.process(name, seen) for name in names]
        for world in worlds if met else ():
            world.intake.loop.known.keep(_folded(scene.store.events[identity]))
        parts = {name: bring(world, *batch(name, members), seen=seen) for name, world in zip(names, worlds, strict=True)}
        parts |= {"operator": resolve(scene.process("operator", RESOLVED_AT), identity)}  # type: ignore[dict-item]
        await stage.play(parts)

        audit(scene.store)
        rows = sorted(map(_folded, scene.store.events.values()), key=lambda row: row.metadata.occurrence)
        assert (rows[0].incident_id, rows[0].state) == (identity, State.RESOLVED)
        assert [row.state for row in rows[1:]] == [State.OPEN] * (len(rows) - 1)
        assert sum(row.metadata.promotion.detections for row in rows) == 1 + consumers * members
        occurrences.append(len(rows))

    played = list(orders(play))
    print(f"{len(played)} orders; {occurrences.count(2)} began occurrence 2")
    assert len(set(played)) == len(played) > 2
    assert set(occurrences) == ({1, 2} if seen > RESOLVED_AT else {1})


@pytest.mark.parametrize(("counted", "members"), [(0, (4, 4)), (2, (3, 3)), (0, (2, 2, 1))])
def test_a_threshold_crossed_at_once_makes_one_incident_and_counts_each(counted: int, members: tuple[int, ...]) -> None:
    async def play(stage: Stage) -> None:
        scene = Scene(MemoryStore(), stage)
        if counted:
            await bring(World(scene.store, rules=RULES), *detections("before", counted), seen=NOW)
        names = [f"consumer-{number}" for number in range(len(members))]
        told = await stage.play(
            {
                name: bring(scene.process(name), *detections(name, of), seen=NOW)
                for name, of in zip(names, members, strict=True)
            }
        )

        audit(scene.store)
        (history,) = scene.store.events.values()
        (window,) = scene.store.windows.values()
        row = _folded(history)
        assert window["detections"] == row.metadata.promotion.detections == counted + sum(members)
        assert window["incidentId"] == row.incident_id
        assert [answer for found in told.values() for answer in found].count(Answer.CREATED) == 1

    played = list(orders(play))
    print(f"{len(played)} orders")
    assert len(set(played)) == len(played) > 2


def test_first_candidates_of_a_key_make_one_incident_in_every_order() -> None:
    async def play(stage: Stage) -> None:
        scene = Scene(MemoryStore(), stage)
        names = ("a", "b", "c")
        told = await stage.play({name: bring(scene.process(name), *batch(name, 2), seen=NOW) for name in names})

        audit(scene.store)
        (history,) = scene.store.events.values()
        assert _folded(history).metadata.promotion.detections == 6
        assert [answer for found in told.values() for answer in found].count(Answer.CREATED) == 1

    played = list(orders(play))
    print(f"{len(played)} orders")
    assert len(set(played)) == len(played) > 2


# All orders of two consumers and the operator are some 7000, a minute's work.
@pytest.mark.parametrize("names", ["a", pytest.param("ab", marks=pytest.mark.full)])
def test_a_fired_windows_detections_racing_a_resolve_stay_with_its_incident(names: str) -> None:
    async def play(stage: Stage) -> None:
        scene = Scene(MemoryStore(), stage)
        world = World(scene.store, rules=RULES)
        await bring(world, *detections("before", THRESHOLD), seen=NOW)
        (identity,) = scene.store.events
        await world.walk(identity, "MITIGATING")
        parts = {name: bring(scene.process(name), *detections(name, 2), seen=NOW) for name in names}
        parts |= {"operator": resolve(scene.process("operator", RESOLVED_AT), identity)}  # type: ignore[dict-item]
        await stage.play(parts)

        audit(scene.store)
        (history,) = scene.store.events.values()
        (window,) = scene.store.windows.values()
        assert _folded(history).state is State.RESOLVED
        assert window["detections"] == _folded(history).metadata.promotion.detections == THRESHOLD + 2 * len(names)

    played = list(orders(play))
    print(f"{len(played)} orders")
    assert len(set(played)) == len(played) > 2


def _folded(history: dict[int, Any]) -> Any:
    return fold([document for _, document in sorted(history.items())])
