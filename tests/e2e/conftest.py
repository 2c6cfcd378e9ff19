"""The deployed stack, one for the whole run: template.yaml in the local engine, as `opx up` would put it there."""

from collections.abc import Iterator

import pytest

from pipeline.clients.operator import Operator
from pipeline.local.engine import RunningEngine
from tests.support.caller import Caller, calling
from tests.support.stack import Stack, deployed


@pytest.fixture(scope="session")
def stack(engine: RunningEngine) -> Stack:
    return deployed(engine)


@pytest.fixture(scope="module")
def operator(stack: Stack) -> Iterator[Operator]:
    with calling(stack) as found:
        yield found


@pytest.fixture
def caller(stack: Stack, operator: Operator) -> Caller:
    return Caller(stack, operator)
