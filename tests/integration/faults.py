"""A fault proxy before the local engine, in this process: real bytes, real time-outs, real lost answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from microburst.app import make_app
from microburst.core.pipeline import Microburst

LOST = {"response": {"abort_bytes": 0}}


@dataclass(frozen=True)
class Proxy:
    """Forwards everything but what it was told to spoil."""

    endpoint_url: str
    microburst: Any

    def spoil(self, operation: str, times: int, fault: dict[str, Any]) -> None:
        """Spoil the next `times` requests of an operation, and no others."""
        rule = {"service": "dynamodb", "operation": operation, "times": times}
        self.microburst.engine.set_rules([rule | fault])

    def fired(self) -> int:
        return len(self.microburst.fired)


def cancelled(*codes: str) -> dict[str, Any]:
    """A cancelled transaction with one reason per item."""
    reasons = [{"Code": code} if code == "None" else {"Code": code, "Message": code} for code in codes]
    said = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{', '.join(codes)}]"
    return {
        "error": {
            "code": "TransactionCanceledException",
            "status": 400,
            "message": said,
            "fields": {"CancellationReasons": reasons},
        }
    }


@asynccontextmanager
async def proxy_before(endpoint_url: str) -> AsyncIterator[Proxy]:
    """Run a proxy on a free port of the loopback interface."""
    microburst = Microburst(endpoint_url, resign=False)
    runner = web.AppRunner(make_app(microburst))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield Proxy(f"http://{host}:{port}", microburst)
    finally:
        await runner.cleanup()
