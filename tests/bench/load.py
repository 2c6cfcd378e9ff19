"""A load on the real template in the local engine: prints tables and proves that nothing was lost. `make load`; is no test.

Sizes by the environment: MINUTES (10), RATE (1000 incidents a minute), READERS (clients of one read a second each; a share
of what this machine can do where not given), READ_S (60), LOAD_SEED. Exit code 1 where a claim of the proof does not hold.
Absolute times belong to a machine and an hour; the machine is printed with them.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from pipeline.cli.subscription import pattern_of, subscribe
from pipeline.local import engine as local_engine
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from pipeline.stores.clients import open_clients
from tests.bench import load_logs, load_proof, load_readers, load_report
from tests.bench.load_plan import Plan, plan
from tests.bench.load_readers import GET, LIST, Readers
from tests.bench.load_samples import Samples, Work, worked
from tests.bench.load_writers import INSIDE, INTAKE, Writers
from tests.support.signed import api_url
from tests.support.stack import Stack, deployed

PROGRESS_S: Final = 10.0
# Of what the machine can answer when nothing else runs, while writers run and when readers are alone.
SHARE_BESIDE, SHARE_ALONE = 0.25, 0.6
AT_ONCE: Final = (1, 2, 4, 8)
CALIBRATE_S: Final = 4.0
DRAIN_WITHIN_S: Final = 900.0
STUCK_S: Final = 180.0


@dataclass(frozen=True)
class Size:
    """What was asked for."""

    minutes: float
    rate: int
    readers: int | None
    read_s: float
    seed: int

    @classmethod
    def asked(cls) -> "Size":
        given = os.environ.get
        return cls(
            minutes=float(given("MINUTES") or 10),
            rate=int(given("RATE") or 1000),
            readers=int(text) if (text := given("READERS")) else None,
            read_s=float(given("READ_S") or 60),
            seed=int(given("LOAD_SEED") or random.SystemRandom().randrange(2**32)),
        )


@dataclass
class Measured:
    """All that is found out, for the report."""

    size: Size
    plan: Plan
    written: Samples = field(default_factory=Samples)
    beside: Samples = field(default_factory=Samples)
    alone: Samples = field(default_factory=Samples)
    single: Samples = field(default_factory=Samples)
    inside_ms: dict[str, list[float]] = field(default_factory=dict)
    fanout_lag_ms: list[float] = field(default_factory=list)
    depths: list[tuple[float, ...]] = field(default_factory=list)
    most_reads: float = 0.0
    clients_beside: int = 0
    clients_alone: int = 0
    write_s: float = 0.0
    drain_s: float = 0.0
    published: int = 0
    invocations: dict[str, int] = field(default_factory=dict)
    work: dict[str, tuple[Work, float]] = field(default_factory=dict)


async def load(stack: Stack, measured: Measured, say: Console) -> list[load_proof.Claim]:
    """Run all phases; return what was proved."""
    size, began = measured.size, time.time()
    services = ("sqs", "events")
    keys = (ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    rng = random.Random(size.seed)
    async with (
        open_clients(services, region=REGION, endpoint_url=stack.endpoint_url, keys=keys) as clients,
        load_readers.client() as http,
        subscribe(clients, stack.outputs["BusName"], "load", pattern_of(("IncidentOpened",))) as subscription,
    ):
        readers = Readers(api_url(stack), rng, http)
        say.print("[dim]calibrating the readers on a quiet engine")
        await answering(readers)
        measured.most_reads = await readers.most(AT_ONCE, CALIBRATE_S)
        writers = Writers(clients, stack.outputs, measured.plan, measured.written)
        readers.incidents = writers.opened  # grows as they are heard of
        measured.clients_beside = round(measured.most_reads * SHARE_BESIDE) if size.readers is None else size.readers
        say.print(
            f"[dim]{measured.most_reads:,.0f} listings a second at most; now {size.rate:,} incidents a minute for "
            f"{size.minutes:g} min beside {measured.clients_beside:,} readers"
        )
        async with timed(stack, measured, "writing and reading"), asyncio.TaskGroup() as group:
            acting = group.create_task(writers.act(subscription))
            watching = group.create_task(watch(writers, readers, measured, say))
            reading = group.create_task(readers.open_loop(measured.clients_beside, size.minutes * 60, measured.beside))
            await write(writers, reading, measured)
            acting.cancel()
            watching.cancel()
        await read_alone(stack, readers, measured, say)
    say.print("[dim]reading the functions' logs and the tables")
    tell_from_logs(stack, measured, writers, began)
    found = load_proof.stored(stack, writers.heard, measured.published)
    return list(load_proof.claims(measured.plan, found))


async def answering(readers: Readers) -> None:
    """Let the functions' processes start. Raises EngineError where the API answers nothing: no load would tell anything."""
    first = Samples()
    await readers.closed_loop(2, 2.0, first, LIST)
    if first.errors:
        told = ", ".join(f"{many} × {kind}" for kind, many in first.errors[LIST].items())
        raise local_engine.EngineError(f"The deployed API does not answer ({told}). Next: opx up, then opx list")


async def write(writers: Writers, reading: asyncio.Task[None], measured: Measured) -> None:
    """Write the plan, and wait until all of it is worked off and the readers beside it are answered."""
    began = time.monotonic()
    await writers.send()
    measured.write_s = time.monotonic() - began
    await reading
    await drained(writers, measured)
    measured.drain_s = time.monotonic() - began - measured.write_s


async def watch(writers: Writers, readers: Readers, measured: Measured, say: Console) -> None:
    """Print a line every ten seconds, and keep how deep the queues are."""
    began = time.monotonic()
    for tick in range(1, 1_000_000):
        await asyncio.sleep(max(0.0, began + tick * PROGRESS_S - time.monotonic()))
        depths = [await writers.depth(queue) for queue in INTAKE]  # candidates, commands
        measured.depths.append((time.monotonic() - began, *depths))
        say.print(
            f"[dim]{time.monotonic() - began:5.0f} s  sent {len(writers.due):,} of "
            f"{len(measured.plan.arrivals) + writers.commands_planned:,}, heard {len(writers.heard):,} opened, "
            f"in the queues {depths[0]:,} candidates and {depths[1]:,} commands, {readers.asked:,} reads"
        )


async def drained(writers: Writers, measured: Measured) -> None:
    """Wait until everything was sent, heard and settled; give up where nothing moves any more."""
    deadline = time.monotonic() + DRAIN_WITHIN_S
    before, moved = (0, 0, 0), time.monotonic()
    while time.monotonic() < deadline:
        now = (len(writers.due), len(writers.heard), await writers.depth(*INTAKE))
        if writers.all_is_sent and now[1] >= len(measured.plan.detections) and now[2] == 0:
            return
        if now != before:
            before, moved = now, time.monotonic()
        elif time.monotonic() > moved + STUCK_S:
            return
        await asyncio.sleep(0.5)


async def read_alone(stack: Stack, readers: Readers, measured: Measured, say: Console) -> None:
    """Measure readers when nobody writes: one at a time, as many as can be, and an open rate below that."""
    if measured.size.read_s <= 0:
        return
    readers.incidents = sorted(measured.plan.detections)
    for operation in (GET, LIST):
        began = time.time()
        await readers.closed_loop(1, 3.0, measured.single, operation)
        inside = load_logs.lines(stack, "ApiFunctionName", began, time.time())
        measured.inside_ms[operation] = [value for line in inside for value in load_logs.values(line, "ApiLatency")]
    measured.most_reads = await readers.most(AT_ONCE, CALIBRATE_S)
    measured.clients_alone = (
        round(measured.most_reads * SHARE_ALONE) if measured.size.readers is None else measured.size.readers
    )
    say.print(f"[dim]{measured.clients_alone:,} readers alone for {measured.size.read_s:g} s")
    async with timed(stack, measured, "reading alone"):
        await readers.open_loop(measured.clients_alone, measured.size.read_s, measured.alone)


def tell_from_logs(stack: Stack, measured: Measured, writers: Writers, began: float) -> None:
    """Take from the functions' lines when each message was settled, how it went, and how late the fan-out was."""
    now, settled = time.time(), set()
    for function, inside in zip(("CandidatesFunctionName", "CommandsFunctionName"), INSIDE, strict=True):
        requests = set()
        for line in load_logs.lines(stack, function, began, now):
            requests.add(line.get("request_id"))
            known = writers.due.get(line.get("message_id", ""))
            if known is None or line["message"] != "message":
                continue
            kind, due = known
            if line["outcome"] not in ("applied", "replayed"):
                measured.written.failed(kind, line.get("code") or line.get("error") or line["outcome"])
            elif line["message_id"] not in settled:
                settled.add(line["message_id"])
                measured.written.took(kind, (load_logs.logged_at(line) - due) * 1000)
                measured.written.took(inside, line["duration_ms"])
        measured.invocations[function] = len(requests - {None})
    for line in load_logs.lines(stack, "FanoutFunctionName", began, now):
        measured.published += round(sum(load_logs.values(line, "EventsPublished")))
        measured.fanout_lag_ms += load_logs.values(line, "FanoutLag")


@asynccontextmanager
async def timed(stack: Stack, measured: Measured, phase: str) -> AsyncIterator[None]:
    """Keep whom the processors worked for during a phase, and how long it took."""
    before, began = worked(stack.engine), time.monotonic()
    yield
    measured.work[phase] = (worked(stack.engine).since(before), time.monotonic() - began)


def main() -> int:
    size, say = Size.asked(), Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    say.print(f"LOAD_SEED={size.seed} repeats this load's choices")
    measured = Measured(size, plan(random.Random(size.seed), size.rate, size.minutes))
    with tempfile.TemporaryDirectory(prefix="opx-load-") as folder:
        state = Path(folder)
        try:
            say.print("[dim]starting an engine of its own and deploying into it")
            stack = deployed(local_engine.start(state, leash=True))
            proved = asyncio.run(load(stack, measured, say))
        finally:
            local_engine.stop(state)
    load_report.show(measured, proved, say)
    return 0 if all(claim.holds for claim in proved) and not load_report.unsent(measured) else 1


if __name__ == "__main__":
    sys.exit(main())
