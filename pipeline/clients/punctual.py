"""One attempt of a request that keeps to its time, blocking or awaited, whatever it waits for.

httpx limits each read, so that an answer of one byte a second never ends; looking up a name and renewing credentials it
limits not at all. Both functions raise `TimeoutError` when the time is over; what was sent may have taken effect.
"""

import asyncio
import contextvars
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Final

import httpx

_OVER: Final = "no whole answer in {:.3g} s"


def answered(http: httpx.Client, request: httpx.Request, auth: httpx.Auth, within_s: float) -> httpx.Response:
    """Send a request in a thread of its own; return its whole answer.

    A thread that was left behind sends nothing any more, and ends with the next part of the answer; the program's end
    doesn't wait for it.
    """
    answer: Future[httpx.Response] = Future()
    left = threading.Event()

    def work() -> None:
        with _Told(answer):
            answer.set_result(_sent(http, request, auth, left))

    threading.Thread(target=contextvars.copy_context().run, args=(work,), name="opx-attempt", daemon=True).start()
    try:
        return answer.result(within_s)
    except TimeoutError:
        raise TimeoutError(_OVER.format(within_s)) from None
    finally:
        left.set()


async def awaited(http: httpx.AsyncClient, request: httpx.Request, auth: httpx.Auth, within_s: float) -> httpx.Response:
    """Send a request; return its whole answer."""
    try:
        async with asyncio.timeout(within_s):
            return await http.send(request, auth=auth, follow_redirects=False)
    except TimeoutError:
        raise TimeoutError(_OVER.format(within_s)) from None


def _sent(http: httpx.Client, request: httpx.Request, auth: httpx.Auth, left: threading.Event) -> httpx.Response:
    response = http.send(request, auth=_Unless(left, auth), stream=True, follow_redirects=False)
    response.stream = _Parts(response.stream, left)
    try:
        response.read()
    finally:
        response.close()
    return response


class _Told:
    """Hands whatever ends its block over to who waits for the future: it is raised there, not here."""

    def __init__(self, answer: "Future[httpx.Response]") -> None:
        self._answer = answer

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is not None:
            self._answer.set_exception(error)
        return True


class _Unless(httpx.Auth):
    """Signs, and lets nothing go out that nobody waits for any more: renewing credentials may have taken long."""

    def __init__(self, left: threading.Event, auth: httpx.Auth) -> None:
        self._left = left
        self._auth = auth

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        for signed in self._auth.sync_auth_flow(request):
            _go_on(self._left)
            yield signed


class _Parts(httpx.SyncByteStream):
    """An answer's parts as they come, as long as somebody waits for them."""

    def __init__(self, parts: httpx.SyncByteStream | httpx.AsyncByteStream, left: threading.Event) -> None:
        assert isinstance(parts, httpx.SyncByteStream)
        self._parts = parts
        self._left = left

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            _go_on(self._left)
            yield part

    def close(self) -> None:
        self._parts.close()


def _go_on(left: threading.Event) -> None:
    if left.is_set():
        raise TimeoutError("nobody waits for it any more")
