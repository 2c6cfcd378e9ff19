"""Canonical JSON and times: the one form behind every id, digest and hash, and behind what is stored.

Must never depend on clock, locale, hash seed or library version: a byte that changes here makes every stored history
look tampered. Documents are dict / tuple / str / int / Decimal / bool / None and nothing else. Ids are next door, in `ids`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from json.encoder import encode_basestring
from typing import Any, Final, TypeVar

from pipeline.domain.errors import Code, Refusal, Rejected

Document = dict[str, Any]
N = TypeVar("N", int, Decimal)

INTEGER_MAX: Final = 2**53 - 1
DEPTH_MAX: Final = 16
DIGITS_MAX: Final = 17
# DynamoDB keeps numbers down to 1E-130; staying well inside leaves no room for rounding at the border.
EXPONENT_MIN: Final = -100
YEAR_MIN: Final = 2000
YEAR_MAX: Final = 2100

_ROUNDING: Final = Context(prec=DIGITS_MAX, rounding=ROUND_HALF_EVEN, Emin=-999_999, Emax=999_999)
_FORBIDDEN_IN_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
_STORED_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d\.\d{6}Z", re.ASCII)
_RFC3339: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _malformed(detail: str, code: Code = Code.MALFORMED_JSON, field: str | None = None) -> Rejected:
    return Rejected(Refusal(code, detail, field[:200] if field else None))


# --- reading ---------------------------------------------------------------------------------------------------------


def parse_document(body: str | bytes) -> Document:
    """Return the JSON object in `body` in canonical values, or raise `Rejected` saying what is wrong with it.

    Stricter than json.loads: duplicate names, NaN, Infinity, numbers out of range, NUL, lone surrogates, empty names and
    nesting deeper than 16 are refused, since each would be read differently by someone, or not be storable.
    """
    try:
        text = body.decode("utf-8") if isinstance(body, bytes) else body
        value = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=_object,
            parse_float=_fraction,
            parse_int=_integer,
            parse_constant=_constant,
        )
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise _malformed(f"The body is nested deeper than {DEPTH_MAX}.") from None
    except json.JSONDecodeError as error:
        raise _malformed(f"The body is not JSON ({error.msg}, character {error.pos}).") from None
    if not isinstance(value, dict):
        raise _malformed("The body is JSON, but not an object.")
    normalised: Document = normalise(value)
    return normalised


def _object(pairs: list[tuple[str, Any]]) -> Document:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _malformed(f"The name {ascii(twice)[:80]} stands twice in one object.")
    return found


def _integer(text: str) -> int:
    if len(text) > 24:
        raise _malformed(f"An integer has {len(text)} digits; |n| ≤ 2^53-1.", Code.INVALID_FIELD)
    return int(text)


def _fraction(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise _malformed("A number's exponent is out of range.", Code.INVALID_FIELD) from None


def _constant(text: str) -> None:
    raise _malformed(f"{text} is not a JSON number.")


def normalise(value: Any) -> Any:
    """Return `value` in canonical values, recursively; raise `Rejected` naming the field where it has no such form.

    Accepts what JSON readers and DynamoDB give (list or tuple, float or Decimal); idempotent.
    """
    return _normalise(value, (), 1)


# The path to a value is only a chain of tuples until it is needed: this runs over every attribute of every event.
_Path = tuple[Any, ...]


def _normalise(value: Any, path: _Path, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if value.isascii() and "\0" not in value else _text(value, path)
    if kind is dict:
        _check_depth(depth, path)
        return {
            (name if type(name) is str and name and name.isascii() and "\0" not in name else _name(name, path)): (
                _normalise(item, (path, name), depth + 1)
            )
            for name, item in value.items()
        }
    if kind is bool or value is None:
        return value
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int | float | Decimal):
        return _number(value, path)
    if isinstance(value, Mapping):
        return _normalise(dict(value), path, depth)
    if isinstance(value, list | tuple):
        _check_depth(depth, path)
        return tuple(_normalise(item, (path, index), depth + 1) for index, item in enumerate(value))
    raise _malformed(f"{kind.__name__} is not a JSON value.", Code.INVALID_FIELD, _spell(path))


def _spell(path: _Path) -> str:
    if not path:
        return ""
    before, last = path
    spelled = f"{_spell(before)}[{last}]" if isinstance(last, int) else f"{_spell(before)}.{last}".removeprefix(".")
    return spelled[:200]


def _check_depth(depth: int, path: _Path) -> None:
    if depth > DEPTH_MAX:
        raise _malformed(f"Nested deeper than {DEPTH_MAX}.", Code.INVALID_FIELD, _spell(path)[:120])


def _name(name: Any, path: _Path) -> str:
    if not isinstance(name, str) or not name:
        raise _malformed("An object has an empty name.", Code.INVALID_FIELD, _spell(path))
    return _text(name, path)


def _text(value: str, path: _Path) -> str:
    if _FORBIDDEN_IN_TEXT.search(value):
        raise _malformed("The text holds NUL or a lone surrogate.", Code.INVALID_FIELD, _spell(path))
    return str(value)


def _number(number: float | Decimal, path: _Path) -> int | Decimal:
    if isinstance(number, int):
        return _in_range(number, path)
    # A float's repr is the shortest text that reads back as the same float, on every platform.
    value = number if isinstance(number, Decimal) else Decimal(repr(number))
    if not value.is_finite():
        raise _malformed("NaN and Infinity are not JSON numbers.", Code.INVALID_FIELD, _spell(path))
    if value and value.adjusted() > DIGITS_MAX:
        raise _malformed("The number is too large; |n| ≤ 2^53-1.", Code.INVALID_FIELD, _spell(path))
    if value and value.adjusted() < EXPONENT_MIN:
        raise _malformed("The number is too close to zero to be stored.", Code.INVALID_FIELD, _spell(path))
    value = _ROUNDING.plus(value)
    if value == value.to_integral_value():
        return _in_range(int(value), path)
    return _in_range(value.normalize(_ROUNDING), path)


def _in_range(value: N, path: _Path) -> N:
    if abs(value) > INTEGER_MAX:
        raise _malformed("The number is too large; |n| ≤ 2^53-1.", Code.INVALID_FIELD, _spell(path))
    return value


# --- writing ---------------------------------------------------------------------------------------------------------


def canonical_bytes(value: Any) -> bytes:
    """Return the canonical bytes of a normalised value: UTF-8, names by code point, no spaces, numbers in plain notation."""
    parts: list[str] = []
    _write(value, parts)
    return "".join(parts).encode("utf-8")


def _write(value: Any, parts: list[str]) -> None:
    kind = type(value)
    if kind is str:
        parts.append(encode_basestring(value))
    elif kind is dict:
        separator = "{"
        for name in sorted(value):
            parts.append(f"{separator}{encode_basestring(name)}:")
            _write(value[name], parts)
            separator = ","
        parts.append("}" if value else "{}")
    elif kind is int:
        parts.append(int.__repr__(value))
    elif value is None:
        parts.append("null")
    elif kind is bool:
        parts.append("true" if value else "false")
    elif kind is Decimal:
        parts.append(format(value, "f"))
    elif kind is tuple or kind is list:
        separator = "["
        for item in value:
            parts.append(separator)
            _write(item, parts)
            separator = ","
        parts.append("]" if value else "[]")
    elif isinstance(value, str):
        parts.append(encode_basestring(str(value)))
    else:
        raise TypeError(f"{kind.__name__} has no canonical form")


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical bytes as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_bytes(value)).hexdigest()


# --- times -----------------------------------------------------------------------------------------------------------


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time with a zone, years 2000-2100 in UTC; finer than a microsecond is cut. Raises ValueError."""
    if _STORED_TIME.fullmatch(text) and YEAR_MIN <= int(text[:4]) <= YEAR_MAX:
        # The form opx itself stores, which replay reads by the million.
        return datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("not an RFC 3339 time with a zone, such as 2026-01-31T03:00:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    microsecond = int((found[7] or "0")[:6].ljust(6, "0"))
    local = datetime(year, month, day, hour, minute, second, microsecond, UTC)
    if found[8] in "Zz":
        return check_time(local)
    hours, minutes = int(found[8][1:3]), int(found[8][4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("the zone's offset is not a time of day")
    offset = timedelta(hours=hours, minutes=minutes)
    try:
        return check_time(local - offset if found[8][0] == "+" else local + offset)
    except OverflowError:
        raise ValueError("the year is not between 2000 and 2100") from None


def check_time(moment: datetime) -> datetime:
    """Return `moment` in UTC; raise ValueError where it is naive or outside the years 2000-2100."""
    if moment.tzinfo is None:
        raise ValueError("the time has no zone")
    try:
        moment = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("the year is not between 2000 and 2100") from None
    if not YEAR_MIN <= moment.year <= YEAR_MAX:
        raise ValueError("the year is not between 2000 and 2100")
    return moment


def format_time(moment: datetime) -> str:
    """Write a time the only way opx stores one: YYYY-MM-DDTHH:MM:SS.ffffffZ."""
    return check_time(moment).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
