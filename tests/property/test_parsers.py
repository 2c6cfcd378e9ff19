"""Parsers are total: whatever a document says, it is read or refused, the same way in every process."""

import copy
import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.base import METADATA_BYTES_MAX
from pipeline.domain.candidates import Intake, Received
from pipeline.domain.canonical import canonical_bytes, parse_document
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.errors import MEANINGS, Rejected
from pipeline.domain.events import Creation
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import Severity
from tests.property.test_environment import ENVIRONMENTS
from tests.support.bodies import alarm_body, candidate_body, composite_alarm_body
from tests.support.clock import NOW
from tests.support.histories import ROOT
from tests.support.notifications import alert, notification, resolved
from tests.support.registry import ALARMS

RECEIVED = Received(ALARMS, "message-1", NOW + timedelta(days=1))
MAPPINGS = (AlarmMapping(alarm_name="*", service="catch-all", severity=Severity.SEV4),)
AT = "2026-01-31T02:59:00Z"
GOOD: list[dict[str, Any]] = [
    candidate_body(
        observedAt=AT, metadata={"a": [1, {"b": 2}]}, links=[{"rel": "r", "href": "https://h"}], authority="SYSTEM"
    ),
    {"type": "detection", "service": "s", "severity": "SEV1", "signalType": "t", "observedAt": AT, "attributes": {"a": 1}},
    alarm_body(),
    composite_alarm_body("OK"),
    notification(
        alert(annotations={"summary": "s", "description": "d", "runbook_url": "https://h"}), resolved(), truncatedAlerts=1
    ),
]
TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["", " ", "SEV1", "critical", "ALARM", "4", AT, "0001-01-01T00:00:00Z", "2026-01-31T02:59:00.000+0000"]),
    st.sampled_from(
        [
            "\u0000",
            "a\u0007",
            "\uffff",
            "\ud800",
            "é" * 600,
            "x" * 5000,
            "2000-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
        ]
    ),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(), TEXTS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of everything below `value`."""
    items = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    return [found for key, item in items for found in ((*path, key), *places(item, (*path, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw a good document with a few of its parts replaced, taken out, doubled or added; as a sender writes it."""
    body = copy.deepcopy(draw(st.sampled_from(GOOD)))
    for _ in range(draw(st.integers(1, 4))):
        found = places(body)
        if not found:
            break
        *above, last = draw(st.sampled_from(found))
        part: Any = body
        for key in above:
            part = part[key]
        match draw(st.sampled_from(["replace", "replace", "remove", "double", "add"])):
            case "replace":
                part[last] = draw(VALUES)
            case "remove":
                del part[last]
            case "double" if isinstance(part, list):
                part.append(copy.deepcopy(part[last]))
            case _ if isinstance(part, dict):
                part[draw(TEXTS)] = draw(VALUES)
    return json.dumps(body)


def read(text: str, mappings: tuple[AlarmMapping, ...] = MAPPINGS) -> Intake | Rejected:
    try:
        return read_intake(parse_document(text), RECEIVED, mappings)
    except Rejected as rejected:
        return rejected


def check(found: Intake | Rejected) -> None:
    """Assert that what was read can be stored, and that what was refused says why."""
    refusals = (found.refusal,) if isinstance(found, Rejected) else found.refusals
    for refusal in refusals:
        assert refusal.code in MEANINGS
        assert refusal.detail
        assert len(refusal.field or "") <= 200
    if isinstance(found, Rejected):
        return
    assert found.signals
    for signal in found.signals:
        assert (signal.candidate or signal.detection) is not None
        if signal.candidate is not None:
            seen = signal.candidate
            assert seen.tags is None or len(canonical_bytes(seen.tags)) <= METADATA_BYTES_MAX
            Creation(
                service=seen.service,
                severity=seen.severity,
                title=seen.title,
                description=seen.description,
                dedup_key=seen.dedup_key,
                occurrence=1,
                policy_id=seen.policy_id,
                observation=seen.observation,
                evidence=seen.evidence,
                links=seen.links,
                tags=seen.tags,
            ).to_document()
        if signal.detection is not None:
            assert signal.detection.id == signal.key.value
            assert signal.detection.age_s >= 0
            canonical_bytes(signal.detection.attributes)


@given(mutated())
def test_a_changed_document_is_read_or_refused_and_nothing_else(text: str) -> None:
    check(read(text))
    check(read(text, ()))


@given(VALUES)
def test_any_document_is_read_or_refused(value: Any) -> None:
    check(read(json.dumps(value)))


@given(st.lists(st.one_of(st.just(alert()), st.just(resolved()), VALUES), min_size=1, max_size=6))
def test_every_alert_of_a_notification_is_a_signal_or_a_refusal(alerts: list[Any]) -> None:
    try:
        document = parse_document(json.dumps(notification(*alerts)))
    except Rejected:
        return
    try:
        found = read_intake(document, RECEIVED)
    except Rejected:
        assert alert() not in alerts
        assert resolved() not in alerts
        return
    assert len(found.signals) + len(found.refusals) == len(alerts)


@given(mutated())
def test_reading_again_gives_the_same(text: str) -> None:
    assert str(read(text)) == str(read(text))


PROGRAM = """
import random, sys
from tests.property.test_parsers import ROUGH, read
sys.stdout.write("\\n".join(repr(read(text)) for text in ROUGH))
"""


def rough() -> list[str]:
    """Return the good documents, and each with one part taken out or spoilt; the same ones in every process."""
    bodies = []
    for good in GOOD:
        bodies.append(good)
        for *above, last in places(good):
            for spoilt in (..., None, "x\u0007", 7):
                body = copy.deepcopy(good)
                part: Any = body
                for key in above:
                    part = part[key]
                if spoilt is ...:
                    del part[last]
                else:
                    part[last] = spoilt
                bodies.append(body)
    return [json.dumps(body) for body in bodies]


ROUGH = rough()


def test_every_part_of_a_good_document_can_be_missing_or_spoilt() -> None:
    for text in ROUGH:
        check(read(text))


@pytest.mark.parametrize("environment", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
def test_documents_are_read_the_same_in_every_process(environment: dict[str, str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.decode().split("\n") == [repr(read(text)) for text in ROUGH]
