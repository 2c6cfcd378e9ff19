"""One write on one incident: under which key and authority, in how many steps, and what is said of its outcome.

Nothing is decided here: the API says what is allowed. Only resolving what is OPEN takes two steps, never without consent.
"""

import getpass
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final
from uuid import uuid4

from rich.text import Text

from pipeline.cli.calling import Api
from pipeline.cli.session import Invocation
from pipeline.cli.tables import timeline_table
from pipeline.cli.telling import short, who_may
from pipeline.cli.terminal import REFUSED, CommandError, cell, state_cell
from pipeline.clients.answers import ApiRefused, ApiUnavailable, Outcome, Problem
from pipeline.clients.calls import WriteOptions
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.canonical import Document, normalise
from pipeline.domain.errors import Code
from pipeline.domain.receipts import Answer
from pipeline.domain.transitions import TRANSITIONS, AuthorityType, State, transition

KEY_CHARACTERS_MAX: Final = 128
_KEY: Final = re.compile(r"[A-Za-z0-9._:-]+")

Write = Callable[[AsyncOperator, str, WriteOptions], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a person acts. `key` without being `named` was made for this one run."""

    authority: AuthorityType = AuthorityType.HUMAN
    actor: str | None = None
    key: str | None = None
    expect: int | None = None
    dry_run: bool = False
    yes: bool = False
    named: bool = False

    def keyed(self, what: str, room: int = 0) -> "Terms":
        """Return the terms under a key: the one named, if it leaves `room` for what is put behind it, or a new one."""
        if self.key is None:
            return replace(self, key=f"cli-{uuid4().hex}")
        length = KEY_CHARACTERS_MAX - room
        if len(self.key) > length or not _KEY.fullmatch(self.key):
            message = f"--key has 1 to {length} letters, digits, . _ : or - here."
            raise CommandError(message, f"opx {what} --help", REFUSED)
        return replace(self, named=True)

    def options(self, api: Api, key: str | None = None) -> WriteOptions:
        """Return what a write is sent with. At the local engine all are one account, so the person's name is said."""
        name = self.actor
        if name is None and api.is_local and self.authority is AuthorityType.HUMAN:
            name = getpass.getuser()
        claim = {"authorityType": self.authority.value} | ({"actorId": name} if name else {})
        found: WriteOptions = {"authority": claim, "idempotency_key": key or self.key or "", "dry_run": self.dry_run}
        return found if self.expect is None else {**found, "if_match": self.expect}


@dataclass(frozen=True, slots=True)
class Step:
    """A state to be led to, by a reason: what may take a step in between, where the table has one."""

    target: State
    reason: str | None

    def write(self, target: State | None = None) -> Write:
        async def send(operator: AsyncOperator, incident: str, options: WriteOptions) -> Outcome:
            return await operator.change_state(incident, target or self.target, reason=self.reason, **options)

        return send


def between(state: str | None, target: State | None) -> State | None:
    """Return the one state by which an incident in `state` gets to `target` in two steps, where that is the only way."""
    source, ways = known_state(state), {row.source for row in TRANSITIONS if row.target is target}
    if source is None or len(ways) != 1:
        return None
    halfway = ways.pop()
    return halfway if transition(source, halfway) is not None else None


def sources_of(target: State, *, in_two: bool) -> frozenset[State]:
    """Return the states that the table leads to `target` from; with `in_two` also those that get there in two steps."""
    direct = {row.source for row in TRANSITIONS if row.target is target}
    return frozenset(direct | {state for state in State if in_two and between(state, target) is not None})


def may_lead(state: str, target: State, authority: AuthorityType) -> bool:
    """True unless the table wants another authority for a step from `state` to `target`."""
    source, halfway = known_state(state), between(state, target)
    ways = [(source, target)] if halfway is None else [(source, halfway), (halfway, target)]
    rows = [transition(one, other) for one, other in ways if one is not None]
    return all(row is None or authority in row.authorities for row in rows)


def known_state(state: str | None) -> State | None:
    """Return a state of the table; None for one of a later version."""
    try:
        return State(state or "")
    except ValueError:
        return None


def first_key(key: str) -> str:
    """Return the key of the step in between: the same for each repetition, so that a retry makes no other request."""
    return f"{key}.first"


FIRST_KEY_ROOM: Final = len(first_key(""))

# Asks whether the two steps may be taken: from a state, by another.
Consent = Callable[[str, State], bool]


class HalfDone(ApiRefused):
    """The first of two steps is stored, the second was refused: somebody was faster, or the registry has changed."""

    def __init__(self, first: Outcome, problem: Problem) -> None:
        super().__init__(problem)
        self.first = first

    def told(self, refusal: str) -> str:
        event = "" if self.first.last_sequence is None else f"event {self.first.last_sequence}, "
        return f"now {self.first.state} ({event}stored); the second step was refused: {refusal}"


async def lead(api: Api, step: Step, incident: str, terms: Terms, consent: Consent) -> list[Outcome]:
    """Lead an incident to a state; in two steps where that is what it takes and `consent` says yes.

    Nothing is written where the second step could not be taken. Raises `HalfDone` where it is refused all the same.
    A repetition under the same key goes the same way: what was begun in two steps is finished in two. A dry run needs no
    consent; its second outcome is told by the table, as the API can't decide on what its first has not done.
    """
    halfway = await _begun(api, step, terms) or await _offered(api, step, incident, terms, consent)
    if halfway is None:
        return [await step.write()(api.operator, incident, terms.options(api))]
    key = terms.key or ""
    try:
        first = await step.write(halfway)(api.operator, incident, terms.options(api, first_key(key)))
        if terms.dry_run:
            return [first, _expected(first, step)]
        then = replace(terms, expect=first.control_version if terms.expect is not None else None)
        try:
            return [first, await step.write()(api.operator, incident, then.options(api))]
        except ApiRefused as error:
            raise HalfDone(first, error.problem) from error
    except ApiUnavailable as error:
        # Whichever step it was: what makes another try safe is the key of the whole.
        raise ApiUnavailable("two steps", error.why, error.attempts, key) from error


def _expected(first: Outcome, step: Step) -> Outcome:
    """Return what the second step would come to, once the first is stored."""
    told = {"dryRun": True, "answer": Answer.APPLIED.value, "operation": first.operation, "incidentId": first.incident_id}
    return Outcome.of(told | {"state": step.target.value, "follows": first.state})


async def _begun(api: Api, step: Step, terms: Terms) -> State | None:
    """Return the state in between where an earlier run under the same key has gone that way."""
    if terms.dry_run or not terms.named or await api.operator.receipt(first_key(terms.key or "")) is None:
        return None
    return next(row.source for row in TRANSITIONS if row.target is step.target)


async def _offered(api: Api, step: Step, incident: str, terms: Terms, consent: Consent) -> State | None:
    """Return the state in between where the incident can't go directly, and may go by it; None where it needn't.

    It is asked by a dry run: a refusal would be remembered under the key, and the step itself is still to come under it.
    """
    try:
        await step.write()(api.operator, incident, replace(terms, dry_run=True).options(api))
    except ApiRefused as error:
        state = error.problem.state
        halfway = between(state, step.target) if error.problem.code == Code.TRANSITION_ILLEGAL else None
        if halfway is None:
            return None
        problem = _hindrance(step, halfway, terms, error.problem)
        if problem is not None:
            raise ApiRefused(problem) from None
        if not terms.dry_run and not consent(str(state), halfway):
            raise
        return halfway
    return None


def _hindrance(step: Step, halfway: State, terms: Terms, now: Problem) -> Problem | None:
    """Return why the second step would be refused, as the table has it; None where it can be taken."""
    row = transition(halfway, step.target)
    way = f"the second of two steps, {halfway} → {step.target}"
    if row is None or terms.authority not in row.authorities:
        needed = " or ".join(sorted(row.authorities)) if row is not None else "another"
        detail = f"{way} needs {needed} authority; neither was taken."
        return replace(now, status=403, code=Code.TRANSITION_AUTHORITY.value, detail=detail, next="")
    if row.needs_reason and not (step.reason or "").strip():
        detail = f"{way} needs a reason; neither was taken."
        return replace(now, status=400, code=Code.REASON_MISSING.value, detail=detail, next="")
    return None


# --- what is said ----------------------------------------------------------------------------------------------------


def document_of(outcome: Outcome) -> Document:
    return outcome.document | ({"replayed": True} if outcome.replayed else {})


def tell(invocation: Invocation, outcomes: list[Outcome], did: str = "") -> None:
    """Say what became of a write, or what would; `did`: what was done, where that is not the state it led to."""
    screen = invocation.screen
    if screen.as_json:
        for outcome in outcomes:
            screen.record(document_of(outcome))
        return
    last = outcomes[-1]
    if last.dry_run:
        tell_dry(invocation, outcomes)
        return
    for outcome in outcomes:
        screen.say(line_of(outcome, did))
    screen.say(Text.assemble(("key ", "dim"), cell(last.idempotency_key, "dim")))
    screen.next(f"{invocation.opx} open {short(last.incident_id)}")


def line_of(outcome: Outcome, did: str = "") -> Text:
    """Return an outcome in one line."""
    line = Text.assemble((outcome.answer, "bold" if outcome.answer == Answer.UNCHANGED else "bold green"))
    if did:
        line += Text.assemble(", ", cell(did))
    elif outcome.state is not None:
        line += Text.assemble(", now ", state_cell(outcome.state))
    if outcome.first_sequence is not None:
        several = "" if outcome.first_sequence == outcome.last_sequence else f"–{outcome.last_sequence}"
        line += Text(f"  event {outcome.first_sequence}{several}, control version {outcome.control_version}", style="dim")
    return line + Text("  (answered before)" if outcome.replayed else "", style="dim")


def tell_dry(invocation: Invocation, outcomes: list[Outcome]) -> None:
    """Say what a write would do, in each of its steps."""
    screen, (first, *more) = invocation.screen, outcomes
    if not first.events:
        screen.say(f"Nothing would change: {first.answer}.")
    else:
        timeline_table(
            screen,
            [normalise(event) for event in first.events],
            f"{first.answer}: these events would be stored",
            collapse=False,
        )
    for second in more:
        screen.say(f"Then {second_told(first, second)}.")
    screen.say("A dry run: nothing was changed.", "dim")
    screen.next("the same command without --dry-run")


def second_told(first: Outcome, second: Outcome) -> str:
    """Return the second of two steps, and on whose authority."""
    source, target = known_state(first.state), known_state(second.state)
    row = None if source is None or target is None else transition(source, target)
    by = f", by {who_may(row)}" if row is not None else ""
    return f"{first.state} → {second.state}{by}, for the same reason"
