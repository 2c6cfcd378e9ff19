"""How long a process waits before it writes to what others are writing to, too. Remembers, and decides nothing.

In a storm many processes write to one incident, each on the version it has read: of those at it together one gets through,
and the others' transactions are paid for and cancelled. How many there are nobody knows; but each sees how often it loses.
So each waits a random part of a time that grows with every loss and shrinks with every success: whatever their number, they
end where about one transaction in five is cancelled (up to some thirty; with more, the longest wait is too short for that).
What nobody else writes to is never waited for.
"""

import random
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from pipeline.services.ports import Clock

# About what reading and writing take: a shorter wait would meet the same others again.
WAIT_S: Final = 0.02
WAIT_S_MAX: Final = 4.0
# Their logarithms balance where one in five is lost: fewer would leave the incident idle, more would cost too much.
LOST: Final = 4.0
WON: Final = 0.7
# A storm that long ago is over.
REMEMBERED_S: Final = 30.0
KNOWN_MAX: Final = 1_000


@dataclass(slots=True)
class _Crowd:
    """What is known of the others at one place: the wait that keeps out of their way, and when it last was wrong."""

    wait_s: float
    lost_at: float


class Turns:
    """One process's memory of where it met others. Places are whatever transactions meet at: an incident's key, a window."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.crowds: OrderedDict[Hashable, _Crowd] = OrderedDict()

    def lost(self, place: Hashable) -> None:
        """A transaction was cancelled for others' sake."""
        crowd = self._crowd(place)
        wait_s = WAIT_S if crowd is None else min(WAIT_S_MAX, crowd.wait_s * LOST)
        self.crowds[place] = _Crowd(wait_s, self.clock.monotonic())
        self.crowds.move_to_end(place)
        if len(self.crowds) > KNOWN_MAX:
            self.crowds.popitem(last=False)

    def won(self, place: Hashable) -> None:
        """A transaction was applied."""
        crowd = self._crowd(place)
        if crowd is None:
            return
        crowd.wait_s *= WON
        if crowd.wait_s < WAIT_S / 2:
            del self.crowds[place]

    def wait_s(self, place: Hashable) -> float:
        """Return how long to wait now: nothing where nobody was met lately."""
        crowd = self._crowd(place)
        return 0.0 if crowd is None else random.uniform(0.0, crowd.wait_s)

    def _crowd(self, place: Hashable) -> _Crowd | None:
        crowd = self.crowds.get(place)
        if crowd is not None and self.clock.monotonic() - crowd.lost_at > REMEMBERED_S:
            del self.crowds[place]
            return None
        return crowd
