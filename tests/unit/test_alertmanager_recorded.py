"""Notifications as a real Alertmanager sent them, to a webhook and through its SNS receiver (tests/data/alertmanager)."""

import re
from datetime import UTC, datetime

import pytest

from pipeline.domain.candidates import Intake, Received
from pipeline.domain.canonical import parse_document
from pipeline.domain.events import ObservationKind
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import Severity
from tests.support.bodies import text_of
from tests.support.histories import ROOT
from tests.support.notifications import FINGERPRINT, RECORDED, recorded
from tests.support.registry import ALARMS

AT_RECORDING = Received(ALARMS, "message-1", datetime(2026, 11, 24, 3, 39, tzinfo=UTC))


def intake(name: str) -> Intake:
    return read_intake(parse_document((RECORDED / f"{name}.json").read_bytes()), AT_RECORDING)


@pytest.mark.parametrize("name", ["webhook-firing", "sns-firing", "sns-tojson-firing"])
def test_a_recorded_firing_is_read_the_same_from_webhook_and_sns(name: str) -> None:
    found = intake(name)
    seen = found.signals[0].candidate
    assert seen is not None
    assert (seen.title, seen.description) == ('5xx "above" 5 %\\ and so on', "line one line two tab é 😀 <b>&")
    assert (seen.dedup_key, seen.severity) == (f"alertmanager:{FINGERPRINT}", Severity.SEV2)
    assert {link.rel: link.href for link in seen.links} == {
        "source": "http://prom.example.com/graph?g0.expr=rate(x)%3E1&g0.tab=1",
        "runbook": "https://runbooks.example.com/r",
    }
    assert found.signals[0] == intake("webhook-firing").signals[0]
    third = [] if "webhook" in name or "tojson" in name else ["d2be80aff310f58a"]
    fingerprints = [one.candidate.dedup_key.partition(":")[2] for one in found.signals if one.candidate]
    assert fingerprints == [FINGERPRINT, *third]
    fields = [one.field for one in found.refusals]
    assert fields == ["alerts.1.labels.severity", *(["truncatedAlerts"] if name == "webhook-firing" else [])]


@pytest.mark.parametrize("name", ["webhook-resolved", "sns-resolved"])
def test_a_recorded_end_is_the_recovery_of_the_recorded_firing(name: str) -> None:
    firing = intake("webhook-firing").signals[0].candidate
    ended = intake(name).signals[0].candidate
    assert firing is not None
    assert ended is not None
    assert ended.observation.kind is ObservationKind.RECOVERY
    assert ended.dedup_key == firing.dedup_key
    assert firing.observation.observed_at < ended.observation.observed_at


def test_the_documented_message_template_asks_for_what_is_read() -> None:
    """The rest of the proof is recorded: the templates were rendered by Go (tests/data/alertmanager)."""
    config = (ROOT / "infra" / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8")
    template = re.findall(r"^ +message: '(.*)'$", config, re.MULTILINE)
    assert len(template) == 1
    body = recorded("webhook-firing")
    values = {".GroupLabels": body["groupLabels"], ".Alerts": body["alerts"]}
    rendered = re.sub(r"\{\{ (\.\w+) \| toJson \}\}", lambda found: text_of(values[found[1]]), template[0])
    assert parse_document(rendered) == parse_document((RECORDED / "sns-tojson-firing.json").read_bytes())
