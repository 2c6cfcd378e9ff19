"""Whose figures they are: each function tells its own name, so two stacks in one account don't raise each other's alarms."""

from typing import Any

import pytest

from pipeline.runtime import bootstrap
from pipeline.runtime.settings import (
    ApiSettings,
    CandidatesSettings,
    CommandsSettings,
    FanoutSettings,
    HealthSettings,
    RetentionSettings,
)
from tests.unit.test_settings import complete

FUNCTIONS: dict[Any, Any] = {
    CandidatesSettings: bootstrap.candidates,
    CommandsSettings: bootstrap.commands,
    FanoutSettings: bootstrap.fanout,
    RetentionSettings: bootstrap.retention,
    HealthSettings: bootstrap.health,
}


@pytest.mark.parametrize("settings", FUNCTIONS, ids=lambda settings: settings.__name__)
async def test_figures_and_lines_carry_the_functions_own_name(settings: Any) -> None:
    given = complete(settings)
    usual = "opx-" + settings.__name__.removesuffix("Settings").lower()
    for told, expected in (({"AWS_LAMBDA_FUNCTION_NAME": "blue-x"}, "blue-x"), ({}, usual)):
        async with FUNCTIONS[settings](settings.read(given | told)) as parts:
            assert parts.telemetry.metrics.service == expected
            assert parts.telemetry.log.service == expected


async def test_the_api_tells_its_own_name_too() -> None:
    tables = [name for name in complete(CommandsSettings) if "QUEUE" not in name]
    given = {name: value for name, value in complete(CommandsSettings).items() if name in tables}
    settings = ApiSettings.read(given | {"AWS_LAMBDA_FUNCTION_NAME": "blue-api"})
    async with bootstrap.api(settings) as parts:
        assert parts.telemetry.metrics.service == "blue-api"
