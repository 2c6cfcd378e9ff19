"""A Lambda function over a queue, made once and called often: events in, partial batch answers out."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from consumers.queue_function import QueueFunction
from pipeline.domain.errors import Unavailable
from pipeline.runtime.bootstrap import QueueParts
from pipeline.runtime.telemetry import Telemetry
from tests.support.bodies import alarm_body, candidate_body
from tests.support.doors import CountedStore, Doors

ALARMS_ARN = "arn:aws:sqs:us-east-1:000000000000:opx-alarms"
CANDIDATES_ARN = "arn:aws:sqs:us-east-1:000000000000:opx-candidates"

_names = itertools.count()


@dataclass
class Context:
    """What Lambda tells an invocation."""

    aws_request_id: str = "request-1"
    remaining_ms: int = 60_000

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


class Host:
    """A function on the memory store, and what its parts see. Opened on the function's own loop, as clients are."""

    def __init__(self, store: CountedStore | None = None, *, ordered: bool = False) -> None:
        self.doors = Doors(store)
        # A name of its own: the logger remembers where it wrote first.
        self.telemetry = Telemetry(f"host-{next(_names)}")
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.opened = self.closed = 0
        self.function = QueueFunction(self.parts(), ordered=ordered)

    @asynccontextmanager
    async def parts(self) -> AsyncIterator[QueueParts]:
        self.opened += 1
        self.loops.append(asyncio.get_running_loop())
        doors = self.doors
        yield QueueParts(
            service=doors.candidates.settlement.service,  # type: ignore[arg-type]
            rejected=self,
            sources=doors.visibility,
            source_of={ALARMS_ARN: "alarms"},
            default_source="candidates",
            registry=doors.registry,
            controls=doors.controls,
            clock=doors.clock,
            telemetry=self.telemetry,
        )
        self.closed += 1

    async def reject(self, message: Any) -> None:
        self.loops.append(asyncio.get_running_loop())
        await self.doors.rejected.reject(message)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.function.environment.close()


def event(*bodies: Any, arn: str = CANDIDATES_ARN) -> dict[str, Any]:
    """Return an SQS event; the ids of its messages are m0, m1, …"""
    records = []
    for number, body in enumerate(bodies):
        system = {"SenderId": "000000000000", "SentTimestamp": "1772334000000", "ApproximateReceiveCount": "1"}
        records.append(
            {
                "messageId": f"m{number}",
                "receiptHandle": f"h{number}",
                "body": body if isinstance(body, str) else json.dumps(body),
                "attributes": system,
                "messageAttributes": {},
                "eventSourceARN": arn,
            }
        )
    return {"Records": records}


def test_a_batch_is_answered_with_what_must_come_again() -> None:
    def dark(call: str, about: Any) -> Exception | None:
        return Unavailable("no answer") if call == "commit" and about.incident.service == "dark" else None

    host = Host(CountedStore(dark))
    batch = event(candidate_body(), candidate_body(service="dark"), "not json")
    assert host.function(batch, Context()) == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert host.doors.services == {"checkout"}
    assert host.doors.rejected.codes() == ["malformed-json"]
    host.function.environment.close()


def test_an_empty_batch_is_answered(host: Host) -> None:
    assert host.function({"Records": []}, Context()) == {"batchItemFailures": []}


def test_invocations_share_one_loop_and_one_set_of_parts(host: Host) -> None:
    for _ in range(3):
        assert host.function(event("not json"), Context()) == {"batchItemFailures": []}
    assert (host.opened, host.closed) == (1, 0)
    assert len(host.loops) == 4
    assert len(set(host.loops)) == 1
    host.function.environment.close()
    assert host.closed == 1


def test_no_task_outlives_an_invocation(host: Host) -> None:
    host.function(event(*[candidate_body(service=f"s{n}") for n in range(10)]), Context())

    async def others() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert host.function.environment.run(others()) == set()


def test_the_alarms_queue_is_known_by_its_arn(host: Host) -> None:
    assert host.function(event(alarm_body(), arn=ALARMS_ARN), Context()) == {"batchItemFailures": []}
    assert host.doors.memory.feed[0]["actor"]["principal"] == "queue:alarms"


@pytest.mark.parametrize(
    ("remaining_ms", "budget_s"), [(60_000, 45.0), (40_000, 25.0), (25_000, 10.0), (15_000, 6.0), (1_000, 0.4)]
)
def test_time_is_kept_for_what_was_begun(host: Host, remaining_ms: int, budget_s: float) -> None:
    """What starts just before the deadline still ends before Lambda kills the process."""
    clock = host.doors.clock

    def slow(call: str, about: Any) -> None:
        clock.seconds += budget_s - 0.01

    store: Any = host.doors.store
    store.fails = slow
    batch = event(*[candidate_body(dedupKey=f"key-{n}") for n in range(4)])
    answer = host.function(batch, Context(remaining_ms=remaining_ms))
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m2"}, {"itemIdentifier": "m3"}]}


def test_every_invocation_has_its_own_request_id_and_flushes_its_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    host = Host()
    for number in range(2):
        host.function(event(candidate_body(idempotencyKey=f"k{number}")), Context(f"request-{number}"))
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        told = {line["request_id"] for line in lines if "request_id" in line}
        assert told == {f"request-{number}"}
        assert [line["Applied"] for line in lines if "_aws" in line] == [[1.0]], "of this invocation alone"
    host.function.environment.close()


def test_metrics_are_flushed_even_where_the_invocation_dies(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    class Dies(BaseException):
        """No code of ours may catch it."""

    def dying(call: str, about: Any) -> None:
        raise Dies

    store: Any = host.doors.store
    host.telemetry.metrics.add_metric(name="Applied", unit="Count", value=1)
    store.fails = dying
    with pytest.raises(BaseExceptionGroup):
        host.function(event(candidate_body(service="other")), Context())
    assert '"_aws"' in capsys.readouterr().out
    store.fails = lambda call, about: None
    assert host.function(event(candidate_body(service="other")), Context()) == {"batchItemFailures": []}
