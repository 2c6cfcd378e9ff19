"""A redrive over queues in memory: who sends what, who is granted it before and after, and one run with its terms."""

from collections.abc import Callable
from typing import Any

from pipeline.cli.outbox import Queue
from pipeline.cli.queue_letters import Letter
from pipeline.cli.queue_redrive import Redriver, Tally, Terms
from pipeline.domain.authority import Registry
from pipeline.stores.queues import sayable_json
from tests.support.letterbox import DOOR, House, Letterbox
from tests.support.registry import ALARMS, DETECTOR, OPERATOR, entry, registry

URLS = {Queue.CANDIDATES: "candidates", Queue.COMMANDS: "commands"}
REDRIVE = entry("redrive", "$redriveRole", operations=["redrive"], speaksForSenders=True)
COMMANDS = ["declare", "change-state", "add-note"]
# The detectors are strangers at first: what they send is refused until somebody grants it.
BEFORE = registry(
    entry("operators", OPERATOR.principal, kinds="HUMAN", operations=COMMANDS, sessionIsPerson=True),
    REDRIVE,
    redriveRole="AROAREDRIVE",
)
AFTER = registry(
    entry("detectors", DETECTOR.principal, ALARMS.principal),
    entry("operators", OPERATOR.principal, kinds="HUMAN", operations=COMMANDS, sessionIsPerson=True),
    REDRIVE,
    redriveRole="AROAREDRIVE",
)
SENT = {"sender": "AROADETECTOR:monitor-7", "sent_ms": 1772334000000}
PERSON = {"sender": "AROAOPERATOR:dana@example.com", "sent_ms": 1772334000000}


def explained(sender: str = "AROADETECTOR:monitor-7", first_id: str = "first", **more: Any) -> dict[str, Any]:
    """Return the attribute of a message in the rejected queue, as a door writes it."""
    told = {"code": "principal-unknown", "reason": "why", "source": "candidates", "originalSenderId": sender}
    told |= {"originalMessageId": first_id, "originalSentAt": "2026-03-01T03:00:00.000000Z"} | more
    return {"sender": DOOR, "attributes": {"opx": {"DataType": "String", "StringValue": sayable_json(told)}}}


def redriver(
    box: Letterbox,
    queue: str = "rejected",
    known: Registry = AFTER,
    chooses: Callable[[Letter, str], bool] = lambda letter, code: True,
    **terms: int,
) -> Redriver:
    async def code_of(letter: Letter) -> str:
        return letter.trouble()[0]

    depth = len(box.queues.get(queue, ()))
    asked = {"limit": depth, "rate": 1000, "depth": depth} | terms
    return Redriver(box, queue, queue, URLS, known, Terms(code_of, chooses, **asked), box.clock)


async def redrive(house: House | Letterbox, queue: str = "rejected", **asked: Any) -> Tally:
    return await redriver(house if isinstance(house, Letterbox) else house.box, queue, **asked).run()
