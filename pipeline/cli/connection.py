"""Opens AWS clients for a command, with the credentials that fit: the person's own, or the local engine's dummy ones.

What is meant for the local engine must never be signed with, or stopped by, whatever a person has set up for AWS.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.local.environment import ACCESS_KEY_ID, SECRET_ACCESS_KEY
from pipeline.stores.clients import Clients, open_clients


@asynccontextmanager
async def open_at(
    services: tuple[str, ...], region: str, endpoint_url: str | None, profile: str | None
) -> AsyncIterator[Clients]:
    """Open clients at the local engine (`endpoint_url`) or in an account. Raises `Unavailable` without credentials."""
    if endpoint_url is None:
        opened = open_clients(services, region=region, profile=profile)
    else:
        keys = (ACCESS_KEY_ID, SECRET_ACCESS_KEY)
        opened = open_clients(services, region=region, endpoint_url=endpoint_url, keys=keys)
    async with opened as clients:
        yield clients
