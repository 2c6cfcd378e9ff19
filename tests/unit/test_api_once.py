"""What a retry may rely on: explicit nothings, headers that stand twice, answers that were lost, and many at once."""

from typing import Any

import pytest

from pipeline.domain.canonical import Document
from pipeline.domain.errors import Unavailable
from pipeline.runtime.records import http_request_of
from pipeline.stores.memory import MemoryStore
from tests.support.http import SEED, Heard, HttpWorld, heard, route_of
from tests.support.registry import OPERATOR


class AnswersLost(MemoryStore):
    """A store that commits, and whose answer then gets lost while `losing`."""

    losing = True

    async def commit(self, commit: Any) -> Any:
        result = await super().commit(commit)
        if self.losing:
            raise Unavailable("TransactWriteItems: no answer")
        return result


async def test_a_lost_answer_to_an_unprotected_write_says_that_a_retry_is_another_request() -> None:
    store = AnswersLost()
    store.losing = False
    world = HttpWorld(store=store)
    identity = await world.opened()
    store.losing = True
    lost = await world.call("POST", f"/incidents/{identity}/notes", {"note": "once"})
    assert (lost.status, lost.body["retrySafe"]) == (503, False)
    key = lost.body["idempotencyKey"]
    assert f"/receipts/{key}" in lost.body["next"]
    store.losing = False
    assert (await world.call("GET", f"/receipts/{key}")).body["outcome"] == "applied"


@pytest.mark.parametrize("headers", [{"idempotency_key": "k-1"}, {"if_match": "2"}], ids=["a key", "a version"])
async def test_a_lost_answer_to_a_protected_write_is_found_by_the_retry(headers: Any) -> None:
    store = AnswersLost()
    store.losing = False
    world = HttpWorld(store=store)
    identity = await world.opened()
    path, body = f"/incidents/{identity}/state", {"newState": "MITIGATING"}
    store.losing = True
    lost = await world.call("PATCH", path, body, **headers)
    assert lost.status == 503
    assert "retrySafe" not in lost.body
    store.losing = False
    again = await world.call("PATCH", path, body, **headers)
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert world.types(identity).count("MitigationStarted") == 1


async def test_a_key_that_is_said_to_be_none_is_no_key() -> None:
    world = HttpWorld()
    declared = await world.call("POST", "/incidents", SEED | {"idempotencyKey": None})
    assert (declared.status, declared.body["field"]) == (400, "idempotencyKey")
    assert world.store.incidents == {}


async def test_what_is_declared_has_no_version() -> None:
    world = HttpWorld()
    for tag in ('"1"', "*"):
        refused = await world.call("POST", "/incidents", SEED, idempotency_key="k-1", if_match=tag)
        assert (refused.status, refused.body["field"]) == (400, "If-Match")


async def sent(world: HttpWorld, headers: Document) -> Heard:
    route, _ = route_of("POST", "/incidents")
    event = {
        "multiValueHeaders": headers,
        "body": '{"service": "checkout", "severity": "SEV2", "title": "Carts are empty", "authority": "HUMAN"}',
        "requestContext": {
            "requestId": "r",
            "requestTimeEpoch": 1_770_000_000_000,
            "identity": {"caller": OPERATOR.signed_id},
        },
    }
    return heard(await world.door.answer(http_request_of(event, route), 1e9))


@pytest.mark.parametrize(
    "headers",
    [{"Idempotency-Key": ["k-1", "k-2"]}, {"Idempotency-Key": ["k-1"], "idempotency-key": ["k-2"]}],
    ids=["twice", "in two spellings"],
)
async def test_a_header_that_stands_twice_is_refused(headers: Document) -> None:
    world = HttpWorld()
    refused = await sent(world, headers)
    assert (refused.status, refused.body["field"]) == (400, "Idempotency-Key")
    assert (await sent(world, {"IDEMPOTENCY-KEY": ["k-1"]})).status == 201
