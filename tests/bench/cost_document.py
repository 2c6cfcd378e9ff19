"""COSTS.md, written from what was counted and from the price file; nobody edits it by hand."""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

from tests.bench.cost_bill import KEPT, Book, Item, by_service, gateway_usd, of_a_bad_month, of_a_life, of_a_month, of_a_read
from tests.bench.cost_lifecycle import COMMANDS, LISTED, MESSAGES, MITIGATED, OPENED, RESOLVED, STEPS

RATES: Final = (26, 1000)
BUDGETS: Final = (50, 100)
MILLION: Final = 1_000_000
WIDTH: Final = 140
READERS: Final = 10_000


def usd(amount: float) -> str:
    return f"{amount:,.0f}" if amount >= 1000 else f"{amount:,.2f}"


def number(amount: float) -> str:
    return f"{amount:,.0f}" if amount == round(amount) or amount >= 1000 else f"{amount:,.1f}"


def paragraph(*sentences: str) -> list[str]:
    """Return sentences as one paragraph, wrapped like the other documents."""
    return [*textwrap.wrap(" ".join(sentences), WIDTH, break_long_words=False, break_on_hyphens=False), ""]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    right = ["---", *(["---:"] * (len(headings) - 1))]
    return [f"| {' | '.join(row)} |" for row in (headings, right, *rows)] + [""]


def document(book: Book, prices: dict[str, Any], name: str) -> str:
    """Return the whole of COSTS.md. `name`: the price file's."""
    life, month = list(of_a_life(book)), list(of_a_month(book))
    each, fixed = book.total(life), book.total(month)
    lines = [
        "# What it costs",
        "",
        *paragraph(
            "Written by `make cost` from counted units ([cost_counted.json](tests/bench/cost_counted.json)) and the prices",
            f"of {prices['region']} as of {prices['asOf']} ([{name}](infra/prices/{name}), which says of each where it was",
            "seen).",
            "US dollars, without free tiers, discounts and tax. A test counts again and holds this page against it.",
        ),
        *_in_short(book, each, fixed),
        *_bill(book, life, month),
        *_counted(book),
        *_fixed(book, month),
        *_reads(book),
        *_assumed(prices),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _in_short(book: Book, each: float, fixed: float) -> list[str]:
    lives = {
        "a whole life": each,
        "opened, mitigated, resolved": book.total(of_a_life(book, (OPENED, MITIGATED, RESOLVED))),
        "opened, and nothing more": book.total(of_a_life(book, (OPENED,))),
    }

    def rate(budget: float, life: float) -> str:
        return f"{max(0.0, (budget - fixed) / life / book.minutes):.0f} a minute"

    rows = [[f"{budget} a month", *(rate(budget, life) for life in lives.values())] for budget in BUDGETS]
    rows.append(["a million of them", *(usd(life * MILLION) for life in lives.values())])
    at = {many: usd(fixed + each * many * book.minutes) for many in RATES}
    slow, fast = RATES
    return [
        *paragraph(
            f"**A stack in use is {usd(fixed)} a month whatever it does, and a million whole lives are",
            f"{usd(each * MILLION)}.**",
            f"So {slow} lives a minute, day and night, are {at[slow]} a month, and {fast:,} a minute {at[fast]}.",
            f"What {BUDGETS[0]} and {BUDGETS[1]} dollars buy:",
        ),
        *table(["", *lives], rows),
        *paragraph(
            f"A whole life is a candidate that opens the incident, two that join it, one copy, {len(COMMANDS)} commands",
            "of a person by the HTTP API (mitigated, resolved, closed), and archiving:",
            f"{len(MESSAGES)} messages, {len(COMMANDS)} requests, {book.counted['events']} events. Each message is counted",
            "as if it came alone; a storm of one key costs far less, as each batch of it is one transaction.",
        ),
    ]


def _bill(book: Book, life: list[Item], month: list[Item]) -> list[str]:
    grows, stays = by_service(book, life), by_service(book, month)
    rows = []
    for service in dict.fromkeys([*grows, *stays]):
        each, fixed = grows.get(service, 0.0), stays.get(service, 0.0)
        rows.append([service, usd(each * MILLION), usd(fixed), *(usd(fixed + each * rate * book.minutes) for rate in RATES)])
    each, fixed = book.total(life), book.total(month)
    totals = (each * MILLION, fixed, *(fixed + each * rate * book.minutes for rate in RATES))
    rows.append(["**all**", *(f"**{usd(amount)}**" for amount in totals)])
    headings = ["", "a million lives", "fixed, a month", *(f"{rate:,} a minute, a month" for rate in RATES)]
    kept, export = grows[KEPT] * book.minutes, book.prices["dynamodb.export"]
    arm = replace(book, stack=replace(book.stack, architecture="arm64"))
    saved = (each - arm.total(of_a_life(arm))) * MILLION
    return [
        "## The bill",
        "",
        *table(headings, rows),
        *paragraph(
            f"*{KEPT}* is one month's history, kept for one month with its backups. Nothing is ever deleted, so it",
            f"comes again every month for all months before: at {RATES[0]} a minute each month adds {usd(kept * RATES[0])}",
            f"to every later bill, at {RATES[1]:,} a minute {usd(kept * RATES[1])}. An export of the tables is",
            f"{usd(export['usd'])} a GB. With the parameter `Architecture=arm64` a million lives are {usd(saved)} less.",
        ),
    ]


def _counted(book: Book) -> list[str]:
    rows = []
    for step in STEPS:
        one, logged = book.counted["steps"][step], book.counted["logged"][step]
        calls = ", ".join(f"{many} {call}" for call, many in one["calls"].items())
        units = (one["writeUnits"], one["refusedUnits"], one["indexUnits"], one["readUnits"])
        rows.append([step, calls, *(number(amount) for amount in units), number(logged["bytes"])])
    kept = book.counted["storedBytes"]
    headings = ["step", "calls", "write units", "of them refused", "index units", "read units", "bytes logged"]
    return [
        "## Counted",
        "",
        *table(headings, rows),
        *paragraph(
            f"Left in the tables: {kept['items']} items of {number(kept['itemBytes'])} bytes and {kept['entries']} index",
            f"entries of {number(kept['entryBytes'])}; on the bus {book.counted['events']} events of",
            f"{number(book.counted['eventBytes'])} bytes, the largest {number(book.counted['largestEventBytes'])}. Units",
            "are what the tables reported for what was applied, and what the request asked for where it was refused, which",
            "is how a process that has not met a key finds out that it is taken.",
        ),
    ]


def _fixed(book: Book, month: list[Item]) -> list[str]:
    rows = [
        [f"{item.service}: {item.what}", number(item.quantity), book.prices[item.price]["unit"], usd(book.usd(item))]
        for item in month
        if item.quantity
    ]
    return [
        "## Fixed, each month",
        "",
        *table(["", "quantity", "of", "USD"], rows),
        *paragraph(
            "CloudWatch charges a metric for the hours in which it is written, and some are written only in trouble. With",
            "every metric of every function and method in every hour it would be",
            f"{usd(book.total(of_a_bad_month(book)))} more.",
        ),
    ]


def _reads(book: Book) -> list[str]:
    read = list(of_a_read(book))
    million = book.total(read) * MILLION
    many = READERS * book.minutes * 60
    others = book.total(item for item in read if item.service != "API Gateway")
    month = gateway_usd(book, many) + others * many
    return [
        "## Reading",
        "",
        *paragraph(
            f"A million reads of an incident by the API are {usd(million)}; a list of {LISTED} of a service reads",
            f"{number(book.counted['read']['list'])} units instead of {number(book.counted['read']['incident'])}.",
            f"{READERS:,} clients that each ask once a second are {many / 1e9:,.1f} billion reads and {usd(month)} a month,",
            "API Gateway's volume tiers counted. Let programs subscribe to the bus, where an event costs the same however",
            "many hear of it, and let people read.",
        ),
    ]


def _assumed(prices: dict[str, Any]) -> list[str]:
    rows = [[name, number(one["value"]), one["why"]] for name, one in prices["assumptions"].items()]
    seen: dict[str, list[str]] = {}
    for name, price in prices["prices"].items():
        seen.setdefault(price["seen"], []).append(name)
    unverified = ", ".join(f"`{name}`" for name in seen.get("unverified", ()))
    return [
        "## Assumed",
        "",
        *(line.replace("| ---: | ---: |", "| ---: | --- |") for line in table(["", "value", "because"], rows)),
        *paragraph(
            f"Prices seen on AWS's own pages: {', '.join(f'`{name}`' for name in seen.get('aws', ()))}.",
            f"Not verified: {unverified}. The others stand on dated pages of others. Not counted: senders' and subscribers'",
            "own queues and functions, data transfer out, CloudTrail, deployments.",
        ),
    ]
