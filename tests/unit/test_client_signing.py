"""Signature Version 4 of requests to the API, computed a second time here, from AWS's description of it and nothing else."""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

import httpx
import pytest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.session import Session

from pipeline.clients import calls
from pipeline.clients.exchange import request_of
from pipeline.clients.signing import SigV4, region_of, sign

BASE = "https://abc123.execute-api.eu-central-1.amazonaws.com/v1"
LOCAL = "http://127.0.0.1:4599/restapis/abc123/v1/_user_request_"
REGION = "eu-central-1"
INCIDENT = "8a0e2b52-4a2e-5c1c-9d6f-0a1b2c3d4e5f"
KEYS = Credentials("AKIDEXAMPLE", "secret/key", "session==token")


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected_signature(request: httpx.Request, secret: str) -> str:
    """Return the signature that AWS computes from what arrives: method, escaped path, sorted query, signed headers, body."""
    fields = dict(part.strip().split("=", 1) for part in request.headers["Authorization"].split(" ", 1)[1].split(","))
    _, date, region, service, _ = fields["Credential"].split("/")
    url = urlsplit(request.url.raw_path.decode())
    names = fields["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            request.method,
            # Every service but S3: each part of the path as it arrives is escaped once more.
            "/".join(quote(part, safe="-_.~") for part in url.path.split("/")),
            # Read as what it means, and escaped anew: but for letters, digits and -_.~ everything is.
            "&".join(sorted("=".join(quote(part, safe="-_.~") for part in pair) for pair in parse_qsl(url.query, True))),
            *(f"{name}:{' '.join(request.headers[name].split())}" for name in names),
            "",
            ";".join(names),
            hashed(request.content),
        ]
    )
    scope = f"{date}/{region}/{service}/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", request.headers["X-Amz-Date"], scope, hashed(canonical.encode())])
    key = f"AWS4{secret}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


def signature(request: httpx.Request) -> str:
    return str(request.headers["Authorization"]).split("Signature=")[1]


CALLS = [
    calls.receipt("deploy:2026.01_31-a", None),
    calls.receipt("k", "AROAEXAMPLE"),
    calls.incident(INCIDENT, None, datetime(2026, 1, 31, 3, 0, tzinfo=UTC)),
    calls.incidents({"state": "OPEN", "service": "käse & co/a+b *~", "from": "2026-01-31T03:00:00+01:00"}, 10, "ey=-_"),
    calls.declare({"service": "checkout", "severity": "SEV2", "title": "ünï"}, {"idempotency_key": "a:b", "dry_run": True}),
    calls.on_incident(INCIDENT, "state", {"newState": "RESOLVED"}, {"if_match": 7}, method="PATCH"),
    calls.on_incident("8A:/?#", "notes", {"note": "x"}, {"if_match": "*"}),
]


@pytest.mark.parametrize("base_url", [BASE, LOCAL, BASE + "/"])
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name[:40])
def test_what_is_signed_is_what_is_sent(call: calls.Call, base_url: str) -> None:
    with httpx.Client() as client:
        request = request_of(call, base_url, client, 1.0)
    sign(request, KEYS, REGION)
    assert signature(request) == expected_signature(request, KEYS.secret_key)
    assert request.url.raw_path.decode() == urlsplit(base_url.rstrip("/")).path + call.target


def test_what_has_a_meaning_in_a_path_is_escaped_there() -> None:
    assert calls.receipt("deploy:7", None).target == "/receipts/deploy%3A7"
    assert calls.incident("../a/b?c#d", None, None).target == "/incidents/..%2Fa%2Fb%3Fc%23d"
    with pytest.raises(ValueError, match="can't stand in a path"):
        calls.incident("..", None, None)


def test_a_body_or_key_changed_on_the_way_breaks_the_signature() -> None:
    with httpx.Client() as client:
        request = request_of(CALLS[4], BASE, client, 1.0)
    sign(request, KEYS, REGION)
    assert "content-type;host;idempotency-key;x-amz-date;x-amz-security-token" in request.headers["Authorization"]
    request.headers["Idempotency-Key"] = "another"
    assert signature(request) != expected_signature(request, KEYS.secret_key)


def test_a_session_token_is_sent_and_signed_and_an_old_one_is_not_left() -> None:
    request = httpx.Request("GET", BASE + "/incidents", headers={"X-Amz-Security-Token": "old"})
    sign(request, KEYS, REGION)
    assert request.headers["X-Amz-Security-Token"] == "session==token"
    assert "x-amz-security-token" in request.headers["Authorization"]
    sign(request, Credentials("AKIDEXAMPLE", "secret"), REGION)
    assert "X-Amz-Security-Token" not in request.headers
    assert signature(request) == expected_signature(request, "secret")


class SessionOf(Session):  # type: ignore[misc] # botocore is not typed
    """A session whose credentials are these, or none."""

    def __init__(self, credentials: Credentials | None) -> None:
        super().__init__()
        self.found = credentials

    def get_credentials(self) -> Credentials | None:
        return self.found


async def test_credentials_that_end_are_renewed_before_a_request_is_signed() -> None:
    def issued(name: str, ends: datetime) -> dict[str, str]:
        return {"access_key": f"AKID{name}", "secret_key": name, "token": name, "expiry_time": ends.isoformat()}

    now = datetime.now(UTC)
    old = issued("old", now - timedelta(minutes=1))
    credentials = RefreshableCredentials.create_from_metadata(old, lambda: issued("new", now + timedelta(hours=1)), "test")
    auth = SigV4(REGION, SessionOf(credentials))
    used: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        used.append(request.headers["Authorization"].split("Credential=")[1].split("/")[0])
        assert signature(request) == expected_signature(request, "new")
        return httpx.Response(200)

    def blocking() -> None:
        with httpx.Client(transport=httpx.MockTransport(answer), auth=auth) as client:
            client.post(BASE, content=b"{}")

    blocking()
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as awaited:
        await awaited.post(BASE, content=b"{}")
    assert used == ["AKIDnew", "AKIDnew"]


def test_without_credentials_nothing_is_made() -> None:
    with pytest.raises(NoCredentialsError):
        SigV4(REGION, SessionOf(None))


def test_the_region_is_in_the_apis_name_or_is_asked_for() -> None:
    session = Session()
    assert region_of(BASE, None, session) == "eu-central-1"
    assert region_of(BASE, "us-west-2", session) == "us-west-2"
    assert region_of("https://x.execute-api.cn-north-1.amazonaws.com.cn/v1", None, session) == "cn-north-1"
    assert region_of(LOCAL, None, session) == "us-east-1"
    with pytest.raises(ValueError, match="say region="):
        region_of("https://opx.example.com/v1", None, Regionless())


class Regionless(Session):  # type: ignore[misc] # botocore is not typed
    """A session where no region is configured."""

    def get_config_variable(self, logical_name: str, methods: object = None) -> None:
        return None
