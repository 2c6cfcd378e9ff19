"""The processes that a replay is spread over: started once, when there is work enough for them, and ended with it.

Each process takes half a second to begin, so all of a replay shares them. What runs in them tells how far it is, and ends
within moments once it is told to stop: nothing is written into a folder that is being removed.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, Final, Self

# Below so many items, starting processes takes longer than the work.
ALONE_BELOW: Final = 40_000
TELL_EVERY_S: Final = 0.2
LOST: Final = 70

# Tells of so many more items that are done. Raises `Stopped`.
Beat = Callable[[int], None]
Progress = Callable[[int], None]


class Stopped(Exception):
    """The work was told to stop before it was done."""


class WorkerLost(Exception):
    """A process was ended from outside, and what it did is lost."""


class Workers:
    """Runs a replay's tasks, in this process or in several. Used by one thread; `stop` may be called from any."""

    def __init__(self, processes: int = 1, alone_below: int = ALONE_BELOW) -> None:
        self.processes = processes
        self._alone_below = alone_below
        self._stopped = threading.Event()
        self._pool: ProcessPoolExecutor | None = None
        self._shared: _Shared | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Let what runs end as soon as it can."""
        self._stopped.set()
        if self._shared is not None:
            self._shared.stop.set()

    def worth(self, items: int) -> int:
        """Return how many processes so many items are worth."""
        return self.processes if items >= self._alone_below else 1

    def run(self, work: Callable[..., Any], tasks: list[tuple[Any, ...]], items: int, progress: Progress) -> Iterator[Any]:
        """Yield what each task returns, as they end; `work` is called with a task's members and a `Beat`.

        `items`: about how many there are in all. `progress` is told how many are done. What a task raises ends it all; so
        do `Stopped` and `WorkerLost`.
        """
        if self.worth(items) == 1 or len(tasks) < 2:
            beat = _Counting(self._stopped, progress)
            for task in tasks:
                yield work(*task, beat)
            return
        pool, shared = self._started()
        shared.done.value = 0
        waiting: set[Future[Any]] = {pool.submit(_at_work, work, task) for task in tasks}
        try:
            while waiting:
                ended, waiting = wait(waiting, TELL_EVERY_S, FIRST_COMPLETED)
                if self._stopped.is_set():
                    raise Stopped
                progress(shared.done.value)
                for future in ended:
                    yield future.result()
        except BrokenProcessPool:
            raise WorkerLost("a process of the replay was ended from outside; mostly memory was short") from None
        finally:
            for future in waiting:
                future.cancel()

    def _started(self) -> tuple[ProcessPoolExecutor, "_Shared"]:
        if self._pool is None or self._shared is None:
            # Spawned: a forked child would inherit the event loop and the open connections of this process.
            context = get_context("spawn")
            self._shared = _Shared(context.Event(), context.Value("Q"))
            self._pool = ProcessPoolExecutor(self.processes, context, _begin, (self._shared,))
        return self._pool, self._shared


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all processes of a replay see."""

    stop: Event
    done: "Synchronized[int]"


class _Counting:
    """A `Beat` within the process that asked."""

    def __init__(self, stopped: threading.Event, progress: Progress) -> None:
        self._stopped = stopped
        self._progress = progress
        self._done = 0

    def __call__(self, items: int) -> None:
        if self._stopped.is_set():
            raise Stopped
        self._done += items
        self._progress(self._done)


_shared: _Shared | None = None


def _begin(shared: _Shared) -> None:
    """Make this process one of the workers."""
    global _shared
    _shared = shared
    # Ctrl-C reaches every process of a terminal; the one that asked says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    # A parent that was killed can't tell anybody to stop.
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(LOST)


def _at_work(work: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    return work(*task, _beat)


def _beat(items: int) -> None:
    assert _shared is not None
    if _shared.stop.is_set():
        raise Stopped
    with _shared.done:
        _shared.done.value += items
