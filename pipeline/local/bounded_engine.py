"""The emulator as opx runs it, as a script of the engine's own interpreter: a function has a few processes and no more.

The emulator starts a process for every request that finds none free, fifty for fifty requests, and each takes a second of a
processor before it can answer: on two cores all of them then wait so long that calls between them time out. Here what finds
no free process waits for one. None of opx's functions calls another, so nobody waits for who waits for them.
"""

import time
from typing import Any

from ministack.app import main
from ministack.core import lambda_runtime
from ministack.services import lambda_svc

PROCESSES_MAX = 6
WAIT_S_MAX = 60.0
POLL_S = 0.005

_acquire = lambda_runtime.acquire_worker


def acquire_worker(func_name: str, config: dict[str, Any], code_zip: bytes, qualifier: str = "$LATEST", **_: Any) -> Any:
    """Lease a process of a function, as the emulator does; wait where all it may have are busy."""
    deadline = time.monotonic() + WAIT_S_MAX
    while True:
        worker, how = _acquire(func_name, config, code_zip, qualifier=qualifier, max_concurrency=PROCESSES_MAX)
        if worker is not None or time.monotonic() > deadline:
            return worker, how
        time.sleep(POLL_S)


if __name__ == "__main__":
    lambda_svc.acquire_worker = acquire_worker
    main()
