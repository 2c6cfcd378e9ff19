"""Replaying what is too large to hold: spreading, sorting in runs, exports and their manifests, seals, and the fast fold."""

import asyncio
import copy
import gzip
import json
import random
from base64 import b64encode
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain.divergences import Divergence, Kind
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.replay.exports import ExportError, find_exports
from pipeline.replay.folding import DocumentFold
from pipeline.replay.live import together
from pipeline.replay.partition import Wanted
from pipeline.replay.ranks import Table
from pipeline.replay.spill import Entry, SpillWriter, by_key, entry_of, partitions
from pipeline.replay.verifying import Place, divergences, replay, seal_lines, spread_exports, spread_seal
from tests.support.damages import DAMAGES, INCIDENT, change_metadata, last, lived, receipt_until, told
from tests.support.exporting import Tables, export, tables_of


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


async def test_a_mistake_of_the_fast_fold_is_never_called_damage(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DocumentFold.row
    monkeypatch.setattr(DocumentFold, "row", lambda self: made(self) | {"title": "not what the core says"})
    folder = export(tables, tmp_path / "export")
    assert verified(folder, tmp_path / "work") == []
    assert {one.where for one in verified(folder, tmp_path / "alone", Wanted(confirm=False))} == {"title"}


# --- several at once -------------------------------------------------------------------------------------------------------


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
    assert (tmp_path / "scratch").exists() is (run_bytes == 200), "only what is too large is sorted in runs"


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


def damaged(damage: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Return what damages a packed file and makes its checksum right: somebody's own export, or a manifest without one."""

    def at(folder: Path) -> None:
        path = min((folder / "data").iterdir())
        path.write_bytes(damage(path.read_bytes()))
        checksum = b64encode(md5(path.read_bytes(), usedforsecurity=False).digest()).decode()
        manifest = folder / "manifest-files.json"
        first, *others = (json.loads(line) for line in manifest.read_text().splitlines())
        assert first["dataFileS3Key"].endswith(path.name)
        written = [first | {"md5Checksum": checksum}, *others]
        manifest.write_text("".join(json.dumps(one) + "\n" for one in written))

    return at


def flipped(packed: bytes, at: int) -> bytes:
    return packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :]


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
    "a packed file that ends too soon": (damaged(lambda packed: packed[:-40]), "damaged"),
    "a packed file whose content does not sum up": (damaged(lambda packed: flipped(packed, len(packed) - 6)), "damaged"),
    "a packed file with a wrong block": (damaged(lambda packed: packed[:10] + b"\xff" * 40 + packed[50:]), "damaged"),
    "a file that is not packed": (damaged(gzip.decompress), "damaged"),
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


@pytest.mark.parametrize("identity", ["nonsense", "../../../../../../../../../etc/passwd"])
async def test_a_line_of_a_seal_that_names_no_incident_is_refused(identity: str, tables: Tables, tmp_path: Path) -> None:
    line = f"{identity} 3 {'0' * 64} {0:064x}"
    with pytest.raises(Corrupt, match="no incident's id"):
        verified(export(tables, tmp_path / "export"), tmp_path / "work", seal=[line])


async def test_histories_may_grow_after_they_were_sealed(tables: Tables, tmp_path: Path) -> None:
    lines = await sealed_lines(tables, tmp_path)
    earlier = [f"{INCIDENT} 2 {next(event_hash_of(tables, 2))} {0:064x}" if INCIDENT in line else line for line in lines]
    found = verified(export(tables, tmp_path / "grown"), tmp_path / "work", Wanted(receipts=False), seal=earlier)
    assert found == []


def event_hash_of(tables: Tables, sequence: int) -> Any:
    for item in tables["incident-events"]:
        if item["incidentId"]["S"] == INCIDENT and item["sequence"]["N"] == str(sequence):
            yield item["hash"]["S"]
