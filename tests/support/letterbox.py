"""SQS's queues in memory, as far as somebody sees them who looks, takes out, sends and deletes; and the doors behind them.

FIFO queues keep a group's order, block a group while one of it is out, and drop a deduplication id used again within five
minutes. Time is virtual. `fault` is asked before every call, and may raise or make entries of a batch fail.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import EndpointConnectionError

from pipeline.domain.authority import Registry
from pipeline.services.ports import RejectedMessage
from pipeline.services.rejection import ATTRIBUTE
from pipeline.stores.queues import sayable_json
from tests.simulation.world import START, VirtualClock
from tests.support.doors import Doors, message

DEDUPLICATED_S = 300
DOOR = "AROADOOR:opx-candidates"
# A call's name and its request: None, or which of a batch's entries fail, by id, and how.
Fault = Callable[[str, dict[str, Any]], dict[str, dict[str, Any]] | None]


def no_fault(call: str, request: dict[str, Any]) -> None:
    return None


def connection_lost() -> Exception:
    return EndpointConnectionError(endpoint_url="https://sqs.us-east-1.amazonaws.com")


@dataclass
class Lying:
    """A message in a queue."""

    message_id: str
    body: str
    sender: str
    sent_ms: int
    attributes: dict[str, Any]
    group: str | None = None
    visible_at: float = 0.0
    received: int = 0
    handle: str = ""

    def to_sqs(self) -> dict[str, Any]:
        system = {
            "SenderId": self.sender,
            "SentTimestamp": str(self.sent_ms),
            "ApproximateReceiveCount": str(self.received),
        }
        system |= {"MessageGroupId": self.group} if self.group is not None else {}
        told = {"MessageId": self.message_id, "ReceiptHandle": self.handle, "Body": self.body, "Attributes": system}
        return told | ({"MessageAttributes": self.attributes} if self.attributes else {})


@dataclass
class Letterbox:
    """All queues. `signer`: who calls; what is sent has that sender."""

    clock: VirtualClock = field(default_factory=VirtualClock)
    signer: str = "AROAREDRIVE:opx"
    fault: Fault = no_fault
    queues: dict[str, list[Lying]] = field(default_factory=dict)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    known: dict[tuple[str, str | None, str], float] = field(default_factory=dict)
    _numbers: Any = field(default_factory=itertools.count)

    def put(self, queue: str, body: Any, message_id: str = "", **fields: Any) -> Lying:
        """Let a message lie in a queue; `fields` are its sender, attributes, group and time."""
        text = body if isinstance(body, str) else json.dumps(body)
        sent = START + timedelta(seconds=self.clock.seconds)
        basis: dict[str, Any] = {"sender": self.signer, "sent_ms": int(sent.timestamp() * 1000), "attributes": {}}
        lying = Lying(message_id or f"m-{next(self._numbers)}", text, **(basis | fields))
        self.queues.setdefault(queue, []).append(lying)
        return lying

    def bodies(self, queue: str) -> list[str]:
        return [lying.body for lying in self.queues.get(queue, ())]

    def visible(self, queue: str) -> int:
        return sum(lying.visible_at <= self.clock.seconds for lying in self.queues.get(queue, ()))

    def sends(self) -> list[dict[str, Any]]:
        """Return every entry that was ever sent."""
        return [entry for call, request in self.calls if call == "send" for entry in request["Entries"]]

    # --- SQS's own operations ------------------------------------------------------------------------------------------

    async def get_queue_attributes(self, *, QueueUrl: str, **_: Any) -> Any:  # SQS's own name
        return {"Attributes": {"ApproximateNumberOfMessages": str(len(self.queues.get(QueueUrl, ())))}}

    async def receive_message(self, **request: Any) -> Any:
        self._begin("receive", request)
        queue, found = request["QueueUrl"], list[dict[str, Any]]()
        out = {one.group for one in self.queues.get(queue, ()) if one.visible_at > self.clock.seconds}
        for lying in self.queues.get(queue, ()):
            is_blocked = queue.startswith("commands") and lying.group in out
            if lying.visible_at <= self.clock.seconds and not is_blocked and len(found) < request["MaxNumberOfMessages"]:
                lying.received += 1
                lying.handle = f"{lying.message_id}#{lying.received}"
                lying.visible_at = self.clock.seconds + request["VisibilityTimeout"]
                found.append(lying.to_sqs())
        if not found:
            await self.clock.sleep(request.get("WaitTimeSeconds", 0))
        return {"Messages": found} if found else {}

    async def send_message_batch(self, **request: Any) -> Any:
        failing = self._begin("send", request) or {}
        queue = request["QueueUrl"]
        for entry in request["Entries"]:
            if entry["Id"] in failing:
                continue
            group, once = entry.get("MessageGroupId"), entry.get("MessageDeduplicationId")
            if once is not None:
                is_known = self.clock.seconds - self.known.get((queue, group, once), -DEDUPLICATED_S) < DEDUPLICATED_S
                self.known[queue, group, once] = self.clock.seconds
                if is_known:
                    continue
            self.put(queue, entry["MessageBody"], attributes=entry.get("MessageAttributes", {}), group=group)
        taken = [{"Id": entry["Id"], "MessageId": "new"} for entry in request["Entries"] if entry["Id"] not in failing]
        return {"Successful": taken, "Failed": [{"Id": name, **told} for name, told in failing.items()]}

    async def delete_message_batch(self, **request: Any) -> Any:
        failing = self._begin("delete", request) or {}
        handles = {entry["ReceiptHandle"] for entry in request["Entries"] if entry["Id"] not in failing}
        queue = self.queues.get(request["QueueUrl"], [])
        queue[:] = [lying for lying in queue if lying.handle not in handles]
        return {"Failed": [{"Id": name, **told} for name, told in failing.items()]}

    async def change_message_visibility_batch(self, **request: Any) -> Any:
        self._begin("give back", request)
        times = {entry["ReceiptHandle"]: entry["VisibilityTimeout"] for entry in request["Entries"]}
        for lying in self.queues.get(request["QueueUrl"], ()):
            if lying.handle in times:
                lying.visible_at = self.clock.seconds + times[lying.handle]
        return {}

    def _begin(self, call: str, request: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
        self.calls.append((call, request))
        return self.fault(call, request)


class House:
    """A letterbox with the real doors behind it: what they refuse lies in the rejected queue, as they write it."""

    def __init__(self, registry: Registry, store: Any = None) -> None:
        self.box = Letterbox()
        self.doors = Doors(store, registry=registry, rejected=self)

    async def reject(self, message: RejectedMessage) -> None:
        told = {ATTRIBUTE: {"DataType": "String", "StringValue": sayable_json(message.explanation)}}
        self.box.put("rejected", message.body, sender=DOOR, attributes=told)

    async def work_off(self) -> None:
        """Hand the doors all that lies in their queues, as Lambda would."""
        for queue, take in (("candidates", self.doors.offer), ("commands", self.doors.order)):
            waiting = self.box.queues.pop(queue, [])
            for lying in waiting:
                lambda_form = {
                    name: {"dataType": value["DataType"], "stringValue": value["StringValue"]}
                    for name, value in lying.attributes.items()
                }
                given = message(
                    lying.message_id,
                    lying.body,
                    sender_id=lying.sender,
                    source=queue,
                    group=lying.group,
                    attributes=lambda_form,
                    sent_at=START + timedelta(milliseconds=lying.sent_ms - START.timestamp() * 1000),
                )
                assert await take(given) == ()

    @property
    def feed(self) -> list[dict[str, Any]]:
        return self.doors.memory.feed
