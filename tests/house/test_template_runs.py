"""What template.yaml promises of what runs the functions beside the queues: the event table's stream, and the clock.

One check a promise; see test_template for how they run.
"""

from collections.abc import Iterator

import pytest

from tests.house.template import GONE, STAGES, Change, Parts, Promises, identity_statements, of_type, sources

PROMISES = Promises()


@PROMISES.promise(
    ("FanoutFunction/Properties/Events/Stream/Properties/DestinationConfig", GONE),
    ("FanoutFunction/Properties/Events/Stream/Properties/BisectBatchOnFunctionError", False),
    ("FanoutFunction/Properties/Events/Stream/Properties/StartingPosition", "LATEST"),
    ("FanoutFunction/Properties/Events/Stream/Properties/MaximumRetryAttempts", 3),
    ("FanoutFunction/Properties/Events/Stream/Properties/MaximumRecordAgeInSeconds", 604800),
    ("FanoutFunction/Properties/Events/Stream/Properties/FunctionResponseTypes", ["ReportBatchItemFailures"]),
    ("FanoutRole/Properties/Policies/0/PolicyDocument/Statement/3", GONE),
)
def the_stream_is_retried_for_a_day_and_then_named_in_the_failure_queue(parts: Parts) -> Iterator[str]:
    failures = "FanoutFailuresQueue.Arn"
    allowed = any(
        statement["Effect"] == "Allow" and statement["Resource"] == failures
        for statement in identity_statements(parts, "FanoutRole")
    )
    for name, event in sources(parts, "DynamoDB"):
        if not (
            event.get("DestinationConfig") == {"OnFailure": {"Type": "SQS", "Destination": failures}}
            and allowed
            and event.get("BisectBatchOnFunctionError") is True
            and event.get("StartingPosition") == "TRIM_HORIZON"
            and event.get("MaximumRetryAttempts") == -1
            and 72000 <= int(event["MaximumRecordAgeInSeconds"]) < 86400
            and "FunctionResponseTypes" not in event
        ):
            yield name


@PROMISES.promise(
    ("HealthFunction/Properties/Events/EachMinute/Properties/Schedule", "rate(1 hour)"),
    ("HealthFunction/Properties/Events/EachMinute/Properties/State", "ENABLED"),
    ("RetentionFunction/Properties/Events/Hourly/Properties/State", "DISABLED"),
    ("RetentionFunction/Properties/Events/Hourly/Properties/State", {"Fn::If": ["NotLocal", "ENABLED", "DISABLED"]}),
    ("RetentionFunction/Properties/Events/Hourly/Properties/Name", GONE),
    ("HealthFunction/Properties/EventInvokeConfig/MaximumRetryAttempts", 2),
)
def the_clock_runs_two_functions_outside_the_local_engine_and_never_twice_for_once(parts: Parts) -> Iterator[str]:
    deployed = parts["Stage"] != "local"
    expected = {
        "RetentionFunction": ("opx-retention", "rate(1 hour)", deployed and parts["Parameters"]["ArchiveAfterDays"] != "0"),
        "HealthFunction": ("opx-health", "rate(1 minute)", deployed),
    }
    found = {
        name: (event.get("Name"), event["Schedule"], event.get("State") == "ENABLED")
        for name, event in sources(parts, "Schedule")
    }
    for name in sorted(expected.keys() | found.keys()):
        config = dict(of_type(parts, "AWS::Serverless::Function"))[name].get("EventInvokeConfig", {})
        if found.get(name) != expected.get(name) or config.get("MaximumRetryAttempts") != 0:
            yield f"{name}: {found.get(name)}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)
