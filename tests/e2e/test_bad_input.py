"""Every wrong message of the table at the deployed stack, all at once; then counted from outside."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
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
from tests.support.stack import Stack

pytestmark = pytest.mark.engine

SENT = tuple(case for case in CASES if case.sendable)
WITHIN_S = 20.0
BATCH_BYTES_MAX = 200 * 1024
DLQS = ("CandidatesDlqUrl", "AlarmsDlqUrl", "CommandsDlqUrl")


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not what():
        assert time.monotonic() < deadline, "what was sent is not settled in time"
        time.sleep(0.1)


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


def rejected_with(stack: Stack, bodies: set[str], count: int) -> list[tuple[str, dict[str, Any]]]:
    """Take the rejected messages with these bodies off the queue, as (body, explanation), until `count` came and no more."""
    url, quiet_since = stack.outputs["RejectedQueueUrl"], time.monotonic()
    found: list[tuple[str, dict[str, Any]]] = []
    while len(found) < count or time.monotonic() < quiet_since + 1.0:
        assert time.monotonic() < quiet_since + WITHIN_S, f"{len(found)} of {count} messages were rejected"
        answer = stack.client("sqs").receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, VisibilityTimeout=5, MessageAttributeNames=["All"]
        )
        ours = [one for one in answer.get("Messages", ()) if one["Body"] in bodies]
        for one in ours:
            stack.client("sqs").delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            assert list(one["MessageAttributes"]) == ["opx"], "one attribute, so that ten of the sender's fit beside it"
            found.append((one["Body"], json.loads(one["MessageAttributes"]["opx"]["StringValue"])))
        if ours:
            quiet_since = time.monotonic()
    return found


def prepare(stack: Stack) -> None:
    """Make the incident that wrong commands are about, and use the keys that are used again."""
    send(stack, CANDIDATES, [(body, {}) for body in FIRST_CANDIDATES], "")
    wait_for(lambda: len(answered(stack, {TARGET})) == len(FIRST_CANDIDATES))
    send(stack, "commands", [(body, {}) for body in FIRST_COMMANDS], TARGET)
    wait_for(lambda: len(answered(stack, {TARGET})) == len(FIRST_CANDIDATES) + len(FIRST_COMMANDS))


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
    found = rejected_with(stack, {case.body for case in SENT}, len(SENT))

    assert Counter(as_told(body, told) for body, told in found) == Counter(as_expected(case) for case in SENT)
    assert all(len(told["reason"]) <= 512 and told["reason"].isascii() for _, told in found)

    def incidents() -> dict[str, str]:
        rows = [row for row in stack.rows("IncidentsTableName") if "state" in row]
        return {row["service"]["S"]: row["incidentId"]["S"] for row in rows if row["service"]["S"] in neighbours}

    wait_for(lambda: len(incidents()) == len(neighbours))
    receipts = answered(stack, {TARGET, *incidents().values()})
    sent = len(FIRST_CANDIDATES) + len(FIRST_COMMANDS) + 2 * len(SENT)
    assert sent == len(receipts) + len(found)
    wait_for(lambda: stack.depth("CandidatesQueueUrl") == stack.depth("CommandsQueueUrl") == 0)
    assert [stack.depth(dlq) for dlq in DLQS] == [0, 0, 0]
    services = {row["service"]["S"] for row in stack.rows("IncidentsTableName") if "state" in row}
    assert "bad" not in services, "no refused message made an incident"
    assert TARGET_SERVICE in services


def as_told(body: str, told: dict[str, Any]) -> tuple[str, ...]:
    attributes = json.dumps(told.get("attributes", {}), sort_keys=True)
    return body, told["code"], told["originalSenderId"], attributes


def as_expected(case: BadInput) -> tuple[str, ...]:
    return case.body, case.code.value, SENDER, json.dumps(case.attributes, sort_keys=True)
