"""`opx pause`, `resume` and `maintenance`: the live controls, which hold incidents back without a deployment.

Each may be repeated: what is there already is said, and nothing is written. Rules are in `domain/controls`, and how two
people can write at once in `stores/controls`.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.telling import clock_time, refusal_line, short_time
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, cell, safe, time_of
from pipeline.domain import controls as domain
from pipeline.domain.base import LINE, read
from pipeline.domain.canonical import Document
from pipeline.domain.controls import EVERYTHING, Controls, KillSwitch, MaintenanceWindow
from pipeline.domain.errors import Conflict, Corrupt, Rejected
from pipeline.runtime.clock import SystemClock
from pipeline.services.ports import Clock
from pipeline.stores.clients import translated
from pipeline.stores.controls import FRESH_S, ControlsParameter, Edited

BY_CHARACTERS_MAX: Final = 256
REASON_CHARACTERS_MIN: Final = 20
WITHIN: Final = f"within {FRESH_S:.0f} s"
_DURATION: Final = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,5})h)?(?:(\d{1,6})m)?", re.ASCII)

maintenance = typer.Typer(no_args_is_help=True, help="Maintenance windows: what is observed in them opens no incident.")

Service = Annotated[str, typer.Option(help="A service; * stands for any text, as in checkout-*.")]
Which = Annotated[str, typer.Option("--service", help="A service; * stands for any text. Without it, everything.")]
Why = Annotated[str, typer.Option(help="Why; whoever wonders at night will read it.")]


def pause(context: typer.Context, reason: Why, service: Which = EVERYTHING) -> None:
    """Open no more incidents, of one service or at all, until you resume.

    Candidates are still taken and kept as PENDING incidents; open incidents are not touched.

    Example: opx pause --service "checkout-*" --reason "load test"
    """

    async def work(invocation: Invocation) -> int:
        async with _opened(invocation) as desk:
            edited = await desk.edit(lambda found: domain.pause(found, service, reason, desk.by, desk.now))
        switch = next(one for one in edited.controls.kill_switches if one.service == service)
        told = f"by {switch.by} since {_at(switch.since)} ({safe(switch.reason)})"
        if edited.changed:
            desk.tell(f"Paused: no incident{_of(service)} is opened, {WITHIN} everywhere.", edited)
        else:
            desk.tell(f"Already paused, so that no incident{_of(service)} is opened: {told}.", edited)
        desk.record({"changed": edited.changed, "killSwitch": switch.to_document()}, edited)
        invocation.screen.next(f"{invocation.opx} resume{_option(service)}")
        return DONE

    run(context, work)


def resume(context: typer.Context, service: Which = EVERYTHING) -> None:
    """Open incidents again: take back `opx pause` with the same service.

    What waits as PENDING is judged again with the next candidate of its key.

    Example: opx resume --service "checkout-*"
    """

    async def work(invocation: Invocation) -> int:
        async with _opened(invocation) as desk:
            edited = await desk.edit(lambda found: domain.resume(found, service))
        left = [one.service for one in edited.controls.kill_switches]
        if edited.changed:
            desk.tell(f"The pause of {named(service)} is taken back, {WITHIN} everywhere.", edited)
        else:
            desk.tell(f"There is no pause of {named(service)}.", edited)
        if left:
            invocation.screen.say(f"Still paused: {', '.join(named(one) for one in left)}.", "yellow")
        desk.record({"changed": edited.changed, "service": service, "paused": left}, edited)
        steps = [f"{invocation.opx} resume{_option(one)}" for one in left]
        invocation.screen.next(*steps, f"{invocation.opx} list --state pending")
        return DONE

    run(context, work)


@maintenance.command()
def add(
    context: typer.Context,
    service: Service,
    reason: Why,
    starts: Annotated[str | None, typer.Option("--from", metavar="TIME", help="When it begins; without it, now.")] = None,
    ends: Annotated[str | None, typer.Option("--to", metavar="TIME", help="When it ends.")] = None,
    lasts: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="How long: 90m, 2h, 1d12h.")] = None,
) -> None:
    """Expect trouble of a service for a while: what is observed then opens no incident.

    Example: opx maintenance add --service ledger --from 2026-01-31T02:00Z --for 2h --reason "database upgrade"
    """

    async def work(invocation: Invocation) -> int:
        now = SystemClock().now()
        starts_at = now if starts is None else time_of(starts, "--from", f"{invocation.opx} maintenance add")
        ends_at = _end(starts_at, ends, lasts, invocation)
        if ends_at <= now:
            raise _wrong(f"The window would have ended at {_at(ends_at)}.", invocation)
        async with _opened(invocation) as desk:

            def change(found: Controls) -> Controls:
                return domain.add_window(found, domain.new_window(found, service, starts_at, ends_at, reason, desk.by))

            edited = await desk.edit(change)
        window = next(
            one
            for one in edited.controls.maintenance
            if (one.service, one.starts_at, one.ends_at) == (service, starts_at, ends_at)
        )
        span = f"{_at(window.starts_at)} to {_at(window.ends_at)}"
        if edited.changed:
            desk.tell(f"Maintenance {window.id} of {named(service)}: {span}. Readers know {WITHIN}.", edited)
        else:
            desk.tell(f"Maintenance {window.id} of {named(service)}, {span}, was there already.", edited)
        desk.record({"changed": edited.changed, "maintenance": window.to_document()}, edited)
        invocation.screen.next(f"{invocation.opx} maintenance end {window.id}", f"{invocation.opx} maintenance list")
        return DONE

    run(context, work)


@maintenance.command("list")
def list_(context: typer.Context) -> None:
    """Show what holds incidents back: kill switches, and maintenance windows now, to come, and just over.

    Example: opx maintenance list
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        async with _opened(invocation) as desk:
            found = await desk.read()
        switches = sorted(found.kill_switches, key=lambda one: (one.service != EVERYTHING, one.service))
        windows = sorted(found.maintenance, key=lambda one: (one.starts_at, one.id))
        if screen.as_json:
            for switch in switches:
                screen.record({"kind": "kill-switch", **switch.to_document()})
            for window in windows:
                screen.record({"kind": "maintenance", "phase": phase(window, desk.now), **window.to_document()})
        elif not switches and not windows:
            screen.say("Nothing is paused, and no maintenance is planned.")
        else:
            rows = [_switch_row(one, wide=screen.is_wide) for one in switches]
            rows += [_window_row(one, desk.now, wide=screen.is_wide) for one in windows]
            screen.table(_columns(wide=screen.is_wide), rows)
        live = [one for one in windows if phase(one, desk.now) != "over"]
        steps = [f"{invocation.opx} resume{_option(one.service)}" for one in switches[:1]]
        steps += [f"{invocation.opx} maintenance end {one.id}" for one in live[:1]]
        screen.next(*(steps or [f"{invocation.opx} status"]))
        return DONE

    run(context, work)


@maintenance.command()
def end(
    context: typer.Context,
    window_id: Annotated[str, typer.Argument(metavar="ID", help="The window's id, or the beginning of it.")],
) -> None:
    """End a maintenance window now, or take back one that has not begun.

    Example: opx maintenance end 3f9a2c1b
    """

    async def work(invocation: Invocation) -> int:
        async with _opened(invocation) as desk:
            found = await desk.read()
            window = _the_one(found, window_id.strip().lower(), invocation)
            edited = await desk.edit(lambda newest: domain.end_window(newest, window.id, desk.now))
        what = f"Maintenance {window.id} of {named(window.service)}"
        if not edited.changed:
            desk.tell(f"{what} was over at {_at(window.ends_at)}.", edited)
        elif window.starts_at < desk.now:
            desk.tell(f"{what} is over; what was observed until now stays excused. Readers know {WITHIN}.", edited)
        else:
            desk.tell(f"{what}, which had not begun, is taken back.", edited)
        left = next((one for one in edited.controls.maintenance if one.id == window.id), None)
        desk.record(
            {"changed": edited.changed, "id": window.id, "maintenance": left.to_document() if left else None}, edited
        )
        invocation.screen.next(f"{invocation.opx} maintenance list")
        return DONE

    run(context, work)


# --- the document ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Desk:
    """What an edit is made with: the parameter, who is editing, and when."""

    invocation: Invocation
    parameter: ControlsParameter
    by: str
    now: datetime
    clock: Clock

    async def edit(self, change: Callable[[Controls], Controls]) -> Edited:
        """Edit the document; raise where it can't be, with what to do then."""
        look = f"{self.invocation.opx} maintenance list"
        with self._explained():
            try:
                return await self.parameter.edit(change, self.clock)
            except Rejected as error:
                told = refusal_line(error.refusal.code, error.refusal.sentence())
                field = error.refusal.field
                then = f"the same command with another --{field}" if field in ("service", "reason") else look
                raise CommandError(told, then, REFUSED) from None
            except Conflict as error:
                raise CommandError(f"{error} Look, and try again.", look) from None

    async def read(self) -> Controls:
        """Return what is in force; raise where it can't be read, with what to do then."""
        with self._explained():
            return (await self.parameter.read()).pinned.controls

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Corrupt as error:
            flags = self.invocation.selection.profile
            then = f"aws ssm get-parameter-history --name {self.parameter.name}" + (f" --profile {flags}" if flags else "")
            raise CommandError(f"{error} Nothing was written.", then) from None

    def tell(self, line: str, edited: Edited) -> None:
        self.invocation.screen.say(line)
        if edited.others:
            self.invocation.screen.notice("Somebody else was writing at the same time; their change is in force, too.")

    def record(self, document: Document, edited: Edited) -> None:
        if self.invocation.screen.as_json:
            self.invocation.screen.record(document | {"revision": edited.controls.revision})


@asynccontextmanager
async def _opened(invocation: Invocation) -> AsyncIterator[Desk]:
    async with open_session(invocation.selection, "ssm", "sts") as session:
        by, clock = await caller(session.clients.of("sts")), SystemClock()
        yield Desk(invocation, parameter_of(session), by, clock.now(), clock)


def parameter_of(session: Session) -> ControlsParameter:
    return ControlsParameter(session.clients.ssm, session.target.output("ControlsParameterName"))


async def caller(sts: Any) -> str:
    """Return who is calling, with the session's name: what is kept beside an edit."""
    with translated("asking who is calling"):
        identity = await sts.get_caller_identity()
    return read(LINE, identity["Arn"][-BY_CHARACTERS_MAX:])


def _the_one(found: Controls, wanted: str, invocation: Invocation) -> MaintenanceWindow:
    matching = [one for one in found.maintenance if wanted and one.id.lower().startswith(wanted)]
    if len({one.id for one in matching}) == 1:
        return matching[0]
    many = f"{len(matching)} maintenance windows begin with {wanted}." if matching else ""
    none = f"No maintenance window is known as {wanted}: it may be long over, or taken back before it began."
    raise CommandError(many or none, f"{invocation.opx} maintenance list", REFUSED)


# --- times -----------------------------------------------------------------------------------------------------------


def _end(starts_at: datetime, ends: str | None, lasts: str | None, invocation: Invocation) -> datetime:
    if (ends is None) == (lasts is None):
        raise _wrong("Say either --to TIME or --for DURATION.", invocation)
    again = f"{invocation.opx} maintenance add"
    ends_at = starts_at + duration(lasts or "", invocation) if ends is None else time_of(ends, "--to", again)
    if ends_at <= starts_at:
        raise _wrong(f"The window would end at {_at(ends_at)}, before it begins.", invocation)
    return ends_at


def duration(text: str, invocation: Invocation) -> timedelta:
    """Read a duration of days, hours and minutes, such as 90m or 1d12h. Raises where it is none."""
    found = _DURATION.fullmatch(text.strip())
    days, hours, minutes = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    lasts = timedelta(days=days, hours=hours, minutes=minutes)
    if not lasts:
        raise _wrong(f"--for {text} is not a duration such as 90m, 2h or 1d12h.", invocation)
    return lasts


def _wrong(message: str, invocation: Invocation) -> CommandError:
    return CommandError(message, f"{invocation.opx} maintenance add --help", REFUSED)


def _at(when: datetime) -> str:
    return f"{clock_time(when)} UTC"


# --- words -----------------------------------------------------------------------------------------------------------


def named(service: str) -> str:
    return "every service" if service == EVERYTHING else safe(service)


def _of(service: str) -> str:
    return "" if service == EVERYTHING else f" of {safe(service)}"


def _option(service: str) -> str:
    if service == EVERYTHING:
        return ""
    return f" --service '{service}'" if re.search(r"[^\w.-]", service) else f" --service {service}"


def phase(window: MaintenanceWindow, now: datetime) -> str:
    """Return where a window stands: to come, now, or over."""
    return "to come" if now < window.starts_at else "now" if now < window.ends_at else "over"


def held(found: Controls, now: datetime) -> list[str]:
    """Return a line for each thing that holds incidents back now."""
    paused = sorted(found.kill_switches, key=lambda one: (one.service != EVERYTHING, one.service))
    running = sorted((one for one in found.maintenance if phase(one, now) == "now"), key=lambda one: (one.service, one.id))
    lines = [f"{named(one.service)}: paused since {short_time(one.since)}: {safe(one.reason)}" for one in paused]
    until = [f"{named(one.service)}: maintenance until {short_time(one.ends_at)}: {safe(one.reason)}" for one in running]
    return lines + until


def _columns(*, wide: bool) -> list[Column]:
    until = [Column("from (UTC)"), Column("to (UTC)")] if wide else [Column("from"), Column("to")]
    who = [Column("by", wrap=True)] if wide else []
    return [
        Column("what"),
        Column("id"),
        Column("service"),
        *until,
        Column("why", wrap=True, floor=REASON_CHARACTERS_MIN),
        *who,
    ]


def _row(what: Text, name: str, one: KillSwitch | MaintenanceWindow, span: tuple[str, str], *, wide: bool) -> list[Text]:
    who = [cell(one.by.rpartition(":")[2], "dim")] if wide else []
    return [what, cell(name, "cyan"), cell(one.service), *(cell(end_of) for end_of in span), cell(one.reason), *who]


def _switch_row(one: KillSwitch, *, wide: bool) -> list[Text]:
    return _row(cell("paused", "bold red"), "", one, (_time(one.since, wide=wide), "resumed"), wide=wide)


def _window_row(one: MaintenanceWindow, now: datetime, *, wide: bool) -> list[Text]:
    stands = phase(one, now)
    style = {"now": "bold yellow", "to come": "", "over": "dim"}[stands]
    span = (_time(one.starts_at, wide=wide), _time(one.ends_at, wide=wide))
    return _row(cell(stands, style), one.id, one, span, wide=wide)


def _time(when: datetime, *, wide: bool) -> str:
    return (clock_time if wide else short_time)(when)
