"""A clock that tests set by hand. Waiting moves its monotonic side only and costs no real time."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

NOW: Final = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


class FixedClock:
    """Implements `Clock`."""

    def __init__(self, now: datetime = NOW) -> None:
        self.time = now
        self.elapsed_s = 0.0

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.elapsed_s

    async def sleep(self, seconds: float) -> None:
        self.elapsed_s += seconds
        await asyncio.sleep(0)

    def jump(self, delta: timedelta) -> None:
        """Move the time of day, forwards or backwards, as an operator or NTP might."""
        self.time += delta
