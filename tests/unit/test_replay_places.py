"""Events that stand in another's place, and two damages at once: both are named, each for what it is, and nothing else."""

import copy
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.domain import chains
from pipeline.domain.chains import Chain
from pipeline.domain.divergences import Kind
from pipeline.domain.ids import event_id
from pipeline.domain.replay import ModelFold, Replay
from pipeline.replay.partition import Wanted
from pipeline.stores.items import Item, from_item, to_item
from tests.support.damages import INCIDENT, NEXT, change_text, event, last, lived, receipt_until, row, told
from tests.support.exporting import Tables, tables_of
from tests.support.replaying import verify_tables
from tests.support.streams import sealed

STRANGER = "0d2f6a2e-6b7c-5c5e-9d59-0123456789ab"
END = 7
# Nobody may count to it.
FAR = 10**15


@pytest.fixture
async def tables() -> Tables:
    made = copy.deepcopy(tables_of(await lived()))
    assert last(made) == END
    return made


def put(tables: Tables, item: Item, place: int) -> None:
    """Store an event under a number, in the place of what is there."""
    drop(tables, place)
    tables["incident-events"].append(item | {"sequence": {"N": str(place)}})


def drop(tables: Tables, place: int) -> None:
    events = tables["incident-events"]
    events[:] = [one for one in events if one["incidentId"] != {"S": INCIDENT} or one["sequence"] != {"N": str(place)}]


def behind(tables: Tables, place: int) -> None:
    """Make room: what stands at a place and after it stands one further."""
    for number in range(last(tables), place - 1, -1):
        put(tables, event(tables, number), number + 1)
    drop(tables, place)


def closed_up(tables: Tables, place: int) -> None:
    """Take an event out; what stands after it moves up."""
    end = last(tables)
    for number in range(place, end):
        put(tables, event(tables, number + 1), number)
    drop(tables, end)


def retitled(item: Item) -> Item:
    changed = copy.deepcopy(item)
    change_text(changed["metadata"]["M"], "title")
    return changed


def resealed(item: Item) -> Item:
    return to_item(sealed(from_item(item)))


def another(tables: Tables, place: int, *, of: int | None = None, identity: str = "") -> Item:
    """Return an event that was never decided; its hash is right, and its id that of its place unless one is given."""
    like = from_item(event(tables, of or max(1, place - 1)))
    note = {"service": "checkout", "severity": "SEV1", "title": "5xx", "note": "never said"}
    made = like | {"sequence": place, "eventId": identity or event_id(INCIDENT, place), "previousHash": like["hash"]}
    return to_item(sealed(made | {"eventType": "NoteAdded", "metadata": note, "previousState": like["newState"]}))


def inserted(place: int, identity: str = "") -> Callable[[Tables], None]:
    def damage(tables: Tables) -> None:
        made = another(tables, place, identity=identity)
        behind(tables, place)
        put(tables, made, place)

    return damage


def appended(tables: Tables, item: Item) -> None:
    put(tables, item, last(tables) + 1)


def copy_over(source: int, place: int) -> Callable[[Tables], None]:
    return lambda tables: put(tables, event(tables, source), place)


def moved(*ways: tuple[int, int]) -> Callable[[Tables], None]:
    """Move events from the first to the second number of each pair, all at once."""

    def damage(tables: Tables) -> None:
        for item, place in [(event(tables, source), place) for source, place in ways]:
            put(tables, item, place)

    return damage


def together(*damages: Callable[[Tables], object]) -> Callable[[Tables], None]:
    def damage(tables: Tables) -> None:
        for one in damages:
            one(tables)

    return damage


def retitle(place: int) -> Callable[[Tables], None]:
    return lambda tables: put(tables, retitled(event(tables, place)), place)


def row_says(**changes: dict[str, Any]) -> Callable[[Tables], None]:
    return lambda tables: row(tables).update(changes)


def row_gone(tables: Tables) -> None:
    tables["incidents"].remove(row(tables))


OPEN: dict[str, Any] = {"S": "OPEN"}
V9: dict[str, Any] = {"N": "9"}
V6: dict[str, Any] = {"N": "6"}
CASES: dict[str, tuple[Callable[[Tables], object], set[tuple[str, str]]]] = {
    # Out of place, and changed.
    "swapped, one of them changed": (
        together(retitle(3), moved((3, 2), (2, 3))),
        {("swapped", "events 2 and 3"), ("changed", "event 3")},
    ),
    "one taken out, one that moved up changed": (
        together(retitle(4), lambda tables: closed_up(tables, 2)),
        {("missing", "event 2"), ("changed", "event 4")},
    ),
    "one inserted, one behind it changed": (
        together(retitle(6), inserted(3, STRANGER)),
        {("inserted", "event 3: eventId"), ("changed", "event 6")},
    ),
    "one taken out, and the last dropped": (
        together(lambda tables: closed_up(tables, 2), lambda tables: drop(tables, END - 1)),
        {("missing", "event 2"), ("missing", f"event {END}")},
    ),
    "two far apart swapped, one of them changed": (
        together(retitle(5), moved((3, 5), (5, 3))),
        {("swapped", "events 3 and 5"), ("changed", "event 5")},
    ),
    "one inserted, one behind it made another, its hash right": (
        together(lambda tables: put(tables, resealed(retitled(event(tables, 6))), 6), inserted(3, STRANGER)),
        {("inserted", "event 3: eventId"), ("chain", f"event {END}: previousHash")},
    ),
    "two taken out": (
        together(lambda tables: closed_up(tables, 6), lambda tables: closed_up(tables, 2)),
        {("missing", "event 2"), ("missing", "event 6")},
    ),
    # One in the place of another.
    "overwritten by a copy": (copy_over(2, 4), {("duplicated", "event 2"), ("missing", "event 4")}),
    "the last overwritten by a copy": (copy_over(2, END), {("duplicated", "event 2"), ("missing", f"event {END}")}),
    "the first overwritten by a copy": (copy_over(2, 1), {("duplicated", "event 2"), ("missing", "event 1")}),
    "overwritten by a stranger": (
        lambda tables: put(tables, another(tables, 4, identity=STRANGER), 4),
        {("identity", "event 4: eventId")},
    ),
    "three changed places": (moved((2, 3), (3, 4), (4, 2)), {("swapped", "events 2, 3 and 4")}),
    "one moved far behind": (moved((2, 6), (3, 2), (4, 3), (5, 4), (6, 5)), {("swapped", "events 2, 3, 4, 5 and 6")}),
    "all turned round": (
        moved(*((place, 8 - place) for place in range(1, 8))),
        {("swapped", f"events {place} and {8 - place}") for place in (1, 2, 3)},
    ),
    # Never decided.
    "a changed copy of the last behind it": (
        lambda tables: appended(tables, retitled(event(tables, END))),
        {("inserted", f"event {END + 1}")},
    ),
    "a changed copy of another at the end": (
        lambda tables: appended(tables, retitled(event(tables, 2))),
        {("inserted", f"event {END + 1}")},
    ),
    "a stranger at the end": (
        lambda tables: appended(tables, another(tables, END + 1, identity=STRANGER)),
        {("inserted", f"event {END + 1}: eventId")},
    ),
    "a copy a long way behind": (
        lambda tables: put(tables, event(tables, 2), FAR),
        {("missing", f"events {END + 1} to {FAR - 1}"), ("inserted", f"event {FAR}: eventId")},
    ),
    "a stranger a long way behind": (
        lambda tables: put(tables, another(tables, END + 1, identity=STRANGER), FAR),
        {("missing", f"events {END + 1} to {FAR - 1}"), ("inserted", f"event {FAR}: eventId")},
    ),
    "a stranger at the beginning": (inserted(1, STRANGER), {("inserted", "event 1: eventId")}),
    "two strangers in a row": (
        together(inserted(3, STRANGER), inserted(3, STRANGER[:-1] + "c")),
        {("inserted", "events 3 to 4: eventId")},
    ),
    "its id and hash made right, at the beginning": (inserted(1), {("inserted", "event 1")}),
    "its id and hash made right, in the middle": (inserted(4), {("inserted", "event 4")}),
    "its id and hash made right, before the last": (inserted(END), {("inserted", f"event {END}")}),
    "its id and hash made right, at the end": (
        lambda tables: appended(tables, another(tables, END + 1, of=END)),
        {("inserted", f"event {END + 1}")},
    ),
    "its id and hash made right, at the end, of another state": (
        lambda tables: appended(tables, resealed(another(tables, END + 1, of=END) | {"previousState": OPEN})),
        {("inserted", f"event {END + 1}")},
    ),
    "a changed copy in front of its original": (
        together(lambda tables: behind(tables, 4), lambda tables: put(tables, retitled(event(tables, 5)), 4)),
        {("inserted", "event 4")},
    ),
    # The row beside a damaged end.
    "the last changed, the row's version too high": (
        together(retitle(END), row_says(version=V9)),
        {("changed", f"event {END}"), ("row", "version")},
    ),
    "the last changed, the row's state": (
        together(retitle(END), row_says(state=OPEN)),
        {("changed", f"event {END}"), ("row", "state")},
    ),
    "the last dropped, the row's version too high": (
        together(lambda tables: drop(tables, END), row_says(version=V9)),
        {("missing", f"event {END}"), ("row", "version")},
    ),
    "the last dropped, the row's version of the one before": (
        together(lambda tables: drop(tables, END), row_says(version=V6)),
        {("missing", f"event {END}"), ("row", "version")},
    ),
    "the last dropped, the row's state": (
        together(lambda tables: drop(tables, END), row_says(state=OPEN)),
        {("missing", f"event {END}"), ("row", "state")},
    ),
    "the last's hash changed, the row's version": (
        together(lambda tables: change_text(event(tables, END), "hash"), row_says(version=V9)),
        {("changed", f"event {END}"), ("row", "version")},
    ),
    "the last's id changed, the row's state": (
        together(lambda tables: change_text(event(tables, END), "eventId"), row_says(state=OPEN)),
        {("identity", f"event {END}: eventId"), ("row", "state")},
    ),
    "the last's id changed, the row's version of the one before": (
        together(lambda tables: change_text(event(tables, END), "eventId"), row_says(version=V6)),
        {("identity", f"event {END}: eventId"), ("row", "version")},
    ),
    "all dropped, the row's version": (
        together(*(lambda tables, place=place: drop(tables, place) for place in range(1, END + 1)), row_says(version=V6)),
        {("missing", f"events 1 to {END}"), ("row", "version")},
    ),
    "the first and the last dropped, the row gone": (
        together(lambda tables: drop(tables, END), lambda tables: drop(tables, 1), row_gone),
        {("missing", "event 1"), ("missing", f"event {END}"), ("row-missing", "row")},
    ),
    "all dropped, the row gone": (
        together(*(lambda tables, place=place: drop(tables, place) for place in range(1, END + 1)), row_gone),
        {("missing", f"events 1 to {END}")},
    ),
    "one changed, the row's hash": (
        together(retitle(3), row_says(lastEventHash={"S": "0" * 64})),
        {("changed", "event 3"), ("row", "lastEventHash")},
    ),
    # What a key's pointer names is there, whatever its first event says.
    "the row gone, the first changed": (
        together(retitle(1), row_gone),
        {("changed", "event 1"), ("row-missing", "row")},
    ),
    "the row gone, the first dropped": (
        together(lambda tables: drop(tables, 1), row_gone),
        {("missing", "event 1"), ("row-missing", "row")},
    ),
}


async def test_with_nobodys_word_for_how_many_there_were_the_last_is_one_of_ours(tables: Tables) -> None:
    change_text(event(tables, END), "eventId")
    found = verify_tables(tables, wanted=Wanted(rows=False, receipts=False, confirm=False))
    assert (INCIDENT, "identity", f"event {END}: eventId") in told(found)
    assert not any(kind in ("inserted", "missing") for who, kind, _ in told(found) if who == INCIDENT)


async def test_a_receipt_that_errs_beside_a_changed_event_is_told_and_not_the_row(tables: Tables) -> None:
    receipt = receipt_until(tables, END)
    receipt["result"]["M"]["state"] = OPEN
    retitle(END)(tables)
    wrong = (INCIDENT, "receipt", f"receipt {receipt['pk']['S']}: result.state")
    assert told(verify_tables(tables)) == {(INCIDENT, "changed", f"event {END}"), wrong}


@pytest.mark.parametrize("name", CASES)
async def test_each_is_named_for_what_it_is_and_nothing_else_is(name: str, tables: Tables, rng: random.Random) -> None:
    damage, expected = CASES[name]
    damage(tables)
    for items in tables.values():
        rng.shuffle(items)
    found = verify_tables(tables)
    assert told(found) == {(INCIDENT, kind, where) for kind, where in expected}
    assert len(found) == len(expected)


async def test_the_newest_incident_of_a_key_is_there_though_nothing_says_how_it_began(tables: Tables) -> None:
    events = tables["incident-events"]
    events.remove(event(tables, 1, NEXT))
    tables["incidents"].remove(row(tables, NEXT))
    assert told(verify_tables(tables)) == {(NEXT, "missing", "event 1"), (NEXT, "row-missing", "row")}


# --- more than is held at once --------------------------------------------------------------------------------------------


def told_of(places: list[int], *, known_until: int = 0) -> list[tuple[Kind, str]]:
    """Return what a chain tells of events that stand in these places, the first in the place of event 1, and so on."""
    found: list[tuple[Kind, str]] = []
    chain = Chain(INCIDENT, lambda kind, where, *_: found.append((kind, where)), lambda event: str(event["hash"]))
    for place, home in enumerate(places, start=1):
        chain.take(
            {"sequence": place, "eventId": event_id(INCIDENT, home), "hash": f"{home}", "previousHash": f"{home - 1}"}
        )
    chain.finish(known_until)
    return found


def test_a_long_history_that_moved_is_told_once_however_much_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "MISPLACED_MAX", 50)
    monkeypatch.setattr(chains, "GENESIS_HASH", "0")
    history = list(range(1, 301))
    assert told_of(history) == []
    assert told_of([number for number in history if number != 7], known_until=300) == [(Kind.MISSING, "event 7")]
    assert told_of([*history[:7], 7, *history[7:]], known_until=300) == [(Kind.DUPLICATED, "event 7")]


def test_an_id_that_is_far_from_home_is_found_and_one_of_nobody_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chains, "GENESIS_HASH", "0")
    history = list(range(1, 1_001))
    assert told_of([*history, 3], known_until=1_000) == [(Kind.DUPLICATED, "event 3")]
    assert told_of([*history, 90_000], known_until=1_000) == [(Kind.INSERTED, "event 1001: eventId")]


async def test_what_is_finished_is_held_by_nobody(tables: Tables) -> None:
    """Or memory would grow with the events until the garbage collector comes by."""
    events = [from_item(event(tables, number)) for number in range(1, END + 1)]
    gc.disable()
    try:
        replay = Replay(INCIDENT, ModelFold(), with_receipts=True)
        for document in events:
            replay.event(document)
        replay.finish()
        held = weakref.ref(replay)
        assert replay.version == END
        del replay
        assert held() is None
    finally:
        gc.enable()
