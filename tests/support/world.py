"""The services on a real store in memory, with a clock set by hand: what a door would have, without the door."""

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, Final, TypeVar

from pipeline.domain.authority import Registry, Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.controls import NO_CONTROLS, PinnedControls
from pipeline.domain.errors import Refusal, Rejected
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Policies
from pipeline.domain.receipts import IdempotencyRecord
from pipeline.domain.rules import NO_RULES, Rules
from pipeline.services.controller import ControllerService
from pipeline.services.decision import Applied, DecisionLoop, Outcome, Refused, Replayed, View
from pipeline.services.intake import IntakeService, IntakeWork
from pipeline.services.ports import Commit, CommitResult, Pointer
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import command_body, text_of
from tests.support.clock import FixedClock
from tests.support.histories import POLICIES
from tests.support.registry import DETECTOR, OPERATOR, registry

T = TypeVar("T")

# So far away that no test reaches it: retries wait on the fixed clock.
DEADLINE: Final = 1e9


class InterleavedStore(MemoryStore):
    """A memory store that gives way before and after each call, so that concurrent requests really interleave."""

    async def commit(self, commit: Commit) -> CommitResult:
        await asyncio.sleep(0)
        result = await super().commit(commit)
        await asyncio.sleep(0)
        return result

    async def load(self, incident_id: str) -> Incident | None:
        await asyncio.sleep(0)
        found = await super().load(incident_id)
        await asyncio.sleep(0)
        return found

    async def load_pointer(self, service: str, dedup_key: str) -> Pointer | None:
        await asyncio.sleep(0)
        return await super().load_pointer(service, dedup_key)

    async def load_receipt(self, receipt_id: str) -> IdempotencyRecord | None:
        await asyncio.sleep(0)
        return await super().load_receipt(receipt_id)


async def only_answer(service: IntakeService, work: IntakeWork, view: View, deadline: float) -> Outcome:
    """Return what became of a message that asks for one thing; raise what kept it from being answered."""
    ((answer,),) = await service.take_all((work,), view, deadline)
    if isinstance(answer, Exception):
        raise answer
    return answer


class World:
    """Everything one test needs. Each message gets a new id and a fresh view unless the test says otherwise."""

    def __init__(
        self,
        store: MemoryStore | None = None,
        known: Registry | None = None,
        policies: Policies = POLICIES,
        mappings: tuple[AlarmMapping, ...] = (),
        rules: Rules = NO_RULES,
        controls: PinnedControls = NO_CONTROLS,
    ) -> None:
        self.clock = FixedClock()
        self.store = store or MemoryStore()
        loop = DecisionLoop(self.store, self.clock)
        self.controls = FixedControls(controls)
        self.intake = IntakeService(loop, policies, known or registry(), self.controls, rules, mappings)
        self.controller = ControllerService(loop, policies, known or registry(), self.controls)
        self._messages = 0

    def received(self, sender: Sender, message_id: str | None = None, sent_at: datetime | None = None) -> Received:
        self._messages += 1
        return Received(sender, message_id or f"message-{self._messages}", sent_at or self.clock.now())

    async def offer(
        self,
        body: Any,
        sender: Sender = DETECTOR,
        *,
        message_id: str | None = None,
        sent_at: datetime | None = None,
        view: View | None = None,
    ) -> Outcome:
        """Bring one message to the candidates door; a body that can't be read is `Refused` like any other."""
        try:
            work = self.intake.read(text_of(body), self.received(sender, message_id, sent_at))
        except Rejected as rejected:
            return Refused(rejected.refusal)
        return await only_answer(self.intake, work, view or View(), DEADLINE)

    async def order(
        self, body: Any, sender: Sender = OPERATOR, *, message_id: str | None = None, view: View | None = None
    ) -> Outcome:
        """Bring one message to the commands door."""
        try:
            work = self.controller.read(text_of(body), self.received(sender, message_id))
        except Rejected as rejected:
            return Refused(rejected.refusal)
        return await self.controller.take(work, view or View(), DEADLINE)

    async def walk(self, incident_id: str, *states: str) -> None:
        """Take an incident through `states`, one legal step after the other."""
        for state in states:
            body = command_body("change-state", incident_id, newState=state, reason=f"to {state}")
            applied(await self.order(body))

    def types(self, incident_id: str) -> list[str]:
        """Return the event types of an incident's history."""
        return [document["eventType"] for _, document in sorted(self.store.events.get(incident_id, {}).items())]

    def row(self, incident_id: str) -> Document:
        return self.store.incidents[incident_id]


def applied(outcome: Outcome) -> Incident:
    """Return the incident after an outcome that must be `Applied`."""
    assert isinstance(outcome, Applied), outcome
    assert outcome.incident is not None
    return outcome.incident


def replayed(outcome: Outcome) -> IdempotencyRecord:
    assert isinstance(outcome, Replayed), outcome
    return outcome.receipt


def refused(outcome: Outcome) -> Refusal:
    assert isinstance(outcome, Refused), outcome
    return outcome.refusal


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end, for tests that are not coroutines themselves."""
    return asyncio.run(work)
