"""Canonical JSON to the letter: one form for each value, and a refusal for everything that has none."""

import hashlib
import time
from decimal import Decimal
from typing import Any

import pytest

from pipeline.domain.canonical import INTEGER_MAX, canonical_bytes, digest, normalise, parse_document
from pipeline.domain.errors import Code, Rejected

NUMBERS = [
    ("0", "0"),
    ("-0", "0"),
    ("-0.0", "0"),
    ("0e400", "0"),
    ("1.0", "1"),
    ("1.50", "1.5"),
    ("1e2", "100"),
    ("1E+2", "100"),
    ("1e-2", "0.01"),
    ("12.5e1", "125"),
    ("-2.5e-3", "-0.0025"),
    ("1.0e15", "1000000000000000"),
    ("1e-7", "0.0000001"),
    ("0.1", "0.1"),
    ("0.30000000000000004", "0.30000000000000004"),
    ("0.12345678901234567890", "0.12345678901234568"),
    ("0.123456789012345665", "0.12345678901234566"),
    ("0.123456789012345675", "0.12345678901234568"),
    ("0.99999999999999999999", "1"),
    ("9007199254740991", "9007199254740991"),
    ("-9007199254740991", "-9007199254740991"),
    ("900719925474099.15", "900719925474099.15"),
    ("1e-100", "0." + "0" * 99 + "1"),
]

NOT_A_NUMBER = [
    "1e400",
    "-1e400",
    "1e99999999999999999999",
    "0e99999999999999999999",
    "1e-101",
    "1e-99999999999999999999",
    "9007199254740992",
    "-9007199254740992",
    "9007199254740991.4",
    "9007199254740992.0",
    "90071992547409915e-1",
    "1e17",
    "9" * 24,
    "9" * 25,
    "9" * 5000,
    "-" + "9" * 100_000,
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    "+1",
    ".5",
    "1.",
    "0x10",
    "1_000",
]


def form(text: str) -> str:
    """Return the canonical form of a JSON value."""
    return canonical_bytes(parse_document(f'{{"a":{text}}}'))[5:-1].decode()


def refusal(body: str | bytes) -> Any:
    with pytest.raises(Rejected) as caught:
        parse_document(body)
    assert caught.value.refusal.status == 400
    return caught.value.refusal


@pytest.mark.parametrize(("written", "canonical"), NUMBERS)
def test_a_number_has_one_form(written: str, canonical: str) -> None:
    assert form(written) == canonical
    assert form(canonical) == canonical


@pytest.mark.parametrize("written", NOT_A_NUMBER, ids=lambda text: f"{text[:24]}..{len(text)}")
def test_a_number_that_would_not_survive_storage_is_refused(written: str) -> None:
    assert refusal(f'{{"a":{written}}}').code in (Code.INVALID_FIELD, Code.MALFORMED_JSON)


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity")], ids=str
)
def test_a_value_that_is_no_number_has_no_canonical_form(number: Any) -> None:
    with pytest.raises(Rejected):
        normalise({"a": number})


@pytest.mark.parametrize("text", ["0.8", "0.25", "-0.0025", "0.12345678901234568", "900719925474099.15"])
def test_a_number_reads_back_from_dynamodb_in_whatever_notation(text: str) -> None:
    number = normalise(Decimal(text))
    exponent = format(Decimal(text), "E")
    for stored in (text, text + "000", exponent, "0" + text if not text.startswith("-") else text):
        assert canonical_bytes(normalise(Decimal(stored))) == canonical_bytes(number)


def test_a_float_takes_its_shortest_decimal() -> None:
    assert canonical_bytes(normalise([0.1, 1.0, 1e-7, 0.1 + 0.2])) == b"[0.1,1,0.0000001,0.30000000000000004]"


def test_true_is_not_one() -> None:
    assert canonical_bytes(normalise({"a": True, "b": 1, "c": False, "d": None})) == b'{"a":true,"b":1,"c":false,"d":null}'


def test_names_are_ordered_by_code_point_and_not_by_utf16_unit() -> None:
    # U+1F600 comes after U+FF5E by code point, but its first UTF-16 unit (D83D) comes before.
    document = parse_document('{"\uff5e":1,"\U0001f600":2,"b":3,"B":4,"é":5,"z":6,"a":7}')
    assert canonical_bytes(document).decode() == '{"B":4,"a":7,"b":3,"z":6,"é":5,"\uff5e":1,"\U0001f600":2}'


def test_text_is_utf8_with_only_the_escapes_json_requires() -> None:
    document = parse_document('{"a":"\\u00e9 \\/ \\" \\\\ \\n \\u001f \\u007f \\u2028 \\ud83d\\ude00"}')
    assert canonical_bytes(document) == '{"a":"é / \\" \\\\ \\n \\u001f \x7f \u2028 \U0001f600"}'.encode()


def test_text_is_not_normalised_to_another_unicode_form() -> None:
    assert digest(parse_document('{"a":"é"}')) != digest(parse_document('{"a":"e\u0301"}'))


def test_no_spaces_and_empty_containers() -> None:
    assert canonical_bytes(parse_document(' { "b" : [ ] , "a" : { } , "c": [1, [2]] } ')) == b'{"a":{},"b":[],"c":[1,[2]]}'


def test_absent_is_not_null() -> None:
    assert digest(parse_document('{"a":null}')) != digest(parse_document("{}"))


def test_a_digest_is_sha256_of_the_canonical_bytes() -> None:
    assert digest(parse_document('{"b":1.0,"a":"é"}')) == hashlib.sha256('{"a":"é","b":1}'.encode()).hexdigest()


def test_canonical_bytes_read_back_to_themselves() -> None:
    once = canonical_bytes(parse_document('{"z":[1.10,{"y":"\\u00e9","x":-0.0}],"a":null}'))
    assert canonical_bytes(parse_document(once)) == once
    assert canonical_bytes(normalise(normalise(parse_document(once)))) == once


def test_a_value_json_does_not_know_is_refused() -> None:
    for value in (b"bytes", {1, 2}, object(), {1: "a"}):
        with pytest.raises(Rejected):
            normalise({"a": value})


def test_writing_what_was_never_normalised_is_a_programming_error() -> None:
    with pytest.raises(TypeError):
        canonical_bytes({"a": 0.5})


NOT_JSON = {
    "nothing": "",
    "blanks": "  ",
    "words": "hello",
    "two values": "{} {}",
    "a rest": '{"a":1}x',
    "single quotes": "{'a':1}",
    "a comma too many": '{"a":1,}',
    "a raw control character": '{"a":"\x01"}',
    "a raw line end": '{"a":"\n"}',
    "half": '{"a":',
    "an array": "[]",
    "a string": '"a"',
    "null": "null",
    "two byte order marks": "\ufeff\ufeff{}",
    "a name twice": '{"a":1,"a":1}',
    "a name twice in two spellings": '{"a":1,"\\u0061":2}',
    "a name twice further down": '{"a":[{"b":1,"b":2}]}',
}


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_one_json_object_is_refused(body: str) -> None:
    assert refusal(body).code is Code.MALFORMED_JSON
    assert refusal(body.encode()).code is Code.MALFORMED_JSON


@pytest.mark.parametrize(
    "body",
    [b"\xff{}", "{}".encode("utf-16"), b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b'{"a":"\xe9"}'],
    ids=["ff", "utf-16", "surrogate", "overlong NUL", "latin-1"],
)
def test_bytes_that_are_not_utf8_are_refused(body: bytes) -> None:
    assert refusal(body).code is Code.MALFORMED_JSON


def test_one_byte_order_mark_is_no_part_of_the_text() -> None:
    assert parse_document(b'\xef\xbb\xbf{"a":1}') == parse_document('{"a":1}')


UNSTORABLE = {
    "NUL": ('{"a":{"b":"x\\u0000"}}', "a.b"),
    "a lone high surrogate": ('{"a":["\\ud800"]}', "a[0]"),
    "a lone low surrogate": ('{"a":"\\udc00x"}', "a"),
    "surrogates in the wrong order": ('{"a":"\\ude00\\ud83d"}', "a"),
    "a raw lone surrogate": ('{"a":"\ud800"}', "a"),
    "a surrogate in a name": ('{"a":{"\\ud800":1}}', "a"),
    "NUL in a name": ('{"a":{"\\u0000":1}}', "a"),
    "an empty name": ('{"a":{"":1}}', "a"),
}


@pytest.mark.parametrize(("body", "field"), UNSTORABLE.values(), ids=UNSTORABLE.keys())
def test_text_that_cannot_be_stored_is_refused_naming_the_field(body: str, field: str) -> None:
    found = refusal(body)
    assert (found.code, found.field) == (Code.INVALID_FIELD, field)


def nested(depth: int, opening: str, closing: str) -> str:
    return '{"a":' + opening * (depth - 1) + "1" + closing * (depth - 1) + "}"


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"b":', "}")], ids=["arrays", "objects"])
def test_sixteen_levels_are_the_limit(opening: str, closing: str) -> None:
    assert parse_document(nested(16, opening, closing))
    for depth in (17, 40, 900, 5000, 100_000):
        assert "deeper than 16" in refusal(nested(depth, opening, closing)).detail


def test_a_hundred_thousand_open_brackets_are_refused() -> None:
    assert refusal("[" * 100_000).code is Code.MALFORMED_JSON
    assert refusal('{"a":' * 50_000).code is Code.MALFORMED_JSON


def test_a_body_of_names_with_one_twice_is_refused_in_time_that_grows_with_its_length() -> None:
    names = ",".join(f'"{number:x}":1' for number in range(28_000))
    started = time.perf_counter()
    assert refusal(f'{{{names},"z":1,"z":1}}').code is Code.MALFORMED_JSON
    assert time.perf_counter() - started < 1.0


def test_a_refusal_names_a_field_without_repeating_the_body() -> None:
    assert len(refusal('{"' + "x" * 100_000 + '":1e400}').field) <= 256
    assert len(refusal('{"' + "x" * 100_000 + '":1,"' + "x" * 100_000 + '":1}').detail) <= 256


def test_the_largest_integer_is_where_every_json_reader_is_still_exact() -> None:
    assert float(INTEGER_MAX) == INTEGER_MAX
    assert float(INTEGER_MAX + 2) != INTEGER_MAX + 2
