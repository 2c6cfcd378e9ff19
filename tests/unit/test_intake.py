"""Candidate intake on a real store: exactly one effect for each message, whatever comes twice, late or at once."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.canonical import format_time
from pipeline.domain.errors import Code
from pipeline.domain.ids import incident_id
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import State
from pipeline.services.decision import Applied, Replayed, View
from tests.support.audit import audit
from tests.support.bodies import alarm_body, candidate_body, command_body, recorded_alarms, text_of
from tests.support.clock import NOW
from tests.support.histories import INCIDENT_ID
from tests.support.registry import ALARMS, AUTOMATION, DETECTOR, OTHER_DETECTOR, STRANGER
from tests.support.world import InterleavedStore, World, applied, refused, replayed

EARLIER = format_time(NOW - timedelta(minutes=1))
OPENED = ["IncidentCreated", "IncidentOpened"]


def at(**delta: float) -> str:
    return format_time(NOW + timedelta(**delta))


async def test_a_keys_first_candidate_makes_an_incident() -> None:
    world = World()
    outcome = await world.offer(candidate_body())
    incident = applied(outcome)
    assert isinstance(outcome, Applied)
    assert (outcome.receipt.result.answer, outcome.attempts, outcome.before) == (Answer.CREATED, 1, None)
    assert (incident.incident_id, incident.state, incident.version) == (INCIDENT_ID, State.OPEN, 2)
    assert world.types(INCIDENT_ID) == OPENED
    audit(world.store)


async def test_a_second_candidate_of_the_key_joins() -> None:
    world = World()
    await world.offer(candidate_body())
    outcome = await world.offer(candidate_body(severity="SEV1"))
    assert isinstance(outcome, Applied)
    assert outcome.receipt.result.answer is Answer.JOINED
    assert (outcome.receipt.result.first_sequence, outcome.receipt.result.last_sequence) == (3, 4)
    assert world.types(INCIDENT_ID) == [*OPENED, "EvidenceAttached", "SeverityChanged"]
    audit(world.store)


SAME_MESSAGE: dict[str, tuple[Any, Any, str, str]] = {
    "the caller's key": (candidate_body(idempotencyKey="k-1"), DETECTOR, "m-1", "m-2"),
    "the body, sent again": (candidate_body(observedAt=EARLIER), DETECTOR, "m-1", "m-2"),
    "the message, delivered again": (candidate_body(), DETECTOR, "m-1", "m-1"),
    "the alarm event, delivered twice": (alarm_body(), ALARMS, "m-1", "m-2"),
}


@pytest.mark.parametrize("case", SAME_MESSAGE.values(), ids=SAME_MESSAGE.keys())
async def test_the_same_request_again_gets_the_first_answer_and_has_no_effect(case: Any) -> None:
    body, sender, first_id, second_id = case
    world = World()
    first = await world.offer(body, sender, message_id=first_id)
    assert isinstance(first, Applied)
    events = len(world.store.feed)
    for _ in range(3):
        world.clock.jump(timedelta(days=40))
        assert replayed(await world.offer(body, sender, message_id=second_id)) == first.receipt
    assert len(world.store.feed) == events
    audit(world.store)


async def test_a_new_message_without_time_of_its_own_is_a_new_observation() -> None:
    world = World()
    await world.offer(candidate_body(), message_id="m-1")
    assert isinstance(await world.offer(candidate_body(), message_id="m-2"), Applied)


async def test_a_key_used_for_another_request_is_refused() -> None:
    world = World()
    await world.offer(candidate_body(idempotencyKey="k-1"))
    refusal = refused(await world.offer(candidate_body(idempotencyKey="k-1", title="Another")))
    assert (refusal.code, refusal.status, refusal.incident_id) == (Code.KEY_REUSED, 422, INCIDENT_ID)
    assert world.types(INCIDENT_ID) == OPENED


async def test_a_key_belongs_to_its_sender() -> None:
    world = World()
    await world.offer(candidate_body(idempotencyKey="k-1"), DETECTOR)
    assert isinstance(await world.offer(candidate_body(idempotencyKey="k-1", title="Another"), OTHER_DETECTOR), Applied)
    audit(world.store)


async def test_a_restarted_task_of_one_role_is_the_same_sender() -> None:
    world = World()
    body = candidate_body(idempotencyKey="k-1")
    await world.offer(body, DETECTOR)
    restarted = type(DETECTOR)(DETECTOR.principal, "another-session")
    assert isinstance(await world.offer(body, restarted), Replayed)


async def test_a_recovery_with_nothing_open_has_a_receipt_and_no_incident() -> None:
    world = World()
    outcome = await world.offer(alarm_body("OK"), ALARMS)
    assert isinstance(outcome, Applied)
    assert (outcome.receipt.result.answer, outcome.incident) == (Answer.NOTHING_OPEN, None)
    assert world.store.feed == []
    applied(await world.offer(alarm_body("ALARM", event_id="another"), ALARMS))
    assert replayed(await world.offer(alarm_body("OK"), ALARMS)).result.answer is Answer.NOTHING_OPEN


async def test_a_recovery_is_evidence_on_what_is_open_and_no_transition() -> None:
    world = World()
    await world.offer(alarm_body("ALARM", event_id="one"), ALARMS)
    incident = applied(await world.offer(alarm_body("OK", event_id="two"), ALARMS))
    assert (incident.state, incident.control_version, incident.version) == (State.OPEN, 2, 3)


def cut_off(size: int, letter: str = "x") -> str:
    """Return the first `size` bytes of a message, as a sender that cuts at a limit sends them."""
    start = '{"title":"'
    return start + letter * ((size - len(start)) // len(letter.encode()))


REFUSED: dict[str, tuple[Any, Any, Code]] = {
    "a stranger": (candidate_body(idempotencyKey="k-1"), STRANGER, Code.PRINCIPAL_UNKNOWN),
    "a sender of commands only": (candidate_body(idempotencyKey="k-1"), AUTOMATION, Code.OPERATION_NOT_GRANTED),
    "HUMAN claimed by a program": (
        candidate_body(idempotencyKey="k-1", authority="HUMAN"),
        DETECTOR,
        Code.AUTHORITY_NOT_GRANTED,
    ),
    "another's name": (candidate_body(authority={"actorId": "dana"}), DETECTOR, Code.ACTOR_NOT_ASSERTABLE),
    "an unknown policy": (candidate_body(idempotencyKey="k-1", policyId="made-up"), DETECTOR, Code.POLICY_UNKNOWN),
    "a body over 256 KB": ("x" * (256 * 1024 + 1), DETECTOR, Code.TOO_LARGE),
    "a body over 256 KB in UTF-8": ("é" * (128 * 1024 + 1), DETECTOR, Code.TOO_LARGE),
    "not JSON": ("hello", DETECTOR, Code.MALFORMED_JSON),
    "JSON cut off at 256 KB": (cut_off(256 * 1024), DETECTOR, Code.TOO_LARGE),
    "JSON cut off at 256 KB in UTF-8": (cut_off(256 * 1024, "é"), DETECTOR, Code.TOO_LARGE),
    "JSON cut off earlier": (cut_off(256 * 1024 - 1), DETECTOR, Code.MALFORMED_JSON),
    "a lone surrogate in what is not JSON": ("\ud800", DETECTOR, Code.MALFORMED_JSON),
    "NaN": (candidate_body(confidence=float("nan")), DETECTOR, Code.MALFORMED_JSON),
    "a lone surrogate": (text_of(candidate_body()).replace("above", "\ud800"), DETECTOR, Code.INVALID_FIELD),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_leaves_no_row_of_any_kind(case: Any) -> None:
    body, sender, code = case
    world = World()
    assert refused(await world.offer(body, sender)).code is code
    assert (world.store.incidents, world.store.receipts, world.store.pointers, world.store.feed) == ({}, {}, {}, [])


async def test_what_was_refused_for_authority_may_succeed_later_under_the_same_key() -> None:
    store, body = World().store, candidate_body(idempotencyKey="k-1")
    assert refused(await World(store).offer(body, STRANGER)).status == 403
    admitted = type(DETECTOR)(DETECTOR.principal)
    assert isinstance(await World(store).offer(body, admitted), Applied)


async def test_a_sender_whose_grant_was_taken_away_still_learns_what_was_done() -> None:
    world = World()
    body = candidate_body(idempotencyKey="k-1")
    first = await world.offer(body)
    assert isinstance(first, Applied)
    world.intake.registry = type(world.intake.registry)(())
    assert replayed(await world.offer(body)) == first.receipt
    assert refused(await world.offer(candidate_body(idempotencyKey="k-2"))).code is Code.PRINCIPAL_UNKNOWN


async def test_an_event_over_64_kb_is_refused_whole() -> None:
    world = World()
    items = [{"kind": "log", "ref": f"{number:03}" + "r" * 509, "note": "n" * 512} for number in range(100)]
    refusal = refused(await world.offer(candidate_body(evidence=items)))
    assert (refusal.code, refusal.field) == (Code.TOO_LARGE, "evidence")
    assert world.store.feed == []
    assert applied(await world.offer(candidate_body(evidence=items[:50]))).metadata.evidence.count == 50


async def test_a_later_observation_of_a_resolved_trouble_begins_the_next_occurrence() -> None:
    world = World()
    await world.offer(candidate_body(observedAt=at(hours=-1)))
    world.clock.jump(timedelta(hours=1))
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    backlog = applied(await world.offer(candidate_body(observedAt=at(minutes=59))))
    assert (backlog.incident_id, backlog.state) == (INCIDENT_ID, State.RESOLVED)
    world.clock.jump(timedelta(hours=1))
    second = applied(await world.offer(candidate_body(observedAt=at(minutes=61))))
    assert second.incident_id == incident_id("checkout", "checkout-5xx", 2)
    assert second.metadata.predecessor == INCIDENT_ID
    joined = applied(await world.offer(candidate_body(observedAt=at(minutes=30))))
    assert joined.incident_id == second.incident_id
    audit(world.store)


async def test_a_pending_incident_gives_its_key_back_after_seven_silent_days() -> None:
    world = World()
    first = applied(await world.offer(candidate_body(confidence=0.1, observedAt=at())))
    world.clock.jump(timedelta(days=7))
    assert applied(await world.offer(candidate_body(confidence=0.2, observedAt=at(days=7)))).version == 4
    world.clock.jump(timedelta(days=7, seconds=1))
    second = applied(await world.offer(candidate_body(confidence=0.1, observedAt=at(days=14, seconds=1))))
    assert second.metadata.predecessor == first.incident_id
    audit(world.store)


async def test_two_services_with_one_key_are_two_troubles() -> None:
    world = World()
    ids = {applied(await world.offer(candidate_body(service=service))).incident_id for service in ("checkout", "search")}
    assert len(ids) == 2


async def test_a_batch_reads_no_incident_twice_and_none_for_a_keys_first_candidate() -> None:
    class CountingStore(InterleavedStore):
        reads = 0

        async def load(self, incident_id: str) -> Any:
            self.reads += 1
            return await super().load(incident_id)

        async def load_pointer(self, service: str, dedup_key: str) -> Any:
            self.reads += 1
            return await super().load_pointer(service, dedup_key)

    store, view = CountingStore(), View()
    world = World(store)
    for _ in range(5):
        await world.offer(candidate_body(), view=view)
    assert store.reads == 0
    assert isinstance(await world.offer(candidate_body()), Applied)
    assert store.reads <= 1


async def test_a_view_that_is_behind_costs_a_round_and_nothing_else() -> None:
    world = World()
    view = View()
    await world.offer(candidate_body(observedAt=at()), view=view)
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    for number in range(3):
        await world.offer(candidate_body(observedAt=at(minutes=-number - 1)))
    outcome = await world.offer(candidate_body(observedAt=at(seconds=1)), view=view)
    second = applied(outcome)
    assert second.metadata.occurrence == 2
    assert view.holder("checkout", "checkout-5xx") == second
    audit(world.store)


async def test_a_view_holds_the_newest_occurrence_of_a_key_whatever_it_sees_last() -> None:
    world, view = World(), View()
    first = applied(await world.offer(candidate_body(observedAt=at())))
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    second = applied(await world.offer(candidate_body(observedAt=at(seconds=1))))
    for seen in (second, first):
        view.keep(seen)
    assert view.holder("checkout", "checkout-5xx") == second
    assert view.by_id[INCIDENT_ID] == first


@pytest.mark.parametrize("view", [None, "shared"])
async def test_intake_calls_that_run_at_once_make_one_incident(view: str | None) -> None:
    world = World(InterleavedStore())
    shared = View() if view else None
    bodies = [
        candidate_body(severity=f"SEV{1 + number % 4}", evidence=[{"kind": "n", "ref": str(number)}]) for number in range(12)
    ]
    outcomes = await asyncio.gather(*(world.offer(body, view=shared) for body in bodies))
    assert {applied(outcome).incident_id for outcome in outcomes} == {INCIDENT_ID}
    answers = [outcome.receipt.result.answer for outcome in outcomes if isinstance(outcome, Applied)]
    assert sorted(answers) == [Answer.CREATED] + [Answer.JOINED] * 11
    row = world.row(INCIDENT_ID)
    assert (row["severity"], row["metadata"]["evidence"]["count"]) == ("SEV1", 12)
    audit(world.store)


async def test_one_message_delivered_twice_at_once_has_one_effect() -> None:
    world = World(InterleavedStore())
    outcomes = await asyncio.gather(*(world.offer(candidate_body(), message_id="m-1") for _ in range(4)))
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Applied", "Replayed", "Replayed", "Replayed"]
    assert len(world.store.receipts) == 1
    audit(world.store)


async def test_occurrences_begun_at_once_are_one() -> None:
    world = World(InterleavedStore())
    await world.offer(candidate_body(observedAt=at()))
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED", "CLOSED")
    bodies = [candidate_body(observedAt=at(seconds=number + 1)) for number in range(6)]
    outcomes = await asyncio.gather(*(world.offer(body) for body in bodies))
    assert {applied(outcome).metadata.occurrence for outcome in outcomes} == {2}
    audit(world.store)


async def test_a_person_and_a_storm_of_evidence_both_get_through() -> None:
    world = World(InterleavedStore())
    await world.offer(candidate_body())
    resolve = command_body("change-state", INCIDENT_ID, newState="MITIGATING", expectedVersion=2)
    outcomes = await asyncio.gather(*(world.offer(candidate_body()) for _ in range(10)), world.order(resolve))
    assert all(isinstance(outcome, Applied) for outcome in outcomes)
    assert world.row(INCIDENT_ID)["state"] == "MITIGATING"
    audit(world.store)


async def test_recorded_alarms_give_one_incident_an_alarm() -> None:
    world = World()
    for line in recorded_alarms():
        await world.offer(line, ALARMS)
    assert len(world.store.incidents) == 8
    assert len(world.store.receipts) == 230
    audit(world.store)


async def test_data_as_deep_as_allowed_can_be_stored_wherever_it_goes() -> None:
    deepest: Any = 1
    for _ in range(12):
        deepest = {"a": deepest}
    world = World()
    applied(await world.offer(candidate_body(metadata=deepest)))
    applied(await world.offer(candidate_body(metadata={"b": deepest["a"]}, title="other words")))
    assert world.types(INCIDENT_ID) == [*OPENED, "EvidenceAttached"]
    audit(world.store)
