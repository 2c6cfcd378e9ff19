"""Sent again, it has one effect: by which door ever, before and after the state moved on, applied or refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from botocore.session import Session

from pipeline.clients.signing import SigV4
from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.support.bodies import alarm_body
from tests.support.caller import CREATED, OPENED, WITHIN_S, Caller, refusal
from tests.support.notifications import alert, notification
from tests.support.signed import api_url
from tests.support.stack import told, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture
def key() -> str:
    return uuid4().hex


def minutes_ago(number: int) -> str:
    return (datetime.now(UTC) - timedelta(minutes=number)).isoformat()


def test_what_was_sent_by_the_queue_is_answered_to_the_api_as_done(caller: Caller, key: str) -> None:
    """A sender that does not know whether its message was taken asks by the other door."""
    incident = caller.declared()
    caller.order(incident, "add-note", note="seen", idempotencyKey=key)
    caller.waits_for(incident, CREATED, OPENED, "NoteAdded")
    again = caller.api.add_note(incident, "seen", idempotency_key=key)
    assert (again.replayed, again.answer) == (True, "applied")
    assert caller.types(incident).count("NoteAdded") == 1


def test_what_was_sent_by_the_api_is_done_for_the_queue_and_no_refusal(caller: Caller, key: str) -> None:
    incident = caller.declared()
    caller.api.mitigate(incident, idempotency_key=key)
    rejected = caller.stack.depth("RejectedQueueUrl")
    caller.order(incident, "change-state", newState="MITIGATING", idempotencyKey=key)
    caller.worked_off()
    assert caller.types(incident) == [CREATED, OPENED, "MitigationStarted"]
    assert caller.stack.depth("RejectedQueueUrl") == rejected


def test_a_key_of_the_queue_is_used_by_the_api_for_nothing_else(caller: Caller, key: str) -> None:
    incident = caller.declared()
    caller.order(incident, "add-note", note="seen", idempotencyKey=key)
    caller.waits_for(incident, CREATED, OPENED, "NoteAdded")
    with refusal() as problem:
        caller.api.add_note(incident, "something else", idempotency_key=key)
    assert (problem[0].status, problem[0].code) == (422, "key-reused")
    assert caller.types(incident).count("NoteAdded") == 1


def test_a_key_of_the_api_used_by_the_queue_for_something_else_is_rejected_with_its_body(caller: Caller, key: str) -> None:
    incident = caller.declared()
    caller.api.add_note(incident, "seen", idempotency_key=key)
    caller.order(incident, "add-note", note="something else", idempotencyKey=key)
    (kept,) = caller.stack.take("RejectedQueueUrl", lambda message: key in message["Body"], 1, WITHIN_S)
    assert told(kept)["code"] == "key-reused"
    assert json.loads(kept["Body"])["note"] == "something else"
    assert caller.types(incident).count("NoteAdded") == 1


def test_an_answer_stays_the_first_however_far_the_incident_has_moved(caller: Caller, key: str) -> None:
    incident = caller.declared()
    first = caller.api.mitigate(incident, idempotency_key=key)
    caller.api.resolve(incident, "rolled back")
    caller.api.close_incident(incident, "reviewed")
    again = caller.api.mitigate(incident, idempotency_key=key)
    assert (again.replayed, again.document) == (True, first.document)
    assert caller.api.incident(incident).state == "CLOSED"


def test_a_refusal_stays_the_answer_though_the_step_would_be_legal_now(caller: Caller, key: str) -> None:
    incident = caller.declared()
    told_twice = []
    for _ in range(2):
        with refusal() as problem:
            caller.api.resolve(incident, "rolled back", idempotency_key=key)
        told_twice += problem
        caller.api.change_state(incident, "MITIGATING", idempotency_key=f"{key}-mitigated")
    assert [(one.status, one.code, one.state) for one in told_twice] == [(409, "transition-illegal", "OPEN")] * 2
    assert caller.api.resolve(incident, "rolled back").state == "RESOLVED"


def test_what_was_refused_for_an_incident_unknown_may_succeed_under_its_key_later(caller: Caller, key: str) -> None:
    incident = caller.report(dedup_key="later", severity="SEV3")
    caller.waits_for(incident, CREATED, OPENED)
    unknown = f"ffffffff-ffff-4fff-8fff-{key[:12]}"
    with refusal() as problem:
        caller.api.add_note(unknown, "seen", idempotency_key=key)
    assert (problem[0].status, caller.api.receipt(key)) == (404, None)
    assert not caller.api.add_note(incident, "seen", idempotency_key=key).replayed


def test_a_request_without_key_and_version_says_that_it_is_not_protected_and_is_not(caller: Caller) -> None:
    """By somebody else's client: ours gives every write a key."""
    incident = caller.declared()
    session = Session()
    session.set_credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
    path = f"{api_url(caller.stack)}/incidents/{incident}/notes"
    with httpx.Client(auth=SigV4(REGION, session), trust_env=False, timeout=60) as http:
        answers = [http.post(path, json={"note": "seen", "authority": "HUMAN"}).json() for _ in range(2)]
    assert [answer["retrySafe"] for answer in answers] == [False, False]
    assert caller.types(incident).count("NoteAdded") == 2


def test_a_candidate_that_says_when_is_one_however_often_it_is_sent(caller: Caller) -> None:
    observed = minutes_ago(2)
    for _ in range(3):
        incident = caller.report(observedAt=observed)
    caller.waits_for(incident, CREATED, OPENED)
    caller.worked_off()
    assert caller.types(incident) == [CREATED, OPENED]


def test_a_candidate_under_its_senders_key_is_one_and_its_receipt_tells(caller: Caller, key: str) -> None:
    for _ in range(2):
        incident = caller.report(idempotencyKey=key)
        caller.waits_for(incident, CREATED, OPENED)
    caller.worked_off()
    assert caller.types(incident) == [CREATED, OPENED]
    receipt = caller.api.receipt(key)
    assert receipt is not None
    assert (receipt.outcome, receipt.incident_id, receipt.operation) == ("applied", incident, "candidate")


def test_a_candidate_without_key_and_time_is_another_each_time_it_is_sent(caller: Caller) -> None:
    incident = caller.report()
    caller.waits_for(incident, CREATED, OPENED)
    caller.report()
    caller.waits_for(incident, CREATED, OPENED, "EvidenceAttached")


def test_an_alarms_event_is_one_under_its_own_id(caller: Caller) -> None:
    mapping = json.dumps({"service": caller.service, "severity": "SEV2"})
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "+0000")
    names: dict[str, Any] = {"name": f"{caller.service}-errors", "timestamp": at, "description": mapping}
    for event_id in (f"{caller.service}-1", f"{caller.service}-1", f"{caller.service}-2"):
        caller.put("CandidatesQueueUrl", alarm_body(event_id=event_id, **names))
        caller.worked_off()
    (found,) = caller.api.incidents(service=caller.service)
    assert caller.types(found.incident_id) == [CREATED, OPENED, "EvidenceAttached"]


def test_an_alert_is_one_however_often_alertmanager_repeats_it(caller: Caller) -> None:
    sns, topic = caller.stack.client("sns"), caller.stack.outputs["AlertmanagerTopicArn"]
    started = minutes_ago(3).replace("+00:00", "Z")
    firing = alert(labels={"service": caller.service}, startsAt=started, fingerprint=caller.service[-12:])
    for text in ("red", "still red"):
        sns.publish(TopicArn=topic, Message=json.dumps(notification(firing | {"annotations": {"summary": text}})))
        wait_until(lambda: bool(list(caller.api.incidents(service=caller.service))), WITHIN_S)
        caller.worked_off()
    (found,) = caller.api.incidents(service=caller.service)
    assert caller.types(found.incident_id) == [CREATED, OPENED]
