"""The door behind every queue: a batch in, the ids of the messages that must come again out. No rules.

Lanes (one incident each) run side by side, one message after the other within a lane. What must come again becomes visible
after longer and longer delays. What becomes of one message is in `settlement`.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from consumers.settlement import Case, Service, Settlement
from pipeline.domain.authority import Registry
from pipeline.domain.errors import OpxError, Unavailable
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
        lanes: dict[str, list[Case]] = {}
        for message in messages:
            case = self.settlement.read(message)
            lanes.setdefault(self._lane(case), []).append(case)
        view = View()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run(lane, view, deadline)) for lane in lanes.values()]
        waits = {message.message_id: wait for task in tasks for message, wait in task.result()}
        failed = [message for message in messages if message.message_id in waits]
        await self._delay([(message, waits[message.message_id]) for message in failed])
        return tuple(message.message_id for message in failed)

    def _lane(self, case: Case) -> str:
        if self.ordered:
            return case.message.group or case.message.message_id
        if isinstance(case.work, Exception):
            return case.message.message_id
        return case.work.order_key

    async def _run(self, lane: list[Case], view: View, deadline: float) -> list[tuple[Message, int]]:
        failed: list[tuple[Message, int]] = []
        for number, case in enumerate(lane):
            error = await self.settlement.settle(case, view, deadline)
            if error is None:
                continue
            wait = delay_s(case.message)
            failed.append((case.message, wait))
            if self.ordered or isinstance(error, Unavailable):
                # The rest of the lane waits behind it: for order, or because its incident can't be reached now.
                failed.extend((later.message, wait) for later in lane[number + 1 :])
                break
        return failed

    async def _delay(self, failed: Sequence[tuple[Message, int]]) -> None:
        groups: dict[tuple[str, int], list[Message]] = {}
        for message, wait in failed:
            groups.setdefault((message.source, wait), []).append(message)
        for (source, wait), messages in groups.items():
            try:
                await self.sources[source].delay(messages, wait)
            except OpxError as error:
                # They come back all the same, after the queue's own visibility time-out.
                self.report(Report(messages[0], "delay", None, error, 0.0))
