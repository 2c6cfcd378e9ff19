"""The reviewer's script answers "one place" to both of its questions, run as a reviewer runs it."""

import os
import subprocess
import sys

from tests.support.sources import ROOT


def test_resolving_is_one_row_and_a_field_of_the_envelope_is_one_file() -> None:
    result = subprocess.run(
        [sys.executable, "tests/house/house_questions.py"],
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", os.defpath)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [line for line in result.stdout.splitlines() if "transitions.py:" in line]
    assert len(rows) == 1
    assert "State.MITIGATING, State.RESOLVED" in rows[0]
    assert "_HUMAN" in rows[0]
    assert "on disk: opx" in result.stdout
    assert "on the bus: opx" in result.stdout
    assert "hash verifies: True" in result.stdout
    assert "12 of 12 read and verify" in result.stdout
    assert "Code files changed: 1 (pipeline/domain/envelope.py)" in result.stdout
