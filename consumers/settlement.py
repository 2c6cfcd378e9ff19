"""One message, from its body to its fate: applied, copied to the rejected queue, or to be delivered again. No rules.

What batches and lanes make of it is next door, in `queue_door`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.domain.authority import Registry, sender_from_id
from pipeline.domain.candidates import Received
from pipeline.domain.errors import Refusal, Rejected, Unavailable
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import Outcome, Refused, Replayed, View
from pipeline.services.ports import Clock, Message, RejectedQueue
from pipeline.services.rejection import origin, rejection


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
class Case:
    """A message with who really sent it, and what it says or why it can't be read."""

    message: Message
    received: Received
    work: Work | Rejected | Exception


class Settlement:
    """Reads messages and settles them one by one; tells each one's fate to `report`."""

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

    async def settle(self, case: Case, view: View, deadline: float) -> Exception | None:
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
        principal = case.received.sender.principal
        self.report(Report(case.message, operation, outcome, failure, self.clock.monotonic() - started, principal))
        return failure

    async def _take(self, case: Case, view: View, deadline: float) -> Outcome:
        if isinstance(case.work, Rejected):
            return Refused(case.work.refusal)
        if isinstance(case.work, Exception):
            raise case.work
        if self.clock.monotonic() >= deadline:
            raise Unavailable("no time was left in this invocation")
        try:
            return await self.service.take(case.work, view, deadline)
        except Rejected as refused:
            # Whatever finds it: what is refused is never tried again.
            return Refused(refused.refusal)


def _refusal_of(outcome: Outcome) -> Refusal | None:
    match outcome:
        case Refused(refusal):
            return refusal
        case Replayed(receipt):
            # The process may have died between the first answer and its copy in the rejected queue.
            return receipt.refusal()
        case _:
            return None
