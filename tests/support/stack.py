"""A deployed stack as somebody outside sees it: its outputs and AWS clients, nothing of ours.

A fixture named `stack` gives it to the end-to-end and integration tests; deploying twice into one engine is free.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.local.deploy import aws, deploy
from pipeline.local.engine import RunningEngine


@dataclass(frozen=True)
class Stack:
    """A running deployment. `outputs` are those of template.yaml."""

    endpoint_url: str
    outputs: Mapping[str, str]
    _clients: dict[str, Any] = field(default_factory=dict)

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


def deployed(engine: RunningEngine) -> Stack:
    """Return the stack of template.yaml in `engine`, deployed now or before."""
    return Stack(engine.endpoint_url, deploy(engine))
