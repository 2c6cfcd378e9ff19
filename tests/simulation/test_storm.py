"""Ten thousand copies of three troubles: none is lost, they cost near the floor, and nobody else waits for them.

The floor is one transaction for each key of each batch. Consumers are processes that know nothing of each other; what they
pay for meeting each other is counted, and told apart from what took effect.
"""

import random
from collections import Counter
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import pytest

from pipeline.domain.canonical import normalise
from pipeline.domain.incidents import Incident
from pipeline.domain.rules import NO_RULES, Rules
from pipeline.domain.transitions import State
from pipeline.runtime import shipped
from pipeline.services.decision import Applied
from tests.simulation.storm import BATCH, CountingStore, Drained, FairQueue, SlowStore, drain, in_virtual_time, send
from tests.simulation.world import START
from tests.support.audit import audit, fold

STORM: Final = 10_000
KEYS: Final = (("checkout", "5xx"), ("checkout", "latency"), ("search", "lag"))
# What cancelled transactions may add to the floor.
DEARER_MAX: Final = 1.5
# An incident of the quiet service, as a share of the time the storm takes.
WAIT_SHARE_MAX: Final = 0.1
# A name that no queue takes as a group.
QUIET: Final = "Zahlungen für Größen"
RULES: Final = Rules.load(
    [
        normalise(
            {
                "ruleId": "errors",
                "version": 1,
                "groupBy": ("service",),
                "windowS": 3600,
                "threshold": {"detections": 5},
                "confidence": 1,
                "title": "{service} fails",
            }
        )
    ],
    shipped.policies(),
)


@dataclass
class Storm:
    """What was sent, what it took, and what stands in the store."""

    sent: Counter[tuple[str, str]]
    queue: FairQueue
    store: CountingStore
    drained: Drained

    @property
    def memory(self) -> Any:
        return self.store.real

    @property
    def incidents(self) -> list[Incident]:
        return [fold(list(history.values())) for history in self.memory.events.values()]

    @property
    def dearer(self) -> float:
        return self.store.spent.transactions / self.drained.floor

    def counted(self) -> Counter[tuple[str, str]]:
        return Counter({(row.service, row.metadata.dedup_key): row.metadata.promotion.detections for row in self.incidents})

    def waited_s(self, service: str) -> float:
        """Return how long a service waited for its incident, from the end of sending."""
        (row,) = [row for row in self.incidents if row.service == service]
        return (row.created_at - START).total_seconds()

    def told(self) -> str:
        spent, drained = self.store.spent, self.drained
        return (
            f"{drained.batches} batches with {drained.floor} keys: {spent.applied} transactions applied, {spent.cancelled} "
            f"cancelled ({self.dearer:.3f} of the floor), {spent.reads} reads, {drained.seconds:.1f} s"
        )


def candidate(service: str, key: str) -> dict[str, Any]:
    return {"type": "candidate", "service": service, "severity": "SEV2", "title": f"{key} is bad", "dedupKey": key}


def detection(service: str, number: int) -> dict[str, Any]:
    body = {"type": "detection", "service": service, "source": "probe", "signalType": "error", "severity": "SEV2"}
    return body | {"observedAt": "2026-03-01T02:59:00Z", "attributes": {"number": number}}


def storm(
    bodies: list[dict[str, Any]], consumers: int, rng: random.Random, rules: Rules = NO_RULES, senders: Any = send
) -> Storm:
    """Send everything, then work it off: in virtual time, with every consumer's jitter from the test's seed."""
    random.seed(rng.random())

    async def run() -> Storm:
        queue, store = FairQueue(), CountingStore(SlowStore(rng))
        await senders(queue, bodies)
        sent = Counter((body["service"], body.get("dedupKey", f'errors:["{body["service"]}"]')) for body in bodies)
        return Storm(sent, queue, store, await drain(queue, store, consumers, rng, rules))

    return in_virtual_time(run())


def check_nothing_lost(found: Storm) -> None:
    """Assert that each message took effect, once, and that nothing else did."""
    assert found.counted() == found.sent
    assert {row.metadata.occurrence for row in found.incidents} == {1}
    assert {row.state for row in found.incidents} == {State.OPEN}
    outcomes = Counter(report.message.message_id for report in found.drained.reports if isinstance(report.outcome, Applied))
    assert set(outcomes.values()) == {1}
    assert len(outcomes) == len(found.memory.receipts) == found.sent.total()
    assert found.drained.rejected.messages == []
    audit(found.memory, shipped.policies())


def with_a_quiet_service(messages: int, rng: random.Random) -> list[dict[str, Any]]:
    """Return a storm, and behind it one candidate of a service that is not in it."""
    return [*(candidate(*rng.choice(KEYS)) for _ in range(messages)), candidate(QUIET, "disk")]


@pytest.mark.long
@pytest.mark.parametrize("consumers", [2, 5, 20])
def test_a_storm_loses_nothing_costs_near_the_floor_and_holds_nobody_up(consumers: int, rng: random.Random) -> None:
    found = storm(with_a_quiet_service(STORM, rng), consumers, rng)
    waited = found.waited_s(QUIET)
    print(f"{consumers} consumers: {found.told()}; the quiet service waited {waited:.2f} s")
    check_nothing_lost(found)
    # Everything of one key in a batch is one transaction; whatever more there were was cancelled.
    assert found.store.spent.applied == found.drained.floor
    assert found.dearer <= DEARER_MAX
    assert found.drained.batches == found.queue.receives == ceil((STORM + 1) / BATCH)
    assert waited <= WAIT_SHARE_MAX * found.drained.seconds


def test_without_groups_the_quiet_service_would_wait_for_all_of_it(rng: random.Random) -> None:
    """Shows that the queue here is fair to groups alone, so that the test above proves what our senders say."""

    async def without_groups(queue: FairQueue, bodies: list[dict[str, Any]]) -> None:
        await send(Groupless(queue), bodies)

    found = storm(with_a_quiet_service(1000, rng), 5, rng, senders=without_groups)
    check_nothing_lost(found)
    assert found.waited_s(QUIET) > 5 * WAIT_SHARE_MAX * found.drained.seconds


@pytest.mark.parametrize("consumers", [1, 5])
def test_a_storm_of_detections_counts_each_and_costs_near_the_floor(consumers: int, rng: random.Random) -> None:
    bodies = [detection(rng.choice(("checkout", "search")), number) for number in range(1000)]
    found = storm(bodies, consumers, rng, RULES)
    print(f"{consumers} consumers: {found.told()}")
    check_nothing_lost(found)
    assert sorted(window["detections"] for window in found.memory.windows.values()) == sorted(found.sent.values())
    assert found.dearer <= DEARER_MAX


def test_a_consumer_alone_never_waits_and_pays_for_nothing_twice(rng: random.Random) -> None:
    found = storm([candidate(*rng.choice(KEYS)) for _ in range(300)], 1, rng)
    check_nothing_lost(found)
    assert (found.store.spent.applied, found.store.spent.cancelled) == (found.drained.floor, 0)
    # A key's first time is without a read; afterwards it is one read, for each key of each batch.
    assert found.store.spent.reads == found.drained.floor - len(KEYS)


# --- the double ------------------------------------------------------------------------------------------------------


@dataclass
class Groupless:
    """A sender that names no group."""

    queue: FairQueue

    async def send_message_batch(self, **request: Any) -> Any:
        for entry in request["Entries"]:
            del entry["MessageGroupId"]
        return await self.queue.send_message_batch(**request)


def test_a_service_that_is_loud_for_a_moment_is_quiet_again_after_it(rng: random.Random) -> None:
    """The queue double forgets, as SQS does: otherwise it would be fairer to newcomers than SQS is."""

    async def run() -> tuple[set[str], set[str]]:
        queue, store = FairQueue(), SlowStore(rng)
        await send(queue, [candidate("checkout", "5xx") for _ in range(50)])
        await drain(queue, store, 5, rng)
        before = queue.noisy()
        for _ in range(30):
            await send(queue, [candidate(f"service-{number}", "5xx") for number in range(50)])
            await drain(queue, store, 5, rng)
        return before, queue.noisy()

    before, after = in_virtual_time(run())
    assert before == {"checkout"}
    assert after == set()
