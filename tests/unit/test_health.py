"""Health fails closed: a figure is told whole or not at all, and one that can't be had silences no other."""

from collections.abc import Mapping
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.services.health import (
    DEAD,
    FANOUT_FAILURES,
    FANOUT_STOPPED,
    INTAKE,
    REJECTED,
    SUMS,
    WEBHOOK_DLQ,
    HealthService,
    Measured,
)
from pipeline.stores.meters import DELETED, LambdaMapping

QUEUES = (*INTAKE, REJECTED, FANOUT_FAILURES, *DEAD)


class Place:
    """Queues and a mapping as somebody outside finds them; an exception in a value's place is raised."""

    def __init__(self, depths: Mapping[str, Any], mapping: Any = "Enabled") -> None:
        self.depths = dict.fromkeys(QUEUES, 0) | dict(depths)
        self.mapping = mapping

    async def depth(self, queue: str) -> int:
        return int(_or_raised(self.depths[queue]))

    async def state(self) -> str:
        return str(_or_raised(self.mapping))

    async def measure(self) -> Measured:
        return await HealthService(self, self, tuple(self.depths)).measure()


def _or_raised(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value


async def test_each_figure_is_the_sum_of_its_queues() -> None:
    place = Place({name: number for number, name in enumerate(QUEUES, start=1)} | {WEBHOOK_DLQ: 100})
    assert (await place.measure()).figures() == {
        "IntakeWaiting": 1 + 2 + 3 + 4,
        "RejectedWaiting": 5,
        "FanoutFailuresWaiting": 6,
        "DeadMessages": 7 + 8 + 9 + 10 + 100,
        "FanoutStopped": 0,
    }


async def test_where_nothing_waits_every_figure_says_so() -> None:
    assert (await Place({}).measure()).figures() == dict.fromkeys((*SUMS, FANOUT_STOPPED), 0)


@pytest.mark.parametrize("error", [Unavailable("down"), Corrupt("a call that SQS refuses"), KeyError("Attributes")], ids=str)
@pytest.mark.parametrize("queue", [*QUEUES, WEBHOOK_DLQ])
async def test_a_queue_that_cannot_be_read_takes_its_figure_away_and_no_other(queue: str, error: Exception) -> None:
    measured = await Place(dict.fromkeys((*QUEUES, WEBHOOK_DLQ), 3) | {queue: error}).measure()
    (lost,) = [name for name, queues in SUMS.items() if queue in queues]
    assert measured.figures().keys() == {*SUMS, FANOUT_STOPPED} - {lost}
    assert measured.unread == {queue: error}
    assert queue not in measured.depths


async def test_a_mapping_that_cannot_be_read_is_neither_stopped_nor_running() -> None:
    error = Unavailable("AccessDenied")
    measured = await Place({}, error).measure()
    assert FANOUT_STOPPED not in measured.figures()
    assert measured.figures().keys() == SUMS.keys()
    assert measured.unread == {"mapping": error}


@pytest.mark.parametrize(
    ("state", "stopped"),
    [
        ("Enabled", 0),
        ("Enabling", 0),
        ("Creating", 0),
        ("Updating", 0),
        ("Disabled", 1),
        ("Disabling", 1),
        ("Deleting", 1),
        (DELETED, 1),
        ("None", 1),
        ("a word of next year", 1),
    ],
)
async def test_the_fanout_is_stopped_in_every_state_but_those_in_which_it_reads(state: str, stopped: int) -> None:
    assert (await Place({}, state).measure()).figures()[FANOUT_STOPPED] == stopped


class Lambda:
    """Lambda's own API, of which a mapping can't be had."""

    def __init__(self, code: str) -> None:
        self.code = code

    async def get_event_source_mapping(self, **_: Any) -> Any:
        raise ClientError({"Error": {"Code": self.code, "Message": "x"}}, "GetEventSourceMapping")


async def test_a_mapping_that_was_deleted_is_a_fanout_that_is_stopped() -> None:
    mapping = LambdaMapping(Lambda("ResourceNotFoundException"), "3f0c")
    assert await mapping.state() == DELETED
    measured = await HealthService(Place({}), mapping, QUEUES).measure()
    assert (measured.figures()[FANOUT_STOPPED], measured.unread) == (1, {})


@pytest.mark.parametrize("code", ["AccessDeniedException", "TooManyRequestsException", "ServiceException"])
async def test_a_mapping_that_lambda_does_not_show_may_be_there(code: str) -> None:
    measured = await HealthService(Place({}), LambdaMapping(Lambda(code), "3f0c"), QUEUES).measure()
    assert FANOUT_STOPPED not in measured.figures()
    assert list(measured.unread) == ["mapping"]


async def test_a_stack_without_a_webhook_has_all_its_dead_messages() -> None:
    measured = await Place({"commands-dlq": 2}).measure()
    assert WEBHOOK_DLQ not in measured.depths
    assert measured.figures()["DeadMessages"] == 2
