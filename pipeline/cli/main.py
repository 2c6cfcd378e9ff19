"""`opx`: the command line. Only wiring: which commands there are, and which options all of them share.

The shared options may stand before or behind the command; each can come from the environment instead.
"""

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from pipeline.cli import controls, declaring, engine, environment, send, status, tail, transitions
from pipeline.cli.audit import audit
from pipeline.cli.authority import authority
from pipeline.cli.board import watch
from pipeline.cli.demo import demo
from pipeline.cli.gaps import gaps
from pipeline.cli.lint import lint
from pipeline.cli.listing import list_
from pipeline.cli.opening import open_
from pipeline.cli.policy import policy
from pipeline.cli.queue import queue
from pipeline.cli.replay import replay
from pipeline.cli.republish import republish
from pipeline.cli.rules import rules
from pipeline.cli.session import Around, Invocation, silence_output
from pipeline.cli.target import Selection
from pipeline.cli.terminal import FAILED, Screen
from pipeline.cli.verbs import VERBS, command_of
from pipeline.cli.why import why
from pipeline.local.environment import REGION
from pipeline.local.paths import DEFAULT_STATE

_SHARED: Final = {"--stack": True, "--profile": True, "--region": True, "--state-dir": True, "--json": False}


class SharedOptions(TyperGroup):
    """A group whose shared options are also taken from behind the command, where people write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, hoisted(args))

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.replace("Value error, ", "")
            raise

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            # A full disk, most of all: what could not be written must not be tried again while the interpreter flushes.
            silence_output()
            typer.echo(f"failed: {error.strerror or error}\nNext: df -h", err=True)
            sys.exit(FAILED)


def hoisted(arguments: list[str]) -> list[str]:
    """Return the arguments with the shared options in front; what stands behind `--` is nobody's option."""
    front: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        name, separator, _ = argument.partition("=")
        if argument == "--":
            rest += [argument, *waiting]
        elif name not in _SHARED:
            rest.append(argument)
        else:
            front.append(argument)
            if _SHARED[name] and not separator:
                front += [value for value in [next(waiting, None)] if value is not None]
    return front + rest


app = typer.Typer(
    cls=SharedOptions,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Incident control plane: what is an incident, what state it is in, and who was allowed to change it.",
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"opx {version('opx')}")
        raise typer.Exit


@app.callback()
def shared(
    context: typer.Context,
    stack: Annotated[
        str | None, typer.Option(envvar="OPX_STACK", help="A deployed stack; without it, the local engine.")
    ] = None,
    profile: Annotated[str | None, typer.Option(envvar="OPX_PROFILE", help="The AWS profile for the stack.")] = None,
    region: Annotated[str, typer.Option(envvar="OPX_REGION", help="The stack's region.")] = REGION,
    state_dir: Annotated[
        Path, typer.Option(envvar="OPX_STATE_DIR", help="The local engine's state folder.", show_default=False)
    ] = DEFAULT_STATE,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines instead of tables; the default when piped.")] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    selection = Selection(stack or None, profile or None, region, state_dir.resolve())
    # A test hands in what is around its run.
    around = context.obj or Around()
    context.obj = Invocation(
        around.screen or Screen.of(as_json), selection, as_json, around, context.invoked_subcommand or ""
    )


app.command()(demo)
app.command()(engine.up)
app.command()(engine.down)
app.command()(status.status)
app.command()(send.send)
app.command()(lint)
app.command("list")(list_)
app.command("open")(open_)
app.command()(declaring.declare)
for verb in VERBS:
    app.command(verb.name)(command_of(verb))
app.command()(declaring.evidence)
app.command()(declaring.link)
app.command()(declaring.receipt)
app.add_typer(queue, name="queue")
app.command()(why)
app.add_typer(replay, name="replay")
app.command()(audit)
app.add_typer(policy, name="policy")
app.add_typer(rules, name="rules")
app.add_typer(authority, name="authority")
app.command()(controls.pause)
app.command()(controls.resume)
app.add_typer(controls.maintenance, name="maintenance")
app.command()(tail.tail)
app.command()(gaps)
app.command()(republish)
app.command()(watch)
app.command()(transitions.transitions)
app.command()(environment.environment)


if __name__ == "__main__":
    app()
