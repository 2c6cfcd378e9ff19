"""What is to hold an incident back does, whatever comes beside it; what one message brings out stays with that message."""

import random
import re
from datetime import timedelta
from typing import Any

import pytest

from pipeline.domain.base import covers
from pipeline.domain.canonical import Document, format_time, normalise, parse_document
from pipeline.domain.controls import Controls, MaintenanceWindow, PinnedControls
from pipeline.domain.envelope import Change
from pipeline.domain.errors import Code, Unavailable
from pipeline.domain.events import IncidentCancelled, Step
from pipeline.domain.ids import incident_id
from pipeline.domain.incidents import advance
from pipeline.domain.promotion import Policies
from pipeline.domain.rules import Rules
from pipeline.domain.transitions import Severity, State
from pipeline.services.decision import Applied, Refused, View
from pipeline.services.ports import RejectedMessage
from tests.support.audit import audit
from tests.support.bodies import candidate_body, command_body, declare_body, text_of
from tests.support.clock import NOW
from tests.support.doors import CountedStore, Doors, Kept, message
from tests.support.histories import HUMAN, INCIDENT_ID, POLICY_FILES, incident_in
from tests.support.registry import AUTOMATION, DETECTOR
from tests.support.world import DEADLINE, World

ERRORS = {
    "ruleId": "errors",
    "version": 1,
    "match": {"signalTypes": ["http-5xx"]},
    "windowS": 21600,
    "threshold": {"detections": 1},
    "confidence": 0.9,
    "title": "Too many errors",
}


def rules(**fields: Any) -> Rules:
    return Rules.load([normalise(ERRORS | fields)])


def detection(**fields: Any) -> Document:
    basis = {"type": "detection", "service": "checkout", "signalType": "http-5xx", "severity": "SEV2"}
    return basis | {"observedAt": format_time(NOW)} | fields


def maintenance(service: str = "checkout", since_min: int = -60, until_min: int = 60) -> PinnedControls:
    window = MaintenanceWindow(
        id="m1",
        service=service,
        starts_at=NOW + timedelta(minutes=since_min),
        ends_at=NOW + timedelta(minutes=until_min),
        reason="deploy",
        by="dana",
    )
    return PinnedControls.load(Controls(maintenance=(window,)).to_document())


# --- maintenance --------------------------------------------------------------------------------------------------------


async def test_dismissing_what_was_seen_only_in_maintenance_takes_the_two_legal_steps() -> None:
    world = World(controls=maintenance())
    await world.offer(candidate_body(observedAt=format_time(NOW)))
    await world.order(command_body("dismiss", INCIDENT_ID, reason="just the deploy"))
    assert world.types(INCIDENT_ID)[-2:] == ["IncidentOpened", "IncidentCancelled"]
    audit(world.store)


def test_a_step_that_the_table_does_not_have_is_never_sealed() -> None:
    pending = incident_in(State.PENDING)
    step = Step(service=pending.service, severity=pending.severity, title=pending.title, reason="why")
    change = Change(IncidentCancelled(metadata=step), HUMAN, State.CANCELLED)
    with pytest.raises(ValueError, match="no transition PENDING to CANCELLED"):
        advance(pending, pending.incident_id, [change], NOW)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_severity_seen_in_maintenance_opens_nothing_in_either_order(order: tuple[int, int]) -> None:
    world = World(controls=maintenance(since_min=-10))
    mild = candidate_body(severity="SEV4", observedAt=format_time(NOW - timedelta(minutes=30)))
    held = candidate_body(severity="SEV2", observedAt=format_time(NOW))
    for number in order:
        await world.offer((mild, held)[number])
    row = world.row(INCIDENT_ID)
    assert (row["state"], row["severity"], row["metadata"]["promotion"]["detections"]) == ("PENDING", "SEV4", 1)
    audit(world.store)


async def test_what_is_seen_in_maintenance_ends_no_cooldown() -> None:
    cool = {"policyId": "cool", "version": 1, "cooldownS": 1800}
    documents = [parse_document(path.read_bytes()) for path in POLICY_FILES]
    policies = Policies.load([*documents, normalise(cool)])
    world = World(policies=policies)
    await world.offer(candidate_body(policyId="cool", observedAt=format_time(NOW - timedelta(minutes=1))))
    await world.walk(INCIDENT_ID, "MITIGATING", "RESOLVED")
    world.clock.jump(timedelta(minutes=50))
    await world.offer(candidate_body(policyId="cool", observedAt=format_time(NOW + timedelta(minutes=5))))
    world.controls.controls = maintenance(since_min=35)
    await world.offer(candidate_body(policyId="cool", observedAt=format_time(NOW + timedelta(minutes=40))))
    assert world.row(incident_id("checkout", "checkout-5xx", 2))["state"] == "PENDING"
    audit(world.store, policies)


async def test_maintenance_of_the_service_whose_incident_it_would_be_holds_a_rule_too() -> None:
    world = World(rules=rules(service="platform", groupBy=["signalType"]), controls=maintenance("platform"))
    assert isinstance(await world.offer(detection()), Applied)
    assert world.store.incidents == {}
    (window,) = world.store.windows.values()
    assert (window["detections"], window["held"]) == (0, 1)
    audit(world.store)


async def test_a_fired_window_counts_what_is_seen_in_maintenance_apart_and_tells_its_incident_nothing() -> None:
    world = World(rules=rules())
    await world.offer(detection(severity="SEV3"))
    (identity,) = world.store.incidents
    before = world.row(identity)
    world.controls.controls = maintenance()
    await world.offer(detection(severity="SEV1", resource="pod-1"))
    assert world.row(identity) == before
    (window,) = world.store.windows.values()
    assert (window["detections"], window["held"], window["severity"]) == (1, 1, Severity.SEV3)
    audit(world.store)


# --- declarations -------------------------------------------------------------------------------------------------------


async def test_a_programs_declaration_lends_its_certainty_to_nobody() -> None:
    world = World()
    await world.order(declare_body(dedupKey="k"), AUTOMATION)
    await world.offer(candidate_body(dedupKey="k", confidence=0.1))
    assert world.row(incident_id("checkout", "k", 1))["state"] == "PENDING"


async def test_a_declaration_waits_for_no_storm() -> None:
    world = World()
    for _ in range(8):
        world.controller.loop.turns.lost(("checkout", "k"))
    before = world.clock.monotonic()
    await world.order(declare_body(dedupKey="k", reason="x"))
    assert world.clock.monotonic() == before


# --- what one message brings out ----------------------------------------------------------------------------------------


async def take(world: World, *bodies: Document) -> Any:
    works = [world.intake.read(text_of(body), world.received(DETECTOR)) for body in bodies]
    return await world.intake.take_all(works, View(), DEADLINE)


async def test_a_window_that_begins_before_2000_is_refused_and_takes_nobody_along() -> None:
    world = World(rules=rules(windowS=604800))
    (good,), (bad,) = await take(world, candidate_body(), detection(observedAt="2000-01-01T00:00:05Z"))
    assert isinstance(good, Applied)
    assert isinstance(bad, Refused)
    assert (bad.refusal.code, bad.refusal.field) == (Code.INVALID_FIELD, "observedAt")


async def test_a_control_character_in_what_a_rule_groups_by_still_makes_an_incident() -> None:
    world = World(rules=rules(groupBy=["service", "attributes.host"]))
    assert isinstance(await world.offer(detection(attributes={"host": "a\x7fb"})), Applied)
    (row,) = world.store.incidents.values()
    assert row["metadata"]["dedupKey"].startswith("errors:")
    audit(world.store)


async def test_a_defect_outside_of_the_lanes_fails_its_own_message_alone() -> None:
    doors = Doors()

    def cracked(work: Any, controls: Any, real: Any = doors.candidates.settlement.service.parts) -> Any:  # type: ignore[attr-defined]
        if work.intake.signals[0].candidate.service == "crack":
            raise ZeroDivisionError("a defect")
        return real(work, controls)

    doors.candidates.settlement.service.parts = cracked  # type: ignore[attr-defined]
    batch = [message(name, candidate_body(service=name)) for name in ("a", "crack", "b")]
    assert await doors.offer(*batch) == ("crack",)
    assert doors.services == {"a", "b"}


async def test_refusals_end_with_the_deadline_though_the_store_hangs() -> None:
    def hangs(call: str, about: Any) -> Exception:
        doors.clock.seconds += 14.0
        return Unavailable("no answer")

    doors = Doors(CountedStore(hangs))
    body = {"type": "detection", "service": "s", "signalType": "typo", "severity": "SEV2"}
    started = doors.clock.monotonic()
    failed = await doors.offer(*[message(f"m{number}", body) for number in range(10)], within_s=45.0)
    assert len(failed) == 10
    assert doors.clock.monotonic() - started <= 60.0


async def test_refusals_end_with_the_first_that_can_not_be_kept() -> None:
    class Hanging(Kept):
        async def reject(self, message: RejectedMessage) -> None:
            doors.clock.seconds += 14.0
            raise Unavailable("no answer")

    doors = Doors(rejected=Hanging())
    started = doors.clock.monotonic()
    failed = await doors.offer(*[message(f"m{number}", {"type": "nonsense"}) for number in range(10)], within_s=45.0)
    assert len(failed) == 10
    assert doors.clock.monotonic() - started <= 15.0


# --- patterns -----------------------------------------------------------------------------------------------------------


def test_a_pattern_covers_what_its_stars_allow(rng: random.Random) -> None:
    for _ in range(3000):
        pattern = "".join(rng.choices("ab*", k=rng.randint(0, 6)))
        text = "".join(rng.choices("ab", k=rng.randint(0, 7)))
        wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
        assert covers(pattern, text) is wanted, (pattern, text)


def test_no_text_makes_a_pattern_go_back() -> None:
    assert not covers("*-" * 30 + "db", "-" * 256)
    assert covers("*" * 200, "-" * 256)
