"""`opx rejected`: what was refused, and why. Only looks: what lies in the rejected queue stays there.

A message that was looked at is given back at once where the caller may do that; else it is hidden for a few seconds.
"""

import time
from dataclasses import dataclass
from typing import Annotated, Final

import typer
from rich.text import Text

from pipeline.cli.counting import depth_of
from pipeline.cli.operating import explanation_of
from pipeline.cli.peeking import give_back
from pipeline.cli.session import Invocation, Session, open_session, run
from pipeline.cli.terminal import DONE, Column, Screen, cell
from pipeline.domain.canonical import Document
from pipeline.services.rejection import ATTRIBUTE
from pipeline.stores.clients import translated

WITHIN_S: Final = 30.0
# Long enough to read a thousand messages without seeing one twice.
HIDDEN_S: Final = 10
READ_MAX: Final = 1000
BODY_CHARACTERS_MAX: Final = 160
WHERE_CHARACTERS_MAX: Final = 28
REASON_CHARACTERS_MIN: Final = 40


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected message: its body, and the explanation beside it."""

    body: str
    explanation: Document

    @property
    def code(self) -> str:
        return self.told("code")

    @property
    def reason(self) -> str:
        return self.told("reason")

    def told(self, name: str) -> str:
        return str(self.explanation.get(name) or "?")


def rejected(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=READ_MAX, help="At most so many, the newest first.")] = 20,
) -> None:
    """Show what was refused, and why, the newest first; it stays in the rejected queue.

    Example: opx rejected --limit 5
    """

    async def work(invocation: Invocation) -> int:
        screen = invocation.screen
        async with open_session(invocation.selection, "sqs") as session:
            count = (await depth_of(session, "rejected")).total
            with screen.progress("looking at the rejected queue"):
                found = await peek(session, min(count, READ_MAX))
        shown = sorted(found, key=lambda item: item.told("originalSentAt"), reverse=True)[:limit]
        if screen.as_json:
            for item in shown:
                screen.record(item.explanation | {"body": item.body})
        elif shown:
            rejections_table(screen, shown)
        elif not count:
            screen.say("Nothing was refused.")
        if len(shown) < count:
            hidden = (
                f" {count - len(found)} could not be looked at: try again in {HIDDEN_S} s." if len(found) < count else ""
            )
            screen.notice(f"{len(shown)} of {count} are shown (--limit N, at most {READ_MAX}).{hidden}")
        screen.next(f"{invocation.opx} status")
        return DONE

    run(context, work)


async def peek(session: Session, count: int) -> list[Rejection]:
    """Read `count` messages of the rejected queue, or as many as show themselves in time; all of them stay there."""
    found: dict[str, Rejection] = {}
    handles: dict[str, str] = {}
    deadline = time.monotonic() + WITHIN_S
    while len(found) < count and time.monotonic() < deadline:
        with translated("looking at the rejected queue"):
            answer = await session.clients.sqs.receive_message(
                QueueUrl=session.target.output("RejectedQueueUrl"),
                MaxNumberOfMessages=10,
                WaitTimeSeconds=1,
                VisibilityTimeout=HIDDEN_S,
                MessageAttributeNames=[ATTRIBUTE],
            )
        messages = answer.get("Messages", ())
        found |= {message["MessageId"]: Rejection(message["Body"], explanation_of(message)) for message in messages}
        handles |= {message["MessageId"]: message["ReceiptHandle"] for message in messages}
    await give_back(session, "rejected", list(handles.values()))
    return list(found.values())


def rejections_table(screen: Screen, shown: list[Rejection]) -> None:
    """Show rejected messages: on the left what, when and whose, on the right why and how the body begins."""
    columns = (Column("refused", cap=WHERE_CHARACTERS_MAX), Column("why, and what", wrap=True, floor=REASON_CHARACTERS_MIN))
    screen.table(columns, [_row(item) for item in shown])


def _row(item: Rejection) -> tuple[Text, Text]:
    when = cell(item.told("originalSentAt").replace("T", " ")[:19], "dim")
    whose = cell(f"{item.told('source')} · {item.told('originalSenderId')}", "dim")
    begins = item.body[:BODY_CHARACTERS_MAX] + ("…" if len(item.body) > BODY_CHARACTERS_MAX else "")
    lines = Text("\n")
    return lines.join([cell(item.code, "red"), when, whose]), lines.join([cell(item.reason), cell(begins, "dim")])
