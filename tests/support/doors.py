"""The real doors over the memory store, with a sender, a source and a receive count chosen message by message.

What a door answers and asks of its queues is noted; nothing is decided here. Queues with delivery rules of their own are
in `tests.simulation.world`; this is one batch, looked at closely.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from consumers.queue_door import QueueDoor
from pipeline.domain.authority import Registry
from pipeline.domain.canonical import Document
from pipeline.domain.controls import NO_CONTROLS
from pipeline.domain.envelope import SCHEMA_VERSION
from pipeline.domain.errors import Refusal, Unavailable
from pipeline.runtime import shipped
from pipeline.runtime.telemetry import Report
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop, Refused
from pipeline.services.intake import IntakeService
from pipeline.services.ports import Message, RejectedMessage, RejectedQueue
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore
from tests.bad_input_cases import SENDER
from tests.simulation.world import START, VirtualClock

INVOCATION_S = 60.0


class Visibility:
    """Implements `SourceQueue`: notes who waits how long. `down`: refuses every call."""

    def __init__(self) -> None:
        self.waits: dict[str, int] = {}
        self.calls = 0
        self.down = False

    async def delay(self, messages: Sequence[Message], delay_s: int) -> None:
        self.calls += 1
        if self.down:
            raise Unavailable("ChangeMessageVisibilityBatch: no answer")
        self.waits |= {message.message_id: delay_s for message in messages}


class Kept:
    """Implements `RejectedQueue`. `down`: refuses every call."""

    def __init__(self) -> None:
        self.messages: list[RejectedMessage] = []
        self.down = False

    async def reject(self, message: RejectedMessage) -> None:
        if self.down:
            raise Unavailable("SendMessage to the rejected queue: no answer")
        self.messages.append(message)

    def codes(self) -> list[str]:
        return [message.explanation["code"] for message in self.messages]


class CountedStore:
    """A memory store that fails where `fails` returns an exception; counts what it was asked."""

    def __init__(self, fails: Callable[[str, Any], Exception | None] = lambda call, about: None) -> None:
        self.real = MemoryStore()
        self.fails = fails
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        async def call(*arguments: Any) -> Any:
            self.calls.append(name)
            error = self.fails(name, arguments[0])
            if error is not None:
                raise error
            return await method(*arguments)

        return call


class Doors:
    """Both queue doors on one store."""

    def __init__(
        self,
        store: Any = None,
        registry: Registry | None = None,
        rejected: RejectedQueue | None = None,
        services: Any = None,
        report: Callable[[Report], None] = lambda report: None,
        clock: Any = None,
        schema_version: int = SCHEMA_VERSION,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.store = store if store is not None else CountedStore()
        self.registry = registry or shipped.registry("local")
        self.rejected = Kept()
        self.reports: list[Report] = []
        self.visibility = {name: Visibility() for name in ("candidates", "alarms", "alertmanager", "commands")}
        self.controls = FixedControls(NO_CONTROLS)
        policies, loop = shipped.policies(), DecisionLoop(self.store, self.clock, schema_version)
        wrap = services or (lambda service: service)
        intake = wrap(IntakeService(loop, policies, self.registry, self.controls))
        controller = wrap(ControllerService(loop, policies, self.registry, self.controls))
        end = rejected or self.rejected

        def note(told: Report) -> None:
            self.reports.append(told)
            report(told)

        self.candidates = QueueDoor(intake, end, self.visibility, self.registry, self.clock, note, ordered=False)
        self.commands = QueueDoor(controller, end, self.visibility, self.registry, self.clock, note, ordered=True)

    async def offer(self, *messages: Message, within_s: float = INVOCATION_S) -> tuple[str, ...]:
        """Hand the candidates door one batch; return the ids of what must come again."""
        return await self.candidates.handle(messages, self.clock.monotonic() + within_s)

    async def order(self, *messages: Message, within_s: float = INVOCATION_S) -> tuple[str, ...]:
        return await self.commands.handle(messages, self.clock.monotonic() + within_s)

    @property
    def memory(self) -> MemoryStore:
        return self.store.real if isinstance(self.store, CountedStore) else self.store

    @property
    def services(self) -> set[str]:
        """The services that have an incident."""
        return {row["service"] for row in self.memory.incidents.values()}

    def settled(self) -> list[str]:
        """The ids of the messages that were taken, in the order they were done with."""
        return [report.message.message_id for report in self.reports]

    def refusals(self) -> dict[str, Refusal]:
        found = {report.message.message_id: report.outcome for report in self.reports}
        return {name: outcome.refusal for name, outcome in found.items() if isinstance(outcome, Refused)}


def message(message_id: str, body: Any, **fields: Any) -> Message:
    """Return a message of the local engine's one sender on the candidates queue, with `fields` over it."""
    text = body if isinstance(body, str) else json.dumps(body)
    basis = Message(message_id, text, SENDER, START, 1, f"handle-{message_id}", "candidates")
    return replace(basis, **fields)


def command_message(message_id: str, body: Any, group: str = "group", **fields: Any) -> Message:
    return message(message_id, body, **({"source": "commands", "group": group} | fields))


def explanation_attribute(explanation: Document) -> dict[str, Document]:
    """Return the attributes of a message that was sent again with its explanation."""
    return {"opx": {"dataType": "String", "stringValue": json.dumps(explanation)}}
