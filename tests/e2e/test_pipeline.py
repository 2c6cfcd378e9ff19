"""From a detector's message to a subscriber's queue, through the stack as template.yaml deploys it; counted from outside."""

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.domain.canonical import Document, canonical_bytes
from pipeline.domain.ids import incident_id
from pipeline.domain.replay import verify
from pipeline.local import processes
from pipeline.stores.items import from_item, without_keys
from tests.e2e.recording import essence, expected, firings, recording

pytestmark = pytest.mark.engine
QUEUES = ("CandidatesQueueUrl", "AlarmsQueueUrl", "AlertmanagerQueueUrl", "CommandsQueueUrl")
DEAD = ("CandidatesDlqUrl", "AlarmsDlqUrl", "AlertmanagerDlqUrl", "CommandsDlqUrl")


class Outside:
    """What anybody with permissions can see of a stack and do to it."""

    def __init__(self, stack: Any) -> None:
        self.outputs = stack.outputs
        self.engine = stack.engine
        self.sqs, self.dynamodb, self.events = (stack.client(name) for name in ("sqs", "dynamodb", "events"))

    def send(self, messages: list[str], queue: str = "CandidatesQueueUrl") -> None:
        for start in range(0, len(messages), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(messages[start : start + 10])]
            assert not self.sqs.send_message_batch(QueueUrl=self.outputs[queue], Entries=entries).get("Failed")

    def command(self, body: Document, group: str) -> None:
        self.sqs.send_message(
            QueueUrl=self.outputs["CommandsQueueUrl"],
            MessageBody=json.dumps(body),
            MessageGroupId=group,
            MessageDeduplicationId=os.urandom(8).hex(),
        )

    def depth(self, *queues: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return sum(
            int(count)
            for queue in queues
            for count in self.sqs.get_queue_attributes(QueueUrl=self.outputs[queue], AttributeNames=names)[
                "Attributes"
            ].values()
        )

    def drained(self, within_s: float = 60, meanwhile: Callable[[], None] = lambda: None) -> None:
        deadline = time.monotonic() + within_s
        while self.depth(*QUEUES):
            assert time.monotonic() < deadline, f"still {self.depth(*QUEUES)} messages after {within_s} s"
            meanwhile()
            time.sleep(0.1)

    def scan(self, table: str) -> list[Document]:
        pages = self.dynamodb.get_paginator("scan").paginate(TableName=self.outputs[table], ConsistentRead=True)
        return [from_item(item) for page in pages for item in page["Items"]]

    def rows(self, account: str) -> dict[str, Document]:
        rows = [without_keys(row) for row in self.scan("IncidentsTableName") if "state" in row]
        return {row["incidentId"]: row for row in rows if f":{account}:" in row["metadata"]["dedupKey"]}

    def histories(self) -> dict[str, list[Document]]:
        found: dict[str, list[Document]] = {}
        for document in self.scan("EventsTableName"):
            found.setdefault(document["incidentId"], []).append(document)
        return {key: sorted(history, key=lambda one: one["sequence"]) for key, history in found.items()}

    def diverging(self) -> dict[str, Any]:
        """Return what is wrong with each incident whose row is not what its events fold into; every one is looked at."""
        rows = {row["incidentId"]: without_keys(row) for row in self.scan("IncidentsTableName") if "state" in row}
        histories = self.histories()
        assert rows.keys() == histories.keys()
        found = {one: verify(one, tuple(history), rows[one]) for one, history in histories.items()}
        return {one: divergences for one, divergences in found.items() if divergences}

    def essences(self, account: str) -> list[dict[str, Any]]:
        histories = self.histories()
        return sorted(
            (essence(row, histories[key]) for key, row in self.rows(account).items()), key=lambda one: one["incidentId"]
        )


class Subscriber:
    """A queue of our own on a rule of our own, as any subscriber has."""

    def __init__(self, outside: Outside, name: str, pattern: str = '{"source":["opx.incidents"]}') -> None:
        self.outside, self.name = outside, name
        self.url = outside.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = outside.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        bus = outside.outputs["BusName"]
        outside.events.put_rule(Name=name, EventBusName=bus, EventPattern=pattern)
        outside.events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
        # What was there before it subscribed, it never gets: `republish` is for that.
        self.before = outside.histories().keys()
        self.details: list[str] = []

    def unsubscribe(self) -> None:
        rule = {"EventBusName": self.outside.outputs["BusName"]}
        self.outside.events.remove_targets(Rule=self.name, Ids=["queue"], **rule)
        self.outside.events.delete_rule(Name=self.name, **rule)
        self.outside.sqs.delete_queue(QueueUrl=self.url)

    def receive(self) -> None:
        while messages := self.outside.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self.outside.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])
                self.details.append(message["Body"])

    def wait_for(self, count: int, within_s: float = 30) -> None:
        deadline = time.monotonic() + within_s
        while True:
            self.receive()
            if len({json.loads(body)["detail"]["eventId"] for body in self.details}) >= count:
                return
            assert time.monotonic() < deadline, f"{len(self.details)} of {count} events after {within_s} s"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def outside(stack: Any) -> Outside:
    return Outside(stack)


@pytest.fixture(scope="module")
def subscriber(outside: Outside) -> Iterator[Subscriber]:
    found = Subscriber(outside, f"subscriber-{os.getpid()}")
    yield found
    found.unsubscribe()


def should_be(messages: list[str]) -> list[dict[str, Any]]:
    world = asyncio.run(expected(messages))
    rows = world.store.incidents.items()
    found = (essence(row, list(world.store.events[key].values())) for key, row in rows)
    return sorted(found, key=lambda one: one["incidentId"])


def alike(found: list[dict[str, Any]], wanted: list[dict[str, Any]], messages: list[str]) -> bool:
    """Compare what incidents came to; an OK notice that met nothing open may be evidence in one and not in the other."""
    firing = firings(messages)

    def comparable(essences: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one | {"evidence": sorted(set(one["evidence"]) & firing)} for one in essences]

    assert len(found) == 8
    assert comparable(found) == comparable(wanted)
    return True


def test_the_recording_comes_to_eight_incidents(outside: Outside, subscriber: Subscriber) -> None:
    """Sent once, then again: 8 incidents, and every message is accounted for."""
    before = len(outside.scan("IdempotencyTableName")), outside.depth("RejectedQueueUrl"), outside.depth(*DEAD)
    messages = recording(1)
    outside.send(messages)
    outside.drained()
    after = len(outside.scan("IdempotencyTableName")), outside.depth("RejectedQueueUrl"), outside.depth(*DEAD)
    assert sum(after) - sum(before) == len(messages) == 230
    assert len(outside.rows("000000000001")) == 8
    once = outside.essences("000000000001")
    assert alike(once, should_be(messages), messages)
    outside.send(messages)
    outside.drained()
    assert outside.essences("000000000001") == once
    assert len(outside.scan("IdempotencyTableName")) == after[0], "sent again, everything has its receipt already"


def test_the_recording_shuffled_comes_to_the_same(outside: Outside, rng: random.Random) -> None:
    messages = recording(2)
    wanted = should_be(messages)
    rng.shuffle(messages)
    outside.send(messages)
    outside.drained()
    assert alike(outside.essences("000000000002"), wanted, messages)


def test_the_recording_in_halves_with_the_functions_killed_comes_to_the_same(outside: Outside) -> None:
    messages = recording(3)
    url = outside.outputs["CandidatesQueueUrl"]
    usual = outside.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    # What a killed function had in hand comes back after the visibility time-out: seconds here, to keep the test short.
    outside.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "3"})
    killed = 0

    def kill() -> None:
        nonlocal killed
        if killed < 8:
            for pid in processes.descendants(outside.engine.pid):
                processes.send(pid, signal.SIGKILL)
                killed += 1

    try:
        outside.send(messages[:115])
        time.sleep(0.5)
        kill()
        outside.send(messages[115:])
        outside.drained(within_s=90, meanwhile=kill)
    finally:
        outside.sqs.set_queue_attributes(QueueUrl=url, Attributes=usual)
    assert killed >= 2, "functions' processes were there to be killed"
    assert alike(outside.essences("000000000003"), should_be(messages), messages)
    assert outside.depth(*DEAD) == 0


def test_commands_walk_an_incident_to_closed(outside: Outside, subscriber: Subscriber) -> None:
    body = {"type": "candidate", "service": "walk", "severity": "SEV2", "title": "walked", "dedupKey": f"walk-{os.getpid()}"}
    outside.send([json.dumps(body)])
    outside.drained()
    incident = incident_id("walk", str(body["dedupKey"]), 1)
    for state in ("MITIGATING", "RESOLVED", "CLOSED"):
        command = {"type": "change-state", "incidentId": incident, "newState": state, "authority": "HUMAN", "reason": "done"}
        outside.command(command, incident)
    outside.drained()
    row = next(row for row in outside.scan("IncidentsTableName") if row["pk"] == incident)
    assert row["state"] == "CLOSED"


def test_every_event_reaches_the_subscriber_as_it_is_stored(outside: Outside, subscriber: Subscriber) -> None:
    """Runs behind the others of this file: all they caused is in the subscriber's queue, in bytes equal to the table's."""
    histories = {key: history for key, history in outside.histories().items() if key not in subscriber.before}
    assert len(histories) == 25
    subscriber.wait_for(sum(len(history) for history in histories.values()))
    received: dict[str, set[int]] = {}
    stored = {one["eventId"]: canonical_bytes(one) for history in histories.values() for one in history}
    for text in subscriber.details:
        event = json.loads(text)
        assert event["source"] == "opx.incidents"
        detail = event["detail"]
        assert event["detail-type"] == detail["eventType"]
        assert json.loads(stored[detail["eventId"]]) == detail
        received.setdefault(detail["incidentId"], set()).add(detail["sequence"])
    for incident, history in histories.items():
        assert received[incident] == set(range(1, len(history) + 1)), f"a gap in what the subscriber has of {incident}"
    assert outside.depth("FanoutFailuresQueueUrl") == 0


def test_every_row_is_what_its_events_fold_into(outside: Outside) -> None:
    assert outside.diverging() == {}


def test_a_changed_event_is_corruption_and_is_not_published(outside: Outside, subscriber: Subscriber) -> None:
    incident, history = next(iter(outside.histories().items()))
    subscriber.receive()
    known = len(subscriber.details)

    def set_state(state: str) -> dict[str, Any]:
        """Change the first event; return what the fan-out says of it."""
        outside.dynamodb.update_item(
            TableName=outside.outputs["EventsTableName"],
            Key={"incidentId": {"S": incident}, "sequence": {"N": str(history[0]["sequence"])}},
            UpdateExpression="SET newState = :s",
            ExpressionAttributeValues={":s": {"S": state}},
        )
        deadline = time.monotonic() + 20
        while not (kept := outside.depth("FanoutFailuresQueueUrl")):
            assert time.monotonic() < deadline, "the change was not noticed"
            time.sleep(0.1)
        assert kept == 1
        queue = outside.outputs["FanoutFailuresQueueUrl"]
        message = outside.sqs.receive_message(QueueUrl=queue)["Messages"][0]
        outside.sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        told: dict[str, Any] = json.loads(message["Body"])
        return told

    try:
        told = set_state("CLOSED")
        assert (told["incidentId"], told["sequence"], told["error"]) == (incident, 1, "corruption")
    finally:
        # Put back, so that whoever verifies the whole table afterwards finds it whole.
        assert set_state(history[0]["newState"])["error"] == "corruption"
    subscriber.receive()
    assert len(subscriber.details) == known
