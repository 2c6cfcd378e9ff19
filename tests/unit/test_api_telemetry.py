"""What the HTTP API's function writes: one line a request, whoever sent it, and its metrics; never a body or a reason."""

import itertools
import json
from typing import Any

import pytest

from pipeline.domain.errors import Unavailable
from pipeline.runtime.telemetry import Answered, Telemetry
from tests.support.http import SEED, HttpWorld
from tests.support.registry import AUTOMATION, OPERATOR, STRANGER

LINE = {"operation", "status", "principal", "duration_ms", "request_id", "outcome"}
_names = itertools.count()


class Watched(HttpWorld):
    """A world whose requests are told to real telemetry."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        super().__init__()
        self.capsys = capsys
        self.telemetry = Telemetry(f"http-{next(_names)}")
        self.telemetry.begin("invocation-1")
        self.door.report = self.told

    def told(self, answered: Answered) -> None:
        self.telemetry.answered(answered)

    def written(self) -> tuple[list[dict[str, Any]], dict[str, float], str]:
        """Return the log lines, the sums of metrics, and the text."""
        self.telemetry.flush()
        text = self.capsys.readouterr().out
        lines = [json.loads(line) for line in text.splitlines()]
        sums: dict[str, float] = {}
        for line in lines:
            for directive in line.get("_aws", {}).get("CloudWatchMetrics", ()):
                assert directive["Dimensions"] == [["service"]]
                for metric in directive["Metrics"]:
                    sums[metric["Name"]] = sums.get(metric["Name"], 0) + sum(line[metric["Name"]])
        return [line for line in lines if line.get("message") == "request"], sums, text


async def test_every_request_is_one_line_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    world = Watched(capsys)
    declared = await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    identity = declared.body["incidentId"]
    await world.call("GET", f"/incidents/{identity}")
    await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "CLOSED", "reason": "r"})
    lines, sums, _ = world.written()
    assert [line["outcome"] for line in lines] == ["applied", "replayed", "read", "refused"]
    assert [line["status"] for line in lines] == [201, 200, 200, 409]
    assert all(set(line) >= LINE for line in lines)
    assert {line["principal"] for line in lines} == {OPERATOR.principal}
    assert [line.get("incident_id") for line in lines] == [identity] * 4
    assert (lines[0]["from"], lines[0]["to"], lines[3]["code"]) == ("PENDING", "OPEN", "transition-illegal")
    assert sums["ApiRequests"] == 4
    assert sums["ApiFailures"] == 0
    assert (sums["Applied"], sums["IdempotencyHits"], sums["Refused"]) == (1, 1, 1)
    assert (sums["IncidentsCreated"], sums["Transitions"]) == (1, 1)
    assert sums["ApiLatency"] >= 0


async def test_an_authority_failure_is_always_told_with_who_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    world = Watched(capsys)
    identity = await world.opened()
    await world.call("GET", "/incidents", sender=STRANGER)
    body = {"newState": "CANCELLED", "reason": "r"}
    await world.call("PATCH", f"/incidents/{identity}/state", body, AUTOMATION)
    lines, sums, _ = world.written()
    told = [(line["principal"], line["status"], line["code"]) for line in lines]
    assert told == [
        (STRANGER.principal, 403, "principal-unknown"),
        (AUTOMATION.principal, 403, "transition-authority"),
    ]
    assert sums["AuthorityRefusals"] == 2


async def test_a_failure_of_ours_is_counted_and_told_by_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    world = Watched(capsys)
    failing: Any = world.store

    async def down(commit: Any) -> Any:
        raise failing.error

    failing.commit = down
    for error in (Unavailable("DynamoDB: no answer"), KeyError("a secret of the sender's")):
        failing.error = error
        await world.call("POST", "/incidents", SEED, idempotency_key="k-1")
    lines, sums, text = world.written()
    assert [(line["status"], line["code"], line["error"]) for line in lines] == [
        (503, "unavailable", "Unavailable"),
        (500, "internal", "KeyError"),
    ]
    assert "Refused" not in sums
    assert "stack" in lines[1]
    assert "a secret of the sender's" not in text
    assert (sums["ApiFailures"], sums["Unavailable"], sums["Crashes"]) == (2, 1, 1)


async def test_what_people_wrote_is_in_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    world = Watched(capsys)
    identity = await world.opened()
    await world.call("POST", f"/incidents/{identity}/notes", {"note": "the customer is Jane"}, idempotency_key="k-1")
    await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "CANCELLED", "reason": "Jane again"})
    await world.call("PATCH", f"/incidents/{identity}/state", '{"newState": "Jane"')
    assert "Jane" not in world.written()[2]


async def test_a_dry_run_is_told_as_a_read(capsys: pytest.CaptureFixture[str]) -> None:
    world = Watched(capsys)
    await world.call("POST", "/incidents?dryRun=true", SEED, idempotency_key="k-1")
    lines, sums, _ = world.written()
    assert [line["outcome"] for line in lines] == ["read"]
    assert "Applied" not in sums
