"""A DynamoDB stream's event as Lambda hands it over, made from stored documents."""

from collections.abc import Iterable
from typing import Any, Final

from pipeline.domain.canonical import Document
from pipeline.domain.envelope import event_hash
from pipeline.runtime.records import stream_records_of
from pipeline.services.fanout import StreamRecord
from pipeline.stores.items import to_item
from tests.support.histories import whole_life

STREAM: Final = "arn:aws:dynamodb:us-east-1:123456789012:table/opx-incident-events/stream/2026-01-31T00:00:00.000"


def stored() -> list[Document]:
    """Return the documents of two whole histories, every event type among them."""
    return [event.to_document() for history in whole_life() for event in history]


def sealed(document: Document) -> Document:
    """Return the document with the hash of what it says now."""
    return document | {"hash": event_hash(document)}


def record(document: Document, change: str = "INSERT", **image: Any) -> dict[str, Any]:
    """Return one stream record; attributes in `image` replace those of the new image, `...` leaves one out."""
    item: dict[str, Any] = to_item(document)
    keys = {"incidentId": item["incidentId"], "sequence": item["sequence"]}
    shown = {name: value for name, value in (item | image).items() if value is not ...}
    told = {"Keys": keys, "SequenceNumber": "4421584500000000017450439091", "StreamViewType": "NEW_IMAGE"}
    if change != "REMOVE":
        told["NewImage"] = shown
    common = {"eventVersion": "1.1", "eventSource": "aws:dynamodb", "awsRegion": "us-east-1", "eventSourceARN": STREAM}
    return {"eventID": "c4ca4238a0b923820dcc509a6f75849b", "eventName": change, "dynamodb": told} | common


def read(*records: dict[str, Any]) -> tuple[StreamRecord, ...]:
    return stream_records_of({"Records": list(records)})


def read_all(documents: Iterable[Document]) -> tuple[StreamRecord, ...]:
    return read(*[record(document) for document in documents])
