"""How fast a replay of an export is on one core, and whether its memory grows: prints a table; is no test.

`python -m tests.bench.replay [EVENTS ...]`: for each number a made-up export of so many events, replayed in a process of its
own with the fold and the hash chain on. The baseline reads the same files line by line with the standard library's JSON.
"""

import gzip
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.replay.exports import find_exports
from pipeline.replay.partition import Wanted
from pipeline.replay.verifying import Place, replay, spread_exports
from tests.bench.exported import write

SIZES = (10_000, 100_000, 1_000_000)


def nothing(_: int) -> None:
    pass


def replayed(folder: Path) -> dict[str, float]:
    """Replay an export in this process; return what it took."""
    exports = find_exports([folder])
    with tempfile.TemporaryDirectory() as work:
        place = Place(Path(work))
        began = time.process_time()
        spread = spread_exports(place, exports.values(), None, nothing)
        counts = replay(place, Wanted(rows=False, receipts=False), spread.items, nothing)
        taken = time.process_time() - began
    assert counts.divergences == 0, counts.kinds
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"events": counts.events, "seconds": taken, "peakMiB": peak_kib / 1024}


def read_by_the_standard_library(folder: Path) -> float:
    """Return the seconds it takes to do no more than parse the same lines."""
    began = time.process_time()
    for path in folder.rglob("*.json.gz"):
        with gzip.open(path, "rb") as lines:
            for line in lines:
                json.loads(line)
    return time.process_time() - began


def in_a_process_of_its_own(folder: Path) -> dict[str, float]:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.bench.replay", str(folder)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(ran.stdout)
    return found


def main(sizes: tuple[int, ...]) -> None:
    table = Table(
        "events",
        "events/s on a core",
        "µs an event",
        "× baseline",
        "peak memory",
        title=f"replay of an export, {os.uname().machine}",
    )
    for size in sizes:
        with tempfile.TemporaryDirectory() as made:
            folder = write(Path(made), size)
            baseline = read_by_the_standard_library(folder)
            found = in_a_process_of_its_own(folder)
        each = found["seconds"] / found["events"] * 1e6
        table.add_row(
            f"{found['events']:,.0f}",
            f"{1e6 / each:,.0f}",
            f"{each:.1f}",
            f"{found['seconds'] / baseline:.1f}",
            f"{found['peakMiB']:.0f} MiB",
        )
    Console().print(table)


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].isdecimal():
        sys.stdout.write(json.dumps(replayed(Path(sys.argv[1]))))
    else:
        main(tuple(int(text) for text in sys.argv[1:]) or SIZES)
