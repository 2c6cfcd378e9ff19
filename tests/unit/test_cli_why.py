"""`opx why`: each ending a message can have, told with what was found and with what could not be looked at."""

import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from pipeline.cli.asked import asked_as_said, names_of
from pipeline.cli.counting import QUEUES
from pipeline.cli.following import Ending, Findings
from pipeline.cli.peeking import unpublished
from pipeline.cli.story import NEVER_READ_BACK, document, next_steps, tell
from pipeline.cli.terminal import Screen
from pipeline.clients.answers import ApiRefused
from pipeline.domain.canonical import normalise
from pipeline.domain.errors import Code
from pipeline.domain.rules import Rules
from pipeline.services.decision import View
from tests.support.bodies import alarm_body, candidate_body, command_body
from tests.support.command_line import CommandLine
from tests.support.notifications import alert, notification
from tests.support.places import MemorySqs, Place
from tests.support.registry import ALARMS, DETECTOR, OPERATOR, STRANGER
from tests.support.world import DEADLINE, applied, refused

RULE: Final = {
    "ruleId": "errors",
    "version": 1,
    "match": {"signalTypes": ["http-5xx"]},
    "windowS": 21600,
    "threshold": {"detections": 2},
    "confidence": 0.9,
    "title": "Too many errors of {service}",
}
DETECTION: Final = {"type": "detection", "service": "checkout", "signalType": "http-5xx", "severity": "SEV2"}


def rules(*documents: dict[str, Any]) -> Rules:
    return Rules.load(normalise(document) for document in documents)


def shown(found: Findings, width: int = 80, said: str | None = None) -> str:
    def console() -> Console:
        return Console(file=io.StringIO(), width=width, markup=False, highlight=False, emoji=False)

    screen = Screen(False, console(), console())
    tell(screen, found, said)
    screen.next(*next_steps(found, said, "opx", None))
    assert isinstance(screen.out.file, io.StringIO)
    assert isinstance(screen.err.file, io.StringIO)
    return screen.out.file.getvalue() + screen.err.file.getvalue()


def told(found: Findings) -> dict[str, Any]:
    (part,) = document(found, None, [])["parts"]
    return dict(part)


# --- what has a receipt ------------------------------------------------------------------------------------------------


async def test_what_took_effect_is_told_from_its_receipt_to_what_went_out() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body(idempotencyKey="key:1")))
    found = await place.follow(asked_as_said("key:1"), principal=DETECTOR.principal)
    assert [fate.ending for fate in found.fates] == [Ending.APPLIED]
    text = shown(found)
    assert f"{incident.incident_id[:8]}  OPEN SEV2  checkout: 5xx above 5 %" in text
    assert "PROMOTE by" in text
    assert "confidence" in text
    for event in place.world.store.feed:
        assert f"{event['eventType']}" in text
        assert event["eventId"] in text
    assert NEVER_READ_BACK in text
    assert f"Next: opx open {incident.incident_id[:8]}" in text
    assert max(map(len, text.splitlines())) <= 80
    (receipt,) = told(found)["receipts"]
    assert [event["detailType"] for event in receipt["events"]] == ["IncidentCreated", "IncidentOpened"]
    assert receipt["gate"]["agrees"] is True
    assert {check["verdict"] for check in receipt["gate"]["trace"]} == {"PASSED"}
    # Nothing waits, nothing was refused: only what may have failed on its way out was looked at.
    assert set(place.sqs.received) == set()


async def test_only_the_events_that_it_caused_are_told() -> None:
    place = Place()
    for number in range(3):
        applied(await place.world.offer(candidate_body(idempotencyKey=f"key:{number}")))
    found = await place.follow(asked_as_said("key:1"), principal=DETECTOR.principal)
    (receipt,) = told(found)["receipts"]
    assert [event["sequence"] for event in receipt["events"]] == [3]
    assert "not asked again" in shown(found)
    assert "Next: opx open" in shown(found)
    assert "policy explain" in shown(found)


async def test_an_event_among_the_fan_outs_failures_is_told_as_never_published() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body(idempotencyKey="key:1"))).incident_id
    failure = {"incidentId": incident, "sequence": 2, "error": "corruption", "detail": "no hash"}
    place.sqs.put("fanout-failures", failure, "f1")
    place.sqs.put("fanout-failures", {"DDBStreamBatchInfo": {}}, "f2")
    found = await place.follow(asked_as_said("key:1"), principal=DETECTOR.principal)
    (receipt,) = told(found)["receipts"]
    assert [event["fanout"] for event in receipt["events"]] == ["not among the failed", "FAILED: corruption: no hash"]
    assert "1 batches there name no event" in " ".join(shown(found).split())
    assert place.sqs.hidden == set()


async def test_a_failure_queue_that_may_not_be_looked_into_proves_nothing() -> None:
    place = Place(sqs=MemorySqs(closed=frozenset({"fanout-failures"})))
    applied(await place.world.offer(candidate_body(idempotencyKey="key:1")))
    found = await place.follow(asked_as_said("key:1"), principal=DETECTOR.principal)
    assert {event["fanout"] for event in told(found)["receipts"][0]["events"]} == {"not known"}
    assert "Not known: the queue fanout-failures can't be looked into" in shown(found)


async def test_a_refused_command_is_told_with_why_and_its_incident_as_it_is() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body())).incident_id
    body = command_body("change-state", incident, newState="CLOSED", reason="x", idempotencyKey="no:1")
    refused(await place.world.order(body))
    found = await place.follow(asked_as_said("no:1"), sender=OPERATOR)
    assert [fate.ending for fate in found.fates] == [Ending.REFUSED]
    text = shown(found)
    assert "transition-illegal" in text
    assert "From OPEN it may become: MITIGATING, CANCELLED." in " ".join(text.split())
    assert "policy explain" not in text
    assert f"{incident[:8]}  OPEN" in text
    assert told(found)["receipts"][0]["result"]["code"] == Code.TRANSITION_ILLEGAL
    assert "Next: " in text


async def test_a_recomputed_decision_that_differs_is_said_loudly() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body(idempotencyKey="key:1"))).incident_id
    stored = place.world.store.events[incident][2]
    stored["metadata"] = stored["metadata"] | {"decision": stored["metadata"]["decision"] | {"policyDigest": "0" * 64}}
    found = await place.follow(asked_as_said("key:1"), principal=DETECTOR.principal)
    assert "CAN NOT BE CHECKED, event 2" in shown(found)


# --- whose it was ------------------------------------------------------------------------------------------------------


async def test_anothers_receipt_is_found_by_whoever_may_audit_and_nobody_else() -> None:
    place = Place()
    applied(await place.world.offer(candidate_body(idempotencyKey="key:1")))
    assert (await place.follow(asked_as_said("key:1"))).fates[0].ending is Ending.UNKNOWN
    with pytest.raises(ApiRefused):
        await place.follow(asked_as_said("key:1"), sender=OPERATOR, principal=DETECTOR.principal)
    with pytest.raises(ApiRefused):
        await place.follow(asked_as_said("key:1"), sender=STRANGER)


async def test_a_native_alarm_is_found_under_the_queue_it_came_by() -> None:
    place = Place()
    applied(await place.world.offer(alarm_body(), ALARMS))
    for parts in ([asked_as_said(alarm_body()["id"])], place.asked(alarm_body())):
        assert (await place.follow(*parts)).fates[0].ending is Ending.APPLIED
    # Whoever may not audit is told that it was not looked there.
    found = await place.follow(*place.asked(alarm_body()), sender=OPERATOR)
    assert (found.fates[0].ending, found.closed) == (Ending.UNKNOWN, (ALARMS.principal,))
    assert document(found, None, [])["notKnown"] == ["receipts of queue:alarms can't be read"]


# --- by the message itself ---------------------------------------------------------------------------------------------


async def test_a_message_that_says_when_it_was_seen_has_a_receipt_under_a_key_of_its_body() -> None:
    place = Place()
    body = candidate_body(observedAt="2026-01-31T02:59:00Z")
    applied(await place.world.offer(body, message_id="m-1"))
    by_id = await place.follow(asked_as_said("m-1"), principal=DETECTOR.principal)
    assert by_id.fates[0].ending is Ending.UNKNOWN
    assert "opx why m-1 --message FILE" in " ".join(next_steps(by_id, "m-1", "opx", None))
    by_body = await place.follow(*place.asked(body), principal=DETECTOR.principal)
    assert by_body.fates[0].ending is Ending.APPLIED


async def test_a_message_without_time_and_key_is_found_by_its_id_alone() -> None:
    place = Place()
    applied(await place.world.offer(candidate_body(), message_id="m-1"))
    (nameless,) = place.asked(candidate_body())
    assert (nameless.key, nameless.needs_message_id) == (None, True)
    assert "say it as MESSAGE_ID" in " ".join(shown(await place.follow(nameless)).split())
    (named,) = place.asked(candidate_body(), message_id="m-1")
    assert (await place.follow(named, principal=DETECTOR.principal)).fates[0].ending is Ending.APPLIED


async def test_another_message_under_a_used_key_is_told_as_refused_not_as_applied() -> None:
    place = Place()
    applied(await place.world.offer(candidate_body(idempotencyKey="key:1")))
    other = candidate_body(idempotencyKey="key:1", title="another")
    place.sqs.put("rejected", other, "r1", {"originalMessageId": "m-2", "code": "key-reused", "reason": "Use another key."})
    found = await place.follow(*place.asked(other), principal=DETECTOR.principal)
    assert found.fates[0].ending is Ending.REJECTED
    assert told(found)["code"] == Code.KEY_REUSED
    assert "another request was decided" in shown(found)


async def test_each_alert_of_a_notification_is_told() -> None:
    place = Place()
    body = notification(alert(), alert(fingerprint="ffff"), alert(labels={"severity": ...}, fingerprint="eeee"))
    parts = place.asked(body)
    assert [part.refusal is None for part in parts] == [False, True, True]
    assert {principal for part in parts for principal in part.principals} == {"queue:alertmanager"}
    found = await place.follow(*parts)
    text = shown(found, 140)
    assert text.count("unknown") == 2
    assert text.count("unreadable") == 1
    assert "alerts.2" in text


async def test_a_detection_is_told_for_each_rule_with_how_far_it_has_counted() -> None:
    other = RULE | {"ruleId": "many", "threshold": {"detections": 5}}
    place = Place(rules(RULE, other))
    body = DETECTION | {"observedAt": "2026-01-31T02:30:00Z"}
    intake = place.world.intake
    await intake.take_all((intake.read(json.dumps(body), place.world.received(DETECTOR)),), View(), DEADLINE)
    found = await place.follow(*place.asked(body), principal=DETECTOR.principal)
    assert found.fates[0].ending is Ending.COUNTED
    text = " ".join(shown(found).split())
    assert "rule errors v1 counted it: 1 of 2 from 01-31 00:00 to 01-31 06:00 UTC, so there is no incident of it" in text
    assert "rule many v1 counted it: 1 of 5" in text
    counts = {one["keyKind"]: one["counting"] for one in told(found)["receipts"]}
    assert {kind: (one["detections"], one["threshold"]) for kind, one in counts.items()} == {
        "body/errors.v1": (1, 2),
        "body/many.v1": (1, 5),
    }
    # Without the message nobody knows its window.
    (key,) = {part.key for part in place.asked(body)}
    blind = await place.follow(asked_as_said(str(key)), principal=DETECTOR.principal)
    assert "Its window is told with --message" in " ".join(shown(blind).split())


async def test_what_was_counted_before_the_threshold_leads_to_the_incident_it_became() -> None:
    place = Place(rules(RULE))
    bodies = [DETECTION | {"observedAt": f"2026-01-31T02:3{number}:00Z"} for number in range(2)]
    for body in bodies:
        await place.world.offer(body)
    found = await place.follow(*place.asked(bodies[0]), principal=DETECTOR.principal)
    (incident,) = place.world.store.incidents
    assert "which became an incident" in " ".join(shown(found).split())
    # The one that reached the threshold caused the events; its decision is about the rule's confidence, no whole number.
    last = await place.follow(*place.asked(bodies[1]), principal=DETECTOR.principal)
    assert "SEV2, confidence 0.9" in shown(last)
    assert f"Next: opx open {incident[:8]}" in shown(found)


# --- what has none -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("said", ["m-1", "key:1"])
async def test_a_rejected_message_is_found_by_its_first_id_or_its_key_and_stays(said: str) -> None:
    place = Place()
    for number in range(25):
        place.sqs.put("rejected", "{}", f"other-{number}", {"originalMessageId": f"o-{number}", "reason": "no"})
    explanation = {"originalMessageId": "m-1", "reason": "severity: wrong.", "source": "candidates", "code": "invalid-field"}
    place.sqs.put("rejected", candidate_body(idempotencyKey="key:1", severity="SEV9"), "copy", explanation)
    found = await place.follow(asked_as_said(said))
    assert found.fates[0].ending is Ending.REJECTED
    assert "severity: wrong." in shown(found)
    assert told(found)["rejected"]["code"] == "invalid-field"
    assert "opx queue show rejected" in shown(found)
    assert place.sqs.hidden == set()
    assert len(place.sqs.queues["rejected"]) == 26


async def test_a_dead_letter_is_named_with_its_queue() -> None:
    place = Place()
    place.sqs.put("commands-dlq", command_body("add-note", "x", note="x", idempotencyKey="key:1"), "m-1")
    for said in ("m-1", "key:1"):
        found = await place.follow(asked_as_said(said))
        assert found.fates[0].ending is Ending.DEAD
        assert "lies in commands-dlq" in " ".join(shown(found).split())
    assert place.sqs.hidden == set()


async def test_where_messages_wait_it_may_be_one_of_them_and_none_is_looked_into() -> None:
    place = Place()
    place.sqs.put("candidates", candidate_body(idempotencyKey="key:1"), "m-1")
    found = await place.follow(asked_as_said("key:1"))
    assert found.fates[0].ending is Ending.WAITING
    assert "1 in candidates" in shown(found)
    assert document(found, "key:1", [])["waiting"]["candidates"] == 1
    assert "candidates" not in place.sqs.received


async def test_an_unknown_key_is_told_with_where_it_was_looked_for_and_what_to_try() -> None:
    place = Place()
    found = await place.follow(asked_as_said("key:1"))
    text = " ".join(shown(found, said="key:1").split())
    assert found.fates[0].ending is Ending.UNKNOWN
    assert "none under key:1 of yourself, queue:alarms or queue:alertmanager" in text
    assert "no message waits" in text
    assert "opx why key:1 --message FILE" in text
    assert "--principal" in text


async def test_an_incidents_id_or_its_beginning_is_told_to_be_one() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body())).incident_id
    for said in (incident, incident.upper(), incident[:8], incident[:4]):
        found = await place.follow(asked_as_said(said))
        assert found.fates[0].ending is Ending.UNKNOWN
        text = " ".join(shown(found, said=said).split())
        assert f"{incident[:8]} OPEN SEV2 checkout: 5xx above 5 %" in text
        assert text.startswith(f"{said} names an incident, no message or command")
        steps = next_steps(found, said, "opx", None)
        assert steps == [f"opx open {incident[:8]}", f"opx policy explain {incident[:8]}"]
        assert document(found, said, steps)["namesIncident"] == incident
    # Too short, of another kind, of none: what was said is a key as any other.
    for said in (incident[:3], "m-1", "00000000-0000-4000-8000-000000000000", "ffffffff", "key:1"):
        found = await place.follow(asked_as_said(said))
        assert found.named is None
        assert "policy explain" not in " ".join(next_steps(found, said, "opx", None))


async def test_a_key_that_looks_like_an_incident_is_still_found_by_its_receipt() -> None:
    place = Place()
    incident = applied(await place.world.offer(candidate_body())).incident_id
    applied(await place.world.offer(candidate_body(idempotencyKey=incident)))
    found = await place.follow(asked_as_said(incident), principal=DETECTOR.principal)
    assert (found.fates[0].ending, found.named) == (Ending.APPLIED, None)


async def test_what_may_not_be_looked_into_is_said_and_nothing_is_concluded_from_it() -> None:
    place = Place(sqs=MemorySqs(closed=frozenset(QUEUES)))
    found = await place.follow(asked_as_said("key:1"))
    assert found.fates[0].ending is Ending.UNKNOWN
    text = " ".join(shown(found).split())
    assert "whether anything waits can't be told" in text
    assert "the queue rejected can't be looked into" in text
    assert len(document(found, None, [])["notKnown"]) == 6


async def test_a_message_that_opx_refuses_as_it_is_written_is_told_with_its_field() -> None:
    place = Place()
    (part,) = place.asked(candidate_body(severity="SEV9"))
    found = await place.follow(part)
    assert found.fates[0].ending is Ending.UNREADABLE
    assert "severity" in shown(found)
    assert "opx lint FILE" in shown(found)


# --- names and looks ---------------------------------------------------------------------------------------------------


def test_a_copy_is_told_by_its_id_its_body_and_the_key_in_it() -> None:
    body = json.dumps(candidate_body(idempotencyKey="key:1"))
    reordered = json.dumps(dict(reversed(candidate_body(idempotencyKey="key:1").items())))
    assert {"key:1", "m-1", body} <= names_of(body, "m-1")
    assert names_of(body, "m-1") & names_of(reordered, "m-2") == names_of(body, "x") & names_of(reordered, "y")
    assert len(names_of(body, "m-1") & names_of(reordered, "m-2")) == 2
    assert alarm_body()["id"] in names_of(json.dumps(alarm_body()), "m")
    assert names_of("{", "m-1") == {"{", "m-1"}


async def test_a_queue_deeper_than_can_be_read_is_never_called_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.peeking.READ_MAX", 10)
    place = Place()
    for number in range(30):
        place.sqs.put("fanout-failures", "{}", f"f-{number}")
    failed = await unpublished(place.queues())
    assert failed.doubt == "only 10 of 30 messages in fanout-failures could be looked at"
    assert failed.fate("x", 1) == "not known"
    assert place.sqs.hidden == set()


def test_nothing_named_or_nothing_in_the_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    line = CommandLine()
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    for arguments in ([], ["."], ["--message", str(empty)], ["--message", str(tmp_path / "missing")]):
        ran = line("why", *arguments)
        assert (ran.code, ran.next) == (1, "opx why --help"), arguments
