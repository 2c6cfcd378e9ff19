"""Who speaks in tests: senders of every sort, and the registry that knows them (all but the stranger)."""

from typing import Any, Final

from pipeline.domain.authority import Registry, Sender
from pipeline.domain.canonical import normalise
from pipeline.domain.commands import COMMAND_TYPES

ACCOUNT: Final = "123456789012"

DETECTOR: Final = Sender("AROADETECTOR", "monitor-7")
OTHER_DETECTOR: Final = Sender("AROAOTHERDETECTOR", "monitor-8")
ALARMS: Final = Sender("queue:alarms")
OPERATOR: Final = Sender("AROAOPERATOR", "dana@example.com")
AUTOMATION: Final = Sender("AROAAUTOMATION", "remediator")
PORTAL: Final = Sender("AROAPORTAL", "portal")
CHECKOUT_ONLY: Final = Sender("AIDACHECKOUT")
STRANGER: Final = Sender("AROASTRANGER", "who")

COMMANDS: Final = sorted(COMMAND_TYPES)


def entry(
    name: str, *principals: str, kinds: str = "SYSTEM", operations: Any = ("candidate",), **more: Any
) -> dict[str, Any]:
    """Return one registry entry; `kinds` is separated by blanks."""
    return {
        "id": name,
        "principals": principals,
        "authorityTypes": kinds.split(),
        "operations": operations,
        "services": ("*",),
    } | more


ENTRIES: Final = (
    entry("detectors", DETECTOR.principal, OTHER_DETECTOR.principal, ALARMS.principal),
    entry("operators", OPERATOR.principal, kinds="HUMAN", operations=COMMANDS, sessionIsPerson=True),
    entry("automation", AUTOMATION.principal, operations=COMMANDS),
    entry("portal", PORTAL.principal, kinds="HUMAN SYSTEM", operations=COMMANDS, assertsForOthers=True),
    entry(
        "checkout",
        CHECKOUT_ONLY.principal,
        kinds="HUMAN",
        operations=COMMANDS,
        services=("checkout*",),
        principalIsPerson=True,
    ),
)


def registry(*entries: dict[str, Any], stage: str = "test", **bindings: str) -> Registry:
    """Return the registry of `entries`, or of everybody above."""
    return Registry.load(normalise({"version": 1, "entries": entries or ENTRIES}), stage, bindings)
