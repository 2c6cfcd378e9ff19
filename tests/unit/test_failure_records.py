"""What lies in the fan-out's failure queue leads to the events it stands for, and what can't be told of it stays there."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.cli.failure_records import MARGIN, FailureRecords, record_of
from pipeline.services.ports import FailedRecord
from pipeline.stores.queues import SqsFailureQueue
from tests.simulation.world import VirtualClock

# As the developer guide of Lambda shows a discarded batch of a DynamoDB stream.
DISCARDED: dict[str, Any] = {
    "requestContext": {
        "requestId": "316aa6d0-8154-xmpl-9af7-85d5f4a6bc81",
        "functionArn": "arn:aws:lambda:us-east-1:123456789012:function:opx-fanout",
        "condition": "RetryAttemptsExhausted",
        "approximateInvokeCount": 1,
    },
    "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
    "version": "1.0",
    "timestamp": "2026-01-31T03:20:13.862Z",
    "DDBStreamBatchInfo": {
        "shardId": "shardId-00000001573689847184-864758bb",
        "startSequenceNumber": "800000000003126276362",
        "endSequenceNumber": "800000000003126276362",
        "approximateArrivalOfFirstRecord": "2026-01-31T03:13:19Z",
        "approximateArrivalOfLastRecord": "2026-01-31T03:14:07Z",
        "batchSize": 1,
        "streamArn": "arn:aws:dynamodb:us-east-1:123456789012:table/opx-incident-events/stream/2026-01-01T00:00:00.000",
    },
}


def message(body: Any) -> dict[str, str]:
    return {"MessageId": "m1", "ReceiptHandle": "h1", "Body": body if isinstance(body, str) else json.dumps(body)}


async def test_what_the_fanout_writes_names_its_event() -> None:
    sent: list[str] = []

    class Sqs:
        async def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
            sent.extend(entry["MessageBody"] for entry in Entries)
            return {}

    failures = [FailedRecord("one", 7, "EntryTooLarge", "why"), FailedRecord("one", 8, "corruption", "MODIFY")]
    await SqsFailureQueue(Sqs(), "queue", VirtualClock()).keep([*failures, FailedRecord(None, None, "unreadable", "why")])
    published, corrupt, unnamed = (record_of(message(body)) for body in sent)
    assert (published.event, published.span, published.stays) == (("one", 7), None, "")
    assert (corrupt.event, corrupt.stays) == (("one", 8), "it tells of corruption")
    assert (unnamed.event, unnamed.span) == (None, None)
    assert "names neither" in unnamed.stays


def test_a_batch_that_lambda_gave_up_is_mapped_to_when_it_arrived_and_a_margin() -> None:
    record = record_of(message(DISCARDED))
    first, last = datetime(2026, 1, 31, 3, 13, 19, tzinfo=UTC), datetime(2026, 1, 31, 3, 14, 7, tzinfo=UTC)
    assert (record.event, record.span, record.stays) == (None, (first - MARGIN, last + MARGIN), "")
    # Arrival is told to the second and cut, a decision takes seconds, and two clocks differ.
    assert timedelta(minutes=1) < MARGIN < timedelta(minutes=30)


@pytest.mark.parametrize(
    "body",
    [
        "not JSON",
        "[]",
        "{}",
        {"incidentId": "one"},
        {"incidentId": "one", "sequence": "7"},
        DISCARDED | {"DDBStreamBatchInfo": {"shardId": "s"}},
        DISCARDED | {"DDBStreamBatchInfo": "s"},
        DISCARDED | {"DDBStreamBatchInfo": DISCARDED["DDBStreamBatchInfo"] | {"approximateArrivalOfLastRecord": "soon"}},
    ],
    ids=str,
)
def test_what_names_nothing_stays_and_says_so(body: Any) -> None:
    record = record_of(message(body))
    assert (record.event, record.span) == (None, None)
    assert record.stays


async def test_what_another_run_holds_is_not_taken_for_an_empty_queue() -> None:
    class Sqs:
        looks = 0

        async def get_queue_attributes(self, **_: Any) -> dict[str, Any]:
            return {"Attributes": {"ApproximateNumberOfMessages": "1", "ApproximateNumberOfMessagesNotVisible": "4"}}

        async def receive_message(self, **_: Any) -> dict[str, Any]:
            self.looks += 1
            # Empty by chance at first, and then for good.
            return {"Messages": [message({"incidentId": "one", "sequence": 7})] if self.looks == 2 else []}

    sqs = Sqs()
    queue = FailureRecords(sqs, "queue")
    assert [record.event for record in await queue.take()] == [("one", 7)]
    assert (queue.held, sqs.looks) == (4, 3)
