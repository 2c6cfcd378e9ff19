"""What a detector sends: checked before it is sent, known by itself when sent again, and nothing lost silently.

The queue is faked as botocore's client shows it; a real one is asked in tests/integration/test_client_detector.py.
"""

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ReadTimeoutError

from pipeline.clients.detector import Detector, Message, NotSent, candidate, detection
from pipeline.domain.authority import Sender
from pipeline.domain.candidates import Key, Received
from pipeline.domain.canonical import parse_document
from pipeline.domain.errors import Rejected
from pipeline.domain.intake import read_intake
from tests.support.bodies import candidate_body, recorded_alarms

QUEUE = "https://sqs.us-east-1.amazonaws.com/123456789012/opx-candidates"
NOW = datetime(2026, 1, 31, 3, 0, tzinfo=UTC)


def a_candidate(**fields: Any) -> Message:
    whole: dict[str, Any] = {"service": "checkout", "severity": "SEV2", "title": "5xx", "dedup_key": "checkout-5xx"}
    return candidate(**(whole | fields))


def key_of(message: Message, message_id: str) -> Key:
    """Return the key opx knows a message by when the queue names it so."""
    received = Received(Sender("AROADETECTOR"), message_id, datetime.now(UTC))
    (signal,) = read_intake(parse_document(message.body), received).signals
    return signal.key


class Queue:
    """SQS as its client shows it. `troubles`, one a request: an error, or what became of entries by their bodies' title."""

    def __init__(self, *troubles: Exception | dict[str, str]) -> None:
        self.troubles = list(troubles)
        self.requests: list[list[dict[str, str]]] = []
        self.taken: list[str] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        assert QueueUrl == QUEUE
        self.requests.append(Entries)
        trouble = self.troubles.pop(0) if self.troubles else {}
        if isinstance(trouble, Exception):
            raise trouble
        answer: dict[str, Any] = {"Successful": [], "Failed": []}
        for entry in Entries:
            title = json.loads(entry["MessageBody"])["title"]
            match trouble.get(title):
                case None:
                    answer["Successful"].append({"Id": entry["Id"]})
                    self.taken.append(title)
                case "forgotten":
                    continue
                case code:
                    fault = code == "InvalidMessageContents"
                    answer["Failed"].append({"Id": entry["Id"], "Code": code, "Message": "no", "SenderFault": fault})
        return answer


def detector(queue: Queue) -> tuple[Detector, list[float]]:
    pauses: list[float] = []
    return Detector(QUEUE, client=queue, sleep=pauses.append), pauses


def refused(status: int, code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "SendMessageBatch")


def test_a_message_without_time_or_key_is_observed_now_and_known_by_its_text() -> None:
    message = Message.of(candidate_body(), now=NOW)
    assert json.loads(message.body)["observedAt"] == "2026-01-31T03:00:00.000000Z"
    first = a_candidate()
    assert key_of(first, "m1") == key_of(first, "m2")
    assert key_of(first, "m1").kind == "body"


def test_a_message_with_a_key_of_its_senders_is_the_same_message_whenever_it_is_made() -> None:
    first, again = a_candidate(idempotency_key="backup:7"), a_candidate(idempotency_key="backup:7")
    assert first == again
    assert key_of(first, "m1") == Key("caller", "backup:7")


def test_a_message_keeps_the_time_its_sender_gives() -> None:
    message = a_candidate(observed_at=datetime(2026, 1, 31, 4, 0, tzinfo=UTC) - timedelta(hours=1))
    assert json.loads(message.body)["observedAt"] == "2026-01-31T03:00:00.000000Z"


def test_every_field_reaches_the_wire_by_its_name() -> None:
    message = a_candidate(
        description="d",
        confidence=0.9,
        observed_at="2026-01-31T03:00:00Z",
        source="monitor",
        evidence=[{"kind": "log", "ref": "logs/1"}],
        links=[{"rel": "runbook", "href": "https://example.com"}],
        metadata={"ratio": 0.25},
        policy_id="default",
        idempotency_key="k",
        authority="SYSTEM",
    )
    assert json.loads(message.body).keys() == {
        *candidate_body(),
        *("description", "confidence", "observedAt", "source", "evidence", "links", "metadata", "policyId"),
        *("idempotencyKey", "authority"),
    }
    seen = detection(
        service="checkout", signal_type="error-rate", severity="SEV3", dedup_key="k", resource="pod-7", attributes={"n": 1}
    )
    assert json.loads(seen.body).keys() == {
        *("type", "service", "signalType", "severity", "observedAt", "dedupKey", "resource", "attributes")
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"severity": "SEV9"}, "severity"),
        ({"title": "  "}, "title"),
        ({"title": "two\nlines"}, "title"),
        ({"confidence": 1.5}, "confidence"),
        ({"observed_at": "yesterday"}, "observedAt"),
        ({"observed_at": datetime(2026, 1, 31, 3, 0)}, "observedAt"),  # noqa: DTZ001 - that is the mistake
        ({"observed_at": datetime.now(UTC) + timedelta(days=1)}, "observedAt"),
        ({"evidence": [{"kind": "log"}]}, "evidence.0.ref"),
        ({"idempotency_key": "a b"}, "idempotencyKey"),
        ({"metadata": {"at": NOW}}, "metadata.at"),
    ],
)
def test_a_wrong_message_is_refused_by_its_field_before_anything_is_sent(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(Rejected) as caught:
        a_candidate(**fields)
    assert caught.value.refusal.field == field


def test_only_reports_of_opxs_own_forms_are_made() -> None:
    for document in ({"type": "declare"}, {}, json.loads(recorded_alarms()[0])):
        with pytest.raises(Rejected, match="candidate and detection"):
            Message.of(document)


def test_a_message_too_large_for_opx_is_refused_and_a_large_one_is_not() -> None:
    flame = "\U0001f525"
    evidence = [{"kind": "log", "ref": flame * 128, "note": flame * 500}] * 100
    whole = a_candidate(evidence=evidence)
    assert 240_000 < len(whole.body.encode()) == whole.size <= 256 * 1024
    with pytest.raises(Rejected, match="262144 are the most"):
        a_candidate(evidence=evidence, description=flame * 4096, metadata={"a": flame * 900})


def test_services_that_sqs_takes_as_groups_are_groups_and_others_get_a_digest() -> None:
    assert a_candidate(service="checkout/eu#1").group == "checkout/eu#1"
    for service in ("two words", "käse", "s" * 129):
        group = a_candidate(service=service).group
        assert len(group) == 32
        assert group.isalnum()
        assert group == a_candidate(service=service).group


def test_batches_are_as_large_as_a_request_may_be_and_no_larger(rng: random.Random) -> None:
    queue = Queue()
    evidence = [{"kind": "log", "ref": "r" * 500, "note": "n" * 500}]
    messages = [a_candidate(title=f"t{number}", evidence=evidence * rng.randint(0, 100)) for number in range(60)]
    detector(queue)[0].send(*messages)
    assert queue.taken == [f"t{number}" for number in range(60)]
    for entries in queue.requests:
        assert len(entries) <= 10
        assert sum(len(entry["MessageBody"].encode()) for entry in entries) <= 256 * 1024
        assert len({entry["Id"] for entry in entries}) == len(entries)
        assert {entry["MessageGroupId"] for entry in entries} == {"checkout"}
    assert len(queue.requests) < 40


def test_only_what_was_not_taken_is_sent_again() -> None:
    queue = Queue({"t1": "InternalError", "t3": "forgotten"}, {"t3": "ThrottlingException"})
    sender, pauses = detector(queue)
    sender.send(*(a_candidate(title=f"t{number}") for number in range(5)))
    assert [len(entries) for entries in queue.requests] == [5, 2, 1]
    assert sorted(queue.taken) == ["t0", "t1", "t2", "t3", "t4"]
    assert len(pauses) == 2


def test_what_is_never_taken_is_raised_by_name_and_all_else_is_sent() -> None:
    queue = Queue({"t1": "InternalError", "t2": "InvalidMessageContents"}, *[{"t1": "InternalError"}] * 20)
    messages = [a_candidate(title=f"t{number}") for number in range(25)]
    sender, pauses = detector(queue)
    with pytest.raises(NotSent, match="2 of 25 messages were not sent: InternalError: no") as caught:
        sender.send(*messages)
    assert [(one.message, one.final) for one in caught.value.unsent] == [(messages[1], False), (messages[2], True)]
    assert caught.value.messages == (messages[1],)
    assert caught.value.sent == len(queue.taken) == 23
    assert len(pauses) == 4
    assert all(0 <= pause <= 5 for pause in pauses)


def test_where_the_queue_is_out_of_reach_every_message_is_named() -> None:
    queue = Queue(*[EndpointConnectionError(endpoint_url=QUEUE)] * 20)
    messages = [a_candidate(title=f"t{number}") for number in range(25)]
    with pytest.raises(NotSent, match="EndpointConnectionError") as caught:
        detector(queue)[0].send(*messages)
    assert caught.value.messages == tuple(messages)
    # Behind a request that failed nothing else is tried: one a round.
    assert len(queue.requests) == 5
    queue.troubles.clear()
    detector(queue)[0].send(*caught.value.messages)
    assert len(queue.taken) == 25


@pytest.mark.parametrize("error", [refused(403, "AccessDenied"), NoCredentialsError()], ids=["denied", "no-credentials"])
def test_what_will_not_pass_by_itself_is_told_at_once(error: Exception) -> None:
    queue = Queue(error)
    sender, pauses = detector(queue)
    message = a_candidate()
    with pytest.raises(NotSent) as caught:
        sender.send(message)
    assert (len(queue.requests), pauses) == (1, [])
    # The message itself is good: it is worth sending again once the sender is allowed to.
    assert caught.value.messages == (message,)


def test_behind_a_request_that_is_refused_for_good_nothing_is_tried_and_all_is_named() -> None:
    queue = Queue({"t3": "InternalError"}, refused(403, "AccessDenied"))
    messages = [a_candidate(title=f"t{number}") for number in range(35)]
    with pytest.raises(NotSent, match="26 of 35") as caught:
        detector(queue)[0].send(*messages)
    assert len(queue.requests) == 2
    assert caught.value.messages == (messages[3], *messages[10:])
    assert (caught.value.unsent[0].why, caught.value.sent) == ("InternalError: no", 9)


PASSING = [refused(503, "ServiceUnavailable"), refused(400, "RequestThrottled"), ReadTimeoutError(endpoint_url=QUEUE)]


@pytest.mark.parametrize("error", PASSING, ids=["down", "throttled", "silent"])
def test_what_passes_by_itself_is_waited_for(error: Exception) -> None:
    queue = Queue(error)
    detector(queue)[0].send(a_candidate())
    assert len(queue.requests) == 2


def test_nothing_to_send_asks_nobody() -> None:
    queue = Queue()
    detector(queue)[0].send()
    assert queue.requests == []


def test_what_sqs_cannot_carry_is_escaped_and_reads_back_the_same() -> None:
    message = a_candidate(metadata={"escape": "\x1b[0m"})
    assert "\x1b" not in message.body
    assert json.loads(message.body)["metadata"] == {"escape": "\x1b[0m"}
