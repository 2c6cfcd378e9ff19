"""A function's environment is complete or the function does not start, and says which variables are missing."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.domain.envelope import SCHEMA_VERSION
from pipeline.runtime.settings import (
    CandidatesSettings,
    CommandsSettings,
    FanoutSettings,
    HealthSettings,
    RetentionSettings,
)

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
RECORDS = (
    "OPX_STAGE",
    "OPX_INCIDENTS_TABLE",
    "OPX_EVENTS_TABLE",
    "OPX_IDEMPOTENCY_TABLE",
    "OPX_EVENT_SCHEMA_VERSION",
)
TABLES = (*RECORDS, "OPX_REJECTED_QUEUE_URL", "OPX_CONTROLS_PARAMETER")
INTAKE = ("CANDIDATES", "ALARMS", "ALERTMANAGER", "COMMANDS")
NEEDED: dict[Any, tuple[str, ...]] = {
    CandidatesSettings: (
        *TABLES,
        *(f"OPX_{queue}_QUEUE_URL" for queue in ("CANDIDATES", "ALARMS", "ALERTMANAGER")),
        *(f"OPX_{queue}_QUEUE_ARN" for queue in ("ALARMS", "ALERTMANAGER")),
    ),
    CommandsSettings: (*TABLES, "OPX_COMMANDS_QUEUE_URL"),
    FanoutSettings: ("OPX_STAGE", "OPX_BUS_NAME", "OPX_FANOUT_FAILURES_QUEUE_URL"),
    RetentionSettings: (*RECORDS, "OPX_RETENTION_ROLE_ID", "OPX_ARCHIVE_AFTER_DAYS"),
    HealthSettings: (
        "OPX_STAGE",
        *(f"OPX_{queue}_QUEUE_URL" for queue in (*INTAKE, "REJECTED", "FANOUT_FAILURES")),
        *(f"OPX_{queue}_DLQ_URL" for queue in INTAKE),
        "OPX_FANOUT_MAPPING_ID",
    ),
}
FUNCTIONS = {
    CandidatesSettings: "CandidatesFunction",
    CommandsSettings: "CommandsFunction",
    FanoutSettings: "FanoutFunction",
    RetentionSettings: "RetentionFunction",
    HealthSettings: "HealthFunction",
}
OPTIONAL = {"OPX_REDRIVE_ROLE_ID", "OPX_WEBHOOK_DLQ_URL"}


def complete(model: Any) -> dict[str, str]:
    """The variables of the template, and the one that Lambda itself sets in every function."""
    given = {name: name.lower() for name in NEEDED[model]} | {"AWS_REGION": "eu-west-1"}
    return given | {name: number for name, number in NUMBERS.items() if name in given}


VERSION = "OPX_EVENT_SCHEMA_VERSION"
NUMBERS = {VERSION: "1", "OPX_ARCHIVE_AFTER_DAYS": "90"}
EACH = [pytest.param(model, name, id=f"{model.__name__}-{name}") for model, names in NEEDED.items() for name in names]


@pytest.mark.parametrize("model", NEEDED, ids=lambda model: model.__name__)
def test_a_complete_environment_is_read(model: Any) -> None:
    settings = model.read(complete(model) | {"PATH": "/bin", "OPX_SOMETHING_ELSE": "x"})
    read = settings.model_dump()
    assert {f"OPX_{name.upper()}" for name in read} >= set(NEEDED[model])
    texts = [name for name in NEEDED[model] if name not in NUMBERS]
    assert all(read[name.removeprefix("OPX_").lower()] == name.lower() for name in texts)
    assert (read.get("event_schema_version", 1), read.get("archive_after_days", 90)) == (1, 90)


@pytest.mark.parametrize(("model", "name"), EACH)
def test_a_missing_variable_is_named(model: Any, name: str) -> None:
    environment = complete(model)
    del environment[name]
    with pytest.raises(RuntimeError, match=rf"{name} \(Field required\)") as told:
        model.read(environment)
    assert [other for other in NEEDED[model] if other in str(told.value)] == [name], "and no other"


@pytest.mark.parametrize("model", NEEDED, ids=lambda model: model.__name__)
def test_all_missing_variables_are_named_at_once(model: Any) -> None:
    with pytest.raises(RuntimeError) as told:
        model.read({})
    assert [name for name in NEEDED[model] if name not in str(told.value)] == []


def test_nothing_of_the_environment_stands_in_the_error() -> None:
    with pytest.raises(RuntimeError) as told:
        FanoutSettings.read({"OPX_STAGE": "a-value", "OPX_SECRET": "another"})
    assert "a-value" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__suppress_context__


@pytest.mark.parametrize("version", ["0", str(SCHEMA_VERSION + 1), "-1", "one", ""])
def test_a_function_told_to_write_what_it_does_not_read_does_not_start(version: str) -> None:
    with pytest.raises(RuntimeError, match=VERSION) as told:
        CommandsSettings.read(complete(CommandsSettings) | {VERSION: version})
    if version.lstrip("-").isdecimal():
        assert "deploy newer code first" in str(told.value)


def test_a_function_works_where_it_is_deployed() -> None:
    assert FanoutSettings.read(complete(FanoutSettings)).region == "eu-west-1"
    with pytest.raises(RuntimeError, match="AWS_REGION"):
        FanoutSettings.read({name: value for name, value in complete(FanoutSettings).items() if name != "AWS_REGION"})


def test_without_a_redrive_role_nobody_is_one() -> None:
    assert CommandsSettings.read(complete(CommandsSettings)).redrive_role_id == ""
    given = complete(CommandsSettings) | {"OPX_REDRIVE_ROLE_ID": "AROAREDRIVE"}
    assert CommandsSettings.read(given).redrive_role_id == "AROAREDRIVE"


def test_the_environment_is_read_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in complete(FanoutSettings).items():
        monkeypatch.setenv(name, value)
    assert FanoutSettings.read().bus_name == "opx_bus_name"


def test_settings_never_change() -> None:
    settings: Any = FanoutSettings.read(complete(FanoutSettings))
    with pytest.raises(ValueError, match="frozen"):
        settings.stage = "prod"


class Template(yaml.SafeLoader):
    """Reads CloudFormation's short tags as what they hold."""


Template.add_multi_constructor("!", lambda loader, tag, node: tag)


@pytest.mark.parametrize(("model", "function"), FUNCTIONS.items(), ids=FUNCTIONS.values())
def test_the_template_gives_each_function_exactly_what_it_reads(model: Any, function: str) -> None:
    template = yaml.load(TEMPLATE.read_text(encoding="utf-8"), Template)
    common = template["Globals"]["Function"]["Environment"]["Variables"]
    own = template["Resources"][function]["Properties"]["Environment"]["Variables"]
    given = {name for name in common | own if name.startswith("OPX_")}
    optional = {name for name in OPTIONAL if name.removeprefix("OPX_").lower() in model.model_fields}
    assert given == set(NEEDED[model]) | optional


@pytest.mark.parametrize("days", ["-1", "36501", "never", ""])
def test_a_wrong_number_of_days_stops_retention_at_its_start(days: str) -> None:
    with pytest.raises(RuntimeError, match="OPX_ARCHIVE_AFTER_DAYS"):
        RetentionSettings.read(complete(RetentionSettings) | {"OPX_ARCHIVE_AFTER_DAYS": days})


def test_retention_signs_as_its_functions_session() -> None:
    given = complete(RetentionSettings)
    assert RetentionSettings.read(given).function_name == "opx-retention"
    assert RetentionSettings.read(given | {"AWS_LAMBDA_FUNCTION_NAME": "dev-retention"}).function_name == "dev-retention"


def test_without_a_webhook_its_dead_letter_queue_is_not_asked_for() -> None:
    assert HealthSettings.read(complete(HealthSettings) | {"OPX_WEBHOOK_DLQ_URL": ""}).webhook_dlq_url == ""
