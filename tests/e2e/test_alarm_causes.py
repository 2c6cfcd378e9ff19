"""Each alarm's cause, provoked for real, and the alarm's own definition on what the functions wrote about it.

No test puts a metric: they are read from the functions' logs in the engine, or, where the engine itself would have to
break, from the output of a function's real handler that was cut off from what it needs. Two counts are AWS's own
(FunctionErrors, Throttles), because a function that can't start writes nothing.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from pipeline.local.paths import PROJECT_ROOT
from pipeline.runtime.metrics import MEASURES, Metric
from tests.support.alarms import Alarm, Written, alarms
from tests.support.hosted import NOWHERE, written_by
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.engine

ACCOUNT = "000000000000"
STRANGER = "AROANOBODYKNOWS"
TITLE = "What nobody may find in a log"
DOORS = ("candidates", "commands", "api", "fanout", "retention", "health")
# As somebody sets them who usually has five a minute; a thousand would take the engine its time.
PARAMETERS = {"HighCreationRateThreshold": "20", "IntakeStalledThreshold": "20"}
INTAKE_WAITING = ("opx", Metric.INTAKE_WAITING.value, "service", "opx-health")
Cause = Callable[["Drill"], Written]
CAUSES: dict[str, Cause] = {}


def cause(provoke: Cause) -> Cause:
    """Register what provokes the alarm of the function's name."""
    CAUSES["".join(word.capitalize() for word in provoke.__name__.split("_")) + "Alarm"] = provoke
    return provoke


class Drill:
    """What provokes, and reads what was written since."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.outputs = stack.outputs
        self.sqs, self.lambda_, self.logs = (stack.client(name) for name in ("sqs", "lambda", "logs"))
        self.began = datetime.now(UTC)

    def function(self, door: str) -> str:
        return f"{door.capitalize()}FunctionName"

    def invoke(self, door: str, event: Any) -> Any:
        """Invoke a deployed function; return its answer, which may be an error's."""
        answer = self.lambda_.invoke(FunctionName=self.outputs[self.function(door)], Payload=json.dumps(event).encode())
        return json.loads(answer["Payload"].read() or "null")

    def lines(self, door: str) -> list[str]:
        """Return what a deployed function has logged since the drill began."""
        pages = self.logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/aws/lambda/{self.outputs[self.function(door)]}",
            startTime=int(self.began.timestamp() * 1000),
        )
        return [line for page in pages for event in page["events"] for line in event["message"].splitlines()]

    def logged(self, door: str, metric: Metric, at_least: float = 1) -> Written:
        """Wait until a deployed function has logged so much of a metric."""
        found = Written()
        series = ("opx", metric.value, "service", f"opx-{door}")

        def is_told() -> bool:
            nonlocal found
            found = Written().read(self.lines(door))
            return sum(found.values.get(series, [])) >= at_least

        wait_until(is_told, within_s=30)
        return found

    def hosted(self, door: str, event: Any, **changes: str) -> Written:
        """Return what a function writes when it is cut off from something."""
        return Written().read(written_by(self.stack, self.function(door), event, **changes))

    def measured(self, metric: Metric, at_least: float = 1) -> Written:
        """Have health measure now."""
        assert self.invoke("health", {}) is None
        return self.logged("health", metric, at_least)


def event(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((PROJECT_ROOT / "tests" / "events" / f"{name}.json").read_text("utf-8"))
    return read


def messages(drill: Drill, queue: str, bodies: list[Any], sender: str = ACCOUNT) -> dict[str, Any]:
    """Return a batch as Lambda takes it from a queue."""
    arn = f"arn:aws:sqs:us-east-1:{ACCOUNT}:opx-{queue}"
    system = {"ApproximateReceiveCount": "1", "SentTimestamp": str(int(time.time() * 1000)), "SenderId": sender}
    records = [
        {
            "messageId": str(uuid4()),
            "receiptHandle": "handle",
            "body": json.dumps(body),
            "attributes": system | ({"MessageGroupId": str(number)} if queue.endswith("fifo") else {}),
            "messageAttributes": {},
            "eventSourceARN": arn,
        }
        for number, body in enumerate(bodies)
    ]
    return {"Records": records}


def candidate(key: str, **fields: Any) -> dict[str, Any]:
    basis = {"type": "candidate", "service": "drill", "severity": "SEV2", "title": TITLE, "dedupKey": key}
    return basis | fields


@contextmanager
def emptied(drill: Drill, output: str) -> Iterator[None]:
    """Take away what came to a queue meanwhile, and nothing that was there before."""
    began = int(time.time() * 1000)
    yield
    names = ["SentTimestamp"]
    while found := drill.sqs.receive_message(
        QueueUrl=drill.outputs[output], MaxNumberOfMessages=10, VisibilityTimeout=5, MessageSystemAttributeNames=names
    ).get("Messages", ()):
        for one in found:
            if int(one["Attributes"]["SentTimestamp"]) >= began:
                drill.sqs.delete_message(QueueUrl=drill.outputs[output], ReceiptHandle=one["ReceiptHandle"])


@contextmanager
def disabled(drill: Drill, source: str) -> Iterator[None]:
    """Have nobody take from a source, an output of the stack, for a while."""
    mappings = drill.lambda_.list_event_source_mappings()["EventSourceMappings"]
    (uuid,) = [one["UUID"] for one in mappings if one["EventSourceArn"] == drill.outputs[source]]
    drill.lambda_.update_event_source_mapping(UUID=uuid, Enabled=False)
    try:
        yield
    finally:
        drill.lambda_.update_event_source_mapping(UUID=uuid, Enabled=True)


# --- intake -------------------------------------------------------------------------------------------------------------


@cause
def high_creation_rate(drill: Drill) -> Written:
    """A detector whose key is another each time."""
    bodies = [candidate(f"pod-{uuid4()}") for _ in range(21)]
    drill.invoke("candidates", messages(drill, "candidates", bodies))
    return drill.logged("candidates", Metric.INCIDENTS_CREATED, 21)


@cause
def authority_refusals(drill: Drill) -> Written:
    """A sender that nobody registered."""
    with emptied(drill, "RejectedQueueUrl"):
        bodies = [candidate(f"stranger-{number}") for number in range(6)]
        drill.invoke("candidates", messages(drill, "candidates", bodies, f"{STRANGER}:session"))
        return drill.logged("candidates", Metric.AUTHORITY_REFUSALS, 6)


@cause
def transition_failures(drill: Drill) -> Written:
    """A program that closes what is not there."""
    body = {"type": "change-state", "newState": "CLOSED", "authority": "HUMAN", "reason": "drill"}
    with emptied(drill, "RejectedQueueUrl"):
        bodies = [body | {"incidentId": str(uuid4())} for _ in range(21)]
        drill.invoke("commands", messages(drill, "commands.fifo", bodies))
        return drill.logged("commands", Metric.TRANSITION_FAILURES, 21)


@cause
def rejected_waiting(drill: Drill) -> Written:
    """A detector that sends what opx can't read, by the queue; nobody looks."""
    with emptied(drill, "RejectedQueueUrl"):
        for start in (0, 6):
            entries = [{"Id": str(number), "MessageBody": "not JSON"} for number in range(start, start + 6)]
            drill.sqs.send_message_batch(QueueUrl=drill.outputs["CandidatesQueueUrl"], Entries=entries)
        drill.logged("candidates", Metric.REJECTED_MESSAGES, 12)
        return drill.measured(Metric.REJECTED_WAITING, 12)


@cause
def intake_stalled(drill: Drill) -> Written:
    """Nobody takes what detectors send."""
    with disabled(drill, "CandidatesQueueArn"):
        for start in (0, 10, 20):
            entries = [
                {"Id": str(number), "MessageBody": json.dumps(candidate(f"stalled-{number}"))}
                for number in range(start, start + 10)
            ]
            drill.sqs.send_message_batch(QueueUrl=drill.outputs["CandidatesQueueUrl"], Entries=entries)
        # What was being taken when it was disabled is let go of.
        wait_until(lambda: max(drill.measured(Metric.INTAKE_WAITING).values[INTAKE_WAITING]) > 20, within_s=30)
        written = drill.measured(Metric.INTAKE_WAITING, 21)
    drill.logged("candidates", Metric.APPLIED, 30)
    return written


@cause
def dead_messages(drill: Drill) -> Written:
    """A message that has been given up."""
    with emptied(drill, "CandidatesDlqUrl"):
        drill.sqs.send_message(QueueUrl=drill.outputs["CandidatesDlqUrl"], MessageBody="poison")
        return drill.measured(Metric.DEAD_MESSAGES)


@cause
def controls_unread(drill: Drill) -> Written:
    """The parameter of pauses and maintenance windows is gone."""
    batch = messages(drill, "candidates", [candidate("unread")])
    return drill.hosted("candidates", batch, OPX_CONTROLS_PARAMETER="opx-nothing")


# --- fan-out ------------------------------------------------------------------------------------------------------------


@contextmanager
def damaged(drill: Drill) -> Iterator[None]:
    """An event that does not carry the hash of what it says, in the event table; gone afterwards."""
    dynamodb, table = drill.stack.client("dynamodb"), drill.outputs["EventsTableName"]
    sample = event("fanout")["Records"][0]["dynamodb"]["NewImage"]
    identity = {"S": str(uuid4())}
    dynamodb.put_item(TableName=table, Item=sample | {"incidentId": identity})
    try:
        yield
    finally:
        dynamodb.delete_item(TableName=table, Key={"incidentId": identity, "sequence": sample["sequence"]})


@cause
def corruption(drill: Drill) -> Written:
    """Somebody writes into the event table what no function of opx wrote."""
    with emptied(drill, "FanoutFailuresQueueUrl"):
        with damaged(drill):
            written = drill.logged("fanout", Metric.CORRUPTION)
        drill.logged("fanout", Metric.CORRUPTION, 2)
        return written


@cause
def fanout_failures_waiting(drill: Drill) -> Written:
    """The same event can never be published."""
    with emptied(drill, "FanoutFailuresQueueUrl"):
        with damaged(drill):
            drill.logged("fanout", Metric.EVENTS_FAILED)
            written = drill.measured(Metric.FANOUT_FAILURES_WAITING)
        drill.logged("fanout", Metric.EVENTS_FAILED, 2)
        return written


@cause
def fanout_lag(drill: Drill) -> Written:
    """The bus takes nothing, and the oldest event has waited for long."""
    return drill.hosted("fanout", event("fanout"), AWS_ENDPOINT_URL_EVENTS=NOWHERE)


@cause
def fanout_stopped(drill: Drill) -> Written:
    """Somebody has disabled the mapping."""
    with disabled(drill, "EventsStreamArn"):
        return drill.measured(Metric.FANOUT_STOPPED)


# --- what opx stands on, and opx itself ---------------------------------------------------------------------------------


@cause
def dependency_down(drill: Drill) -> Written:
    """DynamoDB does not answer."""
    batch = messages(drill, "candidates", [candidate("down")])
    return drill.hosted("candidates", batch, AWS_ENDPOINT_URL_DYNAMODB=NOWHERE)


@cause
def api_availability(drill: Drill) -> Written:
    """DynamoDB does not answer, and somebody declares an incident."""
    return drill.hosted("api", event("api"), AWS_ENDPOINT_URL_DYNAMODB=NOWHERE)


@cause
def retention_failing(drill: Drill) -> Written:
    """DynamoDB does not answer, and it is time to archive."""
    return drill.hosted("retention", {}, AWS_ENDPOINT_URL_DYNAMODB=NOWHERE)


@cause
def crashes(drill: Drill) -> Written:
    """An event in a form that the code does not know."""
    assert "errorType" in drill.invoke("fanout", {})
    return drill.logged("fanout", Metric.CRASHES)


@cause
def function_errors(drill: Drill) -> Written:
    """The same; the count is Lambda's own."""
    drill.invoke("fanout", {})
    return counted_by_lambda(drill, "Errors", "fanout")


@cause
def throttles(drill: Drill) -> Written:
    """Somebody has left a function no execution; the count is Lambda's own, too."""
    name = drill.outputs[drill.function("retention")]
    drill.lambda_.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        with pytest.raises(drill.lambda_.exceptions.TooManyRequestsException):
            drill.invoke("retention", {})
    finally:
        drill.lambda_.delete_function_concurrency(FunctionName=name)
    return counted_by_lambda(drill, "Throttles", "retention")


def counted_by_lambda(drill: Drill, metric: str, door: str) -> Written:
    """Wait until Lambda itself has counted something of a function."""
    written = Written()
    name = drill.outputs[drill.function(door)]
    cloudwatch = drill.stack.client("cloudwatch")

    def is_counted() -> bool:
        answer = cloudwatch.get_metric_statistics(
            Namespace="AWS/Lambda",
            MetricName=metric,
            Dimensions=[{"Name": "FunctionName", "Value": name}],
            StartTime=drill.began - timedelta(minutes=1),
            EndTime=drill.began + timedelta(minutes=5),
            Period=60,
            Statistics=["Sum"],
        )
        counted = [point["Sum"] for point in answer["Datapoints"]]
        if sum(counted):
            written.add(("AWS/Lambda", metric, "FunctionName", name), *counted)
        return bool(sum(counted))

    wait_until(is_counted, within_s=10)
    return written


# --- the tests ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def drill(stack: Stack) -> Drill:
    return Drill(stack)


@pytest.mark.parametrize("alarm", alarms(**PARAMETERS).values(), ids=lambda alarm: alarm.id)
def test_an_alarm_is_raised_by_its_cause_and_not_without_it(alarm: Alarm, drill: Drill) -> None:
    written = CAUSES[alarm.id](drill)
    assert alarm.is_raised(written), f"{alarm.expression} is {alarm.value(written)}"
    at_rest = Written()
    for series, stat in alarm.watched().values():
        at_rest.add(series, 0.0 if stat == "Maximum" or series[1] != "ApiRequests" else 1.0)
    assert not alarm.is_raised(at_rest)


def test_every_alarm_has_a_cause_here_and_every_cause_an_alarm() -> None:
    assert CAUSES.keys() == alarms().keys()


# What was only done to these cut off from everything, above.
UNTOUCHED = {"api": event("api") | {"httpMethod": "GET", "resource": "/incidents", "body": None}, "retention": {}}


@pytest.mark.parametrize("door", DOORS)
def test_a_function_writes_only_metrics_that_the_table_says_it_writes(door: str, drill: Drill) -> None:
    """Of all that was done to it before; and no line repeats what somebody sent."""
    drill.began = datetime(2026, 1, 1, tzinfo=UTC)
    if door in UNTOUCHED:
        drill.invoke(door, UNTOUCHED[door])
    wait_until(lambda: bool(Written().read(drill.lines(door)).values), within_s=30)
    lines = drill.lines(door)
    found = Written().read(lines).values
    for namespace, metric, dimension, service in found:
        assert (namespace, dimension, service) == ("opx", "service", f"opx-{door}")
        assert door in MEASURES[Metric(metric)].doors, metric
    assert [line for line in lines if TITLE in line] == []


def test_alarms_on_one_metric_and_the_dashboard_are_in_the_engine_as_the_template_has_them(stack: Stack) -> None:
    cloudwatch = stack.client("cloudwatch")
    for alarm in alarms("local").values():
        (there,) = cloudwatch.describe_alarms(AlarmNames=[alarm.properties["AlarmName"]])["MetricAlarms"]
        same = ("MetricName", "Namespace", "Statistic", "ComparisonOperator", "TreatMissingData", "AlarmDescription")
        assert {name: there[name] for name in same} == {name: alarm.properties[name] for name in same}
        assert float(there["Threshold"]) == float(alarm.properties["Threshold"])
        assert there["AlarmActions"] == there["OKActions"] == [stack.outputs["AlarmsTopicArn"]]
    body = cloudwatch.get_dashboard(DashboardName=stack.outputs["DashboardName"])["DashboardBody"]
    assert len(json.loads(body)["widgets"]) > 20
    assert "${" not in body
