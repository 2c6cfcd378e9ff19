"""One open incident per key, also where one has waited too long or storage contradicts itself."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.canonical import format_time
from pipeline.domain.errors import Code, Corrupt
from pipeline.domain.ids import incident_id, pointer_id
from pipeline.services.decision import View
from tests.support.audit import audit
from tests.support.bodies import alarm_body, candidate_body, command_body
from tests.support.clock import NOW
from tests.support.world import World, applied, refused

FIRST, SECOND = (incident_id("checkout", "checkout-5xx", occurrence) for occurrence in (1, 2))
LONG_AGO = format_time(NOW - timedelta(days=30))


def unsure(**fields: Any) -> dict[str, Any]:
    return candidate_body(confidence=0.1, **fields)


async def expired_and_followed() -> World:
    """Occurrence 1 has waited a month; occurrence 2 waits too."""
    world = World()
    applied(await world.offer(unsure(observedAt=LONG_AGO)))
    applied(await world.offer(unsure()))
    assert {row["state"] for row in world.store.incidents.values()} == {"PENDING"}
    assert len(world.store.incidents) == 2
    return world


async def test_an_expired_incident_cannot_be_promoted_beside_its_follower() -> None:
    world = await expired_and_followed()
    refusal = refused(await world.order(command_body("request-promotion", FIRST, reason="now")))
    assert (refusal.code, refusal.incident_id, refusal.state) == (Code.TRANSITION_ILLEGAL, FIRST, "PENDING")
    assert SECOND in refusal.detail
    applied(await world.order(command_body("request-promotion", SECOND, reason="now")))
    assert [world.row(FIRST)["state"], world.row(SECOND)["state"]] == ["PENDING", "OPEN"]
    audit(world.store)


async def test_an_expired_incident_can_still_be_dismissed() -> None:
    world = await expired_and_followed()
    applied(await world.order(command_body("dismiss", FIRST, reason="old")))
    assert world.row(FIRST)["state"] == "CANCELLED"


async def test_a_candidate_with_an_old_view_opens_the_incident_that_holds_the_key() -> None:
    world = World()
    view = View()
    applied(await world.offer(unsure(observedAt=LONG_AGO), view=view))
    applied(await world.offer(unsure()))
    again = format_time(NOW - timedelta(days=29))
    applied(await world.offer(candidate_body(observedAt=again), view=view))
    assert [world.row(FIRST)["state"], world.row(SECOND)["state"]] == ["PENDING", "OPEN"]
    audit(world.store)


async def test_the_key_is_not_taken_from_an_incident_that_was_promoted_meanwhile() -> None:
    world = World()
    view = View()
    applied(await world.offer(unsure(observedAt=LONG_AGO), view=view))
    applied(await world.order(command_body("request-promotion", FIRST, reason="now")))
    applied(await world.offer(unsure(), view=view))
    assert list(world.store.incidents) == [FIRST]
    audit(world.store)


@pytest.mark.parametrize("body", [candidate_body(), alarm_body()], ids=["candidate", "alarm"])
async def test_a_pointer_to_no_row_is_corruption_and_ends_at_once(body: dict[str, Any]) -> None:
    world = World()
    incident = applied(await world.offer(body))
    del world.store.incidents[incident.incident_id]
    with pytest.raises(Corrupt, match="no row"):
        await world.offer(body | {"id": "another-event"} if "id" in body else body)


async def test_a_recovery_whose_incident_is_unreadable_is_not_answered_with_nothing_open() -> None:
    world = World()
    incident = applied(await world.offer(alarm_body()))
    del world.store.incidents[incident.incident_id]
    recovery = alarm_body()
    recovery["id"], recovery["detail"]["state"]["value"] = "another-event", "OK"
    with pytest.raises(Corrupt, match="no row"):
        await world.offer(recovery)


async def test_a_pointer_that_was_set_back_is_corruption_and_ends_at_once() -> None:
    world = World()
    applied(await world.offer(candidate_body()))
    await world.walk(FIRST, "MITIGATING", "RESOLVED")
    key = pointer_id("checkout", "checkout-5xx")
    before = world.store.pointers[key]
    world.clock.time = NOW + timedelta(hours=1)
    applied(await world.offer(candidate_body()))
    await world.walk(SECOND, "MITIGATING", "RESOLVED")
    world.store.pointers[key] = before
    world.clock.time = NOW + timedelta(hours=2)
    with pytest.raises(Corrupt, match="behind"):
        await world.offer(candidate_body())


async def test_a_clock_that_once_ran_ahead_does_not_silence_the_key() -> None:
    """A host a day ahead writes a note, another resolves; trouble seen five hours later is a new incident."""
    world = World()
    applied(await world.offer(candidate_body()))
    world.clock.time = NOW + timedelta(days=1)
    applied(await world.order(command_body("add-note", FIRST, note="from a host with a wrong clock")))
    world.clock.time = NOW + timedelta(minutes=1)
    await world.walk(FIRST, "MITIGATING", "RESOLVED")
    world.clock.time = NOW + timedelta(hours=5)
    applied(await world.offer(candidate_body()))
    assert world.row(SECOND)["state"] == "OPEN"
    audit(world.store)
