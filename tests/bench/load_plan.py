"""What a load consists of: who sends what, and when. Pure: the same seed and size give the same plan.

Arrivals are open: their times are fixed before anything runs, so whoever waits is counted as waiting. Joins and duplicates
concern incidents that nobody acts on; otherwise a late join would rightly begin the next occurrence, and the plan could not
say what must be there afterwards.
"""

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from pipeline.domain.ids import incident_id

SERVICES: Final = tuple(f"load-{number:02}" for number in range(40))
# Of each incident, on average.
JOINS: Final = 0.25
DUPLICATES: Final = 0.10
ACTED: Final = 0.20
# How long after the first a join or a copy comes, and how long a person thinks before each step.
LATER_S: Final = (0.2, 20.0)
THINKING_S: Final = (1.0, 8.0)
SEVERITIES: Final = ("SEV1", "SEV2", "SEV3")

FRESH, JOIN, DUPLICATE = "fresh", "join", "duplicate"
MITIGATE, RESOLVE = "mitigate", "resolve"
STEPS: Final = {MITIGATE: "MITIGATING", RESOLVE: "RESOLVED"}


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """One message for the candidates queue, due `at_s` after the start."""

    at_s: float
    number: int
    kind: str
    incident: str
    body: Any = None


@dataclass(frozen=True)
class Plan:
    """`acted`: by incident, how long its person thinks before mitigating and before resolving."""

    arrivals: tuple[Arrival, ...]
    acted: dict[str, tuple[float, float]]
    detections: dict[str, int]
    seconds: float

    @property
    def counts(self) -> Counter[str]:
        return Counter(one.kind for one in self.arrivals)

    @property
    def receipts(self) -> int:
        """Return how many receipts must stand when all is done: one for each message that is not a copy."""
        return self.counts[FRESH] + self.counts[JOIN] + len(STEPS) * len(self.acted)


def plan(rng: random.Random, incidents_per_minute: int, minutes: float) -> Plan:
    """Return a load: fresh keys spread at random over the time, and what belongs to them."""
    seconds = minutes * 60
    arrivals: list[Arrival] = []
    acted: dict[str, tuple[float, float]] = {}
    detections: dict[str, int] = {}
    weights = [1 / (rank + 1) for rank in range(len(SERVICES))]  # a few services are loud

    def arrive(at_s: float, kind: str, incident: str, body: Any) -> None:
        arrivals.append(Arrival(at_s, len(arrivals), kind, incident, body))

    for number in range(round(incidents_per_minute * minutes)):
        at_s = rng.uniform(0, seconds)
        service, severity = rng.choices(SERVICES, weights)[0], rng.choice(SEVERITIES)
        body = {
            "type": "candidate",
            "service": service,
            "severity": severity,
            "title": "5xx above 5 %",
            "dedupKey": f"load-{number}",
            "idempotencyKey": f"fresh-{number}",
        }
        identity = incident_id(service, str(body["dedupKey"]), 1)
        arrive(at_s, FRESH, identity, body)
        detections[identity] = 1
        if rng.random() < ACTED:
            acted[identity] = (rng.uniform(*THINKING_S), rng.uniform(*THINKING_S))
            continue
        if rng.random() < JOINS / (1 - ACTED):
            arrive(at_s + rng.uniform(*LATER_S), JOIN, identity, body | {"idempotencyKey": f"join-{number}"})
            detections[identity] += 1
        if rng.random() < DUPLICATES / (1 - ACTED):
            arrive(at_s + rng.uniform(*LATER_S), DUPLICATE, identity, body)
    return Plan(tuple(sorted(arrivals)), acted, detections, seconds)


def command(incident: str, step: str) -> dict[str, Any]:
    """Return a person's command on an incident."""
    return {
        "type": "change-state",
        "incidentId": incident,
        "newState": STEPS[step],
        "authority": "HUMAN",
        "reason": "rolled back to build 412",
        "idempotencyKey": f"{step}-{incident}",
    }
