"""`opx queue`: what was refused, what died, what could not be published; why; and sending it in again.

Looking leaves everything where it is. What lies where is read in `queue_letters`, tried out in `queue_rehearsal`, sent in
`queue_redrive`.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.cli.authority import LOCAL_ACCOUNT
from pipeline.cli.counting import INTAKE, WEBHOOK_DLQ, depths, looked_into, url_of
from pipeline.cli.operating import principal_of
from pipeline.cli.outbox import Queue
from pipeline.cli.peeking import READ_MAX, Look, Queues
from pipeline.cli.queue_letters import FAILURES, Letter
from pipeline.cli.queue_redrive import Redriver, Terms
from pipeline.cli.queue_rehearsal import Rehearsal, Told
from pipeline.cli.queue_view import Heap, counted, doubt_of, fates, heaps_table, later, leads, letters_table, listed, tell
from pipeline.cli.roles import open_as
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.target import Target
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError, Meter, safe
from pipeline.cli.versioned import Config
from pipeline.domain.authority import Registry
from pipeline.domain.errors import Unavailable
from pipeline.runtime import shipped
from pipeline.runtime.clock import SystemClock

RATE: Final = 50
RATE_MAX: Final = 1000
SHOWN_MAX: Final = 50
ROLE_OUTPUT: Final = "RedriveRoleArn"

queue = typer.Typer(no_args_is_help=True, help="What was refused, died or was not published: look, and send it in again.")

Named = Annotated[str, typer.Argument(metavar="QUEUE", help="rejected, candidates-dlq, … as `opx queue list` names them.")]
WithCode = Annotated[str | None, typer.Option("--code", help="Only what lies there for this reason.")]
OfService = Annotated[str | None, typer.Option("--service", help="Only what names this service.")]
Stage = Annotated[str, typer.Option(help="Whose registry would decide; the local engine has its own.")]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of a queue's messages are meant."""

    code: str | None = None
    service: str | None = None
    messages: frozenset[str] = frozenset()

    def takes(self, letter: Letter, code: str) -> bool:
        ids = {letter.message.message_id, str(letter.explanation.get("originalMessageId"))}
        return (
            (self.code is None or self.code == code)
            and (self.service is None or self.service == letter.service)
            and (not self.messages or bool(ids & self.messages))
        )

    def takes_told(self, told: Told) -> bool:
        """As `takes`. Raises `Unavailable` where it hangs on a code that nobody could find out."""
        letter, verdict = told.letter, told.verdict
        if self.takes(letter, told.code):
            return True
        if told.is_unread and verdict is not None and replace(self, code=None).takes(letter, told.code):
            raise Unavailable(f"why {letter.message.message_id} lies there can't be told: {verdict.detail}")
        return False


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be redriven, and how."""

    name: str
    choice: Choice
    limit: int | None
    rate: int
    dry_run: bool
    yes: bool


@queue.command("list")
def list_(context: typer.Context, stage: Stage = "prod", config: Config = None) -> None:
    """Show what lies in the queues that nobody works off: how many, and why.

    Example: opx queue list
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        async with open_session(invocation.selection, "sqs") as session:
            rehearsal = Rehearsal(registry_of(session, stage, config), config)
            with screen.progress("looking") as meter:
                heaps = [await _heap(session, name, rehearsal, meter) for name in looked_into(session)]
        for heap in heaps:
            if screen.as_json:
                screen.record(heap.to_document())
        heaps_table(screen, heaps)
        full = [heap.look.queue for heap in heaps if heap.look.depth]
        steps = [f"{invocation.opx} queue show {name}" for name in full]
        screen.next(*(steps or [f"{invocation.opx} status"]))
        return FAILED if any(heap.look.unread for heap in heaps) else DONE

    run(context, work)


async def _heap(session: Session, name: str, rehearsal: Rehearsal, meter: Meter) -> Heap:
    meter.say(f"looking into {name}")
    look = await Queues(session).look(name, lambda copy: True)
    told = [await rehearsal.told(letter) for letter in letters_of(look)]
    return Heap(look, Counter(item.code for item in told))


@queue.command("show")
def show(
    context: typer.Context,
    name: Named,
    code: WithCode = None,
    service: OfService = None,
    limit: Annotated[int, typer.Option(min=1, max=READ_MAX, help="At most so many, the newest first.")] = 20,
    stage: Stage = "prod",
    config: Config = None,
) -> None:
    """Show each message: why it lies there, whose it was and when, and how it begins; all of it stays there.

    Nobody explained a dead one: it is read again, as its door would, without any effect.

    Example: opx queue show rejected --code policy-unknown
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        async with open_session(invocation.selection, "sqs", "dynamodb") as session:
            _check(session, name, invocation.opx)
            rehearsal = Rehearsal(registry_of(session, stage, config), config, session.store)
            look, found = await _look(invocation, session, name, rehearsal, Choice(code, service), always=False)
        shown = found[::-1][:limit]
        for item in shown:
            if screen.as_json:
                screen.record(item.to_document())
        if shown:
            letters_table(screen, shown)
        elif not look.is_hidden:
            screen.say("Nothing lies there." if not look.depth else "Nothing there matches.")
        if len(found) > len(shown):
            screen.notice(f"{len(shown)} of {len(found)} are shown (--limit N, at most {READ_MAX}).")
        if (doubt := doubt_of(look)) is not None:
            screen.notice(f"Not all is told: {doubt}.")
        instead = later(name) if look.is_hidden else f"{invocation.opx} queue list"
        screen.next(*(leads(invocation.opx, name, shown) if found else [instead]))
        return FAILED if look.is_hidden else DONE

    run(context, work)


@queue.command("redrive")
def redrive(
    context: typer.Context,
    name: Named,
    code: WithCode = None,
    message: Annotated[
        list[str] | None, typer.Option("--message", metavar="ID", help="This one, by the id it has or first had.")
    ] = None,
    service: OfService = None,
    every: Annotated[bool, typer.Option("--all", help="All that lies there.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.", show_default=False)] = None,
    rate: Annotated[int, typer.Option(min=1, max=RATE_MAX, help="At most so many a second.")] = RATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would become of each, and send nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
    stage: Stage = "prod",
    config: Config = None,
) -> None:
    """Send messages in again under the stack's redrive role, each as its first sender's and under its first receipt.

    What took effect before changes nothing. A message is deleted only once its queue has taken it; broken off, the same
    command goes on; what a killed run held is seen again within 5 minutes. What is refused again comes back to the rejected
    queue. --dry-run decides by the configuration here. Exit code 2: something lies there, and nothing could be looked at.

    Example: opx queue redrive rejected --code policy-unknown --dry-run
    """
    choice = Choice(code, service, frozenset(message or ()))
    order = Order(name, choice, limit, rate, dry_run, yes)

    async def work(invocation: Invocation) -> int:
        if not every and limit is None and choice == Choice():
            message = "Say which: --all, --code, --service, --message or --limit."
            raise CommandError(message, f"{invocation.opx} queue show {safe(name)}", REFUSED)
        async with open_session(invocation.selection, "sqs", "dynamodb") as session:
            _check(session, name, invocation.opx)
            _check_redrivable(name, invocation.opx)
            rehearsal = Rehearsal(registry_of(session, stage, config), config, session.store)
            if dry_run or not yes:
                look, found, number = await _rehearse(invocation, session, order, rehearsal)
                if look.is_hidden:
                    return FAILED
                if dry_run:
                    return REFUSED if any(one.is_refused for one in found) else DONE
                if not found or not _is_meant(invocation, order, number):
                    return DONE
            return await _redrive(invocation, session, order, rehearsal)

    run(context, work)


def registry_of(session: Session, stage: str, config: Path | None) -> Registry:
    """Return the registry that decides at a target, with the redrive role that its doors believe."""
    if session.target.is_local:
        # The engine names its one account as every sender, and the template tells its doors to believe that.
        return shipped.registry("local", LOCAL_ACCOUNT, config)
    return shipped.registry(stage, session.target.output("RedriveRoleId"), config)


def _check(session: Session, name: str, opx: str) -> None:
    if name in INTAKE:
        message = f"opx works {name} off: looking into it would hide its messages, and count as a try."
        raise CommandError(message, f"{opx} status", REFUSED)
    if name not in looked_into(session):
        known = ", ".join(looked_into(session))
        raise CommandError(f"There is no queue {safe(name)}; there are {known}.", f"{opx} queue list", REFUSED)


def _check_redrivable(name: str, opx: str) -> None:
    if name == FAILURES:
        message = "What lies there are records of events that were not published, no messages: publish the events again."
        raise CommandError(message, leads(opx, name)[0], REFUSED)
    if name == WEBHOOK_DLQ:
        message = "What lies there are events that the webhook did not take: publish those again that still matter."
        raise CommandError(message, leads(opx, name)[0], REFUSED)


def letters_of(look: Look) -> list[Letter]:
    return [Letter.of(copy.queue, copy.raw) for copy in look.copies]


async def _look(
    invocation: Invocation, session: Session, name: str, rehearsal: Rehearsal, choice: Choice, *, always: bool
) -> tuple[Look, list[Told]]:
    """Return what is meant of what lies in a queue, the oldest first, with why it lies there."""
    found = []
    with invocation.screen.progress(f"looking into {name}") as meter:
        look = await Queues(session).look(name, lambda copy: True)
        if look.unread is not None:
            raise Unavailable(look.unread)
        letters = letters_of(look)
        for number, letter in enumerate(letters):
            meter.say(f"reading {number + 1} of {len(letters)}")
            told = await rehearsal.told(letter, always=always)
            if choice.takes_told(told):
                found.append(told)
    return look, sorted(found, key=lambda item: item.letter.first_sent)


async def _rehearse(
    invocation: Invocation, session: Session, order: Order, rehearsal: Rehearsal
) -> tuple[Look, list[Told], str]:
    """Say what would become of what is meant, and change nothing; return that, and how many it is in words."""
    screen = invocation.screen
    look, found = await _look(invocation, session, order.name, rehearsal, order.choice, always=True)
    found = found[: order.limit]
    for item in found:
        if screen.as_json:
            screen.record(item.to_document())
    if found:
        letters_table(screen, found[:SHOWN_MAX])
    if (hidden := len(found) - SHOWN_MAX) > 0 and not screen.as_json:
        screen.notice(f"{hidden} more are not shown here (--json shows all).")
    if (doubt := doubt_of(look)) is not None:
        screen.notice(f"Not all is told: {doubt}.")
    if look.is_hidden:
        screen.next(later(order.name))
        return look, [], counted(0)
    # More may lie there than anybody can look at; all that is meant is sent, seen or not.
    number = counted(len(found))
    if not look.is_whole and (order.limit is None or order.limit > len(found)):
        number = f"at least {number}"
    screen.say(f"{number} would be sent in again: {listed(fates(found))}." if found else "Nothing there matches.")
    if order.dry_run or not found:
        again = f"{invocation.opx} queue show {order.name}"
        screen.next("the same command with --yes instead of --dry-run" if found else again)
    return look, found, number


def _is_meant(invocation: Invocation, order: Order, number: str) -> bool:
    question = f"Send {number} of {order.name} in again?"
    if None is (answer := None if invocation.screen.as_json else invocation.around.ask(question)):
        invocation.screen.next("the same command with --yes")
    if not answer:
        invocation.screen.say("Nothing was changed.", "dim")
    return bool(answer)


async def _under_the_redrive_role(stack: AsyncExitStack, target: Target) -> Session:
    """Return the target as the redrive role sees it; raise where that may not be assumed, or would not be believed."""
    try:
        clients = await stack.enter_async_context(open_as(target, ROLE_OUTPUT, ("sqs", "sts")))
    except Unavailable as error:
        then = "have the policy of the stack's output RedrivePolicyArn attached to your role, then the same again"
        raise CommandError(f"The redrive role can't be assumed: {error}", then) from error
    if not target.is_local and await principal_of(clients.of("sts")) != target.output("RedriveRoleId"):
        message = "The redrive role is not the one that the stack's doors believe: it was made anew outside of it."
        raise CommandError(message, "deploy the stack again")
    return Session(target, clients)


async def code_of(choice: Choice, rehearsal: Rehearsal, letter: Letter) -> str:
    """Return why a message lies there. Raises `Unavailable` where a choice hangs on what nobody could find out."""
    # Reading a dead one again takes time: only where its code is asked for.
    if choice.code is None:
        return letter.trouble()[0]
    told = await rehearsal.told(letter)
    choice.takes_told(told)
    return told.code


async def _redrive(invocation: Invocation, session: Session, order: Order, rehearsal: Rehearsal) -> int:
    screen, target = invocation.screen, session.target
    async with AsyncExitStack() as stack:
        acting = await _under_the_redrive_role(stack, target)
        depth = (await depths(acting, (order.name,)))[order.name].total
        limit = min(depth, order.limit or depth)
        terms = Terms(partial(code_of, order.choice, rehearsal), order.choice.takes, limit, order.rate, depth)
        urls = {name: url_of(acting, name.value) for name in (Queue.CANDIDATES, Queue.COMMANDS)}
        at = url_of(acting, order.name)
        redriver = Redriver(acting.clients.sqs, order.name, at, urls, rehearsal.registry, terms, SystemClock())
        try:
            with screen.progress(f"sending {order.name} in again", limit) as meter:
                tally = await redriver.run(meter.at)
        except Unavailable as error:
            tell(screen, order.name, redriver.tally, 0)
            message = f"Broken off after {counted(redriver.tally.sent)}: {error}"
            raise CommandError(message, "the same command again: what was sent already has no second effect") from error
        except asyncio.CancelledError:
            screen.say(f"Interrupted after {counted(redriver.tally.sent)}; the same command goes on.", "dim")
            raise
    unseen = 0 if tally.sent >= limit else max(0, depth - redriver.looked)
    tell(screen, order.name, tally, unseen)
    screen.next(*([later(order.name)] if unseen else []), f"{invocation.opx} queue list", f"{invocation.opx} list")
    if unseen and not redriver.looked:
        return FAILED
    missed = bool(order.choice.messages) and not tally.sent
    return REFUSED if tally.left or missed else DONE
