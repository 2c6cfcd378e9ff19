"""What template.yaml promises about where messages come from, one check a promise (see test_template for how they run).

The queues that are themselves the proof of their sender, what fills them, and which alarms are taken.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.house.event_patterns import matches
from tests.house.template import GONE, PSEUDO, STAGES, Change, Parts, Promises, grants, holders, of_type, queue_statements

PROMISES = Promises()
DLQS = ("CandidatesDlq", "AlarmsDlq", "AlertmanagerDlq", "CommandsDlq")
# Queues that an AWS service fills (and their dead-letter queues, with what it could not deliver): which, and for what.
FILLED_BY = {
    "Alarms": ("events.amazonaws.com", "AlarmsRule.Arn"),
    "Alertmanager": ("sns.amazonaws.com", "AlertmanagerTopic"),
    "Webhook": ("events.amazonaws.com", "WebhookRule.Arn"),
}
ORGANIZATION = "CandidatesQueuePolicy/Properties/PolicyDocument/Statement/1/Fn::If"
WHERE: Parts = {"Resource": {"Fn::GetAtt": "CandidatesQueue.Arn"}, "Condition": {}}
# Who alone may put a message where its lying there is believed.
SENDERS: dict[str, Parts] = {
    "AlarmsQueue": {"ArnNotEquals": {"aws:SourceArn": "AlarmsRule.Arn"}},
    "AlertmanagerQueue": {"ArnNotEquals": {"aws:SourceArn": "AlertmanagerTopic"}},
    "RejectedQueue": {"ArnNotEquals": {"aws:PrincipalArn": ["CandidatesRole.Arn", "CommandsRole.Arn"]}},
    # SQS moves dead messages by itself; EventBridge and SNS, allowed by name, are AWS services. Nobody else sends there.
    **{dlq: {"Bool": {"aws:PrincipalIsAWSService": "false"}} for dlq in DLQS},
}


@PROMISES.promise(
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/2", GONE),
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/2/Condition/ArnNotEquals/aws:SourceArn", "*"),
    ("AlertmanagerQueuePolicy/Properties/PolicyDocument/Statement/2", GONE),
    (
        "AlertmanagerQueuePolicy/Properties/PolicyDocument/Statement/2/Condition/ArnNotEquals/aws:SourceArn",
        {"Fn::GetAtt": "AlarmsRule.Arn"},
    ),
    ("AlertmanagerDlqPolicy/Properties/PolicyDocument/Statement/2", GONE),
    ("RejectedQueuePolicy/Properties/PolicyDocument/Statement/1", GONE),
    (
        "RejectedQueuePolicy/Properties/PolicyDocument/Statement/1/Condition/ArnNotEquals/aws:PrincipalArn",
        [{"Fn::GetAtt": "CandidatesRole.Arn"}, {"Fn::GetAtt": "RedriveRole.Arn"}],
    ),
    ("CandidatesDlqPolicy/Properties/PolicyDocument/Statement/1", GONE),
    ("AlarmsDlqPolicy/Properties/PolicyDocument/Statement/2/Effect", "Allow"),
    ("CommandsDlqPolicy/Properties/PolicyDocument/Statement/1/Condition/Bool/aws:PrincipalIsAWSService", "true"),
    ("RedriveRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource/0", {"Fn::GetAtt": "FanoutFailuresQueue.Arn"}),
)
def where_a_message_is_believed_nobody_else_may_send(parts: Parts) -> Iterator[str]:
    for queue, others in SENDERS.items():
        if not any(
            (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "sqs:SendMessage")
            and statement["Condition"] == others
            for statement in queue_statements(parts, queue)
        ):
            yield queue
    redriven = {queue for action, queue in grants(parts, "RedriveRole") if action == "sqs:ReceiveMessage"}
    yield from sorted(redriven - SENDERS.keys())


@PROMISES.promise(
    ("CandidatesFunction/Properties/Environment/Variables/OPX_REDRIVE_ROLE_ID", {"Ref": "AWS::AccountId"}),
    ("CommandsFunction/Properties/Environment/Variables/OPX_REDRIVE_ROLE_ID", GONE),
    ("ApiFunction/Properties/Environment/Variables/OPX_REDRIVE_ROLE_ID", {"Fn::GetAtt": "CandidatesRole.RoleId"}),
    ("CommandsFunction/Properties/Environment/Variables/OPX_REDRIVE_ROLE_ID", {"Fn::GetAtt": "RedriveRole.RoleId"}),
    ("Outputs/RedriveRoleId/Value", {"Ref": "AWS::AccountId"}),
    ("Outputs/RedriveRoleId/Condition", GONE),
)
def the_redrive_role_alone_is_believed_and_locally_the_account_that_stands_for_it(parts: Parts) -> Iterator[str]:
    is_local = parts["Stage"] == "local"
    believed = PSEUDO["AWS::AccountId"] if is_local else "RedriveRole.RoleId"
    for function in ("CandidatesFunction", "CommandsFunction", "ApiFunction"):
        variables = parts["Resources"][function]["Properties"]["Environment"]["Variables"]
        if variables.get("OPX_REDRIVE_ROLE_ID") != believed:
            yield function
    told = parts["Outputs"].get("RedriveRoleId", {}).get("Value")
    if told != (None if is_local else believed):
        yield "RedriveRoleId"


@PROMISES.promise(
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/1", GONE),
    ("AlarmsDlqPolicy/Properties/PolicyDocument/Statement/1/Condition", {}),
    ("AlarmsRule/Properties/Targets/0/DeadLetterConfig", GONE),
    ("AlarmsRule/Properties/Targets/0/RetryPolicy", GONE),
    ("WebhookRule/Properties/Targets/0/RoleArn", {"Fn::GetAtt": "FanoutRole.Arn"}),
    ("WebhookRule/Properties/Targets/0/DeadLetterConfig/Arn", {"Fn::GetAtt": "AlarmsDlq.Arn"}),
    ("WebhookDlqPolicy/Properties/PolicyDocument/Statement/1", GONE),
)
def every_rule_may_reach_its_target_and_its_dlq(parts: Parts) -> Iterator[str]:
    destinations = {f"{name}.Arn" for name, _ in of_type(parts, "AWS::Events::ApiDestination")}
    for name, rule in of_type(parts, "AWS::Events::Rule"):
        for target in rule["Targets"]:
            ends = [target["Arn"], target.get("DeadLetterConfig", {}).get("Arn", "none.Arn")]
            if target["Arn"] in destinations:
                ends.remove(target["Arn"])
                role = target.get("RoleArn", "").removesuffix(".Arn")
                may = role in holders(parts) and grants(parts, role)
                if may != {("events:InvokeApiDestination", target["Arn"].removesuffix(".Arn"))}:
                    yield f"{name} to {target['Arn']}"
            for queue in (end.removesuffix(".Arn") for end in ends):
                if "RetryPolicy" not in target or not any(
                    statement["Effect"] == "Allow"
                    and statement["Principal"] == {"Service": "events.amazonaws.com"}
                    and statement["Action"] == "sqs:SendMessage"
                    and statement["Condition"] == {"ArnEquals": {"aws:SourceArn": f"{name}.Arn"}}
                    for statement in queue_statements(parts, queue)
                ):
                    yield f"{name} to {queue}"


@PROMISES.promise(
    ("AlarmsDlqPolicy/Properties/PolicyDocument/Statement/1/Principal", {"Service": "sns.amazonaws.com"}),
    ("AlertmanagerQueuePolicy/Properties/PolicyDocument/Statement/1", GONE),
    ("AlertmanagerQueuePolicy/Properties/PolicyDocument/Statement/1/Condition", GONE),
    ("AlertmanagerQueuePolicy/Properties/PolicyDocument/Statement/1/Principal", "*"),
    ("AlertmanagerDlqPolicy/Properties/PolicyDocument/Statement/1/Condition/ArnEquals/aws:SourceArn", "*"),
    ("CommandsDlqPolicy/Properties/PolicyDocument/Statement/0/Effect", "Allow"),
    (
        "CandidatesDlqPolicy/Properties/PolicyDocument/Statement/1",
        {
            "Sid": "Sqs",
            "Effect": "Allow",
            "Principal": {"Service": "sqs.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": {"Fn::GetAtt": "CandidatesDlq.Arn"},
        },
    ),
    ("WebhookDlqPolicy/Properties/PolicyDocument/Statement/1/Condition", GONE),
    (f"{ORGANIZATION}/1/Condition", {"StringNotEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}),
    # The account's own principals would need no policy of their own.
    (f"{ORGANIZATION}/1/Condition/StringNotEquals", GONE),
    (f"{ORGANIZATION}/1/Condition/StringEquals/aws:PrincipalOrgID", "*"),
    (f"{ORGANIZATION}/1/Principal", {"AWS": "*"}),
    (f"{ORGANIZATION}/1/Action", "sqs:*"),
    (f"{ORGANIZATION}/2", {"Sid": "Anybody", "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage"} | WHERE),
    ("Conditions/HasOrganization", {"Fn::Equals": ["", ""]}),
)
def a_queue_allows_nobody_but_who_fills_it_and_others_of_the_organization(parts: Parts) -> Iterator[str]:
    organization = parts["Parameters"]["OrganizationId"]
    other_accounts = {
        "StringEquals": {"aws:PrincipalOrgID": organization},
        "StringNotEquals": {"aws:PrincipalAccount": PSEUDO["AWS::AccountId"]},
    }
    for _, policy in of_type(parts, "AWS::SQS::QueuePolicy"):
        (queue,) = policy["Queues"]
        filler = FILLED_BY.get(queue.removesuffix("Queue").removesuffix("Dlq"))
        expected: list[tuple[Any, Parts]] = []
        if filler is not None:
            expected = [({"Service": filler[0]}, {"ArnEquals": {"aws:SourceArn": filler[1]}})]
        if queue == "CandidatesQueue" and organization:
            expected = [("*", other_accounts)]
        allowed = [one for one in policy["PolicyDocument"]["Statement"] if one["Effect"] == "Allow"]
        found = [(one["Principal"], one.get("Condition")) for one in allowed]
        if found != expected or any(one["Action"] != "sqs:SendMessage" for one in allowed):
            yield f"{queue}: {[one['Sid'] for one in allowed]}"


def taking(parts: Parts, kind: str) -> Iterator[tuple[str, Parts]]:
    """Yield what of SNS takes in; the topic of raised alarms goes out and is looked at in test_template_alarms."""
    out = ("AlarmsRaisedTopic", "AlarmsRaisedTopicPolicy", "AlarmEmailSubscription")
    yield from ((name, properties) for name, properties in of_type(parts, kind) if name not in out)


@PROMISES.promise(
    ("AlertmanagerTopicPolicy", GONE),
    ("AlertmanagerTopicPolicy/Properties/Topics", []),
    ("AlertmanagerTopicPolicy/Properties/PolicyDocument/Statement/0", GONE),
    ("AlertmanagerTopicPolicy/Properties/PolicyDocument/Statement/0/Condition/Bool/aws:SecureTransport", "true"),
    ("AlertmanagerTopicPolicy/Properties/PolicyDocument/Statement/1", GONE),
    ("AlertmanagerTopicPolicy/Properties/PolicyDocument/Statement/1/Effect", "Allow"),
    (
        "AlertmanagerTopicPolicy/Properties/PolicyDocument/Statement/1/Condition",
        {"StringNotEqualsIfExists": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}},
    ),
)
def a_topic_takes_tls_from_principals_of_the_account_and_grants_nobody_anything(parts: Parts) -> Iterator[str]:
    expected = [
        {"Bool": {"aws:SecureTransport": "false"}},
        {"StringNotEquals": {"aws:PrincipalAccount": PSEUDO["AWS::AccountId"]}},
    ]
    for name, _ in taking(parts, "AWS::SNS::Topic"):
        found = [
            statement["Condition"]
            for _, policy in of_type(parts, "AWS::SNS::TopicPolicy")
            if name in policy["Topics"]
            for statement in policy["PolicyDocument"]["Statement"]
            if (statement["Effect"], statement["Principal"], statement["Action"], statement["Resource"])
            == ("Deny", "*", "sns:Publish", name)
        ]
        if found != expected:
            yield name
    for name, policy in taking(parts, "AWS::SNS::TopicPolicy"):
        if any(statement["Effect"] != "Deny" for statement in policy["PolicyDocument"]["Statement"]):
            yield f"{name}: grants"


@PROMISES.promise(
    ("AlertmanagerTopic/Properties/KmsMasterKeyId", GONE),
    ("AlertmanagerSubscription", GONE),
    ("AlertmanagerSubscription/Properties/RawMessageDelivery", GONE),
    ("AlertmanagerSubscription/Properties/RawMessageDelivery", False),
    ("AlertmanagerSubscription/Properties/Endpoint", {"Fn::GetAtt": "CandidatesQueue.Arn"}),
    ("AlertmanagerSubscription/Properties/FilterPolicy", {"severity": ["critical"]}),
    ("AlertmanagerSubscription/Properties/RedrivePolicy", GONE),
    ("AlertmanagerSubscription/Properties/RedrivePolicy/deadLetterTargetArn", {"Fn::GetAtt": "AlarmsDlq.Arn"}),
)
def notifications_go_as_they_are_from_an_encrypted_topic_to_their_queue_or_its_dlq(parts: Parts) -> Iterator[str]:
    expected = {
        "TopicArn": "AlertmanagerTopic",
        "Protocol": "sqs",
        "Endpoint": "AlertmanagerQueue.Arn",
        "RawMessageDelivery": True,
        "RedrivePolicy": {"deadLetterTargetArn": "AlertmanagerDlq.Arn"},
    }
    if [properties for _, properties in taking(parts, "AWS::SNS::Subscription")] != [expected]:
        yield "AlertmanagerSubscription"
    for name, topic in taking(parts, "AWS::SNS::Topic"):
        if topic.get("KmsMasterKeyId") != "alias/aws/sns":
            yield name


@PROMISES.promise(
    ("AlarmsRule/Properties/EventPattern/detail/alarmName", GONE),
    ("AlarmsRule/Properties/EventPattern/detail/configuration/description/0/wildcard", "*service*"),
    ("AlarmsRule/Properties/EventPattern/detail/configuration/description/0/wildcard", "*'service'*"),
    ("AlarmsRule/Properties/EventPattern/source/0", "aws.ec2"),
    ("AlarmsRule/Properties/EventPattern/detail-type/0", "CloudWatch Alarm Configuration Change"),
    ("AlarmsRule/Properties/EventPattern/detail/configuration/metrics", [{"exists": True}]),
)
def the_alarms_rule_takes_mapped_alarms_and_never_our_own(parts: Parts) -> Iterator[str]:
    pattern = parts["Resources"]["AlarmsRule"]["Properties"]["EventPattern"]
    mapping = '{"service": "search", "severity": "SEV3"}'
    alarms = {
        ("search-cpu", mapping): True,
        ("opxtra-cpu", mapping): True,
        ("opx-dlq-depth", mapping): False,
        ("search-cpu", "The search service is slow."): False,
        ("search-cpu", ""): False,
    }
    # A composite alarm's event differs in what its configuration holds, and in nothing that the rule asks for.
    kinds: list[Parts] = [
        {"metrics": [{"id": "m1"}]},
        {"alarmRule": "ALARM(a) OR ALARM(b)", "actionsSuppressor": "deployments", "actionsSuppressorWaitPeriod": 120},
    ]
    for (alarm, description), expected in alarms.items():
        for kind in kinds:
            event = {
                "source": "aws.cloudwatch",
                "detail-type": "CloudWatch Alarm State Change",
                "detail": {"alarmName": alarm, "configuration": kind | {"description": description}},
            }
            if matches(pattern, event) is not expected:
                yield f"{alarm} with {description!r}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)
