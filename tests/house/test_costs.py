"""COSTS.md against what it is made of: the last count, the newest price file, and the template as it stands."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.bench.cost import COUNTED, DOCUMENT, price_file, written
from tests.bench.cost_bill import Book, gateway_usd, of_a_bad_month, of_a_life, of_a_month, of_a_read
from tests.bench.cost_stack import stack

PRICES: dict[str, Any] = json.loads(price_file().read_text("utf-8"))
COUNT: dict[str, Any] = json.loads(COUNTED.read_text("utf-8"))


def book(**changed: Any) -> Book:
    assumed = {name: float(one["value"]) for name, one in PRICES["assumptions"].items()}
    return replace(Book(PRICES["prices"], assumed, COUNT, stack()), **changed)


def test_the_page_says_what_count_prices_and_template_say() -> None:
    assert DOCUMENT.read_text("utf-8") == written(COUNT), (
        "something that costs money has changed. Next: python -m tests.bench.cost --again"
    )


def test_every_price_says_where_and_when_it_was_seen() -> None:
    for name, price in PRICES["prices"].items():
        assert price["seen"] in ("aws", "other", "unverified"), name
        assert price["source"], name
        assert price["usd"] >= 0, name
        assert price["unit"], name
    assert price_file().name == f"{PRICES['region']}.{PRICES['asOf'][:7]}.json"


def test_every_item_of_the_bill_has_a_price_and_every_assumption_a_reason() -> None:
    items = [*of_a_life(book()), *of_a_month(book()), *of_a_bad_month(book()), *of_a_read(book())]
    assert all(item.price in PRICES["prices"] and item.quantity >= 0 for item in items)
    assert all(one["why"] for one in PRICES["assumptions"].values())


def test_a_dearer_unit_makes_a_dearer_bill() -> None:
    """Each price that a life or a month is made of is really in the sum: doubling it raises the total by its part."""
    plain = book()
    items = [*of_a_life(plain), *of_a_month(plain)]
    for name in {item.price for item in items}:
        dearer = book(prices=plain.prices | {name: plain.prices[name] | {"usd": plain.prices[name]["usd"] * 2}})
        part = plain.total(item for item in items if item.price == name)
        assert dearer.total(items) == pytest.approx(plain.total(items) + part)


def test_tiers_of_api_gateway_are_charged_from_where_they_begin() -> None:
    assert gateway_usd(book(), 1_000_000) == pytest.approx(3.50)
    assert gateway_usd(book(), 334_000_000) == pytest.approx(333 * 3.50 + 2.80)
    assert gateway_usd(book(), 25_000_000_000) == pytest.approx(333 * 3.50 + 667 * 2.80 + 19_000 * 2.38 + 5_000 * 1.51)


def test_what_is_there_each_month_is_counted_from_template_and_metrics() -> None:
    counted = stack()
    assert counted.polled_standard + counted.polled_fifo == 4, "candidates, alarms, Alertmanager, commands"
    assert counted.polled_fifo == 1
    assert counted.alarm_metrics > 10
    assert counted.metrics > len(counted.scheduled_metrics | set(COUNT["metrics"])) > 20
    assert counted.tables == 3
