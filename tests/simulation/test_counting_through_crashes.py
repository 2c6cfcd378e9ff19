"""Ten thousand detections of one window, and the process dies at every tenth commit: nothing is lost, nothing counts twice.

It dies in turn just before a commit takes effect and just after it did; what it had in hand is delivered again.
"""

import json
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.canonical import format_time, normalise
from pipeline.domain.ids import incident_id
from pipeline.domain.receipts import Answer
from pipeline.domain.rules import Rules
from pipeline.stores.memory import MemoryStore
from tests.simulation.test_crash_sweep import Crash
from tests.simulation.world import START, World
from tests.support.audit import audit

RULES = Rules.load(
    [
        normalise(
            {
                "ruleId": "errors",
                "version": 1,
                "windowS": 6 * 3600,
                "threshold": {"detections": 500},
                "confidence": 0.9,
                "title": "{threshold} errors in {window}",
                "cap": 20,
            }
        )
    ]
)
INCIDENT = incident_id("checkout", 'errors:["checkout"]', 1)
EVERY = 10


class DyingStore:
    """The store of a process that dies at every tenth commit, in turn before and after it took effect."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.commits = self.before = self.after = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def commit(self, commit: Any) -> Any:
        self.commits += 1
        dies = self.commits % EVERY == 0
        if dies and self.before <= self.after:
            self.before += 1
            raise Crash("before the commit")
        result = await self.store.commit(commit)
        if dies:
            self.after += 1
            raise Crash("after the commit")
        return result


def detection(number: int) -> str:
    """Return one of a storm: early and late by hours, the most severe ones rare."""
    seen = START - timedelta(seconds=number * 7919 % (3 * 3600), microseconds=number)
    severity = "SEV1" if number % 4000 == 1234 else "SEV3"
    body = {"type": "detection", "service": "checkout", "signalType": "http-5xx", "severity": severity}
    return json.dumps(body | {"observedAt": format_time(seen)})


async def drained_through_crashes(number: int) -> tuple[World, DyingStore, int]:
    """Send `number` detections, every fifth of them twice, and work until nothing is left; return how often it died."""
    store = DyingStore(MemoryStore())
    world = World(lambda port: store if port is store.store else port, store=store.store, rules=RULES)
    for index in range(number):
        world.candidates.send(f"m{index}", detection(index))
        if index % 5 == 0:
            world.candidates.send(f"m{index}-again", detection(index))
    died = 0
    while True:
        try:
            await world.drain()
            return world, store, died
        except (Crash, BaseExceptionGroup) as crash:
            if isinstance(crash, BaseExceptionGroup) and crash.split(Crash)[1] is not None:
                raise
            died += 1


@pytest.mark.long
async def test_ten_thousand_detections_are_counted_exactly_through_a_crash_at_every_tenth_commit() -> None:
    await check(10_000)


async def test_one_thousand_detections_are_counted_exactly_through_a_crash_at_every_tenth_commit() -> None:
    await check(1_000)


async def check(number: int) -> None:
    world, store, died = await drained_through_crashes(number)
    assert died == store.before + store.after == store.commits // EVERY
    assert abs(store.before - store.after) <= 1
    assert died >= number // 100
    (window,) = world.store.windows.values()
    assert window["detections"] == number
    assert window["incidentId"] == INCIDENT
    wanted = sorted(range(number), key=lambda index: (json.loads(detection(index))["severity"], _seen(index)))[:20]
    assert [item["observedAt"] for item in window["kept"]] == [_seen(index) for index in wanted]
    ((identity, row),) = world.store.incidents.items()
    assert (identity, row["state"], row["severity"]) == (INCIDENT, "OPEN", "SEV1" if number > 1234 else "SEV3")
    assert row["metadata"]["promotion"]["detections"] == number
    answers = [receipt["result"]["answer"] for receipt in world.store.receipts.values()]
    assert len(answers) == number
    assert answers.count(Answer.CREATED) == 1
    assert world.rejected.messages == []
    assert world.candidates.dead == []
    created = [document for document in world.store.feed if document["eventType"] == "IncidentCreated"]
    assert len(created) == 1
    audit(world.store)
    print(
        f"{number} detections, {store.commits} commits tried, died {store.before} times before and {store.after} after one"
    )


def _seen(index: int) -> str:
    found: str = json.loads(detection(index))["observedAt"]
    return found
