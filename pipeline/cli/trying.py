"""`opx policy try`: what a policy would have decided over recorded history, from a stack or from a file. Reads only.

The fold is next door, in `policy_trial`; what is shown is the same for the same history, whatever its order.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.messages import TICK, opened
from pipeline.cli.outbox import Line, Unsendable
from pipeline.cli.policy_trial import Course, PolicyTrial, Turn, replaced
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.telling import short, short_time
from pipeline.cli.terminal import DONE, REFUSED, Column, CommandError, Screen, cell, time_of
from pipeline.cli.versioned import Config, in_force, the_policy
from pipeline.domain.canonical import Document, format_time, parse_document
from pipeline.domain.errors import Rejected
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing

STACK: Final = "stack"
SHOWN_MAX: Final = 100
INCIDENTS_MAX: Final = 1000
_STYLES: Final = {Turn.HELD: "yellow", Turn.OPENS: "bold red", Turn.EARLIER: "red", Turn.LATER: "yellow"}


def try_policy(
    context: typer.Context,
    policy: Annotated[Path, typer.Argument(help="The policy's file; it need not be in force.")],
    against: Annotated[str, typer.Option(help="`stack`, or a file of events as opx open ID --events prints them, or -.")],
    instead_of: Annotated[
        str | None,
        typer.Option(metavar="POLICY", help="Whose decisions it would have made; else its own, or default's if it is new."),
    ] = None,
    service: Annotated[str | None, typer.Option(help="Only incidents of this service.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Only decisions from this time on.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Only decisions before this time.")] = None,
    config: Config = None,
) -> None:
    """Say what a policy would have decided over the recorded history: which incidents it would hold, or open.

    Example: opx policy try flap-damped.v1.json --against stack --service ledger
    """

    async def work(invocation: Invocation) -> int:
        again = f"{invocation.opx} policy try"
        pinned = the_policy(policy, invocation)
        trial = PolicyTrial(pinned, instead_of or replaced(pinned.policy.policy_id, in_force(config).policies))
        first = format_time(time_of(since, "--from", again)) if since else ""
        last = format_time(time_of(until, "--to", again)) if until else "9"
        with invocation.screen.progress("judging again") as meter:
            async with _history(invocation, against, service) as documents:
                async for document in documents:
                    if first <= str(document.get("timestamp", "")) < last and _is_of(document, service):
                        trial.see(document)
                    if trial.events % TICK == 0:
                        meter.say(f"judging again: {trial.events} events, {trial.decisions} decisions")
        if not trial.decisions:
            raise _nothing(trial, against, again)
        _show(invocation.screen, trial)
        changes = trial.changes
        steps = [f"{invocation.opx} policy explain {short(changes[0].incident_id)}"] if changes and against == STACK else []
        invocation.screen.next(*steps, f"{invocation.opx} policy check {policy}")
        return DONE

    run(context, work)


def _nothing(trial: PolicyTrial, against: str, again: str) -> CommandError:
    if trial.others:
        listed = ", ".join(f"{count} of {name}" for name, count in trial.others.most_common())
        message = f"There is no decision of policy {trial.instead_of} in there, but {listed}."
        return CommandError(message, f"the same command with --instead-of {trial.others.most_common(1)[0][0]}", REFUSED)
    if against == STACK or not trial.unread:
        message = f"There is no decision to judge in {trial.events} events."
        return CommandError(message, f"{again} --help", REFUSED)
    return CommandError(f"None of {trial.unread} decisions can be read.", "opx open ID --events --json > FILE", REFUSED)


def _is_of(document: Document, service: str | None) -> bool:
    metadata = document.get("metadata")
    return service is None or (isinstance(metadata, dict) and metadata.get("service") == service)


@asynccontextmanager
async def _history(invocation: Invocation, against: str, service: str | None) -> AsyncIterator[AsyncIterator[Document]]:
    if against != STACK:
        with opened(against, None, f"{invocation.opx} policy try") as lines:
            yield _documents(lines)
        return
    async with open_session(invocation.selection, "dynamodb") as session:
        if service is None:
            yield session.store.scan_events()
            return
        found = await list_incidents(session.store, Listing(service=service, limit=INCIDENTS_MAX))
        if len(found) == INCIDENTS_MAX:
            invocation.screen.notice(f"Only the newest {INCIDENTS_MAX} incidents of {service} (without --service: all).")

        async def histories() -> AsyncIterator[Document]:
            for incident in found:
                async for document in session.store.history(incident.incident_id):
                    yield document

        yield histories()


async def _documents(lines: Iterable[Line | Unsendable]) -> AsyncIterator[Document]:
    """Yield the events of a file: as stored, or as the bus delivers them. A line that is neither is refused by number."""
    for line in lines:
        yield event_in(line)


def event_in(line: Line | Unsendable) -> Document:
    """Return the event in a line; raise where there is none."""
    try:
        document = parse_document(line.body) if isinstance(line, Line) else {}
    except Rejected:
        document = {}
    detail = document.get("detail")
    found = detail if isinstance(detail, dict) and "eventType" in detail else document
    if "eventType" not in found or "incidentId" not in found:
        message = f"Line {line.number} is no event of an incident."
        raise CommandError(message, "opx open ID --events --json > FILE, and then that file", REFUSED)
    return found


def _show(screen: Screen, trial: PolicyTrial) -> None:
    policy, changes, counts = trial.pinned.policy, trial.changes, trial.counts
    same = len(trial.courses) - len(changes)
    if screen.as_json:
        for one in changes:
            screen.record(one.to_document())
        summary: Document = {"kind": "summary", "policyId": policy.policy_id, "version": policy.version}
        summary |= {"digest": trial.pinned.digest, "insteadOf": trial.instead_of, "decisions": trial.decisions}
        summary |= {"incidents": len(trial.courses), "unchanged": same, "changes": dict(counts)}
        screen.record(summary | {"notKnown": trial.unknown()})
        return
    title = f"{policy.policy_id} v{policy.version} instead of {trial.instead_of}"
    screen.say(Text.assemble((title, "bold cyan"), cell(f": {trial.decisions} recorded decisions judged again")))
    screen.say()
    if changes:
        columns = (
            Column("incident"),
            Column("service", floor=8, cap=16),
            Column("was"),
            Column("would be", floor=14, wrap=True),
            Column("because", wrap=True, floor=20),
        )
        screen.table(columns, [_row(one) for one in changes[:SHOWN_MAX]])
        if len(changes) > SHOWN_MAX:
            screen.notice(f"{len(changes) - SHOWN_MAX} more changes are not shown here (--json shows all).")
    told = ", ".join(f"{counts[turn]} {turn}" for turn in Turn if counts[turn])
    many = "1 incident" if len(trial.courses) == 1 else f"{len(trial.courses)} incidents"
    screen.say(Text.assemble((f"Of {many}: ", "bold"), (told or "nothing changes", "bold"), cell(f"; {same} as before.")))
    for line in trial.unknown():
        screen.say(Text.assemble(("Not known: ", "yellow"), cell(line)))


def _row(one: Course) -> tuple[Text, ...]:
    turn = one.turn or Turn.REASON
    was = one.opened or one.other
    would = one.would_open or one.other
    then = f"opened {short_time(was.at)}" if was is not None else f"waits: {one.last.condition}" if one.last else "waits"
    if turn is Turn.HELD:
        now = "held"
    elif turn is Turn.REASON:
        now = f"waits: {one.would_last.condition}" if one.would_last else "waits"
    else:
        now = f"opens {short_time(would.at)}" if would is not None else "opens"
    return (
        cell(short(one.incident_id), "cyan"),
        cell(one.service),
        cell(then),
        cell(now, _STYLES.get(turn, "")),
        cell(one.why),
    )
