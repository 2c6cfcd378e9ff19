"""What no message tells: how much waits in each queue, and whether the fan-out runs. Reads only; asked each minute.

Fails closed: a figure that can't be had whole is not told at all, because 0 would say that all is well, and the part that
could be read might; an alarm takes a figure that doesn't come for a bad one. One that can't be read silences no other.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

INTAKE: Final = ("candidates", "alarms", "alertmanager", "commands")
DEAD: Final = ("candidates-dlq", "alarms-dlq", "alertmanager-dlq", "commands-dlq")
REJECTED: Final = "rejected"
FANOUT_FAILURES: Final = "fanout-failures"
# Only in a stack that has a webhook.
WEBHOOK_DLQ: Final = "webhook-dlq"
# Which queues add up to which figure.
SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "IntakeWaiting": INTAKE,
    "DeadMessages": (*DEAD, WEBHOOK_DLQ),
    "RejectedWaiting": (REJECTED,),
    "FanoutFailuresWaiting": (FANOUT_FAILURES,),
}
FANOUT_STOPPED: Final = "FanoutStopped"
# Of an event source mapping: it reads the stream, or is about to. All else, also a word we don't know, is stopped.
RUNS: Final = frozenset({"Creating", "Enabling", "Enabled", "Updating"})


class Depths(Protocol):
    async def depth(self, queue: str) -> int:
        """Return how many messages are in a queue, those in flight and delayed included. Raises where it can't be told."""
        ...


class StreamMapping(Protocol):
    async def state(self) -> str:
        """Return the state of what hands the stream to the fan-out. Raises where it can't be told."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What was read, and by name why the rest was not."""

    depths: Mapping[str, int]
    mapping: str | None
    unread: Mapping[str, Exception]

    def figures(self) -> dict[str, int]:
        """Return each figure that is known, by its metric's name."""
        known = {
            name: sum(self.depths.get(queue, 0) for queue in queues)
            for name, queues in SUMS.items()
            if self.unread.keys().isdisjoint(queues)
        }
        return known if self.mapping is None else known | {FANOUT_STOPPED: int(self.mapping not in RUNS)}


class HealthService:
    """Measures `queues`, which are all that the stack has."""

    def __init__(self, depths: Depths, mapping: StreamMapping, queues: tuple[str, ...]) -> None:
        self.depths = depths
        self.mapping = mapping
        self.queues = queues

    async def measure(self) -> Measured:
        """Read everything, side by side."""
        asked = [self.depths.depth(queue) for queue in self.queues]
        found = await asyncio.gather(*asked, self.mapping.state(), return_exceptions=True)
        depths: dict[str, int] = {}
        unread: dict[str, Exception] = {}
        mapping: str | None = None
        for name, answer in zip((*self.queues, "mapping"), found, strict=True):
            match answer:
                case int():
                    depths[name] = answer
                case str():
                    mapping = answer
                case Exception():
                    unread[name] = answer
                case BaseException():
                    raise answer
        return Measured(depths, mapping, unread)
