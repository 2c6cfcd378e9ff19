"""Windows whose detections have the longest names there may be: what is kept by name gives way, never the candidate."""

from pipeline.services.decision import Applied
from tests.support.audit import audit
from tests.support.world import World
from tests.unit.test_windows import ERRORS, detection, rules

LONGEST = "\U0001f525" * 256


async def test_a_window_of_the_longest_names_still_becomes_an_incident() -> None:
    world = World(rules=rules(ERRORS | {"cap": 50, "threshold": {"detections": 50}}))
    for number in range(50):
        key = str(number).rjust(128, "x")
        outcome = await world.offer(detection(number, source=LONGEST, resource=LONGEST, idempotencyKey=key))
        assert isinstance(outcome, Applied), outcome
    (row,) = world.store.incidents.values()
    assert row["metadata"]["promotion"]["detections"] == 50
    assert row["metadata"]["evidence"]["count"] > 10
    (window,) = world.store.windows.values()
    assert len(window["kept"]) == 50
    audit(world.store)
