"""Signs each request with AWS's Signature Version 4: an `httpx.Auth`, for sync and async clients alike.

Credentials are found the ordinary way (environment, profile, single sign-on, the machine's role) and renewed before they
end; each sending, a retry too, is signed anew. What is signed is exactly what is sent: path and query as they stand.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

import httpx
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import NoCredentialsError
from botocore.session import Session

SERVICE: Final = "execute-api"
_API_HOST: Final = re.compile(r"\.execute-api\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?$")
# What a proxy on the way could not change unnoticed, beside host and time, which are always signed.
SIGNED: Final = ("Content-Type", "Idempotency-Key", "If-Match")
_ADDED: Final = ("Authorization", "X-Amz-Date", "X-Amz-Security-Token")


class SigV4(httpx.Auth):
    """Signs for API Gateway. Use it with an httpx client of your own to reach what `Operator` has no method for."""

    requires_request_body = True

    def __init__(self, region: str, session: Session) -> None:
        self.region = region
        self._credentials = session.get_credentials()
        if self._credentials is None:
            raise NoCredentialsError

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.read()
        sign(request, self._credentials.get_frozen_credentials(), self.region)
        yield request

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        await request.aread()
        # Renewing credentials asks another service, and waits for it.
        frozen = await asyncio.to_thread(self._credentials.get_frozen_credentials)
        sign(request, frozen, self.region)
        yield request


def sign(request: httpx.Request, credentials: Any, region: str) -> None:
    """Put a signature over method, URL, body and the headers that matter into a request's headers."""
    # Signed is what goes on the wire: the very bytes of the URL, and the same Host.
    url = f"{request.url.scheme}://{request.url.netloc.decode()}{request.url.raw_path.decode()}"
    headers = {name: request.headers[name] for name in ("Host", *SIGNED) if name in request.headers}
    signed = AWSRequest(method=request.method, url=url, data=request.content, headers=headers)
    SigV4Auth(credentials, SERVICE, region).add_auth(signed)
    for name in _ADDED:
        request.headers.pop(name, None)
        if name in signed.headers:
            request.headers[name] = signed.headers[name]


def region_of(base_url: str, named: str | None, session: Session) -> str:
    """Return the region to sign for: the one named, the one in the API's own host name, or the configured one."""
    in_host = _API_HOST.search(httpx.URL(base_url).host)
    found: str | None = named or (in_host[1] if in_host else None) or session.get_config_variable("region")
    if not found:
        raise ValueError(f"which region {base_url} is in can't be told: say region= or set AWS_DEFAULT_REGION")
    return found
