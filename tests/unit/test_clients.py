"""What a failed call means, and the settings every client is made with."""

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


async def test_only_the_clients_asked_for_are_open() -> None:
    async with open_clients(("sqs",), endpoint_url=NOWHERE) as clients:
        assert clients.of("sqs") is clients.sqs
        with pytest.raises(KeyError):
            _ = clients.dynamodb


async def test_an_unknown_profile_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="nobody"):
        async with open_clients(profile="nobody"):
            pass
