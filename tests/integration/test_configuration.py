"""The build lays one's own configuration over what ships, and doesn't build one that no function could start with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.local.deploy import deploy
from pipeline.local.engine import RunningEngine
from pipeline.local.paths import PROJECT_ROOT, PYTHON_MINOR
from pipeline.runtime import overlay
from tests.unit.test_overlay import POLICY, WHOLE, folder

READ = """
from pipeline.runtime import shipped
print(sorted(shipped.policies().pinned), sorted(shipped.rules().pinned))
print([entry.id for entry in shipped.registry("prod", "AROAREDRIVE").entries])
"""


def build(destination: Path, config: str | None) -> subprocess.CompletedProcess[str]:
    """Build for this machine, from another folder than the project's, as SAM does."""
    environment = {**os.environ, "OPX_PYTHON": PYTHON_MINOR, "OPX_PLATFORM": "host", "ARTIFACTS_DIR": str(destination)}
    environment.pop(overlay.VARIABLE, None)
    if config is not None:
        environment[overlay.VARIABLE] = config
    command = ["make", "--no-print-directory", "-f", str(PROJECT_ROOT / "infra" / "build" / "Makefile"), "build-Any"]
    return subprocess.run(command, env=environment, cwd=destination.parent, capture_output=True, text=True, check=False)


def told_by(built: Path) -> str:
    """Return what a function made of the artifact finds in force: nothing but the artifact is seen."""
    command = [sys.executable, "-S", "-c", READ]
    done = subprocess.run(command, env={"PYTHONPATH": str(built)}, cwd=built, capture_output=True, text=True, check=True)
    return done.stdout


def held(built: Path) -> set[str]:
    at = built / "pipeline" / overlay.IN_PACKAGE
    return {path.relative_to(at).as_posix() for path in at.rglob("*") if path.is_file()}


@pytest.fixture
def inside() -> Iterator[Path]:
    """A folder below the project, so that a relative name finds it."""
    path = PROJECT_ROOT / ".opx" / "test-configuration"
    yield folder(path, {"policies/flap-damped.v1.json": POLICY})
    shutil.rmtree(path)


def test_the_functions_of_an_artifact_read_the_configuration_it_was_built_with(tmp_path: Path) -> None:
    config = folder(tmp_path / "own", WHOLE | {"README.md": "# ours"})
    built = tmp_path / "built"
    done = build(built, str(config))
    assert done.returncode == 0, done.stderr
    assert held(built) == set(WHOLE)
    assert "('flap-damped', 1)" in told_by(built)
    assert "('three-firings', 1)" in told_by(built)
    assert "'alarms-rule', 'alertmanager-queue', 'redrive-role', 'monitor'" in told_by(built)
    done = build(built, None)
    assert done.returncode == 0, done.stderr
    assert held(built) == set(), "nothing of an earlier build stays"
    assert "flap-damped" not in told_by(built)


def test_a_relative_configuration_lies_below_the_project_wherever_the_build_runs(tmp_path: Path, inside: Path) -> None:
    done = build(tmp_path / "built", str(inside.relative_to(PROJECT_ROOT)))
    assert done.returncode == 0, done.stderr
    assert held(tmp_path / "built") == {"policies/flap-damped.v1.json"}


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (
            "policies/default.v1.json",
            {"policyId": "default", "version": 1},
            "policies/default.v1.json: policyId: this",
        ),
        ("policies/x.json", {}, "policies/x.json: nothing would read this file"),
        ("policies/x.v1.json", POLICY | {"policyId": "x", "cooldown": 1}, "policies/x.v1.json: cooldown: This field is not"),
        ("rules/three-firings.v1.json", WHOLE["rules/three-firings.v1.json"], "there is no policy 'flap-damped'"),
    ],
    ids=["released", "unknown file", "unknown field", "unknown policy"],
)
def test_a_build_ends_at_what_is_wrong_with_a_configuration(tmp_path: Path, name: str, content: object, told: str) -> None:
    config = folder(tmp_path / "own", {name: content})
    done = build(tmp_path / "built", str(config))
    assert done.returncode != 0
    assert f"artifact: the configuration {config} can't be built.\n" in done.stderr
    assert told in done.stderr
    assert not (tmp_path / "built").exists()


@pytest.mark.engine
def test_what_changed_in_a_configuration_is_deployed_and_what_did_not_is_not(engine: RunningEngine, tmp_path: Path) -> None:
    config = folder(tmp_path / "own", {"policies/flap-damped.v1.json": POLICY})
    steps: list[str] = []
    deploy(engine, config=config, report=steps.append)
    assert steps
    steps.clear()
    deploy(engine, config=config, report=steps.append)
    assert steps == []
    folder(config, {"policies/flap-damped.v2.json": POLICY | {"version": 2}})
    deploy(engine, config=config, report=steps.append)
    assert steps == ["building the functions", "deploying the stack"]
    deploy(engine)  # what ships alone again, for whoever shares this engine
