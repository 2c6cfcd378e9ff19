"""Malformed exports and malformed items: each is told where it is, or refused in words; nothing crashes, nothing hides."""

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.domain import replay as domain_replay
from pipeline.domain.coverage import OPEN_MAX
from pipeline.domain.divergences import SAID_MAX, Divergence, Kind, said
from pipeline.domain.errors import Corrupt
from pipeline.replay import partition
from pipeline.replay.exports import DataFile, ExportError, find_exports, opened
from pipeline.replay.folding import DocumentFold
from pipeline.replay.lines import document_of, exact_document_of, line_of
from pipeline.replay.partition import Wanted
from pipeline.replay.ranks import Rank, Table
from pipeline.replay.verifying import Place, spread_exports
from pipeline.stores.items import Item, read_receipt, receipt_item, window_item
from tests.contract.commits import receipt, window
from tests.support.damages import INCIDENT, NEXT, POINTER, event, last, receipt_until, row, told
from tests.support.exporting import Tables
from tests.support.malforming import Lines, lines_in, lived_once, nested, repack, verified, write_lines
from tests.support.replaying import verify_tables

FAST, THOROUGH = Wanted(), Wanted(thorough=True)


@pytest.fixture
async def tables() -> Tables:
    return await lived_once()


@pytest.fixture
async def lines(tables: Tables) -> Lines:
    return lines_in(tables)


# --- manifests and files --------------------------------------------------------------------------------------------------


def in_summary(**changes: Any) -> Callable[[Path], None]:
    return lambda at: _change(at / "manifest-summary.json", changes)


def in_files(**changes: Any) -> Callable[[Path], None]:
    return lambda at: _change(at / "manifest-files.json", changes)


def _change(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes) + "\n")


def instead(name: str, body: bytes) -> Callable[[Path], None]:
    def damage(at: Path) -> None:
        (at / name).write_bytes(body)

    return damage


def packed(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(at: Path) -> None:
        (path,) = (at / "data").iterdir()
        repack(at, change(path.read_bytes()), json.loads((at / "manifest-files.json").read_text())["itemCount"])

    return damage


MALFORMED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a count beyond all numbers": (in_files(itemCount=float("inf")), "itemCount is inf"),
    "a count below zero": (in_files(itemCount=-1), "itemCount is -1"),
    "a count that is true": (in_files(itemCount=True), "itemCount is True"),
    "a count in words": (in_files(itemCount="5"), "itemCount is '5'"),
    "a count with a fraction": (in_files(itemCount=1.5), "itemCount is 1.5"),
    "a sum in words": (in_summary(itemCount="14"), "itemCount is '14'"),
    "a name too long for a file": (in_files(dataFileS3Key="x" * 300), "can't be read"),
    "a name that no text can be": (in_files(dataFileS3Key="data/\ud800"), r"dataFileS3Key is 'data/\\ud800'"),
    "a name that is a list": (in_files(dataFileS3Key=["x"]), "dataFileS3Key is nested"),
    "the name of a folder": (in_files(dataFileS3Key="data/.."), "missing"),
    "a checksum that is a number": (in_files(md5Checksum=5), "md5Checksum is 5"),
    "a time that is a number": (in_summary(exportTime=5), "exportTime is 5"),
    "a table that is a list": (in_summary(tableArn=["x"]), "tableArn is nested"),
    "a format that is none": (in_summary(outputFormat=None), "outputFormat is missing"),
    "a kind that is a number": (in_summary(exportType=1), "exportType is 1"),
    "brackets without an end": (instead("manifest-files.json", b"[" * 100_000), "can't be read"),
    "a summary of brackets": (instead("manifest-summary.json", b"[" * 100_000), "can't be read"),
    "a summary that is a list": (instead("manifest-summary.json", b"[]"), "no manifest"),
    "files that are numbers": (instead("manifest-files.json", b"5\n"), "no manifest"),
    "bytes that are no text": (instead("manifest-files.json", b"\xff\xfe"), "can't be read"),
    "a file of nothing": (packed(lambda _: b""), "where the manifest says"),
    "the head of a file alone": (packed(lambda whole: whole[:7]), "damaged"),
    "something behind the file's end": (packed(lambda whole: whole + b"something"), "damaged"),
    "a second file behind the first": (packed(lambda whole: whole + gzip.compress(b"{}\n")), "where the manifest says"),
}


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_export_is_refused_in_words(name: str, lines: Lines, tmp_path: Path) -> None:
    damage, says = MALFORMED[name]
    folder = write_lines(lines, tmp_path / "export")
    damage(next((folder / "incident-events").rglob("manifest-summary.json")).parent)
    with pytest.raises(ExportError, match=says) as refused:
        verified(folder, tmp_path / "work")
    assert str(refused.value).encode()


async def test_a_file_that_vanishes_or_is_none_is_the_exports_failure(lines: Lines, tmp_path: Path) -> None:
    folder = write_lines(lines, tmp_path / "export")
    exports = find_exports([folder])
    (file,) = exports[Table.EVENTS].files
    file.path.unlink()
    for _ in range(2):
        with pytest.raises(ExportError, match="can't be read"):
            spread_exports(Place(tmp_path / "work"), exports.values(), None, lambda _: None)
        file.path.mkdir(exist_ok=True)
    with pytest.raises(ExportError, match="can't be read"):
        find_exports([tmp_path / ("x" * 300)])


def test_a_disk_that_fails_is_the_exports_failure_only_where_it_is_read() -> None:
    # Nothing lies at the first address of a process.
    with pytest.raises(ExportError, match="can't be read"), opened(DataFile(Path("/proc/self/mem"), 0, None)) as lines:
        list(lines)
    with pytest.raises(OSError, match="disk is full"), opened(DataFile(Path("/dev/null"), 0, None)):
        raise OSError(28, "the disk is full")


# --- attributes -----------------------------------------------------------------------------------------------------------

ATTRIBUTES: tuple[Any, ...] = (
    *({"S": 5}, {"S": None}, {"S": []}, {"S": {}}, {"S": True}, {"M": []}, {"M": 5}, {"M": "x"}, {"L": {}}, {"L": "x"}),
    *(
        {"L": None},
        {"L": [5]},
        {"L": [{"S": 5}]},
        {"N": 5},
        {"N": None},
        {"N": "1_0"},
        {"N": "\u0661"},
        {"N": ""},
        {"N": " 5"},
    ),
    *({"N": "NaN"}, {"N": "1E400"}, {"BOOL": "x"}, {"NULL": 5}, {"B": "AA=="}, {"SS": ["a"]}, {}, "S", ["S"], None, 5),
)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=str)
def test_what_is_no_attribute_is_refused_by_both_readers(attribute: Any) -> None:
    for held in (attribute, {"M": {"a": attribute}}, {"L": [attribute]}):
        line = json.dumps({"Item": {"odd": held}}).encode()
        for read in (document_of, exact_document_of):
            with pytest.raises(Corrupt):
                read(line)


DEEP: dict[str, tuple[int, bytes, bytes]] = {
    "maps in maps": (40, b'{"M":{"a":', b"}}"),
    "as deep as JSON goes": (480, b'{"M":{"a":', b"}}"),
    "lists in lists": (480, b'{"L":[', b"]}"),
    "deeper than JSON goes": (100_000, b'{"L":[', b"]}"),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_nested_beyond_all_measure_is_refused(name: str) -> None:
    depth, opens, closes = DEEP[name]
    line = b'{"Item":{"odd":%b{"S":"x"}%b}}' % (opens * depth, closes * depth)
    with pytest.raises(Corrupt):
        exact_document_of(line)


def test_an_attribute_of_two_kinds_is_refused_wherever_it_counts() -> None:
    for two in (b'{"S":"x","N":"5"}', b'{"M":{"a":{"S":"x","N":"5"}}}', b'{"L":[{"N":"5","S":"x"}]}'):
        with pytest.raises(Corrupt):
            exact_document_of(b'{"Item":{"odd":%b}}' % two)


# --- items ----------------------------------------------------------------------------------------------------------------


def in_receipt(tables: Tables, **changes: Any) -> None:
    receipt_until(tables, last(tables)).update(changes)


def in_result(tables: Tables, **changes: Any) -> None:
    receipt_until(tables, last(tables))["result"]["M"].update(changes)


RECEIPTS: dict[str, Callable[[Tables], None]] = {
    "a key that is a number": lambda tables: in_receipt(tables, pk=5),
    "a key that is a map": lambda tables: in_receipt(tables, pk={"M": {}}),
    "a result that is a number": lambda tables: in_receipt(tables, result=5),
    "a result of a number": lambda tables: in_receipt(tables, result={"M": 5}),
    "a first event that is no text": lambda tables: in_result(tables, firstSequence={"N": 1}),
    "a first event of many digits": lambda tables: in_result(tables, firstSequence={"N": "9" * 5000}),
    "an answer of two kinds": lambda tables: in_result(tables, answer={"S": "applied", "N": "5"}),
    "another schema version": lambda tables: in_receipt(tables, schemaVersion={"N": "2"}),
    "nested without end": lambda tables: in_receipt(tables, odd=nested(400)),
}


@pytest.mark.parametrize("name", RECEIPTS)
async def test_a_malformed_receipt_is_told_and_hides_nothing(name: str, tables: Tables, tmp_path: Path) -> None:
    RECEIPTS[name](tables)
    row(tables)["state"] = {"S": "OPEN"}
    found = told(verified(write_lines(lines_in(tables), tmp_path / "export"), tmp_path / "work"))
    assert (INCIDENT, "row", "state") in found
    assert {(one[0], one[1]) for one in found} in (
        {(INCIDENT, "row"), (INCIDENT, kind)} for kind in ("unreadable", "receipt")
    ) or (
        # What it names can't be told either.
        {(one[0], one[1]) for one in found} == {(INCIDENT, "row"), (INCIDENT, "unreadable"), (INCIDENT, "receipt-missing")}
    )


async def test_a_receipt_that_is_no_json_covers_the_events_that_it_still_names(lines: Lines, tmp_path: Path) -> None:
    number, line = next((n, line) for n, line in enumerate(lines["idempotency"]) if b'"lastSequence":{"N":"7"}' in line)
    lines["idempotency"][number] = line.replace(b'"createdAt":', b'"createdAt"')
    key = document_of(line)["pk"]
    found = told(verified(write_lines(lines, tmp_path / "export"), tmp_path / "work"))
    assert found == {(INCIDENT, "unreadable", f"receipt {key}")}


@pytest.mark.parametrize(
    "item",
    [
        {"pk": {"S": "0" * 64}},
        {"pk": 5},
        {"pk": {"S": "0" * 64}, "requestDigest": {"S": "x"}, "result": {"M": 5}},
        {"pk": {"S": "0" * 64}, "ruleId": {}},
        {"pk": {"S": "0" * 64}, "ruleId": {"N": 5}},
        {"pk": {"S": "0" * 64}, "hits": nested(400)},
    ],
    ids=range(6),
)
async def test_what_stands_alone_and_is_malformed_is_told(item: Any, lines: Lines, tmp_path: Path) -> None:
    lines["idempotency"].append(json.dumps({"Item": item}).encode())
    (found,) = verified(write_lines(lines, tmp_path / "export"), tmp_path / "work")
    assert (found.incident_id, found.kind) == ("", Kind.UNREADABLE)


@pytest.mark.parametrize("made", [receipt_item, window_item], ids=["a receipt", "a window"])
async def test_what_stands_alone_under_another_key_is_told(
    made: Callable[[Any], Item], lines: Lines, tmp_path: Path
) -> None:
    of = receipt("k") if made is receipt_item else window()
    whole = {name: list(of_table) for name, of_table in lines.items()}
    for number, (item, wrong) in enumerate(((made(of), 0), (another(made(of), pk={"S": "0" * 64}), 1))):
        whole["idempotency"] = [*lines["idempotency"], line_of(item)]
        found = verified(write_lines(whole, tmp_path / f"e{number}"), tmp_path / f"w{number}")
        assert [one.kind for one in found] == [Kind.UNREADABLE] * wrong


async def test_every_run_of_events_without_a_receipt_is_told(tables: Tables) -> None:
    for number in (4, 6):
        tables["idempotency"].remove(receipt_until(tables, number))
    found = told(verify_tables(tables))
    assert found == {(INCIDENT, "receipt-missing", "events 3 to 4"), (INCIDENT, "receipt-missing", "event 6")}


async def test_the_same_number_again_is_no_further_event_without_a_receipt(lines: Lines, tmp_path: Path) -> None:
    number, line = 7, next(line for line in lines["incident-events"] if b'"newState":{"S":"CLOSED"}' in line)
    lines["incident-events"].append(line.replace(b'"timestamp":{"S":', b'"timestamp":{"X":'))
    lines["idempotency"] = [line for line in lines["idempotency"] if b'"lastSequence":{"N":"%d"}' % number not in line]
    found = verified(write_lines(lines, tmp_path / "export"), tmp_path / "work")
    assert sorted((one.kind.value, one.where) for one in found) == [
        ("receipt-missing", f"event {number}"),
        ("unreadable", f"event {number}"),
    ]


async def test_an_event_that_can_not_be_read_behind_a_gap_is_told_once_and_the_gap_too(
    tables: Tables, tmp_path: Path
) -> None:
    tables["incident-events"].remove(event(tables, 3))
    event(tables, 4)["odd"] = nested(400)
    row(tables)["state"] = {"S": "OPEN"}
    expected = {(INCIDENT, "missing", "event 3"), (INCIDENT, "unreadable", "event 4"), (INCIDENT, "row", "state")}
    for number, wanted in enumerate((FAST, THOROUGH)):
        found = verified(write_lines(lines_in(tables), tmp_path / f"e{number}"), tmp_path / f"w{number}", wanted)
        assert told(found) == expected
        assert len(found) == 3


# --- what stands there twice ----------------------------------------------------------------------------------------------


def another(item: Item, **changes: Any) -> Item:
    return {**copy.deepcopy(item), **changes}


TWICE: dict[str, tuple[str, Callable[[Tables], Item], tuple[str, str]]] = {
    "a row": ("incidents", lambda tables: another(row(tables)), (INCIDENT, "row")),
    "a row that differs": ("incidents", lambda tables: another(row(tables), state={"S": "OPEN"}), (INCIDENT, "row")),
    "a pointer": ("incidents", lambda tables: another(row(tables, POINTER)), (NEXT, f"pointer {POINTER}")),
    "a receipt": ("idempotency", lambda tables: another(receipt_until(tables, last(tables))), (INCIDENT, "")),
}


@pytest.mark.parametrize("name", TWICE)
async def test_what_stands_twice_under_one_key_is_told(name: str, tables: Tables, tmp_path: Path) -> None:
    table, made, (incident, where) = TWICE[name]
    where = where or f"receipt {receipt_until(tables, last(tables))['pk']['S']}"
    tables[table].append(made(tables))
    found = told(verified(write_lines(lines_in(tables), tmp_path / "export"), tmp_path / "work"))
    assert (incident, "duplicated", where) in found
    assert len(found) == 1 or name == "a row that differs"


# --- how much is held -----------------------------------------------------------------------------------------------------


async def test_damage_beyond_all_measure_is_counted_and_told_and_not_held(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    take_all = partition.Replaying.take_all

    def measured(self: partition.Replaying, *given: Any) -> tuple[Divergence, ...]:
        found = take_all(self, *given)
        held.append(len(found))
        return found

    monkeypatch.setattr(partition.Replaying, "take_all", measured)
    kept = 50
    for module in (domain_replay, partition):
        monkeypatch.setattr(module, "KEPT_MAX", kept)
    # Every other event is there, none says what its hash says, and each receipt can't be read.
    many = 8 * kept
    like, receipt = event(tables, last(tables)), receipt_until(tables, last(tables))
    for number in range(last(tables) + 2, last(tables) + many, 2):
        tables["incident-events"].append(another(like, sequence={"N": str(number)}))
        odd = {"M": {"firstSequence": {"N": str(number)}, "lastSequence": {"N": str(number)}}}
        tables["idempotency"].append(another(receipt, pk={"S": f"{number:064x}"}, result=odd))
    found = verified(write_lines(lines_in(tables), tmp_path / "export"), tmp_path / "work")
    kinds = {kind: sum(one.kind is kind for one in found) for kind in (Kind.MISSING, Kind.UNREADABLE)}
    assert kinds == {Kind.MISSING: many // 2 - 1, Kind.UNREADABLE: many // 2 - 1}
    assert max(held) < 2 * kept < len(found)


@pytest.mark.parametrize("wide", [False, True], ids=["many at once", "of all events to come"])
async def test_receipts_that_no_transaction_wrote_are_told_and_not_held(wide: bool, tables: Tables, tmp_path: Path) -> None:
    """As many as anybody may write into a table: each would be held until the last event that it names."""
    whole = read_receipt(receipt_until(tables, last(tables)))
    names = {"first_sequence": 2, "last_sequence": 10**15} if wide else {}
    for number in range(OPEN_MAX + 5):
        result = whole.result.model_copy(update=names)
        made = whole.model_copy(update={"idempotency_key": f"made up {number}", "result": result})
        tables["idempotency"].append(receipt_item(made))
    found = verified(write_lines(lines_in(tables), tmp_path / "export"), tmp_path / "work")
    assert {(one.kind, one.where.partition(": ")[2]) for one in found} == {(Kind.RECEIPT, "events")}
    # Held beside them are the decision's own receipt, and that of the event before.
    assert len(found) == (OPEN_MAX + 5 if wide else 7)


def test_what_was_found_is_told_as_far_as_it_is_of_use() -> None:
    assert said(5) == "5"
    assert len(said("x" * 10**6)) < SAID_MAX + 50


async def test_the_core_is_asked_of_as_many_events_as_may_be_held_and_of_no_part_of_them(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DocumentFold.row
    monkeypatch.setattr(DocumentFold, "row", lambda self: made(self) | {"title": "not what the core says"})
    lines = lines_in(tables)
    folder = write_lines(lines, tmp_path / "export")
    assert verified(folder, tmp_path / "whole") == []
    size = sum(len(line) + 1 for line in lines["incident-events"] if b'{"incidentId":{"S":"%b"' % INCIDENT.encode() in line)
    for room, wrong in ((size, 0), (size - 1, 1)):
        monkeypatch.setattr(partition, "ASKED_AGAIN_BYTES_MAX", room)
        found = verified(folder, tmp_path / f"within {room}")
        assert sum(one.incident_id == INCIDENT for one in found) == wrong
    # What is no longer all of them is of no use, and dropped at once.
    incident = partition.Replaying(INCIDENT, FAST, None)
    incident.take_all(iter([[b"", b"1", b"%d" % Rank.EVENT, line] for line in lines["incident-events"]]))
    assert incident._lines == []
