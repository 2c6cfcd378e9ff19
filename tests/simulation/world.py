"""The whole pipeline on one virtual clock: queues with visibility and receive counts, the real doors, the memory store.

The queues are a model of SQS's delivery rules (what a door can see of them), not of its API. Nothing here decides anything
about incidents: that is the code under test.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.queue_door import QueueDoor
from consumers.work import Service
from pipeline.domain.controls import NO_CONTROLS, PinnedControls
from pipeline.domain.rules import NO_RULES, Rules
from pipeline.runtime import shipped
from pipeline.runtime.telemetry import Report
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop
from pipeline.services.fanout import FanoutService, StreamRecord
from pipeline.services.intake import IntakeService
from pipeline.services.ports import BusEntry, BusRefusal, FailedRecord, Message, RejectedMessage
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
SENDER = "000000000000"
INVOCATION_S = 60.0
VISIBILITY_S = 360
MAX_RECEIVES = 100


class VirtualClock:
    """Implements `Clock`; time passes only when told to. `skew` makes the time of day jump without the monotonic one."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.skew = timedelta()

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds) + self.skew

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(order=True)
class _Waiting:
    visible_at: float
    order: int
    message: Message = field(compare=False)


class Queue:
    """A standard or FIFO queue as its consumer sees it. Implements `SourceQueue`."""

    def __init__(self, clock: VirtualClock, name: str, *, fifo: bool = False) -> None:
        self.clock = clock
        self.name = name
        self.fifo = fifo
        self.waiting: list[_Waiting] = []
        self.in_flight: dict[str, _Waiting] = {}
        self.dead: list[Message] = []
        self._numbers = itertools.count()

    def send(self, message_id: str, body: str, group: str | None = None, **attributes: Any) -> None:
        message = Message(
            message_id, body, SENDER, self.clock.now(), 0, f"handle-{message_id}", self.name, group, attributes
        )
        heapq.heappush(self.waiting, _Waiting(self.clock.seconds, next(self._numbers), message))

    def receive(self, most: int = 10) -> list[Message]:
        """Return up to `most` visible messages; past the receive limit they go to the dead-letter queue instead."""
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        # A FIFO group with a message in flight, or an earlier one that still waits, gives no other.
        blocked = {item.message.group for item in self.in_flight.values()} if self.fifo else set()
        candidates = sorted(self.waiting, key=lambda item: item.order) if self.fifo else None
        while len(batch) < most and (candidates if self.fifo else self.waiting):
            item = candidates.pop(0) if candidates is not None else heapq.heappop(self.waiting)
            if item.visible_at > self.clock.seconds or (self.fifo and item.message.group in blocked):
                later.append(item)
                blocked.add(item.message.group)
                if not self.fifo:
                    break
                continue
            item.message = replace(item.message, receive_count=item.message.receive_count + 1)
            if item.message.receive_count > MAX_RECEIVES:
                self.dead.append(item.message)
                continue
            batch.append(item)
        if candidates is not None:
            self.waiting = later + candidates
        else:
            for item in later:
                heapq.heappush(self.waiting, item)
        for item in batch:
            item.visible_at = self.clock.seconds + VISIBILITY_S
            self.in_flight[item.message.message_id] = item
        return [item.message for item in batch]

    async def delay(self, messages: Sequence[Message], delay_s: int) -> None:
        for message in messages:
            self.in_flight[message.message_id].visible_at = self.clock.seconds + delay_s

    async def answer(self, batch: Sequence[Message], failed: Sequence[str]) -> None:
        """Delete what was settled; give back the rest, visible when its visibility says."""
        for message in batch:
            item = self.in_flight.pop(message.message_id)
            if message.message_id in failed:
                heapq.heappush(self.waiting, item)

    def crashed(self, batch: Sequence[Message]) -> None:
        """The consumer died: what was not deleted comes back, at once so that a test need not wait."""
        for message in batch:
            item = self.in_flight.pop(message.message_id, None)
            if item is None:
                continue
            item.visible_at = self.clock.seconds
            heapq.heappush(self.waiting, item)

    def next_visible(self) -> float | None:
        if self.fifo:
            return min((item.visible_at for item in self.waiting), default=None)
        return self.waiting[0].visible_at if self.waiting else None


class Rejected:
    """Implements `RejectedQueue`."""

    def __init__(self) -> None:
        self.messages: list[RejectedMessage] = []

    async def reject(self, message: RejectedMessage) -> None:
        self.messages.append(message)


class Bus:
    """Implements `EventBus`."""

    def __init__(self) -> None:
        self.entries: list[BusEntry] = []

    async def publish(self, entries: Sequence[BusEntry]) -> tuple[BusRefusal | None, ...]:
        self.entries.extend(entries)
        return (None,) * len(entries)


class Failures:
    """Implements `FailureQueue`."""

    def __init__(self) -> None:
        self.kept: list[FailedRecord] = []

    async def keep(self, failures: Sequence[FailedRecord]) -> None:
        self.kept.extend(failures)


Wrap = Callable[[Any], Any]


class World:
    """Queues, doors, store, bus. `wrap` is put around every port, so that a test can crash or refuse any call."""

    def __init__(
        self,
        wrap: Wrap = lambda port: port,
        store: MemoryStore | None = None,
        report: Callable[[Report], None] | None = None,
        rules: Rules = NO_RULES,
        controls: PinnedControls = NO_CONTROLS,
    ) -> None:
        self.wrap = wrap
        self.clock = VirtualClock()
        self.store = store or MemoryStore()
        self.candidates = Queue(self.clock, "candidates")
        self.commands = Queue(self.clock, "commands", fifo=True)
        self.rejected, self.bus, self.failures = Rejected(), Bus(), Failures()
        self.reports: list[Report] = []
        tell = report or self.reports.append
        self.relayed = 0
        registry, policies = shipped.registry("local"), shipped.policies()
        self.controls = FixedControls(controls)
        loop = DecisionLoop(wrap(self.store), self.clock)
        self.intake = IntakeService(loop, policies, registry, self.controls, rules)
        self.controller = ControllerService(loop, policies, registry, self.controls)

        def door(service: Service, queue: Queue, *, ordered: bool) -> QueueDoor:
            sources = {queue.name: wrap(queue)}
            return QueueDoor(service, wrap(self.rejected), sources, registry, self.clock, tell, ordered=ordered)

        self.candidates_door = door(self.intake, self.candidates, ordered=False)
        self.commands_door = door(self.controller, self.commands, ordered=True)
        self.fanout = FanoutService(wrap(self.bus), wrap(self.failures), self.clock)

    async def deliver(self, queue: Queue, door: QueueDoor) -> bool:
        """Hand the door one batch, as Lambda would; a dying process gives it back. Return whether there was one."""
        batch = queue.receive()
        if not batch:
            return False
        try:
            failed = await door.handle(batch, self.clock.monotonic() + INVOCATION_S)
            await self.wrap(queue).answer(batch, failed)
        except BaseException:
            queue.crashed(batch)
            raise
        return True

    async def relay(self, batch: int = 10) -> bool:
        """Hand the fan-out the next records of the stream; its place in it moves only when it returns."""
        documents = self.store.feed[self.relayed : self.relayed + batch]
        if not documents:
            return False
        await self.fanout.relay([record_of(document) for document in documents])
        await self.wrap(self).move_on(len(documents))
        return True

    async def move_on(self, count: int) -> None:
        """The stream's consumer has answered for `count` more records."""
        self.relayed += count

    async def step(self) -> bool:
        """Do one thing that is due; return whether there was any."""
        return (
            await self.deliver(self.candidates, self.candidates_door)
            or await self.deliver(self.commands, self.commands_door)
            or await self.relay()
        )

    async def drain(self) -> None:
        """Work until nothing is left, letting time pass where only waiting helps."""
        while True:
            while await self.step():
                pass
            due = [at for queue in (self.candidates, self.commands) if (at := queue.next_visible()) is not None]
            if not due:
                return
            self.clock.seconds = max(self.clock.seconds, min(due))


def record_of(document: dict[str, Any], change: str = "INSERT") -> StreamRecord:
    return StreamRecord(change, document["incidentId"], document["sequence"], document)
