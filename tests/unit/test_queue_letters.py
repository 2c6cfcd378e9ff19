"""Why a message lies where it lies, as far as it says so itself; and what would become of it if it came again."""

import json
from typing import Any

import pytest

from pipeline.cli.outbox import Queue
from pipeline.cli.queue_letters import DIED, UNDELIVERED, UNEXPLAINED, Letter
from pipeline.cli.queue_rehearsal import CRASH, Fate, Rehearsal
from pipeline.domain.canonical import parse_document
from pipeline.domain.errors import Code, Refusal, Rejected, Unavailable
from pipeline.domain.ids import incident_id
from pipeline.runtime import shipped
from pipeline.services.rejection import explanation, origin
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import alarm_body, candidate_body, command_body, declare_body
from tests.support.doors import Doors, command_message, message
from tests.support.letterbox import DOOR, Letterbox

ROLE = "AROAREDRIVE"
KNOWN = shipped.registry("local", ROLE)
ACCOUNT = "000000000000"


def letter(queue: str, body: Any, **fields: Any) -> Letter:
    return Letter.of(queue, Letterbox().put(queue, body, **({"sender": ACCOUNT} | fields)).to_sqs())


def rejected(code: str = "policy-unknown", body: Any = None, **told: Any) -> Letter:
    explained = {"code": code, "reason": "why", "source": "candidates", "originalSenderId": ACCOUNT}
    explained |= {"originalMessageId": "first", "originalSentAt": "2026-03-01T03:00:00.000000Z"} | told
    attributes = {"opx": {"DataType": "String", "StringValue": json.dumps(explained)}}
    return letter("rejected", body or candidate_body(), sender=DOOR, attributes=attributes)


def text(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


# --- why ----------------------------------------------------------------------------------------------------------------


def test_a_rejected_message_says_why_itself() -> None:
    assert rejected().trouble() == ("policy-unknown", "why")
    assert letter("rejected", "{}").trouble() == (UNEXPLAINED, "It doesn't say why.")


@pytest.mark.parametrize(
    ("queue", "attributes", "code", "said"),
    [
        ("candidates-dlq", {}, DIED, "never settled"),
        ("alarms-dlq", {"ERROR_CODE": text("NO_PERMISSIONS"), "ERROR_MESSAGE": text("m")}, UNDELIVERED, "NO_PERMISSIONS: m"),
        ("alertmanager-dlq", {"ErrorCode": text("ClientError"), "ErrorMessage": text("x")}, UNDELIVERED, "ClientError: x"),
        ("webhook-dlq", {"ERROR_CODE": text("SDK_CLIENT_ERROR")}, UNDELIVERED, "SDK_CLIENT_ERROR"),
    ],
)
def test_a_dead_message_died_or_was_never_delivered(queue: str, attributes: Any, code: str, said: str) -> None:
    found = letter(queue, "{}", attributes=attributes).trouble()
    assert found[0] == code
    assert said in found[1]


def test_a_fan_out_failure_names_its_event_or_the_records_that_were_given_up() -> None:
    told = {"incidentId": "i", "sequence": 3, "error": "TooLarge", "detail": "too large"}
    assert letter("fanout-failures", told).trouble() == ("TooLarge", "Event 3 of incident i: too large")
    given_up = {"requestContext": {"condition": "RetryAttemptsExhausted"}, "DDBStreamBatchInfo": {"batchSize": 7}}
    code, said = letter("fanout-failures", given_up).trouble()
    assert (code, "7 records" in said) == ("RetryAttemptsExhausted", True)
    for odd in ("torn", "[]", {"requestContext": 1, "DDBStreamBatchInfo": []}):
        assert letter("fanout-failures", odd).trouble()[0] == "unpublished"


def test_attributes_come_as_a_function_gets_them() -> None:
    attributes = {"s": text("x"), "b": {"DataType": "Binary", "BinaryValue": b"\x00\x01"}}
    found = letter("candidates-dlq", "{}", attributes=attributes).message.attributes
    assert found == {
        "s": {"dataType": "String", "stringValue": "x"},
        "b": {"dataType": "Binary", "binaryValue": "AAE="},
    }


def test_only_messages_for_a_door_can_be_sent_in_again() -> None:
    queues = {
        "rejected",
        "candidates-dlq",
        "alarms-dlq",
        "alertmanager-dlq",
        "commands-dlq",
        "fanout-failures",
        "webhook-dlq",
    }
    redrivable = {queue for queue in queues if letter(queue, "{}").is_redrivable}
    assert queues - redrivable == {"fanout-failures", "webhook-dlq"}
    to_commands = {queue for queue in redrivable if letter(queue, "{}").destination is Queue.COMMANDS}
    assert to_commands == {"commands-dlq"}
    assert rejected(source="commands").destination is Queue.COMMANDS
    assert rejected(source="alarms", originalSenderId="queue:alarms").destination is Queue.CANDIDATES


# --- whose --------------------------------------------------------------------------------------------------------------


def test_what_a_redrive_says_of_a_rejected_message_is_what_stands_there_to_the_letter() -> None:
    found = rejected(attributes={"a": {"dataType": "String", "stringValue": "ü"}})
    assert found.claim(KNOWN) == found.message.attributes["opx"]["stringValue"]


def test_what_a_redrive_says_of_a_dead_message_is_believed_as_its_first_senders() -> None:
    dead = letter("commands-dlq", declare_body(), sender="AROAOPERATOR:dana", group="g", message_id="first")
    told = message("again", "{}", sender_id=f"{ROLE}:x", attributes={"opx": {"stringValue": dead.claim(KNOWN)}})
    assert origin(told, KNOWN) == dead.received(KNOWN)
    assert (dead.received(KNOWN).sender.principal, dead.received(KNOWN).message_id) == ("AROAOPERATOR", "first")


def test_nobody_is_spoken_for_where_the_stack_has_no_role_for_it() -> None:
    with pytest.raises(Rejected, match="no role"):
        rejected().received(shipped.registry("prod"))


# --- what would become of it --------------------------------------------------------------------------------------------


async def fate(found: Letter, store: Any = None) -> tuple[Fate, str]:
    verdict = await Rehearsal(KNOWN, store=store).of(found)
    return verdict.fate, verdict.code


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (candidate_body(), (Fate.APPLIED, "")),
        (candidate_body(policyId="no-such"), (Fate.REFUSED, "policy-unknown")),
        (candidate_body(severity="SEV9"), (Fate.REFUSED, "invalid-field")),
        ("torn {", (Fate.REFUSED, "malformed-json")),
        ("[" * 5000, (Fate.REFUSED, "malformed-json")),
    ],
    ids=["good", "unknown policy", "wrong field", "no JSON", "nested"],
)
async def test_a_dead_candidate_is_read_as_its_door_would_read_it(body: Any, expected: tuple[Fate, str]) -> None:
    store = MemoryStore()
    found = letter("candidates-dlq", body)
    verdict = await Rehearsal(KNOWN, store=store).of(found)
    assert (verdict.fate, verdict.code) == expected
    assert (store.feed, store.receipts) == ([], {}), "a rehearsal writes nothing"


async def test_whoever_is_still_a_stranger_would_be_refused_again() -> None:
    assert await fate(rejected(originalSenderId="AROASTRANGER:x")) == (Fate.REFUSED, "principal-unknown")


async def test_dead_alarms_are_read_as_the_alarms_queues() -> None:
    assert await fate(letter("alarms-dlq", alarm_body(), sender="AIDAOFEVENTBRIDGE")) == (Fate.APPLIED, "")


async def test_what_took_effect_has_taken_effect_already() -> None:
    doors = Doors(registry=KNOWN)
    await doors.offer(message("first", candidate_body()))
    assert await fate(rejected(), doors.memory) == (Fate.ALREADY, "")


async def test_a_command_is_tried_on_its_incident_as_it_is_now() -> None:
    doors = Doors(registry=KNOWN)
    await doors.offer(message("first", candidate_body()))
    target = incident_id("checkout", "checkout-5xx", 1)
    change = {"authority": {"authorityType": "HUMAN", "actorId": "dana"}, "idempotencyKey": "k"}
    early = command_body("change-state", target, newState="CLOSED", reason="done", **change)
    await doors.order(command_message("c", early))
    dead = letter(
        "commands-dlq", command_body("change-state", target, newState="MITIGATING", **change | {"idempotencyKey": "l"})
    )
    assert await fate(dead, doors.memory) == (Fate.APPLIED, "")
    # It left a receipt: whatever the state is by now, under its key it stays refused.
    assert await fate(letter("commands-dlq", early), doors.memory) == (Fate.REFUSED, "transition-illegal")
    strange = command_body("add-note", incident_id("x", "y", 1), note="n", authority=change["authority"])
    assert await fate(letter("commands-dlq", strange), doors.memory) == (Fate.REFUSED, "incident-unknown")


async def test_without_tables_a_command_is_only_read() -> None:
    assert await fate(letter("commands-dlq", declare_body(authority="HUMAN"))) == (Fate.UNKNOWN, "")
    assert await fate(letter("commands-dlq", declare_body(severity="SEV9"))) == (Fate.REFUSED, "invalid-field")


class Broken(MemoryStore):
    """A store in which something brings out a defect, or which can't be reached."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def load_receipt(self, receipt_id: str) -> Any:
        raise self.error


@pytest.mark.parametrize(("error", "code"), [(TypeError("a defect"), CRASH), (Unavailable("AccessDenied"), "")])
async def test_what_can_not_be_tried_out_is_said_to_be_unknown(error: Exception, code: str) -> None:
    for found in (letter("candidates-dlq", candidate_body()), letter("commands-dlq", declare_body(authority="HUMAN"))):
        verdict = await Rehearsal(KNOWN, store=Broken(error)).of(found)
        assert (verdict.fate, verdict.code) == (Fate.UNKNOWN, code)


async def test_a_dead_message_lies_under_the_code_by_which_it_would_be_refused() -> None:
    rehearsal = Rehearsal(KNOWN, store=MemoryStore())
    assert (await rehearsal.told(letter("candidates-dlq", "torn"))).code == "malformed-json"
    assert (await rehearsal.told(letter("candidates-dlq", candidate_body()))).code == DIED
    assert (await rehearsal.told(rejected("authority-unclear"))).verdict is None
    again = await rehearsal.told(rejected("authority-unclear"), always=True)
    assert (again.code, again.is_refused) == ("authority-unclear", False)
    assert parse_document(json.dumps(again.to_document()))["rehearsed"] == {"fate": "would be applied"}


def test_what_a_door_explains_and_what_a_redrive_claims_are_one_format() -> None:
    given = message("m", "{}", sender_id="AROADETECTOR:m")
    told = explanation(given, origin(given, KNOWN), Refusal(Code.INVALID_FIELD, "why"))
    dead = letter("candidates-dlq", "{}", sender="AROADETECTOR:m", message_id="m")
    assert parse_document(dead.claim(KNOWN)).keys() == told.keys() - {"code", "reason"}
