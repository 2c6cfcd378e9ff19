"""What template.yaml promises of tables, queues, functions and outputs, one check a promise.

A check names every resource that doesn't keep the promise. `test_promise_is_kept` runs it on each stage;
`test_promise_can_be_broken` makes each listed change in the parsed file and expects the check to notice it in some
stage. What concerns permissions is in test_template_permissions.
"""

import ast
import tomllib
from collections.abc import Iterator

import pytest

from pipeline.domain.controls import NO_CONTROLS, text_of
from tests.house.template import (
    GONE,
    PSEUDO,
    ROOT,
    STAGES,
    Change,
    Parts,
    Promises,
    arn_of,
    as_list,
    identity_statements,
    key_names,
    load,
    of_type,
    queue_statements,
    sources,
)

PROMISES = Promises()
OUTPUTS = {
    *(f"{queue}Queue{end}" for queue in ("Candidates", "Alarms", "Alertmanager", "Commands") for end in ("Url", "Arn")),
    *(f"{queue}Url" for queue in ("RejectedQueue", "FanoutFailuresQueue")),
    *(f"{queue}DlqUrl" for queue in ("Candidates", "Alarms", "Alertmanager", "Commands")),
    *(f"{table}TableName" for table in ("Incidents", "Events", "Idempotency")),
    *(
        f"{caller}PolicyArn"
        for caller in ("Producer", "Alertmanager", "Operator", "Controls", "Reader", "Auditor", "Redrive")
    ),
    *("SubscriberPolicyArn", "AlertmanagerTopicArn", "BusName", "BusArn", "RedriveRoleArn", "RepublishRoleArn"),
    "RepublishPolicyArn",
    *("ControlsParameterName", "LastVerifyParameterName", "FanoutMappingId", "RetentionRoleId", "ArchiveAfterDays"),
    "EventSchemaVersion",
    *(f"{function}FunctionName" for function in ("Candidates", "Commands", "Fanout", "Retention", "Health")),
    *("ApiUrl", "ApiId", "ApiStageName", "ApiFunctionName"),
}
REACHED_BY = {
    "IncidentsTable": "OPX_INCIDENTS_TABLE",
    "EventsTable": "OPX_EVENTS_TABLE",
    "IdempotencyTable": "OPX_IDEMPOTENCY_TABLE",
    "CandidatesQueue": "OPX_CANDIDATES_QUEUE_URL",
    "AlarmsQueue": "OPX_ALARMS_QUEUE_URL",
    "AlertmanagerQueue": "OPX_ALERTMANAGER_QUEUE_URL",
    "CommandsQueue": "OPX_COMMANDS_QUEUE_URL",
    "RejectedQueue": "OPX_REJECTED_QUEUE_URL",
    "FanoutFailuresQueue": "OPX_FANOUT_FAILURES_QUEUE_URL",
    "CandidatesDlq": "OPX_CANDIDATES_DLQ_URL",
    "AlarmsDlq": "OPX_ALARMS_DLQ_URL",
    "AlertmanagerDlq": "OPX_ALERTMANAGER_DLQ_URL",
    "CommandsDlq": "OPX_COMMANDS_DLQ_URL",
    "WebhookDlq": "OPX_WEBHOOK_DLQ_URL",
    "Bus": "OPX_BUS_NAME",
    "ControlsParameter": "OPX_CONTROLS_PARAMETER",
}
COMMON_VARIABLES = {
    "OPX_STAGE",
    "POWERTOOLS_SERVICE_NAME",
    "POWERTOOLS_METRICS_NAMESPACE",
    "POWERTOOLS_LOG_LEVEL",
}


@PROMISES.promise(
    ("Outputs/CandidatesQueueUrl", GONE),
    ("Outputs/AuditorPolicyArn", GONE),
    ("Outputs/EventsTableName/Description", GONE),
    ("Outputs/BusArn/Value", "Nothing.Arn"),
    ("Outputs/FanoutMappingId/Value", {"Ref": "FanoutFunctionNothing"}),
    ("Outputs/ApiUrl/Value", {"Fn::Sub": "https://${Nothing}.execute-api.${AWS::Region}.${AWS::URLSuffix}/v1"}),
)
def outputs_are_described_and_complete(parts: Parts) -> Iterator[str]:
    outputs = parts["Outputs"]
    # SAM makes one for each event source that is read.
    mappings = {
        f"{name}{event}"
        for name, function in of_type(parts, "AWS::Serverless::Function")
        for event, source in function["Events"].items()
        if source["Type"] in ("SQS", "DynamoDB")
    }
    yield from sorted(OUTPUTS - outputs.keys())
    for name, output in outputs.items():
        value = str(output["Value"])
        known = value.removeprefix("https://").partition(".")[0] in parts["Resources"] or value in mappings
        told = name == "Version" or value == parts["Parameters"].get(name)
        if not (output.get("Description") and (known or told)):
            yield name


@PROMISES.promise(
    ("CandidatesFunction/Properties/Environment/Variables/OPX_REJECTED_QUEUE_URL", GONE),
    ("CandidatesFunction/Properties/Environment/Variables/OPX_ALERTMANAGER_QUEUE_URL", {"Ref": "AlarmsQueue"}),
    ("CommandsFunction/Properties/Environment/Variables/OPX_EVENTS_TABLE", {"Ref": "EventTable"}),
    ("CandidatesFunction/Properties/Environment/Variables/OPX_CONTROLS_PARAMETER", {"Ref": "Bus"}),
    ("Globals/Function/Environment/Variables/OPX_STAGE", GONE),
    ("FanoutFunction/Properties/Environment/Variables/POWERTOOLS_SERVICE_NAME", GONE),
    ("ApiFunction/Properties/Environment/Variables/OPX_CONTROLS_PARAMETER", GONE),
)
def every_function_is_told_what_it_reaches(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        told = function["Environment"]["Variables"]
        role = identity_statements(parts, f"{name.removesuffix('Function')}Role")
        granted = {one for s in role if s["Effect"] == "Allow" for one in as_list(s["Resource"])}
        reached = {known for known in REACHED_BY if any(one in granted for one in (f"{known}.Arn", parameter_arn(known)))}
        expected = {variable: resource for resource, variable in REACHED_BY.items() if resource in reached}
        if {variable: told.get(variable) for variable in expected} != expected:
            yield f"{name}: {sorted(expected)}"
        if missing := COMMON_VARIABLES - told.keys():
            yield f"{name}: {sorted(missing)}"


def parameter_arn(name: str) -> str:
    return f"arn:aws:ssm:{PSEUDO['AWS::Region']}:{PSEUDO['AWS::AccountId']}:parameter/{name}"


@PROMISES.promise(
    ("ControlsParameter/Properties/Value", "{}"),
    ("ControlsParameter/Properties/Value", '{"killSwitches":[],"maintenance":[],"revision":1,"schemaVersion":1}'),
    ("ControlsParameter/Properties/Type", "StringList"),
    ("ControlsParameter/Properties/Tier", "Advanced"),
    ("LastVerifyParameter/Properties/Value", '{"at": "2026-01-01T00:00:00Z"}'),
    ("LastVerifyParameter/Properties/Type", "SecureString"),
)
def each_parameter_begins_as_the_document_that_readers_know_for_the_templates(parts: Parts) -> Iterator[str]:
    begin = {"ControlsParameter": text_of(NO_CONTROLS.controls), "LastVerifyParameter": '{"at": null}'}
    for name, parameter in of_type(parts, "AWS::SSM::Parameter"):
        if (parameter["Type"], parameter["Value"]) != ("String", begin.get(name)) or "Tier" in parameter:
            yield name


@PROMISES.promise(
    ("RejectedQueue/Properties/SqsManagedSseEnabled", False),
    ("CommandsDlqPolicy", GONE),
    ("AlarmsQueuePolicy/Properties/PolicyDocument/Statement/0/Effect", "Allow"),
    ("CandidatesQueuePolicy/Properties/PolicyDocument/Statement/0/Action", "sqs:SendMessage"),
    ("FanoutFailuresQueuePolicy/Properties/PolicyDocument/Statement/0/Condition", {"Bool": {}}),
)
def every_queue_is_encrypted_and_takes_tls_only(parts: Parts) -> Iterator[str]:
    for name, queue in of_type(parts, "AWS::SQS::Queue"):
        tls_only = any(
            statement["Effect"] == "Deny"
            and statement["Principal"] == "*"
            and statement["Action"] == "sqs:*"
            and statement.get("Condition") == {"Bool": {"aws:SecureTransport": "false"}}
            for statement in queue_statements(parts, name)
        )
        if not (tls_only and queue.get("SqsManagedSseEnabled") is True):
            yield name


@PROMISES.promise(
    ("CandidatesQueue/Properties/RedrivePolicy", GONE),
    ("AlarmsQueue/Properties/RedrivePolicy/maxReceiveCount", 3),
    ("CommandsDlq/Properties/FifoQueue", GONE),
    ("CommandsDlq/Properties/MessageRetentionPeriod", 345600),
    ("CandidatesDlq/Properties/RedriveAllowPolicy", {"redrivePermission": "allowAll"}),
    ("AlarmsDlq/Properties/RedriveAllowPolicy/sourceQueueArns/0", {"Fn::GetAtt": "CandidatesQueue.Arn"}),
    ("AlertmanagerQueue/Properties/RedrivePolicy/deadLetterTargetArn", {"Fn::GetAtt": "AlarmsDlq.Arn"}),
)
def every_source_queue_has_its_own_dlq_after_100_tries(parts: Parts) -> Iterator[str]:
    queues = dict(of_type(parts, "AWS::SQS::Queue"))
    for _, event in sources(parts, "SQS"):
        name = event["Queue"].removesuffix(".Arn")
        redrive = queues[name].get("RedrivePolicy", {})
        dlq = queues.get(redrive.get("deadLetterTargetArn", "").removesuffix(".Arn"), {})
        if not (
            redrive.get("maxReceiveCount") == 100
            and dlq.get("RedriveAllowPolicy") == {"redrivePermission": "byQueue", "sourceQueueArns": [arn_of(parts, name)]}
            and dlq.get("FifoQueue") == queues[name].get("FifoQueue")
            and dlq.get("MessageRetentionPeriod") == 1209600
        ):
            yield name


@PROMISES.promise(
    ("CandidatesQueue/Properties/VisibilityTimeout", 60),
    ("CommandsFunction/Properties/Timeout", 61),
)
def visibility_is_at_least_six_times_the_timeout(parts: Parts) -> Iterator[str]:
    functions = dict(of_type(parts, "AWS::Serverless::Function"))
    for function, event in sources(parts, "SQS"):
        name = event["Queue"].removesuffix(".Arn")
        visibility = parts["Resources"][name]["Properties"]["VisibilityTimeout"]
        if visibility < 6 * functions[function]["Timeout"]:
            yield name


@PROMISES.promise(
    ("CandidatesQueue/Properties/MaximumMessageSize", 262144),
    ("RejectedQueue/Properties/MaximumMessageSize", 393216),
    ("CommandsQueue/Properties/MaximumMessageSize", GONE),
)
def an_oversized_body_reaches_the_door_and_fits_the_rejected_queue(parts: Parts) -> Iterator[str]:
    queues = dict(of_type(parts, "AWS::SQS::Queue"))
    for _, event in sources(parts, "SQS"):
        name = event["Queue"].removesuffix(".Arn")
        if not 256 * 1024 < queues[name].get("MaximumMessageSize", 0) <= 384 * 1024:
            yield name
    if queues["RejectedQueue"].get("MaximumMessageSize") != 1024 * 1024:
        yield "RejectedQueue"


@PROMISES.promise(
    ("CommandsQueue/Properties/FifoQueue", GONE),
    ("CommandsQueue/Properties/ContentBasedDeduplication", True),
)
def commands_are_fifo_and_a_reused_key_is_seen(parts: Parts) -> Iterator[str]:
    queue = parts["Resources"]["CommandsQueue"]["Properties"]
    if not (queue.get("FifoQueue") is True and queue.get("ContentBasedDeduplication") is False):
        yield "CommandsQueue"


@PROMISES.promise(
    ("EventsTable/Properties/PointInTimeRecoverySpecification", GONE),
    ("IncidentsTable/Properties/SSESpecification/SSEEnabled", False),
    ("IdempotencyTable/DeletionPolicy", "Delete"),
    ("EventsTable/UpdateReplacePolicy", GONE),
    ("EventsTable/Properties/DeletionProtectionEnabled", False),
    ("IncidentsTable/Properties/BillingMode", "PROVISIONED"),
    ("IdempotencyTable/Properties/TimeToLiveSpecification", {"AttributeName": "ttl", "Enabled": True}),
)
def tables_are_kept_encrypted_recoverable_and_never_expire(parts: Parts) -> Iterator[str]:
    for name, table in of_type(parts, "AWS::DynamoDB::Table"):
        resource = parts["Resources"][name]
        if not (
            table.get("PointInTimeRecoverySpecification") == {"PointInTimeRecoveryEnabled": True}
            and table.get("SSESpecification") == {"SSEEnabled": True, "SSEType": "KMS"}
            and resource.get("DeletionPolicy") == resource.get("UpdateReplacePolicy") == "Retain"
            and table.get("DeletionProtectionEnabled") is (parts["Stage"] != "local")
            and table.get("BillingMode") == "PAY_PER_REQUEST"
            and "TimeToLiveSpecification" not in table
        ):
            yield name


@PROMISES.promise(
    ("EventsTable/Properties/StreamSpecification/StreamViewType", "NEW_AND_OLD_IMAGES"),
    ("IncidentsTable/Properties/StreamSpecification", {"StreamViewType": "NEW_IMAGE"}),
    ("EventsTable/Properties/KeySchema/1/AttributeName", "eventId"),
)
def only_the_event_table_streams_and_its_key_is_incident_and_sequence(parts: Parts) -> Iterator[str]:
    for name, table in of_type(parts, "AWS::DynamoDB::Table"):
        if table.get("StreamSpecification") != ({"StreamViewType": "NEW_IMAGE"} if name == "EventsTable" else None):
            yield name
    if key_names(parts["Resources"]["EventsTable"]["Properties"]) != ["incidentId", "sequence"]:
        yield "EventsTable"


@PROMISES.promise(
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/0/KeySchema/1/AttributeName", "updatedAt"),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/0/KeySchema/0/AttributeName", "state"),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/1/Projection", {"ProjectionType": "ALL"}),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/1/Projection/NonKeyAttributes/0", "evidenceCount"),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/1", GONE),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/2/KeySchema/0/AttributeName", "stateShard"),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/2/Projection/ProjectionType", "ALL"),
    ("IncidentsTable/Properties/GlobalSecondaryIndexes/2", GONE),
)
def listing_keys_never_change_and_evidence_never_writes_an_index(parts: Parts) -> Iterator[str]:
    indexes = parts["Resources"]["IncidentsTable"]["Properties"]["GlobalSecondaryIndexes"]
    found = {index["IndexName"]: key_names(index) for index in indexes}
    shards = {"by-state": "stateShard", "by-service": "serviceShard", "by-created": "createdShard"}
    if found != {name: [shard, "createdKey"] for name, shard in shards.items()}:
        yield f"keys: {found}"
    settled = {"incidentId", "state", "severity", "service", "title", "createdAt"}
    for index in indexes:
        projection = index["Projection"]
        # What never changes but at creation holds nothing that does: not even a state change writes to it.
        if index["IndexName"] == "by-created":
            kept = projection == {"ProjectionType": "KEYS_ONLY"}
        else:
            kept = projection["ProjectionType"] == "INCLUDE" and set(projection["NonKeyAttributes"]) == settled
        if not kept:
            yield index["IndexName"]


@PROMISES.promise(
    ("BusArchive/Condition", GONE),
    ("BusPolicy/Condition", GONE),
    ("BusArchive", GONE),
)
def what_the_local_engine_refuses_is_deployed_elsewhere_only(parts: Parts) -> Iterator[str]:
    refused = {"AWS::Events::Archive", "AWS::Events::EventBusPolicy"}
    found = refused & {body["Type"] for body in parts["Resources"].values()}
    if found != (set() if parts["Stage"] == "local" else refused):
        yield str(sorted(found))


@PROMISES.promise(
    ("CommandsFunction/Properties/LoggingConfig", GONE),
    ("FanoutLog/Properties/RetentionInDays", GONE),
    ("CandidatesLog/Properties/LogGroupName", "/aws/lambda/another"),
)
def every_function_logs_json_into_a_group_that_is_its_own_and_expires(parts: Parts) -> Iterator[str]:
    groups = dict(of_type(parts, "AWS::Logs::LogGroup"))
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        logging = function["LoggingConfig"]
        group = groups.get(logging.get("LogGroup", ""), {})
        named = group.get("LogGroupName") == f"/aws/lambda/{function['FunctionName']}"
        if not (named and "RetentionInDays" in group and logging["LogFormat"] == "JSON"):
            yield name


@PROMISES.promise(
    ("CandidatesFunction/Properties/Events/Alarms/Properties/FunctionResponseTypes", GONE),
    ("CandidatesFunction/Properties/Events/Alertmanager/Properties/ScalingConfig", GONE),
    ("CommandsFunction/Properties/Events/Commands/Properties/ScalingConfig", GONE),
    # The engine's poller stops on a concurrency that arrives as text, as a parameter does.
    (
        "CandidatesFunction/Properties/Events/Candidates/Properties/ScalingConfig/MaximumConcurrency",
        {"Ref": "CandidatesMaximumConcurrency"},
    ),
)
def queues_answer_in_part_and_are_bounded(parts: Parts) -> Iterator[str]:
    for name, event in sources(parts, "SQS"):
        concurrency = event.get("ScalingConfig", {}).get("MaximumConcurrency", 0)
        if not (
            event.get("FunctionResponseTypes") == ["ReportBatchItemFailures"]
            and int(concurrency) >= 2
            and (parts["Stage"] != "local" or isinstance(concurrency, int))
        ):
            yield f"{name}: {event['Queue']}"


@PROMISES.promise(
    ("CandidatesFunction/Properties/Handler", "consumers.nothing.handler"),
    ("FanoutFunction/Properties/Handler", "consumers.fanout.main"),
)
def every_handler_is_a_function_in_a_file(parts: Parts) -> Iterator[str]:
    for name, function in of_type(parts, "AWS::Serverless::Function"):
        *module, attribute = function["Handler"].split(".")
        file = ROOT.joinpath(*module).with_suffix(".py")
        body = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
        names = {node.name for node in body if isinstance(node, ast.FunctionDef)}
        if attribute not in names:
            yield f"{name}: {function['Handler']}"


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", PROMISES.checks)
def test_promise_is_kept(name: str, stage: str) -> None:
    assert PROMISES.broken(name, stage) == []


@pytest.mark.parametrize(("name", "change"), PROMISES.changes, ids=PROMISES.change_names())
def test_promise_can_be_broken(name: str, change: Change) -> None:
    assert any(PROMISES.broken(name, stage, change) for stage in STAGES)


def test_samconfig_deploys_the_one_stack_and_names_parameters_that_exist() -> None:
    parameters = load()["Parameters"]
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    assert config.pop("version") == 0.1
    assert set(config) == {"default", *STAGES}
    for environment, commands in config.items():
        place = {"stack_name": "OpxControlPlaneStack", "region": "us-east-1"}
        assert commands["global"]["parameters"] == place, environment
        assert commands["validate"]["parameters"]["lint"] is True, environment
        overrides = dict(pair.split("=") for pair in commands["deploy"]["parameters"]["parameter_overrides"])
        assert overrides["Stage"] == (environment if environment in STAGES else "dev")
        for name, value in overrides.items():
            allowed = parameters[name].get("AllowedValues", [value])
            assert value in [str(one) for one in allowed], f"{environment}: {name}"


def test_only_prod_and_the_default_ask_before_they_change_anything() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text(encoding="utf-8"))
    asks = {name: config[name]["deploy"]["parameters"]["confirm_changeset"] for name in ("default", *STAGES)}
    assert asks == {"default": True, "local": False, "dev": False, "prod": True}
