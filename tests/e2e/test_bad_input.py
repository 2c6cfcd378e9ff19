"""Every wrong message of the table at the deployed stack, all at once; then counted from outside."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import pytest

from tests.bad_input_cases import (
    CANDIDATES,
    CASES,
    FIRST_CANDIDATES,
    FIRST_COMMANDS,
    SENDER,
    TARGET,
    TARGET_SERVICE,
    Attributes,
    BadInput,
)
from tests.support.stack import Stack, told, wait_until

pytestmark = pytest.mark.engine

SENT = tuple(case for case in CASES if case.sendable)
WITHIN_S = 60.0
BATCH_BYTES_MAX = 200 * 1024
DLQS = ("CandidatesDlqUrl", "AlarmsDlqUrl", "AlertmanagerDlqUrl", "CommandsDlqUrl")


def send(stack: Stack, queue: str, messages: Iterable[tuple[str, Attributes]], group: str) -> None:
    """Send bodies to one intake queue, as few calls as their sizes allow."""
    fifo = queue != CANDIDATES
    entries: list[dict[str, Any]] = []
    for number, (body, attributes) in enumerate(messages):
        entry: dict[str, Any] = {"Id": str(number), "MessageBody": body, "MessageAttributes": written(attributes)}
        if fifo:
            about = json.dumps([group, number, body])
            entry |= {"MessageGroupId": group, "MessageDeduplicationId": sha256(about.encode()).hexdigest()}
        entries.append(entry)
    url = stack.outputs["CommandsQueueUrl" if fifo else "CandidatesQueueUrl"]
    for batch in cut(entries):
        answer = stack.client("sqs").send_message_batch(QueueUrl=url, Entries=batch)
        assert not answer.get("Failed"), answer


def written(attributes: Attributes) -> dict[str, Any]:
    """Return attributes as SendMessage takes them."""
    sent: dict[str, Any] = {}
    for name, value in attributes.items():
        sent[name] = {"DataType": value["dataType"]}
        if "binaryValue" in value:
            sent[name]["BinaryValue"] = b"\x00\x01\x02\xff"
        else:
            sent[name]["StringValue"] = value["stringValue"]
    return sent


def cut(entries: Sequence[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        length = len(entry["MessageBody"].encode()) + 2048
        if batch and (len(batch) == 10 or size + length > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += length
    if batch:
        yield batch


def prepare(stack: Stack) -> None:
    """Make the incident that wrong commands are about, and use the keys that are used again."""
    send(stack, CANDIDATES, [(body, {}) for body in FIRST_CANDIDATES], "")
    wait_until(lambda: len(answered(stack, {TARGET})) == len(FIRST_CANDIDATES), WITHIN_S)
    send(stack, "commands", [(body, {}) for body in FIRST_COMMANDS], TARGET)
    wait_until(lambda: len(answered(stack, {TARGET})) == len(FIRST_CANDIDATES) + len(FIRST_COMMANDS), WITHIN_S)


def answered(stack: Stack, incidents: set[str]) -> list[dict[str, Any]]:
    """Return the receipts of what took effect on these incidents."""
    about = [row for row in stack.rows("IdempotencyTableName") if row.get("incidentId", {}).get("S") in incidents]
    return [row for row in about if row["result"]["M"]["answer"]["S"] != "refused"]


def with_neighbours(queue: str) -> list[tuple[str, Attributes]]:
    messages: list[tuple[str, Attributes]] = []
    for case in SENT:
        if case.queue == queue:
            messages += [(case.body, case.attributes), (case.neighbour, {})]
    return messages


def test_bad_input_is_rejected_once_and_all_neighbours_become_incidents(stack: Stack) -> None:
    prepare(stack)
    neighbours = {case.neighbour_service for case in SENT}
    send(stack, CANDIDATES, with_neighbours(CANDIDATES), "")
    # One group: each good command waits behind a wrong one.
    send(stack, "commands", with_neighbours("commands"), TARGET)
    bodies = {case.body for case in SENT}
    found = stack.take("RejectedQueueUrl", lambda message: message["Body"] in bodies, len(SENT), WITHIN_S)

    assert Counter(as_found(message) for message in found) == Counter(as_expected(case) for case in SENT)
    assert all(len(told(one)["reason"]) <= 512 and told(one)["reason"].isascii() for one in found)

    def incidents() -> dict[str, str]:
        rows = [row for row in stack.rows("IncidentsTableName") if "state" in row]
        return {row["service"]["S"]: row["incidentId"]["S"] for row in rows if row["service"]["S"] in neighbours}

    wait_until(lambda: len(incidents()) == len(neighbours), WITHIN_S)
    receipts = answered(stack, {TARGET, *incidents().values()})
    sent = len(FIRST_CANDIDATES) + len(FIRST_COMMANDS) + 2 * len(SENT)
    assert sent == len(receipts) + len(found)
    wait_until(lambda: stack.depth("CandidatesQueueUrl") == stack.depth("CommandsQueueUrl") == 0, WITHIN_S)
    assert [stack.depth(dlq) for dlq in DLQS] == [0] * len(DLQS)
    services = {row["service"]["S"] for row in stack.rows("IncidentsTableName") if "state" in row}
    assert "bad" not in services, "no refused message made an incident"
    assert TARGET_SERVICE in services


def as_found(message: dict[str, Any]) -> tuple[str, ...]:
    said = told(message)
    return message["Body"], said["code"], said["originalSenderId"], json.dumps(said.get("attributes", {}), sort_keys=True)


def as_expected(case: BadInput) -> tuple[str, ...]:
    return case.body, case.code.value, SENDER, json.dumps(case.attributes, sort_keys=True)
