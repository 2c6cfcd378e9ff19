"""One message, from its body to its fate: applied, copied to the rejected queue, or to be delivered again. No rules.

What batches and lanes make of it is next door, in `queue_door`.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from consumers.work import Case, Service
from pipeline.domain.authority import Registry, sender_from_id
from pipeline.domain.candidates import Received
from pipeline.domain.errors import Refusal, Rejected, Unavailable
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import Answered, Outcome, Refused, Replayed, View
from pipeline.services.ports import Clock, Message, RejectedQueue
from pipeline.services.rejection import origin, rejection


class Settlement:
    """Reads messages and settles them; tells each one's fate to `report`."""

    def __init__(
        self,
        service: Service,
        rejected: RejectedQueue,
        registry: Registry,
        clock: Clock,
        report: Callable[[Report], None],
    ) -> None:
        self.service = service
        self.rejected = rejected
        self.registry = registry
        self.clock = clock
        self.report = report

    def read(self, message: Message) -> Case:
        """Return what a message says. Never raises: what can't be read is settled like everything else."""
        received = Received(sender_from_id(message.sender_id), message.message_id, message.sent_at)
        try:
            received = origin(message, self.registry)
            return Case(message, received, self.service.read(message.body, received))
        except Rejected as refused:
            return Case(message, received, refused)
        except Exception as error:  # noqa: BLE001 - a defect met by this input must not take its neighbours along
            return Case(message, received, error)

    async def settle(self, cases: Sequence[Case], view: View, deadline: float) -> list[Exception | None]:
        """Settle messages together; return per message None where it may be deleted, else what went wrong."""
        started = self.clock.monotonic()
        works = [case.work for case in cases if not isinstance(case.work, Exception)]
        taken = iter(await self._taken(works, view, deadline))
        answers = [_unread(case.work) if isinstance(case.work, Exception) else next(taken) for case in cases]
        failures: list[Exception | None] = []
        down: Exception | None = None
        for case, answered in zip(cases, answers, strict=True):
            if down is None and self.clock.monotonic() >= deadline:
                down = Unavailable("no time was left in this invocation")
            failures.append(await self._done(case, answered, started, down))
            # A rejected queue that is down would take its time for every other message too.
            down = down or (failures[-1] if isinstance(failures[-1], Unavailable) and _refused_in(answered) else None)
        return failures

    async def _taken(self, works: Sequence[Any], view: View, deadline: float) -> Sequence[Sequence[Answered]]:
        try:
            return await self.service.take_all(works, view, deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, what brings it out comes again and its neighbours go on
            if len(works) == 1:
                return ((error,),)
            return [answered for work in works for answered in await self._taken([work], view, deadline)]

    async def _done(
        self, case: Case, answers: Sequence[Answered], started: float, down: Exception | None
    ) -> Exception | None:
        """Keep what is refused, tell what became of each part, and return what went wrong with the first that failed.

        `down`: why nothing can be kept now; what is refused comes again.
        """
        failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
        refusals = [found for answer in answers if not isinstance(answer, Exception) if (found := _refusal_of(answer))]
        if refusals and failure is None:
            failure = down
        if refusals and failure is None:
            more = f" And {len(refusals) - 1} more." if len(refusals) > 1 else ""
            first = replace(refusals[0], detail=refusals[0].detail + more)
            try:
                await self.rejected.reject(rejection(case.message, case.received, first))
            except Exception as error:  # noqa: BLE001 - not kept yet, so not settled yet
                failure = error
        operation = "unreadable" if isinstance(case.work, Exception) else case.work.operation
        took, principal = self.clock.monotonic() - started, case.received.sender.principal
        for answer in answers:
            if isinstance(answer, Exception):
                self.report(Report(case.message, operation, None, answer, took, principal))
            else:
                told = failure if _refusal_of(answer) else None
                self.report(Report(case.message, operation, answer, told, took, principal))
        return failure


def _unread(error: Exception) -> tuple[Answered, ...]:
    return (Refused(error.refusal) if isinstance(error, Rejected) else error,)


def _refused_in(answers: Sequence[Answered]) -> bool:
    return any(not isinstance(answer, Exception) and _refusal_of(answer) for answer in answers)


def _refusal_of(outcome: Outcome) -> Refusal | None:
    match outcome:
        case Refused(refusal):
            return refusal
        case Replayed(receipt):
            # The process may have died between the first answer and its copy in the rejected queue.
            return receipt.refusal()
        case _:
            return None
