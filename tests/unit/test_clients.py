"""What a failed call means, and the settings every client is made with."""

import time
from typing import Any

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from pipeline.domain.errors import Corrupt, Unavailable
from pipeline.local.deploy import aws
from pipeline.stores.clients import open_clients, translate, translated

NOWHERE = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    "code",
    [
        "ThrottlingException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "TransactionInProgressException",
        "TransactionConflictException",
        "InternalServerError",
        "ServiceUnavailable",
        "ExpiredTokenException",
        "UnrecognizedClientException",
        "AccessDeniedException",
        "ResourceNotFoundException",
        "SomethingNew",
    ],
)
def test_what_may_pass_is_unavailable(code: str) -> None:
    error = ClientError({"Error": {"Code": code, "Message": "why"}}, "TransactWriteItems")
    found = translate(error, "TransactWriteItems")
    assert isinstance(found, Unavailable)
    assert str(found) == f"TransactWriteItems: {code}: why"


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url=NOWHERE),
        ConnectTimeoutError(endpoint_url=NOWHERE),
        ReadTimeoutError(endpoint_url=NOWHERE),
        NoCredentialsError(),
        ResponseParserError("not the service"),
    ],
)
def test_no_answer_is_unavailable(error: Exception) -> None:
    with pytest.raises(Unavailable), translated("GetItem"):
        raise error


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ValidationException", "Message": "empty key"}}, "PutItem"),
        ClientError({"Error": {"Code": "IdempotentParameterMismatchException"}}, "TransactWriteItems"),
        ParamValidationError(report="Missing required parameter"),
    ],
)
def test_what_we_wrote_wrong_is_corruption_not_an_outage(error: Exception) -> None:
    with pytest.raises(Corrupt), translated("PutItem"):
        raise error


def test_what_is_not_botocores_passes_through() -> None:
    with pytest.raises(KeyError), translated("GetItem"):
        raise KeyError("ours")


async def test_clients_have_one_owner_of_retries_and_short_time_outs() -> None:
    async with open_clients(endpoint_url=NOWHERE) as clients:
        for client in (clients.dynamodb, clients.sqs, clients.events):
            config: Any = client.meta.config
            assert config.retries == {"mode": "standard", "total_max_attempts": 3}
            assert (config.connect_timeout, config.read_timeout) == (1, 3)
            assert config.max_pool_connections == 50
            assert config.tcp_keepalive is True
            assert "opx/1.0.0" in config.user_agent
            assert client.meta.region_name == "us-east-1"


async def test_an_engine_that_is_not_there_is_unavailable_after_three_attempts() -> None:
    attempts: list[str] = []
    async with open_clients(("dynamodb",), endpoint_url=NOWHERE) as clients:
        clients.dynamodb.meta.events.register("before-send.dynamodb.*", lambda **sent: attempts.append("sent"))
        with pytest.raises(Unavailable, match="EndpointConnectionError"), translated("ListTables"):
            await clients.dynamodb.list_tables()
    assert len(attempts) == 3


RUBBISH = {
    **dict.fromkeys(
        ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:1"
    ),
    **dict.fromkeys(("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"), "a-persons-own"),
    "AWS_CONFIG_FILE": "no such file",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:2",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_MAX_ATTEMPTS": "many",
    "AWS_RETRY_MODE": "never",
    "AWS_DEFAULTS_MODE": "none",
}


@pytest.fixture
def rubbish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    for name, value in RUBBISH.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("rubbish")
async def test_an_endpoint_given_by_its_address_is_asked_itself_whatever_the_environment_says() -> None:
    asked: list[Any] = []
    async with open_clients(endpoint_url=NOWHERE, keys=("key", "secret")) as clients:
        for service in ("dynamodb", "sqs", "events"):
            client = clients.of(service)
            client.meta.events.register(f"before-send.{service}.*", lambda request, **sent: asked.append(request))
        # A proxy in between would answer with ProxyConnectionError.
        for call in (clients.dynamodb.list_tables, clients.sqs.list_queues, clients.events.list_rules):
            with pytest.raises(Unavailable, match="EndpointConnectionError"), translated("asking"):
                await call()
    assert {request.url for request in asked} == {f"{NOWHERE}/"}
    assert all(b"Credential=key/" in request.headers["Authorization"] for request in asked)


@pytest.mark.usefixtures("rubbish")
def test_a_deployment_asks_its_engine_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between botocore's attempts
    for service, call in (("s3", "list_buckets"), ("cloudformation", "describe_stacks")):
        with pytest.raises(EndpointConnectionError, match=NOWHERE):
            getattr(aws(NOWHERE, service), call)()


async def test_without_an_address_a_persons_proxy_and_endpoint_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    async with open_clients(("sqs",)) as clients:
        assert clients.sqs.meta.endpoint_url == "http://127.0.0.1:2"
        assert clients.sqs.meta.config.proxies is None


async def test_only_the_clients_asked_for_are_open() -> None:
    async with open_clients(("sqs",), endpoint_url=NOWHERE) as clients:
        assert clients.of("sqs") is clients.sqs
        with pytest.raises(KeyError):
            _ = clients.dynamodb


async def test_an_unknown_profile_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="nobody"):
        async with open_clients(profile="nobody"):
            pass


async def test_a_role_that_can_not_be_assumed_is_said_before_anything_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    role = "arn:aws:iam::123456789012:role/opx-republish"
    with pytest.raises(Unavailable, match=f"assuming the role {role}: EndpointConnectionError"):
        async with open_clients(("sqs",), endpoint_url=NOWHERE, keys=("key", "secret"), role_arn=role):
            pass
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(Unavailable, match=f"assuming the role {role}: NoCredentials"):
        async with open_clients(("sqs",), role_arn=role):
            pass
