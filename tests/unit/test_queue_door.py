"""What a queue's door answers and asks of its queues: who comes again and when, who waits for whom, whose word counts."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.candidates import Received
from pipeline.domain.errors import Code, Corrupt, Refusal, Rejected, Unavailable
from pipeline.domain.ids import incident_id, receipt_id
from pipeline.services.ports import Message
from pipeline.services.rejection import explanation
from tests.simulation.world import START
from tests.support.bodies import alarm_body, candidate_body, command_body, declare_body
from tests.support.doors import CountedStore, Doors, command_message, explanation_attribute, message
from tests.support.registry import ALARMS, DETECTOR, OPERATOR, entry, registry


def about(service: str, **fields: Any) -> dict[str, Any]:
    return candidate_body(service=service, **fields)


def failing_on(service: str, error: Exception) -> CountedStore:
    """A store on which every write about one service's incidents fails."""

    def fails(call: str, what: Any) -> Exception | None:
        if call != "commit" or what.incident is None or what.incident.service != service:
            return None
        return error

    return CountedStore(fails)


class Cracked:
    """A service with a defect: a message whose body holds `crack` makes it crash while reading."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def read(self, body: str, received: Received) -> Any:
        if "crack" in body:
            raise ZeroDivisionError("a defect")
        return self.real.read(body, received)

    async def take(self, *arguments: Any) -> Any:
        return await self.real.take(*arguments)


# --- partial answers, delays --------------------------------------------------------------------------------------------


async def test_only_the_failed_messages_come_again() -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    batch = [message("a", about("light")), message("b", about("dark")), message("c", "not json"), message("d", about("day"))]
    assert await doors.offer(*batch) == ("b",)
    assert doors.services == {"light", "day"}
    assert doors.rejected.codes() == ["malformed-json"]
    assert doors.visibility["candidates"].waits == {"b": 10}


@pytest.mark.parametrize(("receives", "wait_s"), [(1, 10), (2, 20), (3, 40), (7, 640), (8, 900), (50, 900), (100, 900)])
async def test_a_message_waits_longer_with_every_receive(receives: int, wait_s: int) -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    assert await doors.offer(message("a", about("dark"), receive_count=receives)) == ("a",)
    assert doors.visibility["candidates"].waits == {"a": wait_s}


async def test_delays_are_asked_of_the_queue_a_message_came_from() -> None:
    doors = Doors(failing_on("checkout", Unavailable("no answer")))
    batch = [message("a", about("checkout")), message("b", alarm_body(), source="alarms", receive_count=2)]
    assert await doors.offer(*batch) == ("a", "b")
    assert doors.visibility["candidates"].waits == {"a": 10}
    assert doors.visibility["alarms"].waits == {"b": 20}


async def test_equal_delays_of_one_queue_are_one_call() -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    await doors.offer(*[message(str(n), about("dark", dedupKey=f"k{n}")) for n in range(10)])
    assert doors.visibility["candidates"].calls == 1
    assert len(doors.visibility["candidates"].waits) == 10


async def test_a_delay_that_is_not_taken_keeps_the_message_all_the_same() -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    doors.visibility["candidates"].down = True
    assert await doors.offer(message("a", about("dark")), message("b", about("light"))) == ("a",)
    assert [report.operation for report in doors.reports if report.error] == ["candidate", "delay"]


async def test_corrupt_storage_is_no_reason_to_drop_a_message() -> None:
    doors = Doors(failing_on("dark", Corrupt("an event exists, but the row lags")))
    assert await doors.offer(message("a", about("dark")), message("b", about("light"))) == ("a",)
    assert doors.rejected.messages == []


# --- lanes --------------------------------------------------------------------------------------------------------------


async def test_a_key_that_is_unavailable_stops_its_lane_and_no_other() -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    batch = [
        message("a", about("dark")),
        message("b", about("light")),
        message("c", about("dark")),
        message("d", about("light")),
    ]
    assert await doors.offer(*batch) == ("a", "c")
    assert doors.settled() == ["a", "b", "d"] or doors.settled() == ["b", "a", "d"], "the one behind it was not tried"
    assert doors.visibility["candidates"].waits == {"a": 10, "c": 10}


async def test_a_crash_on_one_candidate_does_not_stop_those_behind_it() -> None:
    doors = Doors(failing_on("dark", ZeroDivisionError("a defect")))
    batch = [message("a", about("dark")), message("b", about("dark", dedupKey="other")), message("c", about("light"))]
    assert await doors.offer(*batch) == ("a", "b")
    assert doors.services == {"light"}
    assert sorted(doors.settled()) == ["a", "b", "c"]


async def test_a_crash_in_the_same_lane_does_not_stop_the_next_message() -> None:
    crashes = iter([ZeroDivisionError("a defect")])
    doors = Doors(CountedStore(lambda call, what: next(crashes, None) if call == "commit" else None))
    assert await doors.offer(message("a", about("light")), message("b", about("light"))) == ("a",)
    assert doors.services == {"light"}


async def test_a_crash_while_reading_takes_no_neighbour_along() -> None:
    doors = Doors(services=Cracked)
    batch = [message("a", about("light", title="crack")), message("b", about("light"))]
    assert await doors.offer(*batch) == ("a",)
    assert doors.services == {"light"}
    assert doors.reports[0].operation == "unreadable"


# --- FIFO ---------------------------------------------------------------------------------------------------------------


async def test_after_a_failure_the_rest_of_its_group_waits_and_others_go_on() -> None:
    doors = Doors(failing_on("dark", Unavailable("no answer")))
    batch = [
        command_message("a", declare_body(service="dark", authority="HUMAN"), "one"),
        command_message("b", declare_body(service="light", authority="HUMAN"), "one"),
        command_message("c", declare_body(service="day", authority="HUMAN"), "two"),
        command_message("d", declare_body(service="noon", authority="HUMAN"), "two"),
    ]
    assert await doors.order(*batch) == ("a", "b")
    assert doors.services == {"day", "noon"}
    assert "b" not in doors.settled(), "what waits is not even tried"
    assert doors.visibility["commands"].waits == {"a": 10, "b": 10}


@pytest.mark.parametrize("error", [ZeroDivisionError("a defect"), Corrupt("the row lags")], ids=repr)
async def test_no_failure_of_any_kind_lets_a_later_command_of_its_group_overtake(error: Exception) -> None:
    doors = Doors(failing_on("dark", error))
    batch = [
        command_message(name, declare_body(service=name, authority="HUMAN"), "one") for name in ("day", "dark", "light")
    ]
    assert await doors.order(*batch) == ("dark", "light")
    assert doors.services == {"day"}


async def test_an_unreadable_crash_keeps_its_group_in_order_too() -> None:
    doors = Doors(services=Cracked)
    batch = [
        command_message("a", declare_body(service="dark", title="crack", authority="HUMAN"), "one"),
        command_message("b", declare_body(service="light", authority="HUMAN"), "one"),
    ]
    assert await doors.order(*batch) == ("a", "b")
    assert doors.services == set()


async def test_a_refused_command_is_settled_and_its_group_goes_on() -> None:
    doors = Doors()
    batch = [
        command_message("a", "not json", "one"),
        command_message("b", declare_body(service="light", authority="HUMAN"), "one"),
    ]
    assert await doors.order(*batch) == ()
    assert doors.services == {"light"}


async def test_the_group_behind_a_dead_rejected_queue_waits() -> None:
    doors = Doors()
    doors.rejected.down = True
    batch = [
        command_message("a", "not json", "one"),
        command_message("b", declare_body(service="light", authority="HUMAN"), "one"),
        command_message("c", declare_body(service="day", authority="HUMAN"), "two"),
    ]
    assert await doors.order(*batch) == ("a", "b")
    assert doors.services == {"day"}


async def test_commands_on_one_incident_are_taken_in_their_order() -> None:
    doors = Doors()
    await doors.offer(message("first", about("light")))
    identity = next(iter(doors.memory.incidents))
    states = ["MITIGATING", "RESOLVED", "CLOSED"]
    batch = [
        command_message(
            state, command_body("change-state", identity, newState=state, authority="HUMAN", reason="r"), identity
        )
        for state in states
    ]
    assert await doors.order(*batch) == ()
    assert doors.memory.incidents[identity]["state"] == "CLOSED"
    assert doors.store.calls.count("load") == 1, "a batch reads each incident once"


# --- refusals -----------------------------------------------------------------------------------------------------------


async def test_a_remembered_refusal_is_rejected_again_when_it_comes_again() -> None:
    """The process may have died between the receipt and its copy in the rejected queue."""
    doors = Doors()
    await doors.offer(message("first", about("light")))
    identity = next(iter(doors.memory.incidents))
    body = command_body("change-state", identity, newState="CLOSED", authority="HUMAN", reason="r", idempotencyKey="k")
    doors.rejected.down = True
    assert await doors.order(command_message("a", body)) == ("a",)
    assert len(doors.memory.receipts) == 2, "the refusal is remembered already"
    doors.rejected.down = False
    assert await doors.order(command_message("a", body, receive_count=2)) == ()
    assert doors.rejected.codes() == ["transition-illegal"]


async def test_a_message_whose_copy_is_not_taken_comes_again_and_its_neighbour_goes_on() -> None:
    doors = Doors()
    doors.rejected.down = True
    assert await doors.offer(message("a", "not json"), message("b", about("light"))) == ("a",)
    assert doors.services == {"light"}
    assert doors.visibility["candidates"].waits == {"a": 10}


# --- the deadline -------------------------------------------------------------------------------------------------------


async def test_after_the_deadline_nothing_is_taken_and_all_comes_again() -> None:
    doors = Doors()
    batch = [message("a", about("light")), message("b", about("dark"))]
    assert await doors.offer(*batch, within_s=0.0) == ("a", "b")
    assert doors.store.calls == [], "nothing was begun"
    assert all(isinstance(report.error, Unavailable) for report in doors.reports)
    commands = [command_message(str(n), declare_body(authority="HUMAN"), f"g{n}") for n in range(3)]
    assert await doors.order(*commands, within_s=0.0) == ("0", "1", "2")
    assert doors.store.calls == []


async def test_what_is_begun_before_the_deadline_is_finished_and_the_rest_comes_again() -> None:
    doors = Doors()

    def slow(call: str, what: Any) -> None:
        doors.clock.seconds += 30.0

    doors.store.fails = slow
    batch = [message(name, about("light")) for name in "abcd"]
    assert await doors.offer(*batch, within_s=50.0) == ("c", "d")
    assert doors.memory.incidents[next(iter(doors.memory.incidents))]["version"] == 3


# --- whose word counts --------------------------------------------------------------------------------------------------

REDRIVE = "AROAREDRIVE"
KNOWN = registry(
    entry("detectors", DETECTOR.principal, ALARMS.principal),
    entry("operators", OPERATOR.principal, kinds="HUMAN", operations=["declare", "change-state"], sessionIsPerson=True),
    entry("redrive", "$redriveRole", operations=["redrive"], speaksForSenders=True),
    redriveRole=REDRIVE,
)


def original(**fields: Any) -> Message:
    """A detector's message without a key of its own: its receipt's key is the message's id."""
    return message("original", about("light"), **({"sender_id": "AROADETECTOR:monitor-7"} | fields))


async def redriven(doors: Doors, by: str) -> Message:
    """Return the message as it comes again from the rejected queue, sent by `by`, with a new id and a later time."""
    doors.rejected.messages.clear()
    await doors.offer(replace(original(), body="not json"))
    told = doors.rejected.messages[0].explanation
    later = START + timedelta(hours=3)
    return message("redriven", about("light"), sender_id=by, sent_at=later, attributes=explanation_attribute(told))


async def test_a_redriven_message_keeps_its_first_senders_authority_time_and_receipt() -> None:
    doors = Doors(registry=KNOWN)
    assert await doors.offer(await redriven(doors, f"{REDRIVE}:redrive-1")) == ()
    row = doors.memory.incidents[incident_id("light", "checkout-5xx", 1)]
    created = doors.memory.feed[0]
    assert created["actor"]["principal"] == "AROADETECTOR"
    assert created["actor"]["actorId"] == "monitor-7"
    assert created["metadata"]["observation"]["observedAt"] == "2026-03-01T03:00:00.000000Z"
    assert row["metadata"]["promotion"]["newestObservedAt"] == "2026-03-01T03:00:00.000000Z"
    assert set(doors.memory.receipts) == {receipt_id("AROADETECTOR", "message", "original")}


async def test_a_message_that_was_applied_and_is_redriven_changes_nothing() -> None:
    doors = Doors(registry=KNOWN)
    await doors.offer(original())
    history = len(doors.memory.feed)
    assert await doors.offer(await redriven(doors, f"{REDRIVE}:redrive-1")) == ()
    assert len(doors.memory.feed) == history


async def test_a_claim_to_be_redriven_is_believed_from_nobody_else() -> None:
    doors = Doors(registry=KNOWN)
    liar = await redriven(doors, "AROADETECTOR:monitor-9")
    told = dict(doors.rejected.messages[0].explanation) | {"originalSenderId": "AROAOPERATOR:dana@example.com"}
    assert await doors.offer(replace(liar, attributes=explanation_attribute(told))) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "AROADETECTOR"
    assert doors.memory.feed[0]["actor"]["actorId"] == "monitor-9"
    assert set(doors.memory.receipts) == {receipt_id("AROADETECTOR", "message", "redriven")}


async def test_the_redrive_role_has_no_authority_of_its_own() -> None:
    doors = Doors(registry=KNOWN)
    assert await doors.offer(original(sender_id=f"{REDRIVE}:redrive-1")) == ()
    assert doors.rejected.codes() == ["operation-not-granted"]
    assert doors.memory.feed == []


async def test_a_redriven_command_is_still_its_persons() -> None:
    doors = Doors(registry=KNOWN)
    person = command_message("original", declare_body(), sender_id="AROAOPERATOR:dana@example.com")
    received = Received(OPERATOR, "original", START)
    doors.rejected.messages.clear()
    await doors.order(replace(person, body="not json"))
    told = doors.rejected.messages[0].explanation
    again = replace(person, message_id="redriven", sender_id=f"{REDRIVE}:x", attributes=explanation_attribute(told))
    assert await doors.order(again) == ()
    assert doors.memory.feed[0]["actor"] == {
        "authorityType": "HUMAN",
        "principal": received.sender.principal,
        "actorId": "dana@example.com",
    }


async def test_a_redriven_message_that_is_refused_again_still_names_its_first_sender() -> None:
    doors = Doors(registry=KNOWN)
    first = replace(original(), body="not json", attributes={"trace": {"dataType": "String", "stringValue": "t-1"}})
    await doors.offer(first)
    told = doors.rejected.messages.pop().explanation
    again = replace(first, message_id="m2", sender_id=f"{REDRIVE}:x", attributes=explanation_attribute(told))
    assert await doors.offer(again) == ()
    said = doors.rejected.messages[0].explanation
    assert (said["originalSenderId"], said["originalMessageId"]) == ("AROADETECTOR:monitor-7", "original")
    assert said["originalSentAt"] == "2026-03-01T03:00:00.000000Z"


async def test_on_the_alarms_queue_the_queue_is_the_sender() -> None:
    doors = Doors(registry=KNOWN)
    alarm = message("a", alarm_body(), sender_id="AIDAOFEVENTBRIDGE", source="alarms")
    assert await doors.offer(alarm) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "queue:alarms"
    assert await doors.offer(replace(alarm, message_id="b", source="candidates")) == ()
    assert doors.rejected.codes() == ["principal-unknown"], "on the candidates queue the same shape is its signer's"


async def test_an_explanation_on_the_alarms_queue_is_not_believed() -> None:
    doors = Doors(registry=KNOWN)
    told = explanation(original(), Received(OPERATOR, "m", START), Refusal(Code.MALFORMED_JSON, "why"))
    alarm = message("a", alarm_body(), sender_id=REDRIVE, source="alarms", attributes=explanation_attribute(told))
    assert await doors.offer(alarm) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "queue:alarms"


async def test_a_refusal_that_is_found_only_while_deciding_is_a_refusal_all_the_same() -> None:
    late = Refusal(Code.INVALID_FIELD, "It can't be stored.", "metadata")
    doors = Doors(failing_on("late", Rejected(late)))
    answer = await doors.offer(message("a", about("late")), message("b", about("neighbour")))
    assert answer == ()
    assert [kept.explanation["code"] for kept in doors.rejected.messages] == ["invalid-field"]
    assert doors.services == {"neighbour"}
