"""A subscriber of the deployed bus: a queue of its own behind a rule, and what comes of its messages."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.cli.subscription import pattern_of
from pipeline.clients.answers import Event
from pipeline.clients.ordering import Ordered
from pipeline.clients.progress import MemoryProgress
from pipeline.clients.subscriber import read_event
from pipeline.domain.canonical import Document, normalise
from pipeline.domain.envelope import IncidentEvent
from pipeline.domain.incidents import Incident, evolve
from tests.support.stack import Stack

HIDDEN_S = 600


@dataclass(frozen=True)
class Listener:
    stack: Stack
    queue_url: str

    def receive(self, *, remove: bool = True) -> list[Event]:
        """Return some of what lies in the queue, and remove it there; else it is hidden for longer than a test takes."""
        sqs = self.stack.client("sqs")
        answer = sqs.receive_message(
            QueueUrl=self.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=HIDDEN_S
        )
        messages = answer.get("Messages", [])
        if messages and remove:
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
            ]
            sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=entries)
        return [read_event(message) for message in messages]

    def until(self, enough: Callable[[Event], bool]) -> list[Event]:
        """Receive until an event comes that is enough, and return all that came."""
        found: list[Event] = []
        for _ in range(60):
            came = self.receive()
            found += came
            if any(map(enough, came)):
                return found
        raise AssertionError(f"{len(found)} events came in 60 s, and not the one that was waited for")


@dataclass
class Copy:
    """A subscriber's own copy of the incidents, folded from what it is handed in order."""

    incidents: dict[str, Incident]
    ordered: Ordered

    @classmethod
    def empty(cls) -> "Copy":
        return cls({}, Ordered(MemoryProgress()))

    def take(self, event: Event) -> None:
        for ready in self.ordered.take(event):
            self.incidents[ready.incident_id] = folded(self.incidents.get(ready.incident_id), ready.document)


def folded(incident: Incident | None, detail: Document) -> Incident:
    stored = normalise({name: value for name, value in detail.items() if name != "replayed"})
    return evolve(incident, IncidentEvent.from_document(stored))


@contextmanager
def listening(stack: Stack, name: str, *services: str) -> Iterator[Listener]:
    """Listen to the bus for what is about some services; rule and queue are gone afterwards."""
    sqs, events, bus = stack.client("sqs"), stack.client("events"), stack.outputs["BusName"]
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    # The engine names its default port in a queue's URL, whatever port it has.
    queue_url = f"{stack.endpoint_url}/{url.split('/', 3)[3]}"
    arn = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern: dict[str, Any] = pattern_of(services=services)
    events.put_rule(Name=name, EventBusName=bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn}])
    try:
        yield Listener(stack, queue_url)
    finally:
        events.remove_targets(Rule=name, EventBusName=bus, Ids=["queue"])
        events.delete_rule(Name=name, EventBusName=bus)
        sqs.delete_queue(QueueUrl=queue_url)
