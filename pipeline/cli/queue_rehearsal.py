"""What would become of a message that lies in a queue if it came again: the doors' own code, on the tables, writing nothing.

It is decided by the configuration at hand, which need not be the one that is deployed; the live controls are left out, since
they refuse nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from pipeline.cli.queue_letters import Letter, redriven
from pipeline.domain.authority import Registry
from pipeline.domain.canonical import Document
from pipeline.domain.errors import OpxError, Refusal, Rejected
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock
from pipeline.services.controller import CommandWork, ControllerService
from pipeline.services.decision import Answered, Applied, DecisionLoop, Refused, Replayed, View
from pipeline.services.intake import IntakeService, IntakeWork
from pipeline.services.ports import IncidentStore, Message
from pipeline.services.rehearsal import RehearsalStore
from pipeline.services.rejection import origin
from pipeline.stores.controls import FixedControls
from pipeline.stores.memory import MemoryStore

WITHIN_S: Final = 10.0
CRASH: Final = "crash"
# What a defect of ours raises. A message that brings one out is what dead-letter queues are for: it must be told of as well.
_DEFECTS: Final = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class Fate(StrEnum):
    APPLIED = "would be applied"
    ALREADY = "has taken effect already"
    REFUSED = "would be refused"
    UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of a message, and why: `code` where it would be refused or would crash its reader."""

    fate: Fate
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """A message with why it lies there: opx's code where there is one, else one of `queue_letters`."""

    letter: Letter
    code: str
    reason: str
    verdict: Verdict | None = None

    @property
    def is_unread(self) -> bool:
        """True of a dead message that could not be read again: which code it has, nobody knows."""
        verdict = self.verdict
        return self.letter.is_dead and verdict is not None and verdict.fate is Fate.UNKNOWN and not verdict.code

    @property
    def is_refused(self) -> bool:
        return self.verdict is not None and self.verdict.fate is Fate.REFUSED

    def to_document(self) -> Document:
        told: Document = {"code": self.code, "reason": self.reason}
        if self.verdict is not None:
            verdict = {"fate": self.verdict.fate.value, "code": self.verdict.code, "detail": self.verdict.detail}
            told["rehearsed"] = {name: value for name, value in verdict.items() if value}
        return self.letter.to_document() | told


class Rehearsal:
    """The doors, as far as they can be tried out. Without a store it is told only whether a message can be read at all."""

    def __init__(self, registry: Registry, config: Path | None = None, store: IncidentStore | None = None) -> None:
        clock = SystemClock()
        loop = DecisionLoop(RehearsalStore(store or MemoryStore()), clock)
        policies, controls = shipped.policies(config), FixedControls()
        self.clock = clock
        self.registry = registry
        self.knows_incidents = store is not None
        self.commands = ControllerService(loop, policies, registry, controls)
        self.candidates = IntakeService(
            loop,
            policies,
            registry,
            controls,
            shipped.rules(config),
            shipped.alarm_mappings(config),
            shipped.alert_mapping(config),
        )

    async def told(self, letter: Letter, *, always: bool = False) -> Told:
        """Return why a message lies in its queue. Nobody explained a dead one, so that is read again; `always`: any."""
        code, reason = letter.trouble()
        if not letter.is_redrivable or not (letter.is_dead or always):
            return Told(letter, code, reason)
        verdict = await self.of(letter)
        return Told(letter, (letter.is_dead and verdict.code) or code, reason, verdict)

    async def of(self, letter: Letter) -> Verdict:
        """Return what would become of a message that is sent in again now."""
        try:
            return await self._of(redriven(letter, self.registry))
        except Rejected as error:
            return _refused(error.refusal)
        except OpxError as error:
            return Verdict(Fate.UNKNOWN, detail=str(error))
        except _DEFECTS as error:
            return _crashed(error)

    async def _of(self, message: Message) -> Verdict:
        received = origin(message, self.registry)
        deadline = self.clock.monotonic() + WITHIN_S
        service = self.commands if message.source == "commands" else self.candidates
        work: CommandWork | IntakeWork = service.read(message.body, received)
        if isinstance(work, IntakeWork):
            return _verdict((await self.candidates.take_all([work], View(), deadline))[0])
        if not self.knows_incidents:
            return Verdict(Fate.UNKNOWN, detail="It can be read; what it would do depends on its incident.")
        return _verdict((await self.commands.take_all([work], View(), deadline))[0])


def _verdict(answers: Iterable[Answered]) -> Verdict:
    """Return the worst of a message's parts: what the door would keep it for."""
    found = [_of_part(answer) for answer in answers]
    for fate in (Fate.UNKNOWN, Fate.REFUSED, Fate.APPLIED):
        for one in found:
            if one.fate is fate:
                return one
    return found[0]


def _of_part(answer: Answered) -> Verdict:
    match answer:
        case Applied():
            return Verdict(Fate.APPLIED)
        case Refused(refusal):
            return _refused(refusal)
        case Replayed(receipt):
            remembered = receipt.refusal()
            return Verdict(Fate.ALREADY) if remembered is None else _refused(remembered)
        case Rejected():
            return _refused(answer.refusal)
        case OpxError():
            return Verdict(Fate.UNKNOWN, detail=str(answer))
        case _:
            return _crashed(answer)


def _refused(refusal: Refusal) -> Verdict:
    return Verdict(Fate.REFUSED, refusal.code.value, refusal.sentence())


def _crashed(error: Exception) -> Verdict:
    return Verdict(
        Fate.UNKNOWN, CRASH, f"It brings out a defect of opx ({type(error).__name__}); keep it for whoever mends that."
    )
