"""One write on every incident that matches: listed first, done only when told so, and told of each what became of it.

Each has an idempotency key of its own, made of one for the whole: the same command under the same key can be run again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from pipeline.cli.acting import FIRST_KEY_ROOM, HalfDone, Terms, between, document_of, known_state
from pipeline.cli.calling import after_refusal
from pipeline.cli.finding import ID_CHARACTERS, PAGE
from pipeline.cli.listing import nothing_found
from pipeline.cli.session import Invocation
from pipeline.cli.tables import incidents_table
from pipeline.cli.telling import read_incident, refusal_line, short
from pipeline.cli.terminal import DONE, FAILED, REFUSED, Column, CommandError, Meter, cell, state_cell
from pipeline.clients.answers import ApiRefused, ApiUnavailable, Incident, Outcome, Problem
from pipeline.clients.calls import Filters
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.canonical import Document
from pipeline.domain.transitions import HOLDS_KEY, State

AT_ONCE: Final = 8
KEY_ROOM: Final = 1 + ID_CHARACTERS + FIRST_KEY_ROOM

# Does it to one incident under a key; the outcomes of its steps.
Act = Callable[[str, str], Awaitable[list[Outcome]]]
# Says of a state whether what is in it can be acted on.
Can = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one incident. `outcome`: an answer of the API, or refused, half-done, failed, not-tried.

    `done`: the first of two steps, where the second was refused.
    """

    incident: Incident
    key: str
    outcome: str
    now: str = ""
    code: str = ""
    detail: str = ""
    next: str = ""
    done: Outcome | None = None

    def to_document(self) -> Document:
        facts = {"state": self.now, "code": self.code, "detail": self.detail, "next": self.next}
        told = {"incidentId": self.incident.incident_id, "outcome": self.outcome, "idempotencyKey": self.key}
        done = {} if self.done is None else {"done": [document_of(self.done)]}
        return told | {name: value for name, value in facts.items() if value} | done


async def matching(invocation: Invocation, operator: AsyncOperator, filters: Filters) -> list[Incident]:
    """Return everything that matches, the newest first."""
    found = []
    with invocation.screen.progress("listing what matches") as meter:
        async for incident in operator.incidents(page=PAGE, **filters):
            found.append(incident)
            meter.say(f"listing what matches: {len(found)}")
    return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What matches, by what can become of it: `hopeless` would be refused; `left` is not even tried."""

    doable: list[Incident]
    hopeless: list[Incident]
    left: list[Incident]

    def left_told(self, command: str) -> list[str]:
        """Return what is left out, and why."""
        over = [one.state for one in self.left if known_state(one.state) not in HOLDS_KEY]
        others = [one.state for one in self.left if known_state(one.state) in HOLDS_KEY]
        more = " more" if self.doable or self.hopeless else ""
        told = []
        for states, can_not in ((over, "over"), (others, f"acted on by {command}")):
            match, are = ("matches", "is") if len(states) == 1 else ("match", "are")
            verb = are if states is over else "can't be"
            if states:
                told.append(f"{len(states)}{more} {match}, but {verb} {can_not} ({', '.join(sorted(set(states)))}).")
        return told


async def plan_of(operator: AsyncOperator, found: list[Incident], can: Can, may: Can, terms: Terms, *, stated: bool) -> Plan:
    """Part what matches: by what `can` be acted on in a state, and `may` be by whoever asks.

    Unless a state was named (`stated`), what can't be acted on is left out. What a run under the same key has acted on
    belongs to its repetition, whatever its state is now.
    """
    doable = [one for one in found if can(one.state) and may(one.state)]
    forbidden = [one for one in found if can(one.state) and not may(one.state)]
    others = [one for one in found if not can(one.state)]
    if stated:
        return Plan(doable, [*forbidden, *others], [])
    if not terms.named or terms.dry_run or not terms.yes:
        return Plan(doable, forbidden, others)
    gate = asyncio.Semaphore(AT_ONCE)

    async def is_known(incident: Incident) -> bool:
        async with gate:
            return await operator.receipt(own_key(terms, incident)) is not None

    known = await asyncio.gather(*map(is_known, others))
    begun = {one.incident_id for one, answered in zip(others, known, strict=True) if answered}
    mine = {one.incident_id for one in doable} | begun
    again = [one for one in found if one.incident_id in mine]
    return Plan(again, forbidden, [one for one in others if one.incident_id not in begun])


def own_key(terms: Terms, incident: Incident) -> str:
    """Return the key that an incident of many is acted on under."""
    return f"{terms.key or ''}.{incident.incident_id}"


def tell_matching(invocation: Invocation, plan: Plan, filters: Filters, command: str, leads_to: State | None) -> int:
    """Show what would be acted on, and do nothing. `leads_to`: where two steps may lead, too."""
    screen, found = invocation.screen, [*plan.doable, *plan.hopeless]
    if screen.as_json:
        for place, incident in enumerate(found):
            doable = place < len(plan.doable)
            then = "the same command with --yes" if doable else f"{invocation.opx} open {short(incident.incident_id)}"
            told = {"incidentId": incident.incident_id, "outcome": "matches" if doable else "would-be-refused"}
            screen.record(told | {"state": incident.state, "next": then})
        tell_left(invocation, plan, command)
        return DONE
    if not found:
        screen.say(
            f"Nothing to do: none that matches can be acted on by {command}." if plan.left else nothing_found(filters)
        )
        tell_left(invocation, plan, command)
        screen.next(f"{invocation.opx} list")
        return DONE
    incidents_table(screen, tuple(map(read_incident, found)))
    screen.say(Text.assemble((f"{counted(len(plan.doable))} would be acted on. ", "bold"), "Nothing was changed."))
    for state, number in Counter(one.state for one in plan.doable).items():
        halfway = between(state, leads_to)
        if halfway is not None:
            screen.say(f"{counted(number)} in two steps: {state} → {halfway} → {leads_to}.")
    for state, number in Counter(one.state for one in plan.hopeless).items():
        screen.say(f"{counted(number)} {'is' if number == 1 else 'are'} {state} and would be refused.", "yellow")
    tell_left(invocation, plan, command)
    again = (f"the same command with --yes, to {command} each", "the same command with --dry-run, to see each outcome")
    screen.next(*(again if plan.doable else [f"{invocation.opx} list"]))
    return DONE


def tell_left(invocation: Invocation, plan: Plan, command: str) -> None:
    """Say what matches and is left out: to people beside the result, to programs as a notice."""
    for line in plan.left_told(command):
        if invocation.screen.as_json:
            invocation.screen.notice(line)
        else:
            invocation.screen.say(line, "dim")


async def act_on(invocation: Invocation, found: list[Incident], act: Act, terms: Terms) -> int:
    """Do it to each, some at once; say what became of each. Once the API gave no answer, nothing further is begun."""
    results: list[Result] = []
    key, dry_run = terms.key or "", terms.dry_run
    gate, silent = asyncio.Semaphore(AT_ONCE), asyncio.Event()

    async def one(incident: Incident, meter: Meter) -> None:
        own = own_key(terms, incident)
        async with gate:
            skipped = silent.is_set()
            result = Result(incident, own, "not-tried") if skipped else await _tried(invocation, incident, act, own)
        if result.outcome == "failed":
            silent.set()
        results.append(result)
        if invocation.screen.as_json:
            invocation.screen.record(result.to_document() | ({"dryRun": True} if dry_run else {}))
        meter.at(len(results))

    if not dry_run:
        invocation.screen.notice(f"If this is interrupted, run it again with --key {key}: nothing is done twice.")
    with invocation.screen.progress("acting", len(found)) as meter:
        tasks = [asyncio.create_task(one(incident, meter)) for incident in found]
        try:
            await asyncio.gather(*tasks)
        except asyncio.CancelledError:
            _tell(invocation, results, len(found), key, dry_run=dry_run)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    places = {incident.incident_id: place for place, incident in enumerate(found)}
    results.sort(key=lambda result: (result.outcome == "refused", places[result.incident.incident_id]))
    return _tell(invocation, results, len(found), key, dry_run=dry_run)


async def _tried(invocation: Invocation, incident: Incident, act: Act, key: str) -> Result:
    opx = invocation.opx
    try:
        outcomes = await act(incident.incident_id, key)
    except HalfDone as error:
        problem, first = error.problem, error.first
        then = after_refusal(problem, opx)
        now = first.state or incident.state
        return Result(incident, key, "half-done", now, problem.code, error.told(_detail(problem)), then, first)
    except ApiRefused as error:
        problem, detail = error.problem, _detail(error.problem)
        return Result(incident, key, "refused", incident.state, problem.code, detail, after_refusal(problem, opx))
    except ApiUnavailable as error:
        return Result(incident, key, "failed", "", "unavailable", error.why, f"{opx} receipt {key}")
    then = f"{opx} open {short(incident.incident_id)}"
    last = outcomes[-1]
    way = " → ".join([incident.state, *(outcome.state or "?" for outcome in outcomes)])
    more = f"in two steps: {way}" if last.dry_run and len(outcomes) > 1 else ""
    return Result(incident, key, last.answer, last.state or incident.state, detail=more, next=then)


def _detail(problem: Problem) -> str:
    return refusal_line("", (f"{problem.field}: " if problem.field else "") + problem.detail).removeprefix(": ")


def _tell(invocation: Invocation, results: list[Result], total: int, key: str, *, dry_run: bool) -> int:
    """Say what became of each, and return the exit code: 2 where any failed, else 1 where any step was refused."""
    names = ("half-done", "refused", "failed", "not-tried")
    counts = {name: sum(result.outcome == name for result in results) for name in names}
    no = counts["refused"] + counts["half-done"]
    done = len(results) - sum(counts.values())
    code = FAILED if counts["failed"] else REFUSED if no else DONE
    if invocation.screen.as_json:
        return code
    screen = invocation.screen
    columns = (
        Column("id"),
        Column("service", floor=8, cap=24),
        Column("outcome"),
        Column("state"),
        Column("why", wrap=True),
    )
    screen.table(columns, [_row(result, dry_run=dry_run) for result in results])
    told = [f"{done} {'would be' if dry_run else ''} done".replace("  ", " ")]
    told += [f"{number} {name.replace('-', ' ')}" for name, number in counts.items() if number]
    left = total - len(results)
    told += [f"{left} not begun"] if left else []
    screen.say(
        Text.assemble((f"{counted(total)}: ", "bold"), cell(", ".join(told)), "." + (" A dry run." if dry_run else ""))
    )
    unfinished = left or counts["failed"] or counts["not-tried"]
    first = next(
        (result for result in results if result.next and (result.outcome in ("refused", "half-done")) == bool(no)), None
    )
    again = [f"the same command with --key {key}"] if unfinished and not dry_run else []
    again += ["the same command with --yes instead of --dry-run"] if dry_run and done else []
    screen.next(*again, *([first.next] if first is not None else []))
    return code


def _row(result: Result, *, dry_run: bool) -> tuple[Text, ...]:
    wrong = {"refused": "bold red", "failed": "bold red", "half-done": "yellow", "not-tried": "yellow"}.get(result.outcome)
    outcome = result.outcome if wrong or not dry_run else f"would be {result.outcome}"
    why = f"{result.code}: {result.detail}" if result.code else result.detail
    return (
        cell(short(result.incident.incident_id), "cyan"),
        cell(result.incident.service),
        cell(outcome, wrong or "green"),
        state_cell(result.now),
        cell(why),
    )


def counted(number: int) -> str:
    return "1 incident" if number == 1 else f"{number} incidents"


def check(invocation: Invocation, command: str, *, every: bool, filters: Filters, expect: int | None) -> None:
    """Raise where what was asked for can't be meant for many."""
    again = f"{invocation.opx} {command} --help"
    if every and not filters:
        message = "--all-matching needs a filter: --state, --service, --severity, --from or --to."
        raise CommandError(message, again, REFUSED)
    if every and expect is not None:
        raise CommandError("--expect names the version of one incident; there are many here.", again, REFUSED)
    if filters and not every:
        raise CommandError("Filters choose many incidents.", "the same command with --all-matching", REFUSED)
