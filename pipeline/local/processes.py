"""Which processes exist, whose they are, and how to end them for certain. POSIX; no dependency.

A pid alone proves nothing, for pids are used again: an identity is the pid and the moment it began. Nothing here
ends a process but those that descend from the caller or carry an engine's mark.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

PROC = Path("/proc")
HAS_PROC = (PROC / "self" / "stat").exists()
POLL_S = 0.02


def began(pid: int) -> str | None:
    """Return when `pid` began, as the system tells it; None if it has ended (a zombie has)."""
    if not HAS_PROC:
        shown = run_ps("-o", "stat=,lstart=", "-p", str(pid))
        return None if not shown or shown[0].startswith("Z") else shown[0].split(maxsplit=1)[1]
    fields = stat_fields(pid)
    return None if fields is None or fields[0] in "ZX" else fields[19]


def is_alive(pid: int, began_at: str) -> bool:
    """Return whether `pid` is still the process that began at `began_at`."""
    return began(pid) == began_at


def descendants(root: int) -> list[int]:
    """Return all living processes that descend from `root`, without itself."""
    children: dict[int, list[int]] = {}
    for pid, parent in parents():
        children.setdefault(parent, []).append(pid)
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def marked(name: str, value: str) -> list[int]:
    """Return all processes whose environment holds name=value. Only Linux can tell; elsewhere none."""
    if not HAS_PROC:
        return []
    wanted = f"{name}={value}".encode()
    found = []
    for pid in pids():
        try:
            variables = (PROC / str(pid) / "environ").read_bytes().split(b"\0")
        except OSError:  # ended meanwhile, or another user's
            continue
        if wanted in variables and pid != os.getpid():
            found.append(pid)
    return found


def end_all(victims: Callable[[], Iterable[int]], within_s: float) -> list[int]:
    """Kill what `victims` names until it names none; return what is left after `within_s`.

    Asked again each time: a victim may have started another before it died.
    """
    deadline = time.monotonic() + within_s
    while True:
        reap()
        left = [pid for pid in victims() if began(pid) is not None]
        if not left or time.monotonic() > deadline:
            return left
        for pid in left:
            send(pid, signal.SIGKILL)
        time.sleep(POLL_S)


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that has ended meanwhile is fine."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def wait_until_ended(pid: int, began_at: str, within_s: float) -> bool:
    """Return whether that very process ended within `within_s`."""
    deadline = time.monotonic() + within_s
    while is_alive(pid, began_at):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def reap(only: int = -1) -> dict[int, int]:
    """Collect children that have ended; return their exit codes. `only` is a pid; by default any child."""
    collected: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(only, os.WNOHANG)
        except ChildProcessError:
            return collected
        if pid == 0:
            return collected
        collected[pid] = os.waitstatus_to_exitcode(status)


def pids() -> list[int]:
    """Return the pids of all processes."""
    if HAS_PROC:
        return [int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()]
    return [int(line) for line in run_ps("-A", "-o", "pid=")]


def parents() -> list[tuple[int, int]]:
    """Return (pid, parent's pid) of all processes."""
    if not HAS_PROC:
        rows = [line.split() for line in run_ps("-A", "-o", "pid=,ppid=")]
        return [(int(pid), int(parent)) for pid, parent in rows]
    known = ((pid, stat_fields(pid)) for pid in pids())
    return [(pid, int(fields[1])) for pid, fields in known if fields is not None]


def stat_fields(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat after the name (state, parent, …), or None if it has ended."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def run_ps(*arguments: str) -> list[str]:
    """Return the non-empty lines of ps, which knows where there is no /proc."""
    shown = subprocess.run(["ps", *arguments], capture_output=True, text=True, check=False)
    return [line.strip() for line in shown.stdout.splitlines() if line.strip()]
