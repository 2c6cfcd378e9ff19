"""Every wrong message of the table through the real doors: refused once, kept whole, never retried, nobody held up."""

import json
import random
from dataclasses import replace

import pytest

from pipeline.domain.errors import MEANINGS, Code
from pipeline.services.ports import Message
from pipeline.stores.queues import ascii_json
from tests.bad_input_cases import CANDIDATES, CASES, FIRST_CANDIDATES, FIRST_COMMANDS, TARGET, TARGET_SERVICE, BadInput
from tests.support.audit import audit
from tests.support.doors import Doors, command_message, message

REASON_BYTES_MAX = 512


async def prepared() -> Doors:
    """Return doors whose store holds the target, OPEN, and the keys used before."""
    doors = Doors()
    assert await doors.offer(*[message(f"first-{n}", body) for n, body in enumerate(FIRST_CANDIDATES)]) == ()
    assert await doors.order(*[command_message(f"note-{n}", body) for n, body in enumerate(FIRST_COMMANDS)]) == ()
    assert doors.rejected.messages == []
    assert doors.memory.incidents[TARGET]["state"] == "OPEN"
    return doors


def batch_of(case: BadInput) -> tuple[Message, Message]:
    """Return the wrong message and its good neighbour; on the commands queue the neighbour stands behind it in its group."""
    make = message if case.queue == CANDIDATES else command_message
    bad = replace(make(case.name, case.body), sender_id=case.sender, attributes=case.attributes)
    return bad, make(f"{case.name}-neighbour", case.neighbour)


def check(doors: Doors, case: BadInput) -> None:
    """Assert that one case was refused as the table says and lies in the rejected queue as it was sent."""
    refusal = doors.refusals()[case.name]
    assert (refusal.code, refusal.field) == (case.code, case.refused_field), refusal
    kept = [one for one in doors.rejected.messages if one.explanation["originalMessageId"] == case.name]
    assert len(kept) == 1, "once, and only once"
    assert kept[0].body == case.body
    told = json.loads(ascii_json(kept[0].explanation))
    assert told["code"] == case.code.value
    assert told["reason"].isascii()
    assert len(told["reason"]) <= REASON_BYTES_MAX
    assert case.refused_field is None or told["reason"].startswith(f"{case.refused_field}: ")
    assert told["originalSenderId"] == case.sender
    assert told.get("attributes", {}) == case.attributes
    assert case.neighbour_service in doors.services, "the neighbour is not held up"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_is_refused_once_and_its_neighbour_is_applied(case: BadInput) -> None:
    doors = await prepared()
    before = dict(doors.memory.incidents[TARGET])
    bad, neighbour = batch_of(case)
    handle = doors.offer if case.queue == CANDIDATES else doors.order
    assert await handle(bad, neighbour) == (), "refused is settled: it must not come again"
    check(doors, case)
    assert doors.services == {TARGET_SERVICE, case.neighbour_service}
    assert doors.memory.incidents[TARGET] == before, "a refused command changes nothing"
    audit(doors.memory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_bad_input_delivered_again_is_refused_again_and_changes_nothing(case: BadInput) -> None:
    """The process may have died before the message was deleted."""
    doors = await prepared()
    bad, _ = batch_of(case)
    handle = doors.offer if case.queue == CANDIDATES else doors.order
    await handle(bad)
    history = len(doors.memory.feed)
    assert await handle(bad) == ()
    assert doors.rejected.codes() == [case.code.value] * 2
    assert len(doors.memory.feed) == history


async def test_all_bad_input_at_once_in_any_order(rng: random.Random) -> None:
    doors = await prepared()
    for queue, handle in ((CANDIDATES, doors.offer), ("commands", doors.order)):
        messages = [one for case in CASES if case.queue == queue for one in batch_of(case)]
        rng.shuffle(messages)
        for start in range(0, len(messages), 10):
            assert await handle(*messages[start : start + 10]) == ()
    for case in CASES:
        check(doors, case)
    assert len(doors.rejected.messages) == len(CASES)
    assert doors.services == {TARGET_SERVICE, *(case.neighbour_service for case in CASES)}
    audit(doors.memory)


def test_the_table_has_every_code_a_message_can_meet() -> None:
    """A code that is added must be added to the table of bad input too, or be named here with its own test's place."""
    elsewhere = {
        Code.LINK_TO_ITSELF: "tests/unit/test_decisions_commands.py",
        Code.SEVERITY_FROZEN: "tests/unit/test_decisions_commands.py",
        Code.OPERATION_NOT_GRANTED: "tests/unit/test_authority.py",
        Code.ACTOR_NOT_ASSERTABLE: "tests/unit/test_authority.py",
    }
    assert {case.code for case in CASES} | set(elsewhere) == set(MEANINGS)


def test_names_of_cases_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
