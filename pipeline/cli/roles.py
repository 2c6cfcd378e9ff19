"""Clients under one of the stack's own roles, for what no person's permissions should hold: publishing, redriving.

On AWS the role is assumed with the caller's credentials, whoever is granted it; the local engine has no permissions, and
gives its plain clients.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pipeline.cli.connection import open_at
from pipeline.cli.target import Target
from pipeline.stores.clients import Clients, open_clients


@asynccontextmanager
async def open_as(target: Target, role_output_name: str, services: tuple[str, ...]) -> AsyncIterator[Clients]:
    """Open clients under the role that an output of the stack names. Raises `Unavailable` where it may not be assumed."""
    role_arn = target.output(role_output_name)
    if target.is_local:
        opened = open_at(services, target.region, target.endpoint_url, target.profile)
    else:
        opened = open_clients(services, region=target.region, profile=target.profile, role_arn=role_arn)
    async with opened as clients:
        yield clients
