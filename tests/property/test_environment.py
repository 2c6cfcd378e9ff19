"""Ids and digests depend on nothing of the process they are made in: hash seed, time zone, locale."""

import json
import os
import subprocess
import sys

import pytest

from tests.support.histories import ROOT

PROGRAM = """
import json, sys
from tests.support.bodies import recorded_alarms
from tests.support.histories import whole_life
from tests.support.registry import ALARMS
from tests.support.world import World, run
from pipeline.domain.canonical import digest

async def main():
    world = World()
    for line in recorded_alarms()[:40]:
        await world.offer(line, ALARMS)
    return world.store

store = run(main())
found = {
    "lives": [event.hash for history in whole_life() for event in history],
    "feed": digest(store.feed),
    "rows": digest(sorted(digest(row) for row in store.incidents.values())),
    "receipts": digest(sorted(store.receipts)),
    "pointers": digest(sorted(store.pointers)),
}
sys.stdout.write(json.dumps(found))
"""

ENVIRONMENTS = {
    "seed 1 in Kathmandu": {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
    "seed 4242 in Honolulu": {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Honolulu", "LC_ALL": "C.UTF-8", "PYTHONUTF8": "0"},
}


def found_under(environment: dict[str, str]) -> object:
    """Run the program in a process of its own and return what it found."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="module")
def found_in_utc() -> object:
    return found_under({"PYTHONHASHSEED": "0", "TZ": "UTC"})


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_ids_and_digests_are_the_same_in_every_process(environment: dict[str, str], found_in_utc: object) -> None:
    assert found_under(environment) == found_in_utc
