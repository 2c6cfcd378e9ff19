"""One event loop and one set of clients per execution environment, however many invocations it takes."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from pipeline.runtime.loop import Environment


@pytest.fixture
def environment() -> Iterator[Environment]:
    made = Environment()
    yield made
    made.close()


async def this_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


class Client:
    """Belongs to the loop it was opened on, as aiobotocore's clients do."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.opened = self.closed = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Client"]:
        self.loop = asyncio.get_running_loop()
        self.opened += 1
        yield self
        assert asyncio.get_running_loop() is self.loop
        self.closed += 1

    async def call(self) -> str:
        assert asyncio.get_running_loop() is self.loop, "used on another loop"
        return "answer"


def test_invocations_share_one_loop_with_what_was_opened(environment: Environment) -> None:
    client = environment.open(Client().open())
    assert environment.run(client.call()) == "answer"
    assert environment.run(client.call()) == "answer"
    assert client.opened == 1
    assert environment.run(this_loop()) is client.loop


def test_no_task_is_left_behind_by_an_invocation(environment: Environment) -> None:
    async def invocation() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        return len(asyncio.all_tasks())

    async def others() -> set[str]:
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert environment.run(invocation()) == 1
    assert environment.run(others()) == set()


def test_a_failed_invocation_leaves_the_loop_usable(environment: Environment) -> None:
    async def fails() -> None:
        raise ZeroDivisionError

    client = environment.open(Client().open())
    with pytest.raises(ZeroDivisionError):
        environment.run(fails())
    assert environment.run(client.call()) == "answer"


def test_closing_leaves_everything_in_turn_and_twice_is_harmless() -> None:
    environment, first, second = Environment(), Client(), Client()
    environment.open(first.open())
    environment.open(second.open())
    loop = environment.run(this_loop())
    environment.close()
    assert (first.closed, second.closed) == (1, 1)
    assert loop.is_closed()
    environment.close()
    assert (first.closed, second.closed) == (1, 1)


def test_a_resource_that_cannot_be_opened_leaves_the_others_open(environment: Environment) -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ZeroDivisionError
        yield

    client = environment.open(Client().open())
    with pytest.raises(ZeroDivisionError):
        environment.open(broken())
    assert environment.run(client.call()) == "answer"


PROGRAM = """
from contextlib import asynccontextmanager
from pipeline.runtime.loop import Environment

@asynccontextmanager
async def client():
    print("opened")
    yield
    print("closed")

environment = Environment()
environment.open(client())
"""


def test_the_end_of_the_process_closes_what_is_open_without_a_warning() -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr, done.returncode) == (["opened", "closed"], "", 0)
