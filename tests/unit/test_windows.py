"""Detections on a real store: counted exactly once, a candidate with the one that crosses the threshold, and none lost."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.canonical import Document, format_time, normalise
from pipeline.domain.errors import Code, Unavailable
from pipeline.domain.ids import incident_id
from pipeline.domain.receipts import Answer
from pipeline.domain.rules import Rules
from pipeline.services.decision import Answered, Applied, Outcome, Replayed, View
from pipeline.services.ports import Commit, CommitResult
from pipeline.stores.memory import MemoryStore
from tests.support.audit import audit
from tests.support.bodies import alarm_body, candidate_body, command_body, text_of
from tests.support.clock import NOW
from tests.support.registry import ALARMS, DETECTOR, OTHER_DETECTOR, STRANGER
from tests.support.world import DEADLINE, InterleavedStore, World, applied, refused

ERRORS = {
    "ruleId": "errors",
    "version": 1,
    "match": {"signalTypes": ["http-5xx"]},
    "windowS": 21600,
    "threshold": {"detections": 3},
    "confidence": 0.9,
    "title": "Too many errors of {service}",
}
HOSTS = ERRORS | {
    "ruleId": "hosts",
    "groupBy": ["service", "attributes.host"],
    "threshold": {"detections": 2},
    "title": "{attributes.host}",
}
ALARM_RULE = ERRORS | {
    "ruleId": "alarms",
    "match": {"signalTypes": ["cloudwatch-alarm"]},
    "groupBy": ["service"],
    "title": "alarms",
}
KEY = 'errors:["checkout"]'
FIRST, SECOND = (incident_id("checkout", KEY, occurrence) for occurrence in (1, 2))


def rules(*documents: dict[str, Any]) -> Rules:
    return Rules.load(normalise(document) for document in documents)


def detection(number: int, minutes: float = -30.0, **fields: Any) -> Document:
    """Return a detection; NOW is the middle of a window that began at 00:00 and ends at 06:00."""
    basis = {"type": "detection", "service": "checkout", "signalType": "http-5xx", "severity": "SEV2"}
    return basis | {"observedAt": format_time(NOW + timedelta(minutes=minutes, seconds=number))} | fields


async def counting(numbers: range, world: World, **fields: Any) -> list[Outcome]:
    return [await world.offer(detection(number, **fields)) for number in numbers]


def answers(outcomes: list[Outcome]) -> list[Answer]:
    return [outcome.receipt.result.answer for outcome in outcomes if isinstance(outcome, Applied)]


def window(world: World, number: int = 0) -> Document:
    return sorted(world.store.windows.values(), key=lambda found: (found["ruleId"], found["startsAt"]))[number]


class Counting(MemoryStore):
    """Keeps every commit that took effect; refuses those on windows of a rule that is `down`."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Commit] = []
        self.down: str | None = None

    async def commit(self, commit: Commit) -> CommitResult:
        if commit.window is not None and commit.window.rule_id == self.down:
            raise Unavailable("the table does not answer")
        self.commits.append(commit)
        return await super().commit(commit)


async def test_below_its_threshold_a_window_is_counted_and_nothing_else() -> None:
    world = World(rules=rules(ERRORS))
    assert answers(await counting(range(2), world)) == [Answer.COUNTED, Answer.COUNTED]
    assert (world.store.incidents, world.store.pointers, world.store.feed) == ({}, {}, [])
    assert (window(world)["detections"], window(world).get("incidentId")) == (2, None)
    assert [receipt.get("incidentId") for receipt in world.store.receipts.values()] == [None, None]
    audit(world.store)


async def test_the_crossing_detection_commits_receipt_window_and_incident_at_once() -> None:
    store = Counting()
    world = World(store, rules=rules(ERRORS))
    outcomes = await counting(range(3), world)
    assert answers(outcomes) == [Answer.COUNTED, Answer.COUNTED, Answer.CREATED]
    crossing = store.commits[-1]
    assert len(crossing.receipts) == 1
    assert crossing.window is not None
    assert crossing.incident is not None
    assert crossing.pointer is not None
    assert crossing.window.incident_id == crossing.incident.incident_id == FIRST == crossing.receipts[0].incident_id
    assert [event.fact.event_type for event in crossing.events] == ["IncidentCreated", "IncidentOpened"]
    row = world.row(FIRST)
    assert (row["state"], row["severity"], row["metadata"]["promotion"]["detections"]) == ("OPEN", "SEV2", 3)
    audit(store)


async def test_a_batch_that_crosses_is_one_transaction_with_a_receipt_each() -> None:
    store = Counting()
    world = World(store, rules=rules(ERRORS))
    await batch(world, [detection(number) for number in range(8)])
    assert [len(commit.receipts) for commit in store.commits] == [8]
    assert window(world)["version"] == 1
    audit(store)


async def batch(world: World, bodies: list[Any]) -> tuple[tuple[Answered, ...], ...]:
    works = [world.intake.read(text_of(body), world.received(DETECTOR)) for body in bodies]
    return await world.intake.take_all(works, View(), DEADLINE)


async def test_two_senders_detections_of_one_window_are_two_transactions_and_one_window() -> None:
    world = World(rules=rules(ERRORS))
    works = [
        world.intake.read(text_of(detection(number, idempotencyKey="same")), world.received(sender))
        for number, sender in enumerate((DETECTOR, OTHER_DETECTOR))
    ]
    await world.intake.take_all(works, View(), DEADLINE)
    assert (window(world)["detections"], window(world)["version"]) == (2, 2)
    audit(world.store)


async def test_the_same_detection_again_is_answered_from_its_receipt_and_not_counted() -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    again = await counting(range(3), world)
    assert all(isinstance(outcome, Replayed) for outcome in again)
    assert window(world)["detections"] == 3
    audit(world.store)


ENDINGS = {
    "RESOLVED": ("MITIGATING", "RESOLVED"),
    "CLOSED": ("MITIGATING", "RESOLVED", "CLOSED"),
    "CANCELLED": ("CANCELLED",),
    "MITIGATING": ("MITIGATING",),
}


@pytest.mark.parametrize("state", ENDINGS)
async def test_what_a_fired_window_still_counts_goes_to_its_incident_whatever_became_of_it(state: str) -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    await world.walk(FIRST, *ENDINGS[state])
    world.clock.jump(timedelta(hours=1))
    outcomes = await counting(range(3, 5), world, minutes=45)
    assert answers(outcomes) == [Answer.JOINED, Answer.JOINED]
    assert set(world.store.incidents) == {FIRST}
    assert world.row(FIRST)["state"] == state
    assert window(world)["detections"] == 5
    assert world.row(FIRST)["metadata"]["evidence"]["count"] == 5
    audit(world.store)


async def test_a_fired_windows_detection_raises_the_severity_only_while_the_incident_holds_its_key() -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    await world.offer(detection(3, severity="SEV1"))
    assert world.row(FIRST)["severity"] == "SEV1"
    calm = World(rules=rules(ERRORS))
    await counting(range(3), calm)
    await calm.walk(FIRST, *ENDINGS["RESOLVED"])
    await calm.offer(detection(3, severity="SEV1"))
    assert calm.row(FIRST)["severity"] == "SEV2"


async def test_a_later_window_after_the_resolution_begins_the_next_occurrence() -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    await world.walk(FIRST, *ENDINGS["RESOLVED"])
    world.clock.jump(timedelta(hours=4))
    await counting(range(3), world, minutes=181)
    assert {identity: row["state"] for identity, row in world.store.incidents.items()} == {FIRST: "RESOLVED", SECOND: "OPEN"}
    assert world.row(SECOND)["metadata"]["predecessor"] == FIRST
    assert [window(world, number)["incidentId"] for number in (0, 1)] == [FIRST, SECOND]
    late = await world.offer(detection(9))
    assert applied(late).incident_id == FIRST, "a late one of the first window goes where its window went"
    audit(world.store)


async def test_detections_of_adjacent_windows_are_not_added_up() -> None:
    world = World(rules=rules(ERRORS))
    edge = NOW.replace(hour=0)
    for moment in (edge - timedelta(microseconds=1), edge, edge + timedelta(microseconds=1)):
        await world.offer(detection(0, observedAt=format_time(moment)))
    assert [window(world, number)["detections"] for number in (0, 1)] == [1, 2]
    assert world.store.incidents == {}


@pytest.mark.parametrize("order", ["early first", "late first"])
async def test_a_window_that_holds_the_ending_begins_what_comes_after_it_in_any_order(order: str) -> None:
    """Three before the ending, delivered after it, are evidence; with one more from after it the window is a candidate."""
    world = World(rules=rules(ERRORS))
    applied(await world.offer(candidate_body(dedupKey=KEY)))
    await world.walk(FIRST, "CANCELLED")
    world.clock.jump(timedelta(minutes=30))
    numbers = [1, 2, 3, 4] if order == "early first" else [1, 2, 4, 3]
    for number in numbers:
        await world.offer(detection(number, minutes=10 if number == 4 else -30))
    assert {identity: row["state"] for identity, row in world.store.incidents.items()} == {
        FIRST: "CANCELLED",
        SECOND: "OPEN",
    }
    assert world.row(SECOND)["metadata"]["promotion"]["detections"] == 4
    assert window(world)["incidentId"] == SECOND
    audit(world.store)


async def test_a_window_from_before_the_ending_is_evidence_and_begins_nothing() -> None:
    world = World(rules=rules(ERRORS))
    applied(await world.offer(candidate_body(dedupKey=KEY)))
    await world.walk(FIRST, "CANCELLED")
    outcomes = await counting(range(5), world)
    assert answers(outcomes)[2:] == [Answer.JOINED] * 3
    assert set(world.store.incidents) == {FIRST}
    assert world.row(FIRST)["metadata"]["evidence"]["count"] == 5, "each of them once"
    assert window(world)["detections"] == 5
    audit(world.store)


@pytest.mark.parametrize("order", ["backlog first", "backlog last"])
async def test_a_backlog_moves_nothing_whether_it_comes_before_or_after_the_next_occurrence(order: str) -> None:
    world = World()
    applied(await world.offer(candidate_body(severity="SEV3")))
    first, second = (incident_id("checkout", "checkout-5xx", occurrence) for occurrence in (1, 2))
    await world.walk(first, "CANCELLED")
    world.clock.jump(timedelta(minutes=30))
    old = candidate_body(
        severity="SEV1", observedAt=format_time(NOW - timedelta(minutes=5)), evidence=[{"kind": "n", "ref": "old"}]
    )
    new = candidate_body(severity="SEV3", confidence=0.1)
    for body in (old, new) if order == "backlog first" else (new, old):
        applied(await world.offer(body))
    row = world.row(second)
    assert (row["state"], row["severity"]) == ("PENDING", "SEV3")
    assert (row["metadata"]["promotion"]["detections"], str(row["metadata"]["promotion"]["confidence"])) == (1, "0.1")
    where = [document["incidentId"] for document in world.store.feed if "old" in str(document["metadata"].get("evidence"))]
    assert where == [first if order == "backlog first" else second], "nothing of it is lost"
    audit(world.store)


async def test_one_rule_that_fails_does_not_stop_the_others_and_nothing_is_counted_twice() -> None:
    store = Counting()
    world = World(store, rules=rules(ERRORS, HOSTS))
    store.down = "hosts"
    body = detection(1, attributes={"host": "a"})
    ((one, two),) = await batch(world, [body])
    assert isinstance(one, Applied)
    assert isinstance(two, Unavailable)
    assert [found["ruleId"] for found in store.windows.values()] == ["errors"]
    store.down = None
    ((one, two),) = await batch(world, [body])
    assert isinstance(one, Replayed)
    assert isinstance(two, Applied)
    assert [window(world, number)["detections"] for number in (0, 1)] == [1, 1]
    audit(store)


async def test_one_rule_that_cannot_place_a_detection_refuses_it_and_the_others_go_on() -> None:
    world = World(rules=rules(ERRORS, HOSTS))
    ((one, two),) = await batch(world, [detection(1)])
    assert isinstance(one, Applied)
    assert not isinstance(two, Exception)
    assert (refused(two).code, refused(two).field) == (Code.INVALID_FIELD, "attributes.host")
    assert len(world.store.windows) == 1


async def test_two_rules_make_two_incidents_of_the_same_detections() -> None:
    world = World(rules=rules(ERRORS, HOSTS))
    for number in range(3):
        await batch(world, [detection(number, attributes={"host": "a"})])
    assert {row["metadata"]["dedupKey"] for row in world.store.incidents.values()} == {KEY, 'hosts:["checkout","a"]'}
    assert [window(world, number)["detections"] for number in (0, 1)] == [3, 3]
    assert len(world.store.receipts) == 6
    audit(world.store)


async def test_a_rules_new_version_counts_anew_and_leads_to_the_same_incident() -> None:
    store = MemoryStore()
    await counting(range(3), World(store, rules=rules(ERRORS)))
    newer = World(store, rules=rules(ERRORS, ERRORS | {"version": 2}))
    outcomes = await counting(range(5), newer)
    assert answers(outcomes) == [Answer.COUNTED, Answer.COUNTED, Answer.JOINED, Answer.JOINED, Answer.JOINED]
    assert set(store.incidents) == {FIRST}
    assert sorted((found["ruleVersion"], found["detections"]) for found in store.windows.values()) == [(1, 3), (2, 5)]
    audit(store)


async def test_a_candidate_of_a_rules_own_key_joins_what_the_rule_began() -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    assert applied(await world.offer(candidate_body(dedupKey=KEY, severity="SEV1"))).incident_id == FIRST
    assert world.row(FIRST)["severity"] == "SEV1"
    audit(world.store)


def alarm(number: int, value: str = "ALARM") -> dict[str, Any]:
    return alarm_body(value, event_id=f"event-{number}", timestamp=f"2026-01-31T02:{number:02}:00.000+0000")


async def test_a_native_firing_that_a_rule_matches_is_counted_and_no_candidate() -> None:
    world = World(rules=rules(ALARM_RULE))
    outcomes = [await world.offer(alarm(number), ALARMS) for number in range(3)]
    assert answers(outcomes) == [Answer.COUNTED, Answer.COUNTED, Answer.CREATED]
    (row,) = world.store.incidents.values()
    assert row["metadata"]["dedupKey"] == 'alarms:["checkout"]'
    audit(world.store)


async def test_a_native_recovery_under_a_rule_is_evidence_on_what_is_open_and_not_counted() -> None:
    world = World(rules=rules(ALARM_RULE))
    nothing = await world.offer(alarm(9, "OK"), ALARMS)
    assert answers([nothing]) == [Answer.NOTHING_OPEN]
    for number in range(3):
        await world.offer(alarm(number), ALARMS)
    assert answers([await world.offer(alarm(10, "OK"), ALARMS)]) == [Answer.JOINED]
    (row,) = world.store.incidents.values()
    assert (row["state"], row["metadata"]["evidence"]["lastObservation"]) == ("OPEN", "recovery")
    assert window(world)["detections"] == row["metadata"]["promotion"]["detections"] == 3
    audit(world.store)


async def test_a_native_firing_that_no_rule_matches_is_a_candidate() -> None:
    world = World(rules=rules(ERRORS))
    assert answers([await world.offer(alarm(1), ALARMS)]) == [Answer.CREATED]
    assert world.store.windows == {}


async def test_a_detection_that_no_rule_matches_is_refused_and_leaves_nothing() -> None:
    world = World(rules=rules(ERRORS))
    refusal = refused(await world.offer(detection(1, signalType="oom")))
    assert (refusal.code, refusal.field) == (Code.RULE_UNKNOWN, "signalType")
    assert world.store.receipts == world.store.windows == {}


async def test_a_stranger_is_not_counted() -> None:
    world = World(rules=rules(ERRORS))
    refusal = refused(await world.offer(detection(1), STRANGER))
    assert refusal.code is Code.PRINCIPAL_UNKNOWN
    assert world.store.receipts == world.store.windows == {}


async def test_a_command_on_the_incident_does_not_unsettle_its_window() -> None:
    world = World(rules=rules(ERRORS))
    await counting(range(3), world)
    await world.order(command_body("note", FIRST, note="looking"))
    assert answers(await counting(range(3, 4), world)) == [Answer.JOINED]
    audit(world.store)


async def test_what_was_seen_in_the_very_moment_of_the_ending_is_of_the_past() -> None:
    world = World()
    first = applied(await world.offer(candidate_body())).incident_id
    await world.walk(first, "CANCELLED")
    world.clock.jump(timedelta(minutes=30))
    assert applied(await world.offer(candidate_body(observedAt=format_time(NOW)))).incident_id == first
    later = candidate_body(observedAt=format_time(NOW + timedelta(microseconds=1)))
    assert applied(await world.offer(later)).incident_id != first


async def test_two_consumers_that_count_in_one_window_at_once_lose_none() -> None:
    world = World(InterleavedStore(), rules=rules(ERRORS))
    await asyncio.gather(*(world.offer(detection(number)) for number in range(6)))
    assert window(world)["detections"] == 6
    assert world.row(FIRST)["metadata"]["promotion"]["detections"] == 6
    audit(world.store)
