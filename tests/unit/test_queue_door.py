"""What a queue's door answers and asks of its queues: who comes again and when, who waits for whom, whose word counts."""

from typing import Any

import pytest

from pipeline.domain.candidates import Received
from pipeline.domain.errors import Code, Corrupt, Refusal, Rejected, Unavailable
from pipeline.domain.ids import receipt_id
from pipeline.domain.occurrences import TOGETHER_MAX
from tests.bad_input_cases import SENDER
from tests.support.bodies import alarm_body, candidate_body, command_body, declare_body
from tests.support.doors import CountedStore, Doors, command_message, message

LATE = Refusal(Code.INVALID_FIELD, "It can't be stored.", "metadata")


def about(service: str, **fields: Any) -> dict[str, Any]:
    return candidate_body(service=service, **fields)


def failing_on(service: str, error: Exception) -> CountedStore:
    """A store on which every write about one service's incidents fails."""

    def fails(call: str, what: Any) -> Exception | None:
        if call != "commit" or what.incident is None or what.incident.service != service:
            return None
        return error

    return CountedStore(fails)


def failing_with(message_id: str, error: Exception) -> CountedStore:
    """A store on which every write that settles one message fails."""

    def fails(call: str, what: Any) -> Exception | None:
        settles = call == "commit" and message_id in {record.idempotency_key for record in what.receipts}
        return error if settles else None

    return CountedStore(fails)


class Cracked:
    """A service with a defect: a message whose body holds `crack` makes it crash while reading."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def read(self, body: str, received: Received) -> Any:
        if "crack" in body:
            raise ZeroDivisionError("a defect")
        return self.real.read(body, received)

    async def take_all(self, *arguments: Any) -> Any:
        return await self.real.take_all(*arguments)


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
    assert doors.store.calls == ["commit", "commit"], "one try for each key: nobody behind it was tried by itself"
    assert doors.services == {"light"}
    assert doors.visibility["candidates"].waits == {"a": 10, "c": 10}


async def test_a_crash_on_one_candidate_does_not_stop_those_behind_it() -> None:
    doors = Doors(failing_on("dark", ZeroDivisionError("a defect")))
    batch = [message("a", about("dark")), message("b", about("dark", dedupKey="other")), message("c", about("light"))]
    assert await doors.offer(*batch) == ("a", "b")
    assert doors.services == {"light"}
    assert sorted(doors.settled()) == ["a", "b", "c"]


async def test_a_crash_in_the_same_lane_does_not_stop_the_next_message() -> None:
    """Not even where it is decided together with it."""
    doors = Doors(failing_with("a", ZeroDivisionError("a defect")))
    batch = [message(name, about("light")) for name in "bac"]
    assert await doors.offer(*batch) == ("a",)
    assert doors.services == {"light"}
    assert set(doors.memory.receipts) == {receipt_id(SENDER, "message", name) for name in "bc"}
    assert doors.visibility["candidates"].waits == {"a": 10}


async def test_what_was_settled_before_a_crash_of_its_neighbour_is_told_as_it_was() -> None:
    last = str(TOGETHER_MAX + 5)
    doors = Doors(failing_with(last, ZeroDivisionError("a defect")))
    batch = [message(str(number), about("light")) for number in range(TOGETHER_MAX + 6)]
    assert await doors.offer(*batch) == (last,)
    told = [type(report.outcome).__name__ for report in doors.reports]
    assert told == ["Applied"] * (TOGETHER_MAX + 5) + ["NoneType"]


async def test_a_crash_that_does_not_come_again_costs_nobody_anything() -> None:
    crashes = iter([ZeroDivisionError("a defect")])
    doors = Doors(CountedStore(lambda call, what: next(crashes, None) if call == "commit" else None))
    assert await doors.offer(message("a", about("light")), message("b", about("light"))) == ()
    assert len(doors.memory.receipts) == 2


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
    batch = [message(name, about("light", dedupKey=name)) for name in "abcd"]
    assert await doors.offer(*batch, within_s=50.0) == ("c", "d")
    assert {row["metadata"]["dedupKey"] for row in doors.memory.incidents.values()} == {"a", "b"}


async def test_what_does_not_fit_into_one_transaction_before_the_deadline_comes_again() -> None:
    doors = Doors()

    def slow(call: str, what: Any) -> None:
        doors.clock.seconds += 30.0

    doors.store.fails = slow
    batch = [message(str(number), about("light")) for number in range(3 * TOGETHER_MAX)]
    later = tuple(str(number) for number in range(2 * TOGETHER_MAX, 3 * TOGETHER_MAX))
    assert await doors.offer(*batch, within_s=50.0) == later
    assert len(doors.memory.receipts) == 2 * TOGETHER_MAX
    doors.store.fails = lambda call, what: None
    assert await doors.offer(*batch) == ()
    (row,) = doors.memory.incidents.values()
    assert row["metadata"]["promotion"]["detections"] == 3 * TOGETHER_MAX, "each counted once"


# --- refusals found late ------------------------------------------------------------------------------------------------


async def test_a_refusal_that_is_found_only_while_deciding_is_a_refusal_all_the_same() -> None:
    doors = Doors(failing_on("late", Rejected(LATE)))
    answer = await doors.offer(message("a", about("late")), message("b", about("neighbour")))
    assert answer == ()
    assert doors.rejected.codes() == ["invalid-field"]
    assert doors.services == {"neighbour"}


async def test_a_refusal_that_is_found_only_while_deciding_is_not_that_of_a_neighbour_of_its_key() -> None:
    doors = Doors(failing_with("b", Rejected(LATE)))
    assert await doors.offer(*[message(name, about("late")) for name in "abc"]) == ()
    assert [kept.explanation["originalMessageId"] for kept in doors.rejected.messages] == ["b"]
    assert set(doors.memory.receipts) == {receipt_id(SENDER, "message", name) for name in "ac"}


async def test_a_command_that_is_refused_only_while_deciding_lets_its_group_go_on() -> None:
    doors = Doors(failing_on("late", Rejected(LATE)))
    batch = [command_message(name, declare_body(service=name, authority="HUMAN"), "one") for name in ("late", "day")]
    assert await doors.order(*batch) == ()
    assert doors.rejected.codes() == ["invalid-field"]
    assert doors.services == {"day"}
