"""Which incidents a span of time, or everything, is: none that is damaged where it begins may be left out of it."""

import copy
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pipeline.replay.live import LiveReplay
from pipeline.replay.partition import Wanted
from pipeline.replay.rebuilding import Answer, rebuild
from pipeline.replay.spans import incident_ids
from pipeline.stores.stored_items import StoredItems
from tests.support.damages import INCIDENT, NEXT, drop, drop_the_whole_history, event, lived, row, told
from tests.support.exporting import Tables, export, tables_of
from tests.support.histories import POLICIES
from tests.unit.test_replay_live import NAMES, Client
from tests.unit.test_replay_scale import verified

LONG_AGO = "2020-01-01T00:00:00.000000Z"


@pytest.fixture
async def tables() -> Tables:
    return copy.deepcopy(tables_of(await lived()))


def at_another_time(tables: Tables) -> None:
    event(tables, 1)["timestamp"] = {"S": LONG_AGO}


def of_another_type(tables: Tables) -> None:
    event(tables, 1)["eventType"] = {"S": "NoteAdded"}


def at_no_time(tables: Tables) -> None:
    event(tables, 1)["timestamp"] = {"M": {}}


def of_no_number(tables: Tables) -> None:
    event(tables, 1)["sequence"] = {"N": "1.5"}


def row_at_another_time(tables: Tables) -> None:
    row(tables)["createdAt"] = {"S": LONG_AGO}


def row_gone_and_first_event(tables: Tables) -> None:
    tables["incidents"].remove(row(tables))
    drop(1)(tables)


def row_gone_and_no_time(tables: Tables) -> None:
    tables["incidents"].remove(row(tables))
    at_no_time(tables)


AT_ITS_BEGINNING: dict[str, Callable[[Tables], None]] = {
    "event 1 gone": drop(1),
    "event 1 at another time": at_another_time,
    "event 1 at no time": at_no_time,
    "event 1 of another type": of_another_type,
    "event 1 under no number": of_no_number,
    "all events gone": drop_the_whole_history,
    "row at another time": row_at_another_time,
    "row and event 1 gone": row_gone_and_first_event,
    "row gone and event 1 at no time": row_gone_and_no_time,
}


def created(tables: Tables, of: str) -> str:
    return str(row(tables, of)["createdAt"]["S"])


def span_of_first(tables: Tables) -> Wanted:
    """The hour or so in which the first incident was created, and its key's next was not."""
    begin, after = created(tables, INCIDENT), created(tables, NEXT)
    assert begin < after
    return Wanted(since=begin, until=after)


async def looked_at(tables: Tables, wanted: Wanted) -> list[str]:
    return [one async for one in incident_ids(StoredItems(Client(tables), NAMES), wanted)]


async def one(incident_id: str) -> AsyncIterator[str]:
    yield incident_id


async def test_a_span_is_the_incidents_created_in_it_and_everything_is_all_once(tables: Tables) -> None:
    wanted = span_of_first(tables)
    of_the_span = await looked_at(tables, wanted)
    assert INCIDENT in of_the_span
    assert NEXT not in of_the_span
    assert await looked_at(tables, Wanted(since=wanted.until)) == [NEXT]
    assert sorted(await looked_at(tables, Wanted())) == sorted([*of_the_span, NEXT])


@pytest.mark.parametrize("name", AT_ITS_BEGINNING)
async def test_what_is_damaged_where_it_begins_is_in_its_span_and_told(name: str, tables: Tables) -> None:
    wanted = span_of_first(tables)
    AT_ITS_BEGINNING[name](tables)
    ids = await looked_at(tables, wanted)
    assert ids.count(INCIDENT) == 1
    live = LiveReplay(StoredItems(Client(tables), NAMES), POLICIES)
    found = [told(list(each.found)) async for each in live.verify_all(one(INCIDENT))]
    assert [bool(each) for each in found] == [True]


@pytest.mark.parametrize("name", AT_ITS_BEGINNING)
async def test_an_export_tells_of_a_span_what_is_damaged_where_it_begins(name: str, tables: Tables, tmp_path: Path) -> None:
    wanted = span_of_first(tables)
    AT_ITS_BEGINNING[name](tables)
    found = verified(export(tables, tmp_path / "export"), tmp_path / "work", wanted)
    assert INCIDENT in {each.incident_id for each in found}
    assert NEXT not in {each.incident_id for each in found}


async def test_an_export_leaves_out_what_row_and_event_say_is_of_another_time(tables: Tables, tmp_path: Path) -> None:
    event(tables, 2)["actor"]["M"]["principal"] = {"S": "somebody"}
    folder = export(tables, tmp_path / "export")
    assert verified(folder, tmp_path / "later", Wanted(since=created(tables, NEXT))) == []
    assert verified(folder, tmp_path / "then", span_of_first(tables)) != []


@pytest.mark.parametrize("name", AT_ITS_BEGINNING)
async def test_a_rebuild_of_everything_tells_what_it_makes_no_row_of(name: str, tables: Tables) -> None:
    AT_ITS_BEGINNING[name](tables)
    events_alone = {**tables, "incidents": []}
    if name in ("all events gone", "row at another time"):
        events_alone = tables
    stored = StoredItems(Client(events_alone), NAMES)
    answers = [await rebuild(stored, each, POLICIES) for each in await looked_at(events_alone, Wanted())]
    (answer,) = [each.answer for each in answers if each.incident_id == INCIDENT]
    expected = {"all events gone": Answer.UNKNOWN, "row at another time": Answer.WRITTEN}
    assert answer is expected.get(name, Answer.DAMAGED)
    rows = [item["pk"]["S"] for item in events_alone["incidents"]]
    assert (INCIDENT in rows) is (name in expected)
