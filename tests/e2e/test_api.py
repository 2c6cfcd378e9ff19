"""The deployed API under concurrent use: one effect per request, whoever sends it how often; listings that miss nothing."""

import asyncio
import itertools
import json
import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from botocore.session import Session

from pipeline.clients.operator import Operator
from pipeline.clients.signing import SigV4
from pipeline.domain.canonical import parse_document
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.support.signed import api_url
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]

SERVICE = f"api-{os.getpid()}"
_KEYS = itertools.count()


def session() -> Session:
    found = Session()
    found.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    return found


class Api:
    """The API as somebody with an HTTP client sees it."""

    def __init__(self, stack: Stack, http: httpx.AsyncClient) -> None:
        self.stack = stack
        self.http = http

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        content = json.dumps(body).encode() if body is not None else b""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return await self.http.request(method, path, content=content, headers=named)

    async def declared(self, **fields: Any) -> str:
        key = f"{SERVICE}-{next(_KEYS)}"
        answer = await self.call("POST", "/incidents", declaration(**fields), idempotency_key=key)
        assert answer.status_code in (200, 201), answer.text
        return str(answer.json()["incidentId"])

    def events(self, incident_id: str) -> list[str]:
        rows = [row for row in self.stack.rows("EventsTableName") if row["incidentId"]["S"] == incident_id]
        return [row["eventType"]["S"] for row in sorted(rows, key=lambda row: int(row["sequence"]["N"]))]


def declaration(**fields: Any) -> dict[str, Any]:
    return {
        "service": SERVICE,
        "severity": "SEV2",
        "title": "Carts are empty",
        "description": "",
        "authority": "HUMAN",
    } | fields


@pytest.fixture
async def api(stack: Stack) -> AsyncIterator[Api]:
    limits = httpx.Limits(max_connections=50)
    auth = SigV4(REGION, session())
    async with httpx.AsyncClient(base_url=api_url(stack), auth=auth, timeout=60, limits=limits, trust_env=False) as http:
        yield Api(stack, http)


async def test_fifty_identical_declarations_at_once_are_one_incident(api: Api) -> None:
    body = declaration(title="fifty times", dedupKey="fifty")
    calls = [api.call("POST", "/incidents", body, idempotency_key=f"{SERVICE}-fifty") for _ in range(50)]
    answers = await asyncio.gather(*calls)
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 49}
    assert len({answer.content for answer in answers}) == 1
    assert sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers) == 49
    listed = await api.call("GET", f"/incidents?service={SERVICE}")
    assert [row["title"] for row in listed.json()["incidents"]].count("fifty times") == 1
    assert api.events(answers[0].json()["incidentId"]) == ["IncidentCreated", "IncidentOpened"]


async def test_fifty_changes_of_one_version_under_fifty_keys_are_one_change(api: Api) -> None:
    identity = await api.declared()
    path, body = f"/incidents/{identity}/state", {"newState": "MITIGATING", "authority": "HUMAN"}
    calls = [api.call("PATCH", path, body, if_match='"2"', idempotency_key=f"{identity}-{n}") for n in range(50)]
    statuses = Counter(answer.status_code for answer in await asyncio.gather(*calls))
    assert statuses[200] == 1
    assert statuses[200] + statuses[409] + statuses[412] == 50
    assert api.events(identity).count("MitigationStarted") == 1


async def test_fifty_changes_of_one_version_without_a_key_are_one_change_and_all_are_answered(api: Api) -> None:
    identity = await api.declared()
    path, body = f"/incidents/{identity}/state", {"newState": "MITIGATING", "authority": "HUMAN"}
    answers = await asyncio.gather(*(api.call("PATCH", path, body, if_match='"2"') for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {200: 50}
    assert sum(answer.headers.get("Idempotent-Replayed") == "true" for answer in answers) == 49
    assert len({answer.content for answer in answers}) == 1
    assert api.events(identity).count("MitigationStarted") == 1


async def test_a_storm_of_evidence_locks_nobody_out(api: Api) -> None:
    """Twenty pieces a second for two seconds, on the incident whose state is changed by the version seen before."""
    identity = await api.declared()
    tag = (await api.call("GET", f"/incidents/{identity}")).headers["ETag"]

    async def attach(number: int) -> int:
        await asyncio.sleep(number / 20)
        evidence = {"evidence": [{"kind": "log", "ref": f"line-{number}"}], "authority": "SYSTEM"}
        path = f"/incidents/{identity}/evidence"
        return (await api.call("POST", path, evidence, idempotency_key=f"{identity}-e{number}")).status_code

    async def mitigate() -> httpx.Response:
        await asyncio.sleep(1)
        body = {"newState": "MITIGATING", "authority": "HUMAN"}
        return await api.call("PATCH", f"/incidents/{identity}/state", body, if_match=tag)

    changing = asyncio.create_task(mitigate())
    attached = await asyncio.gather(*(attach(number) for number in range(40)))
    changed = await changing
    assert changed.status_code == 200, changed.text
    assert attached == [200] * 40
    types = api.events(identity)
    assert types.count("EvidenceAttached") == 40
    before = types.index("MitigationStarted")
    assert 2 < before < len(types) - 1, "the change came in the middle of the storm"


async def test_a_listing_of_ten_pages_misses_and_repeats_nothing_while_others_write(api: Api) -> None:
    wanted = [await api.declared(title=f"listed {number}", dedupKey=f"listed-{number}") for number in range(1)]
    wanted += await asyncio.gather(
        *(api.declared(title=f"listed {number}", dedupKey=f"listed-{number}") for number in range(1, 30))
    )
    done = asyncio.Event()

    async def disturb() -> int:
        number = 0
        while not done.is_set():
            number += 1
            await api.declared(title=f"meanwhile {number}", dedupKey=f"meanwhile-{number}")
            identity = wanted[number % len(wanted)]
            await api.call("PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING", "authority": "HUMAN"})
            await api.call("POST", f"/incidents/{identity}/severity", {"severity": "SEV1", "authority": "HUMAN"})
        return number

    disturbing = asyncio.create_task(disturb())
    found: list[str] = []
    pages, cursor = 0, ""
    while True:
        answer = await api.call("GET", f"/incidents?service={SERVICE}&limit=3{cursor}")
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found += [row["incidentId"] for row in body["incidents"]]
        pages += 1
        if "nextCursor" not in body:
            break
        cursor = f"&cursor={body['nextCursor']}"
    done.set()
    assert await disturbing >= 1
    assert pages >= 10
    assert len(found) == len(set(found)), "one was repeated"
    assert set(wanted) <= set(found), "one was missed"


async def test_what_is_read_is_what_is_stored(api: Api) -> None:
    identity = await api.declared(title="ü – 5xx above 5 %", metadata={"ratio": 0.1, "n": 2**53 - 1})
    events = parse_document((await api.call("GET", f"/incidents/{identity}/events")).text)["events"]
    stored = [row for row in api.stack.rows("EventsTableName") if row["incidentId"]["S"] == identity]
    assert [event["hash"] for event in events] == [
        row["hash"]["S"] for row in sorted(stored, key=lambda row: int(row["sequence"]["N"]))
    ]
    as_of = await api.call("GET", f"/incidents/{identity}?version=1")
    assert (as_of.json()["state"], as_of.json()["version"]) == ("PENDING", 1)


def test_the_client_that_others_install_walks_an_incident_to_its_end(stack: Stack) -> None:
    with Operator(api_url(stack), region=REGION, session=session(), authority="HUMAN") as operator:
        declared = operator.declare(service=SERVICE, severity="SEV2", title="by the client", dedup_key="by-the-client")
        operator.mitigate(declared.incident_id)
        operator.resolve(declared.incident_id, "p99 back to normal")
        closed = operator.close_incident(declared.incident_id, "reviewed")
        assert closed.state == "CLOSED"
        told = [event.event_type for event in operator.events(declared.incident_id)]
        assert told == ["IncidentCreated", "IncidentOpened", "MitigationStarted", "IncidentResolved", "IncidentClosed"]
