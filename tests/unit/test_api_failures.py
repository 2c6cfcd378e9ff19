"""What the HTTP door answers where something is broken: an answer always, and never what was in it."""

import base64
from dataclasses import replace
from typing import Any

import pytest

from pipeline.domain.authority import Sender
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.runtime.records import http_request_of
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import text_of
from tests.support.http import SEED, HttpWorld, heard, route_of
from tests.support.registry import OPERATOR


class Failing(MemoryStore):
    """A store whose commits fail as told."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def commit(self, commit: Any) -> Any:
        raise self.error


async def test_a_dependency_that_is_down_is_503_with_a_time_to_wait() -> None:
    world = HttpWorld(store=Failing(Unavailable("DynamoDB: time-out, table opx-secret")))
    heard = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert (heard.status, heard.code, heard.headers["Retry-After"]) == (503, "unavailable", "1")
    assert "opx-secret" not in heard.text


async def test_time_that_ran_out_is_503_and_nothing_is_begun() -> None:
    world = HttpWorld()
    heard = await world.call("POST", "/incidents", SEED, idempotency_key="k-1", deadline=-1.0)
    assert (heard.status, heard.code) == (503, "unavailable")
    assert world.store.feed == []


@pytest.mark.parametrize(("error", "code"), [("corrupt", "corrupt"), ("defect", "internal")])
async def test_what_is_broken_is_500_and_tells_nothing_of_what_was_in_it(error: str, code: str) -> None:
    failure: Exception = Corrupt("event 3 is not there: secret") if error == "corrupt" else KeyError("secret")
    world = HttpWorld(store=Failing(failure))
    heard = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert (heard.status, heard.code) == (500, code)
    assert "secret" not in heard.text
    assert world.reports[-1].error is failure


async def test_an_unsigned_request_names_nobody() -> None:
    world = HttpWorld()
    for caller in ("", "x" * 300, "a\x00b"):
        heard = await world.call("POST", "/incidents", SEED, Sender(caller), idempotency_key="k-1")
        assert (heard.status, heard.code) == (403, "principal-unknown")


async def test_a_body_in_base64_is_read_as_its_bytes() -> None:
    world = HttpWorld()
    route, _ = route_of("POST", "/incidents")
    event = {
        "multiValueHeaders": {"Idempotency-Key": ["k-1"]},
        "body": base64.b64encode(text_of(SEED).encode()).decode(),
        "isBase64Encoded": True,
        "requestContext": {
            "requestId": "r",
            "requestTimeEpoch": 1_770_000_000_000,
            "identity": {"caller": OPERATOR.signed_id},
        },
    }
    request = http_request_of(event, route)
    assert heard(await world.door.answer(request, 1e9)).status == 201
    broken = await world.door.answer(replace(request, body="/w=="), 1e9)
    assert (broken.status, broken.code) == (400, "malformed-json")
