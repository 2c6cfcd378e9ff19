"""The data files in force: those that ship with the code, and one's own laid over them. Checked as they are read.

One's own policies and rules are further versions, its grants further entries, and its patterns for alarms come first; what
the stack itself needs can't be taken away. `config` is the folder that a command was given; a function finds its own in
the artifact (see `overlay`). Whatever is wrong is a `ConfigError` that names file and field, and stops the function.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter

from pipeline.domain.alertmanager import AlertMapping
from pipeline.domain.authority import Registry, read_registry
from pipeline.domain.base import Model, read
from pipeline.domain.canonical import Document, parse_document
from pipeline.domain.cloudwatch import AlarmMapping
from pipeline.domain.errors import Rejected
from pipeline.domain.promotion import Policies
from pipeline.domain.rules import Rules
from pipeline.runtime import overlay
from pipeline.runtime.overlay import ConfigError

_PACKAGE = Path(__file__).parent.parent

T = TypeVar("T")


class _AlarmMappings(Model):
    mappings: tuple[AlarmMapping, ...]


_MAPPINGS: Final = TypeAdapter(_AlarmMappings)
_ALERT_MAPPING: Final = TypeAdapter(AlertMapping)


def policies(config: Path | None = None) -> Policies:
    """Return every released version of every policy, shipped and one's own."""
    return _loaded(_released("policies", config), Policies.load)


def rules(config: Path | None = None) -> Rules:
    """Return every released version of every correlation rule; those in force name a policy that there is."""
    known = policies(config)
    return _loaded(_released("rules", config), lambda documents: Rules.load(documents, known))


def registry(stage: str, redrive_role_id: str = "", config: Path | None = None, *, retention_role_id: str = "") -> Registry:
    """Return the authority registry as it stands on one stage: the shipped entries, then one's own.

    A role of the stack that is not named is nobody: only the function that acts under it needs to know it.
    """
    bindings = {"redriveRole": redrive_role_id, "retentionRole": retention_role_id}
    return Registry.load(authority(config), stage, bindings)


def authority(config: Path | None = None) -> Document:
    """Return the registry as written: the shipped entries, then one's own.

    An own entry may repeat a shipped one word for word, as a copy of the shipped file does; another under its id is refused.
    """
    document, own = _shipped("policies/authority.json"), _own(overlay.AUTHORITY, config)
    with _naming("policies/authority.json"):
        read_registry(document)
    if own is None:
        return document
    with _naming(overlay.AUTHORITY):
        read_registry(own)
        more = [entry for entry in own["entries"] if entry not in document["entries"]]
        taken = {entry["id"] for entry in document["entries"]} & {entry["id"] for entry in more}
        if taken:
            raise ValueError(
                f"entries: an entry with the id {min(taken)!r} ships with opx; remove yours, or give it another id"
            )
        return {**document, "entries": (*document["entries"], *more)}


def alarm_mappings(config: Path | None = None) -> tuple[AlarmMapping, ...]:
    """Return the patterns for alarms that carry no mapping of their own; the first that matches counts, one's own first."""
    own = _own(overlay.ALARM_MAPPINGS, config)
    with _naming(overlay.ALARM_MAPPINGS):
        found = [read(_MAPPINGS, document) for document in (own, _shipped(overlay.ALARM_MAPPINGS)) if document is not None]
    return tuple(mapping for file in found for mapping in file.mappings)


def alert_mapping(config: Path | None = None) -> AlertMapping:
    """Return which labels name an alert's service and severity: one's own file instead of the shipped one."""
    own = _own(overlay.ALERT_MAPPING, config)
    with _naming(overlay.ALERT_MAPPING):
        return read(_ALERT_MAPPING, _shipped(overlay.ALERT_MAPPING) if own is None else own)


def problem(config: Path) -> str | None:
    """Return what is wrong with a folder of one's own, as the functions would find it; None where they could start."""
    try:
        rules(config)
        authority(config)
        alarm_mappings(config)
        alert_mapping(config)
    except ConfigError as error:
        return str(error)
    return None


def _released(kind: str, config: Path | None) -> dict[str, bytes]:
    """Return the released files of a kind by name: the shipped ones, then one's own."""
    shipped = {f"{kind}/{path.name}": path.read_bytes() for path in sorted((_PACKAGE / kind).glob("*.v*.json"))}
    own = [file for file in _own_files(config) if PurePosixPath(file.name).match(f"{kind}/*.v*.json")]
    return shipped | {file.name: file.content for file in own}


def _loaded(found: dict[str, bytes], load: Callable[[Iterable[Document]], T]) -> T:
    documents = []
    for name, content in found.items():
        with _naming(name):
            documents.append(parse_document(content))
            load(documents[-1:])
    with _naming(", ".join(found)):
        return load(documents)


def _shipped(name: str) -> Document:
    with _naming(name):
        return parse_document((_PACKAGE / name).read_bytes())


def _own(name: str, config: Path | None) -> Document | None:
    for file in _own_files(config):
        if file.name == name:
            with _naming(name):
                return parse_document(file.content)
    return None


def _own_files(config: Path | None) -> tuple[overlay.File, ...]:
    if config is None and not (_PACKAGE / overlay.IN_PACKAGE).exists():
        return ()
    return overlay.files(config or _PACKAGE / overlay.IN_PACKAGE, _PACKAGE)


@contextmanager
def _naming(name: str) -> Iterator[Any]:
    """Put a file's name before whatever is found wrong in it."""
    try:
        yield
    except Rejected as error:
        refusal = error.refusal
        field = f"{refusal.field}: " if refusal.field else ""
        raise ConfigError(f"{name}: {field}{refusal.detail}") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{name}: {error}.") from None
