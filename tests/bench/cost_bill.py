"""From counted units and a price file to a bill. Pure: reads nothing, measures nothing.

An item is a quantity under one price. Those of a lifecycle grow with the load; the fixed ones come each month regardless.
Where AWS's own behaviour is assumed and not counted, the assumption stands by name in the price file.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.bench.cost_lifecycle import COMMANDS, MESSAGES, STEPS
from tests.bench.cost_lines import FANOUT, READ
from tests.bench.cost_stack import Stack

GB: Final = 2**30
MINUTES_A_DAY: Final = 1440
KEPT = "DynamoDB, kept"


@dataclass(frozen=True, slots=True)
class Item:
    """So much of something that has a price. `service`: whose line of the bill it is on."""

    service: str
    what: str
    quantity: float
    price: str


@dataclass(frozen=True)
class Book:
    """A price file, and what was counted, as they are checked in."""

    prices: dict[str, dict[str, Any]]
    assumed: dict[str, float]
    counted: dict[str, Any]
    stack: Stack

    def usd(self, item: Item) -> float:
        price = self.prices[item.price]
        return float(item.quantity * price["usd"] / price["per"])

    def total(self, items: Iterable[Item]) -> float:
        return sum(self.usd(item) for item in items)

    @property
    def minutes(self) -> float:
        """Return how many minutes a month has."""
        return self.assumed["daysAMonth"] * MINUTES_A_DAY


def by_service(book: Book, items: Iterable[Item]) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in items:
        found[item.service] = found.get(item.service, 0.0) + book.usd(item)
    return found


def of_a_life(book: Book, steps: Sequence[str] = STEPS) -> Iterator[Item]:
    """Yield what an incident consumes that goes through `steps`; a month of keeping what is left included."""
    assumed, stack, taken = book.assumed, book.stack, [book.counted["steps"][step] for step in steps]
    events = sum(one["events"] for one in taken)
    part = events / book.counted["events"]
    saved = (1 - assumed["refusedCost"]) * sum(one["refusedUnits"] for one in taken)
    writes = sum(one["writeUnits"] + one["indexUnits"] for one in taken) - saved
    yield Item("DynamoDB", "writes", writes, "dynamodb.write")
    yield Item("DynamoDB", "reads", sum(one["readUnits"] for one in taken), "dynamodb.read")
    stored = part * _stored_bytes(book) / GB
    yield Item(KEPT, "a month of it", stored, "dynamodb.storage")
    yield Item(KEPT, "a month of its backups", stored, "dynamodb.pitr")
    requests = len(set(MESSAGES) & set(steps)) * (1 + 2 / assumed["messagesABatch"])
    yield Item("SQS", "send, receive, delete", requests, "sqs.standard")
    yield Item("SQS", "their message groups", requests, "sqs.fair")
    calls = _invocations(book, steps)
    ms = {"candidates": assumed["candidateMs"], "api": assumed["apiWriteMs"], "fanout": assumed["fanoutMs"]}
    yield Item("Lambda", "invocations", sum(calls.values()), "lambda.request")
    seconds = sum(many * ms[door] for door, many in calls.items()) / 1000
    yield Item("Lambda", "duration", seconds * stack.memory_gb, f"lambda.{stack.architecture}")
    yield Item("API Gateway", "a person's commands", calls["api"], "apigateway.request")
    archived = part * (book.counted["eventBytes"] + book.counted["events"] * assumed["envelopeBytes"]) / GB
    yield Item("EventBridge", "events", events, "eventbridge.event")
    yield Item("EventBridge", "taken into the archive", archived, "eventbridge.archived")
    yield Item("EventBridge", "kept there", archived * stack.archive_days / assumed["daysAMonth"], "eventbridge.archive")
    logged = _logged_bytes(book, steps) / GB
    yield Item("CloudWatch", "logs", logged, "logs.ingested")
    yield Item("CloudWatch", "logs kept", logged * stack.log_days / assumed["daysAMonth"], "logs.stored")


def of_a_month(book: Book) -> Iterator[Item]:
    """Yield what a stack costs in a month in which nothing happens."""
    assumed, stack, minutes = book.assumed, book.stack, book.minutes
    days = assumed["daysAMonth"]
    polls = assumed["pollers"] * minutes * 60 / assumed["pollS"]
    looks = stack.health_runs_a_day * days
    yield Item("SQS", "empty receives of Lambda's pollers", stack.polled_standard * polls, "sqs.standard")
    yield Item("SQS", "the same on the FIFO queue", stack.polled_fifo * polls, "sqs.fifo")
    yield Item("SQS", "looks of the health function", stack.looked_at_standard * looks, "sqs.standard")
    yield Item("SQS", "the same at FIFO queues", stack.looked_at_fifo * looks, "sqs.fifo")
    runs = stack.retention_runs_a_day * days
    seconds = (looks * assumed["healthMs"] + runs * assumed["retentionMs"]) / 1000
    yield Item("Lambda", "runs of health and retention", looks + runs, "lambda.request")
    yield Item("Lambda", "their duration", seconds * stack.memory_gb, f"lambda.{stack.architecture}")
    yield Item("DynamoDB", "what a run of retention looks at", runs * book.counted["retentionRunReadUnits"], "dynamodb.read")
    written = len(stack.scheduled_metrics | set(book.counted["metrics"]))
    yield Item("CloudWatch", "metrics of opx that a life without trouble writes", written, "cloudwatch.metric")
    used = min(assumed["methodsInUse"], stack.methods) * stack.metrics_a_method
    yield Item("CloudWatch", "metrics of API Gateway's methods in use", used, "cloudwatch.metric")
    yield Item("CloudWatch", "alarms", stack.alarm_metrics, "cloudwatch.alarm")
    yield Item("CloudWatch", "dashboards", stack.dashboards, "cloudwatch.dashboard")
    logged = looks * (assumed["healthLogBytes"] + assumed["platformLogBytes"]) + runs * assumed["platformLogBytes"]
    yield Item("CloudWatch", "logs of health and retention", logged / GB, "logs.ingested")
    keys = stack.tables * stack.deciding_functions * minutes / assumed["keyRequestMinutes"]
    yield Item("KMS", "keys of the tables", keys, "kms.request")


def of_a_bad_month(book: Book) -> Iterator[Item]:
    """Yield what comes on top where every metric there is is written in every hour."""
    rest = book.stack.metrics - len(book.stack.scheduled_metrics | set(book.counted["metrics"]))
    yield Item("CloudWatch", "metrics of trouble", rest, "cloudwatch.metric")
    unused = max(0.0, book.stack.methods - book.assumed["methodsInUse"]) * book.stack.metrics_a_method
    yield Item("CloudWatch", "metrics of all other methods", unused, "cloudwatch.metric")


def of_a_read(book: Book) -> Iterator[Item]:
    """Yield what one read of an incident by the API consumes."""
    yield Item("API Gateway", "request", 1, "apigateway.request")
    yield Item("Lambda", "invocation", 1, "lambda.request")
    seconds = book.assumed["apiReadMs"] / 1000
    yield Item("Lambda", "duration", seconds * book.stack.memory_gb, f"lambda.{book.stack.architecture}")
    yield Item("DynamoDB", "read", book.counted["read"]["incident"], "dynamodb.read")
    logged = (_lines(book, READ) + _platform(book) + _access(book)) / GB
    yield Item("CloudWatch", "logs", logged, "logs.ingested")
    yield Item("CloudWatch", "logs kept", logged * book.stack.log_days / book.assumed["daysAMonth"], "logs.stored")


def gateway_usd(book: Book, requests: float) -> float:
    """Return what API Gateway asks for so many requests in a month, by its tiers."""
    usd, below = 0.0, 0
    for up_to, price in book.prices["apigateway.request"]["tiers"]:
        in_tier = max(0.0, (requests if up_to is None else min(requests, up_to)) - below)
        usd, below = usd + in_tier * price / 1_000_000, up_to or 0
    return usd


def _stored_bytes(book: Book) -> float:
    kept = book.counted["storedBytes"]
    overhead = (kept["items"] + kept["entries"]) * book.assumed["itemOverheadBytes"]
    return float(kept["itemBytes"] + kept["entryBytes"] + overhead)


def _invocations(book: Book, steps: Sequence[str]) -> dict[str, float]:
    """Return invocations by door of a life's steps."""
    applied = sum(book.counted["steps"][step]["transactions"] for step in steps)
    return {
        "candidates": len(set(MESSAGES) & set(steps)) / book.assumed["messagesABatch"],
        "api": float(len(COMMANDS.keys() & set(steps))),
        "fanout": applied / book.assumed["recordsABatch"],
    }


def _lines(book: Book, step: str) -> float:
    counted = book.counted["logged"][step]
    return float(counted["bytes"] + counted["lines"] * book.assumed["lineOverheadBytes"])


def _platform(book: Book) -> float:
    return book.assumed["platformLogBytes"]


def _access(book: Book) -> float:
    return book.stack.access_line_bytes + book.assumed["lineOverheadBytes"]


def _logged_bytes(book: Book, steps: Sequence[str]) -> float:
    calls = _invocations(book, steps)
    own = sum(_lines(book, step) for step in steps) + calls["fanout"] * _lines(book, FANOUT)
    return own + sum(calls.values()) * _platform(book) + calls["api"] * _access(book)
