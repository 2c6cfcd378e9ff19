"""Requests of the HTTP API signed as AWS wants them, by somebody who knows nothing of opx: `requests` and botocore."""

from typing import Any

import requests
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from pipeline.local.environment import ACCESS_KEY_ID, REGION, SECRET_ACCESS_KEY
from tests.support.stack import Stack


class Signed(requests.auth.AuthBase):
    """Signs each request for API Gateway, with the local engine's own credentials."""

    def __init__(self) -> None:
        self.signer = SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "execute-api", REGION)

    def __call__(self, request: Any) -> Any:
        asked = AWSRequest(method=request.method, url=request.url, data=request.body or b"")
        self.signer.add_auth(asked)
        request.headers.update(dict(asked.headers.items()))
        return request


def api_url(stack: Stack) -> str:
    """Return where the stack's API answers on this machine: a path of the engine, as nothing resolves its host name."""
    return f"{stack.endpoint_url}/restapis/{stack.outputs['ApiId']}/{stack.outputs['ApiStageName']}/_user_request_"
