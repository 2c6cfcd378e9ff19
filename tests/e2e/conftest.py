"""The stack as template.yaml deploys it, on an engine of its own that ends with the tests."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import botocore.session
import pytest

from pipeline.local import deploy
from pipeline.local import engine as local_engine
from pipeline.local.engine import RunningEngine


@dataclass(frozen=True)
class Stack:
    """A deployed stack: its outputs, and clients that reach it."""

    engine: RunningEngine
    outputs: dict[str, str]

    @property
    def endpoint_url(self) -> str:
        return self.engine.endpoint_url

    def client(self, service: str) -> Any:
        return botocore.session.get_session().create_client(
            service,
            region_name="us-east-1",
            endpoint_url=self.endpoint_url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A freshly deployed stack; everything the end-to-end tests do, they do to this one."""
    state = tmp_path_factory.mktemp("stack")
    engine = local_engine.start(state, leash=True)
    try:
        yield Stack(engine, deploy.deploy(engine))
    finally:
        local_engine.stop(state)
