"""Native CloudWatch alarms: read by shape, mapped explicitly, never guessed; everything they carry beside is ignored."""

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.candidates import Candidate, Detection, Key, Received, Signal
from pipeline.domain.canonical import digest, parse_document, parse_time
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.events import Evidence, ObservationKind
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import Severity
from tests.support.bodies import alarm_body, composite_alarm_body, recorded_alarms, text_of
from tests.support.clock import NOW
from tests.support.registry import ALARMS

RECEIVED = Received(ALARMS, "message-1", NOW)
AT = NOW - timedelta(seconds=30)
PATTERNS = (
    AlarmMapping(alarm_name="search-*", service="search", severity=Severity.SEV3),
    AlarmMapping(alarm_name="checkout-?xx", service="checkout", severity=Severity.SEV1),
    AlarmMapping(alarm_name="*", service="catch-all", severity=Severity.SEV4),
)


def signal_of(body: Any, mappings: tuple[AlarmMapping, ...] = ()) -> Signal:
    """Return the one signal of an event; an event has one or is refused."""
    found = read_intake(parse_document(text_of(body)), RECEIVED, mappings)
    assert (len(found.signals), found.claim, found.refusals) == (1, None, ())
    return found.signals[0]


def candidate(body: Any, mappings: tuple[AlarmMapping, ...] = ()) -> Candidate:
    seen = signal_of(body, mappings).candidate
    assert seen is not None
    return seen


def detection(body: Any, mappings: tuple[AlarmMapping, ...] = ()) -> Detection:
    seen = signal_of(body, mappings).detection
    assert seen is not None
    return seen


def refusal(body: Any, mappings: tuple[AlarmMapping, ...] = ()) -> Any:
    with pytest.raises(Rejected) as caught:
        signal_of(body, mappings)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


def test_a_metric_alarm_is_a_firing_of_its_mapped_service() -> None:
    seen = candidate(alarm_body())
    assert (seen.service, seen.severity, seen.title) == ("checkout", Severity.SEV2, "checkout-5xx")
    assert seen.dedup_key == "cloudwatch:123456789012:us-east-1:checkout-5xx"
    assert seen.description == "Threshold Crossed"
    assert seen.policy_id == "default"
    assert (seen.observation.kind, seen.observation.observed_at) == (ObservationKind.FIRING, AT)
    assert (seen.observation.confidence, seen.observation.source) == (Decimal(1), "cloudwatch:checkout-5xx")
    event_id = "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92"
    assert seen.evidence == (Evidence(kind="cloudwatch-alarm", ref=event_id, observed_at=AT, note="ALARM"),)
    found = signal_of(alarm_body())
    assert (found.key, found.request_digest) == (Key("cloudwatch", event_id), digest(parse_document(text_of(alarm_body()))))


def test_the_same_alarm_is_a_detection_too() -> None:
    seen = detection(alarm_body())
    assert (seen.id, seen.dedup_key) == (signal_of(alarm_body()).key.value, candidate(alarm_body()).dedup_key)
    assert (seen.service, seen.severity, seen.signal_type) == ("checkout", Severity.SEV2, "cloudwatch-alarm")
    assert (seen.source, seen.resource) == ("cloudwatch:checkout-5xx", None)
    assert (seen.kind, seen.observed_at, seen.age_s) == (ObservationKind.FIRING, AT, 30)
    assert seen.attributes == {"account": "123456789012", "region": "us-east-1", "alarmName": "checkout-5xx"}


AGES = [("2026-01-31T02:59:29.001+0000", 31), ("2026-01-31T03:00:00.000+0000", 0), ("2026-01-31T03:04:00.000+0000", 0)]


@pytest.mark.parametrize(("timestamp", "age_s"), AGES)
def test_an_alarms_age_is_whole_seconds_until_it_was_sent(timestamp: str, age_s: int) -> None:
    body = alarm_body(timestamp=timestamp)
    assert (detection(body).age_s, candidate(body).observation.age_s) == (age_s, age_s or None)


def test_a_composite_alarm_is_read_like_any_other() -> None:
    seen = candidate(composite_alarm_body())
    assert (seen.service, seen.title, seen.observation.kind) == ("checkout", "checkout-down", ObservationKind.FIRING)
    assert seen.dedup_key == "cloudwatch:123456789012:us-east-1:checkout-down"
    assert detection(composite_alarm_body()).signal_type == "cloudwatch-alarm"


def composite(state: str, suppressed_by: str | None, **before: Any) -> dict[str, Any]:
    """Return a composite alarm's event as CloudWatch writes it while actions are, or are no longer, suppressed."""
    body = composite_alarm_body(state)
    del body["detail"]["state"]["actionsSuppressedBy"]
    body["detail"]["state"]["reasonData"] = json.dumps({"triggeringAlarms": [{"state": {"value": "ALARM"}}]})
    if suppressed_by is not None:
        reason = f"Actions suppressed by {suppressed_by}"
        body["detail"]["state"] |= {"actionsSuppressedBy": suppressed_by, "actionsSuppressedReason": reason}
    body["detail"]["previousState"] |= before
    body["detail"]["configuration"] |= {"actionsSuppressorWaitPeriod": 120, "actionsSuppressorExtensionPeriod": 180}
    return body


@pytest.mark.parametrize("suppressed_by", ["WaitPeriod", "ExtensionPeriod", "Alarm"])
def test_a_firing_whose_actions_are_suppressed_is_a_firing_that_says_so(suppressed_by: str) -> None:
    body = composite("ALARM", suppressed_by)
    assert candidate(body).observation.kind is ObservationKind.FIRING
    assert candidate(body).evidence[0].note == f"ALARM, actions suppressed by {suppressed_by}"
    attributes = detection(body).attributes
    assert attributes is not None
    assert attributes["actionsSuppressedBy"] == suppressed_by


def test_the_end_of_a_suppression_is_a_firing_of_its_own() -> None:
    body = composite("ALARM", None, value="ALARM", actionsSuppressedBy="WaitPeriod") | {"id": "0b0e6a0c-0000-4000-8000-1"}
    assert candidate(body).evidence[0].note == "ALARM"
    assert signal_of(body).key != signal_of(composite("ALARM", "WaitPeriod")).key
    assert "actionsSuppressedBy" not in (detection(body).attributes or {})


COMPOSITE = [("OK", ObservationKind.RECOVERY), ("INSUFFICIENT_DATA", ObservationKind.NO_DATA)]


@pytest.mark.parametrize(("value", "kind"), COMPOSITE)
def test_a_composite_alarms_other_states_are_no_firings(value: str, kind: ObservationKind) -> None:
    assert candidate(composite(value, None)).observation.kind is kind
    assert detection(composite(value, None)).kind is kind


def test_a_composite_alarm_needs_a_mapping_of_its_own() -> None:
    body = composite_alarm_body()
    del body["detail"]["configuration"]["description"]
    assert refusal(body).code is Code.MAPPING_MISSING
    assert candidate(body, PATTERNS).service == "catch-all"


@pytest.mark.parametrize(
    ("value", "kind"),
    [("ALARM", ObservationKind.FIRING), ("OK", ObservationKind.RECOVERY), ("INSUFFICIENT_DATA", ObservationKind.NO_DATA)],
)
def test_each_alarm_state_is_an_observation_of_its_kind(value: str, kind: ObservationKind) -> None:
    seen = candidate(alarm_body(value))
    assert seen.observation.kind is kind
    assert seen.evidence[0].note == value
    assert seen.dedup_key == candidate(alarm_body("ALARM")).dedup_key


TIMES = [
    ("2026-01-31T02:59:30.000+0000", "2026-01-31T02:59:30Z"),
    ("2026-01-31T02:59:30.123+0100", "2026-01-31T01:59:30.123Z"),
    ("2026-01-31T02:59:30+0000", "2026-01-31T02:59:30Z"),
    ("2026-01-31T02:59:30Z", "2026-01-31T02:59:30Z"),
    ("2026-01-30T18:59:30-08:00", "2026-01-31T02:59:30Z"),
    (..., "2026-01-31T02:59:31Z"),
]


@pytest.mark.parametrize(("written", "read"), TIMES, ids=lambda value: str(value))
def test_an_alarms_time_is_its_states_in_each_form_cloudwatch_writes(written: Any, read: str) -> None:
    assert candidate(alarm_body(timestamp=written)).observation.observed_at == parse_time(read)


MAPPED_BY_PATTERN = [
    ("search-cpu", "search", Severity.SEV3),
    ("checkout-5xx", "checkout", Severity.SEV1),
    ("checkout-10xx", "catch-all", Severity.SEV4),
    ("SEARCH-cpu", "catch-all", Severity.SEV4),
]


@pytest.mark.parametrize(("name", "service", "severity"), MAPPED_BY_PATTERN)
def test_the_first_matching_pattern_maps_an_alarm_without_mapping(name: str, service: str, severity: Severity) -> None:
    seen = candidate(alarm_body(name=name, description="CPU of the search nodes"), PATTERNS)
    assert (seen.service, seen.severity) == (service, severity)


def test_the_alarms_own_mapping_goes_before_a_pattern() -> None:
    assert candidate(alarm_body(), PATTERNS).severity is Severity.SEV2


UNMAPPED = {
    "no description": ...,
    "null": None,
    "empty": "",
    "prose": "5xx of checkout, call Dana",
    "half of it": '{"service": "checkout"',
    "a list": '["checkout", "SEV2"]',
    "no severity": '{"service": "checkout"}',
    "no service": '{"severity": "SEV2"}',
    "SEV9": '{"service": "checkout", "severity": "SEV9"}',
    "an empty service": '{"service": "", "severity": "SEV2"}',
    "a service of control characters": '{"service": "\\u0007", "severity": "SEV2"}',
    "a service of 257 characters": json.dumps({"service": "s" * 257, "severity": "SEV2"}),
    "a name twice": '{"service": "a", "service": "b", "severity": "SEV2"}',
    "forty levels": '{"a":' * 40 + "1" + "}" * 40,
}


@pytest.mark.parametrize("description", UNMAPPED.values(), ids=UNMAPPED.keys())
def test_without_a_readable_mapping_an_alarm_is_refused_never_guessed(description: Any) -> None:
    found = refusal(alarm_body(description=description))
    assert (found.code, found.field) == (Code.MAPPING_MISSING, "detail.configuration.description")


def test_a_mapping_may_say_more_than_we_read() -> None:
    description = '{"service": "checkout", "severity": "SEV1", "runbook": "https://example.com", "team": ["a"]}'
    assert candidate(alarm_body(description=description)).severity is Severity.SEV1


def changed(**detail: Any) -> dict[str, Any]:
    body = alarm_body()
    body["detail"] |= detail
    return body


WRONG: dict[str, tuple[dict[str, Any], Code, str]] = {
    "another event": (
        alarm_body(**{"detail-type": "EC2 Instance State-change Notification"}),
        Code.UNKNOWN_TYPE,
        "detail-type",
    ),
    "a contributor of an alarm": (
        alarm_body(**{"detail-type": "CloudWatch Alarm Contributor State Change"}),
        Code.UNKNOWN_TYPE,
        "detail-type",
    ),
    "a change of configuration": (
        alarm_body(**{"detail-type": "CloudWatch Alarm Configuration Change"}),
        Code.UNKNOWN_TYPE,
        "detail-type",
    ),
    "a suppressor that is no text": (
        changed(state={"value": "ALARM", "actionsSuppressedBy": 1}),
        Code.INVALID_FIELD,
        "detail.state.actionsSuppressedBy",
    ),
    "a detail-type that is no text": (alarm_body() | {"detail-type": ["x"]}, Code.UNKNOWN_TYPE, "detail-type"),
    "no id": (alarm_body(id=...), Code.INVALID_FIELD, "id"),
    "an empty id": (alarm_body(id=""), Code.INVALID_FIELD, "id"),
    "a blank id": (alarm_body(id="  "), Code.INVALID_FIELD, "id"),
    "an id with a line end": (alarm_body(id="a\nb"), Code.INVALID_FIELD, "id"),
    "an id of 129 characters": (alarm_body(id="x" * 129), Code.TOO_LARGE, "id"),
    "an id that is a number": (alarm_body(id=5), Code.INVALID_FIELD, "id"),
    "no detail": (alarm_body(detail=...), Code.INVALID_FIELD, "detail"),
    "no name": (alarm_body(name=...), Code.INVALID_FIELD, "detail.alarmName"),
    "a blank name": (alarm_body(name="   "), Code.INVALID_FIELD, "detail.alarmName"),
    "a name of control characters": (alarm_body(name="\n\t"), Code.INVALID_FIELD, "detail.alarmName"),
    "an unknown state": (alarm_body("BROKEN"), Code.INVALID_FIELD, "detail.state.value"),
    "no state": (changed(state={}), Code.INVALID_FIELD, "detail.state.value"),
    "a time in words": (alarm_body(timestamp="yesterday"), Code.INVALID_FIELD, "detail.state.timestamp"),
    "a time without zone": (alarm_body(timestamp="2026-01-31T02:59:30"), Code.INVALID_FIELD, "detail.state.timestamp"),
    "a number for a time": (alarm_body(timestamp=1769828400), Code.INVALID_FIELD, "detail.state.timestamp"),
    "year 0001": (alarm_body(timestamp="0001-01-01T00:00:00.000+0000"), Code.INVALID_FIELD, "detail.state.timestamp"),
    "no time at all": (alarm_body(timestamp=..., time="?"), Code.INVALID_FIELD, "time"),
}


@pytest.mark.parametrize(("body", "code", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_alarm_is_refused_naming_the_field(body: Any, code: Code, field: str) -> None:
    found = refusal(body, PATTERNS)
    assert (found.code, found.field) == (code, field)


def test_an_alarm_from_the_future_is_refused() -> None:
    assert candidate(alarm_body(timestamp="2026-01-31T03:10:00.000+0000")).service
    found = refusal(alarm_body(timestamp="2026-01-31T03:10:00.001+0000"))
    assert (found.code, found.field) == (Code.OBSERVED_IN_FUTURE, "detail.state.timestamp")
    assert refusal(alarm_body(timestamp=..., time="2026-01-31T03:11:00Z")).field == "time"


def test_two_alarms_of_one_name_in_two_accounts_or_regions_are_two_troubles() -> None:
    keys = {
        candidate(alarm_body(account=account, region=region)).dedup_key
        for account in ("123456789012", "999999999999")
        for region in ("us-east-1", "eu-west-1")
    }
    assert len(keys) == 4


def test_an_alarm_with_a_very_long_name_still_has_a_key_of_its_own() -> None:
    keys = [candidate(alarm_body(name="é" * 254 + end)).dedup_key for end in "ab"]
    assert keys[0] != keys[1]
    assert all(len(key.encode()) <= 512 for key in keys)


def test_an_alarms_reason_is_cut_to_what_a_description_holds() -> None:
    body = alarm_body()
    body["detail"]["state"]["reason"] = "line\n\u001b[31m" + "x" * 10_000
    description = candidate(body).description
    assert len(description) == 4096
    assert description.startswith("line [31mx")


def test_every_recorded_alarm_is_read() -> None:
    found = [signal_of(line) for line in recorded_alarms()]
    assert len({one.key for one in found}) == len(found) == 230
    assert len({candidate(line).dedup_key for line in recorded_alarms()}) == 8
