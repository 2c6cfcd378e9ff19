"""When a call is tried again, and when no more: no answer, 429 and 5xx, until a deadline. Pure but for clock and chance.

Another 4xx is an answer, never tried again: the same request would be refused again, one whose clock is wrong included.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

TOO_MANY: Final = 429
FAULT: Final = 500


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take in all, and one attempt of it; the longest pause grows from `pause_s` to `pause_s_max`.

    Both are kept whatever is waited for: credentials, a name, a connection, an answer that comes byte by byte. An attempt
    gets a little longer than API Gateway itself would wait (29 s).
    """

    within_s: float = 60.0
    attempt_s: float = 30.0
    pause_s: float = 0.2
    pause_s_max: float = 8.0


class Attempts:
    """The attempts of one call so far."""

    def __init__(
        self,
        patience: Patience,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.made = 0
        self._patience = patience
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + patience.within_s

    def begin(self) -> float:
        """Count an attempt; return how long it may take."""
        self.made += 1
        return max(0.001, min(self._patience.attempt_s, self._deadline - self._clock()))

    def pause_s(self, retry_after_s: float | None) -> float | None:
        """Return how long to wait before the next attempt, or None where the deadline would be over by then.

        A random share of a doubling limit, so that many callers who failed together don't come back together; never sooner
        than the server asked for.
        """
        # Where the exponent has passed every sensible limit the power would only overflow.
        limit = min(self._patience.pause_s_max, self._patience.pause_s * 2.0 ** min(self.made - 1, 30))
        pause = self._chance() * limit + (retry_after_s or 0.0)
        return pause if self._clock() + pause < self._deadline else None


def is_passing(status: int) -> bool:
    """True where the same request may be answered otherwise later."""
    return status == TOO_MANY or status >= FAULT


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Read `Retry-After`: seconds or a date; None where there is none or it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = http_date(text)
    return None if moment is None else max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())


def http_date(text: str | None) -> datetime | None:
    """Read a header's date; None where it is none."""
    try:
        moment = parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
