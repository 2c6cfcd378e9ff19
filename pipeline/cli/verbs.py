"""`opx mitigate`, `resolve`, `close`, `cancel`, `dismiss`, `promote`, `severity`, `note`: one incident's, or all that match.

They differ in a row of `VERBS` each. What is sent is in `acting`, what many means in `bulk`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from pipeline.cli import bulk
from pipeline.cli.acting import (
    FIRST_KEY_ROOM,
    Consent,
    HalfDone,
    Step,
    Terms,
    Write,
    document_of,
    known_state,
    lead,
    may_lead,
    sources_of,
    tell,
)
from pipeline.cli.calling import Api, refused
from pipeline.cli.finding import identity_of
from pipeline.cli.listing import CreatedFrom, CreatedTo, InState, OfService, OfSeverity, filters_of
from pipeline.cli.session import Invocation, run
from pipeline.cli.terminal import DONE, REFUSED, CommandError, safe
from pipeline.clients.answers import Outcome
from pipeline.clients.calls import Filters, WriteOptions
from pipeline.clients.operator import AsyncOperator
from pipeline.domain.errors import Code
from pipeline.domain.transitions import SEVERITY_MUTABLE, UNPROMOTED, AuthorityType, Severity, State

As = Annotated[AuthorityType, typer.Option("--as", help="The authority to claim.", case_sensitive=False)]
Actor = Annotated[str | None, typer.Option(help="Who acts, if not you; only registered principals may say so.")]
Reason = Annotated[str | None, typer.Option(help="Why. Needed to resolve, close, cancel, promote and dismiss.")]
KeyOption = Annotated[str | None, typer.Option("--key", help="The idempotency key; else one is made and printed.")]
Expected = Annotated[int | None, typer.Option("--expect", help="The control version you decided on; refused if it moved.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Without asking: each that matches, and two steps where it takes two.")]
Every = Annotated[bool, typer.Option("--all-matching", help="Every incident that the filters match, instead of one.")]

HUMAN: Final = AuthorityType.HUMAN


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: what it says of itself, what stands behind the ID, and what it sends.

    `in_two`: it may take the one step in between, too, where that is what it takes. `only_in`: the states that what
    leads to none is for. `did`: what is said of it, where that is not the state it leads to; `{}` is the value.
    """

    name: str
    says: str
    example: str
    write: Callable[[str, str | None], Write] | None = None
    target: State | None = None
    in_two: bool = False
    value: str = ""
    needs_reason: bool = True
    read: Callable[[str], str] = str
    only_in: frozenset[State] | None = None
    did: str = ""

    def can_act_on(self, state: str) -> bool:
        """True where the verb has an effect in a state; of one that the table doesn't know the API has to say."""
        known = known_state(state)
        if known is None:
            return True
        if self.target is not None:
            return known in sources_of(self.target, in_two=self.in_two)
        return self.only_in is None or known in self.only_in


def _noted(text: str, reason: str | None) -> Write:
    async def send(operator: AsyncOperator, incident: str, options: WriteOptions) -> Outcome:
        return await operator.add_note(incident, text, reason=reason, **options)

    return send


def _graded(severity: str, reason: str | None) -> Write:
    async def send(operator: AsyncOperator, incident: str, options: WriteOptions) -> Outcome:
        return await operator.change_severity(incident, severity, reason=reason, **options)

    return send


def _promoted(_: str, reason: str | None) -> Write:
    async def send(operator: AsyncOperator, incident: str, options: WriteOptions) -> Outcome:
        return await operator.request_promotion(incident, reason or "", **options)

    return send


def _dismissed(_: str, reason: str | None) -> Write:
    async def send(operator: AsyncOperator, incident: str, options: WriteOptions) -> Outcome:
        return await operator.dismiss(incident, reason or "", **options)

    return send


def _severity(text: str) -> str:
    if text.upper() not in Severity.__members__:
        known = ", ".join(repr(one.value) for one in Severity)
        raise typer.BadParameter(f"{safe(text)!r} is not one of {known}.")
    return text.upper()


VERBS: Final = (
    Verb(
        "mitigate",
        "Say that mitigation has started.",
        'opx mitigate 3f9a2c1b --reason "failing over"',
        target=State.MITIGATING,
        needs_reason=False,
    ),
    Verb(
        "resolve",
        "Say that it is over, for a reason. What is OPEN takes two steps: you are asked first, or say --yes.",
        'opx resolve 3f9a2c1b --reason "p99 is back to normal"',
        target=State.RESOLVED,
        in_two=True,
    ),
    Verb(
        "close",
        "Close what is resolved, when its post-mortem is complete.",
        'opx close 3f9a2c1b --reason "post-mortem PM-118 is published"',
        target=State.CLOSED,
    ),
    Verb(
        "cancel",
        "Cancel what is OPEN: it was a false positive.",
        'opx cancel --service ledger --state open --all-matching --reason "broken probe"',
        target=State.CANCELLED,
    ),
    Verb(
        "dismiss",
        "Dismiss what is PENDING as a false positive.",
        'opx dismiss 3f9a2c1b --reason "load test"',
        write=_dismissed,
        only_in=UNPROMOTED,
    ),
    Verb(
        "promote",
        "Ask the gate to open what is PENDING.",
        'opx promote 3f9a2c1b --reason "customers call"',
        write=_promoted,
        only_in=UNPROMOTED,
    ),
    Verb(
        "severity",
        "Change the severity; until it is resolved.",
        'opx severity 3f9a2c1b SEV1 --reason "spreading"',
        write=_graded,
        value="SEVERITY",
        needs_reason=False,
        read=_severity,
        only_in=SEVERITY_MUTABLE,
        did="now {}",
    ),
    Verb(
        "note",
        "Add a note.",
        'opx note 3f9a2c1b "Failing over to the second region."',
        write=_noted,
        did="note added",
        value="TEXT",
        needs_reason=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Order:
    """A verb with what it is told."""

    verb: Verb
    value: str
    reason: str | None
    terms: Terms

    async def carry_out(self, api: Api, incident: str, terms: Terms, consent: Consent) -> list[Outcome]:
        """Do it to one incident."""
        verb = self.verb
        if verb.target is None:
            assert verb.write is not None
            return [await verb.write(self.value, self.reason)(api.operator, incident, terms.options(api))]
        step = Step(verb.target, self.reason)
        if verb.in_two:
            return await lead(api, step, incident, terms, consent)
        return [await step.write()(api.operator, incident, terms.options(api))]

    def may_act_on(self, state: str) -> bool:
        """True unless the table wants another authority; where it says nothing of a verb, the API has to say."""
        return self.verb.target is None or may_lead(state, self.verb.target, self.terms.authority)

    @property
    def did(self) -> str:
        return self.verb.did.replace("{}", self.value)

    @property
    def leads_to(self) -> State | None:
        """Return where more than one step may lead; None where there is only one."""
        return self.verb.target if self.verb.in_two else None


def command_of(verb: Verb) -> Callable[..., None]:
    """Return the command of a verb."""

    def act(
        context: typer.Context,
        words: Annotated[list[str] | None, typer.Argument(metavar=f"ID {verb.value}".strip(), hidden=True)] = None,
        state: InState = None,
        service: OfService = None,
        severity: OfSeverity = None,
        since: CreatedFrom = None,
        until: CreatedTo = None,
        every: Every = False,
        reason: Reason = None,
        authority: As = HUMAN,
        actor: Actor = None,
        key: KeyOption = None,
        expect: Expected = None,
        dry_run: DryRun = False,
        yes: Yes = False,
    ) -> None:
        async def work(invocation: Invocation) -> int:
            filters = filters_of(invocation, verb.name, state, service, severity, since, until)
            bulk.check(invocation, verb.name, every=every, filters=filters, expect=expect)
            incident, value = _told(invocation, verb, words or [], every=every)
            if verb.needs_reason and not (reason or "").strip():
                facts = {"code": Code.REASON_MISSING.value}
                raise CommandError(f"{verb.name} needs a reason.", "the same command with --reason TEXT", REFUSED, facts)
            room = bulk.KEY_ROOM if every else FIRST_KEY_ROOM
            terms = Terms(authority, actor, key, expect, dry_run, yes).keyed(verb.name, room)
            order = Order(verb, value, reason, terms)
            async with invocation.api() as api:
                if incident is None:
                    return await _act_on_all(invocation, api, order, filters)
                return await _act_on_one(invocation, api, order, incident)

        run(context, work)

    # Said here: beside an argument's own help the parser would name its type in Python's words.
    words = "ID is the incident's id, or the beginning of it; with --all-matching there is none."
    words += " Text with spaces is quoted." if verb.value == "TEXT" else ""
    act.__doc__ = f"{verb.says}\n\n{words}\n\nExample: {verb.example}"
    return act


def _told(invocation: Invocation, verb: Verb, words: list[str], *, every: bool) -> tuple[str | None, str]:
    """Return the incident that is named, if one is, and what stands behind it; raise where it is too little or too much."""
    wanted = (0 if every else 1) + (1 if verb.value else 0)
    if len(words) != wanted:
        both = every and len(words) == wanted + 1
        shape = " ".join(part for part in ("--all-matching" if every else "ID", verb.value) if part)
        usage = f"usage: {invocation.opx} {verb.name} {shape}"
        message = "Either one incident or all that match." if both else usage
        raise CommandError(message, f"{invocation.opx} {verb.name} --help", REFUSED)
    value = verb.read(words[-1]) if verb.value else ""
    return (None if every else words[0]), value


async def _act_on_one(invocation: Invocation, api: Api, order: Order, named: str) -> int:
    incident = await identity_of(api.operator, named, invocation.opx)
    try:
        tell(invocation, await order.carry_out(api, incident, order.terms, asked(invocation, order)), order.did)
    except HalfDone as error:
        refusal = refused(error, invocation.opx, order.verb.name)
        facts = refusal.facts | {"done": [document_of(error.first)]}
        raise CommandError(error.told(refusal.message), refusal.then, REFUSED, facts) from None
    return DONE


def asked(invocation: Invocation, order: Order) -> Consent:
    """Return what asks whether two steps may be taken: the person, where --yes has not said so already."""

    def consent(state: str, halfway: State) -> bool:
        if order.terms.yes:
            return True
        way = f"{state} → {halfway} → {order.verb.target}"
        told = f"It is {state}; {order.verb.name} takes two steps: {way}."
        question = f"It is {state}. Take both steps, {way}?"
        answer = None if invocation.screen.as_json else invocation.around.ask(question)
        facts = {"code": Code.TRANSITION_ILLEGAL.value, "state": state}
        if answer is None:
            raise CommandError(told, "the same command with --yes, which takes both", REFUSED, facts)
        if not answer:
            raise CommandError("Nothing was changed.", "the same command with --yes", REFUSED, facts)
        return True

    return consent


async def _act_on_all(invocation: Invocation, api: Api, order: Order, filters: Filters) -> int:
    terms, verb = order.terms, order.verb
    found = await bulk.matching(invocation, api.operator, filters)
    plan = await bulk.plan_of(api.operator, found, verb.can_act_on, order.may_act_on, terms, stated="state" in filters)
    chosen = [*plan.doable, *plan.hopeless]
    if not chosen or not (terms.yes or terms.dry_run):
        return bulk.tell_matching(invocation, plan, filters, verb.name, order.leads_to)
    bulk.tell_left(invocation, plan, verb.name)

    async def act(incident: str, key: str) -> list[Outcome]:
        return await order.carry_out(api, incident, replace(terms, key=key), lambda *_: True)

    return await bulk.act_on(invocation, chosen, act, terms)
