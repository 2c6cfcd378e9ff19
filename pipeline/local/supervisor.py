"""Watches over one engine: `python -m pipeline.local.supervisor STATE OWNER_PID [checked]`. Standard library only.

It holds the engine's leash, a pipe on standard input: the owner's end closes however the owner ends, even by SIGKILL,
and then the supervisor ends the engine with every process that came of it. A byte on the pipe sets the engine free:
from then on only SIGTERM (`opx down`) ends it. It must never outlive its engine, nor leave a file of it behind.
"""

import ctypes
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.local import processes
from pipeline.local.environment import DEPLOY_MARK, ENGINE_MARK, for_engine
from pipeline.local.health import answers
from pipeline.local.paths import CHECKED, ENGINE_PYTHON, ENGINE_SCRIPT, StateFolder

READY_WITHIN_S = 30.0
END_WITHIN_S = 4.0
TICK_S = 0.1
ATTEMPTS = 3
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
FREE = b"f"


@dataclass
class Watch:
    """What the supervisor knows while it runs."""

    state: StateFolder
    owner_pid: int
    leashed: bool = True
    stopping: bool = False
    engine_pid: int = 0
    port: int = 0
    checked: bool = False

    def engine_ended(self) -> bool:
        return self.engine_pid in processes.reap()


def main(state_root: Path, owner_pid: int, *, checked: bool = False) -> int:
    """Start the engine and stay until it or its owner ends; return the exit code."""
    watch = Watch(StateFolder.at(state_root), owner_pid, checked=checked)
    os.setsid()  # the owner's Ctrl-C is the owner's to handle
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def stop(number: int, frame: object) -> None:
        watch.stopping = True

    signal.signal(signal.SIGTERM, stop)
    try:
        if not any(start_engine(watch) for _ in range(ATTEMPTS)):
            return 1
        announce(watch)
        return stay(watch)
    finally:
        clean_up(watch)


def start_engine(watch: Watch) -> bool:
    """Start the engine on a free port; return whether it answers. False: it ended, another port may do."""
    watch.port = free_port()
    for folder in (watch.state.scratch, watch.state.home):
        folder.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen(
        # -P: the script's folder is no place to import from.
        [str(ENGINE_PYTHON), "-P", str(ENGINE_SCRIPT)],
        env=for_engine(watch.state, watch.port, checked=watch.checked),
        cwd=watch.state.scratch,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    watch.engine_pid = child.pid
    child.returncode = 0  # collected by processes.reap, together with whatever it leaves to us
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if watch.stopping or (watch.leashed and not held(watch, 0.0)):
            sys.exit(1)
        if watch.engine_ended():
            return False
        if answers(watch.port):
            return True
        time.sleep(0.02)
    log(f"the engine did not answer on port {watch.port} within {READY_WITHIN_S:.0f} s")
    sys.exit(1)


def stay(watch: Watch) -> int:
    """Wait for the end of the engine (1) or of the need for it (0)."""
    while not watch.stopping:
        if watch.engine_ended():
            log("the engine ended by itself")
            return 1
        if not watch.leashed:
            time.sleep(TICK_S)
        elif not held(watch, TICK_S):
            log(f"its owner, process {watch.owner_pid}, has ended")
            return 0
    return 0


def held(watch: Watch, within_s: float) -> bool:
    """Return whether the owner still holds the leash or has set the engine free."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        if not selector.select(within_s):
            return True
    if os.read(0, 1) != FREE:
        return False
    watch.leashed = False
    if watch.state.running.exists():
        announce(watch)
    return True


def announce(watch: Watch) -> None:
    """Write who runs, whole or not at all."""
    own = os.getpid()
    content = {
        "supervisorPid": own,
        "supervisorBegan": processes.began(own),
        "enginePid": watch.engine_pid,
        "port": watch.port,
        "ownerPid": watch.owner_pid,
        "leashed": watch.leashed,
        "checked": watch.checked,
    }
    fresh = watch.state.running.with_suffix(".new")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(watch.state.running)


def clean_up(watch: Watch) -> None:
    """End everything that came of the engine, and remove its files."""
    root = str(watch.state.root)

    def ours() -> list[int]:
        strays = processes.marked(ENGINE_MARK, root) + processes.marked(DEPLOY_MARK, root)
        return [*processes.descendants(os.getpid()), *strays]

    if watch.engine_pid:
        try:
            os.killpg(watch.engine_pid, signal.SIGKILL)
        except ProcessLookupError:
            log("the engine's process group was gone already")
    left = processes.end_all(ours, END_WITHIN_S)
    if left:
        log(f"these processes would not end: {left}")
    shutil.rmtree(watch.state.scratch, ignore_errors=True)
    watch.state.running.unlink(missing_ok=True)


def free_port() -> int:
    """Return a port of the loopback interface that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prctl(option: int, value: int) -> None:
    """Call Linux's prctl; elsewhere nothing (there the process group alone serves)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def log(message: str) -> None:
    print(f"supervisor: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), checked=CHECKED in sys.argv[3:]))
