"""What `opx send` says of the messages it sent: the ids they got, and how to ask what became of each."""

import asyncio
import io
import json
from typing import Any

import pytest

from pipeline.cli.asked import asked_as_said
from pipeline.cli.following import Ending
from pipeline.cli.leads import Source, leads
from pipeline.cli.messages import Mappings
from pipeline.cli.outbox import Queue
from pipeline.cli.send import Order, _report, recording_of, send_recording
from pipeline.cli.sending import ACKNOWLEDGED_MAX, Acknowledged, Progress, Sent, SqsOutbox
from pipeline.cli.session import Invocation
from pipeline.cli.target import Selection
from pipeline.cli.terminal import Meter, Screen
from pipeline.domain.alertmanager import OWN_WORDS
from pipeline.domain.canonical import digest
from tests.support.bodies import alarm_body, candidate_body, command_body
from tests.support.places import Place
from tests.support.registry import ALARMS, DETECTOR
from tests.support.world import applied

SEEN = {"observedAt": "2026-01-31T02:59:00Z"}
MAPPINGS = Mappings((), OWN_WORDS)


class Sqs:
    """A queue that takes what it is given, but for the entries that fail once, and says an id for each."""

    def __init__(self, *failing: int) -> None:
        self.failing = list(failing)
        self.given: list[str] = []

    async def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        good, bad = [], []
        for entry in Entries:
            number = json.loads(entry["MessageBody"]).get("n")
            if number in self.failing:
                self.failing.remove(number)
                bad.append({"Id": entry["Id"], "SenderFault": False, "Code": "InternalError"})
                continue
            self.given.append(f"m-{number}")
            good.append({"Id": entry["Id"], "MessageId": f"m-{number}"})
        # In no order that anybody promised.
        return {"Successful": good[::-1], "Failed": bad}


def sent_of(count: int, sqs: Sqs) -> tuple[Any, Sent]:
    content = "".join(json.dumps({"type": "candidate", "n": number}) + "\n" for number in range(count)).encode()
    recording = recording_of(io.BytesIO(content))
    return recording, asyncio.run(send_recording(recording, Order(), SqsOutbox(sqs, "q"), Progress(), None, Meter()))


def said(count: int, *, as_json: bool, capsys: pytest.CaptureFixture[str]) -> str:
    recording, sent = sent_of(count, Sqs())
    _report(Invocation(Screen(as_json), Selection()), recording, Progress(), sent, 0.1, Order(), None)
    return capsys.readouterr().out


def test_each_of_a_few_messages_is_told_with_its_id_in_the_order_of_the_lines() -> None:
    _, sent = sent_of(4, Sqs(1, 1))
    assert [(one.number, one.message_id) for one in sent.acknowledged] == [(n + 1, f"m-{n}") for n in range(4)]


def test_of_more_than_a_few_no_ids_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for count, ids in ((1, ["m-0"]), (ACKNOWLEDGED_MAX, [f"m-{n}" for n in range(ACKNOWLEDGED_MAX)])):
        assert json.loads(said(count, as_json=True, capsys=capsys))["messageIds"] == ids
        shown = said(count, as_json=False, capsys=capsys)
        assert all(one in shown for one in ids)
        assert "Next: opx why m-0\n" in shown
    assert "messageIds" not in json.loads(said(ACKNOWLEDGED_MAX + 1, as_json=True, capsys=capsys))
    shown = said(ACKNOWLEDGED_MAX + 1, as_json=False, capsys=capsys)
    assert "m-0" not in shown
    assert "opx why" not in shown


BODIES = {
    "keyless": (candidate_body(), Queue.CANDIDATES, "opx why m-1", "opx why m-1"),
    "own key": (candidate_body(idempotencyKey="key:1"), Queue.CANDIDATES, "opx why key:1", "opx why key:1"),
    "own time": (
        candidate_body(**SEEN),
        Queue.CANDIDATES,
        "opx why --message f.jsonl --moved-by 3",
        f"opx why {digest(candidate_body(**SEEN))}",
    ),
    "wrong": (candidate_body(severity="SEV9"), Queue.CANDIDATES, "opx why m-1", "opx why m-1"),
    "alarm": (alarm_body(), Queue.ALARMS, "opx why --message f.jsonl --moved-by 3", f"opx why {alarm_body()['id']}"),
    "command": (command_body("add-note", "x", note="x"), Queue.COMMANDS, "opx why m-1", "opx why m-1"),
}


@pytest.mark.parametrize(("body", "queue", "of_file", "of_none"), BODIES.values(), ids=BODIES.keys())
def test_a_message_is_asked_after_by_what_its_receipt_is_under(
    body: dict[str, Any], queue: Queue, of_file: str, of_none: str
) -> None:
    sent = [Acknowledged(1, json.dumps(body), "m-1")]
    assert leads(sent, Source(queue, "f.jsonl", 3), MAPPINGS, "opx") == [of_file]
    # Without a file to ask with, the key itself is told.
    assert leads(sent, Source(queue), MAPPINGS, "opx") == [of_none]


@pytest.mark.parametrize(
    ("body", "queue", "sender"),
    [
        (candidate_body(), Queue.CANDIDATES, DETECTOR),
        (candidate_body(**SEEN), Queue.CANDIDATES, DETECTOR),
        (candidate_body(idempotencyKey="key:1"), Queue.CANDIDATES, DETECTOR),
        (alarm_body(), Queue.ALARMS, ALARMS),
    ],
)
async def test_whoever_follows_the_lead_finds_the_receipt(body: dict[str, Any], queue: Queue, sender: Any) -> None:
    place = Place()
    applied(await place.world.offer(body, sender, message_id="m-1"))
    (line,) = leads([Acknowledged(1, json.dumps(body), "m-1")], Source(queue), MAPPINGS, "opx")
    found = await place.follow(asked_as_said(line.removeprefix("opx why ")), principal=sender.principal)
    assert [fate.ending for fate in found.fates] == [Ending.APPLIED]
