"""Alertmanager's notifications: each alert by itself, mapped by its labels, never guessed; a repeat is the same alert."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.domain.alertmanager import LABELS_LEFT_OUT, OWN_WORDS, AlertMapping
from pipeline.domain.base import METADATA_BYTES_MAX, read
from pipeline.domain.candidates import Candidate, Detection, Intake, Key, Received, Signal
from pipeline.domain.canonical import canonical_bytes, digest, parse_document, parse_time
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.domain.events import Creation, Evidence, Link, ObservationKind
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import Severity
from tests.support.bodies import text_of
from tests.support.clock import NOW
from tests.support.histories import ROOT
from tests.support.notifications import FINGERPRINT, ZERO_TIME, alert, notification, resolved
from tests.support.registry import ALARMS

RECEIVED = Received(ALARMS, "message-1", NOW)
STARTED = parse_time("2026-01-31T02:55:00.123456Z")
WORDS = AlertMapping(
    service_label="team",
    severity_label="level",
    severities={"critical": Severity.SEV1, "warning": Severity.SEV3, "SEV2": Severity.SEV2},
)


def intake(body: Any, received: Received = RECEIVED, mapping: AlertMapping | None = None) -> Intake:
    document = parse_document(text_of(body))
    return read_intake(document, received) if mapping is None else read_intake(document, received, (), mapping)


def only(found: Intake) -> tuple[Signal, Candidate, Detection]:
    assert found.refusals == ()
    (signal,) = found.signals
    assert signal.candidate is not None
    assert signal.detection is not None
    return signal, signal.candidate, signal.detection


def refusal(body: Any, mapping: AlertMapping | None = None) -> Refusal:
    with pytest.raises(Rejected) as caught:
        intake(body, mapping=mapping)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


# --- what an alert becomes -------------------------------------------------------------------------------------------


def test_a_firing_alert_is_a_candidate_of_its_labels() -> None:
    signal, seen, _ = only(intake(notification()))
    assert (seen.service, seen.severity, seen.title) == ("checkout", Severity.SEV2, "5xx above 5 %")
    assert (seen.dedup_key, seen.policy_id, seen.description) == (f"alertmanager:{FINGERPRINT}", "default", "")
    assert (seen.observation.kind, seen.observation.observed_at) == (ObservationKind.FIRING, STARTED)
    assert (seen.observation.source, seen.observation.confidence) == ("alertmanager:HighErrorRate", Decimal(1))
    assert (seen.observation.detections, seen.observation.age_s) == (1, 300)
    ref = f"{FINGERPRINT}@2026-01-31T02:55:00.123456Z"
    assert seen.evidence == (Evidence(kind="alertmanager", ref=ref, observed_at=STARTED, note="firing"),)
    assert seen.links == (Link(rel="source", href="http://prometheus.example.com/graph?g0.expr=up"),)
    assert seen.tags == alert()["labels"]
    assert signal.key.kind == "alertmanager"
    assert intake(notification()).claim is None


def test_the_same_alert_is_a_detection_too() -> None:
    signal, candidate, seen = only(intake(notification()))
    assert (seen.id, seen.dedup_key) == (signal.key.value, candidate.dedup_key)
    assert (seen.service, seen.severity, seen.signal_type) == ("checkout", Severity.SEV2, "alertmanager")
    assert (seen.source, seen.resource) == ("alertmanager:HighErrorRate", "10.0.0.1:9100")
    assert (seen.kind, seen.observed_at, seen.age_s) == (ObservationKind.FIRING, STARTED, 300)
    assert seen.attributes == alert()["labels"]


def test_a_resolved_alert_is_a_recovery_of_the_same_key_when_it_ended() -> None:
    signal, seen, detection = only(intake(notification(resolved())))
    ended = NOW - timedelta(minutes=2)
    assert (seen.observation.kind, seen.observation.observed_at) == (ObservationKind.RECOVERY, ended)
    assert (detection.kind, detection.observed_at, detection.age_s) == (ObservationKind.RECOVERY, ended, 120)
    assert seen.evidence[0].note == "resolved"
    firing, candidate, _ = only(intake(notification()))
    assert candidate.dedup_key == seen.dedup_key
    assert firing.key != signal.key


def test_the_end_of_a_firing_alert_is_not_looked_at() -> None:
    for ends_at in (ZERO_TIME, "2026-01-31T04:00:00Z", "", None, ...):
        assert only(intake(notification(alert(endsAt=ends_at))))[1].observation.observed_at == STARTED


def test_an_alert_observed_as_it_was_sent_has_no_age() -> None:
    for starts_at in ("2026-01-31T03:00:00Z", "2026-01-31T03:09:00Z"):
        _, seen, detection = only(intake(notification(alert(startsAt=starts_at))))
        assert (seen.observation.age_s, detection.age_s) == (None, 0)


TIMES = [
    ("2026-01-31T02:55:00Z", "2026-01-31T02:55:00Z"),
    ("2026-01-31T03:55:00.1+01:00", "2026-01-31T02:55:00.1Z"),
    ("2026-01-30T20:55:00.123456789-06:00", "2026-01-31T02:55:00.123456Z"),
]


@pytest.mark.parametrize(("written", "read"), TIMES)
def test_times_are_read_in_each_form_go_writes(written: str, read: str) -> None:
    assert only(intake(notification(alert(startsAt=written))))[1].observation.observed_at == parse_time(read)


TITLES = [
    ({"summary": "Carts are empty", "description": "since 3:00"}, {}, "Carts are empty", "since 3:00"),
    ({}, {}, "HighErrorRate", ""),
    ({"summary": " \n\t", "message": "not looked at"}, {}, "HighErrorRate", ""),
    ({"summary": "red \u001b[31m\nline"}, {}, "red  [31m line", ""),
    ({"summary": "é" * 600, "description": "d" * 5000}, {}, "é" * 512, "d" * 4096),
    ({"summary": "s\uffff\ufffe"}, {"alertname": ...}, "s", ""),
]


@pytest.mark.parametrize(("annotations", "labels", "title", "description"), TITLES)
def test_the_title_is_the_summary_else_the_alerts_name(
    annotations: dict[str, str], labels: dict[str, Any], title: str, description: str
) -> None:
    seen = only(intake(notification(alert(annotations=annotations, labels=labels))))[1]
    assert (seen.title, seen.description) == (title, description)


def test_an_alert_without_a_name_has_a_plain_source_and_no_resource_without_instance() -> None:
    seen = only(intake(notification(alert(labels={"alertname": ..., "instance": ...}))))[2]
    assert (seen.source, seen.resource) == ("alertmanager", None)


def test_links_that_a_browser_may_follow_are_kept_and_others_left_out() -> None:
    annotations = {"runbook_url": "https://runbooks.example.com/r", "dashboard": "https://grafana.example.com/d/1"}
    seen = only(intake(notification(alert(annotations=annotations, generatorURL=""))))[1]
    assert [(link.rel, link.href) for link in seen.links] == [
        ("runbook", annotations["runbook_url"]),
        ("dashboard", annotations["dashboard"]),
    ]
    for href in ("javascript:alert(1)", "ftp://a", "/graph", "https://a\nb", "https://" + "x" * 2048, " https://a"):
        wrong = alert(annotations={"summary": "s", "runbook_url": href, "dashboard": href}, generatorURL=href)
        assert only(intake(notification(wrong)))[1].links == ()


# --- labels ----------------------------------------------------------------------------------------------------------


def test_labels_beyond_what_metadata_holds_are_counted_never_dropped_in_silence() -> None:
    many = {f"label_{n:03}": "x" * 60 for n in range(100)}
    _, seen, detection = only(intake(notification(alert(labels=many))))
    assert seen.tags is not None
    kept = {name: value for name, value in seen.tags.items() if name != LABELS_LEFT_OUT}
    assert seen.tags[LABELS_LEFT_OUT] == 104 - len(kept)
    assert METADATA_BYTES_MAX - 100 < len(canonical_bytes(seen.tags)) <= METADATA_BYTES_MAX
    assert {"alertname", "instance", "label_000"} < kept.keys()
    assert detection.attributes == alert(labels=many)["labels"], "rules see all labels"


def test_labels_fit_exactly_or_one_is_left_out() -> None:
    room = METADATA_BYTES_MAX - len(canonical_bytes(alert(labels={"pad": ""})["labels"]))
    exact = only(intake(notification(alert(labels={"pad": "x" * room}))))[1]
    assert exact.tags is not None
    assert LABELS_LEFT_OUT not in exact.tags
    beyond = only(intake(notification(alert(labels={"pad": "x" * (room + 1)}))))[1]
    assert beyond.tags == alert()["labels"] | {LABELS_LEFT_OUT: 1}


def test_what_is_kept_of_the_labels_never_takes_more_than_metadata_holds() -> None:
    longest = 0
    for length in range(3880, 3980):
        seen = only(intake(notification(alert(labels={"pad": "x" * length, "other": "y" * length}))))[1]
        longest = max(longest, len(canonical_bytes(seen.tags)))
    assert longest == METADATA_BYTES_MAX


def test_labels_of_any_name_can_be_stored() -> None:
    odd = {"a\nb": "1", "a b": "2", "\u0007": "bell", "größe": "x\uffffy", LABELS_LEFT_OUT: "mine"}
    seen = only(intake(notification(alert(labels=odd))))[1]
    assert seen.tags is not None
    assert seen.tags["größe"] == "x y"
    assert (seen.tags["a b"], seen.tags[LABELS_LEFT_OUT]) == ("1", 3)
    creation = Creation.model_validate(
        {
            "service": seen.service,
            "severity": seen.severity,
            "title": seen.title,
            "description": seen.description,
            "dedupKey": seen.dedup_key,
            "occurrence": 1,
            "policyId": seen.policy_id,
            "observation": seen.observation,
            "tags": seen.tags,
        }
    )
    assert creation.tags == seen.tags


# --- mapping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [one.value for one in Severity])
def test_our_own_words_for_severity_are_read_as_they_stand(word: str) -> None:
    assert only(intake(notification(alert(labels={"severity": word}))))[1].severity is Severity(word)


MAPPED = [("critical", Severity.SEV1), ("warning", Severity.SEV3), ("SEV2", Severity.SEV2)]


@pytest.mark.parametrize(("word", "severity"), MAPPED)
def test_other_labels_and_words_are_read_under_a_given_mapping(word: str, severity: Severity) -> None:
    body = notification(alert(labels={"service": ..., "severity": ..., "team": "search", "level": word}))
    seen = only(intake(body, mapping=WORDS))[1]
    assert (seen.service, seen.severity) == ("search", severity)


def test_the_shipped_mapping_maps_our_own_words_only() -> None:
    shipped = (ROOT / "pipeline" / "rules" / "alertmanager-mapping.json").read_bytes()
    assert read(TypeAdapter(AlertMapping), parse_document(shipped)) == OWN_WORDS
    for wrong in ({"severities": {"critical": "SEV9"}}, {"severityLabel": ""}, {"severity": "level"}):
        with pytest.raises(Rejected):
            read(TypeAdapter(AlertMapping), wrong)


def test_a_mapping_replaces_our_own_words() -> None:
    found = refusal(notification(alert(labels={"team": "search", "level": "SEV1"})), WORDS)
    assert (found.code, found.field) == (Code.MAPPING_MISSING, "alerts.0.labels.level")
    assert found.detail == "'SEV1' is mapped to no severity, only these are: SEV2, critical, warning."
    assert refusal(notification(), WORDS).field == "alerts.0.labels.team"


def test_without_a_mapping_critical_is_refused_and_told_what_would_do() -> None:
    found = refusal(notification(alert(labels={"severity": "critical"})))
    assert "SEV1, SEV2, SEV3, SEV4" in found.detail
    assert "as labels" in found.advice


# --- what is wrong ---------------------------------------------------------------------------------------------------

ALERTS: dict[str, tuple[Any, Code, str]] = {
    "no service": (alert(labels={"service": ...}), Code.MAPPING_MISSING, "labels.service"),
    "an empty service": (alert(labels={"service": ""}), Code.INVALID_FIELD, "labels.service"),
    "a service of control characters": (alert(labels={"service": "a\u0007"}), Code.INVALID_FIELD, "labels.service"),
    "a service of 257 characters": (alert(labels={"service": "s" * 257}), Code.TOO_LARGE, "labels.service"),
    "no severity": (alert(labels={"severity": ...}), Code.MAPPING_MISSING, "labels.severity"),
    "sev2": (alert(labels={"severity": "sev2"}), Code.MAPPING_MISSING, "labels.severity"),
    "SEV9": (alert(labels={"severity": "SEV9"}), Code.MAPPING_MISSING, "labels.severity"),
    "critical": (alert(labels={"severity": "critical"}), Code.MAPPING_MISSING, "labels.severity"),
    "neither name nor summary": (
        alert(labels={"alertname": ...}, annotations={}),
        Code.INVALID_FIELD,
        "labels.alertname",
    ),
    "no labels": (alert(labels=...), Code.INVALID_FIELD, "labels"),
    "labels that are a list": (alert(labels=["a"]), Code.INVALID_FIELD, "labels"),
    "a label that is a number": (alert(labels={"shard": 3}), Code.INVALID_FIELD, "labels.shard"),
    "an annotation that is a list": (alert(annotations={"summary": []}), Code.INVALID_FIELD, "annotations.summary"),
    "no fingerprint": (alert(fingerprint=...), Code.INVALID_FIELD, "fingerprint"),
    "an empty fingerprint": (alert(fingerprint=""), Code.INVALID_FIELD, "fingerprint"),
    "a fingerprint with a line end": (alert(fingerprint="aa\nbb"), Code.INVALID_FIELD, "fingerprint"),
    "a fingerprint that is a number": (alert(fingerprint=7), Code.INVALID_FIELD, "fingerprint"),
    "no status": (alert(status=...), Code.INVALID_FIELD, "status"),
    "suppressed": (alert(status="suppressed"), Code.INVALID_FIELD, "status"),
    "no start": (alert(startsAt=...), Code.INVALID_FIELD, "startsAt"),
    "Go's zero time for a start": (alert(startsAt=ZERO_TIME), Code.INVALID_FIELD, "startsAt"),
    "Go's own spelling of a time": (alert(startsAt="2026-01-31 02:55:00 +0000 UTC"), Code.INVALID_FIELD, "startsAt"),
    "a number for a time": (alert(startsAt=1769828400), Code.INVALID_FIELD, "startsAt"),
    "a start in the future": (alert(startsAt="2026-01-31T03:10:00.001Z"), Code.OBSERVED_IN_FUTURE, "startsAt"),
    "resolved without an end": (resolved(endsAt=...), Code.INVALID_FIELD, "endsAt"),
    "resolved at Go's zero time": (resolved(endsAt=ZERO_TIME), Code.INVALID_FIELD, "endsAt"),
    "resolved at a number": (resolved(endsAt=12), Code.INVALID_FIELD, "endsAt"),
    "resolved in the future": (resolved(endsAt="2026-01-31T03:11:00Z"), Code.OBSERVED_IN_FUTURE, "endsAt"),
    "a link that is a number": (alert(generatorURL=1), Code.INVALID_FIELD, "generatorURL"),
    "text": ("HighErrorRate", Code.INVALID_FIELD, ""),
    "null": (None, Code.INVALID_FIELD, ""),
    "a list": ([alert()], Code.INVALID_FIELD, ""),
}


@pytest.mark.parametrize(("wrong", "code", "field"), ALERTS.values(), ids=ALERTS.keys())
def test_an_alert_that_cannot_be_read_is_refused_by_name_and_holds_up_no_other(wrong: Any, code: Code, field: str) -> None:
    good = [alert(fingerprint=f"{n:016x}") for n in range(4)]
    found = intake(notification(*good[:3], wrong, good[3]))
    assert [signal.candidate.dedup_key for signal in found.signals if signal.candidate] == [
        f"alertmanager:{n:016x}" for n in range(4)
    ]
    assert [(one.code, one.field) for one in found.refusals] == [(code, f"alerts.3.{field}".removesuffix("."))]


@pytest.mark.parametrize(("wrong", "code", "field"), ALERTS.values(), ids=ALERTS.keys())
def test_where_no_alert_can_be_read_the_first_ones_refusal_is_raised(wrong: Any, code: Code, field: str) -> None:
    found = refusal(notification(wrong, alert(labels={"service": ...})))
    assert (found.code, found.field) == (code, f"alerts.0.{field}".removesuffix("."))


NOTIFICATIONS: dict[str, tuple[dict[str, Any], Code, str]] = {
    "no version": (notification(version=...), Code.INVALID_FIELD, "version"),
    "version 5": (notification(version="5"), Code.INVALID_FIELD, "version"),
    "a version that is a number": (notification(version=4), Code.INVALID_FIELD, "version"),
    "no groupKey": (notification(groupKey=...), Code.INVALID_FIELD, "groupKey"),
    "no alerts": (notification(alerts=...), Code.INVALID_FIELD, "alerts"),
    "an empty list of alerts": (notification(alerts=[]), Code.INVALID_FIELD, "alerts"),
    "alerts that are an object": (notification(alerts={"0": alert()}), Code.INVALID_FIELD, "alerts"),
    "alerts that are text": (notification(alerts="[]"), Code.INVALID_FIELD, "alerts"),
    "a count in words": (notification(truncatedAlerts="3"), Code.INVALID_FIELD, "truncatedAlerts"),
    "a count below zero": (notification(truncatedAlerts=-1), Code.INVALID_FIELD, "truncatedAlerts"),
    "all alerts left out": (notification(alerts=[], truncatedAlerts=2), Code.TOO_LARGE, "truncatedAlerts"),
}


@pytest.mark.parametrize(("body", "code", "field"), NOTIFICATIONS.values(), ids=NOTIFICATIONS.keys())
def test_a_wrong_notification_is_refused_naming_the_field(body: Any, code: Code, field: str) -> None:
    found = refusal(body)
    assert (found.code, found.field) == (code, field)


def test_what_alertmanager_left_out_is_told_beside_what_is_there() -> None:
    found = intake(notification(truncatedAlerts=3))
    assert len(found.signals) == 1
    (told,) = found.refusals
    assert (told.code, told.field) == (Code.TOO_LARGE, "truncatedAlerts")
    assert "3 alerts" in told.detail


def test_what_is_not_needed_of_a_notification_is_not_looked_at() -> None:
    body = notification(
        alert(colour="red"), receiver=5, status=..., groupLabels=..., commonLabels=[], notification_reason="x"
    )
    assert only(intake(body))[1] == only(intake(notification()))[1]


# --- repeats ---------------------------------------------------------------------------------------------------------

REPEATS = {
    "other annotations": alert(annotations={"summary": "5xx above 7 %"}),
    "another link": alert(generatorURL="http://other"),
    "the same start in another zone": alert(startsAt="2026-01-31T03:55:00.123456789+01:00"),
    "the same start to the microsecond": alert(startsAt="2026-01-31T02:55:00.123456Z"),
    "an end": alert(endsAt="2026-01-31T02:59:00Z"),
}


@pytest.mark.parametrize("again", REPEATS.values(), ids=REPEATS.keys())
def test_a_repeated_alert_has_the_same_key_and_counts_as_the_same_request(again: dict[str, Any]) -> None:
    first = only(intake(notification()))[0]
    later = Received(ALARMS, "message-2", NOW + timedelta(hours=4))
    body = notification(alert(fingerprint="aa"), again, status="firing", groupLabels={}, groupKey="another group")
    repeat = intake(body, later).signals[1]
    assert (repeat.key, repeat.request_digest) == (first.key, first.request_digest)


OTHERS = {
    "another alert": alert(fingerprint="61dad1c6e912d04e"),
    "a later firing": alert(startsAt="2026-01-31T02:56:00Z"),
    "its end": resolved(),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_another_firing_has_another_key(other: dict[str, Any]) -> None:
    assert only(intake(notification(other)))[0].key != only(intake(notification()))[0].key


def test_a_resolved_alert_repeated_with_another_end_is_the_same() -> None:
    assert (
        only(intake(notification(resolved())))[0].key
        == only(intake(notification(resolved(endsAt="2026-01-31T02:59:00Z"))))[0].key
    )


def test_the_key_is_the_digest_of_fingerprint_start_and_status() -> None:
    identity = digest([FINGERPRINT, "2026-01-31T02:55:00.123456Z", "firing"])
    signal = only(intake(notification()))[0]
    assert (signal.key, signal.request_digest) == (Key("alertmanager", identity), identity)


def test_a_message_cut_off_at_its_limit_is_refused_not_read_in_part() -> None:
    """Alertmanager cuts at 256 KB, wherever that is."""
    whole = text_of(notification(*[alert(fingerprint=f"{n:016x}") for n in range(9)]))
    with pytest.raises(Rejected) as caught:
        parse_document(whole[:-300])
    assert caught.value.refusal.code is Code.MALFORMED_JSON
