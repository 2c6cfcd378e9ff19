"""One event loop and one set of clients per execution environment.

Clients belong to the loop they were made on, so the loop outlives invocations; each invocation leaves no task behind.
"""

import asyncio
import atexit
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, TypeVar

T = TypeVar("T")

# One call to a dependency that hangs takes about 14 s to give up; what starts before the deadline ends before the time-out.
RESERVE_S: Final = 15.0


def deadline_of(context: Any, now: float) -> float:
    """Return when an invocation must begin nothing more, on the scale of `now` (monotonic seconds)."""
    remaining_s = float(context.get_remaining_time_in_millis()) / 1000
    return now + max(remaining_s - RESERVE_S, remaining_s * 0.4)


class Environment:
    """The loop, and what was opened on it."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._opened = AsyncExitStack()
        self._closed = False
        atexit.register(self.close)

    def open(self, resource: AbstractAsyncContextManager[T]) -> T:
        """Enter `resource` on the loop; it is left when the environment closes."""
        return self.run(self._opened.enter_async_context(resource))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one piece of work to its end on the loop."""
        return self._runner.run(work)

    def close(self) -> None:
        """Leave everything that was opened, then the loop; harmless twice."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._runner.run(self._opened.aclose())
        self._runner.close()
