"""One version of the code as a process of its own: both queue doors on given tables, asked and answering by lines of JSON.

Started from a copy of the tree, it is that copy's code that works. `told` is the schema version it is to write.
"""

import asyncio
import json
import sys
from collections import defaultdict
from typing import Any

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import SCHEMA_VERSION, IncidentEvent
from pipeline.domain.errors import OpxError
from pipeline.domain.replay import verify
from pipeline.runtime.clock import SystemClock
from pipeline.runtime.telemetry import Report
from pipeline.services.decision import Applied, Refused, Replayed
from pipeline.stores.clients import open_clients
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.items import from_item, row_key, without_keys
from tests.support.doors import Doors, command_message, message


def told_of(report: Report) -> Document:
    """Return what became of one message, as far as two versions of the code must agree on it."""
    match report.outcome:
        case Applied(receipt) | Replayed(receipt):
            # What a newer version adds to a receipt is its own.
            result = {"incidentId": receipt.incident_id, **receipt.result.to_document()}
            return {"outcome": type(report.outcome).__name__, "result": result}
        case Refused(refusal):
            return {"outcome": "Refused", "code": refusal.code.value}
        case None:
            return {"outcome": "failed", "error": type(report.error).__name__, "detail": str(report.error)}


async def settle(doors: Doors, question: Document) -> Document:
    """Hand a door a batch; return the ids of what must come again, and what became of each."""
    doors.reports.clear()
    doors.rejected.messages.clear()
    now = doors.clock.now()
    if question["door"] == "candidates":
        batch = [message(one["id"], one["body"], sent_at=now) for one in question["messages"]]
        again = await doors.offer(*batch, within_s=10)
    else:
        batch = [command_message(one["id"], one["body"], one["group"], sent_at=now) for one in question["messages"]]
        again = await doors.order(*batch, within_s=10)
    told = {report.message.message_id: told_of(report) for report in doors.reports}
    return {"again": again, "rejected": doors.rejected.codes(), "told": told}


async def check(store: DynamoIncidentStore) -> Document:
    """Verify every history and its row as this code reads them; name the versions that they are of, and what is wrong."""
    histories: dict[str, list[Document]] = defaultdict(list)
    async for document in store.scan_events():
        histories[document["incidentId"]].append(document)
    wrong: list[str] = []
    for incident, history in histories.items():
        history.sort(key=lambda document: document["sequence"])
        answer = await store.client.get_item(TableName=store.tables.incidents, Key=row_key(incident), ConsistentRead=True)
        row = without_keys(from_item(answer["Item"]))
        wrong += [str(divergence) for divergence in verify(incident, tuple(history), row)]
        try:
            again = [IncidentEvent.from_document(document).to_document() for document in history]
            wrong += [f"{incident}: {document}" for document, same in zip(history, again, strict=True) if document != same]
        except OpxError as error:
            wrong.append(f"{incident}: {error}")
    versions = {incident: [document["schemaVersion"] for document in history] for incident, history in histories.items()}
    return {"versions": versions, "wrong": wrong}


async def work(endpoint_url: str, prefix: str, told: int) -> None:
    """Answer one line after the other until there are no more."""
    async with open_clients(("dynamodb",), endpoint_url=endpoint_url) as clients:
        clock = SystemClock()
        store = DynamoIncidentStore(clients.dynamodb, Tables.with_prefix(prefix), clock)
        doors = Doors(store, clock=clock, schema_version=told)
        say({"reads": SCHEMA_VERSION, "code": __file__})
        while line := await asyncio.to_thread(sys.stdin.readline):
            question: Any = json.loads(line)
            say(await check(store) if question.get("check") else await settle(doors, question))


def say(answer: Document) -> None:
    print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], sys.argv[2], int(sys.argv[3])))
