"""What tells whether a stack is well: queues and how long they wait, the fan-out, raised alarms, the last verification.

Reads only. What can't be read, or is not measured where the stack is, says so in its own place and hides nothing else.
"""

import asyncio
import json
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from pipeline.cli.counting import QUEUES, WEBHOOK_DLQ, Depth, depth_of, looked_into, url_of
from pipeline.cli.session import Session
from pipeline.domain.canonical import parse_time
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.stores.clients import translated
from pipeline.stores.meters import LambdaMapping

T = TypeVar("T")

SERVICES: Final = ("sqs", "ssm", "lambda", "cloudwatch")
NOT_MEASURED: Final = "not measured here"
OLDER_STACK: Final = "this stack is older than that"
# CloudWatch's own figures come some minutes late.
AGES_WITHIN: Final = timedelta(minutes=15)
PERIOD_S: Final = 60
_FANOUT: Final = "fanout"


@dataclass(frozen=True, slots=True)
class Unread:
    """Why something can't be told."""

    why: str


@dataclass(frozen=True, slots=True)
class RaisedAlarm:
    name: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Verified:
    """What the last verification found; `at` None where there was none."""

    at: datetime | None
    incidents: int = 0
    events: int = 0
    divergences: int = 0


@dataclass(frozen=True, slots=True)
class Ages:
    """Seconds that the oldest message of a queue has waited, and that the fan-out is behind; only what is known."""

    queues: Mapping[str, float]
    fanout_s: float | None


@dataclass(frozen=True, slots=True)
class Vitals:
    queues: Mapping[str, Depth | Unread]
    ages: Ages | Unread
    mapping: str | Unread
    alarms: tuple[RaisedAlarm, ...] | Unread
    verified: Verified | Unread


async def vitals(session: Session, now: datetime) -> Vitals:
    """Read everything, side by side."""
    queues = queues_of(session)
    depths = asyncio.gather(*(_or_unread(depth_of(session, queue)) for queue in queues))
    found, ages, mapping, alarms, verified = await asyncio.gather(
        depths,
        _or_unread(_ages(session, queues, now)),
        _or_unread(_mapping(session)),
        _or_unread(_alarms(session)),
        _or_unread(_verified(session)),
    )
    return Vitals(dict(zip(queues, found, strict=True)), ages, mapping, alarms, verified)


def queues_of(session: Session) -> tuple[str, ...]:
    """Return the queues that the stack has, those that nobody works off among them."""
    return (*QUEUES, *(name for name in looked_into(session) if name == WEBHOOK_DLQ))


async def _or_unread(reading: Awaitable[T | Unread]) -> T | Unread:
    try:
        return await reading
    except (Unavailable, Corrupt) as error:
        return Unread(str(error))


async def _mapping(session: Session) -> str | Unread:
    identity = session.target.outputs.get("FanoutMappingId")
    if identity is None:
        return Unread(OLDER_STACK)
    return await LambdaMapping(session.clients.of("lambda"), identity).state()


async def _alarms(session: Session) -> tuple[RaisedAlarm, ...] | Unread:
    if session.target.is_local:
        # The local engine makes no metrics of what the functions write, so its alarms know nothing.
        return Unread(NOT_MEASURED)
    prefix = f"{session.target.prefix}-alarm-"
    found: list[RaisedAlarm] = []
    request: dict[str, Any] = {"AlarmNamePrefix": prefix, "StateValue": "ALARM"}
    while True:
        with translated("asking for raised alarms"):
            answer = await session.clients.of("cloudwatch").describe_alarms(**request)
        found += [
            RaisedAlarm(alarm["AlarmName"].removeprefix(prefix), alarm["StateUpdatedTimestamp"])
            for alarm in answer.get("MetricAlarms", ())
        ]
        if not answer.get("NextToken"):
            return tuple(sorted(found, key=lambda alarm: alarm.since))
        request["NextToken"] = answer["NextToken"]


async def _ages(session: Session, queues: tuple[str, ...], now: datetime) -> Ages | Unread:
    if session.target.is_local:
        return Unread(NOT_MEASURED)
    asked = {queue: _age_of_queue(session, queue) for queue in queues} | {_FANOUT: _age_of_fanout(session)}
    names = dict(enumerate(asked))
    queries = [
        {
            "Id": f"m{number}",
            "MetricStat": {"Metric": asked[name], "Period": PERIOD_S, "Stat": "Maximum"},
        }
        for number, name in names.items()
    ]
    with translated("asking how long messages wait"):
        answer = await session.clients.of("cloudwatch").get_metric_data(
            MetricDataQueries=queries, StartTime=now - AGES_WITHIN, EndTime=now
        )
    newest = {
        names[int(result["Id"].removeprefix("m"))]: float(max(zip(result["Timestamps"], result["Values"], strict=True))[1])
        for result in answer["MetricDataResults"]
        if result.get("Values")
    }
    behind_ms = newest.pop(_FANOUT, None)
    return Ages(newest, None if behind_ms is None else behind_ms / 1000)


def _age_of_queue(session: Session, queue: str) -> dict[str, Any]:
    name = url_of(session, queue).rpartition("/")[2]
    return _metric("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", name)


def _age_of_fanout(session: Session) -> dict[str, Any]:
    return _metric("AWS/Lambda", "IteratorAge", "FunctionName", session.target.output("FanoutFunctionName"))


def _metric(namespace: str, name: str, dimension: str, value: str) -> dict[str, Any]:
    return {"Namespace": namespace, "MetricName": name, "Dimensions": [{"Name": dimension, "Value": value}]}


async def _verified(session: Session) -> Verified | Unread:
    name = session.target.outputs.get("LastVerifyParameterName")
    if name is None:
        return Unread(OLDER_STACK)
    with translated("reading what was last verified"):
        answer = await session.clients.ssm.get_parameter(Name=name)
    return read_verified(answer["Parameter"]["Value"])


def read_verified(text: str) -> Verified | Unread:
    """Read what `opx replay verify` wrote down."""
    try:
        said = json.loads(text)
        if said["at"] is None:
            return Verified(None)
        return Verified(parse_time(said["at"]), *(int(said[name]) for name in ("incidents", "events", "divergences")))
    except (ValueError, KeyError, TypeError) as error:
        return Unread(f"it is no record of a verification ({type(error).__name__})")
