"""`opx replay seal`: write down where every chain ends today. `opx replay verify --seal FILE` compares, in a year too.

Sealed is only what verifies: a seal of damage would make the damage the truth.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.replay_scope import Exports, Scope, exports_at, now, stored_in, working_folder
from pipeline.cli.sealed_file import SealFile, write_seal
from pipeline.cli.session import Invocation, open_session, run
from pipeline.cli.terminal import DONE, FAILED, REFUSED, CommandError, key_values
from pipeline.cli.verifying import Verification, WorkIn, replay_export, replay_tables
from pipeline.cli.versioned import Config
from pipeline.domain.canonical import format_time
from pipeline.replay.ranks import Table
from pipeline.replay.verifying import Place, seal_lines
from pipeline.replay.workers import Workers


def seal(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the seal; it must not exist yet.")],
    export: Exports = None,
    work_in: WorkIn = None,
    config: Config = None,
) -> None:
    """Verify everything, and write where each chain ends; keep the file, and its digest somewhere else.

    Example: opx replay seal --out seal-2026-11.txt
    """

    async def work(invocation: Invocation) -> int:
        command = f"{invocation.opx} replay seal"
        if out.exists():
            raise CommandError(f"{out} is there already; a seal is never written over.", f"{command} --help", REFUSED)
        verification = Verification(Scope())
        with working_folder(work_in) as folder, Workers(os.cpu_count() or 1) as workers:
            place = Place(folder, config, workers)
            if export:
                exports = exports_at(export, command, events_only=False)
                if set(exports) != set(Table):
                    raise CommandError("A seal needs the exports of all three tables.", f"{command} --help", REFUSED)
                sealed_at = exports[Table.EVENTS].exported_at
                await replay_export(invocation.screen, verification, place, exports, Scope().wanted(seal=True))
            else:
                sealed_at = format_time(now())
                async with open_session(invocation.selection, "dynamodb") as session:
                    wanted = Scope().wanted(seal=True, keep=True)
                    await replay_tables(invocation.screen, verification, place, stored_in(session, None), wanted)
            if verification.exit_code != DONE:
                told = ", ".join(f"{number} {kind}" for kind, number in sorted(verification.kinds.items()))
                message = f"Not sealed, since it does not verify: {told or 'not everything could be told'}."
                code = REFUSED if verification.divergences else FAILED
                raise CommandError(message, f"{invocation.opx} replay verify", code)
            written = await asyncio.to_thread(write_seal, out, seal_lines(place), {"sealedAt": sealed_at})
        _show(invocation, written)
        return DONE

    run(context, work)


def _show(invocation: Invocation, written: SealFile) -> None:
    screen = invocation.screen
    if screen.as_json:
        document = {"file": str(written.path), "incidents": written.incidents, "events": written.events}
        screen.record(document | {"digest": written.digest})
        return
    key_values(
        screen,
        [
            ("sealed", f"{written.incidents:,} incidents, {written.events:,} events, in {written.path}"),
            ("digest", written.digest),
        ],
    )
    screen.say("Write the digest down where whoever may change the tables may not.")
    screen.next(f"{invocation.opx} replay verify --seal {written.path}")
