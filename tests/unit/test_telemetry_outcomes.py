"""What came of candidates, and of commands that would change a state: each is counted once, under one name."""

import json
from typing import Any

import pytest

from pipeline.domain.canonical import parse_time
from pipeline.domain.controls import Controls, PinnedControls, pause
from pipeline.domain.errors import Unavailable
from pipeline.domain.ids import incident_id
from pipeline.runtime.metrics import Metric
from pipeline.runtime.telemetry import Telemetry
from pipeline.services.fanout import FanoutService
from tests.simulation.world import START, Bus, Failures, VirtualClock
from tests.support.bodies import alarm_body, candidate_body, command_body
from tests.support.doors import CountedStore, command_message, message
from tests.support.http import SEED
from tests.support.registry import AUTOMATION
from tests.support.streams import read_all, stored
from tests.unit.test_api_telemetry import Watched as WatchedApi
from tests.unit.test_telemetry import Watched

OUTCOMES = {
    Metric.CANDIDATES_PROMOTED,
    Metric.CANDIDATES_DEFERRED,
    Metric.CANDIDATES_REJECTED,
    Metric.CANDIDATES_SUPPRESSED,
    Metric.CANDIDATES_JOINED,
    Metric.CANDIDATES_WITHOUT_EFFECT,
}
IDENTITY = incident_id("checkout", "checkout-5xx", 1)


def outcomes(watched: Watched) -> dict[str, float]:
    """Return what of the outcomes was counted; each candidate that took effect must be one of them."""
    written = watched.written()
    found = {metric.value: written.metric(metric) for metric in OUTCOMES if written.metric(metric)}
    assert sum(found.values()) == written.metric(Metric.APPLIED)
    return found


async def test_a_candidate_that_opens_and_those_that_join_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(*[message(name, candidate_body()) for name in "abc"])
    await watched.doors.offer(message("d", candidate_body()))
    assert outcomes(watched) == {"CandidatesPromoted": 1, "CandidatesJoined": 3}


async def test_a_candidate_that_is_not_sure_enough_is_deferred_and_the_next_one_promoted(capsys: Any) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body(confidence=0.1)))
    await watched.doors.offer(message("b", candidate_body(confidence=0.9)))
    assert outcomes(watched) == {"CandidatesDeferred": 1, "CandidatesPromoted": 1}


async def test_a_candidate_of_a_program_under_a_policy_for_people_is_rejected(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body(policyId="declared")))
    assert outcomes(watched) == {"CandidatesRejected": 1}


async def test_a_candidate_during_a_pause_is_suppressed(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    paused = pause(Controls(), "checkout", "drill", "jane", START)
    watched.doors.controls.controls = PinnedControls.load(paused.to_document())
    await watched.doors.offer(message("a", candidate_body()))
    assert outcomes(watched) == {"CandidatesSuppressed": 1}


async def test_a_recovery_with_nothing_open_has_no_effect(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", alarm_body("OK")))
    assert outcomes(watched) == {"CandidatesWithoutEffect": 1}


async def test_what_is_refused_or_comes_again_is_no_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body()), message("b", candidate_body(severity="SEV9")))
    await watched.doors.offer(message("a", candidate_body()))
    assert outcomes(watched) == {"CandidatesPromoted": 1}


# --- transitions that failed ----------------------------------------------------------------------------------------------


async def test_a_refused_state_change_is_a_transition_failure_and_a_refused_note_is_none(capsys: Any) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body()))
    skips = command_body("change-state", IDENTITY, newState="CLOSED", authority="HUMAN", reason="r")
    stale = command_body("dismiss", IDENTITY, authority="HUMAN", reason="r")
    note = command_body("add-note", incident_id("nowhere", "none", 1), note="n", authority="HUMAN")
    for number, body in enumerate((skips, stale, note)):
        await watched.doors.order(command_message(f"c{number}", body))
    written = watched.written()
    assert (written.metric(Metric.REFUSED), written.metric(Metric.TRANSITION_FAILURES)) == (3, 2)


async def test_a_state_change_that_meets_a_silent_table_is_a_transition_failure(capsys: pytest.CaptureFixture[str]) -> None:
    down = CountedStore(lambda call, about: Unavailable("no answer") if call == "commit" else None)
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body()))
    down.real = watched.doors.memory
    silent = Watched(capsys, store=down)
    moves = command_body("change-state", IDENTITY, newState="MITIGATING", authority="HUMAN")
    await silent.doors.order(command_message("b", moves))
    assert silent.written().metric(Metric.TRANSITION_FAILURES) == 1


async def test_the_answer_given_again_is_no_further_transition_failure(capsys: pytest.CaptureFixture[str]) -> None:
    watched = Watched(capsys)
    await watched.doors.offer(message("a", candidate_body()))
    skips = command_body("change-state", IDENTITY, newState="CLOSED", authority="HUMAN", reason="r", idempotencyKey="k")
    await watched.doors.order(command_message("b", skips), command_message("c", skips))
    assert watched.written().metric(Metric.TRANSITION_FAILURES) == 1


async def test_the_api_counts_a_refused_state_change_but_neither_a_dry_run_nor_a_read(capsys: Any) -> None:
    world = WatchedApi(capsys)
    identity = await world.opened()
    skips = {"newState": "CLOSED", "reason": "r"}
    await world.call("PATCH", f"/incidents/{identity}/state?dryRun=true", skips)
    await world.call("GET", f"/incidents/{incident_id('nowhere', 'none', 1)}")
    await world.call("POST", "/incidents", SEED | {"severity": "SEV9"}, idempotency_key="k-1")
    assert Metric.TRANSITION_FAILURES not in world.written()[1]
    await world.call("PATCH", f"/incidents/{identity}/state", skips)
    await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "CANCELLED", "reason": "r"}, AUTOMATION)
    await world.call("PATCH", f"/incidents/{identity}/state", {"newState": "MITIGATING"})
    assert world.written()[1][Metric.TRANSITION_FAILURES] == 2


# --- fan-out ----------------------------------------------------------------------------------------------------------


async def test_a_batch_that_fails_tells_how_old_its_oldest_event_is(capsys: pytest.CaptureFixture[str]) -> None:
    clock = VirtualClock()
    fanout = FanoutService(Bus(), Failures(), clock)
    documents = stored()
    records = read_all(documents)
    telemetry = Telemetry("fanout-late")
    times = [parse_time(document["timestamp"]) for document in documents]
    assert min(times) < max(times)
    oldest = fanout.oldest_s(records)
    assert oldest == (clock.now() - min(times)).total_seconds() > 0
    telemetry.relay_failed(Unavailable("PutEvents: no answer"), oldest)
    telemetry.relay_failed(Unavailable("PutEvents: no answer"), fanout.oldest_s(()))
    telemetry.flush()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["FanoutLag"] for line in lines if "FanoutLag" in line] == [[oldest * 1000]]
