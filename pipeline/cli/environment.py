"""`opx environment`: what `sam local invoke` needs to run a built function against this stack, as its --env-vars file.

SAM can't resolve the template's references on its own machine, so the names come from the stack's outputs.
"""

import json
from typing import Final

import typer

from pipeline.cli.session import Invocation, run
from pipeline.cli.target import Target, resolve
from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY

_TABLES: Final = {
    "OPX_INCIDENTS_TABLE": "IncidentsTableName",
    "OPX_EVENTS_TABLE": "EventsTableName",
    "OPX_IDEMPOTENCY_TABLE": "IdempotencyTableName",
    "OPX_EVENT_SCHEMA_VERSION": "EventSchemaVersion",
}
_DECIDING: Final = _TABLES | {"OPX_CONTROLS_PARAMETER": "ControlsParameterName"}
_QUEUES: Final = _DECIDING | {"OPX_REJECTED_QUEUE_URL": "RejectedQueueUrl"}
_OF_FUNCTION: Final = {
    "ApiFunction": _DECIDING,
    "CandidatesFunction": _QUEUES
    | {
        "OPX_CANDIDATES_QUEUE_URL": "CandidatesQueueUrl",
        "OPX_ALARMS_QUEUE_URL": "AlarmsQueueUrl",
        "OPX_ALARMS_QUEUE_ARN": "AlarmsQueueArn",
        "OPX_ALERTMANAGER_QUEUE_URL": "AlertmanagerQueueUrl",
        "OPX_ALERTMANAGER_QUEUE_ARN": "AlertmanagerQueueArn",
    },
    "CommandsFunction": _QUEUES | {"OPX_COMMANDS_QUEUE_URL": "CommandsQueueUrl"},
    "FanoutFunction": {"OPX_BUS_NAME": "BusName", "OPX_FANOUT_FAILURES_QUEUE_URL": "FanoutFailuresQueueUrl"},
    "RetentionFunction": _TABLES
    | {"OPX_RETENTION_ROLE_ID": "RetentionRoleId", "OPX_ARCHIVE_AFTER_DAYS": "ArchiveAfterDays"},
    "HealthFunction": {
        "OPX_CANDIDATES_QUEUE_URL": "CandidatesQueueUrl",
        "OPX_ALARMS_QUEUE_URL": "AlarmsQueueUrl",
        "OPX_ALERTMANAGER_QUEUE_URL": "AlertmanagerQueueUrl",
        "OPX_COMMANDS_QUEUE_URL": "CommandsQueueUrl",
        "OPX_REJECTED_QUEUE_URL": "RejectedQueueUrl",
        "OPX_FANOUT_FAILURES_QUEUE_URL": "FanoutFailuresQueueUrl",
        "OPX_CANDIDATES_DLQ_URL": "CandidatesDlqUrl",
        "OPX_ALARMS_DLQ_URL": "AlarmsDlqUrl",
        "OPX_ALERTMANAGER_DLQ_URL": "AlertmanagerDlqUrl",
        "OPX_COMMANDS_DLQ_URL": "CommandsDlqUrl",
        "OPX_FANOUT_MAPPING_ID": "FanoutMappingId",
    },
}


def environment(context: typer.Context) -> None:
    """Print the functions' environment as JSON, for sam local invoke --env-vars.

    Example: opx environment > env.json
    """

    async def work(invocation: Invocation) -> int:
        typer.echo(json.dumps(functions_environment(await resolve(invocation.selection)), indent=2))
        return 0

    run(context, work)


def functions_environment(target: Target) -> dict[str, dict[str, str]]:
    """Return each function's variables by its name in the template."""
    stage = "local" if target.is_local else "dev"
    common = {"OPX_STAGE": stage, "AWS_REGION": target.region, "AWS_DEFAULT_REGION": target.region}
    if target.endpoint_url is not None:
        common |= {
            "AWS_ENDPOINT_URL": target.endpoint_url,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
        }
    return {
        function: common | {name: target.output(output) for name, output in variables.items()}
        for function, variables in _OF_FUNCTION.items()
    }
