"""What template.yaml promises of the HTTP API, one check a promise (see test_template for how they run).

Which routes there are and that each is signed, who reaches which, limits, what is logged, and what API Gateway answers by
itself. What the function may do is in test_template_permissions.
"""

import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest

from consumers.api_door import REQUEST_ID
from infra.schemas.openapi import GATEWAY_CODES
from pipeline.api.problems import PROBLEM, TYPE
from pipeline.api.routes import ROUTES, Read
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
    sources,
)

PROMISES = Promises()
AUTH = "Api/Properties/Auth"
EVENTS = "ApiFunction/Properties/Events"
ANSWERS = "Api/Properties/GatewayResponses"
LOG_FORMAT = "Api/Properties/AccessLogSetting/Format"
# API Gateway waits for no function longer than this.
GATEWAY_WAITS_S = 29
# What AWS takes: a managed policy, without white space, and a resource policy of an API.
POLICY_CHARACTERS_MAX = 6144
API_POLICY_CHARACTERS_MAX = 8192
# No real ARN of ours is longer; in here some are only a name.
ARN_CHARACTERS = 130
LOGGED = {
    "requestId": "$context.requestId",
    "time": "$context.requestTimeEpoch",
    "caller": "$context.identity.caller",
    "userArn": "$context.identity.userArn",
    "method": "$context.httpMethod",
    "resourcePath": "$context.resourcePath",
    "status": "$context.status",
    "latencyMs": "$context.responseLatency",
    "refusal": "$context.error.responseType",
}
# What API Gateway answers by itself: the status, and the problem's code.
ANSWERED = {
    "MISSING_AUTHENTICATION_TOKEN": (403, "not-signed"),
    "INVALID_SIGNATURE": (403, "not-signed"),
    "EXPIRED_TOKEN": (403, "not-signed"),
    "DEFAULT_4XX": (403, "not-signed"),
    "ACCESS_DENIED": (403, "forbidden"),
    "REQUEST_TOO_LARGE": (413, "too-large"),
    "THROTTLED": (429, "throttled"),
    "QUOTA_EXCEEDED": (429, "throttled"),
    "INTEGRATION_TIMEOUT": (504, "gateway-failure"),
    "INTEGRATION_FAILURE": (504, "gateway-failure"),
    "DEFAULT_5XX": (500, "gateway-failure"),
}
READS = {f"{route.method}{route.path}" for route in ROUTES if isinstance(route.does, Read)}
ALL = {f"{route.method}{route.path}" for route in ROUTES}
REACHED = {
    "OperatorPolicy": ALL,
    "ReaderPolicy": READS,
    "AuditorPolicy": READS,
    "ProducerPolicy": {"GET/receipts/{key}"},
}


def api(parts: Parts) -> Parts:
    """Return the one API's properties."""
    ((_, properties),) = of_type(parts, "AWS::Serverless::Api")
    return properties


@PROMISES.promise(
    (f"{EVENTS}/Dismiss", GONE),
    (f"{EVENTS}/ChangeState/Properties/Method", "POST"),
    (f"{EVENTS}/ListEvents/Properties/Method", "ANY"),
    (f"{EVENTS}/GetReceipt/Properties/Path", "/receipts/{proxy+}"),
    (f"{EVENTS}/GetIncident/Properties/RestApiId", GONE),
    (f"{EVENTS}/More", {"Type": "Api", "Properties": {"RestApiId": {"Ref": "Api"}, "Method": "GET", "Path": "/rules"}}),
    (f"{EVENTS}/More", {"Type": "HttpApi", "Properties": {"Method": "GET", "Path": "/incidents"}}),
    ("CommandsFunction/Properties/FunctionUrlConfig", {"AuthType": "AWS_IAM"}),
)
def routes_are_those_of_the_table_and_there_is_no_other_way_in(parts: Parts) -> Iterator[str]:
    found = [(name, event.get("RestApiId"), event["Method"], event["Path"]) for name, event in sources(parts, "Api")]
    expected = [("ApiFunction", "Api", route.method, route.path) for route in ROUTES]
    yield from (str(one) for one in [*found, *expected] if found.count(one) != 1 or one not in expected)
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        others = {event["Type"] for event in function["Events"].values()} - {"SQS", "DynamoDB", "Api", "Schedule"}
        if others or "FunctionUrlConfig" in function:
            yield name


@PROMISES.promise(
    (f"{AUTH}/DefaultAuthorizer", GONE),
    (f"{AUTH}/DefaultAuthorizer", "NONE"),
    # The caller's credentials would have to be allowed to invoke the function.
    (f"{AUTH}/InvokeRole", GONE),
    (f"{AUTH}/Authorizers", {"Own": {"FunctionArn": {"Ref": "ApiFunction"}}}),
    (f"{EVENTS}/Declare/Properties/Auth", {"Authorizer": "NONE"}),
    (f"{EVENTS}/ListIncidents/Properties/Auth", {"InvokeRole": "CALLER_CREDENTIALS"}),
    ("Api/Properties/Cors", "'*'"),
    ("Api/Properties/DefinitionBody", {"paths": {"/open": {}}}),
    ("Api/Properties/StageName", "prod"),
    # SAM's second stage would have neither limits nor a log.
    ("Api/Properties/OpenApiVersion", GONE),
    ("Api/Properties/EndpointConfiguration/Type", "EDGE"),
    ("Globals/Api", {"Cors": "'*'"}),
)
def every_route_is_signed_on_one_regional_stage(parts: Parts) -> Iterator[str]:
    properties = api(parts)
    auth = {key: value for key, value in properties["Auth"].items() if key != "ResourcePolicy"}
    if auth != {"DefaultAuthorizer": "AWS_IAM", "InvokeRole": "NONE"}:
        yield f"Auth: {auth}"
    yield from (f"{event['Method']} {event['Path']}" for _, event in sources(parts, "Api") if "Auth" in event)
    yield from sorted({"Cors", "DefinitionBody", "DefinitionUri"} & properties.keys())
    if (properties["StageName"], properties["EndpointConfiguration"]) != ("v1", {"Type": "REGIONAL"}):
        yield "stage"
    if "OpenApiVersion" not in properties:
        yield "a second stage"
    if parts["Globals"] != ["Function"]:
        yield "Globals"


@PROMISES.promise(
    (f"{AUTH}/ResourcePolicy", GONE),
    (f"{AUTH}/ResourcePolicy/CustomStatements/0/Effect", "Allow"),
    (f"{AUTH}/ResourcePolicy/CustomStatements/0/Resource", "execute-api:/v1/GET/*"),
    (f"{AUTH}/ResourcePolicy/CustomStatements/0/Condition/StringNotEquals/aws:PrincipalAccount", "*"),
    (f"{AUTH}/ResourcePolicy/CustomStatements/1", {"Effect": "Allow", "Principal": "*", "Action": "execute-api:Invoke"}),
    (f"{AUTH}/ResourcePolicy/AwsAccountWhitelist", ["210987654321"]),
)
def the_api_denies_other_accounts_and_grants_nobody_anything(parts: Parts) -> Iterator[str]:
    denial = {
        "Sid": "NobodyButTheAccount",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "execute-api:Invoke",
        "Resource": "execute-api:/*",
        "Condition": {"StringNotEquals": {"aws:PrincipalAccount": PSEUDO["AWS::AccountId"]}},
    }
    if api(parts)["Auth"].get("ResourcePolicy") != {"CustomStatements": [denial]}:
        yield "ResourcePolicy"


@PROMISES.promise(
    ("OperatorPolicy/Properties/PolicyDocument/Statement/4/Resource/2", GONE),
    ("ReaderPolicy/Properties/PolicyDocument/Statement/6/Resource/1", GONE),
    ("AuditorPolicy/Properties/PolicyDocument/Statement/3/Resource/0", {"Fn::Sub": "${Api}/v1/POST/incidents"}),
    ("ProducerPolicy/Properties/PolicyDocument/Statement/2/Resource/0", {"Fn::Sub": "${Api}/v1/GET/receipts"}),
    ("ControlsPolicy/Properties/PolicyDocument/Statement/1/Action/0", "execute-api:Invoke"),
    ("CommandsRole/Properties/Policies/0/PolicyDocument/Statement/0/Action/0", "execute-api:Invoke"),
)
def each_caller_reaches_its_routes_and_each_grant_reaches_one(parts: Parts) -> Iterator[str]:
    for name in holders(parts):
        granted = [place for action, place in grants(parts, name) if action == "execute-api:Invoke"]
        reached = {place: {route for route in ALL if fnmatch.fnmatchcase(f"Api/v1/{route}", place)} for place in granted}
        if {route for routes in reached.values() for route in routes} != REACHED.get(name, set()):
            yield f"{name}: {granted}"
        yield from (f"{name}: {place} reaches nothing" for place, routes in reached.items() if not routes)


@PROMISES.promise(
    ("Api/Properties/MethodSettings", GONE),
    ("Api/Properties/MethodSettings/0/ResourcePath", "/incidents"),
    ("Api/Properties/MethodSettings/0/ThrottlingRateLimit", GONE),
    ("Api/Properties/MethodSettings/0/ThrottlingBurstLimit", 5000),
    ("Api/Properties/MethodSettings/0/MetricsEnabled", False),
    # The execution log holds headers and bodies.
    ("Api/Properties/MethodSettings/0/DataTraceEnabled", True),
    ("Api/Properties/MethodSettings/0/LoggingLevel", "INFO"),
    ("ApiFunction/Properties/Timeout", 60),
    ("ApiFunction/Properties/Timeout", 3),
)
def every_route_is_limited_measured_and_answered_while_the_gateway_waits(parts: Parts) -> Iterator[str]:
    settings = {
        "ResourcePath": "/*",
        "HttpMethod": "*",
        "ThrottlingRateLimit": parts["Parameters"]["ApiRateLimit"],
        "ThrottlingBurstLimit": parts["Parameters"]["ApiBurstLimit"],
        "MetricsEnabled": True,
        "LoggingLevel": "OFF",
        "DataTraceEnabled": False,
    }
    if api(parts).get("MethodSettings") != [settings]:
        yield "MethodSettings"
    timeout = parts["Resources"]["ApiFunction"]["Properties"]["Timeout"]
    if timeout != GATEWAY_WAITS_S:
        yield f"ApiFunction: {timeout} s"


@PROMISES.promise(
    ("Api/Properties/AccessLogSetting", GONE),
    ("Api/Properties/AccessLogSetting/DestinationArn", {"Fn::GetAtt": "ApiLog.Arn"}),
    ("ApiAccessLog/Properties/RetentionInDays", GONE),
    (LOG_FORMAT, "$context.requestId $context.httpMethod $context.path"),
    (LOG_FORMAT, json.dumps(LOGGED | {"body": "$input.body"})),
    (LOG_FORMAT, json.dumps(LOGGED | {"resourcePath": "$context.path"})),
    (LOG_FORMAT, json.dumps({key: value for key, value in LOGGED.items() if key != "caller"})),
)
def who_asked_for_what_is_logged_and_never_a_path_a_query_or_a_body(parts: Parts) -> Iterator[str]:
    log = api(parts).get("AccessLogSetting", {})
    try:
        logged = json.loads(log.get("Format", ""))
    except ValueError:
        logged = None
    group = parts["Resources"]["ApiAccessLog"]["Properties"]
    if (logged, log.get("DestinationArn")) != (LOGGED, "ApiAccessLog.Arn") or "RetentionInDays" not in group:
        yield "AccessLogSetting"


@PROMISES.promise(
    ("ApiAccessLog/Metadata", GONE),
    ("ApiAccessLog/Metadata/WrittenUnder", {"Ref": "ApiGatewayAccount"}),
    ("Api/DependsOn", "ApiGatewayAccount"),
    ("ApiGatewayAccount/DeletionPolicy", GONE),
    ("ApiGatewayAccount/UpdateReplacePolicy", "Delete"),
    ("ApiGatewayRole/DeletionPolicy", "Delete"),
    # A kept role of that name would be in the next stack's way.
    ("ApiGatewayRole/Properties/RoleName", "opx-api-gateway"),
    ("ApiGatewayRole/Condition", GONE),
    ("ApiGatewayAccount/Condition", "NotLocal"),
    ("ApiGatewayAccount/Properties/CloudWatchRoleArn", {"Fn::GetAtt": "ApiRole.Arn"}),
    ("ApiGatewayRole/Properties/AssumeRolePolicyDocument/Statement/0/Principal", {"Service": "lambda.amazonaws.com"}),
)
def the_accounts_log_role_is_set_first_once_and_outlives_the_stack(parts: Parts) -> Iterator[str]:
    kept = {"ApiGatewayAccount", "ApiGatewayRole"}
    found = kept & parts["Resources"].keys()
    if found != (kept if parts["Parameters"]["ApiGatewayAccountRole"] == "create" else set()):
        yield f"found: {sorted(found)}"
    # What refers to a resource is made after it; what isn't there may not be referred to.
    named = {one for name in ("ApiAccessLog", "Api") for one in _strings(parts["Resources"][name])} & kept
    if named != found - {"ApiGatewayRole"}:
        yield f"named: {sorted(named)}"
    for name in found:
        resource = parts["Resources"][name]
        if not resource.get("DeletionPolicy") == resource.get("UpdateReplacePolicy") == "Retain":
            yield name
    if found == kept:
        account, role = (parts["Resources"][name]["Properties"] for name in sorted(kept))
        if account != {"CloudWatchRoleArn": "ApiGatewayRole.Arn"} or "RoleName" in role:
            yield "ApiGatewayRole"
        if assumed_by(parts, "ApiGatewayRole") != [{"Service": "apigateway.amazonaws.com"}]:
            yield "ApiGatewayRole: trust"


def _strings(value: Any) -> Iterator[str]:
    """Yield every text in a resource."""
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(inner)


@PROMISES.promise(
    (f"{ANSWERS}/THROTTLED", GONE),
    (f"{ANSWERS}/QUOTA_EXCEEDED/ResponseParameters/Headers/Retry-After", GONE),
    (f"{ANSWERS}/ACCESS_DENIED/StatusCode", 401),
    (f"{ANSWERS}/DEFAULT_5XX/ResponseParameters/Headers/Content-Type", "'application/json'"),
    (f"{ANSWERS}/DEFAULT_4XX/ResponseParameters/Headers/Opx-Request-Id", GONE),
    (f"{ANSWERS}/INVALID_SIGNATURE/ResponseTemplates", {}),
    (f"{ANSWERS}/EXPIRED_TOKEN/ResponseTemplates", {"application/json": '{"message":$context.error.messageString}'}),
    (f"{ANSWERS}/REQUEST_TOO_LARGE/ResponseTemplates", {"application/json": '{"detail": $context.error.message}'}),
)
def what_the_gateway_answers_by_itself_has_the_form_of_every_refusal(parts: Parts) -> Iterator[str]:
    answers: Parts = api(parts)["GatewayResponses"]
    yield from sorted(answers.keys() ^ ANSWERED.keys())
    for name in answers.keys() & ANSWERED.keys():
        (status, code), answer = ANSWERED[name], answers[name]
        headers = {"Content-Type": f"'{PROBLEM}'", REQUEST_ID: "context.requestId"}
        if status == 429:
            headers["Retry-After"] = "'1'"
        if answer["StatusCode"] != status or status not in GATEWAY_CODES[code]:
            yield f"{name}: {answer['StatusCode']}"
        if answer["ResponseParameters"] != {"Headers": headers}:
            yield f"{name}: headers"
        problem = _problem(answer["ResponseTemplates"])
        words = {key: problem.pop(key, "") for key in ("detail", "next")}
        title = code.replace("-", " ").capitalize()
        if problem != {"type": TYPE + code, "title": title, "status": status, "code": code} or not all(words.values()):
            yield f"{name}: {problem}"


def _problem(templates: Parts) -> Parts:
    """Return what a template says, with a message of the gateway's put in; nothing where that is no JSON."""
    message = json.dumps('a "quoted" message\nof two lines')
    try:
        filled = json.loads(templates["application/json"].replace("$context.error.messageString", message))
    except (KeyError, ValueError):
        return {}
    return dict(filled) if isinstance(filled, dict) else {}


@PROMISES.promise(
    ("OperatorPolicy/Properties/PolicyDocument/Statement/4/Resource", [f"a-route-{n}" for n in range(50)]),
    (f"{AUTH}/ResourcePolicy/CustomStatements/0/Condition/StringNotEquals/aws:PrincipalArn", ["x" * 100] * 90),
)
def policies_are_within_what_aws_takes(parts: Parts) -> Iterator[str]:
    for name, _ in of_type(parts, "AWS::IAM::ManagedPolicy"):
        if _characters(identity_statements(parts, name)) > POLICY_CHARACTERS_MAX:
            yield name
    if _characters(api(parts)["Auth"]["ResourcePolicy"]["CustomStatements"]) > API_POLICY_CHARACTERS_MAX:
        yield "Api"


def _characters(statements: list[Parts]) -> int:
    """Return how long a policy is at most, every resource in it an ARN of full length."""
    text = json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
    resources = [one for statement in statements for one in as_list(statement["Resource"])]
    return len(text) + sum(max(0, ARN_CHARACTERS - len(one)) for one in resources)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)
