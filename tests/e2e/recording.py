"""The real recording of 230 CloudWatch alarms, as often as a test needs it without one run meeting another's receipts.

A `take` is the same recording from another account: other event ids and keys, otherwise equal. What it must come to is told
by the memory store.
"""

import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pipeline.domain.canonical import Document
from tests.simulation.world import World

FILE = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"


def recording(take: int) -> list[str]:
    """Return the messages of one take, in their order."""
    account = f"{take:012d}"
    found = []
    for line in FILE.read_text("utf-8").splitlines():
        event = json.loads(line.replace("123456789012", account))
        event["id"] = str(uuid5(UUID(event["id"]), account))
        found.append(json.dumps(event))
    return found


async def expected(messages: list[str]) -> World:
    """Return the world that these messages lead to, delivered in order."""
    world = World()
    for number, body in enumerate(messages):
        world.candidates.send(f"m{number}", body)
    await world.drain()
    return world


def essence(row: Document, documents: list[Document]) -> dict[str, Any]:
    """Return what may not depend on order, repetition or crashes."""
    evidence = [item["ref"] for document in documents for item in document["metadata"].get("evidence", ())]
    return {
        "incidentId": row["incidentId"],
        "service": row["service"],
        "severity": row["severity"],
        "state": row["state"],
        "dedupKey": row["metadata"]["dedupKey"],
        "evidence": sorted(evidence),
    }


def firings(messages: list[str]) -> set[str]:
    """Return the ids of the alarms that fire; an OK with nothing open may leave no evidence."""
    events = [json.loads(body) for body in messages]
    return {event["id"] for event in events if event["detail"]["state"]["value"] == "ALARM"}
