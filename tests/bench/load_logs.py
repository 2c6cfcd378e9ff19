"""What the functions themselves say about a load: their canonical log lines and the metrics in them."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from tests.support.stack import Stack

# The engine returns 10,000 lines at most and no token to go on with, so it is asked for a few seconds at a time.
WINDOW_MS: Final = 5_000
LINES_MAX: Final = 10_000


def lines(stack: Stack, function: str, since: float, until: float) -> Iterator[dict[str, Any]]:
    """Yield the JSON lines that a function logged between two times of day."""
    start, end = round(since * 1000), round(until * 1000)
    while start <= end:
        yield from _window(stack, function, start, min(end, start + WINDOW_MS - 1))
        start += WINDOW_MS


def _window(stack: Stack, function: str, start: int, end: int) -> Iterator[dict[str, Any]]:
    group = f"/aws/lambda/{stack.outputs[function]}"
    events = stack.client("logs").filter_log_events(logGroupName=group, startTime=start, endTime=end)["events"]
    if len(events) >= LINES_MAX and end > start:
        middle = (start + end) // 2
        yield from _window(stack, function, start, middle)
        yield from _window(stack, function, middle + 1, end)
        return
    for event in events:
        if event["message"].startswith("{"):
            yield json.loads(event["message"])


def logged_at(line: dict[str, Any]) -> float:
    """Return the time of day of a canonical line."""
    return datetime.strptime(line["timestamp"], "%Y-%m-%d %H:%M:%S,%f%z").timestamp()


def values(line: dict[str, Any], metric: str) -> list[float]:
    """Return a metric's values in a line; none where it isn't one of metrics or holds others."""
    if "_aws" not in line or metric not in line:
        return []
    found = line[metric]
    return [float(one) for one in (found if isinstance(found, list) else [found])]
