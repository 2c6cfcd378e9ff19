"""What `opx queue` tells: how many lie where and why, also where it saw only a part; and what became of a redrive."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.counting import QUEUES, looked_into
from pipeline.cli.peeking import Look, Queues
from pipeline.cli.queue import Choice, _heap, code_of, registry_of
from pipeline.cli.queue_letters import Letter
from pipeline.cli.queue_redrive import HIDDEN_S, Tally
from pipeline.cli.queue_rehearsal import Rehearsal, Told
from pipeline.cli.queue_view import Heap, fates, heaps_table, leads, letters_table, tell
from pipeline.cli.session import Session
from pipeline.cli.target import Target
from pipeline.cli.terminal import CommandError, Meter, Screen
from pipeline.domain.authority import Sender
from pipeline.domain.errors import Unavailable
from pipeline.runtime import shipped
from pipeline.stores.clients import Clients
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import candidate_body
from tests.support.command_line import console, text_of
from tests.support.letterbox import Letterbox, connection_lost
from tests.support.redriving import redriver
from tests.unit.test_queue_letters import Broken

KNOWN = shipped.registry("local", "AROAREDRIVE")
OUTPUTS = {output: name for name, output in QUEUES.items()}


def session(box: Letterbox | None = None, **outputs: str) -> Session:
    return Session(Target("memory", "here", Path(), outputs=OUTPUTS | outputs), Clients({"sqs": box}))


def screen(width: int = 80) -> Screen:
    return Screen(False, console(width), console(width))


def shown(found: Screen) -> str:
    return " ".join(text_of(found.out).split())


def heap(box: Letterbox, queue: str) -> Heap:
    return asyncio.run(_heap(session(box), queue, Rehearsal(KNOWN), Meter()))


def letter(queue: str, body: Any, explanation: dict[str, Any] | None = None, **fields: Any) -> Letter:
    found = Letter.of(queue, Letterbox().put(queue, body, **fields).to_sqs())
    return Letter(queue, found.message, explanation or {})


# --- list ---------------------------------------------------------------------------------------------------------------


def test_a_queue_is_told_of_by_number_and_code_and_left_as_it_was() -> None:
    box = Letterbox(signer="000000000000")
    for body in (candidate_body(), candidate_body(dedupKey="b"), "torn {"):
        box.put("candidates-dlq", body)
    found = heap(box, "candidates-dlq")
    assert found.to_document() == {
        "queue": "candidates-dlq",
        "messages": 3,
        "seen": 3,
        "codes": {"died": 2, "malformed-json": 1},
    }
    assert box.visible("candidates-dlq") == 3


def test_what_was_seen_only_in_part_is_said_so() -> None:
    box = Letterbox(signer="000000000000")
    for number in range(14):
        box.put("commands-dlq", "{}", group="one" if number < 12 else "two")
    found = heap(box, "commands-dlq")
    # Of a group no more show themselves than one look takes.
    assert (found.look.depth, found.look.seen) == (14, 12)
    assert "only 12 of 14" in str(found.to_document()["doubt"])
    heaps_table(told := screen(), [found])
    assert "of the 12 that could be looked at: 12 × unknown-type" in shown(told)


async def test_what_a_killed_run_holds_is_said_to_be_held_and_for_how_long() -> None:
    box = Letterbox(signer="000000000000")
    for _ in range(12):
        box.put("rejected", "{}")
    await redriver(box)._take_out()
    look = await Queues(session(box)).look("rejected", lambda copy: True)
    assert look.is_hidden
    found = Heap(look, Counter())
    said = "held by somebody, perhaps by a run that was broken off, and seen again within 5 minutes"
    assert found.to_document()["doubt"] == f"about 12 messages of rejected could not be looked at: {said}"
    heaps_table(told := screen(200), [found])
    assert said in shown(told)
    # By the time that is said they are seen again.
    box.clock.seconds += HIDDEN_S
    assert (await Queues(session(box)).look("rejected", lambda copy: True)).seen == 12


def test_what_the_fan_outs_records_are_held_for_is_another_time() -> None:
    assert "within 15 minutes" in str(Heap(Look("fanout-failures", depth=3), Counter()).to_document()["doubt"])


def test_a_queue_that_can_not_be_read_is_said_so_beside_the_others() -> None:
    box = Letterbox()

    def denied(call: str, request: dict[str, Any]) -> None:
        raise connection_lost()

    box.put("rejected", "{}")
    box.fault = denied
    found = heap(box, "rejected")
    assert "EndpointConnectionError" in str(found.look.unread)
    heaps_table(told := screen(), [found, Heap(Look("alarms-dlq"), Counter())])
    assert "EndpointConnectionError" in shown(told)
    assert "alarms-dlq 0" in shown(told)


def test_a_webhooks_queue_is_looked_into_where_there_is_a_webhook() -> None:
    assert "webhook-dlq" not in looked_into(session())
    assert "webhook-dlq" in looked_into(session(WebhookDlqUrl="webhook-dlq"))


def test_queues_that_opx_works_off_are_never_looked_into() -> None:
    assert not {"candidates", "commands", "alarms", "alertmanager"} & set(looked_into(session()))


# --- show ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 140])
def test_a_dead_message_says_what_would_become_of_it_and_by_which_id_to_name_it(width: int) -> None:
    found = letter("candidates-dlq", candidate_body(), message_id="4d2f-id", sender="AROASTRANGER:s")
    told = asyncio.run(Rehearsal(KNOWN).told(found))
    letters_table(shown_on := screen(width), [told])
    for part in ("principal-unknown", "would be refused", "AROASTRANGER", "4d2f-id", "received 0 times"):
        assert part in shown(shown_on)


def test_what_a_webhook_did_not_take_leads_to_its_incidents() -> None:
    events = [{"detail": {"incidentId": identity, "sequence": 2}} for identity in ("1aa0", "2bb1", "1aa0")]
    found = [Told(letter("webhook-dlq", body), "undelivered", "") for body in (*events, "torn", {"detail": 7})]
    assert leads("opx", "webhook-dlq", found) == ["opx republish 1aa0 2bb1"]
    assert leads("opx", "webhook-dlq") == ["opx republish --help"]
    assert leads("opx", "fanout-failures") == ["opx republish --failures"]


def test_what_lies_there_can_be_chosen_by_code_service_and_either_id() -> None:
    found = letter("rejected", candidate_body(), {"originalMessageId": "first"}, message_id="copy")
    for choice in (Choice(), Choice("c"), Choice(service="checkout"), Choice(messages=frozenset({"first", "other"}))):
        assert choice.takes(found, "c")
    assert Choice("c", "checkout", frozenset({"copy"})).takes(found, "c")
    for choice in (Choice("d"), Choice(service="search"), Choice(messages=frozenset({"x"})), Choice("c", "search")):
        assert not choice.takes(found, "c")


def dead_and_unread() -> Told:
    found = letter("candidates-dlq", candidate_body(), message_id="dead", sender="000000000000")
    told = asyncio.run(Rehearsal(KNOWN, store=Broken(Unavailable("AccessDenied"))).told(found))
    assert (told.code, told.is_unread) == ("died", True)
    return told


def test_where_a_dead_ones_code_is_asked_for_and_cannot_be_found_out_nothing_is_said_to_match_or_not() -> None:
    told = dead_and_unread()
    for choice in (Choice("policy-unknown"), Choice("policy-unknown", "checkout", frozenset({"dead"}))):
        with pytest.raises(Unavailable, match=r"why dead lies there can't be told: .*AccessDenied"):
            choice.takes_told(told)
        with pytest.raises(Unavailable, match="why dead lies there"):
            asyncio.run(code_of(choice, Rehearsal(KNOWN, store=Broken(Unavailable("x"))), told.letter))


def test_where_a_code_does_not_matter_what_cannot_be_found_out_stops_nobody() -> None:
    told = dead_and_unread()
    assert all(choice.takes_told(told) for choice in (Choice(), Choice("died"), Choice(messages=frozenset({"dead"}))))
    assert not Choice("policy-unknown", "search").takes_told(told), "of another service, whatever its code"
    known = asyncio.run(Rehearsal(KNOWN, store=MemoryStore()).told(letter("candidates-dlq", "torn {")))
    assert not Choice("policy-unknown").takes_told(known)
    assert Choice("malformed-json").takes_told(known)


def test_fates_are_counted_by_what_they_would_be_refused_for() -> None:
    dead = [letter("candidates-dlq", body, sender="000000000000") for body in ("{}", "[]")]
    told = [asyncio.run(Rehearsal(KNOWN).told(one)) for one in dead]
    assert sum(fates(told).values()) == 2
    assert all("would be refused: " in name for name in fates(told))
    assert fates([Told(letter("rejected", "{}"), "c", "r")]) == Counter()


# --- redrive ------------------------------------------------------------------------------------------------------------

TALLY = Tally(
    redriven=Counter(candidates=12, commands=2),
    by_code=Counter({"policy-unknown": 14}),
    left=Counter({"too large": 1}),
    copies=3,
    again=2,
    undeleted=4,
    bare=5,
)


def test_everything_that_became_of_a_redrive_is_told_to_people() -> None:
    tell(told := screen(), "rejected", TALLY, 6)
    for part in (
        "14 messages: 12 to candidates, 2 to commands",
        "14 × policy-unknown",
        "1: too large",
        "3 more of the same",
        "2: refused anew",
        "4 of them also still lie there",
        "5 without their first sender's attributes",
        "about 6: held by somebody, perhaps by a run that was broken off, and seen again within 5 minutes",
    ):
        assert part in shown(told)


def test_everything_that_became_of_a_redrive_is_told_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    tell(Screen(as_json=True), "rejected", TALLY, 6)
    assert json.loads(capsys.readouterr().out) == {
        "queue": "rejected",
        "redriven": 14,
        "to": {"candidates": 12, "commands": 2},
        "codes": {"policy-unknown": 14},
        "copies": 3,
        "undeleted": 4,
        "again": 2,
        "bare": 5,
        "left": {"too large": 1},
        "unseen": 6,
        "seenAgainWithinS": 300,
    }


def test_the_role_that_is_believed_is_the_one_that_the_stack_names() -> None:
    found = registry_of(session(RedriveRoleId="AROAOURS"), "prod", None)
    assert [found.believes(Sender(name)) for name in ("AROAOURS", "000000000000")] == [True, False]
    with pytest.raises(CommandError, match="RedriveRoleId"):
        registry_of(session(), "prod", None)
    local = Session(Target("local engine", "here", Path(), endpoint_url="http://127.0.0.1:1"), Clients({}))
    assert registry_of(local, "prod", None).believes(Sender("000000000000"))
