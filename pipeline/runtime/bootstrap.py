"""Wiring: the only chooser of implementations. Each function's parts are made here, once per execution environment.

Every function is an async context manager over its settings; clients are open inside it. Another host gives other clients.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from pipeline.domain.authority import Registry, Sender
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock
from pipeline.runtime.settings import (
    ApiSettings,
    CandidatesSettings,
    CommandsSettings,
    FanoutSettings,
    HealthSettings,
    RetentionSettings,
)
from pipeline.runtime.telemetry import Telemetry
from pipeline.runtime.telemetry_scheduled import HealthTelemetry, RetentionTelemetry
from pipeline.services import health as measuring
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop
from pipeline.services.fanout import FanoutService
from pipeline.services.intake import IntakeService
from pipeline.services.ports import Clock, RejectedQueue, SourceQueue
from pipeline.services.reading import ReadingService
from pipeline.services.retention import RetentionService
from pipeline.stores.clients import Clients, open_clients
from pipeline.stores.controls import FixedControls, SsmControls
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables
from pipeline.stores.eventbridge import EventBridgeBus
from pipeline.stores.meters import LambdaMapping, SqsDepths
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


@dataclass(frozen=True, slots=True)
class RetentionParts:
    service: RetentionService
    clock: Clock
    telemetry: RetentionTelemetry


@dataclass(frozen=True, slots=True)
class HealthParts:
    service: measuring.HealthService
    telemetry: HealthTelemetry


Deciding = ApiSettings | CandidatesSettings | CommandsSettings | RetentionSettings


def _loop(settings: Deciding, clients: Clients, clock: Clock) -> DecisionLoop:
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
            telemetry=Telemetry(settings.function_name),
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
            telemetry=Telemetry(settings.function_name),
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
            telemetry=Telemetry(settings.function_name),
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
            telemetry=Telemetry(settings.function_name),
        )


@asynccontextmanager
async def retention(settings: RetentionSettings) -> AsyncIterator[RetentionParts]:
    """Parts of the function that archives."""
    clock = SystemClock()
    registry = shipped.registry(settings.stage, retention_role_id=settings.retention_role_id)
    async with open_clients(("dynamodb",), region=settings.region) as clients:
        # The gate alone asks the live controls, and nothing that retention does comes before it.
        controller = ControllerService(_loop(settings, clients, clock), shipped.policies(), registry, FixedControls())
        yield RetentionParts(
            service=RetentionService(
                controller,
                Sender(settings.retention_role_id, settings.function_name),
                timedelta(days=settings.archive_after_days),
            ),
            clock=clock,
            telemetry=RetentionTelemetry(settings.function_name),
        )


@asynccontextmanager
async def health(settings: HealthSettings) -> AsyncIterator[HealthParts]:
    """Parts of the function that measures."""
    urls = {
        "candidates": settings.candidates_queue_url,
        "alarms": settings.alarms_queue_url,
        "alertmanager": settings.alertmanager_queue_url,
        "commands": settings.commands_queue_url,
        measuring.REJECTED: settings.rejected_queue_url,
        measuring.FANOUT_FAILURES: settings.fanout_failures_queue_url,
        "candidates-dlq": settings.candidates_dlq_url,
        "alarms-dlq": settings.alarms_dlq_url,
        "alertmanager-dlq": settings.alertmanager_dlq_url,
        "commands-dlq": settings.commands_dlq_url,
        measuring.WEBHOOK_DLQ: settings.webhook_dlq_url,
    }
    known = {name: url for name, url in urls.items() if url}
    async with open_clients(("sqs", "lambda"), region=settings.region) as clients:
        yield HealthParts(
            service=measuring.HealthService(
                SqsDepths(clients.sqs, known),
                LambdaMapping(clients.of("lambda"), settings.fanout_mapping_id),
                tuple(known),
            ),
            telemetry=HealthTelemetry(settings.function_name),
        )
