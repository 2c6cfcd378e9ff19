"""Opens AWS clients for a command, with the credentials that fit: the person's own, or the local engine's dummy ones.

What is meant for the local engine must never be signed with, or stopped by, whatever credentials a person has set up.
"""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Final

from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from pipeline.stores.clients import Clients, open_clients

# Settings of a person's that could redirect a client or make it fail before it asks anybody.
_FOREIGN: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
_SEALED: Final = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "AWS_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@asynccontextmanager
async def open_at(
    services: tuple[str, ...], region: str, endpoint_url: str | None, profile: str | None
) -> AsyncIterator[Clients]:
    """Open clients at the local engine (`endpoint_url`) or in an account. Raises `Unavailable` without credentials."""
    if endpoint_url is None:
        async with open_clients(services, region=region, profile=profile) as clients:
            yield clients
        return
    async with AsyncExitStack() as stack:
        # Credentials and settings are read while the clients are made, and never again.
        with _sealed_environment():
            opened = open_clients(services, region=region, endpoint_url=endpoint_url)
            clients = await stack.enter_async_context(opened)
        yield clients


@contextmanager
def _sealed_environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        for name in _FOREIGN:
            os.environ.pop(name, None)
        os.environ.update(_SEALED)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
