"""The writing half of a load: sends a plan's messages when they are due, whatever became of those before.

A person acts on an incident when a subscriber has heard that it is open, so no command can come too early, however long the
queues have grown; the times at which its two commands are due count from then.
"""

import asyncio
import hashlib
import heapq
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pipeline.cli.subscription import Subscription
from pipeline.domain.errors import OpxError
from pipeline.stores.clients import Clients, translated
from tests.bench.load_plan import FRESH, MITIGATE, RESOLVE, Plan, command
from tests.bench.load_samples import Samples

# What is sent, when it was due, its body, and what else the queue asks for.
Entry = tuple[str, float, str, dict[str, str]]

BATCH: Final = 10
OPENED = "fresh → heard by a subscriber"
# How long a batch takes in our function, waiting not included.
INSIDE: Final = ("candidates, in our function", "commands, in our function")
INTAKE: Final = ("CandidatesQueueUrl", "CommandsQueueUrl")
DEPTHS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True, order=True)
class _Command:
    due: float
    number: int
    step: str
    incident: str


@dataclass
class Writers:
    """Times are the time of day, as in the functions' log lines. `due`: by message id, when it should have been sent."""

    clients: Clients
    outputs: Mapping[str, str]
    plan: Plan
    samples: Samples
    due: dict[str, tuple[str, float]] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)
    commanded: int = 0
    started: float = 0.0
    _commands: list[_Command] = field(default_factory=list)
    _sending: set[asyncio.Task[None]] = field(default_factory=set)
    _numbers: Any = field(default_factory=itertools.count)
    _due_of: dict[str, float] = field(default_factory=dict)

    @property
    def commands_planned(self) -> int:
        return 2 * len(self.plan.acted)

    @property
    def all_is_sent(self) -> bool:
        return len(self.due) >= len(self.plan.arrivals) + self.commands_planned

    async def send(self) -> None:
        """Send all candidates at their times; return when the last is on its way."""
        self.started = time.time()
        waiting = list(reversed(self.plan.arrivals))
        while waiting:
            await self._until(self.started + waiting[-1].at_s)
            batch: list[Entry] = []
            while waiting and len(batch) < BATCH and self.started + waiting[-1].at_s <= time.time():
                one = waiting.pop()
                batch.append(
                    (one.kind, self.started + one.at_s, json.dumps(one.body), {"MessageGroupId": one.body["service"]})
                )
                if one.kind == FRESH:
                    self._due_of[one.incident] = self.started + one.at_s
            self._begin("CandidatesQueueUrl", batch)

    async def act(self, subscription: Subscription) -> None:
        """Listen for what opens, and send the commands of those who act on it; until cancelled."""
        listening = asyncio.create_task(self._listen(subscription))
        try:
            while True:
                batch: list[Entry] = []
                while self._commands and len(batch) < BATCH and self._commands[0].due <= time.time():
                    batch.append(self._entry(heapq.heappop(self._commands)))
                if batch:
                    self._begin("CommandsQueueUrl", batch)
                await asyncio.sleep(0.05)
                if listening.done():
                    listening.result()
        finally:
            listening.cancel()

    async def depth(self, *queues: str) -> int:
        """Return how many messages are in queues, in flight ones included."""
        found = 0
        for queue in queues:
            with translated("asking for a queue's depth"):
                answer = await self.clients.sqs.get_queue_attributes(
                    QueueUrl=self.outputs[queue], AttributeNames=list(DEPTHS)
                )
            found += sum(int(answer["Attributes"].get(name, 0)) for name in DEPTHS)
        return found

    async def _listen(self, subscription: Subscription) -> None:
        while True:
            for arrival in await subscription.receive(1):
                identity, now = str(arrival.detail.get("incidentId")), time.time()
                if identity in self.heard or identity not in self.plan.detections:
                    continue
                self.heard.add(identity)
                self.opened.append(identity)
                self.samples.took(OPENED, (now - self._due_of[identity]) * 1000)
                if identity in self.plan.acted:
                    first, second = self.plan.acted[identity]
                    heapq.heappush(self._commands, _Command(now + first, next(self._numbers), MITIGATE, identity))
                    heapq.heappush(self._commands, _Command(now + first + second, next(self._numbers), RESOLVE, identity))

    def _entry(self, one: _Command) -> Entry:
        body = json.dumps(command(one.incident, one.step))
        # One group is one incident: its two commands can't overtake each other.
        fifo = {"MessageGroupId": one.incident, "MessageDeduplicationId": hashlib.sha256(body.encode()).hexdigest()}
        self.commanded += 1
        return one.step, one.due, body, fifo

    def _begin(self, queue: str, batch: list[Entry]) -> None:
        """Send a batch without waiting for it: a slow answer must not hold up what is due next."""
        task = asyncio.create_task(self._send(queue, batch))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, queue: str, batch: list[Entry]) -> None:
        entries = [{"Id": str(n), "MessageBody": body} | more for n, (_, _, body, more) in enumerate(batch)]
        try:
            with translated("sending"):
                answer = await self.clients.sqs.send_message_batch(QueueUrl=self.outputs[queue], Entries=entries)
        except OpxError as error:
            for kind, *_ in batch:
                self.samples.failed(kind, f"not sent ({type(error).__name__})")
            return
        for told in answer.get("Successful", ()):
            kind, due, *_ = batch[int(told["Id"])]
            self.due[told["MessageId"]] = (kind, due)
        for refused in answer.get("Failed", ()):
            self.samples.failed(batch[int(refused["Id"])][0], f"not sent ({refused['Code']})")

    @staticmethod
    async def _until(moment: float) -> None:
        if (left := moment - time.time()) > 0:
            await asyncio.sleep(left)
