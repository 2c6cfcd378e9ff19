"""A detector against a real answer: what it sends is in the engine's queue as it was, and the example runs as it is."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.clients.detector import Detector, NotSent, candidate
from pipeline.local.deploy import aws
from pipeline.local.engine import RunningEngine
from tests.support.sources import ROOT

pytestmark = pytest.mark.engine


@pytest.fixture
def queue_url(engine: RunningEngine, rng: random.Random) -> Iterator[str]:
    sqs = aws(engine.endpoint_url, "sqs")
    made = sqs.create_queue(QueueName=f"t{rng.getrandbits(64):016x}", Attributes={"VisibilityTimeout": "600"})
    # The engine names its default port in a queue's URL, whatever port it has.
    url = f"{engine.endpoint_url}/{made['QueueUrl'].split('/', 3)[3]}"
    yield url
    sqs.delete_queue(QueueUrl=url)
    sqs.close()


def drained(engine: RunningEngine, queue_url: str, count: int) -> list[dict[str, Any]]:
    """Receive until `count` messages have come, for a few seconds at most."""
    sqs = aws(engine.endpoint_url, "sqs")
    found: list[dict[str, Any]] = []
    deadline = time.monotonic() + 10
    while len(found) < count and time.monotonic() < deadline:
        answer = sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10, AttributeNames=["All"])
        found += answer.get("Messages", [])
    sqs.close()
    return found


def test_what_is_sent_is_in_the_queue_as_it_was(engine: RunningEngine, queue_url: str) -> None:
    messages = [
        candidate(service="käse & co", severity="SEV2", title=f"ü {number} \U0001f525", dedup_key=f"k{number}")
        for number in range(23)
    ]
    with Detector(queue_url) as detector:
        detector.send(*messages)
    received = drained(engine, queue_url, 23)
    assert sorted(one["Body"] for one in received) == sorted(message.body for message in messages)


def test_a_queue_that_is_not_there_names_every_message(queue_url: str) -> None:
    message = candidate(service="checkout", severity="SEV2", title="5xx", dedup_key="k")
    with Detector(queue_url + "-gone") as detector, pytest.raises(NotSent, match="NonExistentQueue") as caught:
        detector.send(message, message)
    assert caught.value.messages == (message, message)


def test_the_example_reports_a_full_disk(engine: RunningEngine, queue_url: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "detector.py"), queue_url]
    subprocess.run([*command, "2"], check=True, cwd=ROOT)
    subprocess.run([*command, "0"], check=True, cwd=ROOT)
    (message,) = drained(engine, queue_url, 1)
    body = json.loads(message["Body"])
    assert (body["service"], body["dedupKey"]) == ("ledger", "disk-full")
    assert "observedAt" in body
