"""Our own candidates: the smallest valid one and its defaults, every limit at its edge, and what is refused by name."""

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.authority import Claim
from pipeline.domain.candidates import Candidate, Intake, Key, Received, Signal
from pipeline.domain.canonical import digest, format_time, parse_document
from pipeline.domain.errors import Code, Rejected
from pipeline.domain.events import Evidence, Link, Observation, ObservationKind
from pipeline.domain.intake import read_intake
from pipeline.domain.transitions import AuthorityType, Severity
from tests.support.bodies import SMALLEST_CANDIDATE, candidate_body, text_of
from tests.support.clock import NOW
from tests.support.registry import DETECTOR

RECEIVED = Received(DETECTOR, "message-1", NOW)
AT = "2026-01-31T02:59:00Z"


def intake(body: Any, received: Received = RECEIVED) -> Intake:
    return read_intake(parse_document(text_of(body)), received)


def signal_of(body: Any, received: Received = RECEIVED) -> Signal:
    """Return the one signal of a message: a candidate of our own is nothing else besides."""
    found = intake(body, received)
    assert (len(found.signals), found.refusals, found.signals[0].detection) == (1, (), None)
    return found.signals[0]


def candidate(body: Any, received: Received = RECEIVED) -> Candidate:
    seen = signal_of(body, received).candidate
    assert seen is not None
    return seen


def refusal(body: Any) -> Any:
    with pytest.raises(Rejected) as caught:
        intake(body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


def test_the_smallest_valid_candidate_gets_its_defaults() -> None:
    smallest = (
        '{"type":"candidate","service":"checkout","severity":"SEV2","title":"5xx above 5 %","dedupKey":"checkout-5xx"}'
    )
    assert candidate(smallest) == Candidate(
        service="checkout",
        dedup_key="checkout-5xx",
        severity=Severity.SEV2,
        title="5xx above 5 %",
        observation=Observation(
            kind=ObservationKind.FIRING, source=DETECTOR.principal, observed_at=NOW, confidence=Decimal(1), detections=1
        ),
        description="",
        evidence=(),
        links=(),
        tags=None,
        policy_id="default",
    )
    assert signal_of(smallest).key == Key("message", "message-1")
    assert intake(smallest).claim is None


def test_every_optional_field_is_read() -> None:
    body = candidate_body(
        schemaVersion=1,
        description="line\nline",
        confidence=0.75,
        source="synthetic-checks",
        observedAt=AT,
        evidence=[{"kind": "log", "ref": "logs/1", "observedAt": AT, "note": "first"}, {"kind": "trace", "ref": "t/1"}],
        links=[{"rel": "runbook", "href": "https://example.com/r"}],
        metadata={"region": "eu", "hosts": ["a"], "share": 0.5},
        policyId="strict",
        idempotencyKey="k-1",
        authority={"authorityType": "SYSTEM", "justification": "because"},
    )
    seen = candidate(body)
    assert (seen.observation.source, seen.observation.confidence) == ("synthetic-checks", Decimal("0.75"))
    assert seen.observation.observed_at == NOW - timedelta(minutes=1)
    assert seen.evidence[0] == Evidence(kind="log", ref="logs/1", observed_at=NOW - timedelta(minutes=1), note="first")
    assert seen.links == (Link(rel="runbook", href="https://example.com/r"),)
    assert seen.tags == {"region": "eu", "hosts": ("a",), "share": Decimal("0.5")}
    assert (seen.policy_id, seen.description) == ("strict", "line\nline")
    assert intake(body).claim == Claim(authority_type=AuthorityType.SYSTEM, justification="because")


def test_the_request_digest_is_over_the_received_document() -> None:
    body = candidate_body(description="")
    assert signal_of(body).request_digest == digest(body) != signal_of(SMALLEST_CANDIDATE).request_digest


KEYS = {
    "the caller's own": (candidate_body(idempotencyKey="k-1", observedAt=AT), "caller", "k-1"),
    "the body's, where it says when": (candidate_body(observedAt=AT), "body", digest(candidate_body(observedAt=AT))),
    "the message's, where it doesn't": (SMALLEST_CANDIDATE, "message", "message-1"),
}


@pytest.mark.parametrize(("body", "kind", "value"), KEYS.values(), ids=KEYS.keys())
def test_a_key_is_the_callers_or_derived(body: Any, kind: str, value: str) -> None:
    assert signal_of(body).key == Key(kind, value)


def test_a_derived_key_does_not_depend_on_how_the_body_is_written() -> None:
    one = text_of(candidate_body(confidence=0.5, observedAt=AT))
    other = text_of(dict(reversed(candidate_body(confidence=0.5, observedAt=AT).items())))
    other = other.replace("0.5", "5.0E-1").replace(": ", " :\n").replace("candidate", "c\\u0061ndidate")
    assert one != other
    assert signal_of(one).key == signal_of(other).key


EDGES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "service": ({"service": "s" * 256}, {"service": "s" * 257}, "service"),
    "title": ({"title": "é" * 512}, {"title": "é" * 513}, "title"),
    "description": ({"description": "d" * 4096}, {"description": "d" * 4097}, "description"),
    "dedupKey in bytes": ({"dedupKey": "é" * 256}, {"dedupKey": "é" * 256 + "x"}, "dedupKey"),
    "idempotencyKey": ({"idempotencyKey": "k" * 128}, {"idempotencyKey": "k" * 129}, "idempotencyKey"),
    "confidence": ({"confidence": 1}, {"confidence": 1.0000001}, "confidence"),
    "confidence at zero": ({"confidence": 0}, {"confidence": -0.0000001}, "confidence"),
    "evidence items": (
        {"evidence": [{"kind": "log", "ref": "r"}] * 100},
        {"evidence": [{"kind": "log", "ref": "r"}] * 101},
        "evidence",
    ),
    "evidence reference": (
        {"evidence": [{"kind": "log", "ref": "r" * 512}]},
        {"evidence": [{"kind": "log", "ref": "r" * 513}]},
        "evidence.0.ref",
    ),
    "evidence note": (
        {"evidence": [{"kind": "log", "ref": "r", "note": "n" * 512}]},
        {"evidence": [{"kind": "log", "ref": "r", "note": "n" * 513}]},
        "evidence.0.note",
    ),
    "links": (
        {"links": [{"rel": "r", "href": "https://h"}] * 20},
        {"links": [{"rel": "r", "href": "https://h"}] * 21},
        "links",
    ),
    "link": (
        {"links": [{"rel": "r", "href": "https://" + "h" * 2040}]},
        {"links": [{"rel": "r", "href": "https://" + "h" * 2041}]},
        "links.0.href",
    ),
    "metadata": ({"metadata": {"a": "x" * 4088}}, {"metadata": {"a": "x" * 4089}}, "metadata"),
    "observedAt": (
        {"observedAt": format_time(NOW + timedelta(minutes=10))},
        {"observedAt": format_time(NOW + timedelta(minutes=10, microseconds=1))},
        "observedAt",
    ),
    "observedAt long ago": ({"observedAt": "2000-01-01T00:00:00Z"}, {"observedAt": "1999-12-31T23:59:59Z"}, "observedAt"),
    "schemaVersion": ({"schemaVersion": 1}, {"schemaVersion": 2}, "schemaVersion"),
    "schemaVersion zero": ({"schemaVersion": 1.0}, {"schemaVersion": 0}, "schemaVersion"),
    "metadata depth": (
        {"metadata": parse_document('{"a":' * 12 + "1" + "}" * 12)},
        {"metadata": parse_document('{"a":' * 13 + "1" + "}" * 13)},
        "metadata",
    ),
}


@pytest.mark.parametrize(("inside", "beyond", "field"), EDGES.values(), ids=EDGES.keys())
def test_each_limit_holds_at_its_edge_and_refuses_one_beyond(inside: Any, beyond: Any, field: str) -> None:
    assert candidate(candidate_body(**inside)).service
    assert str(refusal(candidate_body(**beyond)).field).startswith(field)


WRONG: dict[str, tuple[dict[str, Any], Code, str]] = {
    "no service": ({"service": ...}, Code.INVALID_FIELD, "service"),
    "no severity": ({"severity": ...}, Code.INVALID_FIELD, "severity"),
    "no title": ({"title": ...}, Code.INVALID_FIELD, "title"),
    "no dedupKey": ({"dedupKey": ...}, Code.INVALID_FIELD, "dedupKey"),
    "no type": ({"type": ...}, Code.UNKNOWN_TYPE, "type"),
    "SEV9": ({"severity": "SEV9"}, Code.INVALID_FIELD, "severity"),
    "sev2": ({"severity": "sev2"}, Code.INVALID_FIELD, "severity"),
    "a number for a severity": ({"severity": 2}, Code.INVALID_FIELD, "severity"),
    "an unknown field": ({"urgency": "high"}, Code.UNKNOWN_FIELD, "urgency"),
    "python's spelling": ({"dedup_key": "x"}, Code.UNKNOWN_FIELD, "dedup_key"),
    "a principal in the body": ({"principal": "AROAOPERATOR"}, Code.UNKNOWN_FIELD, "principal"),
    "a principal in the claim": (
        {"authority": {"authorityType": "SYSTEM", "principal": "AROAOPERATOR"}},
        Code.UNKNOWN_FIELD,
        "authority.principal",
    ),
    "an unknown authority": ({"authority": "ROOT"}, Code.INVALID_FIELD, "authority.authorityType"),
    "an incidentId": ({"incidentId": "x"}, Code.UNKNOWN_FIELD, "incidentId"),
    "a state": ({"state": "OPEN"}, Code.UNKNOWN_FIELD, "state"),
    "a future schema version": ({"schemaVersion": 7}, Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
    "a schema version in words": ({"schemaVersion": "1"}, Code.UNSUPPORTED_SCHEMA_VERSION, "schemaVersion"),
    "a schema version that is only true": ({"schemaVersion": True}, Code.INVALID_FIELD, "schemaVersion"),
    "observed in the future": ({"observedAt": "2026-01-31T03:10:01Z"}, Code.OBSERVED_IN_FUTURE, "observedAt"),
    "a number for a time": ({"observedAt": 1769828400}, Code.INVALID_FIELD, "observedAt"),
    "a time without zone": ({"observedAt": "2026-01-31T03:00:00"}, Code.INVALID_FIELD, "observedAt"),
    "year 0001": ({"observedAt": "0001-01-01T00:00:00Z"}, Code.INVALID_FIELD, "observedAt"),
    "confidence in words": ({"confidence": "high"}, Code.INVALID_FIELD, "confidence"),
    "confidence true": ({"confidence": True}, Code.INVALID_FIELD, "confidence"),
    "evidence that is no list": ({"evidence": {"kind": "log", "ref": "r"}}, Code.INVALID_FIELD, "evidence"),
    "evidence without reference": ({"evidence": [{"kind": "log"}]}, Code.INVALID_FIELD, "evidence.0.ref"),
    "evidence with more": ({"evidence": [{"kind": "a", "ref": "r", "x": 1}]}, Code.UNKNOWN_FIELD, "evidence.0.x"),
    "a control character": ({"title": "red \u001b[31m"}, Code.INVALID_FIELD, "title"),
    "NUL": ({"title": "a\u0000"}, Code.INVALID_FIELD, "title"),
    "a lone surrogate": ({"title": "a\ud800"}, Code.INVALID_FIELD, "title"),
    "null for a text": ({"description": None}, Code.INVALID_FIELD, "description"),
    "a key with blanks": ({"idempotencyKey": "a b"}, Code.INVALID_FIELD, "idempotencyKey"),
    "a 3 KB key": ({"idempotencyKey": "k" * 3072}, Code.INVALID_FIELD, "idempotencyKey"),
    "a command": ({"type": "declare"}, Code.UNKNOWN_TYPE, "type"),
    "a type that is no text": ({"type": ["candidate"]}, Code.UNKNOWN_TYPE, "type"),
}


@pytest.mark.parametrize(("fields", "code", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_candidate_is_refused_naming_the_field(fields: Any, code: Code, field: str) -> None:
    found = refusal(candidate_body(**fields))
    assert (found.code, found.field) == (code, field)


def test_a_command_on_the_candidates_queue_is_told_where_it_belongs() -> None:
    assert "commands queue" in refusal(candidate_body(type="change-state")).detail


AGES = [("2026-01-31T02:59:59.999999Z", 1), ("2026-01-31T03:00:00Z", None), ("2026-01-31T03:09:00Z", None), (..., None)]


@pytest.mark.parametrize(("observed_at", "age_s"), AGES)
def test_an_observations_age_is_whole_seconds_until_it_was_sent(observed_at: Any, age_s: int | None) -> None:
    assert candidate(candidate_body(observedAt=observed_at)).observation.age_s == age_s


def test_an_observation_is_measured_against_the_queues_time_not_against_now() -> None:
    late = Received(DETECTOR, "message-1", NOW + timedelta(days=3))
    body = candidate_body(observedAt=format_time(NOW + timedelta(days=3, minutes=9)))
    assert candidate(body, late).observation.observed_at == NOW + timedelta(days=3, minutes=9)
    assert refusal(body).code is Code.OBSERVED_IN_FUTURE
