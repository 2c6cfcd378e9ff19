"""What lies in a queue is sent in again as its first sender's, once in effect, and is never lost on the way."""

import json
import random
from typing import Any

import pytest

from pipeline.cli.outbox import MESSAGE_BYTES_MAX
from pipeline.cli.queue_redrive import HIDDEN_S, TOO_LARGE
from pipeline.domain.errors import Unavailable
from pipeline.domain.ids import incident_id, receipt_id
from tests.support.bodies import alarm_body, candidate_body
from tests.support.letterbox import DOOR, House, Letterbox, connection_lost
from tests.support.redriving import AFTER, BEFORE, SENT, explained, redrive, redriver


async def refused(house: House, *bodies: Any) -> None:
    """Let a stranger's candidates be refused by the doors as they are now."""
    for number, body in enumerate(bodies):
        house.box.put("candidates", body, f"first-{number}", **SENT)
    await house.work_off()


def mended(house: House) -> House:
    """Return the same house after the detectors were granted what they do."""
    after = House(AFTER, house.doors.store)
    after.box = house.box
    return after


# --- whose it is, and once ----------------------------------------------------------------------------------------------


async def test_what_was_refused_takes_effect_under_its_first_senders_authority_and_receipt() -> None:
    house = House(BEFORE)
    await refused(house, candidate_body())
    house.box.clock.seconds += 86_400
    tally = await redrive(house)
    assert (dict(tally.redriven), dict(tally.by_code)) == ({"candidates": 1}, {"principal-unknown": 1})
    await (house := mended(house)).work_off()
    assert house.feed[0]["actor"]["principal"] == "AROADETECTOR"
    assert house.feed[0]["actor"]["actorId"] == "monitor-7"
    assert house.feed[0]["metadata"]["observation"]["observedAt"] == "2026-03-01T03:00:00.000000Z"
    assert set(house.doors.memory.receipts) == {receipt_id("AROADETECTOR", "message", "first-0")}
    assert house.box.queues["rejected"] == []


async def test_redriven_by_anybody_else_it_is_theirs_and_not_its_first_senders() -> None:
    house = House(BEFORE)
    await refused(house, candidate_body())
    house.box.signer = "AROADETECTOR:monitor-9"
    await redrive(house)
    await (house := mended(house)).work_off()
    assert house.feed[0]["actor"]["actorId"] == "monitor-9"
    assert receipt_id("AROADETECTOR", "message", "first-0") not in house.doors.memory.receipts


async def test_the_body_is_sent_byte_for_byte_beside_one_attribute() -> None:
    box = Letterbox()
    body = 'no JSON at all: "Größe", tab\t, 😀'
    theirs = {"trace": {"dataType": "String", "stringValue": "t-1"}}
    box.put("rejected", body, **explained(attributes=theirs))
    await redrive(box)
    (sent,) = box.sends()
    assert (sent["MessageBody"], list(sent["MessageAttributes"])) == (body, ["opx"])
    assert json.loads(sent["MessageAttributes"]["opx"]["StringValue"])["attributes"] == theirs


@pytest.mark.parametrize("fails", ["send", "delete"])
async def test_a_run_that_loses_its_connection_and_is_repeated_has_one_effect(fails: str) -> None:
    house = House(BEFORE)
    await refused(house, candidate_body(), candidate_body(dedupKey="other"))
    house = mended(house)

    def lost(call: str, request: dict[str, Any]) -> None:
        if call == fails:
            raise connection_lost()

    house.box.fault = lost
    with pytest.raises(Unavailable):
        await redrive(house)
    assert len(house.box.queues["rejected"]) == 2, "nothing is deleted that is not known to be taken"
    house.box.fault = lambda call, request: None
    await house.work_off()
    effects = len(house.feed)
    house.box.clock.seconds += HIDDEN_S
    assert (await redrive(house)).sent == 2
    await house.work_off()
    assert {event["incidentId"] for event in house.feed} == {
        incident_id("checkout", key, 1) for key in ("checkout-5xx", "other")
    }
    assert len(house.feed) == (4 if fails == "send" else effects)
    assert len(house.doors.memory.receipts) == 2
    assert house.box.queues["rejected"] == []


async def test_what_took_effect_and_is_redriven_once_more_changes_nothing() -> None:
    house = House(AFTER)
    house.box.put("candidates", candidate_body(), "first", **SENT)
    await house.work_off()
    history = list(house.feed)
    house.box.put("rejected", json.dumps(candidate_body()), **explained())
    house.box.put("candidates-dlq", candidate_body(), "first", **SENT)
    await redrive(house)
    await redrive(house, "candidates-dlq")
    await house.work_off()
    assert house.feed == history
    assert house.box.bodies("rejected") == []


async def test_a_dead_message_is_its_own_signers_whatever_it_says_of_itself() -> None:
    box = Letterbox()
    lie = explained("AROAOPERATOR:dana@example.com")["attributes"]
    box.put("candidates-dlq", candidate_body(), "first", attributes=lie, **SENT)
    await redrive(box, "candidates-dlq")
    told = json.loads(box.sends()[0]["MessageAttributes"]["opx"]["StringValue"])
    assert (told["originalSenderId"], told["originalMessageId"]) == ("AROADETECTOR:monitor-7", "first")
    assert told["originalSentAt"] == "2026-03-01T03:00:00.000000Z"
    assert told["attributes"]["opx"]["stringValue"] == lie["opx"]["StringValue"]


async def test_a_redriven_message_that_died_is_still_its_first_senders() -> None:
    box = Letterbox()
    box.put("candidates-dlq", candidate_body(), "again", **(explained() | {"sender": "AROAREDRIVE:opx"}))
    await redrive(box, "candidates-dlq")
    told = json.loads(box.sends()[0]["MessageAttributes"]["opx"]["StringValue"])
    assert (told["originalSenderId"], told["originalMessageId"]) == ("AROADETECTOR:monitor-7", "first")


async def test_dead_alarms_come_back_by_the_candidates_queue_as_the_alarms_queues() -> None:
    house = House(AFTER)
    house.box.put("alarms-dlq", alarm_body(), "a", sender="AIDAOFEVENTBRIDGE")
    assert dict((await redrive(house, "alarms-dlq")).redriven) == {"candidates": 1}
    await house.work_off()
    assert house.feed[0]["actor"]["principal"] == "queue:alarms"


async def test_what_does_not_say_whose_it_was_stays_and_is_told() -> None:
    box = Letterbox()
    box.put("rejected", candidate_body(), sender=DOOR)
    box.put("rejected", candidate_body(), **explained())
    tally = await redrive(box)
    assert (tally.sent, dict(tally.left)) == (1, {"It doesn't say whose it was.": 1})
    assert box.visible("rejected") == 1


# --- one run ------------------------------------------------------------------------------------------------------------


async def test_what_is_refused_again_while_it_runs_is_not_sent_again_by_the_same_run() -> None:
    house = House(BEFORE)
    await refused(house, *(candidate_body(dedupKey=f"k-{number}") for number in range(250)))
    run = redriver(house.box, known=BEFORE)

    def at_once(call: str, request: dict[str, Any]) -> None:
        if call == "delete":
            # The doors are quicker than the run: what was sent just now lies there again.
            for lying in house.box.queues.pop("candidates", []):
                house.box.put("rejected", lying.body, sender=DOOR, attributes=lying.attributes)

    house.box.fault = at_once
    tally = await run.run()
    assert tally.sent == 250
    assert len(house.box.sends()) == 250
    assert house.box.visible("rejected") == 250


async def test_what_comes_in_while_it_works_waits_for_another_run() -> None:
    box = Letterbox()
    box.put("rejected", candidate_body(), **explained(first_id="old"))
    run = redriver(box, limit=100)
    for number in range(5):
        box.put("rejected", candidate_body(), **explained(first_id=f"new-{number}"))
    assert (await run.run()).sent == 1
    assert box.visible("rejected") == 5


async def test_copies_of_one_message_are_sent_once_and_deleted_together() -> None:
    box = Letterbox()
    for _ in range(3):
        box.put("rejected", candidate_body(), **explained())
    box.put("rejected", candidate_body(), **explained(first_id="another"))
    tally = await redrive(box)
    assert (tally.sent, tally.copies, box.bodies("rejected")) == (2, 2, [])


async def test_only_what_is_chosen_is_sent_and_the_others_are_given_back() -> None:
    box = Letterbox()
    for number in range(30):
        code = "policy-unknown" if number % 3 == 0 else "invalid-field"
        box.put("rejected", candidate_body(), f"m-{number}", **explained(first_id=f"f-{number}", code=code))
    tally = await redrive(box, chooses=lambda letter, code: code == "policy-unknown", limit=4)
    assert dict(tally.by_code) == {"policy-unknown": 4}
    assert (len(box.queues["rejected"]), box.visible("rejected")) == (26, 26)


async def test_a_limited_run_takes_the_oldest_first() -> None:
    box = Letterbox()
    for number in reversed(range(30)):
        sent = f"2026-03-01T03:{number:02}:00.000000Z"
        box.put("rejected", str(number), **explained(first_id=f"f-{number}", originalSentAt=sent))
    assert (await redrive(box, limit=3)).sent == 3
    assert box.bodies("candidates") == ["0", "1", "2"]
    assert box.visible("rejected") == 27


async def test_two_who_redrive_at_once_share_the_work() -> None:
    box = Letterbox()
    for number in range(40):
        box.put("rejected", candidate_body(), **explained(first_id=f"f-{number}"))
    first, second = redriver(box, depth=20), redriver(box)
    assert await first._take_out()
    assert (await second.run()).sent == 20
    assert len(box.sends()) == 20


async def test_a_run_keeps_to_its_rate() -> None:
    box = Letterbox()
    for number in range(20):
        box.put("rejected", candidate_body(), **explained(first_id=f"f-{number}"))
    await redrive(box, rate=2)
    assert box.clock.seconds == pytest.approx(10, abs=1)
    assert max(len(request["Entries"]) for call, request in box.calls if call == "send") == 2


async def test_what_can_not_be_deleted_is_counted_and_shows_again() -> None:
    box = Letterbox()
    box.put("rejected", candidate_body(), **explained())
    gone = {"Code": "InternalError", "SenderFault": False}
    box.fault = lambda call, request: {"0": gone} if call == "delete" else None
    tally = await redrive(box)
    assert (tally.sent, tally.undeleted, len(box.queues["rejected"])) == (1, 1, 1)


# --- what a queue takes -------------------------------------------------------------------------------------------------


async def test_an_entry_that_fails_for_now_is_tried_again_and_one_refused_for_good_stays() -> None:
    box = Letterbox()
    for number in range(3):
        box.put("rejected", candidate_body(dedupKey=f"k-{number}"), **explained(first_id=f"f-{number}"))
    tries: list[int] = []

    def fault(call: str, request: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
        if call != "send":
            return None
        tries.append(len(request["Entries"]))
        failing: dict[str, dict[str, Any]] = {}
        for sent in request["Entries"]:
            if "k-1" in sent["MessageBody"]:
                failing[sent["Id"]] = {"Code": "InvalidMessageContents", "SenderFault": True}
            elif "k-2" in sent["MessageBody"] and len(tries) < 3:
                failing[sent["Id"]] = {"Code": "ServiceUnavailable", "SenderFault": False}
        return failing

    box.fault = fault
    tally = await redrive(box)
    assert (tally.sent, dict(tally.left), tries) == (2, {"InvalidMessageContents": 1}, [3, 1, 1])
    assert [json.loads(body)["dedupKey"] for body in box.bodies("rejected")] == ["k-1"]
    assert box.visible("rejected") == 1


async def test_a_message_that_no_longer_fits_goes_without_its_attributes_or_stays() -> None:
    box = Letterbox()
    attributes = {"a": {"dataType": "String", "stringValue": '"' * 150_000}}
    box.put("rejected", json.dumps(candidate_body(description="x" * 200_000)), **explained(attributes=attributes))
    box.put("rejected", "x" * (MESSAGE_BYTES_MAX - 100), **explained(first_id="huge"))
    tally = await redrive(box)
    assert (tally.sent, tally.bare, dict(tally.left)) == (1, 1, {TOO_LARGE: 1})
    (sent,) = box.sends()
    told = json.loads(sent["MessageAttributes"]["opx"]["StringValue"])
    assert told["originalMessageId"] == "first"
    assert "attributes" not in told
    assert box.visible("rejected") == 1


async def test_a_call_never_carries_more_than_a_queue_takes(rng: random.Random) -> None:
    box = Letterbox()
    for number in range(60):
        body = json.dumps(candidate_body(description="x" * rng.randrange(200_000)))
        box.put("rejected", body, **explained(first_id=f"f-{number}"))
    assert (await redrive(box)).sent == 60
    for call, request in box.calls:
        if call == "send":
            assert len(request["Entries"]) <= 10
            assert sum(len(sent["MessageBody"]) for sent in request["Entries"]) <= 1024 * 1024
