"""Bytes that the functions log for each step of an incident's life: the real doors and their real lines, in memory.

Must run in a process of its own: a logger remembers where it wrote first.
"""

import asyncio
import io
import json
import sys
from contextlib import redirect_stdout
from typing import Any, Final

from pipeline.domain.authority import Sender
from pipeline.runtime.telemetry import Telemetry
from pipeline.runtime.telemetry_scheduled import RetentionTelemetry
from pipeline.services.retention import Archival, RetentionService
from tests.bench.cost_lifecycle import (
    ARCHIVED,
    BODY,
    CLOSED,
    COMMANDS,
    COPY,
    JOINED,
    JOINED_AGAIN,
    MITIGATED,
    OPENED,
    REASON,
    RESOLVED,
    RETAINED,
)
from tests.simulation.world import SENDER, World, record_of
from tests.support.http import HttpWorld

REQUEST: Final = "463a8819-8ad5-47e6-9af2-07e4cee26b54"
FANOUT: Final = "fan-out of a transaction"
READ: Final = "a read by the API"


class Paper:
    """What was written to standard output since the last look."""

    def __init__(self, output: io.StringIO) -> None:
        self.output = output
        self.seen = 0
        self.metrics: set[str] = set()

    def taken(self) -> dict[str, int]:
        """Return bytes and lines; line ends are not ingested."""
        text = self.output.getvalue()[self.seen :]
        self.seen += len(text)
        lines = text.splitlines()
        for line in map(json.loads, lines):
            told = line.get("_aws", {}).get("CloudWatchMetrics", ())
            self.metrics |= {f"{line['service']}/{metric['Name']}" for one in told for metric in one["Metrics"]}
        return {"bytes": sum(len(line.encode()) for line in lines), "lines": len(lines)}


async def _queues(paper: Paper) -> dict[str, dict[str, int]]:
    """Candidates by their door, then the fan-out of one transaction, then retention, on one virtual clock."""
    telemetry, fanout = Telemetry("opx-candidates"), Telemetry("opx-fanout")
    world = World(report=telemetry.settled)
    telemetry.begin(REQUEST)
    fanout.begin(REQUEST)
    found = {}
    for step, message in ((OPENED, "1"), (JOINED, "2"), (JOINED_AGAIN, "3"), (COPY, "1")):
        world.candidates.send(f"158529b0-8b43-4097-9c68-29e9ae648f3{message}", json.dumps(BODY))
        await world.deliver(world.candidates, world.candidates_door)
        telemetry.flush()
        found[step] = paper.taken()
    fanout.relayed(await world.fanout.relay([record_of(one) for one in world.store.feed[:2]]))
    fanout.flush()
    found[FANOUT] = paper.taken()
    (identity,) = world.store.incidents
    for state in COMMANDS.values():
        body = {"type": "change-state", "incidentId": identity, "newState": state, "authority": "HUMAN", "reason": REASON}
        world.commands.send(f"command-{state}", json.dumps(body), identity)
        await world.deliver(world.commands, world.commands_door)
    telemetry.flush()
    paper.taken()
    world.clock.seconds += RETAINED.total_seconds() * 2
    retention, archived = RetentionTelemetry(), []
    retention.begin(REQUEST)

    def tell(archival: Archival) -> None:
        archived.append(archival)
        retention.archived(archival)

    deadline = world.clock.monotonic() + 900
    await RetentionService(world.controller, Sender(SENDER), RETAINED).run(None, deadline, tell)
    retention.flush()
    if len(archived) != 1:
        raise RuntimeError(f"retention archived {len(archived)} incidents, not one")
    found[ARCHIVED] = paper.taken()
    return found


async def _requests(paper: Paper) -> dict[str, dict[str, int]]:
    """A person's steps, and a read, by the HTTP door."""
    telemetry, world, found = Telemetry("opx-api"), HttpWorld(), {}
    telemetry.begin(REQUEST)
    identity = await world.opened(**BODY)

    async def asked(step: str, method: str, target: str, body: Any = None) -> None:
        answer = await world.call(method, target, body, idempotency_key=f"key-{step}")
        if answer.status != 200:
            raise RuntimeError(f"{step}: {answer.status} {answer.text}")
        telemetry.answered(world.reports[-1])
        telemetry.flush()
        found[step] = paper.taken()

    paper.taken()
    for step in (MITIGATED, RESOLVED, CLOSED):
        body = {"newState": COMMANDS[step], "authority": "HUMAN", "reason": REASON}
        await asked(step, "PATCH", f"/incidents/{identity}/state", body)
    await asked(READ, "GET", f"/incidents/{identity}")
    return found


async def counted() -> dict[str, Any]:
    """Return bytes and lines by step, and which metrics were written on the way, as service/name."""
    output = io.StringIO()
    with redirect_stdout(output):
        paper = Paper(output)
        logged = await _queues(paper) | await _requests(paper)
    return {"logged": logged, "metrics": sorted(paper.metrics)}


if __name__ == "__main__":
    json.dump(asyncio.run(counted()), sys.stdout)
