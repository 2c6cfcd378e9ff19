"""Replaying what is too large to hold: spreading, sorting in runs, exports and their manifests, seals, and the fast fold."""

import asyncio
import copy
import gzip
import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.envelope import event_hash
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.replay import ModelFold
from pipeline.replay import lines
from pipeline.replay.exports import ExportError, find_exports
from pipeline.replay.folding import DocumentFold
from pipeline.replay.lines import document_of, event_key, line_of
from pipeline.replay.live import together
from pipeline.replay.partition import Wanted, row_of
from pipeline.replay.ranks import Table
from pipeline.replay.spill import Entry, SpillWriter, by_key, entry_of, partitions
from pipeline.replay.verifying import Place, divergences, replay, seal_lines, spread_exports, spread_seal
from pipeline.stores.items import from_item, to_item
from tests.support.damages import DAMAGES, INCIDENT, change_metadata, last, lived, receipt_until, told
from tests.support.exporting import Tables, export, tables_of
from tests.support.histories import STATE_PATHS, incident_in, whole_life


@pytest.fixture
async def tables() -> Tables:
    return copy.deepcopy(tables_of(await lived()))


def nothing(_: int) -> None:
    pass


def verified(folder: Path, at: Path, wanted: Wanted = Wanted(), seal: list[str] | None = None) -> list[Divergence]:  # noqa: B008
    """Replay an export under `folder` as the command line does, in this process."""
    place = Place(at)
    exports = find_exports([folder])
    spread = spread_exports(place, exports.values(), None, nothing)
    if seal is not None:
        spread_seal(place, seal, None)
    counts = replay(place, wanted, spread.items, nothing)
    found = [*spread.found, *divergences(place)]
    assert counts.divergences == len(found) - len(spread.found)
    return found


# --- lines ----------------------------------------------------------------------------------------------------------------


def test_a_line_reads_as_the_item_does() -> None:
    event = whole_life()[0][0].to_document()
    item = to_item(event | {"odd": {"a": None, "b": (True, -1, Decimal("0.25"), {"incidentId": "x"}), "c": 2**53 - 1}})
    line = line_of(item)
    assert document_of(line) == from_item(item)
    assert event_key(line) == (event["incidentId"].encode(), 1)


def test_keys_that_a_caller_repeats_in_data_of_its_own_are_not_taken_for_the_events() -> None:
    event = whole_life()[0][2].to_document()
    claimed = {"incidentId": "0" * 8 + event["incidentId"][8:], "sequence": 7}
    lines = [line_of(to_item(first | {"metadata": event["metadata"] | {"tags": claimed}})) for first in (event,)]
    assert event_key(lines[0]) == (event["incidentId"].encode(), 3)
    assert event_key(line_of(to_item({"aMap": claimed} | event))) == (event["incidentId"].encode(), 3)


@pytest.mark.parametrize("history", whole_life(), ids=["first life", "second life"])
def test_the_fast_hash_is_the_cores(history: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nobody is asked again: what comes back is the fast writer's own.
    monkeypatch.setattr(lines, "event_hash", lambda _: "not the fast writer's")
    for event in history:
        document = event.to_document()
        assert lines.hash_of(document) == event_hash(document) == document["hash"]
        odd = {"text": 'a"b\\c\x7f\u2028\U0001f600/é', "n": Decimal("0.1"), "z": 0, "A": (), "e": {}}
        strange = document | {"metadata": odd}
        strange["hash"] = event_hash(strange)
        assert lines.hash_of(strange) == strange["hash"]


@pytest.mark.parametrize("value", [1.5, {"a": [1.5]}], ids=str)
def test_an_event_without_a_canonical_form_is_unreadable_and_stops_nothing(
    value: Any, tables: Tables, tmp_path: Path
) -> None:
    """No table can hold it: a line that somebody wrote into an export, with its checksum."""
    event = tables["incident-events"][0]
    odd = {**event, "metadata": {"M": {**event["metadata"]["M"], "odd": {"S": value}}}}
    tables["incident-events"][0] = odd
    found = verified(export(tables, tmp_path / "export"), tmp_path / "work")
    assert {one.kind for one in found} == {Kind.UNREADABLE}
    assert {one.incident_id for one in found} == {event["incidentId"]["S"]}


@pytest.mark.parametrize("line", [b"", b"{}", b'{"Item": 5}', b'{"Item": {"a": {"B": "AAA="}}}', b'{"Item": {"a": 3}}'])
def test_a_line_that_is_no_item_of_ours_is_corrupt(line: bytes) -> None:
    with pytest.raises(Corrupt):
        document_of(line)


def test_a_binary_attribute_that_was_read_from_a_table_is_corrupt_and_no_crash() -> None:
    event: dict[str, Any] = dict(to_item(whole_life()[0][0].to_document()))
    with pytest.raises(Corrupt):
        document_of(line_of(event | {"odd": {"B": b"bytes"}}))


async def test_what_one_of_several_reads_raises_is_raised_as_itself() -> None:
    ended: list[str] = []

    async def down() -> None:
        raise Unavailable("the table does not answer")

    async def waiting() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("waiting")

    with pytest.raises(Unavailable):
        await together(iter([waiting(), down()]))
    assert ended == ["waiting"]


# --- the fast fold --------------------------------------------------------------------------------------------------------


def both_folds(documents: list[Document]) -> None:
    """Assert that the core's fold and the fast one agree after every event."""
    model, plain = ModelFold(row_of), DocumentFold()
    for document in documents:
        model.take(document)
        plain.take(copy.deepcopy(document))
        assert plain.row() == model.row(), f"after event {document['sequence']}, {document['eventType']}"
        assert plain.control_version == model.control_version


@pytest.mark.parametrize("history", whole_life(), ids=["every optional field", "a short life"])
def test_the_fast_fold_makes_the_cores_row(history: Any) -> None:
    both_folds([event.to_document() for event in history])


def test_the_fast_fold_knows_every_event_type_and_reaches_every_state() -> None:
    assert {incident_in(state).state for state in STATE_PATHS} == set(STATE_PATHS)
    kinds = {event.to_document()["eventType"] for history in whole_life() for event in history}
    assert len(kinds) == 12


async def test_a_mistake_of_the_fast_fold_is_never_called_damage(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DocumentFold.row
    monkeypatch.setattr(DocumentFold, "row", lambda self: made(self) | {"title": "not what the core says"})
    folder = export(tables, tmp_path / "export")
    assert verified(folder, tmp_path / "work") == []
    assert {one.where for one in verified(folder, tmp_path / "alone", Wanted(confirm=False))} == {"title"}


# --- partitions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_bytes", [200, 10_000, 10_000_000])
def test_entries_come_back_in_order_whatever_fits_into_memory(run_bytes: int, tmp_path: Path, rng: random.Random) -> None:
    wanted = [
        Entry(f"{rng.randrange(16**8):08x}".encode(), rng.randrange(1, 10**6), rng.randrange(4), b"%d" % number)
        for number in range(2000)
    ]
    with SpillWriter(tmp_path / "in", "a") as one, SpillWriter(tmp_path / "in", "b") as other:
        for entry in wanted:
            rng.choice((one, other)).put(*entry)
    found: list[Entry] = []
    for files in partitions(tmp_path / "in").values():
        groups = by_key(files, tmp_path / "scratch", run_bytes)
        part = [one._replace(line=one.line.rstrip(b"\n")) for _, group in groups for one in map(entry_of, group)]
        assert [(one.key, one.place, one.rank) for one in part] == sorted((one.key, one.place, one.rank) for one in part)
        found += part
    assert sorted(found) == sorted(wanted)


# --- exports --------------------------------------------------------------------------------------------------------------


async def test_a_whole_export_is_clean(tables: Tables, tmp_path: Path) -> None:
    assert verified(export(tables, tmp_path / "export"), tmp_path / "work") == []


@pytest.mark.parametrize("name", DAMAGES)
async def test_each_damage_is_named_in_an_export_as_well(name: str, tables: Tables, tmp_path: Path) -> None:
    damage, expected = DAMAGES[name]
    damage(tables)
    assert told(verified(export(tables, tmp_path / "export", files=3), tmp_path / "work")) == expected(tables)


async def test_an_export_of_the_events_alone_is_checked_as_far_as_it_goes(tables: Tables, tmp_path: Path) -> None:
    change_metadata(tables)
    folder = export({"incident-events": tables["incident-events"]}, tmp_path / "export")
    found = verified(folder, tmp_path / "work", Wanted(rows=False, receipts=False))
    assert told(found) == {(INCIDENT, "changed", "event 3")}


async def test_what_cant_be_read_is_named_and_stops_nothing(tables: Tables, tmp_path: Path) -> None:
    tables["incident-events"].append({"incidentId": {"S": "no id"}, "sequence": {"N": "1"}})
    tables["idempotency"].append({"pk": {"S": "0" * 64}, "what": {"S": "no receipt"}})
    change_metadata(tables)
    found = verified(export(tables, tmp_path / "export"), tmp_path / "work")
    assert [one.kind.value for one in found if not one.incident_id] == ["unreadable", "unreadable"]
    assert (INCIDENT, "changed", "event 3") in told(found)


def break_summary(at: Path, **changes: Any) -> None:
    path = at / "manifest-summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut_file(at: Path) -> None:
    path = next((at / "data").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def other_content(at: Path) -> None:
    path = next((at / "data").iterdir())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"SEV2", b"SEV3")))


def without_checksum(at: Path) -> None:
    """Take the checksums away and a line with them: only the count can tell then."""
    path = next((at / "data").iterdir())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).split(b"\n", 1)[1]))
    manifest = at / "manifest-files.json"
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps({k: v for k, v in one.items() if k != "md5Checksum"}) + "\n" for one in lines))


WRONG: dict[str, tuple[Any, str]] = {
    "another format": (lambda at: break_summary(at, outputFormat="ION"), "DYNAMODB_JSON"),
    "an incremental one": (lambda at: break_summary(at, exportType="INCREMENTAL_EXPORT"), "incremental"),
    "another table": (lambda at: break_summary(at, tableArn="arn:aws:dynamodb:us-east-1:1:table/users"), "none of opx's"),
    "another count": (lambda at: break_summary(at, itemCount=3), "items"),
    "another moment": (lambda at: break_summary(at, exportTime="2026-02-02T00:00:00Z"), "different points in time"),
    "a file that is gone": (lambda at: next((at / "data").iterdir()).unlink(), "missing"),
    "a file that was cut": (cut_file, "checksum"),
    "a file of other content": (other_content, "checksum"),
    "a line that is gone": (without_checksum, "where the manifest says"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_export_that_is_not_what_its_manifest_says_is_refused(name: str, tables: Tables, tmp_path: Path) -> None:
    damage, says = WRONG[name]
    folder = export(tables, tmp_path / "export")
    damage(next((folder / "incident-events").rglob("manifest-summary.json")).parent)
    with pytest.raises(ExportError, match=says):
        verified(folder, tmp_path / "work")


async def test_a_folder_without_events_is_no_export_to_replay(tables: Tables, tmp_path: Path) -> None:
    del tables["incident-events"]
    with pytest.raises(ExportError, match="event table"):
        find_exports([export(tables, tmp_path / "export")])
    with pytest.raises(ExportError, match="no export"):
        find_exports([tmp_path / "nowhere"])


async def test_exports_of_three_tables_are_found_wherever_they_lie(tables: Tables, tmp_path: Path) -> None:
    assert set(find_exports([export(tables, tmp_path / "export")])) == set(Table)


# --- seals ----------------------------------------------------------------------------------------------------------------


async def sealed_lines(tables: Tables, at: Path) -> list[str]:
    assert verified(export(tables, at / "sealed"), at / "sealing", Wanted(seal=True)) == []
    return [line.rstrip("\n") for line in seal_lines(Place(at / "sealing"))]


async def test_a_seal_holds_for_ever_and_names_what_was_changed_since(tables: Tables, tmp_path: Path) -> None:
    lines = await sealed_lines(tables, tmp_path)
    assert lines == sorted(lines)
    assert len(lines) == 3
    assert verified(export(tables, tmp_path / "again"), tmp_path / "work", seal=lines) == []
    # What no event says again: only the seal can tell.
    receipt_until(tables, last(tables))["requestDigest"] = {"S": "0" * 64}
    assert verified(export(tables, tmp_path / "unsealed"), tmp_path / "work-2") == []
    found = verified(export(tables, tmp_path / "changed"), tmp_path / "work-3", seal=lines)
    assert told(found) == {(INCIDENT, "seal", f"receipts of events 1 to {last(tables)}")}


async def test_an_incident_that_is_gone_without_a_trace_is_told_by_the_seal(tables: Tables, tmp_path: Path) -> None:
    lines = await sealed_lines(tables, tmp_path)
    other = next(line.split()[0] for line in lines if line.split()[1] == "2" and not line.startswith(INCIDENT))
    gone = {
        name: [item for item in items if item.get("incidentId") != {"S": other} and item.get("pk") != {"S": other}]
        for name, items in tables.items()
    }
    found = verified(export(gone, tmp_path / "gone"), tmp_path / "work", seal=lines)
    assert (other, "seal", "event 2") in told(found)


async def test_histories_may_grow_after_they_were_sealed(tables: Tables, tmp_path: Path) -> None:
    lines = await sealed_lines(tables, tmp_path)
    earlier = [f"{INCIDENT} 2 {next(event_hash_of(tables, 2))} {0:064x}" if INCIDENT in line else line for line in lines]
    found = verified(export(tables, tmp_path / "grown"), tmp_path / "work", Wanted(receipts=False), seal=earlier)
    assert found == []


def event_hash_of(tables: Tables, sequence: int) -> Any:
    for item in tables["incident-events"]:
        if item["incidentId"]["S"] == INCIDENT and item["sequence"]["N"] == str(sequence):
            yield item["hash"]["S"]
