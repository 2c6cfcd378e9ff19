"""How fast the core is: prints a table; is no test. `make bench`.

Absolute times belong to a machine and an hour; the ratio to the baseline (the standard library's JSON writer over the
same stored events, names sorted) is what to compare between versions.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from pipeline.domain.canonical import canonical_bytes, parse_document
from pipeline.domain.envelope import IncidentEvent, event_hash
from pipeline.domain.replay import fold, verify
from tests.e2e.recording import recording
from tests.simulation.world import World

ROUNDS = 5


async def recorded() -> tuple[World, list[str]]:
    messages = recording(1)
    world = World()
    for number, body in enumerate(messages):
        world.candidates.send(f"m{number}", body)
    await world.drain()
    return world, messages


async def again(messages: list[str]) -> None:
    world = World()
    for number, body in enumerate(messages):
        world.candidates.send(f"m{number}", body)
    while await world.deliver(world.candidates, world.candidates_door):
        pass


def measured(work: Callable[[], object], units: int) -> float:
    """Return the median microseconds a unit takes."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) / units * 1e6)
    return statistics.median(times)


def main() -> None:
    world, messages = asyncio.run(recorded())
    histories = {key: list(history.values()) for key, history in world.store.events.items()}
    events = [document for history in histories.values() for document in history]
    stored = world.store.incidents
    plain = [json.loads(canonical_bytes(document)) for document in events]
    rows = {
        "baseline: json.dumps of a stored event": (lambda: [json.dumps(one, sort_keys=True) for one in plain], len(events)),
        "canonical bytes of a stored event": (lambda: [canonical_bytes(one) for one in events], len(events)),
        "hash of a stored event": (lambda: [event_hash(one) for one in events], len(events)),
        "read a stored event": (lambda: [IncidentEvent.from_document(one) for one in events], len(events)),
        "check a history, per event": (
            lambda: [verify(key, one, stored[key]) for key, one in histories.items()],
            len(events),
        ),
        "fold a history, per event": (lambda: [fold(one) for one in histories.values()], len(events)),
        "parse a message": (lambda: [parse_document(one) for one in messages], len(messages)),
        "a message through door, decision, memory store": (lambda: asyncio.run(again(messages)), len(messages)),
    }
    table = Table(
        "what", "µs", "per second", "× baseline", title=f"{len(messages)} messages, {len(events)} events, median of {ROUNDS}"
    )
    baseline = 0.0
    for name, (work, units) in rows.items():
        taken = measured(work, units)
        baseline = baseline or taken
        table.add_row(name, f"{taken:,.1f}", f"{1e6 / taken:,.0f}", f"{taken / baseline:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
