"""Which form a message on an intake queue has: told by its shape alone, each read by its own reader. And raw detections."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.authority import Claim
from pipeline.domain.candidates import Detection, Intake, Key, Received
from pipeline.domain.canonical import digest, format_time, parse_document
from pipeline.domain.commands import COMMAND_TYPES
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import ObservationKind
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import AuthorityType, Severity
from tests.support.bodies import SMALLEST_CANDIDATE, alarm_body, candidate_body, composite_alarm_body, text_of, without_gaps
from tests.support.clock import NOW
from tests.support.notifications import alert, notification
from tests.support.registry import DETECTOR

RECEIVED = Received(DETECTOR, "message-1", NOW)
AT = "2026-01-31T02:59:00Z"
SMALLEST_DETECTION = {"type": "detection", "service": "checkout", "severity": "SEV2", "signalType": "log-pattern"}


def detection_body(**fields: Any) -> dict[str, Any]:
    """Return the smallest valid detection with `fields` over it; `...` leaves a field out."""
    return without_gaps(SMALLEST_DETECTION | fields)


def intake(body: Any) -> Intake:
    return read_intake(parse_document(text_of(body)), RECEIVED)


def refusal(body: Any) -> Refusal:
    with pytest.raises(Rejected) as caught:
        intake(body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


def detection(body: Any) -> Detection:
    found = intake(body)
    assert (len(found.signals), found.signals[0].candidate, found.refusals) == (1, None, ())
    seen = found.signals[0].detection
    assert seen is not None
    return seen


# --- shapes ----------------------------------------------------------------------------------------------------------

FORMS: dict[str, tuple[dict[str, Any], str, bool, bool]] = {
    "a candidate": (SMALLEST_CANDIDATE, "message", True, False),
    "a detection": (SMALLEST_DETECTION, "message", False, True),
    "a metric alarm": (alarm_body(), "cloudwatch", True, True),
    "a composite alarm": (composite_alarm_body(), "cloudwatch", True, True),
    "an alarm with a type": (alarm_body(type="candidate"), "cloudwatch", True, True),
    "an alarm with alerts": (alarm_body(alerts=[], groupKey="x"), "cloudwatch", True, True),
    "a notification": (notification(), "alertmanager", True, True),
}


@pytest.mark.parametrize(("body", "kind", "candidate", "raw"), FORMS.values(), ids=FORMS.keys())
def test_a_form_is_told_by_its_shape(body: Any, kind: str, candidate: bool, raw: bool) -> None:
    (signal,) = intake(body).signals
    assert (signal.key.kind, signal.candidate is not None, signal.detection is not None) == (kind, candidate, raw)


NO_FORM: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "type"),
    "an unknown type": (candidate_body(type="incident"), "type"),
    "no type": (candidate_body(type=...), "type"),
    "null": (candidate_body(type=None), "type"),
    "an object": (candidate_body(type={"a": 1}), "type"),
    "an SNS envelope": ({"Type": "Notification", "Message": "{}", "TopicArn": "arn"}, "type"),
    "another service's event": ({"detail-type": "EC2 Instance Launch", "detail": {}}, "detail-type"),
}


@pytest.mark.parametrize(("body", "field"), NO_FORM.values(), ids=NO_FORM.keys())
def test_what_has_no_known_form_is_refused(body: Any, field: str) -> None:
    found = refusal(body)
    assert (found.code, found.field) == (Code.UNKNOWN_TYPE, field)


@pytest.mark.parametrize("kind", sorted(COMMAND_TYPES))
def test_a_command_is_told_where_it_belongs(kind: str) -> None:
    assert "commands queue" in refusal({"type": kind}).detail


def test_a_notification_short_of_a_field_is_told_which_not_that_it_has_no_type() -> None:
    assert refusal(notification(version=..., groupKey=...)).field == "version"
    assert refusal(notification(alerts=...)).field == "alerts"


def test_a_typed_message_is_its_type_whatever_else_it_carries() -> None:
    assert refusal(candidate_body(alerts=[])).code is Code.UNKNOWN_FIELD
    assert refusal(candidate_body(version="4", groupKey="x")).field in ("version", "groupKey")


def test_each_alert_of_a_notification_is_a_signal_in_its_order() -> None:
    prints = ("0c", "0a", "0b")
    found = intake(notification(*[alert(fingerprint=one) for one in prints]))
    assert [one.detection.dedup_key for one in found.signals if one.detection] == [f"alertmanager:{one}" for one in prints]
    assert len({one.key for one in found.signals}) == 3


# --- raw detections --------------------------------------------------------------------------------------------------


def test_the_smallest_detection_gets_its_defaults() -> None:
    assert detection(SMALLEST_DETECTION) == Detection(
        id="message-1",
        service="checkout",
        source=DETECTOR.principal,
        signal_type="log-pattern",
        severity=Severity.SEV2,
        observed_at=NOW,
        age_s=0,
        kind=ObservationKind.FIRING,
        dedup_key=None,
        resource=None,
        attributes=None,
    )


def test_every_optional_field_of_a_detection_is_read() -> None:
    body = detection_body(
        schemaVersion=1,
        source="log-watch",
        observedAt=AT,
        dedupKey="checkout-oom",
        resource="i-0abc",
        attributes={"zone": "a", "count": 3, "share": 0.5, "canary": True},
        idempotencyKey="k-1",
        authority="SYSTEM",
    )
    seen = detection(body)
    assert (seen.id, seen.source, seen.dedup_key, seen.resource) == ("k-1", "log-watch", "checkout-oom", "i-0abc")
    assert (seen.observed_at, seen.age_s) == (NOW - timedelta(minutes=1), 60)
    assert seen.attributes == {"zone": "a", "count": 3, "share": Decimal("0.5"), "canary": True}
    assert intake(body).claim == Claim(authority_type=AuthorityType.SYSTEM)
    assert intake(body).signals[0].request_digest == digest(parse_document(text_of(body)))


KEYS = {
    "the caller's own": (detection_body(idempotencyKey="k-1", observedAt=AT), "caller", "k-1"),
    "the body's, where it says when": (detection_body(observedAt=AT), "body", digest(detection_body(observedAt=AT))),
    "the message's, where it doesn't": (SMALLEST_DETECTION, "message", "message-1"),
}


@pytest.mark.parametrize(("body", "kind", "value"), KEYS.values(), ids=KEYS.keys())
def test_a_detections_key_is_the_callers_or_derived(body: Any, kind: str, value: str) -> None:
    assert intake(body).signals[0].key == Key(kind, value)
    assert detection(body).id == value


EDGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "service": ({"service": "s" * 256}, {"service": "s" * 257}, "service"),
    "source": ({"source": "s" * 256}, {"source": "s" * 257}, "source"),
    "signalType": ({"signalType": "a" * 64}, {"signalType": "a" * 65}, "signalType"),
    "resource": ({"resource": "r" * 256}, {"resource": "r" * 257}, "resource"),
    "dedupKey in bytes": ({"dedupKey": "é" * 256}, {"dedupKey": "é" * 256 + "x"}, "dedupKey"),
    "attributes": ({"attributes": {"a": "x" * 4088}}, {"attributes": {"a": "x" * 4089}}, "attributes"),
    "observedAt": (
        {"observedAt": format_time(NOW + timedelta(minutes=10))},
        {"observedAt": format_time(NOW + timedelta(minutes=10, microseconds=1))},
        "observedAt",
    ),
}


@pytest.mark.parametrize(("inside", "beyond", "field"), EDGES.values(), ids=EDGES.keys())
def test_each_limit_of_a_detection_holds_at_its_edge(inside: Any, beyond: Any, field: str) -> None:
    assert detection(detection_body(**inside)).service
    assert refusal(detection_body(**beyond)).field == field


WRONG: dict[str, tuple[dict[str, Any], Code, str]] = {
    "no service": ({"service": ...}, Code.INVALID_FIELD, "service"),
    "no severity": ({"severity": ...}, Code.INVALID_FIELD, "severity"),
    "no signalType": ({"signalType": ...}, Code.INVALID_FIELD, "signalType"),
    "SEV9": ({"severity": "SEV9"}, Code.INVALID_FIELD, "severity"),
    "a title": ({"title": "t"}, Code.UNKNOWN_FIELD, "title"),
    "a confidence": ({"confidence": 1}, Code.UNKNOWN_FIELD, "confidence"),
    "a policy": ({"policyId": "default"}, Code.UNKNOWN_FIELD, "policyId"),
    "a kind of its own": ({"kind": "recovery"}, Code.UNKNOWN_FIELD, "kind"),
    "python's spelling": ({"signal_type": "x"}, Code.UNKNOWN_FIELD, "signal_type"),
    "an object in attributes": ({"attributes": {"a": {}}}, Code.INVALID_FIELD, "attributes"),
    "a list in attributes": ({"attributes": {"a": [1]}}, Code.INVALID_FIELD, "attributes"),
    "null in attributes": ({"attributes": {"a": None}}, Code.INVALID_FIELD, "attributes"),
    "attributes that are a list": ({"attributes": ["a"]}, Code.INVALID_FIELD, "attributes"),
    "a control character": ({"resource": "a\u0007"}, Code.INVALID_FIELD, "resource"),
    "a time without zone": ({"observedAt": "2026-01-31T03:00:00"}, Code.INVALID_FIELD, "observedAt"),
    "a future schema version": ({"schemaVersion": 7}, Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
    "observed in the future": ({"observedAt": "2026-01-31T03:10:01Z"}, Code.OBSERVED_IN_FUTURE, "observedAt"),
}


@pytest.mark.parametrize(("fields", "code", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_detection_is_refused_naming_the_field(fields: Any, code: Code, field: str) -> None:
    found = refusal(detection_body(**fields))
    assert (found.code, found.field) == (code, field)
