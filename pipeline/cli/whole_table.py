"""Reading all of the event table: what that costs is said before, and where it is much, somebody must agree."""

from typing import Final

from pipeline.cli.session import Invocation
from pipeline.cli.terminal import REFUSED, CommandError
from pipeline.stores.event_scan import TableSize

LARGE_BYTES: Final = 1 << 30
# On demand, us-east-1, November 2025.
READ_UNITS_USD_PER_MILLION: Final = 0.125


def agree_to_read(invocation: Invocation, size: TableSize, told: str, remedy: str, *, yes: bool) -> None:
    """Tell what it costs; raise where the table is large and nobody agrees, with what to do instead as the remedy."""
    if size.size_bytes:
        invocation.screen.notice(told)
    if size.size_bytes > LARGE_BYTES and not yes:
        answer = None if invocation.screen.as_json else invocation.around.ask("Read all of it?")
        if not answer:
            message = "The table is large, and nothing was read." if answer is None else "Nothing was read."
            raise CommandError(message, remedy, REFUSED)


def cost_of(size: TableSize) -> str:
    """Return in words what there is to be read, and its price."""
    usd = size.read_units * READ_UNITS_USD_PER_MILLION / 1e6
    return (
        f"about {size.events} events in {size.size_bytes / 2**20:.0f} MiB, "
        f"{size.read_units} read units, {usd:.2f} USD in us-east-1"
    )
