"""Answers as HTTP has them, and every refusal as a problem document (RFC 9457): what was wrong, and what to do next.

A problem names nothing that differs between a first answer and its replay: the request's id stands in a header.
"""

from dataclasses import dataclass, field
from typing import Final

from pipeline.domain.canonical import Document
from pipeline.domain.errors import HTTP_MEANINGS, MEANINGS, Code, HttpCode, Refusal

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
TYPE: Final = "urn:opx:problem:"
REPLAYED: Final = "Idempotent-Replayed"
RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """A status, a JSON body, and the headers beside its content type."""

    status: int
    body: Document
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def content_type(self) -> str:
        return PROBLEM if "code" in self.body and self.status >= 400 else JSON

    @property
    def code(self) -> str | None:
        """The problem's code; None for an answer that is none."""
        return str(self.body["code"]) if self.content_type == PROBLEM else None


class Problem(Exception):
    """What only the HTTP door refuses; carries its answer."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer.code)
        self.answer = answer


def problem_of(refusal: Refusal) -> HttpAnswer:
    """Return a refusal of the core as its problem."""
    document = _problem(refusal.code, refusal.status, refusal.detail, MEANINGS[refusal.code].advice)
    about = {"field": refusal.field, "incidentId": refusal.incident_id, "state": refusal.state}
    document |= {name: value for name, value in about.items() if value is not None}
    if refusal.state is not None:
        document["allowedTransitions"] = refusal.allowed
    return HttpAnswer(refusal.status, document)


def http_problem(code: HttpCode, detail: str, **more: object) -> HttpAnswer:
    """Return a problem of the door's own."""
    meaning = HTTP_MEANINGS[code]
    headers = {"Retry-After": str(RETRY_AFTER_S)} if code is HttpCode.UNAVAILABLE else {}
    return HttpAnswer(meaning.status, _problem(code, meaning.status, detail, meaning.advice) | more, headers)


def _problem(code: Code | HttpCode, status: int, detail: str, advice: str) -> Document:
    title = code.value.replace("-", " ").capitalize()
    return {
        "type": TYPE + code.value,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code.value,
        "next": advice,
    }
