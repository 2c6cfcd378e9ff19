"""`opx audit` against the deployed stack: what was done is found by who, where and when, in table and export."""

import asyncio
import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.tables import definitions
from tests.e2e.test_scheduled import A_MOMENT, closed, invoke, told_otherwise
from tests.support.audited import CARTS, LEDGER, QUESTIONS, worked
from tests.support.engine_cli import Opx, calling, candidate, declared, incident_of
from tests.support.exporting import write_export
from tests.support.stack import Stack, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.long]

PREFIX = "audited"
ACCOUNT = "000000000000"


@pytest.fixture
def opx(stack: Stack) -> Opx:
    return calling(stack)


@pytest.fixture
def service() -> str:
    return f"audit-{uuid4().hex[:12]}"


def audited(opx: Opx, *options: str) -> list[dict[str, Any]]:
    """Return the events of an answer that names no damage."""
    code, out, _ = opx("audit", *options)
    assert (code, out[-1]["summary"]["events"], out[-1]["summary"]["divergences"]) == (0, len(out) - 1, 0)
    return sorted(out[:-1], key=lambda event: (event["timestamp"], event["incidentId"], event["sequence"]))


# --- what the deployed functions wrote ------------------------------------------------------------------------------------


def test_a_persons_act_by_the_api_and_a_programs_by_queue_are_told_apart(stack: Stack, opx: Opx, service: str) -> None:
    identity = declared(opx, service)
    assert opx("mitigate", identity)[0] == 0
    note = {
        "type": "add-note",
        "incidentId": identity,
        "note": "by a program",
        "idempotencyKey": service,
        "authority": "SYSTEM",
    }
    stack.client("sqs").send_message(
        QueueUrl=stack.outputs["CommandsQueueUrl"],
        MessageBody=json.dumps(note),
        MessageGroupId=identity,
        MessageDeduplicationId=service,
    )
    wait_until(lambda: bool(audited(opx, "--incident", identity, "--type", "NoteAdded")), within_s=30)
    found = audited(opx, "--actor", ACCOUNT, "--service", service)
    kinds = [(event["eventType"], event["actor"]["authorityType"]) for event in found]
    assert ("MitigationStarted", "HUMAN") in kinds
    assert kinds[-1] == ("NoteAdded", "SYSTEM")
    assert {event["actor"]["principal"] for event in found if "requestedBy" not in event["metadata"]} <= {ACCOUNT}


def test_whom_the_gate_opened_for_is_found_by_who_asked(opx: Opx, service: str) -> None:
    assert opx("send", "--json-body", candidate(service, confidence=0.1))[0] == 0
    identity = incident_of(opx, service)["incidentId"]
    assert opx("promote", identity, "--reason", "customers call")[0] == 0
    (opened,) = audited(opx, "--actor", ACCOUNT, "--service", f"{service[:-2]}*", "--type", "IncidentOpened")
    assert opened["actor"] == {"authorityType": "SYSTEM", "principal": "opx", "actorId": "promotion-gate"}
    asked = opened["metadata"]["requestedBy"]
    assert (asked["authorityType"], asked["principal"], asked["justification"]) == ("HUMAN", ACCOUNT, "customers call")
    assert opened in audited(opx, "--actor", asked["actorId"], "--service", service)
    assert opened in audited(opx, "--principal", ACCOUNT, "--incident", identity[:8])


def test_what_retention_did_is_found_under_its_own_principal(stack: Stack, opx: Opx) -> None:
    incident = closed(stack, f"audited-{uuid4().hex}")
    with told_otherwise(stack, OPX_ARCHIVE_AFTER_DAYS=A_MOMENT):
        time.sleep(0.2)
        invoke(stack)
    found = audited(opx, "--principal", stack.outputs["RetentionRoleId"], "--type", "IncidentArchived")
    assert {event["actor"]["authorityType"] for event in found} == {"SYSTEM"}
    assert incident in {event["incidentId"] for event in found}


def test_a_span_of_time_holds_what_was_done_in_it(opx: Opx, service: str) -> None:
    identity = declared(opx, service)
    for verb in ("mitigate", "resolve", "close"):
        assert opx(verb, identity, "--reason", "a test")[0] == 0
    events = audited(opx, "--incident", identity)
    since, until = events[2]["timestamp"], events[3]["timestamp"]
    assert since < until
    assert audited(opx, "--service", service, "--from", since, "--to", until) == [events[2]]
    assert audited(opx, "--service", service, "--from", until) == events[3:]
    assert audited(opx, "--service", service) == events


# --- table and export -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def items(stack: Stack) -> Iterator[list[dict[str, Any]]]:
    """An event table of a prefix of its own; yields what it holds."""
    client = stack.client("dynamodb")
    request = next(one for one in definitions(PREFIX) if one["TableName"].endswith("-incident-events"))
    client.create_table(**request)
    held = asyncio.run(worked())["incident-events"]
    for item in held:
        client.put_item(TableName=request["TableName"], Item=item)
    yield held
    client.delete_table(TableName=request["TableName"])


def test_table_and_export_answer_every_question_the_same(items: list[dict[str, Any]], opx: Opx, tmp_path: Path) -> None:
    write_export(tmp_path, "incident-events", (items[:4], items[4:]))
    answers = {}
    for question, (options, expected) in QUESTIONS.items():
        found = audited(opx, "--tables", PREFIX, *options)
        assert {f"{event['metadata']['service']} {event['eventType']}" for event in found} == expected, question
        assert audited(opx, "--export", str(tmp_path), *options) == found, question
        answers[question] = len(found)
    assert answers["all of it"] == len(items)


def test_an_altered_event_of_a_table_is_named_and_not_believed(items: list[dict[str, Any]], stack: Stack, opx: Opx) -> None:
    whole = next(item for item in items if item["eventType"]["S"] == "IncidentResolved")
    altered = copy.deepcopy(whole)
    altered["metadata"]["M"]["reason"] = {"S": "nobody asked"}
    client, table = stack.client("dynamodb"), f"{PREFIX}-incident-events"
    client.put_item(TableName=table, Item=altered)
    try:
        for options in (["--actor", "dana@*"], ["--incident", CARTS, "--actor", "dana@*"]):
            code, out, _ = opx("audit", "--tables", PREFIX, *options)
            (named,) = [line["divergence"] for line in out if "divergence" in line]
            assert (code, named["incidentId"], named["where"]) == (1, CARTS, "event 5")
            assert "IncidentResolved" not in [line.get("eventType") for line in out]
        assert len(audited(opx, "--tables", PREFIX, "--incident", LEDGER)) == 4
    finally:
        client.put_item(TableName=table, Item=whole)


def test_a_table_that_is_not_there_ends_with_2(opx: Opx) -> None:
    code, out, err = opx("audit", "--tables", "nowhere")
    assert (code, out) == (2, [])
    assert "next" in err[-1]
