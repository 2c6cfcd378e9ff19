"""The wiring of each function: everything is made in the region the function is in. No call is made."""

from datetime import timedelta

import pytest

from pipeline.domain.authority import Sender
from pipeline.runtime import bootstrap
from pipeline.runtime.settings import (
    CandidatesSettings,
    CommandsSettings,
    FanoutSettings,
    HealthSettings,
    RetentionSettings,
)
from pipeline.services import health
from pipeline.stores.dynamodb import DynamoIncidentStore
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.meters import LambdaMapping, SqsDepths
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


async def test_retention_acts_in_its_own_region_as_its_own_role() -> None:
    async with bootstrap.retention(RetentionSettings.read(complete(RetentionSettings))) as parts:
        store = parts.service.store
        assert isinstance(store, DynamoIncidentStore)
        assert store.client.meta.region_name == "eu-west-1"
        assert parts.service.sender == Sender("opx_retention_role_id", "opx-retention")
        assert [entry.id for entry in parts.service.controller.registry.of(parts.service.sender)] == ["retention-role"]
        assert parts.service.after == timedelta(days=90)


@pytest.mark.parametrize("webhook", ["", "https://sqs/webhook-dlq"])
async def test_health_measures_every_queue_that_the_stack_has(webhook: str) -> None:
    settings = HealthSettings.read(complete(HealthSettings) | {"OPX_WEBHOOK_DLQ_URL": webhook})
    async with bootstrap.health(settings) as parts:
        depths, mapping = parts.service.depths, parts.service.mapping
        assert isinstance(depths, SqsDepths)
        assert isinstance(mapping, LambdaMapping)
        assert {depths.client.meta.region_name, mapping.client.meta.region_name} == {"eu-west-1"}
        summed = {queue for queues in health.SUMS.values() for queue in queues}
        assert set(parts.service.queues) == summed - (set() if webhook else {health.WEBHOOK_DLQ})
        assert depths.urls.keys() == set(parts.service.queues)
        assert all(name.replace("-", "_") in url.replace("-", "_") for name, url in depths.urls.items())
        assert mapping.mapping_id == "opx_fanout_mapping_id"
