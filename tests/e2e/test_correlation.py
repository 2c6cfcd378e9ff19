"""The real recording under a rule of one's own, through the stack as `opx up --config examples/config` deploys it.

The rule: three firings of an alarm within six hours of the epoch. Its policy lets nothing promote within 30 minutes of the
key's last ending.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.rebase import days_to_now, newest_time, rebased
from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import Document
from pipeline.domain.ids import incident_id
from pipeline.local import engine as local_engine
from pipeline.local.deploy import deploy
from pipeline.runtime import shipped
from pipeline.services.controller import ControllerService
from pipeline.services.decision import Applied, DecisionLoop, View
from pipeline.stores.clients import open_clients
from pipeline.stores.controls import FixedControls
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from tests.e2e.recording import FILE
from tests.e2e.test_pipeline import DEAD, Outside
from tests.support.clock import FixedClock
from tests.support.stack import Stack

pytestmark = pytest.mark.engine
CONFIG = Path(__file__).parents[2] / "examples" / "config"
LEDGER = '["ledger","cloudwatch:ledger-DiskWriteBytes-1ef3de"]'
# Between the second firing of a window and the third, which comes 14 minutes later; the fourth comes 79 minutes later.
RESOLVED_AT = datetime(2014, 3, 10, 21, 0, tzinfo=UTC)
FIRST = incident_id("ledger", f"flapping:{LEDGER}", 1)
SECOND = incident_id("ledger", f"flapping:{LEDGER}", 2)


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A stack of its own: the rule would take the alarms of every other test."""
    state = tmp_path_factory.mktemp("correlating")
    engine = local_engine.start(state, leash=True)
    yield Outside(Stack(engine, deploy(engine, config=CONFIG)))
    local_engine.stop(state)


def test_a_rule_promotes_what_fires_three_times_in_six_hours_and_a_cooldown_holds_what_was_just_resolved(
    outside: Outside,
) -> None:
    bodies = FILE.read_text("utf-8").splitlines()
    now = datetime.now(UTC)
    newest = newest_time(bodies, now)
    assert newest is not None
    days = days_to_now(newest, now)
    resolved_at = RESOLVED_AT + timedelta(days=days)
    moved = sorted((rebased(body, days) for body in bodies), key=time_of)
    before = [body for body in moved if time_of(body) < resolved_at]
    after = [body for body in moved if time_of(body) >= resolved_at]
    third = next(number for number, body in enumerate(after) if fires(body, "ledger"))

    outside.send(before)
    outside.drained()
    assert rows(outside)[FIRST]["state"] == "OPEN"
    asyncio.run(resolve(outside, FIRST, resolved_at))

    outside.send(after[: third + 1])
    outside.drained()
    held = rows(outside)[SECOND]
    assert (held["state"], held["metadata"]["predecessor"]) == ("PENDING", FIRST)
    decision = outside.histories()[SECOND][-1]["metadata"]["decision"]
    assert (decision["outcome"], decision["rule"], decision["policyId"]) == ("SUPPRESS", "cooldown", "flap-damped")

    outside.send(after[third + 1 :])
    outside.drained()
    found = rows(outside)
    assert {(row["service"], row["metadata"]["occurrence"], row["state"]) for row in found.values()} == {
        ("search", 1, "OPEN"),
        ("ledger", 1, "RESOLVED"),
        ("ledger", 2, "OPEN"),
        ("fleet", 1, "OPEN"),
    }
    opened = next(event for event in outside.histories()[SECOND] if event["eventType"] == "IncidentOpened")
    observed = opened["metadata"]["decision"]["inputs"]["newestObservedAt"]
    assert datetime.fromisoformat(observed) - resolved_at >= timedelta(minutes=30)
    # The other five were counted, and none of them enough.
    windows = [window for window in outside.scan("IdempotencyTableName") if "ruleId" in window]
    lesser = {
        window["group"]["source"] for window in windows if window["group"]["service"] not in ("search", "ledger", "fleet")
    }
    assert len(lesser) == 5
    assert not [window for window in windows if window["group"]["source"] in lesser and "incidentId" in window]
    # Every firing was counted once, and nothing was lost on the way.
    assert sum(window["detections"] for window in windows) == sum(fires(body) for body in bodies)
    assert outside.depth(*DEAD, "RejectedQueueUrl") == 0
    for service, answers in explained(outside, days).items():
        below = "no incident: rule flapping v1 counted at most 1 of 3 in a window"
        verdict = "OPEN since" if service in ("search", "ledger", "fleet") else below
        assert all(answer.startswith(verdict) for answer in answers), (service, answers)


def explained(outside: Outside, days: int) -> dict[str, list[str]]:
    """Return what `opx policy explain` answers for each of the eight alarms, by service."""
    command = [sys.executable, "-m", "pipeline.cli.main", "--state-dir", str(outside.engine.state_dir), "--json"]
    command += ["policy", "explain", "--message", str(FILE), "--moved-by", str(days), "--config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        told = json.loads(line)
        found.setdefault(told["service"], []).append(told["answer"])
    assert sum(map(len, found.values())) == 8
    return found


def rows(outside: Outside) -> dict[str, Document]:
    return {row["incidentId"]: row for row in outside.scan("IncidentsTableName") if "state" in row}


def time_of(body: str) -> datetime:
    found: datetime = datetime.fromisoformat(json.loads(body)["time"])
    return found


def fires(body: str, service: str = "") -> bool:
    detail: dict[str, Any] = json.loads(body)["detail"]
    return detail["state"]["value"] == "ALARM" and detail["alarmName"].startswith(service)


async def resolve(outside: Outside, incident: str, at: datetime) -> None:
    """Resolve an incident of the stack at a time of the recording: the controller itself, with a clock set by hand."""
    async with open_clients(("dynamodb",), endpoint_url=outside.engine.endpoint_url) as clients:
        clock = FixedClock(at)
        names = [outside.outputs[f"{table}TableName"] for table in ("Incidents", "Events", "Idempotency")]
        store = DynamoIncidentStore(clients.dynamodb, Tables(*names), clock)
        controller = ControllerService(
            DecisionLoop(store, clock), shipped.policies(), shipped.registry("local"), FixedControls()
        )
        for state in ("MITIGATING", "RESOLVED"):
            body = {
                "type": "change-state",
                "incidentId": incident,
                "newState": state,
                "authority": "HUMAN",
                "reason": "calm",
            }
            work = controller.read(json.dumps(body), Received(Sender("000000000000"), f"to-{state}", at))
            assert isinstance(await controller.take(work, View(), clock.monotonic() + 20), Applied)
