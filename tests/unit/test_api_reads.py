"""Reads over HTTP: incidents as they are and were, their events, listings, receipts; and who may read what."""

from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.canonical import format_time, parse_document
from pipeline.domain.replay import fold
from tests.support.bodies import candidate_body
from tests.support.histories import OTHER_ID
from tests.support.http import AUDITOR, NARROW, READER, SEED, HttpWorld
from tests.support.registry import AUTOMATION, DETECTOR, OPERATOR, STRANGER


async def test_an_incident_is_read_as_it_is_with_its_tag_and_what_may_come_next() -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("GET", f"/incidents/{identity}")
    assert (heard.status, heard.headers["ETag"], heard.content_type) == (200, '"2"', "application/json")
    found = parse_document(heard.text)
    steps = found.pop("allowedTransitions")
    assert found == world.row(identity)
    assert [(step["to"], step["by"], step["youMay"]) for step in steps] == [
        ("MITIGATING", "change-state", True),
        ("CANCELLED", "change-state", True),
    ]


@pytest.mark.parametrize(
    ("sender", "may"),
    [(OPERATOR, [True, True]), (READER, [False, False])],
    ids=["an operator", "a reader"],
)
async def test_what_may_come_next_says_whether_the_reader_may(sender: Any, may: list[bool]) -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("GET", f"/incidents/{identity}", sender=sender)
    assert [step["youMay"] for step in heard.body["allowedTransitions"]] == may


async def test_what_is_pending_may_be_promoted_by_request() -> None:
    world = HttpWorld()
    identity = await world.opened(severity="SEV4", confidence=0.9)
    (step,) = (await world.call("GET", f"/incidents/{identity}")).body["allowedTransitions"]
    assert step == {"to": "OPEN", "by": "request-promotion", "authority": ["HUMAN"], "needsReason": True, "youMay": True}
    bare = await world.call("POST", f"/incidents/{identity}/promotion", {})
    assert bare.code == "reason-missing"
    assert (await world.call("POST", f"/incidents/{identity}/promotion", {"reason": "seen"})).status == 200


async def test_an_incident_is_read_as_it_was_at_every_version_and_time() -> None:
    world = HttpWorld()
    identity = await world.opened()
    for state in ("MITIGATING", "RESOLVED", "CLOSED"):
        world.clock.jump(timedelta(hours=1))
        await world.walk(identity, state)
    history = [document for _, document in sorted(world.store.events[identity].items())]
    for count in range(1, len(history) + 1):
        was = fold(history[:count])
        assert was is not None
        by_version = await world.call("GET", f"/incidents/{identity}?version={count}")
        assert parse_document(by_version.text) == was.to_document() | {"asOf": {"version": count}}
        assert "ETag" not in by_version.headers
    resolved_at = history[3]["timestamp"]
    by_time = await world.call("GET", f"/incidents/{identity}?at={resolved_at}")
    assert (by_time.body["state"], by_time.body["asOf"]) == ("RESOLVED", {"version": 4})


WRONG_READS: dict[str, tuple[str, str]] = {
    "a version that is not yet": ("?version=99", "version"),
    "version zero": ("?version=0", "version"),
    "a version that is no number": ("?version=-1", "version"),
    "a time that is none": ("?at=yesterday", "at"),
    "a time to come": ("?at=2099-01-01T00:00:00Z", "at"),
    "both": ("?version=1&at=2026-01-31T03:00:00Z", "at"),
    "a parameter nobody knows": ("?verzion=1", "verzion"),
}


@pytest.mark.parametrize(("query", "field"), WRONG_READS.values(), ids=WRONG_READS.keys())
async def test_a_read_that_asks_for_nothing_there_is_names_the_parameter(query: str, field: str) -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("GET", f"/incidents/{identity}{query}")
    assert (heard.status, heard.body["field"]) == (400, field)


async def test_before_its_first_event_there_was_no_incident() -> None:
    world = HttpWorld()
    identity = await world.opened()
    heard = await world.call("GET", f"/incidents/{identity}?at=2020-01-01T00:00:00Z")
    assert (heard.status, heard.code) == (404, "incident-unknown")


async def test_events_are_read_as_stored_page_by_page() -> None:
    world = HttpWorld()
    identity = await world.opened()
    for number in range(7):
        await world.call("POST", f"/incidents/{identity}/notes", {"note": f"note {number}"})
    found: list[Any] = []
    target = f"/incidents/{identity}/events?limit=4"
    while target:
        heard = await world.call("GET", target)
        page = parse_document(heard.text)
        found += page["events"]
        target = f"/incidents/{identity}/events?limit=4&cursor={page['nextCursor']}" if "nextCursor" in page else ""
    assert found == [document for _, document in sorted(world.store.events[identity].items())]
    assert "nextCursor" not in (await world.call("GET", f"/incidents/{identity}/events?after=5&limit=4")).body
    behind = await world.call("GET", f"/incidents/{identity}/events?after=8")
    assert [event["sequence"] for event in behind.body["events"]] == [9]
    assert (await world.call("GET", f"/incidents/{identity}/events?after=9")).body == {"events": []}


async def many(world: HttpWorld) -> list[str]:
    """Make incidents of two services, some mitigated; return their ids, the newest first."""
    for number in range(12):
        world.clock.jump(timedelta(minutes=1))
        service = ("checkout", "payments")[number % 2]
        await world.offer(candidate_body(service=service, dedupKey=f"k{number}", severity=f"SEV{number % 3 + 1}"))
    newest = list(reversed(world.store.incidents))
    for identity in newest[::4]:
        await world.walk(identity, "MITIGATING")
    return newest


async def listed(world: HttpWorld, query: str, sender: Any = OPERATOR, limit: int = 3) -> list[str]:
    """Return the ids of a whole listing, page by page; no page is larger than asked for."""
    found: list[str] = []
    cursor = ""
    while True:
        heard = await world.call("GET", f"/incidents?limit={limit}{query}{cursor}", sender=sender)
        assert heard.status == 200, heard.text
        assert len(heard.body["incidents"]) <= limit
        found += [row["incidentId"] for row in heard.body["incidents"]]
        if "nextCursor" not in heard.body:
            return found
        cursor = f"&cursor={heard.body['nextCursor']}"


async def test_a_listing_is_newest_first_and_narrowed_by_any_combination() -> None:
    world = HttpWorld()
    newest = await many(world)
    rows = {identity: world.row(identity) for identity in newest}
    since, until = rows[newest[9]]["createdAt"], rows[newest[2]]["createdAt"]
    for state in ("", "OPEN", "MITIGATING", "CLOSED"):
        for service in ("", "payments"):
            for severity in ("", "SEV1"):
                for times in (False, True):
                    asked = {"state": state, "service": service, "severity": severity}
                    query = "".join(f"&{name}={value}" for name, value in asked.items() if value)
                    query += f"&from={since}&to={until}" if times else ""
                    wanted = [
                        identity
                        for identity in newest
                        if all(rows[identity][name] == value for name, value in asked.items() if value)
                        and (not times or since <= rows[identity]["createdAt"] < until)
                    ]
                    assert await listed(world, query) == wanted, query


WRONG_LISTS: dict[str, tuple[str, str, str]] = {
    "a misspelt filter": ("stat=OPEN", "unknown-field", "stat"),
    "an unknown state": ("state=GONE", "invalid-field", "state"),
    "a state in lower case": ("state=open", "invalid-field", "state"),
    "an unknown severity": ("severity=SEV9", "invalid-field", "severity"),
    "an empty service": ("service=", "invalid-field", "service"),
    "a limit of nothing": ("limit=0", "invalid-field", "limit"),
    "a limit too high": ("limit=101", "invalid-field", "limit"),
    "a limit that is none": ("limit=ten", "invalid-field", "limit"),
    "a time that is none": ("from=2026", "invalid-field", "from"),
    "times the wrong way round": ("from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", "invalid-field", "to"),
    "a filter that stands twice": ("state=OPEN&state=CLOSED", "invalid-field", "state"),
    "a cursor of one's own": ("cursor=bm9wZQ", "invalid-field", "cursor"),
    "an empty cursor": ("cursor=", "invalid-field", "cursor"),
}


@pytest.mark.parametrize(("query", "code", "field"), WRONG_LISTS.values(), ids=WRONG_LISTS.keys())
async def test_a_listing_that_is_asked_for_wrongly_is_refused_not_widened(query: str, code: str, field: str) -> None:
    heard = await HttpWorld().call("GET", f"/incidents?{query}")
    assert (heard.status, heard.code, heard.body["field"]) == (400, code, field)


async def test_a_listing_holds_only_what_the_reader_may_read() -> None:
    world = HttpWorld()
    newest = await many(world)
    payments = [identity for identity in newest if world.row(identity)["service"] == "payments"]
    assert await listed(world, "", NARROW) == payments
    assert await listed(world, "&service=payments", NARROW) == payments
    heard = await world.call("GET", "/incidents?service=checkout", sender=NARROW)
    assert (heard.status, heard.code) == (403, "operation-not-granted")
    checkout = next(identity for identity in newest if identity not in payments)
    for path in (f"/incidents/{checkout}", f"/incidents/{checkout}/events"):
        assert (await world.call("GET", path, sender=NARROW)).status == 403


@pytest.mark.parametrize(
    ("sender", "code"),
    [(STRANGER, "principal-unknown"), (DETECTOR, "operation-not-granted"), (AUTOMATION, "operation-not-granted")],
    ids=["a stranger", "a detector", "automation without the grant"],
)
async def test_who_may_not_read_learns_nothing_of_what_there_is(sender: Any, code: str) -> None:
    world = HttpWorld()
    identity = await world.opened()
    for path in ("/incidents", f"/incidents/{identity}", f"/incidents/{OTHER_ID}", f"/incidents/{identity}/events"):
        heard = await world.call("GET", path, sender=sender)
        assert (heard.status, heard.code) == (403, code)


# --- receipts --------------------------------------------------------------------------------------------------------


async def test_a_receipt_tells_what_became_of_a_command_by_either_door() -> None:
    world = HttpWorld()
    declared = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    identity = declared.body["incidentId"]
    heard = await world.call("GET", "/receipts/k-1")
    assert (heard.status, heard.body["outcome"], heard.body["incidentId"]) == (200, "applied", identity)
    assert heard.body["result"]["answer"] == "created"
    await world.order({"type": "add-note", "incidentId": identity, "note": "n"}, message_id="m-1")
    by_message = await world.call("GET", "/receipts/m-1")
    assert (by_message.body["outcome"], by_message.body["keyKind"]) == ("applied", "message")


async def test_a_receipt_of_a_refusal_says_why_and_what_to_do() -> None:
    world = HttpWorld()
    identity = await world.opened()
    await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "CLOSED", "reason": "r"}, idempotency_key="k-1")
    heard = await world.call("GET", "/receipts/k-1")
    assert (heard.body["outcome"], heard.body["result"]["code"]) == ("refused", "transition-illegal")
    assert "new idempotency key" in heard.body["next"]


async def test_an_unknown_receipt_and_another_principals_are_the_same_answer() -> None:
    world = HttpWorld()
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    another = await world.call("GET", "/receipts/k-1", sender=READER)
    unknown = await world.call("GET", "/receipts/k-2", sender=READER)
    assert (another.status, another.code, another.body["outcome"]) == (404, "receipt-unknown", "unknown")
    assert another.text == unknown.text


async def test_only_who_may_audit_reads_anothers_receipt() -> None:
    world = HttpWorld()
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    target = f"/receipts/k-1?principal={OPERATOR.principal}"
    assert (await world.call("GET", target, sender=AUDITOR)).body["outcome"] == "applied"
    refused = await world.call("GET", target, sender=READER)
    assert (refused.status, refused.code) == (403, "operation-not-granted")
    assert (await world.call("GET", target, sender=OPERATOR)).status == 200
    assert (await world.call("GET", target, sender=STRANGER)).code == "principal-unknown"
    nobody = await world.call("GET", "/receipts/k-1?principal=", sender=OPERATOR)
    assert (nobody.status, nobody.body["field"]) == (400, "principal")


async def test_a_detector_asks_after_its_message() -> None:
    world = HttpWorld()
    await world.offer(candidate_body(), message_id="m-7")
    heard = await world.call("GET", "/receipts/m-7", sender=DETECTOR)
    assert (heard.body["outcome"], heard.body["operation"]) == ("applied", "candidate")


@pytest.mark.parametrize("key", ["a b", "x" * 129, "é"])
async def test_a_key_that_can_be_none_is_refused(key: str) -> None:
    heard = await HttpWorld().call("GET", f"/receipts/{key}")
    assert (heard.status, heard.code, heard.body["field"]) == (400, "invalid-field", "key")


async def test_as_of_times_are_inclusive_and_in_utc() -> None:
    world = HttpWorld()
    identity = await world.opened()
    created = world.store.feed[-1]["timestamp"]
    heard = await world.call("GET", f"/incidents/{identity}?at={created}")
    assert heard.body["asOf"] == {"version": 2}
    assert created == format_time(world.clock.now())
