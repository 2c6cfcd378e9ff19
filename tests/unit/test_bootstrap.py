"""The wiring of each function: everything is made in the region the function is in. No call is made."""

import pytest

from pipeline.runtime import bootstrap
from pipeline.runtime.settings import CandidatesSettings, CommandsSettings, FanoutSettings
from pipeline.stores.dynamodb import DynamoIncidentStore
from pipeline.stores.eventbridge import EventBridgeBus
from tests.unit.test_settings import complete


@pytest.mark.parametrize("model", [CandidatesSettings, CommandsSettings], ids=["candidates", "commands"])
async def test_a_queues_function_talks_to_its_own_region(model: type[CandidatesSettings] | type[CommandsSettings]) -> None:
    settings = model.read(complete(model))
    make = bootstrap.candidates(settings) if isinstance(settings, CandidatesSettings) else bootstrap.commands(settings)
    async with make as parts:
        store = parts.service.loop.store
        assert isinstance(store, DynamoIncidentStore)
        assert store.client.meta.region_name == "eu-west-1"
        assert set(parts.sources) >= {parts.default_source, *parts.source_of.values()}


async def test_the_fan_out_talks_to_its_own_region() -> None:
    async with bootstrap.fanout(FanoutSettings.read(complete(FanoutSettings))) as parts:
        bus = parts.service.bus
        assert isinstance(bus, EventBridgeBus)
        assert bus.client.meta.region_name == "eu-west-1"
