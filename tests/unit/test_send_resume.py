"""A sending that is broken off goes on where it stopped; only failed entries are sent again; nothing is lost or silent."""

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from pipeline.cli import sending
from pipeline.cli.checkpoint import Checkpoint
from pipeline.cli.outbox import Queue, addressed, read_lines
from pipeline.cli.send import Order, checkpoint_of, recording_of, send_recording
from pipeline.cli.sending import NAMED_MAX, PROGRESS, Progress, Sent, SqsOutbox, send_all
from pipeline.cli.target import Target
from pipeline.cli.terminal import Meter
from pipeline.domain.errors import Unavailable

Verdict = Callable[[int, dict[str, Any]], dict[str, Any] | None]


class Killed(BaseException):
    """The process dies here."""


class Sqs:
    """SQS as its API answers: `verdict` says for each entry why it fails, `dies_at` which call never returns."""

    def __init__(
        self, verdict: Verdict = lambda call, entry: None, dies_at: int | None = None, down_at: int | None = None
    ) -> None:
        self.verdict, self.dies_at, self.down_at = verdict, dies_at, down_at
        self.calls: list[list[str]] = []
        self.taken: list[str] = []

    async def send_message_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> dict[str, Any]:
        number = len(self.calls)
        self.calls.append([entry["MessageBody"] for entry in Entries])
        if number == self.down_at:
            raise EndpointConnectionError(endpoint_url="http://queue")
        failed = [{"Id": entry["Id"], **reason} for entry in Entries if (reason := self.verdict(number, entry)) is not None]
        bad = {entry["Id"] for entry in failed}
        self.taken += [entry["MessageBody"] for entry in Entries if entry["Id"] not in bad]
        if number == self.dies_at:
            raise Killed
        return {"Successful": [], "Failed": failed}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "WAIT_S", 0.0)


def body(number: int) -> str:
    return json.dumps({"type": "candidate", "service": "s", "n": number})


CONTENT = "".join(body(number) + "\n" for number in range(95)).encode()
ALL = [body(number) for number in range(95)]


def send(
    sqs: Sqs, checkpoint: Checkpoint[Progress] | None = None, content: bytes = CONTENT, order: Order | None = None
) -> Sent:
    recording = recording_of(io.BytesIO(content))
    start = (checkpoint.read() if checkpoint else None) or Progress()
    return asyncio.run(send_recording(recording, order or Order(), SqsOutbox(sqs, "q"), start, checkpoint, Meter()))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint[Progress]:
    return Checkpoint.of(PROGRESS, tmp_path / "sends", ["content", "target"])


def test_a_file_is_sent_once_in_order_in_full_batches(checkpoint: Checkpoint[Progress]) -> None:
    sqs = Sqs()
    sent = send(sqs, checkpoint)
    assert sqs.taken == ALL
    assert [len(call) for call in sqs.calls] == [10] * 9 + [5]
    assert (sent.progress.sent, sent.failed, sent.progress.sent_bytes) == (95, 0, sum(len(text) for text in ALL))
    assert checkpoint.read() is None


@pytest.mark.parametrize("dies_at", range(10))
def test_killed_after_any_call_nothing_is_lost_and_one_batch_at_most_is_sent_twice(
    checkpoint: Checkpoint[Progress], dies_at: int
) -> None:
    first, second = Sqs(dies_at=dies_at), Sqs()
    with pytest.raises(Killed):
        send(first, checkpoint)
    assert len(first.taken) == min(95, 10 * (dies_at + 1))
    send(second, checkpoint)
    times = Counter(first.taken + second.taken)
    assert set(times) == set(ALL)
    assert sum(count - 1 for count in times.values()) <= 10


def test_an_unreachable_queue_leaves_a_checkpoint_that_goes_on(checkpoint: Checkpoint[Progress]) -> None:
    first, second = Sqs(down_at=4), Sqs()
    with pytest.raises(Unavailable):
        send(first, checkpoint)
    done = checkpoint.read()
    assert done is not None
    assert done.position == 40
    sent = send(second, checkpoint)
    assert first.taken + second.taken == ALL
    assert sent.progress.sent == 95


def test_a_shuffled_sending_goes_on_in_the_same_order(checkpoint: Checkpoint[Progress]) -> None:
    order = Order(shuffle=3)
    whole, first, second = Sqs(), Sqs(down_at=4), Sqs()
    send(whole, None, order=order)
    with pytest.raises(Unavailable):
        send(first, checkpoint, order=order)
    send(second, checkpoint, order=order)
    assert first.taken + second.taken == whole.taken
    assert sorted(whole.taken) == sorted(ALL)
    assert whole.taken != ALL


def test_a_rebase_goes_on_by_the_days_it_began_with(checkpoint: Checkpoint[Progress]) -> None:
    recorded = [{"type": "candidate", "observedAt": f"2026-03-02T08:00:{number:02}Z"} for number in range(30)]
    content = "".join(json.dumps(item) + "\n" for item in recorded).encode()
    with pytest.raises(Unavailable):
        send(Sqs(down_at=1), checkpoint, content, Order(rebase=True))
    begun = checkpoint.read()
    assert begun is not None
    checkpoint.write(replace(begun, days=3))
    second = Sqs()
    send(second, checkpoint, content, Order(rebase=True))
    assert {json.loads(text)["observedAt"][:10] for text in second.taken} == {"2026-03-05"}


def test_only_failed_entries_are_sent_again(checkpoint: Checkpoint[Progress]) -> None:
    def throttled(call: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        unlucky = json.loads(entry["MessageBody"])["n"] in (3, 7) and call < 2
        return {"SenderFault": False, "Code": "ServiceUnavailable"} if unlucky else None

    sqs = Sqs(throttled)
    sent = send(sqs, checkpoint)
    assert [len(call) for call in sqs.calls][:3] == [10, 2, 2]
    assert sorted(sqs.taken) == sorted(ALL)
    assert (sent.progress.sent, sent.failed) == (95, 0)


def test_what_the_queue_refuses_for_good_is_named_and_the_rest_goes_on(checkpoint: Checkpoint[Progress]) -> None:
    def refused(call: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        wrong = json.loads(entry["MessageBody"])["n"] == 12
        return {"SenderFault": True, "Code": "InvalidMessageContents", "Message": "no"} if wrong else None

    sent = send(Sqs(refused), checkpoint)
    assert (sent.progress.sent, sent.failed) == (94, 1)
    assert [(item.number, item.why) for item in sent.refused] == [(13, "InvalidMessageContents: no")]


def test_entries_that_keep_failing_break_the_sending_off_before_they_are_passed_over(
    checkpoint: Checkpoint[Progress],
) -> None:
    def always(call: int, entry: dict[str, Any]) -> dict[str, Any] | None:
        return {"SenderFault": False, "Code": "InternalError"} if json.loads(entry["MessageBody"])["n"] == 25 else None

    with pytest.raises(Unavailable, match="InternalError"):
        send(Sqs(always), checkpoint)
    done = checkpoint.read()
    assert done is not None
    assert done.position == 20


def test_lines_that_no_queue_takes_are_counted_and_the_first_are_named() -> None:
    content = b"\xff\n" * 50 + b"{}\n"
    sqs = Sqs()
    items = addressed(read_lines(io.BytesIO(content)), Queue.CANDIDATES)
    sent = asyncio.run(send_all(items, SqsOutbox(sqs, "q"), Progress(), None, Meter()))
    assert (sent.progress.sent, sent.failed, len(sent.refused)) == (1, 50, NAMED_MAX)
    assert sqs.taken == ["{}"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 2, "key": "KEY", "position": 4, "sent": 4, "sent_bytes": 9, "days": null}',
        '{"version": 1, "key": "another", "position": 4, "sent": 4, "sent_bytes": 9, "days": null}',
        '{"version": 1, "key": "KEY", "position": -4, "sent": 4, "sent_bytes": 9, "days": null}',
        '{"version": 1, "key": "KEY", "position": "4", "sent": 4, "sent_bytes": 9, "days": null}',
        '{"version": 1, "key": "KEY", "position": true, "sent": 4, "sent_bytes": 9, "days": null}',
        '{"version": 1, "key": "KEY", "position": 4, "sent": 4, "sent_bytes": 9, "days": "x"}',
        '{"version": 1, "key": "KEY", "position": 4, "sent": 4, "sent_bytes": 9, "days": null, "more": 1}',
    ],
)
def test_a_torn_or_foreign_checkpoint_means_from_the_start(checkpoint: Checkpoint[Progress], content: str) -> None:
    checkpoint.path.parent.mkdir(parents=True)
    checkpoint.path.write_text(content.replace("KEY", checkpoint.key), encoding="utf-8")
    assert checkpoint.read() is None
    sqs = Sqs()
    send(sqs, checkpoint)
    assert sqs.taken == ALL


def test_another_content_target_or_option_has_another_checkpoint(tmp_path: Path) -> None:
    def target(**outputs: str) -> Target:
        return Target("local engine", "us-east-1", tmp_path / "local", "http://127.0.0.1:1", outputs=outputs)

    one, other = recording_of(io.BytesIO(b"{}\n")), recording_of(io.BytesIO(b"{ }\n"))
    mine, later = target(EventsStreamArn="a"), target(EventsStreamArn="b")
    kinds = [Order(), Order(rebase=True), Order(shuffle=0), Order(shuffle=1), Order(Queue.COMMANDS)]
    keys = [checkpoint_of(mine, one, order).key for order in kinds]
    keys += [checkpoint_of(mine, other, Order()).key, checkpoint_of(later, one, Order()).key]
    assert len(set(keys)) == len(keys)
    assert checkpoint_of(mine, one, Order(resume=False)).key == keys[0]
    assert checkpoint_of(mine, one, Order()).path.parent == tmp_path / "sends"
