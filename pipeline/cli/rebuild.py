"""`opx replay rebuild`: rows and pointers written again from the events. Nothing that is newer is ever set back."""

from collections import Counter
from functools import partial
from typing import Annotated, Final

import typer

from pipeline.cli.replay_scope import Ids, Since, TablePrefix, Until, scope_of, stored_in
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.terminal import DONE, REFUSED, CommandError, Screen, key_values
from pipeline.cli.versioned import Config
from pipeline.replay.live import some_at_once
from pipeline.replay.rebuilding import Answer, Rebuilt, rebuild
from pipeline.runtime import shipped

MEANS: Final = {
    Answer.WRITTEN: "written from their events",
    Answer.CURRENT: "were right already",
    Answer.NEWER: "left alone: a decision has moved them on, or their version says so",
    Answer.DAMAGED: "not written: their events are damaged, or the row is of an event that is not among them",
    Answer.UNKNOWN: "have no events",
}


def rebuild_rows(
    context: typer.Context,
    ids: Ids = None,
    since: Since = None,
    until: Until = None,
    everything: Annotated[bool, typer.Option("--everything", help="Every incident that was ever created.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    tables: TablePrefix = None,
    config: Config = None,
) -> None:
    """Write rows and pointers again from the events, where they are missing or not newer. Safe while others decide.

    Example: opx replay rebuild --everything --dry-run
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} replay rebuild"
        scope = scope_of(ids, since, until, command)
        if scope.is_everything is not everything:
            message = "Either everything, or a part." if everything else "Name incidents or times, or say --everything."
            raise CommandError(message, f"{command} --help", REFUSED)
        answers: Counter[Answer] = Counter()
        pointers = 0
        async with open_session(invocation.selection, "dynamodb") as session:
            stored = stored_in(session, tables)
            wanted = scope.incident_ids(session, stored, invocation.opx)
            with invocation.screen.progress("comparing rows" if dry_run else "writing rows") as meter:
                again = partial(rebuild, stored, policies=shipped.policies(config), dry_run=dry_run)
                async for rebuilt in some_at_once(wanted, again):
                    answers[rebuilt.answer] += 1
                    pointers += rebuilt.pointer_written
                    meter.at(answers.total())
                    _tell(invocation.screen, rebuilt)
        _show(invocation, answers, pointers, dry_run=dry_run)
        return REFUSED if answers[Answer.DAMAGED] or answers[Answer.UNKNOWN] else DONE

    run(context, work)


def _tell(screen: Screen, rebuilt: Rebuilt) -> None:
    if screen.as_json:
        document = {"incidentId": rebuilt.incident_id, "answer": rebuilt.answer.value, "version": rebuilt.version}
        found = [one.to_document() for one in rebuilt.found]
        screen.record(document | ({"divergences": found} if found else {}))
    elif rebuilt.answer in (Answer.DAMAGED, Answer.UNKNOWN):
        why = "; ".join(f"{one.kind.value} {one.where}" for one in rebuilt.found) or MEANS[rebuilt.answer]
        screen.notice(f"{rebuilt.incident_id}: {why}")


def _show(invocation: Invocation, answers: Counter[Answer], pointers: int, *, dry_run: bool) -> None:
    screen = invocation.screen
    document = {"incidents": answers.total(), "pointersWritten": pointers, "dryRun": dry_run}
    if screen.as_json:
        screen.record(document | {answer.value: answers[answer] for answer in Answer})
        return
    for answer in Answer:
        if answers[answer] or answer is Answer.WRITTEN:
            told = MEANS[answer].replace("written from", "would be written from") if dry_run else MEANS[answer]
            key_values(screen, [(f"{answers[answer]:>8}", f"rows {told}")])
    key_values(screen, [(f"{pointers:>8}", "pointers would be written" if dry_run else "pointers written")])
    if answers[Answer.DAMAGED]:
        screen.next(f"{invocation.opx} replay verify ID", "infra/runbooks/corruption.md says what mends what is damaged")
    else:
        screen.next(f"{invocation.opx} replay rebuild --everything" if dry_run else f"{invocation.opx} replay verify")
