"""Cursors: opaque, bound to their listing, refused when changed; and one made up by their recipe does no harm."""

import random
import string

import pytest
from pydantic import TypeAdapter

from pipeline.api.cursors import CURSOR_CHARACTERS_MAX, cursor_of, position_of
from pipeline.domain.base import Sequence, Time, Uuid
from pipeline.domain.errors import Rejected
from tests.support.histories import INCIDENT_ID
from tests.support.http import HttpWorld

ROW: TypeAdapter[tuple[object, str]] = TypeAdapter(tuple[Time, Uuid])
EVENT: TypeAdapter[tuple[int]] = TypeAdapter(tuple[Sequence])
PLACE = ("2026-01-31T03:00:00.000000Z", INCIDENT_ID)
ASKED = {"state": "OPEN"}


def test_a_cursor_leads_back_to_its_position() -> None:
    moment, identity = position_of(cursor_of(PLACE, ASKED), ASKED, ROW)
    assert (str(moment), identity) == ("2026-01-31 03:00:00+00:00", INCIDENT_ID)


def test_every_changed_character_is_refused(rng: random.Random) -> None:
    cursor = cursor_of(PLACE, ASKED)
    for at in range(len(cursor)):
        other = rng.choice([sign for sign in string.ascii_letters + string.digits + "-_" if sign != cursor[at]])
        with pytest.raises(Rejected):
            position_of(cursor[:at] + other + cursor[at + 1 :], ASKED, ROW)
    for changed in (cursor[:-1], cursor + "A", cursor + "=", "", "é", "A" * (CURSOR_CHARACTERS_MAX + 4), "bnVsbA", "W10"):
        with pytest.raises(Rejected):
            position_of(changed, ASKED, ROW)


@pytest.mark.parametrize("other", [{}, {"state": "CLOSED"}, {"state": "OPEN", "service": "checkout"}])
def test_a_cursor_of_another_listing_is_refused(other: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        position_of(cursor_of(PLACE, ASKED), other, ROW)


@pytest.mark.parametrize("place", [(), ("x", "y"), (1, 2), ("1999-01-01T00:00:00Z", INCIDENT_ID), (*PLACE, "more")])
def test_a_cursor_made_up_with_a_position_of_another_shape_is_refused(place: tuple[str, ...]) -> None:
    with pytest.raises(Rejected):
        position_of(cursor_of(place, ASKED), ASKED, ROW)
    with pytest.raises(Rejected):
        position_of(cursor_of((0,), ASKED), ASKED, EVENT)


async def test_one_listings_cursor_is_no_other_routes() -> None:
    world = HttpWorld()
    identity = await world.opened()
    cursor = cursor_of(PLACE, {})
    heard = await world.call("GET", f"/incidents/{identity}/events?cursor={cursor}")
    assert (heard.status, heard.body["field"]) == (400, "cursor")
