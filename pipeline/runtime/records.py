"""Lambda's event shapes → the services' values. Pure; the only place that knows how AWS spells a record."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from pipeline.api.requests import HttpRequest
from pipeline.api.routes import Route
from pipeline.domain.authority import signer_of
from pipeline.domain.canonical import Document, parse_time
from pipeline.domain.errors import OpxError
from pipeline.services.fanout import StreamRecord
from pipeline.services.ports import Message
from pipeline.stores.items import from_item


def messages_of(event: Mapping[str, Any], source_of: Mapping[str, str], default_source: str) -> tuple[Message, ...]:
    """Return the messages of an SQS event. `source_of` maps a queue's ARN to its name in opx."""
    return tuple(_message(record, source_of, default_source) for record in event["Records"])


def _message(record: Mapping[str, Any], source_of: Mapping[str, str], default_source: str) -> Message:
    system = record["attributes"]
    return Message(
        message_id=record["messageId"],
        body=record["body"],
        sender_id=system["SenderId"],
        sent_at=datetime.fromtimestamp(int(system["SentTimestamp"]) / 1000, UTC),
        receive_count=int(system["ApproximateReceiveCount"]),
        receipt_handle=record["receiptHandle"],
        source=source_of.get(record["eventSourceARN"], default_source),
        group=system.get("MessageGroupId"),
        attributes={name: _attribute(value) for name, value in record.get("messageAttributes", {}).items()},
    )


def _attribute(value: Mapping[str, Any]) -> Document:
    # Lambda adds empty list members that the sender never wrote.
    return {name: text for name, text in value.items() if isinstance(text, str)}


def scheduled_at(event: Mapping[str, Any]) -> datetime | None:
    """Return the time of an event that EventBridge sends by the clock; None where somebody invokes by hand without one."""
    return parse_time(event["time"]) if "time" in event else None


def http_request_of(event: Mapping[str, Any], route: Route) -> HttpRequest:
    """Return the request in a REST API's proxy event. Takes whatever its sender chose; nothing of it is checked."""
    context = event["requestContext"]
    query = event.get("multiValueQueryStringParameters") or {}
    headers: dict[str, tuple[str, ...]] = {}
    for name, values in (event.get("multiValueHeaders") or {}).items():
        # Two spellings of one name are one header.
        headers[name.lower()] = headers.get(name.lower(), ()) + tuple(values)
    return HttpRequest(
        route=route,
        path={name: unquote(text) for name, text in (event.get("pathParameters") or {}).items()},
        query={name: tuple(values) for name, values in query.items()},
        headers=headers,
        body=event.get("body"),
        sender=signer_of(context.get("identity") or {}),
        request_id=context["requestId"],
        received_at=datetime.fromtimestamp(context["requestTimeEpoch"] / 1000, UTC),
        is_base64=bool(event.get("isBase64Encoded")),
    )


def stream_records_of(event: Mapping[str, Any]) -> tuple[StreamRecord, ...]:
    """Return the changes in a DynamoDB stream event; one that can't be read says so instead of failing the batch."""
    return tuple(_stream_record(record) for record in event["Records"])


def _stream_record(record: Mapping[str, Any]) -> StreamRecord:
    change = str(record.get("eventName"))
    incident: str | None = None
    sequence: int | None = None
    try:
        told = record["dynamodb"]
        incident = told["Keys"]["incidentId"]["S"]
        sequence = _number(told["Keys"]["sequence"]["N"])
        document = from_item(told["NewImage"]) if "NewImage" in told else None
    except (OpxError, KeyError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        return StreamRecord(change, incident, sequence, None, f"{type(error).__name__}: {error}")
    return StreamRecord(change, incident, sequence, document)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("the key's sequence is not a number from 1")
    return int(text)
