"""When everything was last verified, and what came of it: one parameter beside the stack, which `opx status` shows."""

import json
from datetime import datetime

from pipeline.cli.session import Invocation, open_session
from pipeline.domain.canonical import Document, format_time
from pipeline.domain.errors import Unavailable
from pipeline.stores.clients import translated


async def remember(invocation: Invocation, at: datetime, verification: Document) -> None:
    """Write what a whole verification came to where `opx status` reads it. Whoever may not is told, and has verified."""
    kept = {
        "at": format_time(at),
        "scope": verification["scope"],
        "incidents": verification["incidents"],
        "events": verification["events"],
        "divergences": verification["divergences"],
        "took_s": verification["tookS"],
    }
    async with open_session(invocation.selection, "ssm") as session:
        name = session.target.outputs.get("LastVerifyParameterName")
        if name is None:
            return
        try:
            with translated("writing when it was verified"):
                await session.clients.ssm.put_parameter(Name=name, Value=json.dumps(kept), Type="String", Overwrite=True)
        except Unavailable as error:
            invocation.screen.notice(f"That it was verified could not be written down: {error}")
