"""What opx answers, as small typed values: the fields that programs act on, and beside them the whole document.

What a newer opx says in addition is ignored here, and found in `document`; words such as states are text, so that a new one
is no error. No I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from pipeline.domain.envelope import SCHEMA_VERSION
from pipeline.domain.errors import OpxError, Unavailable

T = TypeVar("T")


class Answer(BaseModel):
    """A part of a document that has a name here. `document` is all of it, as it came."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    document: dict[str, Any] = Field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any], **more: Any) -> Self:
        """Read a document; raises pydantic's `ValidationError` where it is not one of these."""
        return cls.model_validate({**document, **more, "document": dict(document)})


class AllowedTransition(BaseModel):
    """A state that may come next. `you_may` and `by` (the command that asks for it) are told of a read incident only."""

    model_config = Answer.model_config

    to: str
    authority: tuple[str, ...] = ()
    needs_reason: bool = False
    you_may: bool | None = None
    by: str | None = None


class Event(Answer):
    """One event of an incident's history. What `metadata` holds depends on `event_type`.

    `replayed`: published again on purpose, long after it happened. `schema_known` is False for an event of a newer opx.
    """

    incident_id: str
    sequence: int = Field(ge=1)
    event_id: str
    event_type: str
    timestamp: datetime
    actor: dict[str, Any]
    previous_state: str
    new_state: str
    metadata: dict[str, Any]
    schema_version: int = SCHEMA_VERSION
    replayed: bool = False

    @property
    def schema_known(self) -> bool:
        return self.schema_version <= SCHEMA_VERSION


class Outcome(Answer):
    """What became of a write. `answer`: created, joined, applied, or unchanged (it was so already).

    `replayed`: this is the answer of an earlier request with the same key. `dry_run`: nothing was changed; `events` are
    what it would have caused.
    """

    answer: str
    operation: str
    incident_id: str
    state: str | None = None
    control_version: int | None = None
    first_sequence: int | None = None
    last_sequence: int | None = None
    decided_at: datetime | None = None
    idempotency_key: str | None = None
    retry_safe: bool = True
    allowed_transitions: tuple[AllowedTransition, ...] = ()
    replayed: bool = False
    dry_run: bool = False
    events: tuple[dict[str, Any], ...] = Field((), repr=False)


class Incident(Answer):
    """One incident. `control_version` is what `if_match` takes. As of a past version it has no `allowed_transitions`."""

    incident_id: str
    state: str
    severity: str
    service: str
    title: str
    created_at: datetime
    updated_at: datetime
    version: int
    control_version: int
    description: str = ""
    allowed_transitions: tuple[AllowedTransition, ...] = ()

    @property
    def as_of_version(self) -> int | None:
        """The version that was asked for; None where this is the incident as it stands."""
        found: int | None = self.document.get("asOf", {}).get("version")
        return found


class Receipt(Answer):
    """What became of a command: `outcome` is applied or refused; `result` is the first answer to it."""

    outcome: str
    idempotency_key: str
    key_kind: str
    principal: str
    operation: str
    incident_id: str | None = None
    result: dict[str, Any]
    created_at: datetime
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a listing; only where `next_cursor` is None it is the last."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a request was refused, as the API says it (RFC 9457). `next`: what to do about it."""

    status: int
    code: str
    detail: str
    document: Mapping[str, Any]
    field: str | None = None
    incident_id: str | None = None
    state: str | None = None
    allowed_transitions: tuple[str, ...] = ()
    next: str = ""
    request_id: str | None = None

    def sentence(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{self.status} {self.code}: {where}{self.detail} {self.next}".rstrip()


class ApiRefused(OpxError):
    """The API said no: the same request would be refused again. `problem` says why and what to do."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.sentence())
        self.problem = problem


class ApiUnavailable(Unavailable):
    """No answer in time. A write may or may not have taken effect: `receipt(key)` tells, and sending it again with
    `idempotency_key=key` is harmless. Of a read, `key` is None.
    """

    def __init__(self, call: str, why: str, attempts: int, key: str | None) -> None:
        then = f" Whether it took effect is told by receipt({key!r}); the same key makes another try safe." if key else ""
        super().__init__(f"{call}: no answer in {attempts} attempts ({why}).{then}")
        self.why = why
        self.attempts = attempts
        self.key = key


CODE_OF_STATUS: Final = "http-{}"


def problem_of(status: int, document: Mapping[str, Any], *, text: str, request_id: str | None, hint: str = "") -> Problem:
    """Return the problem in an answer; one that is no problem document (a proxy's, say) is told by its status and text."""
    said = document.get("detail", document.get("message", document.get("Message", text[:200])))
    advice = " ".join(part for part in (hint, _text(document, "next")) if part)
    return Problem(
        status=status,
        code=_text(document, "code") or CODE_OF_STATUS.format(status),
        detail=str(said),
        field=_text(document, "field"),
        incident_id=_text(document, "incidentId"),
        state=_text(document, "state"),
        allowed_transitions=_names(document.get("allowedTransitions")),
        next=advice,
        request_id=request_id,
        document=dict(document),
    )


def _text(document: Mapping[str, Any], name: str) -> str | None:
    found = document.get(name)
    return found if isinstance(found, str) else None


def _names(value: Any) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list | tuple) else ()
