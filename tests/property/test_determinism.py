"""Any order, duplication and batching of the same messages leads to the same incidents, at the same now and policy.

`OPX_TEST_SEED` repeats a run; the number of a history that failed is in the message, and `mixtures.draw` makes it again.
"""

import os
import random
import subprocess
import sys
from typing import Any

import pytest

from tests.support import mixtures
from tests.support.audit import audit
from tests.support.histories import ROOT
from tests.support.mixtures import POLICIES, History, deliver, one_by_one, outcome_of, shaken
from tests.support.world import run

SHAKES = 2


def history_of(seed: str) -> History:
    return mixtures.draw(random.Random(seed))


def assert_same_in_any_order(seed: str) -> None:
    history = history_of(seed)
    store = run(deliver(history, one_by_one(history)))
    audit(store, POLICIES)
    expected = outcome_of(store)
    for number in range(SHAKES):
        other = run(deliver(history, shaken(history, random.Random(f"{seed}/{number}"))))
        audit(other, POLICIES)
        found = outcome_of(other)
        assert found == expected, f"history {seed!r}, shaken {number}: {differences(expected, found)}"


def differences(wanted: dict[str, Any], found: dict[str, Any]) -> list[Any]:
    """Return what differs, item by item, so that a failure can be read."""
    return [
        (part, name, wanted[part].get(name), found[part].get(name))
        for part in ("incidents", "windows", "receipts")
        for name in sorted({*wanted[part], *found[part]})
        if wanted[part].get(name) != found[part].get(name)
    ]


def test_some_hundred_histories_in_any_order(rng: random.Random) -> None:
    base = rng.randrange(10**9)
    for number in range(250):
        assert_same_in_any_order(f"{base}/{number}")


@pytest.mark.full
def test_ten_thousand_histories_in_any_order(rng: random.Random) -> None:
    base = rng.randrange(10**9)
    for number in range(10_000):
        assert_same_in_any_order(f"{base}/{number}")


PROGRAM = """
import random, sys
from pipeline.domain.canonical import digest, normalise
from tests.support.mixtures import deliver, draw, outcome_of, shaken
from tests.support.world import run

seed, order = sys.argv[1:]
found = []
for number in range(25):
    history = draw(random.Random(f"{seed}/{number}"))
    found.append(outcome_of(run(deliver(history, shaken(history, random.Random(f"{order}/{number}"))))))
sys.stdout.write(digest(normalise(found)))
"""
ENVIRONMENTS = {
    "another order": {"PYTHONHASHSEED": "0", "TZ": "UTC"},
    "seed 1 in Kathmandu": {"PYTHONHASHSEED": "1", "TZ": "Asia/Kathmandu", "LC_ALL": "C"},
    "seed 4242 in Honolulu": {"PYTHONHASHSEED": "4242", "TZ": "Pacific/Honolulu", "LC_ALL": "C.UTF-8"},
}


def digest_under(environment: dict[str, str], seed: str, order: str) -> str:
    """Return the digest of some histories' outcomes, as a process of its own finds it."""
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, seed, order],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_every_process_finds_the_same_whatever_its_hash_seed_and_time_zone(rng: random.Random) -> None:
    seed = str(rng.randrange(10**9))
    expected = digest_under({"PYTHONHASHSEED": "7", "TZ": "UTC"}, seed, "one")
    found = {name: digest_under(environment, seed, name) for name, environment in ENVIRONMENTS.items()}
    assert found == dict.fromkeys(ENVIRONMENTS, expected), f"seed {seed}"
