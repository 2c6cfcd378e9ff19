"""`opx replay` against tables in the engine, as an auditor runs it: through the command line, on what is really stored.

Damage is done to tables of a prefix of their own. What the deployed functions wrote is verified and shown where it is.
"""

import asyncio
import copy
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session

from pipeline.clients.operator import Operator
from pipeline.local.deploy import aws
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.contract.tables import definitions
from tests.support.damages import DAMAGES, INCIDENT, NEXT, POINTER, Told, lived, row
from tests.support.engine_cli import Opx, calling, candidate, declared, incident_of
from tests.support.exporting import Tables, tables_of, write_export
from tests.support.signed import api_url
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]

PREFIX = "replayed"
SERVICE = "replay-e2e"
NOTES = 40


@pytest.fixture
def opx(stack: Stack) -> Opx:
    return calling(stack)


@pytest.fixture(scope="module")
def whole(stack: Stack) -> Iterator[Tables]:
    """Tables of a prefix of their own, with three incidents in them; yields what they hold."""
    client = stack.client("dynamodb")
    for request in definitions(PREFIX):
        client.create_table(**request)
    held = tables_of(asyncio.run(lived()))
    for name, items in held.items():
        for item in items:
            client.put_item(TableName=f"{PREFIX}-{name}", Item=item)
    yield held
    for request in definitions(PREFIX):
        client.delete_table(TableName=request["TableName"])


KEYS = {"incident-events": ("incidentId", "sequence"), "incidents": ("pk",), "idempotency": ("pk",)}


def write(stack: Stack, before: Tables, after: Tables) -> None:
    """Make the stored tables, which hold `before`, hold `after`."""
    client = stack.client("dynamodb")
    for name, keys in KEYS.items():
        for item in before[name]:
            if item not in after[name]:
                client.delete_item(TableName=f"{PREFIX}-{name}", Key={key: item[key] for key in keys})
        for item in after[name]:
            if item not in before[name]:
                client.put_item(TableName=f"{PREFIX}-{name}", Item=item)


@pytest.fixture
def damaged(stack: Stack, whole: Tables, request: pytest.FixtureRequest) -> Iterator[Told]:
    """Do a damage to the stored tables, and mend it afterwards; yields what it must be called."""
    damage, expected = DAMAGES[request.param]
    tables = copy.deepcopy(whole)
    damage(tables)
    write(stack, whole, tables)
    yield expected(tables)
    write(stack, tables, whole)


def found_in(out: list[dict[str, Any]]) -> Told:
    found = [line["divergence"] for line in out if "divergence" in line]
    return {(one["incidentId"], one["kind"], one["where"]) for one in found}


# Those that the tables themselves make a difference to; all of them are in `tests/unit/test_replay_damage.py`.
IN_A_TABLE = [
    "metadata",
    "actor",
    "timestamp",
    "swapped",
    "dropped first",
    "dropped middle",
    "dropped last",
    "inserted",
    "duplicated",
    "row state",
    "row version",
    "pointer",
    "pointer gone",
    "receipt's state",
    "receipt's principal",
]


@pytest.mark.parametrize("damaged", IN_A_TABLE, indirect=True, ids=IN_A_TABLE)
def test_each_damage_to_stored_tables_is_named_exactly(damaged: Told, opx: Opx) -> None:
    code, out, _ = opx("replay", "verify", "--tables", PREFIX)
    assert code == 1
    assert found_in(out) == damaged
    assert out[-1]["divergences"] == len(damaged)


def test_tables_that_nobody_touched_are_clean(whole: Tables, opx: Opx) -> None:
    code, out, _ = opx("replay", "verify", "--tables", PREFIX)
    assert (code, out[0]["divergences"], out[0]["incidents"]) == (0, 0, 3)
    assert out[0]["events"] == len(whole["incident-events"])
    assert out[0]["compared"] == ["idempotency", "incident-events", "incidents"]


@pytest.mark.parametrize("damaged", ["metadata", "row state", "dropped last"], indirect=True, ids=str)
def test_one_incident_is_verified_by_its_own_reads(damaged: Told, opx: Opx) -> None:
    code, out, _ = opx("replay", "verify", INCIDENT, "--tables", PREFIX)
    told = {(incident, kind, where.split(":")[0]) for incident, kind, where in found_in(out)}
    assert code == 1
    assert told == {(incident, kind, where.split(":")[0]) for incident, kind, where in damaged}
    assert opx("replay", "verify", NEXT, "--tables", PREFIX)[0] == 0


def stored(stack: Stack, name: str) -> list[dict[str, Any]]:
    items = stack.client("dynamodb").scan(TableName=f"{PREFIX}-{name}", ConsistentRead=True)["Items"]
    return sorted(items, key=json.dumps)


def test_a_wiped_incidents_table_is_rebuilt_to_equal_bytes(stack: Stack, whole: Tables, opx: Opx) -> None:
    before = stored(stack, "incidents")
    assert len(before) == 5, "three rows and two pointers"
    for item in before:
        stack.client("dynamodb").delete_item(TableName=f"{PREFIX}-incidents", Key={"pk": item["pk"]})
    code, out, _ = opx("replay", "rebuild", "--everything", "--dry-run", "--tables", PREFIX)
    assert (code, out[-1]["written"], stored(stack, "incidents")) == (0, 3, [])
    code, out, _ = opx("replay", "rebuild", "--everything", "--tables", PREFIX)
    assert (code, out[-1]["written"]) == (0, 3)
    assert stored(stack, "incidents") == before
    assert opx("replay", "rebuild", "--everything", "--tables", PREFIX)[1][-1]["current"] == 3


@pytest.mark.parametrize("damaged", ["metadata"], indirect=True)
def test_a_damaged_history_makes_no_row(damaged: Told, stack: Stack, opx: Opx) -> None:
    before = stored(stack, "incidents")
    code, out, _ = opx("replay", "rebuild", "--everything", "--tables", PREFIX)
    assert (code, out[-1]["damaged"], out[-1]["current"]) == (1, 1, 2)
    assert stored(stack, "incidents") == before


@pytest.mark.parametrize("damaged", ["row set back", "row version"], indirect=True)
def test_a_row_that_is_behind_is_brought_forward(damaged: Told, stack: Stack, whole: Tables, opx: Opx) -> None:
    assert opx("replay", "rebuild", INCIDENT, "--tables", PREFIX)[1][0]["answer"] == "written"
    assert sorted(whole["incidents"], key=json.dumps) == stored(stack, "incidents")


@pytest.mark.parametrize("damaged", ["dropped first", "dropped all"], indirect=True)
def test_a_span_of_time_tells_what_is_damaged_where_it_begins(damaged: Told, whole: Tables, opx: Opx) -> None:
    begin, end = (row(whole, one)["createdAt"]["S"] for one in (INCIDENT, NEXT))
    code, out, _ = opx("replay", "verify", "--from", begin, "--to", end, "--tables", PREFIX)
    assert (code, {incident for incident, _, _ in found_in(out)}) == (1, {INCIDENT})
    code, out, _ = opx("replay", "verify", "--from", end, "--tables", PREFIX)
    assert (code, out[-1]["incidents"]) == (0, 1)
    code, out, _ = opx("replay", "rebuild", "--everything", "--tables", PREFIX)
    assert (code, out[-1]["damaged"] + out[-1]["unknown"], out[-1]["current"]) == (1, 1, 2)


def test_a_row_and_a_pointer_of_no_number_are_written_again(stack: Stack, whole: Tables, opx: Opx) -> None:
    before, tables = stored(stack, "incidents"), copy.deepcopy(whole)
    row(tables)["version"] = row(tables, POINTER)["occurrence"] = {"S": "x"}
    write(stack, whole, tables)
    code, out, _ = opx("replay", "rebuild", INCIDENT, "--tables", PREFIX)
    assert (code, out[-1]["written"], out[-1]["pointersWritten"]) == (0, 1, 1)
    assert stored(stack, "incidents") == before


def test_a_rebuild_under_live_traffic_sets_nothing_back(stack: Stack, opx: Opx) -> None:
    identity = declared(opx, SERVICE)
    versions: list[int] = []
    written = threading.Event()

    def watch() -> None:
        client, key = aws(stack.endpoint_url, "dynamodb"), {"pk": {"S": identity}}
        while not written.is_set():
            row = client.get_item(TableName=stack.outputs["IncidentsTableName"], Key=key, ConsistentRead=True)["Item"]
            versions.append(int(row["version"]["N"]))

    def note() -> None:
        session = Session()
        session.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
        try:
            with Operator(api_url(stack), region=REGION, session=session, authority="HUMAN") as operator:
                for number in range(NOTES):
                    operator.add_note(identity, f"note {number}")
        finally:
            written.set()

    threads = [threading.Thread(target=watch), threading.Thread(target=note)]
    for thread in threads:
        thread.start()
    rebuilds = 0
    while not written.is_set():
        assert opx("replay", "rebuild", identity)[0] == 0
        rebuilds += 1
    for thread in threads:
        thread.join()
    assert rebuilds > 1
    assert versions == sorted(versions), "a row was set back"
    assert versions[-1] > versions[0]
    code, out, _ = opx("replay", "verify", identity)
    assert (code, out[-1]["divergences"], out[-1]["events"]) == (0, 0, NOTES + 2)


def test_the_past_is_shown_as_it_was(opx: Opx) -> None:
    identity = declared(opx, f"{SERVICE}-past")
    assert opx("mitigate", identity)[0] == 0
    assert opx("resolve", identity, "--reason", "rolled back")[0] == 0
    states = [opx("replay", "show", identity, "--version", str(number))[1][0]["state"] for number in range(1, 5)]
    assert states == ["PENDING", "OPEN", "MITIGATING", "RESOLVED"]
    then = opx("replay", "show", identity, "--version", "3")[1][0]["updatedAt"]
    assert opx("replay", "show", identity, "--at", then)[1][0]["state"] == "MITIGATING"
    code, _, err = opx("replay", "show", identity, "--at", "2020-01-01T00:00Z")
    assert (code, "no such incident then" in err[0]["error"]) == (1, True)


def test_what_the_deployed_functions_wrote_verifies_and_is_remembered(stack: Stack, opx: Opx) -> None:
    service = f"{SERVICE}-whole"
    assert opx("send", "--json-body", candidate(service))[0] == 0
    identity = incident_of(opx, service)["incidentId"]
    code, out, _ = opx("replay", "verify")
    others = [line["divergence"] for line in out if "divergence" in line]
    assert others == []
    assert code == 0
    assert out[-1]["incidents"] >= 1
    name = stack.outputs["LastVerifyParameterName"]
    kept = json.loads(stack.client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    assert (kept["scope"], kept["divergences"], kept["events"]) == ("everything", 0, out[-1]["events"])
    assert opx("replay", "verify", identity)[0] == 0


def test_an_export_of_the_stored_tables_is_sealed_and_compared_later(
    stack: Stack, whole: Tables, opx: Opx, tmp_path: Path
) -> None:
    for name in whole:
        items = stored(stack, name)
        write_export(tmp_path / "export", name, (items[:4], items[4:], []))
    code, out, _ = opx("replay", "verify", "--export", str(tmp_path / "export"))
    assert (code, out[-1]["events"]) == (0, len(whole["incident-events"]))
    seal = tmp_path / "seal.txt"
    code, out, _ = opx("replay", "seal", "--export", str(tmp_path / "export"), "--out", str(seal))
    assert (code, out[0]["incidents"]) == (0, 3)
    assert opx("replay", "verify", "--export", str(tmp_path / "export"), "--seal", str(seal))[1][-1]["sealed"] == 3
    assert opx("replay", "verify", "--tables", PREFIX, "--seal", str(seal))[0] == 0
    seal.write_text(seal.read_text().replace("3", "4"))
    code, _, err = opx("replay", "verify", "--export", str(tmp_path / "export"), "--seal", str(seal))
    # Nothing diverges: it could not be told.
    assert code == 2
    assert "seal" in err[0]["error"]


def test_one_incident_is_shown_from_an_export(stack: Stack, whole: Tables, opx: Opx, tmp_path: Path) -> None:
    write_export(tmp_path, "incident-events", [stored(stack, "incident-events")])
    code, out, _ = opx("replay", "show", INCIDENT, "--version", "2", "--export", str(tmp_path))
    assert (code, out[0]["state"], out[0]["version"]) == (0, "OPEN", 2)
