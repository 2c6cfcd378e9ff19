"""What template.yaml promises of alarms, their topic and the dashboard: one check a promise, as in test_template."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.runtime.metrics import MEASURES, NAMESPACE, Metric
from tests.house.template import GONE, OPTIONS, PSEUDO, ROOT, STAGES, Change, Parts, Promises, load, of_type, resolve
from tests.support.alarms import COMPARISONS, Alarm, arn_of, runbook_of

PROMISES = Promises()
KIND = "AWS::CloudWatch::Alarm"
FUNCTIONS = ("candidates", "commands", "api", "fanout", "retention", "health")
# What the absence of the number means: that nothing happened, that nobody looked, or that whoever must say it is dead.
MISSING = {"DeadMessages": "breaching", "RetentionFailing": "breaching"} | dict.fromkeys(
    ("IntakeStalled", "RejectedWaiting", "FanoutFailuresWaiting", "FanoutStopped"), "ignore"
)
# What only Lambda itself can count, since a function that does not run writes nothing.
LAMBDAS_OWN = {"FunctionErrorsAlarm": "Errors", "ThrottlesAlarm": "Throttles"}
FIRST = "HighCreationRateAlarm/Properties"
ALONE = "DeadMessagesAlarm/Properties"


def alarms(parts: Parts) -> Iterator[Alarm]:
    yield from (Alarm(name, properties) for name, properties in of_type(parts, KIND))


def name_of(alarm: Alarm) -> str:
    return alarm.id.removesuffix("Alarm")


@PROMISES.promise(
    (f"{FIRST}/AlarmActions", []),
    (f"{ALONE}/OKActions", GONE),
    (f"{ALONE}/ActionsEnabled", False),
)
def every_alarm_tells_the_topic_when_it_is_raised_and_when_it_is_over(parts: Parts) -> Iterator[str]:
    for alarm in alarms(parts):
        told = [alarm.properties.get(name) for name in ("AlarmActions", "OKActions")]
        if told != [["AlarmsRaisedTopic"]] * 2 or alarm.properties.get("ActionsEnabled") is False:
            yield alarm.id


@PROMISES.promise(
    (f"{FIRST}/AlarmName", {"Fn::Sub": "${Prefix}-high-creation-rate"}),
    (f"{ALONE}/AlarmDescription", "Messages are dead."),
    (f"{ALONE}/AlarmDescription", {"Fn::Sub": "Runbook: ${RunbookBaseUrl}/dead-messages.md"}),
    (f"{ALONE}/AlarmDescription", {"Fn::Sub": "Messages are dead. Runbook: ${RunbookBaseUrl}/crashes.md"}),
    (f"{ALONE}/AlarmDescription", {"Fn::Sub": 'Of a "service". Runbook: ${RunbookBaseUrl}/dead-messages.md'}),
)
def every_alarm_is_named_says_in_a_sentence_what_it_means_and_where_its_runbook_is(parts: Parts) -> Iterator[str]:
    place = parts["Parameters"]["RunbookBaseUrl"]
    for alarm in alarms(parts):
        slug = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name_of(alarm))[1:]
        sentence, _, link = alarm.properties["AlarmDescription"].partition(" Runbook: ")
        # The alarms queue takes what carries a mapping: none of ours may look as if it did.
        clear = sentence.endswith(".") and len(sentence) > 20 and '"service"' not in sentence
        named = alarm.properties["AlarmName"] == f"opx-alarm-{slug}" and runbook_of(alarm) == slug
        if not (clear and named and link == f"{place}/{slug}.md"):
            yield alarm.id


@PROMISES.promise(
    (f"{FIRST}/Threshold", 1000),
    (f"{ALONE}/Threshold", {"Ref": "RejectedWaitingThreshold"}),
    (f"{FIRST}/ComparisonOperator", "GreaterThanOrEqualToThreshold"),
    ("ApiAvailabilityAlarm/Properties/ComparisonOperator", "GreaterThanThreshold"),
    (f"{ALONE}/Period", 60),
)
def thresholds_and_periods_are_parameters_and_more_is_worse_but_of_availability(parts: Parts) -> Iterator[str]:
    for alarm in alarms(parts):
        own = alarm.properties
        stats = [query["MetricStat"] for query in own.get("Metrics", ()) if "MetricStat" in query] or [own]
        # Retention runs each hour: a shorter period would mostly find nothing. A parameter is text, a number is none.
        period = 3600 if alarm.id == "RetentionFailingAlarm" else parts["Parameters"]["AlarmPeriodSeconds"]
        worse = "Less" if alarm.id == "ApiAvailabilityAlarm" else "Greater"
        if (
            own["Threshold"] != parts["Parameters"][f"{name_of(alarm)}Threshold"]
            or any(stat["Period"] != period for stat in stats)
            or own["ComparisonOperator"] != f"{worse}ThanThreshold"
            or own["ComparisonOperator"] not in COMPARISONS
        ):
            yield alarm.id


@PROMISES.promise(
    (f"{FIRST}/Metrics/1/MetricStat/Metric/MetricName", "IncidentsOpened"),
    (f"{FIRST}/Metrics/3", GONE),
    (f"{FIRST}/Metrics/0/Expression", "SUM([FILL(candidates, 0), FILL(commands, 0)])"),
    (f"{FIRST}/Metrics/0/Expression", "SUM([candidates, commands, api])"),
    (f"{FIRST}/Metrics/1/MetricStat/Stat", "Average"),
    (f"{ALONE}/Dimensions/0/Value", {"Fn::Sub": "${Prefix}-candidates"}),
    (f"{ALONE}/Statistic", "Sum"),
    (f"{ALONE}/Namespace", "AWS/SQS"),
    ("FunctionErrorsAlarm/Properties/Metrics/6", GONE),
    ("RetentionFailingAlarm/Properties/Metrics/0/Expression", "refused + FILL(unavailable, 0)"),
    ("ThrottlesAlarm/Properties/Metrics/1/MetricStat/Metric/MetricName", "Errors"),
)
def every_alarm_watches_what_functions_write_and_all_who_write_it(parts: Parts) -> Iterator[str]:
    for alarm in alarms(parts):
        found: dict[str, set[str]] = {}
        for name, ((namespace, metric, dimension, value), stat) in alarm.watched().items():
            found.setdefault(metric, set()).add(value.removeprefix("opx-"))
            if alarm.id in LAMBDAS_OWN:
                known = (namespace, metric, dimension, stat) == ("AWS/Lambda", LAMBDAS_OWN[alarm.id], "FunctionName", "Sum")
            else:
                statistic = "Sum" if "Metrics" in alarm.properties else "Maximum"
                known = (namespace, dimension, stat) == (NAMESPACE, "service", statistic) and metric in set(Metric)
            if not known or name not in alarm.expression:
                yield f"{alarm.id}: {name}"
        # Of a run that was not, no part may be filled in: the absence is what raises this one.
        if name_of(alarm) in MISSING and "FILL" in alarm.expression:
            yield f"{alarm.id}: {alarm.expression}"
        sums = alarm.expression.startswith("SUM")
        if sums and alarm.expression != f"SUM([{', '.join(f'FILL({name}, 0)' for name in alarm.watched())}])":
            yield f"{alarm.id}: {alarm.expression}"
        for metric, services in found.items():
            writers = set(MEASURES[Metric(metric)].doors) if metric in set(Metric) else set(FUNCTIONS)
            # Of what it shares with others, retention's alarm wants retention's own part.
            if services != ({"retention"} if alarm.id == "RetentionFailingAlarm" else writers):
                yield f"{alarm.id}: {metric} of {sorted(services)}"


@PROMISES.promise(
    (f"{ALONE}/TreatMissingData", "notBreaching"),
    (f"{ALONE}/TreatMissingData", GONE),
    ("FanoutStoppedAlarm/Properties/TreatMissingData", "breaching"),
    ("RetentionFailingAlarm/Properties/TreatMissingData", "notBreaching"),
    (f"{FIRST}/TreatMissingData", "missing"),
    (f"{FIRST}/DatapointsToAlarm", 6),
    (f"{FIRST}/DatapointsToAlarm", GONE),
)
def what_a_missing_number_means_is_said_and_one_that_comes_late_is_waited_for(parts: Parts) -> Iterator[str]:
    for alarm in alarms(parts):
        expected = MISSING.get(name_of(alarm), "notBreaching")
        if parts["Parameters"]["ArchiveAfterDays"] == "0" and alarm.id == "RetentionFailingAlarm":
            expected = "notBreaching"
        wanted, of = alarm.properties.get("DatapointsToAlarm", 0), alarm.properties["EvaluationPeriods"]
        if alarm.properties.get("TreatMissingData") != expected or not 1 <= wanted <= of or of < 3:
            yield alarm.id


@PROMISES.promise(
    ("CorruptionAlarm/Condition", GONE),
    (f"{ALONE.removesuffix('/Properties')}/Condition", "NotLocal"),
)
def only_what_the_local_engine_refuses_is_left_out_there(parts: Parts) -> Iterator[str]:
    for alarm in alarms(parts):
        if parts["Stage"] == "local" and "Metrics" in alarm.properties:
            yield alarm.id
    if {name for name in parts["LeftOut"] if name.endswith("Alarm")} & {
        f"{name}Alarm"
        for name in (
            "IntakeStalled",
            "DeadMessages",
            "RejectedWaiting",
            "FanoutFailuresWaiting",
            "FanoutLag",
            "FanoutStopped",
        )
    }:
        yield "an alarm on one metric is left out"


TOPIC = "AlarmsRaisedTopicPolicy/Properties/PolicyDocument/Statement"


@PROMISES.promise(
    ("AlarmsRaisedTopicPolicy", GONE),
    (f"{TOPIC}/0", GONE),
    (f"{TOPIC}/1/Condition/Bool/aws:PrincipalIsAWSService", "true"),
    (f"{TOPIC}/2/Principal", "*"),
    (f"{TOPIC}/2/Condition/StringEquals", GONE),
    (f"{TOPIC}/2/Condition/ArnLike/aws:SourceArn", "*"),
    (f"{TOPIC}/2/Action", "sns:*"),
    ("AlarmsRaisedTopic/Properties/KmsMasterKeyId", "alias/aws/sns"),
    ("AlarmEmailSubscription/Condition", GONE),
    ("AlarmEmailSubscription/Properties/TopicArn", {"Ref": "AlertmanagerTopic"}),
)
def the_topic_takes_from_this_accounts_alarms_alone_and_tells_whom_it_was_told(parts: Parts) -> Iterator[str]:
    topic = "AlarmsRaisedTopic"
    policies = [policy for _, policy in of_type(parts, "AWS::SNS::TopicPolicy") if policy["Topics"] == [topic]]
    statements = [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]
    account, region = PSEUDO["AWS::AccountId"], PSEUDO["AWS::Region"]
    publish: dict[str, Any] = {"Action": "sns:Publish", "Resource": topic}
    source = {"aws:SourceArn": f"arn:aws:cloudwatch:{region}:{account}:alarm:opx-alarm-*"}
    expected = [
        publish | {"Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
        publish | {"Effect": "Deny", "Principal": "*", "Condition": {"Bool": {"aws:PrincipalIsAWSService": "false"}}},
        publish
        | {
            "Effect": "Allow",
            "Principal": {"Service": "cloudwatch.amazonaws.com"},
            "Condition": {"StringEquals": {"aws:SourceAccount": account}, "ArnLike": source},
        },
    ]
    if [{name: value for name, value in one.items() if name != "Sid"} for one in statements] != expected:
        yield "policy"
    if "KmsMasterKeyId" in parts["Resources"][topic]["Properties"]:
        yield "CloudWatch may not use that key"
    email = parts["Parameters"]["AlarmEmail"]
    told = [one for _, one in of_type(parts, "AWS::SNS::Subscription") if one["Protocol"] == "email"]
    if told != ([{"TopicArn": topic, "Protocol": "email", "Endpoint": email}] if email else []):
        yield f"subscriptions: {told}"


def widgets(parts: Parts) -> list[dict[str, Any]]:
    ((_, properties),) = of_type(parts, "AWS::CloudWatch::Dashboard")
    found: list[dict[str, Any]] = json.loads(properties["DashboardBody"])["widgets"]
    return found


@PROMISES.promise(
    ("Dashboard/Properties/DashboardBody", '{"widgets": []}'),
    ("Dashboard/Properties/DashboardName", GONE),
)
def the_dashboard_shows_every_metric_of_every_function_and_every_alarm(parts: Parts) -> Iterator[str]:
    shown: set[tuple[str, str]] = set()
    for widget in widgets(parts):
        for series in widget["properties"].get("metrics", ()):
            if isinstance(series[0], str):
                namespace, metric, dimension, value = series[:4]
                expected = "service" if namespace == NAMESPACE else "FunctionName"
                if dimension != expected or (namespace == NAMESPACE and metric not in set(Metric)):
                    yield f"{widget['properties']['title']}: {series}"
                shown.add((metric, value))
    prefix = parts["Parameters"]["Prefix"]
    every = {(metric.value, f"{prefix}-{door}") for metric, measure in MEASURES.items() for door in measure.doors}
    yield from sorted(f"{metric} of {service}" for metric, service in every - shown)
    listed = [arn for widget in widgets(parts) if widget["type"] == "alarm" for arn in widget["properties"]["alarms"]]
    if sorted(listed) != sorted(arn_of(alarm) for alarm in alarms(resolve(load(), "prod"))):
        yield "alarms"
    if parts["Resources"]["Dashboard"]["Properties"].get("DashboardName") != prefix:
        yield "name"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)


def test_no_widget_lies_on_another_and_each_says_what_it_shows() -> None:
    taken: set[tuple[int, int]] = set()
    for widget in widgets(resolve(load(), "prod", OPTIONS)):
        x, y, wide, high = (widget[name] for name in ("x", "y", "width", "height"))
        cells = {(column, row) for column in range(x, x + wide) for row in range(y, y + high)}
        assert x + wide <= 24
        assert not cells & taken, widget
        taken |= cells
        assert widget["properties"].get("title") or widget["properties"].get("markdown")
        last = [series[-1] for series in widget["properties"].get("metrics", ())]
        ids = [options["id"] for options in last if isinstance(options, dict) and "id" in options]
        assert len(ids) == len(set(ids))


def test_every_parameter_of_alarms_is_in_their_group() -> None:
    template = load()
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    (grouped,) = [group["Parameters"] for group in groups if group["Label"]["default"] == "Alarms"]
    names = [name for name in template["Parameters"] if name.endswith("Threshold")]
    assert grouped == ["RunbookBaseUrl", "AlarmEmail", "AlarmPeriodSeconds", *names]
    assert {f"{name.removesuffix('Threshold')}Alarm" for name in names} == dict(
        of_type(resolve(template, "prod"), KIND)
    ).keys()
    assert (ROOT / template["Parameters"]["RunbookBaseUrl"]["Default"]).is_dir()
