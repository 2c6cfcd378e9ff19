"""The strict model, and the limits at their edges: the last value that fits and the first that doesn't."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.domain import base
from pipeline.domain.base import Model, Share, Time, read
from pipeline.domain.canonical import normalise
from pipeline.domain.errors import Code, Rejected

LIMITS: dict[str, tuple[Any, list[str], list[str]]] = {
    "service": (
        base.Service,
        ["a", "é" * 256, "a b", " a"],
        ["", "a" * 257, " ", "a\nb", "a\tb", "\x7f", "a\x85", "\u3000"],
    ),
    "title": (base.Title, ["a", "😀" * 512], ["", "a" * 513, "   ", "a\rb", "\x1b[31mred"]),
    "line": (base.Line, ["a" * 256], ["", "a" * 257, "a\n"]),
    "description": (base.Description, ["", " ", "a" * 4096, "a\tb\r\nc"], ["a" * 4097, "a\x08", "a\x0b", "\x1b[2J"]),
    "note": (base.Note, ["a", "a" * 4096, "a\nb"], ["", " \n ", "a" * 4097, "a\x07"]),
    "reason": (base.Reason, ["a", "a" * 2048, "a\nb"], ["", "\t", "a" * 2049, "a\x00"]),
    "dedupKey": (base.DedupKey, ["a", "a" * 512, "é" * 256, "😀" * 128], ["", "a" * 513, "é" * 257, "😀" * 129, " ", "a\n"]),
    "reference": (base.Reference, ["a" * 512], ["", "a" * 513, "é" * 257, "a\nb"]),
    "href": (
        base.Href,
        ["https://" + "a" * 2040, "http://x"],
        ["", "https://" + "a" * 2041, "https://a\nb", "javascript:alert(1)"],
    ),
    "slug": (base.Slug, ["a", "A1._-", "a" * 64], ["", "-a", ".a", "a" * 65, "a b", "é", "a\n", "a:b"]),
    "idempotencyKey": (
        base.IdempotencyKey,
        ["a", "A-Z.a_z:0-9", "k" * 128],
        ["", "k" * 129, "k" * 3072, "a b", "a\n", "é", "a/b"],
    ),
    "uuid": (
        base.Uuid,
        ["407e5554-6739-53e3-8ad8-d96d390bbc91"],
        [
            "",
            "407E5554-6739-53E3-8AD8-D96D390BBC91",
            "407e5554673953e38ad8d96d390bbc91",
            "407e5554-6739-53e3-8ad8-d96d390bbc91\n",
        ],
    ),
    "digest": (base.Digest, ["0" * 64], ["", "0" * 63, "0" * 65, "A" * 64, "0" * 64 + "\n"]),
}


def accepts(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize(("kind", "fit", "unfit"), LIMITS.values(), ids=LIMITS.keys())
def test_each_text_has_its_limit(kind: Any, fit: list[str], unfit: list[str]) -> None:
    assert [value[:20] for value in fit if not accepts(kind, value)] == []
    assert [value[:20] for value in unfit if accepts(kind, value)] == []
    assert not accepts(kind, 5)
    assert not accepts(kind, b"bytes")
    assert not accepts(kind, None)


def test_metadata_is_an_object_of_at_most_4_kb_as_canonical_json() -> None:
    fits = {"a": "x" * (4096 - len('{"a":""}'))}
    assert accepts(base.Data, fits)
    assert not accepts(base.Data, {"a": fits["a"] + "x"})
    assert accepts(base.Data, {"a": "é" * 2044})
    assert not accepts(base.Data, {"a": "é" * 2045})
    assert not accepts(base.Data, ["a"])


@pytest.mark.parametrize("value", [0, 1, Decimal("0.5"), Decimal(1)], ids=repr)
def test_a_share_runs_from_zero_to_one(value: Any) -> None:
    assert TypeAdapter(Share).validate_python(value) == value


@pytest.mark.parametrize("value", [-1, 2, Decimal("1.00001"), Decimal("-0.1"), True, "0.5", None, 0.5], ids=repr)
def test_a_share_is_nothing_else(value: Any) -> None:
    assert not accepts(Share, value)


@pytest.mark.parametrize("value", [1769828400, 0, Decimal("1.5"), True, None, "yesterday", "2026-01-31T03:00:00"], ids=repr)
def test_a_time_is_text_with_a_zone(value: Any) -> None:
    assert not accepts(Time, value)


class Inner(Model):
    long_name: str
    at: Time | None = None


class Outer(Model):
    inner: Inner
    share: Share = Decimal(1)
    note: str | None = None


OUTER = TypeAdapter(Outer)


def test_documents_are_camel_case_and_absent_stays_absent() -> None:
    outer = Outer(inner=Inner(long_name="x", at=datetime(2026, 1, 31, tzinfo=UTC)))
    document = outer.to_document()
    assert document == {"inner": {"longName": "x", "at": "2026-01-31T00:00:00.000000Z"}, "share": 1}
    assert read(OUTER, document) == outer


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Inner(long_name="x").long_name = "y"  # type: ignore[misc]


WRONG: dict[str, tuple[dict[str, Any], Code, str]] = {
    "a missing field": ({}, Code.INVALID_FIELD, "inner"),
    "a missing field below": ({"inner": {}}, Code.INVALID_FIELD, "inner.longName"),
    "an unknown field": ({"inner": {"longName": "x"}, "principal": "y"}, Code.UNKNOWN_FIELD, "principal"),
    "an unknown field below": ({"inner": {"longName": "x", "y": 1}}, Code.UNKNOWN_FIELD, "inner.y"),
    "python's spelling": ({"inner": {"long_name": "x", "longName": "x"}}, Code.UNKNOWN_FIELD, "inner.long_name"),
    "a number for text": ({"inner": {"longName": 5}}, Code.INVALID_FIELD, "inner.longName"),
    "null for text": ({"inner": {"longName": None}}, Code.INVALID_FIELD, "inner.longName"),
    "a number for a time": ({"inner": {"longName": "x", "at": 5}}, Code.INVALID_FIELD, "inner.at"),
    "text for an object": ({"inner": "x"}, Code.INVALID_FIELD, "inner"),
}


@pytest.mark.parametrize(("document", "code", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_refusal_names_the_first_wrong_field_as_the_sender_wrote_it(document: Any, code: Code, field: str) -> None:
    with pytest.raises(Rejected) as caught:
        read(OUTER, normalise(document))
    assert (caught.value.refusal.code, caught.value.refusal.field) == (code, field)


def test_a_refusal_does_not_repeat_a_long_name() -> None:
    with pytest.raises(Rejected) as caught:
        read(OUTER, normalise({"inner": {"longName": "x"}, "n" * 100_000: 1}))
    assert len(caught.value.refusal.sentence()) < 512
