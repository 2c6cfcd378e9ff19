"""What template.yaml promises about who may do what, one check a promise (see test_template for how they run).

Least privilege, the append-only tables, the queues that are themselves the proof of their sender, and that nothing of
ours listens to our own bus.
"""

import fnmatch
from collections.abc import Iterator
from typing import Any

import pytest

from tests.house.template import (
    GONE,
    PSEUDO,
    STAGES,
    Change,
    Parts,
    Promises,
    as_list,
    holders,
    identity_statements,
    of_type,
    queue_statements,
)

PROMISES = Promises()
LOOK = "sqs:ReceiveMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes"
WORK_OFF = "sqs:ReceiveMessage sqs:DeleteMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes"
SEND = "sqs:SendMessage sqs:GetQueueUrl"
LOG = "logs:CreateLogStream logs:PutLogEvents"
DECIDE = {
    "RejectedQueue": "sqs:SendMessage",
    "IncidentsTable": "dynamodb:GetItem dynamodb:PutItem dynamodb:ConditionCheckItem",
    "EventsTable": "dynamodb:PutItem",
    "IdempotencyTable": "dynamodb:GetItem dynamodb:PutItem",
}
FIND_THE_STACK = {f"stack/{PSEUDO['AWS::StackName']}/*": "cloudformation:DescribeStacks"}
QUEUES = ("CandidatesQueue", "AlarmsQueue", "CommandsQueue", "RejectedQueue", "FanoutFailuresQueue")
DLQS = ("CandidatesDlq", "AlarmsDlq", "CommandsDlq")
# Who may do what where: the functions as their code calls it (pipeline/stores), people as opx does (pipeline/cli).
GRANTS: dict[str, dict[str, str]] = {
    "CandidatesRole": DECIDE
    | {"CandidatesQueue": WORK_OFF, "AlarmsQueue": WORK_OFF, "log-group:/aws/lambda/opx-candidates:*": LOG},
    "CommandsRole": DECIDE | {"CommandsQueue": WORK_OFF, "log-group:/aws/lambda/opx-commands:*": LOG},
    "FanoutRole": {
        "EventsTable.StreamArn": "dynamodb:DescribeStream dynamodb:GetRecords dynamodb:GetShardIterator",
        "EventsTable.Arn/stream/*": "dynamodb:ListStreams",
        "Bus": "events:PutEvents",
        "FanoutFailuresQueue": "sqs:SendMessage",
        "log-group:/aws/lambda/opx-fanout:*": LOG,
    },
    "RedriveRole": dict.fromkeys(("RejectedQueue", *DLQS), f"{WORK_OFF} sqs:GetQueueUrl")
    | dict.fromkeys(("CandidatesQueue", "CommandsQueue"), SEND),
    "AppendOnlyPolicy": {},
    "ProducerPolicy": FIND_THE_STACK | {"CandidatesQueue": SEND},
    "OperatorPolicy": FIND_THE_STACK
    | {"CommandsQueue": SEND, "IdempotencyTable": "dynamodb:GetItem", "RejectedQueue": LOOK},
    "ReaderPolicy": FIND_THE_STACK
    | {
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem",
        "IncidentsTable.Arn/index/by-state": "dynamodb:Query",
        "IncidentsTable.Arn/index/by-service": "dynamodb:Query",
        "EventsTable": "dynamodb:Query",
    }
    | dict.fromkeys((*QUEUES, *DLQS), "sqs:GetQueueAttributes"),
    "AuditorPolicy": FIND_THE_STACK
    | {"EventsTable": "dynamodb:Query dynamodb:Scan", "IdempotencyTable": "dynamodb:GetItem dynamodb:Scan"},
    "SubscriberPolicy": FIND_THE_STACK
    | {
        "rule/Bus/*": "events:PutRule events:DeleteRule events:PutTargets events:RemoveTargets",
        "opx-tail-*": "sqs:CreateQueue sqs:DeleteQueue sqs:GetQueueAttributes sqs:SetQueueAttributes sqs:TagQueue"
        " sqs:ListQueueTags sqs:ReceiveMessage sqs:DeleteMessage",
        "*": "sqs:ListQueues events:ListRules",
    },
}
# Who alone may put a message where its lying there is believed.
SENDERS: dict[str, Parts] = {
    "AlarmsQueue": {"ArnNotEquals": {"aws:SourceArn": "AlarmsRule.Arn"}},
    "RejectedQueue": {"ArnNotEquals": {"aws:PrincipalArn": ["CandidatesRole.Arn", "CommandsRole.Arn"]}},
    # SQS moves dead messages by itself; EventBridge, allowed by name, is an AWS service. Nobody else sends there.
    **{dlq: {"Bool": {"aws:PrincipalIsAWSService": "false"}} for dlq in DLQS},
}


@PROMISES.promise(
    ("FanoutRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource", "*"),
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/2/Action", "dynamodb:*"),
    ("ProducerPolicy/Properties/PolicyDocument/Statement/0/Action", ["*"]),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/1/Resource", "arn:aws:sqs:*:*:*"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/0/Resource", "arn:aws:cloudformation:us-east-1:123456789012:stack/*"),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/1/Resource", "arn:aws:events:us-east-1:123456789012:rule/*"),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/2/Resource", "*"),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/3/Action/0", "sqs:DeleteQueue"),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/3/Condition", GONE),
)
def no_role_or_policy_allows_a_star(parts: Parts) -> Iterator[str]:
    for name in holders(parts):
        for statement in identity_statements(parts, name):
            if statement["Effect"] != "Allow" or _takes_no_resource(statement):
                continue
            resources = [_without_rest(resource) for resource in as_list(statement["Resource"])]
            if any("*" in text for text in as_list(statement["Action"]) + resources):
                yield f"{name}: {statement['Sid']}"


def _takes_no_resource(statement: Parts) -> bool:
    # The only actions we need that AWS's reference names no resource for: lists, which `*` alone allows.
    return set(as_list(statement["Action"])) <= {"sqs:ListQueues", "events:ListRules"} and statement.get("Condition") == {
        "StringEquals": {"aws:RequestedRegion": PSEUDO["AWS::Region"]}
    }


def _without_rest(resource: str) -> str:
    # Below a named log group, table, stack or bus, and behind a name of ours, a star is the rest of a name; elsewhere it
    # is anybody's.
    below = (":*", "/stream/*", f":stack/{PSEUDO['AWS::StackName']}/*", ":rule/Bus/*", ":opx-tail-*")
    return next((resource.removesuffix(rest) for rest in below if resource.endswith(rest)), resource)


@PROMISES.promise(
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/2/Action/0", "dynamodb:UpdateItem"),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/2/Action/2", GONE),
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/3/Action", ["dynamodb:PutItem", "dynamodb:Query"]),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/4/Action/1", GONE),
    ("FanoutRole/Properties/Policies/0/PolicyDocument/Statement/3/Resource", {"Fn::GetAtt": "RejectedQueue.Arn"}),
    ("RedriveRole/Properties/Policies/0/PolicyDocument/Statement/1/Resource/0", {"Fn::GetAtt": "AlarmsQueue.Arn"}),
    ("ProducerPolicy/Properties/PolicyDocument/Statement/0", GONE),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/2", GONE),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/3/Action", ["sqs:ReceiveMessage", "sqs:DeleteMessage"]),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/1/Action/0", "dynamodb:PutItem"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/2/Resource/1", GONE),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/4/Action", "sqs:ReceiveMessage"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/4/Resource/7", GONE),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/1/Action/1", GONE),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/2/Action", ["dynamodb:DeleteItem"]),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/1/Action/2", GONE),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/2/Action", ["sqs:SendMessage"]),
)
def everybody_may_do_what_their_code_calls_and_no_more(parts: Parts) -> Iterator[str]:
    found = {name: _grants(parts, name) for name in holders(parts)}
    for name in sorted(found.keys() | GRANTS.keys()):
        expected = {(action, place) for place, actions in GRANTS.get(name, {}).items() for action in actions.split()}
        for action, place in sorted(found.get(name, set()) ^ expected):
            yield f"{name}: {action} on {place}"


def _grants(parts: Parts, holder: str) -> set[tuple[str, str]]:
    """Return every (action, resource) that is allowed, of an ARN only the part behind the account."""
    return {
        (action, resource.removesuffix(".Arn").rpartition(f"{PSEUDO['AWS::AccountId']}:")[2])
        for statement in identity_statements(parts, holder)
        if statement["Effect"] == "Allow"
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


@PROMISES.promise(
    ("CandidatesRole/Properties/ManagedPolicyArns", GONE),
    ("RedriveRole/Properties/ManagedPolicyArns", []),
    *((f"AppendOnlyPolicy/Properties/PolicyDocument/Statement/0/Action/{n}", GONE) for n in range(6)),
    *((f"AppendOnlyPolicy/Properties/PolicyDocument/Statement/2/Action/{n}", GONE) for n in range(6)),
    ("AppendOnlyPolicy/Properties/PolicyDocument/Statement/0/Effect", "Allow"),
    ("AppendOnlyPolicy/Properties/PolicyDocument/Statement/0/Condition", {"Bool": {"aws:MultiFactorAuthAge": "1"}}),
    ("AppendOnlyPolicy/Properties/PolicyDocument/Statement/1", GONE),
    (
        "AppendOnlyPolicy/Properties/PolicyDocument/Statement/1/Condition",
        {"StringNotEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}},
    ),
)
def no_role_may_change_events_or_receipts(parts: Parts) -> Iterator[str]:
    rewriting = {f"dynamodb:{verb}Item" for verb in ("Update", "Delete", "BatchWrite")}
    rewriting |= {f"dynamodb:PartiQL{verb}" for verb in ("Insert", "Update", "Delete")}
    in_transactions = {"ForAllValues:StringNotEquals": {"dynamodb:EnclosingOperation": "TransactWriteItems"}}
    for role, _ in of_type(parts, "AWS::IAM::Role"):
        denials = [s for s in identity_statements(parts, role) if s["Effect"] == "Deny"]
        for table in ("EventsTable", "IdempotencyTable"):
            denied = {
                action
                for statement in denials
                if "Condition" not in statement and f"{table}.Arn" in as_list(statement["Resource"])
                for action in as_list(statement["Action"])
            }
            if missing := rewriting - denied:
                yield f"{role} on {table}: {sorted(missing)}"
        if not any(
            "dynamodb:PutItem" in as_list(statement["Action"])
            and "EventsTable.Arn" in as_list(statement["Resource"])
            and statement.get("Condition") == in_transactions
            for statement in denials
        ):
            yield f"{role}: PutItem"


@PROMISES.promise(
    ("CommandsFunction/Properties/Role", {"Fn::GetAtt": "CandidatesRole.Arn"}),
    ("FanoutRole/Properties/AssumeRolePolicyDocument/Statement/0/Principal", {"AWS": "*"}),
    ("CandidatesFunction/Properties/Policies", ["AmazonDynamoDBFullAccess"]),
)
def every_function_has_a_role_of_its_own(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        role = name.replace("Function", "Role")
        trust = parts["Resources"][role]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
        if (
            function.get("Role") != f"{role}.Arn"
            or "Policies" in function
            or [statement["Principal"] for statement in trust] != [{"Service": "lambda.amazonaws.com"}]
        ):
            yield name


@PROMISES.promise(
    (
        "CommandsFunction/Properties/Events/Own",
        {"Type": "EventBridgeRule", "Properties": {"EventBusName": {"Ref": "Bus"}, "Pattern": {}}},
    ),
    ("AlarmsRule/Properties/EventBusName", {"Ref": "Bus"}),
)
def nothing_of_ours_listens_to_our_bus(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        if any(event["Type"] not in ("SQS", "DynamoDB") for event in function["Events"].values()):
            yield name
    for name, rule in of_type(parts, "AWS::Events::Rule"):
        if "EventBusName" in rule:
            yield name


@PROMISES.promise(
    ("BusPolicy", GONE),
    ("BusPolicy/Properties/Statement/Condition/ArnNotEquals/aws:PrincipalArn", {"Fn::GetAtt": "CommandsRole.Arn"}),
    ("BusPolicy/Properties/Statement/Effect", "Allow"),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/0/Action", ["events:PutEvents"]),
)
def only_the_fanout_publishes(parts: Parts) -> Iterator[str]:
    policies = [policy["Statement"] for _, policy in of_type(parts, "AWS::Events::EventBusPolicy")]
    expected = {
        "Sid": "NobodyButTheFanout",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "events:PutEvents",
        "Resource": "Bus.Arn",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": "FanoutRole.Arn"}},
    }
    if policies != ([] if parts["Stage"] == "local" else [expected]):
        yield "BusPolicy"
    for name in holders(parts):
        actions = [a for s in identity_statements(parts, name) for a in as_list(s["Action"])]
        if ("events:PutEvents" in actions) != (name == "FanoutRole"):
            yield name


@PROMISES.promise(
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/2", GONE),
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/2/Condition/ArnNotEquals/aws:SourceArn", "*"),
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
    redriven = {queue for action, queue in _grants(parts, "RedriveRole") if action == "sqs:ReceiveMessage"}
    yield from sorted(redriven - SENDERS.keys())


@PROMISES.promise(
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/1", GONE),
    ("AlarmsDlqPolicy/Properties/PolicyDocument/Statement/1/Condition", {}),
    ("AlarmsRule/Properties/Targets/0/DeadLetterConfig", GONE),
    ("AlarmsRule/Properties/Targets/0/RetryPolicy", GONE),
)
def every_rule_may_reach_its_target_and_its_dlq(parts: Parts) -> Iterator[str]:
    for name, rule in of_type(parts, "AWS::Events::Rule"):
        for target in rule["Targets"]:
            ends = [target["Arn"], target.get("DeadLetterConfig", {}).get("Arn", "none.Arn")]
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
)
def no_queue_allows_anybody_but_the_alarms_rule(parts: Parts) -> Iterator[str]:
    for _, policy in of_type(parts, "AWS::SQS::QueuePolicy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            the_rule = (
                statement["Principal"] == {"Service": "events.amazonaws.com"}
                and statement["Action"] == "sqs:SendMessage"
                and statement.get("Condition") == {"ArnEquals": {"aws:SourceArn": "AlarmsRule.Arn"}}
            )
            if statement["Effect"] == "Allow" and not the_rule:
                yield f"{policy['Queues'][0]}: {statement['Sid']}"


@PROMISES.promise(
    ("AlarmsRule/Properties/EventPattern/detail/alarmName", GONE),
    ("AlarmsRule/Properties/EventPattern/detail/configuration/description/0/wildcard", "*service*"),
    ("AlarmsRule/Properties/EventPattern/detail/configuration/description/0/wildcard", "*'service'*"),
    ("AlarmsRule/Properties/EventPattern/source/0", "aws.ec2"),
    ("AlarmsRule/Properties/EventPattern/detail-type/0", "CloudWatch Alarm Configuration Change"),
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
    for (alarm, description), expected in alarms.items():
        event = {
            "source": "aws.cloudwatch",
            "detail-type": "CloudWatch Alarm State Change",
            "detail": {"alarmName": alarm, "configuration": {"description": description}},
        }
        if matches(pattern, event) is not expected:
            yield f"{alarm} with {description!r}"


def matches(pattern: Any, event: Any) -> bool:
    """Say whether an event matches, for the operators that the template uses; any other is an error."""
    if isinstance(pattern, dict):
        return all(key in event and matches(rest, event[key]) for key, rest in pattern.items())
    return any(_value_matches(one, event) for one in pattern)


def _value_matches(one: Any, value: str) -> bool:
    match one:
        case str():
            return one == value
        case {"anything-but": {"prefix": str(prefix)}}:
            return not value.startswith(prefix)
        case {"wildcard": str(wildcard)}:
            return fnmatch.fnmatchcase(value, wildcard)
        case _:
            raise ValueError(f"not read here: {one}")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)
