"""What a request over HTTP asks of the store, counted: no route costs more than its command does on the queue."""

from typing import Any

import pytest

from pipeline.stores.memory import MemoryStore
from tests.support.http import SEED, HttpWorld
from tests.support.registry import STRANGER


class Counting(MemoryStore):
    """A memory store that notes which of its methods were called."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in ("commit", "load", "load_pointer", "load_window", "load_receipt", "history", "scan_events", "page"):
            self.calls.append(name)
        return super().__getattribute__(name)


async def test_a_first_declaration_is_one_transaction_and_so_is_its_replay() -> None:
    store = Counting()
    world = HttpWorld(store=store)
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert store.calls == ["commit"]
    # A process that has met the key reads before it tries.
    store.calls.clear()
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert store.calls == ["load", "commit"]
    # In another process, which has never met the key.
    another = HttpWorld(store=store)
    store.calls.clear()
    assert (await another.call("POST", "/incidents", SEED, idempotency_key="k-1")).status == 200
    assert store.calls == ["commit"]


CALLS: dict[str, tuple[str, str, Any, list[str]]] = {
    "a state change": ("PATCH", "/incidents/{}/state", {"newState": "MITIGATING"}, ["load", "commit"]),
    "evidence": ("POST", "/incidents/{}/evidence", {"evidence": [{"kind": "log", "ref": "l"}]}, ["load", "commit"]),
    "an incident": ("GET", "/incidents/{}", None, ["load"]),
    "its events": ("GET", "/incidents/{}/events?limit=5", None, ["load", "history"]),
    "its past": ("GET", "/incidents/{}?version=1", None, ["load", "history"]),
    "a listing": ("GET", "/incidents?state=OPEN", None, ["page"]),
}


@pytest.mark.parametrize("case", CALLS.values(), ids=CALLS.keys())
async def test_a_request_asks_the_store_for_no_more_than_it_needs(case: Any) -> None:
    method, path, body, calls = case
    store = Counting()
    world = HttpWorld(store=store)
    identity = await world.opened()
    store.calls.clear()
    assert (await world.call(method, path.format(identity), body)).status == 200
    assert store.calls == calls


async def test_who_may_not_costs_no_read() -> None:
    store = Counting()
    world = HttpWorld(store=store)
    identity = await world.opened()
    store.calls.clear()
    assert (await world.call("GET", f"/incidents/{identity}", sender=STRANGER)).status == 403
    assert store.calls == []
