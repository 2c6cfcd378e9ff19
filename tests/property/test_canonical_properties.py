"""Canonical form, on values nobody thought of: one form for each value, whoever wrote or stored it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.domain.canonical import (
    INTEGER_MAX,
    canonical_bytes,
    digest,
    format_time,
    normalise,
    parse_document,
    parse_time,
)
from pipeline.domain.errors import Rejected

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
integers = st.integers(-INTEGER_MAX, INTEGER_MAX)
fractions = st.decimals(-(10**12), 10**12, places=6).map(lambda number: number / 1000)
floats = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda number: number == 0 or abs(number) > 1e-90)
scalars = st.none() | st.booleans() | integers | fractions | floats | texts
names = texts.filter(bool)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4), max_leaves=20
)
documents = st.dictionaries(names, values, max_size=5)


def shuffled(value: Any) -> Any:
    """Return the same value with every object's names in reverse order."""
    if isinstance(value, dict):
        return {name: shuffled(item) for name, item in reversed(value.items())}
    if isinstance(value, list | tuple):
        return [shuffled(item) for item in value]
    return value


@given(documents)
def test_normalising_is_idempotent_and_reading_undoes_writing(document: dict[str, Any]) -> None:
    once = normalise(document)
    assert normalise(once) == once
    written = canonical_bytes(once)
    assert parse_document(written) == once
    assert canonical_bytes(parse_document(written)) == written


@given(documents)
def test_the_order_in_which_names_were_written_does_not_matter(document: dict[str, Any]) -> None:
    assert digest(normalise(document)) == digest(normalise(shuffled(document)))


@given(documents)
def test_canonical_bytes_are_json_as_any_reader_reads_it(document: dict[str, Any]) -> None:
    written = canonical_bytes(normalise(document)).decode()
    read = json.loads(written, parse_float=Decimal)
    assert canonical_bytes(normalise(read)).decode() == written
    assert "\n" not in written


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_a_number_is_refused_or_comes_back_from_any_notation(number: Decimal) -> None:
    try:
        kept = normalise(number)
    except Rejected:
        assert abs(number) > INTEGER_MAX or 0 < abs(number) < Decimal("1e-99")
        return
    form = canonical_bytes(kept)
    for stored in (format(Decimal(kept), "f"), format(Decimal(kept), "E"), str(Decimal(kept))):
        assert canonical_bytes(normalise(Decimal(stored))) == form
    assert len(Decimal(kept).as_tuple().digits) <= 17
    assert abs(Decimal(kept) - number) <= abs(number) * Decimal("1e-16")


def read_or_status(body: str | bytes) -> dict[str, Any] | int:
    """Return the document in a body, or the status of its refusal; let anything else through."""
    try:
        return parse_document(body)
    except Rejected as rejected:
        return rejected.refusal.status


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for body in (text, text.encode("utf-8", "surrogatepass"), f'{{"a":{text}}}', json.dumps({"a": text})):
        found = read_or_status(body)
        assert found == 400 or parse_document(canonical_bytes(found)) == found


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(body: bytes) -> None:
    assert read_or_status(body) == 400 or body.strip()[:1] in (b"{", b"\xef")


offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(2000, 1, 2), datetime(2100, 12, 30)), offsets)  # noqa: DTZ001
def test_a_time_is_stored_the_same_from_whatever_zone(local: datetime, zone: timezone) -> None:
    moment = local.replace(tzinfo=UTC)
    stored = format_time(moment)
    assert parse_time(stored) == moment
    assert format_time(moment.astimezone(zone)) == stored
    assert format_time(parse_time(moment.astimezone(zone).isoformat())) == stored
