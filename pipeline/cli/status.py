"""`opx status`: is it there, does anything wait, has anything been refused or lost, what happened last. Reads only."""

import asyncio
from dataclasses import dataclass
from typing import Final

import typer
from rich.text import Text

from pipeline.cli import controls
from pipeline.cli.counting import DEAD, Depth, StateCount, depths, incidents_by_state
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.telling import read_event, short, told
from pipeline.cli.terminal import DONE, Column, Screen, cell, key_values, state_cell
from pipeline.domain.canonical import Document
from pipeline.domain.controls import Controls
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.incidents import Incident
from pipeline.runtime.clock import SystemClock
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing

NEWEST: Final = 5


@dataclass(frozen=True, slots=True)
class Held:
    """What holds incidents back; `unread` says why that can't be told."""

    controls: Controls | None = None
    unread: str = ""


def status(context: typer.Context) -> None:
    """Show the stack, its queues, its incidents by state, and what happened last.

    Example: opx status --stack OpxControlPlaneStack --profile production
    """

    async def work(invocation: Invocation) -> int:
        async with open_session(invocation.selection, "sqs", "dynamodb", "ssm") as session:
            queues, states, newest, held = await asyncio.gather(
                depths(session),
                incidents_by_state(session),
                list_incidents(session.store, Listing(limit=NEWEST)),
                _held(session),
            )
            last = [document for incident in newest for document in await _last_event(session, incident)]
            if invocation.screen.as_json:
                invocation.screen.record(_record(session, queues, states, held))
            else:
                _show(invocation, session, queues, states, held)
                _show_last(invocation.screen, last)
                _advise(invocation, queues, held, bool(newest))
        return DONE

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


def _record(session: Session, queues: dict[str, Depth], states: list[StateCount], held: Held) -> Document:
    return {
        "target": session.target.name,
        "endpoint": session.target.endpoint_url,
        "api": session.target.api_url,
        **{f"{name}QueueUrl": url for name, url in _sent_to(session).items()},
        "region": session.target.region,
        "version": session.target.outputs.get("Version"),
        "queues": {
            name: {"waiting": depth.waiting, "inFlight": depth.in_flight, "delayed": depth.delayed}
            for name, depth in queues.items()
        },
        "incidents": {item.state.value: item.count for item in states},
        "moreIncidents": [item.state.value for item in states if item.more],
        "controls": held.controls.to_document() if held.controls is not None else {"unread": held.unread},
    }


def _show(invocation: Invocation, session: Session, queues: dict[str, Depth], states: list[StateCount], held: Held) -> None:
    screen, target = invocation.screen, session.target
    where = target.endpoint_url or f"region {target.region}"
    key_values(screen, [("target", f"{target.name} ({where}), version {target.outputs.get('Version', 'unknown')}")])
    urls = {name: url for name, url in _sent_to(session).items() if url is not None}
    key_values(screen, {"api": target.api_url, **urls}.items())
    counted = [item for item in states if item.count]
    line = (
        Text("  ").join(Text.assemble(state_cell(item.state), f" {item}") for item in counted) if counted else Text("none")
    )
    key_values(screen, [("incidents", line)])
    _show_held(screen, held)
    columns = (
        Column("queue"),
        Column("waiting", right=True),
        Column("in flight", right=True),
        Column("delayed", right=True),
    )
    screen.table(columns, [_queue_row(name, depth) for name, depth in queues.items()])


def _show_held(screen: Screen, held: Held) -> None:
    if held.controls is None:
        lines = [f"can't be read, so this can't say what is paused: {held.unread}"]
    else:
        lines = controls.held(held.controls, SystemClock().now())
    key_values(screen, [("held back", cell(line, "bold yellow")) for line in lines])


def _queue_row(name: str, depth: Depth) -> tuple[Text, ...]:
    wrong = "bold red" if depth.total and (name in DEAD or name == "fanout-failures") else ""
    style = wrong or ("yellow" if depth.total and name == "rejected" else "" if depth.total else "dim")
    return (cell(name, style), *(cell(number, style) for number in (depth.waiting, depth.in_flight, depth.delayed)))


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


def _advise(invocation: Invocation, queues: dict[str, Depth], held: Held, has_incidents: bool) -> None:
    opx = invocation.opx
    dead = [name for name in (*DEAD, "fanout-failures") if queues[name].total]
    if dead:
        invocation.screen.say(f"Somebody has to look at: {', '.join(dead)}.", "bold red")
    refused = [f"{opx} queue list"] if dead else [f"{opx} queue show rejected"] if queues["rejected"].total else []
    holding = held.controls is None or controls.held(held.controls, SystemClock().now())
    paused = [f"{opx} maintenance list"] if holding else []
    invocation.screen.next(*refused, *paused, f"{opx} list" if has_incidents else f"{opx} send FILE", f"{opx} tail")
