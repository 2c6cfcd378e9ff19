"""What an answer may hold and a reader may learn: pages cut by bytes, cursors that name nothing hidden, reads that end."""

import asyncio
from typing import Any

import pytest
from pydantic import TypeAdapter

from pipeline.api.answers import ANSWER_BYTES_MAX
from pipeline.api.cursors import position_of
from pipeline.api.requests import EVENT
from pipeline.domain.authority import sender_from_id
from pipeline.domain.errors import Unavailable
from pipeline.domain.ids import incident_id
from pipeline.runtime.loop import Environment
from pipeline.services import reading
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import candidate_body
from tests.support.http import NARROW, SEED, HttpWorld
from tests.support.registry import OPERATOR

NOTE = '"' * 4096


async def test_a_page_of_large_events_is_cut_and_the_cursor_leads_on() -> None:
    world = HttpWorld()
    identity = await world.opened()
    evidence = [{"kind": "log", "ref": "x", "note": NOTE[:512]} for _ in range(45)]
    for number in range(60):
        await world.call("POST", f"/incidents/{identity}/evidence", {"evidence": evidence}, idempotency_key=f"k-{number}")
    found: list[int] = []
    pages, target = 0, f"/incidents/{identity}/events?limit=100"
    while target:
        heard = await world.call("GET", target)
        assert len(heard.text) < ANSWER_BYTES_MAX + 64 * 1024
        found += [event["sequence"] for event in heard.body["events"]]
        cursor = heard.body.get("nextCursor")
        target = f"/incidents/{identity}/events?limit=100&cursor={cursor}" if cursor else ""
        pages += 1
    assert found == list(range(1, 63))
    assert pages > 1


async def test_a_page_of_large_incidents_is_cut_and_the_cursor_leads_on() -> None:
    world = HttpWorld()
    links = [{"rel": "dashboard", "href": "https://example.com/" + "é" * 1000} for _ in range(20)]
    for number in range(40):
        await world.offer(candidate_body(dedupKey=f"k{number}", description=NOTE, links=links))
    found: list[str] = []
    pages, target = 0, "/incidents?limit=100"
    while target:
        heard = await world.call("GET", target)
        found += [row["incidentId"] for row in heard.body["incidents"]]
        cursor = heard.body.get("nextCursor")
        target = f"/incidents?limit=100&cursor={cursor}" if cursor else ""
        pages += 1
    assert sorted(found) == sorted(world.store.incidents)
    assert len(found) == len(set(found))
    assert pages > 1


async def test_a_reader_of_some_services_learns_nothing_of_the_others() -> None:
    world = HttpWorld()
    for number in range(6):
        await world.offer(candidate_body(service="secret-project", dedupKey=f"k{number}"))
    hidden = incident_id("secret-project", "k0", 1)
    refused = await world.call("GET", f"/incidents/{hidden}", sender=NARROW)
    assert refused.status == 403
    assert "secret-project" not in refused.text
    told = await world.call("GET", "/incidents?limit=1", sender=NARROW)
    assert told.body["incidents"] == []
    (_, named) = position_of(told.body["nextCursor"], {}, TypeAdapter(tuple[str, str]))
    assert named not in world.store.incidents
    assert named.endswith("-0000-0000-0000-000000000000")


async def test_a_cursor_behind_hidden_rows_still_reaches_every_readable_one() -> None:
    world = HttpWorld()
    for number in range(12):
        service = "payments" if number % 5 == 0 else "secret-project"
        await world.offer(candidate_body(service=service, dedupKey=f"k{number}"))
    wanted = [identity for identity, row in world.store.incidents.items() if row["service"] == "payments"]
    found: list[str] = []
    target = "/incidents?limit=1"
    while target:
        heard = await world.call("GET", target, sender=NARROW)
        found += [row["incidentId"] for row in heard.body["incidents"]]
        cursor = heard.body.get("nextCursor")
        target = f"/incidents?limit=1&cursor={cursor}" if cursor else ""
    assert sorted(found) == sorted(wanted)


class Slow(MemoryStore):
    """A store that never answers a read."""

    async def load(self, incident_id: str) -> Any:
        await asyncio.sleep(3600)


async def test_a_read_that_takes_too_long_is_503_while_somebody_still_listens() -> None:
    world = HttpWorld(store=Slow())
    heard = await world.call("GET", f"/incidents/{incident_id('a', 'b', 1)}", deadline=world.clock.monotonic() + 0.05)
    assert (heard.status, heard.code) == (503, "unavailable")


class HalfDown(MemoryStore):
    """A store of which one receipt can't be read, at once, and the others take a while."""

    asked = 0

    async def load_receipt(self, receipt_id: str) -> Any:
        self.asked += 1
        if self.asked == 1:
            raise Unavailable("GetItem: no answer")
        await asyncio.sleep(0.01)
        return await super().load_receipt(receipt_id)


def test_a_read_that_fails_leaves_nothing_running_behind() -> None:
    environment = Environment()
    world = HttpWorld(store=HalfDown())

    async def left() -> int:
        heard = await world.call("GET", "/receipts/k-1")
        assert heard.status == 503
        return len(asyncio.all_tasks()) - 1

    assert environment.run(left()) == 0
    environment.close()


async def test_the_past_of_a_long_history_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FOLDED_MAX", 4)
    world = HttpWorld()
    identity = await world.opened()
    for number in range(5):
        await world.call("POST", f"/incidents/{identity}/notes", {"note": f"{number}"})
    assert (await world.call("GET", f"/incidents/{identity}?version=4")).body["version"] == 4
    refused = await world.call("GET", f"/incidents/{identity}?version=5")
    assert (refused.status, refused.body["field"]) == (400, "version")
    assert "page by page" in refused.body["detail"]
    newest = world.store.feed[-1]["timestamp"]
    assert (await world.call("GET", f"/incidents/{identity}?at={newest}")).body["field"] == "at"


async def test_federated_users_of_one_account_are_strangers_to_each_other() -> None:
    alice, bob = sender_from_id("123456789012:alice"), sender_from_id("123456789012:bob")
    assert alice.principal != bob.principal
    assert (alice.signed_id, alice.session) == ("123456789012:alice", "alice")
    assert sender_from_id("123456789012").principal == "123456789012"
    assert sender_from_id("AROAX:alice").principal == sender_from_id("AROAX:bob").principal


async def test_the_newest_event_is_an_events_cursor() -> None:
    world = HttpWorld()
    declared = await world.call("POST", "/incidents", SEED, OPERATOR, idempotency_key="k-1")
    identity = declared.body["incidentId"]
    heard = await world.call("GET", f"/incidents/{identity}/events?limit=1")
    assert position_of(heard.body["nextCursor"], {"incidentId": identity}, EVENT) == (1,)
