"""Queues and bus against a real answer: what is sent arrives as it was, and the engine takes the requests as they are."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from pipeline.domain.errors import Unavailable
from pipeline.local.engine import RunningEngine
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import BusEntry, FailedRecord, Message, RejectedMessage
from pipeline.stores.clients import Clients, open_clients
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.queues import SqsFailureQueue, SqsRejectedQueue, SqsSourceQueue

pytestmark = pytest.mark.engine

WHEN = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
CLOCK = SystemClock()


@dataclass(frozen=True)
class Queue:
    """A queue of the test's own."""

    clients: Clients
    url: str
    name: str

    async def receive(self, at_most: int = 10) -> list[dict[str, Any]]:
        answer = await self.clients.sqs.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=at_most, MessageAttributeNames=["All"]
        )
        found: list[dict[str, Any]] = answer.get("Messages", [])
        return found

    async def drain(self, count: int) -> list[dict[str, Any]]:
        """Receive until `count` messages have come, for a few seconds at most."""
        found: list[dict[str, Any]] = []
        for _ in range(100):
            found += await self.receive()
            if len(found) >= count:
                break
            await asyncio.sleep(0.05)
        return found


@pytest_asyncio.fixture
async def queue(engine: RunningEngine, rng: random.Random) -> AsyncIterator[Queue]:
    name = f"t{rng.getrandbits(64):016x}"
    async with open_clients(("sqs", "events"), endpoint_url=engine.endpoint_url) as clients:
        made = await clients.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "600"})
        # The engine names its default port in a queue's URL, whatever port it has.
        url = f"{engine.endpoint_url}/{made['QueueUrl'].split('/', 3)[3]}"
        yield Queue(clients, url, name)
        await clients.sqs.delete_queue(QueueUrl=url)


async def test_a_rejected_message_arrives_intact_with_its_explanation(queue: Queue) -> None:
    body, explanation = '{"type": "cändidate", ☃', {"code": "malformed-json", "reason": "no ü", "attributes": {"a": "b"}}
    await SqsRejectedQueue(queue.clients.sqs, queue.url).reject(RejectedMessage(body, explanation))
    (message,) = await queue.drain(1)
    assert message["Body"] == body
    assert message["MessageAttributes"].keys() == {"opx"}
    assert json.loads(message["MessageAttributes"]["opx"]["StringValue"]) == explanation


async def test_a_queue_that_is_not_there_is_unavailable(queue: Queue) -> None:
    nowhere = SqsRejectedQueue(queue.clients.sqs, queue.url + "-gone")
    with pytest.raises(Unavailable, match="NonExistentQueue"):
        await nowhere.reject(RejectedMessage("{}", {"code": "too-large"}))


async def test_a_delayed_message_comes_back_when_its_time_is_over(queue: Queue) -> None:
    for number in range(12):
        await queue.clients.sqs.send_message(QueueUrl=queue.url, MessageBody=str(number))
    received = await queue.drain(12)
    assert len(received) == 12
    assert await queue.receive() == []
    messages = [
        Message(found["MessageId"], found["Body"], "s", WHEN, 1, found["ReceiptHandle"], queue.name) for found in received
    ]
    await SqsSourceQueue(queue.clients.sqs, queue.url, CLOCK).delay(messages, 0)
    assert {found["Body"] for found in await queue.drain(12)} == {str(number) for number in range(12)}


async def test_a_message_deleted_meanwhile_stops_no_delay(queue: Queue) -> None:
    await queue.clients.sqs.send_message(QueueUrl=queue.url, MessageBody="one")
    (found,) = await queue.drain(1)
    await queue.clients.sqs.delete_message(QueueUrl=queue.url, ReceiptHandle=found["ReceiptHandle"])
    gone = Message(found["MessageId"], "one", "s", WHEN, 1, found["ReceiptHandle"], queue.name)
    await SqsSourceQueue(queue.clients.sqs, queue.url, CLOCK).delay([gone], 10)
    assert await queue.receive() == []


async def test_failures_are_kept(queue: Queue) -> None:
    failures = [FailedRecord("i", number, "MalformedDetail", "why") for number in range(12)]
    await SqsFailureQueue(queue.clients.sqs, queue.url, CLOCK).keep(failures)
    kept = [json.loads(found["Body"]) for found in await queue.drain(12)]
    assert sorted(one["sequence"] for one in kept) == list(range(12))
    assert {one["error"] for one in kept} == {"MalformedDetail"}


async def test_published_events_reach_a_subscriber_on_the_bus(queue: Queue) -> None:
    events, bus = queue.clients.events, f"{queue.name}-bus"
    await events.create_event_bus(Name=bus)
    await events.put_rule(Name=queue.name, EventBusName=bus, EventPattern='{"source": ["opx.incidents"]}')
    arn = f"arn:aws:sqs:us-east-1:000000000000:{queue.name}"
    await events.put_targets(Rule=queue.name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])

    entries = [BusEntry("EvidenceAttached", f'{{"sequence":{number}}}', WHEN, "opx/incident/i") for number in range(23)]
    assert await EventBridgeBus(events, bus, CLOCK).publish(entries) == (None,) * 23
    received = [json.loads(found["Body"]) for found in await queue.drain(23)]
    assert sorted(event["detail"]["sequence"] for event in received) == list(range(23))
    assert {(event["source"], event["detail-type"]) for event in received} == {("opx.incidents", "EvidenceAttached")}
    assert received[0]["resources"] == ["opx/incident/i"]

    await events.remove_targets(Rule=queue.name, EventBusName=bus, Ids=["queue"])
    await events.delete_rule(Name=queue.name, EventBusName=bus)
    await events.delete_event_bus(Name=bus)
