"""Commands are sent in again in the order of their groups, each as its person's, and taken once however often sent."""

import json
import random
from typing import Any

from pipeline.cli.outbox import Line, Queue, address
from pipeline.domain.ids import incident_id
from tests.support.bodies import command_body, declare_body
from tests.support.letterbox import House, Letterbox
from tests.support.redriving import BEFORE, COMMANDS, PERSON, REDRIVE, redrive
from tests.support.registry import OPERATOR, entry, registry


def notes(box: Letterbox, groups: int, count: int) -> None:
    for number in range(count):
        for group in range(groups):
            body = command_body("add-note", incident_id("s", str(group), 1), note=f"{group}/{number}")
            box.put("commands-dlq", body, f"{group}-{number}", group=f"g-{group}", **PERSON)


def taken(box: Letterbox, group: int) -> list[int]:
    found = [json.loads(body)["note"].split("/") for body in box.bodies("commands")]
    return [int(number) for of, number in found if int(of) == group]


async def test_a_group_of_commands_keeps_its_order_whatever_fails_meanwhile(rng: random.Random) -> None:
    box = Letterbox()
    notes(box, groups=3, count=25)

    def flaky(call: str, request: dict[str, Any]) -> dict[str, dict[str, Any]] | None:
        if call != "send":
            return None
        later = {"Code": "ServiceUnavailable", "SenderFault": False}
        return {sent["Id"]: later for sent in request["Entries"] if rng.random() < 0.2}

    box.fault = flaky
    assert (await redrive(box, "commands-dlq")).sent == 75
    for group in range(3):
        assert taken(box, group) == list(range(25))
    assert {sent["MessageGroupId"] for sent in box.sends()} == {"g-0", "g-1", "g-2"}


async def test_a_group_stops_at_its_first_that_its_queue_refuses() -> None:
    box = Letterbox()
    notes(box, groups=2, count=5)
    never = {"Code": "InvalidMessageContents", "SenderFault": True}
    box.fault = lambda call, request: (
        {sent["Id"]: never for sent in request["Entries"] if '"0/2"' in sent["MessageBody"]} if call == "send" else None
    )
    tally = await redrive(box, "commands-dlq")
    assert (taken(box, 0), taken(box, 1)) == ([0, 1], [0, 1, 2, 3, 4])
    assert dict(tally.left) == {"InvalidMessageContents": 1, "behind one of its group that stays": 2}
    box.fault = lambda call, request: None
    assert (await redrive(box, "commands-dlq")).sent == 3
    assert taken(box, 0) == [0, 1, 2, 3, 4]


async def test_a_refused_command_goes_back_to_its_incidents_group_as_its_persons() -> None:
    house = House(BEFORE)
    house.box.put("commands", declare_body(dedupKey="d", authority="SYSTEM"), "first", group="g", **PERSON)
    await house.work_off()
    granted = entry("operators", OPERATOR.principal, kinds="HUMAN SYSTEM", operations=COMMANDS, sessionIsPerson=True)
    known = registry(granted, REDRIVE, redriveRole="AROAREDRIVE")
    tally = await redrive(house, known=known)
    assert dict(tally.redriven) == {"commands": 1}
    (sent,) = house.box.sends()
    assert sent["MessageGroupId"].startswith("declare-")
    after = House(known, house.doors.store)
    after.box = house.box
    await after.work_off()
    assert after.feed[0]["actor"]["principal"] == "AROAOPERATOR"


async def test_a_redriven_command_is_not_dropped_as_its_originals_copy_but_as_its_own() -> None:
    box = Letterbox()
    body = json.dumps(declare_body(idempotencyKey="k"))
    box.put("commands-dlq", body, "first", group="g", **PERSON)
    box.fault = lambda call, request: {"0": {"Code": "InternalError", "SenderFault": False}} if call == "delete" else None
    await redrive(box, "commands-dlq")
    assert len(box.bodies("commands")) == 1
    box.fault = lambda call, request: None
    assert (await redrive(box, "commands-dlq")).sent == 1
    assert (box.bodies("commands"), box.bodies("commands-dlq")) == ([body], [])
    once = {sent["MessageDeduplicationId"] for sent in box.sends()}
    assert len(once) == 1
    assert once != {address(Line(1, body), Queue.COMMANDS).deduplication}


async def test_a_command_refused_again_and_redriven_within_minutes_is_not_taken_for_its_copy() -> None:
    house = House(BEFORE)
    house.box.put("commands", declare_body(dedupKey="d", authority="SYSTEM"), "first", group="g", **PERSON)
    await house.work_off()
    assert (await redrive(house)).sent == 1
    await house.work_off()
    assert (house.box.bodies("commands"), len(house.box.bodies("rejected"))) == ([], 1)
    granted = entry("operators", OPERATOR.principal, kinds="HUMAN SYSTEM", operations=COMMANDS, sessionIsPerson=True)
    after = House(registry(granted, REDRIVE, redriveRole="AROAREDRIVE"), house.doors.store)
    after.box = house.box
    assert (await redrive(after)).sent == 1
    await after.work_off()
    assert [event["actor"]["principal"] for event in after.feed[:1]] == ["AROAOPERATOR"]
    assert after.box.bodies("rejected") == []
