"""A batch of one key is one transaction: a receipt each, and whatever is wrong with one is its own affair."""

import random
from typing import Any

import pytest

from pipeline.domain.authority import Sender
from pipeline.domain.controls import PinnedControls
from pipeline.domain.decisions import GATE
from pipeline.domain.errors import Code, Conflict, Unavailable
from pipeline.domain.occurrences import TOGETHER_MAX
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import AuthorityType
from pipeline.services.decision import Applied, Refused, Replayed, View
from pipeline.services.ports import Commit, CommitResult
from tests.support.batches import Batches, kinds, told
from tests.support.bodies import alarm_body, candidate_body, declare_body, text_of
from tests.support.histories import INCIDENT_ID
from tests.support.registry import ALARMS, DETECTOR, OTHER_DETECTOR, STRANGER
from tests.support.reports import controls
from tests.support.world import DEADLINE

OPENED = ["IncidentCreated", "IncidentOpened"]
FOLDED = ["IncidentCreated", "EvidenceAttached", "IncidentOpened"]


# --- one transaction ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 2, 10, TOGETHER_MAX])
async def test_the_first_of_a_key_are_one_transaction_without_a_read(number: int) -> None:
    batches = Batches()
    answers = await batches.take(*[candidate_body() for _ in range(number)])
    assert batches.calls.calls == ["commit"]
    assert sorted(told(answers)) == [Answer.CREATED] + [Answer.JOINED] * (number - 1)
    assert len(batches.world.store.receipts) == number
    assert batches.promotion["detections"] == number
    assert batches.world.types(INCIDENT_ID) == (FOLDED if number > 1 else OPENED)


async def test_every_receipt_of_a_transaction_names_all_its_events() -> None:
    batches = Batches()
    first = await batches.take(*[candidate_body() for _ in range(5)])
    second = await batches.take(*[candidate_body(severity="SEV1") for _ in range(5)])
    for answers, span in ((first, (1, 3)), (second, (4, 5))):
        results = [answer.receipt.result for answer in answers if isinstance(answer, Applied)]
        assert {(result.first_sequence, result.last_sequence) for result in results} == {span}
        assert {answer.receipt.incident_id for answer in answers if isinstance(answer, Applied)} == {INCIDENT_ID}
    assert told(second) == [Answer.JOINED] * 5


async def test_what_is_decided_together_is_told_by_one_of_them() -> None:
    batches = Batches()
    answers = await batches.take(*[candidate_body() for _ in range(7)])
    firsts = [answer for answer in answers if isinstance(answer, Applied) and answer.first]
    assert [answer.receipt.result.answer for answer in firsts] == [Answer.CREATED]
    again = await batches.take(*[candidate_body() for _ in range(7)])
    assert sum(isinstance(answer, Applied) and answer.first for answer in again) == 1


async def test_keys_of_one_batch_are_a_transaction_each() -> None:
    batches = Batches()
    bodies = [candidate_body(dedupKey=f"k{number % 3}", service=f"s{number % 2}") for number in range(60)]
    await batches.take(*bodies)
    assert batches.calls.calls == ["commit"] * 6
    assert len(batches.world.store.incidents) == 6


async def test_more_than_fit_into_one_transaction_take_the_fewest() -> None:
    batches = Batches()
    await batches.take(*[candidate_body() for _ in range(4 * TOGETHER_MAX + 1)])
    assert batches.calls.calls == ["commit"] * 5
    assert batches.promotion["detections"] == 4 * TOGETHER_MAX + 1


async def test_two_reporters_of_one_key_are_one_transaction_and_two_events() -> None:
    batches = Batches()
    sent = [(candidate_body(), (DETECTOR, OTHER_DETECTOR)[number % 2]) for number in range(8)]
    await batches.mixed(sent)
    assert batches.calls.calls == ["commit"]
    assert sorted(batches.world.types(INCIDENT_ID)) == sorted([*FOLDED, "EvidenceAttached"])
    actors = {event["actor"]["principal"] for event in batches.world.store.feed}
    assert actors == {DETECTOR.principal, OTHER_DETECTOR.principal, GATE.principal}


async def test_recovery_and_firing_of_one_batch_are_told_apart() -> None:
    batches = Batches()
    at = "2026-01-31T02:5{}:00.000+0000"
    alarms = [alarm_body(("ALARM", "OK")[n % 2], event_id=f"e{n}", timestamp=at.format(n)) for n in range(4)]
    answers = await batches.take(*alarms, sender=ALARMS)
    assert batches.calls.calls == ["commit"]
    assert sorted(told(answers)) == [Answer.CREATED] + [Answer.JOINED] * 3
    (identity,) = batches.world.store.incidents
    assert batches.world.row(identity)["metadata"]["evidence"]["lastObservation"] == "recovery"
    assert batches.world.row(identity)["metadata"]["promotion"]["detections"] == 2


async def test_recoveries_with_nothing_open_are_one_transaction() -> None:
    batches = Batches()
    answers = await batches.take(*[alarm_body("OK", event_id=f"e{n}") for n in range(6)], sender=ALARMS)
    assert told(answers) == [Answer.NOTHING_OPEN] * 6
    assert batches.calls.calls.count("commit") == 1
    assert len(batches.world.store.receipts) == 6


# --- copies -------------------------------------------------------------------------------------------------------------


async def test_two_copies_in_one_batch_have_one_effect_and_no_further_call() -> None:
    batches = Batches()
    answers = await batches.take(*[candidate_body(idempotencyKey="k") for _ in range(3)])
    assert kinds(answers) == ["Applied", "Replayed", "Replayed"]
    assert batches.calls.calls == ["commit"]
    receipts = {answer.receipt.id for answer in answers if isinstance(answer, Applied | Replayed)}
    assert receipts == set(batches.world.store.receipts)
    assert batches.promotion["detections"] == 1


async def test_one_that_was_answered_before_is_replayed_and_the_others_count_once_in_one_further_try() -> None:
    batches = Batches()
    bodies = [candidate_body(idempotencyKey=f"k{number}") for number in range(10)]
    await batches.take(bodies[2], bodies[5], bodies[6])
    answers = await batches.take(*bodies)
    assert kinds(answers) == ["Replayed" if number in (2, 5, 6) else "Applied" for number in range(10)]
    assert batches.calls.calls == ["load", "commit", "commit"]
    assert batches.promotion["detections"] == 10
    again = await batches.take(*bodies)
    assert kinds(again) == ["Replayed"] * 10
    assert batches.calls.calls == ["load", "commit"], "all are answered from one refused transaction"


async def test_one_that_was_answered_before_does_not_tell_its_old_story_again() -> None:
    batches = Batches()
    (first,) = await batches.take(candidate_body(idempotencyKey="k0"))
    answers = await batches.take(*[candidate_body(idempotencyKey=f"k{number}") for number in range(3)])
    assert isinstance(first, Applied)
    assert isinstance(answers[0], Replayed)
    assert answers[0].receipt == first.receipt
    applied = [answer for answer in answers if isinstance(answer, Applied)]
    assert sorted(answer.first for answer in applied) == [False, True]
    assert told(answers[1:]) == [Answer.JOINED, Answer.JOINED]
    assert [event.fact.event_type.value for event in applied[0].events] == ["EvidenceAttached"]


async def test_the_first_receipt_alone_may_have_existed() -> None:
    """Then another begins nothing that exists: the key's incident is joined."""
    batches = Batches()
    await batches.take(candidate_body(idempotencyKey="k0"))
    fresh = Batches()
    fresh.world.store.receipts |= batches.world.store.receipts
    answers = await fresh.world.intake.take_all(
        [
            fresh.world.intake.read(text_of(candidate_body(idempotencyKey=f"k{n}")), fresh.world.received(DETECTOR))
            for n in range(3)
        ],
        View(),
        DEADLINE,
    )
    assert kinds([answer for (answer,) in answers]) == ["Replayed", "Applied", "Applied"]
    assert sorted(told([answer for (answer,) in answers[1:]])) == [Answer.CREATED, Answer.JOINED]


# --- what is wrong with one ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [False, True], ids=["in one batch", "used before"])
async def test_a_key_used_for_another_request_is_refused_alone(known: bool) -> None:
    batches = Batches()
    if known:
        await batches.take(candidate_body(idempotencyKey="k"))
    bodies = [
        candidate_body(idempotencyKey="k"),
        candidate_body(idempotencyKey="k", title="Another"),
        candidate_body(idempotencyKey="other"),
    ]
    answers = await batches.take(*bodies)
    assert kinds(answers) == ["Replayed" if known else "Applied", "Refused", "Applied"]
    refused = answers[1]
    assert isinstance(refused, Refused)
    assert (refused.refusal.code, refused.refusal.incident_id) == (Code.KEY_REUSED, INCIDENT_ID)
    assert batches.promotion["detections"] == 2


REFUSED: dict[str, tuple[Any, Sender, Code]] = {
    "an unknown policy": (candidate_body(policyId="made-up"), DETECTOR, Code.POLICY_UNKNOWN),
    "a stranger": (candidate_body(), STRANGER, Code.PRINCIPAL_UNKNOWN),
    "a claim": (candidate_body(authority="HUMAN"), DETECTOR, Code.AUTHORITY_NOT_GRANTED),
}


@pytest.mark.parametrize(("body", "sender", "code"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_refused_one_does_not_touch_its_neighbours(place: int, body: Any, sender: Sender, code: Code) -> None:
    batches = Batches()
    sent = [(candidate_body(), DETECTOR), (candidate_body(), DETECTOR)]
    sent.insert(place, (body, sender))
    answers = await batches.mixed(sent)
    refused = answers.pop(place)
    assert isinstance(refused, Refused)
    assert refused.refusal.code is code
    assert sorted(told(answers)) == [Answer.CREATED, Answer.JOINED]
    assert batches.calls.calls.count("commit") == 1
    assert len(batches.world.store.receipts) == 2


async def test_all_of_an_unknown_policy_are_refused_and_none_has_a_receipt() -> None:
    batches = Batches()
    answers = await batches.take(*[candidate_body(policyId="made-up") for _ in range(4)])
    assert kinds(answers) == ["Refused"] * 4
    assert batches.world.store.receipts == {}


async def test_one_too_large_to_be_stored_is_refused_and_its_neighbours_are_not() -> None:
    batches = Batches()
    items = [{"kind": "log", "ref": f"{number:03}" + "r" * 509, "note": "n" * 512} for number in range(100)]
    bodies = [candidate_body(), candidate_body(evidence=items), candidate_body(), candidate_body()]
    answers = await batches.take(*bodies)
    assert kinds(answers) == ["Applied", "Refused", "Applied", "Applied"]
    assert batches.promotion["detections"] == 3


async def test_one_too_large_to_be_stored_does_not_make_its_neighbours_go_one_by_one() -> None:
    batches = Batches()
    items = [{"kind": "log", "ref": f"{number:03}" + "r" * 509, "note": "n" * 512} for number in range(100)]
    bodies = [candidate_body(severity="SEV2") for _ in range(32)]
    bodies.insert(3, candidate_body(severity="SEV1", evidence=items))
    answers = await batches.take(*bodies)
    assert sorted(kinds(answers)) == ["Applied"] * 32 + ["Refused"]
    assert batches.calls.calls.count("commit") <= 6


async def test_of_copies_of_a_refused_one_each_is_refused_and_a_good_one_under_its_key_is_not() -> None:
    batches = Batches()
    bad = candidate_body(policyId="made-up", idempotencyKey="k")
    answers = await batches.take(bad, bad, candidate_body(idempotencyKey="k"))
    assert kinds(answers) == ["Refused", "Refused", "Applied"], "a refusal leaves no receipt"
    assert len(batches.world.store.receipts) == 1


# --- conflicts ----------------------------------------------------------------------------------------------------------


async def test_a_batch_that_meets_conflicts_is_decided_again_as_a_whole(rng: random.Random) -> None:
    batches = Batches()
    for number in range(20):
        conflicts = iter([Conflict("in the way")] * rng.randrange(4))
        batches.calls.fails = lambda call, about, left=conflicts: next(left, None) if call == "commit" else None  # type: ignore[misc]
        answers = await batches.take(*[candidate_body() for _ in range(1 + number % 5)])
        assert set(kinds(answers)) == {"Applied"}
        assert len({answer.attempts for answer in answers if isinstance(answer, Applied)}) == 1
    assert batches.promotion["detections"] == sum(1 + number % 5 for number in range(20))


async def test_a_batch_without_answer_comes_again_and_counts_once() -> None:
    """The transaction may have taken effect: the answer was lost."""
    batches = Batches()
    real = batches.calls.real.commit

    async def lost(commit: Commit) -> CommitResult:
        await real(commit)
        raise Unavailable("no answer")

    batches.calls.real.commit = lost  # type: ignore[method-assign]
    bodies = [candidate_body(idempotencyKey=f"k{number}") for number in range(5)]
    assert kinds(await batches.take(*bodies)) == ["Unavailable"] * 5
    batches.calls.real.commit = real  # type: ignore[method-assign]
    assert kinds(await batches.take(*bodies)) == ["Replayed"] * 5
    assert batches.promotion["detections"] == 5


# --- live controls ------------------------------------------------------------------------------------------------------


def held(live: PinnedControls) -> Batches:
    return Batches(controls=live)


async def test_a_paused_services_batch_waits_and_its_neighbours_does_not() -> None:
    batches = held(controls(paused=["checkout"]))
    await batches.take(candidate_body(), candidate_body(), candidate_body(service="search"))
    states = {row["service"]: row["state"] for row in batches.world.store.incidents.values()}
    assert states == {"checkout": "PENDING", "search": "OPEN"}
    assert batches.promotion["outcome"] == "SUPPRESS"


async def test_a_person_declares_under_a_pause_and_is_told_that_it_waits() -> None:
    batches = held(controls(paused=["*"]))
    outcome = await batches.world.order(declare_body(reason="it burns"))
    assert isinstance(outcome, Applied)
    assert outcome.incident is not None
    assert (outcome.incident.state, outcome.receipt.result.answer) == ("PENDING", Answer.CREATED)
    assert outcome.actor_type is AuthorityType.HUMAN
