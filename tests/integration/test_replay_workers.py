"""A replay over several processes: the same as in one, ended within moments when it shall, and leaving nothing behind."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.domain.divergences import Divergence
from pipeline.replay.exports import ExportError, find_exports
from pipeline.replay.partition import Wanted
from pipeline.replay.verifying import Place, divergences, replay, spread_exports
from pipeline.replay.workers import Beat, Stopped, WorkerLost, Workers
from tests.bench.exported import write
from tests.support.damages import DAMAGES, lived
from tests.support.exporting import export, tables_of

pytestmark = pytest.mark.long

OPX = str(Path(sys.executable).parent / "opx")
ENOUGH_S = 20.0


def nothing(_: int) -> None:
    pass


def verified(folder: Path, at: Path, workers: Workers) -> tuple[int, list[Divergence]]:
    """Return how many events there are, and what is wrong with them."""
    place = Place(at, workers=workers)
    spread = spread_exports(place, find_exports([folder]).values(), None, nothing)
    counts = replay(place, Wanted(), spread.items, nothing)
    return counts.events, sorted([*spread.found, *divergences(place)], key=str)


def whose_process(_: int, beat: Beat) -> int:
    beat(1)
    return os.getpid()


def for_ever(at: Path, beat: Beat) -> None:
    at.touch()
    while True:
        beat(0)
        time.sleep(0.01)


def ended_from_outside(_: int, beat: Beat) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + ENOUGH_S
    while not holds():
        assert time.monotonic() < ends, "it took too long"
        time.sleep(0.02)


async def test_several_processes_find_what_one_finds(tmp_path: Path) -> None:
    tables = tables_of(await lived())
    for damage in ("metadata", "dropped middle", "row state"):
        DAMAGES[damage][0](tables)
    folder = export(tables, tmp_path / "export")
    alone = verified(folder, tmp_path / "alone", Workers())
    assert alone[1]
    with Workers(2, alone_below=0) as workers:
        assert verified(folder, tmp_path / "together", workers) == alone


def test_a_damaged_file_is_named_by_several_processes_as_well(tmp_path: Path) -> None:
    folder = write(tmp_path, 400)
    damaged = min(folder.rglob("*.json.gz"))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with Workers(2, alone_below=0) as workers, pytest.raises(ExportError, match=damaged.name):
        verified(folder, tmp_path / "work", workers)


def test_all_of_a_replay_shares_the_processes_and_they_end_with_it() -> None:
    tasks = [(number,) for number in range(8)]
    with Workers(2, alone_below=0) as workers:
        told: list[int] = []
        pids = {pid for _ in range(3) for pid in workers.run(whose_process, tasks, 8, told.append)}
        assert os.getpid() not in pids
        assert len(pids) <= 2
        assert max(told) <= 8
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def test_too_little_for_several_is_done_in_this_process() -> None:
    with Workers(2, alone_below=100) as workers:
        told: list[int] = []
        assert set(workers.run(whose_process, [(1,), (2,)], 99, told.append)) == {os.getpid()}
        assert told == [1, 2]


@pytest.mark.parametrize("processes", [1, 2])
def test_told_to_stop_it_ends_within_moments(tmp_path: Path, processes: int) -> None:
    began = tmp_path / "began"

    def stop_when_it_runs() -> None:
        until(began.exists)
        workers.stop()

    with Workers(processes, alone_below=0) as workers:
        stopping = threading.Thread(target=stop_when_it_runs)
        stopping.start()
        with pytest.raises(Stopped):
            list(workers.run(for_ever, [(began,), (began,)], 1, nothing))
        stopping.join()


def test_a_process_that_is_killed_is_told_and_waited_for_by_nobody() -> None:
    with Workers(2, alone_below=0) as workers, pytest.raises(WorkerLost, match="ended from outside"):
        list(workers.run(ended_from_outside, [(1,), (2,)], 1, nothing))


def test_what_a_worker_runs_first_imports_no_command_line() -> None:
    # The script's head, as it is run again in every worker.
    (head,) = [line for line in Path(OPX).read_text().splitlines() if line.startswith("from pipeline")]
    asked = f"{head}\nimport sys\nprint(len(sys.modules.keys() & {{'typer', 'rich', 'aiobotocore'}}))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout == "0\n"


def begun(tmp_path: Path, processes: int) -> tuple[subprocess.Popen[str], Path]:
    """Begin a replay that lasts, in a group of its own; return it and the folder it works in, once it does."""
    folder, work = write(tmp_path / "export", 2_000), tmp_path / "work"
    manifest = next(folder.rglob("manifest-files.json"))
    files = {Path(json.loads(line)["dataFileS3Key"]).name: line for line in manifest.read_text().splitlines()}
    lines = list(files.values())
    for name, copy in itertools.product(files, range(30)):
        shutil.copy(manifest.parent / "data" / name, manifest.parent / "data" / f"{copy}-{name}")
        lines.append(files[name].replace(name, f"{copy}-{name}"))
    manifest.write_text("\n".join(lines))
    summary = manifest.with_name("manifest-summary.json")
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"itemCount": 2_000 * 31}))
    command = [OPX, "replay", "verify", "--export", str(folder), "--work-in", str(work), "--processes", str(processes)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    until(lambda: any(work.rglob("events/*")))
    return running, work


def all_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_leaves_neither_a_folder_nor_a_process(tmp_path: Path, processes: int) -> None:
    running, work = begun(tmp_path, processes)
    os.killpg(running.pid, signal.SIGINT)
    out, err = running.communicate(timeout=ENOUGH_S)
    assert (running.returncode, out, err) == (130, "", "")
    assert list(work.iterdir()) == []
    until(lambda: all_gone(running.pid))


def test_workers_end_with_a_command_that_was_killed(tmp_path: Path) -> None:
    running, _ = begun(tmp_path, 2)
    running.kill()
    running.communicate(timeout=ENOUGH_S)
    until(lambda: all_gone(running.pid))
