"""What an incident's life consumes, counted again: the figures that COSTS.md stands on are still true."""

import json

import pytest

from pipeline.local.engine import RunningEngine
from tests.bench.cost import COUNTED, count

pytestmark = pytest.mark.engine

# Lines name the place in the code that wrote them, so they move by a few bytes with every edit.
LOGGED_WITHIN = 0.05


def test_the_units_that_the_bill_stands_on_are_counted_again(engine: RunningEngine) -> None:
    checked_in = json.loads(COUNTED.read_text("utf-8"))
    again = json.loads(json.dumps(count(engine.endpoint_url)))
    logged, before = again.pop("logged"), checked_in.pop("logged")
    assert again == checked_in, "what a life consumes has changed. Next: make cost"
    assert logged.keys() == before.keys()
    for step, figures in before.items():
        assert logged[step]["lines"] == figures["lines"], f"{step}: other lines are logged. Next: make cost"
        assert logged[step]["bytes"] == pytest.approx(figures["bytes"], rel=LOGGED_WITHIN), f"{step}. Next: make cost"
