"""What a door hands on and to whom: a message with what it says, and the services that take such work. Shapes only."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.domain.candidates import Received
from pipeline.domain.errors import Rejected
from pipeline.services.decision import Answered, View
from pipeline.services.ports import Message


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
