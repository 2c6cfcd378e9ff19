"""`opx status`: is it there and well, does anything wait, has anything been refused or lost, what happened last. Reads only.

What is read of its health is in `vitals`; what somebody has to do about it, and how, in `concerns`.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli import controls
from pipeline.cli.concerns import Concern, concerns_of
from pipeline.cli.counting import DEAD, WEBHOOK_DLQ, Depth, StateCount, incidents_by_state
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.telling import clock_time, read_event, short, short_time, told
from pipeline.cli.terminal import DONE, REFUSED, Column, Screen, cell, key_values, state_cell
from pipeline.cli.vitals import SERVICES, Ages, Unread, Verified, Vitals, vitals
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.controls import Controls
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.runtime.clock import SystemClock
from pipeline.services.health import RUNS
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing

NEWEST: Final = 5
# Between two tries of a message lie a quarter of an hour at most.
LATE_S: Final = 900.0
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Held:
    """What holds incidents back; `unread` says why that can't be told."""

    controls: Controls | None = None
    unread: str = ""


def status(
    context: typer.Context,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 where something needs somebody.")] = False,
) -> None:
    """Show whether all is well, the queues, the incidents by state, and what happened last.

    Example: opx status --stack OpxControlPlaneStack --profile production
    """

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "dynamodb", *SERVICES) as session:
            seen, states, newest, held = await asyncio.gather(
                vitals(session, SystemClock().now()),
                incidents_by_state(session),
                list_incidents(session.store, Listing(limit=NEWEST)),
                _held(session),
            )
            last = [document for incident in newest for document in await _last_event(session, incident)]
            concerns = concerns_of(session, seen, invocation.opx)
            if invocation.screen.as_json:
                invocation.screen.record(_record(session, seen, states, held, concerns))
            else:
                _show(invocation, session, seen, states, held)
                _show_last(invocation.screen, last)
                _advise(invocation, concerns, held, bool(newest))
        return REFUSED if check and concerns else DONE

    run(context, work)


async def _last_event(session: Session, incident: Incident) -> list[Document]:
    # More may have happened since the row was read: the last of them is the last event.
    return [document async for document in session.store.history(incident.incident_id, incident.version - 1)][-1:]


async def _held(session: Session) -> Held:
    # Whoever may not read the controls, or finds them unreadable, still sees the rest.
    if "ControlsParameterName" not in session.target.outputs:
        return Held(Controls())
    try:
        return Held((await controls.parameter_of(session).read()).pinned.controls)
    except (Unavailable, Corrupt) as error:
        return Held(unread=str(error))


def _sent_to(session: Session) -> dict[str, str | None]:
    """Return the URLs that people and programs send to; None where the stack says none."""
    outputs = session.target.outputs
    return {"candidates": outputs.get("CandidatesQueueUrl"), "commands": outputs.get("CommandsQueueUrl")}


def _record(session: Session, seen: Vitals, states: list[StateCount], held: Held, concerns: list[Concern]) -> Document:
    outputs, ages = session.target.outputs, seen.ages
    return {
        "target": session.target.name,
        "endpoint": session.target.endpoint_url,
        "api": session.target.api_url,
        **{f"{name}QueueUrl": url for name, url in _sent_to(session).items()},
        "region": session.target.region,
        "version": outputs.get("Version"),
        "eventSchemaVersion": outputs.get("EventSchemaVersion"),
        "archiveAfterDays": outputs.get("ArchiveAfterDays"),
        "queues": {name: _queue_record(name, depth, ages) for name, depth in seen.queues.items()},
        "fanout": {
            "mapping": _or_why(seen.mapping),
            "behindS": _or_why(ages) if isinstance(ages, Unread) else ages.fanout_s,
        },
        "alarms": _or_why(seen.alarms)
        if isinstance(seen.alarms, Unread)
        else [{"name": alarm.name, "since": format_time(alarm.since)} for alarm in seen.alarms],
        "verified": _or_why(seen.verified) if isinstance(seen.verified, Unread) else _verified_record(seen.verified),
        "incidents": {item.state.value: item.count for item in states},
        "moreIncidents": [item.state.value for item in states if item.more],
        "controls": held.controls.to_document() if held.controls is not None else {"unread": held.unread},
        "concerns": [{"what": concern.what, "next": concern.then} for concern in concerns],
    }


def _or_why(value: str | Unread) -> str | Document:
    return {"unread": value.why} if isinstance(value, Unread) else value


def _queue_record(name: str, depth: Depth | Unread, ages: Ages | Unread) -> Document:
    if isinstance(depth, Unread):
        return {"unread": depth.why}
    oldest = _or_why(ages) if isinstance(ages, Unread) else ages.queues.get(name)
    return {"waiting": depth.waiting, "inFlight": depth.in_flight, "delayed": depth.delayed, "oldestS": oldest}


def _verified_record(verified: Verified) -> Document:
    if verified.at is None:
        return {"at": None}
    counts = {"incidents": verified.incidents, "events": verified.events, "divergences": verified.divergences}
    return {"at": format_time(verified.at), **counts}


def _show(invocation: Invocation, session: Session, seen: Vitals, states: list[StateCount], held: Held) -> None:
    screen, target, now = invocation.screen, session.target, SystemClock().now()
    where = target.endpoint_url or f"region {target.region}"
    version = f"version {target.outputs.get('Version', 'unknown')}, events v{target.outputs.get('EventSchemaVersion', '?')}"
    urls = {name: url for name, url in _sent_to(session).items() if url is not None}
    counted = [item for item in states if item.count]
    line = (
        Text("  ").join(Text.assemble(state_cell(item.state), f" {item}") for item in counted) if counted else Text("none")
    )
    pairs: list[tuple[str, object]] = [
        ("target", f"{target.name} ({where}), {version}"),
        ("api", target.api_url),
        *urls.items(),
        ("incidents", line),
        ("archived", _archived_line(target.outputs.get("ArchiveAfterDays"))),
        *(("held back", cell(one, "bold yellow")) for one in held_lines(held, now)),
        ("fan-out", _fanout_line(seen)),
        *(("raised", one) for one in _alarm_lines(seen, now)),
        ("verified", _verified_line(seen, now)),
    ]
    key_values(screen, pairs)
    columns = (
        Column("queue"),
        Column("waiting", right=True),
        Column("in flight", right=True),
        Column("delayed", right=True),
        *([] if isinstance(seen.ages, Unread) else [Column("oldest", right=True)]),
    )
    screen.table(columns, [_queue_row(name, depth, seen.ages) for name, depth in seen.queues.items()])


def _fanout_line(seen: Vitals) -> Text:
    state = cell(f"can't be read: {seen.mapping.why}", "bold red") if isinstance(seen.mapping, Unread) else None
    if state is None:
        state = cell(str(seen.mapping), "green" if seen.mapping in RUNS else "bold red")
    if isinstance(seen.ages, Unread):
        return Text.assemble(state, ("; how far behind: ", "dim"), cell(seen.ages.why, "dim"))
    behind = "not told lately" if seen.ages.fanout_s is None else lasted(seen.ages.fanout_s)
    return Text.assemble(state, ("; behind: ", "dim"), cell(behind))


def _alarm_lines(seen: Vitals, now: datetime) -> list[Text]:
    if isinstance(seen.alarms, Unread):
        return [cell(seen.alarms.why, "dim")]
    found = [cell(f"{alarm.name} since {_moment(alarm.since, now)}", "bold red") for alarm in seen.alarms]
    return found or [cell("no alarm", "green")]


def _verified_line(seen: Vitals, now: datetime) -> Text:
    found = seen.verified
    if isinstance(found, Unread):
        return cell(f"can't be told: {found.why}", "bold red")
    if found.at is None:
        return cell("never", "dim")
    what = f"{_moment(found.at, now)}: {found.incidents} incidents, {found.events} events, "
    style = "bold red" if found.divergences else "green"
    return Text.assemble(cell(what), cell(f"{found.divergences} divergences", style))


def _archived_line(days: str | None) -> Text:
    if days is None or float(days) == 0:
        return cell("never", "dim")
    return cell(f"what is closed and has been quiet for {days} days", "dim")


def _moment(moment: datetime, now: datetime) -> str:
    return f"{(short_time if abs(now - moment) < 180 * DAY else clock_time)(moment)} UTC"


def lasted(seconds: float) -> str:
    """Return a duration in its largest unit or two, such as 40 s, 12 min, 3 h 20 min, 2 d 4 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 1:
        return f"{int(seconds)} s"
    if hours < 1:
        return f"{minutes} min"
    return f"{hours} h {minutes % 60} min" if days < 1 else f"{days} d {hours % 24} h"


def held_lines(held: Held, now: datetime) -> list[str]:
    """Return a line for each thing that holds incidents back now, or why that can't be told."""
    if held.controls is None:
        return [f"can't be read, so this can't say what is paused: {held.unread}"]
    return controls.held(held.controls, now)


def _queue_row(name: str, depth: Depth | Unread, ages: Ages | Unread) -> tuple[Text, ...]:
    if isinstance(depth, Unread):
        unread = cell("?", "bold red")
        return (cell(name, "bold red"), unread, unread, unread, *([] if isinstance(ages, Unread) else [Text()]))
    wrong = "bold red" if depth.total and name in (*DEAD, WEBHOOK_DLQ, "fanout-failures") else ""
    style = wrong or ("yellow" if depth.total and name == "rejected" else "" if depth.total else "dim")
    row = (cell(name, style), *(cell(number, style) for number in (depth.waiting, depth.in_flight, depth.delayed)))
    if isinstance(ages, Unread):
        return row
    oldest = ages.queues.get(name)
    # CloudWatch is some minutes behind: of what is empty by now it still tells an age.
    known = oldest is not None and depth.total > 0
    return (*row, cell(lasted(oldest or 0), "yellow" if (oldest or 0) > LATE_S else style) if known else Text())


def _show_last(screen: Screen, documents: list[Document]) -> None:
    if not documents:
        return
    screen.say("last events of the newest incidents", "dim")
    for document in sorted(documents, key=lambda found: str(found.get("timestamp")), reverse=True):
        event = read_event(document)
        if event is None:
            continue
        line = Text.assemble(
            (event.timestamp.strftime("%m-%d %H:%M:%S  "), "dim"),
            cell(short(event.incident_id), "cyan"),
            "  ",
            cell(event.fact.metadata.service),
            (" · ", "dim"),
            cell(event.fact.event_type.value),
            (" · ", "dim"),
            cell(told(event)),
        )
        line.truncate(max(60, screen.out.width), overflow="ellipsis")
        screen.say(line)


def _advise(invocation: Invocation, concerns: list[Concern], held: Held, has_incidents: bool) -> None:
    opx, screen = invocation.opx, invocation.screen
    for concern in concerns:
        screen.say(Text.assemble(("needs somebody: ", "bold red"), cell(concern.what)))
        screen.next(concern.then)
    paused = [f"{opx} maintenance list"] if held_lines(held, SystemClock().now()) else []
    screen.next(*paused, f"{opx} list" if has_incidents else f"{opx} send FILE", f"{opx} tail")
