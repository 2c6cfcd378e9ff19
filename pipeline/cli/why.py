"""`opx why`: from what was sent to what became of it. For whoever asks where their message is. Reads only.

Where it looks is in `following`, what it says in `story`, and which key a message has in `asked`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from pipeline.cli.asked import Asked, asked_as_said, asked_by
from pipeline.cli.following import Findings, Follower
from pipeline.cli.messages import Mappings, opened
from pipeline.cli.peeking import Queues
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.story import document, next_steps, tell
from pipeline.cli.terminal import DONE, REFUSED, CommandError
from pipeline.cli.versioned import Config, in_force
from pipeline.runtime import shipped

PARTS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked for on the command line."""

    said: str | None
    principal: str | None
    message: str | None
    days: int
    config: Path | None


def why(
    context: typer.Context,
    what: Annotated[
        str | None, typer.Argument(metavar="KEY | MESSAGE_ID", help="An idempotency key, or the id that SQS gave a message.")
    ] = None,
    principal: Annotated[str | None, typer.Option(help="Whose it was; for auditors. Else your own.")] = None,
    message: Annotated[
        str | None, typer.Option(metavar="FILE", help="The message itself, or - for standard input: its key is computed.")
    ] = None,
    moved: Annotated[
        int, typer.Option("--moved-by", metavar="DAYS", help="By how many days opx send moved the recording.")
    ] = 0,
    config: Config = None,
) -> None:
    """Say what became of a message or command: its receipt, or where it lies; its incident, the gate's word, its events.

    A message that says when it was seen, or a native alarm, has a key of its own: give it with --message.

    Example: opx why checkout-5xx:1, or: opx why --message candidate.json
    """

    async def work(invocation: Invocation) -> int:
        question = Question(what.strip() if what is not None else None, principal, message, moved, config)
        parts, left_out = _parts(question, invocation)
        if left_out:
            invocation.screen.notice(f"Only the first {PARTS_MAX} are told of; {left_out} more are not.")
        found = await _follow(question, parts, invocation)
        steps = next_steps(found, question.said, invocation.opx, question.message)
        if invocation.screen.as_json:
            invocation.screen.record(document(found, question.said, steps))
        else:
            tell(invocation.screen, found, question.said)
            invocation.screen.next(*steps)
        return DONE if all(fate.is_found for fate in found.fates) else REFUSED

    run(context, work)


def _parts(question: Question, invocation: Invocation) -> tuple[list[Asked], int]:
    """Return what is to be looked for, and how many parts are left out."""
    again = f"{invocation.opx} why"
    if question.message is None:
        # The two that can't stand in an address.
        if question.said in (None, "", ".", ".."):
            raise CommandError("Name a key or a message's id, or give --message.", f"{again} --help", REFUSED)
        return [asked_as_said(str(question.said))], 0
    mappings = Mappings(shipped.alarm_mappings(question.config), shipped.alert_mapping(question.config))
    with opened(question.message, None, again) as lines:
        found = asked_by(lines, mappings, in_force(question.config).rules, question.said, question.days)
    if not found:
        raise CommandError("There is no message in there.", f"{again} --help", REFUSED)
    return found[:PARTS_MAX], max(0, len(found) - PARTS_MAX)


async def _follow(question: Question, parts: list[Asked], invocation: Invocation) -> Findings:
    known = in_force(question.config)
    async with invocation.api() as api, open_session(invocation.selection, "sqs", "dynamodb") as session:
        queues = Queues(session)
        follower = Follower(api.operator, queues, session.store, known.policies, known.rules, question.principal)
        with invocation.screen.progress("looking"):
            return await follower.follow(parts)
