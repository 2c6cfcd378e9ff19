"""What a rejected message says of itself, that it can always be said, and how much of it is believed later."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import Code, Refusal, Rejected
from pipeline.runtime import shipped
from pipeline.services.ports import Message, RejectedMessage
from pipeline.services.rejection import PROVEN, ascii_text, explanation, origin, rejection
from pipeline.stores.queues import SqsRejectedQueue
from tests.bad_input_cases import TEN_ATTRIBUTES
from tests.simulation.world import START
from tests.support.doors import explanation_attribute, message

REGISTRY = shipped.registry("prod", "AROAREDRIVE")
REFUSAL = Refusal(Code.INVALID_FIELD, "It is wrong.", "title")
MESSAGE_BYTES_MAX = 1024 * 1024
INTAKE_QUEUE_BYTES_MAX = 393_216
# All that SQS takes in a message: tab, line ends, and XML 1.0's characters.
SENDABLE = st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters="\ufffe\uffff") | st.sampled_from("\t\n\r")


class Sqs:
    """AWS's side: keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    async def send_message(self, **request: Any) -> dict[str, Any]:
        self.sent.append(request)
        return {"MessageId": "m"}


def explained(given: Message, refusal: Refusal = REFUSAL) -> Document:
    return explanation(given, origin(given, REGISTRY), refusal)


async def as_sent(rejected: RejectedMessage) -> dict[str, Any]:
    sqs = Sqs()
    await SqsRejectedQueue(sqs, "https://sqs.us-east-1.amazonaws.com/123456789012/opx-rejected").reject(rejected)
    return sqs.sent[0]


def size_of(request: dict[str, Any]) -> int:
    """Return a message's size as SQS counts it: body, and each attribute's name, type and value."""
    size = len(request["MessageBody"].encode())
    for name, value in request["MessageAttributes"].items():
        size += len(name.encode()) + len(value["DataType"]) + len(value["StringValue"].encode())
    return size


# --- what it says -------------------------------------------------------------------------------------------------------


def test_an_explanation_says_why_from_whom_and_when() -> None:
    given = message("m-1", "{}", sender_id="AROADETECTOR:monitor-7", attributes=TEN_ATTRIBUTES)
    assert explained(given) == {
        "code": "invalid-field",
        "reason": "title: It is wrong. Correct the named field and send again.",
        "source": "candidates",
        "originalSenderId": "AROADETECTOR:monitor-7",
        "originalMessageId": "m-1",
        "originalSentAt": "2026-03-01T03:00:00.000000Z",
        "attributes": TEN_ATTRIBUTES,
    }


def test_a_sender_without_a_session_stays_without_one() -> None:
    assert explained(message("m", "{}", sender_id="AIDAUSER"))["originalSenderId"] == "AIDAUSER"


def test_an_explanation_that_a_sender_made_up_is_kept_as_what_it_is_an_attribute_of_the_sender() -> None:
    lie = explanation_attribute({"originalSenderId": "AROAOPERATOR:dana"})
    told = explained(message("m", "{}", attributes=lie))
    assert told["attributes"] == lie
    assert told["originalSenderId"] == "000000000000"


def test_a_message_rejected_again_after_a_redrive_keeps_its_first_attributes() -> None:
    first = explained(message("m", "{}", attributes={"team": {"dataType": "String", "stringValue": "carts"}}))
    again = message("m-2", "{}", sender_id="AROAREDRIVE:s", attributes=explanation_attribute(first))
    received = Received(Sender("000000000000"), "m", again.sent_at)
    assert explanation(again, received, Refusal(Code.INVALID_FIELD, "x"))["attributes"] == first["attributes"]


@given(st.text())
def test_a_reason_is_at_most_512_bytes_of_ascii(text: str) -> None:
    reason = ascii_text(text)
    assert reason.isascii()
    assert len(reason) <= 512
    assert text[:10].encode("ascii", "backslashreplace").decode().startswith(reason[:10])


@pytest.mark.parametrize("text", ["x" * 513, "é" * 200, "😀" * 5000], ids=["one over", "escapes", "long"])
def test_a_long_reason_is_cut(text: str) -> None:
    assert len(ascii_text(text)) == 512
    assert len(explained(message("m", "{}"), replace(REFUSAL, detail=text))["reason"]) == 512


async def test_the_body_is_sent_byte_for_byte_beside_one_attribute() -> None:
    body = 'not json: "Größe", tab\t, line\n, 😀, \x7f'
    given = message("m", body, attributes=TEN_ATTRIBUTES)
    sent = await as_sent(rejection(given, origin(given, REGISTRY), REFUSAL))
    assert sent["MessageBody"] == body
    assert list(sent["MessageAttributes"]) == ["opx"]
    assert json.loads(sent["MessageAttributes"]["opx"]["StringValue"])["attributes"] == TEN_ATTRIBUTES


@settings(max_examples=200)
@given(st.text(SENDABLE, min_size=1))
async def test_what_a_sender_wrote_can_be_said_and_comes_back(text: str) -> None:
    given = message("m", "{}", attributes={"a": {"dataType": "String", "stringValue": text}})
    sent = await as_sent(rejection(given, origin(given, REGISTRY), REFUSAL))
    value = sent["MessageAttributes"]["opx"]["StringValue"]
    assert json.loads(value)["attributes"]["a"]["stringValue"] == text
    assert all(char in "\t\n\r" or char >= " " for char in value), "no control character, or SQS refuses it"


@pytest.mark.parametrize(
    "char", ["a", '"', "\\", "\n", "\t", "\x7f", "\x85", "é", "\u2028", "漢", "\ufffd", "😀"], ids=ascii
)
async def test_an_explanation_grows_its_text_at_most_twofold(char: str) -> None:
    """The largest message an intake queue takes must fit into the rejected queue, or it comes back until it is dead."""
    text = char * (INTAKE_QUEUE_BYTES_MAX // len(char.encode()))
    given = message("m", "{}", attributes={"a": {"dataType": "String", "stringValue": text}})
    sent = await as_sent(rejection(given, origin(given, REGISTRY), REFUSAL))
    assert size_of(sent) <= MESSAGE_BYTES_MAX
    assert size_of(sent) <= 2 * len(text.encode()) + 2048


# --- what is believed ---------------------------------------------------------------------------------------------------


def redriven(told: Document, by: str = "AROAREDRIVE:session") -> Message:
    return message("again", "{}", sender_id=by, attributes=explanation_attribute(told))


@pytest.mark.parametrize("sender_id", ["AROADETECTOR:monitor-7", "AIDAUSER", "AROAX:a:b"])
def test_an_origin_comes_back_from_its_explanation(sender_id: str) -> None:
    first = message("m-1", "{}", sender_id=sender_id)
    assert origin(redriven(explained(first)), REGISTRY) == origin(first, REGISTRY)


@pytest.mark.parametrize("queue", PROVEN)
def test_a_message_redriven_from_a_queue_that_proves_its_sender_keeps_that_sender(queue: str) -> None:
    first = message("m-1", "{}", sender_id="AIDAOFASERVICE", source=queue)
    assert origin(redriven(explained(first)), REGISTRY) == Received(Sender(f"queue:{queue}"), "m-1", START)


@pytest.mark.parametrize("queue", PROVEN)
@pytest.mark.parametrize("by", ["AROAREDRIVE:session", "AIDAOFASERVICE", ""])
def test_what_a_message_there_says_of_its_sender_is_not_believed(queue: str, by: str) -> None:
    """SNS hands a publisher's attributes on as the message's own: anybody who may publish can write one named opx."""
    told = explained(message("m-1", "{}", sender_id="AROAOPERATOR:dana"))
    lie = message("m-2", "{}", sender_id=by, source=queue, attributes=explanation_attribute(told))
    assert origin(lie, REGISTRY) == Received(Sender(f"queue:{queue}"), "m-2", START)


@pytest.mark.parametrize("queue", PROVEN)
def test_the_shipped_registry_lets_a_queue_that_proves_its_sender_report_and_nothing_else(queue: str) -> None:
    entries = REGISTRY.of(Sender(f"queue:{queue}"))
    assert [entry.operations for entry in entries] == [("candidate",)]
    assert not REGISTRY.believes(Sender(f"queue:{queue}"))


def test_a_message_redriven_twice_is_still_its_first_senders() -> None:
    first = message("m-1", "{}", sender_id="AROADETECTOR:monitor-7")
    twice = redriven(explained(redriven(explained(first))))
    assert origin(twice, REGISTRY) == origin(first, REGISTRY)


@pytest.mark.parametrize(
    "by", ["AROADETECTOR:monitor-7", "AROAREDRIVER:x", "aroaredrive:x", "X:AROAREDRIVE", "queue:alarms"]
)
def test_nobody_but_the_redrive_role_is_believed(by: str) -> None:
    told = explained(message("m-1", "{}", sender_id="AROAOPERATOR:dana"))
    given = redriven(told, by)
    principal, _, session = by.partition(":")
    assert origin(given, REGISTRY) == Received(Sender(principal, session), "again", START)


def test_without_a_redrive_role_its_claim_is_not_believed() -> None:
    told = explained(message("m-1", "{}", sender_id="AROAOPERATOR:dana"))
    assert origin(redriven(told), shipped.registry("prod")).sender == Sender("AROAREDRIVE", "session")


def test_the_redrive_roles_own_message_is_its_own() -> None:
    given = replace(redriven({}), attributes={})
    assert origin(given, REGISTRY).sender == Sender("AROAREDRIVE", "session")


GOOD = {"originalSenderId": "A:s", "originalMessageId": "m", "originalSentAt": format_time(START)}
UNBELIEVABLE: dict[str, Any] = {
    "nothing": {},
    "no sender": {name: value for name, value in GOOD.items() if name != "originalSenderId"},
    "an empty sender": GOOD | {"originalSenderId": ""},
    "a sender of blanks": GOOD | {"originalSenderId": "  :s"},
    "no message": {name: value for name, value in GOOD.items() if name != "originalMessageId"},
    "an empty message": GOOD | {"originalMessageId": ""},
    "no time": {name: value for name, value in GOOD.items() if name != "originalSentAt"},
    "a time without zone": GOOD | {"originalSentAt": "2026-03-01T03:00:00"},
}


@pytest.mark.parametrize("told", UNBELIEVABLE.values(), ids=UNBELIEVABLE.keys())
def test_a_redriven_message_that_does_not_say_whose_it_was_is_refused(told: Document) -> None:
    with pytest.raises(Rejected) as refused:
        origin(redriven(told), REGISTRY)
    assert refused.value.refusal.field == "opx"
    assert refused.value.refusal.code is Code.INVALID_FIELD


@pytest.mark.parametrize(
    "attribute", [{"stringValue": "not json"}, {"binaryValue": "AAEC"}, {"stringValue": "[]"}], ids=repr
)
def test_an_attribute_that_is_no_explanation_is_refused(attribute: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        origin(replace(redriven({}), attributes={"opx": attribute}), REGISTRY)
