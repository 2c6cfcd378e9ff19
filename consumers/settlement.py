"""One message, from its body to its fate: applied, copied to the rejected queue, or to be delivered again. No rules.

What batches and lanes make of it is next door, in `queue_door`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pipeline.domain.authority import Registry, sender_from_id
from pipeline.domain.candidates import Received
from pipeline.domain.errors import Refusal, Rejected
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import Answered, Outcome, Refused, Replayed, View
from pipeline.services.ports import Clock, Message, RejectedQueue
from pipeline.services.rejection import origin, rejection


class Work(Protocol):
    """A readable message."""

    @property
    def operation(self) -> str: ...


class Service(Protocol):
    """What a door hands its messages to: `IntakeService`, `ControllerService`."""

    def read(self, body: str, received: Received) -> Any: ...

    async def take_all(self, works: Sequence[Any], view: View, deadline: float) -> Sequence[Sequence[Answered]]: ...


@dataclass(frozen=True, slots=True)
class Case:
    """A message with who really sent it, and what it says or why it can't be read."""

    message: Message
    received: Received
    work: Work | Rejected | Exception


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
        try:
            taken = iter(await self.service.take_all(works, view, deadline))
        except Exception as error:  # noqa: BLE001 - whatever it is, these messages come again and their neighbours go on
            taken = iter([(error,)] * len(works))
        answers = [_unread(case.work) if isinstance(case.work, Exception) else next(taken) for case in cases]
        return [await self._done(case, answered, started) for case, answered in zip(cases, answers, strict=True)]

    async def _done(self, case: Case, answers: Sequence[Answered], started: float) -> Exception | None:
        """Keep what is refused, tell what became of each part, and return what went wrong with the first that failed."""
        failure = next((answer for answer in answers if isinstance(answer, Exception)), None)
        refusals = [found for answer in answers if not isinstance(answer, Exception) if (found := _refusal_of(answer))]
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


def _refusal_of(outcome: Outcome) -> Refusal | None:
    match outcome:
        case Refused(refusal):
            return refusal
        case Replayed(receipt):
            # The process may have died between the first answer and its copy in the rejected queue.
            return receipt.refusal()
        case _:
            return None
