"""`opx status` against the deployed stack; what the engine does not measure by itself is put into its CloudWatch first."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.cli.session import Session, session_at
from pipeline.cli.target import Selection, Target, local_target
from pipeline.cli.vitals import SERVICES, Ages, Unread, Vitals, vitals
from tests.support.engine_cli import Opx, calling
from tests.support.stack import Stack, wait_until

pytestmark = pytest.mark.engine


@pytest.fixture
def opx(stack: Stack) -> Opx:
    return calling(stack)


def test_status_says_whether_the_fanout_runs_and_a_check_fails_where_it_does_not(stack: Stack, opx: Opx) -> None:
    code, (well,), _ = opx("status")
    assert (code, well["fanout"]["mapping"], well["alarms"]) == (0, "Enabled", {"unread": "not measured here"})
    assert well["fanout"]["behindS"] == {"unread": "not measured here"}
    client, mapping = stack.client("lambda"), stack.outputs["FanoutMappingId"]
    client.update_event_source_mapping(UUID=mapping, Enabled=False)
    try:
        code, (stopped,), _ = opx("status", "--check")
        assert code == 1
        (concern,) = [one for one in stopped["concerns"] if "nothing is published" in one["what"]]
        assert f"--uuid {mapping} --enabled --endpoint-url {stack.endpoint_url}" in concern["next"]
    finally:
        client.update_event_source_mapping(UUID=mapping, Enabled=True)
    running = "Enabled"
    wait_until(lambda: client.get_event_source_mapping(UUID=mapping)["State"] == running, within_s=10)


def test_status_shows_what_was_last_verified(stack: Stack, opx: Opx) -> None:
    ssm, name = stack.client("ssm"), stack.outputs["LastVerifyParameterName"]
    before = ssm.get_parameter(Name=name)["Parameter"]["Value"]
    kept = {"at": "2026-11-25T19:00:00Z", "scope": "everything", "incidents": 3, "events": 9, "divergences": 2, "took_s": 1}
    try:
        ssm.put_parameter(Name=name, Value=json.dumps(kept), Type="String", Overwrite=True)
        _, (told,), _ = opx("status")
        assert told["verified"] == {"at": "2026-11-25T19:00:00.000000Z", "incidents": 3, "events": 9, "divergences": 2}
        assert "divergences: 2" in told["concerns"][0]["what"]
        ssm.put_parameter(Name=name, Value="?", Type="String", Overwrite=True)
        assert "unread" in opx("status")[1][0]["verified"]
    finally:
        ssm.put_parameter(Name=name, Value=before, Type="String", Overwrite=True)


async def deployed_vitals(stack: Stack, **changes: Any) -> Vitals:
    """Read the engine's stack as one in an account is read."""
    found = local_target(Selection(state_dir=stack.engine.state_dir))
    account = Target("a stack", found.region, found.state_dir, outputs=found.outputs | changes)
    async with session_at(found, *SERVICES) as session:
        return await vitals(Session(account, session.clients), datetime.now(UTC))


async def test_of_a_stack_in_an_account_ages_and_raised_alarms_are_read(stack: Stack) -> None:
    cloudwatch, now = stack.client("cloudwatch"), datetime.now(UTC)

    def put(namespace: str, name: str, dimension: str, value: str, *figures: tuple[int, float]) -> None:
        series = {"MetricName": name, "Dimensions": [{"Name": dimension, "Value": value}]}
        data = [series | {"Timestamp": now - timedelta(minutes=ago), "Value": figure} for ago, figure in figures]
        cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)

    put("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "opx-commands.fifo", (9, 5.0), (3, 700.0))
    put("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", "opx-rejected", (60, 90.0))
    put("AWS/Lambda", "IteratorAge", "FunctionName", stack.outputs["FanoutFunctionName"], (2, 2500.0))
    raised = {"Namespace": "test", "MetricName": "m", "Threshold": 1.0, "EvaluationPeriods": 1, "Period": 60}
    raised |= {"ComparisonOperator": "GreaterThanThreshold", "Statistic": "Sum", "TreatMissingData": "ignore"}
    names = ["opx-alarm-test-raised", "other-alarm-test-raised"]
    try:
        for name in names:
            cloudwatch.put_metric_alarm(AlarmName=name, **raised)
            cloudwatch.set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="a test")
        found = await deployed_vitals(stack)
    finally:
        cloudwatch.delete_alarms(AlarmNames=names)
    assert found.ages == Ages({"commands": 700.0}, 2.5), "the newest of the last minutes, and only that"
    assert not isinstance(found.alarms, Unread)
    assert "test-raised" in [alarm.name for alarm in found.alarms]
    assert all(now - timedelta(hours=1) < alarm.since for alarm in found.alarms)


async def test_what_cannot_be_read_hides_nothing_else(stack: Stack) -> None:
    nowhere = {"RejectedQueueUrl": stack.outputs["RejectedQueueUrl"] + "-gone", "FanoutMappingId": "nobody"}
    found = await deployed_vitals(stack, **nowhere, LastVerifyParameterName="opx-nothing")
    unread = {name for name, depth in found.queues.items() if isinstance(depth, Unread)}
    assert unread == {"rejected"}
    assert isinstance(found.mapping, Unread)
    assert isinstance(found.verified, Unread)
    assert not isinstance(found.alarms, Unread)
