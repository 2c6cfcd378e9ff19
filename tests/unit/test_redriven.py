"""Whose word counts behind a queue's door: the signer's, the queue's own, or the first sender's of what is redriven."""

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.authority import Registry
from pipeline.domain.candidates import Received
from pipeline.domain.errors import Code, Refusal
from pipeline.domain.ids import incident_id, receipt_id
from pipeline.runtime.records import messages_of
from pipeline.services.ports import Message
from pipeline.services.rejection import explanation
from tests.simulation.world import START
from tests.support.bodies import alarm_body, candidate_body, declare_body
from tests.support.doors import Doors, command_message, explanation_attribute, message
from tests.support.histories import ROOT
from tests.support.registry import ALARMS, DETECTOR, OPERATOR, entry, registry


def about(service: str, **fields: Any) -> dict[str, Any]:
    return candidate_body(service=service, **fields)


REDRIVE = "AROAREDRIVE"


def redriven_by(role: str) -> Registry:
    """Return the registry of a stack whose redrive role has this unique id."""
    return registry(
        entry("detectors", DETECTOR.principal, ALARMS.principal),
        entry("operators", OPERATOR.principal, kinds="HUMAN", operations=["declare", "change-state"], sessionIsPerson=True),
        entry("redrive", "$redriveRole", operations=["redrive"], speaksForSenders=True),
        redriveRole=role,
    )


KNOWN = redriven_by(REDRIVE)


def original(**fields: Any) -> Message:
    """A detector's message without a key of its own: its receipt's key is the message's id."""
    return message("original", about("light"), **({"sender_id": "AROADETECTOR:monitor-7"} | fields))


async def redriven(doors: Doors, by: str) -> Message:
    """Return the message as it comes again from the rejected queue, sent by `by`, with a new id and a later time."""
    doors.rejected.messages.clear()
    await doors.offer(replace(original(), body="not json"))
    told = doors.rejected.messages[0].explanation
    later = START + timedelta(hours=3)
    return message("redriven", about("light"), sender_id=by, sent_at=later, attributes=explanation_attribute(told))


async def test_a_redriven_message_keeps_its_first_senders_authority_time_and_receipt() -> None:
    doors = Doors(registry=KNOWN)
    assert await doors.offer(await redriven(doors, f"{REDRIVE}:redrive-1")) == ()
    row = doors.memory.incidents[incident_id("light", "checkout-5xx", 1)]
    created = doors.memory.feed[0]
    assert created["actor"]["principal"] == "AROADETECTOR"
    assert created["actor"]["actorId"] == "monitor-7"
    assert created["metadata"]["observation"]["observedAt"] == "2026-03-01T03:00:00.000000Z"
    assert row["metadata"]["promotion"]["newestObservedAt"] == "2026-03-01T03:00:00.000000Z"
    assert set(doors.memory.receipts) == {receipt_id("AROADETECTOR", "message", "original")}


async def test_a_message_that_was_applied_and_is_redriven_changes_nothing() -> None:
    doors = Doors(registry=KNOWN)
    await doors.offer(original())
    history = len(doors.memory.feed)
    assert await doors.offer(await redriven(doors, f"{REDRIVE}:redrive-1")) == ()
    assert len(doors.memory.feed) == history


async def test_a_claim_to_be_redriven_is_believed_from_nobody_else() -> None:
    doors = Doors(registry=KNOWN)
    liar = await redriven(doors, "AROADETECTOR:monitor-9")
    told = dict(doors.rejected.messages[0].explanation) | {"originalSenderId": "AROAOPERATOR:dana@example.com"}
    assert await doors.offer(replace(liar, attributes=explanation_attribute(told))) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "AROADETECTOR"
    assert doors.memory.feed[0]["actor"]["actorId"] == "monitor-9"
    assert set(doors.memory.receipts) == {receipt_id("AROADETECTOR", "message", "redriven")}


IDENTITIES = {
    path.stem: json.loads(path.read_text("utf-8"))["sqsRecord"]
    for path in sorted((ROOT / "tests/data/identities").glob("*.json"))
    if json.loads(path.read_text("utf-8"))["sqsRecord"] is not None
}


def recorded(name: str) -> tuple[Message, str]:
    """Return what a recorded signer sends with a claim that it was a detector's, and who signed it."""
    told = explanation(original(), Received(DETECTOR, "original", START), Refusal(Code.MALFORMED_JSON, "why"))
    record = IDENTITIES[name] | {"messageAttributes": explanation_attribute(told)}
    (given,) = messages_of({"Records": [record]}, {}, "candidates")
    return given, str(record["attributes"]["SenderId"])


@pytest.mark.parametrize("name", IDENTITIES)
async def test_a_claim_is_believed_from_no_recorded_signer(name: str) -> None:
    doors = Doors(registry=KNOWN)
    given, signer = recorded(name)
    assert await doors.offer(given) == ()
    assert (doors.rejected.codes(), doors.memory.feed) == (["principal-unknown"], [])
    assert doors.rejected.messages[0].explanation["originalSenderId"] == signer
    assert "opx" in doors.rejected.messages[0].explanation["attributes"]


@pytest.mark.parametrize("name", ["role_session", "lambda_function"])
async def test_a_recorded_role_is_believed_where_it_is_the_stacks_redrive_role(name: str) -> None:
    given, signer = recorded(name)
    doors = Doors(registry=redriven_by(signer.partition(":")[0]))
    assert await doors.offer(given) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == DETECTOR.principal
    assert set(doors.memory.receipts) == {receipt_id(DETECTOR.principal, "message", "original")}


@pytest.mark.parametrize("name", ["recreated_role", "other_account"])
async def test_a_role_of_the_redrive_roles_name_is_not_the_redrive_role(name: str) -> None:
    """Made anew, or of another account: what counts is the unique id, not what it is called."""
    given, signer = recorded(name)
    doors = Doors(registry=redriven_by(IDENTITIES["role_session"]["attributes"]["SenderId"].partition(":")[0]))
    assert await doors.offer(given) == ()
    assert doors.rejected.messages[0].explanation["originalSenderId"] == signer
    assert doors.memory.feed == []


async def test_the_redrive_role_has_no_authority_of_its_own() -> None:
    doors = Doors(registry=KNOWN)
    assert await doors.offer(original(sender_id=f"{REDRIVE}:redrive-1")) == ()
    assert doors.rejected.codes() == ["operation-not-granted"]
    assert doors.memory.feed == []


async def test_a_redriven_command_is_still_its_persons() -> None:
    doors = Doors(registry=KNOWN)
    person = command_message("original", declare_body(), sender_id="AROAOPERATOR:dana@example.com")
    received = Received(OPERATOR, "original", START)
    doors.rejected.messages.clear()
    await doors.order(replace(person, body="not json"))
    told = doors.rejected.messages[0].explanation
    again = replace(person, message_id="redriven", sender_id=f"{REDRIVE}:x", attributes=explanation_attribute(told))
    assert await doors.order(again) == ()
    assert doors.memory.feed[0]["actor"] == {
        "authorityType": "HUMAN",
        "principal": received.sender.principal,
        "actorId": "dana@example.com",
    }


async def test_a_redriven_message_that_is_refused_again_still_names_its_first_sender() -> None:
    doors = Doors(registry=KNOWN)
    first = replace(original(), body="not json", attributes={"trace": {"dataType": "String", "stringValue": "t-1"}})
    await doors.offer(first)
    told = doors.rejected.messages.pop().explanation
    again = replace(first, message_id="m2", sender_id=f"{REDRIVE}:x", attributes=explanation_attribute(told))
    assert await doors.offer(again) == ()
    said = doors.rejected.messages[0].explanation
    assert (said["originalSenderId"], said["originalMessageId"]) == ("AROADETECTOR:monitor-7", "original")
    assert said["originalSentAt"] == "2026-03-01T03:00:00.000000Z"


async def test_on_the_alarms_queue_the_queue_is_the_sender() -> None:
    doors = Doors(registry=KNOWN)
    alarm = message("a", alarm_body(), sender_id="AIDAOFEVENTBRIDGE", source="alarms")
    assert await doors.offer(alarm) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "queue:alarms"
    assert await doors.offer(replace(alarm, message_id="b", source="candidates")) == ()
    assert doors.rejected.codes() == ["principal-unknown"], "on the candidates queue the same shape is its signer's"


async def test_an_explanation_on_the_alarms_queue_is_not_believed() -> None:
    doors = Doors(registry=KNOWN)
    told = explanation(original(), Received(OPERATOR, "m", START), Refusal(Code.MALFORMED_JSON, "why"))
    alarm = message("a", alarm_body(), sender_id=REDRIVE, source="alarms", attributes=explanation_attribute(told))
    assert await doors.offer(alarm) == ()
    assert doors.memory.feed[0]["actor"]["principal"] == "queue:alarms"
