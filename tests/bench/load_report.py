"""The tables of a load, and the arithmetic from what this machine did to ten thousand reads a second on AWS."""

import os
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from pipeline.domain.ids import SERVICE_SHARDS
from tests.bench import load_inside
from tests.bench.load_plan import ACTED, DUPLICATE, DUPLICATES, FRESH, JOIN, JOINS, MITIGATE, RESOLVE
from tests.bench.load_proof import Claim
from tests.bench.load_readers import GET, LIST, PAGE
from tests.bench.load_samples import Samples, quantile
from tests.bench.load_writers import INSIDE, OPENED

if TYPE_CHECKING:
    from tests.bench.load import Measured

READS_WANTED: Final = 10_000
WITHIN_MS: Final = 100
HEADINGS: Final = ("operation", "count", "p50", "p90", "p99", "max", "errors")
WRITES: Final = (FRESH, JOIN, DUPLICATE, MITIGATE, RESOLVE)
DEPTHS_SHOWN: Final = 12
# What an account may do in us-east-1 by default, as AWS documents the quotas of API Gateway, Lambda and DynamoDB.
GATEWAY_RATE: Final = 10_000
LAMBDA_AT_ONCE: Final = 1_000
LAMBDA_RATE_EACH: Final = 10
PARTITION_READS: Final = 3_000
TABLE_READS: Final = 40_000
LIST_UNITS: Final = SERVICE_SHARDS * 0.5 + PAGE


def unsent(measured: "Measured") -> int:
    """Return how many messages the queues did not take."""
    errors = measured.written.errors.values()
    return sum(many for of_one in errors for kind, many in of_one.items() if kind.startswith("not sent"))


def show(measured: "Measured", proved: Sequence[Claim], say: Console) -> None:
    size, counts = measured.size, measured.plan.counts
    say.print(
        f"\n[bold]Load[/]  LOAD_SEED={size.seed}, {platform.machine()}, {os.cpu_count()} processors shared by emulator, "
        f"functions and the load itself, Python {platform.python_version()}"
    )
    say.print(
        f"{size.rate:,} incidents a minute for {size.minutes:g} min: {counts[FRESH]:,} fresh keys; of each incident on "
        f"average {JOINS:g} joins ({counts[JOIN]:,}), {DUPLICATES:g} copies ({counts[DUPLICATE]:,}), and {ACTED:.0%} are "
        f"mitigated and resolved ({2 * len(measured.plan.acted):,} commands). "
        "Times count from when a message was due, waiting included."
    )
    _writes(measured, say)
    _depths(measured, say)
    _reads(measured, say)
    if measured.clients_alone:
        _whereto(measured, say)
        _on_aws(measured, say)
    _proof(proved, say)


def _table(title: str, samples: Samples, operations: Sequence[str]) -> Table:
    table = Table(*HEADINGS, title=f"{title} (milliseconds)")
    for operation in operations:
        table.add_row(operation, *samples.row(operation))
    return table


def _writes(measured: "Measured", say: Console) -> None:
    say.print(
        _table("Writers: from due to settled, by the functions' own lines", measured.written, (*WRITES, OPENED, *INSIDE))
    )
    if lags := sorted(measured.fanout_lag_ms):
        say.print(
            f"Fan-out: {measured.published:,} events published, from commit to bus p50 {quantile(lags, 0.5):,.0f} ms, "
            f"p99 {quantile(lags, 0.99):,.0f} ms (FanoutLag)"
        )
    settled = sum(len(measured.written.taken_ms[kind]) for kind in WRITES)
    calls = sum(measured.invocations.values())
    if calls:
        say.print(f"{settled:,} messages in {calls:,} invocations: {settled / calls:.1f} each")


def _depths(measured: "Measured", say: Console) -> None:
    table = Table("after", "candidates", "commands", title="Messages in the queues")
    step = max(1, len(measured.depths) // DEPTHS_SHOWN)
    for at_s, candidates, commands in measured.depths[::step]:
        table.add_row(f"{at_s:,.0f} s", f"{candidates:,}", f"{commands:,}")
    say.print(table)
    during = [candidates + commands for at_s, candidates, commands in measured.depths if at_s <= measured.write_s]
    third = len(during) // 3
    if third:
        first, last = (sum(part) / third for part in (during[:third], during[-third:]))
        # One second's arrivals are on their way at any moment.
        grew = last > first + len(measured.plan.arrivals) / measured.plan.seconds
        verdict = "the queues grew: this machine does not keep up" if grew else "the queues did not grow"
        say.print(f"On average {first:,.0f} in the first third, {last:,.0f} in the last: {verdict}.")
    say.print(f"Sent for {measured.write_s:,.0f} s; all was worked off {measured.drain_s:,.1f} s later.")


def _reads(measured: "Measured", say: Console) -> None:
    if measured.clients_beside:
        title = f"{measured.clients_beside:,} readers beside the writers: from due to answered"
        say.print(_table(title, measured.beside, (GET, LIST)))
    if measured.clients_alone:
        say.print(_table(f"{measured.clients_alone:,} readers alone: from due to answered", measured.alone, (GET, LIST)))
        say.print(_table("One reader at a time, nobody else", measured.single, (GET, LIST)))
        for operation, inside in measured.inside_ms.items():
            if inside:
                took = quantile(sorted(inside), 0.99)
                verdict = "below" if took < WITHIN_MS else "not below"
                say.print(f"{operation}: p99 in our function {took:,.0f} ms, {verdict} the {WITHIN_MS} ms that are promised")


def _whereto(measured: "Measured", say: Console) -> None:
    ours = load_inside.milliseconds()
    table = Table(
        "of one read (p50, ms)",
        "whole",
        "in our function",
        "our code alone",
        title="Where the time goes, one reader at a time",
    )
    for operation in (GET, LIST):
        whole, inside = sorted(measured.single.taken_ms[operation]), sorted(measured.inside_ms.get(operation, ()))
        if whole and inside:
            row = (quantile(whole, 0.5), quantile(inside, 0.5), ours[operation])
            table.add_row(operation, *(f"{value:,.2f}" for value in row))
    say.print(table)
    say.print(
        "In our function: its ApiLatency, tables of the emulator included. Our code alone: the same door over the memory "
        "store. The rest of the whole is the emulator's gateway and the client."
    )
    for phase, (work, seconds) in measured.work.items():
        say.print(
            f"{phase.capitalize()}: of {seconds * (os.cpu_count() or 1):,.0f} processor seconds the emulator took "
            f"{work.emulator:,.0f}, our functions {work.functions:,.0f}, the load itself {work.load:,.0f}"
        )


def _on_aws(measured: "Measured", say: Console) -> None:
    """Print what ten thousand reads a second are made of, from this run's figures."""
    inside = measured.inside_ms.get(GET) or [0.0]
    each_ms = sum(inside) / len(inside)
    at_once = READS_WANTED * each_ms / 1000
    answered = measured.most_reads
    facts = (
        f"This machine answers {answered:,.0f} reads a second at most: {answered / READS_WANTED:.1%} of {READS_WANTED:,}.",
        f"API Gateway: an account's default is {GATEWAY_RATE:,} requests a second in a region, for all its APIs together; "
        f"{READS_WANTED:,} readers need all of it, so ask for more. The template's ApiRateLimit is per route.",
        f"Lambda: executions at once = rate × duration = {READS_WANTED:,}/s × {each_ms:,.1f} ms (mean of GET here, with the "
        f"emulator's tables) = {at_once:,.0f}; the default is {LAMBDA_AT_ONCE:,}. But each execution counts for "
        f"{LAMBDA_RATE_EACH} requests a second at most: {LAMBDA_AT_ONCE:,} × {LAMBDA_RATE_EACH} = "
        f"{LAMBDA_AT_ONCE * LAMBDA_RATE_EACH:,}/s, the whole of the default.",
        f"DynamoDB: GET is one consistent read of a row below 4 KB, 1 unit. {READS_WANTED:,}/s are {READS_WANTED:,} units/s "
        f"of {TABLE_READS:,} that a table may use by default. One row lies in one partition, which gives "
        f"{PARTITION_READS:,} units/s: so many readers of one incident and no more; spread over "
        f"{-(-READS_WANTED // PARTITION_READS)} incidents or more (in different partitions) all are served.",
        f"A list of a service is {SERVICE_SHARDS} queries of half a unit, one to each of its index partitions, and its "
        f"page's rows by key: {LIST_UNITS:g} units for {PAGE} rows. If every read were such a list: {READS_WANTED:,} × "
        f"{LIST_UNITS:g} = {READS_WANTED * LIST_UNITS:,.0f} units/s, over the table's default; and of one service no "
        f"more than {PARTITION_READS / 0.5:,.0f}/s, whatever the table may do. Ten thousand who list everything each second "
        "are not served; a subscription to the bus tells them what changed, without a read.",
    )
    say.print(f"\n[bold]{READS_WANTED:,} readers on AWS")
    for fact in facts:
        say.print(f"  · {fact}")


def _proof(proved: Sequence[Claim], say: Console) -> None:
    table = Table("what must hold", "", "found", title="Proof")
    for claim in proved:
        table.add_row(claim.says, "✓" if claim.holds else "✗", claim.found)
    say.print(table)
    if not all(claim.holds for claim in proved):
        say.print("[bold]Something was lost, or is there that should not be.")
