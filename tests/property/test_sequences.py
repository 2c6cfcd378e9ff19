"""Random sequences of candidates, commands, repetitions and clock jumps: the store is intact after every one of them."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.canonical import format_time
from pipeline.domain.ids import incident_id
from pipeline.services.decision import Applied, Outcome, Refused, Replayed, View
from tests.support.audit import audit
from tests.support.bodies import candidate_body, command_body, declare_body
from tests.support.clock import NOW
from tests.support.registry import AUTOMATION, DETECTOR, OPERATOR, STRANGER
from tests.support.world import InterleavedStore, World, run

SERVICES = ("checkout", "search")
KEYS = ("a", "b")


@dataclass(frozen=True)
class Offer:
    body: dict[str, Any]
    sender: Any


@dataclass(frozen=True)
class Order:
    body: dict[str, Any]
    sender: Any


@dataclass(frozen=True)
class Jump:
    delta: timedelta


@dataclass(frozen=True)
class Again:
    """Send an earlier message once more, word for word."""

    index: int


def _moment(hours: int) -> str:
    return format_time(NOW + timedelta(hours=hours))


severities = st.sampled_from(["SEV1", "SEV2", "SEV3", "SEV4"])
# Mostly within an hour, sometimes a week and more away, so that pending incidents expire.
moments = st.sampled_from([0, 0, 0, -1, 1, -200, 200]).map(_moment)
idempotency_keys = st.sampled_from([..., ..., "k-1", "k-2"])
candidates = st.builds(
    candidate_body,
    service=st.sampled_from(SERVICES),
    dedupKey=st.sampled_from(KEYS),
    severity=severities,
    confidence=st.sampled_from([1, 0.8, 0.5, 0]),
    observedAt=st.just(...) | moments,
    evidence=st.lists(st.builds(dict, kind=st.just("log"), ref=st.sampled_from("xyz")), max_size=3),
    idempotencyKey=idempotency_keys,
    policyId=st.sampled_from([..., ..., ..., "declared", "made-up"]),
)
targets = st.builds(incident_id, st.sampled_from(SERVICES), st.sampled_from(KEYS), st.sampled_from([1, 1, 1, 2, 3]))
fields = st.sampled_from(
    [
        ("change-state", {"newState": state, "reason": "r"})
        for state in ("MITIGATING", "RESOLVED", "CLOSED", "CANCELLED", "ARCHIVED")
    ]
    + [("change-state", {"newState": "MITIGATING", "expectedVersion": version}) for version in (1, 2, 3)]
    + [("change-severity", {"severity": severity}) for severity in ("SEV1", "SEV4")]
    + [
        ("attach-evidence", {"evidence": [{"kind": "log", "ref": "r"}]}),
        ("add-note", {"note": "n"}),
        ("request-promotion", {"reason": "r"}),
        ("dismiss", {"reason": "r"}),
        ("link", {"relation": "caused-by", "target": incident_id("checkout", "a", 1)}),
    ]
)
commands = st.builds(
    lambda target, chosen, key: command_body(chosen[0], target, **chosen[1], idempotencyKey=key),
    targets,
    fields,
    idempotency_keys,
)
declarations = st.builds(
    declare_body, service=st.sampled_from(SERVICES), dedupKey=st.sampled_from(["a", ...]), idempotencyKey=idempotency_keys
)
steps = st.one_of(
    st.builds(Offer, candidates, st.sampled_from([DETECTOR] * 9 + [STRANGER])),
    st.builds(Order, commands, st.sampled_from([OPERATOR, OPERATOR, AUTOMATION])),
    st.builds(Order, declarations, st.sampled_from([OPERATOR, AUTOMATION])),
    st.builds(Jump, st.sampled_from([-48, -1, 1, 48]).map(lambda hours: timedelta(hours=hours))),
    st.builds(Again, st.integers(0, 30)),
)


async def play(world: World, script: list[Any], view: View | None = None) -> None:
    """Send a script's messages one after the other, and check each repetition against the first answer."""
    sent: list[tuple[Any, str, Any, Outcome]] = []
    for number, step in enumerate(script):
        match step:
            case Jump(delta):
                world.clock.jump(delta)
            case Again(index) if sent:
                earlier, message_id, at, first = sent[index % len(sent)]
                before = len(world.store.feed)
                outcome = await send(world, earlier, message_id, at, view)
                check_repetition(first, outcome)
                assert isinstance(first, Refused) or len(world.store.feed) == before
            case Offer() | Order():
                at = world.clock.now()
                sent.append((step, f"m-{number}", at, await send(world, step, f"m-{number}", at, view)))


async def send(world: World, step: Any, message_id: str, at: Any, view: View | None) -> Outcome:
    if isinstance(step, Offer):
        return await world.offer(step.body, step.sender, message_id=message_id, sent_at=at, view=view)
    return await world.order(step.body, step.sender, message_id=message_id, view=view)


def check_repetition(first: Outcome, again: Outcome) -> None:
    match first:
        case Applied(receipt) | Replayed(receipt):
            assert again == Replayed(receipt)
        case Refused(refusal):
            # What was refused for a state may be legal by now; what was malformed or forbidden stays so.
            remembered = isinstance(again, Replayed) and again.receipt.refusal() == refusal
            assert remembered or isinstance(again, Refused | Applied)


@given(st.lists(steps, max_size=25))
def test_whatever_happens_the_history_folds_into_the_row(script: list[Any]) -> None:
    world = World()
    run(play(world, script))
    audit(world.store)


@settings(max_examples=50)
@given(st.lists(steps, max_size=25))
def test_a_view_kept_for_ever_changes_no_outcome(script: list[Any]) -> None:
    fresh, kept = World(), World()
    run(play(fresh, script))
    run(play(kept, script, View()))
    audit(kept.store)
    assert fresh.store.feed == kept.store.feed
    assert fresh.store.receipts == kept.store.receipts


@settings(max_examples=50)
@given(st.lists(st.lists(steps, max_size=8), min_size=2, max_size=4))
def test_scripts_that_run_at_once_leave_an_intact_store(scripts: list[list[Any]]) -> None:
    async def at_once(world: World) -> None:
        async def one(number: int, script: list[Any]) -> None:
            for place, step in enumerate(script):
                if isinstance(step, Offer | Order):
                    await send(world, step, f"m-{number}-{place}", world.clock.now(), None)
                elif isinstance(step, Jump):
                    world.clock.jump(step.delta)

        await asyncio.gather(*(one(number, script) for number, script in enumerate(scripts)))

    world = World(InterleavedStore())
    run(at_once(world))
    audit(world.store)
