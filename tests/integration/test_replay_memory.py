"""A replay's memory is the same for ten times as many events: measured by the system, in processes of their own."""

from pathlib import Path

import pytest

from tests.bench.exported import write
from tests.bench.replay import in_a_process_of_its_own

pytestmark = pytest.mark.long

FEW, MANY = 1_600, 16_000
# What a partition may hold more of, sorted in memory; the rest would be growth.
GROWS_AT_MOST_MIB = 10


def test_ten_times_the_events_take_no_more_memory(tmp_path: Path) -> None:
    few = in_a_process_of_its_own(write(tmp_path / "few", FEW))
    many = in_a_process_of_its_own(write(tmp_path / "many", MANY))
    assert (few["events"], many["events"]) == (FEW, MANY)
    assert many["peakMiB"] < few["peakMiB"] + GROWS_AT_MOST_MIB
