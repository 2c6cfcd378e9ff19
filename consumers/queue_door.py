"""The door behind every queue: a batch in, the ids of the messages that must come again out. No rules.

A FIFO queue's groups run side by side, one message after the other within a group; any other batch is handed on whole. What
must come again becomes visible after longer and longer delays. What becomes of one message is in `settlement`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from consumers.settlement import Settlement
from consumers.work import Case, Service
from pipeline.domain.authority import Registry
from pipeline.domain.errors import OpxError
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import View
from pipeline.services.ports import Clock, Message, RejectedQueue, SourceQueue

DELAY_S_FIRST = 10
DELAY_S_MAX = 900


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
        self.settlement = Settlement(service, rejected, registry, clock, report)
        self.sources = sources
        self.report = report
        self.ordered = ordered

    async def handle(self, messages: Sequence[Message], deadline: float) -> tuple[str, ...]:
        """Settle a batch; return the ids of the messages that must be delivered again."""
        cases = [self.settlement.read(message) for message in messages]
        failed = await (self._in_order(cases, deadline) if self.ordered else self._together(cases, deadline))
        again = [message for message in messages if message.message_id in failed]
        await self._delay(again)
        return tuple(message.message_id for message in again)

    async def _together(self, cases: Sequence[Case], deadline: float) -> set[str]:
        errors = await self.settlement.settle(cases, View(), deadline)
        return {case.message.message_id for case, error in zip(cases, errors, strict=True) if error is not None}

    async def _in_order(self, cases: Sequence[Case], deadline: float) -> set[str]:
        lanes: dict[str, list[Case]] = {}
        for case in cases:
            lanes.setdefault(case.message.group or case.message.message_id, []).append(case)
        view = View()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run(lane, view, deadline)) for lane in lanes.values()]
        return {message_id for task in tasks for message_id in task.result()}

    async def _run(self, lane: list[Case], view: View, deadline: float) -> list[str]:
        for number, case in enumerate(lane):
            (error,) = await self.settlement.settle([case], view, deadline)
            if error is not None:
                # The rest of the group waits behind it, as FIFO asks.
                return [later.message.message_id for later in lane[number:]]
        return []

    async def _delay(self, failed: Sequence[Message]) -> None:
        groups: dict[tuple[str, int], list[Message]] = {}
        for message in failed:
            groups.setdefault((message.source, delay_s(message)), []).append(message)
        for (source, wait), messages in groups.items():
            try:
                await self.sources[source].delay(messages, wait)
            except OpxError as error:
                # They come back all the same, after the queue's own visibility time-out.
                self.report(Report(messages[0], "delay", None, error, 0.0))
