"""The deployed stack, one for the whole run: template.yaml in the local engine, as `opx up` would put it there."""

import pytest

from pipeline.local.engine import RunningEngine
from tests.support.stack import Stack, deployed


@pytest.fixture(scope="session")
def stack(engine: RunningEngine) -> Stack:
    return deployed(engine)
