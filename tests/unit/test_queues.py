"""What is sent to queues, and that nothing a queue refuses is taken for sent."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.domain.errors import Unavailable
from pipeline.services.ports import FailedRecord, Message, RejectedMessage
from pipeline.stores.queues import SqsFailureQueue, SqsRejectedQueue, SqsSourceQueue, ascii_json

WHEN = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
URL = "https://sqs.us-east-1.amazonaws.com/123456789012/opx"
Failure = dict[str, Any] | None


class Sleeper:
    """A clock that notes what it was asked to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> datetime:
        return WHEN

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Sqs:
    """AWS's side: keeps requests, fails an entry of a call as `verdict` says."""

    def __init__(self, verdict: Callable[[dict[str, Any], int], Failure] = lambda entry, call: None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.verdict = verdict

    async def send_message(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        return {"MessageId": "m"}

    async def send_message_batch(self, **request: Any) -> dict[str, Any]:
        return self.answer(request)

    async def change_message_visibility_batch(self, **request: Any) -> dict[str, Any]:
        return self.answer(request)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        self.requests.append(request)
        assert len({entry["Id"] for entry in request["Entries"]}) == len(request["Entries"]) <= 10
        found = [(entry, self.verdict(entry, len(self.requests))) for entry in request["Entries"]]
        failed = [{"Id": entry["Id"]} | failure for entry, failure in found if failure is not None]
        good = [{"Id": entry["Id"]} for entry, failure in found if failure is None]
        return {"Successful": good} | ({"Failed": failed} if failed else {})


def message(number: int) -> Message:
    return Message(f"m{number}", "{}", "AROAEXAMPLE", WHEN, 1, f"handle-{number}", "opx-candidates")


def record(number: int) -> FailedRecord:
    return FailedRecord("00000000-0000-0000-0000-000000000000", number, "MalformedDetail", "why")


# --- rejected messages -----------------------------------------------------------------------------------------------


async def test_a_rejected_message_keeps_its_body_and_one_attribute_says_why() -> None:
    sqs = Sqs()
    body = '{"a": "ü ☃ not json'
    await SqsRejectedQueue(sqs, URL).reject(RejectedMessage(body, {"reason": "no", "code": "malformed-json"}))
    (request,) = sqs.requests
    assert request["QueueUrl"] == URL
    assert request["MessageBody"] == body
    assert request["MessageAttributes"] == {
        "opx": {"DataType": "String", "StringValue": '{"code":"malformed-json","reason":"no"}'}
    }


@pytest.mark.parametrize("text", ["ü ☃ 😀", "\x7f\x9f", "\ufffe\uffff", "\ud800", "\x00\x1b", "line\nend", 'quote " and \\'])
def test_an_explanation_is_printable_ascii_and_reads_back(text: str) -> None:
    written = ascii_json({"reason": text, "n": 1, "list": (True, None)})
    assert all(" " <= char <= "~" for char in written)
    assert json.loads(written) == {"reason": text, "n": 1, "list": [True, None]}


def test_an_explanation_does_not_depend_on_the_order_of_names() -> None:
    assert ascii_json({"b": Decimal("0.5"), "a": {"d": 1, "c": 2}}) == ascii_json(
        {"a": {"c": 2, "d": 1}, "b": Decimal("0.5")}
    )


async def test_a_rejected_queue_that_is_down_is_unavailable() -> None:
    class Down(Sqs):
        async def send_message(self, **request: Any) -> dict[str, Any]:
            raise EndpointConnectionError(endpoint_url=URL)

    with pytest.raises(Unavailable, match="rejected queue"):
        await SqsRejectedQueue(Down(), URL).reject(RejectedMessage("{}", {"code": "too-large"}))


# --- delays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "calls"), [(0, 0), (1, 1), (10, 1), (11, 2), (25, 3)])
async def test_messages_are_delayed_ten_a_call(count: int, calls: int) -> None:
    sqs = Sqs()
    await SqsSourceQueue(sqs, URL, Sleeper()).delay([message(number) for number in range(count)], 40)
    assert len(sqs.requests) == calls
    entries = [entry for request in sqs.requests for entry in request["Entries"]]
    assert [entry["ReceiptHandle"] for entry in entries] == [f"handle-{number}" for number in range(count)]
    assert {entry["VisibilityTimeout"] for entry in entries} <= {40}


@pytest.mark.parametrize(("asked", "given"), [(-1, 0), (43_200, 43_200), (99_999, 43_200)])
async def test_a_delay_stays_in_the_range_the_queue_takes(asked: int, given: int) -> None:
    sqs = Sqs()
    await SqsSourceQueue(sqs, URL, Sleeper()).delay([message(1)], asked)
    assert sqs.requests[0]["Entries"][0]["VisibilityTimeout"] == given


@pytest.mark.parametrize("code", ["ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"])
async def test_a_message_that_is_no_longer_ours_is_no_failure(code: str) -> None:
    sqs = Sqs(lambda entry, call: {"Code": code, "SenderFault": True})
    await SqsSourceQueue(sqs, URL, Sleeper()).delay([message(1)], 40)
    assert len(sqs.requests) == 1


async def test_only_failed_delays_are_asked_for_again() -> None:
    busy = {"Code": "InternalError", "SenderFault": False}
    sqs = Sqs(lambda entry, call: busy if entry["ReceiptHandle"] == "handle-2" and call == 1 else None)
    await SqsSourceQueue(sqs, URL, Sleeper()).delay([message(number) for number in range(4)], 40)
    assert [[entry["ReceiptHandle"] for entry in request["Entries"]] for request in sqs.requests][1:] == [["handle-2"]]


async def test_a_delay_that_keeps_failing_is_unavailable() -> None:
    clock = Sleeper()
    sqs = Sqs(lambda entry, call: {"Code": "InternalError", "SenderFault": False})
    with pytest.raises(Unavailable, match="InternalError"):
        await SqsSourceQueue(sqs, URL, clock).delay([message(1)], 40)
    assert len(sqs.requests) == 4
    assert sum(clock.slept) < 4


# --- fan-out failures ------------------------------------------------------------------------------------------------


async def test_failures_are_kept_ten_a_call_as_documents() -> None:
    sqs = Sqs()
    await SqsFailureQueue(sqs, URL, Sleeper()).keep([record(number) for number in range(1, 13)])
    assert [len(request["Entries"]) for request in sqs.requests] == [10, 2]
    assert json.loads(sqs.requests[0]["Entries"][0]["MessageBody"]) == {
        "incidentId": "00000000-0000-0000-0000-000000000000",
        "sequence": 1,
        "error": "MalformedDetail",
        "detail": "why",
    }


async def test_an_unreadable_record_is_kept_without_what_is_not_known() -> None:
    sqs = Sqs()
    await SqsFailureQueue(sqs, URL, Sleeper()).keep([FailedRecord(None, None, "NotInsert", "MODIFY \x00" + "x" * 99_999)])
    kept = json.loads(sqs.requests[0]["Entries"][0]["MessageBody"])
    assert kept.keys() == {"error", "detail"}
    assert len(kept["detail"]) == 2048


async def test_a_failure_that_could_not_be_kept_is_sent_again_alone_and_then_unavailable() -> None:
    sqs = Sqs(
        lambda entry, call: {"Code": "InternalError", "SenderFault": False} if "2" in entry["MessageBody"][-30:] else None
    )
    with pytest.raises(Unavailable, match="failure queue"):
        await SqsFailureQueue(sqs, URL, Sleeper()).keep([record(1), record(2), record(3)])
    assert [len(request["Entries"]) for request in sqs.requests] == [3, 1, 1, 1]
