"""A deployed stack as somebody outside sees it: its outputs and AWS clients, nothing of ours.

A fixture named `stack` gives it to the end-to-end and integration tests; deploying twice into one engine is free.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.local.deploy import aws, deploy
from pipeline.local.engine import RunningEngine

QUIET_S = 1.0


@dataclass(frozen=True)
class Stack:
    """A running deployment. `outputs` are those of template.yaml."""

    engine: RunningEngine
    outputs: Mapping[str, str]
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint_url(self) -> str:
        return self.engine.endpoint_url

    def client(self, service: str) -> Any:
        """Return a botocore client of this stack's engine."""
        if service not in self._clients:
            self._clients[service] = aws(self.endpoint_url, service)
        return self._clients[service]

    def rows(self, output: str) -> list[dict[str, Any]]:
        """Return every item of the table that an output names, as DynamoDB attributes."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=self.outputs[output], ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def depth(self, output: str) -> int:
        """Return how many messages are in the queue that an output names: waiting, in flight and delayed."""
        names = [f"ApproximateNumberOfMessages{kind}" for kind in ("", "NotVisible", "Delayed")]
        answer = self.client("sqs").get_queue_attributes(QueueUrl=self.outputs[output], AttributeNames=names)
        return sum(int(answer["Attributes"].get(name, 0)) for name in names)

    def take(self, output: str, ours: Callable[[dict[str, Any]], bool], count: int, within_s: float) -> list[dict[str, Any]]:
        """Take `count` messages of ours off a queue, and any more that come within a second; others' stay.

        Fails where they don't come: `within_s` counts from the last that came.
        """
        sqs, url = self.client("sqs"), self.outputs[output]
        found: list[dict[str, Any]] = []
        newest = time.monotonic()
        while len(found) < count or time.monotonic() < newest + QUIET_S:
            assert time.monotonic() < newest + within_s, f"{output}: {len(found)} of {count} messages came"
            answer = sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=5, MessageAttributeNames=["All"]
            )
            for message in filter(ours, answer.get("Messages", ())):
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                found.append(message)
                newest = time.monotonic()
        return found


def told(rejected: dict[str, Any]) -> dict[str, Any]:
    """Return what a rejected message says of itself, in its one attribute."""
    attributes = rejected.get("MessageAttributes", {})
    assert list(attributes) == ["opx"], "one attribute, so that ten of the sender's fit beside it"
    explanation: dict[str, Any] = json.loads(attributes["opx"]["StringValue"])
    return explanation


def wait_until(holds: Callable[[], bool], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"it did not come true within {within_s} s"
        time.sleep(0.1)


def deployed(engine: RunningEngine) -> Stack:
    """Return the stack of template.yaml in `engine`, deployed now or before."""
    return Stack(engine, deploy(engine))
