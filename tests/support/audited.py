"""Two incidents that many worked on, each under an authority of its own, and what questions about them must find."""

from typing import Any, Final

from pipeline.domain.ids import incident_id
from tests.simulation.world import VirtualClock
from tests.support.doors import Doors, command_message, message
from tests.support.exporting import Tables, tables_of
from tests.support.registry import AUTOMATION, DETECTOR, OPERATOR, PORTAL, registry

CARTS, LEDGER = incident_id("checkout-carts", "slow", 1), incident_id("ledger", "slow", 1)
MINUTE_S: Final = 60


async def worked() -> Tables:
    """Return what is stored of an incident that automation and two people worked on, and of one that a person promoted."""
    clock = VirtualClock()
    doors = Doors(clock=clock, registry=registry())

    def candidate(service: str, confidence: float) -> dict[str, Any]:
        told = {"type": "candidate", "service": service, "severity": "SEV2", "title": "slow", "dedupKey": "slow"}
        return told | {"confidence": confidence, "observedAt": "2026-01-31T00:00:00Z"}

    await doors.offer(message("one", candidate("checkout-carts", 1.0), sender_id=DETECTOR.signed_id))
    await doors.offer(message("two", candidate("ledger", 0.1), sender_id=DETECTOR.signed_id))
    spoken = {"authorityType": "HUMAN", "actorId": "sam@example.com"}
    orders = [
        (AUTOMATION, {"type": "change-state", "incidentId": CARTS, "newState": "MITIGATING"}),
        (PORTAL, {"type": "change-severity", "incidentId": CARTS, "severity": "SEV1", "authority": spoken}),
        (OPERATOR, {"type": "change-state", "incidentId": CARTS, "newState": "RESOLVED", "reason": "rolled back"}),
        (OPERATOR, {"type": "request-promotion", "incidentId": LEDGER, "reason": "customers call"}),
        (PORTAL, {"type": "add-note", "incidentId": LEDGER, "note": "called the bank", "authority": "SYSTEM"}),
    ]
    for number, (sender, body) in enumerate(orders):
        clock.seconds += MINUTE_S
        await doors.order(command_message(str(number), body, sender_id=sender.signed_id))
    assert doors.refusals() == {}
    return tables_of(doors.memory)


# By the service and type of an event, of which there are no two alike.
ALL = {
    "checkout-carts IncidentCreated",
    "checkout-carts IncidentOpened",
    "checkout-carts MitigationStarted",
    "checkout-carts SeverityChanged",
    "checkout-carts IncidentResolved",
    "ledger IncidentCreated",
    "ledger PromotionDecided",
    "ledger IncidentOpened",
    "ledger NoteAdded",
}
DANAS = {"checkout-carts IncidentResolved", "ledger IncidentOpened"}
PORTALS = {"checkout-carts SeverityChanged", "ledger NoteAdded"}
GATES = {"checkout-carts IncidentOpened", "ledger PromotionDecided", "ledger IncidentOpened"}
CREATED = {"checkout-carts IncidentCreated", "ledger IncidentCreated"}

QUESTIONS: dict[str, tuple[list[str], set[str]]] = {
    "all of it": ([], ALL),
    "a person by name, also where the gate acted for them": (["--actor", "dana@example.com"], DANAS),
    "a person by a pattern": (["--actor", "dana@*"], DANAS),
    "people of a place, also whom others spoke for": (
        ["--actor", "*@example.com"],
        {*DANAS, "checkout-carts SeverityChanged"},
    ),
    "a pattern with a star in its midst": (["--actor", "d*@*.com"], DANAS),
    "who spoke for others": (["--actor", "portal"], PORTALS),
    "whom another spoke for": (["--actor", "sam@example.com"], {"checkout-carts SeverityChanged"}),
    "by unique id as actor": (["--actor", "AROAOPERATOR"], DANAS),
    "by principal": (["--principal", "AROAPORTAL"], PORTALS),
    "a name is no principal": (["--principal", "portal"], set()),
    "a part of a name is none": (["--actor", "dana"], set()),
    "the gate": (["--actor", "promotion-gate"], GATES),
    "detectors": (["--principal", "AROA*DETECTOR*"], CREATED),
    "a service": (["--service", "ledger"], {one for one in ALL if one.startswith("ledger")}),
    "services by a pattern": (["--service", "checkout*"], {one for one in ALL if one.startswith("checkout")}),
    "an incident": (["--incident", LEDGER.upper()], {one for one in ALL if one.startswith("ledger")}),
    "types": (["--type", "IncidentCreated", "--type", "noteadded"], {*CREATED, "ledger NoteAdded"}),
    "all that is given": (
        ["--actor", "dana@*", "--service", "ledger", "--type", "IncidentOpened"],
        {"ledger IncidentOpened"},
    ),
    "any text": (["--actor", "*", "--service", "*"], ALL),
}
