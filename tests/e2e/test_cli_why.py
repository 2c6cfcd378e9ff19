"""`opx why` and `opx watch` against the deployed stack: what was sent is found wherever it went. One engine for all."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]

WITHIN_S = 30.0
HELD_BACK_S = 6
Opx = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def opx(stack: Stack) -> Opx:
    def call(*arguments: str, stdin: str | None = None) -> tuple[int, dict[str, Any]]:
        shared = ["--json", "--state-dir", str(stack.engine.state_dir)]
        result = CliRunner().invoke(app, [*shared, *arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        (document,) = [json.loads(line) for line in result.stdout.splitlines()]
        return result.exit_code, document

    return call


@pytest.fixture
def service() -> str:
    return f"why-{uuid4().hex[:12]}"


def candidate(service: str, **fields: Any) -> str:
    basis = {"type": "candidate", "service": service, "severity": "SEV2", "title": "slow", "dedupKey": "slow"}
    return json.dumps(basis | fields)


def put(stack: Stack, queue: str, body: str, **more: Any) -> str:
    """Send a message past the command line; return the id that the queue gives it."""
    found: str = stack.client("sqs").send_message(QueueUrl=stack.outputs[queue], MessageBody=body, **more)["MessageId"]
    return found


def settled(opx: Opx, *arguments: str, stdin: str | None = None) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Ask until the answer is no longer that it may wait; return the exit code, the document and its one part."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        code, found = opx("why", *arguments, stdin=stdin)
        (part,) = found["parts"]
        if part["outcome"] not in ("waiting", "unknown") or time.monotonic() > deadline:
            return code, found, part
        time.sleep(0.2)


def test_an_applied_candidate_is_followed_to_its_events(stack: Stack, opx: Opx, service: str) -> None:
    put(stack, "CandidatesQueueUrl", candidate(service, idempotencyKey=f"{service}:1"))
    code, found, part = settled(opx, f"{service}:1")
    (receipt,) = part["receipts"]
    assert (code, part["outcome"], receipt["incident"]["service"]) == (0, "applied", service)
    assert [event["detailType"] for event in receipt["events"]] == ["IncidentCreated", "IncidentOpened"]
    assert (receipt["gate"]["decision"]["outcome"], receipt["gate"]["agrees"]) == ("PROMOTE", True)
    assert found["next"][0].endswith(f"open {receipt['incidentId'][:8]}")


def test_a_message_is_found_by_its_id_or_by_itself(stack: Stack, opx: Opx, service: str, tmp_path: Path) -> None:
    timed, timeless = candidate(service, observedAt="2026-01-31T03:00:00Z"), candidate(service, dedupKey="other")
    put(stack, "CandidatesQueueUrl", timed)
    message_id = put(stack, "CandidatesQueueUrl", timeless)
    file = tmp_path / "message.json"
    file.write_text(json.dumps(json.loads(timed), indent=2))
    for arguments, stdin in (([message_id], None), (["--message", str(file)], None), (["--message", "-"], timed)):
        code, _, part = settled(opx, *arguments, stdin=stdin)
        assert (code, part["outcome"]) == (0, "applied"), arguments


def test_a_refused_command_and_a_rejected_message_say_why(stack: Stack, opx: Opx, service: str) -> None:
    put(stack, "CandidatesQueueUrl", candidate(service, idempotencyKey=f"{service}:1"))
    incident = settled(opx, f"{service}:1")[2]["receipts"][0]["incidentId"]
    # Without an incident there is nothing that a receipt could be kept with: only the rejected copy tells.
    for number, (about, ending) in enumerate(((incident, "refused"), (str(uuid4()), "rejected"))):
        key = f"{service}:no-{number}"
        order = {"type": "change-state", "incidentId": about, "newState": "CLOSED", "reason": "x", "authority": "HUMAN"}
        body = json.dumps(order | {"idempotencyKey": key})
        put(stack, "CommandsQueueUrl", body, MessageGroupId=key, MessageDeduplicationId=key)
        code, _, part = settled(opx, key)
        assert (code, part["outcome"]) == (1, ending)
    before = stack.depth("RejectedQueueUrl")
    message_id = put(stack, "CandidatesQueueUrl", candidate(service, severity="SEV9"))
    for _ in range(2):
        # Also at once again: what was looked at is given back.
        code, _, part = settled(opx, message_id)
        assert (code, part["outcome"], part["rejected"]["code"]) == (1, "rejected", "invalid-field")
    assert stack.depth("RejectedQueueUrl") == before + 1


def test_a_message_that_waits_is_left_alone_and_then_found(stack: Stack, opx: Opx, service: str) -> None:
    put(stack, "CandidatesQueueUrl", candidate(service, idempotencyKey=f"{service}:late"), DelaySeconds=HELD_BACK_S)
    code, found = opx("why", f"{service}:late")
    assert (code, found["parts"][0]["outcome"]) == (1, "waiting")
    assert found["waiting"]["candidates"] >= 1
    assert settled(opx, f"{service}:late")[0] == 0


def test_a_dead_letter_is_found_and_stays(stack: Stack, opx: Opx, service: str) -> None:
    put(stack, "CandidatesDlqUrl", candidate(service, idempotencyKey=f"{service}:dead"))
    try:
        code, found = opx("why", f"{service}:dead")
        assert (code, found["parts"][0]["deadLetter"]["queue"]) == (1, "candidates-dlq")
        assert stack.depth("CandidatesDlqUrl") == 1
    finally:
        stack.take("CandidatesDlqUrl", lambda message: service in message["Body"], 1, WITHIN_S)


def test_an_unknown_key_is_told_as_such_with_what_to_try(opx: Opx, service: str) -> None:
    code, found = opx("why", f"{service}:never")
    assert (code, found["parts"][0]["outcome"], found.get("notKnown")) == (1, "unknown", None)
    assert found["principals"] == ["yourself", "queue:alarms", "queue:alertmanager"]
    assert any("--message" in step for step in found["next"])


def test_the_board_shows_what_is_not_over(stack: Stack, opx: Opx, service: str) -> None:
    put(stack, "CandidatesQueueUrl", candidate(service, idempotencyKey=f"{service}:1"))
    assert settled(opx, f"{service}:1")[0] == 0
    code, board = opx("watch", "--once", "--service", service)
    (one,) = board["incidents"]
    assert (code, one["state"], one["lastEvidence"]["kind"]) == (0, "OPEN", "firing")
    assert one["stateSince"] == one["createdAt"]
