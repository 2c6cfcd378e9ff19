"""Times: RFC 3339 with a zone, years 2000-2100, one stored form."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.domain.canonical import check_time, format_time, parse_time

READ = [
    ("2026-01-31T03:00:00Z", "2026-01-31T03:00:00.000000Z"),
    ("2026-01-31t03:00:00z", "2026-01-31T03:00:00.000000Z"),
    ("2026-01-31 03:00:00Z", "2026-01-31T03:00:00.000000Z"),
    ("2026-01-31T03:00:00.5Z", "2026-01-31T03:00:00.500000Z"),
    ("2026-01-31T03:00:00.123456Z", "2026-01-31T03:00:00.123456Z"),
    ("2026-01-31T03:00:00.123456789Z", "2026-01-31T03:00:00.123456Z"),
    ("2026-01-31T03:00:00.999999999Z", "2026-01-31T03:00:00.999999Z"),
    ("2026-01-31T03:00:00-00:00", "2026-01-31T03:00:00.000000Z"),
    ("2026-01-31T03:00:00+05:30", "2026-01-30T21:30:00.000000Z"),
    ("2026-01-31T03:00:00-08:00", "2026-01-31T11:00:00.000000Z"),
    ("2026-01-31T03:00:00+23:59", "2026-01-30T03:01:00.000000Z"),
    ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00.000000Z"),
    ("1999-12-31T23:59:59-00:01", "2000-01-01T00:00:59.000000Z"),
    ("2100-12-31T23:59:59.999999Z", "2100-12-31T23:59:59.999999Z"),
    ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00.000000Z"),
]

REFUSED = {
    "no zone": "2026-01-31T03:00:00",
    "a date alone": "2026-01-31",
    "no seconds": "2026-01-31T03:00Z",
    "basic form": "20260131T030000Z",
    "an offset without colon": "2026-01-31T03:00:00+0000",
    "an offset of a day": "2026-01-31T03:00:00+24:00",
    "an offset with 60 minutes": "2026-01-31T03:00:00+01:60",
    "year 0000": "0000-01-01T00:00:00Z",
    "year 0001": "0001-01-01T00:00:00Z",
    "year 0001 minus a zone": "0001-01-01T00:00:00+23:59",
    "year 1999": "1999-12-31T23:59:59Z",
    "year 1999 once in UTC": "2000-01-01T00:00:00+00:01",
    "year 2101": "2101-01-01T00:00:00Z",
    "year 2101 once in UTC": "2100-12-31T23:59:59-00:01",
    "year 9999 plus a zone": "9999-12-31T23:59:59-23:59",
    "five digits": "12026-01-31T03:00:00Z",
    "a leap second": "2016-12-31T23:59:60Z",
    "24:00": "2026-01-31T24:00:00Z",
    "29 February 2026": "2026-02-29T03:00:00Z",
    "month 13": "2026-13-01T03:00:00Z",
    "ten decimals": "2026-01-31T03:00:00.1234567891Z",
    "a point without decimals": "2026-01-31T03:00:00.Z",
    "a decimal comma": "2026-01-31T03:00:00,5Z",
    "a line end": "2026-01-31T03:00:00Z\n",
    "a blank": " 2026-01-31T03:00:00Z",
    "other scripts' digits": "２０26-01-31T03:00:00Z",
    "seconds since 1970": "1769828400",
    "nothing": "",
}


@pytest.mark.parametrize(("written", "stored"), READ)
def test_a_time_is_stored_in_one_form(written: str, stored: str) -> None:
    assert format_time(parse_time(written)) == stored
    assert format_time(parse_time(stored)) == stored


@pytest.mark.parametrize("written", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_a_time_with_a_zone_between_2000_and_2100_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_time(written)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        check_time(datetime(2026, 1, 31))  # noqa: DTZ001


def test_stored_times_sort_as_text_in_the_order_of_time() -> None:
    moments = [datetime(2026, 1, 31, 3, tzinfo=UTC) + timedelta(microseconds=10**power) for power in range(12)]
    texts = [format_time(moment) for moment in moments]
    assert sorted(texts) == texts


def test_a_time_of_another_zone_is_stored_in_utc() -> None:
    there = datetime(2026, 1, 31, 8, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert format_time(there) == "2026-01-31T03:00:00.000000Z"
