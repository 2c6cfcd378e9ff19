"""The suite in two processes: what needs the engine stays together and in order, and the run's seed is everybody's."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sources import ROOT, modules, text
from tests.support.two_processes import ALONE, group_of

SUITE = ["unit/test_a", "unit/test_b", "contract/test_c", "integration/test_d", "simulation/test_e", "e2e/test_api_fuzz"]
TEST = """
import json, os, time

def test_one(rng): tell(rng, "one")
def test_two(rng): tell(rng, "two")

def tell(rng, name):
    with open("told.jsonl", "a") as file:
        file.write(json.dumps([os.getpid(), f"NAME::{name}", rng.random()]) + "\\n")
    time.sleep(0.05)
"""
CONFTEST = "from tests.conftest import pytest_configure, pytest_configure_node, pytest_report_header, rng\n"
FOLDERS = "tests/unit tests/contract tests/integration tests/simulation tests/e2e"
Told = list[tuple[int, str, float]]


def test_all_that_needs_the_engine_is_in_the_first_process() -> None:
    elsewhere = [
        name
        for name in modules("tests")
        if Path(name).name.startswith("test_") and "pytest.mark.engine" in text(name) and group_of(name) != "engine"
    ]
    assert elsewhere == [f"{ALONE}.py", "tests/house/test_two_processes.py"]


def run(root: Path, *arguments: str, **variables: str) -> tuple[Told, str]:
    """Run the small suite; return which process ran which test, in order, and what it drew; and the run's seed."""
    (root / "told.jsonl").unlink(missing_ok=True)
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | variables
    command = [sys.executable, "-m", "pytest", "-k", "test", "--import-mode=importlib", *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [tuple(json.loads(line)) for line in (root / "told.jsonl").read_text("utf-8").splitlines()]
    return told, re.findall("OPX_TEST_SEED=(.+)", done.stdout)[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("suite")
    for name in SUITE:
        path = found / f"tests/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TEST.replace("NAME", name), encoding="utf-8")
    (found / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (found / "pytest.ini").write_text(f"[pytest]\ntestpaths = {FOLDERS}\npythonpath = {ROOT}\n", encoding="utf-8")
    return found


def test_two_processes_run_each_test_once_with_the_seed_of_one(root: Path) -> None:
    shared, seed = run(root, "-p", "xdist", "-n2", "--dist=loadscope", "--no-loadscope-reorder")
    alone, _ = run(root, OPX_TEST_SEED=seed)
    assert sorted(one[1:] for one in shared) == sorted(one[1:] for one in alone)
    assert len({pid for pid, _, _ in shared}) == 2
    of_engine = [(pid, name) for pid, name, _ in shared if group_of(f"tests/{name}") == "engine"]
    assert len({pid for pid, _ in of_engine}) == 1
    assert [name for _, name in of_engine] == [f"{name}::{one}" for name in SUITE[2:4] for one in ("one", "two")]
    second = [name.split("::")[0] for pid, name, _ in shared if pid != of_engine[0][0]]
    assert second[:4] == ["e2e/test_api_fuzz"] * 2 + ["simulation/test_e"] * 2
