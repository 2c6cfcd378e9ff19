"""Batches of messages on a memory store, with every call to it noted, and the store audited after each."""

from typing import Any

from pipeline.domain.authority import Sender
from pipeline.domain.canonical import Document
from pipeline.domain.receipts import Answer
from pipeline.services.decision import Answered, Applied, Replayed, View
from tests.support.audit import audit
from tests.support.bodies import text_of
from tests.support.doors import CountedStore
from tests.support.histories import INCIDENT_ID
from tests.support.registry import DETECTOR
from tests.support.world import DEADLINE, World


class Batches:
    """Batches of messages on a memory store, with every call to it noted."""

    def __init__(self, **options: Any) -> None:
        self.calls = CountedStore()
        store: Any = self.calls
        self.world = World(store, **options)
        self.world.store = self.calls.real

    async def take(
        self, *bodies: Any, sender: Sender = DETECTOR, ids: Any = None, view: View | None = None
    ) -> list[Answered]:
        """Bring one batch; return what became of each message. Forgets the calls of the batch before."""
        self.calls.calls.clear()
        senders = [sender] * len(bodies)
        return await self.mixed(list(zip(bodies, senders, strict=True)), ids, view)

    async def mixed(self, sent: list[tuple[Any, Sender]], ids: Any = None, view: View | None = None) -> list[Answered]:
        names = iter(ids or ())
        works = [
            self.world.intake.read(text_of(body), self.world.received(sender, next(names, None))) for body, sender in sent
        ]
        found = await self.world.intake.take_all(works, view or View(), DEADLINE)
        audit(self.world.store)
        assert all(len(answers) == 1 for answers in found)
        return [answers[0] for answers in found]

    @property
    def promotion(self) -> Document:
        row: Document = self.world.row(INCIDENT_ID)["metadata"]["promotion"]
        return row


def kinds(answers: list[Answered]) -> list[str]:
    return [type(answer).__name__ for answer in answers]


def told(answers: list[Answered]) -> list[Answer]:
    return [answer.receipt.result.answer for answer in answers if isinstance(answer, Applied | Replayed)]
