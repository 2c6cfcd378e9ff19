"""Message bodies as senders write them: documents, before anything of ours has read them.

In every builder a field given as `...` is left out.
"""

import json
from pathlib import Path
from typing import Any, Final

ALARMS_FILE: Final = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"

SMALLEST_CANDIDATE: Final = {
    "type": "candidate",
    "service": "checkout",
    "severity": "SEV2",
    "title": "5xx above 5 %",
    "dedupKey": "checkout-5xx",
}

# A rule that counts everything of a service: so many within an hour.
ERRORS_RULE: Final = {
    "ruleId": "errors",
    "version": 1,
    "windowS": 3600,
    "confidence": 1,
    "title": "{service} fails",
}


def without_gaps(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value is not ...}


def candidate_body(**fields: Any) -> dict[str, Any]:
    """Return the smallest valid candidate with `fields` over it."""
    return without_gaps(SMALLEST_CANDIDATE | fields)


def command_body(kind: str, incident_id: str, **fields: Any) -> dict[str, Any]:
    return without_gaps({"type": kind, "incidentId": incident_id} | fields)


def declare_body(**fields: Any) -> dict[str, Any]:
    return without_gaps({"type": "declare", "service": "checkout", "severity": "SEV2", "title": "Carts are empty"} | fields)


def alarm_body(
    value: str = "ALARM",
    *,
    event_id: str = "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
    name: Any = "checkout-5xx",
    timestamp: Any = "2026-01-31T02:59:30.000+0000",
    description: Any = '{"service": "checkout", "severity": "SEV2"}',
    **fields: Any,
) -> dict[str, Any]:
    """Return a metric alarm's state change as EventBridge delivers it, unknown extras included."""
    state = {"value": value, "timestamp": timestamp, "reason": "Threshold Crossed", "reasonData": '{"version":"1.0"}'}
    configuration = {"description": description, "metrics": [{"id": "m1", "returnData": True, "period": 2.5}]}
    event = {
        "version": "0",
        "id": event_id,
        "detail-type": "CloudWatch Alarm State Change",
        "source": "aws.cloudwatch",
        "account": "123456789012",
        "time": "2026-01-31T02:59:31Z",
        "region": "us-east-1",
        "resources": ["arn:aws:cloudwatch:us-east-1:123456789012:alarm:checkout-5xx"],
        "detail": without_gaps(
            {
                "alarmName": name,
                "state": without_gaps(state),
                "previousState": {"value": "OK"},
                "configuration": without_gaps(configuration),
            }
        ),
    }
    return without_gaps(event | fields)


def composite_alarm_body(value: str = "ALARM") -> dict[str, Any]:
    """Return a composite alarm's state change: a rule instead of metrics, and a suppressor."""
    body = alarm_body(value, event_id="d3dfc86d-384d-24c8-0345-9f7986db0b80", name="checkout-down")
    body["detail"]["configuration"] |= {
        "metrics": ...,
        "alarmRule": 'ALARM("checkout-5xx") AND ALARM("checkout-slow")',
        "actionsSuppressor": "deployments",
    }
    body["detail"]["configuration"] = without_gaps(body["detail"]["configuration"])
    body["detail"]["state"] |= {"actionsSuppressedBy": "WaitPeriod"}
    return body


def recorded_alarms() -> list[str]:
    """Return the real alarm events of tests/data, one JSON text each, in time order."""
    return ALARMS_FILE.read_text(encoding="utf-8").splitlines()


def text_of(body: Any) -> str:
    return body if isinstance(body, str) else json.dumps(body)
