"""An attempt keeps to its time: against a server that answers byte by byte, and credentials that take too long to find."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest
from botocore.credentials import Credentials
from botocore.session import Session

from pipeline.clients.answers import ApiUnavailable
from pipeline.clients.operator import AsyncOperator, Operator, Patience

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"
WHOLE = HEAD + b" " * 58 + b"{}"
SHORT = Patience(within_s=0.4, attempt_s=0.4)
INCIDENT = "8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f"


class Dripping:
    """A server that sends the first `at_once` bytes of an answer, and then one every 30 ms, to whoever connects."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._end = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "Dripping":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        talking: list[threading.Thread] = []
        while not self._end.is_set():
            try:
                connection, _ = self._listening.accept()
            except TimeoutError:
                continue
            talking.append(threading.Thread(target=self._talk, args=(connection,)))
            talking[-1].start()
        for thread in talking:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            connection.recv(65536)
            try:
                connection.sendall(WHOLE[: self._at_once])
                for place in range(self._at_once, len(WHOLE)):
                    if self._end.wait(0.03):
                        return
                    connection.sendall(WHOLE[place : place + 1])
            except OSError:
                return


def timed(call: Callable[[], object]) -> float:
    """Return how long a call takes that ends without an answer."""
    began = time.monotonic()
    with pytest.raises(ApiUnavailable, match=r"TimeoutError: no whole answer in 0\.\d+ s"):
        call()
    return time.monotonic() - began


def settled() -> None:
    """Wait for attempts that were left behind to end."""
    for thread in threading.enumerate():
        if thread.name == "opx-attempt":
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("at_once", [10, len(HEAD) + 1], ids=["headers-drip", "body-drips"])
def test_an_answer_that_drips_ends_with_the_deadline(at_once: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(Dripping(at_once))
        operator = stack.enter_context(Operator(server.url, region="us-east-1", patience=SHORT))
        stack.callback(settled)
        assert timed(lambda: operator.incident(INCIDENT)) < 1.0


@pytest.mark.parametrize("at_once", [10, len(HEAD) + 1], ids=["headers-drip", "body-drips"])
def test_an_awaited_answer_that_drips_ends_with_the_deadline(at_once: int) -> None:
    async def ask() -> None:
        async with AsyncOperator(server.url, region="us-east-1", patience=SHORT) as operator:
            await operator.incident(INCIDENT)

    with Dripping(at_once) as server:
        assert timed(lambda: asyncio.run(ask())) < 1.0


def test_a_thread_left_behind_ends_with_the_next_part_of_the_answer() -> None:
    with Dripping(len(HEAD) + 1) as server, Operator(server.url, region="us-east-1", patience=SHORT) as operator:
        timed(lambda: operator.incident(INCIDENT))
        began = time.monotonic()
        settled()
        # All of the answer would take 1.8 s.
        assert time.monotonic() - began < 0.7


class SlowSession(Session):  # type: ignore[misc] # botocore is not typed
    """A session whose credentials are renewed at every use, and only when let."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = threading.Event()

    def get_credentials(self) -> "SlowSession":
        return self

    def get_frozen_credentials(self) -> Credentials:
        self.go_on.wait(10)
        return Credentials("AKIDEXAMPLE", "secret")


@pytest.fixture
def slow() -> Iterator[SlowSession]:
    session = SlowSession()
    yield session
    session.go_on.set()
    settled()


def test_a_write_given_up_before_it_was_signed_is_never_sent(slow: SlowSession) -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={})

    http = httpx.Client(transport=httpx.MockTransport(answer))
    operator = Operator("http://127.0.0.1/v1", region="us-east-1", patience=SHORT, session=slow, http=http)
    assert timed(lambda: operator.add_note(INCIDENT, "note")) < 1.0
    slow.go_on.set()
    settled()
    assert sent == []


def test_what_ends_an_attempt_in_its_thread_is_raised_where_it_was_asked_for() -> None:
    def broken(request: httpx.Request) -> httpx.Response:
        raise LookupError("a transport of one's own")

    operator = Operator("http://127.0.0.1/v1", region="us-east-1", http=httpx.Client(transport=httpx.MockTransport(broken)))
    with pytest.raises(LookupError, match="one's own"):
        operator.incident(INCIDENT)
