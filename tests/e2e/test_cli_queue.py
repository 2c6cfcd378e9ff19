"""What was refused or died, on the deployed stack: told with its reason, sent in again, and one effect however often."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from pipeline.cli.counting import url_of
from pipeline.cli.main import app
from pipeline.cli.outbox import Queue
from pipeline.cli.queue import registry_of
from pipeline.cli.queue_letters import Letter
from pipeline.cli.queue_redrive import HIDDEN_S, Redriver, Terms
from pipeline.cli.session import Around, session_at
from pipeline.cli.target import Selection, local_target
from pipeline.cli.terminal import Screen
from pipeline.domain.errors import Unavailable
from pipeline.domain.ids import incident_id
from pipeline.runtime.clock import SystemClock
from tests.support.command_line import console, text_of
from tests.support.engine_cli import Opx, calling, candidate, incident_of
from tests.support.stack import Stack, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.long]

ACCOUNT = "000000000000"
WITHIN_S = 20.0


@pytest.fixture
def opx(stack: Stack) -> Iterator[Opx]:
    """Call `opx` on queues in which nothing lies of other tests, before or after."""
    outputs = ("RejectedQueueUrl", "CandidatesDlqUrl", "CommandsDlqUrl")
    for output in outputs:
        stack.client("sqs").purge_queue(QueueUrl=stack.outputs[output])
    yield calling(stack)
    for output in outputs:
        stack.client("sqs").purge_queue(QueueUrl=stack.outputs[output])


@pytest.fixture
def service() -> str:
    return f"queue-{uuid4().hex[:12]}"


def note(service: str, text: str = "Paged the team.") -> dict[str, Any]:
    """Return a command without a key of its own: its receipt is kept under the message's id."""
    about = {"incidentId": incident_id(service, "slow", 1), "note": text}
    return {"type": "add-note", "authority": {"authorityType": "HUMAN", "actorId": "dana"}} | about


def notes(opx: Opx, service: str) -> list[dict[str, Any]]:
    _, events, _ = opx("open", incident_of(opx, service)["incidentId"], "--events")
    return [event for event in events if event["eventType"] == "NoteAdded"]


def send_note(stack: Stack, service: str, queue: str = "CommandsQueueUrl", text: str = "Paged the team.") -> str:
    body = json.dumps(note(service, text))
    sent = stack.client("sqs").send_message(
        QueueUrl=stack.outputs[queue],
        MessageBody=body,
        MessageGroupId=incident_id(service, "slow", 1),
        MessageDeduplicationId=uuid4().hex,
    )
    return str(sent["MessageId"])


def is_settled(stack: Stack) -> bool:
    return stack.depth("CommandsQueueUrl") == 0 and stack.depth("CandidatesQueueUrl") == 0


def test_what_was_refused_is_mended_redriven_and_takes_effect_once(stack: Stack, opx: Opx, service: str) -> None:
    first_id = send_note(stack, service)
    wait_until(lambda: stack.depth("RejectedQueueUrl") == 1, WITHIN_S)
    code, shown, _ = opx("queue", "show", "rejected")
    assert (code, shown[0]["code"], shown[0]["originalMessageId"]) == (0, "incident-unknown", first_id)
    code, tried, _ = opx("queue", "redrive", "rejected", "--all", "--dry-run")
    assert (code, tried[0]["rehearsed"]["code"]) == (1, "incident-unknown")
    copy = stack.take("RejectedQueueUrl", lambda message: True, 1, WITHIN_S)[0]
    assert opx("send", "--wait", "--json-body", candidate(service))[0] == 0

    for _ in range(2):
        # The second time as if the first had died before it could delete.
        stack.client("sqs").send_message(
            QueueUrl=stack.outputs["RejectedQueueUrl"],
            MessageBody=copy["Body"],
            MessageAttributes={"opx": {key: copy["MessageAttributes"]["opx"][key] for key in ("StringValue", "DataType")}},
        )
        code, told, _ = opx("queue", "redrive", "rejected", "--code", "incident-unknown", "--yes")
        assert (code, told[0]["redriven"], told[0]["to"]) == (0, 1, {"commands": 1})
        wait_until(lambda: is_settled(stack), WITHIN_S)
    (event,) = notes(opx, service)
    assert event["actor"]["actorId"] == "dana"
    rows = [row for row in stack.rows("IdempotencyTableName") if "idempotencyKey" in row]
    kept = [(row["principal"]["S"], row["keyKind"]["S"]) for row in rows if row["idempotencyKey"]["S"] == first_id]
    assert kept == [(ACCOUNT, "message")], "the receipt is the first message's, whoever sent it again"
    assert stack.depth("RejectedQueueUrl") == 0


async def run_that_dies(stack: Stack) -> None:
    async with session_at(local_target(Selection(state_dir=stack.engine.state_dir)), "sqs") as session:

        async def code_of(letter: Letter) -> str:
            return letter.trouble()[0]

        terms = Terms(code_of, lambda letter, code: True, limit=1, rate=50, depth=1)
        urls = {queue: url_of(session, queue.value) for queue in (Queue.CANDIDATES, Queue.COMMANDS)}
        at, known = url_of(session, "commands-dlq"), registry_of(session, "local", None)
        await Redriver(Dying(session.clients.sqs), "commands-dlq", at, urls, known, terms, SystemClock()).run()


def test_a_run_that_dies_between_sending_and_deleting_is_repeated_without_a_second_effect(
    stack: Stack, opx: Opx, service: str
) -> None:
    assert opx("send", "--wait", "--json-body", candidate(service))[0] == 0
    send_note(stack, service, "CommandsDlqUrl")
    with pytest.raises(Unavailable):
        asyncio.run(run_that_dies(stack))
    wait_until(lambda: is_settled(stack), WITHIN_S)
    assert stack.depth("CommandsDlqUrl") == 1
    code, told, _ = opx("queue", "redrive", "commands-dlq", "--all", "--yes")
    assert (code, told[0]["redriven"]) == (0, 1)
    wait_until(lambda: is_settled(stack), WITHIN_S)
    assert len(notes(opx, service)) == 1
    assert stack.depth("CommandsDlqUrl") == 0


def test_what_a_killed_run_holds_is_no_success_and_says_when_to_come_again(stack: Stack, opx: Opx, service: str) -> None:
    sqs, at = stack.client("sqs"), stack.outputs["CandidatesDlqUrl"]
    sqs.send_message(QueueUrl=at, MessageBody=candidate(service))
    taken = sqs.receive_message(QueueUrl=at, VisibilityTimeout=HIDDEN_S, WaitTimeSeconds=5)["Messages"]
    code, told, _ = opx("queue", "redrive", "candidates-dlq", "--all", "--yes")
    assert (code, told[0]["redriven"], told[0]["unseen"], told[0]["seenAgainWithinS"]) == (2, 0, 1, HIDDEN_S)
    code, _, err = opx("queue", "redrive", "candidates-dlq", "--all", "--dry-run")
    assert (code, "seen again within 5 minutes" in str(err)) == (2, True)
    sqs.change_message_visibility(QueueUrl=at, ReceiptHandle=taken[0]["ReceiptHandle"], VisibilityTimeout=0)
    assert opx("queue", "redrive", "candidates-dlq", "--all", "--yes")[0] == 0


class Dying:
    """SQS, until something is to be deleted."""

    def __init__(self, sqs: Any) -> None:
        self.sqs = sqs

    def __getattr__(self, name: str) -> Any:
        if name == "delete_message_batch":
            raise Unavailable("the process is gone")
        return getattr(self.sqs, name)


def test_dead_commands_come_back_in_their_order(stack: Stack, opx: Opx, service: str) -> None:
    assert opx("send", "--wait", "--json-body", candidate(service))[0] == 0
    for number in range(12):
        send_note(stack, service, "CommandsDlqUrl", f"note {number}")
    code, told, _ = opx("queue", "redrive", "commands-dlq", "--all", "--yes")
    assert (code, told[0]["redriven"], told[0]["unseen"]) == (0, 12, 0)
    wait_until(lambda: is_settled(stack), WITHIN_S)
    assert [event["metadata"]["note"] for event in notes(opx, service)] == [f"note {number}" for number in range(12)]


def test_every_queue_is_told_of_with_why_it_is_not_empty(stack: Stack, opx: Opx, service: str) -> None:
    sqs = stack.client("sqs")
    for body in (candidate(service), candidate(service, policyId="no-such"), "torn {"):
        sqs.send_message(QueueUrl=stack.outputs["CandidatesDlqUrl"], MessageBody=body)
    code, told, _ = opx("queue", "list")
    heaps = {heap["queue"]: heap for heap in told}
    assert code == 0
    assert heaps["candidates-dlq"]["codes"] == {"died": 1, "policy-unknown": 1, "malformed-json": 1}
    assert (heaps["rejected"]["messages"], heaps["rejected"]["codes"]) == (0, {})
    assert heaps.keys() >= {"rejected", "alarms-dlq", "alertmanager-dlq", "commands-dlq", "fanout-failures"}
    code, shown, _ = opx("queue", "show", "candidates-dlq", "--service", service, "--code", "died")
    assert (code, [one["rehearsed"]["fate"] for one in shown]) == (0, ["would be applied"])
    code, redriven, _ = opx("queue", "redrive", "candidates-dlq", "--message", shown[0]["messageId"], "--yes")
    assert (code, redriven[0]["redriven"]) == (0, 1)
    assert incident_of(opx, service)["state"] == "OPEN"
    assert stack.depth("CandidatesDlqUrl") == 2


@pytest.mark.parametrize(
    ("arguments", "then"),
    [
        (["show", "candidates"], "opx status"),
        (["show", "no-such"], "opx queue list"),
        (["redrive", "rejected"], "opx queue show rejected"),
        (["redrive", "fanout-failures", "--all"], "opx republish --failures"),
    ],
)
def test_what_is_not_for_looking_or_redriving_is_refused_with_what_to_do(opx: Opx, arguments: list[str], then: str) -> None:
    code, out, err = opx("queue", *arguments)
    assert (code, out) == (1, [])
    words = err[0]["next"].split(" --state-dir ")
    assert " ".join([words[0], *words[1].split()[1:]]).strip() == then


def test_nothing_is_sent_unless_it_was_said_or_answered(stack: Stack, opx: Opx, service: str) -> None:
    stack.client("sqs").send_message(QueueUrl=stack.outputs["CandidatesDlqUrl"], MessageBody=candidate(service))
    code, told, _ = opx("queue", "redrive", "candidates-dlq", "--all")
    assert (code, [one["rehearsed"]["fate"] for one in told]) == (0, ["would be applied"])
    asked: list[str] = []

    def answered(answer: bool) -> str:
        def ask(question: str) -> bool:
            asked.append(question)
            return answer

        shown = Screen(False, console(80), console(80))
        arguments = ["--state-dir", str(stack.engine.state_dir), "queue", "redrive", "candidates-dlq", "--all"]
        assert CliRunner().invoke(app, arguments, obj=Around(ask=ask, screen=shown)).exit_code == 0
        return text_of(shown.out)

    assert "Nothing was changed" in answered(False)
    assert (stack.depth("CandidatesDlqUrl"), opx("list", "--service", service)[1]) == (1, [])
    assert "1 message: 1 to candidates" in answered(True)
    assert asked == ["Send 1 message of candidates-dlq in again?"] * 2
    assert incident_of(opx, service)["state"] == "OPEN"
