"""Old recordings move to now by whole days: what they mean to each other stays, and twice is a duplicate."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.rebase import days_to_now, newest_time, rebased, shifted
from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import parse_document
from pipeline.domain.intake import read_intake

NOW = datetime(2026, 11, 23, 8, 30, tzinfo=UTC)
ALARM = {
    "id": "fa8b7acb-6a3c-53f6-92ae-1e0ea85d42c1",
    "detail-type": "CloudWatch Alarm State Change",
    "source": "aws.cloudwatch",
    "account": "123456789012",
    "region": "us-east-1",
    "time": "2014-02-18T20:40:00Z",
    "detail": {
        "alarmName": "search-cpu",
        "state": {
            "value": "ALARM",
            "timestamp": "2014-02-18T20:40:00.000+0000",
            "reason": "2 out of 3",
            "reasonData": json.dumps({"queryDate": "2014-02-18T20:40:00.000+0000", "threshold": 2.0614}),
        },
        "previousState": {"value": "OK", "timestamp": "2014-02-14T14:30:00.000+0000", "reasonData": "{}"},
        "configuration": {"description": '{"service": "search", "severity": "SEV3"}'},
    },
}
CANDIDATE = {
    "type": "candidate",
    "service": "checkout",
    "severity": "SEV2",
    "title": "5xx",
    "dedupKey": "k",
    "observedAt": "2026-03-02T08:00:00Z",
    "idempotencyKey": "monitor:1",
    "evidence": [{"kind": "log", "ref": "2026-03-02T08:00:00Z", "observedAt": "2026-03-02T07:59:00+01:00"}],
}
years = st.integers(0, 98 * 365 * 24 * 3600).map(
    lambda seconds: datetime(2001, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def moved(document: dict[str, Any], days: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(rebased(json.dumps(document), days))
    return found


@given(years, years)
def test_the_newest_time_comes_into_the_last_day_and_never_into_the_future(newest: datetime, now: datetime) -> None:
    there = newest + timedelta(days=days_to_now(newest, now))
    assert now - timedelta(days=1) < there <= now


def test_an_alarm_moves_with_all_its_times_and_keeps_their_spelling() -> None:
    detail = moved(ALARM, 10)["detail"]
    assert moved(ALARM, 10)["time"] == "2014-02-28T20:40:00Z"
    assert detail["state"]["timestamp"] == "2014-02-28T20:40:00.000+0000"
    assert detail["previousState"]["timestamp"] == "2014-02-24T14:30:00.000+0000"
    assert json.loads(detail["state"]["reasonData"]) == {"queryDate": "2014-02-28T20:40:00.000+0000", "threshold": 2.0614}


def test_a_candidate_moves_with_its_evidence_and_nothing_else_does() -> None:
    expected = CANDIDATE | {
        "observedAt": "2026-03-05T08:00:00Z",
        "idempotencyKey": "monitor:1.3d",
        "evidence": [{"kind": "log", "ref": "2026-03-02T08:00:00Z", "observedAt": "2026-03-05T07:59:00+01:00"}],
    }
    assert moved(CANDIDATE, 3) == expected


def test_moved_alike_it_is_a_duplicate_and_moved_on_another_day_it_is_new() -> None:
    assert moved(ALARM, 10)["id"] == moved(ALARM, 10)["id"]
    assert len({moved(ALARM, days)["id"] for days in (0, 1, 2, -1)}) == 4
    assert len({moved(CANDIDATE, days)["idempotencyKey"] for days in (0, 1, 2, -1)}) == 4


@pytest.mark.parametrize("document", [ALARM, CANDIDATE])
def test_opx_reads_the_moved_message_as_the_same_trouble(document: dict[str, Any]) -> None:
    received = Received(Sender("AROAEXAMPLE"), "m1", NOW)
    body = json.dumps(document)
    newest = newest_time([body], NOW)
    assert newest is not None
    before = read_intake(parse_document(body), received).signals[0].candidate
    after = read_intake(parse_document(rebased(body, days_to_now(newest, NOW))), received).signals[0].candidate
    assert before is not None
    assert after is not None
    assert (before.service, before.dedup_key, before.severity) == (after.service, after.dedup_key, after.severity)
    age = NOW - after.observation.observed_at
    assert timedelta(0) <= age < timedelta(days=1)
    assert after.observation.observed_at.time() == before.observation.observed_at.time()


@pytest.mark.parametrize(
    "body", ["not JSON", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', '{"observedAt": "2026-01-01T00:00:00Z"', '"\\ud800"']
)
def test_what_opx_could_not_read_stays_as_it_is(body: str) -> None:
    assert rebased(body, 5) == body
    assert newest_time([body], NOW) is None


def test_by_no_days_the_very_text_stays() -> None:
    body = json.dumps(CANDIDATE, indent=2)
    assert rebased(body, 0) == body


@pytest.mark.parametrize(
    ("document", "days"),
    [
        ({"type": "candidate", "observedAt": 5, "evidence": "x", "idempotencyKey": None}, 3),
        ({"detail-type": "x", "detail": [1], "id": {}, "time": 7}, 3),
        ({"detail-type": "x", "detail": {"state": "ALARM", "previousState": 1}}, 3),
        ({"type": "candidate", "evidence": ["x", 1, {"observedAt": 1}]}, 3),
        ({"type": "candidate", "observedAt": "9999-12-31T00:00:00Z"}, 3),
        ({"type": "candidate", "observedAt": "0001-01-01T00:00:00Z"}, -3),
        ({"type": "candidate", "observedAt": "2026-13-45T00:00:00Z"}, 3),
        ({"type": "candidate", "observedAt": "yesterday"}, 3),
    ],
)
def test_fields_of_another_shape_stay_for_opx_to_refuse(document: dict[str, Any], days: int) -> None:
    assert moved(document, days) == document


def test_a_long_key_stays_a_valid_key() -> None:
    key = moved(CANDIDATE | {"idempotencyKey": "k" * 128}, 3)["idempotencyKey"]
    assert len(key) == 64
    assert key != moved(CANDIDATE | {"idempotencyKey": "k" * 127 + "l"}, 3)["idempotencyKey"]


def test_times_without_a_zone_move_too_so_that_they_are_refused_for_what_they_are() -> None:
    assert shifted("2026-02-27T08:00:00", 2) == "2026-03-01T08:00:00"


def test_the_newest_of_a_recording_counts_states_and_evidence() -> None:
    late = CANDIDATE | {"evidence": [{"kind": "log", "ref": "x", "observedAt": "2026-03-03T00:00:00Z"}]}
    bodies = [json.dumps(document) for document in (ALARM, late, CANDIDATE)]
    assert newest_time(bodies, NOW) == datetime(2026, 3, 3, tzinfo=UTC)


def test_one_message_from_the_future_moves_no_recording_into_the_past() -> None:
    ahead = json.dumps(CANDIDATE | {"observedAt": "2099-01-01T00:00:00Z"})
    newest = newest_time([json.dumps(ALARM), ahead, json.dumps(CANDIDATE)], NOW)
    assert newest == datetime(2026, 3, 2, 8, tzinfo=UTC)


def test_a_recording_that_lies_in_the_future_as_a_whole_moves_back() -> None:
    ahead = json.dumps({"type": "candidate", "observedAt": "2099-01-01T00:00:00Z"})
    newest = newest_time([ahead], NOW)
    assert newest is not None
    assert timedelta(0) <= NOW - (newest + timedelta(days=days_to_now(newest, NOW))) < timedelta(days=1)
