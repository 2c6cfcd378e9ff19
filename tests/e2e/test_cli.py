"""The command line against the deployed stack: what a person does, and what is left when they stop. One engine for all."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.operating import post
from pipeline.cli.session import session_at
from pipeline.cli.subscription import ALIVE_TAG, DEAD_AFTER_S, drain, pattern_of, subscribe, sweep
from pipeline.cli.target import Selection, local_target
from tests.support.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.long]

WITHIN_S = 30.0
Opx = Callable[..., tuple[int, list[dict[str, Any]], list[dict[str, Any]]]]


@pytest.fixture
def opx(stack: Stack) -> Opx:
    def call(*arguments: str, stdin: str | None = None) -> tuple[int, list[dict[str, Any]], list[dict[str, Any]]]:
        shared = ["--json", "--state-dir", str(stack.engine.state_dir)]
        result = CliRunner().invoke(app, [*shared, *arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        out, err = ([json.loads(line) for line in text.splitlines()] for text in (result.stdout, result.stderr))
        return result.exit_code, out, err

    return call


@pytest.fixture
def service() -> str:
    return f"cli-{uuid4().hex[:12]}"


def candidate(service: str, number: int = 0, **fields: Any) -> str:
    document = {
        "type": "candidate",
        "service": service,
        "severity": "SEV2",
        "title": f"{service} is slow",
        "dedupKey": "slow",
    }
    return json.dumps(document | {"idempotencyKey": f"{service}:{number}"} | fields)


def incident_of(opx: Opx, service: str) -> dict[str, Any]:
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        code, found, _ = opx("incidents", "--service", service)
        assert code == 0
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"no incident of {service} within {WITHIN_S} s")


def declaration(service: str) -> dict[str, Any]:
    document = {"type": "declare", "service": service, "severity": "SEV2", "title": "down", "authority": "HUMAN"}
    return document | {"idempotencyKey": f"{service}:declared", "reason": "a test"}


def declared(opx: Opx, service: str) -> str:
    code, out, _ = opx("command", "declare", "--service", service, "--severity", "sev2", "--title", "down")
    assert code == 0
    identity: str = out[0]["incidentId"]
    return identity


def test_a_message_becomes_an_incident_that_can_be_shown(opx: Opx, service: str) -> None:
    code, sent, _ = opx("send", "--json-body", candidate(service))
    assert (code, sent[0]["sent"], sent[0]["failed"]) == (0, 1, 0)
    incident = incident_of(opx, service)
    code, shown, _ = opx("show", incident["incidentId"][:12])
    assert (code, shown[0]["state"], shown[0]["service"]) == (0, "OPEN", service)
    assert {row["to"] for row in shown[0]["allowedTransitions"]} == {"MITIGATING", "CANCELLED"}
    code, events, _ = opx("timeline", incident["incidentId"])
    assert [event["eventType"] for event in events] == ["IncidentCreated", "IncidentOpened"]


def test_a_file_from_standard_input_is_sent_and_what_no_queue_takes_is_named(opx: Opx, service: str) -> None:
    lines = [candidate(service, number) for number in range(25)]
    code, sent, _ = opx("send", "-", stdin="\n".join([*lines[:10], "\x1b[2J", *lines[10:]]) + "\n")
    assert (code, sent[0]["sent"], sent[0]["failed"]) == (1, 25, 1)
    assert sent[0]["refused"][0]["line"] == 11
    assert incident_of(opx, service)["state"] == "OPEN"


def test_an_incident_is_taken_through_its_life_by_commands(opx: Opx, service: str) -> None:
    identity = declared(opx, service)
    steps = [("mitigating", []), ("resolved", ["--reason", "rolled back"]), ("closed", ["--reason", "reviewed"])]
    for state, reason in steps:
        code, out, _ = opx("command", "state", identity, state, *reason)
        assert (code, out[0]["result"]["answer"], out[0]["result"]["state"]) == (0, "applied", state.upper())
    _, shown, _ = opx("show", identity)
    assert shown[0]["authority"]["authorityType"] == "HUMAN"


def test_every_command_takes_effect(opx: Opx, service: str) -> None:
    one, other = declared(opx, service), declared(opx, f"{service}-other")
    for arguments in (
        ["note", one, "seen"],
        ["evidence", one, "graph=https://observe.example/1"],
        ["severity", one, "sev1", "--reason", "spreading"],
        ["link", one, "caused-by", other],
    ):
        code, out, _ = opx("command", *arguments)
        assert (code, out[0]["result"]["answer"]) == (0, "applied")
    _, events, _ = opx("timeline", one)
    kinds = ["NoteAdded", "EvidenceAttached", "SeverityChanged", "IncidentLinked"]
    assert [event["eventType"] for event in events][2:] == kinds


@pytest.mark.parametrize(("verb", "state"), [("promote", "OPEN"), ("dismiss", "CANCELLED")])
def test_a_pending_incident_is_promoted_or_dismissed_by_a_person(opx: Opx, service: str, verb: str, state: str) -> None:
    opx("send", "--json-body", candidate(service, severity="SEV4"))
    pending = incident_of(opx, service)
    assert pending["state"] == "PENDING"
    code, out, _ = opx("command", verb, pending["incidentId"], "--reason", "looked at it")
    assert (code, out[0]["result"]["state"]) == (0, state)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["state", "ID", "closed", "--reason", "x"], "transition-illegal"),
        (["severity", "ID", "sev1", "--expect", "1"], "version-stale"),
        (["state", "ID", "cancelled", "--reason", "x", "--as", "SYSTEM"], "transition-authority"),
        (["state", "ID", "cancelled"], "reason-missing"),
        (["note", "ffffffff-ffff-4fff-8fff-ffffffffffff", "x"], "incident-unknown"),
    ],
)
def test_a_refusal_is_told_with_its_code_and_exit_1(opx: Opx, service: str, arguments: list[str], code: str) -> None:
    identity = declared(opx, service)
    exit_code, out, _ = opx("command", *(identity if part == "ID" else part for part in arguments))
    assert (exit_code, out[0]["result"]["answer"], out[0]["result"]["code"]) == (1, "refused", code)


def test_a_reused_key_is_refused_and_a_repeated_command_is_answered_again(opx: Opx, service: str) -> None:
    identity, key = declared(opx, service), f"key-{uuid4().hex}"
    first = opx("command", "note", identity, "once", "--key", key)
    assert opx("command", "note", identity, "once", "--key", key) == first
    code, out, _ = opx("command", "note", identity, "other", "--key", key)
    assert (code, out[0]["result"]["code"]) == (1, "key-reused")
    _, events, _ = opx("timeline", identity)
    assert [event["eventType"] for event in events].count("NoteAdded") == 1


def test_the_status_counts_queues_and_incidents(opx: Opx, service: str) -> None:
    declared(opx, service)
    code, out, _ = opx("status")
    assert code == 0
    assert out[0]["incidents"]["OPEN"] >= 1
    assert set(out[0]["queues"]) >= {"candidates", "commands", "rejected", "candidates-dlq", "fanout-failures"}


# --- listening ---------------------------------------------------------------------------------------------------------


def left_behind(stack: Stack) -> list[str]:
    queues = stack.client("sqs").list_queues(QueueNamePrefix="opx-tail-").get("QueueUrls", [])
    rules = stack.client("events").list_rules(EventBusName=stack.outputs["BusName"], NamePrefix="opx-tail-")["Rules"]
    return [*queues, *(rule["Name"] for rule in rules)]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_tail_shows_what_reaches_the_bus_and_leaves_nothing(
    stack: Stack, opx: Opx, service: str, sent: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "pipeline.cli.main", "--state-dir", str(stack.engine.state_dir), "tail"]
    listener = subprocess.Popen(
        [*command, "--service", service],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        deadline = time.monotonic() + WITHIN_S
        while not any("opx-tail-" in name and "/" not in name for name in left_behind(stack)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        declared(opx, service)
        assert listener.stdout is not None
        seen = [json.loads(listener.stdout.readline()) for _ in range(2)]
    finally:
        listener.send_signal(sent)
        _, errors = listener.communicate(timeout=WITHIN_S)
    assert {event["eventType"] for event in seen} == {"IncidentCreated", "IncidentOpened"}
    assert (listener.returncode, errors) == (code, "")
    assert left_behind(stack) == []


async def test_a_subscription_gets_its_events_only_and_is_gone_afterwards(stack: Stack, service: str) -> None:
    target = local_target(Selection(state_dir=stack.engine.state_dir))
    async with session_at(target, "sqs", "events") as session:
        pattern = pattern_of(["IncidentOpened"], [service])
        async with subscribe(session.clients, target.output("BusName"), target.prefix, pattern) as subscription:
            for name in (f"{service}-other", service):
                await post(session, declaration(name))
            arrived = await drain(subscription, lambda found: len(found) >= 1, WITHIN_S)
            arrived += await subscription.receive(1)
    assert [(item.detail_type, item.detail["metadata"]["service"]) for item in arrived] == [("IncidentOpened", service)]
    assert left_behind(stack) == []


async def test_what_a_killed_listener_left_is_swept_and_a_live_ones_stays(stack: Stack) -> None:
    sqs, events, bus = stack.client("sqs"), stack.client("events"), stack.outputs["BusName"]
    long_ago, just_now = str(int(time.time()) - DEAD_AFTER_S - 5), str(int(time.time()))
    for name, tags in (("dead", {ALIVE_TAG: long_ago}), ("live", {ALIVE_TAG: just_now}), ("foreign", {})):
        sqs.create_queue(QueueName=f"opx-tail-{name}", tags=tags)
        events.put_rule(Name=f"opx-tail-{name}", EventBusName=bus, EventPattern='{"source": ["opx.incidents"]}')
    target = local_target(Selection(state_dir=stack.engine.state_dir))
    async with session_at(target, "sqs", "events") as session:
        assert await sweep(session.clients, bus, target.prefix) == 1
    names = {name.rsplit("/", 1)[-1] for name in left_behind(stack)}
    assert names == {"opx-tail-live", "opx-tail-foreign"}
    for name in ("live", "foreign"):
        sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=f"opx-tail-{name}")["QueueUrl"])
        events.delete_rule(Name=f"opx-tail-{name}", EventBusName=bus)


def test_a_persons_credentials_never_reach_the_local_engine(
    opx: Opx, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production-that-is-not-there")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "missing"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a-persons-own")
    before = dict(os.environ)
    assert opx("status")[0] == 0
    assert dict(os.environ) == before
