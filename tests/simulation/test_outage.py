"""Three virtual hours without DynamoDB: nothing is lost, nothing reaches a dead-letter queue, every incident is made.

Messages of different keys share nothing but the schedule, so a share of the 1000 a minute shows what all of them would
meet; the full rate runs with `make long`.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.domain.errors import Unavailable
from pipeline.runtime.telemetry import Report
from pipeline.stores.memory import MemoryStore
from tests.simulation.world import World

OUTAGE_S = 3 * 3600


class Dark:
    """A port that refuses every call until the outage is over."""

    def __init__(self, port: Any, world: list[World]) -> None:
        self._port, self._world = port, world

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        async def dimmed(*args: Any, **options: Any) -> Any:
            if self._world[0].clock.seconds < OUTAGE_S:
                raise Unavailable("the table does not answer")
            return await method(*args, **options)

        return dimmed


@dataclass
class Tally:
    """Counts tries. The reports themselves would hold millions of exceptions."""

    tries: int = 0
    worst: int = 0

    def note(self, report: Report) -> None:
        self.tries += 1
        self.worst = max(self.worst, report.message.receive_count)


async def survive(per_minute: int) -> tuple[World, int, Tally]:
    """Send for three hours into an outage of three hours, then drain. Return the world, messages sent and tries made."""
    box: list[World] = []
    tally = Tally()
    world = World(lambda port: Dark(port, box) if port is world_store(port) else port, report=tally.note)
    box.append(world)
    sent = 0
    for minute in range(OUTAGE_S // 60):
        world.clock.seconds = max(world.clock.seconds, minute * 60.0)
        for _ in range(per_minute):
            sent += 1
            body = {"type": "candidate", "service": f"s{sent % 7}", "severity": "SEV2", "title": "t", "dedupKey": str(sent)}
            world.candidates.send(f"m{sent}", json.dumps(body))
        until = minute * 60.0 + 60
        while (due := world.candidates.next_visible()) is not None and due < until:
            world.clock.seconds = max(world.clock.seconds, due)
            while await world.deliver(world.candidates, world.candidates_door):
                pass
    await world.drain()
    return world, sent, tally


def world_store(port: Any) -> Any:
    return port if isinstance(port, MemoryStore) else None


async def check(per_minute: int) -> None:
    world, sent, tally = await survive(per_minute)
    assert world.candidates.dead == []
    assert len(world.store.incidents) == sent == per_minute * 180
    assert {row["state"] for row in world.store.incidents.values()} == {"OPEN"}
    assert world.rejected.messages == []
    assert tally.worst < 30, "far below the 100 receives after which a message counts as poison"
    print(f"{sent} messages, {tally.tries} tries, at most {tally.worst} receives")


async def test_three_hours_without_the_table_lose_nothing() -> None:
    await check(per_minute=8)


@pytest.mark.full
async def test_three_hours_without_the_table_at_the_full_rate() -> None:
    await check(per_minute=1000)


async def test_a_dead_rejected_queue_keeps_the_message_until_it_is_back() -> None:
    class RejectedDown:
        down = True

        def __init__(self, port: Any) -> None:
            self._port = port

        async def reject(self, message: Any) -> None:
            if RejectedDown.down:
                raise Unavailable("the rejected queue does not answer")
            await self._port.reject(message)

    world = World(lambda port: RejectedDown(port) if hasattr(port, "reject") else port)
    world.candidates.send("poison", "not json")
    world.candidates.send(
        "good", json.dumps({"type": "candidate", "service": "s", "severity": "SEV1", "title": "t", "dedupKey": "k"})
    )
    await world.deliver(world.candidates, world.candidates_door)
    assert len(world.store.incidents) == 1, "a neighbour is not held up"
    assert world.candidates.next_visible() == 10, "the first try is followed by the next after ten seconds"
    RejectedDown.down = False
    await world.drain()
    assert [item.body for item in world.rejected.messages] == ["not json"]


async def test_delays_double_up_to_fifteen_minutes() -> None:
    box: list[World] = []
    world = World(lambda port: Dark(port, box) if world_store(port) else port)
    box.append(world)
    world.candidates.send(
        "m", json.dumps({"type": "candidate", "service": "s", "severity": "SEV1", "title": "t", "dedupKey": "k"})
    )
    seen = []
    for _ in range(10):
        at = world.clock.seconds
        await world.deliver(world.candidates, world.candidates_door)
        due = world.candidates.next_visible()
        assert due is not None
        seen.append(due - at)
        world.clock.seconds = due
    assert seen == [10, 20, 40, 80, 160, 320, 640, 900, 900, 900]
