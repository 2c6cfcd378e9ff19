"""The services over a store under test, with the shipped policies and the local stage's registry."""

import asyncio
import json
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pipeline
from pipeline.domain.authority import Registry, Sender
from pipeline.domain.candidates import Received
from pipeline.domain.canonical import parse_document
from pipeline.domain.controls import NO_CONTROLS
from pipeline.domain.promotion import Policies
from pipeline.services.controller import ControllerService
from pipeline.services.decision import DecisionLoop, Outcome, View
from pipeline.services.intake import IntakeService
from pipeline.services.ports import Clock, IncidentStore
from pipeline.stores.controls import FixedControls
from tests.contract.commits import NOW
from tests.support.world import only_answer

POLICIES = Path(pipeline.__path__[0]) / "policies"
SENDER = Sender("000000000000")
DEADLINE_S = 60.0


@dataclass
class SetClock:
    """A clock whose time of day a test sets; it sleeps for real."""

    time_of_day: datetime = NOW

    def now(self) -> datetime:
        return self.time_of_day

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Rig:
    """Takes messages as the doors do, one view each, and returns the outcome."""

    intake: IntakeService
    controller: ControllerService

    async def candidate(self, message_id: str, view: View | None = None, **fields: Any) -> Outcome:
        """Take a candidate; `fields` change or add to the smallest valid one."""
        body = {
            "type": "candidate",
            "service": "checkout",
            "severity": "SEV2",
            "title": "5xx above 5 %",
            "dedupKey": "checkout-5xx",
        } | fields
        work = self.intake.read(json.dumps(body), received(message_id))
        return await only_answer(self.intake, work, view or View(), time.monotonic() + DEADLINE_S)

    async def command(self, kind: str, incident_id: str, key: str, **fields: Any) -> Outcome:
        """Take a person's command on an incident."""
        body = {"type": kind, "incidentId": incident_id, "authority": "HUMAN", "idempotencyKey": key} | fields
        work = self.controller.read(json.dumps(body), received(key))
        return await self.controller.take(work, View(), time.monotonic() + DEADLINE_S)


def received(message_id: str, sent_at: datetime = NOW) -> Received:
    return Received(SENDER, message_id, sent_at)


def rig(store: IncidentStore, clock: Clock | None = None) -> Rig:
    policies = Policies.load([parse_document(path.read_bytes()) for path in sorted(POLICIES.glob("*.v*.json"))])
    registry = Registry.load(parse_document((POLICIES / "authority.json").read_bytes()), "local", {})
    loop = DecisionLoop(store, clock or SetClock())
    controls = FixedControls(NO_CONTROLS)
    return Rig(IntakeService(loop, policies, registry, controls), ControllerService(loop, policies, registry, controls))
