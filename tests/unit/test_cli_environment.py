"""What `opx environment` prints is what the functions ask for: nothing missing, nothing that nobody reads."""

import pytest
from pydantic import BaseModel

from pipeline.cli.environment import functions_environment
from pipeline.cli.target import Selection, Target
from pipeline.runtime.settings import (
    ApiSettings,
    CandidatesSettings,
    CommandsSettings,
    FanoutSettings,
    HealthSettings,
    RetentionSettings,
)
from tests.house.template import load

Settings = ApiSettings | CandidatesSettings | CommandsSettings | FanoutSettings | HealthSettings | RetentionSettings
SETTINGS: dict[str, type[Settings]] = {
    "ApiFunction": ApiSettings,
    "CandidatesFunction": CandidatesSettings,
    "CommandsFunction": CommandsSettings,
    "FanoutFunction": FanoutSettings,
    "HealthFunction": HealthSettings,
    "RetentionFunction": RetentionSettings,
}
# What is a number in the environment, too.
NUMBERS = {"EventSchemaVersion": "1", "ArchiveAfterDays": "90"}
OF_AWS = {"AWS_DEFAULT_REGION"}
OF_THE_ENGINE = {"AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
TEMPLATE = load()


def target(endpoint_url: str | None) -> Target:
    outputs = {name: NUMBERS.get(name, f"the stack's {name}") for name in TEMPLATE["Outputs"]}
    return Target("a stack", "eu-west-1", Selection().state_dir, endpoint_url=endpoint_url, outputs=outputs)


def needed(settings: type[BaseModel]) -> set[str]:
    return {str(field.validation_alias) for field in settings.model_fields.values() if field.is_required()}


def test_every_function_of_the_template_has_its_variables() -> None:
    functions = {name for name, part in TEMPLATE["Resources"].items() if part["Type"] == "AWS::Serverless::Function"}
    assert set(functions_environment(target(None))) == functions == set(SETTINGS)


@pytest.mark.parametrize("function", SETTINGS)
@pytest.mark.parametrize(("endpoint_url", "more"), [(None, set()), ("http://127.0.0.1:9", OF_THE_ENGINE)])
def test_the_variables_are_those_that_the_settings_need(function: str, endpoint_url: str | None, more: set[str]) -> None:
    variables = functions_environment(target(endpoint_url))[function]
    assert set(variables) - OF_AWS - more == needed(SETTINGS[function])
    assert SETTINGS[function].read(variables).region == "eu-west-1"


@pytest.mark.parametrize("function", SETTINGS)
def test_each_variable_is_the_output_of_what_the_template_gives_the_function(function: str) -> None:
    given = TEMPLATE["Resources"][function]["Properties"]["Environment"]["Variables"]
    printed = functions_environment(target(None))[function]
    values = {NUMBERS.get(name, f"the stack's {name}"): output["Value"] for name, output in TEMPLATE["Outputs"].items()}
    for name in set(printed) & set(given):
        assert values[printed[name]] == given[name], name
    assert set(given) & needed(SETTINGS[function]) == set(printed) & set(given)
