"""Starts, finds and stops the local engine: an AWS emulator in one process tree of this machine.

An engine belongs to the process that started it and ends with it, however that ends, until `release()` sets it free;
then `stop` ends it. One state folder has at most one engine. What is deployed into it is not here: see `deploy`.
"""

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.local import processes
from pipeline.local.environment import DEPLOY_MARK, ENGINE_MARK, for_supervisor
from pipeline.local.health import answers
from pipeline.local.paths import CHECKED, DEFAULT_STATE, ENGINE_PYTHON, StateFolder

START_WITHIN_S = 40.0
END_WITHIN_S = 8.0
POLL_S = 0.02
LOG_LINES_SHOWN = 15
FREE = b"f"


class EngineError(Exception):
    """The engine can't do what was asked; the text ends with what to do next."""


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """An engine that answered when it was asked."""

    state_dir: Path
    endpoint_url: str
    port: int
    pid: int
    supervisor_pid: int
    began: str
    leashed: bool
    owner_pid: int
    log: Path
    reused: bool
    leash: int | None = None
    checked: bool = False

    @property
    def identity(self) -> str:
        """Name this very engine: no later one has the same, even where pids are used again."""
        return f"{self.supervisor_pid}@{self.began}"

    def release(self) -> None:
        """Let the engine outlive this process, certainly by the return. On a reused engine nothing happens."""
        if self.leash is None:
            return
        try:
            os.write(self.leash, FREE)
        except BrokenPipeError as error:
            raise EngineError(f"The engine has ended.{tail(self.log)}\nNext: opx up") from error
        finally:
            os.close(self.leash)
        deadline = time.monotonic() + END_WITHIN_S
        while (known := read_running(StateFolder(self.state_dir))) is not None and known.leashed:
            if time.monotonic() > deadline:
                raise EngineError("The engine's supervisor does not answer. Next: opx down")
            time.sleep(POLL_S)


def start(state_dir: Path = DEFAULT_STATE, *, leash: bool = True, checked: bool | None = None) -> RunningEngine:
    """Return the engine of `state_dir`, started if none runs; it answers.

    With `leash` it ends when this process ends. With `checked` it checks signatures and permissions; None takes what runs.
    Raises EngineError if it can't start, if one runs that is not as asked for, or if it is on the leash of another process
    and so may vanish at any time.
    """
    if not ENGINE_PYTHON.exists():
        raise EngineError("The local engine is not set up. Next: make setup")
    state = StateFolder.at(state_dir)
    with locked(state.lock):
        running = find_running(state_dir)
        if running is not None and running.leashed and processes.began(running.owner_pid) is None:
            processes.wait_until_ended(running.supervisor_pid, running.began, END_WITHIN_S)
            running = find_running(state_dir)
        if running is None:
            return launch(state, leash, checked=bool(checked))
    if checked not in (None, running.checked):
        how = "does not check" if checked else "checks"
        raise EngineError(f"The engine that runs {how} signatures and permissions. Next: opx down")
    if running.leashed and running.owner_pid != os.getpid():
        raise EngineError(
            f"The engine belongs to another command (process {running.owner_pid}) and ends with it. "
            "Next: wait for that command, or end it with: opx down"
        )
    return running


def find_running(state_dir: Path = DEFAULT_STATE) -> RunningEngine | None:
    """Return the engine of `state_dir`, or None. A file left by an engine that has ended counts for nothing."""
    state = StateFolder(state_dir.resolve())
    known = read_running(state)
    if known is None:
        return None
    if not answers(known.port):
        # It may just be on its way out; its file goes last.
        if processes.wait_until_ended(known.supervisor_pid, known.began, END_WITHIN_S):
            return None
        raise EngineError(f"The engine (process {known.pid}) does not answer.{tail(state.log)}\nNext: opx down")
    return known


def stop(state_dir: Path = DEFAULT_STATE) -> bool:
    """End the engine of `state_dir` with all it started, and remove its scratch files; return whether one ran."""
    state = StateFolder(state_dir.resolve())
    known = read_running(state)
    if known is not None:
        processes.send(known.supervisor_pid, signal.SIGTERM)
        if not processes.wait_until_ended(known.supervisor_pid, known.began, END_WITHIN_S):
            processes.send(known.supervisor_pid, signal.SIGKILL)
            processes.wait_until_ended(known.supervisor_pid, known.began, END_WITHIN_S)
        processes.reap(known.supervisor_pid)
    left = end_strays(state)
    if left:
        raise EngineError(f"These processes of the engine would not end: {left}. Next: kill -9 {left[0]}")
    shutil.rmtree(state.scratch, ignore_errors=True)
    state.running.unlink(missing_ok=True)
    return known is not None


def read_running(state: StateFolder) -> RunningEngine | None:
    """Return what the state file says if its supervisor is still that very process, else None."""
    try:
        said = json.loads(state.running.read_text(encoding="utf-8"))
        known = RunningEngine(
            state_dir=state.root,
            endpoint_url=f"http://127.0.0.1:{said['port']}",
            port=int(said["port"]),
            pid=int(said["enginePid"]),
            supervisor_pid=int(said["supervisorPid"]),
            began=str(said["supervisorBegan"]),
            leashed=bool(said["leashed"]),
            owner_pid=int(said["ownerPid"]),
            log=state.log,
            reused=True,
            checked=bool(said.get("checked")),
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):  # not ours, or of another version: nothing that can be trusted
        return None
    return known if processes.is_alive(known.supervisor_pid, known.began) else None


def launch(state: StateFolder, leash: bool, *, checked: bool = False) -> RunningEngine:
    """Start a supervisor with its engine and wait until it answers."""
    clear_remains(state)
    held_by_it, held_by_us = os.pipe()
    try:
        supervisor = spawn_supervisor(state, held_by_it, checked=checked)
        engine = wait_until_ready(state, supervisor, held_by_us)
    except BaseException:
        os.close(held_by_us)  # the supervisor sees it and ends what it has begun
        raise
    finally:
        os.close(held_by_it)
    if not leash:
        engine.release()
    return engine


def clear_remains(state: StateFolder) -> None:
    """Remove what an engine left whose supervisor was killed outright."""
    left = end_strays(state)
    if left:
        raise EngineError(f"Processes of an earlier engine would not end: {left}. Next: kill -9 {left[0]}")
    shutil.rmtree(state.scratch, ignore_errors=True)
    state.running.unlink(missing_ok=True)


def end_strays(state: StateFolder) -> list[int]:
    """End every process that carries this state folder's mark; return those that would not."""

    def strays() -> list[int]:
        root = str(state.root)
        return processes.marked(ENGINE_MARK, root) + processes.marked(DEPLOY_MARK, root)

    deadline = time.monotonic() + END_WITHIN_S
    while left := strays():
        if time.monotonic() > deadline:
            return left
        for pid in left:
            processes.send(pid, signal.SIGKILL)
        time.sleep(POLL_S)
    return []


def spawn_supervisor(state: StateFolder, leash: int, *, checked: bool) -> int:
    """Start the supervisor with the leash on its standard input; return its pid."""
    opened = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    how = [CHECKED] if checked else []
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "pipeline.local.supervisor", str(state.root), str(os.getpid()), *how],
        for_supervisor(),
        file_actions=[
            (os.POSIX_SPAWN_DUP2, leash, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(state.log), opened, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
    )


def wait_until_ready(state: StateFolder, supervisor: int, leash: int) -> RunningEngine:
    """Return the engine once its supervisor says that it answers."""
    deadline = time.monotonic() + START_WITHIN_S
    while time.monotonic() < deadline:
        known = read_running(state)
        if known is not None and known.supervisor_pid == supervisor:
            return replace(known, reused=False, leash=leash)
        if supervisor in processes.reap(supervisor):
            break
        time.sleep(POLL_S)
    raise EngineError(f"The local engine could not start.{tail(state.log)}\nNext: read {state.log}, then: opx up")


def tail(log: Path) -> str:
    """Return the end of a log, indented, or that there is none."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return " It left no log."
    return "".join(f"\n  {line}" for line in lines[-LOG_LINES_SHOWN:])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it is given back even if this one is killed."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
