"""Tables that others may be writing to: what counts, what is asked again, and what a rebuild must never write over.

DynamoDB is stood in for by a client that answers from items: what is tested is what is made of them.
"""

import copy
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline.cli.rebuild import _show
from pipeline.cli.session import Invocation
from pipeline.cli.target import Selection
from pipeline.cli.terminal import Screen
from pipeline.domain.ids import incident_id
from pipeline.replay.live import ORDER, LiveReplay, scan_into
from pipeline.replay.partition import Wanted
from pipeline.replay.rebuilding import Answer, rebuild
from pipeline.replay.suspects import settle
from pipeline.replay.verifying import Place, replay
from pipeline.stores.dynamodb import Tables
from pipeline.stores.stored_items import StoredItems
from tests.support import damages
from tests.support.command_line import console, text_of
from tests.support.damages import DAMAGES, INCIDENT, NEXT, POINTER, Told, event, forge_last, last, lived, row, told
from tests.support.exporting import Tables as Items
from tests.support.exporting import tables_of
from tests.support.histories import POLICIES

NAMES = Tables.with_prefix("opx")


class Client:
    """Answers of DynamoDB, as botocore hands them on, from items in memory."""

    def __init__(self, items: Items) -> None:
        self.items = items

    def of(self, table: str) -> list[dict[str, Any]]:
        return self.items[table.removeprefix("opx-")]

    async def get_item(self, TableName: str, Key: Any, **_: Any) -> Any:
        found = [item for item in self.of(TableName) if all(item.get(name) == value for name, value in Key.items())]
        return {"Item": copy.deepcopy(found[0])} if found else {}

    async def query(self, TableName: str, ExpressionAttributeValues: Any, **_: Any) -> Any:
        incident, after = ExpressionAttributeValues[":incident"], ExpressionAttributeValues.get(":after")
        if not incident["S"]:
            raise ClientError({"Error": {"Code": "ValidationException"}}, "Query")
        found = [item for item in self.of(TableName) if item["incidentId"] == incident]
        if after is not None:
            found = [item for item in found if int(item["sequence"]["N"]) > int(after["N"])]
        return {"Items": sorted(found, key=lambda item: Decimal(item["sequence"]["N"]))}

    async def scan(self, TableName: str, Segment: int = 0, **_: Any) -> Any:
        return {"Items": self.of(TableName) if Segment == 0 else []}

    async def put_item(self, TableName: str, Item: Any, ExpressionAttributeNames: Any, **more: Any) -> Any:
        values = more.get("ExpressionAttributeValues", {})
        there = next((item for item in self.of(TableName) if item["pk"] == Item["pk"]), None)
        if not _may_be_put(there, ExpressionAttributeNames, values):
            raise ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "PutItem")
        if there is not None:
            self.of(TableName).remove(there)
        self.of(TableName).append(Item)


def _may_be_put(there: Any, names: dict[str, str], values: dict[str, Any]) -> bool:
    """Whether a condition of `StoredItems` holds; of values of two types DynamoDB says that neither is less."""
    if "#number" not in names:
        placed = ((name, values.get(place.replace("#", ":"))) for place, name in names.items() if place != "#key")
        return there is not None and all(there.get(name) == value for name, value in placed)
    if there is None:
        return True
    number, new = there.get(names["#number"], {}), values[":number"]
    if ":hash" not in values:
        return "N" in number and Decimal(number["N"]) <= Decimal(new["N"])
    older = "N" in number and Decimal(number["N"]) < Decimal(new["N"])
    return older or (number == new and there.get("lastEventHash") == values[":hash"])


@pytest.fixture
async def tables() -> Items:
    return copy.deepcopy(tables_of(await lived()))


async def everything(items: Items, at: Path) -> Told:
    """Verify tables as `opx replay verify` does."""
    stored, place = StoredItems(Client(items), NAMES), Place(at)
    spread = await scan_into(place.folders(100), stored, ORDER, lambda _: None)
    replay(place, Wanted(keep=True), spread.items, lambda _: None)
    found = list(spread.found)
    async for settled in settle(place, LiveReplay(stored, POLICIES)):
        assert settled.unsettled == []
        found += settled.found
    assert len(found) == len(told(found)), "told more than once"
    return told(found)


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "twice in an export"])
async def test_each_damage_is_named_in_tables_in_use(name: str, tables: Items, tmp_path: Path) -> None:
    damage, expected = DAMAGES[name]
    damage(tables)
    assert await everything(tables, tmp_path) == expected(tables)


def pointer_ahead(items: Items) -> None:
    row(items, POINTER)["occurrence"] = {"N": "7"}


def below_the_first(items: Items) -> None:
    items["incident-events"].append(event(items, 2) | {"sequence": {"N": "0"}})


def binary(items: Items) -> None:
    event(items, 3)["odd"] = {"B": b"bytes"}


def timestamp_of_another_kind(items: Items) -> None:
    event(items, 1)["timestamp"] = {"M": {}}


def later_year(items: Items) -> None:
    at = event(items, 1)["timestamp"]
    at["S"] = "9" + at["S"][1:]


def principal_of_another_kind(items: Items) -> None:
    event(items, 3)["actor"]["M"]["principal"] = {"L": [{"M": {}}]}


def newer_receipt(items: Items) -> None:
    damages.receipt_until(items, last(items))["schemaVersion"] = {"N": "2"}


def pointer_of_a_set(items: Items) -> None:
    row(items, POINTER)["odd"] = {"SS": ["a"]}


def true_for_one(items: Items) -> None:
    row(items)["metadata"]["M"]["occurrence"] = {"BOOL": True}


def row_and_pointer(items: Items) -> None:
    row(items, NEXT)["state"] = {"S": "CLOSED"}
    items["incidents"].remove(row(items, POINTER))


ODD: dict[str, tuple[Callable[[Items], None], set[tuple[str, str]]]] = {
    "a pointer that is ahead": (pointer_ahead, {(NEXT, "pointer")}),
    "an event below the first number": (below_the_first, {(INCIDENT, "unreadable")}),
    "an attribute that opx never writes": (binary, {(INCIDENT, "unreadable")}),
    "a time that is none": (timestamp_of_another_kind, {(INCIDENT, "changed")}),
    "a first event that says it is of the year 9026": (later_year, {(INCIDENT, "changed")}),
    "a principal that is a list": (principal_of_another_kind, {(INCIDENT, "changed")}),
    "a receipt of newer code": (newer_receipt, {(INCIDENT, "unreadable")}),
    "a pointer with a set in it": (pointer_of_a_set, {(NEXT, "unreadable")}),
    "true where 1 should be": (true_for_one, {(INCIDENT, "row")}),
    "a row and a pointer of one incident": (row_and_pointer, {(NEXT, "row"), (NEXT, "pointer-missing")}),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_damage_is_named_where_it_is_and_stops_nothing(name: str, tables: Items, tmp_path: Path) -> None:
    damage, expected = ODD[name]
    damage(tables)
    found = {(incident, kind) for incident, kind, _ in await everything(tables, tmp_path)}
    assert found
    assert found <= expected


HIDDEN: dict[str, tuple[Callable[[Items], None], str]] = {
    "an event": (binary, "event 3"),
    "a row": (lambda items: row(items, NEXT).update(odd={"B": b"bytes"}), "row"),
    "a pointer": (pointer_of_a_set, f"pointer {POINTER}"),
    "a receipt": (newer_receipt, ""),
}


@pytest.mark.parametrize("name", HIDDEN)
async def test_what_can_not_be_read_hides_nothing_else(name: str, tables: Items, tmp_path: Path) -> None:
    damage, where = HIDDEN[name]
    where = where or f"receipt {damages.receipt_until(tables, last(tables))['pk']['S']}"
    damage(tables)
    row(tables)["state"] = {"S": "OPEN"}
    whose = NEXT if name in ("a row", "a pointer") else INCIDENT
    assert await everything(tables, tmp_path) == {(whose, "unreadable", where), (INCIDENT, "row", "state")}


async def test_a_pointer_that_names_nothing_is_wrong_and_asks_for_nothing(tables: Items, tmp_path: Path) -> None:
    damages.pointer_made_up(tables)
    made_up = tables["incidents"][-1]
    del made_up["incidentId"]
    found = await everything(tables, tmp_path)
    assert {(kind, where) for _, kind, where in found} == {("pointer", f"pointer {made_up['pk']['S']}")}


# --- rebuilding -----------------------------------------------------------------------------------------------------------


async def test_a_row_that_is_of_another_event_is_never_written_over(tables: Items) -> None:
    """The row is the one witness of what the last event was: whoever forged that must not have it rebuilt."""
    before = copy.deepcopy(row(tables))
    forge_last(tables)
    answer = await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)
    assert answer.answer is Answer.DAMAGED
    assert [one.where for one in answer.found] == ["lastEventHash"]
    assert row(tables) == before


async def test_a_row_that_is_wrong_in_itself_is_written_again(tables: Items) -> None:
    before = copy.deepcopy(tables["incidents"])
    row(tables)["state"] = {"S": "OPEN"}
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).answer is Answer.WRITTEN
    assert sorted(map(str, tables["incidents"])) == sorted(map(str, before))


async def test_a_history_that_can_not_be_read_makes_no_row_and_no_crash(tables: Items) -> None:
    binary(tables)
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).answer is Answer.DAMAGED


async def test_events_under_a_name_that_is_no_incidents_id_are_told_and_stop_nothing(tables: Items) -> None:
    """A scan of creations finds it; what is asked for one by one is what it finds."""
    tables["incident-events"].append({**event(tables, 1), "incidentId": {"S": "nonsense"}})
    stored = StoredItems(Client(tables), NAMES)
    live = LiveReplay(stored, POLICIES)
    assert told(list((await live.verify("nonsense")).found)) == {("nonsense", "unreadable", "what is stored")}
    rebuilt = await rebuild(stored, "nonsense", POLICIES)
    assert (rebuilt.answer, told(list(rebuilt.found))) == (Answer.DAMAGED, {("nonsense", "unreadable", "its events")})


def version_of(value: dict[str, str]) -> Callable[[Items], None]:
    def damage(items: Items) -> None:
        row(items)["version"] = value

    return damage


def no_version(items: Items) -> None:
    del row(items)["version"]


def hash_of_an_earlier_event(items: Items) -> None:
    row(items)["lastEventHash"] = event(items, 3)["hash"]


def no_hash(items: Items) -> None:
    del row(items)["lastEventHash"]


def neither(items: Items) -> None:
    no_version(items)
    no_hash(items)


WRONG_IN_ITSELF: dict[str, Callable[[Items], None]] = {
    "version too low": version_of({"N": "3"}),
    "version a text": version_of({"S": "x"}),
    "version no whole number": version_of({"N": "9.5"}),
    "no version": no_version,
    "hash of an earlier event": hash_of_an_earlier_event,
    "no hash": no_hash,
    "neither version nor hash": neither,
}


@pytest.mark.parametrize("name", WRONG_IN_ITSELF)
async def test_a_row_of_no_event_that_is_lost_is_written_again_whatever_its_version_says(name: str, tables: Items) -> None:
    before = copy.deepcopy(tables["incidents"])
    WRONG_IN_ITSELF[name](tables)
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).answer is Answer.WRITTEN
    assert sorted(map(str, tables["incidents"])) == sorted(map(str, before))


async def test_a_row_of_an_event_that_is_lost_is_left_whatever_its_version_says(tables: Items) -> None:
    """With an event of their own behind the one they forged, whoever did it must not have the witness written over, too."""
    for version in ({"N": str(last(tables) - 1)}, {"S": "x"}):
        row(tables).update(version=version, lastEventHash={"S": "0" * 64})
        before = copy.deepcopy(row(tables))
        answer = await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)
        assert (answer.answer, [one.where for one in answer.found]) == (Answer.DAMAGED, ["lastEventHash"])
        assert row(tables) == before


async def test_a_row_deleted_by_hand_comes_back_to_equal_bytes(tables: Items) -> None:
    """The way out of the runbook, where a person has found that the events are right."""
    before = copy.deepcopy(tables["incidents"])
    tables["incidents"].remove(row(tables))
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).answer is Answer.WRITTEN
    assert sorted(map(str, tables["incidents"])) == sorted(map(str, before))


async def test_a_row_that_says_a_later_version_is_left_to_a_person(tables: Items) -> None:
    row(tables)["version"] = {"N": str(last(tables) + 1)}
    before = copy.deepcopy(row(tables))
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).answer is Answer.NEWER
    assert row(tables) == before


class MovedOn(Client):
    """A table in which somebody mends a row right before it would be written over."""

    async def put_item(self, TableName: str, Item: Any, ExpressionAttributeNames: Any, **more: Any) -> Any:
        if Item["pk"]["S"] == INCIDENT:
            row(self.items)["version"] = {"N": "8"}
        await super().put_item(TableName, Item, ExpressionAttributeNames, **more)


@pytest.mark.parametrize("name", WRONG_IN_ITSELF)
async def test_a_row_that_is_moved_on_meanwhile_is_never_set_back(name: str, tables: Items) -> None:
    WRONG_IN_ITSELF[name](tables)
    answer = await rebuild(StoredItems(MovedOn(tables), NAMES), INCIDENT, POLICIES)
    assert (answer.answer, row(tables)["version"]) == (Answer.NEWER, {"N": "8"})


@pytest.mark.parametrize("damage", [damages.pointer_gone, damages.pointer_back])
@pytest.mark.parametrize("later", [2, 4])
async def test_a_rebuild_of_an_older_incident_points_to_the_newest_of_its_key(
    damage: Callable[[Items], None], later: int, tables: Items
) -> None:
    for occurrence in range(3, later + 1):
        birth = {"incidentId": {"S": incident_id(damages.SERVICE, damages.KEY, occurrence)}}
        tables["incident-events"].append(event(tables, 1, NEXT) | birth)
    expected = row(tables, POINTER) | {
        "occurrence": {"N": str(later)},
        "incidentId": {"S": incident_id(damages.SERVICE, damages.KEY, later)},
    }
    damage(tables)
    rebuilt = await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)
    assert (rebuilt.answer, rebuilt.pointer_written) == (Answer.CURRENT, True)
    assert row(tables, POINTER) == expected


async def test_a_pointer_that_says_no_number_is_written_again(tables: Items) -> None:
    before = copy.deepcopy(row(tables, POINTER))
    row(tables, POINTER)["occurrence"] = {"S": "x"}
    assert (await rebuild(StoredItems(Client(tables), NAMES), INCIDENT, POLICIES)).pointer_written
    assert row(tables, POINTER) == before


async def test_a_wiped_table_never_holds_a_pointer_to_an_older_incident(tables: Items) -> None:
    stored = StoredItems(Client({**tables, "incidents": []}), NAMES)
    pointers = set()
    for identity in (INCIDENT, NEXT):
        rebuilt = await rebuild(stored, identity, POLICIES)
        pointers.add(str(await stored.row(POINTER)))
        assert rebuilt.pointer_written is (identity == INCIDENT)
    assert pointers == {str(row(tables, POINTER))}


@pytest.mark.parametrize(("answer", "hint"), [(Answer.DAMAGED, "corruption.md"), (Answer.WRITTEN, "replay verify")])
def test_a_rebuild_that_was_refused_leads_to_what_mends_it(answer: Answer, hint: str) -> None:
    """Not to what only says again that it is damaged."""
    written = console(400)
    _show(Invocation(Screen(False, written, written), Selection()), Counter([answer]), 0, dry_run=False)
    assert hint in text_of(written).splitlines()[-1]
