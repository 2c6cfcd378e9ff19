"""What template.yaml promises about who may do what, one check a promise (see test_template for how they run).

Least privilege, the append-only tables, and that nothing of ours listens to our own bus. Whose messages are taken is in
test_template_senders, which routes a caller reaches in test_template_api.
"""

import re
from collections.abc import Iterator

import pytest

from pipeline.domain.envelope import SOURCE
from tests.house.template import (
    GONE,
    PSEUDO,
    STAGES,
    Change,
    Parts,
    Promises,
    as_list,
    assumed_by,
    grants,
    holders,
    identity_statements,
    of_type,
)

PROMISES = Promises()
LOOK = "sqs:ReceiveMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes"
WORK_OFF = "sqs:ReceiveMessage sqs:DeleteMessage sqs:ChangeMessageVisibility sqs:GetQueueAttributes"
SEND = "sqs:SendMessage sqs:GetQueueUrl"
LOG = "logs:CreateLogStream logs:PutLogEvents"
READ_THE_CONTROLS = "ssm:GetParameter ssm:GetParameterHistory"
DECIDE = {
    "RejectedQueue": "sqs:SendMessage",
    "IncidentsTable": "dynamodb:GetItem dynamodb:PutItem dynamodb:ConditionCheckItem",
    "EventsTable": "dynamodb:PutItem",
    "IdempotencyTable": "dynamodb:GetItem dynamodb:PutItem",
    "parameter/ControlsParameter": READ_THE_CONTROLS,
}
KEPT_BY_AWS = "all-that-it-says"
EVENTBRIDGE = {"Service": "events.amazonaws.com"}
CODEDEPLOY = {"Service": "codedeploy.amazonaws.com"}
EXECUTE_API = f"arn:aws:execute-api:{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}"
FIND_THE_STACK = {f"stack/{PSEUDO['AWS::StackName']}/*": "cloudformation:DescribeStacks"}
INVOKE = "execute-api:Invoke"
ASK = dict.fromkeys((f"Api/v1/GET/{path}" for path in ("incidents", "incidents/*", "receipts/*")), INVOKE)
WRITE = dict.fromkeys((f"Api/v1/{path}" for path in ("POST/incidents", "POST/incidents/*", "PATCH/incidents/*")), INVOKE)
DLQS = ("CandidatesDlq", "AlarmsDlq", "AlertmanagerDlq", "CommandsDlq")
FANOUT_MAPPING = "event-source-mapping:FanoutFunctionStream"
QUEUES = (*(dlq.replace("Dlq", "Queue") for dlq in DLQS), "RejectedQueue", "FanoutFailuresQueue")
# Who may do what where: the functions as their code calls it (pipeline/stores), people as opx does (pipeline/cli).
GRANTS: dict[str, dict[str, str]] = {
    "CandidatesRole": DECIDE
    | dict.fromkeys(("CandidatesQueue", "AlarmsQueue", "AlertmanagerQueue"), WORK_OFF)
    | {"log-group:/aws/lambda/opx-candidates:*": LOG},
    "CommandsRole": DECIDE | {"CommandsQueue": WORK_OFF, "log-group:/aws/lambda/opx-commands:*": LOG},
    "FanoutRole": {
        "EventsTable.StreamArn": "dynamodb:DescribeStream dynamodb:GetRecords dynamodb:GetShardIterator",
        "EventsTable.Arn/stream/*": "dynamodb:ListStreams",
        "Bus": "events:PutEvents",
        "FanoutFailuresQueue": "sqs:SendMessage",
        "log-group:/aws/lambda/opx-fanout:*": LOG,
    },
    "ApiRole": {
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:PutItem dynamodb:ConditionCheckItem",
        **dict.fromkeys((f"IncidentsTable.Arn/index/by-{key}" for key in ("state", "service", "created")), "dynamodb:Query"),
        "EventsTable": "dynamodb:PutItem dynamodb:Query",
        "IdempotencyTable": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:PutItem",
        "parameter/ControlsParameter": READ_THE_CONTROLS,
        "log-group:/aws/lambda/opx-api:*": LOG,
    },
    "RetentionRole": {
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:PutItem",
        "IncidentsTable.Arn/index/by-state": "dynamodb:Query",
        "EventsTable": "dynamodb:PutItem",
        "IdempotencyTable": "dynamodb:GetItem dynamodb:PutItem",
        "log-group:/aws/lambda/opx-retention:*": LOG,
    },
    "HealthRole": dict.fromkeys((*QUEUES, *DLQS, "WebhookDlq"), "sqs:GetQueueAttributes")
    | {FANOUT_MAPPING: "lambda:GetEventSourceMapping", "log-group:/aws/lambda/opx-health:*": LOG},
    # Of all APIs in the account and region, those of others included.
    "ApiGatewayRole": {"service-role/AmazonAPIGatewayPushToCloudWatchLogs": KEPT_BY_AWS},
    "WebhookRole": {"WebhookDestination": "events:InvokeApiDestination"},
    "DeploymentRole": {"*": "cloudwatch:DescribeAlarms"}
    | {
        f"{name}Function{arn}": "lambda:GetAlias lambda:UpdateAlias lambda:GetProvisionedConcurrencyConfig"
        for name in ("Candidates", "Commands", "Fanout", "Api", "Retention", "Health")
        for arn in ("", ".Arn:live")
    },
    "RedriveRole": dict.fromkeys(("RejectedQueue", *DLQS), f"{WORK_OFF} sqs:GetQueueUrl")
    | dict.fromkeys(("CandidatesQueue", "CommandsQueue"), SEND),
    "RepublishRole": {
        "EventsTable": "dynamodb:Query dynamodb:Scan dynamodb:DescribeTable",
        "Bus": "events:PutEvents",
        "FanoutFailuresQueue": WORK_OFF,
    },
    "AppendOnlyPolicy": {},
    "ProducerPolicy": FIND_THE_STACK | {"CandidatesQueue": SEND, "Api/v1/GET/receipts/*": INVOKE},
    "AlertmanagerPolicy": {"AlertmanagerTopic": "sns:Publish"},
    "OperatorPolicy": FIND_THE_STACK
    | ASK
    | WRITE
    | {"CommandsQueue": SEND, "IdempotencyTable": "dynamodb:GetItem"}
    | dict.fromkeys(("RejectedQueue", "FanoutFailuresQueue", *DLQS, "WebhookDlq"), LOOK),
    # Nor this one: the doors believe what the role says of a message's sender.
    "RedrivePolicy": FIND_THE_STACK | {"RedriveRole": "sts:AssumeRole"},
    # Not the operator's: no registry stands between whoever may write the controls and silence.
    "ControlsPolicy": FIND_THE_STACK | {"parameter/ControlsParameter": f"{READ_THE_CONTROLS} ssm:PutParameter"},
    "RepublishPolicy": FIND_THE_STACK | {"RepublishRole": "sts:AssumeRole"},
    "ReaderPolicy": FIND_THE_STACK
    | ASK
    | {
        "parameter/ControlsParameter": READ_THE_CONTROLS,
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem",
        "IncidentsTable.Arn/index/by-state": "dynamodb:Query",
        "IncidentsTable.Arn/index/by-service": "dynamodb:Query",
        "IncidentsTable.Arn/index/by-created": "dynamodb:Query",
        "EventsTable": "dynamodb:Query",
    }
    | dict.fromkeys((*QUEUES, *DLQS, "WebhookDlq"), "sqs:GetQueueAttributes")
    | {
        "parameter/LastVerifyParameter": "ssm:GetParameter",
        FANOUT_MAPPING: "lambda:GetEventSourceMapping",
        "*": "cloudwatch:DescribeAlarms cloudwatch:GetMetricData",
    },
    "AuditorPolicy": FIND_THE_STACK
    | ASK
    | {
        "EventsTable": "dynamodb:Query dynamodb:Scan dynamodb:DescribeTable",
        "IdempotencyTable": "dynamodb:GetItem dynamodb:Scan dynamodb:DescribeTable",
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:Scan dynamodb:DescribeTable",
        "IncidentsTable.Arn/index/by-created": "dynamodb:Query",
        "parameter/LastVerifyParameter": "ssm:GetParameter ssm:PutParameter",
    },
    "RebuildPolicy": FIND_THE_STACK
    | {
        "EventsTable": "dynamodb:Query dynamodb:Scan",
        "IncidentsTable": "dynamodb:GetItem dynamodb:BatchGetItem dynamodb:Scan dynamodb:PutItem",
        "IncidentsTable.Arn/index/by-created": "dynamodb:Query",
    },
    "SubscriberPolicy": FIND_THE_STACK
    | {
        "rule/Bus/*": "events:PutRule events:DeleteRule events:PutTargets events:RemoveTargets",
        "opx-tail-*": "sqs:CreateQueue sqs:DeleteQueue sqs:GetQueueAttributes sqs:SetQueueAttributes sqs:TagQueue"
        " sqs:ListQueueTags sqs:ReceiveMessage sqs:DeleteMessage",
        "*": "sqs:ListQueues events:ListRules",
    },
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
    ("ReaderPolicy/Properties/PolicyDocument/Statement/9/Condition", GONE),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/9/Action/0", "cloudwatch:SetAlarmState"),
    ("HealthRole/Properties/Policies/0/PolicyDocument/Statement/1/Resource", "*"),
    ("RetentionRole/Properties/Policies/0/PolicyDocument/Statement/1/Resource", "*"),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/4/Resource/1", f"{EXECUTE_API}:Api/v1/*/incidents/*"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/6/Resource/0", f"{EXECUTE_API}:Api/v1/GET/*"),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/3/Resource/0", f"{EXECUTE_API}:Api/*/GET/incidents"),
    ("ProducerPolicy/Properties/PolicyDocument/Statement/2/Resource/0", f"{EXECUTE_API}:*/v1/GET/receipts/*"),
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
    # The only actions we need that AWS's reference names no resource for, or which are asked of all there are: `*` alone
    # allows them. They tell names and figures.
    lists = {"sqs:ListQueues", "events:ListRules", "cloudwatch:DescribeAlarms", "cloudwatch:GetMetricData"}
    condition = {"StringEquals": {"aws:RequestedRegion": PSEUDO["AWS::Region"]}}
    return set(as_list(statement["Action"])) <= lists and statement.get("Condition") == condition


def _without_rest(resource: str) -> str:
    # Below a named log group, table, stack, bus or path of one method, and behind a name of ours, a star is the rest of a
    # name; elsewhere it is anybody's.
    below = (":*", "/stream/*", f":stack/{PSEUDO['AWS::StackName']}/*", ":rule/Bus/*", ":opx-tail-*")
    path = re.fullmatch(rf"{EXECUTE_API}:Api/v1/(GET|POST|PATCH)/[a-z]+/\*", resource)
    rests = [resource.removesuffix(rest) for rest in below if resource.endswith(rest)]
    return resource.removesuffix("/*") if path else next(iter(rests), resource)


@PROMISES.promise(
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/2/Action/0", "dynamodb:UpdateItem"),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/2/Action/2", GONE),
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/3/Action", ["dynamodb:PutItem", "dynamodb:Query"]),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/4/Action/1", GONE),
    ("FanoutRole/Properties/Policies/0/PolicyDocument/Statement/3/Resource", {"Fn::GetAtt": "RejectedQueue.Arn"}),
    ("RedriveRole/Properties/Policies/0/PolicyDocument/Statement/1/Resource/0", {"Fn::GetAtt": "AlarmsQueue.Arn"}),
    ("RedriveRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource/3", GONE),
    ("RepublishRole/Properties/Policies/0/PolicyDocument/Statement/0/Action/1", GONE),
    ("RepublishRole/Properties/Policies/0/PolicyDocument/Statement/2/Resource", {"Fn::GetAtt": "RejectedQueue.Arn"}),
    ("RepublishPolicy/Properties/PolicyDocument/Statement/1/Resource", {"Fn::GetAtt": "RedriveRole.Arn"}),
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource/2", GONE),
    ("AlertmanagerPolicy/Properties/PolicyDocument/Statement/0/Action", ["sns:Publish", "sns:Subscribe"]),
    ("ProducerPolicy/Properties/PolicyDocument/Statement/0", GONE),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/2", GONE),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/3/Action", ["sqs:ReceiveMessage", "sqs:DeleteMessage"]),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/3/Resource/2", GONE),
    ("RedrivePolicy/Properties/PolicyDocument/Statement/1/Action", ["sts:AssumeRole", "sts:TagSession"]),
    ("RedrivePolicy/Properties/PolicyDocument/Statement/1/Resource", {"Fn::GetAtt": "CandidatesRole.Arn"}),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/1/Action/0", "dynamodb:PutItem"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/2/Resource/1", GONE),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/4/Action", "sqs:ReceiveMessage"),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/4/Resource/9", GONE),
    ("CandidatesRole/Properties/Policies/0/PolicyDocument/Statement/5/Action", ["ssm:GetParameter", "ssm:PutParameter"]),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/5", GONE),
    ("RetentionRole/Properties/Policies/0/PolicyDocument/Statement/0/Action/1", "dynamodb:Scan"),
    ("RetentionRole/Properties/Policies/0/PolicyDocument/Statement/2", GONE),
    ("HealthRole/Properties/Policies/0/PolicyDocument/Statement/0/Action", "sqs:ReceiveMessage"),
    ("HealthRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource/6", GONE),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/7/Action", ["ssm:GetParameter", "ssm:PutParameter"]),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/4/Action/1", GONE),
    ("ControlsPolicy/Properties/PolicyDocument/Statement/1/Action/2", GONE),
    ("ControlsPolicy/Properties/PolicyDocument/Statement/1/Resource", "arn:aws:ssm:us-east-1:123456789012:parameter/*"),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/1/Action", ["sqs:SendMessage", "ssm:PutParameter"]),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/1/Action/1", GONE),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/2/Action", ["dynamodb:DeleteItem"]),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/1/Action/2", GONE),
    ("SubscriberPolicy/Properties/PolicyDocument/Statement/2/Action", ["sqs:SendMessage"]),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/0/Action/1", "dynamodb:Scan"),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/1/Resource/2", {"Fn::GetAtt": "IncidentsTable.Arn"}),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/2/Action/1", GONE),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/3/Resource", {"Fn::GetAtt": "EventsTable.Arn"}),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/4", GONE),
    ("ApiRole/Properties/Policies/0/PolicyDocument/Statement/5/Action", ["logs:PutLogEvents", "sqs:SendMessage"]),
    ("ApiGatewayRole/Properties/ManagedPolicyArns/0", "arn:aws:iam::aws:policy/AdministratorAccess"),
    ("WebhookRole/Properties/Policies/0/PolicyDocument/Statement/0/Resource", {"Fn::GetAtt": "Bus.Arn"}),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/6/Resource/2", f"{EXECUTE_API}:Api/v1/POST/incidents"),
    ("OperatorPolicy/Properties/PolicyDocument/Statement/4/Resource/2", GONE),
)
def everybody_may_do_what_their_code_calls_and_no_more(parts: Parts) -> Iterator[str]:
    found = {name: grants(parts, name) for name in holders(parts)}
    for name in sorted(found.keys() | GRANTS.keys() - parts["LeftOut"]):
        held = {place: actions for place, actions in GRANTS.get(name, {}).items() if place not in parts["LeftOut"]}
        expected = {(action, place) for place, actions in held.items() for action in actions.split()}
        for action, place in sorted(found.get(name, set()) ^ expected):
            yield f"{name}: {action} on {place}"


@PROMISES.promise(
    ("CandidatesRole/Properties/ManagedPolicyArns", GONE),
    ("RedriveRole/Properties/ManagedPolicyArns", []),
    ("RepublishRole/Properties/ManagedPolicyArns", []),
    ("ApiRole/Properties/ManagedPolicyArns", GONE),
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
        # Under a role that only another AWS service may assume, no code runs.
        if all(who in ({"Service": "apigateway.amazonaws.com"}, EVENTBRIDGE, CODEDEPLOY) for who in assumed_by(parts, role)):
            continue
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
        if (
            function.get("Role") != f"{role}.Arn"
            or "Policies" in function
            or assumed_by(parts, role) != [{"Service": "lambda.amazonaws.com"}]
        ):
            yield name


@PROMISES.promise(
    (
        "CommandsFunction/Properties/Events/Own",
        {"Type": "EventBridgeRule", "Properties": {"EventBusName": {"Ref": "Bus"}, "Pattern": {}}},
    ),
    # A schedule is a rule of the default bus; one that matches events could be of ours.
    ("RetentionFunction/Properties/Events/Hourly", {"Type": "CloudWatchEvent", "Properties": {"Pattern": {}}}),
    ("AlarmsRule/Properties/EventBusName", {"Ref": "Bus"}),
    ("WebhookRule/Properties/Targets/0/Arn", {"Fn::GetAtt": "CandidatesQueue.Arn"}),
    ("WebhookRule/Properties/Targets/0/Arn", {"Fn::GetAtt": "ApiFunction.Arn"}),
    ("WebhookDestination/Properties/InvocationEndpoint", {"Fn::Sub": "https://${Api}.execute-api.amazonaws.com/v1"}),
)
def nothing_of_ours_listens_to_our_bus(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        if any(event["Type"] not in ("SQS", "DynamoDB", "Api", "Schedule") for event in function["Events"].values()):
            yield name
    # Out of the stack, to an address that is somebody else's, is the only way from the bus.
    outside = {
        f"{name}.Arn"
        for name, destination in of_type(parts, "AWS::Events::ApiDestination")
        if destination["InvocationEndpoint"] == parts["Parameters"]["WebhookUrl"]
    }
    for name, rule in of_type(parts, "AWS::Events::Rule"):
        if "EventBusName" in rule and not {target["Arn"] for target in rule["Targets"]} <= outside:
            yield name


@PROMISES.promise(
    ("BusPolicy", GONE),
    ("BusPolicy/Properties/Statement/Condition/ArnNotEquals/aws:PrincipalArn", {"Fn::GetAtt": "CommandsRole.Arn"}),
    ("BusPolicy/Properties/Statement/Condition/ArnNotEquals/aws:PrincipalArn/1", {"Fn::GetAtt": "RedriveRole.Arn"}),
    ("BusPolicy/Properties/Statement/Condition/ArnNotEquals/aws:PrincipalArn/1", GONE),
    ("RepublishRole/Properties/Policies/0/PolicyDocument/Statement/1", GONE),
    ("RepublishRole/Properties/Policies/0/PolicyDocument/Statement/1/Condition", GONE),
    ("RepublishRole/Properties/Policies/0/PolicyDocument/Statement/1/Condition/Null", GONE),
    ("BusPolicy/Properties/Statement/Effect", "Allow"),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/0/Action", ["events:PutEvents"]),
)
def only_the_fanout_and_who_may_republish_publish(parts: Parts) -> Iterator[str]:
    publishers = ("FanoutRole", "RepublishRole")
    policies = [policy["Statement"] for _, policy in of_type(parts, "AWS::Events::EventBusPolicy")]
    expected = {
        "Sid": "NobodyButTheFanout",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "events:PutEvents",
        "Resource": "Bus.Arn",
        "Condition": {"ArnNotEquals": {"aws:PrincipalArn": [f"{role}.Arn" for role in publishers]}},
    }
    if policies != ([] if parts["Stage"] == "local" else [expected]):
        yield "BusPolicy"
    for name in holders(parts):
        actions = [a for s in identity_statements(parts, name) for a in as_list(s["Action"])]
        if ("events:PutEvents" in actions) != (name in publishers):
            yield name
    # A call holds several events: each must be one of opx, and say so.
    as_opx = {"ForAllValues:StringEquals": {"events:source": SOURCE}, "Null": {"events:source": "false"}}
    for statement in identity_statements(parts, "RepublishRole"):
        if "events:PutEvents" in as_list(statement["Action"]) and statement.get("Condition") != as_opx:
            yield "RepublishRole: any event"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)
