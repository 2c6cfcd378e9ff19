"""What our own code takes of a read: the HTTP door over the memory store, in this process, with nothing of AWS around it."""

import asyncio
import statistics
import time

from tests.bench.load_readers import GET, LIST, PAGE
from tests.support.http import HttpWorld

ROUNDS = 300


async def _milliseconds() -> dict[str, float]:
    world = HttpWorld()
    identities = [await world.opened(service="load-00", dedupKey=f"key-{number}") for number in range(PAGE)]
    found = {}
    for operation, targets in (
        (GET, [f"/incidents/{identity}" for identity in identities]),
        (LIST, [f"/incidents?service=load-00&limit={PAGE}"]),
    ):
        times = []
        for turn in range(ROUNDS):
            began = time.perf_counter()
            answer = await world.call("GET", targets[turn % len(targets)])
            times.append((time.perf_counter() - began) * 1000)
            if answer.status != 200:
                raise RuntimeError(f"{operation} was answered {answer.status}: {answer.text}")
        found[operation] = statistics.median(times)
    return found


def milliseconds() -> dict[str, float]:
    """Return the median milliseconds of our code for each kind of read, request to answer."""
    return asyncio.run(_milliseconds())
