"""The data files that ship with the code: policies, authority registry, alarm mappings. Checked as they are read."""

from pathlib import Path

from pydantic import TypeAdapter

from pipeline.domain.authority import Registry
from pipeline.domain.base import read
from pipeline.domain.candidates import AlarmMapping
from pipeline.domain.canonical import parse_document
from pipeline.domain.promotion import Policies

_PACKAGE = Path(__file__).parent.parent
_MAPPINGS: TypeAdapter[tuple[AlarmMapping, ...]] = TypeAdapter(tuple[AlarmMapping, ...])


def policies() -> Policies:
    """Return every released version of every shipped policy."""
    return Policies.load(parse_document(path.read_bytes()) for path in sorted((_PACKAGE / "policies").glob("*.v*.json")))


def registry(stage: str, redrive_role_id: str = "") -> Registry:
    """Return the authority registry as it stands on one stage."""
    document = parse_document((_PACKAGE / "policies" / "authority.json").read_bytes())
    return Registry.load(document, stage, {"redriveRole": redrive_role_id})


def alarm_mappings() -> tuple[AlarmMapping, ...]:
    """Return the shipped patterns for alarms that carry no mapping of their own."""
    document = parse_document((_PACKAGE / "rules" / "alarm-mappings.json").read_bytes())
    return read(_MAPPINGS, document["mappings"])
