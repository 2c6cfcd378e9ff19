"""Many consumers on one queue and one store, in virtual time: what a storm costs, and whom it keeps waiting.

Each consumer is a process of its own, as a Lambda execution environment is: its own door and decision loop, one batch at a
time. Calls take time, and transactions that overlap on an item cancel each other as DynamoDB's do. The queue is a model of
SQS's fair queues (who counts as noisy, and that quiet groups go first), not of its API. Nothing here decides anything about
incidents: that is the code under test.
"""

import asyncio
import io
import json
import random
import re
import selectors
from collections import Counter, deque
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from consumers.queue_door import QueueDoor
from pipeline.cli.outbox import Queue, addressed, read_lines
from pipeline.cli.sending import Progress, SqsOutbox, send_all
from pipeline.cli.terminal import Meter
from pipeline.domain.controls import NO_CONTROLS
from pipeline.domain.correlation import Window
from pipeline.domain.errors import Conflict
from pipeline.domain.incidents import Incident
from pipeline.domain.rules import NO_RULES, Rules
from pipeline.runtime import shipped
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import DecisionLoop
from pipeline.services.intake import IntakeService
from pipeline.services.ports import Clock, Commit, CommitResult, Committed, IncidentStore, Message, Pointer
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore
from tests.simulation.world import INVOCATION_S, SENDER, START, Rejected

T = TypeVar("T")

BATCH: Final = 10
# Seconds a call takes, at least and at most: what a table and a queue in the same region answer in.
READ_S: Final = (0.002, 0.006)
TRANSACTION_S: Final = (0.006, 0.016)
QUEUE_S: Final = (0.004, 0.012)
# From here on a group counts as noisy (SQS's documentation names both shares, and the number in flight).
NOISY_SHARE: Final = 0.1
NOISY_IN_FLIGHT: Final = 30
# The characters that SQS takes in a group's name.
_GROUP: Final = re.compile(r"[A-Za-z0-9!-/:-@\[-`{-~]{1,128}")
# How far back the share of the consumers' time looks.
RECENT_MESSAGES: Final = 1000


# --- time ------------------------------------------------------------------------------------------------------------


class _Jump(selectors.SelectSelector):
    """Lets time pass at once where everybody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits, and for nothing that will come")
        self.now += max(0.0, timeout)
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock moves only when nothing else can."""

    def __init__(self) -> None:
        self.jump = _Jump()
        super().__init__(self.jump)

    def time(self) -> float:
        return self.jump.now


def in_virtual_time(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end on a clock of its own: hours cost what is computed in them, and runs repeat exactly."""
    with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
        return runner.run(work)


class LoopClock:
    """Implements `Clock` on the running loop's time."""

    def now(self) -> datetime:
        return START + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# --- the store -------------------------------------------------------------------------------------------------------


@dataclass
class Spent:
    """What was asked of a store. A transaction is applied, or cancelled whatever the reason."""

    applied: int = 0
    cancelled: int = 0
    reads: int = 0

    @property
    def transactions(self) -> int:
        return self.applied + self.cancelled


class CountingStore:
    """Counts what any store is asked. Reads and writes go on to it as they are."""

    def __init__(self, real: IncidentStore) -> None:
        self.real = real
        self.spent = Spent()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def commit(self, commit: Commit) -> CommitResult:
        self.spent.cancelled += 1
        result = await self.real.commit(commit)
        if isinstance(result, Committed):
            self.spent.cancelled -= 1
            self.spent.applied += 1
        return result

    async def load(self, incident_id: str) -> Incident | None:
        self.spent.reads += 1
        return await self.real.load(incident_id)

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        self.spent.reads += 1
        return await self.real.load_pointer(service, dedup_key)

    async def load_window(self, window_id: str) -> Window | None:
        self.spent.reads += 1
        return await self.real.load_window(window_id)


class SlowStore(MemoryStore):
    """A memory store as far away as a table is. Transactions that are under way on the same item cancel each other."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self.rng = rng
        self.busy: Counter[str] = Counter()

    async def commit(self, commit: Commit) -> CommitResult:
        took = self.rng.uniform(*TRANSACTION_S)
        await asyncio.sleep(took / 4)
        items = items_of(commit)
        if any(self.busy[item] for item in items):
            await asyncio.sleep(took / 4)
            raise Conflict("the transaction was cancelled: TransactionConflict")
        self.busy.update(items)
        try:
            await asyncio.sleep(took / 2)
            return await super().commit(commit)
        finally:
            self.busy.subtract(items)
            await asyncio.sleep(took / 4)

    async def load(self, incident_id: str) -> Incident | None:
        return await self._read(super().load(incident_id))

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        return await self._read(super().load_pointer(service, dedup_key))

    async def load_window(self, window_id: str) -> Window | None:
        return await self._read(super().load_window(window_id))

    async def _read(self, reading: Coroutine[Any, Any, T]) -> T:
        took = self.rng.uniform(*READ_S)
        await asyncio.sleep(took / 2)
        found = await reading
        await asyncio.sleep(took / 2)
        return found


def items_of(commit: Commit) -> list[str]:
    """Name every row that a transaction touches."""
    items = [receipt.id for receipt in commit.receipts]
    items += [f"{event.incident_id}/{event.sequence}" for event in commit.events]
    items += [commit.incident.incident_id] if commit.incident is not None else []
    items += [commit.window.id] if commit.window is not None else []
    items += [f"{commit.pointer.service}/{commit.pointer.dedup_key}"] if commit.pointer is not None else []
    return items


# --- the queue -------------------------------------------------------------------------------------------------------


@dataclass
class _Held:
    """One message: when it may be delivered again, and since when it is in flight."""

    message: Message
    order: int
    visible_at: float = 0.0
    since: float = 0.0


class FairQueue:
    """A standard queue as SQS's fair queues deliver. Implements `SourceQueue`.

    A group is noisy while it has more than its share of what is in flight (and enough of it), or of the time that consumers
    spent lately. Messages of other groups go first; within that, the oldest. A message without a group is one of its own,
    so that it is never noisy.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, deque[_Held]] = {}
        self.later: list[_Held] = []
        self.in_flight: dict[str, _Held] = {}
        self.recent: deque[tuple[str, float]] = deque(maxlen=RECENT_MESSAGES)
        self.receives = 0
        self._sent = 0

    async def send_message_batch(self, *, QueueUrl: str, Entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Take messages as the SQS client does, with the group that each one's sender gave it."""
        assert len(Entries) <= BATCH
        for entry in Entries:
            assert _GROUP.fullmatch(group := entry.get("MessageGroupId", "-")), f"SQS takes no such group: {group!r}"
            self._sent += 1
            name = f"m{self._sent}"
            found = Message(
                name, entry["MessageBody"], SENDER, LoopClock().now(), 0, name, "candidates", entry.get("MessageGroupId")
            )
            self._wait(_Held(found, self._sent))
        return {"Successful": [{"Id": entry["Id"]} for entry in Entries], "Failed": []}

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values())) + len(self.later) + len(self.in_flight)

    def receive(self, most: int = BATCH) -> list[Message]:
        """Return up to `most` visible messages: quiet groups' first, then the oldest."""
        now = asyncio.get_running_loop().time()
        for held in [held for held in self.later if held.visible_at <= now]:
            self.later.remove(held)
            self._wait(held)
        noisy = self.noisy()
        batch: list[_Held] = []
        while len(batch) < most and self.waiting:
            group = min(self.waiting, key=lambda name: (name in noisy, self.waiting[name][0].order))
            batch.append(self.waiting[group].popleft())
            if not self.waiting[group]:
                del self.waiting[group]
        for held in batch:
            held.message = replace(held.message, receive_count=held.message.receive_count + 1)
            held.since = now
            self.in_flight[held.message.message_id] = held
        self.receives += bool(batch)
        return [held.message for held in batch]

    def noisy(self) -> set[str]:
        """Return the groups that use more than their share of the consumers now, or have lately."""
        flying = Counter(_group_of(held.message) for held in self.in_flight.values())
        total = flying.total()
        found = {name for name, of in flying.items() if of >= NOISY_IN_FLIGHT and of > NOISY_SHARE * total}
        time: Counter[str] = Counter()
        for name, took in self.recent:
            time[name] += took  # type: ignore[assignment] # seconds are counted, not things
        spent = sum(time.values())
        return found | {name for name, took in time.items() if took > NOISY_SHARE * spent}

    async def delay(self, messages: Sequence[Message], delay_s: int) -> None:
        for message in messages:
            self.in_flight[message.message_id].visible_at = asyncio.get_running_loop().time() + delay_s

    def answer(self, batch: Sequence[Message], failed: Iterable[str]) -> None:
        """Delete what was settled, and give back the rest."""
        again, now = set(failed), asyncio.get_running_loop().time()
        for message in batch:
            held = self.in_flight.pop(message.message_id)
            self.recent.append((_group_of(message), now - held.since))
            if message.message_id in again:
                self.later.append(held)

    def _wait(self, held: _Held) -> None:
        self.waiting.setdefault(_group_of(held.message), deque()).append(held)


def _group_of(message: Message) -> str:
    return message.group or f"without a group: {message.message_id}"


# --- the consumers ---------------------------------------------------------------------------------------------------


async def send(queue: Any, bodies: Iterable[dict[str, Any]]) -> None:
    """Send bodies as `opx send` does a file's lines: by its code, to a queue that takes what SQS takes."""
    file = io.BytesIO("".join(json.dumps(body) + "\n" for body in bodies).encode())
    sent = await send_all(addressed(read_lines(file), Queue.CANDIDATES), SqsOutbox(queue, "url"), Progress(), None, Meter())
    assert sent.failed == 0


def key_of(message: Message) -> tuple[str, str]:
    """Return the key a candidate is about; of a detection its service, by which the rules here group."""
    body = json.loads(message.body)
    return body["service"], body.get("dedupKey", "")


@dataclass
class Drained:
    """What it took to work a queue off. `floor`: the distinct keys of each batch, added up."""

    floor: int = 0
    batches: int = 0
    seconds: float = 0.0
    reports: list[Report] = field(default_factory=list)
    rejected: Rejected = field(default_factory=Rejected)


async def drain(
    queue: FairQueue,
    store: IncidentStore,
    consumers: int,
    rng: random.Random,
    rules: Rules = NO_RULES,
    clock: Clock | None = None,
) -> Drained:
    """Work a queue off with some consumers at once, each a process of its own."""
    done, time = Drained(), clock or LoopClock()

    async def consume() -> None:
        door = door_on(store, queue, time, done, rules)
        while len(queue):
            await asyncio.sleep(rng.uniform(*QUEUE_S))
            batch = queue.receive()
            if not batch:
                await asyncio.sleep(0.1)
                continue
            done.floor += len({key_of(message) for message in batch})
            done.batches += 1
            failed = await door.handle(batch, time.monotonic() + INVOCATION_S)
            await asyncio.sleep(rng.uniform(*QUEUE_S))
            queue.answer(batch, failed)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(consumers):
            group.create_task(consume())
    done.seconds = time.monotonic() - began
    return done


def door_on(store: IncidentStore, queue: Any, clock: Clock, done: Drained, rules: Rules = NO_RULES) -> QueueDoor:
    """Return the door of one process."""
    registry = shipped.registry("local")
    loop = DecisionLoop(store, clock)
    intake = IntakeService(loop, shipped.policies(), registry, FixedControls(NO_CONTROLS), rules)
    return QueueDoor(intake, done.rejected, {"candidates": queue}, registry, clock, done.reports.append, ordered=False)
