"""The strict, frozen model every schema derives from, and the limits and text types they share.

Must hold no rule about incidents. Input is validated from canonical values (see `canonical`), so numbers keep all their
digits; names on the wire are camelCase and nothing else is accepted there.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from pipeline.domain.canonical import DEPTH_MAX, Document, canonical_bytes, check_time, format_time, normalise, parse_time
from pipeline.domain.errors import Code, Refusal, Rejected

INTAKE_BYTES_MAX: Final = 256 * 1024
EVENT_BYTES_MAX: Final = 64 * 1024
METADATA_BYTES_MAX: Final = 4 * 1024
# A document may be 16 deep; an event stores a caller's data up to three levels down (metadata.report.tags).
METADATA_DEPTH_MAX: Final = DEPTH_MAX - 4
EVIDENCE_MAX: Final = 100
LINKS_MAX: Final = 20

# SQS takes neither U+FFFE nor U+FFFF: an event that holds one would never reach a subscriber's queue.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_CONTROL_BUT_LAYOUT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffe\uffff]")
_UNDELIVERABLE: Final = re.compile("[\ufffe\uffff]")
_CONTROL_RUN: Final = re.compile(f"{_CONTROL.pattern}+")

M = TypeVar("M")


class Model(BaseModel):
    """Frozen, strict, unknown fields refused; python names in code, camelCase in documents."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    def to_document(self) -> Document:
        """Return the model as a canonical document; an absent optional stays absent (absent is not null)."""
        document: Document = normalise(self.model_dump(exclude_none=True))
        return document


class Native(Model):
    """A part of somebody else's event: what we don't need of it is not looked at."""

    model_config = ConfigDict(extra="ignore")


def covers(pattern: str, text: str) -> bool:
    """True where `pattern` stands for `text`; `*` is any text, every other character itself.

    Looks for the pieces between the stars from left to right, each where it first stands: no text can make it go back.
    """
    first, *pieces = pattern.split("*")
    if not pieces:
        return pattern == text
    *between, last = pieces
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in between:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def read(adapter: TypeAdapter[M], document: Any) -> M:
    """Validate a canonical document (or a part of one); raise `Rejected` naming the first wrong field."""
    try:
        return adapter.validate_python(document, by_alias=True, by_name=False)
    except ValidationError as error:
        # A tagged union puts its tag first in the path; a sender's path starts below it.
        above = 1 if adapter.core_schema["type"] == "tagged-union" else 0
        raise Rejected(_refusal(error.errors(include_url=False, include_context=False)[0], above)) from None


def _refusal(error: ErrorDetails, above: int) -> Refusal:
    path = ".".join(str(part) for part in error["loc"][above:])[:200]
    match error["type"]:
        case "extra_forbidden":
            return Refusal(Code.UNKNOWN_FIELD, "This field is not known.", path)
        case "union_tag_invalid" | "union_tag_not_found":
            return Refusal(Code.UNKNOWN_TYPE, "The `type` is missing or not known.", "type")
        case "missing":
            return Refusal(Code.INVALID_FIELD, "This field is required.", path)
        case "too_long" | "string_too_long":
            return Refusal(Code.TOO_LARGE, f"{error['msg']}.", path)
        case "value_error":
            return Refusal(Code.INVALID_FIELD, f"{error['msg'].removeprefix('Value error, ')}.", path)
        case "literal_error" if path.endswith("schemaVersion"):
            return Refusal(Code.UNSUPPORTED_SCHEMA_VERSION, "This schema version is not known here.", path)
        case _:
            return Refusal(Code.INVALID_FIELD, f"{error['msg']}.", path)


# --- text ------------------------------------------------------------------------------------------------------------


def any_covers(patterns: Iterable[str], text: str) -> bool:
    """True where one of `patterns` stands for `text`."""
    return any(covers(pattern, text) for pattern in patterns)


def cleaned(text: str, length_max: int) -> str:
    """Return a native event's text as one line of ours: its sender can't be asked for another. May be empty."""
    return _CONTROL_RUN.sub(" ", text).strip()[:length_max]


def has_control(text: str) -> bool:
    """True where a text holds a character that no line of ours may hold."""
    return _CONTROL.search(text) is not None


def _one_line(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("control characters are not allowed")
    if not text.strip():
        raise ValueError("blank text is not allowed")
    return text


def _free_text(text: str) -> str:
    if _CONTROL_BUT_LAYOUT.search(text):
        raise ValueError("control characters other than tab and line ends are not allowed")
    return text


def _meaningful(text: str) -> str:
    if not text.strip():
        raise ValueError("blank text is not allowed")
    return _free_text(text)


def _at_most_bytes(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text.encode("utf-8", "surrogatepass")) > limit:
            raise ValueError(f"longer than {limit} bytes in UTF-8")
        return text

    return AfterValidator(check)


Service = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_one_line)]
Title = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_one_line)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_one_line)]
LINE: Final = TypeAdapter(Line)
Description = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_free_text)]
Note = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_meaningful)]
Reason = Annotated[str, StringConstraints(min_length=1, max_length=2048), AfterValidator(_meaningful)]
DedupKey = Annotated[str, StringConstraints(min_length=1), AfterValidator(_one_line), _at_most_bytes(512)]
Reference = Annotated[str, StringConstraints(min_length=1), AfterValidator(_one_line), _at_most_bytes(512)]
Remark = Annotated[str, StringConstraints(max_length=512), AfterValidator(_free_text)]
# Tools turn links into something to click: only what a browser may safely follow.
Href = Annotated[str, StringConstraints(pattern=r"^https?://", max_length=2048), AfterValidator(_one_line)]
Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
IdempotencyKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Uuid = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


# --- times, numbers, data --------------------------------------------------------------------------------------------


def _time(value: Any) -> datetime:
    if isinstance(value, datetime):
        return check_time(value)
    if not isinstance(value, str):
        raise ValueError("a time is text, such as 2026-01-31T03:00:00Z")
    return parse_time(value)


def _share(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("a number from 0 to 1 is needed")
    if not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1 is needed")
    return Decimal(value)


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max((_depth(item) for item in value.values()), default=0)
    if isinstance(value, tuple | list):
        return 1 + max((_depth(item) for item in value), default=0)
    return 0


def _data(value: Any) -> Document:
    if not isinstance(value, dict):
        raise ValueError("an object is needed")
    if _depth(value) > METADATA_DEPTH_MAX:
        raise ValueError(f"nested deeper than {METADATA_DEPTH_MAX}")
    written = canonical_bytes(value)
    if _UNDELIVERABLE.search(written.decode()):
        raise ValueError("U+FFFE and U+FFFF are not allowed")
    if len(written) > METADATA_BYTES_MAX:
        raise ValueError(f"longer than {METADATA_BYTES_MAX} bytes as canonical JSON")
    return value


Time = Annotated[datetime, BeforeValidator(_time), PlainSerializer(format_time)]
Share = Annotated[Decimal, BeforeValidator(_share)]
Data = Annotated[dict[str, Any], BeforeValidator(_data)]
SchemaVersion = Annotated[Literal[1], BeforeValidator(_not_bool)]
Count = Annotated[int, Field(ge=0)]
Sequence = Annotated[int, Field(ge=1)]
