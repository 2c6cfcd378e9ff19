"""Dry runs over HTTP: what would happen is told, by the very code that would do it, and nothing is written."""

from datetime import timedelta

from pipeline.domain.canonical import parse_document
from tests.support.http import SEED, HttpWorld


async def test_a_dry_run_tells_the_events_and_writes_nothing() -> None:
    world = HttpWorld()
    tried = await world.call("POST", "/incidents?dryRun=true", SEED, idempotency_key="k-1")
    assert (tried.status, tried.body["dryRun"], tried.body["answer"]) == (200, True, "created")
    assert [event["eventType"] for event in tried.body["events"]] == ["IncidentCreated", "IncidentOpened"]
    assert (world.store.incidents, world.store.receipts, world.store.feed) == ({}, {}, [])
    real = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert real.status == 201
    assert world.store.feed == list(parse_document(tried.text)["events"])


async def test_a_dry_run_tells_a_refusal_and_remembers_none() -> None:
    world = HttpWorld()
    identity = await world.opened()
    path, body = f"/incidents/{identity}/state", {"newState": "RESOLVED", "reason": "done"}
    receipts = dict(world.store.receipts)
    heard = await world.call("PATCH", f"{path}?dryRun=true", body, idempotency_key="k-1")
    assert (heard.status, heard.code) == (409, "transition-illegal")
    assert world.store.receipts == receipts


async def test_a_dry_run_of_what_was_done_already_says_that_it_was() -> None:
    world = HttpWorld()
    first = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    heard = await world.call("POST", "/incidents?dryRun=true", SEED, idempotency_key="k-1")
    assert (heard.status, heard.headers["Idempotent-Replayed"]) == (200, "true")
    assert heard.body["incidentId"] == first.body["incidentId"]
    assert heard.body["dryRun"] is True


async def test_a_dry_run_joins_and_goes_on_as_the_real_thing_would() -> None:
    world = HttpWorld()
    body = SEED | {"dedupKey": "carts"}
    first = await world.call("POST", "/incidents", body, idempotency_key="k-1")
    joined = await world.call("POST", "/incidents?dryRun=true", body, idempotency_key="k-2")
    assert (joined.body["answer"], joined.body["incidentId"]) == ("joined", first.body["incidentId"])
    await world.walk(first.body["incidentId"], "MITIGATING", "RESOLVED")
    world.clock.jump(timedelta(hours=1))
    later = await world.call("POST", "/incidents?dryRun=true", body, idempotency_key="k-3")
    assert (later.body["answer"], later.body["incidentId"] == first.body["incidentId"]) == ("created", False)
    assert len(world.store.incidents) == 1
