"""`opx policy`: what a file means, why a recorded decision fell as it did, and what another policy would have decided."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli.main import app
from pipeline.cli.messages import Mappings, opened, signals
from pipeline.cli.policy_trial import PolicyTrial, Turn
from pipeline.cli.subjects import counted_of, counting, told_by
from pipeline.cli.telling import read_event
from pipeline.cli.terminal import json_line
from pipeline.cli.verdicts import deciding, doubt, headline, person_may, would_open
from pipeline.domain.alertmanager import OWN_WORDS
from pipeline.domain.canonical import parse_document, parse_time
from pipeline.domain.explanation import Recorded, recorded
from pipeline.domain.incidents import Incident
from pipeline.domain.promotion import Outcome, Policies
from pipeline.domain.rules import Rules
from tests.support.world import World

ALARMS = Path(__file__).parents[1] / "data" / "cloudwatch_alarms.jsonl"
DAMPED = {"policyId": "default", "version": 9, "cooldownS": 1800, "minimumConfidence": 0.8, "humanMayWaive": ["cooldown"]}
RULE: dict[str, Any] = {
    "ruleId": "flapping",
    "version": 1,
    "groupBy": ("service", "source"),
    "windowS": 21600,
    "threshold": {"detections": 3},
    "confidence": 1,
    "title": "{source} flaps",
}
CANDIDATE = {"type": "candidate", "service": "ledger", "severity": "SEV2", "title": "slow", "dedupKey": "k"}


def policies(*documents: dict[str, Any]) -> Policies:
    return Policies.load(parse_document(json.dumps(one)) for one in documents)


def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def written(folder: Path, name: str, document: dict[str, Any]) -> str:
    path = folder / name
    path.write_text(json.dumps(document))
    return str(path)


async def incident_of(world: World, known: Policies) -> tuple[Incident, list[Recorded]]:
    (row,) = [read for key in world.store.incidents if (read := await world.store.load(key)) is not None]
    events = [read_event(document) for document in world.store.feed]
    return row, list(recorded([event for event in events if event is not None], known))


def test_a_policy_that_is_fine_is_told_in_words_condition_by_condition(tmp_path: Path) -> None:
    code, (told,) = run("policy", "check", written(tmp_path, "mine.v1.json", {**DAMPED, "policyId": "mine", "version": 1}))
    assert (code, told["accepted"], told["policyId"]) == (0, True, "mine")
    assert told["meaning"]["cooldown"].startswith("observed 30 min or more after the key's last incident ended")
    assert len(told["meaning"]) == 8


@pytest.mark.parametrize(
    ("change", "field", "told"),
    [
        ({"minimumConfidnce": 1}, "minimumConfidnce", "Is minimumConfidence meant?"),
        ({"minimumConfidence": 2}, "minimumConfidence", "0 to 1"),
        ({"humanMayWaive": ["kill-switch"]}, "humanMayWaive.0", "nobody may waive"),
    ],
)
def test_a_wrong_policy_names_field_and_next_step(tmp_path: Path, change: Any, field: str, told: str) -> None:
    path = written(tmp_path, "x.v1.json", {"policyId": "x", "version": 1} | change)
    code, (found,) = run("policy", "check", path)
    assert (code, found["accepted"], found["field"]) == (1, False, field)
    assert told in found["reason"]
    assert path in found["next"]


def test_a_released_version_may_not_change(tmp_path: Path) -> None:
    code, (found,) = run("policy", "check", written(tmp_path, "default.v2.json", {"policyId": "default", "version": 2}))
    assert (code, found["field"]) == (1, "version")
    assert '"version": 1000' in found["next"]


def test_a_policy_that_depends_on_order_says_why(tmp_path: Path) -> None:
    odd = {"policyId": "odd", "version": 1, "allowedSeverities": ["SEV2"]}
    code, (found,) = run("policy", "check", written(tmp_path, "odd.v1.json", odd))
    assert code == 0
    assert "SEV1 is not allowed" in found["orderDependence"]


def test_the_list_tells_ones_own_from_what_ships(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    written(tmp_path, "policies/mine.v1.json", {"policyId": "mine", "version": 1})
    code, found = run("policy", "list", "--config", str(tmp_path))
    assert code == 0
    assert {one["policyId"]: one["origin"] for one in found}["mine"] == "own"
    assert {one["origin"] for one in found if one["policyId"] == "default"} == {"shipped"}


async def test_what_opened_says_since_when_and_by_which_policy() -> None:
    known = policies({"policyId": "default", "version": 1, "minimumConfidence": 0.8})
    world = World(policies=known)
    await world.offer(CANDIDATE)
    incident, decisions = await incident_of(world, known)
    assert headline(incident, decisions).startswith("OPEN since ")
    assert headline(incident, decisions).endswith("promoted by default v1: SEV2, confidence 1, 1 detection")
    assert would_open(incident, decisions[0]) is None


async def test_what_waits_says_what_it_saw_and_what_would_open_it() -> None:
    known = policies({"policyId": "default", "version": 1, "minimumDetections": 3, "humanMayWaive": ["detections"]})
    world = World(policies=known)
    await world.offer(CANDIDATE)
    incident, decisions = await incident_of(world, known)
    assert headline(incident, decisions) == "PENDING: held by default v1: detections: 1, wanted at least 3"
    assert would_open(incident, decisions[-1]) == "2 more detections"
    assert person_may(decisions[-1])


async def test_every_recorded_decision_judged_again_is_the_same_and_another_is_said_loudly() -> None:
    known = policies({"policyId": "default", "version": 1, "minimumDetections": 2})
    world = World(policies=known)
    for _ in range(2):
        await world.offer(CANDIDATE)
    incident, decisions = await incident_of(world, known)
    assert [one.problem for one in decisions] == [None, None]
    assert [one.decision.outcome for one in decisions] == [Outcome.DEFER, Outcome.PROMOTE]
    assert deciding(incident, decisions) is decisions[1]
    _, elsewhere = await incident_of(world, policies({"policyId": "default", "version": 1}))
    assert "another file stands here" in str(doubt(elsewhere[0]))
    changed = dict(world.store.feed[1])
    changed["metadata"] = changed["metadata"] | {"decision": changed["metadata"]["decision"] | {"outcome": "REJECT"}}
    event = read_event(changed)
    assert event is not None
    (forged,) = recorded([event], known)
    assert str(doubt(forged)).startswith("DOES NOT AGREE, event 2")


async def test_another_policy_holds_opens_or_opens_earlier_whatever_the_order_of_events() -> None:
    known = policies({"policyId": "default", "version": 1, "minimumDetections": 2})
    world = World(policies=known)
    for key, times in (("twice", 2), ("once", 1)):
        for _ in range(times):
            await world.offer(CANDIDATE | {"dedupKey": key})
    for documents in (world.store.feed, world.store.feed[::-1]):
        turns = {}
        for least in (1, 2, 3):
            newer = policies({"policyId": "default", "version": 2, "minimumDetections": least}).pinned["default", 2]
            trial = PolicyTrial(newer, "default")
            for document in documents:
                trial.see(document)
            turns[least] = dict(trial.counts)
            assert trial.decisions == 3
            assert bool(trial.unknown()) is (least == 3)
        assert turns == {1: {Turn.EARLIER: 1, Turn.OPENS: 1}, 2: {}, 3: {Turn.HELD: 1}}


def test_a_file_of_events_is_tried_as_the_timeline_prints_it(tmp_path: Path) -> None:
    known = policies({"policyId": "default", "version": 1})
    world = World(policies=known)
    asyncio.run(world.offer(CANDIDATE))
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json_line(document) + "\n" for document in world.store.feed))
    strict = written(tmp_path, "default.v1000.json", {"policyId": "default", "version": 1000, "minimumDetections": 2})
    code, found = run("policy", "try", strict, "--against", str(history))
    assert code == 0
    assert [one.get("change") for one in found] == ["held", None]
    assert found[-1]["changes"] == {"held": 1}
    code, found = run("policy", "try", strict, "--against", str(history), "--instead-of", "other")
    assert (code, found) == (1, [])


async def test_each_of_the_eight_alarms_is_explained_from_the_recording_alone() -> None:
    rules = Rules.load([RULE])
    world = World(rules=rules)
    for line in ALARMS.read_text().splitlines():
        sent = json.loads(line)
        await world.offer(sent, sent_at=world.clock.now())
    with opened(str(ALARMS), None, "opx") as lines:
        told = told_by(signals(lines, Mappings((), OWN_WORDS), None), rules)
    assert len(told.subjects) == 8
    below = {}
    for subject in told.subjects.values():
        if await world.store.load_pointer(subject.service, subject.dedup_key) is None:
            below[subject.service] = counting(await counted_of(world.store, subject, 50))
    assert len(world.store.pointers) == 3
    assert set(below) == {"api-gateway", "checkout", "orders-db", "payments"}
    assert all(line.startswith("no incident: rule flapping v1 counted at most 1 of 3") for line in below.values())
    assert "2014-" in below["payments"]


async def test_of_several_windows_below_the_threshold_the_nearest_is_told(tmp_path: Path) -> None:
    rules = Rules.load([RULE])
    world = World(rules=rules)
    seen = ("2026-01-29T00:10:00Z", "2026-01-30T01:00:00Z", "2026-01-30T02:00:00Z", "2026-01-31T02:00:00Z")
    bodies = [
        {"type": "detection", "service": "s", "source": "p", "signalType": "x", "severity": "SEV2", "observedAt": at}
        for at in seen
    ]
    file = tmp_path / "m.jsonl"
    file.write_text("\n".join(map(json.dumps, bodies)))
    for body in bodies:
        await world.offer(body, sent_at=parse_time("2026-01-31T03:00:00Z"))
    with opened(str(file), None, "opx") as lines:
        (subject,) = told_by(signals(lines, Mappings((), OWN_WORDS), None), rules).subjects.values()
    counted = await counted_of(world.store, subject, 50)
    assert counting(counted) == (
        "no incident: rule flapping v1 counted at most 2 of 3 in a window (best: 2026-01-30 00:00 to 2026-01-30 06:00 UTC)"
    )
    assert (await counted_of(world.store, subject, 1)).left_out == 2
