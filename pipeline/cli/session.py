"""What a command works with: its target, open clients, and the store on the target's tables; and how a command is run.

`run` is the one place where errors become exit codes: 0 done, 1 refused, 2 failed, 130 and 143 interrupted.
"""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import typer

from pipeline.cli.calling import Api, open_api, refused, unanswered
from pipeline.cli.connection import open_at
from pipeline.cli.target import Selection, Target, resolve
from pipeline.cli.terminal import DONE, INTERRUPTED, REFUSED, TERMINATED, CommandError, Screen, ask
from pipeline.clients.answers import ApiRefused, ApiUnavailable
from pipeline.domain.errors import Corrupt, Rejected, Unavailable
from pipeline.local.engine import EngineError
from pipeline.runtime.clock import SystemClock
from pipeline.runtime.overlay import ConfigError
from pipeline.services.ports import IncidentStore
from pipeline.stores.clients import Clients
from pipeline.stores.dynamodb import DynamoIncidentStore, Tables

ALL: tuple[str, ...] = ("dynamodb", "sqs", "events")
Reach = Callable[[Selection], AbstractAsyncContextManager[Api]]


@dataclass(frozen=True, slots=True)
class Around:
    """What a run of `opx` has around it: how it reaches the API, and whom it can ask. Tests put it into their own."""

    reach: Reach = open_api
    ask: Callable[[str], bool | None] = ask
    screen: Screen | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One run of `opx`: where it writes, what was asked for on its command line, and what is around it.

    `command` is the name of the one that runs.
    """

    screen: Screen
    selection: Selection
    json_asked: bool = False
    around: Around = Around()
    command: str = ""

    @property
    def opx(self) -> str:
        """Return how to call `opx` on the same target again."""
        return f"opx{self.selection.flags}"

    def api(self) -> AbstractAsyncContextManager[Api]:
        """Open the target's API."""
        return self.around.reach(self.selection)


@dataclass(frozen=True, slots=True)
class Session:
    """A target with open clients."""

    target: Target
    clients: Clients

    @property
    def store(self) -> IncidentStore:
        output = self.target.output
        tables = Tables(output("IncidentsTableName"), output("EventsTableName"), output("IdempotencyTableName"))
        return DynamoIncidentStore(self.clients.dynamodb, tables, SystemClock())


@asynccontextmanager
async def open_session(selection: Selection, *services: str) -> AsyncIterator[Session]:
    """Find the target and open clients there (all three kinds unless some are named)."""
    async with session_at(await resolve(selection), *services) as session:
        yield session


@asynccontextmanager
async def session_at(target: Target, *services: str) -> AsyncIterator[Session]:
    """Open clients at a known target."""
    async with open_at(services or ALL, target.region, target.endpoint_url, target.profile) as clients:
        yield Session(target, clients)


def run(context: typer.Context, work: Callable[[Invocation], Coroutine[Any, Any, int]]) -> None:
    """Run a command to its exit code."""
    invocation: Invocation = context.obj
    with guarded(invocation):
        raise typer.Exit(execute(work(invocation)))


def execute(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work on a loop of its own; Ctrl-C and SIGTERM let it clean up first. Returns its exit code."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        tasks: list[asyncio.Task[int]] = []

        async def main() -> int:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            loop.add_signal_handler(signal.SIGTERM, task.cancel)
            return await work

        try:
            return runner.run(main())
        except asyncio.CancelledError:
            return TERMINATED


@contextmanager
def guarded(invocation: Invocation) -> Iterator[None]:
    """Turn errors into a message, the next command, and an exit code."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # Whoever read us has gone (`| head`): nothing is left to say.
        silence_output()
        raise typer.Exit(DONE) from None
    except (CommandError, ConfigError, Rejected, ApiRefused, Unavailable, Corrupt, EngineError) as error:
        explained = explain(error, invocation)
        invocation.screen.fail(explained)
        raise typer.Exit(explained.exit_code) from None


def silence_output() -> None:
    """Write nothing more to standard output, also not while the interpreter flushes."""
    # What has no file behind it can't fail there either.
    with suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: Exception, invocation: Invocation) -> CommandError:
    """Return what an error means to a person, with the next command."""
    match error:
        case CommandError():
            return error
        case Rejected():
            return CommandError(
                error.refusal.sentence(), f"{invocation.opx} {invocation.command} --help".replace("  ", " "), REFUSED
            )
        case ApiRefused():
            return refused(error, invocation.opx, invocation.command)
        case ApiUnavailable():
            return unanswered(error, invocation.opx)
        case ConfigError():
            return CommandError(f"The configuration can't be used. {error}", "edit the named file", REFUSED)
        case EngineError():
            # Its text ends with what to do next.
            message, separator, then = str(error).rpartition("Next: ")
            return CommandError(message.strip(), then) if separator else CommandError(str(error), "opx up")
        case Corrupt():
            return CommandError(f"The store contradicts itself: {error}", f"{invocation.opx} status")
        case _:
            return CommandError(str(error), _after_unavailable(str(error), invocation))


def _after_unavailable(text: str, invocation: Invocation) -> str:
    selection = invocation.selection
    if selection.stack is None:
        return "opx up"
    profile = f" --profile {selection.profile}" if selection.profile else ""
    if any(sign in text for sign in ("AccessDenied", "Credential", "Token", "Profile", "Unauthorized", "not authorized")):
        return f"aws sts get-caller-identity{profile}"
    return f"{invocation.opx} status"
