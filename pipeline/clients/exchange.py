"""One exchange with the API, without sending anything: the HTTP request of a call, and what an answer or its lack means.

Shared by the sync and the async operator, so that both retry, refuse and give up alike.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx
from pydantic import ValidationError

from pipeline.clients.answers import CODE_OF_STATUS, ApiRefused, ApiUnavailable, problem_of
from pipeline.clients.calls import Call, Reply
from pipeline.clients.retries import Attempts, http_date, is_passing, retry_after_s

T = TypeVar("T")

# AWS refuses a signature whose time is further off than this.
SKEW_S_MAX: Final = 300
# No answer, or none that can be read: it may have taken effect. A request that can't even be made is not among them.
UNANSWERED: Final = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
    httpx.DecodingError,
    TimeoutError,
)
# What was refused before opx heard it, beside what has no code at all.
_UNHEARD: Final = frozenset({"not-signed", "forbidden"})


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt that may go otherwise later, and how long the server asks to wait."""

    why: str
    retry_after_s: float | None = None


def request_of(call: Call[T], base_url: str, client: httpx.Client | httpx.AsyncClient, timeout_s: float) -> httpx.Request:
    """Return one attempt of a call. Made anew for each, since each is signed anew."""
    headers = [("Accept", "application/json"), *call.headers]
    return client.build_request(
        call.method, f"{base_url.rstrip('/')}{call.target}", headers=headers, content=call.body, timeout=timeout_s
    )


class Keyed:
    """Around each attempt of a call: once a write was sent, no error ends it without its key, whatever the error is.

    Also raised as `ApiUnavailable`, with the error as its cause, is a refusal of what stands in front of opx: it says
    nothing of the attempt before. What stops the program (Ctrl-C, a cancelled task) stays what it is.
    """

    def __init__(self, call: Call[Any], attempts: Attempts) -> None:
        self._call = call
        self._attempts = attempts

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or self._call.key is None or self._attempts.made == 1 or _settles(error):
            return
        why = str(error) if isinstance(error, ApiRefused) else _told(error)
        raise given_up(self._call, why, self._attempts.made) from error


def _settles(error: Exception) -> bool:
    """True where an error says itself what became of the write, or how to ask."""
    if isinstance(error, ApiRefused):
        return error.problem.code not in _UNHEARD and error.problem.code != CODE_OF_STATUS.format(error.problem.status)
    return isinstance(error, ApiUnavailable)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def unanswered(error: Exception) -> Failed:
    return Failed(_told(error))


def judged(call: Call[T], response: httpx.Response, attempts: int) -> T | Failed:
    """Return what an answer says, or that it may be another one later. Raises `ApiRefused`.

    An answer of another form than documented raises `ApiUnavailable`: it took effect or not, but asking on is of no use.
    """
    if is_passing(response.status_code):
        why = f"{response.status_code} {_document(response).get('code', response.reason_phrase)}"
        return Failed(why, retry_after_s(response.headers.get("retry-after")))
    if not response.is_success:
        request_id = response.headers.get("opx-request-id")
        raise ApiRefused(
            problem_of(
                response.status_code,
                _document(response),
                text=response.text,
                request_id=request_id,
                hint=_hint(response, datetime.now(UTC)),
            )
        )
    document = _document(response)
    if not document:
        return Failed(f"{response.status_code} without a JSON object")
    try:
        return call.read(Reply(document, response.headers))
    except ValidationError as error:
        raise given_up(call, f"the answer has another form: {error.errors()[0]['loc']}", attempts) from None


def given_up(call: Call[T], why: str, attempts: int) -> ApiUnavailable:
    return ApiUnavailable(call.name, why, attempts, call.key)


def _document(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON object in an answer; an empty one where there is none."""
    try:
        found = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _hint(response: httpx.Response, now: datetime) -> str:
    """Return what an answer's form gives away beside its words: a clock that is wrong, an address that is."""
    if response.is_redirect:
        return f"The API never redirects: check the base URL ({response.headers.get('location', '')[:200]})."
    served = http_date(response.headers.get("date"))
    if response.status_code != httpx.codes.FORBIDDEN or served is None:
        return ""
    ahead = (now - served).total_seconds()
    if abs(ahead) <= SKEW_S_MAX:
        return ""
    side = "ahead of" if ahead > 0 else "behind"
    return (
        f"This machine's clock is {abs(ahead):.0f} s {side} the server's: a signature counts for five minutes. Set it right."
    )
