"""Retention dies before and after every call of the store and runs again: each incident is archived once, by one receipt."""

import copy
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.authority import Sender
from pipeline.runtime import shipped
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop
from pipeline.services.retention import RetentionService
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore
from tests.simulation.test_crash_sweep import Crash, Tripwire, candidate, command
from tests.simulation.world import VirtualClock, World
from tests.support.replaying import verify_store

ROLE = Sender("AROARETENTION", "opx-retention")
INCIDENTS = 5
REGISTRY = shipped.registry("prod", retention_role_id=ROLE.principal)
POLICIES = shipped.policies()


async def closed_now() -> MemoryStore:
    world = World()
    for number in range(INCIDENTS):
        world.candidates.send(f"c{number}", candidate(dedupKey=f"key-{number}"))
    await world.drain()
    for step, state in enumerate(("MITIGATING", "RESOLVED", "CLOSED")):
        for number, incident in enumerate(sorted(world.store.incidents)):
            world.commands.send(f"m{step}-{number}", command("change-state", incident, newState=state), incident)
        await world.drain()
    return world.store


async def archive(store: MemoryStore, wire: Tripwire) -> None:
    """Run a hundred days later until a run comes to its end; one that dies is begun again, as the next hour would."""
    clock = VirtualClock()
    clock.seconds = timedelta(days=100).total_seconds()
    while True:
        loop = DecisionLoop(wire.wrap(store), clock)
        controller = ControllerService(loop, POLICIES, REGISTRY, FixedControls())
        service = RetentionService(controller, ROLE, timedelta(days=90), archived_max=3)
        try:
            run = await service.run(None, clock.monotonic() + 60, lambda told: None)
        except Crash:
            continue
        if not run.waiting:
            return


def outcome_of(store: MemoryStore) -> dict[str, Any]:
    return {"incidents": store.incidents, "events": store.events, "receipts": store.receipts}


async def test_retention_that_dies_at_any_call_ends_as_one_that_never_did() -> None:
    counting, closed = Tripwire(), await closed_now()
    model = copy.deepcopy(closed)
    await archive(model, counting)
    assert {row["state"] for row in model.incidents.values()} == {"ARCHIVED"}
    assert sum(receipt["keyKind"] == "retention" for receipt in model.receipts.values()) == INCIDENTS
    assert verify_store(model) == []
    assert counting.calls >= INCIDENTS + 2
    for at in range(1, counting.calls + 1):
        for after in (False, True):
            wire, store = Tripwire(at, after=after), copy.deepcopy(closed)
            await archive(store, wire)
            assert wire.at is None
            assert outcome_of(store) == outcome_of(model), f"died {'after' if after else 'before'} call {at}"


@pytest.mark.parametrize("stride", [2, 3])
async def test_retention_that_dies_again_and_again_gets_there(stride: int) -> None:
    class Recurring(Tripwire):
        def pass_by(self, name: str, *, after: bool) -> None:
            super().pass_by(name, after=after)
            if after and name == "commit" and self.calls % stride == 0:
                self.calls += 1
                raise Crash(name)

    closed = await closed_now()
    model, store = copy.deepcopy(closed), copy.deepcopy(closed)
    await archive(model, Tripwire())
    await archive(store, Recurring())
    assert outcome_of(store) == outcome_of(model)
