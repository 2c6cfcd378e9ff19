"""Events forged with a right hash, and damage at random: all of it is told, nothing ends the replay, and nothing hides."""

import random
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.sealed_file import read_seal
from pipeline.cli.terminal import CommandError
from pipeline.domain.canonical import Document, canonical_bytes
from pipeline.domain.envelope import event_hash
from pipeline.domain.errors import Corrupt
from pipeline.domain.replay import Replay
from pipeline.replay.exports import find_exports
from pipeline.replay.folding import DocumentFold
from pipeline.replay.lines import document_of, exact_document_of, hash_of
from pipeline.replay.partition import Wanted
from pipeline.replay.ranks import Table
from pipeline.replay.reading import history_in
from pipeline.replay.seals import Sealed
from pipeline.replay.verifying import Place, seal_lines
from pipeline.stores.items import from_item, to_item
from tests.support.damages import INCIDENT, event, last, row, row_set_back, told
from tests.support.exporting import Tables
from tests.support.histories import POLICIES
from tests.support.malforming import Lines, forged, lines_in, lived_once, malformed, verified, write_lines
from tests.support.replaying import verify_tables
from tests.support.streams import sealed

FAST, THOROUGH = Wanted(), Wanted(thorough=True)
DAMAGES, FORGERIES = 40, 40


@pytest.fixture
async def tables() -> Tables:
    return await lived_once()


@pytest.fixture
async def lines(tables: Tables) -> Lines:
    return lines_in(tables)


# --- forged, with a right hash --------------------------------------------------------------------------------------------


def forge(tables: Tables, sequence: int, **changes: Any) -> None:
    """Make another event of one, its hash right again; its row agrees, where it is the last."""
    stored = event(tables, sequence)
    made = to_item(sealed(from_item(stored) | changes))
    stored.clear()
    stored.update(made)
    if sequence == last(tables):
        row(tables)["lastEventHash"] = made["hash"]


async def test_true_is_no_schema_version(tables: Tables) -> None:
    forge(tables, last(tables), schemaVersion=True)
    for wanted in (Wanted(confirm=False), FAST, THOROUGH):
        assert (INCIDENT, "unreadable", f"event {last(tables)}") in told(verify_tables(tables, wanted=wanted)), wanted


async def test_where_the_core_is_asked_what_it_can_not_read_is_told_and_hides_nothing(tables: Tables) -> None:
    forge(tables, last(tables), odd="x")
    row(tables)["title"] = {"S": "another"}
    found = told(verify_tables(tables, wanted=FAST))
    assert found == {(INCIDENT, "row", "title"), (INCIDENT, "unreadable", f"event {last(tables)}")}


@pytest.mark.parametrize("changes", [{"odd": "x"}, {"actor": {"odd": 1}}, {"metadata": {"odd": ()}}], ids=str)
async def test_attributes_that_no_event_has_are_told_by_the_thorough_way(changes: Any, tables: Tables) -> None:
    stored = from_item(event(tables, last(tables)))
    known = {name: stored[name] | value if isinstance(value, dict) else value for name, value in changes.items()}
    forge(tables, last(tables), **known)
    assert (INCIDENT, "unreadable", f"event {last(tables)}") in told(verify_tables(tables, wanted=THOROUGH))


async def test_an_event_of_nobody_that_changes_no_state_is_told_without_receipts_too(tables: Tables) -> None:
    kinds = {number: from_item(event(tables, number))["eventType"] for number in range(1, 8)}
    (number,) = (number for number, kind in kinds.items() if kind == "SeverityChanged")
    document = from_item(event(tables, number))
    del document["actor"]
    tables["incident-events"].remove(event(tables, number))
    tables["incident-events"].append(to_item(sealed(document)))
    found = told(verify_tables(tables, wanted=Wanted(receipts=False, confirm=False)))
    assert (INCIDENT, "unreadable", f"event {number}") in found


async def test_a_decision_of_no_time_is_told_though_one_like_it_was_judged_before(tables: Tables) -> None:
    judged: set[Hashable] = set()
    found = []
    for newest in (None, "never"):
        if newest is not None:
            opening = from_item(event(tables, 2))["metadata"]
            inputs = opening["decision"]["inputs"] | {"newestObservedAt": newest}
            forge(tables, 2, metadata=opening | {"decision": opening["decision"] | {"inputs": inputs}})
        replay = Replay(INCIDENT, DocumentFold(), policies=POLICIES, judged=judged, hash_of=hash_of)
        for number in (1, 2):
            replay.event(from_item(event(tables, number)))
        found.append([(one.kind.value, one.where) for one in replay.finish()])
    assert found == [[], [("unreadable", "event 2")]]
    assert judged


async def test_two_kinds_in_an_event_are_told_by_the_thorough_way(tables: Tables, tmp_path: Path) -> None:
    event(tables, 3)["timestamp"]["N"] = "5"
    found = told(verified(write_lines(lines_in(tables), tmp_path / "export"), tmp_path / "work", THOROUGH))
    assert found == {(INCIDENT, "unreadable", "event 3")}


@pytest.mark.parametrize("stored", [{}, {"hash": None}, {"hash": "x"}], ids=str)
def test_an_event_is_hashed_without_being_changed(stored: Document) -> None:
    document = {"b": 1, **stored}
    assert hash_of(document) == event_hash(document)
    assert document == {"b": 1, **stored}


async def test_a_line_that_only_names_an_incident_is_none_of_its_events(lines: Lines, tmp_path: Path) -> None:
    lines["incident-events"].append(b'{"Item":{"odd":{"S":"%b"}}}' % INCIDENT.encode())
    history = history_in(find_exports([write_lines(lines, tmp_path / "export")])[Table.EVENTS], INCIDENT)
    assert [one["sequence"] for one in history] == list(range(1, 8))


@pytest.mark.parametrize(
    "line",
    [
        *("", "x", f"{INCIDENT} 3", f"{INCIDENT} 3 {'0' * 64} 0x0", f"{INCIDENT} 3 {'0' * 63} {'0' * 64}"),
        *(f"{INCIDENT} {number} {'0' * 64} {'0' * 64}" for number in ("-3", "0", "9" * 17, "")),
    ],
)
def test_what_is_no_line_of_a_seal_is_corrupt(line: str) -> None:
    with pytest.raises(Corrupt, match="a line of the seal"):
        Sealed.read(line)


@pytest.mark.parametrize("head", [b"", b"[" * 100_000, b"[]", b"5", b'{"format": 5}', b"\xff", b"\x00"], ids=range(7))
def test_what_is_no_file_of_a_seal_is_refused_in_words(head: bytes, tmp_path: Path) -> None:
    (tmp_path / "seal.txt").write_bytes(head + b"\n")
    with pytest.raises(CommandError, match="seal"):
        read_seal(tmp_path / "seal.txt")


# --- rows -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [{"N": "-5"}, {"BOOL": True}, {"S": "3"}], ids=str)
async def test_a_row_of_no_version_tells_no_number_of_what_is_missing(version: Any, tables: Tables) -> None:
    tables["incident-events"] = [one for one in tables["incident-events"] if one["incidentId"]["S"] != INCIDENT]
    row(tables)["version"] = version
    assert (INCIDENT, "missing", "every event") in told(verify_tables(tables, wanted=Wanted(receipts=False)))


async def test_a_row_that_is_behind_and_says_another_version_is_told_once(tables: Tables) -> None:
    row_set_back(tables)
    row(tables)["version"] = {"N": "2"}
    assert [(one.kind.value, one.where) for one in verify_tables(tables)] == [("row", "version")]


# --- at random ------------------------------------------------------------------------------------------------------------


def said_by(table: str, line: bytes, wanted: Wanted) -> bytes | None:
    """Return all that a line says to whoever reads it, None where nobody can."""
    fast = table == "incident-events" and not wanted.thorough
    try:
        return canonical_bytes((document_of if fast else exact_document_of)(line))
    except (Corrupt, TypeError):
        return None


async def test_whatever_is_done_to_a_line_is_told(lines: Lines, tmp_path: Path, rng: random.Random) -> None:
    sealing = Place(tmp_path / "sealing")
    assert verified(write_lines(lines, tmp_path / "whole"), sealing.folder, Wanted(seal=True)) == []
    seal = [line.rstrip("\n") for line in seal_lines(sealing)]
    for number in range(DAMAGES):
        wanted, table = rng.choice((FAST, FAST, THOROUGH)), rng.choice(("incident-events", "incidents", "idempotency"))
        place = rng.randrange(len(lines[table]))
        before, after = lines[table][place], malformed(lines[table][place], rng)
        damaged = {**lines, table: [*lines[table][:place], after, *lines[table][place + 1 :]]}
        found = verified(write_lines(damaged, tmp_path / f"export-{number}"), tmp_path / f"work-{number}", wanted, seal)
        if said_by(table, before, wanted) != said_by(table, after, wanted):
            assert found, (before, after)


async def test_events_forged_at_random_end_nothing(tables: Tables, tmp_path: Path, rng: random.Random) -> None:
    stored = [item for item in tables["incident-events"] if item["incidentId"]["S"] == INCIDENT]
    others = [item for item in tables["incident-events"] if item not in stored]
    history = sorted(map(from_item, stored), key=lambda one: int(one["sequence"]))
    for number in range(FORGERIES):
        made = forged(history, rng)
        tables["incident-events"] = [*others, *map(to_item, made)]
        row(tables)["lastEventHash"] = {"S": made[-1]["hash"]}
        wanted = rng.choice((FAST, THOROUGH, Wanted(confirm=False), Wanted(receipts=False, confirm=False)))
        verified(write_lines(lines_in(tables), tmp_path / f"export-{number}"), tmp_path / f"work-{number}", wanted)
