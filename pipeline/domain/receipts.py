"""The receipt of a command: permanent, atomic with its effect, and the answer every later copy of the command gets.

The storage name is IdempotencyRecord; there is no IN_PROGRESS state and no expiry. Receipts are scoped to the signed
principal, and keys that opx derived are kept apart from keys a caller chose.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, TypeAdapter

from pipeline.domain.base import Digest, Line, Model, Sequence, Time, Uuid
from pipeline.domain.candidates import Key
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.ids import receipt_id
from pipeline.domain.incidents import Incident, LaxState


class Answer(StrEnum):
    """What became of the command."""

    CREATED = "created"
    JOINED = "joined"
    APPLIED = "applied"
    COUNTED = "counted"
    NOTHING_OPEN = "nothing-open"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


class Result(Model):
    """The first answer, in full: the events it caused (first to last sequence) and where they led, or the refusal."""

    answer: Annotated[Answer, Field(strict=False)]
    first_sequence: Sequence | None = None
    last_sequence: Sequence | None = None
    state: LaxState | None = None
    control_version: Sequence | None = None
    code: Annotated[Code, Field(strict=False)] | None = None
    detail: str | None = None
    field: str | None = None
    allowed: tuple[LaxState, ...] | None = None


class IdempotencyRecord(Model):
    idempotency_key: Line
    key_kind: Line
    principal: Line
    operation: Line
    request_digest: Digest
    incident_id: Uuid | None = None
    result: Result
    created_at: Time

    @property
    def id(self) -> str:
        """The digest under which the receipt is stored."""
        return receipt_id(self.principal, self.key_kind, self.idempotency_key)

    def refusal(self) -> Refusal | None:
        """Return the refusal this receipt remembers, or None where the command took effect."""
        if self.result.code is None:
            return None
        return Refusal(
            self.result.code,
            self.result.detail or "",
            self.result.field,
            self.incident_id,
            self.result.state,
            tuple(self.result.allowed or ()),
        )


RECEIPT: TypeAdapter[IdempotencyRecord] = TypeAdapter(IdempotencyRecord)


class Request(Model):
    """What a receipt is written for: who asked for what, under which key."""

    principal: Line
    key_kind: Line
    key: Line
    operation: Line
    request_digest: Digest

    @classmethod
    def of(cls, principal: str, key: Key, operation: str, request_digest: str) -> Self:
        return cls(principal=principal, key_kind=key.kind, key=key.value, operation=operation, request_digest=request_digest)

    @property
    def receipt_id(self) -> str:
        return receipt_id(self.principal, self.key_kind, self.key)

    @property
    def keyed_by_caller(self) -> bool:
        return self.key_kind == "caller"

    def receipt(self, result: Result, incident_id: str | None, now: datetime) -> IdempotencyRecord:
        return IdempotencyRecord(
            idempotency_key=self.key,
            key_kind=self.key_kind,
            principal=self.principal,
            operation=self.operation,
            request_digest=self.request_digest,
            incident_id=incident_id,
            result=result,
            created_at=now,
        )


def result_of_change(answer: Answer, before: int, after: Incident) -> Result:
    """Return the result of events `before + 1` to `after.version`."""
    return Result(
        answer=answer,
        first_sequence=before + 1,
        last_sequence=after.version,
        state=after.state,
        control_version=after.control_version,
    )


def result_of_refusal(refusal: Refusal) -> Result:
    return Result(
        answer=Answer.REFUSED,
        code=refusal.code,
        detail=refusal.detail,
        field=refusal.field,
        state=refusal.state,  # type: ignore[arg-type] # a refusal holds the state's text; the field reads it
        allowed=refusal.allowed or None,  # type: ignore[arg-type]
    )
