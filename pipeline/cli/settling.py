"""Waits, after a sending, until the queue is worked off; counts from outside what was refused meanwhile."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from pipeline.cli.counting import depth_of
from pipeline.cli.session import Session
from pipeline.cli.terminal import Screen

POLL_S: Final = 0.25
WITHIN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Settled:
    """How a queue was left: `waiting` messages (some may wait for another try), and how many more were rejected."""

    waiting: int
    rejected: int
    seconds: float


async def rejected_so_far(session: Session) -> int:
    return (await depth_of(session, "rejected")).total


async def settle(session: Session, screen: Screen, queue: str, rejected_before: int) -> Settled:
    """Wait until nothing is left in `queue`, two minutes at most. What others send meanwhile counts, too."""
    began = time.monotonic()
    total = (await depth_of(session, queue)).total
    left = total
    with screen.progress(f"opx works through {queue}", total) as meter:
        while left and time.monotonic() - began < WITHIN_S:
            meter.at(max(0, total - left))
            await asyncio.sleep(POLL_S)
            left = (await depth_of(session, queue)).total
    # Somebody may have taken some out of there.
    rejected = max(0, await rejected_so_far(session) - rejected_before)
    return Settled(left, rejected, time.monotonic() - began)
