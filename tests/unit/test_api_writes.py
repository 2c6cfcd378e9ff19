"""Writes over HTTP: keys, versions, replays and refusals, each row of the specification's table of outcomes."""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import urljoin

import pytest

from pipeline.domain.transitions import State
from tests.support.audit import audit
from tests.support.bodies import candidate_body
from tests.support.histories import OTHER_ID
from tests.support.http import SEED, HttpWorld
from tests.support.registry import AUTOMATION, DETECTOR, OPERATOR, STRANGER
from tests.support.world import InterleavedStore


async def test_a_declaration_is_created_and_open_at_once() -> None:
    world = HttpWorld()
    heard = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert heard.status == 201
    body = heard.body
    assert (body["answer"], body["state"], body["controlVersion"]) == ("created", "OPEN", 2)
    assert (body["idempotencyKey"], body["retrySafe"]) == ("k-1", True)
    assert [row["to"] for row in body["allowedTransitions"]] == ["MITIGATING", "CANCELLED"]
    at = urljoin("https://example.com/v1/incidents", heard.headers["Location"])
    assert at == f"https://example.com/v1/incidents/{body['incidentId']}", "whatever the stage"
    assert heard.headers["ETag"] == '"2"'
    assert heard.headers["Opx-Request-Id"] == "request-1"
    audit(world.store)


async def test_the_same_declaration_again_gets_the_same_bytes_whatever_happened_since() -> None:
    world = HttpWorld()
    first = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    await world.walk(first.body["incidentId"], "MITIGATING", "RESOLVED", "CLOSED")
    world.clock.jump(timedelta(days=400))
    again = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    assert (again.status, again.text) == (200, first.text)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["ETag"] == first.headers["ETag"]


async def test_a_declaration_joins_the_open_incident_of_its_key() -> None:
    world = HttpWorld()
    body = SEED | {"dedupKey": "carts"}
    first = await world.call("POST", "/incidents", body, idempotency_key="k-1")
    second = await world.call("POST", "/incidents", body, idempotency_key="k-2")
    assert (second.status, second.body["answer"]) == (200, "joined")
    assert second.body["incidentId"] == first.body["incidentId"]
    assert second.headers["Location"] == first.headers["Location"]
    assert "Idempotent-Replayed" not in second.headers


async def test_a_declaration_needs_a_key() -> None:
    world = HttpWorld()
    heard = await world.call("POST", "/incidents", SEED)
    assert (heard.status, heard.code, heard.body["field"]) == (400, "key-missing", "Idempotency-Key")
    assert world.store.incidents == {}


async def test_a_key_used_for_another_request_is_422() -> None:
    world = HttpWorld()
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    heard = await world.call("POST", "/incidents", SEED | {"title": "Others"}, idempotency_key="k-1")
    assert (heard.status, heard.code) == (422, "key-reused")
    assert len(world.store.incidents) == 1


async def test_the_same_request_by_queue_and_by_http_is_one() -> None:
    """A sender that does not know whether its message was taken may ask by the other door."""
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING"}, idempotency_key="k-1")
    assert heard.status == 200
    command = {"type": "change-state", "incidentId": identity, "newState": "MITIGATING", "idempotencyKey": "k-1"}
    outcome = await world.order(command)
    assert type(outcome).__name__ == "Replayed"


async def test_fifty_identical_declarations_at_once_are_one_incident(rng: Any) -> None:
    world = HttpWorld(store=InterleavedStore())
    calls = [world.call("POST", "/incidents", SEED, idempotency_key="k-1") for _ in range(50)]
    heard = await asyncio.gather(*calls)
    assert sorted(answer.status for answer in heard) == [200] * 49 + [201]
    assert len({answer.text for answer in heard}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in heard) == 49
    assert len(world.store.incidents) == 1
    audit(world.store)


async def test_fifty_changes_of_one_version_under_fifty_keys_are_one_change() -> None:
    world = HttpWorld(store=InterleavedStore())
    identity = await world.opened()
    body = {"newState": "MITIGATING", "authority": "HUMAN"}
    path = f"/incidents/{identity}/state"
    calls = [world.call("PATCH", path, body, if_match='"2"', idempotency_key=f"k-{n}") for n in range(50)]
    heard = await asyncio.gather(*calls)
    assert [answer.status for answer in heard].count(200) == 1
    assert {answer.status for answer in heard} <= {200, 412, 409}
    assert world.types(identity).count("MitigationStarted") == 1


async def test_fifty_changes_of_one_version_without_a_key_are_one_change_and_all_are_answered() -> None:
    world = HttpWorld(store=InterleavedStore())
    identity = await world.opened()
    body = {"newState": "MITIGATING", "authority": "HUMAN"}
    path = f"/incidents/{identity}/state"
    heard = await asyncio.gather(*(world.call("PATCH", path, body, if_match='"2"') for _ in range(50)))
    assert [answer.status for answer in heard] == [200] * 50
    assert sum("Idempotent-Replayed" in answer.headers for answer in heard) == 49
    assert len({answer.text for answer in heard}) == 1
    assert heard[0].body["retrySafe"] is True
    assert world.types(identity).count("MitigationStarted") == 1


async def test_a_request_without_key_and_version_says_that_a_retry_is_another_request() -> None:
    world = HttpWorld()
    identity = await world.opened()
    first = await world.call("POST", f"/incidents/{identity}/notes", {"note": "looking"})
    again = await world.call("POST", f"/incidents/{identity}/notes", {"note": "looking"})
    assert (first.status, first.body["retrySafe"], again.body["retrySafe"]) == (200, False, False)
    assert "Idempotency-Key" in first.body["next"]
    assert first.body["idempotencyKey"] == first.headers["Opx-Request-Id"]
    assert world.types(identity).count("NoteAdded") == 2


REFUSED: dict[str, tuple[str, str, Any, dict[str, str], Any, int, str]] = {
    "an illegal transition": (
        "PATCH",
        "state",
        {"newState": "CLOSED", "reason": "r"},
        {},
        OPERATOR,
        409,
        "transition-illegal",
    ),
    "a stale version": ("PATCH", "state", {"newState": "MITIGATING"}, {"if_match": '"1"'}, OPERATOR, 412, "version-stale"),
    "a human's transition by a program": (
        "PATCH",
        "state",
        {"newState": "CANCELLED", "reason": "r"},
        {},
        AUTOMATION,
        403,
        "transition-authority",
    ),
    "a stranger": ("PATCH", "state", {"newState": "MITIGATING"}, {}, STRANGER, 403, "principal-unknown"),
    "a detector": ("PATCH", "state", {"newState": "MITIGATING"}, {}, DETECTOR, 403, "operation-not-granted"),
    "HUMAN claimed by a program": (
        "PATCH",
        "state",
        {"newState": "MITIGATING", "authority": {"authorityType": "HUMAN"}},
        {},
        AUTOMATION,
        403,
        "authority-not-granted",
    ),
    "no reason": ("PATCH", "state", {"newState": "CANCELLED"}, {}, OPERATOR, 400, "reason-missing"),
    "a principal in the body": ("POST", "notes", {"note": "n", "principal": "x"}, {}, OPERATOR, 400, "unknown-field"),
    "an unknown state": ("PATCH", "state", {"newState": "REOPENED"}, {}, OPERATOR, 400, "invalid-field"),
    "nothing to say": ("POST", "notes", None, {}, OPERATOR, 400, "invalid-field"),
    "no JSON": ("POST", "notes", "{", {}, OPERATOR, 400, "malformed-json"),
    "a list": ("POST", "notes", "[]", {}, OPERATOR, 400, "malformed-json"),
    "a body over 256 KB": ("POST", "notes", '"' + "x" * 256 * 1024, {}, OPERATOR, 400, "too-large"),
    "a key of another form": ("POST", "notes", {"note": "n"}, {"idempotency_key": "a b"}, OPERATOR, 400, "invalid-field"),
    "an empty key": ("POST", "notes", {"note": "n"}, {"idempotency_key": ""}, OPERATOR, 400, "invalid-field"),
    "a weak tag": ("PATCH", "state", {"newState": "MITIGATING"}, {"if_match": 'W/"2"'}, OPERATOR, 400, "invalid-field"),
    "a tag that is none": (
        "PATCH",
        "state",
        {"newState": "MITIGATING"},
        {"if_match": '"x"'},
        OPERATOR,
        400,
        "invalid-field",
    ),
    "half a tag": ("PATCH", "state", {"newState": "MITIGATING"}, {"if_match": '"2'}, OPERATOR, 400, "invalid-field"),
    "version zero": ("PATCH", "state", {"newState": "MITIGATING"}, {"if_match": '"0"'}, OPERATOR, 400, "invalid-field"),
    "a key that differs from the header's": (
        "POST",
        "notes",
        {"note": "n", "idempotencyKey": "k-2"},
        {"idempotency_key": "k-1"},
        OPERATOR,
        400,
        "invalid-field",
    ),
    "a type that is another route's": ("POST", "notes", {"note": "n", "type": "link"}, {}, OPERATOR, 400, "invalid-field"),
    "another incident in the body": (
        "POST",
        "notes",
        {"note": "n", "incidentId": OTHER_ID},
        {},
        OPERATOR,
        400,
        "invalid-field",
    ),
    "no key, said so": ("POST", "notes", {"note": "n", "idempotencyKey": None}, {}, OPERATOR, 400, "invalid-field"),
    "no version, said so": ("POST", "notes", {"note": "n", "expectedVersion": None}, {}, OPERATOR, 400, "invalid-field"),
    "a parameter that nobody knows": ("POST", "notes?dryrun=true", {"note": "n"}, {}, OPERATOR, 400, "unknown-field"),
    "a dry run of maybe": ("POST", "notes?dryRun=maybe", {"note": "n"}, {}, OPERATOR, 400, "invalid-field"),
    "two words on a dry run": (
        "POST",
        "notes?dryRun=true&dryRun=false",
        {"note": "n"},
        {},
        OPERATOR,
        400,
        "invalid-field",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
async def test_a_refusal_is_a_problem_that_says_what_to_do_next_and_changes_nothing(case: Any) -> None:
    method, route, body, headers, sender, status, code = case
    world = HttpWorld()
    identity = await world.opened()
    before = (dict(world.store.incidents), len(world.store.feed))
    heard = await world.call(method, f"/incidents/{identity}/{route}", body, sender, **headers)
    assert (heard.status, heard.code, heard.content_type) == (status, code, "application/problem+json")
    problem = heard.body
    assert problem["status"] == status
    assert problem["type"] == f"urn:opx:problem:{code}"
    assert all(problem[name] for name in ("title", "detail", "next"))
    assert (world.store.incidents, len(world.store.feed)) == before
    assert world.reports[-1].code == code
    audit(world.store)


async def test_a_refusal_on_an_incident_names_its_state_and_what_is_allowed() -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "CLOSED", "reason": "r"})
    told = heard.body
    assert (told["incidentId"], told["state"], told["allowedTransitions"]) == (identity, "OPEN", ["MITIGATING", "CANCELLED"])


async def test_a_final_state_allows_nothing_and_says_so() -> None:
    world = HttpWorld()
    identity = await world.opened()
    await world.walk(identity, "CANCELLED")
    heard = await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "OPEN", "reason": "r"})
    assert (heard.code, heard.body["allowedTransitions"]) == ("transition-illegal", [])


async def test_a_remembered_refusal_is_the_answer_for_ever_and_a_new_key_tries_again() -> None:
    world = HttpWorld()
    identity = await world.opened()
    path, body = f"/incidents/{identity}/state", {"newState": "RESOLVED", "reason": "done"}
    first = await world.call("PATCH", path, body, idempotency_key="k-1")
    assert first.status == 409
    await world.walk(identity, "MITIGATING")
    again = await world.call("PATCH", path, body, idempotency_key="k-1")
    assert (again.status, again.text) == (409, first.text)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await world.call("PATCH", path, body, idempotency_key="k-2")).status == 200


async def test_an_unknown_incident_is_404_and_an_id_that_is_none_400() -> None:
    world = HttpWorld()
    note = {"note": "n"}
    unknown = await world.call("POST", f"/incidents/{OTHER_ID}/notes", note)
    assert (unknown.status, unknown.code) == (404, "incident-unknown")
    wrong = await world.call("POST", "/incidents/NOPE/notes", note)
    assert (wrong.status, wrong.code, wrong.body["field"]) == (400, "invalid-field", "incidentId")


async def test_what_the_headers_say_may_stand_in_the_body_too() -> None:
    world = HttpWorld()
    identity = await world.opened()
    body = {"newState": "MITIGATING", "expectedVersion": 2, "idempotencyKey": "k-1", "incidentId": identity}
    heard = await world.call("PATCH", f"/incidents/{identity}/state", body, if_match="2", idempotency_key="k-1")
    assert (heard.status, heard.body["idempotencyKey"]) == (200, "k-1")


async def test_any_version_is_asked_for_by_a_star() -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING"}, if_match="*")
    assert (heard.status, heard.body["retrySafe"]) == (200, False)


async def test_evidence_locks_nobody_out() -> None:
    """A tag is the control version: what a storm of evidence moves is not compared."""
    world = HttpWorld()
    identity = await world.opened()
    tag = (await world.call("GET", f"/incidents/{identity}")).headers["ETag"]
    for number in range(20):
        await world.offer(candidate_body(observedAt=f"2026-01-31T03:00:{number:02d}Z"))
    heard = await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING"}, if_match=tag)
    assert heard.status == 200


EVERY_WRITE: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "state": ("PATCH", "state", {"newState": "MITIGATING"}, "MitigationStarted"),
    "evidence": ("POST", "evidence", {"evidence": [{"kind": "graph", "ref": "https://example.com/1"}]}, "EvidenceAttached"),
    "notes": ("POST", "notes", {"note": "looking"}, "NoteAdded"),
    "severity": ("POST", "severity", {"severity": "SEV1", "reason": "worse"}, "SeverityChanged"),
    "links": ("POST", "links", {"relation": "caused-by", "target": OTHER_ID}, "IncidentLinked"),
}


@pytest.mark.parametrize("case", EVERY_WRITE.values(), ids=EVERY_WRITE.keys())
async def test_every_write_has_its_route(case: Any) -> None:
    method, route, body, event_type = case
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call(method, f"/incidents/{identity}/{route}", body, idempotency_key="k-1")
    assert (heard.status, heard.body["answer"]) == (200, "applied")
    assert world.types(identity)[-1] == event_type
    audit(world.store)


@pytest.mark.parametrize(("route", "state"), [("promotion", State.OPEN), ("dismissal", State.CANCELLED)])
async def test_a_person_promotes_or_dismisses_what_is_pending(route: str, state: State) -> None:
    world = HttpWorld()
    identity = await world.opened(severity="SEV4", confidence=0.9)
    assert world.row(identity)["state"] == "PENDING"
    heard = await world.call("POST", f"/incidents/{identity}/{route}", {"reason": "seen it"}, idempotency_key="k-1")
    assert (heard.status, heard.body["state"]) == (200, state)


async def test_nothing_to_change_is_an_answer_too() -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("POST", f"/incidents/{identity}/severity", {"severity": "SEV2"}, idempotency_key="k-1")
    assert (heard.status, heard.body["answer"]) == (200, "unchanged")
