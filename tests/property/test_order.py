"""Order and number of deliveries must not matter: standard queues promise neither."""

import random
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.canonical import format_time
from pipeline.stores.memory import MemoryStore
from tests.support.audit import audit
from tests.support.bodies import candidate_body, recorded_alarms
from tests.support.clock import NOW
from tests.support.registry import ALARMS, DETECTOR
from tests.support.world import World, run


def outline(store: MemoryStore, *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return what must not depend on order: each incident's state, severity, key and set of evidence."""
    evidence: dict[str, set[tuple[str, str]]] = {identity: set() for identity in store.incidents}
    for document in store.feed:
        for item in document["metadata"].get("evidence", ()):
            if item.get("note") not in without:
                evidence[document["incidentId"]].add((item["kind"], item["ref"]))
    return {
        identity: (row["state"], row["severity"], row["service"], row["metadata"]["dedupKey"], evidence[identity])
        for identity, row in store.incidents.items()
    }


async def deliver(bodies: list[Any], sender: Any) -> MemoryStore:
    world = World()
    for body in bodies:
        await world.offer(body, sender, sent_at=NOW)
    audit(world.store)
    return world.store


@st.composite
def observations(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw distinct candidates within less than a week, each with evidence and a time of its own."""
    bodies = []
    for number in range(draw(st.integers(1, 12))):
        moment = format_time(NOW - timedelta(hours=draw(st.integers(0, 160)), microseconds=number))
        bodies.append(
            candidate_body(
                service=draw(st.sampled_from(["checkout", "search"])),
                dedupKey=draw(st.sampled_from(["a", "b"])),
                severity=draw(st.sampled_from(["SEV1", "SEV2", "SEV3", "SEV4"])),
                confidence=draw(st.sampled_from([1, 0.8, 0.79, 0.1])),
                observedAt=moment,
                evidence=[{"kind": "n", "ref": str(number)}],
            )
        )
    return bodies


@settings(max_examples=50)
@given(observations(), st.data())
def test_candidates_in_any_order_and_number_lead_to_the_same_incidents(bodies: list[Any], data: st.DataObject) -> None:
    twice = bodies + data.draw(st.lists(st.sampled_from(bodies), max_size=6))
    shuffled = data.draw(st.permutations(twice))
    expected = outline(run(deliver(bodies, DETECTOR)))
    assert outline(run(deliver(shuffled, DETECTOR))) == expected


@cache
def in_order() -> MemoryStore:
    return run(deliver(list(recorded_alarms()), ALARMS))


def by_hour(lines: list[str], seed: int) -> list[str]:
    """Return the lines shuffled within each stretch of an hour's alarms, and some of them twice."""
    chance = random.Random(seed)
    keyed = [(index // 12 + chance.random(), line) for index, line in enumerate(lines)]
    return [line for _, line in sorted(keyed)] + chance.sample(lines, 40)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("within", ["the hour", "all of it", "nothing"])
def test_recorded_alarms_shuffled_or_sent_twice_give_the_same_eight_incidents(seed: int, within: str) -> None:
    lines = recorded_alarms()
    shuffled = list(lines)
    random.Random(seed).shuffle(shuffled)
    sent = {"the hour": by_hour(lines, seed), "all of it": shuffled, "nothing": lines + lines}[within]
    # A recovery that arrives before its firing finds nothing open: only firings must be there in any order.
    notices = frozenset() if within == "nothing" else frozenset({"OK", "INSUFFICIENT_DATA"})
    expected = outline(in_order(), without=notices)
    assert len(expected) == 8
    assert outline(run(deliver(sent, ALARMS)), without=notices) == expected
