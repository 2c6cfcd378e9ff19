"""Live controls: kill switches and maintenance windows, the one document that people change while everything runs. Pure.

What they mean for an incident is the gate's business: see `promotion`. Where the document is kept, and how two people who
write at once both get what they asked for, is in `stores/controls`. A candidate is held against windows by its own
`observedAt`, never by now, so a backlog that is worked off later is judged as it would have been in time.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationInfo, field_validator

from pipeline.domain.base import Count, Line, Model, Reason, SchemaVersion, Service, Slug, Time, covers, read
from pipeline.domain.canonical import Document, canonical_bytes, digest, format_time
from pipeline.domain.errors import Code, Refusal, Rejected

EVERYTHING: Final = "*"
# What the place where the document is kept takes at no cost: a standard parameter of SSM.
CONTROLS_BYTES_MAX: Final = 4096
# A window that is over still counts for what was observed in it and comes late: a message is tried for about a day.
KEPT_AFTER_END: Final = timedelta(hours=24)
WINDOW_ID_CHARACTERS: Final = 8

T = TypeVar("T")


class KillSwitch(Model):
    """No incident of these services is opened until somebody resumes them. `*` in `service` stands for any text."""

    service: Service
    reason: Reason
    by: Line
    since: Time


class MaintenanceWindow(Model):
    """What is observed of these services from `startsAt` until just before `endsAt` is expected and opens no incident."""

    id: Slug
    service: Service
    starts_at: Time
    ends_at: Time
    reason: Reason
    by: Line

    @field_validator("ends_at")
    @classmethod
    def _after_its_start(cls, ends_at: datetime, found: ValidationInfo) -> datetime:
        if "starts_at" in found.data and ends_at <= found.data["starts_at"]:
            raise ValueError("a window ends after it starts")
        return ends_at


class Controls(Model):
    """The document as written. `revision` says which version of it this one was made from; 0 is a new stack's."""

    schema_version: SchemaVersion = 1
    revision: Count = 0
    kill_switches: tuple[KillSwitch, ...] = ()
    maintenance: tuple[MaintenanceWindow, ...] = ()


_CONTROLS: Final = TypeAdapter(Controls)
_WINDOW: Final = TypeAdapter(MaintenanceWindow)
_SWITCH: Final = TypeAdapter(KillSwitch)


@dataclass(frozen=True, slots=True)
class PinnedControls:
    """Controls with the digest of the document they were read from."""

    controls: Controls
    digest: str

    def paused(self, service: str) -> KillSwitch | None:
        """Return the kill switch that holds `service`: the global one first, then the first by pattern."""
        found = [switch for switch in self.controls.kill_switches if covers(switch.service, service)]
        return min(
            found, key=lambda one: (one.service != EVERYTHING, one.service, one.since, one.by, one.reason), default=None
        )

    def maintenance(self, service: str, observed_at: datetime) -> MaintenanceWindow | None:
        """Return the window of `service` that what was observed at `observed_at` falls into, the smallest id first."""
        found = [
            window
            for window in self.controls.maintenance
            if window.starts_at <= observed_at < window.ends_at and covers(window.service, service)
        ]
        return min(
            found, key=lambda one: (one.id, one.starts_at, one.ends_at, one.service, one.by, one.reason), default=None
        )

    @classmethod
    def load(cls, document: Document) -> "PinnedControls":
        """Read a canonical document; raise `Rejected` where it is none, or of a schema version not known here."""
        return cls(read(_CONTROLS, document), digest(document))


NO_CONTROLS: Final = PinnedControls.load(Controls().to_document())


# --- edits: asked for again, each changes nothing ------------------------------------------------------------------


def pause(controls: Controls, service: str, reason: str, by: str, now: datetime) -> Controls:
    """Add a kill switch; a service that has one of the same pattern keeps it as it is."""
    if any(switch.service == service for switch in controls.kill_switches):
        return controls
    made = read(_SWITCH, {"service": service, "reason": reason, "by": by, "since": now})
    return controls.model_copy(update={"kill_switches": (*controls.kill_switches, made)})


def resume(controls: Controls, service: str) -> Controls:
    """Take away the kill switches of exactly this pattern; others stay, also where they cover the same services."""
    kept = tuple(switch for switch in controls.kill_switches if switch.service != service)
    return controls.model_copy(update={"kill_switches": kept})


def new_window(
    controls: Controls, service: str, starts_at: datetime, ends_at: datetime, reason: str, by: str
) -> MaintenanceWindow:
    """Return the window for these services and times: the one that is there, else a new one. Raises `Rejected`.

    Its id comes from service and times, so that the same request again finds it, whoever repeats it.
    """
    document = {"id": "unnamed", "service": service, "startsAt": starts_at, "endsAt": ends_at, "reason": reason, "by": by}
    made = read(_WINDOW, document)
    seed = digest({"service": service, "startsAt": format_time(starts_at), "endsAt": format_time(ends_at)})
    known = {window.id: window for window in controls.maintenance}
    for length in range(WINDOW_ID_CHARACTERS, len(seed)):
        found = known.get(seed[:length])
        if found is None:
            return made.model_copy(update={"id": seed[:length]})
        # One that was ended early, and is wanted again, is another window.
        if (found.service, found.starts_at, found.ends_at) == (service, starts_at, ends_at):
            return found
    raise AssertionError("every beginning of a digest is taken")


def add_window(controls: Controls, window: MaintenanceWindow) -> Controls:
    """Add a maintenance window; one of the same id stays as it is."""
    if any(known.id == window.id for known in controls.maintenance):
        return controls
    return controls.model_copy(update={"maintenance": (*controls.maintenance, window)})


def end_window(controls: Controls, window_id: str, now: datetime) -> Controls:
    """End a window now. One that has not begun goes away; one that is over, or isn't there, changes nothing."""
    kept = (
        window.model_copy(update={"ends_at": now})
        if window.id == window_id and window.starts_at < now < window.ends_at
        else window
        for window in controls.maintenance
        if window.id != window_id or window.starts_at < now
    )
    return controls.model_copy(update={"maintenance": tuple(kept)})


# --- writing ---------------------------------------------------------------------------------------------------------


def written(controls: Controls, made_from: int, now: datetime) -> Controls:
    """Return `controls` as the document to write after version `made_from`; raise `Rejected` where it does not fit."""
    found = pruned(controls.model_copy(update={"revision": made_from}), now)
    size = size_of(found)
    if size > CONTROLS_BYTES_MAX:
        detail = f"The controls would take {size} bytes of {CONTROLS_BYTES_MAX}: shorten the reason, or end what is over."
        raise Rejected(Refusal(Code.TOO_LARGE, detail))
    return found


def pruned(controls: Controls, now: datetime) -> Controls:
    """Drop windows that ended over a day ago; where the document is still too large, those that are over, oldest first."""
    kept = [window for window in controls.maintenance if now < window.ends_at + KEPT_AFTER_END]
    over = sorted((window for window in kept if window.ends_at <= now), key=lambda one: (one.ends_at, one.id), reverse=True)
    found = controls.model_copy(update={"maintenance": tuple(kept)})
    while over and size_of(found) > CONTROLS_BYTES_MAX:
        kept.remove(over.pop())
        found = controls.model_copy(update={"maintenance": tuple(kept)})
    return found


def size_of(controls: Controls) -> int:
    return len(text_of(controls).encode())


def text_of(controls: Controls) -> str:
    """Return the document as its keeper takes it: canonical JSON in which no two braces stand side by side.

    SSM takes doubled braces for a reference to another parameter. Outside of texts this shape has none, and inside of
    a text JSON lets a brace be spelled out; what is read back is the same document.
    """
    text = canonical_bytes(controls.to_document()).decode()
    return re.sub(r"(?<=\{)\{", r"\\u007b", re.sub(r"(?<=\})\}", r"\\u007d", text))


def same(one: Controls, other: Controls) -> bool:
    """True where both say the same, whichever edit they came from."""
    return one.model_copy(update={"revision": 0}) == other.model_copy(update={"revision": 0})


def merged(base: Controls, theirs: Controls, onto: Controls) -> Controls:
    """Return `onto` with what `theirs` changed in `base`: by pattern of a kill switch, by id of a window."""
    switches = _merged(*({one.service: one for one in source.kill_switches} for source in (base, theirs, onto)))
    windows = _merged(*({one.id: one for one in source.maintenance} for source in (base, theirs, onto)))
    return onto.model_copy(update={"kill_switches": switches, "maintenance": windows})


def _merged(base: dict[str, T], theirs: dict[str, T], onto: dict[str, T]) -> tuple[T, ...]:
    chosen = {key: theirs if theirs.get(key) != base.get(key) else onto for key in [*onto, *theirs]}
    return tuple(source[key] for key, source in chosen.items() if key in source)
