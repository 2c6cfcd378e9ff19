"""The same sweep as in the simulation, for real: the functions' own wiring, the engine's tables and queues, `os._exit`.

Each case runs the whole scenario under names of its own, dies before or after one AWS call, is delivered again, and must
leave what the same scenario leaves in the memory store without a crash.
"""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.controls import NO_CONTROLS, text_of
from pipeline.domain.ids import incident_id, pointer_id
from pipeline.domain.replay import verify
from pipeline.local.engine import RunningEngine
from pipeline.stores.items import from_item, without_keys
from tests.contract.tables import definitions
from tests.simulation.world import START, World

pytestmark = pytest.mark.engine
PROJECT = Path(__file__).parents[2]
ACCOUNT = "000000000000"
ALARMS_ARN = "arn:aws:sqs:us-east-1:000000000000:sweep-alarms"
ALERTMANAGER_ARN = ALARMS_ARN.replace("alarms", "alertmanager")
SENT_MS = int(START.timestamp() * 1000)
VOLATILE = ("timestamp", "hash", "previousHash", "createdAt", "updatedAt", "lastEventHash")


@dataclass(frozen=True)
class Sent:
    """One message of the scenario."""

    step: str
    message_id: str
    body: str
    group: str | None = None


# What is delivered together, and to which door; the fan-out comes last.
STEPS = {"beginning": "candidates", "joining": "candidates", "commands": "commands", "fanout": "fanout"}


def scenario(name: str) -> list[Sent]:
    """One of each fate on one key, then a life in commands; ids and keys carry the case's name."""
    incident = incident_id("checkout", name, 1)
    base = {"type": "candidate", "service": "checkout", "severity": "SEV2", "title": "5xx above 5 %", "dedupKey": name}
    doing = {"incidentId": incident, "authority": "HUMAN", "reason": "seen", "type": "change-state"}

    def candidate(number: int, **more: Any) -> Sent:
        return Sent("beginning" if number == 1 else "joining", f"{name}-c{number}", json.dumps(base | more))

    def command(number: int, **more: Any) -> Sent:
        return Sent("commands", f"{name}-m{number}", json.dumps(doing | more), incident)

    return [
        candidate(1, confidence=0.1),
        candidate(2, idempotencyKey=f"{name}-k"),
        candidate(3, idempotencyKey=f"{name}-k"),
        candidate(4, severity="SEV9"),
        command(1, newState="MITIGATING", idempotencyKey=f"{name}-go"),
        command(2, newState="CANCELLED", idempotencyKey=f"{name}-no"),
        command(3, newState="RESOLVED"),
    ]


def sqs_event(messages: list[Sent], receive_count: int) -> dict[str, Any]:
    return {"Records": [_record(message, receive_count) for message in messages]}


def _record(message: Sent, receive_count: int) -> dict[str, Any]:
    system = {
        "ApproximateReceiveCount": str(receive_count),
        "SentTimestamp": str(SENT_MS),
        "SenderId": ACCOUNT,
    } | ({"MessageGroupId": message.group} if message.group else {})
    return {
        "messageId": message.message_id,
        "receiptHandle": f"handle-{message.message_id}",
        "body": message.body,
        "attributes": system,
        "messageAttributes": {},
        "eventSourceARN": f"arn:aws:sqs:us-east-1:{ACCOUNT}:sweep-{STEPS[message.step]}",
    }


class Host:
    """Invokes the functions in a process that may die, and reads what they left."""

    def __init__(self, engine: RunningEngine, prefix: str) -> None:
        self.clients = {name: self._client(engine, name) for name in ("dynamodb", "sqs", "events", "ssm")}
        self.prefix = prefix
        for request in definitions(prefix):
            self.clients["dynamodb"].create_table(**request)
        sqs = self.clients["sqs"]
        self.urls = {
            name: sqs.create_queue(QueueName=f"{prefix}-{name}")["QueueUrl"]
            for name in ("candidates", "alarms", "alertmanager", "commands", "rejected", "failures", "subscriber")
        }
        self.clients["ssm"].put_parameter(
            Name=f"{prefix}-controls", Value=text_of(NO_CONTROLS.controls), Type="String", Overwrite=True
        )
        events = self.clients["events"]
        events.create_event_bus(Name=f"{prefix}-bus")
        rule = {"EventBusName": f"{prefix}-bus", "Rule": f"{prefix}-all"}
        events.put_rule(Name=rule["Rule"], EventBusName=rule["EventBusName"], EventPattern='{"source":["opx.incidents"]}')
        arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:{prefix}-subscriber"
        events.put_targets(**rule, Targets=[{"Id": "queue", "Arn": arn}])
        environment = os.environ | {
            "AWS_ENDPOINT_URL": engine.endpoint_url,
            "PYTHONPATH": str(PROJECT),
            "POWERTOOLS_LOG_LEVEL": "CRITICAL",
            "OPX_STAGE": "local",
            "OPX_INCIDENTS_TABLE": f"{prefix}-incidents",
            "OPX_EVENTS_TABLE": f"{prefix}-incident-events",
            "OPX_IDEMPOTENCY_TABLE": f"{prefix}-idempotency",
            "OPX_REJECTED_QUEUE_URL": self.urls["rejected"],
            "OPX_CANDIDATES_QUEUE_URL": self.urls["candidates"],
            "OPX_ALARMS_QUEUE_URL": self.urls["alarms"],
            "OPX_ALARMS_QUEUE_ARN": ALARMS_ARN,
            "OPX_ALERTMANAGER_QUEUE_URL": self.urls["alertmanager"],
            "OPX_ALERTMANAGER_QUEUE_ARN": ALERTMANAGER_ARN,
            "OPX_COMMANDS_QUEUE_URL": self.urls["commands"],
            "OPX_CONTROLS_PARAMETER": f"{prefix}-controls",
            "OPX_EVENT_SCHEMA_VERSION": "1",
            "OPX_BUS_NAME": f"{prefix}-bus",
            "OPX_FANOUT_FAILURES_QUEUE_URL": self.urls["failures"],
        }
        script = [sys.executable, "-m", "tests.integration.dying_function"]
        self.process = subprocess.Popen(
            script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=PROJECT, text=True
        )

    @staticmethod
    def _client(engine: RunningEngine, service: str) -> Any:
        return botocore.session.get_session().create_client(
            service,
            region_name="us-east-1",
            endpoint_url=engine.endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def invoke(self, door: str, event: dict[str, Any], at: int | None = None, *, after: bool = False) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"door": door, "event": event, "at": at, "after": after}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process that runs the functions has ended"
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def item(self, table: str, key: str) -> Document | None:
        found = self.clients["dynamodb"].get_item(TableName=f"{self.prefix}-{table}", Key={"pk": {"S": key}}).get("Item")
        return None if found is None else without_keys(from_item(found))

    def items_of(self, incident: str) -> list[dict[str, Any]]:
        answer = self.clients["dynamodb"].query(
            TableName=f"{self.prefix}-incident-events",
            KeyConditionExpression="incidentId = :i",
            ExpressionAttributeValues={":i": {"S": incident}},
        )
        items: list[dict[str, Any]] = answer["Items"]
        return items

    def drain(self, queue: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while (
            messages := self.clients["sqs"]
            .receive_message(
                QueueUrl=self.urls[queue], MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
            )
            .get("Messages")
        ):
            for message in messages:
                self.clients["sqs"].delete_message(QueueUrl=self.urls[queue], ReceiptHandle=message["ReceiptHandle"])
            found += messages
        return found


@pytest.fixture(scope="module")
def host(engine: RunningEngine) -> Iterator[Host]:
    running = Host(engine, f"sweep{os.getpid()}")
    yield running
    running.close()


def stream_event(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventName": "INSERT",
                "dynamodb": {"Keys": {name: item[name] for name in ("incidentId", "sequence")}, "NewImage": item},
            }
            for item in items
        ]
    }


def live(host: Host, name: str, dying: str | None = None, at: int | None = None, *, after: bool = False) -> list[list[str]]:
    """Run the scenario; die once at call `at` of a step, then deliver the same again. Return the calls of each step."""
    calls = []
    incident = incident_id("checkout", name, 1)
    for step, door in STEPS.items():
        messages = [message for message in scenario(name) if message.step == step]
        event = stream_event(host.items_of(incident)) if step == "fanout" else sqs_event(messages, 1)
        if step == dying:
            assert host.invoke(door, event, at, after=after)["died"]
            event = event if step == "fanout" else sqs_event(messages, 2)
        told = host.invoke(door, event)
        assert not told["died"]
        assert told["answer"] in (None, {"batchItemFailures": []})
        calls.append(told["calls"])
    return calls


def model(name: str) -> World:
    """The same messages through the memory store, without a crash."""
    world = World()
    for step, door in STEPS.items():
        for message in scenario(name):
            if message.step == step:
                queue = world.candidates if door == "candidates" else world.commands
                queue.send(message.message_id, message.body, message.group)
        asyncio.run(world.drain())
    return world


def settled(document: Document | None) -> Any:
    """A document without what depends on the time of day."""
    if isinstance(document, dict):
        return {name: settled(value) for name, value in document.items() if name not in VOLATILE and name != "at"}
    return document


def check(host: Host, name: str, where: str) -> None:
    world = model(name)
    incident = incident_id("checkout", name, 1)
    documents = tuple(from_item(item) for item in host.items_of(incident))
    row = host.item("incidents", incident)
    assert verify(incident, documents, row) == (), where
    assert settled(row) == settled(world.store.incidents[incident]), where
    expected = world.store.events[incident]
    assert [settled(document) for document in documents] == [settled(expected[n]) for n in sorted(expected)], where
    pointer = world.store.pointers[pointer_id("checkout", name)].to_document()
    assert host.item("incidents", pointer_id("checkout", name)) == pointer, where
    for key, receipt in world.store.receipts.items():
        assert settled(host.item("idempotency", key)) == settled(receipt), where
    rejected = [
        json.loads(m["MessageAttributes"]["opx"]["StringValue"]) | {"body": m["Body"]} for m in host.drain("rejected")
    ]
    told = {(item["body"], item["originalMessageId"], item["code"]) for item in rejected}
    wanted = {(m.body, m.explanation["originalMessageId"], m.explanation["code"]) for m in world.rejected.messages}
    assert told == wanted, where
    published = {json.loads(message["Body"])["detail"]["eventId"] for message in host.drain("subscriber")}
    assert published == {document["eventId"] for document in documents}, where
    assert host.drain("failures") == [], where


def test_dying_at_any_call_of_any_function_changes_nothing(host: Host) -> None:
    calls = dict(zip(STEPS, live(host, "model"), strict=True))
    check(host, "model", "without a crash")
    assert calls["beginning"] == ["GetParameter", "TransactWriteItems"]
    assert sorted(calls["joining"]) == ["GetParameter", "SendMessage", "TransactWriteItems", "TransactWriteItems"]
    assert len(calls["commands"]) >= 5
    assert calls["fanout"] == ["PutEvents"]
    for step, names in calls.items():
        for at, operation in enumerate(names, start=1):
            for after in (False, True):
                name = f"{step}-{at}-{'after' if after else 'before'}"
                live(host, name, step, at, after=after)
                check(host, name, f"{name} ({operation})")
