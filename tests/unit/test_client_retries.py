"""When a call is tried again: pauses that spread, a deadline that holds, and what a server asks for."""

import random
from datetime import UTC, datetime

import pytest

from pipeline.clients.retries import Attempts, Patience, is_passing, retry_after_s

NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)
PATIENCE = Patience(within_s=60, attempt_s=30, pause_s=0.5, pause_s_max=8)


class Time:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_pauses_are_a_share_of_a_limit_that_doubles_up_to_the_longest() -> None:
    attempts, limits = Attempts(PATIENCE, Time(), lambda: 1.0), []
    for _ in range(7):
        attempts.begin()
        limits.append(attempts.pause_s(None))
    assert limits == [0.5, 1, 2, 4, 8, 8, 8]
    attempts = Attempts(PATIENCE, Time(), lambda: 0.25)
    attempts.begin()
    assert attempts.pause_s(None) == 0.125


def test_a_pause_is_never_shorter_than_the_server_asked_for(rng: random.Random) -> None:
    attempts = Attempts(PATIENCE, Time(), rng.random)
    for _ in range(50):
        attempts.begin()
        pause = attempts.pause_s(3.0)
        assert pause is not None
        assert 3 <= pause <= 11


def test_nothing_begins_after_the_deadline() -> None:
    time = Time()
    attempts = Attempts(PATIENCE, time, lambda: 1.0)
    assert attempts.begin() == 30
    time.now += 50
    assert attempts.begin() == 10
    assert attempts.pause_s(None) == 1
    assert attempts.pause_s(10) is None
    time.now += 20
    assert attempts.pause_s(None) is None
    assert attempts.made == 2


def test_only_too_many_and_faults_pass_by_themselves() -> None:
    assert [status for status in range(200, 600) if is_passing(status)] == [429, *range(500, 600)]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0),
        (" 7 ", 7),
        ("Sat, 31 Jan 2026 03:00:30 GMT", 30),
        ("Sat, 31 Jan 2026 02:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds
