"""Batches at once, from processes that know nothing of each other: one incident, each member once. Over every store.

A batch is what a queue's consumer is handed: its candidates of one key are one transaction, so are its detections of one
window. Two such transactions meet as two single ones do.
"""

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from pipeline.domain.canonical import format_time, normalise
from pipeline.domain.controls import NO_CONTROLS
from pipeline.domain.correlation import Window, span_of
from pipeline.domain.incidents import Incident
from pipeline.domain.receipts import Answer
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import State
from pipeline.runtime import shipped
from pipeline.services.decision import Answered, Applied, DecisionLoop, View
from pipeline.services.intake import IntakeService
from pipeline.services.listing import list_incidents
from pipeline.services.ports import IncidentStore, Listing
from pipeline.stores.controls import FixedControls
from tests.contract.commits import NOW
from tests.contract.rigs import DEADLINE_S, SetClock, received, rig
from tests.contract.worlds import World
from tests.support.audit import audit_history
from tests.support.bodies import ERRORS_RULE

CANDIDATE: Final = {
    "type": "candidate",
    "service": "checkout",
    "severity": "SEV2",
    "title": "5xx",
    "dedupKey": "checkout-5xx",
}
THRESHOLD: Final = 12
RULES: Final = Rules.load([normalise(ERRORS_RULE | {"threshold": {"detections": THRESHOLD}})], shipped.policies())


class Consumer:
    """One process: its own decision loop, and so its own memory of keys and turns."""

    def __init__(self, store: IncidentStore, clock: SetClock) -> None:
        self.clock = clock
        loop = DecisionLoop(store, clock)
        controls = FixedControls(NO_CONTROLS)
        self.intake = IntakeService(loop, shipped.policies(), shipped.registry("local"), controls, RULES)

    async def take(self, batch: Sequence[tuple[str, dict[str, Any]]]) -> list[Answered]:
        """Take a batch of (message id, body); return the answer to each."""
        works = [self.intake.read(json.dumps(body), received(name)) for name, body in batch]
        answers = await self.intake.take_all(works, View(), self.clock.monotonic() + DEADLINE_S)
        return [answer for (answer,) in answers]


def candidate(name: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    return name, CANDIDATE | fields


def detection(number: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    body = {"type": "detection", "service": "checkout", "source": "probe", "signalType": "error", "severity": "SEV2"}
    seen = format_time(NOW - timedelta(seconds=60 + number % 60))
    return f"d{number}", body | {"observedAt": seen, "attributes": {"number": number}} | fields


def answers_of(outcomes: Sequence[Answered]) -> list[Answer]:
    assert all(isinstance(outcome, Applied) for outcome in outcomes), outcomes
    return sorted(outcome.receipt.result.answer for outcome in outcomes if isinstance(outcome, Applied))


async def only_incident(store: IncidentStore) -> Incident:
    (incident,) = await list_incidents(store, Listing())
    audit_history([document async for document in store.history(incident.incident_id)], shipped.policies())
    return incident


async def window_of(store: IncidentStore) -> Window:
    service = IntakeService(
        DecisionLoop(store, SetClock()), shipped.policies(), shipped.registry("local"), FixedControls(NO_CONTROLS), RULES
    )
    (signal,) = service.read(json.dumps(detection(0)[1]), received("any")).intake.signals
    assert signal.detection is not None
    (pinned,) = RULES.matching(signal.detection)
    span = span_of(pinned, signal.detection)
    window = await store.load_window(span.id)  # type: ignore[union-attr] # the rule places it
    assert window is not None
    return window


async def test_batches_of_one_key_at_once_make_one_incident(world: World, rng: random.Random) -> None:
    batches = [[candidate(f"m{consumer}-{number}") for number in range(10)] for consumer in range(6)]
    rng.shuffle(batches)
    outcomes = await asyncio.gather(*(Consumer(world.store, SetClock()).take(batch) for batch in batches))
    answers = answers_of([outcome for batch in outcomes for outcome in batch])
    assert answers == [Answer.CREATED] + [Answer.JOINED] * 59
    incident = await only_incident(world.store)
    assert (incident.state, incident.metadata.occurrence) == (State.OPEN, 1)
    assert incident.metadata.promotion.detections == 60
    # Created, what the first batch's others said, opened; then one event for each other batch.
    assert incident.version == 3 + 5


async def test_a_batch_delivered_to_two_consumers_at_once_counts_once(world: World) -> None:
    batch = [candidate(f"m{number}", idempotencyKey=f"k{number}") for number in range(8)]
    halves = (batch[:6], batch[2:], batch)
    await asyncio.gather(*(Consumer(world.store, SetClock()).take(part) for part in halves))
    incident = await only_incident(world.store)
    assert incident.metadata.promotion.detections == 8


async def test_a_threshold_crossed_by_two_consumers_at_once_makes_one_incident(world: World, rng: random.Random) -> None:
    everything = [detection(number) for number in range(THRESHOLD - 2)]
    await Consumer(world.store, SetClock()).take(everything)
    assert await list_incidents(world.store, Listing()) == ()

    batches = [[detection(100 * consumer + number) for number in range(5)] for consumer in range(1, 5)]
    rng.shuffle(batches)
    outcomes = await asyncio.gather(*(Consumer(world.store, SetClock()).take(batch) for batch in batches))
    answers = answers_of([outcome for batch in outcomes for outcome in batch])
    assert answers == [Answer.CREATED] + [Answer.JOINED] * 19
    incident = await only_incident(world.store)
    window = await window_of(world.store)
    assert window.detections == incident.metadata.promotion.detections == THRESHOLD - 2 + 20
    assert window.incident_id == incident.incident_id


async def test_a_window_counted_by_many_from_its_first_detection_on_is_exact(world: World, rng: random.Random) -> None:
    everything = [detection(number) for number in range(60)]
    # Some are delivered twice, to another consumer.
    everything += rng.sample(everything, 10)
    rng.shuffle(everything)
    batches = [everything[start : start + 7] for start in range(0, len(everything), 7)]
    consumers = [Consumer(world.store, SetClock()) for _ in range(4)]

    async def work(consumer: Consumer, turn: int) -> None:
        for batch in batches[turn::4]:
            await consumer.take(batch)

    await asyncio.gather(*(work(consumer, turn) for turn, consumer in enumerate(consumers)))
    incident = await only_incident(world.store)
    window = await window_of(world.store)
    assert window.detections == incident.metadata.promotion.detections == 60


async def test_a_candidate_and_a_window_of_one_key_at_once_make_one_incident(world: World) -> None:
    # The key under which the rule files its incidents.
    same = candidate("c", dedupKey='errors:["checkout"]')
    await asyncio.gather(
        Consumer(world.store, SetClock()).take([detection(number) for number in range(THRESHOLD)]),
        Consumer(world.store, SetClock()).take([same]),
    )
    incident = await only_incident(world.store)
    assert incident.metadata.promotion.detections == THRESHOLD + 1


async def test_a_batch_racing_a_resolve_is_evidence_or_the_next_occurrence(world: World, rng: random.Random) -> None:
    """Twelve lives of twelve keys: whoever comes first, nothing is lost and nothing is opened again."""
    ends = set()
    for life in range(12):
        clock, key = SetClock(NOW - timedelta(minutes=5)), f"key-{life}"
        operator = rig(world.store, clock)
        first, *_ = await Consumer(world.store, clock).take([candidate(f"{life}-first", dedupKey=key)])
        assert isinstance(first, Applied)
        assert first.incident is not None
        identity = first.incident.incident_id
        await operator.command("change-state", identity, f"{life}-go", newState="MITIGATING")

        # Seen after the resolution, by the clock of whoever resolves it.
        batch = [candidate(f"{life}-{number}", dedupKey=key) for number in range(3)]

        async def resolve(
            pause_s: float = rng.uniform(0, 0.01), named: str = identity, life: int = life, by: Any = operator
        ) -> Any:
            await asyncio.sleep(pause_s)
            return await by.command("change-state", named, f"{life}-end", newState="RESOLVED", reason="restarted")

        taken, resolved = await asyncio.gather(Consumer(world.store, clock).take(batch), resolve())
        assert isinstance(resolved, Applied)
        assert answers_of(taken) in ([Answer.JOINED] * 3, [Answer.CREATED] + [Answer.JOINED] * 2)
        rows = [row for row in await list_incidents(world.store, Listing(limit=100)) if row.metadata.dedup_key == key]
        rows.sort(key=lambda row: row.metadata.occurrence)
        assert (rows[0].incident_id, rows[0].state) == (identity, State.RESOLVED)
        assert sum(row.metadata.promotion.detections for row in rows) == 4
        assert [row.metadata.predecessor for row in rows[1:]] == [identity] * (len(rows) - 1)
        assert [row.state for row in rows[1:]] == [State.OPEN] * (len(rows) - 1)
        ends.add(len(rows))
    assert ends <= {1, 2}


async def test_a_backlog_joins_what_holds_its_key_now_whatever_its_consumer_knew(world: World) -> None:
    clock = SetClock()
    one, other = Consumer(world.store, clock), Consumer(world.store, clock)
    (first,) = await one.take([candidate("m1")])
    assert isinstance(first, Applied)
    assert first.incident is not None
    operator = rig(world.store, clock)
    await operator.command("change-state", first.incident.incident_id, "c1", newState="MITIGATING")
    await operator.command("change-state", first.incident.incident_id, "c2", newState="RESOLVED", reason="restarted")
    clock.time_of_day += timedelta(minutes=1)
    (second,) = await other.take([candidate("m2", observedAt=format_time(NOW + timedelta(seconds=30)))])
    assert isinstance(second, Applied)
    assert second.incident is not None
    assert second.incident.metadata.occurrence == 2

    # Seen before the resolution, and come late to the process that knows the first occurrence alone.
    (late,) = await one.take([candidate("m3", observedAt=format_time(NOW))])
    assert isinstance(late, Applied)
    assert late.incident is not None
    assert late.incident.incident_id == second.incident.incident_id
