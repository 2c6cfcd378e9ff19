"""`opx replay …`: verify what is stored, write the projection again, look at the past, seal what is true today.

Works on the tables themselves, or an export of them, never by the API: an auditor needs nobody's word but what is stored.
"""

import typer

from pipeline.cli.past import show_past
from pipeline.cli.rebuild import rebuild_rows
from pipeline.cli.sealing import seal
from pipeline.cli.verifying import verify

replay = typer.Typer(no_args_is_help=True, help="The history itself: verify it, rebuild rows from it, look at it, seal it.")
replay.command("verify")(verify)
replay.command("rebuild")(rebuild_rows)
replay.command("show")(show_past)
replay.command("seal")(seal)
