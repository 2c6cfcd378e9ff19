"""What Alertmanager's SNS receiver publishes becomes incidents, with nothing of anybody's own in between."""

import json
import os
from typing import Any

import pytest

from pipeline.stores.items import from_item
from tests.support.notifications import alert, notification
from tests.support.stack import Stack, told, wait_until

pytestmark = pytest.mark.engine
WITHIN_S = 60.0


def publish(stack: Stack, body: str, **attributes: str) -> None:
    stack.client("sns").publish(
        TopicArn=stack.outputs["AlertmanagerTopicArn"],
        Message=body,
        MessageAttributes={name: {"DataType": "String", "StringValue": text} for name, text in attributes.items()},
    )


def incidents_of(stack: Stack, service: str) -> list[dict[str, Any]]:
    rows = [from_item(item) for item in stack.rows("IncidentsTableName")]
    return [row for row in rows if row.get("service") == service and "state" in row]


def first_event(stack: Stack, incident: str) -> dict[str, Any]:
    events = [from_item(item) for item in stack.rows("EventsTableName")]
    return next(event for event in events if event["incidentId"] == incident and event["sequence"] == 1)


def test_a_published_notification_is_an_incident_of_the_queues_own_principal(stack: Stack) -> None:
    """Also where the publisher writes an attribute that claims another sender."""
    service = f"sns-{os.urandom(4).hex()}"
    lie = json.dumps(
        {"originalSenderId": "AROAOPERATOR:dana", "originalMessageId": "m", "originalSentAt": "2026-01-31T03:00:00Z"}
    )
    publish(stack, json.dumps(notification(alert(labels={"service": service}))), opx=lie)
    wait_until(lambda: bool(incidents_of(stack, service)), WITHIN_S)
    (row,) = incidents_of(stack, service)
    assert row["state"] == "OPEN"
    assert first_event(stack, row["incidentId"])["actor"]["principal"] == "queue:alertmanager"
    wait_until(lambda: stack.depth("AlertmanagerQueueUrl") == 0, WITHIN_S)


def test_what_is_no_notification_is_rejected_with_its_body_as_it_was_published(stack: Stack) -> None:
    body = f'not json, "as" it was: {os.urandom(4).hex()}  '
    publish(stack, body, trace="t-1")
    (kept,) = stack.take("RejectedQueueUrl", lambda message: message["Body"] == body, 1, WITHIN_S)
    explanation = told(kept)
    assert (explanation["source"], explanation["originalSenderId"]) == ("alertmanager", "queue:alertmanager")
    assert explanation["attributes"]["trace"]["stringValue"] == "t-1"
