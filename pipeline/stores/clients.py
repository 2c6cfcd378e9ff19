"""AWS clients: made here and nowhere else, with the time-outs and retries every call gets, and the one reading of failures.

Retries have one owner each: botocore's standard mode owns transport (three attempts in all); deciding again, resending a
batch's failed entries and redelivery belong to others. Clients belong to the event loop that opened them.
"""

import os
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioAssumeRoleCredentialFetcher, AioDeferredRefreshableCredentials
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ChecksumError, ClientError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError
from botocore.session import Session

from pipeline.domain.errors import Corrupt, OpxError, Unavailable

REGION: Final = "us-east-1"
SERVICES: Final = ("dynamodb", "sqs", "events")
ATTEMPTS_MAX: Final = 3
CONNECT_TIMEOUT_S: Final = 1
READ_TIMEOUT_S: Final = 3
POOL_CONNECTIONS: Final = 50
USER_AGENT: Final = "opx/1.0.0"
ROLE_SESSION: Final = "opx"
# For a session that asks neither the environment nor a settings file: an endpoint given by its address must not be missed,
# or refused before it is asked, because of a profile, a FIPS switch or a settings file that a person has for other things.
DEAF: Final = {
    **{name: (None, None, default, convert) for name, (_, _, default, convert) in Session.SESSION_VARIABLES.items()},
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}

# The service understood the request and will never take it as it is: our code made it wrong, so sending it again is no use
# and dropping it would hide a defect. Everything else may pass (throttling, 5xx, time-outs, expired credentials, a denied
# action, a table or queue that isn't there yet, an unknown code): nothing is dropped, the message is delivered again.
OURS: Final = frozenset(
    {
        "ValidationException",
        "IdempotentParameterMismatchException",
        "ItemCollectionSizeLimitExceededException",
        "SerializationException",
    }
)


@dataclass(frozen=True, slots=True)
class Clients:
    """The open clients of one event loop; one that was not asked for raises where it is used."""

    by_service: dict[str, Any]

    @property
    def dynamodb(self) -> Any:
        return self.by_service["dynamodb"]

    @property
    def sqs(self) -> Any:
        return self.by_service["sqs"]

    @property
    def events(self) -> Any:
        return self.by_service["events"]

    @property
    def ssm(self) -> Any:
        return self.by_service["ssm"]

    def of(self, service: str) -> Any:
        return self.by_service[service]


@asynccontextmanager
async def open_clients(
    services: tuple[str, ...] = SERVICES,
    *,
    region: str = REGION,
    endpoint_url: str | None = None,
    profile: str | None = None,
    keys: tuple[str, str] | None = None,
    role_arn: str | None = None,
) -> AsyncIterator[Clients]:
    """Open one client per service from one session, and close them all. Raises `Unavailable` without credentials.

    With `endpoint_url` no setting from elsewhere counts, and no proxy stands between; `keys` are then the credentials.
    With `role_arn` all calls are made under that role, which is assumed again before its credentials run out.
    """
    direct = endpoint_url is not None
    session = AioSession(session_vars=DEAF if direct else None, profile=profile)
    if keys is not None:
        session.set_credentials(*keys)
    config = AioConfig(
        region_name=region,
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=POOL_CONNECTIONS,
        tcp_keepalive=True,
        # `total_max_attempts` counts the first call too; `max_attempts` would mean retries.
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS_MAX},
        user_agent_extra=USER_AGENT,
        # None means those of the environment; an empty one means none.
        proxies={} if direct else None,
    )
    create = partial(session.create_client, region_name=region, endpoint_url=endpoint_url, config=config)
    if role_arn is not None:
        with translated(f"assuming the role {role_arn}"):
            await _assume(session, role_arn, create)
    async with AsyncExitStack() as stack:
        opened: dict[str, Any] = {}
        for service in services:
            with translated(f"opening the {service} client"):
                client = create(service)
                opened[service] = await stack.enter_async_context(client)
                opened[service].meta.events.register("before-parse.dynamodb", check_body)
        yield Clients(opened)


async def _assume(session: AioSession, role_arn: str, create: Any) -> None:
    """Let a session act under a role. Who assumed it is in CloudTrail, not in the session's name."""
    own = await session.get_credentials()
    if own is None:
        raise NoCredentialsError
    fetcher = AioAssumeRoleCredentialFetcher(create, own, role_arn, extra_args={"RoleSessionName": ROLE_SESSION})
    assumed = AioDeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
    # Now, so that a role that may not be assumed is said before anything is begun.
    await assumed.get_frozen_credentials()
    session._credentials = assumed


def check_body(response_dict: Mapping[str, Any], **context: Any) -> None:
    """Raise ChecksumError where an answer's body is not what DynamoDB sent.

    botocore reads a body that is no JSON as an empty answer, and an empty answer to GetItem means that the row does not
    exist: an incident would be unknown, a receipt absent. Its standard retries, unlike its legacy ones, check no CRC.
    """
    expected = response_dict["headers"].get("x-amz-crc32")
    found = zlib.crc32(response_dict["body"])
    if expected is not None and str(expected) != str(found):
        raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=found)


def translate(error: Exception, doing: str) -> OpxError:
    """Return what a failed call means: `Corrupt` where the service refuses what our code wrote, else `Unavailable`."""
    if isinstance(error, ClientError):
        found = error.response.get("Error", {})
        code = str(found.get("Code", "Unknown"))
        text = f"{doing}: {code}: {str(found.get('Message', ''))[:300]}"
        return Corrupt(text) if code in OURS else Unavailable(text)
    # botocore refuses a request before it is sent only where it doesn't fit the service's own model.
    if isinstance(error, ParamValidationError):
        return Corrupt(f"{doing}: {str(error)[:300]}")
    return Unavailable(f"{doing}: {type(error).__name__}: {str(error)[:300]}")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn botocore's exceptions into ours, around one call."""
    try:
        yield
    # ResponseParserError is no BotoCoreError: something on the way answered in the service's place.
    except (BotoCoreError, ClientError, ResponseParserError) as error:
        raise translate(error, doing) from error
