"""Alertmanager's notifications as its webhook sends them. In every builder a field given as `...` is left out."""

import json
from pathlib import Path
from typing import Any, Final

from tests.support.bodies import without_gaps

RECORDED: Final = Path(__file__).parents[1] / "data" / "alertmanager"
FINGERPRINT: Final = "61dad1c6e912d04d"
LABELS: Final = {"alertname": "HighErrorRate", "service": "checkout", "severity": "SEV2", "instance": "10.0.0.1:9100"}
ZERO_TIME: Final = "0001-01-01T00:00:00Z"


def alert(*, labels: Any = None, annotations: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a firing alert with `fields` over it; `labels` go over the usual ones, where they are a dict."""
    merged = without_gaps(LABELS | labels) if isinstance(labels, dict) else LABELS if labels is None else labels
    good = {
        "status": "firing",
        "labels": merged,
        "annotations": {"summary": "5xx above 5 %"} if annotations is None else annotations,
        "startsAt": "2026-01-31T02:55:00.123456789Z",
        "endsAt": ZERO_TIME,
        "generatorURL": "http://prometheus.example.com/graph?g0.expr=up",
        "fingerprint": FINGERPRINT,
    }
    return without_gaps(good | fields)


def resolved(**fields: Any) -> dict[str, Any]:
    return alert(**({"status": "resolved", "endsAt": "2026-01-31T02:58:00Z"} | fields))


def notification(*alerts: Any, **fields: Any) -> dict[str, Any]:
    """Return a webhook's body with these alerts, or with one good one."""
    good = {
        "receiver": "opx",
        "status": "firing",
        "alerts": list(alerts) or [alert()],
        "groupLabels": {"alertname": "HighErrorRate"},
        "commonLabels": {"alertname": "HighErrorRate"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example.com:9093",
        "version": "4",
        "groupKey": '{}:{alertname="HighErrorRate"}',
        "truncatedAlerts": 0,
    }
    return without_gaps(good | fields)


def recorded(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_bytes())
    return document
