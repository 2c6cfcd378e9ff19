"""The local engine's life: one at a time, reused while it runs, and gone without trace when its owner is gone.

Only the engine is started here, nothing is deployed. Traces are looked for from outside, by the state folder's name
in every process's command line and environment.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.local import deploy, processes
from pipeline.local.deploy import aws
from pipeline.local.engine import EngineError, RunningEngine, find_running, start, stop
from pipeline.local.health import answers
from pipeline.local.paths import PROJECT_ROOT, PYTHON_MINOR, StateFolder

pytestmark = pytest.mark.engine

SECRET = "a-real-secret-of-a-person"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
A_PERSONS = dict.fromkeys((*PROXIES, "AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), SECRET)

OWNER = """
import sys, time
from pathlib import Path
from pipeline.local.engine import start
engine = start(Path(sys.argv[1]), leash=sys.argv[2] == "leash")
print(engine.endpoint_url, flush=True)
if sys.argv[3] == "stay":
    time.sleep(60)
"""

# A function that leaves a process behind which has left its session: no process group reaches it.
STRAY = """
import subprocess
def handler(event, context):
    return subprocess.Popen(["sleep", "300"], start_new_session=True).pid
"""


# A function that tells what it sees.
MIRROR = """
import os
def handler(event, context):
    return dict(os.environ)
"""


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "engine"
    yield folder
    stop(folder)


def tmp_program(folder: Path, line: str) -> Path:
    """Return a program that does what a line of shell says."""
    folder.mkdir(exist_ok=True)
    program = folder / "program"
    program.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def traces(state: Path) -> list[str]:
    """Return every living process, this one aside, whose command line or environment names `state`."""
    if not processes.HAS_PROC:
        return [row for row in processes.run_ps("-A", "-o", "pid=,args=") if str(state) in row]
    found = []
    for pid in processes.pids():
        if pid == os.getpid() or processes.began(pid) is None:
            continue
        try:
            about = b"".join(Path(f"/proc/{pid}/{part}").read_bytes() for part in ("cmdline", "environ"))
        except OSError:  # ended meanwhile
            continue
        if str(state).encode() in about:
            found.append(f"{pid} {about[:120]!r}")
    return found


def wait_until(holds: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def own(state: Path, leash: str, stay: str, **environment: str) -> subprocess.Popen[str]:
    """Start another process that starts the engine."""
    return subprocess.Popen(
        [sys.executable, "-c", OWNER, str(state), leash, stay],
        cwd=PROJECT_ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def endpoint_of(owner: subprocess.Popen[str]) -> str:
    assert owner.stdout is not None
    return owner.stdout.readline().strip()


def invoke(engine: RunningEngine, name: str, source: str) -> Any:
    """Make a function of this source and return what it answers."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{name}.py", source)
    client = aws(engine.endpoint_url, "lambda")
    client.create_function(
        FunctionName=name,
        Runtime=f"python{PYTHON_MINOR}",
        Role=f"arn:aws:iam::000000000000:role/{name}",
        Handler=f"{name}.handler",
        Code={"ZipFile": packed.getvalue()},
    )
    with client.invoke(FunctionName=name)["Payload"] as payload:
        return json.loads(payload.read())


def leave_a_stray(engine: RunningEngine) -> int:
    """Let a function of the engine start a process that detaches itself; return its pid."""
    return int(invoke(engine, "stray", STRAY))


def test_second_start_reuses_the_running_engine(state: Path) -> None:
    first = start(state)
    second = start(state)
    assert (second.pid, second.identity, second.endpoint_url) == (first.pid, first.identity, first.endpoint_url)
    assert (first.reused, second.reused) == (False, True)
    assert answers(second.port)


def test_stop_leaves_no_process_and_no_scratch(state: Path) -> None:
    engine = start(state)
    stray = leave_a_stray(engine)
    assert processes.began(stray) is not None
    assert stop(state)
    assert traces(state) == []
    assert processes.began(stray) is None
    assert not answers(engine.port)
    assert {path.name for path in state.iterdir()} == {"engine.log", "home", "start.lock"}


def test_stop_without_an_engine_says_so(state: Path) -> None:
    assert not stop(state)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_owner_that_ends_takes_its_engine_along(state: Path, number: signal.Signals) -> None:
    with own(state, "leash", "stay") as owner:
        assert endpoint_of(owner).startswith("http://127.0.0.1:")
        engine = find_running(state)
        assert engine is not None
        stray = leave_a_stray(engine)
        owner.send_signal(number)
        owner.communicate()
    assert wait_until(lambda: traces(state) == [], within_s=5), traces(state)
    assert processes.began(stray) is None
    assert find_running(state) is None
    assert not (state / "scratch").exists()


def test_an_owner_killed_while_starting_leaves_nothing(state: Path) -> None:
    with own(state, "leash", "stay") as owner:
        assert wait_until(lambda: len(traces(state)) > 1, within_s=10)
        owner.kill()
        owner.communicate()
    assert wait_until(lambda: traces(state) == [], within_s=5), traces(state)


def test_a_released_engine_outlives_its_owner(state: Path) -> None:
    with own(state, "free", "go") as owner:
        endpoint = endpoint_of(owner)
        owner.communicate()
    assert owner.returncode == 0
    time.sleep(0.5)  # longer than the supervisor takes to notice an owner's end
    engine = start(state)
    assert engine.reused
    assert engine.endpoint_url == endpoint
    assert not engine.leashed
    assert stop(state)
    assert traces(state) == []


def test_two_starts_at_once_make_one_engine(state: Path) -> None:
    with own(state, "free", "go") as one, own(state, "free", "go") as other:
        endpoints = {endpoint_of(one), endpoint_of(other)}
        one.communicate()
        other.communicate()
    assert len(endpoints) == 1
    assert "" not in endpoints


def test_an_engine_on_another_leash_is_not_shared(state: Path) -> None:
    with own(state, "leash", "stay") as owner:
        endpoint_of(owner)
        with pytest.raises(EngineError, match=f"process {owner.pid}.*Next: "):
            start(state)
        owner.kill()
        owner.communicate()
    assert not start(state).reused


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"port": "x"}'], ids=repr)
def test_an_unreadable_state_file_counts_for_nothing(state: Path, content: str) -> None:
    state.mkdir()
    (state / "engine.json").write_text(content, encoding="utf-8")
    assert find_running(state) is None


def test_a_stale_state_file_is_recognised(state: Path) -> None:
    """A dead pid, and this test's own living pid as one that was used again: neither is the engine."""
    first = start(state)
    remembered = json.loads((state / "engine.json").read_text(encoding="utf-8"))
    stop(state)
    for pid in (first.supervisor_pid, os.getpid()):
        stale = {**remembered, "supervisorPid": pid}
        (state / "engine.json").write_text(json.dumps(stale), encoding="utf-8")
        assert find_running(state) is None
        assert not stop(state)
    second = start(state)
    assert not second.reused
    assert second.identity != first.identity


def test_a_killed_supervisor_leaves_nothing_that_the_next_start_keeps(state: Path) -> None:
    first = start(state)
    stray = leave_a_stray(first)
    os.kill(first.supervisor_pid, signal.SIGKILL)
    assert wait_until(lambda: find_running(state) is None, within_s=5)
    second = start(state)
    assert second.pid != first.pid
    assert processes.began(stray) is None
    assert processes.began(first.pid) is None


def test_an_engine_that_dies_is_cleared_away_by_its_supervisor(state: Path) -> None:
    engine = start(state)
    os.kill(engine.pid, signal.SIGKILL)
    assert wait_until(lambda: traces(state) == [], within_s=5), traces(state)
    assert find_running(state) is None
    assert "the engine ended by itself" in engine.log.read_text(encoding="utf-8")


def test_a_persons_settings_never_reach_the_engine_nor_its_functions(state: Path) -> None:
    with own(state, "leash", "stay", **A_PERSONS) as owner:
        endpoint_of(owner)
        engine = find_running(state)
        assert engine is not None
        shown = Path(f"/proc/{engine.pid}/environ")
        environment = shown.read_text() if shown.exists() else "\n".join(processes.run_ps("-Ep", str(engine.pid)))
        seen: dict[str, str] = invoke(engine, "mirror", MIRROR)
        owner.kill()
        owner.communicate()
    assert "AWS_SECRET_ACCESS_KEY=test" in environment
    assert seen["AWS_SECRET_ACCESS_KEY"] == "test"
    assert SECRET not in environment
    assert SECRET not in json.dumps(seen)
    assert wait_until(lambda: traces(state) == [], within_s=5), traces(state)


def test_a_persons_settings_never_reach_the_sam_cli(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in A_PERSONS.items():
        monkeypatch.setenv(name, value)
    told = tmp_program(state, "env")
    monkeypatch.setattr(deploy, "SAM", told)
    engine = RunningEngine(state, "http://127.0.0.1:9", 9, 1, 1, "", False, 1, state / "log", False)
    deploy.run_sam(engine, StateFolder.at(state), [])
    environment = (state / "deploy.log").read_text(encoding="utf-8")
    assert "AWS_ENDPOINT_URL=http://127.0.0.1:9" in environment
    assert SECRET not in environment


def test_an_engine_that_cannot_start_shows_its_log_and_what_to_do(state: Path) -> None:
    state.mkdir()
    (state / "home").write_text("a file where the engine needs a folder", encoding="utf-8")
    with pytest.raises(EngineError, match=r"(?s)FileExistsError.*Next: "):
        start(state)
    assert wait_until(lambda: traces(state) == [], within_s=5)
