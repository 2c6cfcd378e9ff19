"""Random histories of everything that the intake takes: candidates, detections under rules, native alarms, some of it twice.

A history is drawn from one seed. All of it is observed within six days, less than any policy's `pendingExpires`: whether a
pending incident still holds its key after a longer silence depends on what else has come until then, and is not promised.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from pipeline.domain.authority import Sender
from pipeline.domain.canonical import Document, format_time, normalise, parse_document
from pipeline.domain.controls import NO_CONTROLS, PinnedControls
from pipeline.domain.ids import incident_id
from pipeline.domain.promotion import Policies
from pipeline.domain.rules import Rules
from pipeline.services.decision import View
from pipeline.services.intake import IntakeWork
from pipeline.stores.memory import MemoryStore
from tests.support.bodies import alarm_body, candidate_body, command_body, text_of
from tests.support.clock import NOW
from tests.support.histories import POLICY_FILES
from tests.support.registry import ALARMS, DETECTOR, OTHER_DETECTOR, entry, registry
from tests.support.world import DEADLINE, InterleavedStore, World

PERSON: Final = Sender("AROAPERSON", "eve@example.com")
KNOWN: Final = registry(
    entry("detectors", DETECTOR.principal, OTHER_DETECTOR.principal, ALARMS.principal),
    entry("people", PERSON.principal, kinds="HUMAN", sessionIsPerson=True),
    entry("operators", "AROAOPERATOR", kinds="HUMAN", operations=["change-state"], sessionIsPerson=True),
)
# In the middle of a window of every rule.
ENDED: Final = datetime(2026, 1, 28, 14, 30, tzinfo=UTC)
SPREAD: Final = timedelta(days=6)

_BASIS: Final = {"version": 1, "description": "of a test", "pendingExpiresS": 7 * 24 * 3600}
_OWN_POLICIES: Final[tuple[dict[str, Any], ...]] = (
    {"policyId": "two", "minimumDetections": 2},
    {"policyId": "four", "minimumDetections": 4, "allowedSeverities": ["SEV1", "SEV2"]},
    {"policyId": "sure", "minimumConfidence": 0.9, "minimumDetections": 3},
    {"policyId": "cool", "cooldownS": 36 * 3600, "minimumDetections": 2},
    {"policyId": "fresh", "maximumAgeS": 2 * 24 * 3600},
    {"policyId": "severe", "allowedSeverities": ["SEV1"], "cooldownS": 3600},
    {"policyId": "people", "allowedAuthorityTypes": ["HUMAN"]},
)
POLICIES: Final = Policies.load(
    [parse_document(path.read_bytes()) for path in POLICY_FILES] + [normalise(_BASIS | own) for own in _OWN_POLICIES]
)
CANDIDATE_POLICIES: Final = ("default", "two", "four", "sure", "cool", "fresh", "severe", "people")

_OWN_RULES: Final[tuple[dict[str, Any], ...]] = (
    {"ruleId": "errors", "match": {"signalTypes": ["http-*"]}, "windowS": 6 * 3600, "threshold": {"detections": 3}},
    {
        "ruleId": "hosts",
        "match": {"services": ["checkout", "search"], "severities": ["SEV1", "SEV2", "SEV3"]},
        "groupBy": ["service", "attributes.host"],
        "windowS": 3600,
        "threshold": {"detections": 2, "minimumSeverity": "SEV2"},
        "severity": "SEV2",
        "policyId": "four",
    },
    {
        "ruleId": "flapping",
        "match": {"sources": ["cloudwatch:ledger*"]},
        "groupBy": ["dedupKey"],
        "service": "ledger",
        "windowS": 24 * 3600,
        "threshold": {"detections": 2},
        "policyId": "cool",
        "cap": 2,
    },
)
RULES: Final = Rules.load(
    [normalise({"version": 1, "confidence": 0.9, "title": "Too many: {rule}", "cap": 4} | own) for own in _OWN_RULES],
    POLICIES,
)

SEVERITIES: Final = ("SEV1", "SEV2", "SEV3", "SEV4")
SERVICES: Final = ("checkout", "search")
# The second is the very key under which a rule files its incidents.
KEYS: Final = ("checkout-5xx", 'errors:["checkout"]')
ZONES: Final = (UTC, timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-10)))


@dataclass(frozen=True)
class Message:
    """One message as it is sent; delivered again it has the same id and the same time of sending."""

    id: str
    body: str
    sender: Sender
    sent_at: datetime = NOW


@dataclass
class History:
    """What happened before (in order: incidents that came and were ended), what comes now, and the controls in force."""

    before: list[Message] = field(default_factory=list)
    ended: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    controls: PinnedControls = NO_CONTROLS


def draw(chance: random.Random) -> History:
    """Draw a history of up to a dozen and a half messages."""
    history = History(controls=_controls(chance))
    if chance.random() < 0.5:
        for service in chance.sample(SERVICES, chance.randint(1, 2)):
            key = chance.choice(KEYS)
            hours = timedelta(hours=chance.randint(1, 40))
            body = candidate_body(service=service, dedupKey=key, observedAt=format_time(ENDED - hours))
            history.before.append(Message(f"before-{service}", text_of(body), DETECTOR, ENDED))
            if chance.random() < 0.3:
                history.before += [_counted_before(service, number) for number in range(chance.randint(1, 4))]
            way = chance.choice([("CANCELLED",), ("MITIGATING", "RESOLVED"), ("MITIGATING", "RESOLVED", "CLOSED")])
            history.ended.append((incident_id(service, key, 1), way))
    kind_of = chance.choice([(_candidate,), (_detection,), (_candidate, _detection), (_candidate, _detection, _alarm)])
    # Few moments and few services make neighbours; many make strangers.
    moments = [_moment(chance) for _ in range(chance.randint(1, 6))]
    for number in range(chance.randint(2, 18)):
        moment = chance.choice(moments) + timedelta(microseconds=chance.choice((0, number)))
        history.messages.append(chance.choice(kind_of)(chance, f"m-{number}", moment))
    return history


def _counted_before(service: str, number: int) -> Message:
    """Return a detection of the window in which the ending lies, from before it."""
    moment = format_time(ENDED - timedelta(minutes=number + 1))
    body = {"type": "detection", "service": service, "signalType": "http-5xx", "severity": "SEV3", "observedAt": moment}
    return Message(f"before-{service}-{number}", text_of(body), DETECTOR, ENDED)


def _moment(chance: random.Random) -> datetime:
    hours = timedelta(hours=chance.randint(0, 140), minutes=chance.choice((0, 0, 1, 30)))
    edge = datetime(2026, 1, 31, tzinfo=UTC) - timedelta(hours=chance.randint(0, 135))
    near = ENDED + timedelta(minutes=chance.randint(-60, 60))
    return chance.choice(
        [NOW - hours, edge, edge - timedelta(microseconds=1), ENDED, ENDED + timedelta(microseconds=1), near, near]
    )


def _controls(chance: random.Random) -> PinnedControls:
    if chance.random() < 0.6:
        return NO_CONTROLS
    windows = [
        {
            "id": f"w{number}",
            "service": chance.choice(("*", "checkout", "s*")),
            "startsAt": format_time(NOW - timedelta(hours=hours)),
            "endsAt": format_time(NOW - timedelta(hours=hours - chance.randint(1, 60))),
            "reason": "upgrade",
            "by": "dana",
        }
        for number, hours in enumerate(chance.sample(range(1, 140), chance.randint(0, 3)))
    ]
    switch = {"service": "search", "reason": "noisy", "by": "dana", "since": format_time(NOW)}
    switches = [switch] if chance.random() < 0.3 else []
    return PinnedControls.load(normalise({"killSwitches": switches, "maintenance": windows}))


def _candidate(chance: random.Random, name: str, moment: datetime) -> Message:
    body = candidate_body(
        service=chance.choice(SERVICES),
        dedupKey=chance.choice(KEYS),
        severity=chance.choice(SEVERITIES),
        confidence=chance.choice([1, 0.95, 0.85, 0.5]),
        policyId=chance.choice(CANDIDATE_POLICIES),
        observedAt=moment.astimezone(chance.choice(ZONES)).isoformat(),
        title=f"trouble {name}",
        evidence=[{"kind": "n", "ref": name}] if chance.random() < 0.3 else ...,
    )
    return Message(name, text_of(body), chance.choice((DETECTOR, DETECTOR, OTHER_DETECTOR, PERSON)))


def _detection(chance: random.Random, name: str, moment: datetime) -> Message:
    body: Document = {
        "type": "detection",
        "service": chance.choice(SERVICES),
        "signalType": chance.choice(("http-5xx", "http-5xx", "oom")),
        "severity": chance.choice(SEVERITIES),
        "observedAt": moment.astimezone(chance.choice(ZONES)).isoformat(),
        # Two senders may choose the same key: their receipts differ, what they report must not be mixed up.
        "idempotencyKey": f"k-{int(name[2:]) // 2}",
        "resource": name,
    }
    if chance.random() < 0.7:
        body["attributes"] = {"host": chance.choice(("a", "b", 7))}
    return Message(name, text_of(body), (DETECTOR, OTHER_DETECTOR)[int(name[2:]) % 2])


def _alarm(chance: random.Random, name: str, moment: datetime) -> Message:
    alarm = chance.choice(("ledger-lag", "ledger-lag", "web-slow"))
    severity = "SEV2" if alarm == "web-slow" else chance.choice(SEVERITIES)
    text = f'{{"service": "{alarm.split("-")[0]}", "severity": "{severity}"}}'
    # A recovery finds something open or not, by order; what it leaves is evidence alone.
    state = chance.choice(("ALARM", "ALARM", "ALARM", "OK"))
    body = alarm_body(state, event_id=f"{name}-event", name=alarm, timestamp=format_time(moment), description=text)
    return Message(name, text_of(body), ALARMS)


# --- delivering ------------------------------------------------------------------------------------------------------


async def deliver(history: History, batches: Iterator[list[Message]]) -> MemoryStore:
    """Let happen what happened before, then take `batches`; return the store."""
    world = World(InterleavedStore(), KNOWN, POLICIES, rules=RULES, controls=history.controls)
    world.clock.time = ENDED
    for message in history.before:
        await take(world, [message])
    for identity, way in history.ended:
        for state in way:
            await world.order(command_body("change-state", identity, newState=state, reason="over"))
    world.clock.time = NOW
    for batch in batches:
        await take(world, batch)
    return world.store


async def take(world: World, batch: list[Message]) -> None:
    """Bring one batch to the intake, as its door would; whatever a message is answered, nothing may fail."""
    works: list[IntakeWork] = []
    for message in batch:
        works.append(world.intake.read(message.body, world.received(message.sender, message.id, message.sent_at)))
    for answers in await world.intake.take_all(works, View(), DEADLINE):
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer


def one_by_one(history: History) -> Iterator[list[Message]]:
    """Yield each message alone, in the order in which it was drawn."""
    for message in history.messages:
        yield [message]


def shaken(history: History, chance: random.Random) -> Iterator[list[Message]]:
    """Yield the messages in another order, some of them again, in batches of 1 to 10."""
    messages = history.messages + chance.choices(history.messages, k=chance.randint(0, len(history.messages)))
    chance.shuffle(messages)
    while messages:
        size = chance.randint(1, 10)
        batch, messages = messages[:size], messages[size:]
        yield batch


def outcome_of(store: MemoryStore) -> dict[str, Document]:
    """Return all that must not depend on order, duplication or batching.

    Not among it: what an ended incident adds up to (it is evidence, and moves nothing), words, and versions.
    """
    incidents: Document = {}
    for identity, row in store.incidents.items():
        metadata = row["metadata"]
        incidents[identity] = [row[name] for name in ("state", "severity", "service")] + [
            metadata["occurrence"],
            metadata["dedupKey"],
        ]
        if "resolution" not in metadata:
            so_far = metadata["promotion"]
            incidents[identity] += [so_far["detections"], so_far["confidence"], so_far["newestObservedAt"]]
    windows = {
        identity: {name: value for name, value in window.items() if name != "version"}
        for identity, window in store.windows.items()
    }
    receipts = {identity: receipt["requestDigest"] for identity, receipt in store.receipts.items()}
    return {"incidents": incidents, "windows": windows, "receipts": receipts}
