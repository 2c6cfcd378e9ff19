"""The state machine through the controller and a real store: each of the 49 ways, and what a step leaves behind."""

from itertools import product
from typing import Any

import pytest

from pipeline.domain.errors import Code
from pipeline.domain.transitions import State
from tests.support.audit import audit
from tests.support.bodies import candidate_body, command_body
from tests.support.histories import INCIDENT_ID
from tests.support.registry import AUTOMATION, OPERATOR
from tests.support.world import World, applied, refused

# The specification's table, copied by hand once more: who takes the step, and the event that it leaves.
STEPS = {
    ("OPEN", "MITIGATING"): (OPERATOR, "MitigationStarted"),
    ("MITIGATING", "RESOLVED"): (OPERATOR, "IncidentResolved"),
    ("RESOLVED", "CLOSED"): (OPERATOR, "IncidentClosed"),
    ("OPEN", "CANCELLED"): (OPERATOR, "IncidentCancelled"),
    ("CLOSED", "ARCHIVED"): (AUTOMATION, "IncidentArchived"),
}
# The commands that lead from the first candidate to a state.
WAYS = {
    "PENDING": (),
    "OPEN": (),
    "MITIGATING": ("MITIGATING",),
    "RESOLVED": ("MITIGATING", "RESOLVED"),
    "CLOSED": ("MITIGATING", "RESOLVED", "CLOSED"),
    "CANCELLED": ("CANCELLED",),
    "ARCHIVED": ("MITIGATING", "RESOLVED", "CLOSED", "ARCHIVED"),
}
NOT_ALLOWED = [pair for pair in product(WAYS, WAYS) if pair not in STEPS]


async def world_in(state: str) -> World:
    """Return a world whose one incident is in `state`."""
    world = World()
    await world.offer(candidate_body(**({"confidence": 0.1} if state == "PENDING" else {})))
    for target in WAYS[state]:
        applied(await world.order(change(target), AUTOMATION if target == "ARCHIVED" else OPERATOR))
    assert world.row(INCIDENT_ID)["state"] == state
    return world


def change(target: Any, **fields: Any) -> dict[str, Any]:
    return command_body("change-state", INCIDENT_ID, newState=target, reason="because", **fields)


@pytest.mark.parametrize(("source", "target"), NOT_ALLOWED)
async def test_what_the_table_does_not_have_leaves_the_stored_incident_as_it_was(source: str, target: str) -> None:
    """Whoever asks: neither a person nor a program."""
    world = await world_in(source)
    before = dict(world.row(INCIDENT_ID)), len(world.store.feed)
    for sender in (OPERATOR, AUTOMATION):
        refusal = refused(await world.order(change(target), sender))
        # Opening is the gate's: the way exists, and is nobody's by a command.
        opening = (source, target) == ("PENDING", "OPEN")
        assert refusal.code is (Code.TRANSITION_AUTHORITY if opening else Code.TRANSITION_ILLEGAL)
        assert refusal.state == source
    assert (world.row(INCIDENT_ID), len(world.store.feed)) == before
    audit(world.store)


@pytest.mark.parametrize(("source", "target"), STEPS)
async def test_a_step_is_one_event_that_moves_version_and_control(source: str, target: str) -> None:
    world = await world_in(source)
    sender, event = STEPS[source, target]
    before = dict(world.row(INCIDENT_ID))
    applied(await world.order(change(target), sender))
    row = world.row(INCIDENT_ID)
    assert (row["state"], row["version"], row["controlVersion"]) == (target, before["version"] + 1, before["version"] + 1)
    assert world.types(INCIDENT_ID)[before["version"] :] == [event]
    audit(world.store)


@pytest.mark.parametrize(("source", "target"), STEPS)
async def test_a_step_taken_twice_is_refused_the_second_time_with_the_state_it_led_to(source: str, target: str) -> None:
    world = await world_in(source)
    sender, _ = STEPS[source, target]
    applied(await world.order(change(target), sender))
    again = refused(await world.order(change(target), sender))
    assert (again.code, again.state) == (Code.TRANSITION_ILLEGAL, target)
    assert set(again.allowed) == {after for before, after in STEPS if before == target}


@pytest.mark.parametrize(("source", "target"), STEPS)
async def test_a_step_on_an_incident_that_has_moved_is_refused_and_not_taken(source: str, target: str) -> None:
    world = await world_in(source)
    sender, _ = STEPS[source, target]
    stale = world.row(INCIDENT_ID)["controlVersion"] - 1
    assert refused(await world.order(change(target, expectedVersion=stale), sender)).code is Code.VERSION_STALE
    assert world.row(INCIDENT_ID)["state"] == source
    current = world.row(INCIDENT_ID)["controlVersion"]
    assert applied(await world.order(change(target, expectedVersion=current), sender)).state.value == target


@pytest.mark.parametrize(
    "target", ["open", "REOPENED", "", None, 2, ["OPEN"]], ids=["lower case", "unknown", "empty", "null", "number", "list"]
)
async def test_what_is_no_state_is_refused_by_its_field(target: Any) -> None:
    world = await world_in("OPEN")
    refusal = refused(await world.order(change(target)))
    assert (refusal.code, refusal.field) == (Code.INVALID_FIELD, "newState")
    assert world.types(INCIDENT_ID) == ["IncidentCreated", "IncidentOpened"]


def test_the_states_of_this_file_are_all_there_are() -> None:
    assert list(WAYS) == [state.value for state in State]
