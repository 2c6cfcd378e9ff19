"""The door behind every queue: messages in, the ids of those that must come again out. No rules.

Settles each message by its outcome: applied and answered ones are left to be deleted; refused ones are copied to the
rejected queue first; the rest become visible again after longer and longer delays. Lanes (one incident each) run side
by side, and within a lane one message after the other.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.domain.authority import Registry, sender_from_id
from pipeline.domain.candidates import Received
from pipeline.domain.errors import Refusal, Rejected, Unavailable
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import Outcome, Refused, Replayed, View
from pipeline.services.ports import Clock, Message, RejectedQueue, SourceQueue
from pipeline.services.rejection import origin, rejection

DELAY_S_FIRST = 10
DELAY_S_MAX = 900


class Work(Protocol):
    """A readable message."""

    @property
    def order_key(self) -> str: ...

    @property
    def operation(self) -> str: ...


class Service(Protocol):
    """What a door hands its messages to: `IntakeService`, `ControllerService`."""

    def read(self, body: str, received: Received) -> Any: ...

    async def take(self, work: Any, view: View, deadline: float) -> Outcome: ...


@dataclass(frozen=True, slots=True)
class _Case:
    message: Message
    received: Received
    work: Work | Rejected | Exception


def delay_s(message: Message) -> int:
    """Return how long a message waits before its next try: 10 s, doubled by every receive, at most 15 minutes."""
    return int(min(DELAY_S_MAX, DELAY_S_FIRST * 2 ** min(message.receive_count - 1, 10)))


class QueueDoor:
    """One queue's (or two queues') door. `ordered`: a FIFO queue, whose groups stop at their first failure."""

    def __init__(
        self,
        service: Service,
        rejected: RejectedQueue,
        sources: Mapping[str, SourceQueue],
        registry: Registry,
        clock: Clock,
        report: Callable[[Report], None],
        *,
        ordered: bool,
    ) -> None:
        self.service = service
        self.rejected = rejected
        self.sources = sources
        self.registry = registry
        self.clock = clock
        self.report = report
        self.ordered = ordered

    async def handle(self, messages: Sequence[Message], deadline: float) -> tuple[str, ...]:
        """Settle a batch; return the ids of the messages that must be delivered again."""
        lanes: dict[str, list[_Case]] = {}
        for message in messages:
            case = self._read(message)
            lanes.setdefault(self._lane(case), []).append(case)
        view = View()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run(lane, view, deadline)) for lane in lanes.values()]
        failed = {message.message_id: wait for task in tasks for message, wait in task.result()}
        await self._delay([(message, failed[message.message_id]) for message in messages if message.message_id in failed])
        return tuple(message.message_id for message in messages if message.message_id in failed)

    def _read(self, message: Message) -> _Case:
        received = Received(sender_from_id(message.sender_id), message.message_id, message.sent_at)
        try:
            received = origin(message, self.registry)
            return _Case(message, received, self.service.read(message.body, received))
        except Rejected as refused:
            return _Case(message, received, refused)
        except Exception as error:  # noqa: BLE001 - a defect met by this input must not take its neighbours along
            return _Case(message, received, error)

    def _lane(self, case: _Case) -> str:
        if self.ordered:
            return case.message.group or case.message.message_id
        if isinstance(case.work, Exception):
            return case.message.message_id
        return case.work.order_key

    async def _run(self, lane: list[_Case], view: View, deadline: float) -> list[tuple[Message, int]]:
        failed: list[tuple[Message, int]] = []
        for number, case in enumerate(lane):
            error = await self._settle(case, view, deadline)
            if error is None:
                continue
            wait = delay_s(case.message)
            failed.append((case.message, wait))
            if self.ordered or isinstance(error, Unavailable):
                # The rest of the lane waits behind it: for order, or because its incident can't be reached now.
                failed.extend((later.message, wait) for later in lane[number + 1 :])
                break
        return failed

    async def _settle(self, case: _Case, view: View, deadline: float) -> Exception | None:
        """Return None where the message is settled and may be deleted, else what went wrong."""
        started = self.clock.monotonic()
        outcome: Outcome | None = None
        failure: Exception | None = None
        try:
            outcome = await self._take(case, view, deadline)
            refusal = _refusal_of(outcome)
            if refusal is not None:
                await self.rejected.reject(rejection(case.message, case.received, refusal))
        except Exception as error:  # noqa: BLE001 - whatever it is, this message comes again and its neighbours go on
            failure = error
        operation = "unreadable" if isinstance(case.work, Exception) else case.work.operation
        self.report(Report(case.message, operation, outcome, failure, self.clock.monotonic() - started))
        return failure

    async def _take(self, case: _Case, view: View, deadline: float) -> Outcome:
        if isinstance(case.work, Rejected):
            return Refused(case.work.refusal)
        if isinstance(case.work, Exception):
            raise case.work
        if self.clock.monotonic() >= deadline:
            raise Unavailable("no time was left in this invocation")
        return await self.service.take(case.work, view, deadline)

    async def _delay(self, failed: Sequence[tuple[Message, int]]) -> None:
        groups: dict[tuple[str, int], list[Message]] = {}
        for message, wait in failed:
            groups.setdefault((message.source, wait), []).append(message)
        for (source, wait), messages in groups.items():
            try:
                await self.sources[source].delay(messages, wait)
            except Unavailable as error:
                # They come back all the same, after the queue's own visibility timeout.
                self.report(Report(messages[0], "delay", None, error, 0.0))


def _refusal_of(outcome: Outcome) -> Refusal | None:
    match outcome:
        case Refused(refusal):
            return refusal
        case Replayed(receipt):
            # The process may have died between the first answer and its copy in the rejected queue.
            return receipt.refusal()
        case _:
            return None
