"""The command line against the deployed stack: what a person does, and what is left when they stop. One engine for all."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
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
from pipeline.domain.base import METADATA_DEPTH_MAX
from tests.support.engine_cli import WITHIN_S, Opx, calling, candidate, declared, incident_of
from tests.support.stack import Stack, wait_until

pytestmark = [pytest.mark.engine, pytest.mark.long]

DEPLOYED_AS = {
    "CandidatesFunction": "opx-candidates",
    "CommandsFunction": "opx-commands",
    "FanoutFunction": "opx-fanout",
    "ApiFunction": "opx-api",
    "RetentionFunction": "opx-retention",
    "HealthFunction": "opx-health",
}


@pytest.fixture
def opx(stack: Stack) -> Opx:
    return calling(stack)


@pytest.fixture
def service() -> str:
    return f"cli-{uuid4().hex[:12]}"


def declaration(service: str) -> dict[str, Any]:
    document = {"type": "declare", "service": service, "severity": "SEV2", "title": "down", "authority": "HUMAN"}
    return document | {"idempotencyKey": f"{service}:declared", "reason": "a test"}


def test_a_message_becomes_an_incident_that_can_be_shown(opx: Opx, service: str) -> None:
    code, sent, _ = opx("send", "--json-body", candidate(service))
    assert (code, sent[0]["sent"], sent[0]["failed"]) == (0, 1, 0)
    incident = incident_of(opx, service)
    code, shown, _ = opx("open", incident["incidentId"][:12])
    assert (code, shown[0]["state"], shown[0]["service"]) == (0, "OPEN", service)
    assert {row["to"] for row in shown[0]["allowedTransitions"]} == {"MITIGATING", "CANCELLED"}
    code, events, _ = opx("open", incident["incidentId"], "--events")
    assert [event["eventType"] for event in events] == ["IncidentCreated", "IncidentOpened"]


def test_a_file_from_standard_input_is_sent_and_what_no_queue_takes_is_named(opx: Opx, service: str) -> None:
    lines = [candidate(service, number) for number in range(25)]
    code, sent, _ = opx("send", "-", stdin="\n".join([*lines[:10], "\x1b[2J", *lines[10:]]) + "\n")
    assert (code, sent[0]["sent"], sent[0]["failed"]) == (1, 25, 1)
    assert sent[0]["refused"][0]["line"] == 11
    assert incident_of(opx, service)["state"] == "OPEN"


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
        # Who runs the tests behind a shell's back has it ignored, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    # A listener that hears nothing must not hold up the suite.
    patience = threading.Timer(2 * WITHIN_S, listener.kill)
    patience.start()
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
        patience.cancel()
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


@pytest.mark.usefixtures("stack")  # whose build fills the cache of dependencies, which alone may ask a person's proxy
def test_the_local_engine_works_wherever_a_persons_proxies_and_profiles_point(tmp_path: Path, service: str) -> None:
    names = [f"{kind}_PROXY" for kind in ("HTTP", "HTTPS", "ALL")]
    proxies = dict.fromkeys([*names, *(name.lower() for name in names)], "http://127.0.0.1:1")
    own = {name: value for name, value in os.environ.items() if name != "no_proxy"}
    own |= proxies | {"AWS_PROFILE": "not-there", "AWS_CONFIG_FILE": str(tmp_path / "missing")}

    def run(*arguments: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "pipeline.cli.main", "--json", "--state-dir", str(tmp_path / "engine"), *arguments]
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=own, cwd=root, capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stderr) == (0, ""), (arguments, done.stderr)
        return [json.loads(line) for line in done.stdout.splitlines()]

    try:
        assert run("up")[0]["reused"] is False
        # Worked off: so the functions reach the engine's tables and queues past the proxies, too.
        assert run("send", "--json-body", candidate(service))[0]["stillWaiting"] == 0
        assert [found["state"] for found in run("list", "--service", service)] == ["OPEN"]
        assert run("status")[0]["incidents"]["OPEN"] == 1
    finally:
        assert run("down") == [{"stopped": True}]


# --- waiting until a sending is worked off -----------------------------------------------------------------------------

DELAY_S = 4


def delayed(stack: Stack, service: str) -> None:
    """Put a message into the candidates queue that nobody can receive for a while."""
    url, body = stack.outputs["CandidatesQueueUrl"], candidate(service, 999)
    stack.client("sqs").send_message(QueueUrl=url, MessageBody=body, DelaySeconds=DELAY_S)


def test_a_sending_waits_until_the_queue_is_worked_off_and_counts_what_was_rejected(
    stack: Stack, opx: Opx, service: str
) -> None:
    bodies = [candidate(service, number, dedupKey=f"key-{number}") for number in range(12)]
    bodies += [candidate(service, 100, severity="SEV9"), "[]"]
    delayed(stack, service)
    began = time.monotonic()
    code, sent, _ = opx("send", "-", "--wait", stdin="\n".join(bodies))
    assert (code, sent[0]["sent"], sent[0]["stillWaiting"], sent[0]["rejected"]) == (1, 14, 0, 2)
    assert time.monotonic() - began > DELAY_S - 1
    assert stack.depth("CandidatesQueueUrl") == 0
    _, found, _ = opx("list", "--service", service)
    assert len(found) == 13


def test_what_was_rejected_is_shown_with_its_reason_and_stays(stack: Stack, opx: Opx, service: str) -> None:
    body = candidate(service, severity="SEV9")
    assert opx("send", "--wait", "--json-body", body)[0] == 1
    before = stack.depth("RejectedQueueUrl")
    for _ in range(2):
        # Also at once again: what was looked at is given back.
        code, found, _ = opx("queue", "show", "rejected", "--limit", "1")
        assert (code, found[0]["code"], found[0]["body"]) == (0, "invalid-field", body)
        assert {"reason", "source", "originalSenderId", "originalSentAt"} <= set(found[0])
    assert stack.depth("RejectedQueueUrl") == before


def test_a_sending_that_is_left_while_it_waits_says_that_all_is_sent(stack: Stack, service: str) -> None:
    delayed(stack, service)
    command = [sys.executable, "-m", "pipeline.cli.main", "--state-dir", str(stack.engine.state_dir), "send"]
    terminal, theirs = pty.openpty()
    sender = subprocess.Popen(
        [*command, "--json-body", candidate(service)], stdout=theirs, stderr=theirs, cwd=Path(__file__).parents[2]
    )
    os.close(theirs)
    shown = b""
    try:
        while b"opx works through" not in shown:
            shown += os.read(terminal, 4096)
        sender.send_signal(signal.SIGINT)
        while b"goes on without you" not in shown:
            shown += os.read(terminal, 4096)
        assert sender.wait(WITHIN_S) == 130
    finally:
        sender.kill()
        os.close(terminal)
    assert b"All 1 are sent" in shown
    wait_until(lambda: stack.depth("CandidatesQueueUrl") == 0, WITHIN_S)


def test_a_list_that_is_cut_off_says_so(opx: Opx, service: str) -> None:
    for _ in range(2):
        declared(opx, service)
    code, found, said = opx("list", "--service", service, "--limit", "1")
    assert (code, len(found), "newest 1" in said[0]["notice"]) == (0, 1, True)
    assert opx("list", "--service", service, "--limit", "2")[2] == []


def test_a_sending_that_need_not_wait_returns_at_once(stack: Stack, opx: Opx, service: str) -> None:
    delayed(stack, service)
    code, sent, _ = opx("send", "--no-wait", "--json-body", candidate(service))
    assert stack.depth("CandidatesQueueUrl") > 0
    assert (code, sent[0]["sent"]) == (0, 1)
    assert not {"stillWaiting", "rejected", "settledAfterSeconds"} & set(sent[0])
    wait_until(lambda: stack.depth("CandidatesQueueUrl") == 0, WITHIN_S)


# --- the functions' environment ----------------------------------------------------------------------------------------


def test_the_environment_for_sam_local_is_that_of_the_deployed_functions(stack: Stack) -> None:
    shown = CliRunner().invoke(app, ["--state-dir", str(stack.engine.state_dir), "environment"])
    printed: dict[str, dict[str, str]] = json.loads(shown.stdout)
    for function, deployed_as in DEPLOYED_AS.items():
        found = stack.client("lambda").get_function_configuration(FunctionName=deployed_as)["Environment"]["Variables"]
        ours = {name: value for name, value in printed[function].items() if name.startswith("OPX_")}
        assert ours == {name: found.get(name) for name in ours}
    assert set(printed) == set(DEPLOYED_AS)


# --- the deepest data --------------------------------------------------------------------------------------------------


async def test_the_deepest_event_that_is_taken_reaches_a_listener_readable(stack: Stack, service: str) -> None:
    tags: Any = "deep"
    for _ in range(METADATA_DEPTH_MAX):
        tags = {"a": tags}
    target = local_target(Selection(state_dir=stack.engine.state_dir))
    async with session_at(target, "sqs", "events") as session:
        pattern = pattern_of(services=[service])
        async with subscribe(session.clients, target.output("BusName"), target.prefix, pattern) as subscription:
            for number, metadata in ((1, {}), (2, tags)):
                body = candidate(service, number, metadata=metadata, severity=f"SEV{3 - number}")
                await session.clients.sqs.send_message(QueueUrl=target.output("CandidatesQueueUrl"), MessageBody=body)
                await asyncio.sleep(1)
            arrived = await drain(subscription, lambda found: len(found) >= 3, WITHIN_S)
    assert all(item.is_readable for item in arrived), arrived
    attached = next(item for item in arrived if item.detail_type == "EvidenceAttached")
    assert json.dumps(attached.detail, default=str).count('"a":') == METADATA_DEPTH_MAX
