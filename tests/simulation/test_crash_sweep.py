"""The process dies before and after every single call, then everything is delivered again: the outcome is the model's.

The model is the same input without a crash. A `Crash` is a BaseException that no code of ours may catch.
"""

import inspect
import json
from typing import Any

import pytest

from pipeline.domain.ids import incident_id
from tests.simulation.world import World
from tests.support.replaying import verify_store


class Crash(BaseException):
    """The process ends here."""


class Tripwire:
    """Counts every call through the wrapped ports and dies at the chosen one, before or after its effect."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.at, self.after, self.calls = at, after, 0
        self.names: list[str] = []

    def wrap(self, port: Any) -> Any:
        return _Wired(port, self)

    def pass_by(self, name: str, *, after: bool) -> None:
        if not after:
            self.calls += 1
            self.names.append(name)
        if self.calls == self.at and after is self.after:
            self.at = None
            raise Crash(f"{'after' if after else 'before'} call {self.calls}: {name}")


class _Wired:
    def __init__(self, port: Any, wire: Tripwire) -> None:
        self._port, self._wire = port, wire

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def wired(*args: Any, **options: Any) -> Any:
            self._wire.pass_by(name, after=False)
            answer = await method(*args, **options)
            self._wire.pass_by(name, after=True)
            return answer

        return wired


CHECKOUT = incident_id("checkout", "checkout-5xx", 1)
SEARCH = incident_id("search", "search-lag", 1)


def candidate(**changes: Any) -> str:
    body = {"type": "candidate", "service": "checkout", "severity": "SEV2", "title": "5xx above 5 %"}
    return json.dumps(body | {"dedupKey": "checkout-5xx"} | changes)


def command(kind: str, incident: str = CHECKOUT, **fields: Any) -> str:
    return json.dumps({"type": kind, "incidentId": incident, "authority": "HUMAN", "reason": "seen"} | fields)


def send_everything(world: World) -> None:
    """One of each fate: first, joining, raising, duplicate, refused, malformed, pending; then a life in commands."""
    send = world.candidates.send
    send("c1", candidate())
    send("c2", candidate(severity="SEV1", idempotencyKey="k2"))
    send("c3", candidate(severity="SEV1", idempotencyKey="k2"))
    send("c4", candidate(idempotencyKey="k2"))
    send("c5", '{"type":"candidate","service":')
    send("c6", candidate(principal="somebody"))
    send("c7", candidate(service="search", dedupKey="search-lag", confidence=0.1))
    send("c8", candidate(service="search", dedupKey="search-lag", confidence=0.95))
    send("c9", candidate(policyId="nobody-wrote-it"))
    say = world.commands.send
    say("m1", command("change-state", newState="MITIGATING", idempotencyKey="go"), CHECKOUT)
    say("m2", command("change-state", newState="MITIGATING", idempotencyKey="go"), CHECKOUT)
    say("m3", command("change-state", newState="CLOSED", idempotencyKey="too-early"), CHECKOUT)
    say("m4", command("change-state", newState="CANCELLED"), CHECKOUT)
    say("m5", command("change-state", newState="RESOLVED", authority="SYSTEM"), CHECKOUT)
    say("m6", command("change-state", newState="RESOLVED"), CHECKOUT)
    say("m7", command("add-note", note="post-mortem on Friday"), CHECKOUT)
    say("m8", command("link", SEARCH, relation="caused-by", target=CHECKOUT), SEARCH)
    say("m9", command("attach-evidence", incident_id("x", "y", 1), evidence=[{"kind": "log", "ref": "r"}]), "other")
    say(
        "m10",
        json.dumps({"type": "declare", "service": "web", "severity": "SEV3", "title": "slow", "authority": "HUMAN"}),
        "d",
    )


def late(world: World) -> None:
    """After the resolution: a drained backlog joins it, a new observation begins occurrence 2."""
    world.clock.seconds += 60
    world.candidates.send("c10", candidate(observedAt="2026-03-01T02:59:00Z"))
    world.candidates.send("c11", candidate())


def outcome_of(world: World) -> dict[str, Any]:
    """Everything a crash must not change. Refusals and publications may come twice, so they are sets.

    A refusal without a key of the caller's own leaves no receipt and is decided anew when its message comes again: that it
    is refused may not change, its code may.
    """
    return {
        "incidents": world.store.incidents,
        "pointers": {key: pointer.to_document() for key, pointer in world.store.pointers.items()},
        "receipts": world.store.receipts,
        "events": world.store.events,
        "rejected": {(item.body, item.explanation["originalMessageId"]) for item in world.rejected.messages},
        "published": {(entry.detail_type, entry.detail) for entry in world.bus.entries},
        "dead": [*world.candidates.dead, *world.commands.dead],
        "failed": world.failures.kept,
    }


async def live(wire: Tripwire) -> World:
    """Run the scenario to its end; a crash starts the process again, with everything unsettled delivered again."""
    world = World(wire.wrap)
    for act in (send_everything, late):
        act(world)
        while True:
            try:
                await world.drain()
                break
            except (Crash, BaseExceptionGroup) as crash:
                if isinstance(crash, BaseExceptionGroup) and crash.split(Crash)[1] is not None:
                    raise
    return world


async def test_the_model_itself_is_as_expected() -> None:
    world = await live(Tripwire())
    states = {row["incidentId"]: row["state"] for row in world.store.incidents.values()}
    assert states[CHECKOUT] == "RESOLVED"
    assert states[SEARCH] == "OPEN"
    assert states[incident_id("checkout", "checkout-5xx", 2)] == "OPEN"
    rejected = {item.explanation["originalMessageId"]: item.explanation["code"] for item in world.rejected.messages}
    assert rejected == {
        "c4": "key-reused",
        "c5": "malformed-json",
        "c6": "unknown-field",
        "c9": "policy-unknown",
        "m3": "transition-illegal",
        "m4": "transition-illegal",
        "m5": "transition-authority",
        "m9": "incident-unknown",
    }
    assert len(world.bus.entries) == len(world.store.feed)
    assert verify_store(world.store) == []


async def test_a_crash_at_any_call_changes_nothing() -> None:
    counting = Tripwire()
    model = outcome_of(await live(counting))
    assert counting.calls >= 40
    died = 0
    for at in range(1, counting.calls + 1):
        for after in (False, True):
            wire = Tripwire(at, after=after)
            world = await live(wire)
            died += wire.at is None
            where = f"{'after' if after else 'before'} call {at} ({counting.names[at - 1]})"
            for part, expected in model.items():
                assert outcome_of(world)[part] == expected, f"{part} differs when the process dies {where}"
    assert died == 2 * counting.calls


@pytest.mark.parametrize("stride", [3, 7])
async def test_dying_again_and_again_still_ends_well(stride: int) -> None:
    model = outcome_of(await live(Tripwire()))

    class Recurring(Tripwire):
        def pass_by(self, name: str, *, after: bool) -> None:
            super().pass_by(name, after=after)
            if after and self.calls % stride == 0 and self.calls < 400:
                self.calls += 1
                raise Crash(name)

    world = await live(Recurring())
    for part, expected in model.items():
        assert outcome_of(world)[part] == expected, part
