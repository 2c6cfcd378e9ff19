"""Retention as it is deployed, invoked by hand: the local engine's own clock leaves it alone."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from pipeline.domain.ids import receipt_id
from pipeline.domain.replay import verify
from pipeline.stores.items import from_item, without_keys
from tests.support.signed import Signed, api_url
from tests.support.stack import Stack

pytestmark = pytest.mark.engine

# Of a day: what was closed just now was closed long ago.
A_MOMENT = "0.000001"
PATH = ("MITIGATING", "RESOLVED", "CLOSED")


def invoke(stack: Stack) -> None:
    """Invoke the function; it must answer with nothing and no error."""
    answer = stack.client("lambda").invoke(FunctionName=stack.outputs["RetentionFunctionName"], Payload=b"{}")
    assert (answer.get("FunctionError"), json.loads(answer["Payload"].read() or "null")) == (None, None)


@contextmanager
def told_otherwise(stack: Stack, **changes: str) -> Iterator[None]:
    """Change the deployed function's environment for a while."""
    name, client = stack.outputs["RetentionFunctionName"], stack.client("lambda")
    before = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": before | changes})
    try:
        yield
    finally:
        client.update_function_configuration(FunctionName=name, Environment={"Variables": before})


def closed(stack: Stack, key: str) -> str:
    """Return an incident that people took through its whole life."""
    url = api_url(stack)

    def call(method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Idempotency-Key": f"{key}-{body.get('newState', 'declare')}"}
        answer = requests.request(method, url + path, json=body, headers=headers, auth=Signed(), timeout=30)
        assert answer.status_code in (200, 201), answer.text
        found: dict[str, Any] = answer.json()
        return found

    told = {"service": "scheduled", "severity": "SEV3", "title": key, "description": "", "authority": "HUMAN"}
    incident = str(call("POST", "/incidents", told)["incidentId"])
    for state in PATH:
        call("PATCH", f"/incidents/{incident}/state", {"newState": state, "reason": "over", "authority": "HUMAN"})
    return incident


def rows(stack: Stack, table: str, identity: str) -> list[dict[str, Any]]:
    found = (from_item(item) for item in stack.rows(table))
    return [document for document in found if document.get("incidentId") == identity and "occurrence" not in document]


def test_retention_archives_what_is_due_under_its_own_role_and_only_once(stack: Stack) -> None:
    incident = closed(stack, f"archived-{time.time_ns()}")
    (row,) = [item for item in stack.rows("IncidentsTableName") if item["pk"]["S"] == incident]
    table, damaged = {"TableName": stack.outputs["IncidentsTableName"]}, {"pk": {"S": "damaged"}}
    stack.client("dynamodb").put_item(**table, Item=row | damaged | {"version": {"S": "six"}})
    try:
        with told_otherwise(stack, OPX_ARCHIVE_AFTER_DAYS=A_MOMENT):
            # The damaged row was created at the same microsecond as the first one, and hides nothing else.
            other = closed(stack, f"beside-{time.time_ns()}")
            time.sleep(0.2)
            invoke(stack)
            states = {one: rows(stack, "IncidentsTableName", one)[-1]["state"] for one in (incident, other)}
            assert states == {incident: "CLOSED", other: "ARCHIVED"}
            stack.client("dynamodb").delete_item(**table, Key=damaged)
            invoke(stack)
            after = archived(stack, incident)
            invoke(stack)
            assert archived(stack, incident) == after, "another run changes nothing"
    finally:
        stack.client("dynamodb").delete_item(**table, Key=damaged)


def archived(stack: Stack, incident: str) -> Any:
    """Return all there is of an archived incident, having looked at who did it."""
    (row,) = rows(stack, "IncidentsTableName", incident)
    events = sorted(rows(stack, "EventsTableName", incident), key=lambda event: int(event["sequence"]))
    receipts = [one for one in rows(stack, "IdempotencyTableName", incident) if one["keyKind"] == "retention"]
    role = stack.outputs["RetentionRoleId"]
    assert (row["state"], events[-1]["eventType"]) == ("ARCHIVED", "IncidentArchived")
    assert events[-1]["actor"] == {
        "authorityType": "SYSTEM",
        "principal": role,
        "actorId": stack.outputs["RetentionFunctionName"].partition(":")[0],
    }
    assert [receipt["pk"] for receipt in receipts] == [receipt_id(role, "retention", incident)]
    assert verify(incident, tuple(events), without_keys(row)) == ()
    return row, events, receipts
