"""`opx up` and `opx down`: the local engine, with the stack deployed into it. A person's `up` outlives its command."""

import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.session import Invocation, guarded
from pipeline.cli.target import Target
from pipeline.cli.terminal import REFUSED, CommandError, Screen, key_values
from pipeline.local import engine as local
from pipeline.local.deploy import deploy
from pipeline.runtime import overlay, shipped


def up(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(envvar=overlay.VARIABLE, metavar="DIR", help="Your own policies, rules, mappings and grants."),
    ] = None,
) -> None:
    """Start the local engine and deploy what changed into it; both stay until `opx down`.

    With --config a folder of your own is laid over what ships; without, what ships alone is deployed.

    Example: opx up --config examples/config
    """
    invocation: Invocation = context.obj
    with guarded(invocation):
        _only_local(invocation)
        folder = None if config is None else _checked(config)
        began = time.monotonic()
        target, reused = bring_up(invocation, leash=False, config=folder)
        _say_where(invocation, target, reused, folder, time.monotonic() - began)


def down(context: typer.Context) -> None:
    """Stop the local engine; nothing of it stays.

    Example: opx down
    """
    invocation: Invocation = context.obj
    with guarded(invocation):
        _only_local(invocation)
        with invocation.screen.progress("stopping the local engine"):
            ran = local.stop(invocation.selection.state_dir)
        if invocation.screen.as_json:
            invocation.screen.record({"stopped": ran})
        invocation.screen.say(
            "The local engine is stopped; its incidents are gone with it." if ran else "No engine was running."
        )


def _only_local(invocation: Invocation) -> None:
    if invocation.selection.stack is not None:
        message = "up and down are for the local engine; a stack in an account is deployed with the SAM CLI."
        raise CommandError(message, "sam build && sam deploy --config-env dev", REFUSED)


def _checked(config: Path) -> Path:
    # Said before an engine is started for it.
    folder = config.resolve()
    wrong = shipped.problem(folder)
    if wrong is not None:
        raise CommandError(f"The configuration {config} can't be used. {wrong}", f"opx up --config {config}", REFUSED)
    return folder


def bring_up(invocation: Invocation, *, leash: bool, config: Path | None = None) -> tuple[Target, bool]:
    """Return the deployed engine, and whether it ran before. With `leash` it ends with this process."""
    with invocation.screen.progress("starting the local engine") as meter:
        # On the leash until it is deployed: a broken-off `up` leaves nothing behind.
        engine = local.start(invocation.selection.state_dir, leash=True)
        outputs = deploy(engine, config=config, report=meter.say)
        if not leash:
            engine.release()
    return Target.of_engine(engine, outputs), engine.reused


def _say_where(invocation: Invocation, target: Target, reused: bool, config: Path | None, seconds: float) -> None:
    screen: Screen = invocation.screen
    own = None if config is None else str(config)
    if screen.as_json:
        where = {"endpoint": target.endpoint_url, "api": target.api_url, "region": target.region, "config": own}
        screen.record({**where, "reused": reused, "outputs": target.outputs})
        return
    how = "ran already and is up to date" if reused else "is up"
    screen.say(f"The local engine {how} ({seconds:.1f} s).", "bold")
    key_values(
        screen,
        [
            ("endpoint", target.endpoint_url),
            ("region", f"{target.region}, with the credentials test / test"),
            ("configuration", own or "as it ships (--config DIR for your own)"),
            ("api", target.api_url),
            ("candidates", target.output("CandidatesQueueUrl")),
            ("commands", target.output("CommandsQueueUrl")),
            ("rejected", target.output("RejectedQueueUrl")),
            ("bus", target.output("BusName")),
            ("tables", f"{target.prefix}-incidents, {target.prefix}-incident-events, {target.prefix}-idempotency"),
            ("state and log", target.state_dir),
        ],
    )
    opx = invocation.opx
    # As after the first installation: the next commands would not be found.
    first = ["source .venv/bin/activate"] if shutil.which("opx") is None else []
    screen.next(*first, f"{opx} send FILE", f"{opx} tail", f"{opx} status", f"{opx} down")
