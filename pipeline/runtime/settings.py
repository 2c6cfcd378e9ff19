"""The environment of a function, read once and checked. The only reader of os.environ in what is deployed.

Each function has a model of its own: a variable it does not need is not asked for, a missing one stops it at start.
"""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_snake

from pipeline.domain.envelope import SCHEMA_VERSION


def _own_name(where_nobody_says: str) -> Any:
    # Lambda sets it in every function. Whoever runs one elsewhere need not.
    return Field(where_nobody_says, validation_alias="AWS_LAMBDA_FUNCTION_NAME")


class _Environment(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=lambda name: "OPX_" + to_snake(name).upper(),
    )

    # Lambda sets it in every function; tables, queues and bus are where the function is.
    region: str = Field(validation_alias="AWS_REGION")

    @classmethod
    def read(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings; raise RuntimeError naming every variable that is missing or wrong."""
        try:
            return cls.model_validate(dict(os.environ if environ is None else environ))
        except ValidationError as error:
            wrong = ", ".join(f"{item['loc'][0]} ({item['msg']})" for item in error.errors())
            raise RuntimeError(f"The function's environment is not complete: {wrong}") from None


def _writable(version: int) -> int:
    if not 1 <= version <= SCHEMA_VERSION:
        known = "version 1" if SCHEMA_VERSION == 1 else f"versions 1 to {SCHEMA_VERSION}"
        raise ValueError(f"told to write version {version}, but this code reads {known}: deploy newer code first")
    return version


class _Tables(_Environment):
    stage: str
    incidents_table: str
    events_table: str
    idempotency_table: str
    event_schema_version: Annotated[int, AfterValidator(_writable)]


class _Deciding(_Tables):
    controls_parameter: str
    redrive_role_id: str = ""


class ApiSettings(_Deciding):
    function_name: str = _own_name("opx-api")


class _Queues(_Deciding):
    rejected_queue_url: str


class CandidatesSettings(_Queues):
    candidates_queue_url: str
    alarms_queue_url: str
    alarms_queue_arn: str
    alertmanager_queue_url: str
    alertmanager_queue_arn: str
    function_name: str = _own_name("opx-candidates")


class CommandsSettings(_Queues):
    commands_queue_url: str
    function_name: str = _own_name("opx-commands")


class FanoutSettings(_Environment):
    stage: str
    bus_name: str
    fanout_failures_queue_url: str
    function_name: str = _own_name("opx-fanout")


class RetentionSettings(_Tables):
    retention_role_id: str
    archive_after_days: float = Field(ge=0, le=36_500)
    # Also Lambda's session under the role: as whom the function signs.
    function_name: str = _own_name("opx-retention")


class HealthSettings(_Environment):
    stage: str
    candidates_queue_url: str
    alarms_queue_url: str
    alertmanager_queue_url: str
    commands_queue_url: str
    rejected_queue_url: str
    fanout_failures_queue_url: str
    candidates_dlq_url: str
    alarms_dlq_url: str
    alertmanager_dlq_url: str
    commands_dlq_url: str
    webhook_dlq_url: str = ""
    fanout_mapping_id: str
    function_name: str = _own_name("opx-health")
