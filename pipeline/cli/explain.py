"""`opx policy explain`: why an incident is open or waits, or why there is none. For whoever is awake at 3 AM. Reads only.

Each recorded decision is judged again from its event; where that gives anything else than what was recorded, it is said
first. The words are in `verdicts`, what is looked for where no incident is named in `subjects`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.controls import parameter_of
from pipeline.cli.finding import SEARCHED_MAX, find_incident, is_full_id
from pipeline.cli.messages import Mappings, Unread, opened, signals
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.subjects import (
    WINDOWS_MAX,
    Counted,
    Names,
    Subject,
    Told,
    counted_of,
    counting,
    named_by,
    told_by,
    window_documents,
)
from pipeline.cli.telling import matches, read_event, short
from pipeline.cli.terminal import DONE, REFUSED, CommandError, Screen, cell, key_values, time_of
from pipeline.cli.traces import Row, answers_table, decisions_table, state_line, trace_table
from pipeline.cli.verdicts import (
    check_document,
    controls_now,
    deciding,
    decision_document,
    doubt,
    headline,
    person_may,
    reported,
    would_open,
)
from pipeline.cli.versioned import Config, InForce, in_force
from pipeline.domain.canonical import Document
from pipeline.domain.controls import Controls
from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.domain.explanation import Recorded, recorded
from pipeline.domain.incidents import Incident
from pipeline.domain.transitions import HOLDS_KEY, UNPROMOTED
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock
from pipeline.services.listing import list_incidents
from pipeline.services.ports import Listing

SERVICE_MAX: Final = 20
SUBJECTS_MAX: Final = 50
DAYS: Final = 7
_LIKE_AN_ID: Final = re.compile(r"[0-9a-f]{4}[0-9a-f-]{0,32}")


@dataclass(frozen=True, slots=True)
class Desk:
    """What an explanation is made with: the store, the files in force, and what the live controls say now."""

    invocation: Invocation
    session: Session
    known: InForce
    controls: Controls
    now: datetime

    @property
    def screen(self) -> Screen:
        return self.invocation.screen

    async def decisions(self, incident: Incident) -> list[Recorded]:
        documents = [document async for document in self.session.store.history(incident.incident_id)]
        events = [event for event in map(read_event, documents) if event is not None]
        return list(recorded(events, self.known.policies))


def explain(
    context: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="INCIDENT | SERVICE | ALARM", help="An id or the beginning of it, or a name.")
    ] = None,
    message: Annotated[
        str | None, typer.Option(metavar="FILE|JSON", help="What a detector sent: say what became of each trouble in it.")
    ] = None,
    service: Annotated[str | None, typer.Option(help="The service, where the name is an alarm's or a source's.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME=VALUE", help="A field that a rule groups by; repeatable.")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="TIME", help=f"Else {DAYS} days ago.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Else now.")] = None,
    moved: Annotated[
        int, typer.Option("--moved-by", metavar="DAYS", help="By how many days opx send moved the recording.")
    ] = 0,
    every: Annotated[bool, typer.Option("--all", help="Every decision of the incident, the earlier ones too.")] = False,
    config: Config = None,
) -> None:
    """Say why an incident is open or waits, or why there is none: which rule, which policy, which input decided.

    Of a service: its incidents, and what rules count below their threshold. With --message: what became of each trouble
    that a file of messages (or one message) reports; a name beside it picks those about it.

    Example: opx policy explain 3f9a2c1b, or: opx policy explain ledger --message alarms.jsonl
    """

    async def work(invocation: Invocation) -> int:
        again = f"{invocation.opx} policy explain"
        if what is None and message is None and service is None:
            raise CommandError("Name an incident or a service, or give --message.", f"{invocation.opx} list", REFUSED)
        now = SystemClock().now()
        last = time_of(until, "--to", again) if until else now
        first = time_of(since, "--from", again) if since else last - timedelta(days=DAYS)
        if first > last:
            raise CommandError("--from is later than --to.", f"{again} --help", REFUSED)
        names = Names(what or service or "", service, _group(group, again), first, last)
        known = in_force(config)
        async with open_session(invocation.selection, "dynamodb", "ssm") as session:
            desk = Desk(invocation, session, known, await _controls(session, invocation.screen), now)
            if message is not None:
                return await _messages(desk, message, what or service, moved, config)
            incident = await _incident(desk, what) if what is not None and service is None and not group else None
            if incident is not None:
                return await _one(desk, incident, every=every)
            return await _named(desk, names, config)

    run(context, work)


def _group(values: list[str] | None, again: str) -> dict[str, str]:
    found = {}
    for text in values or ():
        name, separator, value = text.partition("=")
        if not separator or not value:
            raise CommandError(f"--group {text} is not NAME=VALUE, such as source=probe-7.", f"{again} --help", REFUSED)
        found[name] = value
    return found


async def _controls(session: Session, screen: Screen) -> Controls:
    # Whoever may not read them still sees what was decided.
    try:
        return (await parameter_of(session).read()).pinned.controls
    except (Unavailable, Corrupt) as error:
        screen.notice(f"Whether anything is paused now can't be read: {error}")
        return Controls()


async def _incident(desk: Desk, text: str) -> Incident | None:
    """Return the incident that an id, or the beginning of one, names; None where it reads like another name."""
    wanted = text.strip().lower()
    if is_full_id(wanted):
        return await find_incident(desk.session.store, wanted, desk.invocation.opx)
    if not _LIKE_AN_ID.fullmatch(wanted):
        return None
    found = matches(await list_incidents(desk.session.store, Listing(limit=SEARCHED_MAX)), wanted)
    return await find_incident(desk.session.store, wanted, desk.invocation.opx) if found else None


# --- one incident ----------------------------------------------------------------------------------------------------


async def _one(desk: Desk, incident: Incident, *, every: bool) -> int:
    screen, decisions = desk.screen, await desk.decisions(incident)
    one = deciding(incident, decisions)
    shown = decisions if every else [one] if one is not None else []
    if screen.as_json:
        document = _document(desk, incident, decisions)
        screen.record(document | {"decisions": [decision_document(decision) for decision in shown]})
        return DONE
    told = state_line(headline(incident, decisions), incident)
    screen.say(Text.assemble(cell(short(incident.incident_id), "bold cyan"), "  ", told))
    screen.say(cell(f"{incident.service}: {incident.title}", "dim"))
    for line in controls_now(incident.service, desk.controls, desk.now, one if incident.state in UNPROMOTED else None):
        screen.say(cell(line, "bold yellow"))
    for decision in shown:
        if (told_of := doubt(decision)) is not None:
            screen.say(cell(told_of, "bold red"))
    if one is not None:
        screen.say()
        opens = would_open(incident, one)
        key_values(screen, reported(one) + ([("would open", opens)] if opens else []))
        trace_table(screen, one)
    if every:
        decisions_table(screen, decisions)
    elif len(decisions) > 1:
        screen.say(f"{len(decisions) - 1} earlier decision{'s' if len(decisions) > 2 else ''}: --all shows them.", "dim")
    _next(desk, incident, one, unknown=any(found.pinned is None for found in decisions))
    return DONE


def _next(desk: Desk, incident: Incident, one: Recorded | None, *, unknown: bool) -> None:
    opx, identity = desk.invocation.opx, short(incident.incident_id)
    steps = [f"{opx} open {identity}"]
    if incident.state in UNPROMOTED and one is not None and person_may(one):
        steps.insert(0, f"{opx} promote {identity} --reason TEXT")
    if unknown:
        steps.insert(0, f"{opx} policy explain {identity} --config DIR, the folder that this stack was built with")
    desk.screen.next(*steps)


def _document(desk: Desk, incident: Incident, decisions: Sequence[Recorded]) -> Document:
    one = deciding(incident, decisions)
    document: Document = {"kind": "incident", "incidentId": incident.incident_id, "state": incident.state.value}
    document |= {"service": incident.service, "title": incident.title, "dedupKey": incident.metadata.dedup_key}
    document |= {"answer": headline(incident, decisions)}
    document |= {"now": controls_now(incident.service, desk.controls, desk.now, None)}
    if one is not None:
        document |= {"policyId": one.decision.policy_id, "policyVersion": one.decision.policy_version}
        document |= {"deciding": check_document(one.deciding)} if one.deciding is not None else {}
        document |= {"wouldOpen": opens} if (opens := would_open(incident, one)) else {}
    problems = [found.problem for found in decisions if found.problem is not None]
    return document | {"agrees": not problems} | ({"problems": problems} if problems else {})


# --- by name, or by message ------------------------------------------------------------------------------------------


async def _named(desk: Desk, names: Names, config: Path | None) -> int:
    """Tell of a service's incidents, or of those a name is in, and of what rules count of it."""
    store, wanted = desk.session.store, names.service or names.what
    found = list(await list_incidents(store, Listing(service=wanted, limit=SERVICE_MAX + 1)))
    if not found or names.what != wanted:
        text = names.what.casefold()
        every = await list_incidents(store, Listing(service=names.service, limit=SEARCHED_MAX))
        found = [one for one in every if text in one.title.casefold() or text in one.metadata.dedup_key.casefold()]
    told, missing = named_by(names, desk.known.rules, shipped.alarm_mappings(config))
    keys = {(one.service, one.metadata.dedup_key) for one in found}
    rows = [await _row_of_incident(desk, incident) for incident in found[:SERVICE_MAX]]
    if len(found) > SERVICE_MAX:
        desk.screen.notice(f"Only the newest {SERVICE_MAX} are told: {desk.invocation.opx} list --service {wanted}")
    others = [subject for key, subject in told.subjects.items() if key not in keys]
    more, _ = await _subjects(desk, others)
    for line in controls_now(wanted, desk.controls, desk.now, None):
        desk.screen.say(cell(line, "bold yellow"))
    if not rows and not more:
        desk.screen.say(cell(f"There is no incident of {names.what}, and none that names it."))
    answers_table(desk.screen, [*rows, *more])
    for line in missing:
        desk.screen.notice(f"{line} Or give --message FILE.")
    first = [f"{desk.invocation.opx} policy explain {short(one.incident_id)}" for one in found[:1]]
    opx = desk.invocation.opx
    desk.screen.next(*(first or [f"{opx} policy explain {names.what} --message FILE", f"{opx} queue show rejected"]))
    return DONE if rows or more else REFUSED


async def _messages(desk: Desk, message: str, wanted: str | None, days: int, config: Path | None) -> int:
    """Tell what became of each trouble that messages report."""
    again = f"{desk.invocation.opx} policy explain"
    file, body = (None, message) if message.lstrip().startswith("{") else (message, None)
    mappings = Mappings(shipped.alarm_mappings(config), shipped.alert_mapping(config))
    with opened(file, body, again) as lines:
        told = told_by(signals(lines, mappings, None, days, desk.now), desk.known.rules)
    subjects = [one for one in told.subjects.values() if wanted is None or one.is_about(wanted)]
    if told.subjects and not subjects:
        raise CommandError(f"Nothing in there is about {wanted}.", "the same command without it", REFUSED)
    if not told.subjects and not told.unmatched and not told.unread:
        raise CommandError("There is no message in there.", f"{again} --help", REFUSED)
    rows, incidents = await _subjects(desk, subjects)
    answers_table(desk.screen, rows)
    _tell_rest(desk.screen, told)
    opx = desk.invocation.opx
    steps = [f"{again} {short(incidents[0].incident_id)}"] if incidents else []
    desk.screen.next(*steps, *([f"{opx} lint FILE"] if told.unread or told.unmatched else []), f"{opx} queue show rejected")
    return DONE if subjects else REFUSED


def _tell_rest(screen: Screen, told: Told) -> None:
    if told.unmatched:
        screen.notice(f"{told.unmatched} detections that no rule in force matches: opx refuses them (rule-unknown).")
    if told.unread:
        screen.notice(
            f"{len(told.unread)} messages that opx would refuse; line {told.unread[0].number}: {_first(told.unread)}"
        )


def _first(unread: Sequence[Unread]) -> str:
    return unread[0].sentence()


async def _subjects(desk: Desk, subjects: Sequence[Subject]) -> tuple[list[Row], list[Incident]]:
    """Return a row for each key: its incident, or how far rules have counted. And the incidents there are."""
    rows: list[Row] = []
    found: list[Incident] = []
    shown = subjects[:SUBJECTS_MAX]
    budget = max(1, WINDOWS_MAX // max(1, len(shown)))
    answers = []
    if shown:
        with desk.screen.progress("looking up", len(shown)) as meter:
            for done, subject in enumerate(shown, 1):
                answers.append(await _whereabouts(desk, subject, budget))
                meter.at(done)
    # A name may stand for several keys: those of which there is nothing are told of only where there is nothing at all.
    known = [
        incident is not None or counted is None or bool(counted.windows or subject.messages)
        for subject, (incident, counted) in zip(shown, answers, strict=True)
    ]
    told = known if any(known) else [index == len(shown) - 1 for index in range(len(shown))]
    for subject, (incident, counted), tell in zip(shown, answers, told, strict=True):
        if incident is not None:
            found.append(incident)
            rows.append(await _row_of_incident(desk, incident, counted))
        elif tell:
            rows.append(_row_of_counting(desk.screen, subject, counted))
    left_out = sum(counted.left_out for _, counted in answers if counted is not None)
    if left_out:
        desk.screen.notice(f"{left_out} older windows were not read (at most {WINDOWS_MAX} at once): --from, --to, a name.")
    if len(subjects) > len(shown):
        desk.screen.notice(f"{len(subjects) - len(shown)} more are not told of: name one.")
    return rows, found


async def _whereabouts(desk: Desk, subject: Subject, budget: int) -> tuple[Incident | None, Counted | None]:
    store = desk.session.store
    pointer = await store.load_pointer(subject.service, subject.dedup_key)
    incident = await store.load(pointer.incident_id) if pointer is not None else None
    if incident is not None and incident.state in HOLDS_KEY:
        return incident, None
    try:
        return incident, await counted_of(store, subject, budget)
    except Unavailable as error:
        desk.screen.notice(f"What rules count can't be read: {error} (AuditorPolicyArn allows it)")
        return incident, None


async def _row_of_incident(desk: Desk, incident: Incident, counted: Counted | None = None) -> Row:
    decisions, ending = await desk.decisions(incident), incident.metadata.resolution
    later = [
        (span, window)
        for span, window in (counted.windows if counted is not None else ())
        if window.incident_id is None and (ending is None or window.newest_observed_at > ending.at)
    ]
    if desk.screen.as_json:
        document = _document(desk, incident, decisions)
        desk.screen.record(document | ({"windows": window_documents(later)} if later else {}))
    lines = [cell(f"{incident.service}: {incident.title}", "bold"), state_line(headline(incident, decisions), incident)]
    if later:
        since = Counted(len(later), None, None, tuple(later))
        lines.append(cell(f"since then: {counting(since).removeprefix('no incident: ')}"))
    lines += [cell(told, "bold red") for told in map(doubt, decisions) if told is not None]
    return cell(short(incident.incident_id), "bold cyan"), Text("\n").join(lines)


def _row_of_counting(screen: Screen, subject: Subject, counted: Counted | None) -> Row:
    line = "no incident" if counted is None else counting(counted)
    if screen.as_json:
        document: Document = {"kind": "no-incident", "service": subject.service, "dedupKey": subject.dedup_key}
        windows = window_documents(counted.windows) if counted is not None else []
        screen.record(document | {"answer": line, "windows": windows})
    named = ", ".join(sorted(subject.names)[:2]) or subject.dedup_key
    return cell("none", "dim"), Text("\n").join([cell(f"{subject.service}: {named}", "bold"), cell(line)])
