"""Wiring: the only chooser of implementations. Each function's parts are made here, once per execution environment.

Every function is an async context manager over its settings; clients are open inside it. Another host gives other clients.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pipeline.domain.authority import Registry
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock
from pipeline.runtime.settings import ApiSettings, CandidatesSettings, CommandsSettings, FanoutSettings
from pipeline.runtime.telemetry import Telemetry
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop
from pipeline.services.fanout import FanoutService
from pipeline.services.intake import IntakeService
from pipeline.services.ports import Clock, RejectedQueue, SourceQueue
from pipeline.services.reading import ReadingService
from pipeline.stores.clients import Clients, open_clients
from pipeline.stores.controls import FixedControls, SsmControls
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.queues import SqsFailureQueue, SqsRejectedQueue, SqsSourceQueue


@dataclass(frozen=True, slots=True)
class QueueParts:
    """What a queue's door is made of. `source_of` names the queues by ARN; others are `default_source`."""

    service: IntakeService | ControllerService
    rejected: RejectedQueue
    sources: Mapping[str, SourceQueue]
    source_of: Mapping[str, str]
    default_source: str
    registry: Registry
    controls: SsmControls | FixedControls
    clock: Clock
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class ApiParts:
    """What the HTTP API's door is made of."""

    controller: ControllerService
    reading: ReadingService
    controls: SsmControls | FixedControls
    clock: Clock
    telemetry: Telemetry


@dataclass(frozen=True, slots=True)
class FanoutParts:
    service: FanoutService
    telemetry: Telemetry


def _loop(settings: ApiSettings | CandidatesSettings | CommandsSettings, clients: Clients, clock: Clock) -> DecisionLoop:
    tables = Tables(settings.incidents_table, settings.events_table, settings.idempotency_table)
    return DecisionLoop(DynamoIncidentStore(clients.dynamodb, tables, clock), clock, settings.event_schema_version)


@asynccontextmanager
async def candidates(settings: CandidatesSettings) -> AsyncIterator[QueueParts]:
    """Parts of the door for candidates, alarms and Alertmanager's notifications."""
    clock = SystemClock()
    registry = shipped.registry(settings.stage, settings.redrive_role_id)
    async with open_clients(("dynamodb", "sqs", "ssm"), region=settings.region) as clients:
        controls = SsmControls(clients.ssm, settings.controls_parameter, clock)
        yield QueueParts(
            service=IntakeService(
                _loop(settings, clients, clock),
                shipped.policies(),
                registry,
                controls,
                shipped.rules(),
                shipped.alarm_mappings(),
                shipped.alert_mapping(),
            ),
            rejected=SqsRejectedQueue(clients.sqs, settings.rejected_queue_url),
            sources={
                "candidates": SqsSourceQueue(clients.sqs, settings.candidates_queue_url, clock),
                "alarms": SqsSourceQueue(clients.sqs, settings.alarms_queue_url, clock),
                "alertmanager": SqsSourceQueue(clients.sqs, settings.alertmanager_queue_url, clock),
            },
            source_of={settings.alarms_queue_arn: "alarms", settings.alertmanager_queue_arn: "alertmanager"},
            default_source="candidates",
            registry=registry,
            controls=controls,
            clock=clock,
            telemetry=Telemetry("candidates"),
        )


@asynccontextmanager
async def commands(settings: CommandsSettings) -> AsyncIterator[QueueParts]:
    """Parts of the door for commands."""
    clock = SystemClock()
    registry = shipped.registry(settings.stage, settings.redrive_role_id)
    async with open_clients(("dynamodb", "sqs", "ssm"), region=settings.region) as clients:
        controls = SsmControls(clients.ssm, settings.controls_parameter, clock)
        yield QueueParts(
            service=ControllerService(_loop(settings, clients, clock), shipped.policies(), registry, controls),
            rejected=SqsRejectedQueue(clients.sqs, settings.rejected_queue_url),
            sources={"commands": SqsSourceQueue(clients.sqs, settings.commands_queue_url, clock)},
            source_of={},
            default_source="commands",
            registry=registry,
            controls=controls,
            clock=clock,
            telemetry=Telemetry("commands"),
        )


@asynccontextmanager
async def api(settings: ApiSettings) -> AsyncIterator[ApiParts]:
    """Parts of the HTTP API."""
    clock = SystemClock()
    registry = shipped.registry(settings.stage, settings.redrive_role_id)
    async with open_clients(("dynamodb", "ssm"), region=settings.region) as clients:
        controls = SsmControls(clients.ssm, settings.controls_parameter, clock)
        loop = _loop(settings, clients, clock)
        yield ApiParts(
            controller=ControllerService(loop, shipped.policies(), registry, controls),
            reading=ReadingService(loop.store, registry, shipped.rules()),
            controls=controls,
            clock=clock,
            telemetry=Telemetry("api"),
        )


@asynccontextmanager
async def fanout(settings: FanoutSettings) -> AsyncIterator[FanoutParts]:
    """Parts of the consumer of the event table's stream."""
    clock = SystemClock()
    async with open_clients(("events", "sqs"), region=settings.region) as clients:
        yield FanoutParts(
            service=FanoutService(
                EventBridgeBus(clients.events, settings.bus_name, clock),
                SqsFailureQueue(clients.sqs, settings.fanout_failures_queue_url, clock),
                clock,
            ),
            telemetry=Telemetry("fanout"),
        )
